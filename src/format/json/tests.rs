//! The oracle of the decoder, and tables of payloads.

use std::cell::RefCell;

use arrow::array::AsArray;
use arrow::datatypes::{Float64Type, Int64Type};
use arrow::util::display::array_value_to_string;
use proptest::prelude::*;

mod differential;
mod payloads;
mod shapes;

use super::*;
use crate::flow::payload::Delivery;
use crate::flow::time::Timestamp;
use crate::flow::topic::Topics;
use crate::format::columns;

fn decoder(columns: &str, settings: &str) -> Box<dyn Decoder> {
    Box::new(json_decoder(columns, settings))
}

fn json_decoder(columns: &str, settings: &str) -> JsonDecoder {
    json_decoder_of(columns, &Topics::default(), settings)
}

fn json_decoder_of(columns: &str, topics: &Topics, settings: &str) -> JsonDecoder {
    let (table, _) = Settings::of(columns);
    let columns = columns::read(Some(table), topics, None, None).unwrap();
    let (mut table, faults) = Settings::of(settings);
    let spec = Json::read(&mut table, RowsAt::Declared).unwrap();
    table.finish();
    assert_eq!(*RefCell::borrow(&faults), []);
    assert_eq!(spec.check(&columns), []);
    spec.decoder(&columns)
}

fn push(decoder: &mut dyn Decoder, body: &[u8]) -> Result<usize, Malformed> {
    let arrival = Timestamp::from_micros(5);
    decoder.push(&Payload { topic: b"t", body, arrival, delivery: Delivery::default(), properties: &[] })
}

/// The rows as text: values by `,`, rows by `;`, without the arrival.
fn rows(columns: &str, settings: &str, body: &str) -> Result<String, Malformed> {
    let mut decoder = decoder(columns, settings);
    push(&mut *decoder, body.as_bytes())?;
    let batch = decoder.flush();
    let row = |row| {
        let values = batch.columns()[..batch.num_columns() - 1].iter();
        values.map(|column| array_value_to_string(column, row).unwrap()).collect::<Vec<_>>().join(",")
    };
    Ok((0..batch.num_rows()).map(row).collect::<Vec<_>>().join(";"))
}

