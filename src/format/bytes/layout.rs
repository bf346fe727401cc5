//! Where fields are in binary payloads, and how they are read.

use std::io::Write as _;

use super::{Fault, Name, Node, Rows, Settings, Value};

/// The longest `length`, `at` and `len`, in bytes.
const BYTES_MAX: usize = 1 << 20;

/// The layout of payloads.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    pub(super) fields: Vec<Field>,
    pub(super) length: Option<usize>,
    pub(super) rows: Option<Repeated>,
}

/// Rows one after the other, up to the end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Repeated {
    pub(super) at: usize,
    pub(super) size: usize,
}

/// A field.
#[derive(Clone, Debug)]
pub(super) struct Field {
    pub(super) name: Name,
    /// The first byte, of the payload or of the row.
    pub(super) at: usize,
    /// How many bytes.
    pub(super) len: usize,
    /// Of each row.
    pub(super) row: bool,
    kind: Type,
    /// The lowest bit, and how many.
    bits: Option<(u32, u32)>,
    order: Order,
}

/// How the bytes of a number are ordered.
#[derive(Clone, Copy, Debug)]
struct Order {
    little: bool,
    swapped: bool,
}

/// What a field is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Type {
    Int(usize),
    UInt(usize),
    Float(usize),
    Boolean,
    Text,
    Bytes,
}

const TYPES: [(&str, Type); 15] = [
    ("int8", Type::Int(1)),
    ("int16", Type::Int(2)),
    ("int24", Type::Int(3)),
    ("int32", Type::Int(4)),
    ("int64", Type::Int(8)),
    ("uint8", Type::UInt(1)),
    ("uint16", Type::UInt(2)),
    ("uint24", Type::UInt(3)),
    ("uint32", Type::UInt(4)),
    ("uint64", Type::UInt(8)),
    ("float32", Type::Float(4)),
    ("float64", Type::Float(8)),
    ("boolean", Type::Boolean),
    ("text", Type::Text),
    ("bytes", Type::Bytes),
];

impl Layout {
    pub(super) fn read(settings: &mut Settings) -> Option<Self> {
        let before = settings.faults_len();
        let order = Order::read(settings, Order { little: false, swapped: false });
        let length = settings.up_to("length", BYTES_MAX);
        let rows = settings.table("rows").and_then(|mut table| {
            let (at, size) = (offset(&mut table), table.required::<usize>("size"));
            table.finish();
            Some(Repeated { at: at?, size: size? })
        });
        let mut fields: Vec<Field> = Vec::new();
        match settings.take("fields") {
            Some((_, Node { value: Value::Array(nodes), .. })) if !nodes.is_empty() => {
                for node in nodes {
                    let field = settings.as_table("fields", node).and_then(|table| Field::read(table, order));
                    fields.extend(field);
                }
            }
            Some((key, _)) => settings.fault(key.fault("`fields`: expected an array of one table at least")),
            None => {
                settings.fault(Fault::new(settings.at.clone(), "`fields` is missing: what is in a payload, and where"))
            }
        }
        for (index, field) in fields.iter().enumerate() {
            let name = &field.name;
            if fields[..index].iter().any(|other| other.name.text == name.text) {
                settings.fault(name.fault(format!("the field `{}` stands there twice", name.text)));
            }
            let end = field.at + field.len;
            match (field.row, rows, length) {
                (true, None, _) => settings.fault(name.fault("`row = true`, but there are no `rows`")),
                (true, Some(rows), _) if end > rows.size => {
                    let what = format!("the field `{}` ends at byte {end} of rows of {}", name.text, rows.size);
                    settings.fault(name.fault(what));
                }
                (false, _, Some(length)) if end > length => {
                    let what = format!("the field `{}` ends at byte {end} of payloads of {length}", name.text);
                    settings.fault(name.fault(what));
                }
                _ => (),
            }
        }
        (settings.faults_len() == before).then_some(Self { fields, length, rows })
    }
}

fn offset(table: &mut Settings) -> Option<usize> {
    let at: u64 = table.required("at")?;
    let at = usize::try_from(at).ok().filter(|at| *at <= BYTES_MAX);
    if at.is_none() {
        table.fault(Fault::new(table.at.clone(), format!("`at`: expected at most {BYTES_MAX}")));
    }
    at
}

impl Order {
    fn read(settings: &mut Settings, default: Self) -> Self {
        Self {
            little: settings.choice("endian", &[("big", false), ("little", true)], default.little),
            swapped: settings.choice("word_order", &[("straight", false), ("swapped", true)], default.swapped),
        }
    }

