//! The `avro` format: one [Avro](https://avro.apache.org/docs/1.12.0/specification/) datum a payload, of a schema in a file.
//!
//! ```toml
//! [sources.events.decode]
//! format = "avro"
//! schema = "schemas/event.avsc"    # the one that payloads are written with
//! framing = "registry"             # what is before the datum: "none", "single_object" or "registry"; "none"
//! schema_id = 17                   # with "registry": the id that payloads must have; without it any will do
//! rows = "$.readings[*]"           # this, `extra`, `non_finite` and the limits are those of the `json` format
//!
//! [sources.events.columns]
//! at = { type = "timestamp", unit = "rfc3339" }    # timestamp-millis and the like, and dates
//! price = "decimal(12,2)"                          # decimals are numbers, exactly
//! kind = "utf8"                                    # enums by their names
//! ```
//!
//! `single_object` checks the fingerprint of the schema. `registry` is the five bytes of Confluent's wire format; the schema
//! comes from the file all the same. A union is its value. Bytes and fixed are base64 text; local timestamps and times of
//! day are numbers of their unit. A schema that contains itself, or items of no bytes, is refused: a short payload could
//! claim any depth or number of them.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use apache_avro::headers::{HeaderBuilder, RabinFingerprintHeader};
use apache_avro::schema::{InnerDecimalSchema, UuidSchema};
use apache_avro::types::Value;
use apache_avro::{GenericSingleObjectReader, Schema};

use crate::component::{Fault, Kind, Name, Settings};
use crate::flow::payload::Payload;
use crate::format::document::{Language, Text, Transcoder, documents};
use crate::format::{DecoderSpec, Malformed};

/// `format = "avro"`.
pub const KIND: Kind<dyn DecoderSpec> =
    Kind { name: "avro", about: "declared columns of Avro records, by their schema file", parse };

/// What the library may allocate for one value, whatever length the payload claims for it.
const ALLOCATION_MAX: usize = 16 << 20;

/// What is before the datum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    None,
    SingleObject,
    Registry,
}

#[derive(Debug)]
struct Avro {
    schema: Name,
    framing: Framing,
    schema_id: Option<u64>,
    /// Read when it is checked.
    known: OnceLock<Arc<Known>>,
}

/// A schema that was read.
#[derive(Debug)]
struct Known {
    schema: Schema,
    shape: Shape,
    header: Vec<u8>,
}

/// What a value's schema tells beyond the value.
#[derive(Clone, Debug)]
enum Shape {
    Plain,
    Decimal(usize),
    Items(Box<Shape>),
    Fields(Vec<Shape>),
    Variants(Vec<Shape>),
}

fn parse(settings: &mut Settings) -> Option<Box<dyn DecoderSpec>> {
    let schema = settings.required::<Name>("schema");
    let framings = [("none", Framing::None), ("single_object", Framing::SingleObject), ("registry", Framing::Registry)];
    let framing = settings.choice("framing", &framings, Framing::None);
    let schema_id = settings.optional("schema_id");
    if schema_id.is_some() && framing != Framing::Registry {
        let what = "`schema_id` goes with `framing = \"registry\"`: other payloads have none";
        settings.fault(Fault::new(settings.at.clone(), what));
    }
    documents(settings, Avro { schema: schema?, framing, schema_id, known: OnceLock::new() })
}

impl Language for Avro {
    fn check(&self) -> Vec<Fault> {
        let path = &self.schema.text;
        let text = std::fs::read_to_string(path).map_err(|why| why.to_string());
        let known = text.and_then(|text| Schema::parse_str(&text).map_err(|why| why.to_string())).and_then(|schema| {
            let shape = Shapes::default().shape(&schema, None)?;
            let header = RabinFingerprintHeader::from_schema(&schema).build_header();
            Ok(Known { schema, shape, header })
        });
        match known {
            Ok(known) => {
                // A second check has read the same.
                let _ = self.known.set(Arc::new(known));
                Vec::new()
            }
            Err(why) => vec![self.schema.fault(format!("schema {path}: {why}"))],
        }
    }

    fn transcoder(&self) -> Box<dyn Transcoder> {
        apache_avro::util::max_allocation_bytes(ALLOCATION_MAX);
        let known = self.known.get().cloned();
        let reader = known.as_ref().and_then(|known| {
            // The framing is looked at here, where it can be told what is wrong with it.
            GenericSingleObjectReader::builder().schema(known.schema.clone()).header(Vec::new()).build().ok()
        });
        Box::new(Datums { framing: self.framing, schema_id: self.schema_id, known: known.zip(reader) })
    }
}

/// Schemas by name, and those that the one at hand is within.
#[derive(Default)]
struct Shapes {
    known: HashMap<String, (Shape, usize)>,
    within: Vec<String>,
}

