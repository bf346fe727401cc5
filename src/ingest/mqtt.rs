//! The `mqtt` source.

use crate::component::Kind;
use crate::ingest::SourceSpec;

/// `type = "mqtt"`.
pub const KIND: Kind<dyn SourceSpec> = Kind { name: "mqtt", about: "", parse: |_| None };
