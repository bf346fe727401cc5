//! `increase` and `resets` of a counter that only grows and begins at nought again: energy, bytes, ticks.
//!
//! By event time each value is compared with the one before it in the window: what is more is the increase; one that is
//! less is a reset, behind which all of it is (as Prometheus counts, without its extrapolation). 100, 160, 210, 5, 25 is an
//! increase of 50 + 60 + 5 + 20 and one reset. Of values of one time the order is that of arrival. A single value is an
//! increase of 0. A group keeps all values of the window, as a late one changes what its neighbours mean.

use std::sync::Arc;

use arrow::array::{ArrayRef, ArrowPrimitiveType, Float64Array, Int64Array};
use arrow::datatypes::{DataType, Decimal128Type, Float64Type};
use arrow::error::ArrowError;

use super::Kernel;
use super::kept::{Kept, State};
use super::sum::WIDE;

/// `increase` of numbers: a whole number of whole numbers, else a float.
pub(super) fn increase(input: &DataType) -> Kernel {
    if input.is_integer() {
        kernel::<Decimal128Type>("increase", DataType::Int64, increases)
    } else {
        kernel::<Float64Type>("increase", DataType::Float64, increases)
    }
}

/// `resets` of numbers: how many.
pub(super) fn resets(input: &DataType) -> Kernel {
    if input.is_integer() {
        kernel::<Decimal128Type>("resets", DataType::Int64, counts)
    } else {
        kernel::<Float64Type>("resets", DataType::Int64, counts)
    }
}

fn kernel<R: Reading>(
    name: &'static str,
    output: DataType,
    finish: fn(&[Samples<R>]) -> Result<ArrayRef, ArrowError>,
) -> Kernel {
    let create = move || Kept::create(name, finish);
    Kernel::new(output, &[("samples", DataType::Binary)], Box::new(create))
}

/// A type of values.
trait Reading: ArrowPrimitiveType {
    const TYPE: DataType;

    fn increase(sum: Self::Native, from: Self::Native, to: Self::Native) -> Self::Native;
    fn build(sums: Vec<Option<Self::Native>>) -> Result<ArrayRef, ArrowError>;
    fn bytes(value: Self::Native) -> [u8; 16];
    fn of_bytes(bytes: [u8; 16]) -> Self::Native;
}

/// Whole numbers, in 128 bits: none of 64 overflows on the way.
impl Reading for Decimal128Type {
    const TYPE: DataType = WIDE;

    fn increase(sum: i128, from: i128, to: i128) -> i128 {
        sum.saturating_add(to.saturating_sub(from))
    }

    fn build(sums: Vec<Option<i128>>) -> Result<ArrayRef, ArrowError> {
        let overflow = |sum| ArrowError::ArithmeticOverflow(format!("an increase of {sum} does not fit 64 bits"));
        let fit = |sum: Option<i128>| sum.map(|sum| i64::try_from(sum).map_err(|_| overflow(sum))).transpose();
        let sums: Result<Vec<Option<i64>>, ArrowError> = sums.into_iter().map(fit).collect();
        Ok(Arc::new(Int64Array::from(sums?)))
    }

    fn bytes(value: i128) -> [u8; 16] {
        value.to_le_bytes()
    }

    fn of_bytes(bytes: [u8; 16]) -> i128 {
        i128::from_le_bytes(bytes)
    }
}

impl Reading for Float64Type {
    const TYPE: DataType = DataType::Float64;

    fn increase(sum: f64, from: f64, to: f64) -> f64 {
        sum + (to - from)
    }

    fn build(sums: Vec<Option<f64>>) -> Result<ArrayRef, ArrowError> {
        Ok(Arc::new(Float64Array::from(sums)))
    }

    fn bytes(value: f64) -> [u8; 16] {
        u128::from(value.to_bits()).to_le_bytes()
    }

    fn of_bytes(bytes: [u8; 16]) -> f64 {
        f64::from_bits(u128::from_le_bytes(bytes) as u64)
    }
}

/// Values with their times, by ascending time.
struct Samples<R: Reading>(Vec<(i64, R::Native)>);

impl<R: Reading> Default for Samples<R> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<R: Reading> Clone for Samples<R> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<R: Reading> Samples<R> {
    fn pairs(&self) -> impl Iterator<Item = (R::Native, R::Native)> {
        self.0.windows(2).map(|pair| (pair[0].1, pair[1].1))
    }
}

