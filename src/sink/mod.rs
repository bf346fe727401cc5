//! Rows to the world.

use std::sync::Arc;

use arrow::array::RecordBatch;

use crate::component::{Fault, Kind};
use crate::flow::message::Epoch;
use crate::flow::schema::StreamSchema;

pub mod board;
mod digest;
pub mod json_rows;
pub mod metrics;
pub mod mqtt;
pub mod parquet;
pub mod partition;
pub mod stdout;

/// Every kind of sink.
pub static SINKS: &[Kind<dyn SinkSpec>] = &[parquet::KIND, metrics::KIND, mqtt::KIND, stdout::KIND];

/// The end of a stream. One thread owns it.
pub trait Sink: Send {
    /// Takes rows. They need not be visible to anybody before `commit`.
    ///
    /// After an error that [may pass](SinkError::Retry) the stage calls it again, after a pause, with the same
    /// batch: a failed call has taken nothing, or knows what it has taken.
    fn write(&mut self, batch: &RecordBatch) -> Result<(), SinkError>;

    /// Makes every row since the last commit durable and visible, all of them or none. Retried as `write` is.
    ///
    /// Committing an epoch again, after a restart, replaces what it had committed.
    fn commit(&mut self, epoch: Epoch) -> Result<(), SinkError>;

    /// Commits the last epoch, at the end of the stream: nothing follows, so rows that an earlier commit was free to
    /// hold back become visible too. Retried as `write` is.
    fn finish(&mut self, epoch: Epoch) -> Result<(), SinkError> {
        self.commit(epoch)
    }
}

/// A sink as the pipeline file describes it.
pub trait SinkSpec: std::fmt::Debug + Send + Sync {
    /// What is wrong with these rows for this sink.
    fn check(&self, input: &StreamSchema) -> Vec<Fault>;

    /// One line for `check`, without secrets.
    fn describe(&self) -> String;

    /// Opens it for rows of this shape. Retried as `write` is.
    fn open(&self, context: &SinkContext, input: &StreamSchema) -> Result<Box<dyn Sink>, SinkError>;
}

/// What a sink is given when it is opened.
#[derive(Clone, Debug)]
pub struct SinkContext {
    /// The pipeline's name.
    pub pipeline: String,
    /// The sink's name in the pipeline file.
    pub name: String,
    /// Tells this run's files from those of other runs where epochs start from nought again; letters and
    /// digits. A replay of the same recording has the same.
    pub run: String,
    /// Where sinks show their newest rows to the HTTP server.
    pub boards: Arc<board::Boards>,
}

/// Why a sink failed.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    /// It may work again later: the stage tries again after a pause, and rows wait.
    #[error("{0}")]
    Retry(String),
    /// It will not: the run fails.
    #[error("{0}")]
    Fatal(String),
}
