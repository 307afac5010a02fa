//! A framework of the smallest kind, as the chapter's reader has one already: tensors behind a handle, a model of two linear
//! layers, and a backward pass that hands out each gradient as soon as it is there.

use std::cell::RefCell;
use std::rc::Rc;

/// A tensor: rows, columns and a handle to elements that the framework owns.
#[derive(Clone)]
pub struct Tensor {
    pub shape: [usize; 2],
    pub data: Rc<RefCell<Vec<f32>>>,
}

impl Tensor {
    pub fn new(shape: [usize; 2], f: impl FnMut(usize) -> f32) -> Self {
        Self { shape, data: Rc::new(RefCell::new((0..shape[0] * shape[1]).map(f).collect())) }
    }
}

/// y = relu(x W0) W1, trained to follow a fixed function.
pub struct Model {
    pub names: Vec<&'static str>,
    pub weights: Vec<Tensor>,
}

const HIDDEN: usize = 16;

impl Model {
    pub fn new() -> Self {
        let random = |i: usize| ((i * 2_654_435_761) % 1000) as f32 / 1000.0 - 0.5;
        let names = vec!["model.layers.0.mlp.up_proj.weight", "model.layers.1.mlp.up_proj.weight"];
        let weights = vec![Tensor::new([4, HIDDEN], random), Tensor::new([HIDDEN, 1], |i| random(i + 77))];
        Self { names, weights }
    }

    /// The loss of a batch, and a backward pass that is still to run.
    pub fn forward(&self, batch: u64) -> (f64, Backward) {
        let (w0, w1) = (self.weights[0].data.borrow(), self.weights[1].data.borrow());
        let (mut loss, mut rows) = (0.0, Vec::new());
        for row in 0..8 {
            let x: Vec<f32> = (0..4).map(|i| (((batch * 8 + row) * 37 + i * 101) % 200) as f32 / 100.0 - 1.0).collect();
            let hidden: Vec<f32> = (0..HIDDEN).map(|j| (0..4).map(|i| x[i] * w0[i * HIDDEN + j]).sum::<f32>().max(0.0)).collect();
            let y: f32 = hidden.iter().zip(w1.iter()).map(|(h, w)| h * w).sum();
            let error = y - (x[0] * x[1] + 0.5 * x[2]);
            loss += f64::from(error * error) / 8.0;
            rows.push((x, hidden, error / 4.0));
        }
        (loss, Backward { rows, w1: w1.clone() })
    }
}

/// What the backward pass needs of the forward pass.
pub struct Backward {
    rows: Vec<(Vec<f32>, Vec<f32>, f32)>,
    w1: Vec<f32>,
}

impl Backward {
    /// Calls `take` with each weight's gradient, the last layer's first; those that nobody wants are not computed.
    pub fn run(&self, is_wanted: impl Fn(usize) -> bool, mut take: impl FnMut(usize, Tensor)) {
        if is_wanted(1) {
            take(1, Tensor::new([HIDDEN, 1], |j| self.rows.iter().map(|(_, h, e)| h[j] * e).sum()));
        }
        if is_wanted(0) {
            let of = |i: usize, j: usize| {
                let active = self.rows.iter().filter(|(_, h, _)| h[j] > 0.0);
                active.map(|(x, _, e)| x[i] * e * self.w1[j]).sum()
            };
            take(0, Tensor::new([4, HIDDEN], |k| of(k / HIDDEN, k % HIDDEN)));
        }
    }
}
