//! How far results are from the reference's: the bound that is stated for sums of squares is held to, the rest is printed
//! (`--nocapture`).

mod common;

use blockllm::adam::{Decay, Hyper, Powers, Scales};
use blockllm::backend::{Arena, Measure, Seal, Work, flag, norm};
use blockllm::block::Blocks;
use blockllm::moments::Region;
use blockllm::reference::HostBuffer;
use blockllm::score::ROW;
use blockllm::{Backend, BlockSpec, Config, DType, MaskKind, Reference, Slices, View};
use blockllm_conformance::cases::numbers;
use blockllm_conformance::harness::{Harness, with};
use blockllm_conformance::host::Host;
use blockllm_conformance::pair::read;
use common::OnWgpu;

type OnDevice = OnWgpu<{ u64::MAX }, { u32::MAX }>;

/// What `sum_of_squares.wgsl` states.
const SUM: f64 = 1.5e-6;

const HYPER: Hyper = Hyper {
    lr: 3e-3,
    betas: [0.9, 0.999],
    eps: 1e-8,
    weight_decay: 0.1,
    decay: Decay::Decoupled,
    inv_loss_scale: 0.1,
    clip: Some(0.7),
    sign_scale: Some(0.25),
};

fn arena<B: Backend>(b: &mut B, n: usize) -> Arena<B::Buffer> {
    let mut alloc = |dtype, len| b.alloc(dtype, len).unwrap_or_else(|e| panic!("{e}"));
    Arena {
        gradient: alloc(DType::F32, n),
        m: alloc(DType::F32, n),
        v: alloc(DType::F32, n),
        spare: alloc(DType::F32, 0),
        masks: alloc(DType::U32, 0),
        old_masks: alloc(DType::U32, 0),
        sums: alloc(DType::F64, 1),
        table: alloc(DType::F64, ROW),
        steps: alloc(DType::U32, 1),
        powers: alloc(DType::F64, 4),
        flags: alloc(DType::U32, flag::LEN),
        norm: alloc(DType::F64, norm::LEN),
    }
}

fn doubles(b: &HostBuffer) -> Vec<f64> {
    match b.view(0, b.len()) {
        View::F32(x) => x.iter().map(|x| f64::from(*x)).collect(),
        View::F64(x) => x.to_vec(),
        other => panic!("numbers of {}", other.dtype()),
    }
}

/// The largest relative difference, and of how many elements the bits differ.
fn difference(got: &[f64], want: &[f64]) -> (f64, usize) {
    assert_eq!(got.len(), want.len());
    let off = |(g, w): (&f64, &f64)| if g.to_bits() == w.to_bits() { 0.0 } else { (g - w).abs() / w.abs() };
    let all = || got.iter().zip(want).map(off);
    (all().fold(0.0, f64::max), all().filter(|x| *x > 0.0).count())
}

/// Both sides of one block of `n` f32 elements.
struct Both {
    harness: OnDevice,
    device: blockllm_wgpu::Wgpu,
    arena: Arena<blockllm_wgpu::Buffer>,
    reference: Reference<Slices>,
    host: Arena<HostBuffer>,
    region: Region,
}

impl Both {
    fn new(n: usize) -> Option<Self> {
        let mut opened = None;
        with::<OnDevice>("accuracy", |_| opened = OnDevice::open().ok());
        let mut harness = opened?;
        let (mut device, mut reference) = (harness.backend(), Reference::<Slices>::default());
        device.prepare(&Blocks::new(&[BlockSpec::new("w", [1, n])]).expect("a block"), &Config::default()).expect("f32");
        let (mut arena_, mut host) = (arena(&mut device, n), arena(&mut reference, n));
        let start = Powers::START;
        let powers = [start.before[0], start.before[1], start.now[0], start.now[1]];
        device.write(&mut arena_.powers, 0, View::F64(&powers)).expect("a write");
        reference.write(&mut host.powers, 0, View::F64(&powers)).expect("host memory");
        let scales = Scales { lr: 1.5, weight_decay: 0.5 };
        let region = Region { block: 0, n, k: n, at: 0, gradient_at: 0, mask_at: 0, fresh: false, scales };
        Some(Self { harness, device, arena: arena_, reference, host, region })
    }

    fn score(&mut self, g: &Host, h: &Hyper, measure: Measure<'_>) -> (f64, f64) {
        let t = self.harness.upload(g.view());
        self.device.score(&mut self.arena, 0, &OnDevice::grad(&t), h, measure).expect("a score");
        self.reference.score(&mut self.host, 0, &g.view(), h, measure).expect("the reference");
        let got = read(&mut self.device, &self.arena.sums, DType::F64, 0, 1).expect("a readback");
        (doubles(&got)[0], doubles(&self.host.sums)[0])
    }
}

