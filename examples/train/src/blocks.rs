//! What policies must know of the model's weights beside their sizes: which go together, which are always active.

use blockllm::names::{self, Place};
use blockllm::{BlockSpec, Policy};

use crate::choices::Preset;

/// The transformer layer of a weight, by its name, and what it is there.
fn place(name: &str) -> Option<(u32, &'static str)> {
    match names::place(name)? {
        Place::Layer { index, category, .. } => Some((index, category)),
        _ => None,
    }
}

/// A weight as the policy needs it. `Cyclic` and `Lisa` take a layer's weights together, `HalfFineTuning` goes by layers and
/// kinds. What is in no layer (embedding, last norm, head) is always active under `Lisa`, as in its published code, and
/// under `HalfFineTuning`, which would leave it as it began; `Cyclic` gives the embedding a turn, and the norm with the head.
/// FRUGAL's paper has all norms always active too.
pub(crate) fn describe(spec: BlockSpec, policy: &Policy, preset: Preset) -> BlockSpec {
    let place = place(&spec.name);
    let spec = match place {
        Some((layer, category)) => spec.layer(layer, category),
        None => spec,
    };
    match (policy, place) {
        (Policy::Cyclic { .. } | Policy::Lisa { .. }, Some((layer, _))) => spec.group(format!("layer {layer}")),
        (Policy::Cyclic { .. }, None) if !spec.name.contains("embed") => spec.group("head"),
        (Policy::Lisa { .. } | Policy::HalfFineTuning { .. }, None) => spec.always_active(),
        (Policy::RandomBlocks { .. }, None | Some((_, "norm"))) if preset == Preset::Frugal => spec.always_active(),
        _ => spec,
    }
}
