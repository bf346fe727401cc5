//! The `window` operator.

use crate::component::Kind;
use crate::operator::OperatorSpec;

/// `type = "window"`.
pub const KIND: Kind<dyn OperatorSpec> = Kind { name: "window", about: "", parse: |_| None };
