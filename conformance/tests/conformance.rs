//! The suite on core's reference, which is then held to the golden data alone.

blockllm_conformance::agreement!(blockllm_conformance::oracle::Oracle);
