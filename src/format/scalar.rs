//! The `scalar` format: a payload is one bare value, like `21.5` or `ON`.

use arrow::array::RecordBatch;

use crate::component::{ByteSize, Fault, Kind, Settings};
use crate::flow::payload::Payload;
use crate::format::columns::{ColumnType, Columns, From};
use crate::format::rows::Rows;
use crate::format::{Decoder, DecoderSpec, Malformed};

/// `format = "scalar"`.
pub const KIND: Kind<dyn DecoderSpec> =
    Kind { name: "scalar", about: "one bare value a payload: 21.5, ON, true, text", parse };

/// Default of `max_bytes`.
const MAX_BYTES: ByteSize = ByteSize(256 << 10);

fn parse(settings: &mut Settings) -> Option<Box<dyn DecoderSpec>> {
    let max_bytes = settings.or("max_bytes", MAX_BYTES);
    Some(Box::new(Scalar { max_bytes: usize::try_from(max_bytes.0).unwrap_or(usize::MAX) }))
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

    fn flush(&mut self) -> RecordBatch {
        self.rows.flush()
    }
}
