//! Births, data and deaths of an edge node, made with the library's own encoder, and what they come to.

use super::proto::{DataSet, Element, ElementValue, Row, Value};
use super::*;
use crate::flow::payload::Delivery;
use crate::format::Decoder;
use crate::format::testing::{ARRIVAL, decoder, faults, text};

const COLUMNS: &str = "at = { type = 'timestamp', unit = 'ms', path = '$.timestamp' }\nmessage = 'utf8'\n\
                       device = 'utf8'\nname = 'utf8'\nnumber = 'float64'\nstring = 'utf8'\nboolean = 'boolean'";

fn metric(name: Option<&str>, alias: Option<u64>, datatype: Option<u32>, value: Value) -> Metric {
    Metric { name: name.map(str::to_owned), alias, datatype, value: Some(value), ..Metric::default() }
}

fn push(decoder: &mut dyn Decoder, topic: &str, seq: Option<u64>, metrics: Vec<Metric>) -> Result<usize, String> {
    let body = Message { timestamp: Some(1000), metrics, seq }.encode_to_vec();
    let payload = Payload {
        topic: topic.as_bytes(),
        body: &body,
        arrival: ARRIVAL,
        delivery: Delivery::default(),
        properties: &[],
    };
    decoder.push(&payload).map_err(|malformed| malformed.why)
}

fn birth(decoder: &mut dyn Decoder) {
    let metrics = vec![
        metric(Some("bdSeq"), None, Some(4), Value::Long(3)),
        metric(Some("Temp"), Some(1), Some(10), Value::Double(20.5)),
        metric(Some("t8"), Some(2), Some(1), Value::Int(0xffff_ff80)),
    ];
    assert_eq!(push(decoder, "spBv1.0/g/NBIRTH/e", Some(0), metrics), Ok(3));
}

fn lost(decoder: &mut dyn Decoder) -> u64 {
    decoder.tolerated().unwrap().lost_messages
}

#[test]
fn aliases_are_what_their_birth_has_told() {
    let mut decoder = decoder(parse, "", COLUMNS);
    birth(&mut *decoder);
    let device = vec![metric(Some("On"), Some(7), Some(11), Value::Boolean(true))];
    assert_eq!(push(&mut *decoder, "spBv1.0/g/DBIRTH/e/d", Some(1), device), Ok(1));
    let data = vec![
        Metric { timestamp: Some(2000), ..metric(None, Some(1), None, Value::Double(21.0)) },
        metric(None, Some(2), None, Value::Int(0x80)),
        Metric { is_null: Some(true), ..metric(None, Some(2), None, Value::Int(0)) },
    ];
    assert_eq!(push(&mut *decoder, "spBv1.0/g/NDATA/e", Some(2), data), Ok(3));
    let off = vec![metric(None, Some(7), None, Value::Boolean(false))];
    assert_eq!(push(&mut *decoder, "spBv1.0/g/DDATA/e/d", Some(3), off), Ok(1));
    let unknown = push(&mut *decoder, "spBv1.0/g/NDATA/e", Some(4), vec![metric(None, Some(9), None, Value::Int(1))]);
    assert_eq!(unknown, Err("no birth of the edge node g/e has told what alias 9 is".to_owned()));
    assert_eq!(push(&mut *decoder, "spBv1.0/g/DDEATH/e/d", Some(5), vec![]), Ok(1));
    let expected = [
        "1970-01-01T00:00:01Z,NBIRTH,-,bdSeq,3.0,-,-",
        "1970-01-01T00:00:01Z,NBIRTH,-,Temp,20.5,-,-",
        "1970-01-01T00:00:01Z,NBIRTH,-,t8,-128.0,-,-",
        "1970-01-01T00:00:01Z,DBIRTH,d,On,-,-,true",
        "1970-01-01T00:00:02Z,NDATA,-,Temp,21.0,-,-",
        "1970-01-01T00:00:01Z,NDATA,-,t8,-128.0,-,-",
        "1970-01-01T00:00:01Z,NDATA,-,t8,-,-,-",
        "1970-01-01T00:00:01Z,DDATA,d,On,-,-,false",
        "1970-01-01T00:00:01Z,DDEATH,d,-,-,-,-",
    ];
    assert_eq!(text(&decoder.flush()).split(';').collect::<Vec<_>>(), expected);
    assert_eq!(lost(&mut *decoder), 0);
}

