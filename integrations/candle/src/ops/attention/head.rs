//! One head of one sequence. Only the lower triangle of the T x T matrices is computed, in tiles of [`ROWS`] rows.

use crate::ops::RotaryTable;
use crate::ops::numeric::LANES;
use crate::ops::softmax::{softmax_backward_in_place, softmax_in_place};
use std::ops::Range;

/// Rows of a tile: with [`LANES`] columns, as many sums as keep the processor's adders busy.
const ROWS: usize = 4;

/// The sizes of an attention.
pub(super) struct Sizes {
    /// Positions, and the same padded to whole vectors.
    t: usize,
    t_padded: usize,
    /// The head dimension, and the same padded.
    d: usize,
    d_padded: usize,
    /// All heads together.
    width: usize,
}

impl Sizes {
    pub(super) fn new(t: usize, width: usize, d: usize) -> Self {
        Self { t, t_padded: t.next_multiple_of(LANES), d, d_padded: d.next_multiple_of(LANES), width }
    }

    /// Elements of one sequence.
    pub(super) fn sequence(&self) -> usize {
        self.t * self.width
    }

    /// The first column of each head.
    pub(super) fn heads(&self) -> impl Iterator<Item = usize> {
        (0..self.width).step_by(self.d)
    }

    /// The first row of each tile.
    fn tiles(&self) -> impl Iterator<Item = usize> {
        (0..self.t).step_by(ROWS)
    }
}

/// Working memory for one head; the padding is 0 and stays so.
pub(super) struct Scratch {
    /// rope(q) / sqrt(D), rope(k), v and the gradient of the result: `[t_padded, d_padded]`.
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    g: Vec<f32>,
    /// The transposes of k and v: `[d, t_padded]`.
    kt: Vec<f32>,
    vt: Vec<f32>,
    /// Probabilities, and the gradient of the scores: `[t_padded, t_padded]`, in forward a tile of rows.
    p: Vec<f32>,
    ds: Vec<f32>,
    /// A tile of rows of a result: `[ROWS, d_padded]`.
    rows: Vec<f32>,
}

impl Scratch {
    pub(super) fn forward(s: &Sizes) -> Self {
        let matrix = || vec![0.0; s.t_padded * s.d_padded];
        Self {
            q: matrix(),
            k: matrix(),
            v: matrix(),
            g: vec![],
            kt: matrix(),
            vt: vec![],
            p: vec![0.0; ROWS * s.t_padded],
            ds: vec![],
            rows: vec![0.0; ROWS * s.d_padded],
        }
    }

    pub(super) fn backward(s: &Sizes) -> Self {
        let matrix = || vec![0.0; s.t_padded * s.d_padded];
        let square = || vec![0.0; s.t_padded * s.t_padded];
        Self { g: matrix(), vt: matrix(), p: square(), ds: square(), ..Self::forward(s) }
    }
}

pub(super) struct Head<'a> {
    pub(super) sizes: &'a Sizes,
    pub(super) rotary: &'a RotaryTable,
    /// The first column of this head.
    pub(super) first: usize,
}

