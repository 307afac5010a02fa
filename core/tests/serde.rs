//! `Config` as TOML: each choice goes there and back, and the text that documents show means what they say.
#![cfg(feature = "serde")]

use blockllm::{
    Across, Config, Decay, Fill, First, Inactive, MaskKind, Missing, Order, Policy, ProbeOrder, ScoreKind, Trigger, VisitBias,
};

fn there_and_back(config: &Config) -> String {
    let text = toml::to_string(config).expect("TOML");
    let back: Config = toml::from_str(&text).unwrap_or_else(|e| panic!("{text}\n{e}"));
    assert_eq!(back, *config, "{text}");
    text
}

fn parsed(text: &str) -> Config {
    toml::from_str(text).unwrap_or_else(|e| panic!("{text}: {e}"))
}

fn error(text: &str) -> String {
    toml::from_str::<Config>(text).expect_err(text).to_string()
}

/// Every choice, each with the line of TOML that makes it.
#[rustfmt::skip]
fn choices() -> Vec<(&'static str, Config)> {
    fn with(change: impl FnOnce(&mut Config)) -> Config {
        let mut config = Config::default();
        change(&mut config);
        config
    }
    let policy = |policy: Policy| with(|c| c.policy = policy);
    vec![
        ("policy = { block_llm = { period = 7 } }", policy(Policy::BlockLlm(Trigger::Period(7)))),
        ("policy = { block_llm = \"patience\" }", policy(Policy::BlockLlm(Trigger::Patience))),
        ("policy = \"full\"", policy(Policy::Full)),
        ("policy = { cyclic = { period = 7, order = \"ascending\" } }", policy(Policy::Cyclic { period: 7, order: Order::Ascending })),
        ("policy = { cyclic = { period = 7, order = \"descending\" } }", policy(Policy::Cyclic { period: 7, order: Order::Descending })),
        ("policy = { cyclic = { period = 7, order = \"random\" } }", policy(Policy::Cyclic { period: 7, order: Order::Random })),
        ("policy = { lisa = { period = 7, units = 3 } }", policy(Policy::Lisa { period: 7, units: 3 })),
        ("policy = { half_fine_tuning = { period = 7 } }", policy(Policy::HalfFineTuning { period: 7 })),
        ("policy = { random_blocks = { period = 7 } }", policy(Policy::RandomBlocks { period: 7 })),
        ("sparsity = 0.25", with(|c| c.sparsity = 0.25)),
        ("patience = 3", with(|c| c.patience = 3)),
        ("seed = 11", with(|c| c.seed = 11)),
        ("score = \"gradient_norm\"", with(|c| c.score = ScoreKind::GradientNorm)),
        ("score = \"gradient_rms\"", with(|c| c.score = ScoreKind::GradientRms)),
        ("score = \"processed_norm\"", with(|c| c.score = ScoreKind::ProcessedNorm)),
        ("probe_order = \"round_robin\"", with(|c| c.probe_order = ProbeOrder::RoundRobin)),
        ("probe_order = \"random\"", with(|c| c.probe_order = ProbeOrder::Random)),
        ("probes_per_step = 4", with(|c| c.probes_per_step = Some(4))),
        ("first = \"random\"", with(|c| c.first = First::Random)),
        ("first = \"full_gradient\"", with(|c| c.first = First::FullGradient)),
        ("first = \"scan\"", with(|c| c.first = First::Scan)),
        ("visit_bias = \"ratio\"", with(|c| c.visit_bias = VisitBias::Ratio)),
        ("visit_bias = \"exponential\"", with(|c| c.visit_bias = VisitBias::Exponential)),
        ("visit_bias = \"none\"", with(|c| c.visit_bias = VisitBias::None)),
        ("fill = \"last_masked\"", with(|c| c.fill = Fill::LastMasked)),
        ("fill = \"uniform\"", with(|c| c.fill = Fill::Uniform)),
        ("fill = \"whole\"", with(|c| c.fill = Fill::Whole)),
        ("mask = \"coordinate\"", with(|c| c.mask = MaskKind::Coordinate)),
        ("mask = { tile = 64 }", with(|c| c.mask = MaskKind::Tile(64))),
        ("across = \"reset\"", with(|c| c.across = Across::Reset)),
        ("across = \"carry\"", with(|c| c.across = Across::Carry)),
        ("inactive = \"frozen\"", with(|c| c.inactive = Inactive::Frozen)),
        ("inactive = { sign_sgd = 0.5 }", with(|c| c.inactive = Inactive::SignSgd(0.5))),
        ("decay = \"l2\"", with(|c| c.decay = Decay::L2)),
        ("decay = \"decoupled\"", with(|c| c.decay = Decay::Decoupled)),
        ("betas = [0.8, 0.95]", with(|c| c.betas = [0.8, 0.95])),
        ("eps = 1e-6", with(|c| c.eps = 1e-6)),
        ("weight_decay = 0.1", with(|c| c.weight_decay = 0.1)),
        ("clip = 0.75", with(|c| c.clip = Some(0.75))),
        ("guard_limit = 3", with(|c| c.guard_limit = 3)),
        ("missing = \"error\"", with(|c| c.missing = Missing::Error)),
        ("missing = \"zero\"", with(|c| c.missing = Missing::Zero)),
        ("immediate = true", with(|c| c.immediate = true)),
    ]
}