#[test]
fn declared_values_are_read() {
    let cases = [
        ("a = 'int64'", r#"{"a":9007199254740993}"#, "9007199254740993"),
        ("a = 'uint64'", r#"{"a":18446744073709551615}"#, "18446744073709551615"),
        ("a = 'int8'", r#"{"a":-128}"#, "-128"),
        ("a = 'float64'", r#"{"a":3}"#, "3.0"),
        ("a = 'float64'", r#" { "x" : [ {} , "\ud83d\ude00" ] , "\u0061" : 2.5e1 } "#, "25.0"),
        ("a = 'utf8'", r#"{"a":"x\n\u00e9\ud83d\ude00"}"#, "x\né😀"),
        ("a = 'boolean'", r#"{"a":true}"#, "true"),
        ("a = 'decimal(5,2)'", r#"{"a":-123.4}"#, "-123.40"),
        ("a = 'float64'", r#"{"a":null}"#, ""),
        ("a = 'float64'", r#"{}"#, ""),
        ("a = { type = 'float64', path = '$.e.h[1].t' }", r#"{"e":{"h":[0,{"t":7}]}}"#, "7.0"),
        ("a = { type = 'timestamp', unit = 's' }", r#"{"a":1.5}"#, "1970-01-01T00:00:01.500Z"),
        ("a = { type = 'int64', path = '$' }", "7", "7"),
    ];
    for (columns, body, expected) in cases {
        assert_eq!(rows(columns, "", body).map_err(|why| why.to_string()).as_deref(), Ok(expected), "{body}");
    }
}

#[test]
fn what_does_not_fit_is_malformed_and_says_where() {
    let cases = [
        ("int64", r#"{"a":1.5}"#, Some(5)),
        ("int64", r#"{"a":1e3}"#, Some(5)),
        ("int64", r#"{"a":9223372036854775808}"#, Some(5)),
        ("uint8", r#"{"a":-1}"#, Some(5)),
        ("float64", r#"{"a":1e400}"#, Some(5)),
        ("float64", r#"{"a":NaN}"#, Some(5)),
        ("float64", r#"{"a":"1"}"#, Some(5)),
        ("float64", r#"{"a":true}"#, Some(5)),
        ("utf8", r#"{"a":{}}"#, Some(5)),
        ("utf8", r#"{"a":1}"#, Some(5)),
        ("boolean", r#"{"a":1}"#, Some(5)),
        ("decimal(3,1)", r#"{"a":1.25}"#, Some(5)),
        ("float64", r#"{"a":1,"a":2}"#, Some(7)),
        ("float64", r#"{"a":1} x"#, Some(8)),
        ("float64", r#"{"a":1"#, Some(6)),
        ("float64", r#"{"b":"\ud800"}"#, Some(6)),
        ("float64", "", Some(0)),
        ("float64", "\u{feff}{}", Some(0)),
        ("float64", "[1]", Some(0)),
    ];
    for (kind, body, at) in cases {
        assert_eq!(rows(&format!("a = '{kind}'"), "", body).unwrap_err().at, at, "{kind} {body}");
    }
    assert_eq!(push(&mut *decoder("a = 'utf8'", ""), b"{\"b\":\"\xff\"}").unwrap_err().at, Some(6));
    assert!(rows("a = { type = 'utf8', required = true }", "", "{}").is_err());
}

#[test]
fn limits_hold() {
    let deep = |depth: usize| format!("{{\"b\":{}{}}}", "[".repeat(depth - 1), "]".repeat(depth - 1));
    assert!(rows("a = 'utf8'", "", &deep(32)).is_ok());
    assert!(rows("a = 'utf8'", "", &deep(33)).is_err());
    assert!(rows("a = 'utf8'", "max_bytes = '5B'", "{    }").is_err());
    assert!(rows("a = 'utf8'", "max_number_len = 3", "{\"b\":1234}").is_err());
    assert!(rows("a = { type = 'int64', path = '$' }", "rows = '$[*]'\nmax_rows = 2", "[1,2,3]").is_err());
}

#[test]
fn payloads_explode_into_rows() {
    let columns = "d = { type = 'utf8', path = '$$.d' }\na = 'int64'";
    let rows = |body| rows(columns, "rows = '$.r[*]'", body).map_err(|why| why.to_string());
    assert_eq!(rows(r#"{"r":[{"a":1},{"a":null},{"a":3}],"d":"x"}"#).as_deref(), Ok("x,1;x,;x,3"));
    assert_eq!(rows(r#"{"d":"x","r":[{"a":1}]}"#).as_deref(), Ok("x,1"));
    assert_eq!(rows(r#"{"r":[]}"#).as_deref(), Ok(""));
    assert!(rows(r#"{"d":"x"}"#).is_err());
    assert!(rows(r#"{"r":{}}"#).is_err());
    assert!(rows(r#"{"r":[{"a":1},{"a":1.5}]}"#).is_err());
}

#[test]
fn captures_are_those_of_each_payload_s_topic() {
    let (table, _) = Settings::of("device = 'int64'\na = 'int64'\nx = { type = 'utf8', from = 'topic' }");
    let topics = Topics::parse(["s/{device}"]).unwrap();
    let columns = columns::read(Some(table), &topics, None, None).unwrap();
    let (mut table, _) = Settings::of("");
    let mut decoder = Json::read(&mut table, RowsAt::Declared).unwrap().decoder(&columns);
    let mut rows = |topics: &[&str]| {
        for topic in topics {
            let (arrival, delivery) = (Timestamp::from_micros(5), Delivery::default());
            let payload = Payload { topic: topic.as_bytes(), body: b"{\"a\":1}", arrival, delivery, properties: &[] };
            assert_eq!(decoder.push(&payload).is_err(), *topic == "s/x", "{topic}");
        }
        let batch = decoder.flush();
        let row = |row| [0, 2].map(|column| array_value_to_string(batch.column(column), row).unwrap()).join("=");
        (0..batch.num_rows()).map(row).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(rows(&["s/1", "s/1", "s/x", "s/1", "s/x", "s/2", "other", "other", "s/2"]), {
        "1=s/1 1=s/1 1=s/1 2=s/2 =other =other 2=s/2"
    });
    // The row above is in another batch now.
    assert_eq!(rows(&["s/2", "s/2"]), "2=s/2 2=s/2");
}

fn json() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        any::<bool>().prop_map(|value| value.to_string()),
        any::<i64>().prop_map(|value| value.to_string()),
        "-?[0-9]{1,3}\\.[0-9]{1,5}",
        any::<String>().prop_map(|text| serde_json::to_string(&text).unwrap()),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        let entry = ("[abc]", inner.clone()).prop_map(|(key, value)| format!("\"{key}\":{value}"));
        prop_oneof![
            prop::collection::vec(inner, 0..4).prop_map(|items| format!("[{}]", items.join(","))),
            prop::collection::vec(entry, 0..4).prop_map(|entries| format!("{{{}}}", entries.join(","))),
        ]
    })
}

proptest! {
    #[test]
    fn syntax_is_that_of_serde_json(text in json(), cut in any::<prop::sample::Index>(), byte in any::<u8>(), how in 0..4) {
        let mut bytes = text.into_bytes();
        let at = cut.index(bytes.len());
        match how {
            0 => bytes[at] = byte,
            1 => bytes.truncate(at),
            2 => bytes.insert(at, byte),
            _ => (),
        }
        let oracle = serde_json::from_slice::<serde_json::Value>(&bytes);
        // The grammar of JSON has no bounds: a number too great for a double matters only where a column wants it.
        prop_assume!(!oracle.as_ref().is_err_and(|why| why.to_string().contains("out of range")));
        let ours = push(&mut *decoder("", ""), &bytes);
        prop_assert_eq!(ours.is_ok(), oracle.is_ok(), "{:?} {:?}", ours, oracle);
    }

    #[test]
    fn values_are_those_of_serde_json(a in any::<i64>(), x in any::<f64>().prop_filter("JSON", |x| x.is_finite()), s in any::<String>()) {
        let body = serde_json::json!({ "s": s, "x": x, "a": a }).to_string();
        let mut decoder = decoder("a = 'int64'\nx = 'float64'\ns = 'utf8'", "");
        prop_assert_eq!(push(&mut *decoder, body.as_bytes()), Ok(1));
        let batch = decoder.flush();
        prop_assert_eq!(batch.column(0).as_primitive::<Int64Type>().value(0), a);
        prop_assert_eq!(batch.column(1).as_primitive::<Float64Type>().value(0), x);
        prop_assert_eq!(batch.column(2).as_string::<i32>().value(0), s);
    }

    #[test]
    fn a_malformed_payload_leaves_its_neighbours_alone(bodies in prop::collection::vec(
        prop_oneof![
            Just(r#"{"a":1,"s":"x"}"#), Just(r#"{"s":"yy"}"#), Just(r#"{"a":null,"b":true}"#),
            Just(r#"{"a":1.5,"s":"x"}"#), Just(r#"{"s":"x","b":false,"a":2"#), Just(r#"{"s":"x","s":"y"}"#),
        ], 0..20)) {
        let columns = "a = 'int64'\ns = 'utf8'\nb = 'boolean'";
        let (mut all, mut good) = (decoder(columns, ""), decoder(columns, ""));
        for body in bodies {
            if push(&mut *all, body.as_bytes()).is_ok() {
                push(&mut *good, body.as_bytes()).unwrap();
            }
        }
        prop_assert_eq!(all.flush(), good.flush());
    }
}

#[test]
fn values_are_converted_as_the_column_says() {
    let on = "a = { type = 'boolean', values = { ON = true, OFF = false, '1' = true } }";
    let mode = "a = { type = 'utf8', values = { '0' = 'off', '1' = 'heat' } }";
    let level = "a = { type = 'int8', values = { low = 1, high = 3 }, nulls = ['unknown', -1] }";
    let scaled = "a = { type = 'float64', scale = 0.1, offset = -40 }";
    let whole = "a = { type = 'int32', scale = 0.1, text = true }";
    let cases = [
        (on, r#""ON""#, "true"),
        (on, r#""OFF""#, "false"),
        (on, "1.0", "true"),
        (mode, "1", "heat"),
        (mode, r#""0""#, "off"),
        (level, r#""high""#, "3"),
        (level, r#""unknown""#, ""),
        (level, "-1.0", ""),
        (level, "null", ""),
        // 0.1 * 605 is 60.5 and 0.1 * 3 is 0.3: as doubles 60.50000000000001 and 0.30000000000000004 before the offset.
        (scaled, "605", "20.5"),
        (scaled, "403", "0.3"),
        (scaled, "-1e1", "-41.0"),
        ("a = { type = 'decimal(6,3)', scale = 0.001 }", "-12345", "-12.345"),
        (whole, r#"" 210 ""#, "21"),
        (whole, "-50", "-5"),
        ("a = { type = 'float64', text = true }", r#""21.5""#, "21.5"),
        ("a = { type = 'float64', text = true }", "21.5", "21.5"),
        ("a = { type = 'boolean', text = true }", r#""off""#, "false"),
        ("a = { type = 'utf8', text = true }", "4711", "4711"),
        ("a = { type = 'utf8', text = true }", "true", "true"),
        ("a = { type = 'timestamp', unit = 'ms', text = true }", r#""1500""#, "1970-01-01T00:00:01.500Z"),
        ("a = { type = 'float64', nulls = [-127, ''] }", "-127", ""),
        ("a = { type = 'float64', nulls = [-127, ''] }", r#""""#, ""),
        ("a = { type = 'float64', nulls = [-127, ''] }", "-127.5", "-127.5"),
    ];
    for (columns, value, expected) in cases {
        let read = rows(columns, "", &format!(r#"{{"a":{value}}}"#)).map_err(|why| why.to_string());
        assert_eq!(read.as_deref(), Ok(expected), "{columns} {value}");
    }
}

#[test]
fn what_cannot_be_converted_is_malformed_and_says_why() {
    let cases = [
        ("{ type = 'boolean', values = { ON = true } }", r#""on""#, r#"expected one of ON, got "on""#),
        ("{ type = 'boolean', values = { ON = true } }", "true", "expected one of ON, got true"),
        ("{ type = 'int8', scale = 0.1 }", "205", "expected a whole number (int8) written without point or exponent"),
        ("{ type = 'uint8', scale = 10 }", "26", "260 does not fit uint8"),
        ("{ type = 'float64', scale = 10 }", r#""26""#, "expected float64, got a string"),
        ("{ type = 'float64', offset = 0.1 }", "1e40", "1e40 cannot be scaled exactly"),
        ("{ type = 'float64', text = true }", r#""warm""#, r#"expected float64, got "warm""#),
        (
            "{ type = 'float64', required = true, nulls = [-127] }",
            "-127",
            "-127 stands for no value, and the column is required",
        ),
    ];
    for (column, value, expected) in cases {
        let why = rows(&format!("a = {column}"), "", &format!(r#"{{"a":{value}}}"#)).unwrap_err();
        assert!(why.why.starts_with(expected), "{column} {value}: {why}");
        assert_eq!(why.at, Some(5), "{column} {value}");
    }
}

#[test]
fn wrong_conversions_are_faults_of_the_pipeline_file() {
    let cases = [
        ("{ type = 'utf8', scale = 2 }", "column `a`: `scale` goes with a type of numbers, not with utf8"),
        ("{ type = 'int8', values = { big = 300 } }", "column `a`: `values`: 300 does not fit int8"),
        ("{ type = 'int8', values = {} }", "`values`: expected at least one value, like `{ ON = true, OFF = false }`"),
        ("{ type = 'int8', nulls = 'x' }", "`nulls`: expected an array of texts and numbers, got a string"),
        ("{ type = 'int8', scale = 'x' }", "`scale`: expected a number, got a string"),
        (
            "{ type = 'uint8', from = 'qos', nulls = [3] }",
            "column `a`: no device writes its values, so there is nothing to convert",
        ),
    ];
    for (column, expected) in cases {
        let (table, noted) = Settings::of(&format!("a = {column}"));
        let other = columns::read(Some(table), &Topics::default(), None, None).err().unwrap_or_default();
        let noted = RefCell::borrow(&noted);
        let faults: Vec<&str> = noted.iter().chain(&other).map(|fault| fault.what.as_str()).collect();
        assert_eq!(faults, [expected], "{column}");
    }
}
