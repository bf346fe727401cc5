//! `quantile(x, p)`: a mergeable sketch with a bound on the *relative* error (DDSketch, Masson et al. 2019).
//!
//! The result is within 1 % ([`ERROR`]) of the value of rank `⌊p·(n − 1)⌋`, negative and zero values included; `p = 0`
//! and `p = 1` are the exact least and greatest value. A group keeps at most [`BINS_MAX`] counters a sign, which span
//! 17 orders of magnitude below its greatest magnitude; what is smaller still counts as the smallest of those. Merging
//! adds counters, so it is exact: in any order, the same sketch.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array};
use arrow::datatypes::{DataType, Float64Type};
use arrow::error::ArrowError;

use super::Kernel;
use super::kept::{Kept, State};

/// The greatest relative error of a result.
pub const ERROR: f64 = 0.01;

/// How many counters a group keeps for values of one sign.
pub const BINS_MAX: usize = 2_048;

/// Counters of finite numbers have indexes up to this, and down to its negative.
const INDEX_MAX: u32 = 40_000;

/// How many rows a sketch that is read back may have seen.
const ROWS_MAX: u64 = 1 << 48;

/// Of numbers; the probability is from 0 to 1.
pub(super) fn kernel(probability: f64) -> Kernel {
    let create = move || {
        let finish = move |sketches: &[Sketch]| -> Result<ArrayRef, ArrowError> {
            Ok(Arc::new(sketches.iter().map(|sketch| sketch.value(probability)).collect::<Float64Array>()))
        };
        Kept::create("quantile", finish)
    };
    Kernel::new(DataType::Float64, &[("sketch", DataType::Binary)], Box::new(create))
}

/// Counters of magnitudes: counter `offset + i` counts magnitudes in (γ^(offset+i−1), γ^(offset+i)].
#[derive(Clone, Default, PartialEq, Debug)]
struct Bins {
    offset: i32,
    counts: Vec<u64>,
}

/// Each counter's upper border is this many times its lower.
const GAMMA: f64 = (1.0 + ERROR) / (1.0 - ERROR);

impl Bins {
    fn add(&mut self, index: i32, count: u64) {
        if self.counts.is_empty() {
            self.offset = index;
        }
        let len = i32::try_from(self.counts.len()).expect("at most BINS_MAX");
        if index >= self.offset + len {
            self.grow_up(index);
        } else if index < self.offset {
            self.grow_down(index);
        }
        let place = usize::try_from(index.max(self.offset) - self.offset).expect("not below the offset");
        self.counts[place] += count;
    }

    /// Room for a greater magnitude; past the bound the smallest counters become one.
    fn grow_up(&mut self, index: i32) {
        let len = usize::try_from(index - self.offset).expect("not below the offset") + 1;
        let surplus = len.saturating_sub(BINS_MAX);
        if surplus > 0 {
            let folded = surplus.min(self.counts.len());
            let sum: u64 = self.counts.drain(..folded).sum();
            self.offset += i32::try_from(surplus).expect("indexes are within ±36 000");
            self.counts.resize(len - surplus, 0);
            self.counts[0] += sum;
        } else {
            self.counts.resize(len, 0);
        }
    }

    /// Room for a smaller magnitude, as far as the bound goes.
    fn grow_down(&mut self, index: i32) {
        let wanted = usize::try_from(self.offset - index).expect("below the offset");
        let more = wanted.min(BINS_MAX - self.counts.len());
        self.counts.splice(0..0, std::iter::repeat_n(0, more));
        self.offset -= i32::try_from(more).expect("at most BINS_MAX");
    }

    fn merge(&mut self, other: &Self) {
        // The greatest first, so that the counters grow once.
        let mut index = other.offset + i32::try_from(other.counts.len()).expect("at most BINS_MAX");
        for count in other.counts.iter().rev() {
            index -= 1;
            if *count > 0 {
                self.add(index, *count);
            }
        }
    }

    fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The magnitude of a rank, from the smallest.
    fn at(&self, rank: u64) -> f64 {
        let mut below = 0;
        for (index, count) in (self.offset..).zip(&self.counts) {
            below += count;
            if below > rank {
                return (f64::from(index) * GAMMA.ln()).exp() * (2.0 / (1.0 + GAMMA));
            }
        }
        f64::NAN
    }
}

/// What a group remembers.
#[derive(Clone, PartialEq, Debug)]
struct Sketch {
    negative: Bins,
    positive: Bins,
    zeros: u64,
    below: u64,
    above: u64,
    nans: u64,
    least: f64,
    greatest: f64,
}

impl Default for Sketch {
    fn default() -> Self {
        Self {
            negative: Bins::default(),
            positive: Bins::default(),
            zeros: 0,
            below: 0,
            above: 0,
            nans: 0,
            least: f64::INFINITY,
            greatest: f64::NEG_INFINITY,
        }
    }
}

