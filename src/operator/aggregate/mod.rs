//! Functions over the rows of a group, for all groups of a window at once.

use arrow::array::{ArrayRef, BooleanArray};
use arrow::datatypes::{DataType, Field};
use arrow::error::ArrowError;

/// A group's place in the window: dense, from nought.
pub type GroupId = u32;

/// One function over all groups at once. `groups_len` is how many groups there are: every id is below.
pub trait Aggregate: Send {
    /// Folds row `r` of the arguments into group `groups[r]`, for every row that `keep` (the FILTER clause;
    /// null counts as false) lets through. `times` are the rows' event times in microseconds.
    fn update(
        &mut self,
        groups: &[GroupId],
        groups_len: usize,
        args: &[ArrayRef],
        keep: Option<&BooleanArray>,
        times: &[i64],
    ) -> Result<(), ArrowError>;

    /// Folds in row `r` of what `partial` gave into group `groups[r]`: of another pane, another worker, or
    /// before a restart.
    fn merge(&mut self, groups: &[GroupId], groups_len: usize, partial: &[ArrayRef]) -> Result<(), ArrowError>;

    /// What has been folded so far, a row a group, `groups_len` rows. Leaves it as it is.
    fn partial(&mut self, groups_len: usize) -> Result<Vec<ArrayRef>, ArrowError>;

    /// The result, a row a group, `groups_len` rows. Leaves it as it is.
    fn finish(&mut self, groups_len: usize) -> Result<ArrayRef, ArrowError>;
}

/// A bound aggregate: what makes empty ones of it.
pub trait AggregateFactory: Send + Sync {
    /// The type of the result.
    fn output(&self) -> DataType;

    /// The columns of [`Aggregate::partial`].
    fn partial(&self) -> Vec<Field>;

    /// An empty one.
    fn create(&self) -> Result<Box<dyn Aggregate>, ArrowError>;
}