#[test]
fn numbers_that_did_not_come_are_counted() {
    let mut decoder = decoder(parse, "", COLUMNS);
    let mut seq = |topic: &str, seq| {
        push(&mut *decoder, topic, seq, vec![metric(Some("x"), None, Some(3), Value::Int(1))]).unwrap();
        lost(&mut *decoder)
    };
    // Before a birth the first is the first; nobody knows what was before.
    let lost = [
        seq("spBv1.0/g/NDATA/e", Some(254)),
        seq("spBv1.0/g/DDATA/e/d", Some(255)),
        seq("spBv1.0/g/NDATA/e", Some(0)),
        seq("spBv1.0/g/NDATA/e", Some(0)),
        seq("spBv1.0/g/NDATA/e", None),
        seq("spBv1.0/g/NDATA/e", Some(4)),
        seq("spBv1.0/g/NDATA/f", Some(9)),
        seq("spBv1.0/g/NBIRTH/e", Some(0)),
        seq("spBv1.0/g/NDATA/e", Some(2)),
    ];
    assert_eq!(lost, [0, 0, 0, 0, 0, 3, 0, 0, 1]);
}

#[test]
fn a_death_is_of_its_session() {
    let columns = "message = 'utf8'\nname = 'utf8'\nstale = 'boolean'\nbd_seq = 'int64'";
    let mut decoder = decoder(parse, "", columns);
    birth(&mut *decoder);
    decoder.flush();
    let mut death = |bd_seq| {
        let metrics = vec![metric(Some("bdSeq"), None, Some(4), Value::Long(bd_seq))];
        push(&mut *decoder, "spBv1.0/g/NDEATH/e", None, metrics).unwrap();
        text(&decoder.flush())
    };
    assert_eq!(death(2), "NDEATH,bdSeq,true,3");
    assert_eq!(death(3), "NDEATH,bdSeq,false,3");
    // What it had told is forgotten.
    let data = push(&mut *decoder, "spBv1.0/g/NDATA/e", Some(1), vec![metric(None, Some(1), None, Value::Double(1.0))]);
    assert!(data.unwrap_err().contains("alias 1"));
}

#[test]
fn what_is_known_goes_on() {
    let mut first = decoder(parse, "", COLUMNS);
    birth(&mut *first);
    let state = first.state().unwrap();
    let mut second = decoder(parse, "", COLUMNS);
    second.restore(&state).unwrap();
    let data = vec![metric(None, Some(1), None, Value::Double(21.0))];
    assert_eq!(push(&mut *second, "spBv1.0/g/NDATA/e", Some(3), data), Ok(1));
    assert_eq!((text(&second.flush()), lost(&mut *second)), ("1970-01-01T00:00:01Z,NDATA,-,Temp,21.0,-,-".into(), 2));
    assert!(second.restore("{").is_err());
}

#[test]
fn a_message_may_be_a_row() {
    let columns = "edge_node = 'utf8'\ntemp = { type = 'float64', path = \"$.metrics['Boiler/Temp']\" }\n\
                   first = { type = 'int64', path = '$.metrics.a[0]' }\nmode = { type = 'utf8', path = '$.metrics.set.rows[0][1]' }";
    let mut decoder = decoder(parse, "rows = 'message'", columns);
    let element = |value| Element { value: Some(value) };
    let set = DataSet {
        columns: vec!["n".to_owned(), "mode".to_owned()],
        types: vec![1, 12],
        rows: vec![Row {
            elements: vec![element(ElementValue::Int(255)), element(ElementValue::String("auto".into()))],
        }],
    };
    let metrics = vec![
        metric(Some("Boiler/Temp"), None, Some(9), Value::Float(1.5)),
        metric(Some("a"), None, Some(23), Value::Bytes(vec![0xfe, 0xff, 1, 0])),
        metric(Some("set"), None, Some(16), Value::DataSet(set)),
    ];
    assert_eq!(push(&mut *decoder, "spBv1.0/g/NDATA/e", Some(0), metrics), Ok(1));
    assert_eq!(text(&decoder.flush()), "e,1.5,-2,auto");
}

