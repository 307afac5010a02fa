//! BlockLLM's fast host backend: threads over blocks and chunks.
