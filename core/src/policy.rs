//! Policies: who is active next, from scores and sizes alone, or by a rule of their own (A4.6). One engine serves all.

pub mod block_llm;
pub mod cyclic;
pub mod full;
pub mod half_fine_tuning;
pub mod lisa;
mod own;
pub mod random_blocks;

pub use cyclic::Order;
pub use own::{Candidates, Choose, Own};

use crate::block::Blocks;
use crate::config::Config;
use crate::error::Error;
use crate::fill::Sized;
use crate::random::Stream;
use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::convert::Infallible;

/// Who is active next. All but `BlockLlm`, and an `Own` that asks for scores, neither probe nor score, and draw their first set
/// when the optimizer is made, which is no decision. Only `BlockLlm` and `Own` may decide by the loss.
#[derive(Clone, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Policy {
    /// Units with the largest gradients relative to how often they were picked (arXiv 2406.17296).
    BlockLlm(Trigger),
    /// Everything, always: Adam.
    Full,
    /// One unit at a time, all of them in turn (BAdam, arXiv 2404.02827). A unit is what trains together: give each
    /// transformer layer's blocks a group.
    Cyclic {
        /// Steps with each unit: K.
        period: u64,
        /// In which order they come.
        order: Order,
    },
    /// Some units at random beside what is always active (LISA, arXiv 2403.17919, whose embedding and head are).
    Lisa {
        /// Steps with each draw: K.
        period: u64,
        /// Units of a draw: gamma.
        units: u32,
    },
    /// Half of the units of each layer and category (HFT, arXiv 2404.18466): see [`BlockSpec::layer`](crate::BlockSpec::layer).
    HalfFineTuning {
        /// Steps with each draw: K.
        period: u64,
    },
    /// Units at random within the budget, by the configured fill: the control that every comparison needs.
    RandomBlocks {
        /// Steps with each draw: K.
        period: u64,
    },
    /// A rule of the user's own: see [`Choose`] and [`Policy::own`].
    #[cfg_attr(feature = "serde", serde(skip))]
    Own(Own),
}

/// When `BlockLlm`, or a policy of the user's own, decides (A3.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Trigger {
    /// When the loss is at least the mean of the last m: it has stopped falling. Needs a loss with each step.
    #[default]
    Patience,
    /// On every step whose number, from 1, is a multiple of this: with 5 the first decision is at the end of step 5, and step 6
    /// is the first with its set.
    Period(u64),
}

/// What a policy remembers from one draw to the next, saved with the state.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Memory {
    /// Units that `Cyclic` still has to visit in this round.
    pub round: Vec<u32>,
    /// Draws of `HalfFineTuning` so far.
    pub drawn: u64,
    /// What a rule of the user's own remembers.
    pub own: Vec<u64>,
}

impl Policy {
    /// A policy of the user's own.
    pub fn own(rule: impl Choose + 'static) -> Self {
        Self::Own(Own(Arc::new(rule)))
    }

    /// It ranks units by their scores.
    pub fn scores(&self) -> bool {
        match self {
            Self::BlockLlm(_) => true,
            Self::Own(own) => own.rule().scores(),
            _ => false,
        }
    }

    /// It keeps to n_s and fills it as configured; others ignore sparsity and fill, and hold what they can have active
    /// ([`Self::maximum`]).
    pub fn keeps_budget(&self, blocks: &Blocks) -> bool {
        match self {
            Self::BlockLlm(_) | Self::RandomBlocks { .. } => true,
            Self::Own(own) => own.rule().maximum(blocks).is_none(),
            _ => false,
        }
    }

    /// When it decides; `None` under `Full`, which never does.
    pub fn trigger(&self) -> Option<Trigger> {
        match self {
            Self::Full => None,
            Self::BlockLlm(trigger) => Some(*trigger),
            Self::Own(own) => Some(own.rule().trigger()),
            Self::Cyclic { period, .. }
            | Self::Lisa { period, .. }
            | Self::HalfFineTuning { period }
            | Self::RandomBlocks { period } => Some(Trigger::Period(*period)),
        }
    }

