//! Scores (section 2): what a unit's gradient is worth, which idle units are probed, how visits count against them.

use crate::random::Stream;
use alloc::vec::Vec;
use num_traits::Float;

/// What a unit's score is (A2.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum ScoreKind {
    /// The norm of its gradient (the published code).
    #[default]
    GradientNorm,
    /// The root mean square of its gradient: does not favour large blocks.
    GradientRms,
    /// The norm of its processed gradient, m̂/(sqrt(v̂)+eps) (the paper). A coordinate without moments counts as
    /// g/(|g|+eps), so an idle block scores about the root of its size whatever its gradient: it ranks by size.
    ProcessedNorm,
}

/// Which idle units are asked for a gradient for the score alone (A2.6).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum ProbeOrder {
    /// A cursor walks the unit numbers.
    #[default]
    RoundRobin,
    /// A fresh shuffle of the idle units each step.
    Random,
}

/// How visits count against a unit (A2.7).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum VisitBias {
    /// score / ((visits + 1) / (decisions + 1)): the paper's ||G|| / f, smoothed.
    #[default]
    Ratio,
    /// score / exp(visits / sum of visits): the published package. Near 1 for ever where there are many units.
    Exponential,
    /// The score alone.
    None,
}

impl VisitBias {
    /// The key that units are ranked by. `total` is the sum of visits over trainable units.
    pub fn key(self, score: f64, visits: u64, decisions: u64, total: u64) -> f64 {
        match self {
            Self::Ratio => score / ((visits as f64 + 1.0) / (decisions as f64 + 1.0)),
            Self::Exponential => score / libm::exp(if total == 0 { 0.0 } else { visits as f64 / total as f64 }),
            Self::None => score,
        }
    }
}

/// f64 words of one unit's row in the device's score table: sum of squares, coordinates it was summed over, step.
pub const ROW: usize = 3;

/// A row that has never been scored: its sum is NaN.
pub const EMPTY_ROW: [f64; ROW] = [f64::NAN, 0.0, 0.0];

/// The score of a table row; `None` where there is none yet.
pub fn of_row(kind: ScoreKind, row: &[f64]) -> Option<f64> {
    let norm = Float::sqrt(row[0]);
    let score = match kind {
        ScoreKind::GradientNorm | ScoreKind::ProcessedNorm => norm,
        ScoreKind::GradientRms => norm / Float::sqrt(row[1]),
    };
    score.is_finite().then_some(score)
}

/// Chooses the units to probe next, by number, of those of `0..units` that are `idle` in the next step.
/// Cursor and stream are moved; the caller keeps the old ones until the step ends.
pub(crate) fn probes(
    order: ProbeOrder, count: usize, units: u32, cursor: &mut u32, stream: &mut Stream, idle: impl Fn(u32) -> bool,
    out: &mut Vec<u32>,
) {
    out.clear();
    match order {
        ProbeOrder::RoundRobin => {
            for _ in 0..units {
                if out.len() == count {
                    break;
                }
                if idle(*cursor) {
                    out.push(*cursor);
                }
                *cursor = (*cursor + 1) % units;
            }
        }
        ProbeOrder::Random => {
            out.extend((0..units).filter(|&u| idle(u)));
            stream.shuffle(out);
            out.truncate(count);
        }
    }
    out.sort_unstable();
}
