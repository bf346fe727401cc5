//! The HTTP server, asked over a socket.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use arrow::array::{ArrayRef, Float64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema};
use streamgauge::component::{Name, Node, Settings, Value};
use streamgauge::flow::message::Epoch;
use streamgauge::flow::meter::{Meter, SourceMeter};
use streamgauge::flow::schema::{StreamSchema, timestamp_type};
use streamgauge::flow::time::Span;
use streamgauge::sink::board::Boards;
use streamgauge::sink::{Sink, SinkContext, metrics};
use streamgauge::telemetry::http::{check_listen, serve};
use streamgauge::telemetry::{PipelineInfo, Queue, StageInfo, StageKind, Telemetry};
use tokio_util::sync::CancellationToken;

fn schema() -> StreamSchema {
    let columns = Schema::new(vec![
        Field::new("device", DataType::Utf8, true),
        Field::new("at", timestamp_type(), false),
        Field::new("temp", DataType::Float64, true),
    ]);
    StreamSchema { columns: Arc::new(columns), time: 1, out_of_orderness: Span::ZERO }
}

fn rows(rows: &[(&str, i64, Option<f64>)]) -> RecordBatch {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values(rows.iter().map(|row| row.0))),
        Arc::new(TimestampMicrosecondArray::from_iter_values(rows.iter().map(|row| row.1)).with_timezone("UTC")),
        Arc::new(Float64Array::from_iter(rows.iter().map(|row| row.2))),
    ];
    RecordBatch::try_new(schema().columns, columns).unwrap()
}

fn sink(boards: &Arc<Boards>) -> Box<dyn Sink> {
    let max = Name { text: "max_series".into(), at: 0..0, expanded: false };
    let entries = vec![(max, Node { at: 0..0, value: Value::Integer(2), expanded: false })];
    let mut settings = Settings::new(0..0, entries, Rc::new(RefCell::new(Vec::new())));
    let spec = (metrics::KIND.parse)(&mut settings).unwrap();
    assert_eq!(spec.check(&schema()), []);
    let context = SinkContext {
        pipeline: "plant".into(),
        name: "live".into(),
        run: "r".into(),
        boards: boards.clone(),
        disk: streamgauge::disk::real(),
        epoch: Epoch(0),
        epoch_every: Span::from_secs(10),
    };
    spec.open(&context, &schema()).unwrap()
}

struct Server {
    addr: SocketAddr,
    source: Arc<SourceMeter>,
    sink: Box<dyn Sink>,
    telemetry: Arc<Telemetry>,
    stop: CancellationToken,
    runtime: tokio::runtime::Runtime,
}

fn start() -> Server {
    let (boards, source) = (Arc::new(Boards::default()), Arc::new(SourceMeter::default()));
    let stage = |name: &str, kind, component: &str, source| StageInfo {
        name: name.into(),
        kind,
        component: component.into(),
        meter: Arc::new(Meter::default()),
        source,
        queue: Some(Queue { len: Box::new(|| 3), capacity: 16 }),
    };
    let stages = vec![
        stage("feed\"\\\n", StageKind::Source, "mqtt", Some(source.clone())),
        stage("w", StageKind::Operator, "window", None),
        stage("live", StageKind::Sink, "metrics", None),
    ];
    stages[1].meter.rows_out[1].store(5, Relaxed);
    let pipelines =
        vec![PipelineInfo { name: "plant".into(), stages, latency: Arc::default(), checkpoints: Arc::default() }];
    pipelines[0].latency.event_to_emit.record(Span::from_millis(20), 10);
    let telemetry = Arc::new(Telemetry { pipelines, boards: boards.clone(), health: Arc::default() });
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    let (addr, stop) = (listener.local_addr().unwrap(), CancellationToken::new());
    runtime.spawn(serve(listener, telemetry.clone(), None, stop.clone()));
    Server { addr, source, sink: sink(&boards), telemetry, stop, runtime }
}

