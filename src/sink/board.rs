//! Where `metrics` sinks show their newest rows to the HTTP server.

/// The boards of all `metrics` sinks, by `PIPELINE/SINK`.
#[derive(Debug, Default)]
pub struct Boards;
