//! Decoding, beside what else reads JSON into columns, and beside what no decoder can beat.
//!
//! Four shapes of payloads: **U**, all alike; **D**, of which six of a hundred are disturbed (a field more or fewer,
//! another order, white space, cut off); **A**, two shapes in turn; **N**, nested, with times as text.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, AsArray, Float64Builder, Int64Builder, RecordBatch, StringBuilder, TimestampMicrosecondBuilder,
};
use arrow::compute::concat_batches;
use arrow::compute::kernels::cast_utils::string_to_timestamp_nanos;
use arrow::datatypes::{DataType, Field, Fields, Float64Type, Schema, SchemaRef, TimeUnit};
use arrow::json::ReaderBuilder;
use criterion::{Criterion, Throughput};
use serde::Deserialize;
use streamgauge::flow::payload::Payloads;

use super::{Random, SCALAR, SOURCE, Scale, decoded, messages, payloads, plan, rows_of};

/// Columns of payloads that are nested.
const NESTED: &str = r#"
[pipeline]
name = "bench"
durability = "none"

[sources.feed]
type = "mqtt"
url = "mqtt://127.0.0.1:1883"
topics = ["feed"]

[sources.feed.decode]
format = "json"

[sources.feed.columns]
device_id = { type = "utf8", path = "$.device.id" }
ts = "timestamp"
temperature = { type = "float64", path = "$.env.temperature" }
humidity = { type = "float64", path = "$.env.humidity" }
seq = "int64"

[sources.feed.time]
column = "ts"
"#;

/// Of how many devices the payloads are.
const DEVICES: usize = 10_000;

pub(super) fn decode(criterion: &mut Criterion, scale: Scale) {
    for (shape, text, bodies) in [
        ("U", SOURCE, uniform(scale.rows)),
        ("D", SOURCE, disturbed(scale.rows)),
        ("A", SOURCE, alternating(scale.rows)),
        ("N", NESTED, nested(scale.rows)),
    ] {
        beside_others(criterion, shape, text, &payloads("feed", bodies.into_iter()));
    }
    let mut random = Random(42);
    let numbers = (0..scale.rows).map(|_| format!("{}.{:02}", 15 + random.below(15), random.below(100)));
    let scalar = payloads("sites/north/dev-00042", numbers);
    let plan = plan(SCALAR, "feed");
    let mut group = criterion.benchmark_group("decode/scalar");
    group.throughput(Throughput::Elements(scalar.len() as u64));
    group.bench_function("ours", |bench| {
        bench.iter(|| assert_eq!(rows_of(&decoded(&plan.sources[0], &scalar, plan.batch_rows)), scalar.len()));
    });
    group.finish();
}

fn beside_others(criterion: &mut Criterion, shape: &str, text: &str, payloads: &Payloads) {
    let plan = plan(text, "feed");
    let (source, batch_rows) = (&plan.sources[0], plan.batch_rows);
    let typed: fn(&Payloads, usize) -> Vec<RecordBatch> = if text == NESTED { typed_nested } else { typed_flat };
    let schema = if text == NESTED { nested_schema() } else { flat_schema() };
    // What arrow-json cannot read ends it, so it gets the others only.
    let whole = sound(payloads);
    // Checked once, so that only the decoding is measured.
    let ours = decoded(source, payloads, batch_rows);
    let rows = rows_of(&ours);
    assert!(rows > payloads.len() * 9 / 10, "{rows} rows of {} payloads", payloads.len());
    let (columns, typed_columns) = (whole_columns(&ours), whole_columns(&typed(payloads, batch_rows)));
    // The nested documents have no status, which the typed batch is given nevertheless.
    assert_eq!(columns, typed_columns[..columns.len()], "as serde_json");
    assert_eq!(hundredths(&arrow_json(&schema, &whole, batch_rows)), hundredths(&ours), "as arrow-json");
    drop(ours);
    let mut group = criterion.benchmark_group(format!("decode/{shape}"));
    group.throughput(Throughput::Elements(payloads.len() as u64));
    group.bench_function("ours", |bench| {
        bench.iter(|| assert_eq!(rows_of(&decoded(source, payloads, batch_rows)), rows));
    });
    group.bench_function("serde_json typed", |bench| {
        bench.iter(|| assert_eq!(rows_of(&typed(payloads, batch_rows)), rows));
    });
    group.bench_function("arrow-json", |bench| {
        bench.iter(|| assert_eq!(rows_of(&arrow_json(&schema, &whole, batch_rows)), rows));
    });
    let lines: Vec<u8> = payloads.iter().flat_map(|payload| [payload.body, b"\n"].concat()).collect();
    let mut copy = vec![0; lines.len()];
    group.bench_function("limit: newlines, and a copy", |bench| {
        bench.iter(|| {
            copy.copy_from_slice(&lines);
            assert_eq!(memchr::memchr_iter(b'\n', &copy).count(), payloads.len());
        });
    });
    group.finish();
}

