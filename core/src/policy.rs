//! Policies: who is active next, from scores and sizes alone.

pub mod block_llm;
pub mod full;

/// Who is active next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Policy {
    /// Units with the largest gradients relative to how often they were picked (arXiv 2406.17296).
    BlockLlm(Trigger),
    /// Everything, always: Adam.
    Full,
}

/// When `BlockLlm` decides (A3.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum Trigger {
    /// When the loss is at least the mean of the last m: it has stopped falling. Needs a loss with each step.
    #[default]
    Patience,
    /// On every step whose number is a multiple of this.
    Period(u64),
}