impl Head<'_> {
    #[inline(always)]
    pub(super) fn forward(&self, q: &[f32], k: &[f32], v: &[f32], s: &mut Scratch, y: &mut [f32]) {
        self.load_scores(q, k, s);
        self.load(v, &mut s.v);
        for i in self.sizes.tiles() {
            self.probabilities(i, &s.q, &s.kt, &mut s.p);
            self.product(&s.p, (self.sizes.t_padded, 1), &s.v, 0..self.end(i), &mut s.rows);
            self.store(i, &s.rows, y);
        }
    }

    /// With P the probabilities and S the scores: dV = Pᵀ g, dP = g Vᵀ, dS = P (dP - Σ P dP), dQ = dS K, dK = dSᵀ Q.
    #[inline(always)]
    pub(super) fn backward(&self, inputs: [&[f32]; 4], s: &mut Scratch, [dq, dk, dv]: [&mut [f32]; 3]) {
        let [q, k, v, g] = inputs;
        let Sizes { t, t_padded, .. } = *self.sizes;
        self.load_scores(q, k, s);
        self.load(v, &mut s.v);
        self.transpose(&s.v, &mut s.vt);
        self.load(g, &mut s.g);
        let scale = self.scale();
        for i in self.sizes.tiles() {
            let tile = i * t_padded..(i + ROWS) * t_padded;
            let (p, ds) = (&mut s.p[tile.clone()], &mut s.ds[tile]);
            self.probabilities(i, &s.q, &s.kt, p);
            self.scores(i, &s.g, &s.vt, ds);
            for (row, n) in (i + 1..=t).take(ROWS).enumerate() {
                let (p, ds) = (&p[row * t_padded..], &mut ds[row * t_padded..]);
                softmax_backward_in_place(&p[..n], &mut ds[..n], 1.0);
                ds[n..self.end(i)].fill(0.0);
            }
            self.product(ds, (t_padded, 1), &s.k, 0..self.end(i), &mut s.rows);
            self.store_rotated(i, scale, &mut s.rows, dq);
        }
        for j in self.sizes.tiles() {
            // Rows above j are 0 in these columns.
            self.product(&s.ds[j..], (1, t_padded), &s.q, j..t, &mut s.rows);
            self.store_rotated(j, 1.0, &mut s.rows, dk);
            self.product(&s.p[j..], (1, t_padded), &s.g, j..t, &mut s.rows);
            self.store(j, &s.rows, dv);
        }
    }

    fn scale(&self) -> f32 {
        1.0 / (self.sizes.d as f32).sqrt()
    }

    /// The columns that the rows of the tile at i see.
    fn end(&self, i: usize) -> usize {
        i + ROWS
    }

    #[inline(always)]
    fn load_scores(&self, q: &[f32], k: &[f32], s: &mut Scratch) {
        let Sizes { t, d, d_padded, width, .. } = *self.sizes;
        let scale = self.scale();
        for t in 0..t {
            let (from, to) = (t * width + self.first, t * d_padded);
            self.rotary.rotate(t, false, &k[from..][..d], &mut s.k[to..][..d]);
            self.rotary.rotate(t, false, &q[from..][..d], &mut s.q[to..][..d]);
            for q in &mut s.q[to..][..d] {
                *q *= scale;
            }
        }
        self.transpose(&s.k, &mut s.kt);
    }

    #[inline(always)]
    fn load(&self, x: &[f32], to: &mut [f32]) {
        let d = self.sizes.d;
        for (x, to) in x.chunks_exact(self.sizes.width).zip(to.chunks_exact_mut(self.sizes.d_padded)) {
            to[..d].copy_from_slice(&x[self.first..][..d]);
        }
    }

    #[inline(always)]
    fn transpose(&self, x: &[f32], to: &mut [f32]) {
        for (t, x) in x.chunks_exact(self.sizes.d_padded).enumerate() {
            for (x, to) in x.iter().zip(to.chunks_exact_mut(self.sizes.t_padded)).take(self.sizes.d) {
                to[t] = *x;
            }
        }
    }

    /// Rows i.. of a bᵀ, with b given transposed, in the columns that the rows see.
    #[inline(always)]
    fn scores(&self, i: usize, a: &[f32], bt: &[f32], to: &mut [f32]) {
        let Sizes { t_padded, d, d_padded, .. } = *self.sizes;
        for j in (0..self.end(i)).step_by(LANES) {
            let c = tile(&a[i * d_padded..], (d_padded, 1), &bt[j..], t_padded, 0..d);
            for (c, to) in c.iter().zip(to.chunks_exact_mut(t_padded)) {
                to[j..][..LANES].copy_from_slice(c);
            }
        }
    }

    /// Rows i.. of the probabilities; 0 in the columns of the tile that a row does not see.
    #[inline(always)]
    fn probabilities(&self, i: usize, q: &[f32], kt: &[f32], p: &mut [f32]) {
        self.scores(i, q, kt, p);
        let rows = p.chunks_exact_mut(self.sizes.t_padded);
        for (p, n) in rows.zip(i + 1..=self.sizes.t) {
            softmax_in_place(&mut p[..n], 1.0);
            p[n..self.end(i)].fill(0.0);
        }
    }

    /// A tile of rows of a b, all columns; b is `[.., d_padded]`.
    #[inline(always)]
    fn product(&self, a: &[f32], strides: (usize, usize), b: &[f32], inner: Range<usize>, to: &mut [f32]) {
        let d_padded = self.sizes.d_padded;
        for n in (0..d_padded).step_by(LANES) {
            let c = tile(a, strides, &b[n..], d_padded, inner.clone());
            for (c, to) in c.iter().zip(to.chunks_exact_mut(d_padded)) {
                to[n..][..LANES].copy_from_slice(c);
            }
        }
    }

    /// Stores a tile of rows.
    #[inline(always)]
    fn store(&self, i: usize, rows: &[f32], to: &mut [f32]) {
        let Sizes { t, d, d_padded, width, .. } = *self.sizes;
        for (row, t) in rows.chunks_exact(d_padded).zip(i..t) {
            to[t * width + self.first..][..d].copy_from_slice(&row[..d]);
        }
    }

    /// Stores gradients of rotated rows as gradients of what was rotated.
    #[inline(always)]
    fn store_rotated(&self, i: usize, scale: f32, rows: &mut [f32], to: &mut [f32]) {
        let Sizes { t, d, d_padded, width, .. } = *self.sizes;
        for (row, t) in rows.chunks_exact_mut(d_padded).zip(i..t) {
            for x in &mut *row {
                *x *= scale;
            }
            self.rotary.rotate(t, true, &row[..d], &mut to[t * width + self.first..][..d]);
        }
    }
}

/// Σ over k in `inner` of a(r, k) b(k, c), where a(r, k) is at r · `row` + k · `column` and row k of b at k · `b_row`.
#[inline(always)]
fn tile(a: &[f32], (row, column): (usize, usize), b: &[f32], b_row: usize, inner: Range<usize>) -> [[f32; LANES]; ROWS] {
    let mut c = [[0.0; LANES]; ROWS];
    for k in inner {
        let b = &b[k * b_row..][..LANES];
        for (r, c) in c.iter_mut().enumerate() {
            let a = a[r * row + k * column];
            for (c, b) in c.iter_mut().zip(b) {
                *c += a * b;
            }
        }
    }
    c
}
