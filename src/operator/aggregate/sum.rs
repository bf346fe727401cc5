//! `sum` and `avg`.
//!
//! Whole numbers are added in 128 bits, so that the order of rows never matters; a result that does not fit 64 bits
//! is an error.

use std::sync::Arc;

use arrow::array::cast::AsArray;
use arrow::array::{Array, ArrayRef, BooleanArray, Decimal128Array, Float64Array, Int64Array, UInt64Array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Decimal128Type, Float64Type, Int64Type, UInt64Type};
use arrow::error::ArrowError;

use super::fused::Simple;
use super::{Aggregate, GroupId, Kernel, each_row, reserve};

/// The type of a sum before it is finished: 128 bits.
pub(super) const WIDE: DataType = DataType::Decimal128(38, 0);

/// `sum` of whole numbers and floats; decimals go through the adapter.
pub(super) fn sum(input: &DataType) -> Option<Kernel> {
    let simple = Simple::Sum(input.clone());
    if input.is_floating() {
        return Some(float(Finish::Sum).simple(simple));
    }
    let signed = input.is_signed_integer();
    (signed || input.is_unsigned_integer()).then(|| {
        let output = if signed { DataType::Int64 } else { DataType::UInt64 };
        Kernel::new(
            output,
            &[("sum", WIDE)],
            Box::new(move || Box::new(WholeSum { signed, sums: Vec::new(), seen: Vec::new() })),
        )
        .simple(simple)
    })
}

/// `avg` of whole numbers and floats; decimals go through the adapter.
pub(super) fn avg(input: &DataType) -> Option<Kernel> {
    let fits = input.is_floating() || input.is_integer();
    fits.then(|| float(Finish::Mean).simple(Simple::Mean(input.clone())))
}

fn float(finish: Finish) -> Kernel {
    let partial = [("sum", DataType::Float64), ("count", DataType::Int64)];
    Kernel::new(DataType::Float64, &partial, Box::new(move || Box::new(FloatSum { finish, sums: Vec::new() })))
}

struct WholeSum {
    signed: bool,
    sums: Vec<i128>,
    seen: Vec<bool>,
}

impl WholeSum {
    fn reserve(&mut self, groups_len: usize) {
        reserve(&mut self.sums, groups_len, 0);
        reserve(&mut self.seen, groups_len, false);
    }

    fn add(&mut self, group: usize, value: i128) {
        // Only damaged state comes near the ends of 128 bits.
        self.sums[group] = self.sums[group].wrapping_add(value);
        self.seen[group] = true;
    }

    fn values<T>(&self, groups_len: usize, convert: impl Fn(i128) -> Option<T>) -> Result<Vec<Option<T>>, ArrowError> {
        let overflow = |sum: &i128| ArrowError::ArithmeticOverflow(format!("sum {sum} does not fit 64 bits"));
        let sums = self.sums[..groups_len].iter().zip(&self.seen);
        sums.map(|(sum, seen)| seen.then(|| convert(*sum).ok_or_else(|| overflow(sum))).transpose()).collect()
    }
}

impl Aggregate for WholeSum {
    fn update(
        &mut self,
        groups: &[GroupId],
        groups_len: usize,
        args: &[ArrayRef],
        keep: Option<&BooleanArray>,
        _: &[i64],
    ) -> Result<(), ArrowError> {
        self.reserve(groups_len);
        if self.signed {
            let values = cast(&args[0], &DataType::Int64)?;
            let values = values.as_primitive::<Int64Type>();
            let numbers = values.values();
            each_row(groups, keep, values.nulls(), |row, group| self.add(group, i128::from(numbers[row])));
        } else {
            let values = cast(&args[0], &DataType::UInt64)?;
            let values = values.as_primitive::<UInt64Type>();
            let numbers = values.values();
            each_row(groups, keep, values.nulls(), |row, group| self.add(group, i128::from(numbers[row])));
        }
        Ok(())
    }

    fn merge(&mut self, groups: &[GroupId], groups_len: usize, partial: &[ArrayRef]) -> Result<(), ArrowError> {
        self.reserve(groups_len);
        let sums = partial[0].as_primitive::<Decimal128Type>();
        each_row(groups, None, sums.nulls(), |row, group| self.add(group, sums.value(row)));
        Ok(())
    }

    fn partial(&mut self, groups_len: usize) -> Result<Vec<ArrayRef>, ArrowError> {
        self.reserve(groups_len);
        let sums = Decimal128Array::from_iter(self.values(groups_len, Some)?).with_data_type(WIDE);
        Ok(vec![Arc::new(sums)])
    }

    fn finish(&mut self, groups_len: usize) -> Result<ArrayRef, ArrowError> {
        self.reserve(groups_len);
        Ok(if self.signed {
            Arc::new(Int64Array::from(self.values(groups_len, |sum| i64::try_from(sum).ok())?))
        } else {
            Arc::new(UInt64Array::from(self.values(groups_len, |sum| u64::try_from(sum).ok())?))
        })
    }
}

#[derive(Clone, Copy)]
enum Finish {
    Sum,
    Mean,
}

struct FloatSum {
    finish: Finish,
    /// Sum and count side by side: one cache line a group.
    sums: Vec<(f64, i64)>,
}

impl Aggregate for FloatSum {
    fn update(
        &mut self,
        groups: &[GroupId],
        groups_len: usize,
        args: &[ArrayRef],
        keep: Option<&BooleanArray>,
        _: &[i64],
    ) -> Result<(), ArrowError> {
        reserve(&mut self.sums, groups_len, (0.0, 0));
        let values = cast(&args[0], &DataType::Float64)?;
        let values = values.as_primitive::<Float64Type>();
        let numbers = values.values();
        each_row(groups, keep, values.nulls(), |row, group| {
            let state = &mut self.sums[group];
            state.0 += numbers[row];
            state.1 = state.1.saturating_add(1);
        });
        Ok(())
    }

    fn merge(&mut self, groups: &[GroupId], groups_len: usize, partial: &[ArrayRef]) -> Result<(), ArrowError> {
        reserve(&mut self.sums, groups_len, (0.0, 0));
        let (sums, counts) = (partial[0].as_primitive::<Float64Type>(), partial[1].as_primitive::<Int64Type>());
        each_row(groups, None, counts.nulls(), |row, group| {
            let state = &mut self.sums[group];
            state.0 += sums.value(row);
            state.1 = state.1.saturating_add(counts.value(row));
        });
        Ok(())
    }

    fn partial(&mut self, groups_len: usize) -> Result<Vec<ArrayRef>, ArrowError> {
        reserve(&mut self.sums, groups_len, (0.0, 0));
        let states = &self.sums[..groups_len];
        let sums = Float64Array::from_iter_values(states.iter().map(|state| state.0));
        let counts = Int64Array::from_iter_values(states.iter().map(|state| state.1));
        Ok(vec![Arc::new(sums), Arc::new(counts)])
    }

    #[expect(clippy::cast_precision_loss, reason = "a count beyond 2^53 rows is not to be feared")]
    fn finish(&mut self, groups_len: usize) -> Result<ArrayRef, ArrowError> {
        reserve(&mut self.sums, groups_len, (0.0, 0));
        let result = |&(sum, count): &(f64, i64)| match self.finish {
            Finish::Sum => (count > 0).then_some(sum),
            Finish::Mean => (count > 0).then(|| sum / count as f64),
        };
        Ok(Arc::new(Float64Array::from_iter(self.sums[..groups_len].iter().map(result))))
    }
}