    /// The most coordinates that are active at once under a policy that does not keep to n_s, of the blocks trainable now:
    /// what the arena must hold.
    pub fn maximum(&self, blocks: &Blocks) -> usize {
        let largest = |n: usize| {
            let mut lengths: Vec<usize> = blocks.selectable_units().map(|u| blocks.unit_len(u)).collect();
            lengths.sort_unstable_by_key(|n| core::cmp::Reverse(*n));
            lengths.into_iter().take(n).sum::<usize>()
        };
        let most = match self {
            Self::Cyclic { .. } => largest(1),
            Self::Lisa { units, .. } => largest(*units as usize),
            Self::HalfFineTuning { .. } => half_fine_tuning::maximum(blocks),
            Self::Own(own) => return own.rule().maximum(blocks).unwrap_or_else(|| blocks.trainable_len()),
            Self::BlockLlm(_) | Self::Full | Self::RandomBlocks { .. } => return blocks.trainable_len(),
        };
        most + blocks.always_active_len()
    }

    /// The next set of a policy that does not score, or the first of one that does (A3.4). By block.
    pub(crate) fn draw(
        &self, all: &Candidates<'_>, config: &Config, memory: &mut Memory, stream: &mut Stream,
    ) -> Result<Vec<Sized>, Error<Infallible>> {
        let blocks = all.blocks;
        let units = match self {
            Self::Own(own) if !own.rule().scores() => return self.chosen(all, config, memory, stream),
            Self::BlockLlm(_) | Self::RandomBlocks { .. } | Self::Own(_) => {
                return Ok(random_blocks::set_of(blocks, config, all.budget, stream));
            }
            Self::Full => blocks.selectable_units().collect(),
            Self::Cyclic { order, .. } => cyclic::next(blocks, *order, &mut memory.round, stream),
            Self::Lisa { units, .. } => lisa::next(blocks, *units, stream),
            Self::HalfFineTuning { .. } => half_fine_tuning::next(blocks, &mut memory.drawn, stream),
        };
        Ok(whole(blocks, &units))
    }

    /// The set of a policy that ranks by scores, all of which are known. By block.
    pub(crate) fn rank(
        &self, all: &Candidates<'_>, config: &Config, memory: &mut Memory, stream: &mut Stream,
    ) -> Result<Vec<Sized>, Error<Infallible>> {
        if let Self::Own(_) = self {
            return self.chosen(all, config, memory, stream);
        }
        let total = all.blocks.trainable_units().map(|u| all.visits(u)).sum();
        let key = |u| config.visit_bias.key(all.score(u), all.visits(u), all.decisions, total);
        let ranked = block_llm::rank(all.units(), key);
        Ok(block_llm::set_of(all.blocks, config, all.budget, &ranked))
    }

    /// The set of a user's rule.
    fn chosen(
        &self, all: &Candidates<'_>, config: &Config, memory: &mut Memory, stream: &mut Stream,
    ) -> Result<Vec<Sized>, Error<Infallible>> {
        let Self::Own(own) = self else { return Ok(Vec::new()) };
        let (mut words, mut draws) = (memory.own.clone(), *stream);
        let units = own.rule().choose(all, &mut words, &mut draws);
        let maximum = own.rule().maximum(all.blocks);
        if let Some(problem) = own::refuse(all.blocks, &units, maximum.map(|m| m.min(all.budget))) {
            return Err(Error::Policy { policy: format!("{own:?}"), problem });
        }
        (memory.own, *stream) = (words, draws);
        Ok(match maximum {
            Some(_) => whole(all.blocks, &units),
            None => block_llm::set_of(all.blocks, config, all.budget, &units),
        })
    }
}

/// These units and what is always active, whole. By block.
fn whole(blocks: &Blocks, units: &[u32]) -> Vec<Sized> {
    let always = blocks.trainable_units().filter(|&u| blocks.units[u as usize].always_active);
    let all = units.iter().copied().chain(always);
    let mut set: Vec<Sized> = all.flat_map(|u| blocks.members(u).map(|b| (b, blocks.len(b)))).collect();
    set.sort_unstable();
    set
}
