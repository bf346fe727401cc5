//! Expressions with a value a row.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{DataType, Schema};
use arrow::error::ArrowError;
use datafusion_common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion_common::{Result, plan_err};
use datafusion_expr::Expr;
use datafusion_physical_expr::PhysicalExpr;
use datafusion_physical_expr::expressions::{Literal, cast};

use crate::component::{Fault, Name};
use crate::expr::fault::fault;
use crate::expr::planner::{Planner, arrow_error};
use crate::flow::schema::timestamp_type;

/// An expression over the columns of a batch, ready to run.
#[derive(Clone, Debug)]
pub struct Scalar {
    /// The type of its values.
    pub data_type: DataType,
    /// Whether a value may be null.
    pub nullable: bool,
    /// The constant that it is, if it is one, as a number.
    pub constant: Option<f64>,
    running: Arc<dyn PhysicalExpr>,
}

impl Scalar {
    /// Of what runs over `schema`, as it is.
    pub(crate) fn of(running: Arc<dyn PhysicalExpr>, schema: &Schema) -> Result<Self> {
        let constant = running.downcast_ref::<Literal>().map(Literal::value);
        let constant = constant.and_then(|value| value.cast_to(&DataType::Float64).ok());
        let constant = match constant {
            Some(datafusion_common::ScalarValue::Float64(number)) => number,
            _ => None,
        };
        Ok(Self { data_type: running.data_type(schema)?, nullable: running.nullable(schema)?, constant, running })
    }

    /// Of what runs over `schema`, its type one of those that columns have.
    fn plain(running: Arc<dyn PhysicalExpr>, schema: &Schema) -> Result<Self> {
        let running = match running.data_type(schema)? {
            DataType::Utf8View | DataType::LargeUtf8 => cast(running, schema, DataType::Utf8)?,
            DataType::Timestamp(..) => cast(running, schema, timestamp_type())?,
            DataType::Null => {
                return plan_err!("it is always null, so it has no type; write CAST(NULL AS DOUBLE) or the like");
            }
            _ => running,
        };
        Self::of(running, schema)
    }

    /// A value a row.
    pub fn evaluate(&self, batch: &RecordBatch) -> std::result::Result<ArrayRef, ArrowError> {
        let value = self.running.evaluate(batch).map_err(arrow_error)?;
        value.into_array(batch.num_rows()).map_err(arrow_error)
    }
}

/// Reads an expression over the columns of `schema`. Text is plain UTF-8, times are microseconds in UTC, whatever the
/// functions in it give.
pub fn scalar(text: &Name, schema: &Schema) -> std::result::Result<Scalar, Fault> {
    read(text, schema).map_err(|error| fault(text, schema, &error))
}

fn read(text: &Name, schema: &Schema) -> Result<Scalar> {
    let planner = Planner::new(schema)?;
    let expr = planner.plan(&text.text)?;
    refuse(&expr)?;
    Scalar::plain(planner.lower(expr)?, schema)
}

/// What has no value of one row alone.
fn refuse(expr: &Expr) -> Result<()> {
    let mut wrong = None;
    expr.apply(|part| {
        wrong = match part {
            Expr::AggregateFunction(call) => {
                Some(format!("`{}` gathers rows: it belongs into the aggregates of a window", call.func.name()))
            }
            Expr::WindowFunction(_) => Some("OVER is not for streams: use a window operator".to_owned()),
            Expr::ScalarSubquery(_) | Expr::Exists(_) | Expr::InSubquery(_) => {
                Some("a subquery has nothing to read here".to_owned())
            }
            _ => None,
        };
        Ok(if wrong.is_some() { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    match wrong {
        Some(why) => plan_err!("{why}"),
        None => Ok(()),
    }
}

/// Reads an expression that is true or false.
pub fn predicate(text: &Name, schema: &Schema) -> std::result::Result<Scalar, Fault> {
    let scalar = scalar(text, schema)?;
    if scalar.data_type == DataType::Boolean {
        return Ok(scalar);
    }
    Err(text.fault(format!("expected a condition that is true or false, got values of type {}", scalar.data_type)))
}