fn increases<R: Reading>(states: &[Samples<R>]) -> Result<ArrayRef, ArrowError> {
    let nought = R::Native::default;
    let more = |sum, (from, to)| R::increase(sum, if to < from { nought() } else { from }, to);
    let of = |state: &Samples<R>| (!state.0.is_empty()).then(|| state.pairs().fold(nought(), more));
    R::build(states.iter().map(of).collect())
}

fn counts<R: Reading>(states: &[Samples<R>]) -> Result<ArrayRef, ArrowError> {
    let resets = |state: &Samples<R>| state.pairs().filter(|(from, to)| to < from).count() as i64;
    let of = |state: &Samples<R>| (!state.0.is_empty()).then(|| resets(state));
    Ok(Arc::new(states.iter().map(of).collect::<Int64Array>()))
}

/// A time, and a value.
const SAMPLE: usize = 24;

impl<R: Reading> State for Samples<R> {
    type Type = R;
    const TYPE: DataType = R::TYPE;

    fn add(&mut self, value: R::Native, time: i64) {
        let place = match self.0.last() {
            Some((last, _)) if *last > time => self.0.partition_point(|(known, _)| *known <= time),
            _ => self.0.len(),
        };
        self.0.insert(place, (time, value));
    }

    fn merge(&mut self, other: &Self) {
        let in_order = self.0.last().zip(other.0.first()).is_none_or(|(last, first)| last.0 <= first.0);
        self.0.extend_from_slice(&other.0);
        if !in_order {
            // Stable: of one time those that were there come first.
            self.0.sort_by_key(|(time, _)| *time);
        }
    }

    fn write(&self, to: &mut Vec<u8>) {
        for (time, value) in &self.0 {
            to.extend_from_slice(&time.to_le_bytes());
            to.extend_from_slice(&R::bytes(*value));
        }
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let (samples, []) = bytes.as_chunks::<SAMPLE>() else { return None };
        let sample = |sample: &[u8; SAMPLE]| {
            let (time, value) = sample.split_first_chunk::<8>()?;
            Some((i64::from_le_bytes(*time), R::of_bytes(value.try_into().ok()?)))
        };
        samples.iter().map(sample).collect::<Option<_>>().map(Self)
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::cast::AsArray;

    use super::*;

    fn samples<R: Reading>(samples: &[(i64, R::Native)]) -> Samples<R> {
        let mut state = Samples::default();
        samples.iter().for_each(|(time, value)| state.add(*value, *time));
        state
    }

    fn whole(of: &[(i64, i128)]) -> (i64, i64) {
        let state = [samples::<Decimal128Type>(of)];
        let value = |array: ArrayRef| array.as_primitive::<arrow::datatypes::Int64Type>().value(0);
        (value(increases(&state).unwrap()), value(counts(&state).unwrap()))
    }

    #[test]
    fn what_is_less_is_a_reset() {
        assert_eq!(whole(&[(0, 100), (1, 160), (2, 210), (3, 5), (4, 25)]), (135, 1));
        // In whatever order they come.
        assert_eq!(whole(&[(3, 5), (0, 100), (4, 25), (2, 210), (1, 160)]), (135, 1));
        assert_eq!(whole(&[(0, 7)]), (0, 0));
        assert_eq!(whole(&[(0, 7), (1, 7), (2, 0), (3, 0)]), (0, 1));
        assert_eq!(whole(&[(0, i128::from(i64::MAX) - 1), (1, i128::from(i64::MAX))]), (1, 0));
        let floats = [samples::<Float64Type>(&[(0, 0.5), (1, 2.0), (2, 0.25)]), Samples::default()];
        let floats = increases(&floats).unwrap();
        assert_eq!(*floats.as_primitive::<Float64Type>(), Float64Array::from(vec![Some(1.75), None]));
    }

    #[test]
    fn panes_are_put_together() {
        let all = [(0, 3), (5, 9), (6, 1), (7, 4), (8, 2)];
        for at in 0..=all.len() {
            let (mut first, mut bytes) = (samples::<Decimal128Type>(&all[..at]), Vec::new());
            samples::<Decimal128Type>(&all[at..]).write(&mut bytes);
            first.merge(&Samples::read(&bytes).unwrap());
            assert_eq!(first.0, all);
            let mut second = Samples::<Decimal128Type>::read(&bytes).unwrap();
            second.merge(&samples(&all[..at]));
            assert_eq!(second.0, all);
        }
        assert!(Samples::<Decimal128Type>::read(&[0; 25]).is_none());
    }
}
