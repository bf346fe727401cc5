//! Payloads within payloads: a field of one format that holds another, as text. LoRaWAN servers wrap a device's bytes into
//! JSON so.
//!
//! ```toml
//! [sources.uplinks.decode]
//! format = "json"
//!
//! [sources.uplinks.decode.inner]
//! path = "$.data"                  # where it is in the outer payload; of each row, where that has `rows`
//! encoding = "base64"              # how it is packed, as of any payload: see the `packing` module
//! format = "bytes"                 # any format that remembers nothing, with its settings
//! fields = [{ name = "temp", at = 0, type = "int16" }, { name = "battery", at = 2, type = "uint8" }]
//!
//! [sources.uplinks.columns]
//! device = { type = "utf8", path = "$.deviceInfo.devEui" }
//! temp = { type = "float64", path = "$inner.temp", scale = 0.1 }
//! battery = { type = "int64", path = "$inner.battery" }
//! ```
//!
//! Each row of the inner payload is a row, with the values of its outer row beside it. A payload in which either is
//! malformed has no rows.

use std::sync::Arc;

use arrow::array::cast::AsArray;
use arrow::array::{Array, ArrayRef, RecordBatch, UInt32Array};
use arrow::compute::{concat_batches, take};
use arrow::datatypes::SchemaRef;

use crate::component::{Fault, Name};
use crate::flow::payload::Payload;
use crate::format::columns::{Column, ColumnType, Columns, From};
use crate::format::path::Path;
use crate::format::{Decoder, DecoderSpec, Malformed, Tolerated};

/// How many rows a payload may have in all: outer rows, each with inner ones.
const MAX_ROWS: usize = 100_000;

/// A format within another.
#[derive(Debug)]
pub struct Nested {
    outer: Box<dyn DecoderSpec>,
    inner: Box<dyn DecoderSpec>,
    /// Where the inner payload is.
    path: Name,
    at: Path,
}

impl Nested {
    /// `inner` at a path of what `outer` reads. The error says what is wrong with the path or the formats.
    pub fn new(outer: Box<dyn DecoderSpec>, inner: Box<dyn DecoderSpec>, path: Name) -> Result<Self, Fault> {
        if outer.is_stateful() || inner.is_stateful() {
            return Err(
                path.fault("a format that remembers what came before has nothing within, and is within nothing")
            );
        }
        let at = Path::parse(&path.text).map_err(|why| path.fault(why))?;
        Ok(Self { outer, inner, path, at })
    }

    /// The columns of the outer payload, and of the inner one. The last outer one is the inner payload itself.
    fn split(&self, columns: &Columns) -> (Columns, Columns) {
        let (inner, mut outer): (Vec<Column>, Vec<Column>) =
            columns.columns.iter().cloned().partition(|column| matches!(column.from, From::Inner(_)));
        let payload = |column: Column| match column.from {
            From::Inner(path) => Column { from: From::Payload(path), ..column },
            _ => column,
        };
        outer.push(Column {
            name: self.path.clone(),
            kind: ColumnType::Utf8,
            from: From::Payload(self.at.clone()),
            required: true,
            conversion: None,
        });
        let of = |of: Vec<Column>| Columns { columns: of, time: 0, topics: columns.topics.clone() };
        (of(outer), of(inner.into_iter().map(payload).collect()))
    }
}

impl DecoderSpec for Nested {
    fn has_inner(&self) -> bool {
        true
    }

    fn check(&self, columns: &Columns) -> Vec<Fault> {
        let (outer, inner) = self.split(columns);
        let mut faults = self.outer.check(&outer);
        faults.extend(self.inner.check(&inner));
        if inner.columns.is_empty() {
            faults.push(self.path.fault("no column is of the inner payload").help("such as `path = \"$inner.temp\"`"));
        }
        faults
    }

