//! Places read from parameter names: the state-dict names of published models, whole, and names that are near them.
#![allow(missing_docs)]

use blockllm::names::{self, ATTENTION, CROSS_ATTENTION, Ends, MLP, NORM, Place, Stack};
use blockllm::{BlockSpec, Config, Optimizer, Order, Policy, Reference, Slices};
use std::collections::{BTreeMap, BTreeSet};

/// A place in words: what the tables below say.
fn words(name: &str) -> String {
    match names::place(name) {
        None => "unknown".into(),
        Some(Place::Embedding) => "embedding".into(),
        Some(Place::FinalNorm) => "final norm".into(),
        Some(Place::Head) => "head".into(),
        Some(Place::Layer { stack: Stack::Encoder, index, category }) => format!("encoder {index} {category}"),
        Some(Place::Layer { stack: Stack::Decoder, index, category }) => format!("decoder {index} {category}"),
        Some(other) => format!("{other:?}"),
    }
}

fn check(table: &[(&str, &str)]) {
    for (name, place) in table {
        assert_eq!(words(name), *place, "{name}");
    }
}

/// The names of each layer, numbers filled in.
fn layers(count: u32, of_each: &[String]) -> Vec<String> {
    (0..count).flat_map(|i| of_each.iter().map(move |n| n.replace("{}", &i.to_string()))).collect()
}

fn with_biases(modules: &[&str]) -> Vec<String> {
    modules.iter().flat_map(|m| [format!("{m}.weight"), format!("{m}.bias")]).collect()
}

/// HuggingFaceTB/SmolLM-135M, but for its number of layers: tied, so without a head.
fn llama(count: u32) -> Vec<String> {
    let weights = [
        "self_attn.q_proj",
        "self_attn.k_proj",
        "self_attn.v_proj",
        "self_attn.o_proj",
        "mlp.gate_proj",
        "mlp.up_proj",
        "mlp.down_proj",
        "input_layernorm",
        "post_attention_layernorm",
    ]
    .map(|m| format!("model.layers.{{}}.{m}.weight"));
    [vec!["model.embed_tokens.weight".into()], layers(count, &weights), vec!["model.norm.weight".into()]].concat()
}

/// openai-community/gpt2, as GPT2LMHeadModel lists its parameters.
fn gpt2() -> Vec<String> {
    let of_each = with_biases(&["ln_1", "attn.c_attn", "attn.c_proj", "ln_2", "mlp.c_fc", "mlp.c_proj"]);
    let of_each: Vec<String> = of_each.iter().map(|n| format!("transformer.h.{{}}.{n}")).collect();
    let mut all = vec!["transformer.wte.weight".to_string(), "transformer.wpe.weight".into()];
    all.extend(layers(12, &of_each));
    all.extend(with_biases(&["transformer.ln_f"]));
    all
}

/// google-bert/bert-base-uncased, as BertForPreTraining lists its parameters.
fn bert() -> Vec<String> {
    let of_each = with_biases(&[
        "bert.encoder.layer.{}.attention.self.query",
        "bert.encoder.layer.{}.attention.self.key",
        "bert.encoder.layer.{}.attention.self.value",
        "bert.encoder.layer.{}.attention.output.dense",
        "bert.encoder.layer.{}.attention.output.LayerNorm",
        "bert.encoder.layer.{}.intermediate.dense",
        "bert.encoder.layer.{}.output.dense",
        "bert.encoder.layer.{}.output.LayerNorm",
    ]);
    let embeddings = ["word_embeddings", "position_embeddings", "token_type_embeddings"];
    let mut all: Vec<String> = embeddings.iter().map(|e| format!("bert.embeddings.{e}.weight")).collect();
    all.extend(with_biases(&["bert.embeddings.LayerNorm"]));
    all.extend(layers(12, &of_each));
    all.extend(with_biases(&["bert.pooler.dense"]));
    all.push("cls.predictions.bias".into());
    all.extend(with_biases(&["cls.predictions.transform.dense", "cls.predictions.transform.LayerNorm", "cls.seq_relationship"]));
    all
}

