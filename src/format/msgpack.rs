//! The `msgpack` format: one [MessagePack](https://github.com/msgpack/msgpack/blob/master/spec.md) value a payload.
//!
//! ```toml
//! [sources.loggers.decode]
//! format = "msgpack"
//! rows = "$.readings[*]"           # this, `extra`, `non_finite` and the limits are those of the `json` format
//! compression = "zstd"             # how it is packed, and `encoding`: see the `packing` module
//!
//! [sources.loggers.columns]
//! ts = { type = "timestamp", unit = "rfc3339", path = "$.at" }    # of a timestamp (extension −1); else `unit = "ms"` …
//! temp = { type = "float64", path = "$.temp" }
//! frame = { type = "utf8", path = "$$.raw" }                      # bytes are base64
//! ```
//!
//! A float32 is the float64 of the same value. Keys are text or whole numbers: `$.7` of a map with the key 7.

use rmp::Marker;

use crate::component::{Kind, Settings};
use crate::flow::payload::Payload;
use crate::format::document::{Language, Text, Transcoder, documents};
use crate::format::{DecoderSpec, Malformed};

/// `format = "msgpack"`.
pub const KIND: Kind<dyn DecoderSpec> =
    Kind { name: "msgpack", about: "declared columns of MessagePack documents, one row or many a payload", parse };

/// The type of a timestamp among extensions.
const TIMESTAMP: i8 = -1;

#[derive(Debug)]
struct MessagePack;

fn parse(settings: &mut Settings) -> Option<Box<dyn DecoderSpec>> {
    documents(settings, MessagePack)
}

impl Language for MessagePack {
    fn transcoder(&self) -> Box<dyn Transcoder> {
        Box::new(Self)
    }
}

impl Transcoder for MessagePack {
    fn transcode(&mut self, payload: &Payload<'_>, text: &mut Text) -> Result<(), Malformed> {
        let mut input = Input { body: payload.body, at: 0 };
        input.value(text)?;
        input.end()
    }
}

struct Input<'b> {
    body: &'b [u8],
    at: usize,
}

fn bad<T>(at: usize, why: impl Into<String>) -> Result<T, Malformed> {
    Err(Malformed { at: Some(at), why: why.into() })
}

impl<'b> Input<'b> {
    fn end(&self) -> Result<(), Malformed> {
        match self.body.len() - self.at {
            0 => Ok(()),
            rest => bad(self.at, format!("expected the end after one MessagePack value, got {rest} bytes more")),
        }
    }

    fn take(&mut self, len: usize) -> Result<&'b [u8], Malformed> {
        let Some(taken) = self.body.get(self.at..).and_then(|rest| rest.get(..len)) else {
            return bad(self.at, format!("expected {len} bytes more, got the end"));
        };
        self.at += len;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    /// A length of so many bytes.
    fn len(&mut self, bytes: usize) -> Result<usize, Malformed> {
        Ok(self.take(bytes)?.iter().fold(0, |len, byte| len << 8 | usize::from(*byte)))
    }

    fn marker(&mut self) -> Result<Marker, Malformed> {
        let [byte] = self.array()?;
        Ok(Marker::from_u8(byte))
    }

    fn value(&mut self, text: &mut Text) -> Result<(), Malformed> {
        let start = self.at;
        match self.marker()? {
            Marker::Null => text.null(),
            Marker::False => text.bool(false),
            Marker::True => text.bool(true),
            Marker::F32 => text.float(f64::from(f32::from_be_bytes(self.array()?))),
            Marker::F64 => text.float(f64::from_be_bytes(self.array()?)),
            Marker::Bin8 => text.base64(self.sized(1)?),
            Marker::Bin16 => text.base64(self.sized(2)?),
            Marker::Bin32 => text.base64(self.sized(4)?),
            Marker::FixArray(len) => self.items(usize::from(len), text)?,
            Marker::Array16 => self.counted(2, Self::items, text)?,
            Marker::Array32 => self.counted(4, Self::items, text)?,
            Marker::FixMap(len) => self.members(usize::from(len), text)?,
            Marker::Map16 => self.counted(2, Self::members, text)?,
            Marker::Map32 => self.counted(4, Self::members, text)?,
            Marker::FixExt1 => self.extension(1, text)?,
            Marker::FixExt2 => self.extension(2, text)?,
            Marker::FixExt4 => self.extension(4, text)?,
            Marker::FixExt8 => self.extension(8, text)?,
            Marker::FixExt16 => self.extension(16, text)?,
            Marker::Ext8 => self.counted(1, Self::extension, text)?,
            Marker::Ext16 => self.counted(2, Self::extension, text)?,
            Marker::Ext32 => self.counted(4, Self::extension, text)?,
            marker => match (self.integer(marker)?, self.string(marker)?) {
                (Some(integer), _) => text.int(integer),
                (_, Some(string)) => text.string(string),
                _ => return bad(start, "expected a MessagePack value, got the byte 0xc1, which begins none"),
            },
        }
        Ok(())
    }

