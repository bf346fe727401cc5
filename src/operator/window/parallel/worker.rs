//! One worker: a window operator on a thread of its own.

use std::panic::resume_unwind;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};

use arrow::array::RecordBatch;
use arrow::error::ArrowError;
use crossbeam_channel::{Receiver, Sender, bounded};

use super::super::core::{Setup, Windows};
use crate::flow::batch::Batch;
use crate::flow::message::Severed;
use crate::flow::outbox::{Emit, Port};
use crate::flow::state::{Part, Restored};
use crate::flow::time::Timestamp;
use crate::operator::{Operator, OperatorError};

/// How many tasks may wait for a worker: the batches that are ahead, the next one and a watermark.
const TASKS: usize = super::BATCHES_AHEAD + 2;

/// What a worker does. It answers every task once, in order.
pub(super) enum Task {
    /// Takes rows. Groups that are new at the row of this number or later do not fit.
    Rows {
        batch: Batch,
        bound: Option<i64>,
    },
    /// Tells which rows would be the first of new groups.
    Probe(Batch),
    /// Tells how many groups it holds.
    Held,
    Advance(Timestamp),
    Snapshot,
    /// Takes back parts; they are the `same` that it wrote, or have to be written anew.
    Restore {
        parts: Vec<Restored>,
        same: bool,
    },
}

/// What a worker answers.
#[derive(Default)]
pub(super) struct Done {
    pub(super) main: Vec<RecordBatch>,
    pub(super) side: Vec<RecordBatch>,
    pub(super) new: Vec<i64>,
    pub(super) held: usize,
    pub(super) parts: Vec<Part>,
}

impl Emit for Done {
    fn emit_to(&mut self, port: Port, batch: Batch) -> Result<(), Severed> {
        if batch.num_rows() > 0 {
            let rows = match port {
                Port::Main => &mut self.main,
                Port::Side => &mut self.side,
            };
            rows.push(batch.into_rows());
        }
        Ok(())
    }
}

pub(super) struct Worker {
    tasks: Option<Sender<Task>>,
    done: Receiver<Result<Done, OperatorError>>,
    thread: Option<JoinHandle<()>>,
    /// How many groups it held after the task that was answered last.
    pub(super) held: usize,
}

impl Worker {
    /// The operator of a worker.
    pub(super) fn operator(setup: &Arc<Setup>) -> Result<Windows, ArrowError> {
        Windows::worker(Setup::clone(setup))
    }

    pub(super) fn start(setup: &Arc<Setup>, number: usize) -> Result<Self, OperatorError> {
        let (tasks, todo) = bounded(TASKS);
        let (answers, done) = bounded(TASKS);
        let mut windows = Self::operator(setup)?;
        let run = move || {
            while let Ok(task) = todo.recv() {
                let answer = perform(&mut windows, task);
                let failed = answer.is_err();
                if answers.send(answer).is_err() || failed {
                    return;
                }
            }
        };
        let named = Builder::new().name(format!("window {}", number + 1));
        let thread = named.spawn(run).map_err(OperatorError::Thread)?;
        Ok(Self { tasks: Some(tasks), done, thread: Some(thread), held: 0 })
    }

    /// Gives it a task. If it is gone, the answer will tell.
    pub(super) fn give(&self, task: Task) {
        if let Some(tasks) = &self.tasks {
            // It has failed or panicked: so says the answer that is taken next.
            let _ = tasks.send(task);
        }
    }

    /// Takes the answer to the oldest task. A panic over there goes on here.
    pub(super) fn take(&mut self) -> Result<Done, OperatorError> {
        if let Ok(done) = self.done.recv() {
            return done.inspect(|done| self.held = done.held);
        }
        if let Some(Err(panic)) = self.thread.take().map(JoinHandle::join) {
            resume_unwind(panic);
        }
        Err(OperatorError::Severed(Severed))
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.tasks = None;
        // It may wait to be rid of an answer.
        while self.done.recv().is_ok() {}
        if let Some(thread) = self.thread.take() {
            // Its panic was told, or nobody waits for its answers any more.
            let _ = thread.join();
        }
    }
}

fn perform(windows: &mut Windows, task: Task) -> Result<Done, OperatorError> {
    let mut done = Done::default();
    match task {
        Task::Rows { batch, bound } => {
            windows.bound(bound);
            windows.process(batch, &mut done)?;
        }
        Task::Probe(batch) => done.new = windows.new_groups(&batch)?,
        Task::Held => (),
        Task::Advance(watermark) => windows.advance(watermark, &mut done)?,
        Task::Snapshot => done.parts = windows.snapshot()?,
        Task::Restore { parts, same } => {
            windows.restore(&parts)?;
            if !same {
                windows.touch();
            }
        }
    }
    done.held = windows.held().unwrap_or(0);
    Ok(done)
}