/// google-t5/t5-small, or google/flan-t5-small where the feed-forward is gated.
fn t5(count: u32, gated: bool) -> Vec<String> {
    let mlp: &[&str] = if gated { &["wi_0", "wi_1", "wo"] } else { &["wi", "wo"] };
    let attention = |stack: &str, layer: u32, kind: &str| -> Vec<String> {
        let mut names: Vec<String> =
            ["q", "k", "v", "o"].iter().map(|w| format!("{stack}.block.{{}}.layer.{layer}.{kind}.{w}.weight")).collect();
        names.push(format!("{stack}.block.{{}}.layer.{layer}.layer_norm.weight"));
        names
    };
    let feed_forward = |stack: &str, layer: u32| -> Vec<String> {
        let mut names: Vec<String> =
            mlp.iter().map(|w| format!("{stack}.block.{{}}.layer.{layer}.DenseReluDense.{w}.weight")).collect();
        names.push(format!("{stack}.block.{{}}.layer.{layer}.layer_norm.weight"));
        names
    };
    let encoder = [attention("encoder", 0, "SelfAttention"), feed_forward("encoder", 1)].concat();
    let decoder =
        [attention("decoder", 0, "SelfAttention"), attention("decoder", 1, "EncDecAttention"), feed_forward("decoder", 2)]
            .concat();
    let mut all = vec!["shared.weight".to_string()];
    for (stack, of_each) in [("encoder", encoder), ("decoder", decoder)] {
        all.extend(layers(count, &of_each));
        all.push(format!("{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"));
        all.push(format!("{stack}.final_layer_norm.weight"));
    }
    all.extend(gated.then(|| "lm_head.weight".into()));
    all
}

fn table(names: &[String]) -> Vec<BlockSpec> {
    names.iter().map(|n| BlockSpec::new(n, [1, 2])).collect()
}

/// How many blocks each layer has of each category.
fn cells(blocks: &[BlockSpec]) -> BTreeMap<u32, BTreeMap<&str, usize>> {
    let mut cells: BTreeMap<u32, BTreeMap<&str, usize>> = BTreeMap::new();
    for b in blocks {
        if let (Some(layer), Some(category)) = (b.layer, b.category.as_deref()) {
            *cells.entry(layer).or_default().entry(category).or_default() += 1;
        }
    }
    cells
}

#[test]
fn llama_names() {
    check(&[
        ("model.embed_tokens.weight", "embedding"),
        ("model.layers.3.self_attn.q_proj.weight", "decoder 3 attention"),
        ("model.layers.3.self_attn.k_proj.weight", "decoder 3 attention"),
        ("model.layers.3.self_attn.v_proj.bias", "decoder 3 attention"),
        ("model.layers.3.self_attn.o_proj.weight", "decoder 3 attention"),
        ("model.layers.3.self_attn.qkv_proj.weight", "decoder 3 attention"),
        ("model.layers.3.self_attn.q_norm.weight", "decoder 3 norm"),
        ("model.layers.3.mlp.gate_proj.weight", "decoder 3 mlp"),
        ("model.layers.3.mlp.up_proj.weight", "decoder 3 mlp"),
        ("model.layers.3.mlp.down_proj.weight", "decoder 3 mlp"),
        ("model.layers.3.input_layernorm.weight", "decoder 3 norm"),
        ("model.layers.3.post_attention_layernorm.weight", "decoder 3 norm"),
        ("model.layers.3.pre_feedforward_layernorm.weight", "decoder 3 norm"),
        ("model.layers.3.post_feedforward_layernorm.weight", "decoder 3 norm"),
        ("model.norm.weight", "final norm"),
        ("lm_head.weight", "head"),
        ("score.weight", "head"),
        // A bare model's.
        ("embed_tokens.weight", "embedding"),
        ("layers.10.mlp.up_proj.weight", "decoder 10 mlp"),
        ("norm.weight", "final norm"),
        // Mixtures of experts: Mixtral, Qwen, and experts in one tensor.
        ("model.layers.3.block_sparse_moe.gate.weight", "decoder 3 mlp"),
        ("model.layers.3.block_sparse_moe.experts.7.w1.weight", "decoder 3 mlp"),
        ("model.layers.3.mlp.experts.7.gate_proj.weight", "decoder 3 mlp"),
        ("model.layers.3.mlp.shared_expert.up_proj.weight", "decoder 3 mlp"),
        ("model.layers.3.mlp.experts.gate_up_proj", "decoder 3 mlp"),
    ]);
}