impl Shapes {
    fn shape(&mut self, schema: &Schema, namespace: Option<&str>) -> Result<Shape, String> {
        Ok(self.shape_and_least(schema, namespace)?.0)
    }

    /// The shape, and the least number of bytes that such a value has.
    fn shape_and_least(&mut self, schema: &Schema, namespace: Option<&str>) -> Result<(Shape, usize), String> {
        Ok(match schema {
            Schema::Null => (Shape::Plain, 0),
            Schema::Fixed(fixed) | Schema::Duration(fixed) | Schema::Uuid(UuidSchema::Fixed(fixed)) => {
                self.known.insert(fixed.name.fullname(namespace), (Shape::Plain, fixed.size));
                (Shape::Plain, fixed.size)
            }
            Schema::Enum(of) => {
                self.known.insert(of.name.fullname(namespace), (Shape::Plain, 1));
                (Shape::Plain, 1)
            }
            Schema::Decimal(decimal) => {
                let shape = (Shape::Decimal(decimal.scale), 1);
                if let InnerDecimalSchema::Fixed(fixed) = &decimal.inner {
                    self.known.insert(fixed.name.fullname(namespace), shape.clone());
                }
                shape
            }
            Schema::Array(array) => {
                let (items, least) = self.shape_and_least(&array.items, namespace)?;
                if least == 0 {
                    return Err("an array has items of no bytes, of which a payload could claim any number".to_owned());
                }
                (Shape::Items(Box::new(items)), 1)
            }
            Schema::Map(map) => (Shape::Items(Box::new(self.shape(&map.types, namespace)?)), 1),
            Schema::Union(union) => {
                let variants = union.variants().iter().map(|variant| self.shape(variant, namespace));
                (Shape::Variants(variants.collect::<Result<_, _>>()?), 1)
            }
            Schema::Record(record) => {
                let name = record.name.fullname(namespace);
                self.within.push(name.clone());
                let inner = record.name.namespace().or(namespace);
                let fields: Result<Vec<_>, _> =
                    record.fields.iter().map(|field| self.shape_and_least(&field.schema, inner)).collect();
                self.within.pop();
                let fields = fields?;
                let least = fields.iter().map(|(_, least)| least).sum();
                let shape = Shape::Fields(fields.into_iter().map(|(shape, _)| shape).collect());
                self.known.insert(name, (shape.clone(), least));
                (shape, least)
            }
            Schema::Ref { name } => {
                let name = name.fullname(namespace);
                if self.within.contains(&name) {
                    return Err(format!("`{name}` contains itself, and a payload could claim any depth"));
                }
                self.known.get(&name).cloned().ok_or_else(|| format!("`{name}` is not defined"))?
            }
            _ => (Shape::Plain, 1),
        })
    }
}

struct Datums {
    framing: Framing,
    schema_id: Option<u64>,
    known: Option<(Arc<Known>, GenericSingleObjectReader)>,
}

fn bad<T>(why: impl Into<String>) -> Result<T, Malformed> {
    Err(Malformed { at: None, why: why.into() })
}

impl Transcoder for Datums {
    fn transcode(&mut self, payload: &Payload<'_>, text: &mut Text) -> Result<(), Malformed> {
        let Some((known, reader)) = &self.known else { return bad("the schema was not read") };
        let mut body = self.unframed(payload.body, known)?;
        let value = match reader.read_value(&mut body) {
            Ok(value) => value,
            Err(why) => return bad(format!("expected an Avro datum of the schema: {why}")),
        };
        if !body.is_empty() {
            return bad(format!("expected the end after one Avro datum, got {} bytes more", body.len()));
        }
        value_text(value, &known.shape, text)
    }
}

impl Datums {
    fn unframed<'b>(&self, body: &'b [u8], known: &Known) -> Result<&'b [u8], Malformed> {
        match self.framing {
            Framing::None => Ok(body),
            Framing::SingleObject => match body.strip_prefix(&known.header[..]) {
                Some(datum) => Ok(datum),
                None if body.starts_with(&known.header[..2]) && body.len() >= known.header.len() => {
                    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
                    let (ours, theirs) = (hex(&known.header[2..]), hex(&body[2..10]));
                    bad(format!("the payload's schema has the fingerprint {theirs}, and the one in the file {ours}"))
                }
                None => bad("expected the bytes c3 01 of a single object and a fingerprint"),
            },
            Framing::Registry => {
                let Some((&[0, a, b, c, d], datum)) = body.split_first_chunk::<5>() else {
                    return bad("expected a zero byte and the four of a schema id");
                };
                let id = u64::from(u32::from_be_bytes([a, b, c, d]));
                match self.schema_id {
                    Some(expected) if expected != id => bad(format!("the payload has schema_id {id}, not {expected}")),
                    _ => Ok(datum),
                }
            }
        }
    }
}

