//! What a row costs, in instructions: a gate against code that becomes slower, where time would tell only how busy the
//! machine is. Valgrind counts, in this same program, and only while the rows of a stage are processed.
//!
//! `testdata/instructions.toml` has what was counted. A stage may cost [`TOLERANCE`] more. Where a change is meant, or made a
//! stage cheaper, `STREAMGAUGE_INSTRUCTIONS=write cargo test --test instructions` writes the file anew.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use streamgauge::disk;
use streamgauge::flow::batch::Batch;
use streamgauge::flow::message::{Epoch, Severed};
use streamgauge::flow::outbox::{Emit, Port};
use streamgauge::flow::payload::{Delivery, Payloads};
use streamgauge::flow::time::{Span, Timestamp};
use streamgauge::ingest::keys::KeyNumbers;
use streamgauge::pipeline::load_text;
use streamgauge::pipeline::plan::Plan;
use streamgauge::sink::SinkContext;
use streamgauge::sink::board::Boards;

/// How much more than what is written down a stage may cost.
const TOLERANCE: f64 = 0.10;

/// Builds differ: what is written down for one says nothing of the other.
const BUILD: &str = if cfg!(debug_assertions) { "debug" } else { "release" };

const BASELINE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/instructions.toml");

const STAGES: [&str; 6] = ["decode", "decode_disturbed", "tumbling", "hopping", "session", "parquet"];

const PIPELINE: &str = r#"
[pipeline]
name = "instructions"
durability = "none"

[sources.feed]
type = "mqtt"
url = "mqtt://127.0.0.1:1883"
topics = ["feed"]

[sources.feed.decode]
format = "json"

[sources.feed.columns]
device = "utf8"
ts = { type = "timestamp", unit = "ms" }
temp = "float64"
seq = "int64"

[sources.feed.time]
column = "ts"

[operators.step]
type = "window"
inputs = ["feed"]
window = { WINDOW }
group_by = ["device"]

[operators.step.aggregates]
samples = "count(*)"
temp_min = "min(temp)"
temp_max = "max(temp)"
temp_avg = "avg(temp)"

[sinks.windows]
type = "stdout"
inputs = ["step"]

[sinks.archive]
type = "parquet"
inputs = ["feed"]
path = "OUT"
"#;

/// Rows of a batch: half of the batches are measured, after the others.
const BATCH: usize = 1_000;
const BATCHES: usize = 12;
const DEVICES: usize = 200;

#[test]
fn no_stage_costs_more_than_is_written_down() {
    let counted: BTreeMap<&str, u64> = STAGES.iter().map(|stage| (*stage, counted(stage))).collect();
    counted.iter().for_each(|(stage, count)| println!("{BUILD}: {stage}: {count} instructions a row"));
    let text = std::fs::read_to_string(BASELINE).unwrap_or_default();
    let mut known: BTreeMap<String, BTreeMap<String, u64>> = toml::from_str(&text).unwrap();
    if std::env::var("STREAMGAUGE_INSTRUCTIONS").is_ok_and(|wish| wish == "write") {
        known.insert(BUILD.to_owned(), counted.iter().map(|(stage, count)| ((*stage).to_owned(), *count)).collect());
        let text = "# Instructions a row: see tests/instructions.rs.\n".to_owned() + &toml::to_string(&known).unwrap();
        std::fs::write(BASELINE, text).unwrap();
        return;
    }
    let Some(known) = known.get(BUILD) else { panic!("{BASELINE} has nothing on a {BUILD} build") };
    for (stage, count) in counted {
        let bound = known[stage] as f64 * (1.0 + TOLERANCE);
        assert!(count as f64 <= bound, "{stage}: {count} instructions a row, {} are written down", known[stage]);
    }
}

/// Counts in a process of its own.
fn counted(stage: &str) -> u64 {
    let folder = tempfile::tempdir().unwrap();
    let out = Command::new("valgrind")
        .args(["--tool=callgrind", "--toggle-collect=*measured_rows*"])
        .arg(format!("--callgrind-out-file={}", folder.path().join("callgrind").display()))
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "measured", "--ignored", "--test-threads=1"])
        .env("STREAMGAUGE_STAGE", stage)
        .env("STREAMGAUGE_OUT", folder.path())
        .output()
        .expect("valgrind is needed: .ci/setup installs it");
    let text = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{stage}: {text}");
    let collected =
        text.lines().find_map(|line| line.split_once("Collected :")).expect("valgrind says what it counted");
    let instructions: u64 = collected.1.trim().parse().unwrap();
    let rows = (BATCHES / 2 * BATCH) as u64;
    assert!(instructions > rows, "{stage}: {instructions} instructions for {rows} rows");
    instructions / rows
}

