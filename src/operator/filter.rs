//! The `filter` operator.

use crate::component::Kind;
use crate::operator::OperatorSpec;

/// `type = "filter"`.
pub const KIND: Kind<dyn OperatorSpec> = Kind { name: "filter", about: "", parse: |_| None };
