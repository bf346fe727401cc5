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
use crate::expr::planner::{Planner, with_room};
use crate::expr::scalar::{Scalar, refuse};
use crate::expr::words;
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

/// Does not sort by its ORDER BY but relies on sorted input, which a stream is not.
const SORTED_INPUT_ONLY: &str = "nth_value";

/// Reads an aggregate call over the columns of `schema`.
pub fn aggregate(text: &Name, schema: &Schema) -> std::result::Result<AggregateCall, Fault> {
    words::check(text)?;
    with_room(|| read(&text.text, schema)).map_err(|error| fault(text, schema, &error))
}

fn read(text: &str, schema: &Schema) -> Result<AggregateCall> {
    let planner = Planner::new(schema)?;
    // `count(*)` is planned under an alias.
    let expr = planner.plan(text)?.unalias();
    let Expr::AggregateFunction(call) = &expr else {
        return plan_err!(
            "expected one aggregate function, such as `sum(x)`; what is computed from several belongs into a `derive` after the window"
        );
    };
    let params = &call.params;
    let sorted_by = params.order_by.iter().map(|sort| &sort.expr);
    for part in params.args.iter().chain(params.filter.as_deref()).chain(sorted_by) {
        refuse(text, part, "it cannot stand within another aggregate")?;
    }
    let reader = Reader { text: text.into(), planner, schema };
    let function = call.func.name().to_lowercase();
    let special = params.distinct || !params.order_by.is_empty() || params.null_treatment.is_some();
    let filter = params.filter.as_deref().map(|filter| reader.scalar(filter)).transpose()?;
    if is_ours(&function) {
        if special {
            return plan_err!("`{function}` takes neither DISTINCT nor ORDER BY");
        }
        let args = params.args.iter().map(|arg| reader.scalar(arg)).collect::<Result<_>>()?;
        return Ok(AggregateCall { function, args, filter, special, adapter: None, output: None });
    }
    if function == SORTED_INPUT_ONLY && !params.order_by.is_empty() {
        return plan_err!("`{function}` with ORDER BY needs rows that come in order; use first_value or last_value");
    }
    // `count(*)` is planned as the count of a constant.
    let whole_rows =
        function == "count" && !special && matches!(&*params.args, [Expr::Literal(value, _)] if !value.is_null());
    let (mut args, adapter) = reader.lower(call)?;
    if whole_rows {
        args.clear();
    }
    let output = Some(adapter.output());
    Ok(AggregateCall { function, args, filter, special, adapter: Some(Arc::new(adapter)), output })
}

/// Reads the parts of one call.
struct Reader<'a> {
    text: Arc<str>,
    planner: Planner,
    schema: &'a Schema,
}

impl Reader<'_> {
    fn scalar(&self, expr: &Expr) -> Result<Scalar> {
        Scalar::of(&self.text, self.planner.lower(expr.clone())?, self.schema)
    }

    /// The arguments, what is sorted by after them, and the function by DataFusion.
    fn lower(&self, call: &AggregateFunction) -> Result<(Vec<Scalar>, Adapter)> {
        let mut call = call.clone();
        call.params.args = call.params.args.into_iter().map(|arg| self.planner.fold(arg)).collect::<Result<_>>()?;
        let expr = &Expr::AggregateFunction(call);
        let (props, context) = (ExecutionProps::new(), PhysicalPlanningContext::default());
        let builder = LoweredAggregateBuilder::new(expr, self.planner.schema(), self.schema, &props, &context);
        let lowered = builder.build()?;
        let sorted_by = lowered.order_bys.iter().map(|sort| sort.expr.clone());
        let all = lowered.aggregate.expressions().into_iter().chain(sorted_by);
        let args = all.map(|arg| Scalar::of(&self.text, arg, self.schema)).collect::<Result<Vec<_>>>()?;
        let types = args.iter().map(|arg| arg.data_type.clone()).collect();
        Ok((args, Adapter::new(&self.text, lowered.aggregate, types)?))
    }
}
