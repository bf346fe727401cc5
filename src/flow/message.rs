//! The one thing that flows between stages.

use crate::flow::batch::Batch;
use crate::flow::time::Timestamp;

/// What a stage receives and sends, in order.
///
/// Invariants of every stream of messages:
/// - watermarks never go back, and no row older than the last one follows it, but for late rows;
/// - marks go strictly up; they come only in pipelines where streams meet;
/// - barriers count up by one;
/// - `End` comes once, and last. A stream that is cut off without it has failed.
#[derive(Clone, Debug, PartialEq)]
pub enum Message {
    /// Rows, at least one.
    Batch(Batch),
    /// Event time has reached this point: no earlier row is expected any more.
    Watermark(Timestamp),
    /// Ends a slice of the stream: where streams meet, their slices go in the order of their marks.
    Mark(Mark),
    /// Everything before this belongs to the epoch, everything after it to the next.
    Barrier(Epoch),
    /// A barrier at which the run was stopped, and taken up again later: rows that a sink holds back over barriers become
    /// visible, as they did when it was stopped.
    Stop(Epoch),
    /// Closes the last epoch. Nothing follows.
    End(Epoch),
}

/// A stretch of the stream that becomes durable and visible as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub u64);

impl Epoch {
    /// The one after.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// How far the arrival clock of a source has come. A function of what arrived and when, never of batches or threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark {
    /// Everything that arrived by then has been sent.
    pub at: Timestamp,
    /// Counts the marks of the source, so that those of one time have an order.
    pub number: u64,
}

/// The other end of a channel went away without saying `End`: a consequence of a failure elsewhere,
/// never the cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the neighbouring stage stopped early")]
pub struct Severed;
