//! How times are written, and how they are read.

/// How a time is written.
#[derive(Clone, Debug)]
pub struct When;
