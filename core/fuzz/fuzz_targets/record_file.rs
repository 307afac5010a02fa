//! See the module `record_file` of the library.
#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(
    init: blockllm_fuzz::write_seeds("record_file", blockllm_fuzz::record_file::seeds()),
    |data: &[u8]| blockllm_fuzz::record_file::run(data)
);

#[cfg(not(fuzzing))]
fn main() {
    blockllm_fuzz::replay(blockllm_fuzz::record_file::run);
}
