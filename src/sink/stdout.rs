//! The `stdout` sink.

use crate::component::Kind;
use crate::sink::SinkSpec;

/// `type = "stdout"`.
pub const KIND: Kind<dyn SinkSpec> = Kind { name: "stdout", about: "", parse: |_| None };
