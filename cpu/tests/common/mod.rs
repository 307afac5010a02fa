//! The backend as a harness, on pools of 1, 2 and 7 threads, with the smallest grain: small data is cut too.
#![allow(dead_code)]

use blockllm::{DType, View, ViewMut};
use blockllm_conformance::harness::{self, Agreement, Harness};
use blockllm_conformance::host::Host;
use blockllm_cpu::Cpu;
use half::{bf16, f16};
use rayon::{ThreadPool, ThreadPoolBuilder};
use std::ops::Range;
use std::sync::{Arc, LazyLock};

/// Tensors begin at an odd offset, between elements that are nobody's.
const MARGIN: usize = 3;
const NOBODYS: f64 = -12_345.0;

static POOLS: LazyLock<[Arc<ThreadPool>; 3]> =
    LazyLock::new(|| [1, 2, 7].map(|threads| Arc::new(ThreadPoolBuilder::new().num_threads(threads).build().expect("threads"))));

/// The pool of so many threads.
pub fn pool(threads: usize) -> Arc<ThreadPool> {
    let pools = POOLS.iter();
    pools.clone().find(|pool| pool.current_num_threads() == threads).expect("1, 2 or 7").clone()
}

/// The backend on so many threads, which take so many coordinates at a time.
#[derive(Clone, Copy, Debug, Default)]
pub struct Threads<const THREADS: usize, const GRAIN: usize>;

/// Elements in the middle of a larger allocation.
#[derive(Clone, Debug)]
pub struct Inside(Host);

impl Inside {
    fn run(&self) -> Range<usize> {
        MARGIN..self.0.len() - MARGIN
    }

    pub fn view(&self) -> View<'_> {
        let run = self.run();
        match self.0.view() {
            View::F16(x) => View::F16(&x[run]),
            View::Bf16(x) => View::Bf16(&x[run]),
            View::F32(x) => View::F32(&x[run]),
            View::F64(x) => View::F64(&x[run]),
            other => unreachable!("{}", other.dtype()),
        }
    }

    pub fn view_mut(&mut self) -> ViewMut<'_> {
        let run = self.run();
        match self.0.view_mut() {
            ViewMut::F16(x) => ViewMut::F16(&mut x[run]),
            ViewMut::Bf16(x) => ViewMut::Bf16(&mut x[run]),
            ViewMut::F32(x) => ViewMut::F32(&mut x[run]),
            ViewMut::F64(x) => ViewMut::F64(&mut x[run]),
            other => unreachable!("{}", other.as_view().dtype()),
        }
    }
}

impl<const THREADS: usize, const GRAIN: usize> Harness for Threads<THREADS, GRAIN> {
    const NAME: &'static str = "cpu";
    const AGREEMENT: Agreement = Agreement::Bits;
    type Backend = Cpu;
    type Tensor = Inside;

    fn open() -> Result<Self, String> {
        Ok(Self)
    }

    fn backend(&mut self) -> Cpu {
        Cpu::in_pool(pool(THREADS)).grain(GRAIN)
    }

    fn supports(dtype: DType) -> bool {
        dtype.compute().is_some()
    }

    fn upload(&mut self, x: View<'_>) -> Inside {
        macro_rules! inside {
            ($x:expr, $nobodys:expr) => {{
                let margin = [$nobodys; MARGIN];
                [&margin, $x, &margin].concat()
            }};
        }
        Inside(match x {
            View::F16(x) => Host::F16(inside!(x, f16::from_f64(NOBODYS))),
            View::Bf16(x) => Host::Bf16(inside!(x, bf16::from_f64(NOBODYS))),
            View::F32(x) => Host::F32(inside!(x, NOBODYS as f32)),
            View::F64(x) => Host::F64(inside!(x, NOBODYS)),
            other => unreachable!("a tensor of {}", other.dtype()),
        })
    }

    fn download(&mut self, _: &mut Cpu, t: &Inside) -> Host {
        let nobodys = Host::from_doubles([NOBODYS; 2 * MARGIN].into_iter(), t.0.dtype()).bits();
        let bits = t.0.bits();
        let margins = [&bits[..MARGIN], &bits[bits.len() - MARGIN..]].concat();
        assert_eq!(margins, nobodys, "elements around a tensor were written to");
        Host::from_view(t.view())
    }

    fn param(t: &mut Inside) -> ViewMut<'_> {
        t.view_mut()
    }

    fn grad(t: &Inside) -> View<'_> {
        t.view()
    }

    /// It works at the call: nothing is submitted.
    fn counts(backend: &Cpu) -> harness::Counts {
        let made = backend.counts();
        harness::Counts { allocations: made.allocations, submissions: 0, readbacks: made.readbacks }
    }
}
