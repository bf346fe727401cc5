//! The `json` format.

use crate::component::Kind;
use crate::format::DecoderSpec;

/// `format = "json"`.
pub const KIND: Kind<dyn DecoderSpec> = Kind { name: "json", about: "", parse: |_| None };