/// The process that is counted.
#[test]
#[ignore = "run by the test above"]
fn measured() {
    let stage = std::env::var("STREAMGAUGE_STAGE").unwrap();
    let out = std::env::var("STREAMGAUGE_OUT").unwrap();
    let out = Path::new(&out);
    match stage.as_str() {
        "decode" => decode(&plan(r#"tumbling = "10s""#, out), payloads),
        "decode_disturbed" => decode(&plan(r#"tumbling = "10s""#, out), disturbed),
        "tumbling" => window(plan(r#"tumbling = "10s""#, out)),
        "hopping" => window(plan(r#"hopping = "10s", every = "1s""#, out)),
        "session" => window(plan(r#"session = "10s""#, out)),
        "parquet" => parquet(plan(r#"tumbling = "10s""#, out)),
        other => panic!("there is no stage `{other}`"),
    }
}

/// What is counted, by its name.
#[inline(never)]
fn measured_rows(mut rows: impl FnMut()) {
    rows();
}

fn plan(window: &str, out: &Path) -> Plan {
    let text = PIPELINE.replace("WINDOW", window).replace("OUT", &out.display().to_string());
    load_text("instructions.toml", &text, &|_| None).unwrap_or_else(|faults| panic!("{}", faults.render(false)))
}

/// A batch of payloads, a millisecond each.
fn payloads(batch: usize) -> Payloads {
    made(batch, |_| "")
}

/// Every 16th has a field more.
fn disturbed(batch: usize) -> Payloads {
    made(batch, |seq| if seq % 16 == 7 { r#","battery":3.1"# } else { "" })
}

fn made(batch: usize, more: impl Fn(usize) -> &'static str) -> Payloads {
    let mut payloads = Payloads::default();
    for seq in batch * BATCH..(batch + 1) * BATCH {
        let (device, at) = (seq * 7 % DEVICES, 1_700_000_000_000 + seq);
        let (whole, cents, more) = (seq % 30, seq % 97, more(seq));
        let body = format!(r#"{{"device":"dev-{device:05}","ts":{at},"temp":{whole}.{cents:02},"seq":{seq}{more}}}"#);
        payloads.push(b"feed", body.as_bytes(), Timestamp::START, Delivery::default());
    }
    payloads
}

fn decode(plan: &Plan, payloads: impl Fn(usize) -> Payloads) {
    let source = &plan.sources[0];
    let mut decoder = source.decoder.build(&source.columns);
    for batch in 0..BATCHES {
        let payloads = payloads(batch);
        let mut rows = 0;
        let mut run = || {
            for payload in payloads.iter() {
                decoder.push(&payload).unwrap();
            }
            rows += decoder.flush().num_rows();
        };
        if batch < BATCHES / 2 {
            run()
        } else {
            measured_rows(run)
        }
        assert_eq!(rows, BATCH);
    }
}

/// All batches, with the watermark behind each.
fn batches(plan: &Plan) -> Vec<(Batch, Timestamp)> {
    let source = &plan.sources[0];
    let mut decoder = source.decoder.build(&source.columns);
    let mut keys = KeyNumbers::new(&source.output.columns, plan.keys(0)).unwrap();
    let decoded = |batch: usize| {
        payloads(batch).iter().for_each(|payload| drop(decoder.push(&payload).unwrap()));
        let reached = 1_700_000_000_000 + i64::try_from((batch + 1) * BATCH).unwrap();
        (keys.number(decoder.flush(), Timestamp::START), Timestamp::from_micros(reached * 1_000))
    };
    (0..BATCHES).map(decoded).collect()
}

#[derive(Default)]
struct Count(usize);

impl Emit for Count {
    fn emit_to(&mut self, _: Port, batch: Batch) -> Result<(), Severed> {
        self.0 += batch.num_rows();
        Ok(())
    }
}

fn window(mut plan: Plan) {
    let batches = batches(&plan);
    let mut operator = plan.operators.remove(0).operator;
    let mut out = Count::default();
    for (number, (batch, reached)) in batches.into_iter().enumerate() {
        let mut batch = Some(batch);
        let mut run = || {
            operator.process(batch.take().unwrap(), &mut out).unwrap();
            operator.advance(reached, &mut out).unwrap();
        };
        if number < BATCHES / 2 { run() } else { measured_rows(run) }
    }
    operator.advance(Timestamp::END, &mut out).unwrap();
    assert!(out.0 >= DEVICES, "{} rows came out", out.0);
}

fn parquet(mut plan: Plan) {
    let batches = batches(&plan);
    let sink = plan.sinks.remove(1);
    let context = SinkContext {
        pipeline: "instructions".to_owned(),
        name: "archive".to_owned(),
        run: "replay".to_owned(),
        boards: Arc::new(Boards::default()),
        disk: disk::of_this_process(),
        epoch: Epoch(0),
        epoch_every: Span::from_secs(10),
    };
    let mut open = sink.spec.open(&context, &sink.input).unwrap();
    for (number, (batch, _)) in batches.into_iter().enumerate() {
        let mut run = || open.write(&batch).unwrap();
        if number < BATCHES / 2 { run() } else { measured_rows(run) }
    }
    measured_rows(|| drop(open.prepare(Epoch(0), true).unwrap()));
}