#[test]
fn each_choice_goes_there_and_back_and_is_one_line() {
    for (line, config) in choices() {
        assert_eq!(parsed(line), config, "{line}");
        there_and_back(&config);
    }
}

/// A field that is new and in no line above is missed here.
#[test]
fn no_field_is_forgotten() {
    let all = Config { clip: Some(1.0), probes_per_step: Some(1), ..Config::default() };
    let table: toml::Table = toml::from_str(&there_and_back(&all)).expect("a table");
    for field in table.keys() {
        assert!(choices().iter().any(|(line, _)| line.starts_with(&format!("{field} = "))), "{field}");
    }
    // As many as `Debug` shows, which is derived.
    let shown = format!("{all:#?}");
    let fields = shown.lines().filter(|line| line.starts_with("    ") && !line.starts_with("     ") && line.contains(": "));
    assert_eq!(fields.count(), table.len(), "{shown}");
}

#[test]
fn every_preset_goes_there_and_back() {
    let presets = [
        Config::default(),
        Config::paper(),
        Config::published_code(),
        Config::frugal(),
        Config::badam(),
        Config::lisa(),
        Config::hft(9),
        Config::adamw(),
    ];
    let texts = presets.each_ref().map(there_and_back);
    for (i, text) in texts.iter().enumerate() {
        assert!(!texts[..i].contains(text), "two presets say the same: {text}");
    }
}

#[test]
fn what_is_left_out_is_the_default() {
    assert_eq!(parsed(""), Config::default());
    let nested = parsed("sparsity = 0.5\n[policy.cyclic]\nperiod = 100\norder = \"random\"\n[inactive]\nsign_sgd = 1.0");
    let policy = Policy::Cyclic { period: 100, order: Order::Random };
    assert_eq!(nested, Config { sparsity: 0.5, policy, ..Config::default() });
    // A whole number is a fraction too.
    assert_eq!(parsed("sparsity = 0").sparsity, 0.0);
}

#[test]
fn what_is_unknown_is_refused_by_name() {
    for (text, words) in [
        ("sparsness = 0.5", &["unknown field `sparsness`", "`sparsity`"][..]),
        ("policy = \"galore\"", &["unknown variant `galore`", "`lisa`"]),
        ("policy = \"own\"", &["unknown variant `own`"]),
        ("policy = { cyclic = { period = 1 } }", &["missing field `order`"]),
        ("policy = { block_llm = { period = -1 } }", &["invalid value", "-1"]),
        ("fill = \"half\"", &["unknown variant `half`", "`last_masked`", "`uniform`", "`whole`"]),
        ("sparsity = \"much\"", &["invalid type", "f64"]),
        ("betas = [0.9]", &["invalid length 1"]),
        ("guard_limit = 4294967296", &["4294967296"]),
    ] {
        let error = error(text);
        assert!(words.iter().all(|word| error.contains(word)), "{text}: {error}");
    }
}

/// A rule of the user's own is code, and goes into no file.
#[test]
fn a_rule_of_ones_own_is_refused() {
    use blockllm::policy::{Candidates, Choose};
    use blockllm::random::Stream;

    #[derive(Debug)]
    struct None;
    impl Choose for None {
        fn trigger(&self) -> Trigger {
            Trigger::Period(1)
        }
        fn choose(&self, _: &Candidates<'_>, _: &mut Vec<u64>, _: &mut Stream) -> Vec<u32> {
            Vec::new()
        }
    }
    let config = Config { policy: Policy::own(None), ..Config::default() };
    assert!(toml::to_string(&config).is_err());
}
