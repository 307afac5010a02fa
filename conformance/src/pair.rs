//! The reference and a backend side by side: each operation runs on both, from the same arena, and every element of every
//! buffer is compared, also of those that the operation has no business with.

use crate::harness::{Agreement, Harness};
use crate::host::Host;
use crate::recipe::{chain, mix};
use blockllm::adam::Hyper;
use blockllm::backend::{Arena, Measure, Moment, Seal, Work, flag, norm};
use blockllm::block::Blocks;
use blockllm::moments::Region;
use blockllm::reference::HostBuffer;
use blockllm::score::ROW;
use blockllm::{Backend, BlockSpec, Config, DType, MaskKind, Reference, View, ViewMut};

/// A buffer of the arena.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum Field {
    Gradient,
    M,
    V,
    Spare,
    Masks,
    OldMasks,
    Sums,
    Table,
    Steps,
    Powers,
    Flags,
    Norm,
}

use Field::{Flags, Gradient, M, Masks, Norm, OldMasks, Powers, Spare, Steps, Sums, Table, V};

/// All of them.
pub const FIELDS: [Field; 12] = [Gradient, M, V, Spare, Masks, OldMasks, Sums, Table, Steps, Powers, Flags, Norm];

impl Field {
    /// The buffer of an arena.
    pub fn of<T>(self, a: &Arena<T>) -> &T {
        match self {
            Gradient => &a.gradient,
            M => &a.m,
            V => &a.v,
            Spare => &a.spare,
            Masks => &a.masks,
            OldMasks => &a.old_masks,
            Sums => &a.sums,
            Table => &a.table,
            Steps => &a.steps,
            Powers => &a.powers,
            Flags => &a.flags,
            Norm => &a.norm,
        }
    }

    fn of_mut<T>(self, a: &mut Arena<T>) -> &mut T {
        match self {
            Gradient => &mut a.gradient,
            M => &mut a.m,
            V => &mut a.v,
            Spare => &mut a.spare,
            Masks => &mut a.masks,
            OldMasks => &mut a.old_masks,
            Sums => &mut a.sums,
            Table => &mut a.table,
            Steps => &mut a.steps,
            Powers => &mut a.powers,
            Flags => &mut a.flags,
            Norm => &mut a.norm,
        }
    }
}

/// How far a result may be from the reference's, by buffer and element, where a backend agrees within bounds.
pub type Allowed<'a> = &'a dyn Fn(Field, usize) -> f64;

/// Nothing may differ.
pub fn nothing(_: Field, _: usize) -> f64 {
    0.0
}

/// Blocks and where a set of them lies.
#[derive(Clone, Debug)]
pub struct Layout {
    /// Element type and length, by block.
    pub blocks: Vec<(DType, usize)>,
    /// Elements of each packed buffer, and words of the masks of both sets.
    pub capacity: usize,
    /// Words of `masks` and of `old_masks`.
    pub mask_words: [usize; 2],
}

type Error<H> = <<H as Harness>::Backend as Backend>::Error;

/// See the [module](self).
pub struct Pair<'h, H: Harness> {
    harness: &'h mut H,
    device: H::Backend,
    arena: Arena<<H::Backend as Backend>::Buffer>,
    /// The reference's arena: look here for inputs and expected results.
    pub host: Arena<HostBuffer>,
    reference: Reference,
    /// Names the case in messages.
    pub case: String,
}

fn arena<B: Backend>(b: &mut B, layout: &Layout) -> Result<Arena<B::Buffer>, B::Error> {
    let compute = layout.blocks[0].0.compute().expect("a trainable type");
    let blocks = layout.blocks.len();
    Ok(Arena {
        gradient: b.alloc(compute, layout.capacity)?,
        m: b.alloc(compute, layout.capacity)?,
        v: b.alloc(compute, layout.capacity)?,
        spare: b.alloc(compute, layout.capacity)?,
        masks: b.alloc(DType::U32, layout.mask_words[0])?,
        old_masks: b.alloc(DType::U32, layout.mask_words[1])?,
        sums: b.alloc(DType::F64, blocks)?,
        table: b.alloc(DType::F64, blocks * ROW)?,
        steps: b.alloc(DType::U32, blocks)?,
        powers: b.alloc(DType::F64, 4 * blocks)?,
        flags: b.alloc(DType::U32, flag::LEN)?,
        norm: b.alloc(DType::F64, norm::LEN)?,
    })
}

