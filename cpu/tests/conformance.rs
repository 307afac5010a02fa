//! The suite, on 1, 2 and 7 threads.

mod common;

mod one_thread {
    blockllm_conformance::agreement!(super::common::Threads<1, 1024>);
}

mod two_threads {
    blockllm_conformance::agreement!(super::common::Threads<2, 1024>);
}

mod seven_threads {
    blockllm_conformance::agreement!(super::common::Threads<7, 2048>);
}
