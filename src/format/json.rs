//! The `json` format: one JSON value a payload, read in a single pass straight into columns.
//!
//! Declared types decide, nothing is converted: numbers are numbers, strings are strings, an integer is written without
//! point and exponent. With `rows = "$.readings[*]"` a payload has a row for every item: `$` is then the item, and `$$`
//! the document ([`super::path`]). What no column asks for is skipped, but must be JSON all the same.
//!
//! ```toml
//! [sources.uplinks.decode]
//! format = "json"
//! rows = "$.readings[*]"           # without it a payload is one row
//! extra = "count"                  # fields that no column is declared for: "ignore", "count" or "dead_letter"; "ignore"
//! non_finite = "null"              # NaN, Infinity and the like, which are no JSON: "dead_letter" or "null"; "dead_letter"
//! max_bytes = "1MiB"               # "256KiB"
//! max_depth = 64                   # 32
//! max_number_len = 64              # digits and signs of one number
//! max_rows = 10_000                # of one payload
//! compression = "auto"             # how it is packed, and `encoding`: see the `packing` module
//!
//! [sources.uplinks.columns]
//! ts = { type = "timestamp", unit = "ms", path = "$$.time" }      # of the whole document, so the same in every row
//! temp = "float64"                                                # $.temp
//! hum = { type = "float64", path = "$.env['rel.hum']", required = true }
//! ```
//!
//! `{"time": 1767600000000, "readings": [{"temp": 20.5, "env": {"rel.hum": 44}}, {"temp": 21, "env": {"rel.hum": 45}}]}`
//! is two rows. A payload with anything wrong has none, and goes to `NAME.dead_letter` as a whole.
//!
//! A map of names to values is a row for each of its members (an unpivot):
//!
//! ```toml
//! [sources.meters.decode]
//! format = "json"
//! rows = "$.values.*"              # {"id": "m1", "values": {"temp": 20.5, "hum": 44}}
//!
//! [sources.meters.columns]
//! meter = { type = "utf8", path = "$$.id" }
//! metric = { type = "utf8", path = "$key" }                       # temp, hum
//! value = { type = "float64", path = "$" }                        # 20.5, 44
//! ```
//!
//! And arrays side by side, all of one length, are a row for each of their items:
//!
//! ```toml
//! [sources.loggers.columns]
//! ts = { type = "timestamp", unit = "s", path = "$.time[*]" }     # {"id": "l1", "time": [1, 2], "temp": [20.5, null]}
//! temp = { type = "float64", path = "$.temp[*]" }
//! logger = { type = "utf8", path = "$.id" }                       # the same in all rows
//! ```

mod block;
mod common;
mod glance;
mod template;
mod walk;

use arrow::array::RecordBatch;

use block::Block;
use glance::Text;
use template::Templates;
use walk::Walk;

use crate::component::{ByteSize, Fault, Kind, Name, Settings};
use crate::flow::payload::{Payload, Payloads};
use crate::format::columns::{ColumnType, Columns, From};
use crate::format::document::RowsAt;
use crate::format::packing::Packing;
use crate::format::path::RowsPath;
use crate::format::rows::Rows;
use crate::format::trie::{Shape, Trie};
use crate::format::{Decoder, DecoderSpec, Extra, Malformed, Tolerated};

/// `format = "json"`.
pub const KIND: Kind<dyn DecoderSpec> =
    Kind { name: "json", about: "declared columns of JSON documents, one row or many a payload", parse };

/// Default of `max_bytes`.
const MAX_BYTES: ByteSize = ByteSize(256 << 10);
/// Default of `max_depth`.
const MAX_DEPTH: usize = 32;
/// The greatest `max_depth`: what the stack of a stage surely has room for.
const DEPTH_LIMIT: usize = 512;
/// Default of `max_number_len`.
const MAX_NUMBER_LEN: usize = 64;
/// Default of `max_rows`.
const MAX_ROWS: usize = 10_000;

/// What a payload may be at most.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) bytes: usize,
    pub(super) depth: usize,
    number_len: usize,
    rows: usize,
}

/// What becomes of `NaN` and the infinities, which are no JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum NonFinite {
    /// Their payload has no rows.
    DeadLetter,
    /// They are null.
    Null,
}

/// Documents as the pipeline file describes them.
#[derive(Debug)]
pub(super) struct Json {
    rows: Option<RowsPath>,
    extra: Extra,
    non_finite: NonFinite,
    pub(super) limits: Limits,
}

fn parse(settings: &mut Settings) -> Option<Box<dyn DecoderSpec>> {
    let json = Json::read(settings, RowsAt::Declared)?;
    Some(Packing::read(settings, json.limits.bytes).around(Box::new(json)))
}