fn ask(addr: SocketAddr, path: &str, host: &str) -> TcpStream {
    let mut stream = TcpStream::connect(addr).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").unwrap();
    stream
}

fn get(addr: SocketAddr, path: &str) -> (u16, String) {
    let mut answer = String::new();
    ask(addr, path, &addr.to_string()).read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head[9..12].parse().unwrap(), body.to_owned())
}

/// Reads `name="value",…`, with escapes.
fn labels(text: &str) -> Vec<(String, String)> {
    let (mut rest, mut labels) = (text, Vec::new());
    while !rest.is_empty() {
        let (name, after) = rest.split_once("=\"").expect("a label has a value in quotes");
        let (mut value, mut chars) = (String::new(), after.char_indices());
        let end = loop {
            match chars.next().expect("a value ends") {
                (index, '"') => break index + 1,
                (_, '\\') => value.push(match chars.next().unwrap().1 {
                    'n' => '\n',
                    c @ ('\\' | '"') => c,
                    c => panic!("escape {c}"),
                }),
                (_, c) => value.push(c),
            }
        };
        labels.push((name.to_owned(), value));
        rest = after[end..].strip_prefix(',').unwrap_or(&after[end..]);
    }
    labels
}

/// Every sample by name and sorted labels; panics where the text is not well formed.
fn parse(text: &str) -> HashMap<(String, Vec<(String, String)>), f64> {
    let (mut samples, mut families) = (HashMap::new(), HashSet::new());
    let mut family = (String::new(), String::new());
    for line in text.lines() {
        if line.starts_with("# HELP ") {
            continue;
        }
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert!(families.insert(name.to_owned()), "{name} has two headers");
            family = (name.to_owned(), kind.to_owned());
            continue;
        }
        let (series, value) = line.rsplit_once(' ').unwrap();
        let (name, inner) =
            series.split_once('{').map_or((series, ""), |(name, rest)| (name, rest.strip_suffix('}').unwrap()));
        let suffix = name.strip_prefix(family.0.as_str()).expect("samples stand under their family");
        let allowed: &[&str] = match family.1.as_str() {
            "histogram" => &["_bucket", "_sum", "_count"],
            "summary" => &["", "_sum", "_count"],
            _ => &[""],
        };
        assert!(allowed.contains(&suffix), "{line}");
        assert!(family.1 != "counter" || name.ends_with("_total"), "{line}");
        assert!(name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'), "{name}");
        let mut labels = labels(inner);
        labels.sort();
        assert!(samples.insert((name.to_owned(), labels), value.parse().unwrap()).is_none(), "twice: {line}");
    }
    samples
}

#[test]
fn the_exposition_is_well_formed() {
    let mut server = start();
    server.source.received.store(42, Relaxed);
    server.sink.write(&rows(&[("a", 1, Some(1.0)), ("b\"<\n", 1, Some(f64::NAN)), ("c", 1, Some(2.0))])).unwrap();
    let (status, text) = get(server.addr, "/metrics");
    assert_eq!(status, 200);
    let samples = parse(&text);
    let value = |name: &str, wanted: &[(&str, &str)]| {
        let mut found = samples.iter().filter(|((have, labels), _)| {
            have == name && wanted.iter().all(|(n, v)| labels.iter().any(|(a, b)| a == n && b == v))
        });
        let value = *found.next().unwrap_or_else(|| panic!("no {name} {wanted:?} in\n{text}")).1;
        assert!(found.next().is_none(), "more than one {name} {wanted:?}");
        value
    };
    let exact = |value: f64, expected: f64| assert!((value - expected).abs() < 1e-9, "{value} is not {expected}");
    exact(value("streamgauge_component_received_events_total", &[("component", "feed\"\\\n")]), 42.0);
    exact(value("streamgauge_component_discarded_events_total", &[("reason", "late"), ("component", "w")]), 5.0);
    exact(value("streamgauge_buffer_capacity_batches", &[("component", "live")]), 16.0);
    exact(value("streamgauge_event_to_emit_seconds_bucket", &[("le", "0.025")]), 10.0);
    exact(value("streamgauge_event_to_emit_seconds_bucket", &[("le", "0.01")]), 0.0);
    exact(value("streamgauge_event_to_emit_seconds_sum", &[]), 0.2);
    exact(value("streamgauge_live_temp", &[("device", "a")]), 1.0);
    assert!(value("streamgauge_live_temp", &[("device", "b\"<\n")]).is_nan());
    exact(value("streamgauge_metrics_sink_dropped_series_total", &[("sink", "live")]), 1.0);
    exact(value("streamgauge_build_info", &[]), 1.0);
    let (_, page) = get(server.addr, "/");
    assert!(page.contains("&lt;") && !page.contains("b\\\"<"), "text of devices is escaped");
}

