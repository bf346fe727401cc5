//! Text to a typed logical expression.

use std::sync::{Arc, LazyLock};

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, Schema};
use arrow::error::ArrowError;
use datafusion_common::config::ConfigOptions;
use datafusion_common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion_common::{DFSchema, DataFusionError, Result, TableReference, plan_err};
use datafusion_expr::execution_props::ExecutionProps;
use datafusion_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion_expr::planner::{ContextProvider, ExprPlanner};
use datafusion_expr::simplify::SimplifyContext;
use datafusion_expr::{AggregateUDF, Expr, ExprSchemable, HigherOrderUDF, Operator, ScalarUDF, TableSource, WindowUDF};
use datafusion_optimizer::simplify_expressions::ExprSimplifier;
use datafusion_physical_expr::expressions::BinaryExpr;
use datafusion_physical_expr::utils::collect_columns;
use datafusion_physical_expr::{PhysicalExpr, create_physical_expr};
use datafusion_sql::parser::DFParserBuilder;
use datafusion_sql::planner::{ParserOptions, PlannerContext, SqlToRel};

use crate::expr::fault::clean;
use crate::expr::functions::{AGGREGATES, SCALARS};
use crate::flow::schema::timestamp_type;

/// How deep an expression may nest.
pub(crate) const DEPTH_MAX: usize = 50;

/// The stack for planning: a chain of the greatest length has a few calls with large frames for each of its links.
const STACK_BYTES: usize = 64 << 20;

/// Does work that goes deep, with a stack of its own; memory is taken only where it is used.
pub(crate) fn with_room<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let planning = std::thread::Builder::new().stack_size(STACK_BYTES).spawn_scoped(scope, work)?;
        planning.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Plans expressions over the columns of one schema.
pub(crate) struct Planner {
    schema: Arc<DFSchema>,
    simplifier: ExprSimplifier,
}

impl Planner {
    pub(crate) fn new(schema: &Schema) -> Result<Self> {
        let schema = Arc::new(DFSchema::try_from(schema.clone())?);
        let context = SimplifyContext::builder().with_schema(schema.clone()).build();
        Ok(Self { schema, simplifier: ExprSimplifier::new(context) })
    }

    /// The expression that a text is, types coerced.
    pub(crate) fn plan(&self, text: &str) -> Result<Expr> {
        let mut parser = DFParserBuilder::new(text).with_recursion_limit(DEPTH_MAX).build()?;
        let parsed = parser.parse_into_expr()?;
        if parsed.alias.is_some() {
            return plan_err!("an expression has no alias: it is named by its key");
        }
        let options = ParserOptions {
            // Columns are named as they are declared.
            enable_ident_normalization: false,
            map_string_types_to_utf8view: false,
            ..ParserOptions::default()
        };
        let planner = SqlToRel::new_with_options(&Functions, options);
        let expr = planner.sql_to_expr(parsed.expr, &self.schema, &mut PlannerContext::new())?;
        let expr = self.with_plain_arguments(expr)?;
        self.simplifier.coerce(expr, &self.schema)
    }

    /// The arguments of an aggregate function as columns would have them: it gives its values in the types in which it
    /// takes them.
    fn with_plain_arguments(&self, expr: Expr) -> Result<Expr> {
        let plain = |arg: Expr| {
            let coerced = self.simplifier.coerce(arg.clone(), &self.schema)?;
            let data_type = coerced.get_type(&self.schema)?;
            if data_type.is_null() {
                return Ok(arg);
            }
            let plain = plain_type(&data_type)?;
            if plain == data_type { Ok(arg) } else { coerced.cast_to(&plain, &self.schema) }
        };
        let call = |part: Expr| match part {
            Expr::AggregateFunction(mut call) => {
                if let Some(filter) = &call.params.filter {
                    self.expect_condition(filter)?;
                }
                call.params.args = call.params.args.into_iter().map(plain).collect::<Result<_>>()?;
                Ok(Transformed::yes(Expr::AggregateFunction(call)))
            }
            other => Ok(Transformed::no(other)),
        };
        expr.transform_up(call).map(|transformed| transformed.data)
    }

    /// A FILTER of another type would be cast.
    fn expect_condition(&self, filter: &Expr) -> Result<()> {
        match self.simplifier.coerce(filter.clone(), &self.schema)?.get_type(&self.schema)? {
            DataType::Boolean | DataType::Null => Ok(()),
            other => plan_err!("`FILTER`: expected a condition that is true or false, got values of type {other}"),
        }
    }

    /// What runs, constants folded.
    pub(crate) fn lower(&self, expr: Expr) -> Result<Arc<dyn PhysicalExpr>> {
        checked(self.physical(&self.fold(expr)?)?)
    }

    /// With constants folded, and what DataFusion computes only in another form in that form.
    pub(crate) fn fold(&self, expr: Expr) -> Result<Expr> {
        // Folding would hide an overflow.
        let simple = self.simplifier.simplify(expr.clone())?;
        checked(self.physical(&expr)?).or_else(|error| match error.find_root() {
            // `arrow_cast` and its like run only once they are simplified.
            DataFusionError::Internal(_) => self.physical(&simple),
            _ => Err(error),
        })?;
        Ok(simple)
    }