fn value_text(value: Value, shape: &Shape, text: &mut Text) -> Result<(), Malformed> {
    let per_second = |value: i64, units: i64| (value.div_euclid(units), value.rem_euclid(units));
    match (value, shape) {
        (Value::Null, _) => text.null(),
        (Value::Boolean(value), _) => text.bool(value),
        (Value::Int(value) | Value::TimeMillis(value), _) => text.int(value),
        (
            Value::Long(value)
            | Value::TimeMicros(value)
            | Value::LocalTimestampMillis(value)
            | Value::LocalTimestampMicros(value)
            | Value::LocalTimestampNanos(value),
            _,
        ) => text.int(value),
        (Value::Float(value), _) => text.float(f64::from(value)),
        (Value::Double(value), _) => text.float(value),
        (Value::Bytes(bytes) | Value::Fixed(_, bytes), _) => text.base64(&bytes),
        (Value::String(value) | Value::Enum(_, value), _) => text.string(&value),
        (Value::Uuid(value), _) => text.string(&value.to_string()),
        (Value::Date(days), _) => text.time(i64::from(days) * 86_400, 0)?,
        (Value::TimestampMillis(value), _) => {
            let (seconds, rest) = per_second(value, 1_000);
            text.time(seconds, rest as i32 * 1_000_000)?;
        }
        (Value::TimestampMicros(value), _) => {
            let (seconds, rest) = per_second(value, 1_000_000);
            text.time(seconds, rest as i32 * 1_000)?;
        }
        (Value::TimestampNanos(value), _) => {
            let (seconds, rest) = per_second(value, 1_000_000_000);
            text.time(seconds, rest as i32)?;
        }
        (Value::Duration(value), _) => {
            text.map()?;
            let parts: [(&str, u32); 3] =
                [("months", value.months().into()), ("days", value.days().into()), ("millis", value.millis().into())];
            for (name, part) in parts {
                text.key(name);
                text.int(part);
            }
            text.end_map();
        }
        (Value::BigDecimal(value), _) => text.number(&value.to_string()),
        (Value::Decimal(value), Shape::Decimal(scale)) => {
            let bytes = Vec::try_from(&value).map_err(|why| Malformed { at: None, why: why.to_string() })?;
            text.number(&format!("{}e-{scale}", whole(&bytes)?));
        }
        (Value::Union(at, value), Shape::Variants(variants)) => {
            let variant = variants.get(at as usize).unwrap_or(&Shape::Plain);
            value_text(*value, variant, text)?;
        }
        (Value::Array(values), Shape::Items(items)) => {
            text.array()?;
            values.into_iter().try_for_each(|value| value_text(value, items, text))?;
            text.end_array();
        }
        (Value::Map(members), Shape::Items(items)) => {
            let mut members: Vec<_> = members.into_iter().collect();
            // The same payload is the same text, always.
            members.sort_by(|a, b| a.0.cmp(&b.0));
            text.map()?;
            for (key, value) in members {
                text.key(&key);
                value_text(value, items, text)?;
            }
            text.end_map();
        }
        (Value::Record(fields), Shape::Fields(shapes)) => {
            text.map()?;
            for ((name, value), shape) in fields.into_iter().zip(shapes) {
                text.key(&name);
                value_text(value, shape, text)?;
            }
            text.end_map();
        }
        (value, _) => return bad(format!("the schema has no {value:?}")),
    }
    Ok(())
}

