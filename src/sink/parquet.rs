//! The `parquet` sink.

use crate::component::Kind;
use crate::sink::SinkSpec;

/// `type = "parquet"`.
pub const KIND: Kind<dyn SinkSpec> = Kind { name: "parquet", about: "", parse: |_| None };
