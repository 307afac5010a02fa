//! BlockLLM (arXiv 2406.17296): train all weights of a model with Adam state for a small share of them at a time.
//!
//! The engine picks the blocks (parameter tensors) with the largest gradients relative to how often they were picked,
//! masks the rest out, keeps moments for what is active only, and picks again. What is not active moves by its gradient's
//! sign, with no state ([`Inactive::SignSgd`]), or stays where it is ([`Inactive::Frozen`], the paper). It owns no tensors and knows no
//! framework: it tells which gradients it wants, takes them one at a time or all at once, and updates the caller's
//! memory in place through a [`Backend`].
//!
//! ```
//! use blockllm::{BlockSpec, Config, Optimizer, Reference, Slices, Step, View, ViewMut};
//!
//! let blocks = [BlockSpec::new("layer.0", [4, 4]), BlockSpec::new("layer.1", [4, 4])];
//! let config = Config { sparsity: 0.5, ..Config::default() }; // Adam state for half of the weights
//! let mut optimizer = Optimizer::new(Reference::<Slices>::default(), &blocks, config)?;
//! let mut weights = [[0.1f32; 16], [0.2; 16]];
//! for _ in 0..20 {
//!     let gradients = weights.map(|w| w.map(|x| x - 1.0)); // of half the squared distance to 1
//!     let [a, b] = &mut weights;
//!     let mut params = [(0, ViewMut::F32(a)), (1, ViewMut::F32(b))];
//!     let _ = optimizer.step(Step::new(0.05), |block| Some(View::F32(&gradients[block as usize])), &mut params)?;
//!     optimizer.wait()?; // or poll
//! }
//! assert!(weights.as_flattened().iter().all(|x| (x - 1.0).abs() < 0.2));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Where to look
//!
//! | who you are | start at |
//! |---|---|
//! | you embed the optimizer | [`embed`], four steps; [`Optimizer`], [`Config`], [`BlockSpec`]; for tensors in host memory [`HostTensors`] |
//! | your policy goes by layers | [`names`], which reads them from parameter names |
//! | you write a backend | [`backend`], then [`reference`](mod@reference), which does the same in plain loops |
//! | you want a policy of your own | [`policy::Choose`]: two methods |
//! | you want the maths | [`algorithm`], whose rules the code cites as `A2.5`; [`adam`], [`state_free`], [`mask`] |
//! | you keep checkpoints | [`record`] |
//!
//! # Features
//!
//! | feature | adds |
//! |---|---|
//! | none | the kernels of the reference on slices: [`adam`], [`state_free`], [`mask`], [`moments`], [`sum_of_squares`], [`random`] |
//! | `alloc` | the driver, policies, records, the reference backend |
//! | `std` (default) | `alloc` |
//! | `serde` | [`Config`] from and to TOML, JSON and the like |
//! | `safetensors` | records as files ([`record::file`](https://docs.rs/blockllm/latest/blockllm/record/file/)) |
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

pub use adam::Decay;
pub use mask::MaskKind;
pub use tensor::{DType, HostTensors, Info, Slices, View, ViewMut};

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
pub mod names;
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

#[cfg(feature = "alloc")]
pub use backend::{Backend, Wanted};
#[cfg(feature = "alloc")]
pub use block::{BlockId, BlockSpec};
#[cfg(feature = "alloc")]
pub use config::{Across, Config, First, Inactive, Missing};
#[cfg(feature = "alloc")]
pub use error::{BackendError, Error, ErrorKind};
#[cfg(feature = "alloc")]
pub use fill::Fill;
#[cfg(feature = "alloc")]
pub use optimizer::{Optimizer, Progress, Saving, Step};
#[cfg(feature = "alloc")]
pub use patience::LossEntry;
#[cfg(feature = "alloc")]
pub use policy::{Order, Policy, Trigger};
#[cfg(feature = "alloc")]
pub use record::Record;
#[cfg(feature = "alloc")]
pub use reference::Reference;
#[cfg(feature = "alloc")]
pub use report::{MemoryReport, Score, StepReport};
#[cfg(feature = "alloc")]
pub use score::{ProbeOrder, ScoreKind, VisitBias};
#[cfg(feature = "alloc")]
pub use selection::{Decision, Reason, Stage};

#[cfg(doc)]
#[doc = include_str!("../docs/algorithm.md")]
pub mod algorithm {}

#[cfg(doc)]
#[doc = include_str!("../docs/embed.md")]
pub mod embed {}

#[cfg(doc)]
#[doc = include_str!("../docs/write_a_backend.md")]
pub mod write_a_backend {}

/// The README's example is compiled and run as a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
