//! The `mqtt` sink against a real mosquitto, read back by the `mqtt` source, and against a scripted broker.
#![allow(missing_docs)]

mod support;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema};
use streamgauge::component::{Fault, Settings};
use streamgauge::flow::message::Epoch;
use streamgauge::flow::schema::{StreamSchema, timestamp_type};
use streamgauge::flow::time::Span;
use streamgauge::ingest::Source;
use streamgauge::sink::{Sink, SinkContext, SinkError, SinkSpec, mqtt};
use support::connect::{next, open, subscribed};
use support::fake_broker::{FakeBroker, Peer, connack, packet};
use support::mosquitto::Mosquitto;
use tokio::runtime::Runtime;

fn spec(text: &str) -> Result<Box<dyn SinkSpec>, Vec<Fault>> {
    let entries = streamgauge::pipeline::file::parse(text).0;
    let faults = Rc::new(RefCell::new(Vec::new()));
    let mut settings = Settings::new(0..text.len(), entries, faults.clone());
    let spec = (mqtt::KIND.parse)(&mut settings);
    settings.finish();
    drop(settings);
    let faults = faults.take();
    if faults.is_empty() { Ok(spec.unwrap()) } else { Err(faults) }
}

fn schema() -> StreamSchema {
    let columns = Schema::new(vec![
        Field::new("at", timestamp_type(), false),
        Field::new("d", DataType::Utf8, true),
        Field::new("n", DataType::Int64, false),
        Field::new("x", DataType::Float64, true),
    ]);
    StreamSchema { columns: Arc::new(columns), time: 0, out_of_orderness: Span::ZERO }
}

fn sink(text: &str) -> Box<dyn Sink> {
    let spec = spec(text).unwrap();
    assert_eq!(spec.check(&schema()), []);
    let context = SinkContext {
        pipeline: "p".into(),
        name: "out".into(),
        run: "r".into(),
        boards: Arc::default(),
        disk: streamgauge::disk::real(),
        epoch: Epoch(0),
        epoch_every: Span::from_secs(10),
    };
    spec.open(&context, &schema()).unwrap()
}

fn rows(rows: &[(Option<&str>, i64, Option<f64>)]) -> RecordBatch {
    let at = TimestampMicrosecondArray::from_iter_values(0..rows.len() as i64).with_timezone("UTC");
    let d: StringArray = rows.iter().map(|row| row.0).collect();
    let n: Int64Array = rows.iter().map(|row| Some(row.1)).collect();
    let x: Float64Array = rows.iter().map(|row| row.2).collect();
    RecordBatch::try_new(schema().columns, vec![Arc::new(at), Arc::new(d), Arc::new(n), Arc::new(x)]).unwrap()
}

/// Rows of one device, numbered.
fn numbered(range: std::ops::Range<i64>) -> RecordBatch {
    rows(&range.map(|n| (Some("a"), n, None)).collect::<Vec<_>>())
}

/// As a stage does: the same call again, until it is done.
fn persist(mut call: impl FnMut() -> Result<(), SinkError>) {
    for _ in 0..200 {
        match call() {
            Ok(()) => return,
            Err(SinkError::Retry(_)) => std::thread::sleep(Duration::from_millis(50)),
            Err(SinkError::Fatal(why)) => panic!("{why}"),
        }
    }
    panic!("it never worked again");
}

fn listen(runtime: &Runtime, broker: &Mosquitto, topics: &str, more: &str) -> Box<dyn Source> {
    let text = format!("url = \"{}\"\ntopics = [\"{topics}\"]\n{more}", broker.url());
    let (source, meter) = runtime.block_on(open(&text)).unwrap();
    runtime.block_on(subscribed(&meter));
    source
}

/// Topic, row and whether it was retained, of the next payloads.
fn read(runtime: &Runtime, source: &mut dyn Source, count: usize) -> Vec<(String, serde_json::Value, bool)> {
    let mut seen = Vec::new();
    while seen.len() < count {
        for payload in runtime.block_on(next(source)).unwrap().iter() {
            let topic = String::from_utf8(payload.topic.to_vec()).unwrap();
            seen.push((topic, serde_json::from_slice(payload.body).unwrap(), payload.delivery.retained));
        }
    }
    seen
}

