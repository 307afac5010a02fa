//! The main job's first steps on each backend: ten steps of real gradients, recorded by the test itself. Parameters and
//! state are compared after each. Run by name, since each backend has needs of its own: `cargo xtask test --backend NAME`.

#[path = "../../../gpu-cuda/tests/common/mod.rs"]
mod cuda;
#[allow(dead_code)] // the backend's own tests use the rest
#[path = "../../../gpu-wgpu/tests/common/mod.rs"]
mod gpu;
#[path = "../../../cpu/tests/common/mod.rs"]
mod host;

use blockllm_conformance::harness::{Harness, with};
use blockllm_conformance::main_job;
use blockllm_train::recording::record;

fn ten_recorded_steps<H: Harness>() {
    with::<H>("ten_recorded_steps", |h| {
        let r = record(10).expect("the main job's first steps");
        main_job::replay(h, &r.specs, &r.config, r.lr, &r.weights, &r.gradients);
    });
}

#[test]
fn cpu_ten_recorded_steps() {
    ten_recorded_steps::<host::Threads<2, 65_536>>();
}

#[test]
fn wgpu_ten_recorded_steps() {
    ten_recorded_steps::<gpu::OnWgpu<{ u64::MAX }, { u32::MAX }>>();
}

#[test]
fn cuda_ten_recorded_steps() {
    ten_recorded_steps::<cuda::Device>();
}