#[test]
fn gpt2_names() {
    check(&[
        ("transformer.wte.weight", "embedding"),
        ("transformer.wpe.weight", "embedding"),
        ("transformer.h.3.ln_1.weight", "decoder 3 norm"),
        ("transformer.h.3.attn.c_attn.weight", "decoder 3 attention"),
        ("transformer.h.3.attn.c_proj.bias", "decoder 3 attention"),
        ("transformer.h.3.crossattention.q_attn.weight", "decoder 3 cross_attention"),
        ("transformer.h.3.ln_2.bias", "decoder 3 norm"),
        ("transformer.h.3.mlp.c_fc.bias", "decoder 3 mlp"),
        ("transformer.h.3.mlp.c_proj.weight", "decoder 3 mlp"),
        ("transformer.ln_f.bias", "final norm"),
        // A bare model's, as the published file has them.
        ("wte.weight", "embedding"),
        ("wpe.weight", "embedding"),
        ("h.3.mlp.c_fc.bias", "decoder 3 mlp"),
        ("ln_f.weight", "final norm"),
        // That file's causal masks.
        ("h.3.attn.bias", "unknown"),
        ("h.3.attn.masked_bias", "unknown"),
    ]);
}

#[test]
fn bert_names() {
    check(&[
        ("bert.embeddings.word_embeddings.weight", "embedding"),
        ("bert.embeddings.position_embeddings.weight", "embedding"),
        ("bert.embeddings.token_type_embeddings.weight", "embedding"),
        ("bert.embeddings.LayerNorm.bias", "embedding"),
        ("bert.encoder.layer.3.attention.self.query.weight", "encoder 3 attention"),
        ("bert.encoder.layer.3.attention.self.value.bias", "encoder 3 attention"),
        ("bert.encoder.layer.3.attention.output.dense.weight", "encoder 3 attention"),
        ("bert.encoder.layer.3.attention.output.LayerNorm.weight", "encoder 3 norm"),
        ("bert.encoder.layer.3.crossattention.self.key.weight", "encoder 3 cross_attention"),
        ("bert.encoder.layer.3.crossattention.output.dense.weight", "encoder 3 cross_attention"),
        ("bert.encoder.layer.3.intermediate.dense.weight", "encoder 3 mlp"),
        ("bert.encoder.layer.3.output.dense.bias", "encoder 3 mlp"),
        ("bert.encoder.layer.3.output.LayerNorm.weight", "encoder 3 norm"),
        ("bert.pooler.dense.weight", "head"),
        ("cls.predictions.bias", "head"),
        ("cls.predictions.decoder.weight", "head"),
        ("cls.predictions.transform.LayerNorm.weight", "head"),
        ("cls.seq_relationship.weight", "head"),
        ("classifier.weight", "head"),
        ("qa_outputs.bias", "head"),
        ("roberta.encoder.layer.11.attention.self.key.weight", "encoder 11 attention"),
        ("roberta.embeddings.word_embeddings.weight", "embedding"),
        ("lm_head.layer_norm.weight", "head"),
        ("classifier.out_proj.weight", "head"),
        ("encoder.layer.3.output.dense.weight", "encoder 3 mlp"),
        // The published file's old names of norms, and its buffer.
        ("bert.embeddings.LayerNorm.gamma", "embedding"),
        ("bert.encoder.layer.3.attention.output.LayerNorm.beta", "encoder 3 norm"),
        ("bert.encoder.layer.3.output.LayerNorm.gamma", "encoder 3 norm"),
        ("cls.predictions.transform.LayerNorm.beta", "head"),
        ("bert.embeddings.position_ids", "unknown"),
    ]);
}