#[test]
fn rows_arrive_under_their_topics() {
    let Some(broker) = Mosquitto::start("allow_anonymous true") else { return };
    let runtime = Runtime::new().unwrap();
    for (protocol, qos) in [(4, 0), (4, 1), (5, 0), (5, 1)] {
        let prefix = format!("s{protocol}{qos}");
        let mut source = listen(&runtime, &broker, &format!("{prefix}/#"), &format!("client_id = \"{prefix}\""));
        let topic = format!("topic = \"{prefix}/{{d}}/{{n}}\"\nqos = {qos}\nprotocol = {protocol}");
        let mut sink = sink(&format!("url = \"{}\"\n{topic}", broker.url()));
        sink.write(&rows(&[(Some("a"), 1, Some(0.5)), (Some("b/#"), i64::MAX, None), (None, -3, Some(f64::NAN))]))
            .unwrap();
        sink.prepare(Epoch(0), false).unwrap();
        let seen = read(&runtime, &mut *source, 3);
        let expected = [
            ("a/1", r#"{"at":"1970-01-01T00:00:00Z","d":"a","n":1,"x":0.5}"#),
            (
                "b%2F%23/9223372036854775807",
                r#"{"at":"1970-01-01T00:00:00.000001Z","d":"b/#","n":9223372036854775807,"x":null}"#,
            ),
            ("null/-3", r#"{"at":"1970-01-01T00:00:00.000002Z","d":null,"n":-3,"x":null}"#),
        ];
        for ((topic, row, retained), (expected_topic, expected_row)) in seen.iter().zip(expected) {
            assert_eq!(*topic, format!("{prefix}/{expected_topic}"));
            assert_eq!(*row, serde_json::from_str::<serde_json::Value>(expected_row).unwrap());
            assert!(!retained);
        }
        runtime.block_on(source.close());
    }
}

#[test]
fn retained_rows_are_there_for_those_who_come_later() {
    let Some(broker) = Mosquitto::start("allow_anonymous true") else { return };
    let runtime = Runtime::new().unwrap();
    let mut sink = sink(&format!("url = \"{}\"\ntopic = \"last/{{d}}\"\nretain = true", broker.url()));
    sink.write(&numbered(0..10)).unwrap();
    sink.prepare(Epoch(0), false).unwrap();
    let mut source = listen(&runtime, &broker, "last/#", "");
    let seen = read(&runtime, &mut *source, 1);
    assert_eq!((seen.len(), seen[0].1["n"].as_i64(), seen[0].2), (1, Some(9), true));
}

#[test]
fn nothing_is_lost_when_the_broker_restarts() {
    let Some(mut broker) = Mosquitto::start("allow_anonymous true") else { return };
    let runtime = Runtime::new().unwrap();
    // Retained, each row under a topic of its own: the broker shows what it has taken since its start.
    let mut sink = sink(&format!("url = \"{}\"\ntopic = \"s/{{n}}\"\nretain = true", broker.url()));
    persist(|| sink.write(&numbered(0..500)));
    persist(|| sink.prepare(Epoch(0), false).map(drop));
    broker.stop();
    let restart = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(700));
        broker.start_again();
        broker
    });
    // More than may wait: the call is held up until the broker is back.
    persist(|| sink.write(&numbered(500..3_000)));
    persist(|| sink.prepare(Epoch(1), false).map(drop));
    let broker = restart.join().unwrap();
    let mut source = listen(&runtime, &broker, "s/#", "");
    let mut seen = BTreeSet::new();
    while seen.len() < 2_500 {
        let more = read(&runtime, &mut *source, 1);
        runtime.block_on(source.ack(more.len() as u64)).unwrap();
        seen.extend(more.iter().map(|(_, row, _)| row["n"].as_i64().unwrap()));
    }
    assert_eq!(seen, (500..3_000).collect::<BTreeSet<_>>());
}

#[test]
fn strangers_are_told_to_check_their_password() {
    let Some(broker) = Mosquitto::start("allow_anonymous false") else { return };
    for protocol in [4, 5] {
        let login = "username = \"u\"\npassword = \"hunter2\"";
        let mut sink = sink(&format!("url = \"{}\"\ntopic = \"t\"\nprotocol = {protocol}\n{login}", broker.url()));
        sink.write(&numbered(0..1)).unwrap();
        let why = sink.prepare(Epoch(0), false).unwrap_err();
        assert!(matches!(&why, SinkError::Fatal(why) if why.contains("check `username` and `password`")), "{why}");
        assert!(!why.to_string().contains("hunter2"));
    }
}

