//! A golden trace on a backend that agrees to the bit: every field of every record, the state at the end, in either drive
//! mode, and across save and restore.

use crate::drive::{self, Drive};
use crate::harness::Harness;
use crate::host::Host;
use crate::trace::Trace;
use blockllm::{Backend, Decision, Error, LossEntry, Optimizer, Reason, Record, Stage, Wanted};
use safetensors::SafeTensors;
use serde_json::{Value, json};

struct Run<H: Harness> {
    optimizer: Optimizer<H::Backend>,
    params: Vec<H::Tensor>,
    nan_gradients: u32,
}

fn start<H: Harness>(h: &mut H, t: &Trace) -> Run<H> {
    let made = Optimizer::new(h.backend(), &t.specs(), t.config.clone());
    let optimizer = made.unwrap_or_else(|e| panic!("{}: {e}", t.name));
    Run { optimizer, params: t.parameters().iter().map(|p| h.upload(p.view())).collect(), nan_gradients: 0 }
}

fn flag(v: &Value) -> bool {
    v.as_bool().unwrap_or(false)
}

impl<H: Harness> Run<H> {
    fn ok<R>(&self, result: Result<R, Error<<H::Backend as Backend>::Error>>, at: &str) -> R {
        result.unwrap_or_else(|e| panic!("{at}: {e}"))
    }

    /// What comes before the step begins: it changes what is asked for.
    fn prepare(&mut self, event: &Value, at: &str) {
        for (key, freeze) in [("freeze", true), ("thaw", false)] {
            for b in event[key].as_array().into_iter().flatten() {
                let block = b.as_u64().expect("a block") as u32;
                let done = if freeze { self.optimizer.freeze(block) } else { self.optimizer.thaw(block) };
                self.ok(done, at);
            }
        }
    }

    /// One event. Returns whether a forced decision was void.
    fn drive(&mut self, h: &mut H, t: &Trace, event: &Value, drive: Drive, at: &str) -> bool {
        if flag(&event["force"]) {
            let forced = self.optimizer.force_decision();
            self.ok(forced, at);
        }
        match drive::step(h, &mut self.optimizer, &mut self.params, t.step(event), &t.gradients(event), drive) {
            Ok(()) => false,
            Err(Error::Void { .. }) => true,
            Err(e) => panic!("{at}: {e}"),
        }
    }

    /// The record of the step, in the form of the golden file.
    fn record(&mut self, h: &mut H, t: &Trace, asked: (Value, Value, Value), at: &str) -> Value {
        let report = self.optimizer.report();
        let report = self.ok(report, at);
        let saved = self.optimizer.save();
        let dense = Dense::new(t, &self.ok(saved, at));
        let params: Vec<Host> = self.params.iter().map(|p| h.download(self.optimizer.backend_mut(), p)).collect();
        let o = &self.optimizer;
        let set: Vec<_> = o.active().counts().map(|(b, k)| json!([b, k])).collect();
        let decision = match report.decision {
            Some(Decision::Switch | Decision::Keep) => Value::from(set),
            _ => Value::Null,
        };
        let clip = (t.config.clip.is_some() && !report.skipped && report.stage == Stage::Training)
            .then(|| json!([report.norm.to_bits(), (report.clip as f32).to_bits(), report.clip.to_bits()]));
        let loss = match report.loss {
            LossEntry::None => "none",
            LossEntry::Entered => "entered",
            LossEntry::NotFinite => "nonfinite",
            LossEntry::Ignored => "ignored",
        };
        let free_nan = report.nan_gradients - self.nan_gradients;
        self.nan_gradients = report.nan_gradients;
        let (cursor, draws) = o.cursor_and_draws();
        json!({
            "step": report.step, "want": asked.0, "probe": asked.1, "free": asked.2, "free_nan": free_nan,
            "skip": report.skipped, "switch": report.switched, "clip": clip, "streak": report.streak,
            "streak_error": report.check::<std::convert::Infallible>().is_err(), "loss": loss,
            "rule": report.reason == Some(Reason::LossRule), "blocked": matches!(report.decision, Some(Decision::Void { .. })),
            "decision": decision, "pending": o.is_switch_pending(), "R": o.decisions(), "visits": o.visits(), "t": dense.t,
            "cursor": cursor, "draws": draws, "active": dense.active(), "hash": dense.hash(&params),
        })
    }

    /// What the next step asks for: blocks of the set, probed units, blocks moved without state.
    fn asked(&self, at: &str) -> (Value, Value, Value) {
        let wanted = self.ok(self.optimizer.wanted(), at);
        let blocks = |f: &dyn Fn(&Wanted) -> bool| wanted.iter().filter(|w| f(w)).map(|w| w.block).collect::<Vec<_>>();
        (json!(blocks(&|w| w.active.is_some())), json!(self.optimizer.probes()), json!(blocks(&|w| w.idle.is_some())))
    }
}

/// The saved state, spread out over all coordinates.
struct Dense {
    m: Vec<Vec<u8>>,
    v: Vec<Vec<u8>>,
    mask: Vec<Vec<u8>>,
    t: Vec<u64>,
    /// By block: its unit's row of the score table.
    rows: Vec<[f64; 3]>,
}

