//! The loops that every operator and sink thread runs.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use arrow::array::RecordBatch;

use crate::disk::SharedDisk;
use crate::engine::checkpoint::store::StoreError;
use crate::flow::inbox::Inbox;
use crate::flow::message::{Epoch, Message, Severed};
use crate::flow::outbox::Outbox;
use crate::flow::state::Part;
use crate::ingest::feed::FeedError;
use crate::ingest::intake::IntakeError;
use crate::ingest::journal::KeeperError;
use crate::operator::{Operator, OperatorError};
use crate::sink::{PreparedFile, Sink, SinkError, Unpublished, publish};
use crate::telemetry::Health;

/// Why a stage stopped.
#[derive(Debug, thiserror::Error)]
pub enum StageError {
    /// A neighbour stopped first: a consequence, never the cause.
    #[error(transparent)]
    Severed(#[from] Severed),
    /// The feed failed.
    #[error(transparent)]
    Feed(FeedError),
    /// The intake failed.
    #[error(transparent)]
    Intake(IntakeError),
    /// The operator failed.
    #[error(transparent)]
    Operator(OperatorError),
    /// The sink failed.
    #[error(transparent)]
    Sink(SinkError),
    /// The keeper of a journal failed.
    #[error(transparent)]
    Keeper(KeeperError),
    /// State could not be kept or taken back.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The thread panicked: a fault of ours.
    #[error("panicked: {0}")]
    Panicked(String),
}

impl From<FeedError> for StageError {
    fn from(error: FeedError) -> Self {
        match error {
            FeedError::Severed(severed) => Self::Severed(severed),
            error @ FeedError::Source(_) => Self::Feed(error),
        }
    }
}

impl From<KeeperError> for StageError {
    fn from(error: KeeperError) -> Self {
        match error {
            KeeperError::Severed(severed) => Self::Severed(severed),
            error => Self::Keeper(error),
        }
    }
}

impl From<IntakeError> for StageError {
    fn from(error: IntakeError) -> Self {
        match error {
            IntakeError::Severed(severed) => Self::Severed(severed),
            error => Self::Intake(error),
        }
    }
}

impl From<OperatorError> for StageError {
    fn from(error: OperatorError) -> Self {
        match error {
            OperatorError::Severed(severed) => Self::Severed(severed),
            error => Self::Operator(error),
        }
    }
}

/// What a stage leaves when an epoch is over.
#[derive(Debug, Default)]
pub struct Left {
    /// Its state, in parts.
    pub parts: Vec<Part>,
    /// Files of a sink, to be published once the epoch is durable.
    pub files: Vec<PreparedFile>,
    /// The stage has ended: it leaves nothing in later epochs.
    pub last: bool,
}

/// Where a stage leaves its state when an epoch is over.
pub trait Checkpoint: Send {
    /// Keeps what the stage leaves for the epoch. The stage goes on when this returns.
    fn save(&mut self, epoch: Epoch, left: Left) -> Result<(), StageError>;

    /// Whether anybody wants state: without a state folder no operator is asked for it, and sinks publish by themselves.
    fn wanted(&self) -> bool;
}

/// The checkpoint of `durability = "none"`: none.
#[derive(Clone, Copy, Debug)]
pub struct NoCheckpoint;

impl Checkpoint for NoCheckpoint {
    fn save(&mut self, _: Epoch, _: Left) -> Result<(), StageError> {
        Ok(())
    }