/// All rows as one batch's columns, however the batches were cut.
fn whole_columns(batches: &[RecordBatch]) -> Vec<ArrayRef> {
    concat_batches(&batches[0].schema(), batches).expect("batches of one schema").columns().to_vec()
}

/// The sum of all temperatures in hundredths: exact, so the same however the batches are cut.
fn hundredths(batches: &[RecordBatch]) -> i64 {
    let of = |batch: &RecordBatch| {
        let column = batch.column_by_name("temperature").cloned();
        let inner = || batch.column_by_name("env")?.as_struct().column_by_name("temperature").cloned();
        let column = column.or_else(inner).expect("every batch has temperatures");
        column.as_primitive::<Float64Type>().iter().flatten().map(|value| (value * 100.0).round() as i64).sum::<i64>()
    };
    batches.iter().map(of).sum()
}

fn uniform(rows: usize) -> Vec<String> {
    messages(rows, DEVICES, 52).collect()
}

fn disturbed(rows: usize) -> Vec<String> {
    let mut random = Random(7);
    let disturb = |text: String| match random.below(100) {
        0 => text.replace("\"status\":1", &format!("\"status\":1,\"note{}\":\"x\"", random.below(100))),
        1 => text.replace("\"humidity\":", "\"rel_humidity\":"),
        2 => text[..text.len() / 2].to_owned(),
        3 => {
            let mut fields: Vec<&str> = text[1..text.len() - 1].split(',').collect();
            fields.rotate_left(random.below(6) as usize);
            format!("{{{}}}", fields.join(","))
        }
        4 => text.replacen(':', " : ", 1 + random.below(6) as usize),
        5 => text.replace(",\"status\":1", ""),
        _ => text,
    };
    uniform(rows).into_iter().map(disturb).collect()
}

fn alternating(rows: usize) -> Vec<String> {
    let other = |(index, text): (usize, String)| match index % 2 {
        0 => text,
        _ => text
            .replace("\"temperature\"", "\"battery\":3.71,\"temperature\"")
            .replace("\"status\":1", "\"status\":0,\"ok\":true"),
    };
    uniform(rows).into_iter().enumerate().map(other).collect()
}

fn nested(rows: usize) -> Vec<String> {
    let mut random = Random(9);
    let message = |seq: usize| {
        let device = random.below(DEVICES as u64);
        let (temperature, humidity) = (1_500 + random.below(1_500), 3_000 + random.below(4_000));
        format!(
            r#"{{"device":{{"id":"dev-{device:07}"}},"ts":"2026-01-31T12:{:02}:{:02}.{:03}Z","env":{{"temperature":{}.{:02},"humidity":{}.{:02}}},"seq":{seq}}}"#,
            seq / 60_000 % 60,
            seq / 1_000 % 60,
            seq % 1_000,
            temperature / 100,
            temperature % 100,
            humidity / 100,
            humidity % 100,
        )
    };
    (0..rows).map(message).collect()
}

/// The payloads that are JSON.
fn sound(payloads: &Payloads) -> Payloads {
    let is_json = |body: &[u8]| serde_json::from_slice::<serde::de::IgnoredAny>(body).is_ok();
    let mut sound = Payloads::default();
    for payload in payloads.iter().filter(|payload| is_json(payload.body)) {
        sound.push(payload.topic, payload.body, payload.arrival, payload.delivery);
    }
    sound
}

#[derive(Deserialize)]
struct Flat<'a> {
    device_id: Option<&'a str>,
    ts: i64,
    temperature: Option<f64>,
    humidity: Option<f64>,
    seq: Option<i64>,
    status: Option<i64>,
}

#[derive(Deserialize)]
struct Nested<'a> {
    #[serde(borrow)]
    device: Option<Device<'a>>,
    ts: &'a str,
    env: Option<Environment>,
    seq: Option<i64>,
}

#[derive(Deserialize)]
struct Device<'a> {
    id: Option<&'a str>,
}

#[derive(Deserialize)]
struct Environment {
    temperature: Option<f64>,
    humidity: Option<f64>,
}

/// The builders of one batch, for what serde has read.
struct Typed {
    device_id: StringBuilder,
    ts: TimestampMicrosecondBuilder,
    temperature: Float64Builder,
    humidity: Float64Builder,
    seq: Int64Builder,
    status: Int64Builder,
}

