//! Every error: that it is reached, that its message says what and where, and that everything is as it was: the record of the
//! state is the same, and the run goes on to the bit as one that was never troubled. What the documentation excepts
//! (`Backend`, `Poisoned`, and what a step that stands leaves) has tests of its own.
#![allow(missing_docs)]

#[path = "../common/mod.rs"]
mod common;
mod driving;
mod making;

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
    making::configurations(&mut seen);
    making::blocks(&mut seen);
    making::blocks_that_come_and_go(&mut seen);
    driving::gradients_and_parameters(&mut seen);
    driving::strided(&mut seen);
    driving::numbers_of_a_step(&mut seen);
    driving::calls_out_of_order(&mut seen);
    driving::waiting(&mut seen);
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
    let source = include_str!("../../src/error.rs");
    let (_, body) = source.split_once("pub enum Error<E> {").unwrap();
    let (body, _) = body.split_once("\n}").unwrap();
    let lines = body.lines().filter_map(|l| l.strip_prefix("    ").filter(|l| l.starts_with(char::is_uppercase)));
    lines.map(|l| l.trim_end_matches([',', ' ', '{']).to_string()).collect()
}

/// Of configurations, blocks and steps, from the sources that check them.
fn fields() -> Vec<String> {
    let sources = [
        include_str!("../../src/config.rs"),
        include_str!("../../src/block.rs"),
        include_str!("../../src/optimizer/check.rs"),
        include_str!("../../src/optimizer/step.rs"),
        include_str!("../../src/optimizer/adopt.rs"),
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
