//! The `scalar` format.

use crate::component::Kind;
use crate::format::DecoderSpec;

/// `format = "scalar"`.
pub const KIND: Kind<dyn DecoderSpec> = Kind { name: "scalar", about: "", parse: |_| None };
