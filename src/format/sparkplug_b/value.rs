//! Values of metrics by their data types (section 6.4.16 of the specification).

use super::proto::{DataSet, ElementValue, Template, Value};
use super::{Malformed, Text};

/// A data type by its number; 0 is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DataType(pub(super) u32);

const NAMES: [&str; 35] = [
    "Unknown",
    "Int8",
    "Int16",
    "Int32",
    "Int64",
    "UInt8",
    "UInt16",
    "UInt32",
    "UInt64",
    "Float",
    "Double",
    "Boolean",
    "String",
    "DateTime",
    "Text",
    "UUID",
    "DataSet",
    "Bytes",
    "File",
    "Template",
    "PropertySet",
    "PropertySetList",
    "Int8Array",
    "Int16Array",
    "Int32Array",
    "Int64Array",
    "UInt8Array",
    "UInt16Array",
    "UInt32Array",
    "UInt64Array",
    "FloatArray",
    "DoubleArray",
    "BooleanArray",
    "StringArray",
    "DateTimeArray",
];

impl DataType {
    pub(super) const BOOLEAN: Self = Self(11);

    pub(super) fn name(self) -> Option<&'static str> {
        NAMES.get(self.0 as usize).filter(|_| self.0 > 0).copied()
    }

    /// A whole number with the sign of its type. Some send a negative one with the bits of its type, some with those of the
    /// field.
    fn whole(self, raw: u64, field_bits: u32) -> Result<i128, String> {
        let bits = match self.name() {
            Some("Int8") => 8,
            Some("Int16") => 16,
            Some("Int32") => 32,
            Some("Int64") => 64,
            _ => return Ok(i128::from(raw)),
        };
        let value = (raw << (64 - bits)) as i64 >> (64 - bits);
        let extended = value as u64 & (u64::MAX >> (64 - field_bits));
        if raw == extended || u128::from(raw) < 1 << bits {
            return Ok(i128::from(value));
        }
        Err(format!("{raw} does not fit {}", NAMES[self.0 as usize]))
    }
}

impl Value {
    pub(super) fn text(&self, datatype: DataType, text: &mut Text) -> Result<(), String> {
        match self {
            Self::Int(value) => text.int(datatype.whole(u64::from(*value), 32)?),
            Self::Long(value) => text.int(datatype.whole(*value, 64)?),
            Self::Float(value) => text.float(f64::from(*value)),
            Self::Double(value) => text.float(*value),
            Self::Boolean(value) => text.bool(*value),
            Self::String(value) => text.string(value),
            Self::Bytes(bytes) => match datatype.name().and_then(|name| name.strip_suffix("Array")) {
                Some(of) => array(of, bytes, text)?,
                None => text.base64(bytes),
            },
            Self::DataSet(set) => data_set(set, text)?,
            Self::Template(template) => members(template, text)?,
        }
        Ok(())
    }
}

fn depth(wrong: Malformed) -> String {
    wrong.why
}

/// Items one after the other, the lowest byte first; booleans behind their number, from the highest bit; texts with a NUL
/// behind each.
fn array(of: &str, bytes: &[u8], text: &mut Text) -> Result<(), String> {
    let size = match of {
        "Int8" | "UInt8" => 1,
        "Int16" | "UInt16" => 2,
        "Int32" | "UInt32" | "Float" => 4,
        "Int64" | "UInt64" | "Double" | "DateTime" => 8,
        "Boolean" => return booleans(bytes, text),
        _ => return strings(bytes, text),
    };
    if !bytes.len().is_multiple_of(size) {
        return Err(format!("{} bytes are no whole number of {of}", bytes.len()));
    }
    text.array().map_err(depth)?;
    for item in bytes.chunks_exact(size) {
        let raw = item.iter().rev().fold(0u64, |value, byte| value << 8 | u64::from(*byte));
        match of {
            "Float" => text.float(f64::from(f32::from_bits(raw as u32))),
            "Double" => text.float(f64::from_bits(raw)),
            _ if of.starts_with("Int") => {
                let spare = 64 - 8 * size as u32;
                text.int((raw << spare) as i64 >> spare);
            }
            _ => text.int(raw),
        }
    }
    text.end_array();
    Ok(())
}

fn booleans(bytes: &[u8], text: &mut Text) -> Result<(), String> {
    let (count, bits) = bytes.split_first_chunk::<4>().ok_or("expected the number of booleans")?;
    let count = u32::from_le_bytes(*count) as usize;
    if count > 8 * bits.len() {
        return Err(format!("expected {count} booleans, got {} bytes", bits.len()));
    }
    text.array().map_err(depth)?;
    (0..count).for_each(|at| text.bool(bits[at / 8] >> (7 - at % 8) & 1 == 1));
    text.end_array();
    Ok(())
}

fn strings(bytes: &[u8], text: &mut Text) -> Result<(), String> {
    text.array().map_err(depth)?;
    for item in bytes.split_inclusive(|byte| *byte == 0) {
        let item = item.strip_suffix(&[0]).unwrap_or(item);
        text.string(std::str::from_utf8(item).map_err(|_| "expected UTF-8 in a text of the array")?);
    }
    text.end_array();
    Ok(())
}

fn data_set(set: &DataSet, text: &mut Text) -> Result<(), String> {
    text.map().map_err(depth)?;
    text.key("columns");
    text.array().map_err(depth)?;
    set.columns.iter().for_each(|column| text.string(column));
    text.end_array();
    text.key("rows");
    text.array().map_err(depth)?;
    for row in &set.rows {
        text.array().map_err(depth)?;
        for (at, element) in row.elements.iter().enumerate() {
            let datatype = DataType(set.types.get(at).copied().unwrap_or(0));
            match &element.value {
                None => text.null(),
                Some(ElementValue::Int(value)) => text.int(datatype.whole(u64::from(*value), 32)?),
                Some(ElementValue::Long(value)) => text.int(datatype.whole(*value, 64)?),
                Some(ElementValue::Float(value)) => text.float(f64::from(*value)),
                Some(ElementValue::Double(value)) => text.float(*value),
                Some(ElementValue::Boolean(value)) => text.bool(*value),
                Some(ElementValue::String(value)) => text.string(value),
            }
        }
        text.end_array();
    }
    text.end_array();
    text.end_map();
    Ok(())
}

fn members(template: &Template, text: &mut Text) -> Result<(), String> {
    text.map().map_err(depth)?;
    for metric in &template.metrics {
        text.key(metric.name.as_deref().unwrap_or(""));
        match &metric.value {
            Some(value) if metric.is_null != Some(true) => value.text(DataType(metric.datatype.unwrap_or(0)), text)?,
            _ => text.null(),
        }
    }
    text.end_map();
    Ok(())
}
