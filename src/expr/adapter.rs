//! DataFusion's aggregate functions behind our trait.
//!
//! Its `state` and `evaluate` empty the accumulator. A result or a partial must leave ours as it is, so what was taken out
//! is folded back in.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, new_empty_array};
use arrow::datatypes::{DataType, Field};
use arrow::error::ArrowError;
use datafusion_common::Result;
use datafusion_expr::{EmitTo, GroupsAccumulator};
use datafusion_physical_expr::GroupsAccumulatorAdapter;
use datafusion_physical_expr::aggregate::AggregateFunctionExpr;

use crate::expr::planner::arrow_error;
use crate::operator::aggregate::{Aggregate, AggregateFactory, GroupId};

/// What makes accumulators of one call.
pub(crate) struct Adapter {
    call: Arc<AggregateFunctionExpr>,
    partial: Vec<Field>,
}

impl Adapter {
    pub(crate) fn new(call: Arc<AggregateFunctionExpr>) -> Result<Self> {
        let partial = call.state_fields()?.iter().map(|field| Field::clone(field)).collect();
        Ok(Self { call, partial })
    }
}

impl AggregateFactory for Adapter {
    fn output(&self) -> DataType {
        self.call.field().data_type().clone()
    }

    fn partial(&self) -> Vec<Field> {
        self.partial.clone()
    }

    fn create(&self) -> std::result::Result<Box<dyn Aggregate>, ArrowError> {
        let adapted =
            Adapted { accumulator: create(&self.call)?, call: self.call.clone(), indices: Vec::new(), groups: 0 };
        Ok(Box::new(adapted))
    }
}

fn create(call: &Arc<AggregateFunctionExpr>) -> std::result::Result<Box<dyn GroupsAccumulator>, ArrowError> {
    if call.groups_accumulator_supported() {
        return call.create_groups_accumulator().map_err(arrow_error);
    }
    let call = call.clone();
    Ok(Box::new(GroupsAccumulatorAdapter::new(move || call.create_accumulator())))
}

struct Adapted {
    call: Arc<AggregateFunctionExpr>,
    accumulator: Box<dyn GroupsAccumulator>,
    /// Group ids as DataFusion wants them.
    indices: Vec<usize>,
    /// How many groups the accumulator has been told of.
    groups: usize,
}

impl Adapted {
    fn index(&mut self, groups: &[GroupId], groups_len: usize) {
        self.indices.clear();
        self.indices.extend(groups.iter().map(|group| *group as usize));
        self.groups = self.groups.max(groups_len);
    }

    /// Tells the accumulator of groups that have had no row.
    fn grow(&mut self, groups_len: usize) -> Result<()> {
        if self.groups < groups_len {
            let none: Vec<ArrayRef> =
                self.call.state_fields()?.iter().map(|field| new_empty_array(field.data_type())).collect();
            self.accumulator.merge_batch(&none, &[], groups_len)?;
            self.groups = groups_len;
        }
        Ok(())
    }

    /// Takes the state out, and puts it back into a fresh accumulator.
    fn state(&mut self, groups_len: usize) -> std::result::Result<Vec<ArrayRef>, ArrowError> {
        self.grow(groups_len).map_err(arrow_error)?;
        let state = self.accumulator.state(EmitTo::All).map_err(arrow_error)?;
        self.accumulator = create(&self.call)?;
        self.indices.clear();
        self.indices.extend(0..self.groups);
        self.accumulator.merge_batch(&state, &self.indices, self.groups).map_err(arrow_error)?;
        Ok(state)
    }
}

impl Aggregate for Adapted {
    fn update(
        &mut self,
        groups: &[GroupId],
        groups_len: usize,
        args: &[ArrayRef],
        keep: Option<&BooleanArray>,
        _: &[i64],
    ) -> std::result::Result<(), ArrowError> {
        self.index(groups, groups_len);
        self.accumulator.update_batch(args, &self.indices, keep, self.groups).map_err(arrow_error)
    }

    fn merge(
        &mut self,
        groups: &[GroupId],
        groups_len: usize,
        partial: &[ArrayRef],
    ) -> std::result::Result<(), ArrowError> {
        self.index(groups, groups_len);
        self.accumulator.merge_batch(partial, &self.indices, self.groups).map_err(arrow_error)
    }

    fn partial(&mut self, groups_len: usize) -> std::result::Result<Vec<ArrayRef>, ArrowError> {
        let state = self.state(groups_len)?;
        Ok(state.into_iter().map(|column| column.slice(0, groups_len)).collect())
    }

    fn finish(&mut self, groups_len: usize) -> std::result::Result<ArrayRef, ArrowError> {
        let state = self.state(groups_len)?;
        let result = self.accumulator.evaluate(EmitTo::All).map_err(arrow_error)?;
        self.accumulator = create(&self.call)?;
        self.indices.clear();
        self.indices.extend(0..self.groups);
        self.accumulator.merge_batch(&state, &self.indices, self.groups).map_err(arrow_error)?;
        Ok(result.slice(0, groups_len))
    }
}
