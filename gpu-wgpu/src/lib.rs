//! BlockLLM on any GPU: WGSL compute shaders over wgpu.