impl Dense {
    fn new(t: &Trace, saved: &Record) -> Self {
        let mut out = Self { m: vec![], v: vec![], mask: vec![], t: vec![], rows: vec![] };
        for b in &t.blocks {
            let (name, n, size) = (&b.spec.name, b.spec.len(), b.spec.dtype.size());
            let data = |prefix: &str| saved.get(&format!("{prefix}/{name}")).map(|l| l.data.clone());
            let state: Vec<u64> =
                data("block").expect("a leaf for every block").as_chunks().0.iter().map(|w| u64::from_le_bytes(*w)).collect();
            out.t.push(state[6]);
            out.rows.push([13, 14, 15].map(|i| f64::from_bits(state[i])));
            let active = data("m").is_some();
            let words = data("mask");
            let bit = |i: usize| words.as_ref().map_or(active, |w| w[i / 8] >> (i % 8) & 1 == 1);
            let mask: Vec<u8> = (0..n).map(|i| u8::from(bit(i))).collect();
            let spread = |packed: Option<Vec<u8>>| {
                let (mut dense, mut at) = (vec![0; n * size], 0);
                for i in (0..n).filter(|&i| mask[i] == 1) {
                    dense[i * size..][..size].copy_from_slice(&packed.as_ref().expect("a packed run")[at..at + size]);
                    at += size;
                }
                // What a short tile leaves over stays zero (A4.5).
                assert!(packed.is_none_or(|p| p[at..].iter().all(|&x| x == 0)), "{name}: the end of the packed run");
                dense
            };
            out.m.push(spread(data("m")));
            out.v.push(spread(data("v")));
            out.mask.push(mask);
        }
        out
    }

    fn active(&self) -> usize {
        self.mask.iter().flatten().filter(|&&b| b == 1).count()
    }

    fn hash(&self, params: &[Host]) -> u64 {
        let blocks = params.iter().zip(&self.m).zip(&self.v).zip(&self.mask);
        blockllm::record::fnv1a(blocks.flat_map(|(((p, m), v), mask)| [p.bytes(), m.clone(), v.clone(), mask.clone()].concat()))
    }
}

/// The scores that entered the table in this step: those whose row bears its number.
fn check_scores<B: Backend>(o: &Optimizer<B>, dense: &Dense, want: &Value, step: u64, at: &str) {
    for (u, unit) in o.blocks().units.iter().enumerate() {
        let row = dense.rows[unit.blocks[0] as usize];
        let listed = want.as_array().expect("scores").iter().find(|s| s[0].as_u64() == Some(u as u64));
        let got = (row[2] == step as f64).then(|| blockllm::score::of_row(o.config().score, &row).map(f64::to_bits));
        assert_eq!(got.flatten(), listed.and_then(|s| s[1].as_u64()), "{at}: score of unit {u}");
    }
}

/// The state at the end of a trace, element for element: a hash that differs does not say where.
fn check_end(t: &Trace, dense: &Dense, params: &[Host], file: &SafeTensors<'_>) {
    let params: Vec<_> = params.iter().map(Host::bytes).collect();
    for (what, blocks) in [("p", &params), ("m", &dense.m), ("v", &dense.v)] {
        for dtype in ["f32", "f64"] {
            let of_type = t.blocks.iter().zip(blocks).filter(|(b, _)| b.spec.dtype.name() == dtype);
            let got: Vec<u8> = of_type.flat_map(|(_, x)| x.clone()).collect();
            let want = file.tensor(&format!("t{}.{what}.{dtype}", t.number)).map(|x| x.data().to_vec());
            assert!(got == want.unwrap_or_default(), "{}: {what} at the end", t.name);
        }
    }
    let mask = file.tensor(&format!("t{}.mask", t.number)).expect("masks of the trace");
    assert!(dense.mask.concat() == mask.data(), "{}: masks at the end", t.name);
}

/// Replays a trace. With `resume`, saves where the trace says so and goes on in a fresh optimizer.
///
/// # Panics
/// Where anything differs from the trace.
pub fn replay<H: Harness>(h: &mut H, t: &Trace, drive: Drive, resume: bool, end: &SafeTensors<'_>) {
    let mut run = start(h, t);
    for (event, want) in t.events.iter().zip(&t.records) {
        let step = event["step"].as_u64().expect("a step");
        let at = format!("{} {}, step {step}, {drive:?}", H::NAME, t.name);
        run.prepare(event, &at);
        let asked = run.asked(&at);
        let void = run.drive(h, t, event, drive, &at);
        let got = run.record(h, t, asked, &at);
        for (key, value) in want.as_object().expect("a record") {
            if key == "scored" {
                let saved = run.optimizer.save();
                check_scores(&run.optimizer, &Dense::new(t, &run.ok(saved, &at)), value, step, &at);
            } else {
                assert_eq!(&got[key], value, "{at}: {key}");
            }
        }
        assert_eq!(void, flag(&event["force"]) && flag(&want["blocked"]), "{at}: a forced decision that is void is an error");
        if resume && t.resume_after.contains(&step) {
            let saved = run.optimizer.save();
            let saved = run.ok(saved, &at);
            let (params, nan_gradients) = (std::mem::take(&mut run.params), run.nan_gradients);
            run = Run { params, nan_gradients, ..start(h, t) };
            let restored = run.optimizer.restore(&saved);
            run.ok(restored, &at);
            let again = run.optimizer.save();
            assert_eq!(run.ok(again, &at), saved, "{at}: a restored optimizer saves the same record");
        }
    }
    let saved = run.optimizer.save();
    let dense = Dense::new(t, &run.ok(saved, &t.name));
    let params: Vec<Host> = run.params.iter().map(|p| h.download(run.optimizer.backend_mut(), p)).collect();
    check_end(t, &dense, &params, end);
}
