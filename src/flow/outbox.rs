//! One stream in, every downstream channel out.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use crossbeam_channel::{Sender, TrySendError};

use crate::flow::batch::Batch;
use crate::flow::message::{Message, Severed};
use crate::flow::meter::{Meter, PORTS};

/// Which output of a stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Port {
    /// The stage's own rows: `NAME` in a pipeline file.
    Main = 0,
    /// What was set aside: `NAME.late` of a window, `NAME.dead_letter` of a source.
    Side = 1,
}

/// Where an operator puts its rows.
pub trait Emit {
    /// Passes rows on. Blocks while downstream is full: that is the backpressure. Batches without rows
    /// are passed over.
    fn emit_to(&mut self, port: Port, batch: Batch) -> Result<(), Severed>;

    /// Passes rows on at the main output.
    fn emit(&mut self, batch: Batch) -> Result<(), Severed> {
        self.emit_to(Port::Main, batch)
    }
}

/// The sending end of a stage. Gives message *n* to every output before message *n* + 1 to any, so a
/// barrier that holds one branch has already entered the other.
#[derive(Debug)]
pub struct Outbox {
    outputs: [Vec<Sender<Message>>; PORTS],
    meter: Arc<Meter>,
    /// Larger batches go out in slices, so that channels that are bounded in batches are bounded in rows.
    rows_max: usize,
}

impl Outbox {
    /// The counts of the stage.
    pub fn meter(&self) -> &Meter {
        &self.meter
    }

    /// An outbox that gives every message to all of its port's outputs, in batches of at most `rows_max`.
    pub fn new(main: Vec<Sender<Message>>, side: Vec<Sender<Message>>, rows_max: usize, meter: Arc<Meter>) -> Self {
        assert!(rows_max > 0, "a batch has at least one row");
        Self { outputs: [main, side], meter, rows_max }
    }

    /// Sends a mark (or rows, at the main output) to every output.
    pub fn send(&mut self, message: Message) -> Result<(), Severed> {
        if let Message::Batch(batch) = message {
            return self.emit(batch);
        }
        if let Message::Watermark(at) = message {
            self.meter.watermark_micros.store(at.micros(), Relaxed);
        }
        self.outputs.iter().flatten().try_for_each(|output| self.give(output, message.clone()))
    }

    /// The channel's send, with the clock read only where it has to wait.
    fn give(&self, output: &Sender<Message>, message: Message) -> Result<(), Severed> {
        match output.try_send(message) {
            Ok(()) => Ok(()),
            Err(TrySendError::Disconnected(_)) => Err(Severed),
            Err(TrySendError::Full(message)) => {
                Meter::timed(&self.meter.blocked_ns, || output.send(message).map_err(|_| Severed))
            }
        }
    }
}

impl Emit for Outbox {
    fn emit_to(&mut self, port: Port, batch: Batch) -> Result<(), Severed> {
        let mut start = 0;
        while start < batch.num_rows() {
            let len = self.rows_max.min(batch.num_rows() - start);
            self.meter.rows_out[port as usize].fetch_add(len as u64, Relaxed);
            self.meter.batches_out[port as usize].fetch_add(1, Relaxed);
            let slice = batch.slice(start, len);
            for output in &self.outputs[port as usize] {
                // Batches share their columns, so a copy costs a few counters.
                self.give(output, Message::Batch(slice.clone()))?;
            }
            start += len;
        }
        Ok(())
    }
}

/// For tests: what an operator emitted, with the port it went to.
impl Emit for Vec<(Port, arrow::array::RecordBatch)> {
    fn emit_to(&mut self, port: Port, batch: Batch) -> Result<(), Severed> {
        if batch.num_rows() > 0 {
            self.push((port, batch.into_rows()));
        }
        Ok(())
    }
}
