//! The program; see the library.

fn main() -> std::process::ExitCode {
    blockllm_train::main()
}
