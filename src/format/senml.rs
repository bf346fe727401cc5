//! The `senml` format: sensor measurement lists in JSON or CBOR ([RFC 8428](https://www.rfc-editor.org/rfc/rfc8428)), a row
//! for each record once it is resolved (section 4.6): base values are added, and times are absolute.
//!
//! ```toml
//! [sources.stations.decode]
//! format = "senml"                 # JSON or CBOR by the first byte; limits and packing are those of the `json` format
//!
//! [sources.stations.columns]
//! t = { type = "timestamp", unit = "s" }      # always there
//! n = "utf8"                                  # the name with its base
//! u = { type = "utf8", required = false }     # the unit, or the base unit
//! v = { type = "float64", required = false }  # and so on: vs, vb, vd, s, ut
//! ```
//!
//! `[{"bn": "urn:dev:ow:1:", "bt": 1.7e9, "n": "temp", "u": "Cel", "v": 20.5}, {"n": "hum", "t": 60, "v": 44}]` is two rows.
//! Times below 2^28 s count from the arrival. A record with base fields alone is no row.

use serde_json::{Map, Number, Value};

use crate::component::{Kind, Settings};
use crate::flow::payload::Payload;
use crate::format::document::{Language, RowsAt, Text, Transcoder, documents};
use crate::format::{DecoderSpec, Malformed, cbor};

/// `format = "senml"`.
pub const KIND: Kind<dyn DecoderSpec> =
    Kind { name: "senml", about: "sensor measurement lists (RFC 8428) in JSON or CBOR, a row for each record", parse };

/// Times below are relative to now (section 4.5.3).
const RELATIVE_BELOW: f64 = (1u64 << 28) as f64;
/// The version of RFC 8428.
const VERSION: u64 = 10;
/// Lists, records, and what an unknown field may have within.
const MAX_DEPTH: usize = 32;

/// Fields of CBOR by their labels (table 4).
const LABELS: [(&str, &str); 15] = [
    ("-1", "bver"),
    ("-2", "bn"),
    ("-3", "bt"),
    ("-4", "bu"),
    ("-5", "bv"),
    ("-6", "bs"),
    ("0", "n"),
    ("1", "u"),
    ("2", "v"),
    ("3", "vs"),
    ("4", "vb"),
    ("5", "s"),
    ("6", "t"),
    ("7", "ut"),
    ("8", "vd"),
];

#[derive(Debug)]
struct SenMl;

fn parse(settings: &mut Settings) -> Option<Box<dyn DecoderSpec>> {
    documents(settings, SenMl)
}

impl Language for SenMl {
    fn rows(&self) -> RowsAt {
        RowsAt::Path("$[*]")
    }

    fn transcoder(&self) -> Box<dyn Transcoder> {
        Box::new(Resolver { text: Text::new(MAX_DEPTH) })
    }
}

struct Resolver {
    /// CBOR as JSON, before it is resolved.
    text: Text,
}

/// What holds from a record on.
#[derive(Default)]
struct Base {
    name: String,
    unit: Option<String>,
    time: f64,
    value: Option<Number>,
    sum: Option<Number>,
}

type Record = Map<String, Value>;

impl Transcoder for Resolver {
    fn transcode(&mut self, payload: &Payload<'_>, text: &mut Text) -> Result<(), Malformed> {
        let mut body = payload.body;
        if matches!(body.first(), Some(0x80..=0x9f)) {
            self.text.clear();
            cbor::transcode(body, &mut self.text)?;
            body = self.text.as_bytes();
        }
        let records: Vec<Record> = serde_json::from_slice(body)
            .map_err(|why| Malformed { at: None, why: format!("expected an array of SenML records: {why}") })?;
        let (mut base, now) = (Base::default(), payload.arrival.micros() as f64 / 1e6);
        text.array()?;
        for (index, record) in records.into_iter().enumerate() {
            let resolved = base.resolve(named(record), now, text);
            resolved.map_err(|why| Malformed { at: None, why: format!("record {}: {why}", index + 1) })?;
        }
        text.end_array();
        Ok(())
    }
}

/// The fields by their names, those of CBOR too.
fn named(record: Record) -> Record {
    let name = |label: String| match LABELS.iter().find(|(known, _)| *known == label) {
        Some((_, name)) => (*name).to_owned(),
        None => label,
    };
    record.into_iter().map(|(label, value)| (name(label), value)).collect()
}

