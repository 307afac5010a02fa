//! The golden data on a backend: whole runs by an independent dense model.
//!
//! A backend that agrees to the bit replays each trace by itself; every field of every record must be the trace's. One that
//! agrees within bounds takes the f32 traces one step at a time, beside the reference, which is held to the trace to the bit
//! by its own test.

use crate::drive::Drive;
use crate::golden;
use crate::harness::{Agreement, Harness};
use crate::lockstep::Lockstep;
use crate::replay::replay;
use crate::trace::Trace;
use safetensors::SafeTensors;
use serde_json::Value;

/// All traces of the file.
pub fn traces() -> Vec<Trace> {
    let doc = golden::json("engine.json");
    let seed = doc["seed"].as_u64().expect("a seed");
    doc["traces"].as_array().expect("traces").iter().map(|t| Trace::new(t, seed)).collect()
}

fn beside_the_reference<H: Harness>(h: &mut H, t: &Trace, drive: Drive) {
    let specs = t.specs();
    let mut pair = Lockstep::new(h, &specs, &t.config, t.parameters(), drive, &t.name);
    for event in &t.events {
        let blocks = |key: &str| -> Vec<u32> {
            let numbers = event[key].as_array().into_iter().flatten();
            numbers.map(|b| b.as_u64().expect("a block") as u32).collect()
        };
        blocks("freeze").into_iter().for_each(|b| pair.freeze(b, true));
        blocks("thaw").into_iter().for_each(|b| pair.freeze(b, false));
        if event["force"] == Value::Bool(true) {
            pair.force_decision();
        }
        pair.step(t.step(event), &t.gradients(event));
    }
}

/// See the [module](self).
pub fn engine_traces<H: Harness>(h: &mut H) {
    let run = traces();
    let bytes = golden::bytes("engine.safetensors");
    let end = SafeTensors::deserialize(&bytes).expect("a safetensors file");
    let mut replayed = 0;
    for t in &run {
        if !t.blocks.iter().all(|b| H::supports(b.spec.dtype)) {
            println!("left out: {}: a type that {} does not have", t.name, H::NAME);
            continue;
        }
        replayed += 1;
        if H::AGREEMENT == Agreement::Bits {
            replay(h, t, Drive::Whole, false, &end);
            replay(h, t, Drive::Streaming, true, &end);
        } else {
            beside_the_reference(h, t, if t.number % 2 == 0 { Drive::Whole } else { Drive::Streaming });
        }
    }
    println!("{replayed} traces run on {}, {} left out", H::NAME, run.len() - replayed);
    assert!(replayed >= 20, "only {replayed} traces");
}
