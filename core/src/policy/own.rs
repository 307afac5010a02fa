//! A policy of the user's own (A4.6).

use super::Trigger;
use crate::block::Blocks;
use crate::random::Stream;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt::{self, Debug};

/// A rule for who is active next. [`Policy::own`](super::Policy::own) makes a policy of it, which the engine treats as it
/// treats those of its own: it draws the first set, asks again on each deciding step, and builds masks, moves moments,
/// saves and restores as for any other.
///
/// Only `trigger` and `choose` must be written; without the others there are no scores, and units are active within the budget
/// as `Config::fill` says. Of the configuration a rule's policy uses `sparsity` and `fill` (unless it has a maximum of its own);
/// with scores `score`, `probes_per_step`, `probe_order` and `first`; `patience` as the m of [`Trigger::Patience`] and for the
/// default number of probes; `visit_bias` not at all ([`VisitBias::key`](crate::VisitBias::key) applies it).
///
/// `Debug` is the rule's name: two rules are equal, and a record fits, exactly where it prints the same. Show every setting, and
/// nothing that changes while training: a rule that shares state with the training loop writes `Debug` by hand, without it.
///
/// It is asked by [`Optimizer::new`](crate::Optimizer::new) for the first set (unless it scores), also where a record is
/// restored next, which asks nothing; then by [`poll`](crate::Optimizer::poll) or [`wait`](crate::Optimizer::wait) after each
/// deciding step, never by `step` or `finish`. Its answers must rest on its arguments and settings, so that a run can be
/// repeated and resumed: draw from `draws`, remember in `memory`. What it reads elsewhere must be in place before it is asked,
/// and be what it was where a run is resumed. (The engine keeps no parameters: norms of weights come from the training loop,
/// through an `Arc<Mutex<..>>`, by block; [`members`](crate::block::Blocks::members) tells a unit's.
/// `core/tests/small_magnitude.rs` is such a rule, whole.)
///
/// ```
/// use blockllm::policy::{Candidates, Choose, Trigger};
/// use blockllm::random::Stream;
/// use blockllm::{BlockSpec, Config, Inactive, Optimizer, Policy, Reference, Slices};
///
/// /// Small units first, every `period` steps; those that were never chosen before all others.
/// #[derive(Debug)]
/// struct SmallestFirst {
///     period: u64,
/// }
///
/// impl Choose for SmallestFirst {
///     fn trigger(&self) -> Trigger {
///         Trigger::Period(self.period)
///     }
///
///     fn choose(&self, all: &Candidates<'_>, _memory: &mut Vec<u64>, _draws: &mut Stream) -> Vec<u32> {
///         let mut units: Vec<u32> = all.units().collect();
///         units.sort_by_key(|&u| (all.visits(u), all.len(u), u));
///         units
///     }
/// }
///
/// let blocks = [BlockSpec::new("a", [1, 8]), BlockSpec::new("b", [1, 4]), BlockSpec::new("c", [1, 4])];
/// let policy = Policy::own(SmallestFirst { period: 1 });
/// let config = Config { policy, sparsity: 0.5, inactive: Inactive::Frozen, ..Config::default() };
/// let optimizer = Optimizer::new(Reference::<Slices>::default(), &blocks, config)?;
/// let active: Vec<u32> = optimizer.active().regions.iter().map(|r| r.block).collect();
/// assert_eq!(active, [1, 2]); // b and c fill the budget of 8 coordinates
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait Choose: Debug + Send + Sync {
    /// When to choose anew. With [`Trigger::Patience`] each step needs a loss.
    fn trigger(&self) -> Trigger;

    /// Whether it needs scores ([`Candidates::score`]): then idle units are probed, a decision waits until every unit has
    /// a score, and `Config::first` says where the first set comes from (`First::Random`: from the engine's own draw).
    /// Without scores the first set is chosen when the optimizer is made.
    fn scores(&self) -> bool {
        false
    }

    /// `None`: what it returns is a ranking, from which the engine fills n_s as `Config::fill` says. `Some`: what it
    /// returns is active whole, whatever `Config::sparsity` says, and this is the most coordinates, always-active ones
    /// included, that are active at once: the size of m and of v. Asked again when blocks come, go, freeze or thaw.
    fn maximum(&self, _blocks: &Blocks) -> Option<usize> {
        None
    }

    /// Unit numbers, the best first: some of [`Candidates::units`], each at most once; those left out stay idle. Always-active
    /// blocks are active besides. `memory` begins empty, and is saved with the state; a rule that remembers units should keep their
    /// [`Candidates::key`], for a record may be restored where units are numbered otherwise. If what it returns is refused
    /// ([`Error::Policy`](crate::Error::Policy)) memory and draws are as before.
    fn choose(&self, all: &Candidates<'_>, memory: &mut Vec<u64>, draws: &mut Stream) -> Vec<u32>;
}

/// What a policy chooses from.
#[derive(Clone, Copy, Debug)]
pub struct Candidates<'a> {
    pub(crate) blocks: &'a Blocks,
    pub(crate) scores: &'a [f64],
    pub(crate) visits: &'a [u64],
    pub(crate) decisions: u64,
    pub(crate) steps: u64,
    pub(crate) budget: usize,
}

