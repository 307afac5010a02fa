//! The suite where a binding holds 1000 bytes, which is no multiple of any alignment, and a launch has 3 workgroups: every
//! operation is cut into pieces, and gives the same.

mod common;

blockllm_conformance::agreement!(common::OnWgpu<1000, 3>);
