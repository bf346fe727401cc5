//! How fast the parts are, in rows a second: `cargo bench --bench stages`.
//!
//! Every part is built from the text of a pipeline file, so that what is measured is what runs. Under `--test` (and
//! `cargo test --benches`) each part runs once, on little data, and its result is checked.

use std::collections::HashSet;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use arrow::array::{AsArray, RecordBatch};
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput};
use crossbeam_channel::bounded;
use streamgauge::disk;
use streamgauge::engine::{Options, Prepared};
use streamgauge::flow::batch::Batch;
use streamgauge::flow::inbox::Inbox;
use streamgauge::flow::message::{Epoch, Message, Severed};
use streamgauge::flow::meter::Meter;
use streamgauge::flow::outbox::{Emit, Outbox, Port};
use streamgauge::flow::payload::{Delivery, Payloads};
use streamgauge::flow::time::{Span, Timestamp};
use streamgauge::ingest::keys::KeyNumbers;
use streamgauge::ingest::recording::{ReplaySpec, Shape, Speed};
use streamgauge::operator::Operator;
use streamgauge::pipeline::load_text;
use streamgauge::pipeline::plan::{Plan, PlannedSource};
use streamgauge::sink::SinkContext;
use streamgauge::telemetry::Telemetry;

#[path = "stages/decode.rs"]
mod decode;

/// The allocator of the binary.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What every pipeline here reads: readings of many devices, in six fields.
const SOURCE: &str = r#"
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
device_id = "utf8"
ts = { type = "timestamp", unit = "ms" }
temperature = "float64"
humidity = "float64"
seq = "int64"
status = "int64"

[sources.feed.time]
column = "ts"
"#;

/// A source of bare numbers.
const SCALAR: &str = r#"
[pipeline]
name = "bench"
durability = "none"

[sources.feed]
type = "mqtt"
url = "mqtt://127.0.0.1:1883"
topics = ["sites/{site}/{device}"]

[sources.feed.decode]
format = "scalar"
"#;

/// A sink for a pipeline that needs one to be whole; it is never opened.
const SINK: &str = "\n[sinks.out]\ntype = \"stdout\"\ninputs = [\"LAST\"]\n";

/// Event time of the first row, in milliseconds.
const BEGIN_MS: u64 = 1_700_000_000_000;

/// What `peers/run.py` compares.
const REPLAYED: &str = include_str!("peers/windows.toml");

/// How much is measured at once.
#[derive(Clone, Copy)]
struct Scale {
    rows: usize,
    /// Of windows: a group begins and is emitted in each of them, and that should not be most of what is measured.
    window_rows: usize,
    groups: &'static [usize],
}

const WHOLE: Scale = Scale { rows: 1 << 19, window_rows: 10_000_000, groups: &[1_000, 10_000, 100_000, 1_000_000] };

/// Every window emits every group: with more groups than this a run takes minutes.
const HOPPING_GROUPS_MAX: usize = 100_000;

const TEST: Scale = Scale { rows: 1 << 10, window_rows: 1 << 10, groups: &[10] };

fn main() {
    // As criterion does: only `cargo bench` says `--bench`, and `-- --test` turns it back.
    let says = |flag: &str| std::env::args().any(|argument| argument == flag);
    let scale = if says("--bench") && !says("--test") { WHOLE } else { TEST };
    let criterion = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .without_plots();
    let mut criterion = criterion.configure_from_args();
    decode::decode(&mut criterion, scale);
    filter(&mut criterion, scale);
    cells(&mut criterion, scale);
    windows(&mut criterion, scale);
    sessions(&mut criterion, scale);
    hop(&mut criterion, scale);
    parquet(&mut criterion, scale);
    replay(&mut criterion, scale);
    criterion.final_summary();
}

/// A pipeline that ends with the stage `last`.
fn plan(text: &str, last: &str) -> Plan {
    let text = text.to_owned() + &SINK.replace("LAST", last);
    load_text("bench.toml", &text, &|_| None).unwrap_or_else(|faults| panic!("{}", faults.render(false)))
}

/// `SplitMix64` (Steele, Lea, Flood 2014): the same numbers every time.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % bound
    }
}

/// Messages of about 108 bytes: devices at random, `rows` of them in `seconds` of event time.
fn messages(rows: usize, groups: usize, seconds: u64) -> impl Iterator<Item = String> {
    let mut random = Random(42);
    (0..rows as u64).map(move |seq| {
        let device = random.below(groups as u64);
        let at = BEGIN_MS + seq * seconds * 1_000 / rows as u64;
        let (temperature, humidity) = (1_500 + random.below(1_500), 3_000 + random.below(4_000));
        format!(
            r#"{{"device_id":"dev-{device:07}","ts":{at},"temperature":{}.{:02},"humidity":{}.{:02},"seq":{seq},"status":1}}"#,
            temperature / 100,
            temperature % 100,
            humidity / 100,
            humidity % 100,
        )
    })
}