/// Takes a field out, if it is there and of its type.
fn take<T>(record: &mut Record, field: &str, kind: &str, read: fn(Value) -> Option<T>) -> Result<Option<T>, String> {
    let Some(value) = record.remove(field) else { return Ok(None) };
    let got = value.to_string();
    read(value).map(Some).ok_or_else(|| format!("`{field}` is no {kind}: {got}"))
}

fn text(value: Value) -> Option<String> {
    if let Value::String(text) = value { Some(text) } else { None }
}

fn number(value: Value) -> Option<Number> {
    if let Value::Number(number) = value { Some(number) } else { None }
}

fn truth(value: Value) -> Option<bool> {
    value.as_bool()
}

impl Base {
    /// Takes over the base fields of a record, and writes what it is with them.
    fn resolve(&mut self, mut record: Record, now: f64, out: &mut Text) -> Result<(), String> {
        self.take_over(&mut record)?;
        if let Some(field) = record.keys().find(|field| field.ends_with('_')) {
            return Err(format!("`{field}` must be understood (section 4.4), and is not"));
        }
        let own = take(&mut record, "n", "text", text)?.unwrap_or_default();
        let time = take(&mut record, "t", "number", number)?;
        let unit = take(&mut record, "u", "text", text)?.or_else(|| self.unit.clone());
        let (value, sum) = (take(&mut record, "v", "number", number)?, take(&mut record, "s", "number", number)?);
        let (said, held) = (take(&mut record, "vs", "text", text)?, take(&mut record, "vb", "truth value", truth)?);
        let data = take(&mut record, "vd", "text", text)?;
        let values = [value.is_some(), said.is_some(), held.is_some(), data.is_some()];
        match values.iter().filter(|there| **there).count() {
            // A base value is the value where there is none, and so is a base sum.
            0 if sum.is_none() && self.value.is_none() && self.sum.is_none() => return Ok(()),
            0 | 1 => (),
            _ => return Err("it has more than one of `v`, `vs`, `vb` and `vd`".to_owned()),
        }
        let name = self.full_name(&own)?;
        let time = self.time + time.as_ref().and_then(Number::as_f64).unwrap_or(0.0);
        let time = if time < RELATIVE_BELOW { now + time } else { time };
        let other_value = said.is_some() || held.is_some() || data.is_some();
        let value = if other_value { value } else { added(self.value.as_ref(), value)? };
        let sum = added(self.sum.as_ref(), sum)?;

        out.map().map_err(|why| why.why)?;
        let mut field = |name: &str, write: &dyn Fn(&mut Text)| {
            out.key(name);
            write(out);
        };
        field("n", &|out| out.string(&name));
        field("t", &|out| out.number(&format!("{time:.6}")));
        let mut texts = |name: &str, value: Option<&String>| {
            if let Some(value) = value {
                field(name, &|out| out.string(value));
            }
        };
        texts("u", unit.as_ref());
        texts("vs", said.as_ref());
        texts("vd", data.as_ref());
        for (name, value) in [("v", value), ("s", sum)] {
            if let Some(value) = value {
                field(name, &|out| out.number(&value.to_string()));
            }
        }
        if let Some(held) = held {
            field("vb", &|out| out.bool(held));
        }
        for (name, value) in &record {
            field(name, &|out| out.number(&value.to_string()));
        }
        out.end_map();
        Ok(())
    }

    fn take_over(&mut self, record: &mut Record) -> Result<(), String> {
        if let Some(version) = take(record, "bver", "number", number)?
            && version.as_u64().is_none_or(|version| version > VERSION)
        {
            return Err(format!("its version is {version}, and {VERSION} is the newest that is known"));
        }
        if let Some(name) = take(record, "bn", "text", text)? {
            self.name = name;
        }
        if let Some(time) = take(record, "bt", "number", number)? {
            self.time = time.as_f64().unwrap_or(0.0);
        }
        self.unit = take(record, "bu", "text", text)?.or(self.unit.take());
        self.value = take(record, "bv", "number", number)?.or(self.value.take());
        self.sum = take(record, "bs", "number", number)?.or(self.sum.take());
        Ok(())
    }

    /// The name with its base, of the signs that section 4.5.1 allows.
    fn full_name(&self, own: &str) -> Result<String, String> {
        let name = format!("{}{own}", self.name);
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-:./_".contains(&byte);
        match name.as_bytes() {
            [] => Err("it has no name, and no base name".to_owned()),
            [first, ..] if first.is_ascii_alphanumeric() && name.bytes().all(allowed) => Ok(name),
            _ => Err(format!("`{name}` is no name: letters, digits and -:./_ are allowed, a letter or digit first")),
        }
    }
}

