//! `min` and `max`.

use std::cmp::Ordering;

use arrow::array::{Array, ArrayRef, BooleanArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use arrow::error::ArrowError;

use super::cell::{Cell, by_cell, kept_type};
use super::fused::Simple;
use super::{Aggregate, GroupId, Kernel, each_row, reserve};

/// Which end of the order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sense {
    /// `min`.
    Least,
    /// `max`.
    Greatest,
}

/// Of every type with an order that columns can have; others go through the adapter.
pub(super) fn kernel(input: &DataType, sense: Sense) -> Option<Kernel> {
    let input = kept_type(input);
    by_cell!(&input, typed(input.clone(), sense))
}

fn typed<C: Cell>(data_type: DataType, sense: Sense) -> Kernel {
    let wins = match sense {
        Sense::Least => Ordering::Less,
        Sense::Greatest => Ordering::Greater,
    };
    let partial = [("value", data_type.clone())];
    let kept = data_type.clone();
    Kernel::new(
        data_type.clone(),
        &partial,
        Box::new(move || Box::new(Extreme::<C> { data_type: kept.clone(), wins, values: Vec::new() })),
    )
    .simple(Simple::Extreme(data_type, sense))
}

struct Extreme<C: Cell> {
    data_type: DataType,
    /// How a value compares to the one that it replaces.
    wins: Ordering,
    values: Vec<Option<C::Owned>>,
}

impl<C: Cell> Extreme<C> {
    fn fold(
        &mut self,
        groups: &[GroupId],
        groups_len: usize,
        values: &ArrayRef,
        keep: Option<&BooleanArray>,
    ) -> Result<(), ArrowError> {
        reserve(&mut self.values, groups_len, None);
        let values = cast(values, &self.data_type)?;
        let array = values.as_any().downcast_ref::<C::Array>().expect("cast to the type of the cell");
        each_row(groups, keep, array.nulls(), |row, group| {
            let item = C::item(array, row);
            let place = &mut self.values[group];
            if place.as_ref().is_none_or(|best| C::compare(item, best) == self.wins) {
                C::store(item, place);
            }
        });
        Ok(())
    }
}

impl<C: Cell> Aggregate for Extreme<C> {
    fn update(
        &mut self,
        groups: &[GroupId],
        groups_len: usize,
        args: &[ArrayRef],
        keep: Option<&BooleanArray>,
        _: &[i64],
    ) -> Result<(), ArrowError> {
        self.fold(groups, groups_len, &args[0], keep)
    }

    fn merge(&mut self, groups: &[GroupId], groups_len: usize, partial: &[ArrayRef]) -> Result<(), ArrowError> {
        self.fold(groups, groups_len, &partial[0], None)
    }

    fn partial(&mut self, groups_len: usize) -> Result<Vec<ArrayRef>, ArrowError> {
        Ok(vec![self.finish(groups_len)?])
    }

    fn finish(&mut self, groups_len: usize) -> Result<ArrayRef, ArrowError> {
        reserve(&mut self.values, groups_len, None);
        Ok(C::build(self.values[..groups_len].iter().map(Option::as_ref), &self.data_type))
    }
}
