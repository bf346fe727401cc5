//! Payloads to rows.

use arrow::array::RecordBatch;

use crate::component::{Fault, Kind, Settings};
use crate::flow::payload::{Payload, Payloads};

pub mod avro;
pub mod builder;
pub mod bytes;
pub mod cbor;
pub mod columns;
pub mod csv;
pub mod document;
pub mod influx;
pub mod inner;
pub mod json;
pub mod msgpack;
pub mod number;
pub mod packing;
pub mod path;
pub mod protobuf;
pub mod reader;
pub mod rows;
pub mod scalar;
pub mod senml;
pub mod sparkplug_b;
pub mod swar;
#[cfg(test)]
mod testing;
pub mod trie;
pub mod when;

use columns::{ColumnType, Columns};

/// Every format.
pub static FORMATS: &[Kind<dyn DecoderSpec>] = &[
    json::KIND,
    scalar::KIND,
    csv::KIND,
    influx::KIND,
    msgpack::KIND,
    cbor::KIND,
    senml::KIND,
    protobuf::KIND,
    avro::KIND,
    sparkplug_b::KIND,
    bytes::KIND,
];

/// Payloads to rows. One payload can never affect another's rows.
pub trait Decoder: Send {
    /// Adds the rows of one payload: all of them and how many, or none and the reason.
    fn push(&mut self, payload: &Payload<'_>) -> Result<usize, Malformed>;

    /// Adds the rows of payloads from `from` on that come to one row each, where many at a time are less work than one by
    /// one; how many payloads they were. None of them need be, and what follows is pushed, or tried again after that.
    fn push_alike(&mut self, payloads: &Payloads, from: usize) -> usize {
        let _ = (payloads, from);
        0
    }

    /// Adds the rows of the payload at `from`, or of several from there that come to one row each: how many payloads, and
    /// the rows of each or the reason.
    fn push_some(&mut self, payloads: &Payloads, from: usize) -> (usize, Result<usize, Malformed>) {
        match self.push_alike(payloads, from) {
            0 => (1, self.push(&payloads.get(from))),
            alike => (alike, Ok(1)),
        }
    }

    /// What was let pass of the payloads pushed since this was asked the last time. `None` where the pipeline file lets
    /// nothing pass.
    fn tolerated(&mut self) -> Option<Tolerated> {
        None
    }

    /// What it asks of senders, since this was asked the last time: a birth that it has not seen.
    fn requests(&mut self) -> Vec<Request> {
        Vec::new()
    }

    /// What it knows from payloads that were pushed and needs for those to come, as text; `None` where that is nothing.
    fn state(&self) -> Option<String> {
        None
    }

    /// Goes on from a state.
    fn restore(&mut self, state: &str) -> Result<(), String> {
        let _ = state;
        Ok(())
    }

    /// Takes the rows added since the last time; columns as [`Columns::schema`] says.
    fn flush(&mut self) -> RecordBatch;
}

/// A format as the pipeline file describes it.
pub trait DecoderSpec: std::fmt::Debug + Send + Sync {
    /// The payload column that there is where none is declared.
    fn implied(&self) -> Option<(&'static str, ColumnType)> {
        None
    }

    /// Whether columns may be of a payload within the payload.
    fn has_inner(&self) -> bool {
        false
    }

    /// Whether what a payload comes to depends on payloads before it: one decoder has to see them all.
    fn is_stateful(&self) -> bool {
        false
    }

    /// What is wrong with these columns for this format.
    fn check(&self, columns: &Columns) -> Vec<Fault>;

    /// A decoder to these columns. Called only where `check` found nothing.
    fn build(&self, columns: &Columns) -> Box<dyn Decoder>;
}

/// A message that a decoder wants to be published where its payloads come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Its topic.
    pub topic: String,
    /// Its body.
    pub body: Vec<u8>,
}

/// What a pipeline file lets pass and wants counted: what of payloads that have rows is not as declared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tolerated {
    /// Fields that no column is declared for (`extra = "count"`).
    pub extra_fields: u64,
    /// Values that their column cannot hold, and that are null (`mismatch = "null"`).
    pub mismatched_values: u64,
    /// Messages that by their numbers were sent before and did not come.
    pub lost_messages: u64,
}

/// What becomes of fields that no column is declared for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extra {
    /// Nothing.
    Ignore,
    /// They are counted.
    Count,
    /// Their payload has no rows.
    DeadLetter,
}

impl Extra {
    /// Reads the setting `extra`.
    pub fn read(settings: &mut Settings) -> Self {
        let choices = [("ignore", Self::Ignore), ("count", Self::Count), ("dead_letter", Self::DeadLetter)];
        settings.choice("extra", &choices, Self::Ignore)
    }
}

impl Tolerated {
    /// Both together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            extra_fields: self.extra_fields + other.extra_fields,
            mismatched_values: self.mismatched_values + other.mismatched_values,
            lost_messages: self.lost_messages + other.lost_messages,
        }
    }

    /// Whether it is nothing.
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}

/// Why a payload has no rows.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct Malformed {
    /// Byte of the body at which it was seen, where one byte is to blame.
    pub at: Option<usize>,
    /// In the reader's words: what was expected, what came.
    pub why: String,
}