impl Typed {
    fn new(rows: usize) -> Self {
        Self {
            device_id: StringBuilder::with_capacity(rows, rows * 12),
            ts: TimestampMicrosecondBuilder::with_capacity(rows),
            temperature: Float64Builder::with_capacity(rows),
            humidity: Float64Builder::with_capacity(rows),
            seq: Int64Builder::with_capacity(rows),
            status: Int64Builder::with_capacity(rows),
        }
    }

    fn push(&mut self, row: &Flat<'_>) {
        self.device_id.append_option(row.device_id);
        self.ts.append_value(row.ts);
        self.temperature.append_option(row.temperature);
        self.humidity.append_option(row.humidity);
        self.seq.append_option(row.seq);
        self.status.append_option(row.status);
    }

    fn finish(mut self) -> RecordBatch {
        let columns: [(&str, ArrayRef); 6] = [
            ("device_id", Arc::new(self.device_id.finish())),
            ("ts", Arc::new(self.ts.finish().with_timezone("UTC"))),
            ("temperature", Arc::new(self.temperature.finish())),
            ("humidity", Arc::new(self.humidity.finish())),
            ("seq", Arc::new(self.seq.finish())),
            ("status", Arc::new(self.status.finish())),
        ];
        RecordBatch::try_from_iter(columns).expect("columns are of one length")
    }
}

/// Payloads to rows by structs that serde fills, in batches.
fn typed(payloads: &Payloads, batch_rows: usize, read: impl Fn(&mut Typed, &[u8])) -> Vec<RecordBatch> {
    let batch = |start: usize| {
        let mut typed = Typed::new(batch_rows);
        for index in start..payloads.len().min(start + batch_rows) {
            read(&mut typed, payloads.get(index).body);
        }
        typed.finish()
    };
    (0..payloads.len()).step_by(batch_rows).map(batch).collect()
}

fn typed_flat(payloads: &Payloads, batch_rows: usize) -> Vec<RecordBatch> {
    typed(payloads, batch_rows, |typed, body| {
        if let Ok(row) = serde_json::from_slice::<Flat<'_>>(body) {
            typed.push(&Flat { ts: row.ts * 1_000, ..row });
        }
    })
}

fn typed_nested(payloads: &Payloads, batch_rows: usize) -> Vec<RecordBatch> {
    typed(payloads, batch_rows, |typed, body| {
        if let Ok(row) = serde_json::from_slice::<Nested<'_>>(body) {
            typed.push(&Flat {
                device_id: row.device.and_then(|device| device.id),
                ts: string_to_timestamp_nanos(row.ts).expect("the message's own time") / 1_000,
                temperature: row.env.as_ref().and_then(|env| env.temperature),
                humidity: row.env.as_ref().and_then(|env| env.humidity),
                seq: row.seq,
                status: None,
            });
        }
    })
}

fn flat_schema() -> SchemaRef {
    let field = |name: &str, kind| Field::new(name, kind, true);
    Arc::new(Schema::new(vec![
        field("device_id", DataType::Utf8),
        field("ts", DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into()))),
        field("temperature", DataType::Float64),
        field("humidity", DataType::Float64),
        field("seq", DataType::Int64),
        field("status", DataType::Int64),
    ]))
}

fn nested_schema() -> SchemaRef {
    let field = |name: &str, kind| Field::new(name, kind, true);
    let inner = |fields: Vec<Field>| DataType::Struct(Fields::from(fields));
    Arc::new(Schema::new(vec![
        field("device", inner(vec![field("id", DataType::Utf8)])),
        field("ts", DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))),
        field("env", inner(vec![field("temperature", DataType::Float64), field("humidity", DataType::Float64)])),
        field("seq", DataType::Int64),
    ]))
}

/// Payloads to rows by arrow-json. Its batches are cut where those of the others are, as far as all payloads have rows.
fn arrow_json(schema: &SchemaRef, payloads: &Payloads, batch_rows: usize) -> Vec<RecordBatch> {
    let decoder = ReaderBuilder::new(schema.clone()).with_batch_size(batch_rows).build_decoder();
    let mut decoder = decoder.expect("arrow-json knows these types");
    let mut batches = Vec::new();
    for (index, payload) in payloads.iter().enumerate() {
        let taken = decoder.decode(payload.body).expect("the payload is JSON");
        assert_eq!(taken, payload.body.len(), "arrow-json takes whole payloads of a batch that is not full");
        if (index + 1) % batch_rows == 0 || index + 1 == payloads.len() {
            batches.extend(decoder.flush().expect("the payloads fit the schema"));
        }
    }
    batches
}
