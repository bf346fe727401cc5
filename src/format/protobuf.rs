//! The `protobuf` format: one Protocol Buffers message a payload, of a type known from its `.proto` file. No `protoc` is
//! needed.
//!
//! ```toml
//! [sources.pumps.decode]
//! format = "protobuf"
//! schema = "protos/plant.proto"    # or a descriptor set (`protoc -o`), where it does not end in .proto
//! include = ["protos"]             # where imports are looked for: the folder of the schema
//! message = "plant.v1.Reading"     # its full name
//! rows = "$.samples[*]"            # this, `extra`, `non_finite` and the limits are those of the `json` format
//!
//! [sources.pumps.columns]
//! at = { type = "timestamp", unit = "rfc3339" }    # of a google.protobuf.Timestamp
//! pump = "utf8"
//! state = "utf8"                                   # enums by their names
//! flow = "float64"
//! ```
//!
//! Fields have the names that they have in the schema. A field without presence (proto3 without `optional`) that is not in
//! the payload has its default, as the language says: 0 is a value that was measured. One with presence is missing then.
//! Bytes are base64 text; durations and wrappers are what they hold. What the schema does not know is passed over.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use prost_reflect::{
    DescriptorPool, DynamicMessage, FieldDescriptor, Kind as FieldKind, MapKey, MessageDescriptor, ReflectMessage as _,
    Value,
};

use crate::component::{Fault, Kind, Name, Settings};
use crate::flow::payload::Payload;
use crate::format::document::{Language, Text, Transcoder, documents};
use crate::format::{DecoderSpec, Malformed};

/// `format = "protobuf"`.
pub const KIND: Kind<dyn DecoderSpec> =
    Kind { name: "protobuf", about: "declared columns of Protocol Buffers messages, by their .proto file", parse };

#[derive(Debug)]
struct Protobuf {
    schema: Name,
    include: Vec<String>,
    message: Name,
    /// Read when it is checked.
    descriptor: OnceLock<MessageDescriptor>,
}

fn parse(settings: &mut Settings) -> Option<Box<dyn DecoderSpec>> {
    let (schema, message) = (settings.required::<Name>("schema"), settings.required::<Name>("message"));
    let include = settings.or("include", Vec::new());
    let language = Protobuf { schema: schema?, include, message: message?, descriptor: OnceLock::new() };
    documents(settings, language)
}

impl Protobuf {
    fn load(&self) -> Result<MessageDescriptor, Fault> {
        let path = Path::new(&self.schema.text);
        let pool = if path.extension().is_some_and(|extension| extension == "proto") {
            self.compile(path)
        } else {
            let bytes = std::fs::read(path).map_err(|why| why.to_string());
            bytes.and_then(|bytes| DescriptorPool::decode(&bytes[..]).map_err(|why| why.to_string()))
        };
        let pool = pool.map_err(|why| self.schema.fault(format!("schema {}: {why}", path.display())))?;
        let known = pool.get_message_by_name(&self.message.text);
        known.ok_or_else(|| {
            let fault = self.message.fault(format!("no message `{}` in {}", self.message.text, path.display()));
            let names: Vec<String> = pool.all_messages().map(|message| message.full_name().to_owned()).collect();
            fault.nearest(&self.message.text, names.iter().map(String::as_str))
        })
    }

    fn compile(&self, path: &Path) -> Result<DescriptorPool, String> {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let includes = self.include.iter().map(PathBuf::from).chain([folder.to_owned()]);
        // The name alone is looked for in all of them, and the schema is in the last one at least.
        let includes: Vec<PathBuf> = includes.collect();
        let mut compiler = protox::Compiler::new(&includes).map_err(|why| format!("{why:?}"))?;
        compiler.open_file(path).map_err(|why| format!("{why:?}"))?;
        Ok(compiler.descriptor_pool())
    }
}

impl Language for Protobuf {
    fn check(&self) -> Vec<Fault> {
        match self.load() {
            Ok(descriptor) => {
                // A second check has read the same.
                let _ = self.descriptor.set(descriptor);
                Vec::new()
            }
            Err(fault) => vec![fault],
        }
    }

    fn transcoder(&self) -> Box<dyn Transcoder> {
        Box::new(Messages { descriptor: self.descriptor.get().cloned() })
    }
}

struct Messages {
    descriptor: Option<MessageDescriptor>,
}

