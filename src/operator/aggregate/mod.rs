//! Functions over the rows of a group, for all groups of a window at once.
//!
//! What is common to all of them, in SQL's spirit:
//!
//! - NULL is no value: every function but `count(*)` passes over it, and one that saw no value gives NULL (`count` 0).
//! - NaN is a value: `sum`, `avg`, `var` and `stddev` of rows with a NaN are NaN; `min`, `max` and `quantile` hold it
//!   for greater than every number.
//! - The result is the same however rows are cut into batches and panes: `merge(partial(a), b) = fold(a, b)`, for
//!   floating point sums up to rounding (`fsum` without).

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray};
use arrow::buffer::{BooleanBuffer, NullBuffer};
use arrow::datatypes::{DataType, Field};
use arrow::error::ArrowError;

use fused::Simple;

pub mod cell;
pub mod count;
mod counter;
pub mod edge;
mod exact;
mod exact_quantile;
pub mod extreme;
pub mod fused;
mod kept;
pub mod moment;
pub mod quantile;
pub mod sum;

#[cfg(test)]
mod tests;

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

    /// What it is, if it is one of the functions that are [`fused`].
    fn simple(&self) -> Option<&Simple> {
        None
    }

    /// An empty one.
    fn create(&self) -> Result<Box<dyn Aggregate>, ArrowError>;
}

/// The functions that have kernels of their own, and a line on each. Every other aggregate function goes through the
/// adapter of [`expr`](crate::expr).
pub static AGGREGATES: &[(&str, &str)] = &[
    ("count", "how many rows, or how many values that are not null"),
    ("sum", "the sum; whole numbers stay exact, and a result that does not fit stops the run"),
    ("avg", "the arithmetic mean"),
    ("min", "the smallest value"),
    ("max", "the greatest value"),
    ("first", "the value of the earliest event"),
    ("last", "the value of the latest event"),
    ("var", "the variance of a sample; also var_samp, and var_pop of a population"),
    ("stddev", "the standard deviation of a sample; also stddev_samp, and stddev_pop of a population"),
    ("quantile", "quantile(x, p), within 1 % of the value"),
    ("quantile_exact", "quantile_exact(x, p), interpolated between values, all of which it keeps"),
    ("fsum", "the sum of floats with all digits, rounded once: the same in any order"),
    ("increase", "how much a counter has grown that begins at nought again now and then"),
    ("resets", "how often it did"),
];

/// Our own kernel of a function over arguments of these types; `None` where there is none and the adapter has to do.
///
/// `constant` is the second argument of `quantile` and `quantile_exact`. The error says what is wrong with the arguments.
pub fn kernel(
    function: &str,
    args: &[DataType],
    constant: Option<f64>,
) -> Result<Option<Arc<dyn AggregateFactory>>, String> {
    let kernel = match (function, args) {
        ("count", []) => Some(count::kernel(true)),
        ("count", [_]) => Some(count::kernel(false)),
        ("sum", [input]) => sum::sum(input),
        ("avg" | "mean", [input]) => sum::avg(input),
        ("min", [input]) => extreme::kernel(input, extreme::Sense::Least),
        ("max", [input]) => extreme::kernel(input, extreme::Sense::Greatest),
        ("var" | "var_samp" | "var_sample", [input]) => moment::kernel(input, moment::Moment::SampleVariance),
        ("var_pop" | "var_population", [input]) => moment::kernel(input, moment::Moment::Variance),
        ("stddev" | "stddev_samp", [input]) => moment::kernel(input, moment::Moment::SampleDeviation),
        ("stddev_pop", [input]) => moment::kernel(input, moment::Moment::Deviation),
        ("first" | "last", [input]) => {
            let edge = if function == "first" { edge::Edge::First } else { edge::Edge::Last };
            let no_kernel = || format!("`{function}` does not take values of type {input}");
            Some(edge::kernel(input, edge).ok_or_else(no_kernel)?)
        }
        ("first" | "last", _) => return Err(format!("`{function}` takes one argument, got {}", args.len())),
        ("fsum" | "increase" | "resets", [input]) | ("quantile" | "quantile_exact", [input, _])
            if !input.is_numeric() =>
        {
            return Err(format!("`{function}` takes numbers, got values of type {input}"));
        }
        ("fsum", [_]) => Some(exact::kernel()),
        ("increase", [input]) => Some(counter::increase(input)),
        ("resets", [input]) => Some(counter::resets(input)),
        ("fsum" | "increase" | "resets", _) => {
            return Err(format!("`{function}` takes one argument, got {}", args.len()));
        }
        ("quantile", [_, _]) => Some(quantile::kernel(probability(constant)?)),
        ("quantile_exact", [_, _]) => Some(exact_quantile::kernel(probability(constant)?)),
        ("quantile" | "quantile_exact", _) => {
            return Err(format!("`{function}` takes a value and a probability, got {}", args.len()));
        }
        _ => None,
    };
    Ok(kernel.map(|kernel| Arc::new(kernel) as Arc<dyn AggregateFactory>))
}