/// Elements as bit patterns and as numbers.
fn elements(x: View<'_>) -> Vec<(u64, f64)> {
    match x {
        View::F32(x) => x.iter().map(|e| (u64::from(e.to_bits()), f64::from(*e))).collect(),
        View::F64(x) => x.iter().map(|e| (e.to_bits(), *e)).collect(),
        View::U32(x) => x.iter().map(|e| (u64::from(*e), f64::from(*e))).collect(),
        View::F16(x) => x.iter().map(|e| (u64::from(e.to_bits()), f64::from(*e))).collect(),
        View::Bf16(x) => x.iter().map(|e| (u64::from(e.to_bits()), f64::from(*e))).collect(),
        other => panic!("elements of {}", other.dtype()),
    }
}

/// Asserts that two runs of elements agree: to the bit (two NaNs are one), or where the agreement is one within bounds
/// as far as `allowed` says.
///
/// # Panics
/// With the place and both values, where they do not.
pub fn compare(agreement: Agreement, got: View<'_>, want: View<'_>, allowed: &dyn Fn(usize) -> f64, what: &str) {
    assert_eq!((got.dtype(), got.len()), (want.dtype(), want.len()), "{what}");
    for (i, (g, w)) in elements(got).into_iter().zip(elements(want)).enumerate() {
        let same = g.0 == w.0 || (g.1.is_nan() && w.1.is_nan());
        if !same {
            let bound = if agreement == Agreement::Bits { 0.0 } else { allowed(i) };
            let off = (g.1 - w.1).abs();
            // Which of the values that are not finite it is, is open where nothing bounds it.
            let wild = bound.is_infinite() && !g.1.is_finite() && !w.1.is_finite();
            let (got, want) = (g, w);
            assert!(
                wild || (off <= bound && bound > 0.0),
                "{what}[{i}]: {got:?} is not {want:?}; they differ by {off:e}, allowed is {bound:e}"
            );
        }
    }
}

/// Reads a buffer of a backend, waiting for it.
///
/// # Errors
/// The backend's.
pub fn read<B: Backend>(b: &mut B, buffer: &B::Buffer, dtype: DType, at: usize, len: usize) -> Result<HostBuffer, B::Error> {
    let mut ticket = b.read(buffer, at, len)?;
    b.submit()?;
    let mut out = HostBuffer::zeros(dtype, len);
    while !b.poll(&mut ticket, out.view_mut(0, len))? {
        b.relax();
    }
    Ok(out)
}

impl<'h, H: Harness> Pair<'h, H> {
    /// Both arenas, filled alike: every buffer with numbers that no operation would leave there by itself.
    ///
    /// # Panics
    /// Where the backend fails.
    pub fn new(harness: &'h mut H, layout: &Layout, case: impl Into<String>) -> Self {
        let spec = |(i, (dtype, n)): (usize, &(DType, usize))| {
            let mut spec = BlockSpec::new(format!("block {i}"), [1, *n]);
            spec.dtype = *dtype;
            spec
        };
        let specs: Vec<_> = layout.blocks.iter().enumerate().map(spec).collect();
        let blocks = Blocks::new(&specs).expect("legal blocks");
        let (mut device, mut reference) = (harness.backend(), Reference::default());
        device.prepare(&blocks, &Config::default()).expect("blocks that the backend supports");
        let arena_ = arena(&mut device, layout).unwrap_or_else(|e| panic!("alloc: {e}"));
        let host = arena(&mut reference, layout).expect("host memory");
        let mut new = Self { harness, device, arena: arena_, host, reference, case: case.into() };
        for field in FIELDS {
            new.poison(field);
        }
        new.set_flags(&[0; flag::LEN]);
        new.write(Norm, 0, View::F64(&[1.0; norm::LEN]));
        new.write(Powers, 0, View::F64(&vec![1.0; 4 * layout.blocks.len()]));
        new
    }

