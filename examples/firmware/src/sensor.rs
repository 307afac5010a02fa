//! What a sensor might see: windows of four kinds of movement, with noise; and how it drifts with age.

use crate::network::{Batch, CLASSES, INPUTS};
use blockllm::random::Stream;

/// Draws in the engine's own generator.
pub struct Sensor {
    stream: Stream,
    /// Of the reading.
    gain: f32,
    offset: f32,
    /// Share of the previous reading that hangs on in this one.
    lag: f32,
}

impl Sensor {
    /// As it left the factory.
    pub fn new(seed: u64) -> Self {
        Self { stream: Stream::new(seed), gain: 1.0, offset: 0.0, lag: 0.0 }
    }

    /// Years later.
    pub fn age(&mut self) {
        (self.gain, self.offset, self.lag) = (-0.45, 0.7, 0.6);
    }

    /// In [-1, 1).
    pub fn random(&mut self) -> f32 {
        self.stream.below(1 << 24) as f32 / (1 << 23) as f32 - 1.0
    }

    fn window(&mut self, class: usize) -> [f32; INPUTS] {
        let (phase, strength) = (self.random() * 3.0, 1.0 + 0.3 * self.random());
        let mut last = 0.0;
        core::array::from_fn(|t| {
            let at = t as f32 + phase;
            let shape = match class {
                0 => libm::sinf(0.4 * at), // a slow swing
                1 => libm::sinf(1.3 * at), // a fast one
                2 => {
                    if libm::sinf(0.8 * at) > 0.6 {
                        1.6
                    } else {
                        -0.3
                    }
                } // knocks
                _ => 0.12 * (at - 8.0),    // a tilt
            };
            let reading = self.gain * (strength * shape + 0.25 * self.random()) + self.offset;
            last = self.lag * last + (1.0 - self.lag) * reading;
            last
        })
    }

    /// As many windows, their kinds at random.
    pub fn batch(&mut self, windows: usize) -> Batch {
        let one = |_| {
            let class = self.stream.below(CLASSES as u64) as usize;
            (self.window(class), class)
        };
        (0..windows).map(one).collect()
    }
}