/// A value with its base. Whole numbers stay whole.
fn added(base: Option<&Number>, value: Option<Number>) -> Result<Option<Number>, String> {
    let (Some(base), Some(value)) = (base, &value) else { return Ok(value.or_else(|| base.cloned())) };
    if let Some(sum) = base.as_i64().zip(value.as_i64()).and_then(|(base, value)| base.checked_add(value)) {
        return Ok(Some(sum.into()));
    }
    let sum = base.as_f64().unwrap_or(f64::NAN) + value.as_f64().unwrap_or(f64::NAN);
    Number::from_f64(sum).map(Some).ok_or_else(|| format!("{base} + {value} is no finite number"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::testing::{of_hex, rows};

    const COLUMNS: &str = "t = { type = 'timestamp', unit = 's' }\nn = 'utf8'\nu = 'utf8'\nv = 'float64'\nvs = 'utf8'\n\
                           vb = 'boolean'\ns = 'float64'";

    fn read(text: &str) -> Result<String, String> {
        rows(parse, "", COLUMNS, text.as_bytes()).map_err(|wrong| wrong.why)
    }

    #[test]
    fn records_are_resolved() {
        let text = r#"[{"bn": "d:", "bt": 1320067464, "bu": "Cel", "bv": 20, "n": "a", "v": 1},
            {"n": "b", "t": -5, "u": "%RH", "v": 0.5}, {"n": "c", "vs": "x"}, {"n": "d", "vb": true, "bt": 1.3200676e9},
            {"n": "e", "bs": 1.5, "s": 2}]"#;
        let expected = [
            "2011-10-31T13:24:24Z,d:a,Cel,21.0,-,-,-",
            "2011-10-31T13:24:19Z,d:b,%RH,20.5,-,-,-",
            "2011-10-31T13:24:24Z,d:c,Cel,-,x,-,-",
            "2011-10-31T13:26:40Z,d:d,Cel,-,-,true,-",
            "2011-10-31T13:26:40Z,d:e,Cel,20.0,-,-,3.5",
        ];
        assert_eq!(read(text).unwrap().split(';').collect::<Vec<_>>(), expected);
    }

    #[test]
    fn times_may_count_from_the_arrival() {
        // It is 5 µs past 1970.
        assert_eq!(read(r#"[{"n": "a", "v": 1}]"#).unwrap(), "1970-01-01T00:00:00.000005Z,a,-,1.0,-,-,-");
        assert_eq!(read(r#"[{"n": "a", "t": -60, "v": 1}]"#).unwrap(), "1969-12-31T23:59:00.000005Z,a,-,1.0,-,-,-");
        assert_eq!(read(r#"[{"bn": "a", "bt": 1320067464}, {"t": 1, "v": 1}]"#).unwrap().split(';').count(), 1);
        assert_eq!(read("[]").as_deref(), Ok(""));
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, why) in [
            ("{}", "expected an array of SenML records"),
            (r#"[{"v": 1}]"#, "record 1: it has no name"),
            (r#"[{"n": "a", "v": 1}, {"n": "ü", "v": 1}]"#, "record 2: `ü` is no name"),
            (r#"[{"n": "-a", "v": 1}]"#, "`-a` is no name"),
            (r#"[{"n": "a", "v": "1"}]"#, "`v` is no number: \"1\""),
            (r#"[{"n": "a", "v": 1, "vs": "1"}]"#, "more than one of"),
            (r#"[{"n": "a", "v": 1, "x_": 1}]"#, "`x_` must be understood"),
            (r#"[{"n": "a", "v": 1, "bver": 11}]"#, "its version is 11"),
        ] {
            let said = read(text).unwrap_err();
            assert!(said.contains(why), "{text}: {said}");
        }
    }

    #[test]
    fn cbor_has_labels() {
        // The first records of the example of RFC 8428, section 6: {-2: "urn:dev:", -3: 1276020076.001, 0: "v", 2: 120.1}, …
        let hex = "82 a4 21 68 75726e3a6465763a 22 fb41d303a15b001062 00 61 76 02 fb405e066666666666 \
                   a3 00 61 63 06 24 02 fb3ff3333333333333";
        let body = of_hex(hex);
        assert_eq!(
            rows(parse, "", COLUMNS, &body).unwrap(),
            "2010-06-08T18:01:16.001Z,urn:dev:v,-,120.1,-,-,-;2010-06-08T18:01:11.001Z,urn:dev:c,-,1.2,-,-,-"
        );
    }
}
