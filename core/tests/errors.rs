//! Every error: that it is reached, that its message says what and where, and that everything is as it was: the record of the
//! state is the same, and the run goes on to the bit as one that was never troubled. What the documentation excepts
//! (`Backend`, `Poisoned`, and what a step that stands leaves) has tests of its own.
#![allow(missing_docs)]

mod common;

use blockllm::policy::{Candidates, Choose};
use blockllm::random::Stream;
use blockllm::{
    Across, BlockId, BlockSpec, Config, DType, Error, Fill, First, HostTensors, Inactive, Info, MaskKind, Missing, Optimizer,
    Order, Policy, Progress, Record, Reference, ScoreKind, Step, Trigger, View, ViewMut,
};
use common::*;
use std::collections::BTreeSet;
use std::convert::Infallible;
use std::fmt::{Debug, Display};

type Engine = Optimizer<Slow>;
type Outcome = Result<(), Error<Lost>>;
type Params = Vec<Vec<f32>>;

/// Raised by adapters alone, since a step without a loss is legal for the engine (A3.1): each with a test that reaches it and
/// what that looks for.
const OF_ADAPTERS: [(&str, &str, &str); 1] = [("MissingLoss", "integrations/candle/tests/optimizer.rs", "no loss was given")];

/// Names of variants and fields that were reached.
#[derive(Default)]
struct Seen(BTreeSet<String>);

impl Seen {
    /// Notes an error whose one line must hold all of `says`.
    fn note<E: Debug + Display>(&mut self, error: &Error<E>, says: &[&str]) {
        let (debug, message) = (format!("{error:?}"), error.to_string());
        assert!(
            says.iter().all(|s| message.contains(s)) && !message.contains('\n'),
            "{debug}: {message:?} without one of {says:?}"
        );
        self.0.insert(debug.split(|c: char| !c.is_alphanumeric()).next().unwrap().to_string());
        if let Error::Config { field, .. } | Error::Step { field, .. } = error {
            self.0.insert(format!("field {field}"));
        }
    }

    /// A call on an optimizer that `prepare` has brought somewhere: its error, and that nothing came of it.
    fn refused(
        &mut self, config: Config, prepare: impl Fn(&mut Engine, &mut Params),
        call: impl FnOnce(&mut Engine, &mut Params) -> Outcome, says: &[&str],
    ) {
        let [(mut o, mut p), (mut twin, mut q)] = [(); 2].map(|()| {
            let (mut o, mut p) = (engine(config.clone()), parameters());
            prepare(&mut o, &mut p);
            (o, p)
        });
        // Where the engine waits or a step updates at once there is no record; the run that goes on shows the same later.
        let before = o.save().ok();
        let error = call(&mut o, &mut p).expect_err("an error");
        self.note(&error, says);
        assert_eq!(o.save().ok(), before, "{error}");
        assert_eq!(bits(&p), bits(&q), "{error}");
        go_on(&mut o, &mut p);
        go_on(&mut twin, &mut q);
        assert_eq!(bits(&p), bits(&q), "after {error}");
        assert!(o.save().unwrap() == twin.save().unwrap(), "after {error}");
    }
}

fn engine(config: Config) -> Engine {
    Optimizer::new(Slow::default(), &specs(), config).unwrap()
}

fn grad(g: &[Vec<f32>], block: BlockId) -> View<'_> {
    View::F32(&g[block as usize])
}

/// Ends what is open, then some more steps.
fn go_on(o: &mut Engine, p: &mut Params) {
    while o.is_step_open() {
        let g = gradients(77);
        for block in o.missing().map(|w| w.block).collect::<Vec<_>>() {
            o.grad_with(block, &grad(&g, block), &mut ViewMut::F32(&mut p[block as usize])).unwrap();
        }
        if o.next_micro_batch(None).is_err() {
            let _ = o.finish(&mut views(p)).unwrap();
        }
    }
    o.wait().unwrap();
    run(o, p, 40..43);
}

fn config() -> Config {
    Config { policy: Policy::BlockLlm(Trigger::Period(4)), inactive: Inactive::Frozen, ..near_the_paper() }
}

fn fresh(_: &mut Engine, _: &mut Params) {}

fn trained(o: &mut Engine, p: &mut Params) {
    run(o, p, 0..6);
}