#[test]
fn sums_of_squares_are_as_near_as_stated() {
    let mut worst = 0.0f64;
    for n in [1, 16, 4096, 5000, 300_000] {
        let Some(mut both) = Both::new(n) else { return };
        for exponent in [-149, -135, -126, -90, -48, -47, -30, 0, 30, 46, 47, 80, 126] {
            // Random numbers; and one number over and over, whose additions err to one side.
            let mut number = numbers(n as u64 + 7, n, DType::F64).doubles();
            let scale = 2f64.powi(exponent);
            number.iter_mut().for_each(|x| *x = (x.abs().min(1.9) + 0.05) * scale);
            let same = (0..n).map(|_| 1.234_567_8 * scale);
            for g in [Host::from_doubles(number.clone().into_iter(), DType::F32), Host::from_doubles(same, DType::F32)] {
                for inv_loss_scale in [1.0, 0.1] {
                    let (got, want) = both.score(&g, &Hyper { inv_loss_scale, ..HYPER }, Measure::Gradient);
                    let off = if got == want { 0.0 } else { (got - want).abs() / want };
                    assert!(off <= SUM, "n {n}, 2^{exponent}, times {inv_loss_scale}: {got:e} is not {want:e}: {off:e}");
                    worst = worst.max(off);
                }
            }
        }
    }
    println!("sums of squares: {worst:e} relative");
}

fn work<'a>(active: &'a [Region]) -> Work<'a> {
    Work {
        step: 1,
        hyper: HYPER,
        mask: MaskKind::Coordinate,
        first: true,
        last: true,
        wanted: &[],
        active,
        summed: active,
        idle: &[],
        scored: &[],
        members: &[],
        switch: None,
        processed: None,
        guard_limit: 25,
    }
}

#[test]
fn what_steps_differ_by() {
    let n = 100_000;
    let Some(mut both) = Both::new(n) else { return };
    let mut p = numbers(1, n, DType::F32);
    let mut t = both.harness.upload(p.view());
    for step in 0..5u64 {
        let g = numbers(100 + step, n, DType::F32);
        let gt = both.harness.upload(g.view());
        let (r, active) = (both.region, [both.region]);
        let w = work(&active);
        let (device, arena, reference, host) = (&mut both.device, &mut both.arena, &mut both.reference, &mut both.host);
        device.gather(arena, &r, &OnDevice::grad(&gt), false).expect("a gather");
        device.seal(arena, &w, Seal::Step).expect("a seal");
        device.update(arena, &r, None, &mut OnDevice::param(&mut t), &HYPER).expect("an update");
        reference.gather(host, &r, &g.view(), false).expect("the reference");
        reference.seal(host, &w, Seal::Step).expect("the reference");
        reference.update(host, &r, None, &mut p.view_mut(), &HYPER).expect("the reference");
        let mut of = |buffer: &blockllm_wgpu::Buffer, want: &HostBuffer| {
            let got = read(device, buffer, want.dtype(), 0, want.len()).expect("a readback");
            difference(&doubles(&got), &doubles(want))
        };
        let powers = of(&arena.powers, &host.powers);
        assert_eq!(powers, (0.0, 0), "powers of beta are exact");
        let (m, v, norms) = (of(&arena.m, &host.m), of(&arena.v, &host.v), of(&arena.norm, &host.norm));
        assert!(norms.0 <= SUM, "{norms:?}");
        let parameter = difference(&both.harness.download(&mut both.device, &t).doubles(), &p.doubles());
        println!("step {step}: norm and clip {norms:?}, p {parameter:?}, m {m:?}, v {v:?} (largest relative, how many differ)");
    }
    let (g, r) = (numbers(77, n, DType::F32), both.region);
    for scale in [1.0, 1e-40] {
        // 1e-40: denormals, which a device may take for zero.
        let g = Host::from_doubles(g.doubles().into_iter().map(|x| x * scale), DType::F32);
        let gt = both.harness.upload(g.view());
        for add in [false, true, true] {
            both.device.gather(&mut both.arena, &r, &OnDevice::grad(&gt), add).expect("a gather");
            both.reference.gather(&mut both.host, &r, &g.view(), add).expect("the reference");
        }
        let got = read(&mut both.device, &both.arena.gradient, DType::F32, 0, n).expect("a readback");
        println!("three micro-batches times {scale:e}: {:?}", difference(&doubles(&got), &doubles(&both.host.gradient)));
    }
    for (name, present) in [("with moments", Some(&r)), ("without", None)] {
        let (got, want) = both.score(&g, &HYPER, Measure::Processed { present, switching: false });
        println!("processed score {name}: {:e} relative", (got - want).abs() / want);
    }
    for dtype in [DType::F32, DType::F16, DType::Bf16] {
        let (idle, mut p) = (Region { k: 0, ..r }, numbers(1, n, dtype));
        let (mut pt, gt) = (both.harness.upload(p.view()), both.harness.upload(g.view()));
        let param = &mut OnDevice::param(&mut pt);
        both.device.state_free(&mut both.arena, &idle, &OnDevice::grad(&gt), param, &HYPER).expect("a sign step");
        both.reference.state_free(&mut both.host, &idle, &g.view(), &mut p.view_mut(), &HYPER).expect("the reference");
        let off = difference(&both.harness.download(&mut both.device, &pt).doubles(), &p.doubles());
        println!("sign step of {dtype}: {off:?}");
    }
}
