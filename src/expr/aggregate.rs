//! Aggregate calls: `sum(power * dt) FILTER (WHERE ok)`.

use std::sync::Arc;

use arrow::datatypes::{DataType, Schema};
use datafusion_common::{Result, plan_err};
use datafusion_expr::Expr;
use datafusion_expr::execution_props::ExecutionProps;
use datafusion_expr::expr::AggregateFunction;
use datafusion_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion_physical_expr::aggregate::LoweredAggregateBuilder;

use crate::component::{Fault, Name};
use crate::expr::adapter::Adapter;
use crate::expr::fault::fault;
use crate::expr::functions::is_ours;
use crate::expr::planner::Planner;
use crate::expr::scalar::Scalar;
use crate::operator::aggregate::AggregateFactory;

/// `function(args) FILTER (WHERE filter)`, as a pipeline file writes it.
pub struct AggregateCall {
    /// The function's name in lower case: `count`, `sum`, `quantile`, `approx_distinct`, ….
    pub function: String,
    /// The arguments, and after them what an ORDER BY inside the call sorts by; none for `count(*)`.
    pub args: Vec<Scalar>,
    /// The FILTER clause.
    pub filter: Option<Scalar>,
    /// `DISTINCT` or `ORDER BY` inside the call: only the adapter knows how.
    pub special: bool,
    /// The function by DataFusion, through the one adapter. `None` for those that DataFusion does not have
    /// (`quantile`, `first`, `last`).
    pub adapter: Option<Arc<dyn AggregateFactory>>,
    /// What DataFusion says the type of the result is; for our own functions it is theirs to say.
    pub output: Option<DataType>,
}

/// Reads an aggregate call over the columns of `schema`.
pub fn aggregate(text: &Name, schema: &Schema) -> std::result::Result<AggregateCall, Fault> {
    read(text, schema).map_err(|error| fault(text, schema, &error))
}

fn read(text: &Name, schema: &Schema) -> Result<AggregateCall> {
    let planner = Planner::new(schema)?;
    // `count(*)` is planned under an alias.
    let expr = planner.plan(&text.text)?.unalias();
    let Expr::AggregateFunction(call) = &expr else {
        return plan_err!(
            "expected one aggregate function, such as `sum(x)`; what is computed from several belongs into a `derive` after the window"
        );
    };
    let function = call.func.name().to_lowercase();
    let special = call.params.distinct || !call.params.order_by.is_empty() || call.params.null_treatment.is_some();
    let filter = call.params.filter.as_deref().cloned();
    let filter = filter.map(|filter| Scalar::of(planner.lower(filter)?, schema)).transpose()?;
    if is_ours(&function) {
        if special {
            return plan_err!("`{function}` takes neither DISTINCT nor ORDER BY");
        }
        let args = lower(&planner, call, schema)?;
        return Ok(AggregateCall { function, args, filter, special, adapter: None, output: None });
    }
    // `count(*)` is planned as the count of a constant.
    let whole_rows =
        function == "count" && !special && matches!(&*call.params.args, [Expr::Literal(value, _)] if !value.is_null());
    let props = ExecutionProps::new();
    let context = PhysicalPlanningContext::default();
    let lowered = LoweredAggregateBuilder::new(&expr, planner.schema(), schema, &props, &context).build()?;
    let output = lowered.aggregate.field().data_type().clone();
    let args = if whole_rows {
        Vec::new()
    } else {
        let sorted_by = lowered.order_bys.iter().map(|sort| sort.expr.clone());
        let all = lowered.aggregate.expressions().into_iter().chain(sorted_by);
        all.map(|arg| Scalar::of(arg, schema)).collect::<Result<_>>()?
    };
    let adapter = Adapter::new(lowered.aggregate)?;
    Ok(AggregateCall { function, args, filter, special, adapter: Some(Arc::new(adapter)), output: Some(output) })
}

fn lower(planner: &Planner, call: &AggregateFunction, schema: &Schema) -> Result<Vec<Scalar>> {
    call.params.args.iter().map(|arg| Scalar::of(planner.lower(arg.clone())?, schema)).collect()
}
