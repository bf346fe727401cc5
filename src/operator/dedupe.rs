//! The `dedupe` operator.

use crate::component::Kind;
use crate::operator::OperatorSpec;

/// `type = "dedupe"`.
pub const KIND: Kind<dyn OperatorSpec> = Kind { name: "dedupe", about: "", parse: |_| None };
