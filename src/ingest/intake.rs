//! The thread half of ingest, where async ends: payloads to batches of rows, set aside what does not fit, and say how
//! far event time has come.
//!
//! What comes out is a function of the payloads and their arrival times alone, not of how they were cut into batches: a
//! batch is cut wherever a row lies behind the watermark of the rows before it, so that "late" means the same always.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use arrow::array::cast::AsArray;
use arrow::array::types::TimestampMicrosecondType;
use arrow::array::{Array, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::error::ArrowError;
use crossbeam_channel::Sender;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc::{self, error::TryRecvError};

use crate::flow::batch::Batch;
use crate::flow::message::{Epoch, Mark, Message, Severed};
use crate::flow::meter::{Meter, SourceMeter};
use crate::flow::outbox::{Emit, Outbox, Port};
use crate::flow::payload::Payloads;
use crate::flow::time::{Span, Timestamp};
use crate::ingest::dead_letters::DeadLetters;
use crate::ingest::decoding::{Decoded, Decoding, Ticket};
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
    /// Told where the source is, at the end of each epoch, before anybody else hears of it.
    pub keep: Box<dyn FnMut(Epoch, SourceState, bool) -> Result<(), Severed> + Send>,
    /// Where streams meet: how this one is cut.
    pub slices: Option<Slices>,
    /// Payloads taken so far, also before a restart.
    pub taken: u64,
    /// Epochs that were over before the source was there: the others' barriers wait for it.
    pub before: Range<Epoch>,
    /// Where payloads go that are done with: their room is used again.
    pub emptied: Sender<Payloads>,
    /// The way on.
    pub outbox: Outbox,
}

/// Where a source is at the end of an epoch: all that an intake needs to go on from there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
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
}

