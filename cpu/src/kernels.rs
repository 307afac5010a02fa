//! The operations on one block, one a file, under the names of the reference's. Each cuts its block into parts of at most
//! `grain` coordinates, which run on the threads of the pool that it is called in.

mod build_mask;
mod carry;
mod gather;
mod inspect;
mod score;
mod score_processed;
mod state_free;
mod update;

pub(crate) use build_mask::{Histograms, build_mask};
pub(crate) use carry::carry;
pub(crate) use gather::gather;
pub(crate) use inspect::inspect;
pub(crate) use score::score;
pub(crate) use score_processed::{Present, score_processed};
pub(crate) use state_free::state_free;
pub(crate) use update::{Packed, update};