fn payloads(topic: &str, bodies: impl Iterator<Item = String>) -> Payloads {
    let mut payloads = Payloads::default();
    for body in bodies {
        payloads.push(topic.as_bytes(), body.as_bytes(), Timestamp::from_micros(0), Delivery::default());
    }
    payloads
}

/// Payloads to rows, in batches of about `batch_rows`, as a source does it; what is malformed is left out.
fn decoded(source: &PlannedSource, payloads: &Payloads, batch_rows: usize) -> Vec<RecordBatch> {
    let mut decoder = source.decoder.build(&source.columns);
    let mut batches = Vec::with_capacity(payloads.len().div_ceil(batch_rows));
    let mut index = 0;
    while index < payloads.len() {
        let end = payloads.len().min(index + batch_rows);
        while index < end {
            index += decoder.push_some(payloads, index).0;
        }
        batches.push(decoder.flush());
    }
    batches
}

fn rows_of(batches: &[RecordBatch]) -> usize {
    batches.iter().map(RecordBatch::num_rows).sum()
}

/// Counts what an operator emits.
#[derive(Default)]
struct Counted([usize; 2]);

impl Emit for Counted {
    fn emit_to(&mut self, port: Port, batch: Batch) -> Result<(), Severed> {
        self.0[port as usize] += std::hint::black_box(batch).num_rows();
        Ok(())
    }
}

/// As `stream`, with numbers for the devices, as the intake gives them.
fn numbered(rows: usize, groups: usize, seconds: u64) -> Vec<(Batch, Timestamp)> {
    let stream = stream(rows, groups, seconds);
    let mut keys = KeyNumbers::new(&stream[0].0.schema(), &["device_id".to_owned()]).expect("a column of text");
    stream.into_iter().map(|(rows, reached)| (keys.number(rows, reached), reached)).collect()
}

/// Rows for an operator, with the watermark that follows each batch.
fn stream(rows: usize, groups: usize, seconds: u64) -> Vec<(RecordBatch, Timestamp)> {
    let plan = plan(SOURCE, "feed");
    let batches = decoded(&plan.sources[0], &payloads("feed", messages(rows, groups, seconds)), plan.batch_rows);
    let mut seen = 0;
    let reached = |batch: RecordBatch| {
        seen += batch.num_rows();
        let last = BEGIN_MS + (seen as u64 - 1) * seconds * 1_000 / rows as u64;
        (batch, Timestamp::from_micros(i64::try_from(last * 1_000).expect("a time of this century")))
    };
    batches.into_iter().map(reached).collect()
}

/// The one operator of a pipeline.
fn operator(text: &str) -> Box<dyn Operator> {
    plan(&format!("{SOURCE}\n[operators.step]\ninputs = [\"feed\"]\n{text}"), "step").operators.remove(0).operator
}

/// Runs a stream through an operator to its end, as its stage does.
fn drain<B: Clone + Into<Batch>>(operator: &mut dyn Operator, stream: &[(B, Timestamp)]) -> Counted {
    let mut counted = Counted::default();
    for (batch, reached) in stream {
        operator.process(batch.clone().into(), &mut counted).expect("the rows fit the operator");
        operator.advance(*reached, &mut counted).expect("the rows fit the operator");
    }
    operator.advance(Timestamp::END, &mut counted).expect("the rows fit the operator");
    counted
}

fn filter(criterion: &mut Criterion, scale: Scale) {
    let stream = stream(scale.rows, 1_000, 52);
    let mut filter = operator("type = \"filter\"\nwhere = \"temperature BETWEEN 16 AND 29 AND status = 1\"\n");
    let mut group = criterion.benchmark_group("filter");
    group.throughput(Throughput::Elements(scale.rows as u64));
    group.bench_function("two conditions", |bench| {
        bench.iter(|| {
            let [passed, _] = drain(&mut *filter, &stream).0;
            assert!(passed > 0 && passed < scale.rows, "{passed} rows passed");
        });
    });
    group.finish();
}

const AGGREGATES: &str = r#"
group_by = ["device_id"]

[operators.step.aggregates]
samples = "count(*)"
temp_min = "min(temperature)"
temp_max = "max(temperature)"
temp_avg = "avg(temperature)"
"#;

/// What one aggregate of a group is here.
#[derive(Clone, Copy)]
struct Cell {
    rows: i64,
    count: i64,
    sum: f64,
    least: i64,
    greatest: i64,
}

