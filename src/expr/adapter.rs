//! DataFusion's aggregate functions behind our trait.
//!
//! Its `state` and `evaluate` empty the accumulator. A result or a partial must leave ours as it is, so what was taken out
//! is folded back in.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, new_empty_array};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Field};
use arrow::error::ArrowError;
use datafusion_common::{DataFusionError, Result};
use datafusion_expr::{EmitTo, GroupsAccumulator};
use datafusion_physical_expr::GroupsAccumulatorAdapter;
use datafusion_physical_expr::aggregate::AggregateFunctionExpr;

use crate::expr::planner::{arrow_error, plain_type};
use crate::operator::aggregate::{Aggregate, AggregateFactory, GroupId};

/// What makes accumulators of one call.
pub(crate) struct Adapter {
    call: Call,
    partial: Vec<Field>,
}

impl Adapter {
    /// Of a call over arguments of these types, and what it was read from.
    pub(crate) fn new(text: &Arc<str>, function: Arc<AggregateFunctionExpr>, args: Vec<DataType>) -> Result<Self> {
        let output = plain_type(function.field().data_type())?;
        let partial = function.state_fields()?.iter().map(|field| Field::clone(field)).collect();
        let call = Call { text: text.clone(), function, args, output };
        // Some constants, such as a percentile of 2, are looked at only here.
        call.accumulator()?;
        if !call.function.groups_accumulator_supported() {
            call.function.create_accumulator()?;
        }
        Ok(Self { call, partial })
    }
}

impl AggregateFactory for Adapter {
    fn output(&self) -> DataType {
        self.call.output.clone()
    }

    fn partial(&self) -> Vec<Field> {
        self.partial.clone()
    }

    fn create(&self) -> std::result::Result<Box<dyn Aggregate>, ArrowError> {
        let accumulator = self.call.accumulator().map_err(|error| self.call.error(&error))?;
        Ok(Box::new(Adapted { accumulator, call: self.call.clone(), indices: Vec::new(), groups: 0 }))
    }
}

/// A function over its arguments.
#[derive(Clone)]
struct Call {
    /// What it was read from, for messages.
    text: Arc<str>,
    function: Arc<AggregateFunctionExpr>,
    args: Vec<DataType>,
    /// The type that the results have in a column.
    output: DataType,
}

impl Call {
    fn accumulator(&self) -> Result<Box<dyn GroupsAccumulator>> {
        if self.function.groups_accumulator_supported() {
            let mut accumulator = self.function.create_groups_accumulator()?;
            // Without a filter and nulls, accumulators take every group for seen: in DataFusion a group begins with a
            // row. Here it need not. What has met a filter once keeps book.
            let none: Vec<ArrayRef> = self.args.iter().map(new_empty_array).collect();
            accumulator.update_batch(&none, &[], Some(&BooleanArray::from(Vec::<bool>::new())), 0)?;
            return Ok(accumulator);
        }
        let function = self.function.clone();
        Ok(Box::new(GroupsAccumulatorAdapter::new(move || function.create_accumulator())))
    }

    /// The state of no group.
    fn no_state(&self) -> Result<Vec<ArrayRef>> {
        Ok(self.function.state_fields()?.iter().map(|field| new_empty_array(field.data_type())).collect())
    }

    fn error(&self, error: &DataFusionError) -> ArrowError {
        arrow_error(&self.text, error)
    }
}

struct Adapted {
    call: Call,
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
            let none = self.call.no_state()?;
            self.accumulator.merge_batch(&none, &[], groups_len)?;
            self.groups = groups_len;
        }
        Ok(())
    }

    /// Takes the state out, and puts it back.
    fn state(&mut self, groups_len: usize) -> Result<Vec<ArrayRef>> {
        self.grow(groups_len)?;
        if self.groups == 0 {
            return self.call.no_state();
        }
        let state = self.accumulator.state(EmitTo::All)?;
        self.put_back(&state)?;
        Ok(state)
    }

    /// Folds a state of all groups into a fresh accumulator.
    fn put_back(&mut self, state: &[ArrayRef]) -> Result<()> {
        self.accumulator = self.call.accumulator()?;
        self.indices.clear();
        self.indices.extend(0..self.groups);
        self.accumulator.merge_batch(state, &self.indices, self.groups)
    }

    /// The results of all groups.
    fn results(&mut self, groups_len: usize) -> Result<ArrayRef> {
        let state = self.state(groups_len)?;
        if self.groups == 0 {
            return Ok(new_empty_array(&self.call.output));
        }
        let results = self.accumulator.evaluate(EmitTo::All)?;
        self.put_back(&state)?;
        if *results.data_type() == self.call.output {
            return Ok(results);
        }
        Ok(cast_with_options(&results, &self.call.output, &CastOptions { safe: false, ..CastOptions::default() })?)
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
        let updated = self.accumulator.update_batch(args, &self.indices, keep, self.groups);
        updated.map_err(|error| self.call.error(&error))
    }

    fn merge(
        &mut self,
        groups: &[GroupId],
        groups_len: usize,
        partial: &[ArrayRef],
    ) -> std::result::Result<(), ArrowError> {
        self.index(groups, groups_len);
        let merged = self.accumulator.merge_batch(partial, &self.indices, self.groups);
        merged.map_err(|error| self.call.error(&error))
    }

    fn partial(&mut self, groups_len: usize) -> std::result::Result<Vec<ArrayRef>, ArrowError> {
        let state = self.state(groups_len).map_err(|error| self.call.error(&error))?;
        Ok(state.into_iter().map(|column| column.slice(0, groups_len)).collect())
    }

    fn finish(&mut self, groups_len: usize) -> std::result::Result<ArrayRef, ArrowError> {
        let results = self.results(groups_len).map_err(|error| self.call.error(&error))?;
        Ok(results.slice(0, groups_len))
    }
}
