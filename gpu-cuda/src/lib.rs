//! BlockLLM on NVIDIA GPUs: CUDA kernels, shipped as PTX.