/// The limit of windows: five aggregates in an array by group, the groups known, no time, no window, nothing emitted.
fn cells(criterion: &mut Criterion, scale: Scale) {
    let mut group = criterion.benchmark_group("limit");
    group.throughput(Throughput::Elements(scale.window_rows as u64));
    for groups in scale.groups {
        let mut random = Random(42);
        let rows: Vec<(u32, f64)> = (0..scale.window_rows)
            .map(|_| (random.below(*groups as u64) as u32, random.below(1_500) as f64 / 100.0))
            .collect();
        let empty = Cell { rows: 0, count: 0, sum: 0.0, least: i64::MAX, greatest: i64::MIN };
        let mut cells = vec![empty; *groups];
        group.bench_function(BenchmarkId::new("array of cells", groups), |bench| {
            bench.iter(|| {
                for (group, value) in &rows {
                    let cell = &mut cells[*group as usize];
                    let rank = value.to_bits().cast_signed();
                    (cell.rows, cell.count, cell.sum) = (cell.rows + 1, cell.count + 1, cell.sum + value);
                    (cell.least, cell.greatest) = (cell.least.min(rank), cell.greatest.max(rank));
                }
                std::hint::black_box(&mut cells);
            });
        });
    }
    group.finish();
}

/// Ten seconds' windows, four of them, with all their emission.
fn windows(criterion: &mut Criterion, scale: Scale) {
    let rows = scale.window_rows;
    let mut group = criterion.benchmark_group("window");
    group.throughput(Throughput::Elements(rows as u64));
    for groups in scale.groups {
        let stream = numbered(rows, *groups, 40);
        let text = format!("type = \"window\"\nwindow = {{ tumbling = \"10s\" }}\n{AGGREGATES}");
        group.bench_with_input(BenchmarkId::new("tumbling", groups), &stream, |bench, stream| {
            bench.iter_batched_ref(
                || operator(&text),
                |window| {
                    let [emitted, late] = drain(&mut **window, stream).0;
                    assert!(emitted >= (*groups).min(rows / 2) && late == 0, "{emitted} rows emitted, {late} late");
                },
                BatchSize::PerIteration,
            );
        });
    }
    // 179 windows of sixty panes.
    for groups in scale.groups.iter().filter(|groups| **groups <= HOPPING_GROUPS_MAX) {
        let stream = numbered(rows, *groups, 120);
        let text = format!("type = \"window\"\nwindow = {{ hopping = \"60s\", every = \"1s\" }}\n{AGGREGATES}");
        group.bench_with_input(BenchmarkId::new("hopping 60s/1s", groups), &stream, |bench, stream| {
            bench.iter_batched_ref(
                || operator(&text),
                |window| {
                    let [emitted, late] = drain(&mut **window, stream).0;
                    assert!(emitted > 50 * groups && late == 0, "{emitted} rows emitted, {late} late");
                },
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

/// Sessions that go on and on, as those of devices that report often: a row a group makes its session longer.
fn sessions(criterion: &mut Criterion, scale: Scale) {
    let rows = scale.window_rows;
    let mut group = criterion.benchmark_group("sessions");
    group.throughput(Throughput::Elements(rows as u64));
    for clock in ["stream", "group"] {
        for groups in scale.groups {
            let stream = numbered(rows, *groups, 20);
            // Of a million groups not all have a row; those that have one have one session.
            let devices = stream.iter().flat_map(|(rows, _)| rows["device_id"].as_string::<i32>().iter().flatten());
            let devices = devices.collect::<HashSet<_>>().len();
            let text =
                format!("type = \"window\"\nwindow = {{ session = \"30s\" }}\nclock = \"{clock}\"\n{AGGREGATES}");
            group.bench_with_input(BenchmarkId::new(clock, groups), &stream, |bench, stream| {
                bench.iter_batched_ref(
                    || operator(&text),
                    |window| {
                        let [emitted, late] = drain(&mut **window, stream).0;
                        assert_eq!([emitted, late], [devices, 0]);
                    },
                    BatchSize::PerIteration,
                );
            });
        }
    }
    group.finish();
}

fn hop(criterion: &mut Criterion, scale: Scale) {
    let plan = plan(SOURCE, "feed");
    let mut group = criterion.benchmark_group("hop");
    for rows in [64, 8_192] {
        let bodies = messages(rows, 1_000, 1);
        let batch = decoded(&plan.sources[0], &payloads("feed", bodies), rows).remove(0);
        let batches = scale.rows / 32;
        group.throughput(Throughput::Elements((batches * rows) as u64));
        group.bench_function(BenchmarkId::new("batches of", rows), |bench| {
            bench.iter(|| assert_eq!(hopped(&batch, batches, plan.channel_batches), batches * rows));
        });
    }
    group.finish();
}

/// Sends a batch so many times from one thread to another, and counts the rows there.
fn hopped(batch: &RecordBatch, batches: usize, channel_batches: usize) -> usize {
    let (sender, receiver) = bounded(channel_batches);
    let mut outbox = Outbox::new(vec![sender], Vec::new(), batch.num_rows(), Arc::new(Meter::default()));
    let mut inbox = Inbox::new(vec![receiver], Arc::new(Meter::default()));
    thread::scope(|scope| {
        scope.spawn(move || {
            for _ in 0..batches {
                outbox.emit(batch.clone().into()).expect("the other end counts to the end");
            }
            outbox.send(Message::End(Epoch(0))).expect("the other end counts to the end");
        });
        let mut rows = 0;
        loop {
            match inbox.recv().expect("the other end says when it is over") {
                Message::Batch(batch) => rows += batch.num_rows(),
                Message::End(_) => return rows,
                Message::Watermark(_) | Message::Mark(_) | Message::Barrier(_) | Message::Stop(_) => (),
            }
        }
    })
}

/// Rows of the feed to one Parquet file, as the sink writes it: encoding, compression, and the file made durable.
fn parquet(criterion: &mut Criterion, scale: Scale) {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let sink =
        format!("\n[sinks.lake]\ntype = \"parquet\"\npath = \"{}\"\ninputs = [\"feed\"]\n", folder.path().display());
    let plan = plan(&(SOURCE.to_owned() + &sink), "feed");
    let source = &plan.sources[0];
    let payloads = payloads("feed", messages(scale.rows, 10_000, 600));
    let batches = decoded(source, &payloads, plan.batch_rows);
    let sink = plan.sinks.iter().find(|sink| sink.kind == "parquet").expect("the pipeline has it");
    let mut group = criterion.benchmark_group("parquet");
    let mut bytes = 0;
    group.throughput(Throughput::Elements(scale.rows as u64));
    group.bench_function("one file", |bench| {
        bench.iter(|| {
            let context = SinkContext {
                pipeline: "bench".to_owned(),
                name: "lake".to_owned(),
                run: "r".to_owned(),
                boards: Arc::default(),
                disk: disk::real(),
                epoch: Epoch(0),
                epoch_every: Span::from_secs(10),
            };
            let mut opened = sink.spec.open(&context, &sink.input).expect("the folder can be written");
            batches.iter().for_each(|batch| opened.write(batch).expect("the folder can be written"));
            let prepared = opened.prepare(Epoch(0), true).expect("the folder can be written");
            assert_eq!(prepared.files.iter().map(|file| file.rows).sum::<u64>(), scale.rows as u64);
            bytes = prepared.files.iter().map(|file| file.bytes).sum::<u64>();
        });
    });
    println!("parquet: {:.2} bytes a row", bytes as f64 / scale.rows as f64);
    group.finish();
}

fn replay(criterion: &mut Criterion, scale: Scale) {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let recording = folder.path().join("feed.jsonl");
    record(&recording, scale.rows).expect("the temporary folder can be written");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("a runtime can be started");
    let mut group = criterion.benchmark_group("replay");
    group.throughput(Throughput::Elements(scale.rows as u64));
    group.bench_function("tumbling to parquet", |bench| {
        bench.iter_batched(
            || replayed(&recording, &folder.path().join("out")),
            |plan| {
                let prepared = Prepared::new(plan);
                let telemetry = Telemetry { pipelines: vec![prepared.info()], ..Telemetry::default() };
                let running =
                    prepared.launch(&Options::replay(), &runtime, &telemetry).expect("threads can be started");
                let outcome = running.wait();
                assert_eq!(outcome.failure, None);
                assert_eq!(outcome.account.sources["feed"].rows, scale.rows as u64);
            },
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

/// That pipeline with a recording in the place of its source.
fn replayed(recording: &Path, out: &Path) -> Plan {
    let variables = |name: &str| (name == "OUT").then(|| out.display().to_string());
    let mut plan =
        load_text("windows.toml", REPLAYED, &variables).unwrap_or_else(|faults| panic!("{}", faults.render(false)));
    let source = &mut plan.sources[0];
    let shape = Shape::Bare("feed".to_owned());
    source.spec = Box::new(ReplaySpec::new(source.spec.topics().clone(), recording.to_owned(), shape, Speed::Max));
    plan
}

/// The first lines of what `feed.py` writes.
fn record(path: &Path, lines: usize) -> std::io::Result<()> {
    let mut file = BufWriter::new(File::create(path)?);
    let mut random = Random(42);
    for seq in 0..lines as u64 {
        let (device, at, temp) = (seq % 1_000, BEGIN_MS + seq, 1_500 + random.below(1_500));
        let (whole, cents) = (temp / 100, temp % 100);
        writeln!(file, r#"{{"device":"dev-{device:05}","ts":{at},"temp":{whole}.{cents:02},"seq":{seq}}}"#)?;
    }
    file.flush()
}
