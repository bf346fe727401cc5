//! Paths into a payload: `$.env.hum`, `$.readings[0].t`.

/// A path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path;