#[test]
fn arrays_and_signs_are_those_of_their_type() {
    let read = |datatype, value: Value| {
        let mut text = Text::new(8);
        value.text(DataType(datatype), &mut text).map(|()| String::from_utf8(text.as_bytes().to_vec()).unwrap())
    };
    for (datatype, value, expected) in [
        (1, Value::Int(0x80), "-128"),
        (2, Value::Int(0xffff_fffe), "-2"),
        (3, Value::Int(u32::MAX), "-1"),
        (7, Value::Int(u32::MAX), "4294967295"),
        (4, Value::Long(u64::MAX), "-1"),
        (8, Value::Long(u64::MAX), "18446744073709551615"),
        (22, Value::Bytes(vec![0xff, 1]), "[-1,1]"),
        (29, Value::Bytes(vec![1, 0, 0, 0, 0, 0, 0, 0x80]), "[9223372036854775809]"),
        (30, Value::Bytes(1.5f32.to_le_bytes().to_vec()), "[1.5]"),
        // Twelve booleans of the specification's example.
        (
            32,
            Value::Bytes(vec![0x0c, 0, 0, 0, 0x34, 0xd0]),
            "[false,false,true,true,false,true,false,false,true,true,false,true]",
        ),
        (33, Value::Bytes(b"ABC\0hello\0".to_vec()), "[\"ABC\",\"hello\"]"),
        (17, Value::Bytes(vec![255]), "\"/w==\""),
    ] {
        assert_eq!(read(datatype, value).as_deref(), Ok(expected), "{datatype}");
    }
    assert!(read(1, Value::Int(300)).unwrap_err().contains("300 does not fit Int8"));
    assert!(read(24, Value::Bytes(vec![1])).is_err());
    assert!(read(32, Value::Bytes(vec![9, 0, 0, 0, 1])).is_err());
}

#[test]
fn what_is_wrong_is_said() {
    let mut decoder = decoder(parse, "", COLUMNS);
    let mut wrong = |topic: &str, body: &[u8]| {
        let payload =
            Payload { topic: topic.as_bytes(), body, arrival: ARRIVAL, delivery: Delivery::default(), properties: &[] };
        decoder.push(&payload).map_err(|wrong| wrong.why)
    };
    assert!(wrong("a/b", b"").unwrap_err().contains("expected a topic like"));
    assert!(wrong("spBv1.0/g/NDATA/e", b"\xff").unwrap_err().contains("expected a Sparkplug B payload"));
    assert!(wrong("spBv1.0/STATE/h", b"ON").unwrap_err().contains("STATE"));
    assert_eq!(wrong("spBv1.0/STATE/h", b"{\"online\":true,\"timestamp\":5}"), Ok(1));
    assert_eq!(text(&decoder.flush()), "1970-01-01T00:00:00.005Z,STATE,-,-,-,-,true");
    assert!(faults(parse, "rows = 'all'", COLUMNS)[0].contains("rows"));
}

#[test]
fn a_birth_that_is_missing_is_asked_for_now_and_then() {
    let mut decoder = decoder(parse, "rebirth = true", COLUMNS);
    let mut data = |topic: &str, seq, alias, arrival: i64| {
        let metrics = vec![metric(None, Some(alias), None, Value::Double(1.0))];
        let body = Message { timestamp: Some(1000), metrics, seq: Some(seq) }.encode_to_vec();
        let (topic, arrival) = (topic.as_bytes(), crate::flow::time::Timestamp::from_micros(arrival * 1_000_000));
        let done =
            decoder.push(&Payload { topic, body: &body, arrival, delivery: Delivery::default(), properties: &[] });
        (done.is_ok(), decoder.requests())
    };
    let (read, requests) = data("x/spBv1.0/g/DDATA/e/d", 1, 1, 5);
    assert!(!read && requests.len() == 1, "{requests:?}");
    assert_eq!(requests[0].topic, "x/spBv1.0/g/NCMD/e");
    let asked = Message::decode(&requests[0].body[..]).unwrap();
    assert_eq!(asked.metrics[0].name.as_deref(), Some("Node Control/Rebirth"));
    assert_eq!((asked.timestamp, &asked.metrics[0].value), (Some(5000), &Some(Value::Boolean(true))));
    // Within a minute nobody is asked twice; others are asked for themselves.
    assert_eq!(data("spBv1.0/g/NDATA/e", 2, 1, 64).1, []);
    assert_eq!(data("spBv1.0/g/NDATA/f", 2, 1, 64).1.len(), 1);
    assert_eq!(data("spBv1.0/g/NDATA/e", 3, 1, 65).1.len(), 1);
    let mut quiet = super::super::testing::decoder(parse, "", COLUMNS);
    assert!(push(&mut *quiet, "spBv1.0/g/NDATA/e", Some(1), vec![metric(None, Some(1), None, Value::Int(1))]).is_err());
    assert_eq!(quiet.requests(), []);
}
