//! The layouts, as patterns over a name's dot-separated parts. Each is anchored at the front, so that a name which merely
//! holds a layout's words further in is not taken for one of its own.

use super::{ATTENTION, CROSS_ATTENTION, MLP, NORM, Place, Stack};
use alloc::vec::Vec;

/// See [`super::place`].
pub fn place(name: &str) -> Option<Place> {
    let parts: Vec<&str> = name.split('.').filter(|p| !WRAPPERS.contains(p)).collect();
    let (leaf, module) = unwrapped(&parts).split_last()?;
    llama(module, leaf)
        .or_else(|| gpt2(module, leaf))
        .or_else(|| bert(module, leaf))
        .or_else(|| t5(module, leaf))
        .or_else(|| head(module, leaf))
}

/// What compilation, sharding and checkpointing put between any two parts.
const WRAPPERS: [&str; 3] = ["_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"];

/// Without what data parallelism and adapters put in front.
fn unwrapped<'a, 's>(parts: &'a [&'s str]) -> &'a [&'s str] {
    match parts {
        ["module", rest @ ..] | ["base_model", "model", rest @ ..] => unwrapped(rest),
        _ => parts,
    }
}

fn layer(stack: Stack, index: &str, category: &'static str) -> Option<Place> {
    // As counters write them: "+3" and "03" are no layers.
    let plain = index.bytes().all(|b| b.is_ascii_digit()) && (index == "0" || !index.starts_with('0'));
    let index = index.parse().ok().filter(|_| plain)?;
    Some(Place::Layer { stack, index, category })
}

/// Everything else in a checkpoint is a buffer.
fn is_parameter(leaf: &str) -> bool {
    matches!(leaf, "weight" | "bias")
}

/// The parts behind the name that the whole model gives its backbone, if any.
fn inside<'a, 's>(parts: &'a [&'s str], backbone: &[&str]) -> &'a [&'s str] {
    match parts {
        [first, rest @ ..] if backbone.contains(first) => rest,
        _ => parts,
    }
}

/// Llama, and what has taken over its names.
fn llama(module: &[&str], leaf: &str) -> Option<Place> {
    let decoder = |index, category| layer(Stack::Decoder, index, category);
    match *inside(module, &["model"]) {
        // Experts that are held as one tensor are a leaf themselves: "experts.gate_up_proj".
        ["layers", i, "mlp", "experts"] => decoder(i, MLP),
        _ if !is_parameter(leaf) => None,
        ["embed_tokens"] => Some(Place::Embedding),
        ["norm" | "final_layernorm"] => Some(Place::FinalNorm),
        ["layers", i, "self_attn", part, ..] if part.ends_with("norm") => decoder(i, NORM),
        ["layers", i, "self_attn", _, ..] => decoder(i, ATTENTION),
        ["layers", i, "mlp" | "block_sparse_moe", _, ..] => decoder(i, MLP),
        ["layers", i, norm] if LLAMA_NORMS.contains(&norm) => decoder(i, NORM),
        _ => None,
    }
}

const LLAMA_NORMS: [&str; 4] =
    ["input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm", "post_feedforward_layernorm"];

fn gpt2(module: &[&str], leaf: &str) -> Option<Place> {
    let decoder = |index, category| layer(Stack::Decoder, index, category);
    match *inside(module, &["transformer"]) {
        _ if !is_parameter(leaf) => None,
        ["wte" | "wpe"] => Some(Place::Embedding),
        ["ln_f"] => Some(Place::FinalNorm),
        // "attn.bias" itself is the causal mask of old checkpoints.
        ["h", i, "attn", "c_attn" | "c_proj", ..] => decoder(i, ATTENTION),
        ["h", i, "crossattention", "c_attn" | "q_attn" | "c_proj", ..] => decoder(i, CROSS_ATTENTION),
        ["h", i, "mlp", "c_fc" | "c_proj", ..] => decoder(i, MLP),
        ["h", i, "ln_1" | "ln_2" | "ln_cross_attn"] => decoder(i, NORM),
        _ => None,
    }
}

fn bert(module: &[&str], leaf: &str) -> Option<Place> {
    let encoder = |index, category| layer(Stack::Encoder, index, category);
    match *inside(module, &["bert", "roberta"]) {
        ["embeddings", "LayerNorm"] if is_norm_parameter(leaf) => Some(Place::Embedding),
        ["encoder", "layer", i, "attention" | "crossattention", "output", "LayerNorm"] if is_norm_parameter(leaf) => {
            encoder(i, NORM)
        }
        ["encoder", "layer", i, "output", "LayerNorm"] if is_norm_parameter(leaf) => encoder(i, NORM),
        _ if !is_parameter(leaf) => None,
        ["embeddings", "word_embeddings" | "position_embeddings" | "token_type_embeddings"] => Some(Place::Embedding),
        ["encoder", "layer", i, "attention", "self", "query" | "key" | "value", ..] => encoder(i, ATTENTION),
        ["encoder", "layer", i, "attention", "output", "dense", ..] => encoder(i, ATTENTION),
        ["encoder", "layer", i, "crossattention", "self", "query" | "key" | "value", ..] => encoder(i, CROSS_ATTENTION),
        ["encoder", "layer", i, "crossattention", "output", "dense", ..] => encoder(i, CROSS_ATTENTION),
        ["encoder", "layer", i, "intermediate" | "output", "dense", ..] => encoder(i, MLP),
        ["pooler", "dense"] => Some(Place::Head),
        _ => None,
    }
}

/// Checkpoints from TensorFlow's time call a norm's weight and bias gamma and beta.
fn is_norm_parameter(leaf: &str) -> bool {
    is_parameter(leaf) || matches!(leaf, "gamma" | "beta")
}

fn t5(module: &[&str], leaf: &str) -> Option<Place> {
    let parts = inside(module, &["transformer"]);
    let (stack, parts) = match parts {
        _ if !is_parameter(leaf) => return None,
        ["shared"] => return Some(Place::Embedding),
        ["encoder", rest @ ..] => (Stack::Encoder, rest),
        ["decoder", rest @ ..] => (Stack::Decoder, rest),
        _ => return None,
    };
    match *parts {
        // Another name of `shared`.
        ["embed_tokens"] => Some(Place::Embedding),
        ["final_layer_norm"] => Some(Place::FinalNorm),
        ["block", i, "layer", _, "SelfAttention", _, ..] => layer(stack, i, ATTENTION),
        ["block", i, "layer", _, "EncDecAttention", _, ..] => layer(stack, i, CROSS_ATTENTION),
        ["block", i, "layer", _, "DenseReluDense", _, ..] => layer(stack, i, MLP),
        ["block", i, "layer", _, "layer_norm"] => layer(stack, i, NORM),
        _ => None,
    }
}

/// Heads sit beside the backbone under the same names in all layouts.
fn head(module: &[&str], leaf: &str) -> Option<Place> {
    match *module {
        ["cls", .., "LayerNorm"] if is_norm_parameter(leaf) => Some(Place::Head),
        ["lm_head" | "cls" | "classifier" | "score" | "qa_outputs" | "classification_head", ..] if is_parameter(leaf) => {
            Some(Place::Head)
        }
        _ => None,
    }
}
