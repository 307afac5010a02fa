//! See the module `record_leaves` of the library.
#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(
    init: blockllm_fuzz::write_seeds("record_leaves", blockllm_fuzz::record_leaves::seeds()),
    |data: &[u8]| blockllm_fuzz::record_leaves::run(data)
);

#[cfg(not(fuzzing))]
fn main() {
    blockllm_fuzz::replay(blockllm_fuzz::record_leaves::run);
}
