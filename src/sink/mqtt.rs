//! The `mqtt` sink.

use crate::component::Kind;
use crate::sink::SinkSpec;

/// `type = "mqtt"`.
pub const KIND: Kind<dyn SinkSpec> = Kind { name: "mqtt", about: "", parse: |_| None };