impl Json {
    /// Reads the settings.
    pub(super) fn read(settings: &mut Settings, rows: RowsAt) -> Option<Self> {
        let told = match rows {
            RowsAt::Declared => settings.optional::<Name>("rows"),
            RowsAt::Path(rows) => Some(Name { text: rows.to_owned(), at: settings.at.clone(), expanded: false }),
            RowsAt::Whole => None,
        };
        let rows =
            told.and_then(|text| RowsPath::parse(&text.text).map_err(|why| settings.fault(text.fault(why))).ok());
        let extra = Extra::read(settings);
        let non_finite = [("dead_letter", NonFinite::DeadLetter), ("null", NonFinite::Null)];
        let non_finite = settings.choice("non_finite", &non_finite, NonFinite::DeadLetter);
        let bytes = usize::try_from(settings.or("max_bytes", MAX_BYTES).0).unwrap_or(usize::MAX);
        let depth = settings.or("max_depth", MAX_DEPTH);
        if depth > DEPTH_LIMIT {
            settings.fault(Fault::new(
                settings.at.clone(),
                format!("`max_depth`: expected at most {DEPTH_LIMIT}, got {depth}"),
            ));
            return None;
        }
        let number_len = settings.or("max_number_len", MAX_NUMBER_LEN);
        let max_rows = settings.or("max_rows", MAX_ROWS);
        Some(Self { rows, extra, non_finite, limits: Limits { bytes, depth, number_len, rows: max_rows } })
    }

    pub(super) fn decoder(&self, columns: &Columns) -> JsonDecoder {
        let trie = Trie::new(self.rows.as_ref(), columns);
        JsonDecoder {
            limits: self.limits,
            extra: self.extra,
            non_finite: self.non_finite,
            extra_fields: 0,
            stamps: vec![0; trie.nodes.len()],
            trie,
            places: vec![None; columns.columns.len()],
            stamp: 0,
            scratch: Vec::new(),
            templates: Templates::default(),
            text: Text::new(),
            block: Block::default(),
            rows: Rows::new(columns),
        }
    }
}

impl DecoderSpec for Json {
    fn check(&self, columns: &Columns) -> Vec<Fault> {
        let mut faults = Vec::new();
        for column in &columns.columns {
            if matches!((&column.from, &column.kind), (From::Payload(_), ColumnType::Binary)) {
                let what = format!("column `{}`: json has no binary; declare utf8", column.name.text);
                faults.push(column.name.fault(what));
            }
        }
        faults.extend(Trie::new(self.rows.as_ref(), columns).faults(columns));
        faults
    }

    fn build(&self, columns: &Columns) -> Box<dyn Decoder> {
        Box::new(self.decoder(columns))
    }
}

/// Reads documents.
pub(super) struct JsonDecoder {
    limits: Limits,
    extra: Extra,
    non_finite: NonFinite,
    /// As told before.
    extra_fields: u64,
    trie: Trie,
    /// Where in the body the value of a shared column begins.
    places: Vec<Option<usize>>,
    /// The object in which a node was seen last: a second time is a duplicate key.
    stamps: Vec<u64>,
    stamp: u64,
    scratch: Vec<u8>,
    templates: Templates,
    text: Text,
    block: Block,
    rows: Rows,
}

impl Decoder for JsonDecoder {
    fn push(&mut self, payload: &Payload<'_>) -> Result<usize, Malformed> {
        let Self {
            limits,
            extra,
            non_finite,
            extra_fields,
            trie,
            places,
            stamps,
            stamp,
            scratch,
            templates,
            text,
            rows,
            ..
        } = self;
        let mut found = 0;
        let done = rows.payload(payload, |rows| {
            let first = rows.len();
            let explode = trie.shape != Shape::One;
            if explode {
                places.fill(None);
            }
            let body = payload.body;
            let mut walk = Walk {
                body,
                at: 0,
                depth: 0,
                limits,
                extra: *extra,
                non_finite: *non_finite,
                extra_fields: 0,
                trie,
                places,
                stamps,
                stamp,
                scratch,
                rows,
                first,
                count: 0,
                explode,
                in_row: false,
                exploded: false,
                templates,
                text,
                noting: false,
            };
            let done = walk.rows();
            found = walk.extra_fields;
            done
        });
        *extra_fields += if done.is_ok() { found } else { 0 };
        done
    }

    fn tolerated(&mut self) -> Option<Tolerated> {
        let mismatched = self.rows.mismatched();
        let extra_fields = std::mem::take(&mut self.extra_fields);
        let lets_pass = self.extra == Extra::Count || mismatched.is_some();
        let mismatched_values = mismatched.unwrap_or(0);
        lets_pass.then(|| Tolerated { extra_fields, mismatched_values, ..Tolerated::default() })
    }

    fn push_alike(&mut self, payloads: &Payloads, from: usize) -> usize {
        self.alike(payloads, from)
    }

    fn flush(&mut self) -> RecordBatch {
        self.rows.flush()
    }
}

#[cfg(test)]
mod tests;