    fn wanted(&self) -> bool {
        false
    }
}

/// Runs an operator until its input ends.
pub fn run_operator(
    mut inbox: Inbox,
    mut operator: Box<dyn Operator>,
    mut outbox: Outbox,
    checkpoint: &mut dyn Checkpoint,
) -> Result<(), StageError> {
    loop {
        let message = inbox.recv()?;
        let last = matches!(message, Message::End(_));
        match message {
            Message::Batch(batch) => {
                operator.process(batch, &mut outbox)?;
                tell_held(&*operator, &outbox);
                continue;
            }
            Message::Watermark(at) => {
                operator.advance(at, &mut outbox)?;
                tell_held(&*operator, &outbox);
            }
            Message::Mark(_) => (),
            Message::Barrier(epoch) | Message::Stop(epoch) | Message::End(epoch) => {
                operator.flush(&mut outbox)?;
                let parts = if checkpoint.wanted() { operator.snapshot()? } else { Vec::new() };
                checkpoint.save(epoch, Left { parts, last, ..Left::default() })?;
            }
        }
        outbox.send(message)?;
        if last {
            return Ok(());
        }
    }
}

fn tell_held(operator: &dyn Operator, outbox: &Outbox) {
    if let Some(held) = operator.held() {
        outbox.meter().held.store(held as u64, Relaxed);
    }
}

/// The pauses between attempts of a sink: the first, and the longest.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));

/// What a sink's thread needs beside its inbox and its sink.
pub struct SinkStage {
    /// The sink's name, for what is said of it.
    pub name: String,
    /// Where it says that it is degraded.
    pub health: Arc<Health>,
    /// Where its files are published.
    pub disk: SharedDisk,
    /// Told each batch once it is written.
    pub written: Box<dyn FnMut(&RecordBatch) + Send>,
    /// Told each watermark once all before it is written.
    pub reached: Box<dyn FnMut(crate::flow::time::Timestamp) + Send>,
}

impl SinkStage {
    /// Opens a sink and runs it until its input ends. A sink that fails for a while is tried again with growing pauses:
    /// rows wait in the channel, and the channel holds the pipeline back.
    pub fn run(
        mut self,
        mut inbox: Inbox,
        mut open: impl FnMut() -> Result<Box<dyn Sink>, SinkError>,
        checkpoint: &mut dyn Checkpoint,
    ) -> Result<(), StageError> {
        let mut sink = self.patiently("open", &mut open)?;
        loop {
            match inbox.recv()? {
                Message::Batch(batch) => {
                    self.patiently("write", || sink.write(&batch))?;
                    (self.written)(&batch);
                }
                Message::Watermark(at) => (self.reached)(at),
                Message::Mark(_) => (),
                Message::Barrier(epoch) => self.prepare(&mut *sink, epoch, (false, false), checkpoint)?,
                Message::Stop(epoch) => self.prepare(&mut *sink, epoch, (true, false), checkpoint)?,
                Message::End(epoch) => return self.prepare(&mut *sink, epoch, (true, true), checkpoint),
            }
        }
    }

    /// Ends an epoch: everything is `due` at a stop and at the end, nothing follows after the `last`.
    fn prepare(
        &mut self,
        sink: &mut dyn Sink,
        epoch: Epoch,
        (due, last): (bool, bool),
        checkpoint: &mut dyn Checkpoint,
    ) -> Result<(), StageError> {
        let Unpublished { files, parts } = self.patiently("commit", || sink.prepare(epoch, due))?;
        if checkpoint.wanted() {
            return checkpoint.save(epoch, Left { parts, files, last });
        }
        let disk = self.disk.clone();
        self.patiently("publish", || publish(&*disk, &files))
    }

    /// Tries until it works or fails for good.
    fn patiently<T>(&mut self, what: &str, mut attempt: impl FnMut() -> Result<T, SinkError>) -> Result<T, StageError> {
        let mut pause = PAUSE.0;
        let mut attempts = 1_u64;
        loop {
            match attempt() {
                Ok(done) => {
                    if attempts > 1 {
                        tracing::info!(sink = self.name, attempts, "the sink works again");
                        self.health.set(&self.name, None);
                    }
                    return Ok(done);
                }
                Err(SinkError::Retry(why)) => {
                    tracing::warn!(sink = self.name, why, attempts, ?pause, "cannot {what}, trying again; rows wait");
                    self.health.set(&self.name, Some(format!("cannot {what}: {why}")));
                    std::thread::sleep(pause);
                    pause = (pause * 2).min(PAUSE.1);
                    attempts += 1;
                }
                Err(fatal) => return Err(StageError::Sink(fatal)),
            }
        }
    }
}
