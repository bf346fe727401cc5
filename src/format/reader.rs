//! What the decoders of most formats have in common: limits, packing, and rows that are taken back.
//!
//! A format is a [`Reader`] of payloads, and its settings read [`Common`], which has these:
//!
//! ```toml
//! [sources.NAME.decode]
//! max_bytes = "1MiB"               # of a payload when it is unpacked: "256KiB"
//! max_rows = 100_000               # of a payload: 10_000
//! encoding = "base64"              # how it is packed: see the `packing` module
//! compression = "gzip"
//! ```

use arrow::array::RecordBatch;

use crate::component::{ByteSize, Settings};
use crate::flow::payload::Payload;
use crate::format::columns::Columns;
use crate::format::packing::{Packing, Unpacker};
use crate::format::rows::Rows;
use crate::format::{Decoder, Malformed, Tolerated};

/// Reads payloads of a format.
pub trait Reader: Send {
    /// Adds the values of all rows of one payload to the payload columns, and says how many rows they are. Where it fails,
    /// what it added is taken back.
    fn read(&mut self, payload: &Payload<'_>, rows: &mut Rows) -> Result<usize, Malformed>;

    /// Fields of the payload that was read last that no column is declared for. `None` where nobody counts them.
    fn extra_fields(&self) -> Option<u64> {
        None
    }
}

/// Default of `max_bytes`.
const MAX_BYTES: ByteSize = ByteSize(256 << 10);
/// Default of `max_rows`.
const MAX_ROWS: usize = 10_000;

/// The settings that all formats with a [`Reader`] have.
#[derive(Clone, Copy, Debug)]
pub struct Common {
    /// What a payload may be at most.
    pub limits: Limits,
    packing: Packing,
}

/// What a payload may be at most.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes, when it is unpacked.
    pub bytes: usize,
    /// Rows.
    pub rows: usize,
}

impl Common {
    /// Reads them.
    pub fn read(settings: &mut Settings) -> Self {
        let bytes = usize::try_from(settings.or("max_bytes", MAX_BYTES).0).unwrap_or(usize::MAX);
        let rows = settings.or("max_rows", MAX_ROWS);
        Self { limits: Limits { bytes, rows }, packing: Packing::read(settings, bytes) }
    }

    /// The decoder of a reader to these columns.
    pub fn decoder(&self, columns: &Columns, reader: impl Reader + 'static) -> Box<dyn Decoder> {
        let (limits, unpacker) = (self.limits, Unpacker::new(self.packing));
        Box::new(Reading { reader, rows: Rows::new(columns), limits, unpacker, extra_fields: 0 })
    }
}

impl Limits {
    fn check_bytes(self, bytes: usize) -> Result<(), Malformed> {
        if bytes > self.bytes {
            let why = format!("payload of {bytes} bytes is over max_bytes = {}", self.bytes);
            return Err(Malformed { at: None, why });
        }
        Ok(())
    }

    /// Whether a payload may have so many rows. A reader that asks before it adds one holds no more than these in memory.
    pub fn check_rows(self, rows: usize) -> Result<(), Malformed> {
        if rows > self.rows {
            return Err(Malformed { at: None, why: format!("payload has more rows than max_rows = {}", self.rows) });
        }
        Ok(())
    }
}

/// The decoder of a reader.
struct Reading<R> {
    reader: R,
    rows: Rows,
    limits: Limits,
    unpacker: Unpacker,
    /// As told before.
    extra_fields: u64,
}

impl<R: Reader> Decoder for Reading<R> {
    fn push(&mut self, payload: &Payload<'_>) -> Result<usize, Malformed> {
        let Self { reader, rows, limits, unpacker, .. } = self;
        let done = rows.payload(payload, |rows| {
            let body = unpacker.unpack(payload.body)?;
            limits.check_bytes(body.len())?;
            let count = reader.read(&Payload { body, ..*payload }, rows)?;
            limits.check_rows(count)?;
            Ok(count)
        });
        if done.is_ok() {
            self.extra_fields += self.reader.extra_fields().unwrap_or(0);
        }
        done
    }

    fn tolerated(&mut self) -> Option<Tolerated> {
        let mismatched = self.rows.mismatched();
        let extra_fields = std::mem::take(&mut self.extra_fields);
        let lets_pass = self.reader.extra_fields().is_some() || mismatched.is_some();
        let mismatched_values = mismatched.unwrap_or(0);
        lets_pass.then(|| Tolerated { extra_fields, mismatched_values, ..Tolerated::default() })
    }

    fn flush(&mut self) -> RecordBatch {
        self.rows.flush()
    }
}

/// The line of a text that a byte is in, for messages, counted from 1. Lines end in LF, CR or both.
pub fn line_of(text: &[u8], at: usize) -> usize {
    let before = &text[..at.min(text.len())];
    let alone = |at: &usize| text.get(at + 1).is_none_or(|next| *next != b'\n');
    1 + memchr::memchr_iter(b'\n', before).count() + memchr::memchr_iter(b'\r', before).filter(alone).count()
}

#[cfg(test)]
mod tests {
    #[test]
    fn lines_are_counted_by_any_ending() {
        let text = b"a\nb\r\nc\rd\n";
        let lines = [0, 1, 2, 4, 5, 6, 7, 8, 99].map(|at| super::line_of(text, at));
        assert_eq!(lines, [1, 1, 2, 2, 3, 3, 4, 4, 5]);
    }
}