impl<'a> Candidates<'a> {
    /// Units that may be chosen: trainable and not always active, by number.
    pub fn units(&self) -> impl Iterator<Item = u32> + 'a {
        self.blocks.selectable_units()
    }

    /// Coordinates of a unit's trainable blocks.
    pub fn len(&self, unit: u32) -> usize {
        self.blocks.unit_len(unit)
    }

    /// There is no unit to choose.
    pub fn is_empty(&self) -> bool {
        self.units().next().is_none()
    }

    /// The unit's last known finite score (A2.5), visits not counted in. That of an idle unit is as old as its last probe,
    /// unless what is inactive moves by `SignSgd`; with `Config::probes_per_step` at the number of units all are of the deciding
    /// step.
    ///
    /// # Panics
    /// Under a rule that does not ask for scores.
    pub fn score(&self, unit: u32) -> f64 {
        self.scores[unit as usize]
    }

    /// Decisions so far that selected the unit (A2.7).
    pub fn visits(&self, unit: u32) -> u64 {
        self.visits[unit as usize]
    }

    /// Decisions so far.
    pub fn decisions(&self) -> u64 {
        self.decisions
    }

    /// Steps ended, the deciding one included; 0 for the first set.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// The most coordinates that are active at once (n_s, A1.1), always-active ones included.
    pub fn budget(&self) -> usize {
        self.budget
    }

    /// All blocks and units: names, shapes, groups, layers, categories.
    pub fn blocks(&self) -> &'a Blocks {
        self.blocks
    }

    /// A number that stands for the unit's name, the same wherever it is registered.
    pub fn key(&self, unit: u32) -> u64 {
        self.blocks.unit_key(unit)
    }
}

/// A user's rule, shared by the copies of a configuration.
#[derive(Clone)]
pub struct Own(pub(super) Arc<dyn Choose>);

impl Own {
    /// The rule.
    pub fn rule(&self) -> &dyn Choose {
        &*self.0
    }
}

/// The rule's own, by which a record knows it.
impl Debug for Own {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

/// Equal where their `Debug` is.
impl PartialEq for Own {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || format!("{self:?}") == format!("{other:?}")
    }
}

impl Eq for Own {}

/// Why an answer of a rule cannot be used.
pub(super) fn refuse(blocks: &Blocks, chosen: &[u32], maximum: Option<usize>) -> Option<String> {
    let mut seen = alloc::vec![false; blocks.units.len()];
    for &unit in chosen {
        match seen.get_mut(unit as usize) {
            Some(seen) if *seen => return Some(format!("unit {unit} ({}) is there twice", blocks.unit_name(unit))),
            Some(seen) => *seen = true,
            None => return Some(format!("unit {unit} does not exist: there are {}", blocks.units.len())),
        }
        if blocks.units[unit as usize].always_active || !blocks.is_trainable(unit) {
            return Some(format!("unit {unit} ({}) is always active or frozen", blocks.unit_name(unit)));
        }
    }
    let coordinates = blocks.always_active_len() + chosen.iter().map(|&u| blocks.unit_len(u)).sum::<usize>();
    let maximum = maximum.filter(|m| coordinates > *m)?;
    Some(format!("{coordinates} coordinates, always-active ones included, are more than its maximum of {maximum}"))
}
