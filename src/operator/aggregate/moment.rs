//! `var` and `stddev`, by Welford's recurrence, merged by Chan's: no sum of squares that would cancel.

use std::sync::Arc;

use arrow::array::cast::AsArray;
use arrow::array::{Array, ArrayRef, BooleanArray, Float64Array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type};
use arrow::error::ArrowError;

use super::{Aggregate, GroupId, Kernel, each_row, reserve};

/// Which measure of spread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// `var_pop`.
    Variance,
    /// `var`: NULL below two values.
    SampleVariance,
    /// `stddev_pop`.
    Deviation,
    /// `stddev`: NULL below two values.
    SampleDeviation,
}

/// Of numbers.
pub(super) fn kernel(input: &DataType, moment: Moment) -> Option<Kernel> {
    let partial = [("count", DataType::Float64), ("mean", DataType::Float64), ("squares", DataType::Float64)];
    let create = move || Box::new(Spread { moment, states: Vec::new() }) as Box<dyn Aggregate>;
    input.is_numeric().then(|| Kernel::new(DataType::Float64, &partial, Box::new(create)))
}

#[derive(Clone, Copy, Default)]
struct State {
    count: f64,
    mean: f64,
    /// Sum of the squared distances to the mean.
    squares: f64,
}

impl State {
    fn add(&mut self, value: f64) {
        self.count += 1.0;
        let distance = value - self.mean;
        self.mean += distance / self.count;
        self.squares += distance * (value - self.mean);
    }

    fn merge(&mut self, other: Self) {
        if other.count == 0.0 {
            return;
        }
        if self.count == 0.0 {
            // As it is, to the last bit: also where the square of the mean is beyond a float.
            *self = other;
            return;
        }
        let count = self.count + other.count;
        let distance = other.mean - self.mean;
        self.squares += other.squares + distance * distance * (self.count * other.count / count);
        self.mean += distance * (other.count / count);
        self.count = count;
    }

    fn finish(self, moment: Moment) -> Option<f64> {
        let freedom = match moment {
            Moment::Variance | Moment::Deviation => self.count,
            Moment::SampleVariance | Moment::SampleDeviation => self.count - 1.0,
        };
        let variance = (freedom > 0.0).then(|| self.squares / freedom)?;
        Some(match moment {
            Moment::Variance | Moment::SampleVariance => variance,
            Moment::Deviation | Moment::SampleDeviation => variance.sqrt(),
        })
    }
}

struct Spread {
    moment: Moment,
    states: Vec<State>,
}

impl Aggregate for Spread {
    fn update(
        &mut self,
        groups: &[GroupId],
        groups_len: usize,
        args: &[ArrayRef],
        keep: Option<&BooleanArray>,
        _: &[i64],
    ) -> Result<(), ArrowError> {
        reserve(&mut self.states, groups_len, State::default());
        let values = cast(&args[0], &DataType::Float64)?;
        let values = values.as_primitive::<Float64Type>();
        let numbers = values.values();
        each_row(groups, keep, values.nulls(), |row, group| self.states[group].add(numbers[row]));
        Ok(())
    }

    fn merge(&mut self, groups: &[GroupId], groups_len: usize, partial: &[ArrayRef]) -> Result<(), ArrowError> {
        reserve(&mut self.states, groups_len, State::default());
        let [counts, means, squares] = [0, 1, 2].map(|column| partial[column].as_primitive::<Float64Type>());
        each_row(groups, None, counts.nulls(), |row, group| {
            let other = State { count: counts.value(row), mean: means.value(row), squares: squares.value(row) };
            self.states[group].merge(other);
        });
        Ok(())
    }

    fn partial(&mut self, groups_len: usize) -> Result<Vec<ArrayRef>, ArrowError> {
        reserve(&mut self.states, groups_len, State::default());
        let column = |field: fn(&State) -> f64| -> ArrayRef {
            Arc::new(Float64Array::from_iter_values(self.states[..groups_len].iter().map(field)))
        };
        Ok(vec![column(|state| state.count), column(|state| state.mean), column(|state| state.squares)])
    }

    fn finish(&mut self, groups_len: usize) -> Result<ArrayRef, ArrowError> {
        reserve(&mut self.states, groups_len, State::default());
        let results = self.states[..groups_len].iter().map(|state| state.finish(self.moment));
        Ok(Arc::new(results.collect::<Float64Array>()))
    }
}
