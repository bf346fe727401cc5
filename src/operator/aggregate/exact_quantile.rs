//! `quantile_exact(x, p)`: the value at place `p·(n − 1)` of the sorted values, counted from 0 and interpolated linearly
//! between its neighbours (Hyndman & Fan's definition 7: the default of R, NumPy and DuckDB's `quantile_cont`).
//!
//! A group keeps all values of the window, 8 bytes each: for windows of few values, where 1 % is too much. NaN is the
//! greatest value.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array};
use arrow::datatypes::{DataType, Float64Type};
use arrow::error::ArrowError;

use super::Kernel;
use super::kept::{Kept, State};

/// Of numbers; the probability is from 0 to 1.
pub(super) fn kernel(probability: f64) -> Kernel {
    let create = move || {
        let finish = move |states: &[Values]| -> Result<ArrayRef, ArrowError> {
            Ok(Arc::new(states.iter().map(|state| state.at(probability)).collect::<Float64Array>()))
        };
        Kept::create("quantile_exact", finish)
    };
    Kernel::new(DataType::Float64, &[("values", DataType::Binary)], Box::new(create))
}

#[derive(Clone, Default)]
struct Values(Vec<f64>);

impl Values {
    #[expect(clippy::cast_precision_loss, reason = "more than 2^53 values do not fit into memory")]
    fn at(&self, probability: f64) -> Option<f64> {
        let last = self.0.len().checked_sub(1)?;
        let place = probability * last as f64;
        let below = (place.floor() as usize).min(last);
        let mut values = self.0.clone();
        let (_, &mut low, above) = values.select_nth_unstable_by(below, order);
        let next = above.iter().copied().min_by(order);
        let share = place - place.floor();
        Some(match next {
            // Also between two infinities.
            Some(next) if share > 0.0 && next != low => low + share * (next - low),
            _ => low,
        })
    }
}

/// NaN, of whatever sign, is the greatest.
fn order(a: &f64, b: &f64) -> std::cmp::Ordering {
    a.is_nan().cmp(&b.is_nan()).then_with(|| a.total_cmp(b))
}

impl State for Values {
    type Type = Float64Type;

    fn add(&mut self, value: f64, _: i64) {
        self.0.push(value);
    }

    fn merge(&mut self, other: &Self) {
        self.0.extend_from_slice(&other.0);
    }

    fn write(&self, to: &mut Vec<u8>) {
        self.0.iter().for_each(|value| to.extend_from_slice(&value.to_le_bytes()));
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let (words, []) = bytes.as_chunks::<8>() else { return None };
        Some(Self(words.iter().map(|word| f64::from_le_bytes(*word)).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_interpolated() {
        let values = Values(vec![100.0, 1.0, 5.0, 2.0, 9.0, 3.0, 8.0, 4.0, 7.0, 6.0]);
        // numpy.quantile.
        for (p, expected) in [(0.0, 1.0), (0.5, 5.5), (0.9, 18.1), (0.95, 59.05), (0.99, 91.81), (1.0, 100.0)] {
            let got = values.at(p).unwrap();
            assert!((got - expected).abs() < 1e-12, "{p}: {got}");
        }
        assert_eq!(Values(vec![7.0]).at(0.3), Some(7.0));
        assert_eq!(Values::default().at(0.5), None);
        assert_eq!(Values(vec![f64::INFINITY, f64::INFINITY, 1.0]).at(0.75), Some(f64::INFINITY));
        assert!(Values(vec![-f64::NAN, 1.0]).at(1.0).unwrap().is_nan());
    }
}
