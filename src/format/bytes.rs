//! The `bytes` format: binary of a fixed layout, as LoRaWAN devices send it and Modbus gateways forward it.
//!
//! ```toml
//! [sources.meters.decode]
//! format = "bytes"
//! endian = "little"                # of numbers of several bytes: "big"
//! word_order = "swapped"           # "swapped": the lower 16-bit word comes first, as of many Modbus devices; "straight"
//! length = 12                      # bytes of a payload, exactly; without it any that has all fields
//! rows = { at = 4, size = 4 }      # a row for every 4 bytes from byte 4 on: `row = true` fields count from its start
//! encoding = "hex"                 # how it is packed: see the `packing` module
//! fields = [
//!   { name = "time", at = 0, type = "uint32" },
//!   { name = "temp", at = 0, type = "int16", row = true },
//!   { name = "alarm", at = 2, bits = [7, 1], row = true },       # from bit 7 (0 is the lowest), 1 bit
//!   { name = "level", at = 2, bits = [0, 7], row = true },
//!   { name = "serial", at = 0, type = "bytes", len = 4 },        # hex text, or raw in a binary column
//! ]
//!
//! [sources.meters.columns]
//! time = { type = "timestamp", unit = "s" }
//! temp = { type = "float64", scale = 0.1, offset = -40 }
//! alarm = "boolean"
//! level = "int64"
//! serial = "utf8"
//! ```
//!
//! Types are `int8` … `int64`, `uint8` … `uint64`, `int24`, `uint24`, `float32`, `float64`, `boolean` (a byte that is not 0),
//! `text` (UTF-8; NULs at its end go) and `bytes`. `bits` are of the unsigned number of `type`, `uint8` where there is none;
//! of an `int…` type they have a sign. A float that is NaN or an infinity is null. A field beyond the end of a payload is
//! null, too, if `length` is not set and its column may be; a row is whole or the payload malformed.

use crate::component::{Fault, Kind, Name, Node, Settings, Value};
use crate::flow::payload::Payload;
use crate::format::columns::{ColumnType, Columns, From};
use crate::format::path::Step;
use crate::format::reader::{Common, Reader};
use crate::format::rows::Rows;
use crate::format::{Decoder, DecoderSpec, Malformed};

mod layout;

use layout::{Field, Layout, Repeated};

/// `format = "bytes"`.
pub const KIND: Kind<dyn DecoderSpec> =
    Kind { name: "bytes", about: "binary of a fixed layout: offsets, types, bits", parse };

#[derive(Debug)]
struct Bytes {
    layout: Layout,
    common: Common,
}

fn parse(settings: &mut Settings) -> Option<Box<dyn DecoderSpec>> {
    let layout = Layout::read(settings)?;
    Some(Box::new(Bytes { layout, common: Common::read(settings) }))
}

/// The name of a column's field.
fn wanted(from: &From) -> Option<Option<&str>> {
    match from {
        From::Payload(path) => Some(match &path.steps[..] {
            [Step::Field(name)] => Some(name),
            _ => None,
        }),
        _ => None,
    }
}

impl DecoderSpec for Bytes {
    fn check(&self, columns: &Columns) -> Vec<Fault> {
        let mut faults = Vec::new();
        let names = || self.layout.fields.iter().map(|field| field.name.text.as_str());
        for column in &columns.columns {
            let (name, Some(field)) = (&column.name, wanted(&column.from)) else { continue };
            match field {
                None => faults.push(name.fault(format!("column `{}`: a field of bytes is `$.name`", name.text))),
                Some(field) if !names().any(|known| known == field) => {
                    let fault = name.fault(format!("column `{}`: `fields` has no `{field}`", name.text));
                    faults.push(fault.nearest(field, names()));
                }
                Some(_) => (),
            }
        }
        for field in &self.layout.fields {
            let is_wanted = |from: &From| wanted(from).flatten() == Some(&field.name.text);
            if !columns.columns.iter().any(|column| is_wanted(&column.from)) {
                let fault = field.name.fault(format!("no column is declared for the field `{}`", field.name.text));
                faults.push(fault.help("declare one, or take the field out"));
            }
        }
        faults
    }

    fn build(&self, columns: &Columns) -> Box<dyn Decoder> {
        let field = |name: &str| self.layout.fields.iter().find(|field| field.name.text == name).cloned();
        let of = |(index, column): (usize, &crate::format::columns::Column)| {
            let field = field(wanted(&column.from)??)?;
            Some((index, matches!(column.kind, ColumnType::Binary), field))
        };
        let wanted = columns.columns.iter().enumerate().filter_map(of).collect();
        let reader = BytesReader { length: self.layout.length, repeated: self.layout.rows, wanted, text: Vec::new() };
        self.common.decoder(columns, reader)
    }
}

struct BytesReader {
    length: Option<usize>,
    repeated: Option<Repeated>,
    /// Columns, whether they are binary, and their fields.
    wanted: Vec<(usize, bool, Field)>,
    text: Vec<u8>,
}

impl Reader for BytesReader {
    fn read(&mut self, payload: &Payload<'_>, rows: &mut Rows) -> Result<usize, Malformed> {
        let wrong = |at, why| Malformed { at, why };
        let body = payload.body;
        if let Some(length) = self.length.filter(|length| *length != body.len()) {
            return Err(wrong(None, format!("expected {length} bytes, got {}", body.len())));
        }
        let (first, size, count) = match self.repeated {
            None => (0, 0, 1),
            Some(Repeated { at, size }) => {
                let bytes = body.len().checked_sub(at);
                let bytes =
                    bytes.ok_or_else(|| wrong(None, format!("expected {at} bytes at least, got {}", body.len())))?;
                if bytes % size != 0 {
                    let why = format!("expected rows of {size} bytes from byte {at} on, got {bytes} bytes");
                    return Err(wrong(Some(body.len()), why));
                }
                (at, size, bytes / size)
            }
        };
        for row in 0..count {
            for (column, is_binary, field) in &self.wanted {
                let at = field.at + if field.row { first + row * size } else { 0 };
                let Some(bytes) = body.get(at..).and_then(|rest| rest.get(..field.len)) else {
                    if self.length.is_some() || rows.is_required(*column) {
                        let why = format!("field `{}`: expected {} bytes, got the end", field.name.text, field.len);
                        return Err(wrong(Some(at.min(body.len())), why));
                    }
                    rows.builder(*column).push_null();
                    continue;
                };
                let named = |why| wrong(Some(at), format!("field `{}`: {why}", field.name.text));
                field.push(bytes, *is_binary, *column, rows, &mut self.text).map_err(named)?;
            }
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests;
