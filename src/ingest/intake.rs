//! The thread half of ingest, where async ends: payloads to batches of rows, set aside what does not fit, and say how
//! far event time has come.
//!
//! What comes out is a function of the payloads and their arrival times alone, not of how they were cut into batches: a
//! batch is cut wherever a row lies behind the watermark of the rows before it, so that "late" means the same always.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use arrow::array::cast::AsArray;
use arrow::array::types::TimestampMicrosecondType;
use arrow::array::{Array, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::error::ArrowError;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc::{self, error::TryRecvError};

use crate::flow::message::{Epoch, Mark, Message, Severed};
use crate::flow::meter::{Meter, SourceMeter};
use crate::flow::outbox::{Emit, Outbox, Port};
use crate::flow::payload::Payloads;
use crate::flow::time::{Span, Timestamp};
use crate::format::Decoder;
use crate::ingest::dead_letters::DeadLetters;
use crate::ingest::feed::Crossing;
use crate::ingest::journal::{JournalError, Next, Position, Read, Reader};
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
    pub decoder: Box<dyn Decoder>,
    /// Index of the event-time column.
    pub time: usize,
    /// How far event time has come.
    pub watermarks: Watermarks,
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

/// Rows that wait in the decoder, by the payload that they came from.
#[derive(Default)]
struct Waiting {
    /// Index of the payload, and how many rows it gave.
    spans: Vec<(usize, usize)>,
    rows: usize,
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
        while let Some(Read { crossing, next }) = self.wait(&mut inflow)? {
            (self.took)();
            match crossing {
                Crossing::Payloads(payloads) => self.payloads(&payloads)?,
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

    fn payloads(&mut self, payloads: &Payloads) -> Result<(), IntakeError> {
        self.taken += payloads.len() as u64;
        if self.slices.is_none() {
            return self.slice(payloads, 0..payloads.len());
        }
        let mut start = 0;
        for index in 0..payloads.len() {
            let arrival = payloads.get(index).arrival;
            let slices = self.slices.as_mut().expect("it was looked at above");
            if let Some(mark) = slices.reach(arrival) {
                self.slice(payloads, start..index)?;
                self.outbox.send(Message::Mark(mark))?;
                start = index;
            }
            let slices = self.slices.as_mut().expect("it was looked at above");
            if let Some(mark) = slices.taken(arrival) {
                self.slice(payloads, start..index + 1)?;
                self.outbox.send(Message::Mark(mark))?;
                start = index + 1;
            }
        }
        self.slice(payloads, start..payloads.len())
    }

    /// Payloads of one slice, or a part of it.
    fn slice(&mut self, payloads: &Payloads, range: Range<usize>) -> Result<(), IntakeError> {
        let mut waiting = Waiting::default();
        let mut letters = DeadLetters::default();
        for index in range {
            let payload = payloads.get(index);
            if self.watermarks.silent_at(payload.arrival) {
                // Its windows close before this payload is looked at, but after what came before it.
                self.rows(payloads, &mut waiting, &mut letters)?;
            }
            if let Some(at) = self.watermarks.arrived(payload.arrival) {
                self.reach(at, payload.arrival)?;
            }
            match self.decoder.push(&payload) {
                Ok(rows) => {
                    if rows != 1 {
                        let expanded = i64::try_from(rows).unwrap_or(i64::MAX) - 1;
                        self.meter.expanded.fetch_add(expanded, Relaxed);
                    }
                    waiting.spans.push((index, rows));
                    waiting.rows += rows;
                }
                Err(malformed) => match self.on_error {
                    OnError::DeadLetter => {
                        self.meter.dead_letter.fetch_add(1, Relaxed);
                        letters.push(index, malformed.why, malformed.at);
                    }
                    OnError::Drop => drop(self.meter.dropped.fetch_add(1, Relaxed)),
                    OnError::Stop => {
                        let topic = String::from_utf8_lossy(payload.topic).into_owned();
                        return Err(IntakeError::Malformed { name: self.name.clone(), topic, why: malformed.why });
                    }
                },
            }
        }
        self.rows(payloads, &mut waiting, &mut letters)?;
        match letters.finish(&self.name, payloads)? {
            Some(letters) => Ok(self.outbox.emit_to(Port::Side, letters)?),
            None => Ok(()),
        }
    }

    /// Sends the rows that wait in the decoder, and the watermarks between and after them.
    fn rows(
        &mut self,
        payloads: &Payloads,
        waiting: &mut Waiting,
        letters: &mut DeadLetters,
    ) -> Result<(), IntakeError> {
        let Waiting { spans, rows } = std::mem::take(waiting);
        if rows == 0 {
            return Ok(());
        }
        let decoded = self.decoder.flush();
        let batch = self.set_future_aside(decoded, payloads, &spans, letters)?;
        if batch.num_rows() == 0 {
            return Ok(());
        }
        self.meter.rows.fetch_add(batch.num_rows() as u64, Relaxed);
        let arrival = spans.last().map_or(Timestamp::START, |(index, _)| payloads.get(*index).arrival);
        let times = batch.column(self.time).as_primitive::<TimestampMicrosecondType>().clone();
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

    /// Takes out the rows that lie too far after their arrival, and gives them to the dead letters.
    fn set_future_aside(
        &mut self,
        batch: RecordBatch,
        payloads: &Payloads,
        spans: &[(usize, usize)],
        letters: &mut DeadLetters,
    ) -> Result<RecordBatch, ArrowError> {
        let times = batch.column(self.time).as_primitive::<TimestampMicrosecondType>();
        debug_assert_eq!(times.null_count(), 0, "the time column is required");
        let newest = Timestamp::from_micros(times.values().iter().copied().max().unwrap_or(i64::MIN));
        let earliest = spans.iter().map(|(index, _)| payloads.get(*index).arrival).min();
        if earliest.is_none_or(|arrival| self.watermarks.accepts(newest, arrival)) {
            return Ok(batch);
        }
        let mut keep = vec![true; batch.num_rows()];
        let mut row = 0;
        for &(index, rows) in spans {
            let payload = payloads.get(index);
            for _ in 0..rows {
                let at = Timestamp::from_micros(times.value(row));
                if !self.watermarks.accepts(at, payload.arrival) {
                    keep[row] = false;
                    let ahead = at.since(payload.arrival);
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