impl Transcoder for Messages {
    fn transcode(&mut self, payload: &Payload<'_>, text: &mut Text) -> Result<(), Malformed> {
        let wrong = |why: String| Malformed { at: None, why };
        let descriptor = self.descriptor.clone().ok_or_else(|| wrong("the schema was not read".to_owned()))?;
        let message = DynamicMessage::decode(descriptor.clone(), payload.body);
        let expected = |why| wrong(format!("expected a message {}: {why}", descriptor.full_name()));
        message_text(&message.map_err(expected)?, text)
    }
}

fn message_text(message: &DynamicMessage, text: &mut Text) -> Result<(), Malformed> {
    let descriptor = message.descriptor();
    let number = |number| message.get_field_by_number(number);
    match descriptor.full_name() {
        "google.protobuf.Timestamp" | "google.protobuf.Duration" => {
            let seconds = number(1).and_then(|value| value.as_i64()).unwrap_or(0);
            let nanos = number(2).and_then(|value| value.as_i32()).unwrap_or(0);
            if descriptor.name() == "Timestamp" {
                return text.time(seconds, nanos);
            }
            let total = i128::from(seconds) * 1_000_000_000 + i128::from(nanos);
            text.number(&format!("{total}e-9"));
            return Ok(());
        }
        name if is_wrapper(name) => {
            if let (Some(field), Some(value)) = (descriptor.get_field(1), number(1)) {
                return value_text(&field, &value, text);
            }
        }
        _ => (),
    }
    text.map()?;
    for field in descriptor.fields() {
        if field.supports_presence() && !message.has_field(&field) {
            continue;
        }
        text.key(field.name());
        value_text(&field, &message.get_field(&field), text)?;
    }
    text.end_map();
    Ok(())
}

fn is_wrapper(name: &str) -> bool {
    let wrapped = name.strip_prefix("google.protobuf.").and_then(|name| name.strip_suffix("Value"));
    wrapped.is_some_and(|kind| {
        ["Double", "Float", "Int64", "UInt64", "Int32", "UInt32", "Bool", "String", "Bytes"].contains(&kind)
    })
}

