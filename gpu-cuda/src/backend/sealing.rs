//! The end of a step's gradients: guard, clip, step counts, counters, and the score table.

use super::{Cuda, DeviceArena};
use crate::arguments::{self, Address, EnterScores, FoldRegions, Inspect};
use crate::error::Error;
use crate::scratch::subtrees;
use blockllm::DType;
use blockllm::backend::{ScoredUnit, Seal, Work};
use blockllm::block::BlockId;
use blockllm::moments::Region;

/// Words of a region in the device's table (`regions.cuh`).
pub(crate) const REGION_WORDS: usize = 5;
/// Words of a scored unit (`enter_scores.cu`).
pub(crate) const UNIT_WORDS: usize = 4;

/// Where the tables of a step lie on the device.
pub(super) struct Tables {
    regions: Address,
    scored: Address,
    members: Address,
    /// Subtrees of all regions.
    subtrees: usize,
}

fn region_words(r: &Region, first_subtree: usize) -> [u64; REGION_WORDS] {
    let kind = u64::from(r.fresh) | u64::from(r.masked()) << 1;
    [r.gradient_at as u64, r.k as u64, first_subtree as u64, u64::from(r.block), kind]
}

impl Cuda {
    /// Uploads what the kernels of a seal go over.
    pub(super) fn tables(&mut self, regions: &[Region], scored: &[ScoredUnit], members: &[BlockId]) -> Result<Tables, Error> {
        let mut words = core::mem::take(&mut self.words);
        words.clear();
        let mut all = 0;
        for r in regions {
            words.extend(region_words(r, all));
            all += subtrees(r.k);
        }
        let at_scored = words.len();
        for s in scored {
            words.extend([u64::from(s.unit), u64::from(s.first), u64::from(s.count), s.n as u64]);
        }
        let at_members = words.len();
        words.extend(members.iter().map(|&b| u64::from(b)));
        let to = self.scratch.tables(words.len())?;
        let uploaded = self.upload(to, &words);
        self.words = words;
        let at = |word: usize| to + 8 * word as Address;
        uploaded.map(|()| Tables { regions: to, scored: at(at_scored), members: at(at_members), subtrees: all })
    }

    pub(super) fn queue_seal(&mut self, a: &DeviceArena, w: &Work<'_>, part: Seal, tables: &Tables) -> Result<(), Error> {
        let (kernels, count) = (self.kernels.clone(), if part == Seal::Counters { 0 } else { w.summed.len() });
        let (subtrees, found) = (self.scratch.subtrees(tables.subtrees)?, self.scratch.found(count)?);
        if count > 0 {
            self.inspect(a, w, tables, (subtrees, found))?;
        }
        let arguments = arguments::Seal {
            regions: tables.regions,
            subtrees,
            found,
            flags: a.flags.at(0),
            steps: a.steps.at(0),
            norm: a.norm.at(0),
            powers: a.powers.at(0),
            count: count as u64,
            part: match part {
                Seal::Step => 0,
                Seal::Block => 1,
                Seal::Counters => 2,
            },
            switching: u64::from(w.switch.is_some()),
            guard_limit: u64::from(w.guard_limit),
            has_clip: u64::from(w.hyper.clip.is_some()),
            clip: w.hyper.clip.unwrap_or(0.0),
            beta1: w.hyper.betas[0],
            beta2: w.hyper.betas[1],
        };
        self.launch(kernels.seal.only(), 1, &arguments)
    }

    /// Sums and guard of all regions.
    fn inspect(
        &mut self, a: &DeviceArena, w: &Work<'_>, tables: &Tables, (subtrees, found): (Address, Address),
    ) -> Result<(), Error> {
        let (kernels, count) = (self.kernels.clone(), w.summed.len());
        self.scratch.found.zero(0, count)?;
        let arguments = Inspect {
            gradient: a.gradient.at(0),
            regions: tables.regions,
            subtrees,
            found,
            count: count as u64,
            all_subtrees: tables.subtrees as u64,
            inv_loss_scale: w.hyper.inv_loss_scale,
        };
        self.launch(kernels.inspect.of(a.gradient.dtype())?, tables.subtrees as u64, &arguments)?;
        let arguments = FoldRegions { regions: tables.regions, subtrees, count: count as u64 };
        self.launch(kernels.fold_regions.only(), count as u64, &arguments)
    }

    pub(super) fn queue_enter_scores(&mut self, a: &DeviceArena, w: &Work<'_>, tables: &Tables) -> Result<(), Error> {
        debug_assert_eq!(a.table.dtype(), DType::F64);
        if w.scored.is_empty() {
            return Ok(());
        }
        let kernels = self.kernels.clone();
        let arguments = EnterScores {
            scored: tables.scored,
            members: tables.members,
            sums: a.sums.at(0),
            table: a.table.at(0),
            flags: a.flags.at(0),
            count: w.scored.len() as u64,
            step: w.step,
        };
        self.launch_over(kernels.enter_scores.only(), w.scored.len(), &arguments)
    }
}
