//! The aggregates of a window, and their arguments.

use std::sync::Arc;

use arrow::array::cast::AsArray;
use arrow::array::{ArrayRef, RecordBatch, TimestampMicrosecondArray, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::{Field, TimestampMicrosecondType};
use arrow::error::ArrowError;

use crate::expr::Scalar;
use crate::operator::aggregate::AggregateFactory;
use crate::operator::aggregate::fused::Argued;

/// Where an argument comes from.
#[derive(Clone)]
pub enum Arg {
    /// A column as it is.
    Column(usize),
    /// An expression.
    Scalar(Scalar),
}

impl Arg {
    fn evaluate(&self, batch: &RecordBatch) -> Result<ArrayRef, ArrowError> {
        match self {
            Self::Column(index) => Ok(batch.column(*index).clone()),
            Self::Scalar(scalar) => scalar.evaluate(batch),
        }
    }

    fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Column(index), Self::Column(other)) => index == other,
            (Self::Scalar(scalar), Self::Scalar(other)) => scalar.is_same(other),
            (Self::Column(_), Self::Scalar(_)) | (Self::Scalar(_), Self::Column(_)) => false,
        }
    }
}

/// `name = "function(args) FILTER (WHERE filter)"`.
#[derive(Clone)]
pub struct Measure {
    /// The name of the column of results.
    pub name: String,
    /// The function.
    pub factory: Arc<dyn AggregateFactory>,
    /// Its arguments.
    pub args: Vec<Arg>,
    /// Which rows count: a boolean.
    pub filter: Option<Arg>,
}

impl Measure {
    /// The column of results.
    pub(super) fn field(&self) -> Field {
        Field::new(&self.name, self.factory.output(), true)
    }

    /// The columns of the state. They may be null, because rows of other kinds stand between them.
    pub(super) fn state_fields(&self) -> impl Iterator<Item = Field> {
        let named =
            move |field: Field| Field::new(format!("{}.{}", self.name, field.name()), field.data_type().clone(), true);
        self.factory.partial().into_iter().map(named)
    }

    /// Whether it folds the same rows and values as another.
    pub(super) fn has_source_of(&self, other: &Self) -> bool {
        let mut args = self.args.iter().zip(&other.args);
        let filters = match (&self.filter, &other.filter) {
            (None, None) => true,
            (Some(filter), Some(other)) => filter.is_same(other),
            (None, Some(_)) | (Some(_), None) => false,
        };
        filters && self.args.len() == other.args.len() && args.all(|(arg, other)| arg.is_same(other))
    }
}

/// The arguments of all measures, a row a row.
pub(super) struct Inputs {
    pub(super) measures: Vec<Argued>,
    pub(super) times: TimestampMicrosecondArray,
}

impl Inputs {
    /// Evaluates every argument once for the whole batch.
    pub(super) fn of(measures: &[Measure], batch: &RecordBatch, time: usize) -> Result<Self, ArrowError> {
        let evaluate = |measure: &Measure| {
            let args = measure.args.iter().map(|arg| arg.evaluate(batch)).collect::<Result<Vec<_>, _>>()?;
            let keep = measure.filter.as_ref().map(|filter| filter.evaluate(batch)).transpose()?;
            Ok::<_, ArrowError>((args, keep.map(|keep| keep.as_boolean().clone())))
        };
        let times = batch.column(time).as_primitive::<TimestampMicrosecondType>().clone();
        Ok(Self { measures: measures.iter().map(evaluate).collect::<Result<_, _>>()?, times })
    }

    /// Rows that stand side by side, without a copy.
    pub(super) fn slice(&self, rows: std::ops::Range<usize>) -> Self {
        let (start, len) = (rows.start, rows.len());
        let some = |(args, keep): &Argued| {
            (args.iter().map(|arg| arg.slice(start, len)).collect(), keep.as_ref().map(|keep| keep.slice(start, len)))
        };
        Self { measures: self.measures.iter().map(some).collect(), times: self.times.slice(start, len) }
    }

    /// Some of the rows.
    pub(super) fn take(&self, rows: &UInt32Array) -> Result<Self, ArrowError> {
        let some = |(args, keep): &Argued| {
            let args = args.iter().map(|arg| take(arg, rows, None)).collect::<Result<Vec<_>, _>>()?;
            let keep = keep.as_ref().map(|keep| take(keep, rows, None)).transpose()?;
            Ok::<_, ArrowError>((args, keep.map(|keep| keep.as_boolean().clone())))
        };
        let times = take(&self.times, rows, None)?.as_primitive::<TimestampMicrosecondType>().clone();
        Ok(Self { measures: self.measures.iter().map(some).collect::<Result<_, _>>()?, times })
    }
}
