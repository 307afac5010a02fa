//! The recorded steps, on the backend that every other is compared with: its whole steps and its record.

use blockllm_conformance::{main_job, oracle::Oracle};
use blockllm_train::recording::record;

#[test]
fn ten_recorded_steps() {
    let r = record(10).expect("the main job's first steps");
    main_job::replay(&mut Oracle, &r.specs, &r.config, r.lr, &r.weights, &r.gradients);
}
