//! `first` and `last`, by event time. Of rows of the same time `first` takes the one that arrived first, `last` the one
//! that arrived last.

use std::sync::Arc;

use arrow::array::cast::AsArray;
use arrow::array::{Array, ArrayRef, BooleanArray, Int64Array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};
use arrow::error::ArrowError;

use super::cell::{Cell, by_cell, kept_type};
use super::{Aggregate, GroupId, Kernel, each_row, reserve};

/// Which end of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edge {
    /// `first`.
    First,
    /// `last`.
    Last,
}

/// Of every type that columns can have.
pub(super) fn kernel(input: &DataType, edge: Edge) -> Option<Kernel> {
    let input = kept_type(input);
    by_cell!(&input, typed(input.clone(), edge))
}

fn typed<C: Cell>(data_type: DataType, edge: Edge) -> Kernel {
    let partial = [("time", DataType::Int64), ("value", data_type.clone())];
    let kept = data_type.clone();
    let create = move || {
        Box::new(AtEdge::<C> { data_type: kept.clone(), edge, times: Vec::new(), values: Vec::new() })
            as Box<dyn Aggregate>
    };
    Kernel::new(data_type, &partial, Box::new(create))
}

struct AtEdge<C: Cell> {
    data_type: DataType,
    edge: Edge,
    /// The time of each value.
    times: Vec<i64>,
    values: Vec<Option<C::Owned>>,
}

impl<C: Cell> AtEdge<C> {
    fn reserve(&mut self, groups_len: usize) {
        reserve(&mut self.times, groups_len, 0);
        reserve(&mut self.values, groups_len, None);
    }

    fn fold(
        &mut self,
        groups: &[GroupId],
        groups_len: usize,
        values: &ArrayRef,
        keep: Option<&BooleanArray>,
        times: &[i64],
    ) -> Result<(), ArrowError> {
        self.reserve(groups_len);
        let values = cast(values, &self.data_type)?;
        let array = values.as_any().downcast_ref::<C::Array>().expect("cast to the type of the cell");
        each_row(groups, keep, array.nulls(), |row, group| {
            let nearer = match self.edge {
                Edge::First => times[row] < self.times[group],
                Edge::Last => times[row] >= self.times[group],
            };
            let place = &mut self.values[group];
            if nearer || place.is_none() {
                C::store(C::item(array, row), place);
                self.times[group] = times[row];
            }
        });
        Ok(())
    }
}

impl<C: Cell> Aggregate for AtEdge<C> {
    fn update(
        &mut self,
        groups: &[GroupId],
        groups_len: usize,
        args: &[ArrayRef],
        keep: Option<&BooleanArray>,
        times: &[i64],
    ) -> Result<(), ArrowError> {
        self.fold(groups, groups_len, &args[0], keep, times)
    }

    fn merge(&mut self, groups: &[GroupId], groups_len: usize, partial: &[ArrayRef]) -> Result<(), ArrowError> {
        let times = partial[0].as_primitive::<Int64Type>();
        self.fold(groups, groups_len, &partial[1], None, times.values())
    }

    fn partial(&mut self, groups_len: usize) -> Result<Vec<ArrayRef>, ArrowError> {
        let values = self.finish(groups_len)?;
        let times = self.times[..groups_len].iter().zip(&self.values);
        let times = Int64Array::from_iter(times.map(|(time, value)| value.is_some().then_some(*time)));
        Ok(vec![Arc::new(times), values])
    }

    fn finish(&mut self, groups_len: usize) -> Result<ArrayRef, ArrowError> {
        self.reserve(groups_len);
        Ok(C::build(self.values[..groups_len].iter().map(Option::as_ref), &self.data_type))
    }
}