impl SourceState {
    /// The same place, for a feed that had come to its end and is fed again.
    #[must_use]
    pub fn anew(self) -> Self {
        Self { taken: 0, exhausted: false, slices: Slices::default(), ..self.without_time() }
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

/// Payloads that stand side by side, and their rows: where they begin and end.
#[derive(Clone, Copy, Debug, Default)]
struct Piece {
    payloads: (usize, usize),
    rows: (usize, usize),
}

impl Piece {
    fn add(&mut self, rows: usize) {
        self.payloads.1 += 1;
        self.rows.1 += rows;
    }

    /// Gives it, and begins the one that follows.
    fn next(&mut self) -> Self {
        let next = Self { payloads: (self.payloads.1, self.payloads.1), rows: (self.rows.1, self.rows.1) };
        std::mem::replace(self, next)
    }
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
                    let decoded = self.decoding.take(ticket)?;
                    self.decoded(&decoded)?;
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

    fn restore(&mut self, state: SourceState) -> Result<(), Severed> {
        self.taken = state.taken;
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
        let state = SourceState { position, number, taken, watermarks, slices, exhausted };
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

    /// A batch of payloads has been decoded.
    fn decoded(&mut self, decoded: &Decoded) -> Result<(), IntakeError> {
        let payloads = &decoded.payloads;
        self.taken += payloads.len() as u64;
        let mut letters = DeadLetters::default();
        let mut piece = Piece::default();
        for (index, rows) in decoded.counts.iter().enumerate() {
            let arrival = payloads.arrival(index);
            if let Some(mark) = self.slices.as_mut().and_then(|slices| slices.reach(arrival)) {
                self.end_slice(decoded, &mut piece, &mut letters, mark)?;
            }
            if self.watermarks.silent_at(arrival) {
                // Its windows close before this payload is looked at, but after what came before it.
                self.rows(decoded, &mut piece, &mut letters)?;
            }
            if let Some(at) = self.watermarks.arrived(arrival) {
                self.reach(at, arrival)?;
            }
            piece.add(*rows as usize);
            if let Some(mark) = self.slices.as_mut().and_then(|slices| slices.taken(arrival)) {
                self.end_slice(decoded, &mut piece, &mut letters, mark)?;
            }
        }
        self.rows(decoded, &mut piece, &mut letters)?;
        self.send_letters(payloads, letters)
    }

    /// Ends a slice with all that came before its mark.
    fn end_slice(
        &mut self,
        decoded: &Decoded,
        piece: &mut Piece,
        letters: &mut DeadLetters,
        mark: Mark,
    ) -> Result<(), IntakeError> {
        self.rows(decoded, piece, letters)?;
        self.send_letters(&decoded.payloads, std::mem::take(letters))?;
        Ok(self.outbox.send(Message::Mark(mark))?)
    }

    fn send_letters(&mut self, payloads: &Payloads, letters: DeadLetters) -> Result<(), IntakeError> {
        match letters.finish(&self.name, payloads)? {
            Some(letters) => Ok(self.outbox.emit_to(Port::Side, letters.into())?),
            None => Ok(()),
        }
    }

    /// Sends the rows of a piece, and the watermarks between and after them; what follows is the next piece.
    fn rows(&mut self, decoded: &Decoded, piece: &mut Piece, letters: &mut DeadLetters) -> Result<(), IntakeError> {
        let Piece { payloads: (first, end), rows: (start, rows_end) } = piece.next();
        self.malformed(decoded, first..end, letters)?;
        if start == rows_end {
            return Ok(());
        }
        let batch = decoded.rows.slice(start, rows_end - start);
        let batch = self.set_future_aside(batch, decoded, first..end, letters)?;
        if batch.num_rows() == 0 {
            return Ok(());
        }
        self.meter.rows.fetch_add(batch.num_rows() as u64, Relaxed);
        let arrival = decoded.payloads.arrival(end - 1);
        let times = batch.column(self.time).as_primitive::<TimestampMicrosecondType>().clone();
        let batch = match &mut self.keys {
            Some(keys) => keys.number(batch, self.watermarks.current()),
            None => Batch::from(batch),
        };
        let mut start = 0;
        for cut in self.watermarks.cut(times.values()) {
            self.outbox.emit(batch.slice(start, cut.at - start))?;
            self.reach(cut.watermark, arrival)?;
            start = cut.at;
        }
        self.outbox.emit(batch.slice(start, batch.num_rows() - start))?;
        match self.watermarks.emit() {
            Some(at) => Ok(self.reach(at, arrival)?),
            None => Ok(()),
        }
    }

    /// Counts payloads that are not one row each, and treats those that are none as `on_error` says.
    fn malformed(
        &mut self,
        decoded: &Decoded,
        payloads: Range<usize>,
        letters: &mut DeadLetters,
    ) -> Result<(), IntakeError> {
        let from = decoded.malformed.partition_point(|(index, _)| *index < payloads.start);
        let to = decoded.malformed.partition_point(|(index, _)| *index < payloads.end);
        let rows: u64 = decoded.counts[payloads.clone()].iter().map(|rows| u64::from(*rows)).sum();
        let expanded = rows.cast_signed() - (payloads.len() - (to - from)) as i64;
        if expanded != 0 {
            self.meter.expanded.fetch_add(expanded, Relaxed);
        }
        for (index, malformed) in &decoded.malformed[from..to] {
            match self.on_error {
                OnError::DeadLetter => {
                    self.meter.dead_letter.fetch_add(1, Relaxed);
                    letters.push(*index, malformed.why.clone(), malformed.at);
                }
                OnError::Drop => drop(self.meter.dropped.fetch_add(1, Relaxed)),
                OnError::Stop => {
                    let topic = String::from_utf8_lossy(decoded.payloads.get(*index).topic).into_owned();
                    let why = malformed.why.clone();
                    return Err(IntakeError::Malformed { name: self.name.clone(), topic, why });
                }
            }
        }
        Ok(())
    }

    /// Takes out the rows that lie too far after their arrival, and gives them to the dead letters.
    fn set_future_aside(
        &mut self,
        batch: RecordBatch,
        decoded: &Decoded,
        payloads: Range<usize>,
        letters: &mut DeadLetters,
    ) -> Result<RecordBatch, ArrowError> {
        let times = batch.column(self.time).as_primitive::<TimestampMicrosecondType>();
        debug_assert_eq!(times.null_count(), 0, "the time column is required");
        let newest = Timestamp::from_micros(times.values().iter().copied().max().unwrap_or(i64::MIN));
        let earliest = payloads.clone().map(|index| decoded.payloads.arrival(index)).min();
        if earliest.is_none_or(|arrival| self.watermarks.accepts(newest, arrival)) {
            return Ok(batch);
        }
        let mut keep = vec![true; batch.num_rows()];
        let mut row = 0;
        for index in payloads {
            let arrival = decoded.payloads.arrival(index);
            for _ in 0..decoded.counts[index] {
                let at = Timestamp::from_micros(times.value(row));
                if !self.watermarks.accepts(at, arrival) {
                    keep[row] = false;
                    let ahead = at.since(arrival);
                    let why = format!(
                        "future: event time {at} is {ahead} after the arrival, more than max_future {}",
                        self.max_future
                    );
                    self.meter.future.fetch_add(1, Relaxed);
                    letters.push(index, why, None);
                }
                row += 1;
            }
        }
        filter_record_batch(&batch, &BooleanArray::from(keep))
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
