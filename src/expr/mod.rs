//! SQL text to what can be evaluated, by DataFusion: parse, plan against a schema, coerce, simplify, lower.
//! Faults point into the text.

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{DataType, Schema};
use arrow::error::ArrowError;

use crate::component::{Fault, Name};
use crate::operator::aggregate::AggregateFactory;

/// An expression over the columns of a batch, ready to run.
#[derive(Clone, Debug)]
pub struct Scalar {
    /// The type of its values.
    pub data_type: DataType,
    /// Whether a value may be null.
    pub nullable: bool,
    /// The constant that it is, if it is one, as a number.
    pub constant: Option<f64>,
}

impl Scalar {
    /// A value a row.
    pub fn evaluate(&self, batch: &RecordBatch) -> Result<ArrayRef, ArrowError> {
        let _ = batch;
        Err(ArrowError::NotYetImplemented(String::new()))
    }
}

/// Reads an expression over the columns of `schema`.
pub fn scalar(text: &Name, schema: &Schema) -> Result<Scalar, Fault> {
    let _ = schema;
    Err(text.fault(""))
}

/// Reads an expression that is true or false.
pub fn predicate(text: &Name, schema: &Schema) -> Result<Scalar, Fault> {
    scalar(text, schema)
}

/// `function(args) FILTER (WHERE filter)`, as a pipeline file writes it.
pub struct AggregateCall {
    /// The function's name in lower case: `count`, `sum`, `quantile`, `approx_distinct`, ….
    pub function: String,
    /// The arguments; none for `count(*)`.
    pub args: Vec<Scalar>,
    /// The FILTER clause.
    pub filter: Option<Scalar>,
    /// `DISTINCT` or `ORDER BY` inside the call: only the adapter knows how.
    pub special: bool,
    /// The function by DataFusion, through the one adapter. `None` for those that DataFusion does not have
    /// (`quantile`, `first`, `last`).
    pub adapter: Option<std::sync::Arc<dyn AggregateFactory>>,
    /// What DataFusion says the type of the result is; for our own functions it is theirs to say.
    pub output: Option<DataType>,
}

/// Reads an aggregate call over the columns of `schema`.
pub fn aggregate(text: &Name, schema: &Schema) -> Result<AggregateCall, Fault> {
    let _ = schema;
    Err(text.fault(""))
}