/// Takes a connection, and so many rows on it. It must outlive the sink's wish to read.
async fn take(broker: &FakeBroker, rows: usize) -> (Peer, Vec<i64>) {
    let mut peer = broker.accept().await;
    peer.send(&connack(false, 0, &[])).await;
    let mut seen = Vec::new();
    while seen.len() < rows {
        let Some((first, body)) = peer.read().await else { break };
        if first >> 4 != 3 {
            continue;
        }
        let topic = usize::from(u16::from_be_bytes([body[0], body[1]]));
        let id = &body[2 + topic..4 + topic];
        let row: serde_json::Value = serde_json::from_slice(&body[5 + topic..]).unwrap();
        seen.push(row["n"].as_i64().unwrap());
        peer.send(&packet(0x40, id)).await;
    }
    (peer, seen)
}

#[test]
fn a_broker_that_reads_no_more_is_given_up() {
    let runtime = Runtime::new().unwrap();
    let broker = runtime.block_on(FakeBroker::bind());
    let settings = format!("url = \"mqtt://127.0.0.1:{}\"\ntopic = \"t\"\nkeep_alive = \"5s\"", broker.port);
    // Enough to fill every buffer between the two: 40 rows of half a mebibyte.
    let long = "x".repeat(512 << 10);
    let batch = rows(&(0..40).map(|n| (Some(long.as_str()), n, None)).collect::<Vec<_>>());
    let writing = std::thread::spawn(move || {
        let mut sink = sink(&settings);
        persist(|| sink.write(&batch));
        persist(|| sink.prepare(Epoch(0), false).map(drop));
    });
    let (_peer, seen) = runtime.block_on(async {
        let mut deaf = broker.accept().await;
        deaf.send(&connack(false, 0, &[])).await;
        // It reads nothing; the next connection is a good one.
        let seen = take(&broker, 40).await;
        drop(deaf);
        seen
    });
    assert_eq!(seen, (0..40).collect::<Vec<_>>());
    writing.join().unwrap();
}

#[test]
fn a_broker_that_hangs_up_at_each_row_is_not_stormed() {
    let runtime = Runtime::new().unwrap();
    let broker = runtime.block_on(FakeBroker::bind());
    let settings = format!("url = \"mqtt://127.0.0.1:{}\"\ntopic = \"t\"\nkeep_alive = \"5s\"", broker.port);
    let writing = std::thread::spawn(move || {
        let mut sink = sink(&settings);
        persist(|| sink.write(&numbered(0..3)));
        persist(|| sink.prepare(Epoch(0), false).map(drop));
    });
    let (_peer, seen) = runtime.block_on(async {
        let until = tokio::time::Instant::now() + Duration::from_secs(3);
        let mut connections = 0;
        while let Ok(mut peer) = tokio::time::timeout_at(until, broker.accept()).await {
            peer.send(&connack(false, 0, &[])).await;
            let _ = peer.read().await;
            connections += 1;
        }
        assert!((2..=6).contains(&connections), "{connections}");
        take(&broker, 3).await
    });
    assert_eq!(seen, [0, 1, 2]);
    writing.join().unwrap();
}

#[test]
fn faults_stand_at_the_values() {
    for (wrong, value) in [
        ("topic = \"a/#\"", "#"),
        ("topic = \"a/{d\"", "{d"),
        ("topic = \"\"", ""),
        ("topic = \"t\"\nqos = 2", "2"),
        ("topic = \"t\"\npassword = \"p\"", "\"p\""),
    ] {
        let text = format!("url = \"mqtt://h\"\n{wrong}\n");
        let faults = spec(&text).unwrap_err();
        assert_eq!(faults.len(), 1, "{wrong}: {faults:?}");
        assert_eq!(&text[faults[0].at.clone()], value, "{}", faults[0].what);
    }
    let text = "url = \"mqtt://h\"\ntopic = \"t/{dd}/{x}\"\n";
    let faults = spec(text).unwrap().check(&schema());
    assert_eq!(faults.iter().map(|fault| &text[fault.at.clone()]).collect::<Vec<_>>(), ["{dd}", "{x}"]);
}
