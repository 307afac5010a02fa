//! What the driver's tests share: a small problem, and a backend that is slow to answer or fails on demand.
#![allow(dead_code, missing_docs)]

use blockllm::adam::Hyper;
use blockllm::backend::{Arena, Backend, Measure, Moment, Seal, Work};
use blockllm::moments::Region;
use blockllm::reference::HostBuffer;
use blockllm::{
    BackendError, BlockId, BlockSpec, Config, DType, ErrorKind, Fill, Info, MaskKind, Optimizer, Reference, Step, View, ViewMut,
    VisitBias,
};
use std::fmt;

pub const SIZES: [usize; 6] = [40, 7, 90, 33, 64, 20];

pub fn specs() -> Vec<BlockSpec> {
    SIZES.iter().enumerate().map(|(i, &n)| BlockSpec::new(format!("w{i}"), [1, n])).collect()
}

pub fn mix(x: u64) -> u64 {
    let z = (x.wrapping_add(0x9E37_79B9_7F4A_7C15) ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// In [-1, 1), a function of its arguments.
pub fn noise(step: u64, block: usize, i: usize) -> f32 {
    (mix(step << 40 ^ (block as u64) << 24 ^ i as u64) >> 40) as f32 / (1u64 << 23) as f32 - 1.0
}

pub fn gradients(step: u64) -> Vec<Vec<f32>> {
    SIZES.iter().enumerate().map(|(b, &n)| (0..n).map(|i| noise(step, b, i) * (1.0 + b as f32)).collect()).collect()
}

pub fn parameters() -> Vec<Vec<f32>> {
    gradients(0)
}

pub fn bits(params: &[Vec<f32>]) -> Vec<Vec<u32>> {
    params.iter().map(|p| p.iter().map(|x| x.to_bits()).collect()).collect()
}

pub fn views(params: &mut [Vec<f32>]) -> Vec<(BlockId, ViewMut<'_>)> {
    params.iter_mut().enumerate().map(|(b, p)| (b as BlockId, ViewMut::F32(p))).collect()
}

pub fn optimizer(config: Config) -> Optimizer<Reference> {
    Optimizer::new(Reference::default(), &specs(), config).unwrap()
}

/// Whole steps from `from` on, with falling and rising losses.
pub fn run<B>(o: &mut Optimizer<B>, params: &mut [Vec<f32>], steps: std::ops::Range<u64>)
where
    B: for<'a> Backend<Param<'a> = ViewMut<'a>, Grad<'a> = View<'a>>,
{
    for t in steps {
        let g = gradients(t + 1);
        let step = Step::new(0.01).loss(2.0 - (t % 7) as f64 * 0.1);
        let _ = o.step(step, |b| Some(View::F32(&g[b as usize])), &mut views(params)).unwrap();
        o.wait().unwrap();
    }
}

#[derive(Debug, PartialEq)]
pub struct Lost;

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the device is lost")
    }
}

impl BackendError for Lost {
    fn kind(&self) -> ErrorKind {
        ErrorKind::DeviceLost
    }
}

/// The reference, but readbacks take some polls and operations fail while `lost`.
#[derive(Default, Debug)]
pub struct Slow {
    pub inner: Reference,
    pub latency: usize,
    pub lost: bool,
    /// Fails the update of this block alone.
    pub fails_at: Option<BlockId>,
    pub allocations: usize,
    pub reads: usize,
    pub submissions: usize,
}

impl Slow {
    fn up<R>(&mut self, f: impl FnOnce(&mut Reference) -> R) -> Result<R, Lost> {
        if self.lost { Err(Lost) } else { Ok(f(&mut self.inner)) }
    }
}

fn done(r: Result<Result<(), blockllm::reference::HostError<std::convert::Infallible>>, Lost>) -> Result<(), Lost> {
    r.map(|r| r.unwrap())
}

impl Backend for Slow {
    type Error = Lost;
    type Buffer = HostBuffer;
    type Ticket = (HostBuffer, usize);
    type Param<'a> = ViewMut<'a>;
    type Grad<'a> = View<'a>;

    fn param_info(p: &ViewMut<'_>) -> Info {
        p.as_view().info()
    }

