//! The shape of the rows on one stream.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};

use crate::flow::time::Span;

/// The Arrow schema of a stream, and what is known of its time.
#[derive(Clone, Debug, PartialEq)]
pub struct StreamSchema {
    /// Every batch on the stream has exactly these columns.
    pub columns: SchemaRef,
    /// Index of the event-time column: `Timestamp(Microsecond, "UTC")`, never null.
    pub time: usize,
    /// How far behind the greatest event time a row may come, for operators with clocks of their own.
    pub out_of_orderness: Span,
}

impl StreamSchema {
    /// The index of a column by its name.
    pub fn index_of(&self, name: &str) -> Option<usize> {
        self.columns.fields().iter().position(|field| field.name() == name)
    }

    /// The names of all columns, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.columns.fields().iter().map(|field| field.name().as_str())
    }
}

/// The type of every time column: microseconds, UTC.
pub fn timestamp_type() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

/// The rows of every `NAME.dead_letter`: payloads that have no rows, and rows that were set aside.
///
/// `arrival` is when it came (and the time column), `reason` says in words what was wrong, `offset` the
/// byte of the payload where that was seen (null where no single byte is to blame).
pub fn dead_letter_schema() -> StreamSchema {
    let columns = Schema::new(vec![
        Field::new("arrival", timestamp_type(), false),
        Field::new("source", DataType::Utf8, false),
        Field::new("topic", DataType::Utf8, false),
        Field::new("reason", DataType::Utf8, false),
        Field::new("offset", DataType::UInt64, true),
        Field::new("payload", DataType::Binary, false),
    ]);
    StreamSchema { columns: Arc::new(columns), time: 0, out_of_orderness: Span::ZERO }
}
