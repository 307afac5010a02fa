//! What BlockLLM's engine and backends are held to: golden data made outside the project, and how to read it.
//!
//! The data lies in `golden/`, or in the folder that the environment variable `BLOCKLLM_GOLDEN` names: another set of
//! the same form can be tried.

pub mod golden;
pub mod harness;
pub mod host;
pub mod recipe;
pub mod trace;