    fn grad_info(g: &View<'_>) -> Info {
        g.info()
    }

    fn alloc(&mut self, dtype: DType, len: usize) -> Result<HostBuffer, Lost> {
        self.allocations += usize::from(len > 0);
        self.up(|b| b.alloc(dtype, len).unwrap())
    }

    fn copy(&mut self, from: &HostBuffer, to: &mut HostBuffer, len: usize) -> Result<(), Lost> {
        done(self.up(|b| b.copy(from, to, len)))
    }

    fn write(&mut self, to: &mut HostBuffer, at: usize, from: View<'_>) -> Result<(), Lost> {
        done(self.up(|b| b.write(to, at, from)))
    }

    fn read(&mut self, from: &HostBuffer, at: usize, len: usize) -> Result<(HostBuffer, usize), Lost> {
        self.reads += 1;
        let latency = self.latency;
        self.up(|b| (b.read(from, at, len).unwrap(), latency))
    }

    fn poll(&mut self, ticket: &mut (HostBuffer, usize), to: ViewMut<'_>) -> Result<bool, Lost> {
        if self.lost {
            return Err(Lost);
        }
        if ticket.1 > 0 {
            ticket.1 -= 1;
            return Ok(false);
        }
        Ok(self.inner.poll(&mut ticket.0, to).unwrap())
    }

    fn zero(&mut self, buffer: &mut HostBuffer, at: usize, len: usize) -> Result<(), Lost> {
        done(self.up(|b| b.zero(buffer, at, len)))
    }

    fn score(
        &mut self, a: &mut Arena<HostBuffer>, block: BlockId, g: &View<'_>, h: &Hyper, measure: Measure<'_>,
    ) -> Result<(), Lost> {
        done(self.up(|b| b.score(a, block, g, h, measure)))
    }

    fn build_mask(&mut self, a: &mut Arena<HostBuffer>, r: &Region, g: &View<'_>, kind: MaskKind) -> Result<(), Lost> {
        done(self.up(|b| b.build_mask(a, r, g, kind)))
    }

    fn gather(&mut self, a: &mut Arena<HostBuffer>, r: &Region, g: &View<'_>, add: bool) -> Result<(), Lost> {
        done(self.up(|b| b.gather(a, r, g, add)))
    }

    fn state_free(
        &mut self, a: &mut Arena<HostBuffer>, r: &Region, g: &View<'_>, p: &mut ViewMut<'_>, h: &Hyper,
    ) -> Result<(), Lost> {
        done(self.up(|b| b.state_free(a, r, g, p, h)))
    }

    fn seal(&mut self, a: &mut Arena<HostBuffer>, w: &Work<'_>, part: Seal) -> Result<(), Lost> {
        done(self.up(|b| b.seal(a, w, part)))
    }

    fn enter_scores(&mut self, a: &mut Arena<HostBuffer>, w: &Work<'_>) -> Result<(), Lost> {
        done(self.up(|b| b.enter_scores(a, w)))
    }

    fn clear(&mut self, a: &mut Arena<HostBuffer>, r: &Region) -> Result<(), Lost> {
        done(self.up(|b| b.clear(a, r)))
    }

    fn carry(&mut self, a: &mut Arena<HostBuffer>, moment: Moment, old: Option<&Region>, new: &Region) -> Result<(), Lost> {
        done(self.up(|b| b.carry(a, moment, old, new)))
    }

    fn update(
        &mut self, a: &mut Arena<HostBuffer>, r: &Region, old: Option<&Region>, p: &mut ViewMut<'_>, h: &Hyper,
    ) -> Result<(), Lost> {
        if self.fails_at == Some(r.block) {
            return Err(Lost);
        }
        done(self.up(|b| b.update(a, r, old, p, h)))
    }

    fn submit(&mut self) -> Result<(), Lost> {
        self.submissions += 1;
        self.up(|_| ())
    }
}

/// BlockLLM by the loss, the rest frozen, moments reset; masks in the last block and visits as in the paper.
pub fn near_the_paper() -> Config {
    Config { fill: Fill::LastMasked, visit_bias: VisitBias::Ratio, ..Config::published_code() }
}
