//! Where a parameter is in its model, read from its name: transformer layer, category, or one of the model's ends.
//!
//! The engine guesses nothing from names. This helper writes what [`place`] reads into [`BlockSpec`]s, for policies that
//! go by layers, and hands back the names that no layout knows. Known are the state-dict names of Hugging Face's Llama
//! (Mistral, Mixtral, Qwen, Gemma, Phi), GPT-2, BERT (RoBERTa) and T5 (mT5, Flan) models; see [`place`].
//!
//! ```
//! use blockllm::names::{self, Ends};
//! use blockllm::BlockSpec;
//!
//! let mut table = vec![BlockSpec::new("model.embed_tokens.weight", [32, 8])];
//! for i in 0..2 {
//!     table.push(BlockSpec::new(format!("model.layers.{i}.self_attn.q_proj.weight"), [8, 8]));
//!     table.push(BlockSpec::new(format!("model.layers.{i}.mlp.up_proj.weight"), [20, 8]));
//! }
//! table.push(BlockSpec::new("model.norm.weight", [1, 8]));
//! table.push(BlockSpec::new("lm_head.weight", [32, 8]));
//!
//! // BAdam's units, for `Policy::Cyclic`: each layer is one; here the embedding, and the head with the final norm, too.
//! let mut badam = table.clone();
//! let unknown = names::cyclic_units(&mut badam, names::place, Ends { embedding: true, head: true });
//! assert!(unknown.is_empty());
//! let groups: Vec<_> = badam.iter().map(|b| b.group.as_deref().unwrap()).collect();
//! assert_eq!(groups, ["embedding", "layer.0", "layer.0", "layer.1", "layer.1", "head", "head"]);
//!
//! // LISA's, for `Policy::Lisa`: layers are drawn, what is around them is always active.
//! let mut lisa = table;
//! let unknown = names::lisa_units(&mut lisa, names::place);
//! assert!(unknown.is_empty());
//! assert!(lisa[0].always_active && lisa[5].always_active && lisa[6].always_active);
//! assert_eq!(lisa[3].group.as_deref(), Some("layer.1"));
//! ```
//!
//! # Names of your own
//!
//! Every function takes the reader as an argument. Ask yours first, and [`place`] for the rest; or edit the
//! specifications afterwards.
//!
//! ```
//! use blockllm::names::{self, Place, Stack};
//! use blockllm::BlockSpec;
//!
//! let mut table = [BlockSpec::new("trunk.7.mixer.weight", [4, 4]), BlockSpec::new("lm_head.weight", [4, 4])];
//! let mine = |name: &str| match name.split('.').collect::<Vec<_>>()[..] {
//!     ["trunk", i, "mixer", _] => Some(Place::Layer { stack: Stack::Decoder, index: i.parse().ok()?, category: names::ATTENTION }),
//!     _ => None,
//! };
//! assert_eq!(names::set_layers(&mut table, mine), ["lm_head.weight"]); // not recognised
//! assert!(names::set_layers(&mut table, |name| mine(name).or_else(|| names::place(name))).is_empty());
//! assert_eq!((table[0].layer, table[0].category.as_deref()), (Some(7), Some("attention")));
//! ```

mod layouts;

use crate::block::BlockSpec;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

/// The category of query, key, value and output projections of self-attention, fused ones and biases included.
pub const ATTENTION: &str = "attention";
/// The category of a decoder's projections of its attention to the encoder.
pub const CROSS_ATTENTION: &str = "cross_attention";
/// The category of feed-forward weights, a mixture's experts and router included.
pub const MLP: &str = "mlp";
/// The category of norms within a layer.
pub const NORM: &str = "norm";

/// Where a parameter is in its model.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Place {
    /// Embeddings of tokens, positions and segments, and the norm over them.
    Embedding,
    /// In a transformer layer.
    Layer {
        /// Whose layers are counted.
        stack: Stack,
        /// Its number in the stack, from 0, as the name has it.
        index: u32,
        /// What kind of weight it is: [`ATTENTION`], [`CROSS_ATTENTION`], [`MLP`], [`NORM`], or the user's own.
        category: &'static str,
    },
    /// The norm after the last layer; an encoder-decoder has one for each stack.
    FinalNorm,
    /// What is made of the last layer's output: language model heads, poolers, classifiers.
    Head,
}

/// A run of transformer layers that are numbered together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stack {
    /// BERT's, and the encoder of T5.
    Encoder,
    /// Llama's and GPT-2's, and the decoder of T5.
    Decoder,
}

/// Where a Hugging Face parameter name is in its model; `None` where no layout knows the name as a whole.
///
/// | layout | layers | ends |
/// |---|---|---|
/// | Llama | `model.layers.3.self_attn.q_proj.weight` | `model.embed_tokens.weight`, `model.norm.weight` |
/// | GPT-2 | `transformer.h.3.attn.c_attn.weight` | `transformer.wte.weight`, `transformer.ln_f.weight` |
/// | BERT | `bert.encoder.layer.3.attention.self.query.weight` | `bert.embeddings.word_embeddings.weight`, `bert.pooler.dense.weight` |
/// | T5 | `decoder.block.3.layer.1.EncDecAttention.k.weight` | `shared.weight`, `decoder.final_layer_norm.weight` |
///
/// Heads are `lm_head`, `cls`, `classifier`, `score`, `qa_outputs` and `classification_head`. The model's own prefix
/// (`model.`, `transformer.`, `bert.`, `roberta.`) may be missing, as in the names of a bare model. Wrappers are seen
/// through: `module.` and `base_model.model.` in front, `_orig_mod` and the like anywhere; so are adapters inside a
/// projection. A norm within attention (Qwen 3's `q_norm`) is a norm.
///
/// Buffers of old checkpoints that look like weights (`h.3.attn.bias`, `rotary_emb.inv_freq`) are not recognised.
///
/// ```
/// use blockllm::names::{self, Place, Stack};
///
/// let place = names::place("decoder.block.3.layer.1.EncDecAttention.k.weight");
/// let category = names::CROSS_ATTENTION;
/// assert_eq!(place, Some(Place::Layer { stack: Stack::Decoder, index: 3, category }));
/// assert_eq!(names::place("vision.model.layers.3.mlp.fc1.weight"), None);
/// ```
pub fn place(name: &str) -> Option<Place> {
    layouts::place(name)
}

