//! Exact selection of a mask: the key of the last item to be taken, eight bits a pass, then ties by index.

use super::{Cuda, DeviceArena, mask_address};
use crate::arguments::{Address, Digit, Histogram, Items, Mark, PrefixCounts, Scan, Ties};
use crate::buffer::Tensor;
use crate::error::Error;
use crate::scratch::{SELECTION, chunks};
use blockllm::MaskKind;
use blockllm::mask::{PREFIX, bit_words};
use blockllm::moments::Region;

impl Cuda {
    pub(super) fn queue_build_mask(
        &mut self, a: &mut DeviceArena, r: &Region, g: &Tensor<'_>, kind: MaskKind,
    ) -> Result<(), Error> {
        let tile = match kind {
            MaskKind::Coordinate => 1,
            MaskKind::Tile(t) => t,
            _ => return Err(Error::NoKernel { operation: "build_mask", dtype: g.dtype() }),
        };
        let (count, mask) = (r.n.div_ceil(tile), mask_address(&a.masks, r));
        let items = Items { g: g.address(), n: r.n as u64, tile: tile as u64 };
        let selection = self.select(a, g, items, count, r.k / tile)?;
        if tile > 1 {
            a.masks.zero(r.mask_at, bit_words(r.n))?;
        }
        self.mark(a, g, items, count, (selection, mask))?;
        self.count_prefixes(mask, r.n)
    }

    /// The state of the selection of `k` of `count` items.
    fn select(&mut self, a: &DeviceArena, g: &Tensor<'_>, items: Items, count: usize, k: usize) -> Result<Address, Error> {
        let (kernels, compute) = (self.kernels.clone(), a.gradient.dtype());
        let selection = self.scratch.selection()?;
        let mut start = [0; SELECTION];
        start[2] = k as u64;
        self.upload(selection, &start)?;
        for byte in (0..compute.size() as u64).rev() {
            let arguments = Histogram { items, selection, shift: 8 * byte };
            self.launch_over(kernels.histogram.of_gradient(g.dtype(), compute)?, count, &arguments)?;
            self.launch(kernels.digit.only(), 1, &Digit { selection, shift: 8 * byte })?;
        }
        Ok(selection)
    }

    /// The bitmap, from a selection.
    fn mark(
        &mut self, a: &DeviceArena, g: &Tensor<'_>, items: Items, count: usize, (selection, mask): (Address, Address),
    ) -> Result<(), Error> {
        let (kernels, compute, chunks) = (self.kernels.clone(), a.gradient.dtype(), chunks(count));
        let ties = self.scratch.ties(chunks)?;
        let arguments = Ties { items, selection, ties };
        self.launch(kernels.ties.of_gradient(g.dtype(), compute)?, chunks as u64, &arguments)?;
        self.launch(kernels.scan_u64(), 1, &Scan { counts: ties, count: chunks as u64 })?;
        let arguments = Mark { items, selection, ties, mask };
        self.launch(kernels.mark.of_gradient(g.dtype(), compute)?, chunks as u64, &arguments)
    }

    /// The prefix counts behind the bitmap.
    fn count_prefixes(&mut self, mask: Address, n: usize) -> Result<(), Error> {
        let (kernels, runs) = (self.kernels.clone(), n.div_ceil(PREFIX));
        self.launch_over(kernels.prefix_counts.only(), runs, &PrefixCounts { mask, n: n as u64 })?;
        let counts = mask + 4 * bit_words(n) as Address;
        self.launch(kernels.scan.of(blockllm::DType::U32)?, 1, &Scan { counts, count: runs as u64 })
    }
}
