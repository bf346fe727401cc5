//! `count(*)` and `count(x)`.

use std::sync::Arc;

use arrow::array::cast::AsArray;
use arrow::array::{Array, ArrayRef, BooleanArray, Int64Array};
use arrow::datatypes::{DataType, Int64Type};
use arrow::error::ArrowError;

use super::fused::Simple;
use super::{Aggregate, GroupId, Kernel, each_row, reserve};

/// `count(*)` counts rows, `count(x)` values that are not null.
pub(super) fn kernel(star: bool) -> Kernel {
    Kernel::new(
        DataType::Int64,
        &[("count", DataType::Int64)],
        Box::new(move || Box::new(Count { star, counts: Vec::new() })),
    )
    .simple(if star { Simple::Rows } else { Simple::Count })
}

struct Count {
    star: bool,
    counts: Vec<i64>,
}

impl Aggregate for Count {
    fn update(
        &mut self,
        groups: &[GroupId],
        groups_len: usize,
        args: &[ArrayRef],
        keep: Option<&BooleanArray>,
        _: &[i64],
    ) -> Result<(), ArrowError> {
        reserve(&mut self.counts, groups_len, 0);
        let nulls = if self.star { None } else { args[0].logical_nulls() };
        each_row(groups, keep, nulls.as_ref(), |_, group| self.counts[group] = self.counts[group].saturating_add(1));
        Ok(())
    }

    fn merge(&mut self, groups: &[GroupId], groups_len: usize, partial: &[ArrayRef]) -> Result<(), ArrowError> {
        reserve(&mut self.counts, groups_len, 0);
        let counts = partial[0].as_primitive::<Int64Type>();
        each_row(groups, None, counts.nulls(), |row, group| {
            self.counts[group] = self.counts[group].saturating_add(counts.value(row))
        });
        Ok(())
    }

    fn partial(&mut self, groups_len: usize) -> Result<Vec<ArrayRef>, ArrowError> {
        Ok(vec![self.finish(groups_len)?])
    }

    fn finish(&mut self, groups_len: usize) -> Result<ArrayRef, ArrowError> {
        reserve(&mut self.counts, groups_len, 0);
        Ok(Arc::new(Int64Array::from_iter_values(self.counts[..groups_len].iter().copied())))
    }
}