    fn build(&self, columns: &Columns) -> Box<dyn Decoder> {
        let (outer, inner) = self.split(columns);
        let (mut outers, mut inners) = (0.., 0..);
        let place = |column: &Column| match column.from {
            From::Inner(_) => Place::Inner(inners.next().unwrap_or_default()),
            _ => Place::Outer(outers.next().unwrap_or_default()),
        };
        let places = columns.columns.iter().map(place).collect();
        let (packed, mut outer, mut inner) =
            (outer.columns.len() - 1, self.outer.build(&outer), self.inner.build(&inner));
        let is_tolerant = outer.tolerated().is_some() || inner.tolerated().is_some();
        Box::new(Nesting {
            places,
            packed,
            is_tolerant,
            tolerated: Tolerated::default(),
            outer,
            inner,
            schema: columns.schema(),
            path: self.path.text.clone(),
            batches: Vec::new(),
        })
    }
}

/// Where a column of the result comes from.
#[derive(Clone, Copy)]
enum Place {
    Outer(usize),
    Inner(usize),
}

struct Nesting {
    outer: Box<dyn Decoder>,
    inner: Box<dyn Decoder>,
    places: Vec<Place>,
    /// The outer column that holds the inner payload.
    packed: usize,
    schema: SchemaRef,
    path: String,
    /// The rows of each payload.
    batches: Vec<RecordBatch>,
    is_tolerant: bool,
    /// As told before.
    tolerated: Tolerated,
}

impl Nesting {
    /// The rows of one payload.
    fn rows(&mut self, payload: &Payload<'_>) -> Result<RecordBatch, Malformed> {
        let wrong = |why: String| Malformed { at: None, why };
        self.outer.push(payload)?;
        // A flush forgets it.
        let mut tolerated = self.outer.tolerated().unwrap_or_default();
        let outer = self.outer.flush();
        let bodies = outer.column(self.packed).as_string::<i32>();
        // The outer row of each row.
        let mut of: Vec<u32> = Vec::with_capacity(bodies.len());
        for (row, body) in (0u32..).zip(bodies.iter()) {
            let body = body.unwrap_or_default().as_bytes();
            let count = self.inner.push(&Payload { body, ..*payload });
            let count = count.map_err(|malformed| wrong(format!("in `{}`: {}", self.path, malformed.why)))?;
            if of.len() + count > MAX_ROWS {
                return Err(wrong(format!("payload has more than {MAX_ROWS} rows")));
            }
            of.extend(std::iter::repeat_n(row, count));
        }
        tolerated = tolerated.and(self.inner.tolerated().unwrap_or_default());
        let inner = self.inner.flush();
        let is_one_each = of.len() == outer.num_rows() && of.iter().zip(0..).all(|(row, index)| *row == index);
        let of = UInt32Array::from(of);
        let column = |place: &Place| match place {
            Place::Inner(index) => Ok(inner.column(*index).clone()),
            Place::Outer(index) if is_one_each => Ok(outer.column(*index).clone()),
            Place::Outer(index) => take(outer.column(*index), &of, None),
        };
        let columns: Result<Vec<ArrayRef>, _> = self.places.iter().map(column).collect();
        let batch = columns.and_then(|columns| RecordBatch::try_new(self.schema.clone(), columns));
        let batch = batch.map_err(|why| wrong(why.to_string()))?;
        self.tolerated = self.tolerated.and(tolerated);
        Ok(batch)
    }
}

impl Decoder for Nesting {
    fn push(&mut self, payload: &Payload<'_>) -> Result<usize, Malformed> {
        match self.rows(payload) {
            Ok(batch) => {
                let count = batch.num_rows();
                self.batches.push(batch);
                Ok(count)
            }
            Err(malformed) => {
                // What either has of it by now is gone, and so is what was let pass there.
                for decoder in [&mut self.outer, &mut self.inner] {
                    decoder.tolerated();
                    decoder.flush();
                }
                Err(malformed)
            }
        }
    }

    fn tolerated(&mut self) -> Option<Tolerated> {
        self.is_tolerant.then(|| std::mem::take(&mut self.tolerated))
    }