#[test]
fn the_newest_row_of_a_group_is_shown() {
    let mut server = start();
    server.sink.write(&rows(&[("a", 2_000_000, Some(1.0)), ("b", 1, None)])).unwrap();
    server.sink.write(&rows(&[("a", 1_000_000, Some(9.0)), ("b", 2, Some(5.0))])).unwrap();
    let (status, body) = get(server.addr, "/api/v1/latest/live");
    assert_eq!(
        (status, body.as_str()),
        (
            200,
            "[{\"device\":\"a\",\"at\":\"1970-01-01T00:00:02Z\",\"temp\":1.0},\
             {\"device\":\"b\",\"at\":\"1970-01-01T00:00:00.000002Z\",\"temp\":5.0}]"
        )
    );
    assert_eq!(get(server.addr, "/api/v1/latest/other").0, 404);
    assert_eq!(get(server.addr, "/api/v1/latest/live?pipeline=other").0, 404);
    assert_eq!(get(server.addr, "/api/v1/pipelines").0, 200);
}

#[test]
fn a_stream_has_every_batch_and_ends_at_a_stop() {
    let mut server = start();
    let mut lines = BufReader::new(ask(server.addr, "/api/v1/stream/live", "localhost")).lines();
    // The head is sent once the subscription stands.
    assert!(lines.by_ref().map(Result::unwrap).any(|line| line.is_empty()));
    server.sink.write(&rows(&[("a", 0, Some(1.5))])).unwrap();
    let mut event = lines.by_ref().map(Result::unwrap).skip_while(|line| line != "event: rows");
    event.next();
    assert_eq!(event.next().unwrap(), "data: [{\"device\":\"a\",\"at\":\"1970-01-01T00:00:00Z\",\"temp\":1.5}]");
    server.stop.cancel();
    assert!(lines.map_while(Result::ok).count() < 10, "the stream ends");
    server.runtime.shutdown_background();
}

#[test]
fn readiness_gives_reasons() {
    let server = start();
    let (status, body) = get(server.addr, "/readyz");
    assert_eq!((status, body.contains("not connected")), (503, true), "{body}");
    server.source.connected.store(1, Relaxed);
    assert_eq!(get(server.addr, "/readyz"), (200, "{\"ready\":true,\"reasons\":{}}".to_owned()));
    server.telemetry.health.set("lake", Some("disk full".to_owned()));
    assert_eq!(get(server.addr, "/readyz"), (503, "{\"ready\":false,\"reasons\":{\"lake\":\"disk full\"}}".to_owned()));
    assert_eq!(get(server.addr, "/healthz").0, 200);
}

#[test]
fn strangers_are_refused() {
    let server = start();
    for host in ["evil.example", "localhost.evil.example:80", "127.0.0.1.evil.example"] {
        let mut answer = String::new();
        ask(server.addr, "/metrics", host).read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 421"), "{host}: {answer}");
    }
    assert!(check_listen("127.0.0.1:0".parse().unwrap(), None).is_ok());
    assert!(check_listen("[::1]:0".parse().unwrap(), None).is_ok());
    assert!(check_listen("0.0.0.0:0".parse().unwrap(), None).unwrap_err().contains("without a token"));
}
