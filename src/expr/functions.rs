//! The functions that SQL in a pipeline file can call.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use arrow::datatypes::DataType;
use datafusion_common::{Result, not_impl_err};
use datafusion_expr::function::AccumulatorArgs;
use datafusion_expr::{Accumulator, AggregateUDF, AggregateUDFImpl, ScalarUDF, Signature, Volatility};

/// Every scalar function, by name and alias.
pub(crate) static SCALARS: LazyLock<HashMap<String, Arc<ScalarUDF>>> = LazyLock::new(|| {
    let named = |function: Arc<ScalarUDF>| {
        let names = std::iter::once(function.name()).chain(function.aliases().iter().map(String::as_str));
        names.map(|name| (name.to_owned(), function.clone())).collect::<Vec<_>>()
    };
    datafusion_functions::all_default_functions().into_iter().flat_map(named).collect()
});

/// Every aggregate function, by name and alias: DataFusion's, and the plans of ours.
pub(crate) static AGGREGATES: LazyLock<HashMap<String, Arc<AggregateUDF>>> = LazyLock::new(|| {
    let named = |function: Arc<AggregateUDF>| {
        let names = std::iter::once(function.name()).chain(function.aliases().iter().map(String::as_str));
        names.map(|name| (name.to_owned(), function.clone())).collect::<Vec<_>>()
    };
    let ours = OURS.map(|(name, args)| {
        Arc::new(AggregateUDF::from(Ours { name, signature: Signature::any(args, Volatility::Immutable) }))
    });
    let theirs = datafusion_functions_aggregate::all_default_aggregate_functions().into_iter();
    theirs.filter(|function| function.name() != GROUPING_SETS_ONLY).chain(ours).flat_map(named).collect()
});

/// Says which of several GROUP BYs a row is of: there is one here.
const GROUPING_SETS_ONLY: &str = "grouping";

/// Whether the same arguments always give the same value: neither clock nor dice.
pub(crate) fn is_deterministic(function: &ScalarUDF) -> bool {
    function.signature().volatility == Volatility::Immutable
}

/// The functions that DataFusion does not have, and how many arguments they take.
const OURS: [(&str, usize); 7] =
    [("quantile", 2), ("first", 1), ("last", 1), ("quantile_exact", 2), ("fsum", 1), ("increase", 1), ("resets", 1)];

/// Whether DataFusion knows the function only by name, and we compute it.
pub(crate) fn is_ours(name: &str) -> bool {
    OURS.iter().any(|(ours, _)| *ours == name)
}

/// The names of all `(scalar, aggregate)` functions that can be called, sorted.
pub fn function_names() -> (Vec<String>, Vec<String>) {
    let sorted = |mut names: Vec<String>| {
        names.sort_unstable();
        names
    };
    let scalars = SCALARS.iter().filter(|(_, function)| is_deterministic(function)).map(|(name, _)| name.clone());
    (sorted(scalars.collect()), sorted(AGGREGATES.keys().cloned().collect()))
}

/// A function of ours, so that SQL can be planned; it is computed by its kernel.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Ours {
    name: &'static str,
    signature: Signature,
}

impl AggregateUDFImpl for Ours {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, args: &[DataType]) -> Result<DataType> {
        Ok(match self.name {
            "quantile" | "quantile_exact" | "fsum" => DataType::Float64,
            "resets" => DataType::Int64,
            "increase" if args[0].is_integer() => DataType::Int64,
            "increase" => DataType::Float64,
            _ => args[0].clone(),
        })
    }

    fn accumulator(&self, _: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        not_impl_err!("`{}` has a kernel of its own", self.name)
    }
}
