//! The suite, with the device's own limits.

mod common;

blockllm_conformance::agreement!(common::OnWgpu<{ u64::MAX }, { u32::MAX }>);