    fn sized(&mut self, bytes: usize) -> Result<&'b [u8], Malformed> {
        let len = self.len(bytes)?;
        self.take(len)
    }

    fn counted(
        &mut self,
        bytes: usize,
        read: fn(&mut Self, usize, &mut Text) -> Result<(), Malformed>,
        text: &mut Text,
    ) -> Result<(), Malformed> {
        let len = self.len(bytes)?;
        read(self, len, text)
    }

    fn integer(&mut self, marker: Marker) -> Result<Option<i128>, Malformed> {
        Ok(Some(match marker {
            Marker::FixPos(value) => i128::from(value),
            Marker::FixNeg(value) => i128::from(value),
            Marker::U8 => i128::from(u8::from_be_bytes(self.array()?)),
            Marker::U16 => i128::from(u16::from_be_bytes(self.array()?)),
            Marker::U32 => i128::from(u32::from_be_bytes(self.array()?)),
            Marker::U64 => i128::from(u64::from_be_bytes(self.array()?)),
            Marker::I8 => i128::from(i8::from_be_bytes(self.array()?)),
            Marker::I16 => i128::from(i16::from_be_bytes(self.array()?)),
            Marker::I32 => i128::from(i32::from_be_bytes(self.array()?)),
            Marker::I64 => i128::from(i64::from_be_bytes(self.array()?)),
            _ => return Ok(None),
        }))
    }

    fn string(&mut self, marker: Marker) -> Result<Option<&'b str>, Malformed> {
        let len = match marker {
            Marker::FixStr(len) => usize::from(len),
            Marker::Str8 => self.len(1)?,
            Marker::Str16 => self.len(2)?,
            Marker::Str32 => self.len(4)?,
            _ => return Ok(None),
        };
        let start = self.at;
        let bytes = self.take(len)?;
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(Some(text)),
            Err(error) => bad(start + error.valid_up_to(), "expected UTF-8 in a string"),
        }
    }

    fn items(&mut self, len: usize, text: &mut Text) -> Result<(), Malformed> {
        text.array()?;
        for _ in 0..len {
            self.value(text)?;
        }
        text.end_array();
        Ok(())
    }

    fn members(&mut self, len: usize, text: &mut Text) -> Result<(), Malformed> {
        text.map()?;
        for _ in 0..len {
            let start = self.at;
            let marker = self.marker()?;
            match (self.integer(marker)?, self.string(marker)?) {
                (Some(integer), _) => text.number_key(integer),
                (_, Some(string)) => text.key(string),
                _ => return bad(start, "expected a key that is text or a whole number"),
            }
            self.value(text)?;
        }
        text.end_map();
        Ok(())
    }

    /// A timestamp of one of its three lengths, or bytes of a type that nobody here knows.
    fn extension(&mut self, len: usize, text: &mut Text) -> Result<(), Malformed> {
        let start = self.at;
        let kind = i8::from_be_bytes(self.array()?);
        let data = self.take(len)?;
        let mut data = Input { body: data, at: 0 };
        let (seconds, nanos) = match (kind, len) {
            (TIMESTAMP, 4) => (i64::from(u32::from_be_bytes(data.array()?)), 0),
            (TIMESTAMP, 8) => {
                let both = u64::from_be_bytes(data.array()?);
                ((both & ((1 << 34) - 1)) as i64, (both >> 34) as u32)
            }
            (TIMESTAMP, 12) => {
                let nanos = u32::from_be_bytes(data.array()?);
                (i64::from_be_bytes(data.array()?), nanos)
            }
            (TIMESTAMP, _) => return bad(start, format!("expected a timestamp of 4, 8 or 12 bytes, got {len}")),
            _ => {
                text.base64(data.body);
                return Ok(());
            }
        };
        match i32::try_from(nanos) {
            Ok(nanos) if nanos < 1_000_000_000 => text.time(seconds, nanos),
            _ => bad(start, format!("expected less than a second of nanoseconds, got {nanos}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::testing::{all_or_none, decoder, of_hex, rows};

    fn read(kind: &str, hex: &str) -> Result<String, String> {
        rows(parse, "", &format!("v = {{ type = '{kind}', path = '$' }}"), &of_hex(hex)).map_err(|wrong| wrong.why)
    }

    #[test]
    fn every_type_is_read() {
        for (kind, hex, value) in [
            ("int64", "7f", "127"),
            ("int64", "e0", "-32"),
            ("int64", "cc ff", "255"),
            ("int64", "cd 0100", "256"),
            ("int64", "ce 00010000", "65536"),
            ("uint64", "cf ffffffffffffffff", "18446744073709551615"),
            ("int64", "d0 80", "-128"),
            ("int64", "d1 8000", "-32768"),
            ("int64", "d2 80000000", "-2147483648"),
            ("int64", "d3 8000000000000000", "-9223372036854775808"),
            ("float64", "05", "5.0"),
            ("float64", "ca 3dcccccd", "0.10000000149011612"),
            ("float64", "cb 3fb999999999999a", "0.1"),
            ("float32", "ca 3dcccccd", "0.1"),
            ("boolean", "c2", "false"),
            ("boolean", "c3", "true"),
            ("float64", "c0", "-"),
            ("utf8", "a3 61c3a9", "aé"),
            ("utf8", "d9 02 2261", "\"a"),
            ("utf8", "da 0001 61", "a"),
            ("utf8", "db 00000001 61", "a"),
            ("utf8", "c4 03 010203", "AQID"),
            ("utf8", "c5 0001 ff", "/w=="),
            ("utf8", "c6 00000000", ""),
            ("utf8", "d4 05 ff", "/w=="),
            ("utf8", "c7 02 05 ff00", "/wA="),
            ("utf8", "d6 ff 65e06ee0", "2024-02-29T11:47:44Z"),
            ("utf8", "d7 ff 1dcd6500 65e06ee0", "2024-02-29T11:47:44.125Z"),
            ("utf8", "c7 0c ff 3b9ac9ff ffffffffffffffff", "1969-12-31T23:59:59.999999999Z"),
        ] {
            assert_eq!(read(kind, hex).as_deref(), Ok(value), "{kind} {hex}");
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (hex, why) in [
            ("", "expected 1 bytes more, got the end"),
            ("cb 00", "expected 8 bytes more, got the end"),
            ("c1", "the byte 0xc1"),
            ("01 02", "got 1 bytes more"),
            ("a1 ff", "expected UTF-8"),
            ("81 c0 01", "expected a key"),
            ("81 c1 01", "expected a key"),
            ("dd ffffffff", "expected 1 bytes more"),
            ("d4 ff 00", "expected a timestamp of 4, 8 or 12 bytes, got 1"),
            ("d7 ff ffffffff ffffffff", "less than a second"),
            ("cb 7ff8000000000000", "non_finite"),
            ("a1 61", "expected float64, got a string, in the document as JSON at the arrow:  → \"a\""),
        ] {
            let said = read("float64", hex).unwrap_err();
            assert!(said.contains(why), "{hex}: {said}");
        }
        let deep = "91".repeat(33) + "c0";
        assert_eq!(read("float64", &deep), Err("deeper than max_depth = 32".to_owned()));
    }

    #[test]
    fn rows_are_those_of_json() {
        let columns = "id = { type = 'utf8', path = '$$.id' }\nv = { type = 'float64', path = '$.7' }";
        // {"id": "m", "r": [{7: 1}, {7: 2.5, "x": nil}]}
        let body = of_hex("82 a2 6964 a1 6d a1 72 92 81 07 01 82 07 cb 4004000000000000 a1 78 c0");
        let settings = "rows = '$.r[*]'\nnon_finite = 'null'";
        assert_eq!(rows(parse, settings, columns, &body).as_deref(), Ok("m,1.0;m,2.5"));
        let nan = of_hex("82 a2 6964 a1 6d a1 72 91 81 07 ca ff800000");
        assert_eq!(rows(parse, settings, columns, &nan).as_deref(), Ok("m,-"));
        let mut decoder = decoder(parse, "", "v = { type = 'float64', path = '$.v' }");
        all_or_none(&mut *decoder, &of_hex("81 a1 76 01"), &of_hex("81 a1 76 a1 61"));
    }
}
