//! Aggregates whose state of a group is a value of its own: what they have in common.

use std::sync::Arc;

use arrow::array::cast::AsArray;
use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, BinaryBuilder, BooleanArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use arrow::error::ArrowError;

use super::{Aggregate, GroupId, each_row, reserve};

/// The state of one group.
pub(super) trait State: Clone + Default + Send + 'static {
    /// What columns are cast to, and their values folded in as.
    type Type: ArrowPrimitiveType;
    /// The same with what a type's parameters say.
    const TYPE: DataType = Self::Type::DATA_TYPE;

    /// Folds a value in, and the event time of its row in microseconds.
    fn add(&mut self, value: <Self::Type as ArrowPrimitiveType>::Native, time: i64);
    /// Folds in what another has; of values of one time those are the later ones.
    fn merge(&mut self, other: &Self);
    fn write(&self, to: &mut Vec<u8>);
    /// What was written; `None` where it is something else.
    fn read(bytes: &[u8]) -> Option<Self>;
}

/// The results of so many groups.
type Finish<S> = Box<dyn Fn(&[S]) -> Result<ArrayRef, ArrowError> + Send>;

pub(super) struct Kept<S> {
    name: &'static str,
    finish: Finish<S>,
    states: Vec<S>,
}

impl<S: State> Kept<S> {
    pub(super) fn create(
        name: &'static str,
        finish: impl Fn(&[S]) -> Result<ArrayRef, ArrowError> + Send + 'static,
    ) -> Box<dyn Aggregate> {
        Box::new(Self { name, finish: Box::new(finish), states: Vec::new() })
    }
}

impl<S: State> Aggregate for Kept<S> {
    fn update(
        &mut self,
        groups: &[GroupId],
        groups_len: usize,
        args: &[ArrayRef],
        keep: Option<&BooleanArray>,
        times: &[i64],
    ) -> Result<(), ArrowError> {
        reserve(&mut self.states, groups_len, S::default());
        let values = cast(&args[0], &S::TYPE)?;
        let values = values.as_primitive::<S::Type>();
        let numbers = values.values();
        each_row(groups, keep, values.nulls(), |row, group| self.states[group].add(numbers[row], times[row]));
        Ok(())
    }

    fn merge(&mut self, groups: &[GroupId], groups_len: usize, partial: &[ArrayRef]) -> Result<(), ArrowError> {
        reserve(&mut self.states, groups_len, S::default());
        let states = partial[0].as_binary::<i32>();
        let mut sound = true;
        each_row(groups, None, states.nulls(), |row, group| match S::read(states.value(row)) {
            Some(state) => self.states[group].merge(&state),
            None => sound = false,
        });
        let wrong = || ArrowError::ParseError(format!("the state of `{}` is not what it wrote", self.name));
        sound.then_some(()).ok_or_else(wrong)
    }

    fn partial(&mut self, groups_len: usize) -> Result<Vec<ArrayRef>, ArrowError> {
        reserve(&mut self.states, groups_len, S::default());
        let (mut column, mut bytes) = (BinaryBuilder::new(), Vec::new());
        for state in &self.states[..groups_len] {
            bytes.clear();
            state.write(&mut bytes);
            column.append_value(&bytes);
        }
        Ok(vec![Arc::new(column.finish())])
    }

    fn finish(&mut self, groups_len: usize) -> Result<ArrayRef, ArrowError> {
        reserve(&mut self.states, groups_len, S::default());
        (self.finish)(&self.states[..groups_len])
    }
}