/// A window of two micro-batches, its first one open.
fn in_a_window(o: &mut Engine, p: &mut Params) {
    trained(o, p);
    o.begin(Step::new(0.01).micro_batches(2)).unwrap();
}

fn in_a_step(o: &mut Engine, p: &mut Params) {
    trained(o, p);
    o.begin(Step::new(0.01)).unwrap();
}

/// An active block of the next step.
fn active(o: &Engine) -> BlockId {
    o.active().regions[0].block
}

fn step(o: &mut Engine, step: Step, p: &mut Params) -> Outcome {
    let g = gradients(9);
    o.step(step, |b| Some(grad(&g, b)), &mut views(p)).map(drop)
}

#[test]
fn each_error_names_what_and_where_and_changes_nothing_a6_5() {
    let mut seen = Seen::default();
    configurations(&mut seen);
    blocks(&mut seen);
    blocks_that_come_and_go(&mut seen);
    gradients_and_parameters(&mut seen);
    strided(&mut seen);
    numbers_of_a_step(&mut seen);
    calls_out_of_order(&mut seen);
    waiting(&mut seen);
    decisions(&mut seen);
    rules_of_the_user(&mut seen);
    streaks(&mut seen);
    records(&mut seen);
    failures(&mut seen);
    let adapters = OF_ADAPTERS.map(|(name, file, needle)| {
        let path = format!("{}/../{file}", env!("CARGO_MANIFEST_DIR"));
        assert!(std::fs::read_to_string(&path).unwrap().contains(needle), "{file} does not look for {needle:?}");
        name.to_string()
    });
    let wanted: BTreeSet<String> = variants().into_iter().chain(fields()).collect();
    let reached: BTreeSet<String> = seen.0.into_iter().chain(adapters).collect();
    assert!(wanted.len() > 40, "{wanted:?}");
    assert_eq!(wanted.difference(&reached).collect::<Vec<_>>(), Vec::<&String>::new(), "not reached");
}

/// Of `Error`, from its source.
fn variants() -> Vec<String> {
    let source = include_str!("../src/error.rs");
    let (_, body) = source.split_once("pub enum Error<E> {").unwrap();
    let (body, _) = body.split_once("\n}").unwrap();
    let lines = body.lines().filter_map(|l| l.strip_prefix("    ").filter(|l| l.starts_with(char::is_uppercase)));
    lines.map(|l| l.trim_end_matches([',', ' ', '{']).to_string()).collect()
}

/// Of configurations, blocks and steps, from the sources that check them.
fn fields() -> Vec<String> {
    let sources = [
        include_str!("../src/config.rs"),
        include_str!("../src/block.rs"),
        include_str!("../src/optimizer/check.rs"),
        include_str!("../src/optimizer/step.rs"),
        include_str!("../src/optimizer/adopt.rs"),
    ];
    let mut fields = Vec::new();
    for line in sources.iter().flat_map(|s| s.lines()) {
        let literal = |text: &str| text.split('"').nth(1).map(|f| format!("field {f}"));
        let line = line.trim_start();
        if line.starts_with("check(") {
            fields.extend(literal(line));
        } else if let Some((_, rest)) = line.split_once("field: \"") {
            fields.extend(literal(&format!("\"{rest}")));
        } else if line.starts_with("for (field, ") {
            fields.extend(line.split('"').skip(1).step_by(2).map(|f| format!("field {f}")));
        }
    }
    fields
}

