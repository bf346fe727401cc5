//! The `metrics` sink.

use crate::component::Kind;
use crate::sink::SinkSpec;

/// `type = "metrics"`.
pub const KIND: Kind<dyn SinkSpec> = Kind { name: "metrics", about: "", parse: |_| None };