fn probability(constant: Option<f64>) -> Result<f64, String> {
    let p = constant.ok_or("the probability of a quantile must be a constant from 0 to 1")?;
    if (0.0..=1.0).contains(&p) { Ok(p) } else { Err(format!("the probability of a quantile is from 0 to 1, got {p}")) }
}

/// What makes an empty aggregate.
type Create = Box<dyn Fn() -> Box<dyn Aggregate> + Send + Sync>;

/// A factory that is its answers.
struct Kernel {
    output: DataType,
    partial: Vec<Field>,
    simple: Option<Simple>,
    create: Create,
}

impl Kernel {
    fn new(output: DataType, partial: &[(&str, DataType)], create: Create) -> Self {
        let field = |(name, data_type): &(&str, DataType)| Field::new(*name, data_type.clone(), true);
        Self { output, partial: partial.iter().map(field).collect(), simple: None, create }
    }

    /// The same, where it can be fused.
    fn simple(self, simple: Simple) -> Self {
        Self { simple: Some(simple).filter(Simple::fits), ..self }
    }
}

impl AggregateFactory for Kernel {
    fn output(&self) -> DataType {
        self.output.clone()
    }

    fn partial(&self) -> Vec<Field> {
        self.partial.clone()
    }

    fn simple(&self) -> Option<&Simple> {
        self.simple.as_ref()
    }

    fn create(&self) -> Result<Box<dyn Aggregate>, ArrowError> {
        Ok((self.create)())
    }
}

/// The rows that the filter lets through and that have a value; `None` where all of them do.
fn mask(keep: Option<&BooleanArray>, nulls: Option<&NullBuffer>) -> Option<BooleanBuffer> {
    let kept = keep.map(|keep| match keep.nulls() {
        Some(nulls) => keep.values() & nulls.inner(),
        None => keep.values().clone(),
    });
    match (kept, nulls.filter(|nulls| nulls.null_count() > 0)) {
        (Some(kept), Some(nulls)) => Some(&kept & nulls.inner()),
        (Some(kept), None) => Some(kept),
        (None, Some(nulls)) => Some(nulls.inner().clone()),
        (None, None) => None,
    }
}

/// Calls `fold(row, group)` for every row that the filter lets through and that has a value.
fn each_row(
    groups: &[GroupId],
    keep: Option<&BooleanArray>,
    nulls: Option<&NullBuffer>,
    mut fold: impl FnMut(usize, usize),
) {
    match mask(keep, nulls) {
        None => groups.iter().enumerate().for_each(|(row, group)| fold(row, *group as usize)),
        Some(mask) => mask.set_indices().for_each(|row| fold(row, groups[row] as usize)),
    }
}

/// Grows the state to at least so many groups.
fn reserve<T: Clone>(state: &mut Vec<T>, groups_len: usize, empty: T) {
    if state.len() < groups_len {
        state.resize(groups_len, empty);
    }
}
