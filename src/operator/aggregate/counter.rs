//! `increase` and `resets` of a counter that only grows and begins at nought again: energy, bytes, ticks.
//!
//! By event time each value is compared with the one before it in the window: what is more is the increase; one that is
//! less is a reset, behind which all of it is (as Prometheus counts, without its extrapolation). 100, 160, 210, 5, 25 is an
//! increase of 50 + 60 + 5 + 20 and one reset. Of values of one time the order is that of arrival. A single value is an
//! increase of 0. A group keeps all values of the window, as a late one changes what its neighbours mean.

use std::marker::PhantomData;
use std::sync::Arc;

use arrow::array::cast::AsArray;
use arrow::array::{ArrayRef, Float64Array, Int64Array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Decimal128Type, Float64Type};
use arrow::error::ArrowError;

use super::Kernel;
use super::kept::{Kept, State};
use super::sum::WIDE;

/// `increase`: a whole number of whole numbers, else a float.
pub(super) fn increase(input: &DataType) -> Option<Kernel> {
    if input.is_integer() {
        let create = || Kept::create("increase", increases::<Whole>);
        return Some(Kernel::new(DataType::Int64, &[("samples", DataType::Binary)], Box::new(create)));
    }
    let create = || Kept::create("increase", increases::<Float>);
    input.is_numeric().then(|| Kernel::new(DataType::Float64, &[("samples", DataType::Binary)], Box::new(create)))
}

/// `resets`: how many.
pub(super) fn resets(input: &DataType) -> Option<Kernel> {
    fn kernel<R: Reading>() -> Kernel {
        let create = || Kept::create("resets", counts::<R>);
        Kernel::new(DataType::Int64, &[("samples", DataType::Binary)], Box::new(create))
    }
    match input {
        input if input.is_integer() => Some(kernel::<Whole>()),
        input => input.is_numeric().then(kernel::<Float>),
    }
}

/// A type of values.
trait Reading: Clone + Send + 'static {
    type Value: Copy + Default + PartialOrd + Send;

    fn values(column: &ArrayRef) -> Result<Vec<Self::Value>, ArrowError>;
    fn increase(sum: Self::Value, from: Self::Value, to: Self::Value) -> Self::Value;
    fn build(sums: Vec<Option<Self::Value>>) -> Result<ArrayRef, ArrowError>;
    fn bytes(value: Self::Value) -> [u8; 16];
    fn of_bytes(bytes: [u8; 16]) -> Self::Value;
}

#[derive(Clone)]
struct Whole;
#[derive(Clone)]
struct Float;

impl Reading for Whole {
    type Value = i128;

    fn values(column: &ArrayRef) -> Result<Vec<i128>, ArrowError> {
        Ok(cast(column, &WIDE)?.as_primitive::<Decimal128Type>().values().to_vec())
    }

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

impl Reading for Float {
    type Value = f64;

    fn values(column: &ArrayRef) -> Result<Vec<f64>, ArrowError> {
        Ok(cast(column, &DataType::Float64)?.as_primitive::<Float64Type>().values().to_vec())
    }

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
        let [low, ..] = *bytes.as_chunks::<8>().0 else { return f64::NAN };
        f64::from_le_bytes(low)
    }
}

/// Values with their times, by ascending time.
struct Samples<R: Reading> {
    samples: Vec<(i64, R::Value)>,
    reading: PhantomData<fn() -> R>,
}

impl<R: Reading> Default for Samples<R> {
    fn default() -> Self {
        Self { samples: Vec::new(), reading: PhantomData }
    }
}

impl<R: Reading> Clone for Samples<R> {
    fn clone(&self) -> Self {
        Self { samples: self.samples.clone(), reading: PhantomData }
    }
}

impl<R: Reading> Samples<R> {
    fn pairs(&self) -> impl Iterator<Item = (R::Value, R::Value)> {
        self.samples.windows(2).map(|pair| (pair[0].1, pair[1].1))
    }
}

fn increases<R: Reading>(states: &[Samples<R>]) -> Result<ArrayRef, ArrowError> {
    let more = |sum, (from, to)| {
        if to < from { R::increase(sum, R::Value::default(), to) } else { R::increase(sum, from, to) }
    };
    let of = |state: &Samples<R>| (!state.samples.is_empty()).then(|| state.pairs().fold(R::Value::default(), more));
    R::build(states.iter().map(of).collect())
}

fn counts<R: Reading>(states: &[Samples<R>]) -> Result<ArrayRef, ArrowError> {
    let of = |state: &Samples<R>| {
        (!state.samples.is_empty()).then(|| state.pairs().filter(|(from, to)| to < from).count() as i64)
    };
    Ok(Arc::new(states.iter().map(of).collect::<Int64Array>()))
}

/// A time, and a value.
const SAMPLE: usize = 24;

impl<R: Reading> State for Samples<R> {
    type Value = R::Value;

    fn values(column: &ArrayRef) -> Result<Vec<R::Value>, ArrowError> {
        R::values(column)
    }

    fn add(&mut self, value: R::Value, time: i64) {
        let place = match self.samples.last() {
            Some((last, _)) if *last > time => self.samples.partition_point(|(known, _)| *known <= time),
            _ => self.samples.len(),
        };
        self.samples.insert(place, (time, value));
    }

    fn merge(&mut self, other: &Self) {
        let in_order = self.samples.last().zip(other.samples.first()).is_none_or(|(last, first)| last.0 <= first.0);
        self.samples.extend_from_slice(&other.samples);
        if !in_order {
            // Stable: of one time those that were there come first.
            self.samples.sort_by_key(|(time, _)| *time);
        }
    }

    fn write(&self, to: &mut Vec<u8>) {
        for (time, value) in &self.samples {
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
        Some(Self { samples: samples.iter().map(sample).collect::<Option<_>>()?, reading: PhantomData })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples<R: Reading>(samples: &[(i64, R::Value)]) -> Samples<R> {
        let mut state = Samples::default();
        samples.iter().for_each(|(time, value)| state.add(*value, *time));
        state
    }

    fn whole(of: &[(i64, i128)]) -> (i64, i64) {
        let state = [samples::<Whole>(of)];
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
        let floats = [samples::<Float>(&[(0, 0.5), (1, 2.0), (2, 0.25)]), Samples::default()];
        let floats = increases(&floats).unwrap();
        assert_eq!(*floats.as_primitive::<Float64Type>(), Float64Array::from(vec![Some(1.75), None]));
    }

    #[test]
    fn panes_are_put_together() {
        let all = [(0, 3), (5, 9), (6, 1), (7, 4), (8, 2)];
        for at in 0..=all.len() {
            let (mut first, mut bytes) = (samples::<Whole>(&all[..at]), Vec::new());
            samples::<Whole>(&all[at..]).write(&mut bytes);
            first.merge(&Samples::read(&bytes).unwrap());
            assert_eq!(first.samples, all);
            let mut second = Samples::<Whole>::read(&bytes).unwrap();
            second.merge(&samples(&all[..at]));
            assert_eq!(second.samples, all);
        }
        assert!(Samples::<Whole>::read(&[0; 25]).is_none());
    }
}