fn value_text(field: &FieldDescriptor, value: &Value, text: &mut Text) -> Result<(), Malformed> {
    match value {
        Value::Bool(value) => text.bool(*value),
        Value::I32(value) => text.int(*value),
        Value::I64(value) => text.int(*value),
        Value::U32(value) => text.int(*value),
        Value::U64(value) => text.int(*value),
        Value::F32(value) => text.float(f64::from(*value)),
        Value::F64(value) => text.float(*value),
        Value::String(value) => text.string(value),
        Value::Bytes(value) => text.base64(value),
        Value::EnumNumber(number) => {
            let kind = field.kind();
            match kind.as_enum().and_then(|kind| kind.get_value(*number)) {
                Some(known) => text.string(known.name()),
                // One that the schema does not know yet.
                None => text.string(&number.to_string()),
            }
        }
        Value::Message(message) => message_text(message, text)?,
        Value::List(values) => {
            text.array()?;
            values.iter().try_for_each(|value| value_text(field, value, text))?;
            text.end_array();
        }
        Value::Map(members) => {
            let FieldKind::Message(entry) = field.kind() else { return Ok(()) };
            let of = entry.map_entry_value_field();
            let mut members: Vec<_> = members.iter().collect();
            // The same payload is the same text, always.
            members.sort_by(|a, b| a.0.cmp(b.0));
            text.map()?;
            for (key, value) in members {
                match key {
                    MapKey::Bool(key) => text.number_key(key),
                    MapKey::I32(key) => text.number_key(key),
                    MapKey::I64(key) => text.number_key(key),
                    MapKey::U32(key) => text.number_key(key),
                    MapKey::U64(key) => text.number_key(key),
                    MapKey::String(key) => text.key(key),
                }
                value_text(&of, value, text)?;
            }
            text.end_map();
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::testing::{faults, of_hex, rows};

    const PROTO: &str = r#"syntax = "proto3";
package plant;
import "google/protobuf/timestamp.proto";
import "google/protobuf/duration.proto";
import "google/protobuf/wrappers.proto";
import "parts.proto";
message Reading {
  string name = 1;
  double value = 2;
  google.protobuf.Timestamp at = 3;
  State state = 4;
  repeated Sample samples = 5;
  map<string, float> extra = 6;
  optional int32 level = 7;
  bytes raw = 8;
  google.protobuf.Duration took = 9;
  google.protobuf.UInt64Value big = 10;
  oneof kind { bool on = 11; sint64 count = 12; }
}
enum State { IDLE = 0; RUNNING = 1; }
"#;
    const PARTS: &str = "syntax = \"proto3\";\npackage plant;\nmessage Sample { uint32 at = 1; double v = 2; }\n";

    fn settings(folder: &Path, message: &str) -> String {
        std::fs::write(folder.join("plant.proto"), PROTO).unwrap();
        std::fs::write(folder.join("parts.proto"), PARTS).unwrap();
        format!("schema = '{}'\nmessage = '{message}'", folder.join("plant.proto").display())
    }

    fn read(more: &str, columns: &str, hex: &str) -> Result<String, String> {
        let folder = tempfile::tempdir().unwrap();
        let settings = format!("{}\n{more}", settings(folder.path(), "plant.Reading"));
        let body = of_hex(hex);
        rows(parse, &settings, columns, &body).map_err(|wrong| wrong.why)
    }

    /// The bytes are made by hand from the encoding guide.
    #[test]
    fn messages_are_read() {
        let read = |columns, hex| read("", columns, hex).unwrap();
        // What proto3 leaves out is 0, and what has presence is missing.
        assert_eq!(read("name = 'utf8'\nvalue = 'float64'\nlevel = 'int32'", "0a04 70756d70"), "pump,0.0,-");
        assert_eq!(read("name = 'utf8'\nvalue = 'float64'\nlevel = 'int32'", "11 000000000000f83f 38 07"), ",1.5,7");
        assert_eq!(read("state = 'utf8'\nraw = 'utf8'", "20 01 42 02 ff00"), "RUNNING,/wA=");
        assert_eq!(read("state = 'utf8'", "20 09"), "9");
        // at = 1709207264 s 125000000 ns
        let at = "1a 0b 08 e0dd81af06 10 c0b2cd3b";
        assert_eq!(read("at = { type = 'timestamp', unit = 'rfc3339' }", at), "2024-02-29T11:47:44.125Z");
        assert_eq!(read("took = 'float64'\nbig = 'uint64'", "4a 08 08 01 10 80cab5ee01 52 02 08 05"), "1.5,5");
        assert_eq!(read("on = 'boolean'\ncount = 'int64'", "60 03"), "-,-2");
        assert_eq!(read("a = { type = 'float32', path = '$.extra.a' }", "32 08 0a01 61 15 0000c03f"), "1.5");
        // Fields that the schema does not know: 99 = 1.
        assert_eq!(read("name = 'utf8'", "9806 01"), "");
    }

    #[test]
    fn repeated_messages_are_rows() {
        let columns = "name = { type = 'utf8', path = '$$.name' }\nat = 'int64'\nv = 'float64'";
        let body = "0a01 61 2a 0b 08 01 11 000000000000f83f 2a 02 08 02";
        assert_eq!(read("rows = '$.samples[*]'", columns, body).as_deref(), Ok("a,1,1.5;a,2,0.0"));
        assert_eq!(read("rows = '$.samples[*]'", columns, "0a01 61").as_deref(), Ok(""));
    }

    #[test]
    fn what_is_wrong_is_said() {
        let said = read("", "name = 'utf8'", "0a 05 61").unwrap_err();
        assert!(said.contains("expected a message plant.Reading"), "{said}");
        assert!(read("", "name = 'utf8'", "0a 01 ff").is_err());
        let folder = tempfile::tempdir().unwrap();
        let none = faults(parse, &settings(folder.path(), "plant.Raeding"), "name = 'utf8'");
        assert!(none[0].starts_with("no message `plant.Raeding` in"), "{none:?}");
        let none = faults(parse, "schema = 'gone.proto'\nmessage = 'A'", "name = 'utf8'");
        assert!(none[0].contains("gone.proto"), "{none:?}");
        std::fs::write(folder.path().join("bad.proto"), "syntax = 'proto3'; mesage A {}").unwrap();
        let bad = format!("schema = '{}'\nmessage = 'A'", folder.path().join("bad.proto").display());
        let none = faults(parse, &bad, "name = 'utf8'");
        assert!(none[0].contains("bad.proto:1"), "{none:?}");
    }

    #[test]
    fn a_descriptor_set_will_do() {
        let folder = tempfile::tempdir().unwrap();
        settings(folder.path(), "");
        let mut compiler = protox::Compiler::new([folder.path()]).unwrap();
        compiler.include_imports(true).open_file("plant.proto").unwrap();
        let path = folder.path().join("plant.pb");
        std::fs::write(&path, compiler.encode_file_descriptor_set()).unwrap();
        let settings = format!("schema = '{}'\nmessage = 'plant.Reading'", path.display());
        assert_eq!(rows(parse, &settings, "name = 'utf8'", b"\x0a\x01a").as_deref(), Ok("a"));
    }
}
