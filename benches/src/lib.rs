//! A backend that does nothing, so that what is timed and counted is the engine's own part.
//!
//! `cargo bench -p blockllm-benches` times steps (`driver`) and decisions (`decision`); the tests count what a step looks at.

use blockllm::adam::Hyper;
use blockllm::backend::{Arena, Backend, Measure, Moment, Parameter, Seal, Work};
use blockllm::moments::Region;
use blockllm::{BlockId, BlockSpec, Config, DType, Info, MaskKind, Optimizer, View, ViewMut, Wanted};
use core::convert::Infallible;
use std::cell::Cell;

/// Coordinates of every block of a [`problem`].
pub const COLUMNS: usize = 8;

/// Blocks named as a transformer's are, of a few coordinates each: layers of seven, four of attention and three of MLP.
pub fn problem(blocks: usize) -> Vec<BlockSpec> {
    let category = |i: usize| if i % 7 < 4 { "attention" } else { "mlp" };
    (0..blocks)
        .map(|i| BlockSpec::new(format!("layer{}.w{}", i / 7, i % 7), [1, COLUMNS]).layer(i as u32 / 7, category(i)))
        .collect()
}

/// An optimizer over [`Null`] with so many blocks of them active at once as `config.sparsity` leaves.
///
/// # Panics
/// Where the configuration is refused.
pub fn optimizer(blocks: usize, config: Config) -> Optimizer<Null> {
    Optimizer::new(Null::default(), &problem(blocks), config).expect("a problem that fits")
}

/// The sparsity that leaves `active` of `blocks` equal blocks.
pub fn sparsity(active: usize, blocks: usize) -> f64 {
    1.0 - active as f64 / blocks as f64
}

/// A tensor that is not there: how long it would be. Counts the looks that are taken at it.
#[derive(Clone, Copy, Debug)]
pub struct Tensor<'a> {
    looks: &'a Cell<usize>,
}

impl<'a> Tensor<'a> {
    /// One that adds to this count.
    pub fn new(looks: &'a Cell<usize>) -> Self {
        Self { looks }
    }

    fn info(&self) -> Info {
        self.looks.set(self.looks.get() + 1);
        Info { len: COLUMNS, dtype: DType::F32, contiguous: true }
    }
}

/// A backend without memory. What it is asked to do is counted.
#[derive(Default, Debug)]
pub struct Null {
    /// Calls of any operation, `submit` and `poll` left out.
    pub calls: usize,
    /// Bytes that were asked for, freed ones included.
    pub bytes: usize,
}

impl Null {
    fn call(&mut self) -> Result<(), Infallible> {
        self.calls += 1;
        Ok(())
    }
}

impl Backend for Null {
    type Error = Infallible;
    type Buffer = ();
    type Ticket = ();
    type Param<'a> = Tensor<'a>;
    type Grad<'a> = Tensor<'a>;

    fn param_info(p: &Tensor<'_>) -> Info {
        p.info()
    }

    fn grad_info(g: &Tensor<'_>) -> Info {
        g.info()
    }

    fn alloc(&mut self, dtype: DType, len: usize) -> Result<(), Infallible> {
        self.bytes += dtype.size() * len;
        self.call()
    }

    fn zero(&mut self, (): &mut (), _: usize, _: usize) -> Result<(), Infallible> {
        self.call()
    }

    fn copy(&mut self, (): &(), (): &mut (), _: usize) -> Result<(), Infallible> {
        self.call()
    }

    fn write(&mut self, (): &mut (), _: usize, _: View<'_>) -> Result<(), Infallible> {
        self.call()
    }

    fn read(&mut self, (): &(), _: usize, _: usize) -> Result<(), Infallible> {
        self.call()
    }

    /// A table in which every unit has a score, each another one; words that are zero.
    fn poll(&mut self, (): &mut (), to: ViewMut<'_>) -> Result<bool, Infallible> {
        if let ViewMut::F64(table) = to {
            for (i, row) in table.as_chunks_mut::<3>().0.iter_mut().enumerate() {
                *row = [1.0 + (i * 7919 % 10_007) as f64, COLUMNS as f64, 1.0];
            }
        }
        Ok(true)
    }

    fn score(&mut self, _: &mut Arena<()>, _: BlockId, _: &Tensor<'_>, _: &Hyper, _: Measure<'_>) -> Result<(), Infallible> {
        self.call()
    }

    fn build_mask(&mut self, _: &mut Arena<()>, _: &Region, _: &Tensor<'_>, _: MaskKind) -> Result<(), Infallible> {
        self.call()
    }

    fn gather(&mut self, _: &mut Arena<()>, _: &Region, _: &Tensor<'_>, _: bool) -> Result<(), Infallible> {
        self.call()
    }

    fn state_free(
        &mut self, _: &mut Arena<()>, _: &Region, _: &Tensor<'_>, _: &mut Tensor<'_>, _: &Hyper,
    ) -> Result<(), Infallible> {
        self.call()
    }

    fn seal(&mut self, _: &mut Arena<()>, _: &Work<'_>, _: Seal) -> Result<(), Infallible> {
        self.call()
    }

    fn enter_scores(&mut self, _: &mut Arena<()>, _: &Work<'_>) -> Result<(), Infallible> {
        self.call()
    }

    fn clear(&mut self, _: &mut Arena<()>, _: &Region) -> Result<(), Infallible> {
        self.call()
    }

    fn carry(&mut self, _: &mut Arena<()>, _: Moment, _: Option<&Region>, _: &Region) -> Result<(), Infallible> {
        self.call()
    }

    fn update(
        &mut self, _: &mut Arena<()>, _: &Region, _: Option<&Region>, _: &mut Tensor<'_>, _: &Hyper,
    ) -> Result<(), Infallible> {
        self.call()
    }

    // What a fast backend overrides: its kernels walk the blocks, not the driver.

    fn deliver(
        &mut self, _: &mut Arena<()>, _: &Work<'_>, _: &Wanted, _: &Tensor<'_>, _: Option<&mut Tensor<'_>>,
    ) -> Result<(), Infallible> {
        self.call()
    }

    fn finish(&mut self, _: &mut Arena<()>, _: &Work<'_>, _: &mut [Parameter<Tensor<'_>>]) -> Result<(), Infallible> {
        self.call()
    }

    fn whole<'g>(
        &mut self, _: &mut Arena<()>, _: &Work<'_>, _: &dyn Fn(BlockId) -> Option<Tensor<'g>>, _: &mut [Parameter<Tensor<'_>>],
    ) -> Result<(), Infallible> {
        self.call()
    }
}