impl State for Sketch {
    type Type = Float64Type;

    #[expect(clippy::cast_possible_truncation, reason = "logarithms of finite numbers give ±36 000")]
    fn add(&mut self, value: f64, _: i64) {
        if value.is_nan() {
            self.nans += 1;
            return;
        }
        self.least = self.least.min(value);
        self.greatest = self.greatest.max(value);
        if value == 0.0 {
            self.zeros += 1;
        } else if value.is_infinite() {
            *(if value > 0.0 { &mut self.above } else { &mut self.below }) += 1;
        } else {
            let index = (value.abs().ln() / GAMMA.ln()).ceil() as i32;
            (if value > 0.0 { &mut self.positive } else { &mut self.negative }).add(index, 1);
        }
    }

    fn merge(&mut self, other: &Self) {
        self.negative.merge(&other.negative);
        self.positive.merge(&other.positive);
        self.zeros += other.zeros;
        self.below += other.below;
        self.above += other.above;
        self.nans += other.nans;
        self.least = self.least.min(other.least);
        self.greatest = self.greatest.max(other.greatest);
    }

    /// Little-endian words: four counts, the extremes, and for each sign offset, length and counters.
    fn write(&self, to: &mut Vec<u8>) {
        for count in [self.zeros, self.below, self.above, self.nans] {
            to.extend_from_slice(&count.to_le_bytes());
        }
        for value in [self.least, self.greatest] {
            to.extend_from_slice(&value.to_le_bytes());
        }
        for bins in [&self.negative, &self.positive] {
            to.extend_from_slice(&i64::from(bins.offset).to_le_bytes());
            to.extend_from_slice(&(bins.counts.len() as u64).to_le_bytes());
            bins.counts.iter().for_each(|count| to.extend_from_slice(&count.to_le_bytes()));
        }
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let (words, []) = bytes.as_chunks::<8>() else { return None };
        let mut words = words.iter().map(|word| u64::from_le_bytes(*word));
        let [zeros, below, above, nans] = [words.next()?, words.next()?, words.next()?, words.next()?];
        let (least, greatest) = (f64::from_bits(words.next()?), f64::from_bits(words.next()?));
        let mut bins = || {
            let offset = i32::try_from(words.next()?.cast_signed()).ok()?;
            let len = usize::try_from(words.next()?).ok().filter(|len| *len <= BINS_MAX)?;
            let counts: Vec<u64> = words.by_ref().take(len).collect();
            (counts.len() == len).then_some(Bins { offset, counts })
        };
        let (negative, positive) = (bins()?, bins()?);
        let sketch = Self { negative, positive, zeros, below, above, nans, least, greatest };
        (words.next().is_none() && sketch.is_sound()).then_some(sketch)
    }
}

impl Sketch {
    #[expect(clippy::cast_precision_loss, reason = "a rank beyond 2^53 rows is not to be feared")]
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "p is from 0 to 1")]
    fn value(&self, probability: f64) -> Option<f64> {
        let (negative, positive) = (self.negative.total(), self.positive.total());
        let count = self.below + negative + self.zeros + positive + self.above + self.nans;
        let last = count.checked_sub(1)?;
        let mut rank = ((probability * last as f64) as u64).min(last);
        let numbers = count - self.nans;
        if rank >= numbers {
            return Some(f64::NAN);
        }
        if rank == 0 {
            return Some(self.least);
        }
        if rank == numbers - 1 {
            return Some(self.greatest);
        }
        let parts: [(u64, &dyn Fn(u64) -> f64); 5] = [
            (self.below, &|_| f64::NEG_INFINITY),
            (negative, &|rank| -self.negative.at(negative - 1 - rank)),
            (self.zeros, &|_| 0.0),
            (positive, &|rank| self.positive.at(rank)),
            (self.above, &|_| f64::INFINITY),
        ];
        for (count, value) in parts {
            if rank < count {
                return Some(value(rank).clamp(self.least, self.greatest));
            }
            rank -= count;
        }
        None
    }

    /// Whether rows can have made it: nothing that is computed with it overflows.
    fn is_sound(&self) -> bool {
        let bins = [&self.negative, &self.positive];
        let counts = bins.iter().flat_map(|bins| bins.counts.iter().copied());
        let mut counts = counts.chain([self.zeros, self.below, self.above, self.nans]);
        let rows = counts.try_fold(0_u64, |sum, count| sum.checked_add(count).filter(|sum| *sum <= ROWS_MAX));
        let Some(rows) = rows else { return false };
        let nothing = (f64::INFINITY, f64::NEG_INFINITY);
        bins.iter().all(|bins| bins.offset.unsigned_abs() <= INDEX_MAX)
            && (self.least <= self.greatest || (rows == self.nans && (self.least, self.greatest) == nothing))
    }
}