    fn flush(&mut self) -> RecordBatch {
        let batches = std::mem::take(&mut self.batches);
        concat_batches(&self.schema, &batches).unwrap_or_else(|_| RecordBatch::new_empty(Arc::clone(&self.schema)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::component::Settings;
    use crate::flow::topic::Topics;
    use crate::format::testing::{push, text};
    use crate::format::{bytes, columns, csv, json};

    fn nested(outer: &str, (kind, inner): (crate::format::testing::Parse, &str), columns: &str) -> (Nested, Columns) {
        let (mut table, _) = Settings::of(outer);
        let (mut within, faults) = Settings::of(inner);
        let path = Name { text: "$.data".to_owned(), at: 0..0, expanded: false };
        let spec = Nested::new((json::KIND.parse)(&mut table).unwrap(), kind(&mut within).unwrap(), path).unwrap();
        assert!(faults.borrow().is_empty(), "{faults:?}");
        let (table, _) = Settings::of(columns);
        (spec, columns::read(Some(table), &Topics::default(), None, None).unwrap())
    }

    fn built((spec, columns): (Nested, Columns)) -> Box<dyn Decoder> {
        let faults = spec.check(&columns);
        assert!(faults.is_empty(), "{faults:?}");
        spec.build(&columns)
    }

    const FIELDS: &str = "encoding = 'base64'\nfields = [{ name = 't', at = 0, type = 'int16' }, { name = 'b', at = 2, type = 'uint8' }]";
    const COLUMNS: &str = "b = { type = 'int64', path = '$inner.b' }\nd = 'utf8'\n\
                           t = { type = 'float64', path = '$inner.t', scale = 0.1 }";

    #[test]
    fn bytes_within_json_are_a_row() {
        let mut decoder = built(nested("", (bytes::KIND.parse, FIELDS), COLUMNS));
        // 0x00cd 0x64: 20.5 degrees, 100 %.
        assert_eq!(push(&mut *decoder, br#"{"d": "x", "data": "AM1k"}"#), Ok(1));
        let wrong = push(&mut *decoder, br#"{"d": "y", "data": "?"}"#).unwrap_err().why;
        assert!(wrong.starts_with("in `$.data`: the payload is not base64"), "{wrong}");
        let wrong = push(&mut *decoder, br#"{"d": "y"}"#).unwrap_err().why;
        assert!(wrong.contains("`$.data` is missing"), "{wrong}");
        assert!(push(&mut *decoder, br#"{"d": 1, "data": "AM1k"}"#).is_err());
        assert_eq!(push(&mut *decoder, br#"{"data": "//9k", "d": null}"#), Ok(1));
        assert_eq!(text(&decoder.flush()), "100,x,20.5;100,-,-0.1");
        assert_eq!(decoder.flush().num_rows(), 0);
    }

    #[test]
    fn rows_within_rows_are_rows() {
        let inner = (csv::KIND.parse, "fields = ['t', 'v']");
        let columns = "d = { type = 'utf8', path = '$$.d' }\ni = 'int64'\nt = { type = 'int64', path = '$inner.t' }\n\
                       v = { type = 'float64', path = '$inner.v', mismatch = 'null' }";
        let mut decoder = built(nested("rows = '$.r[*]'", inner, columns));
        let body =
            br#"{"d": "x", "r": [{"i": 1, "data": "1,2.5\n2,n/a"}, {"i": 2, "data": ""}, {"i": 3, "data": "3,4"}]}"#;
        assert_eq!(push(&mut *decoder, body), Ok(3));
        assert_eq!(decoder.tolerated().map(|tolerated| tolerated.mismatched_values), Some(1));
        // One that is wrong takes the others of its payload with it, and nothing else.
        let body = br#"{"d": "y", "r": [{"i": 1, "data": "1,n/a"}, {"i": 2, "data": "1"}]}"#;
        assert!(push(&mut *decoder, body).unwrap_err().why.contains("line 1: expected 2 fields, got 1"));
        assert_eq!(decoder.tolerated(), Some(Tolerated::default()));
        assert_eq!(push(&mut *decoder, br#"{"r": []}"#), Ok(0));
        assert_eq!(text(&decoder.flush()), "x,1,1,2.5;x,1,2,-;x,3,3,4.0");
    }

    #[test]
    fn faults_are_told() {
        let (spec, columns) = nested("", (bytes::KIND.parse, FIELDS), "b = { type = 'int64', path = '$inner.x' }");
        assert!(spec.check(&columns)[0].what.contains("has no `x`"));
        let (spec, columns) = nested("", (json::KIND.parse, ""), "b = 'int64'");
        assert!(spec.check(&columns)[0].what.contains("no column is of the inner payload"));
    }
}
