//! Windows of text for the model. Which ones is a function of the seed and the step alone, so that a run that goes on
//! after a stop reads the same bytes as one that was never stopped.

use candle_core::{Device, Result, Tensor};

use crate::random::{below, mix};

/// Windows of bytes, and for each byte the one that follows it.
pub(crate) struct Batch {
    /// What the model reads: u32, (windows, context).
    pub(crate) inputs: Tensor,
    /// What it shall predict: u32, (windows * context).
    pub(crate) targets: Tensor,
}

impl Batch {
    fn new(text: &[u8], starts: &[usize], context: usize) -> Result<Self> {
        let bytes = |shift: usize| -> Vec<u32> {
            let windows = starts.iter().map(|start| &text[start + shift..start + shift + context]);
            windows.flatten().map(|&byte| u32::from(byte)).collect()
        };
        Ok(Self {
            inputs: Tensor::from_vec(bytes(0), (starts.len(), context), &Device::Cpu)?,
            targets: Tensor::from_vec(bytes(1), starts.len() * context, &Device::Cpu)?,
        })
    }

    /// The windows of one training step.
    pub(crate) fn random(text: &[u8], seed: u64, step: usize, windows: usize, context: usize) -> Result<Self> {
        let stream = mix(mix(seed ^ 0x6261_7463_6865_7321).wrapping_add(step as u64));
        let starts: Vec<usize> =
            (0..windows as u64).map(|row| below(mix(stream.wrapping_add(row)), text.len() - context)).collect();
        Self::new(text, &starts, context)
    }

    /// At most `windows` windows, evenly spaced over the whole text and without overlap, in batches of `size`.
    pub(crate) fn spaced(text: &[u8], windows: usize, size: usize, context: usize) -> impl Iterator<Item = Result<Self>> {
        let last = text.len() - 1 - context; // where the last window begins
        let count = windows.min((text.len() - 1) / context).max(1);
        let starts: Vec<usize> = (0..count).map(|i| i * last / (count - 1).max(1)).collect();
        let batches: Vec<Vec<usize>> = starts.chunks(size).map(<[usize]>::to_vec).collect();
        batches.into_iter().map(move |starts| Self::new(text, &starts, context))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inputs(batch: Batch) -> Vec<Vec<u32>> {
        batch.inputs.to_vec2().unwrap()
    }

    #[test]
    fn a_step_has_its_own_windows() {
        let text: Vec<u8> = (0..=255).collect();
        let draw = |seed, step| inputs(Batch::random(&text, seed, step, 4, 16).unwrap());
        assert_eq!(draw(1, 2), draw(1, 2));
        assert_ne!(draw(1, 2), draw(1, 3));
        assert_ne!(draw(1, 2), draw(2, 2));
    }

    #[test]
    fn targets_follow_inputs_up_to_the_last_byte() {
        let text: Vec<u8> = (0..17).collect();
        let batch = Batch::random(&text, 0, 1, 1, 16).unwrap();
        assert_eq!(batch.targets.to_vec1::<u32>().unwrap(), (1..17).collect::<Vec<_>>());
        let spaced: Vec<_> = Batch::spaced(&text, 9, 2, 4).map(|b| inputs(b.unwrap())).collect();
        assert_eq!(spaced.concat().iter().map(|w| w[0]).collect::<Vec<_>>(), [0, 4, 8, 12]);
    }
}