/// What keeps an optimizer from being made.
fn configurations(seen: &mut Seen) {
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
fn blocks(seen: &mut Seen) {
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

fn blocks_that_come_and_go(seen: &mut Seen) {
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

fn gradients_and_parameters(seen: &mut Seen) {
    let sign = || Config { inactive: Inactive::SignSgd(1.0), fill: Fill::Uniform, ..config() };
    let g = gradients(9);
    let double = vec![0.0f64; 200];
    for prepare in [fresh, trained] {
        // A whole step in which one tensor is wrong is not begun.
        for (block, tensor) in [(0, "short"), (5, "double"), (3, "none")] {
            let wrong = |b: BlockId| match tensor {
                _ if b != block => Some(grad(&g, b)),
                "short" => Some(View::F32(&g[b as usize][1..])),
                "double" => Some(View::F64(&double[..SIZES[b as usize]])),
                _ => None,
            };
            let name = format!("w{block}");
            let n = SIZES[block as usize].to_string();
            let says: &[&str] = match tensor {
                "short" => &["gradient", &name, &n],
                "double" => &["gradient", &name, "f64", "f32"],
                _ => &["gradient", &name],
            };
            seen.refused(sign(), prepare, |o, p| o.step(Step::new(0.01), wrong, &mut views(p)).map(drop), says);
        }
        let grads = |b: BlockId| Some(grad(&g, b));
        type Change = fn(&mut Vec<(BlockId, ViewMut<'_>)>);
        let changes: [(Change, &[&str]); 4] = [
            (|v| v[4].1 = ViewMut::F32(&mut []), &["parameter", "w4", "0", "64"]),
            (|v| v[1].1 = ViewMut::F64(&mut []), &["parameter", "w1", "f64", "f32"]),
            (|v| v.retain(|(block, _)| *block != 4), &["parameter", "w4"]),
            (|v| v.swap(2, 3), &["ascending", "w2"]),
        ];
        for (change, says) in changes {
            let call = |o: &mut Engine, p: &mut Params| {
                let mut v = views(p);
                change(&mut v);
                o.step(Step::new(0.01), grads, &mut v).map(drop)
            };
            seen.refused(sign(), prepare, call, says);
        }
    }
    // Streamed: the step stays open and is repaired.
    let short = |o: &mut Engine, _: &mut Params| {
        let b = active(o);
        o.grad(b, &View::F32(&gradients(9)[b as usize][1..]))
    };
    seen.refused(config(), in_a_step, short, &["block w", "gradient", "elements"]);
    let half = |o: &mut Engine, _: &mut Params| o.grad(active(o), &View::F16(&[]));
    seen.refused(config(), in_a_step, half, &["block w", "gradient", "f16", "f32"]);
    seen.refused(config(), in_a_step, |o, _| o.grad(6, &View::F32(&[])), &["block 6", "there are 6"]);
    let idle = |o: &mut Engine, _: &mut Params| {
        let b = (0..6).find(|b| o.wanted().unwrap().iter().all(|w| w.block != *b)).expect("an idle block that is not probed");
        o.grad(b, &grad(&gradients(9), b))
    };
    seen.refused(config(), in_a_step, idle, &["did not ask", "block w"]);
    let delivered = |o: &mut Engine, p: &mut Params| {
        in_a_window(o, p);
        o.grad(active(o), &grad(&gradients(9), active(o))).unwrap();
    };
    seen.refused(config(), delivered, |o, _| o.grad(active(o), &grad(&gradients(9), active(o))), &["second time", "block w"]);
    seen.refused(config(), delivered, |o, _| o.accumulate(|b| Some(grad(&g, b))), &["second time", "block w"]);
    let delivered = |o: &mut Engine, p: &mut Params| {
        in_a_step(o, p);
        o.grad(active(o), &grad(&gradients(9), active(o))).unwrap();
    };
    let again = |o: &mut Engine, p: &mut Params| o.finish_whole(|b| Some(grad(&g, b)), &mut views(p)).map(drop);
    seen.refused(config(), delivered, again, &["second time", "block w"]);
    seen.refused(config(), in_a_step, |o, p| o.finish(&mut views(p)).map(drop), &["needs its gradient", "block w"]);
    seen.refused(config(), in_a_window, |o, _| o.next_micro_batch(None), &["needs its gradient", "block w"]);
    seen.refused(config(), in_a_window, |o, _| o.accumulate(|_| None), &["needs its gradient", "block w"]);
    let complete = |o: &mut Engine, p: &mut Params| {
        in_a_step(o, p);
        let g = gradients(9);
        for w in o.wanted().unwrap().to_vec() {
            o.grad(w.block, &grad(&g, w.block)).unwrap();
        }
    };
    seen.refused(config(), complete, |o, _| o.finish(&mut []).map(drop), &["has no parameter", "block w"]);
    seen.refused(sign(), in_a_step, |o, _| o.grad(active(o), &grad(&gradients(9), active(o))), &["has no parameter", "block w"]);
}

/// Slices that may be strided.
#[derive(Debug)]
struct Strided;

impl HostTensors for Strided {
    type Error = Infallible;
    type Param<'a> = (&'a mut [f32], bool);
    type Grad<'a> = (&'a [f32], bool);

    fn param_info(p: &(&mut [f32], bool)) -> Info {
        Info { len: p.0.len(), dtype: DType::F32, contiguous: p.1 }
    }

    fn grad_info(g: &(&[f32], bool)) -> Info {
        Info { len: g.0.len(), dtype: DType::F32, contiguous: g.1 }
    }

    fn read<R>(g: &(&[f32], bool), f: impl FnOnce(View<'_>) -> R) -> Result<R, Infallible> {
        Ok(f(View::F32(g.0)))
    }

    fn modify<R>(p: &mut (&mut [f32], bool), f: impl FnOnce(ViewMut<'_>) -> R) -> Result<R, Infallible> {
        Ok(f(ViewMut::F32(p.0)))
    }
}

fn strided(seen: &mut Seen) {
    let mut o = Optimizer::new(Reference::<Strided>::default(), &specs(), config()).unwrap();
    let block = o.active().regions[0].block;
    let (g, mut p) = (gradients(1), parameters());
    let before = o.save().unwrap();
    for (param, grad, what) in [(true, false, "gradient"), (false, true, "parameter")] {
        let mut params: Vec<_> = (0..).zip(&mut p).map(|(b, p)| (b, (&mut p[..], param || b != block))).collect();
        let grads = |b: BlockId| Some((&g[b as usize][..], grad || b != block));
        let error = o.step(Step::new(0.01), grads, &mut params).expect_err("strided");
        seen.note(&error, &[what, &format!("w{block}"), "contiguous"]);
        assert!(matches!(error, Error::NotContiguous { .. }) && before == o.save().unwrap());
    }
    assert_eq!(bits(&p), bits(&parameters()));
}

fn numbers_of_a_step(seen: &mut Seen) {
    let lr = |lr| Step::new(lr);
    let scale = |inv_loss_scale| Step { inv_loss_scale, ..Step::new(0.01) };
    for (bad, says) in [
        (lr(-0.1), ["lr", "-0.1"]),
        (lr(f64::NAN), ["lr", "NaN"]),
        (lr(1e39), ["lr", "finite"]),
        (scale(0.0), ["inv_loss_scale", "0"]),
        (scale(-1.0), ["inv_loss_scale", "-1"]),
        (scale(1e-60), ["inv_loss_scale", "positive"]),
        (scale(f64::INFINITY), ["inv_loss_scale", "inf"]),
        (lr(0.01).micro_batches(0), ["micro_batches", "0"]),
    ] {
        seen.refused(config(), trained, |o, _| o.begin(bad), &says);
        seen.refused(config(), trained, |o, p| step(o, bad, p), &says);
    }
    seen.refused(config(), trained, |o, p| step(o, lr(0.01).micro_batches(2), p), &["micro_batches", "2", "finish_whole"]);
    let immediate = Config { immediate: true, ..config() };
    seen.refused(immediate, trained, |o, _| o.begin(lr(0.01).micro_batches(2)), &["micro_batches", "2"]);
}

fn calls_out_of_order(seen: &mut Seen) {
    let none = || Some(View::F32(&[]));
    type Call<'a> = (&'a str, fn(&mut Engine, &mut Params) -> Outcome);
    let between: [Call<'_>; 6] = [
        ("grad", |o, _| o.grad(0, &View::F32(&[]))),
        ("abort", |o, _| o.abort()),
        ("finish", |o, p| o.finish(&mut views(p)).map(drop)),
        ("next_micro_batch", |o, _| o.next_micro_batch(None)),
        ("accumulate", |o, _| o.accumulate(|_| None)),
        ("poll_report", |o, _| o.poll_report().map(drop)),
    ];
    for (name, call) in between {
        seen.refused(config(), trained, call, &[name]);
    }
    seen.refused(config(), trained, |o, p| o.finish_whole(|_| none(), &mut views(p)).map(drop), &["finish_whole", "begin"]);
    let in_step: [Call<'_>; 9] = [
        ("begin", |o, _| o.begin(Step::new(0.01))),
        ("step", |o, p| step(o, Step::new(0.01), p)),
        ("freeze", |o, _| o.freeze(0)),
        ("thaw", |o, _| o.thaw(0)),
        ("force_decision", |o, _| o.force_decision()),
        ("request_report", |o, _| o.request_report()),
        ("add_blocks", |o, _| o.add_blocks(&[BlockSpec::new("new", [1, 2])]).map(drop)),
        ("remove_block", |o, _| o.remove_block(0)),
        ("poll", |o, _| o.poll().map(drop)),
    ];
    for (name, call) in in_step {
        seen.refused(config(), in_a_step, call, &[name, "a step is open"]);
    }
    seen.refused(config(), in_a_step, |o, _| o.next_micro_batch(None), &["next_micro_batch", "last"]);
    seen.refused(config(), in_a_step, |o, _| o.accumulate(|_| none()), &["accumulate", "last"]);
    seen.refused(config(), in_a_window, |o, p| o.finish(&mut views(p)).map(drop), &["finish", "more micro-batches"]);
    let scan = Config { first: First::Scan, ..config() };
    seen.refused(scan, fresh, |o, _| o.force_decision(), &["force_decision", "first set"]);
    let updated = |o: &mut Engine, p: &mut Params| {
        in_a_step(o, p);
        let b = active(o);
        o.grad_with(b, &grad(&gradients(9), b), &mut ViewMut::F32(&mut p[b as usize])).unwrap();
    };
    let immediate = || Config { immediate: true, ..config() };
    seen.refused(immediate(), updated, |o, _| o.abort(), &["abort", "finish the step"]);
    seen.refused(immediate(), updated, |o, _| o.save().map(drop), &["save", "finish the step"]);
    let carry = Config { across: Across::Carry, ..config() };
    seen.refused(carry, trained, |o, _| o.adopt(&Record::default()).map(drop), &["adopt", "before the first step"]);
    seen.refused(config(), fresh, |o, _| o.adopt(&Record::default()).map(drop), &["across", "Reset", "Carry"]);
}

/// The device takes its time: a step has ended and its switch is not known yet.
fn waiting(seen: &mut Seen) {
    let pending = |o: &mut Engine, p: &mut Params| {
        o.backend_mut().latency = 2;
        let g = gradients(9);
        assert_eq!(o.step(Step::new(0.01), |b| Some(grad(&g, b)), &mut views(p)).unwrap(), Progress::Pending);
    };
    type Call = fn(&mut Engine, &mut Params) -> Outcome;
    let calls: [Call; 9] = [
        |o, _| o.begin(Step::new(0.01)),
        |o, p| step(o, Step::new(0.01), p),
        |o, _| o.freeze(0),
        |o, _| o.thaw(0),
        |o, _| o.force_decision(),
        |o, _| o.request_report(),
        |o, _| o.save().map(drop),
        |o, _| o.remove_block(0),
        |o, _| o.wanted().map(drop),
    ];
    for call in calls {
        seen.refused(config(), pending, call, &["poll first"]);
    }
}

fn decisions(seen: &mut Seen) {
    let full = Config { policy: Policy::Full, ..config() };
    seen.refused(full, trained, |o, _| o.force_decision(), &["no decisions"]);
    // Forced before all units have scores: the step stands, the request is dropped, nothing is counted.
    let rare = || Config { policy: Policy::BlockLlm(Trigger::Period(1000)), probes_per_step: Some(1), ..config() };
    let ((mut o, mut p), (mut twin, mut q)) = ((engine(rare()), parameters()), (engine(rare()), parameters()));
    o.force_decision().unwrap();
    for (o, p) in [(&mut o, &mut p), (&mut twin, &mut q)] {
        step(o, Step::new(0.01), p).unwrap();
    }
    twin.wait().unwrap();
    let error = o.wait().expect_err("no score yet");
    let Error::Void { block, units } = &error else { panic!("{error:?}") };
    assert!(block.starts_with('w') && *units > 0);
    seen.note(&error, &[block, &units.to_string()]);
    assert_eq!((o.steps(), o.decisions(), o.visits()), (1, 0, twin.visits()));
    for (o, p) in [(&mut o, &mut p), (&mut twin, &mut q)] {
        go_on(o, p);
    }
    assert_eq!((bits(&p), o.active()), (bits(&q), twin.active()));
}

/// Answers what it is told on its second call.
#[derive(Debug)]
struct Rule(Vec<u32>);

impl Choose for Rule {
    fn trigger(&self) -> Trigger {
        Trigger::Period(2)
    }

    fn choose(&self, all: &Candidates<'_>, memory: &mut Vec<u64>, draws: &mut Stream) -> Vec<u32> {
        memory.push(draws.below(10));
        if all.steps() == 2 { self.0.clone() } else { all.units().collect() }
    }
}

fn rules_of_the_user(seen: &mut Seen) {
    for (answer, says) in [(vec![9], "unit 9 does not exist"), (vec![1, 1], "unit 1 (block/w1) is there twice")] {
        let mut o = engine(Config { policy: Policy::own(Rule(answer)), ..config() });
        let mut p = parameters();
        run(&mut o, &mut p, 0..1);
        let (set, draws) = (o.active().clone(), o.cursor_and_draws());
        step(&mut o, Step::new(0.01), &mut p).unwrap();
        seen.note(&o.wait().expect_err("a refused answer"), &["Rule", says]);
        // The step stands, and so does the set; memory and draws are as before.
        assert_eq!((o.steps(), o.decisions(), o.active(), o.cursor_and_draws()), (2, 0, &set, draws));
        run(&mut o, &mut p, 2..4);
        assert_eq!(o.decisions(), 1);
    }
}

fn streaks(seen: &mut Seen) {
    let mut o = engine(Config { guard_limit: 2, ..config() });
    let mut p = parameters();
    let nan: Vec<Vec<f32>> = SIZES.iter().map(|&n| vec![f32::NAN; n]).collect();
    for streak in 1..4 {
        let _ = o.step(Step::new(0.01), |b| Some(grad(&nan, b)), &mut views(&mut p)).unwrap();
        o.wait().unwrap();
        let checked: Outcome = o.report().unwrap().check();
        assert_eq!(checked.is_err(), streak >= 2);
        if let Err(error) = checked {
            seen.note(&error, &[&streak.to_string(), "limit 2"]);
        }
    }
    assert_eq!(bits(&p), bits(&parameters()));
    go_on(&mut o, &mut p); // it stops nothing
    assert!(o.report().unwrap().check::<Lost>().is_ok());
}

fn records(seen: &mut Seen) {
    let mut other = engine(Config { eps: 0.5, ..config() });
    let other = other.save().unwrap();
    seen.refused(config(), trained, |o, _| o.restore(&other), &["eps"]);
    seen.refused(config(), trained, |o, _| o.restore(&Record::default()), &["format"]);
    let cut = |o: &mut Engine, _: &mut Params| {
        let name = format!("m/w{}", o.current().regions[0].block);
        let mut leaves = o.save().unwrap().into_leaves();
        leaves.retain(|l| l.name != name);
        o.restore(&Record::from_leaves(leaves))
    };
    seen.refused(config(), trained, cut, &["m/w", "missing"]);
    let carry = Config { across: Across::Carry, ..config() };
    seen.refused(carry, fresh, |o, _| o.adopt(&Record::default()).map(drop), &["record"]);
}

/// The backend's own: a step is left half done, nothing runs until a restore, and then all is as it was saved.
fn failures(seen: &mut Seen) {
    let ((mut o, mut p), (mut twin, mut q)) = ((engine(config()), parameters()), (engine(config()), parameters()));
    for (o, p) in [(&mut o, &mut p), (&mut twin, &mut q)] {
        trained(o, p);
    }
    let (record, params) = (o.save().unwrap(), p.clone());
    o.backend_mut().fails_at = Some(active(&o));
    seen.note(&step(&mut o, Step::new(0.01), &mut p).expect_err("the device fails"), &["step", "the device is lost"]);
    o.backend_mut().fails_at = None;
    for call in [|o: &mut Engine| o.begin(Step::new(0.01)), |o: &mut Engine| o.save().map(drop), |o: &mut Engine| o.freeze(0)] {
        seen.note(&call(&mut o).expect_err("poisoned"), &["restore a record"]);
    }
    o.restore(&record).unwrap();
    p = params;
    for (o, p) in [(&mut o, &mut p), (&mut twin, &mut q)] {
        go_on(o, p);
    }
    assert_eq!(bits(&p), bits(&q));
    assert!(o.save().unwrap() == twin.save().unwrap());
    // Outside a step nothing is poisoned.
    o.backend_mut().lost = true;
    seen.note(&o.request_report().expect_err("the device is lost"), &["read the step report", "the device is lost"]);
    o.backend_mut().lost = false;
    assert!(o.save().unwrap() == twin.save().unwrap());
}
