//! Decoded payloads in order: their rows piece by piece, with watermarks, marks and dead letters where they belong.

use std::ops::Range;
use std::sync::atomic::Ordering::Relaxed;

use arrow::array::cast::AsArray;
use arrow::array::types::TimestampMicrosecondType;
use arrow::array::{Array, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::error::ArrowError;

use super::{Intake, IntakeError, OnError};
use crate::flow::batch::Batch;
use crate::flow::message::{Mark, Message};
use crate::flow::outbox::{Emit, Port};
use crate::flow::payload::Payloads;
use crate::flow::time::Timestamp;
use crate::ingest::dead_letters::DeadLetters;
use crate::ingest::decoding::Decoded;

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
    /// A batch of payloads has been decoded.
    pub(super) fn decoded(&mut self, decoded: &Decoded) -> Result<(), IntakeError> {
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
        for (_, tolerated) in decoded.tolerated.iter().filter(|(index, _)| payloads.contains(index)) {
            self.meter.extra_fields.fetch_add(tolerated.extra_fields, Relaxed);
            self.meter.mismatched_values.fetch_add(tolerated.mismatched_values, Relaxed);
            self.meter.lost_messages.fetch_add(tolerated.lost_messages, Relaxed);
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
}
