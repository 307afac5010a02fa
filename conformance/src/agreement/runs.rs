//! Whole runs: 60 steps with switches, skipped steps, clipping and accumulation, compared after every step.

use crate::drive::Drive;
use crate::harness::{Agreement, Harness};
use crate::lockstep::Lockstep;
use crate::problem::{Problem, STEPS, problems};
use blockllm::{DType, Policy};

/// What a run came to; so that it cannot go by without what it is for.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    switches: usize,
    skips: usize,
    skipped_switches: usize,
    clips: usize,
}

fn run<H: Harness>(h: &mut H, p: &Problem, drive: Drive) -> Seen {
    let mut pair = Lockstep::new(h, &p.specs, &p.config, p.parameters(), drive, &p.name);
    let mut seen = Seen::default();
    for step in 1..=STEPS {
        let (frozen, thawed) = Problem::frozen_and_thawed(step);
        frozen.into_iter().for_each(|b| pair.freeze(b, true));
        thawed.into_iter().for_each(|b| pair.freeze(b, false));
        if matches!(step, 17 | 18) && p.config.policy != Policy::Full {
            pair.force_decision();
        }
        let grads: Vec<_> = (0..p.micro_batches).map(|micro| p.gradients(step, micro)).collect();
        let would_switch = pair.reference.is_switch_pending();
        let report = pair.step(p.step(step), &grads);
        seen.switches += usize::from(report.switched);
        seen.skips += usize::from(report.skipped);
        seen.skipped_switches += usize::from(report.skipped && would_switch);
        seen.clips += usize::from(report.clip < 1.0 && !report.skipped);
        if step == 34 && H::AGREEMENT == Agreement::Bits {
            // A record of the reference goes on elsewhere.
            pair.restore(&p.specs, &p.config);
        }
    }
    seen
}

fn runs<H: Harness>(h: &mut H, dtypes: &[DType], drive: Drive) {
    let mut skipped_switches = 0;
    for p in problems(dtypes) {
        let seen = run(h, &p, drive);
        println!("{} {}: {seen:?}", H::NAME, p.name);
        let selects = p.config.policy != Policy::Full;
        assert!(!selects || seen.switches >= 5, "{}: {seen:?}", p.name);
        assert!(seen.skips >= 2, "{}: {seen:?}", p.name);
        assert!(p.config.clip.is_none() || seen.clips >= 5, "{}: {seen:?}", p.name);
        skipped_switches += seen.skipped_switches;
    }
    assert!(skipped_switches > 0, "no step that would have switched was skipped");
}

/// Every gradient of a micro-batch at hand.
pub fn whole_steps<H: Harness>(h: &mut H) {
    runs(h, &[DType::F32], Drive::Whole);
}

/// One gradient at a time, shuffled: the same bits as the reference's whole steps (A6.5).
pub fn streamed_in_any_order<H: Harness>(h: &mut H) {
    runs(h, &[DType::F32], Drive::Streaming);
}

/// Half types beside f32, and f64 where there is it.
pub fn wider_types<H: Harness>(h: &mut H) {
    let mixed: Vec<DType> = [DType::F32, DType::F16, DType::Bf16].into_iter().filter(|d| H::supports(*d)).collect();
    runs(h, &mixed, Drive::Whole);
    if H::supports(DType::F64) {
        runs(h, &[DType::F64], Drive::Streaming);
    }
}
