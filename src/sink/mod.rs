//! Rows to the world.

use std::sync::Arc;

use arrow::array::RecordBatch;

use crate::component::{Fault, Kind};
use crate::disk::SharedDisk;
use crate::flow::message::Epoch;
use crate::flow::schema::StreamSchema;
use crate::flow::state::{Part, Restored};
use crate::flow::time::Span;

pub mod board;
mod digest;
pub mod json_rows;
pub mod metrics;
pub mod mqtt;
pub mod parquet;
pub mod partition;
mod publish;
pub mod stdout;

pub use publish::{PreparedFile, publish};

/// Every kind of sink.
pub static SINKS: &[Kind<dyn SinkSpec>] = &[parquet::KIND, metrics::KIND, mqtt::KIND, stdout::KIND];

/// The end of a stream. One thread owns it.
pub trait Sink: Send {
    /// Takes rows. They need not be visible to anybody before `commit`.
    ///
    /// After an error that [may pass](SinkError::Retry) the stage calls it again, after a pause, with the same
    /// batch: a failed call has taken nothing, or knows what it has taken.
    fn write(&mut self, batch: &RecordBatch) -> Result<(), SinkError>;

    /// Brings every row since the last barrier to where a crash of the process or the machine cannot take it, and says
    /// what must be done to make it visible: the epoch's files, which [`publish()`] shows once the whole epoch is
    /// durable, and the rows that are held back for later. With `last` nothing is held back: the run was stopped, or
    /// its input has ended. Retried as `write` is.
    ///
    /// Preparing an epoch again, after a restart, makes the same files of the same rows.
    fn prepare(&mut self, epoch: Epoch, last: bool) -> Result<Unpublished, SinkError>;

    /// Takes back the parts that the last `prepare` before a restart held back. Called at most once, before any row.
    fn restore(&mut self, parts: &[Restored]) -> Result<(), SinkError> {
        match parts {
            [] => Ok(()),
            _ => Err(SinkError::Fatal("the checkpoint has rows that this sink cannot take".to_owned())),
        }
    }
}

/// What of an epoch is safe, but not visible yet.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Unpublished {
    /// Complete and durable files.
    pub files: Vec<PreparedFile>,
    /// Rows that are held back over the barrier, in parts, as an operator's state is.
    pub parts: Vec<Part>,
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
    /// Where files are written.
    pub disk: SharedDisk,
    /// The first epoch that rows will belong to.
    pub epoch: Epoch,
    /// How long an epoch is.
    pub epoch_every: Span,
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
