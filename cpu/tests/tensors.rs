//! Tensors of a framework: on which threads they are reached, and what becomes of its errors.

mod common;

use blockllm::{BackendError, BlockSpec, Config, Error, ErrorKind, HostTensors, Info, Optimizer, Step, View, ViewMut};
use blockllm_cpu::{Cpu, CpuError};
use common::pool;
use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};
use std::thread::{self, ThreadId};

/// A framework whose access says who came, and fails where it is told to.
struct Framework;

struct Tensor {
    elements: Vec<f32>,
    fails: bool,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Unreachable;

impl std::fmt::Display for Unreachable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the storage is elsewhere")
    }
}

static CAME: Mutex<Vec<ThreadId>> = Mutex::new(Vec::new());

/// One test at a time looks at who came.
static ALONE: Mutex<()> = Mutex::new(());

fn come(t: &Tensor) -> Result<(), Unreachable> {
    CAME.lock().unwrap().push(thread::current().id());
    if t.fails { Err(Unreachable) } else { Ok(()) }
}

impl HostTensors for Framework {
    type Error = Unreachable;
    type Param<'a> = &'a mut Tensor;
    type Grad<'a> = &'a Tensor;

    fn param_info(p: &&mut Tensor) -> Info {
        View::F32(&p.elements).info()
    }

    fn grad_info(g: &&Tensor) -> Info {
        View::F32(&g.elements).info()
    }

    fn read<R>(g: &&Tensor, f: impl FnOnce(View<'_>) -> R) -> Result<R, Unreachable> {
        come(g).map(|()| f(View::F32(&g.elements)))
    }

    fn modify<R>(p: &mut &mut Tensor, f: impl FnOnce(ViewMut<'_>) -> R) -> Result<R, Unreachable> {
        come(p).map(|()| f(ViewMut::F32(&mut p.elements)))
    }
}

fn tensors(n: usize) -> Vec<Tensor> {
    (0..3).map(|_| Tensor { elements: vec![0.5; n], fails: false }).collect()
}

type Failure = Error<CpuError<Unreachable>>;

/// A step of AdamW over three blocks; who came.
fn step(cpu: Cpu<Framework>, g: &[Tensor], p: &mut [Tensor]) -> Result<HashSet<ThreadId>, Failure> {
    let specs: Vec<_> =
        (0..).zip(p.iter()).map(|(i, p): (u32, _)| BlockSpec::new(format!("w{i}"), [1, p.elements.len()])).collect();
    let mut o = Optimizer::new(cpu, &specs, Config::adamw())?;
    CAME.lock().unwrap().clear();
    let mut params: Vec<_> = (0..).zip(p.iter_mut()).collect();
    let progress = o.step(Step::new(0.1), |b| Some(&g[b as usize]), &mut params);
    progress.map(|_| CAME.lock().unwrap().drain(..).collect())
}

#[test]
fn an_error_of_the_tensors_is_the_backends() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    for (threads, n) in [(1, 10), (2, 10), (2, 4096)] {
        for parameter in [false, true] {
            let (mut g, mut p) = (tensors(n), tensors(n));
            let failing = if parameter { &mut p } else { &mut g };
            failing[1].fails = true;
            match step(Cpu::in_pool(pool(threads)).grain(1024), &g, &mut p) {
                Err(error @ Error::Backend { error: CpuError::Tensor(Unreachable), .. }) => {
                    assert_eq!(error.to_string(), "step: the storage is elsewhere");
                    let Error::Backend { error, .. } = error else { unreachable!() };
                    assert_eq!(error.kind(), ErrorKind::Tensor);
                }
                other => panic!("{threads} threads, n {n}, parameter {parameter}: {other:?}"),
            }
        }
    }
}

#[test]
fn small_work_stays_on_the_thread_that_calls() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    // All three blocks together, gradient and update, are at most one grain.
    let came = step(Cpu::in_pool(pool(7)), &tensors(5000), &mut tensors(5000)).unwrap();
    assert_eq!(came, HashSet::from([thread::current().id()]));
}

#[test]
fn large_work_goes_to_the_pool_that_was_given() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let pool = pool(2);
    let workers: HashSet<_> = pool.broadcast(|_| thread::current().id()).into_iter().collect();
    let came = step(Cpu::in_pool(pool), &tensors(20_000), &mut tensors(20_000)).unwrap();
    assert!(!came.is_empty() && came.is_subset(&workers), "{came:?} of {workers:?}");
}

#[test]
fn without_a_pool_work_goes_to_the_one_it_is_called_in() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let pool = pool(2);
    let workers: HashSet<_> = pool.broadcast(|_| thread::current().id()).into_iter().collect();
    let came = pool.install(|| step(Cpu::new(), &tensors(20_000), &mut tensors(20_000)).unwrap());
    assert!(came.is_subset(&workers), "{came:?} of {workers:?}");
    // Called elsewhere: rayon's global pool.
    let came = step(Cpu::new(), &tensors(20_000), &mut tensors(20_000)).unwrap();
    assert!(came.is_disjoint(&workers));
}

#[test]
fn memory_that_is_not_there_is_an_error() {
    use blockllm::{Backend, DType};
    let error = Cpu::<Framework>::new().alloc(DType::F32, 1 << 60).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OutOfMemory);
    assert_eq!(error.to_string(), "no memory for 1152921504606846976 elements of f32");
}

#[test]
fn an_optimizer_may_change_threads() {
    fn assert_send<T: Send>(_: Option<T>) {}
    assert_send(None::<Optimizer<Cpu>>);
    assert_send(None::<Optimizer<Cpu<Framework>>>);
}
