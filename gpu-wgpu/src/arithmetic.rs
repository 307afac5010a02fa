//! The shaders' integer arithmetic against the host's floating point, bit by bit.

use crate::control::Control;
use crate::kernel::{Kernels, compile_source};
use crate::recorder::Recorder;
use crate::window::Window;
use half::{bf16, f16};
use wgpu::{BufferUsages, MapMode, PollType};

const SOURCE: &str = include_str!("../shaders/tests/arithmetic.wgsl");
const PAIRS: usize = 1 << 15;

fn mix(i: u64) -> u64 {
    let mut z = i.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

/// Numbers that are not negative: of any exponent, in [0, 1], beside powers of two, with few bits (which make ties), and
/// such as an f32 rounds to a denormal.
fn number(i: u64) -> f64 {
    let (x, y) = (mix(i), mix(i ^ 0x5555_5555));
    let fraction = x & 0xf_ffff_ffff_ffff;
    let exponent = |from: i64, to: i64| ((1023 + from + (y % (to - from) as u64) as i64) as u64) << 52;
    match i % 8 {
        0 => f64::from_bits(x % 0x7ff0_0000_0000_0000),
        1 => f64::from_bits(exponent(-60, 0) | fraction),
        2 => f64::from_bits(exponent(-160, -120) | fraction),
        3 => f64::from_bits(exponent(-20, 20) | (fraction & 0xf_ffff_f800_0000) | (x >> 60 << 28)),
        4 => f64::from_bits((exponent(-3, 3) + (x & 3)).wrapping_sub(1)),
        5 => f64::from_bits(fraction >> (y % 52)), // denormals
        6 => 1.0 - f64::from_bits(exponent(-56, -1) | fraction),
        _ => f64::from((f64::from_bits(exponent(-140, 127) | fraction)) as f32),
    }
}

const SPECIAL: [f64; 12] =
    [0.0, 1.0, 0.5, f64::MIN_POSITIVE, 5e-324, f64::MAX, 0.999, 0.9, 1.0 - f64::EPSILON / 2.0, f32::MAX as f64, 1e-45, 65520.0];

fn pairs() -> Vec<[f64; 2]> {
    let all = SPECIAL.iter().flat_map(|&a| SPECIAL.iter().map(move |&b| [a, b]));
    let mut out: Vec<_> = all.chain((0..PAIRS as u64).map(|i| [number(2 * i), number(2 * i + i / 8 % 8 * 2 + 1)])).collect();
    out.truncate(PAIRS);
    out
}

fn read(r: &Recorder, buffer: &wgpu::Buffer) -> Vec<u8> {
    buffer.map_async(MapMode::Read, .., |done| done.expect("a mapping"));
    r.device.poll(PollType::wait_indefinitely()).expect("the device");
    buffer.slice(..).get_mapped_range().expect("a mapped buffer").to_vec()
}

/// A device of the test's own; nothing where there is none, unless `REQUIRE_BACKENDS` has it.
pub fn recorder(test: &str) -> Option<Recorder> {
    match crate::open_blocking() {
        Ok((device, queue)) => {
            let kernels = Kernels::new(&device);
            Some(Recorder::new(device, queue, kernels).expect("a device"))
        }
        Err(why) => {
            assert!(!std::env::var("REQUIRE_BACKENDS").unwrap_or_default().contains("wgpu"), "{why}");
            println!("SKIP wgpu {test}: {why}");
            None
        }
    }
}

/// Doubles and words that the shader makes of pairs.
fn run(r: &mut Recorder, pairs: &[[f64; 2]]) -> (Vec<[f64; 6]>, Vec<[u32; 5]>) {
    let n = pairs.len() as u64;
    let pipeline = compile_source(&r.device, "arithmetic", SOURCE);
    let input = r.storage("pairs", 16 * n).expect("memory");
    let out = [r.storage("doubles", 48 * n).expect("memory"), r.storage("words", 20 * n).expect("memory")];
    let usage = BufferUsages::MAP_READ | BufferUsages::COPY_DST;
    let staging = [r.buffer("doubles", 48 * n, usage).expect("memory"), r.buffer("words", 20 * n, usage).expect("memory")];
    r.write(&input, 0, bytemuck::cast_slice(pairs)).expect("a write");
    let control = Control { items: n as u32, ..Control::default() };
    let windows = [&input, &out[0], &out[1]].map(Window::whole);
    r.launch_compiled(&pipeline, &control, &windows, (n as u32).div_ceil(64)).expect("a launch");
    for (from, to) in out.iter().zip(&staging) {
        r.commands().copy_buffer_to_buffer(from, 0, to, 0, from.size());
    }
    r.submit().expect("a submission");
    let [doubles, words] = staging.each_ref().map(|b| read(r, b));
    (bytemuck::pod_collect_to_vec(&doubles), bytemuck::pod_collect_to_vec(&words))
}

/// 1 in f32 is its own factor; a NaN of either side is one.
fn single_product(x: f32, y: f32) -> f32 {
    if x == 0.0 { x } else { x * y }
}

#[test]
fn integer_arithmetic_is_ieee_arithmetic_to_the_bit() {
    let Some(mut recorder) = recorder("arithmetic") else { return };
    let pairs = pairs();
    let (doubles, words) = run(&mut recorder, &pairs);
    for (i, &[a, b]) in pairs.iter().enumerate() {
        let single = a as f32;
        let signed = f32::from_bits(single.to_bits() | (b.to_bits() as u32) << 31);
        let mut want = vec![("sum", a + b), ("product", a * b), ("root", a.sqrt())];
        let mut got = vec![doubles[i][0], doubles[i][1], doubles[i][3]];
        if a > 0.0 && b > 0.0 {
            want.push(("quotient", a / b));
            got.push(doubles[i][2]);
        }
        if a <= 1.0 {
            want.push(("1 - a", 1.0 - a));
            got.push(doubles[i][4]);
        }
        if single.is_normal() || single == 0.0 {
            want.push(("widened", f64::from(single)));
            got.push(doubles[i][5]);
        }
        for ((what, want), got) in want.into_iter().zip(got) {
            assert_eq!(got.to_bits(), want.to_bits(), "{what} of {a:e} and {b:e}: {got:e} is not {want:e}");
        }
        let mut want = vec![
            ("f(a)", single.to_bits()),
            ("half", u32::from(f16::from_f32(signed).to_bits())),
            ("bfloat", u32::from(bf16::from_f32(signed).to_bits())),
            ("widened half", f16::from_bits(b.to_bits() as u16).to_f32().to_bits()),
        ];
        let mut got = vec![words[i][0], words[i][2], words[i][3], words[i][4]];
        if (b as f32) > 0.0 && (b as f32).is_finite() {
            want.push(("f32 product", single_product(signed, b as f32).to_bits()));
            got.push(words[i][1]);
        }
        for ((what, want), got) in want.into_iter().zip(got) {
            assert_eq!(got, want, "{what} of {a:e} and {b:e}: {got:x} is not {want:x}");
        }
    }
}

#[test]
fn every_half_is_widened_and_narrowed_back() {
    // Every f16 passes by as the low bits of b.
    let all: Vec<[f64; 2]> = (0..1u64 << 16).map(|h| [f64::from(f16::from_bits(h as u16 & 0x7fff)), f64::from_bits(h)]).collect();
    let Some(mut recorder) = recorder("halves") else { return };
    for (h, words) in run(&mut recorder, &all).1.into_iter().enumerate() {
        let exact = f16::from_bits(h as u16);
        let (got, want) = (f32::from_bits(words[4]), exact.to_f32());
        assert!(got.to_bits() == want.to_bits() || (got.is_nan() && want.is_nan()), "{h:x}: {got} is not {want}");
        if all[h][0].is_finite() {
            let sign = (h as u32 & 1) << 15;
            assert_eq!(words[2], sign | (h as u32 & 0x7fff), "{h:x} there and back");
        }
    }
}
