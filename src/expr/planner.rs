//! Text to a typed logical expression.

use std::sync::{Arc, LazyLock};

use arrow::datatypes::{DataType, Schema};
use datafusion_common::config::ConfigOptions;
use datafusion_common::{DFSchema, DataFusionError, Result, TableReference, plan_err};
use datafusion_expr::execution_props::ExecutionProps;
use datafusion_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion_expr::planner::{ContextProvider, ExprPlanner};
use datafusion_expr::simplify::SimplifyContext;
use datafusion_expr::{AggregateUDF, Expr, HigherOrderUDF, ScalarUDF, TableSource, WindowUDF};
use datafusion_optimizer::simplify_expressions::ExprSimplifier;
use datafusion_physical_expr::{PhysicalExpr, create_physical_expr};
use datafusion_sql::parser::DFParserBuilder;
use datafusion_sql::planner::{ParserOptions, PlannerContext, SqlToRel};

use crate::expr::functions::{AGGREGATES, SCALARS};

/// How deep an expression may nest.
const DEPTH_MAX: usize = 50;

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
        self.simplifier.coerce(expr, &self.schema)
    }

    /// What runs, constants folded.
    pub(crate) fn lower(&self, expr: Expr) -> Result<Arc<dyn PhysicalExpr>> {
        let expr = self.simplifier.simplify(expr)?;
        create_physical_expr(&expr, &self.schema, &ExecutionProps::new(), &PhysicalPlanningContext::default())
    }

    pub(crate) fn schema(&self) -> &DFSchema {
        &self.schema
    }
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

/// As Arrow's error, which kernels and operators speak.
pub(crate) fn arrow_error(error: DataFusionError) -> arrow::error::ArrowError {
    match error {
        DataFusionError::ArrowError(error, _) => *error,
        other => arrow::error::ArrowError::ComputeError(other.strip_backtrace()),
    }
}