    fn physical(&self, expr: &Expr) -> Result<Arc<dyn PhysicalExpr>> {
        create_physical_expr(expr, &self.schema, &ExecutionProps::new(), &PhysicalPlanningContext::default())
    }

    pub(crate) fn schema(&self) -> &DFSchema {
        &self.schema
    }
}

/// The type that values of a type have in a column: text is plain UTF-8, times are microseconds in UTC. What has no place
/// in a column is refused.
pub(crate) fn plain_type(data_type: &DataType) -> Result<DataType> {
    Ok(match data_type {
        DataType::Utf8View | DataType::LargeUtf8 => DataType::Utf8,
        DataType::BinaryView | DataType::LargeBinary => DataType::Binary,
        DataType::Timestamp(..) => timestamp_type(),
        DataType::Dictionary(_, values) => plain_type(values)?,
        DataType::Null => {
            return plan_err!("it is always null, so it has no type; write CAST(NULL AS DOUBLE) or the like");
        }
        DataType::Interval(_) => return plan_err!("an interval is no value of a column; add it to a time"),
        nested if nested.is_nested() => {
            return plan_err!("a column has one value a row, got values of type {nested}");
        }
        plain => plain.clone(),
    })
}

/// With whole numbers that do not fit as errors, not wrapped around. What is constant and fails does so here.
pub(crate) fn checked(running: Arc<dyn PhysicalExpr>) -> Result<Arc<dyn PhysicalExpr>> {
    let running = running.transform_up(|part| {
        let Some(binary) = part.downcast_ref::<BinaryExpr>() else { return Ok(Transformed::no(part)) };
        if !matches!(binary.op(), Operator::Plus | Operator::Minus | Operator::Multiply) {
            return Ok(Transformed::no(part));
        }
        let strict = BinaryExpr::new(binary.left().clone(), *binary.op(), binary.right().clone());
        Ok(Transformed::yes(Arc::new(strict.with_fail_on_overflow(true)) as Arc<dyn PhysicalExpr>))
    })?;
    let options = RecordBatchOptions::new().with_row_count(Some(1));
    let one_row = RecordBatch::try_new_with_options(Arc::new(Schema::empty()), Vec::new(), &options)?;
    running.data.apply(|part| {
        if !collect_columns(part).is_empty() {
            return Ok(TreeNodeRecursion::Continue);
        }
        part.evaluate(&one_row)?;
        Ok(TreeNodeRecursion::Jump)
    })?;
    Ok(running.data)
}

/// What SQL may refer to beside columns: functions, and nothing else.
struct Functions;

static OPTIONS: LazyLock<ConfigOptions> = LazyLock::new(ConfigOptions::default);

static PLANNERS: LazyLock<Vec<Arc<dyn ExprPlanner>>> = LazyLock::new(|| {
    vec![
        Arc::new(datafusion_functions_aggregate::planner::AggregateFunctionPlanner),
        Arc::new(datafusion_functions::unicode::planner::UnicodeFunctionPlanner),
        Arc::new(datafusion_functions::datetime::planner::DatetimeFunctionPlanner),
        Arc::new(datafusion_functions::core::planner::CoreFunctionPlanner::default()),
    ]
});

impl ContextProvider for Functions {
    fn get_table_source(&self, name: TableReference) -> Result<Arc<dyn TableSource>> {
        plan_err!("there are no tables here, so there is no `{name}`")
    }

    fn get_expr_planners(&self) -> &[Arc<dyn ExprPlanner>] {
        &PLANNERS
    }

    fn get_function_meta(&self, name: &str) -> Option<Arc<ScalarUDF>> {
        SCALARS.get(&name.to_lowercase()).cloned()
    }

    fn get_higher_order_meta(&self, _: &str) -> Option<Arc<HigherOrderUDF>> {
        None
    }

    fn get_aggregate_meta(&self, name: &str) -> Option<Arc<AggregateUDF>> {
        AGGREGATES.get(&name.to_lowercase()).cloned()
    }

    fn get_window_meta(&self, _: &str) -> Option<Arc<WindowUDF>> {
        None
    }

    fn get_variable_type(&self, _: &[String]) -> Option<DataType> {
        None
    }

    fn options(&self) -> &ConfigOptions {
        &OPTIONS
    }

    fn udf_names(&self) -> Vec<String> {
        SCALARS.keys().cloned().collect()
    }

    fn higher_order_function_names(&self) -> Vec<String> {
        Vec::new()
    }

    fn udaf_names(&self) -> Vec<String> {
        AGGREGATES.keys().cloned().collect()
    }

    fn udwf_names(&self) -> Vec<String> {
        Vec::new()
    }
}

/// As Arrow's error, which kernels and operators speak; it names the expression.
pub(crate) fn arrow_error(text: &str, error: &DataFusionError) -> ArrowError {
    ArrowError::ComputeError(format!("`{text}`: {}", clean(&error.strip_backtrace())))
}
