//! Seeded chance, the same on every machine: a crash that a test has seen can be seen again.

use std::ops::Range;

/// SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
#[derive(Debug)]
pub(super) struct Chance(u64);

impl Chance {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number of a range that is not empty. Not quite even over long ranges, which is no harm here.
    pub(super) fn of(&mut self, range: Range<usize>) -> usize {
        let len = range.len().max(1) as u64;
        range.start + usize::try_from(self.next() % len).expect("it is less than the range's length")
    }

    /// True in one of `n` cases.
    pub(super) fn one_in(&mut self, n: usize) -> bool {
        self.of(0..n) == 0
    }
}
