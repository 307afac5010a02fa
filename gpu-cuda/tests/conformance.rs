//! The suite.

mod common;

blockllm_conformance::agreement!(common::Device);
