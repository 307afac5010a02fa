//! Which coordinates have ever been active, that is updated with Adam's state.

use crate::checkpoint::Leaf;
use crate::error::{Failure, Result};

const LEAF: &str = "trainer.coverage";

/// A bit for each coordinate of each block.
pub(crate) struct Coverage {
    blocks: Vec<Bits>,
}

struct Bits {
    len: usize,
    words: Vec<u64>,
}

impl Bits {
    fn count(&self) -> usize {
        self.words.iter().map(|word| word.count_ones() as usize).sum()
    }
}

impl Coverage {
    /// Nothing has been active yet, in blocks of these sizes.
    pub(crate) fn new(sizes: impl IntoIterator<Item = usize>) -> Self {
        let block = |len: usize| Bits { len, words: vec![0; len.div_ceil(64)] };
        Self { blocks: sizes.into_iter().map(block).collect() }
    }

    /// The whole block is active.
    pub(crate) fn add_block(&mut self, block: usize) {
        let bits = &mut self.blocks[block];
        bits.words.fill(u64::MAX);
        if let (Some(last), tail @ 1..) = (bits.words.last_mut(), bits.len % 64) {
            *last = (1 << tail) - 1;
        }
    }

    /// One coordinate of the block is active.
    pub(crate) fn add(&mut self, block: usize, coordinate: usize) {
        debug_assert!(coordinate < self.blocks[block].len);
        self.blocks[block].words[coordinate / 64] |= 1 << (coordinate % 64);
    }

    /// How many coordinates have ever been active.
    pub(crate) fn coordinates(&self) -> usize {
        self.blocks.iter().map(Bits::count).sum()
    }

    /// How many blocks have ever had an active coordinate.
    pub(crate) fn blocks(&self) -> usize {
        self.blocks.iter().filter(|bits| bits.count() > 0).count()
    }

    /// As it stands in a checkpoint.
    pub(crate) fn save(&self) -> Leaf {
        let words = self.blocks.iter().flat_map(|bits| &bits.words);
        Leaf::bytes(LEAF, words.flat_map(|word| word.to_le_bytes()).collect())
    }

    /// From a checkpoint.
    pub(crate) fn restore(&mut self, leaves: &[Leaf]) -> Result<()> {
        let words: usize = self.blocks.iter().map(|bits| bits.words.len()).sum();
        let leaf = leaves.iter().find(|leaf| leaf.name == LEAF && leaf.bytes.len() == 8 * words);
        let leaf = leaf.ok_or_else(|| Failure::new("the checkpoint does not say which weights have been active"))?;
        let saved = leaf.bytes.chunks_exact(8).map(|word| u64::from_le_bytes(word.try_into().expect("8 bytes")));
        for (word, saved) in self.blocks.iter_mut().flat_map(|bits| &mut bits.words).zip(saved) {
            *word = saved;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_and_comes_back() {
        let mut coverage = Coverage::new([64, 70, 3]);
        coverage.add_block(1);
        coverage.add(2, 1);
        coverage.add(2, 1);
        assert_eq!((coverage.coordinates(), coverage.blocks()), (71, 2));
        let mut again = Coverage::new([64, 70, 3]);
        again.restore(&[coverage.save()]).unwrap();
        assert_eq!((again.coordinates(), again.blocks()), (71, 2));
        assert!(Coverage::new([64]).restore(&[coverage.save()]).is_err());
    }
}
