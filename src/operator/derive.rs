//! The `derive` operator.

use crate::component::Kind;
use crate::operator::OperatorSpec;

/// `type = "derive"`.
pub const KIND: Kind<dyn OperatorSpec> = Kind { name: "derive", about: "", parse: |_| None };
