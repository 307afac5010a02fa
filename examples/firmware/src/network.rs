//! A dense network of three layers. Its backward pass hands over one gradient at a time, in a buffer that the next one
//! overwrites.

use alloc::vec::Vec;

/// Samples in a window of the sensor.
pub const INPUTS: usize = 16;
const HIDDEN: usize = 56;
/// Kinds of movement.
pub const CLASSES: usize = 4;

/// Names and shapes of the weights, in order: of each layer the matrix (a row an output) and the bias.
pub const WEIGHTS: [(&str, [usize; 2]); 6] = [
    ("first.weight", [HIDDEN, INPUTS]),
    ("first.bias", [1, HIDDEN]),
    ("second.weight", [HIDDEN, HIDDEN]),
    ("second.bias", [1, HIDDEN]),
    ("head.weight", [CLASSES, HIDDEN]),
    ("head.bias", [1, CLASSES]),
];

/// The largest of them.
const LARGEST: usize = HIDDEN * HIDDEN;

/// Inputs and labels of a batch.
pub type Batch = Vec<([f32; INPUTS], usize)>;

/// The weights, and what a batch leaves for its backward pass.
pub struct Network {
    /// By block.
    pub weights: [Vec<f32>; 6],
    /// One gradient: the only one that is alive.
    gradient: Vec<f32>,
    first: Vec<[f32; HIDDEN]>,
    second: Vec<[f32; HIDDEN]>,
    /// Of the loss to the last layer's outputs.
    errors: Vec<[f32; CLASSES]>,
}

fn layer<const I: usize, const O: usize>(w: &[f32], bias: &[f32], x: &[f32; I]) -> [f32; O] {
    let row = |o: usize| bias[o] + w[o * I..(o + 1) * I].iter().zip(x).map(|(w, x)| w * x).sum::<f32>();
    core::array::from_fn(row)
}

/// The derivative of a layer's inputs, which were rectified, from that of its outputs.
fn back<const I: usize, const O: usize>(w: &[f32], d: &[f32; O], x: &[f32; I]) -> [f32; I] {
    let column = |i: usize| d.iter().enumerate().map(|(o, d)| d * w[o * I + i]).sum::<f32>();
    core::array::from_fn(|i| if x[i] > 0.0 { column(i) } else { 0.0 })
}

impl Network {
    /// Weights drawn from `random`, which gives numbers in [-1, 1).
    pub fn new(mut random: impl FnMut() -> f32) -> Self {
        let weight = |(_, [rows, columns]): (&str, [usize; 2])| -> Vec<f32> {
            let scale = if rows == 1 { 0.0 } else { libm::sqrtf(6.0 / (rows + columns) as f32) };
            (0..rows * columns).map(|_| scale * random()).collect()
        };
        let empty = (Vec::new(), Vec::new(), Vec::new());
        Self {
            weights: WEIGHTS.map(weight),
            gradient: alloc::vec![0.0; LARGEST],
            first: empty.0,
            second: empty.1,
            errors: empty.2,
        }
    }

    fn logits(&self, x: &[f32; INPUTS]) -> ([f32; HIDDEN], [f32; HIDDEN], [f32; CLASSES]) {
        let w = &self.weights;
        let first = layer(&w[0], &w[1], x).map(|x: f32| x.max(0.0));
        let second = layer(&w[2], &w[3], &first).map(|x: f32| x.max(0.0));
        (first, second, layer(&w[4], &w[5], &second))
    }

    /// The most likely class.
    pub fn classify(&self, x: &[f32; INPUTS]) -> usize {
        let (_, _, logits) = self.logits(x);
        (1..CLASSES).fold(0, |best, c| if logits[c] > logits[best] { c } else { best })
    }

    /// The mean cross entropy of a batch, in nats. Keeps what `gradient` needs.
    pub fn forward(&mut self, batch: &Batch) -> f32 {
        self.first.clear();
        self.second.clear();
        self.errors.clear();
        let mut loss = 0.0;
        for (x, label) in batch {
            let (first, second, logits) = self.logits(x);
            let largest = logits.iter().fold(f32::MIN, |a, b| a.max(*b));
            let powers = logits.map(|l| libm::expf(l - largest));
            let sum: f32 = powers.iter().sum();
            loss += libm::logf(sum) + largest - logits[*label];
            let share = 1.0 / batch.len() as f32;
            self.errors.push(core::array::from_fn(|c| (powers[c] / sum - f32::from(u8::from(c == *label))) * share));
            self.first.push(first);
            self.second.push(second);
        }
        loss / batch.len() as f32
    }

    /// The gradient of one weight, and the weight.
    pub fn gradient(&mut self, block: usize, batch: &Batch) -> (&[f32], &mut [f32]) {
        let [rows, columns] = WEIGHTS[block].1;
        let n = rows * columns;
        self.gradient[..n].fill(0.0);
        for (i, (x, _)) in batch.iter().enumerate() {
            let (e, w, out) = (&self.errors[i], &self.weights, &mut self.gradient[..n]);
            let second = |e| back::<HIDDEN, CLASSES>(&w[4], e, &self.second[i]);
            let first = |e| back::<HIDDEN, HIDDEN>(&w[2], &second(e), &self.first[i]);
            match block {
                0 => outer(&first(e), x, out),
                1 => outer(&first(e), &[1.0], out),
                2 => outer(&second(e), &self.first[i], out),
                3 => outer(&second(e), &[1.0], out),
                4 => outer(e, &self.second[i], out),
                _ => outer(e, &[1.0], out),
            }
        }
        (&self.gradient[..n], &mut self.weights[block])
    }
}

/// Adds the outer product of outputs' derivatives and inputs.
fn outer<const O: usize, const I: usize>(d: &[f32; O], x: &[f32; I], out: &mut [f32]) {
    for (row, d) in out.chunks_exact_mut(I).zip(d) {
        row.iter_mut().zip(x).for_each(|(g, x)| *g += d * x);
    }
}