    fn ok<R>(&self, operation: &str, result: Result<R, Error<H>>) -> R {
        result.unwrap_or_else(|e| panic!("{}: {operation}: {e}", self.case))
    }

    /// Writes elements on both sides.
    pub fn write(&mut self, field: Field, at: usize, x: View<'_>) {
        self.reference.write(field.of_mut(&mut self.host), at, x).expect("host memory");
        let done = self.device.write(field.of_mut(&mut self.arena), at, x);
        self.ok("write", done);
    }

    /// All flags at once.
    pub fn set_flags(&mut self, flags: &[u32; flag::LEN]) {
        self.write(Flags, 0, View::U32(flags));
    }

    fn poison(&mut self, field: Field) {
        let buffer = field.of(&self.host);
        let (len, seed) = (buffer.len() as u64, chain(&[77, field as u64]));
        let word = |i: u64| mix(seed ^ i);
        let number = |i: u64| (word(i) >> 40) as f64 / 1024.0 - 3000.5;
        let filled = match buffer.dtype() {
            DType::F32 => HostBuffer::F32((0..len).map(|i| number(i) as f32).collect()),
            DType::F64 => HostBuffer::F64((0..len).map(number).collect()),
            _ => HostBuffer::U32((0..len).map(|i| word(i) as u32).collect()),
        };
        self.write(field, 0, filled.view(0, len as usize));
    }

    /// Compares every buffer.
    pub fn check(&mut self, allowed: Allowed<'_>) {
        for field in FIELDS {
            let want = field.of(&self.host);
            let (len, dtype) = (want.len(), want.dtype());
            let got = read(&mut self.device, field.of(&self.arena), dtype, 0, len);
            let (got, what) = (self.ok("read", got), format!("{} {}: {field:?}", H::NAME, self.case));
            let want = field.of(&self.host).view(0, len);
            compare(H::AGREEMENT, got.view(0, len), want, &|i| allowed(field, i), &what);
        }
    }

    fn check_param(&mut self, t: &H::Tensor, want: &Host, allowed: &dyn Fn(usize) -> f64) {
        let got = self.harness.download(&mut self.device, t);
        compare(H::AGREEMENT, got.view(), want.view(), allowed, &format!("{} {}: parameter", H::NAME, self.case));
    }

    /// [`Backend::score`].
    pub fn score(&mut self, block: u32, g: &Host, h: &Hyper, measure: Measure<'_>) {
        self.reference.score(&mut self.host, block, &g.view(), h, measure).expect("the reference");
        let t = self.harness.upload(g.view());
        let done = self.device.score(&mut self.arena, block, &H::grad(&t), h, measure);
        self.ok("score", done);
        self.unchanged(&t, g);
    }

    /// [`Backend::build_mask`].
    pub fn build_mask(&mut self, r: &Region, g: &Host, kind: MaskKind) {
        self.reference.build_mask(&mut self.host, r, &g.view(), kind).expect("the reference");
        let t = self.harness.upload(g.view());
        let done = self.device.build_mask(&mut self.arena, r, &H::grad(&t), kind);
        self.ok("build_mask", done);
        self.unchanged(&t, g);
    }

    /// [`Backend::gather`].
    pub fn gather(&mut self, r: &Region, g: &Host, add: bool) {
        self.reference.gather(&mut self.host, r, &g.view(), add).expect("the reference");
        let t = self.harness.upload(g.view());
        let done = self.device.gather(&mut self.arena, r, &H::grad(&t), add);
        self.ok("gather", done);
        self.unchanged(&t, g);
    }

    fn unchanged(&mut self, t: &H::Tensor, g: &Host) {
        let got = self.harness.download(&mut self.device, t);
        assert_eq!(got.bits(), g.bits(), "{} {}: a gradient was written to", H::NAME, self.case);
    }

    /// [`Backend::state_free`]; `p` becomes what the reference makes of it.
    pub fn state_free(&mut self, r: &Region, g: &Host, p: &mut Host, h: &Hyper, allowed: &dyn Fn(usize) -> f64) {
        let (gt, mut pt) = (self.harness.upload(g.view()), self.harness.upload(p.view()));
        self.reference.state_free(&mut self.host, r, &g.view(), &mut p.view_mut(), h).expect("the reference");
        let done = self.device.state_free(&mut self.arena, r, &H::grad(&gt), &mut H::param(&mut pt), h);
        self.ok("state_free", done);
        self.check_param(&pt, p, allowed);
        self.unchanged(&gt, g);
    }

