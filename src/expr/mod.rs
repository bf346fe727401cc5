//! SQL text to what can be evaluated, by DataFusion: parse, plan against a schema, coerce, simplify, lower. Faults point
//! into the text. No streaming semantics come from there: expressions are evaluated batch by batch, and its aggregate
//! functions serve through one adapter.

mod adapter;
mod aggregate;
mod fault;
mod functions;
mod planner;
mod scalar;
mod words;

pub use aggregate::{AggregateCall, aggregate};
pub use functions::function_names;
pub use scalar::{Scalar, predicate, scalar};