#[test]
fn t5_names() {
    check(&[
        ("shared.weight", "embedding"),
        ("encoder.embed_tokens.weight", "embedding"),
        ("decoder.embed_tokens.weight", "embedding"),
        ("encoder.block.3.layer.0.SelfAttention.q.weight", "encoder 3 attention"),
        ("encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight", "encoder 0 attention"),
        ("encoder.block.3.layer.0.layer_norm.weight", "encoder 3 norm"),
        ("encoder.block.3.layer.1.DenseReluDense.wi.weight", "encoder 3 mlp"),
        ("encoder.block.3.layer.1.layer_norm.weight", "encoder 3 norm"),
        ("encoder.final_layer_norm.weight", "final norm"),
        ("decoder.block.3.layer.0.SelfAttention.o.weight", "decoder 3 attention"),
        ("decoder.block.3.layer.1.EncDecAttention.k.weight", "decoder 3 cross_attention"),
        ("decoder.block.3.layer.2.DenseReluDense.wi_0.weight", "decoder 3 mlp"),
        ("decoder.block.3.layer.2.DenseReluDense.wo.weight", "decoder 3 mlp"),
        ("decoder.block.3.layer.2.layer_norm.weight", "decoder 3 norm"),
        ("decoder.final_layer_norm.weight", "final norm"),
        ("transformer.encoder.block.3.layer.0.SelfAttention.q.weight", "encoder 3 attention"),
        ("classification_head.dense.weight", "head"),
    ]);
}

#[test]
fn wrappers_are_seen_through() {
    check(&[
        ("module.model.layers.3.mlp.up_proj.weight", "decoder 3 mlp"),
        ("_orig_mod.model.layers.3.mlp.up_proj.weight", "decoder 3 mlp"),
        ("module._orig_mod.transformer.wte.weight", "embedding"),
        ("_orig_mod.module.lm_head.weight", "head"),
        ("model.layers.3._orig_mod.mlp.up_proj.weight", "decoder 3 mlp"),
        ("_fsdp_wrapped_module.model.layers.3._fsdp_wrapped_module.mlp.up_proj.weight", "decoder 3 mlp"),
        ("model.layers.3._checkpoint_wrapped_module.self_attn.q_proj.weight", "decoder 3 attention"),
        ("base_model.model.model.layers.3.self_attn.q_proj.base_layer.weight", "decoder 3 attention"),
        ("base_model.model.model.layers.3.self_attn.q_proj.lora_A.default.weight", "decoder 3 attention"),
        ("base_model.model.bert.encoder.layer.3.attention.self.query.lora_B.default.weight", "encoder 3 attention"),
        ("module.base_model.model.encoder.block.3.layer.0.SelfAttention.q.weight", "encoder 3 attention"),
        ("base_model.model.lm_head.weight", "head"),
    ]);
}

