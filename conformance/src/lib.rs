//! What BlockLLM's engine and backends are held to: checks that every backend must pass, and golden data made outside the
//! project.
//!
//! A backend's author implements [`Harness`](harness::Harness) and writes one line in `tests/conformance.rs`
//! ([`agreement!`]). Operations and whole runs are then held to core's reference, in [both senses](harness::Agreement) of
//! agreement, and golden runs replayed.
//!
//! The data lies in `golden/`, or in the folder that the environment variable `BLOCKLLM_GOLDEN` names: another set of
//! the same form can be tried.

pub mod agreement;
pub mod bounds;
pub mod cases;
pub mod drive;
pub mod golden;
pub mod harness;
pub mod host;
pub mod lockstep;
pub mod main_job;
pub mod oracle;
pub mod pair;
pub mod problem;
pub mod recipe;
pub mod replay;
pub mod trace;