    /// [`Backend::seal`].
    pub fn seal(&mut self, w: &Work<'_>, part: Seal) {
        self.reference.seal(&mut self.host, w, part).expect("the reference");
        let done = self.device.seal(&mut self.arena, w, part);
        self.ok("seal", done);
    }

    /// [`Backend::enter_scores`].
    pub fn enter_scores(&mut self, w: &Work<'_>) {
        self.reference.enter_scores(&mut self.host, w).expect("the reference");
        let done = self.device.enter_scores(&mut self.arena, w);
        self.ok("enter_scores", done);
    }

    /// [`Backend::clear`].
    pub fn clear(&mut self, r: &Region) {
        self.reference.clear(&mut self.host, r).expect("the reference");
        let done = self.device.clear(&mut self.arena, r);
        self.ok("clear", done);
    }

    /// [`Backend::carry`].
    pub fn carry(&mut self, moment: Moment, old: Option<&Region>, new: &Region) {
        self.reference.carry(&mut self.host, moment, old, new).expect("the reference");
        let done = self.device.carry(&mut self.arena, moment, old, new);
        self.ok("carry", done);
    }

    /// Exchanges a moment with `spare`, as the engine's default does after it was carried.
    pub fn swap(&mut self, moment: Moment) {
        fn of<T>(a: &mut Arena<T>, moment: Moment) {
            core::mem::swap(if moment == Moment::First { &mut a.m } else { &mut a.v }, &mut a.spare);
        }
        of(&mut self.arena, moment);
        of(&mut self.host, moment);
    }

    /// [`Backend::update`]; `p` becomes what the reference makes of it. `allowed` is told what the reference made of m
    /// and v.
    pub fn update(
        &mut self, r: &Region, old: Option<&Region>, p: &mut Host, h: &Hyper, allowed: &dyn Fn(&Arena<HostBuffer>, usize) -> f64,
    ) {
        let mut t = self.harness.upload(p.view());
        self.reference.update(&mut self.host, r, old, &mut p.view_mut(), h).expect("the reference");
        let done = self.device.update(&mut self.arena, r, old, &mut H::param(&mut t), h);
        self.ok("update", done);
        let got = self.harness.download(&mut self.device, &t);
        let what = format!("{} {}: parameter", H::NAME, self.case);
        compare(H::AGREEMENT, got.view(), p.view(), &|i| allowed(&self.host, i), &what);
    }

    /// Both at once: [`Backend::zero`] and [`Backend::copy`] of m into v.
    pub fn zero_and_copy(&mut self, at: usize, len: usize, copied: usize) {
        self.reference.zero(&mut self.host.spare, at, len).expect("host memory");
        let done = self.device.zero(&mut self.arena.spare, at, len);
        self.ok("zero", done);
        self.reference.copy(&self.host.m, &mut self.host.v, copied).expect("host memory");
        let done = self.device.copy(&self.arena.m, &mut self.arena.v, copied);
        self.ok("copy", done);
    }

    /// Tickets asked for before a later write, polled in the reverse order: each brings what was there at its time.
    ///
    /// # Panics
    /// Where one does not.
    pub fn tickets(&mut self) {
        let mut asked = Vec::new();
        for round in 0..3u32 {
            let words = [round + 1; flag::LEN];
            self.set_flags(&words);
            let ticket = self.device.read(&self.arena.flags, 2, flag::LEN - 3);
            asked.push((self.ok("read", ticket), words));
        }
        let submitted = self.device.submit();
        self.ok("submit", submitted);
        for (mut ticket, words) in asked.into_iter().rev() {
            let mut got = [0; flag::LEN - 3];
            loop {
                let polled = self.device.poll(&mut ticket, ViewMut::U32(&mut got));
                if self.ok("poll", polled) {
                    break;
                }
                self.device.relax();
            }
            assert_eq!(got[..], words[3..], "{} {}: a readback", H::NAME, self.case);
        }
    }
}
