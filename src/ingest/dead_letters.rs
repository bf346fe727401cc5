//! Payloads and rows that do not go on, as rows of `NAME.dead_letter`.

use std::sync::Arc;

use arrow::array::{ArrayRef, BinaryArray, RecordBatch, StringArray, TimestampMicrosecondArray, UInt64Array};
use arrow::error::ArrowError;

use crate::flow::payload::Payloads;
use crate::flow::schema::dead_letter_schema;
use crate::flow::time::Timestamp;

/// What of a batch of payloads goes to `NAME.dead_letter`. Payloads without rows are noted when they are read and rows of
/// the future when their batch is sent; the order is that of the payloads all the same, whatever was read together.
#[derive(Default)]
pub(super) struct DeadLetters(Vec<Letter>);

struct Letter {
    /// The payload's place.
    index: usize,
    reason: String,
    /// The byte that is to blame.
    offset: Option<usize>,
}

impl DeadLetters {
    pub(super) fn push(&mut self, index: usize, reason: String, offset: Option<usize>) {
        self.0.push(Letter { index, reason, offset });
    }

    /// The rows; `None` where there are none, as nearly always.
    pub(super) fn finish(mut self, source: &str, payloads: &Payloads) -> Result<Option<RecordBatch>, ArrowError> {
        if self.0.is_empty() {
            return Ok(None);
        }
        self.0.sort_by_key(|letter| letter.index);
        let letters = || self.0.iter().map(|letter| (letter, payloads.get(letter.index)));
        // Where nobody knows when it arrived, the column says the epoch rather than a null.
        let arrival = |at: Timestamp| if at == Timestamp::START { 0 } else { at.micros() };
        let arrivals =
            TimestampMicrosecondArray::from_iter_values(letters().map(|(_, payload)| arrival(payload.arrival)));
        let topics = letters().map(|(_, payload)| String::from_utf8_lossy(payload.topic));
        let columns: Vec<ArrayRef> = vec![
            Arc::new(arrivals.with_timezone("UTC")),
            Arc::new(StringArray::from_iter_values(letters().map(|_| source))),
            Arc::new(StringArray::from_iter_values(topics)),
            Arc::new(StringArray::from_iter_values(letters().map(|(letter, _)| &letter.reason))),
            Arc::new(UInt64Array::from_iter(letters().map(|(letter, _)| letter.offset.map(|offset| offset as u64)))),
            Arc::new(BinaryArray::from_iter_values(letters().map(|(_, payload)| payload.body))),
        ];
        RecordBatch::try_new(dead_letter_schema().columns, columns).map(Some)
    }
}