    /// The number that these bytes are.
    fn number(self, bytes: &[u8]) -> u64 {
        let byte = |at: usize| {
            // With swapped words the pairs change places, each with its bytes as they are.
            let pairs = bytes.len() / 2;
            let at = if self.swapped && bytes.len().is_multiple_of(2) { (pairs - 1 - at / 2) * 2 + at % 2 } else { at };
            bytes[if self.little { bytes.len() - 1 - at } else { at }]
        };
        (0..bytes.len()).fold(0, |number, at| number << 8 | u64::from(byte(at)))
    }
}

impl Field {
    fn read(mut table: Settings, order: Order) -> Option<Self> {
        let name = table.required::<Name>("name");
        let at = offset(&mut table);
        let order = Order::read(&mut table, order);
        let row = table.or("row", false);
        let bits: Option<Vec<u64>> = table.optional("bits");
        let kind = match (table.has("type"), bits.is_some()) {
            (false, true) => Type::UInt(1),
            (false, false) => {
                table.fault(Fault::new(table.at.clone(), "`type` is missing"));
                return None;
            }
            _ => table.choice("type", &TYPES, Type::Bytes),
        };
        let len = table.up_to("len", BYTES_MAX);
        let place = table.at.clone();
        let fault = |table: &Settings, what: String| {
            table.fault(Fault::new(place.clone(), what));
            None
        };
        let own = match kind {
            Type::Int(len) | Type::UInt(len) | Type::Float(len) => Some(len),
            Type::Boolean => Some(1),
            Type::Text | Type::Bytes => None,
        };
        let len = match (own, len) {
            (Some(own), None) => own,
            (None, Some(len)) => len,
            (Some(_), Some(_)) => return fault(&table, "`len` goes with `text` and `bytes`".to_owned()),
            (None, None) => return fault(&table, "`len` is missing: how many bytes".to_owned()),
        };
        let bits = match (bits.as_deref(), kind) {
            (None, _) => None,
            (Some([from, count]), Type::Int(_) | Type::UInt(_))
                if *count > 0 && from.saturating_add(*count) <= 8 * len as u64 =>
            {
                Some((*from as u32, *count as u32))
            }
            (Some(_), Type::Int(_) | Type::UInt(_)) => {
                return fault(&table, format!("`bits`: expected the lowest and how many, of {}", 8 * len));
            }
            _ => return fault(&table, "`bits` are those of a whole number".to_owned()),
        };
        table.finish();
        Some(Self { name: name?, at: at?, len, row, kind, bits, order })
    }

    /// Adds the value that these bytes are to a column.
    pub(super) fn push(
        &self,
        bytes: &[u8],
        is_binary: bool,
        column: usize,
        rows: &mut Rows,
        text: &mut Vec<u8>,
    ) -> Result<(), String> {
        text.clear();
        match self.kind {
            Type::Bytes if is_binary => return rows.builder(column).push_string(bytes),
            Type::Bytes => {
                for byte in bytes {
                    // Writing to a vector never fails.
                    let _ = write!(text, "{byte:02x}");
                }
                return rows.builder(column).push_text(text);
            }
            Type::Text => {
                let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
                return rows.builder(column).push_text(&bytes[..end]);
            }
            Type::Boolean => return rows.builder(column).push_truth(bytes != [0]),
            Type::Float(_) => {
                let number = self.order.number(bytes);
                let value =
                    if bytes.len() == 4 { f64::from(f32::from_bits(number as u32)) } else { f64::from_bits(number) };
                if !value.is_finite() {
                    return rows.null(column);
                }
                let _ = write!(text, "{value:?}");
            }
            Type::Int(_) | Type::UInt(_) => {
                let (from, count) = self.bits.unwrap_or((0, 8 * bytes.len() as u32));
                let spare = 64 - count;
                let number = self.order.number(bytes) >> from << spare;
                let signed = matches!(self.kind, Type::Int(_));
                // Shifted down again, with the sign or with zeros.
                let _ = if signed {
                    write!(text, "{}", number as i64 >> spare)
                } else {
                    write!(text, "{}", number >> spare)
                };
            }
        }
        let builder = rows.builder(column);
        match (&text[..], builder.kind()) {
            (b"0" | b"1", super::ColumnType::Boolean) => builder.push_text(text),
            _ => builder.push_number(text),
        }
    }
}
