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
use crate::expr::functions::is_deterministic;
use crate::expr::planner::{Planner, arrow_error, checked, plain_type, with_room};
use crate::expr::words;

/// An expression over the columns of a batch, ready to run.
#[derive(Clone, Debug)]
pub struct Scalar {
    /// The type of its values.
    pub data_type: DataType,
    /// Whether a value may be null.
    pub nullable: bool,
    /// The constant that it is, if it is one, as a number.
    pub constant: Option<f64>,
    /// What it was read from, for messages.
    text: Arc<str>,
    running: Arc<dyn PhysicalExpr>,
}

impl Scalar {
    /// Of what runs over `schema`, as it is.
    pub(crate) fn of(text: &Arc<str>, running: Arc<dyn PhysicalExpr>, schema: &Schema) -> Result<Self> {
        let running = checked(running)?;
        let constant = running.downcast_ref::<Literal>().map(Literal::value);
        let constant = constant.and_then(|value| value.cast_to(&DataType::Float64).ok());
        let constant = match constant {
            Some(datafusion_common::ScalarValue::Float64(number)) => number,
            _ => None,
        };
        Ok(Self {
            data_type: running.data_type(schema)?,
            nullable: running.nullable(schema)?,
            constant,
            text: text.clone(),
            running,
        })
    }

    /// A value a row. The error names the expression.
    pub fn evaluate(&self, batch: &RecordBatch) -> std::result::Result<ArrayRef, ArrowError> {
        let value = self.running.evaluate(batch).and_then(|value| value.into_array(batch.num_rows()));
        value.map_err(|error| arrow_error(&self.text, &error))
    }

    /// Whether another gives the same values, over columns of the same schema.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        *self.running == *other.running
    }
}

/// Reads an expression over the columns of `schema`. Text is plain UTF-8, times are microseconds in UTC, whatever the
/// functions in it give. Whole numbers that do not fit, division of whole numbers by nought and casts that fail are errors
/// when they happen: guard with `nullif(n, 0)`, CASE or TRY_CAST.
pub fn scalar(text: &Name, schema: &Schema) -> std::result::Result<Scalar, Fault> {
    words::check(text)?;
    with_room(|| read(&text.text, schema)).map_err(|error| fault(text, schema, &error))
}

fn read(text: &str, schema: &Schema) -> Result<Scalar> {
    let planner = Planner::new(schema)?;
    let expr = planner.plan(text)?;
    refuse(text, &expr, "it belongs into the aggregates of a window")?;
    let running = planner.lower(expr)?;
    let data_type = running.data_type(schema)?;
    let plain = plain_type(&data_type)?;
    let running = if plain == data_type { running } else { cast(running, schema, plain)? };
    Scalar::of(&text.into(), running, schema)
}

/// What has no value of one row alone, or not always the same. `gathers` says where aggregates belong.
pub(crate) fn refuse(text: &str, expr: &Expr, gathers: &str) -> Result<()> {
    let mut wrong = None;
    expr.apply(|part| {
        wrong = match part {
            Expr::AggregateFunction(call) => Some(format!("`{}` gathers rows: {gathers}", call.func.name())),
            Expr::WindowFunction(_) => Some("OVER is not for streams: use a window operator".to_owned()),
            Expr::ScalarSubquery(_) | Expr::Exists(_) | Expr::InSubquery(_) => {
                Some("a subquery has nothing to read here".to_owned())
            }
            Expr::ScalarFunction(call) if !is_deterministic(&call.func) => {
                // By the name that was written.
                let names = std::iter::once(call.name()).chain(call.func.aliases().iter().map(String::as_str));
                let name = names.into_iter().find(|name| words::find(text, name).is_some()).unwrap_or(call.name());
                Some(format!("`{name}` differs from run to run, but the same rows must always give the same result"))
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
