//! `fsum`: the sum of floats as if with infinitely many digits, rounded once.
//!
//! A group keeps floats that do not overlap and whose sum is that of all values (Shewchuk 1997, "Adaptive precision
//! floating-point arithmetic"; Python's `math.fsum` does the same). So no order of rows, panes or workers changes a bit of
//! the result, and 1e16 + 1 − 1e16 is 1. Such floats are at most as many as there are exponents apart, 40. There is one limit:
//! where the sum of some values, in the order in which they come, is beyond the greatest float, the result is an infinity or
//! NaN, though what follows might have brought it back.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array};
use arrow::datatypes::{DataType, Float64Type};
use arrow::error::ArrowError;

use super::Kernel;
use super::kept::{Kept, State};

/// Of numbers.
pub(super) fn kernel() -> Kernel {
    let finish = |states: &[ExactSum]| -> Result<ArrayRef, ArrowError> {
        Ok(Arc::new(states.iter().map(ExactSum::value).collect::<Float64Array>()))
    };
    let create = Box::new(move || Kept::create("fsum", finish));
    Kernel::new(DataType::Float64, &[("parts", DataType::Binary)], create)
}

#[derive(Clone, Debug, Default, PartialEq)]
struct ExactSum {
    /// By ascending magnitude; no bit of one is within another.
    parts: Vec<f64>,
    /// The sum of infinities and NaN, and of what has overflowed.
    special: Option<f64>,
    seen: bool,
}

impl ExactSum {
    fn value(&self) -> Option<f64> {
        self.seen.then(|| self.special.unwrap_or_else(|| rounded(&self.parts)))
    }
}

/// The sum and what it lacks (Knuth's two-sum).
fn two_sum(a: f64, b: f64) -> (f64, f64) {
    let (greater, smaller) = if a.abs() < b.abs() { (b, a) } else { (a, b) };
    let sum = greater + smaller;
    (sum, smaller - (sum - greater))
}

/// The float that is nearest to the sum of the parts.
fn rounded(parts: &[f64]) -> f64 {
    let mut rest = parts.iter().rev();
    let Some(mut sum) = rest.next().copied() else { return 0.0 };
    let mut lack = 0.0;
    for part in rest.by_ref() {
        (sum, lack) = two_sum(sum, *part);
        if lack != 0.0 {
            break;
        }
    }
    // Half of the last digit was rounded to even; what is below tells on which side of the half it is.
    if let Some(next) = rest.next()
        && (lack < 0.0) == (*next < 0.0)
        && lack != 0.0
    {
        let twice = lack * 2.0;
        let other = sum + twice;
        if other - sum == twice {
            return other;
        }
    }
    sum
}

impl State for ExactSum {
    type Type = Float64Type;

    fn add(&mut self, mut value: f64, _: i64) {
        self.seen = true;
        if !value.is_finite() {
            self.special = Some(self.special.unwrap_or(0.0) + value);
            return;
        }
        let mut kept = 0;
        for at in 0..self.parts.len() {
            let (sum, lack) = two_sum(value, self.parts[at]);
            if lack != 0.0 {
                self.parts[kept] = lack;
                kept += 1;
            }
            value = sum;
        }
        self.parts.truncate(kept);
        if !value.is_finite() {
            self.special = Some(self.special.unwrap_or(0.0) + value);
            self.parts.clear();
        } else if value != 0.0 {
            self.parts.push(value);
        }
    }

    fn merge(&mut self, other: &Self) {
        other.parts.iter().chain(&other.special).for_each(|part| self.add(*part, 0));
        self.seen |= other.seen;
    }

    fn write(&self, to: &mut Vec<u8>) {
        to.push(u8::from(self.seen) | u8::from(self.special.is_some()) << 1);
        self.special.iter().chain(&self.parts).for_each(|part| to.extend_from_slice(&part.to_le_bytes()));
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let (&flags, rest) = bytes.split_first()?;
        let (words, []) = rest.as_chunks::<8>() else { return None };
        let mut parts: Vec<f64> = words.iter().map(|word| f64::from_le_bytes(*word)).collect();
        let has_special = flags & 2 != 0;
        if flags > 3 || (has_special && parts.is_empty()) {
            return None;
        }
        let special = has_special.then(|| parts.remove(0));
        Some(Self { parts, special, seen: flags & 1 != 0 })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sum(values: &[f64]) -> ExactSum {
        let mut sum = ExactSum::default();
        values.iter().for_each(|value| sum.add(*value, 0));
        sum
    }

    /// The answers are Python's `math.fsum`.
    #[test]
    fn sums_are_exact() {
        for (values, expected) in [
            (&[1e16, 1.0, -1e16][..], Some(1.0)),
            (&[0.1; 10], Some(1.0)),
            (&[], None),
            (&[0.0], Some(0.0)),
            (&[1e100, 1.0, -1e100, 1e-100], Some(1.0)),
            (&[9_007_199_254_740_992.0, 0.5, 2f64.powi(-54)], Some(9_007_199_254_740_992.0)),
            (&[9_007_199_254_740_992.0, 1.0, 2f64.powi(-54)], Some(9_007_199_254_740_994.0)),
            (&[9_007_199_254_740_994.0, 1.0, -(2f64.powi(-54))], Some(9_007_199_254_740_994.0)),
            (&[1e16, -0.5, -2f64.powi(-60), 1e16], Some(2e16)),
            (&[f64::INFINITY, 1.0], Some(f64::INFINITY)),
        ] {
            assert_eq!(sum(values).value(), expected, "{values:?}");
        }
        assert!(sum(&[f64::INFINITY, f64::NEG_INFINITY]).value().unwrap().is_nan());
    }

    proptest! {
        #[test]
        fn no_order_changes_a_bit(
            mut values in prop::collection::vec((-1e12..1e12f64, -60..60i32).prop_map(|(a, e)| a * 2f64.powi(e)), 0..40),
            at in 0..40usize,
            seed in any::<u64>(),
        ) {
            let whole = sum(&values).value();
            let at = at.min(values.len());
            let mut halves = sum(&values[..at]);
            let mut bytes = Vec::new();
            sum(&values[at..]).write(&mut bytes);
            halves.merge(&ExactSum::read(&bytes).unwrap());
            prop_assert_eq!(halves.value().map(f64::to_bits), whole.map(f64::to_bits));
            values.sort_by_key(|value| value.to_bits() ^ seed);
            prop_assert_eq!(sum(&values).value().map(f64::to_bits), whole.map(f64::to_bits));
        }
    }
}
