//! The aggregates of a window: their arguments, and state for many groups at once.

use std::sync::Arc;

use arrow::array::cast::AsArray;
use arrow::array::{ArrayRef, BooleanArray, RecordBatch, TimestampMicrosecondArray, UInt32Array, new_empty_array};
use arrow::compute::take;
use arrow::datatypes::{Field, TimestampMicrosecondType};
use arrow::error::ArrowError;

use crate::expr::Scalar;
use crate::operator::aggregate::{Aggregate, AggregateFactory, GroupId};

/// Where an argument comes from.
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
}

/// `name = "function(args) FILTER (WHERE filter)"`.
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
}

/// The arguments of all measures, a row a row.
pub(super) struct Inputs {
    measures: Vec<(Vec<ArrayRef>, Option<BooleanArray>)>,
    times: TimestampMicrosecondArray,
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

    /// How many rows there are.
    pub(super) fn len(&self) -> usize {
        self.times.len()
    }

    /// Rows that stand side by side, without a copy.
    pub(super) fn slice(&self, rows: std::ops::Range<usize>) -> Self {
        let (start, len) = (rows.start, rows.len());
        let some = |(args, keep): &(Vec<ArrayRef>, Option<BooleanArray>)| {
            (args.iter().map(|arg| arg.slice(start, len)).collect(), keep.as_ref().map(|keep| keep.slice(start, len)))
        };
        Self { measures: self.measures.iter().map(some).collect(), times: self.times.slice(start, len) }
    }

    /// Some of the rows.
    pub(super) fn take(&self, rows: &UInt32Array) -> Result<Self, ArrowError> {
        let some = |(args, keep): &(Vec<ArrayRef>, Option<BooleanArray>)| {
            let args = args.iter().map(|arg| take(arg, rows, None)).collect::<Result<Vec<_>, _>>()?;
            let keep = keep.as_ref().map(|keep| take(keep, rows, None)).transpose()?;
            Ok::<_, ArrowError>((args, keep.map(|keep| keep.as_boolean().clone())))
        };
        let times = take(&self.times, rows, None)?.as_primitive::<TimestampMicrosecondType>().clone();
        Ok(Self { measures: self.measures.iter().map(some).collect::<Result<_, _>>()?, times })
    }
}

/// The state of every measure for many groups; which group has which slot is the owner's to know.
pub(super) struct Arena {
    aggregates: Vec<Box<dyn Aggregate>>,
    /// How many slots there are.
    pub(super) len: usize,
}

impl Arena {
    pub(super) fn new(measures: &[Measure]) -> Result<Self, ArrowError> {
        Ok(Self {
            aggregates: measures.iter().map(|measure| measure.factory.create()).collect::<Result<_, _>>()?,
            len: 0,
        })
    }

    /// Folds row `r` into slot `slots[r]`.
    pub(super) fn update(&mut self, slots: &[GroupId], inputs: &Inputs) -> Result<(), ArrowError> {
        for (aggregate, (args, keep)) in self.aggregates.iter_mut().zip(&inputs.measures) {
            aggregate.update(slots, self.len, args, keep.as_ref(), inputs.times.values())?;
        }
        Ok(())
    }

    /// Folds row `r` of a partial into slot `slots[r]`.
    pub(super) fn merge(&mut self, slots: &[GroupId], partial: &[Vec<ArrayRef>]) -> Result<(), ArrowError> {
        for (aggregate, columns) in self.aggregates.iter_mut().zip(partial) {
            aggregate.merge(slots, self.len, columns)?;
        }
        Ok(())
    }

    /// What has been folded, a row a slot.
    pub(super) fn partial(&mut self) -> Result<Vec<Vec<ArrayRef>>, ArrowError> {
        self.aggregates.iter_mut().map(|aggregate| aggregate.partial(self.len)).collect()
    }

    /// What has been folded into some of the slots, in their order.
    pub(super) fn partial_of(&mut self, slots: &[GroupId]) -> Result<Vec<Vec<ArrayRef>>, ArrowError> {
        let slots = UInt32Array::from(slots.to_vec());
        let some = |columns: Vec<ArrayRef>| columns.iter().map(|column| take(column, &slots, None)).collect();
        self.partial()?.into_iter().map(some).collect()
    }

    /// The results, a row a slot.
    pub(super) fn finish(&mut self) -> Result<Vec<ArrayRef>, ArrowError> {
        self.aggregates.iter_mut().map(|aggregate| aggregate.finish(self.len)).collect()
    }
}

/// The columns of partials without a row.
pub(super) fn no_partial(measures: &[Measure]) -> Vec<Vec<ArrayRef>> {
    let empty =
        |measure: &Measure| measure.factory.partial().iter().map(|field| new_empty_array(field.data_type())).collect();
    measures.iter().map(empty).collect()
}