#[test]
fn what_no_layout_knows_is_not_guessed() {
    let names = [
        "",
        "weight",
        ".",
        "layer.0",
        "model",
        "model.layers",
        "model.layers.3",
        "model.layers.3.weight",
        "model.layers.3.mlp.weight",
        "model.layers.3.self_attn.weight",
        "model.layers.3.self_attn.rotary_emb.inv_freq",
        "model.layers.3.rotary.weight",
        "model.layers.3.mlp.experts.7.gate_proj.weight_scale_inv",
        "model.layers.3.input_layernorm.extra.weight",
        "model.layers.mlp.up_proj.weight",
        // No number of a layer.
        "model.layers.x.mlp.up_proj.weight",
        "model.layers..mlp.up_proj.weight",
        "model.layers.+3.mlp.up_proj.weight",
        "model.layers.03.mlp.up_proj.weight",
        "model.layers.-1.mlp.up_proj.weight",
        "model.layers.3a.mlp.up_proj.weight",
        "model.layers.4294967296.mlp.up_proj.weight",
        // A layout's words further in, or within a part.
        "vision_model.encoder.layers.3.self_attn.q_proj.weight",
        "vision_tower.model.layers.3.mlp.fc1.weight",
        "my_model.layers.3.mlp.up_proj.weight",
        "model.model.layers.3.mlp.up_proj.weight",
        "model.sublayers.3.mlp.up_proj.weight",
        "model.layers_old.3.mlp.up_proj.weight",
        "model.layers.3.attn_mlp.up_proj.weight",
        "adapter.h.3.attn.c_attn.weight",
        "transformer.heads.3.attn.c_attn.weight",
        "model.h.3.attn.c_attn.weight",
        "x.wte.weight",
        "image.encoder.layer.3.attention.self.query.weight",
        "bert.encoder.layers.3.attention.self.query.weight",
        "bert.encoder.layer.3.adapter.dense.weight",
        "text.encoder.block.3.layer.0.SelfAttention.q.weight",
        "encoder.block.3.layer.0.Attention.q.weight",
        "encoder.block.3.SelfAttention.q.weight",
        "encoder.shared.weight",
        "my_lm_head.weight",
        "model.lm_head.weight",
        "lm_head_weight",
        "decoder.norm.weight",
        "base_model.layers.3.mlp.up_proj.weight",
        "MODEL.LAYERS.3.MLP.UP_PROJ.WEIGHT",
    ];
    names.iter().for_each(|n| assert_eq!(words(n), "unknown", "{n:?}"));
    let mut blocks: Vec<BlockSpec> = names.iter().map(|n| BlockSpec::new(*n, [1, 2]).layer(9, "own").group("own")).collect();
    let before = blocks.clone();
    assert_eq!(names::set_layers(&mut blocks, names::place), names);
    assert_eq!(names::cyclic_units(&mut blocks, names::place, Ends::default()), names);
    assert_eq!(names::lisa_units(&mut blocks, names::place), names);
    assert_eq!(names::half_fine_tuning_units(&mut blocks, names::place), names);
    assert_eq!(blocks, before, "left as they were");
}

