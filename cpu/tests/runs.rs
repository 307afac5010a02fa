//! Whole runs of 60 steps in lockstep with the reference, to the bit after each: blocks of many parts beside blocks of a
//! few elements, and more blocks than are worked on together.

mod common;

use blockllm::{Across, BlockSpec, Config, DType, Decay, Fill, Inactive, MaskKind, Policy, ScoreKind, Step, Trigger};
use blockllm_conformance::drive::Drive;
use blockllm_conformance::harness::Harness;
use blockllm_conformance::host::Host;
use blockllm_conformance::lockstep::Lockstep;
use blockllm_conformance::recipe::{Mode, chain, values};
use common::Threads;

const STEPS: u64 = 60;

struct Run {
    name: &'static str,
    config: Config,
    micro_batches: u32,
    dtypes: &'static [DType],
}

fn specs(dtypes: &[DType]) -> Vec<BlockSpec> {
    let size = |i: usize| match i {
        0 => 9000,
        5 => 3 * 1024,
        17 => 1025,
        33 => 5121,
        _ => [7, 64, 150, 33][i % 4],
    };
    let spec = |i: usize| {
        let spec = BlockSpec::new(format!("block {i}"), [1, size(i)]).dtype(dtypes[i % dtypes.len()]);
        match i {
            3 | 36 => spec.group("far apart").scales(0.5, 2.0),
            8 => spec.always_active(),
            _ => spec,
        }
    };
    (0..40).map(spec).collect()
}

/// Each has what another has not.
fn runs() -> Vec<Run> {
    let base = Config { policy: Policy::BlockLlm(Trigger::Period(4)), patience: 3, guard_limit: 2, seed: 5, ..Config::default() };
    let run = |name, config, micro_batches, dtypes| Run { name, config, micro_batches, dtypes };
    vec![
        run("carry, sign, clip", Config { clip: Some(2.0), fill: Fill::Uniform, ..base.clone() }, 2, &[DType::F32]),
        run(
            "reset, frozen, L2",
            Config {
                across: Across::Reset,
                inactive: Inactive::Frozen,
                decay: Decay::L2,
                weight_decay: 0.05,
                sparsity: 0.5,
                ..base.clone()
            },
            1,
            &[DType::F32, DType::Bf16],
        ),
        run(
            "tiles, processed gradients",
            Config {
                mask: MaskKind::Tile(24),
                fill: Fill::Uniform,
                score: ScoreKind::ProcessedNorm,
                sparsity: 0.6,
                weight_decay: 0.1,
                ..base.clone()
            },
            1,
            &[DType::F32, DType::F16],
        ),
        run("each block at once", Config { fill: Fill::Uniform, immediate: true, ..base.clone() }, 1, &[DType::F32]),
        run("wide", Config { clip: Some(1.0), fill: Fill::Uniform, ..base }, 3, &[DType::F64]),
    ]
}

fn gradient(step: u64, micro: u64, block: usize, spec: &BlockSpec) -> Host {
    let drift = (chain(&[step / 5, block as u64]) % 5) as i64 - 3;
    let x = values(chain(&[step, micro, block as u64]), spec.len(), DType::F64, Mode::Normal, drift).doubles();
    let n = x.len();
    // In the last part of a large block, and in some small ones.
    let wild = |i: usize| match step {
        7 | 8 => block == 0 && i == n - 1,
        13 => block % 5 == 3 && i == n / 2,
        _ => false,
    };
    let number = |(i, x): (usize, f64)| if wild(i) { [f64::NAN, f64::INFINITY][step as usize % 2] } else { x };
    Host::from_doubles(x.into_iter().enumerate().map(number), spec.dtype)
}

fn run<H: Harness>(h: &mut H, r: &Run, drive: Drive) {
    let specs = specs(r.dtypes);
    let params = specs.iter().zip(0..).map(|(s, i)| {
        Host::from_doubles(values(chain(&[9, i]), s.len(), DType::F64, Mode::Normal, 0).doubles().into_iter(), s.dtype)
    });
    let mut pair = Lockstep::new(h, &specs, &r.config, params.collect(), drive, r.name);
    let (mut switches, mut skips, mut clips) = (0, 0, 0);
    for step in 1..=STEPS {
        match step {
            25 => pair.freeze(0, true),
            38 => pair.freeze(0, false),
            44 => pair.restore(&specs, &r.config),
            45 => pair.force_decision(),
            _ => {}
        }
        let micro = |micro| specs.iter().enumerate().map(|(b, s)| gradient(step, micro, b, s)).collect();
        let grads: Vec<Vec<Host>> = (0..u64::from(r.micro_batches)).map(micro).collect();
        let numbers = Step { inv_loss_scale: if step % 2 == 0 { 0.1 } else { 1.0 }, ..Step::new(1e-2) };
        let report = pair.step(numbers.loss(1.0).micro_batches(r.micro_batches), &grads);
        switches += u32::from(report.switched);
        skips += u32::from(report.skipped);
        clips += u32::from(report.clip < 1.0);
    }
    assert!(switches >= 10 && skips >= 1, "{}: {switches} switches, {skips} skips", r.name);
    assert!(r.config.clip.is_none() || clips >= 10, "{}: {clips} clips", r.name);
}

fn on_threads(drive: Drive) {
    for r in runs() {
        run(&mut Threads::<1, 1024>, &r, drive);
        run(&mut Threads::<2, 1024>, &r, drive);
        run(&mut Threads::<7, 2048>, &r, drive);
    }
}

#[test]
fn whole_steps() {
    on_threads(Drive::Whole);
}

#[test]
fn streamed_in_any_order() {
    on_threads(Drive::Streaming);
}
