//! The thread half of ingest, where async ends: payloads to batches of rows, set aside what does not fit, and say how
//! far event time has come.
//!
//! What comes out is a function of the payloads and their arrival times alone, not of how they were cut into batches: a
//! batch is cut wherever a row lies behind the watermark of the rows before it, so that "late" means the same always.

mod pieces;

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use arrow::error::ArrowError;
use crossbeam_channel::Sender;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc::{self, error::TryRecvError};

use crate::flow::message::{Epoch, Mark, Message, Severed};
use crate::flow::meter::{Meter, SourceMeter};
use crate::flow::outbox::Outbox;
use crate::flow::payload::Payloads;
use crate::flow::time::{Span, Timestamp};
use crate::ingest::Replies;
use crate::ingest::decoding::{Decoding, Ticket};
use crate::ingest::feed::Crossing;
use crate::ingest::journal::{JournalError, Next, Position, Read, Reader};
use crate::ingest::keys::KeyNumbers;
use crate::ingest::slices::Slices;
use crate::ingest::watermark::{WatermarkState, Watermarks};

/// What a payload that does not decode gets: `decode.on_error`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnError {
    /// To `NAME.dead_letter`.
    DeadLetter,
    /// Counted, and gone.
    Drop,
    /// The run fails.
    Stop,
}

/// The stage between the bridge and the first channel.
pub struct Intake {
    /// The source's name.
    pub name: String,
    /// Payloads to rows.
    pub decoding: Decoding,
    /// Index of the event-time column.
    pub time: usize,
    /// How far event time has come.
    pub watermarks: Watermarks,
    /// Numbers for the keys by which rows are grouped downstream.
    pub keys: Option<KeyNumbers>,
    /// Rows further after their arrival than this are set aside.
    pub max_future: Span,
    /// What a payload that does not decode gets.
    pub on_error: OnError,
    /// Counts of the source.
    pub meter: Arc<SourceMeter>,
    /// Counts of the stage; the same that the outbox has.
    pub stage: Arc<Meter>,
    /// Told that something came from the feed, before it is looked at.
    pub took: Box<dyn FnMut() + Send>,
    /// Told each watermark with the arrival time of the payload that raised it.
    pub observer: Box<dyn FnMut(Timestamp, Timestamp) + Send>,
    /// Whether anybody keeps where the source is.
    pub keeps: bool,
    /// Told where the source is, at the end of each epoch, before anybody else hears of it.
    pub keep: Box<dyn FnMut(Epoch, SourceState, bool) -> Result<(), Severed> + Send>,
    /// Where streams meet: how this one is cut.
    pub slices: Option<Slices>,
    /// Payloads taken so far, also before a restart.
    pub taken: u64,
    /// Epochs that were over before the source was there: the others' barriers wait for it.
    pub before: Range<Epoch>,
    /// Where the decoder's requests go.
    pub replies: Arc<Replies>,
    /// Where payloads go that are done with: their room is used again.
    pub emptied: Sender<Payloads>,
    /// The way on.
    pub outbox: Outbox,
}

/// Where a source is at the end of an epoch: all that an intake needs to go on from there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceState {
    /// The next record of the journal.
    pub position: Position,
    /// Its number.
    pub number: u64,
    /// Payloads taken so far.
    pub taken: u64,
    /// How far event time has come.
    pub watermarks: WatermarkState,
    /// How the stream was cut.
    pub slices: Slices,
    /// Nothing will ever follow.
    #[serde(default)]
    pub exhausted: bool,
    /// What the decoder knows from the payloads before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decoder: Option<String>,
}

impl SourceState {
    /// The same place, for a feed that had come to its end and is fed again.
    #[must_use]
    pub fn anew(self) -> Self {
        Self { taken: 0, exhausted: false, slices: Slices::default(), decoder: None, ..self.without_time() }
    }

    /// The same place, with event time unknown.
    #[must_use]
    pub fn without_time(self) -> Self {
        Self { watermarks: WatermarkState::default(), ..self }
    }
}

/// Where an intake takes from.
pub enum Inflow {
    /// The feed, directly.
    Bridge(mpsc::Receiver<Crossing>),
    /// The journal.
    Journal(Reader),
}