/// Every parameter of a published model has a place, and each layer what the model's paper says.
#[test]
fn whole_models_have_their_layers_and_cells() {
    let cell = |cells: &[(&'static str, usize)]| cells.iter().copied().collect::<BTreeMap<_, _>>();
    let llama_cell = cell(&[(ATTENTION, 4), (MLP, 3), (NORM, 2)]);
    let gpt2_cell = cell(&[(ATTENTION, 4), (MLP, 4), (NORM, 4)]);
    let bert_cell = cell(&[(ATTENTION, 8), (MLP, 4), (NORM, 4)]);
    for (names, layers, cell) in [(llama(30), 30, llama_cell), (gpt2(), 12, gpt2_cell), (bert(), 12, bert_cell)] {
        let mut blocks = table(&names);
        assert!(names::set_layers(&mut blocks, names::place).is_empty());
        let got = cells(&blocks);
        assert_eq!(got.keys().copied().collect::<Vec<_>>(), (0..layers).collect::<Vec<_>>());
        assert!(got.values().all(|c| *c == cell), "{got:?}");
    }
}

#[test]
fn a_decoder_goes_on_after_its_encoder() {
    for (gated, count) in [(false, 6), (true, 8)] {
        let mut blocks = table(&t5(count, gated));
        assert!(names::set_layers(&mut blocks, names::place).is_empty());
        let feed_forward = if gated { 3 } else { 2 };
        for (layer, cell) in &cells(&blocks) {
            let first = usize::from(layer % count == 0); // its relative positions
            let mut want = BTreeMap::from([(ATTENTION, 4 + first), (MLP, feed_forward), (NORM, 2)]);
            if *layer >= count {
                want.insert(CROSS_ATTENTION, 4);
                want.insert(NORM, 3);
            }
            assert_eq!(*cell, want, "{layer}");
        }
        assert_eq!(cells(&blocks).len() as u32, 2 * count);
        let of = |name: &str| blocks.iter().find(|b| b.name == name).unwrap().layer;
        assert_eq!(of("encoder.block.1.layer.0.SelfAttention.q.weight"), Some(1));
        assert_eq!(of("decoder.block.1.layer.0.SelfAttention.q.weight"), Some(count + 1));
        assert_eq!(of("decoder.final_layer_norm.weight"), None);
        // The decoder's come first in the list: the same numbers.
        let mut turned: Vec<BlockSpec> = table(&t5(count, gated)).into_iter().rev().collect();
        assert!(names::set_layers(&mut turned, names::place).is_empty());
        turned.reverse();
        assert_eq!(turned, blocks);
    }
}

#[test]
fn ten_comes_after_nine() {
    let mut blocks = table(&llama(12));
    assert!(names::cyclic_units(&mut blocks, names::place, Ends::default()).is_empty());
    let units = Optimizer::new(Reference::<Slices>::default(), &blocks, Config::default()).unwrap().blocks().units.clone();
    assert_eq!(units.len(), 14);
    for (i, unit) in units[1..13].iter().enumerate() {
        let names: BTreeSet<_> = unit.blocks.iter().map(|&b| blocks[b as usize].name.rsplit_once("layers.").unwrap().1).collect();
        assert_eq!((names.len(), unit.blocks.len()), (9, 9));
        assert!(names.iter().all(|n| n.starts_with(&format!("{i}."))), "{names:?}");
    }
}

fn names_of(blocks: &[BlockSpec], f: impl Fn(&BlockSpec) -> bool) -> Vec<&str> {
    blocks.iter().filter(|b| f(b)).map(|b| b.name.as_str()).collect()
}

#[test]
fn cyclic_units_are_badams_blocks() {
    let mut names = llama(2);
    names.push("lm_head.weight".into());
    for (embedding, head) in [(false, false), (true, false), (false, true), (true, true)] {
        let mut blocks = table(&names);
        blocks[3].frozen = true;
        assert!(names::cyclic_units(&mut blocks, names::place, Ends { embedding, head }).is_empty());
        for (i, b) in blocks.iter().enumerate() {
            let (group, frozen) = match i {
                0 => ("embedding", !embedding),
                1..=9 => ("layer.0", i == 3),
                10..=18 => ("layer.1", false),
                _ => ("head", !head),
            };
            assert_eq!((b.group.as_deref(), b.frozen, b.always_active), (Some(group), frozen, false), "{}", b.name);
        }
    }
}

#[test]
fn lisa_units_are_layers_between_ends_that_are_always_active() {
    let mut names = t5(2, true);
    names.push("extra.weight".into());
    let mut blocks = table(&names);
    blocks[0].group = Some("ends".into()); // an always-active block must be in none
    assert_eq!(names::lisa_units(&mut blocks, names::place), ["extra.weight"]);
    let ends = ["shared.weight", "encoder.final_layer_norm.weight", "decoder.final_layer_norm.weight", "lm_head.weight"];
    assert_eq!(names_of(&blocks, |b| b.always_active), ends);
    assert_eq!(names_of(&blocks, |b| b.group.is_none()), [&ends[..], &["extra.weight"]].concat());
    for b in &blocks {
        let layer = b.layer.map(|l| format!("layer.{l}"));
        assert_eq!(b.group, layer, "{}", b.name);
    }
    let config = Config { policy: Policy::Lisa { period: 1, units: 2 }, ..Config::default() };
    let o = Optimizer::new(Reference::<Slices>::default(), &blocks, config).unwrap();
    assert_eq!(o.blocks().units.len(), 4 + 4 + 1);
}

#[test]
fn half_fine_tuning_takes_a_bias_with_its_weight() {
    let mut blocks = table(&gpt2());
    assert!(names::half_fine_tuning_units(&mut blocks, names::place).is_empty());
    let config = Config { policy: Policy::HalfFineTuning { period: 1 }, ..Config::default() };
    let o = Optimizer::new(Reference::<Slices>::default(), &blocks, config).unwrap();
    let grouped: Vec<_> = o.blocks().units.iter().filter(|u| u.blocks.len() == 2).collect();
    assert_eq!((grouped.len(), o.blocks().units.len()), (12 * 6, 12 * 6 + 4));
    for unit in grouped {
        let module = |b: &u32| blocks[*b as usize].name.rsplit_once('.').unwrap().0;
        assert_eq!(module(&unit.blocks[0]), module(&unit.blocks[1]));
    }
    // Half of two units in each of three cells of each layer.
    assert_eq!(o.active().regions.len(), 12 * 3 * 2);
}

/// What the user has made always active is no member of a group (A1.2), whatever the helper.
#[test]
fn what_is_always_active_stays_so() {
    let mut names = llama(2);
    names.push("classifier.weight".into());
    let fresh = |mut blocks: Vec<BlockSpec>| {
        let last = blocks.len() - 1;
        blocks[last].always_active = true;
        blocks[4].always_active = true;
        blocks
    };
    let (mut cyclic, mut lisa, mut half) = (fresh(table(&names)), fresh(table(&names)), fresh(table(&names)));
    assert!(names::cyclic_units(&mut cyclic, names::place, Ends::default()).is_empty());
    assert!(names::lisa_units(&mut lisa, names::place).is_empty());
    assert!(names::half_fine_tuning_units(&mut half, names::place).is_empty());
    let policies = [
        Policy::Cyclic { period: 1, order: Order::Ascending },
        Policy::Lisa { period: 1, units: 1 },
        Policy::HalfFineTuning { period: 1 },
    ];
    for (blocks, policy) in [cyclic, lisa, half].into_iter().zip(policies) {
        assert!(blocks[4].always_active && blocks[4].group.is_none() && blocks[4].layer == Some(0));
        assert!(blocks.last().is_some_and(|b| b.always_active && !b.frozen && b.group.is_none()));
        assert!(Optimizer::new(Reference::<Slices>::default(), &blocks, Config { policy, ..Config::default() }).is_ok());
    }
}

#[test]
fn a_users_names_come_first() {
    let mine = |name: &str| match name {
        "trunk.weight" => Some(Place::Layer { stack: Stack::Decoder, index: 40, category: "convolution" }),
        "model.layers.1.mlp.up_proj.weight" => Some(Place::Head), // against the layout
        _ => None,
    };
    let names = ["trunk.weight", "model.layers.1.mlp.up_proj.weight", "model.layers.1.mlp.down_proj.weight", "other"];
    let mut blocks: Vec<BlockSpec> = names.map(|n| BlockSpec::new(n, [1, 2])).to_vec();
    let place = |name: &str| mine(name).or_else(|| names::place(name));
    assert_eq!(names::lisa_units(&mut blocks, place), ["other"]);
    assert_eq!((blocks[0].layer, blocks[0].category.as_deref()), (Some(40), Some("convolution")));
    assert_eq!(blocks[0].group.as_deref(), Some("layer.40"));
    assert!(blocks[1].always_active && blocks[1].layer.is_none());
    assert_eq!(blocks[2].group.as_deref(), Some("layer.1"));
}