/// A whole number of two's complement, the highest byte first.
fn whole(bytes: &[u8]) -> Result<i128, Malformed> {
    let negative = bytes.first().is_some_and(|byte| byte & 0x80 != 0);
    let fill = if negative { 0xff } else { 0 };
    let digits = &bytes[bytes.iter().take_while(|byte| **byte == fill).count()..];
    if digits.len() > 15 {
        return bad(format!("a number of {} bytes fits no column", digits.len()));
    }
    Ok(digits.iter().fold(if negative { -1 } else { 0 }, |value, byte| value << 8 | i128::from(*byte)))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::format::testing::{faults, of_hex, rows};

    const SCHEMA: &str = r#"{"type": "record", "name": "Event", "namespace": "plant", "fields": [
        {"name": "id", "type": "string"},
        {"name": "v", "type": ["null", "double"]},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "price", "type": {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}},
        {"name": "kind", "type": {"type": "enum", "name": "Kind", "symbols": ["A", "B"]}},
        {"name": "more", "type": {"type": "array", "items": {"type": "record", "name": "M", "fields": [
            {"name": "n", "type": "int"}, {"name": "k", "type": "Kind"}]}}}]}"#;
    const COLUMNS: &str = "id = 'utf8'\nv = 'float64'\nat = { type = 'timestamp', unit = 'rfc3339' }\n\
                           price = 'decimal(9,2)'\nkind = 'utf8'";
    /// By hand, from the specification: "d1", 1.5, 1709207264125 ms, -1.25, B, [{-1, A}, {2, B}].
    const DATUM: &str = "04 6431 02 000000000000f83f faed88cbbe63 02 83 02 04 01 00 04 02 00";

    fn settings(folder: &Path, schema: &str, more: &str) -> String {
        std::fs::write(folder.join("s.avsc"), schema).unwrap();
        format!("schema = '{}'\n{more}", folder.join("s.avsc").display())
    }

    fn read(more: &str, columns: &str, hex: &str) -> Result<String, String> {
        let folder = tempfile::tempdir().unwrap();
        rows(parse, &settings(folder.path(), SCHEMA, more), columns, &of_hex(hex)).map_err(|wrong| wrong.why)
    }

    #[test]
    fn datums_are_read() {
        assert_eq!(read("", COLUMNS, DATUM).as_deref(), Ok("d1,1.5,2024-02-29T11:47:44.125Z,-1.25,B"));
        let more = "rows = '$.more[*]'";
        let columns = "id = { type = 'utf8', path = '$$.id' }\nn = 'int64'\nk = 'utf8'";
        assert_eq!(read(more, columns, DATUM).as_deref(), Ok("d1,-1,A;d1,2,B"));
        let said = read("", COLUMNS, "04 64").unwrap_err();
        assert!(said.contains("expected an Avro datum"), "{said}");
        let said = read("", COLUMNS, &format!("{DATUM} 00")).unwrap_err();
        assert!(said.contains("1 bytes more"), "{said}");
    }

    #[test]
    fn a_named_decimal_is_used_again() {
        let schema = r#"{"type": "record", "name": "E", "fields": [{"name": "a", "type": {"type": "fixed", "name": "D", "size": 2,
            "logicalType": "decimal", "precision": 4, "scale": 2}}, {"name": "b", "type": "D"}]}"#;
        let folder = tempfile::tempdir().unwrap();
        let columns = "a = 'decimal(9,2)'\nb = 'decimal(9,2)'";
        let read = rows(parse, &settings(folder.path(), schema, ""), columns, &of_hex("00ff ff9c"));
        assert_eq!(read.as_deref(), Ok("2.55,-1.00"));
    }

    #[test]
    fn frames_are_checked() {
        let header = RabinFingerprintHeader::from_schema(&Schema::parse_str(SCHEMA).unwrap()).build_header();
        let header: String = header.iter().map(|byte| format!("{byte:02x}")).collect();
        let single = "framing = 'single_object'";
        assert!(read(single, COLUMNS, &format!("{header}{DATUM}")).is_ok());
        let other = format!("c301 0000000000000000 {DATUM}");
        assert!(read(single, COLUMNS, &other).unwrap_err().contains("fingerprint 0000000000000000"));
        assert!(read(single, COLUMNS, DATUM).unwrap_err().contains("c3 01"));
        let registry = "framing = 'registry'\nschema_id = 17";
        assert!(read(registry, COLUMNS, &format!("00 00000011 {DATUM}")).is_ok());
        assert!(read(registry, COLUMNS, &format!("00 00000012 {DATUM}")).unwrap_err().contains("schema_id 18, not 17"));
        assert!(read(registry, COLUMNS, "01").unwrap_err().contains("zero byte"));
    }

    #[test]
    fn a_schema_that_could_cost_all_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        for (schema, why) in [
            (
                r#"{"type": "record", "name": "N", "fields": [{"name": "next", "type": ["null", "N"]}]}"#,
                "contains itself",
            ),
            (r#"{"type": "array", "items": "null"}"#, "items of no bytes"),
            (r#"{"type": "recrod"}"#, "s.avsc"),
        ] {
            let found = faults(parse, &settings(folder.path(), schema, ""), "v = 'float64'");
            assert!(found.len() == 1 && found[0].contains(why), "{found:?}");
        }
        let found = faults(parse, &settings(folder.path(), SCHEMA, "schema_id = 1"), "id = 'utf8'");
        assert!(found[0].contains("goes with `framing"), "{found:?}");
        // A payload that claims a gigabyte.
        let said =
            rows(parse, &settings(folder.path(), "\"bytes\"", ""), "v = 'utf8'", &of_hex("80808080 08")).unwrap_err();
        assert!(said.why.contains("Avro datum"), "{said}");
    }
}
