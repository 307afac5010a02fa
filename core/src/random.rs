//! Section 8 of the algorithm: random numbers that are the same on every machine, for ever.

/// Philox4x32-10 (Salmon et al. 2011): one block of four words for a counter and a key (A8.1).
///
/// ```
/// // Known answers of the generator's authors.
/// assert_eq!(blockllm::random::philox([0; 4], [0; 2]), [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8]);
/// ```
pub fn philox(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    let split = |x: u64| ((x >> 32) as u32, x as u32);
    for _ in 0..10 {
        let (high0, low0) = split(0xD251_1F53 * u64::from(counter[0]));
        let (high1, low1) = split(0xCD9E_8D57 * u64::from(counter[2]));
        counter = [high1 ^ counter[1] ^ key[0], low1, high0 ^ counter[3] ^ key[1], low0];
        key = [key[0].wrapping_add(0x9E37_79B9), key[1].wrapping_add(0xBB67_AE85)];
    }
    counter
}

/// The engine's stream of draws (A8.2). Its whole state is the seed and the number of draws made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stream {
    /// The key.
    pub seed: u64,
    /// Draws made so far: the next draw's number.
    pub draws: u64,
}

impl Stream {
    /// A stream from its first draw.
    pub const fn new(seed: u64) -> Self {
        Self { seed, draws: 0 }
    }

    /// A number below `n` by multiplication: one draw, no rejection. `n` = 0 gives 0.
    pub fn below(&mut self, n: u64) -> u64 {
        let word = philox([self.draws as u32, (self.draws >> 32) as u32, 0, 0], [self.seed as u32, (self.seed >> 32) as u32]);
        self.draws += 1;
        let x = u64::from(word[0]) | u64::from(word[1]) << 32;
        ((u128::from(x) * u128::from(n)) >> 64) as u64
    }

    /// Fisher-Yates, from the last element down: `len - 1` draws.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for j in (1..items.len()).rev() {
            items.swap(j, self.below(j as u64 + 1) as usize);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn philox_known_answers_a8_1() {
        let cases = [
            ([0; 4], [0; 2], [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]),
            ([u32::MAX; 4], [u32::MAX; 2], [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]),
            (
                [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
                [0xa409_3822, 0x299f_31d0],
                [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1],
            ),
        ];
        for (counter, key, want) in cases {
            assert_eq!(philox(counter, key), want);
        }
    }

    #[test]
    fn draws_stay_below_their_bound_and_use_the_high_counter_word_a8_2() {
        let mut low = Stream { seed: 7, draws: u64::from(u32::MAX) };
        let mut values = [0; 64];
        for v in &mut values {
            *v = low.below(10);
            assert!(*v < 10);
        }
        assert_eq!(low.draws, u64::from(u32::MAX) + 64);
        let (mut a, mut b) = (Stream { seed: 7, draws: 1 }, Stream { seed: 7, draws: 1 + (1 << 32) });
        assert_ne!(a.below(u64::MAX), b.below(u64::MAX));
    }

    #[test]
    fn a_shuffle_takes_one_draw_less_than_its_length_a8_2() {
        let (mut s, mut x) = (Stream::new(3), [0, 1, 2, 3, 4, 5, 6, 7]);
        s.shuffle(&mut x);
        assert_eq!(s.draws, 7);
        let mut sorted = x;
        sorted.sort_unstable();
        assert_eq!(sorted, [0, 1, 2, 3, 4, 5, 6, 7]);
        assert_ne!(x, sorted);
    }
}