/// What [`cyclic_units`] trains beside the transformer layers: `include_embedding` and `include_lm_head` of BAdam's code.
/// By default, as there, the layers alone.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Ends {
    /// The embeddings, as one unit.
    pub embedding: bool,
    /// The head and the final norm, as one unit.
    pub head: bool,
}

/// Sets `layer` and `category` of every block in a transformer layer. Returns the names that `place` does not know, in
/// order: their blocks are left as they are, and so are the model's ends.
///
/// A layer's number is the one in its name; those of a decoder beside an encoder go on after the encoder's last, so that
/// no two layers share one.
#[must_use = "these names were not recognised"]
pub fn set_layers(blocks: &mut [BlockSpec], place: impl Fn(&str) -> Option<Place>) -> Vec<String> {
    each(blocks, place, |_, _, _| {})
}

/// The units of BAdam (arXiv 2404.02827), for `Policy::Cyclic`: each transformer layer is one group, and so are the
/// embeddings, and the head with the final norm; of these `ends`, what is not included is frozen. Sets layers too, and
/// returns the names that `place` does not know, as [`set_layers`] does: each of their blocks stays a unit of its own.
///
/// A block that is always active already is left so, out of any group (A1.2).
#[must_use = "these names were not recognised"]
pub fn cyclic_units(blocks: &mut [BlockSpec], place: impl Fn(&str) -> Option<Place>, ends: Ends) -> Vec<String> {
    each(blocks, place, |block, place, layer| {
        let (group, included) = match place {
            Place::Layer { .. } => (layer_group(layer), true),
            Place::Embedding => ("embedding".into(), ends.embedding),
            Place::FinalNorm | Place::Head => ("head".into(), ends.head),
        };
        if !block.always_active {
            block.group = Some(group);
            block.frozen |= !included;
        }
    })
}

/// The units of LISA (arXiv 2403.17919), for `Policy::Lisa`: each transformer layer is one group; embeddings and heads
/// are always active, and so is the final norm, which its published code never freezes. Sets layers too, and returns the
/// names that `place` does not know, as [`set_layers`] does: each of their blocks stays a unit of its own, and is drawn as
/// a layer is.
///
/// A layer's block that is always active already is left so, out of any group (A1.2).
#[must_use = "these names were not recognised"]
pub fn lisa_units(blocks: &mut [BlockSpec], place: impl Fn(&str) -> Option<Place>) -> Vec<String> {
    each(blocks, place, |block, place, layer| match place {
        Place::Layer { .. } if block.always_active => {}
        Place::Layer { .. } => block.group = Some(layer_group(layer)),
        Place::Embedding | Place::FinalNorm | Place::Head => (block.always_active, block.group) = (true, None),
    })
}

/// The units of HFT (arXiv 2404.18466), for `Policy::HalfFineTuning`: each weight of a transformer layer, with its bias
/// where it has one (as a group named after their module). Sets layers and categories, and returns the names that `place`
/// does not know, as [`set_layers`] does.
///
/// The paper halves self-attention, feed-forward weights and norms of each layer by themselves: [`ATTENTION`], [`MLP`],
/// [`NORM`]. It is about decoders without biases; that a bias goes with its weight, and that [`CROSS_ATTENTION`] is halved
/// by itself, is our choice. The model's ends and unknown names are in no layer: they idle unless always active (A4.6).
#[must_use = "these names were not recognised"]
pub fn half_fine_tuning_units(blocks: &mut [BlockSpec], place: impl Fn(&str) -> Option<Place>) -> Vec<String> {
    each(blocks, place, |block, place, _| {
        if let (Place::Layer { .. }, false, Some((module, "weight" | "bias"))) =
            (place, block.always_active, block.name.rsplit_once('.'))
        {
            block.group = Some(module.into());
        }
    })
}

/// Sets layers and categories, and hands each block that has a place, with its layer's number, to `apply`. Returns the
/// other names.
fn each(
    blocks: &mut [BlockSpec], place: impl Fn(&str) -> Option<Place>, apply: impl Fn(&mut BlockSpec, Place, u32),
) -> Vec<String> {
    let places: Vec<Option<Place>> = blocks.iter().map(|b| place(&b.name)).collect();
    let encoder = places.iter().flatten().filter_map(|p| match p {
        Place::Layer { stack: Stack::Encoder, index, .. } => Some(index.saturating_add(1)),
        _ => None,
    });
    let encoder_layers = encoder.max().unwrap_or(0);
    let mut unknown = Vec::new();
    for (block, place) in blocks.iter_mut().zip(places) {
        let Some(place) = place else {
            unknown.push(block.name.clone());
            continue;
        };
        let mut number = 0;
        if let Place::Layer { stack, index, category } = place {
            number = if stack == Stack::Encoder { index } else { encoder_layers.saturating_add(index) };
            (block.layer, block.category) = (Some(number), Some(category.into()));
        }
        apply(block, place, number);
    }
    unknown
}

fn layer_group(layer: u32) -> String {
    format!("layer.{layer}")
}
