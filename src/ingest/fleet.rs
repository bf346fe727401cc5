//! The `fleet` source.

use crate::component::Kind;
use crate::ingest::SourceSpec;

/// `type = "fleet"`.
pub const KIND: Kind<dyn SourceSpec> = Kind { name: "fleet", about: "", parse: |_| None };
