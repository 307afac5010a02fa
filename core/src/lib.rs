//! BlockLLM engine: draft.
#![cfg_attr(not(feature = "std"), no_std)]
#![forbid(unsafe_code)]

#[cfg(feature = "alloc")]
extern crate alloc;

pub mod adam;
pub mod element;
pub mod mask;
pub mod moments;
pub mod random;
pub mod state_free;
pub mod sum_of_squares;
pub mod tensor;

#[cfg(feature = "alloc")]
pub mod backend;
#[cfg(feature = "alloc")]
pub mod block;
#[cfg(feature = "alloc")]
pub mod config;
#[cfg(feature = "alloc")]
pub mod error;
#[cfg(feature = "alloc")]
pub mod fill;
#[cfg(feature = "alloc")]
mod optimizer;
#[cfg(feature = "alloc")]
pub mod patience;
#[cfg(feature = "alloc")]
pub mod policy;
#[cfg(feature = "alloc")]
pub mod record;
#[cfg(feature = "alloc")]
pub mod reference;
#[cfg(feature = "alloc")]
mod report;
#[cfg(feature = "alloc")]
pub mod score;
#[cfg(feature = "alloc")]
mod selection;

pub use tensor::{DType, HostTensors, Info, Slices, View, ViewMut};
#[cfg(feature = "alloc")]
pub use backend::{Backend, Wanted};
#[cfg(feature = "alloc")]
pub use block::{BlockId, BlockSpec};
#[cfg(feature = "alloc")]
pub use config::{Across, Config, Inactive};
#[cfg(feature = "alloc")]
pub use error::{BackendError, Error, ErrorKind};
#[cfg(feature = "alloc")]
pub use fill::Fill;
#[cfg(feature = "alloc")]
pub use optimizer::{Optimizer, Progress, Saving, Step};
#[cfg(feature = "alloc")]
pub use patience::LossEntry;
#[cfg(feature = "alloc")]
pub use policy::{Policy, Trigger};
#[cfg(feature = "alloc")]
pub use record::Record;
#[cfg(feature = "alloc")]
pub use reference::Reference;
#[cfg(feature = "alloc")]
pub use report::{MemoryReport, StepReport};
#[cfg(feature = "alloc")]
pub use score::{ProbeOrder, ScoreKind, VisitBias};
#[cfg(feature = "alloc")]
pub use selection::{Decision, Reason};

pub use adam::Decay;
pub use mask::MaskKind;