/// Why an intake stopped.
#[derive(Debug, thiserror::Error)]
pub enum IntakeError {
    /// A neighbour is gone; the reason is its to tell.
    #[error(transparent)]
    Severed(#[from] Severed),
    /// A payload does not decode, and the pipeline file says to stop then.
    #[error("source `{name}`: payload on topic `{topic}` does not decode: {why} (decode.on_error is \"stop\")")]
    Malformed {
        /// The source.
        name: String,
        /// The payload's topic.
        topic: String,
        /// What is wrong with it.
        why: String,
    },
    /// A kernel refused.
    #[error("cannot set rows aside")]
    Compute(#[from] ArrowError),
    /// What the decoder knew is not what it wrote.
    #[error("source `{name}`: the checkpoint's state of the decoder cannot be read: {why}")]
    State {
        /// The source.
        name: String,
        /// What is wrong with it.
        why: String,
    },
    /// The journal cannot be read.
    #[error(transparent)]
    Journal(#[from] JournalError),
}

/// What was taken in and is not done with yet, and what follows it in the journal.
enum Taken {
    /// Payloads, which are being decoded.
    Payloads(Ticket),
    /// Anything else.
    Other(Crossing),
}

impl Intake {
    /// Decodes until the feed is over. `restored` is where an earlier run was.
    pub fn run(mut self, mut inflow: Inflow, restored: Option<SourceState>) -> Result<(), IntakeError> {
        if let Some(state) = restored {
            self.restore(state)?;
        }
        let mut before = self.before.start;
        while before < self.before.end {
            self.outbox.send(Message::Barrier(before))?;
            before = before.next();
        }
        let mut line: VecDeque<(Taken, Next)> = VecDeque::new();
        while self.fill(&mut line, &mut inflow)? {
            let (taken, next) = line.pop_front().expect("it was filled just now");
            let crossing = match taken {
                Taken::Payloads(ticket) => {
                    let decoded = Meter::timed(&self.stage.waiting_ns, || self.decoding.take(ticket))?;
                    self.decoded(&decoded)?;
                    decoded.requests.iter().for_each(|request| self.replies.send(request));
                    let mut emptied = decoded.payloads;
                    emptied.clear();
                    // Where there is no room, or nobody, it is freed.
                    let _ = self.emptied.try_send(emptied);
                    continue;
                }
                Taken::Other(crossing) => crossing,
            };
            match crossing {
                Crossing::Payloads(_) => unreachable!("payloads are given to the decoders"),
                Crossing::Heard(now) => self.watermarks.started(now),
                Crossing::Tick { now, listening } => {
                    if let Some(at) = listening.then(|| self.watermarks.tick(now)).flatten() {
                        self.reach(at, now)?;
                    }
                    self.cut(|slices| slices.reach(now))?;
                }
                Crossing::Barrier(epoch) => {
                    self.end_epoch(epoch, next, (false, false))?;
                    self.outbox.send(Message::Barrier(epoch))?;
                }
                Crossing::Stop(epoch) => {
                    self.end_epoch(epoch, next, (false, false))?;
                    self.outbox.send(Message::Stop(epoch))?;
                }
                Crossing::End { exhausted, epoch } => {
                    if exhausted {
                        self.outbox.send(Message::Watermark(Timestamp::END))?;
                    }
                    self.end_epoch(epoch, next, (exhausted, true))?;
                    return Ok(self.outbox.send(Message::End(epoch))?);
                }
            }
        }
        Err(Severed.into())
    }

    fn restore(&mut self, state: SourceState) -> Result<(), IntakeError> {
        self.taken = state.taken;
        if let Some(decoder) = &state.decoder {
            let restored = self.decoding.restore(decoder);
            restored.map_err(|why| IntakeError::State { name: self.name.clone(), why })?;
        }
        if let Some(slices) = &mut self.slices {
            *slices = state.slices;
        }
        // Said again, as nobody downstream remembers it; ahead of every row of any input that it meets.
        if let Some(at) = self.watermarks.restore(state.watermarks) {
            self.outbox.send(Message::Watermark(at))?;
            self.cut(|_| Some(Mark { at: Timestamp::START, number: 0 }))?;
        }
        Ok(())
    }

    fn end_epoch(
        &mut self,
        epoch: Epoch,
        (position, number): Next,
        (exhausted, last): (bool, bool),
    ) -> Result<(), Severed> {
        let mut slices = self.slices.unwrap_or_default();
        slices.ended();
        self.slices = self.slices.map(|_| slices);
        let (taken, watermarks) = (self.taken, self.watermarks.state());
        let decoder = self.keeps.then(|| self.decoding.state()).flatten();
        let state = SourceState { position, number, taken, watermarks, slices, exhausted, decoder };
        (self.keep)(epoch, state, last)
    }

    /// Ends a slice, if there are any and `ends` says so.
    fn cut(&mut self, ends: impl FnOnce(&mut Slices) -> Option<Mark>) -> Result<(), Severed> {
        match self.slices.as_mut().and_then(ends) {
            Some(mark) => self.outbox.send(Message::Mark(mark)),
            None => Ok(()),
        }
    }

    /// Takes in what there is, as far as decoders can have it ahead; waits only where nothing is left to do. False where
    /// there is nothing any more.
    fn fill(&mut self, line: &mut VecDeque<(Taken, Next)>, inflow: &mut Inflow) -> Result<bool, IntakeError> {
        while line.len() < self.decoding.ahead() && (line.is_empty() || inflow.is_ready()) {
            let Some(Read { crossing, next }) = self.wait(inflow)? else { break };
            (self.took)();
            let taken = match crossing {
                Crossing::Payloads(payloads) => Taken::Payloads(self.decoding.give(payloads)?),
                other => Taken::Other(other),
            };
            line.push_back((taken, next));
        }
        Ok(!line.is_empty())
    }

    /// The next crossing and what follows it in the journal, with the clock read only where it has to be waited for.
    fn wait(&self, inflow: &mut Inflow) -> Result<Option<Read>, IntakeError> {
        let timed = |wait: &mut dyn FnMut()| Meter::timed(&self.stage.waiting_ns, wait);
        match inflow {
            Inflow::Journal(reader) => {
                let read = reader.next(timed)?;
                self.meter.journal_lag.store(reader.lag(), Relaxed);
                Ok(read)
            }
            Inflow::Bridge(bridge) => {
                let crossing = match bridge.try_recv() {
                    Ok(crossing) => Some(crossing),
                    Err(TryRecvError::Disconnected) => None,
                    Err(TryRecvError::Empty) => Meter::timed(&self.stage.waiting_ns, || bridge.blocking_recv()),
                };
                Ok(crossing.map(|crossing| Read { crossing, next: Next::default() }))
            }
        }
    }

    /// Event time has reached a point that no watermark before had.
    fn reach(&mut self, at: Timestamp, arrival: Timestamp) -> Result<(), Severed> {
        (self.observer)(at, arrival);
        self.outbox.send(Message::Watermark(at))
    }
}

impl Inflow {
    /// Whether there is something to take without a wait.
    fn is_ready(&self) -> bool {
        match self {
            Self::Bridge(bridge) => !bridge.is_empty(),
            Self::Journal(reader) => reader.lag() > 0,
        }
    }
}
