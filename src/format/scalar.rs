//! The `scalar` format: a payload is one bare value, like `21.5` or `ON`.
//!
//! ```toml
//! [sources.switches]
//! topics = ["home/{room}/{switch}"]
//!
//! [sources.switches.decode]
//! format = "scalar"
//! max_bytes = "1KiB"               # "256KiB"
//! encoding = "base64"              # how it is packed, and `compression`: see the `packing` module
//!
//! [sources.switches.columns]
//! on = "boolean"                   # true, false, ON, OFF, 1, 0; without any column: value = "float64"
//! ```
//!
//! White space around numbers, truth values and times is passed over; text is taken as it is. The event time is the
//! arrival, unless a capture or the value itself is declared as the time.

use arrow::array::RecordBatch;

use crate::component::{ByteSize, Fault, Kind, Settings};
use crate::flow::payload::Payload;
use crate::format::columns::{ColumnType, Columns, From};
use crate::format::packing::Packing;
use crate::format::rows::Rows;
use crate::format::{Decoder, DecoderSpec, Malformed, Tolerated};

/// `format = "scalar"`.
pub const KIND: Kind<dyn DecoderSpec> =
    Kind { name: "scalar", about: "one bare value a payload: 21.5, ON, true, text", parse };

/// Default of `max_bytes`.
const MAX_BYTES: ByteSize = ByteSize(256 << 10);

fn parse(settings: &mut Settings) -> Option<Box<dyn DecoderSpec>> {
    let max_bytes = settings.or("max_bytes", MAX_BYTES);
    let max_bytes = usize::try_from(max_bytes.0).unwrap_or(usize::MAX);
    Some(Packing::read(settings, max_bytes).around(Box::new(Scalar { max_bytes })))
}

#[derive(Debug)]
struct Scalar {
    max_bytes: usize,
}

impl DecoderSpec for Scalar {
    fn implied(&self) -> Option<(&'static str, ColumnType)> {
        Some(("value", ColumnType::Float64))
    }

    fn check(&self, columns: &Columns) -> Vec<Fault> {
        let payload = columns.columns.iter().filter(|column| matches!(column.from, From::Payload(_)));
        let more = payload.skip(1).map(|column| {
            column.name.fault(format!("column `{}`: a scalar payload has one column only", column.name.text))
        });
        more.collect()
    }

    fn build(&self, columns: &Columns) -> Box<dyn Decoder> {
        let column = columns.columns.iter().position(|column| matches!(column.from, From::Payload(_)));
        Box::new(ScalarDecoder { max_bytes: self.max_bytes, column, rows: Rows::new(columns) })
    }
}

struct ScalarDecoder {
    max_bytes: usize,
    column: Option<usize>,
    rows: Rows,
}

impl Decoder for ScalarDecoder {
    fn push(&mut self, payload: &Payload<'_>) -> Result<usize, Malformed> {
        let (max, column) = (self.max_bytes, self.column);
        self.rows.payload(payload, |rows| {
            if payload.body.len() > max {
                let why = format!("payload of {} bytes is over max_bytes = {max}", payload.body.len());
                return Err(Malformed { at: None, why });
            }
            if let Some(column) = column {
                let at = payload.body.len() - payload.body.trim_ascii_start().len();
                rows.builder(column).push_text(payload.body).map_err(|why| Malformed { at: Some(at), why })?;
            }
            Ok(1)
        })
    }

    fn tolerated(&mut self) -> Option<Tolerated> {
        let mismatched_values = self.rows.mismatched()?;
        Some(Tolerated { mismatched_values, ..Tolerated::default() })
    }

    fn flush(&mut self) -> RecordBatch {
        self.rows.flush()
    }
}

#[cfg(test)]
mod tests {
    use arrow::util::display::array_value_to_string;

    use super::*;
    use crate::component::Name;
    use crate::flow::payload::Delivery;
    use crate::flow::time::Timestamp;
    use crate::flow::topic::Topics;
    use crate::format::columns;

    /// The value, and the capture `device`.
    fn read(kind: &str, topic: &str, body: &[u8]) -> Option<(String, String)> {
        let pattern = Name { text: "s/{device}".to_owned(), at: 0..0, expanded: false };
        let topics = Topics::read(&[pattern]).unwrap();
        let (table, _) = Settings::of(&format!("v = '{kind}'"));
        let columns = columns::read(Some(table), &topics, None, None).unwrap();
        let mut decoder = Scalar { max_bytes: 9 }.build(&columns);
        let arrival = Timestamp::from_micros(5);
        let (topic, delivery) = (topic.as_bytes(), Delivery::default());
        decoder.push(&Payload { topic, body, arrival, delivery, properties: &[] }).ok()?;
        let batch = decoder.flush();
        assert_eq!(batch.num_rows(), 1);
        let text = |column: usize| array_value_to_string(batch.column(column), 0).unwrap();
        Some((text(0), text(1)))
    }

    #[test]
    fn bare_values_are_read() {
        let value = |kind, body: &str| read(kind, "s/d1", body.as_bytes()).map(|(value, _)| value);
        for (kind, body, expected) in [
            ("float64", " 21.5\n", Some("21.5")),
            ("boolean", "ON", Some("true")),
            ("boolean", "0", Some("false")),
            ("utf8", " a ", Some(" a ")),
            ("int8", "-7", Some("-7")),
            ("int8", "128", None),
            ("float64", "", None),
            ("float64", "NaN", None),
            ("boolean", "maybe", None),
            ("utf8", "ten bytes!", None),
        ] {
            assert_eq!(value(kind, body).as_deref(), expected, "{kind} {body}");
        }
        assert_eq!(read("utf8", "s/d1", b"\xff"), None);
        assert_eq!(read("utf8", "s/d1", b"x"), Some(("x".to_owned(), "d1".to_owned())));
        assert_eq!(read("utf8", "other", b"x"), Some(("x".to_owned(), String::new())));
    }

    #[test]
    fn wrong_columns_are_all_told() {
        let text = "a = 'flaot64'\nb = { type = 'utf8', path = '$.' }\nc = { type = 'boolean', from = 'topic' }\nd = 1";
        let (table, _) = Settings::of(text);
        let faults = columns::read(Some(table), &Topics::default(), None, None).unwrap_err();
        assert_eq!(faults.len(), 4);
        assert_eq!(faults[0].help.as_deref(), Some("did you mean `float64`?"));
        let time = Name { text: "st".to_owned(), at: 0..0, expanded: false };
        let (table, _) = Settings::of("ts = 'timestamp'");
        let faults = columns::read(Some(table), &Topics::default(), Some(&time), None).unwrap_err();
        assert_eq!(faults[0].help.as_deref(), Some("did you mean `ts`?"));
    }
}
