//! What keeps an optimizer from being made, and blocks from coming and going.

use super::*;

/// What keeps an optimizer from being made.
pub fn configurations(seen: &mut Seen) {
    let immediate = Config { immediate: true, ..config() };
    let policy = |policy| Config { policy, ..config() };
    for (bad, says) in [
        (Config { sparsity: 1.0, ..config() }, ["sparsity", "1"]),
        (Config { sparsity: f64::NAN, ..config() }, ["sparsity", "NaN"]),
        (Config { patience: 0, ..config() }, ["patience", "0"]),
        (Config { patience: 1 << 40, ..config() }, ["patience", "1099511627776"]),
        (Config { betas: [0.9, 1.0], ..config() }, ["beta", "1"]),
        (Config { betas: [-0.1, 0.9], ..config() }, ["beta", "-0.1"]),
        (Config { eps: -1.0, ..config() }, ["eps", "-1"]),
        (Config { eps: 1e-60, ..config() }, ["eps", "compute type f32"]),
        (Config { eps: 1e60, ..config() }, ["eps", "finite in the compute type f32"]),
        (Config { weight_decay: -0.5, ..config() }, ["weight_decay", "-0.5"]),
        (Config { weight_decay: 1e60, ..config() }, ["weight_decay", "compute type f32"]),
        (Config { clip: Some(0.0), ..config() }, ["clip", "0"]),
        (Config { clip: Some(1.0), ..immediate.clone() }, ["clip", "None"]),
        (Config { missing: Missing::Zero, ..immediate }, ["missing", "Zero"]),
        (Config { missing: Missing::Zero, score: ScoreKind::ProcessedNorm, ..config() }, ["missing", "Zero"]),
        (Config { guard_limit: 0, ..config() }, ["guard_limit", "0"]),
        (Config { probes_per_step: Some(0), ..config() }, ["probes_per_step", "0"]),
        (Config { mask: MaskKind::Tile(0), ..config() }, ["tile", "0"]),
        (Config { inactive: Inactive::SignSgd(-2.0), ..config() }, ["sign scale", "-2"]),
        (policy(Policy::RandomBlocks { period: 0 }), ["period", "0"]),
        (policy(Policy::BlockLlm(Trigger::Period(0))), ["period", "0"]),
        (policy(Policy::Cyclic { period: 0, order: Order::Random }), ["period", "0"]),
        (policy(Policy::Lisa { period: 1, units: 0 }), ["units", "0"]),
    ] {
        let error = Optimizer::new(Slow::default(), &specs(), bad).err().expect("a bad configuration");
        assert!(matches!(error, Error::Config { .. }), "{error:?}");
        seen.note(&error, &says);
    }
}

/// Block lists that are refused, at construction and where blocks are added; nothing has changed then.
pub fn blocks(seen: &mut Seen) {
    let new = |n: usize| BlockSpec::new("new", [1, n]);
    let bad: Vec<(Vec<BlockSpec>, Vec<&str>)> = vec![
        (vec![new(4), new(4)], vec!["new"]),
        (vec![new(4), BlockSpec::new("other", [1, 4]).tied("new")], vec!["new"]),
        (vec![new(4).scales(-1.0, 1.0)], vec!["lr scale", "-1", "new"]),
        (vec![new(4).scales(1.0, f64::INFINITY)], vec!["weight decay scale", "inf", "new"]),
        (vec![BlockSpec::new("new", [usize::MAX, 2])], vec!["shape", "new", "18446744073709551615"]),
        (vec![new(4).dtype(DType::U32)], vec!["dtype", "u32", "new"]),
        (vec![BlockSpec::new("x", [1, 4]), new(4).dtype(DType::F64)], vec!["new", "f64", "f32"]),
        (vec![new(4).group("g").always_active()], vec!["new", "group g"]),
        (vec![new(900).always_active(), BlockSpec::new("x", [1, 4])], vec!["900", "budget"]),
    ];
    for (list, says) in bad {
        let error = Optimizer::new(Slow::default(), &list, config()).err().expect("a bad block list");
        seen.note(&error, &says);
        // The numbers of the sum are others beside blocks that are there.
        let says = if says[0] == "900" { vec!["900", "budget is"] } else { says };
        seen.refused(config(), trained, |o, _| o.add_blocks(&list).map(drop), &says);
    }
    for list in [vec![], vec![new(4).frozen()], vec![new(0)]] {
        let error = Optimizer::new(Slow::default(), &list, config()).err().expect("nothing to train");
        seen.note(&error, &["no trainable block"]);
    }
    let whole = Config { fill: Fill::Whole, sparsity: 0.9, ..config() };
    let error = Optimizer::new(Slow::default(), &[new(100)], whole).err().expect("nothing fits");
    seen.note(&error, &["100", "10"]);
}

pub fn blocks_that_come_and_go(seen: &mut Seen) {
    seen.refused(config(), trained, |o, _| o.freeze(6), &["block 6", "there are 6"]);
    seen.refused(config(), trained, |o, _| o.thaw(77), &["block 77", "there are 6"]);
    seen.refused(config(), trained, |o, _| o.remove_block(6), &["block 6", "there are 6"]);
    seen.refused(config(), trained, |o, _| o.thaw(2), &["block w2", "trainable"]);
    let frozen = |o: &mut Engine, p: &mut Params| {
        o.freeze(2).unwrap();
        trained(o, p);
    };
    seen.refused(config(), frozen, |o, _| o.freeze(2), &["block w2", "frozen"]);
    let removed = |o: &mut Engine, p: &mut Params| {
        o.remove_block(3).unwrap();
        trained(o, p);
    };
    seen.refused(config(), removed, |o, _| o.thaw(3), &["block w3", "removed"]);
    seen.refused(config(), removed, |o, _| o.freeze(3), &["block w3", "removed"]);
    seen.refused(config(), removed, |o, _| o.remove_block(3), &["block w3", "removed"]);
    // Blocks of 40, 7, 90, 33, 64 and 20 coordinates: with 247 of them 7 fit into the budget, with 183 not.
    let whole = || Config { fill: Fill::Whole, sparsity: 0.97, ..config() };
    seen.refused(whole(), trained, |o, _| o.remove_block(4), &["7 coordinates", "room for 6"]);
    // An active block of 90 coordinates, without which the budget is too small for what is always active.
    let mut always = specs();
    always[4] = always[4].clone().always_active();
    let with = |seed| Optimizer::new(Slow::default(), &always, Config { sparsity: 0.7, seed, ..config() }).unwrap();
    let mut o = (0..).map(with).find(|o| o.active().find(2).is_some()).unwrap();
    let (before, set) = (o.save().unwrap(), o.active().clone());
    seen.note(&o.remove_block(2).expect_err("the rest does not fit"), &["64", "50"]);
    assert!(before == o.save().unwrap() && *o.active() == set && !o.blocks().is_removed(2));
    // Always-active blocks: one that was frozen when the budget was made.
    let mut specs = specs();
    specs[2] = specs[2].clone().always_active().frozen();
    let config = Config { sparsity: 0.5, ..config() };
    let mut o = Optimizer::new(Slow::default(), &specs, config).unwrap();
    let before = o.save().unwrap();
    seen.note(&o.thaw(2).expect_err("it does not fit"), &["90", "82"]);
    assert!(before == o.save().unwrap() && o.blocks().spec(2).frozen);
}
