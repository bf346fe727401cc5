//! Once a source is in its stride no payload costs an allocation: what is allocated is for the batch, however many payloads
//! it has. One test alone in its process, so that nobody else's allocations are counted.

use std::alloc::System;

use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use streamgauge::flow::batch::Batch;
use streamgauge::flow::message::Severed;
use streamgauge::flow::outbox::{Emit, Port};
use streamgauge::flow::payload::{Delivery, Payloads};
use streamgauge::flow::time::Timestamp;
use streamgauge::format::Decoder;
use streamgauge::ingest::keys::KeyNumbers;
use streamgauge::operator::Operator;
use streamgauge::pipeline::load_text;
use streamgauge::pipeline::plan::Plan;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const PIPELINE: &str = r#"
[pipeline]
name = "allocations"
durability = "none"

[sources.feed]
type = "mqtt"
url = "mqtt://127.0.0.1:1883"
topics = ["sites/{site}/{device}"]

[sources.feed.decode]
format = "json"

[sources.feed.columns]
ts = { type = "timestamp", unit = "ms" }
at = { type = "timestamp", path = "$.meta.at" }
status = "utf8"
temp = "float64"
count = "int64"
ok = "boolean"

[sources.feed.time]
column = "ts"

[operators.step]
type = "window"
inputs = ["feed"]
window = { WINDOW }
group_by = ["site", "device"]

[operators.step.aggregates]
samples = "count(*)"
temp_min = "min(temp)"
temp_max = "max(temp)"
temp_avg = "avg(temp)"
counted = "sum(count)"

[sinks.out]
type = "stdout"
inputs = ["step"]
"#;

/// What a batch may cost at most.
const A_BATCH: usize = 150;
/// What a batch may cost more that has four times as many payloads.
const MORE: usize = 8;
const ROWS: usize = 4_096;

fn plan(window: &str) -> Plan {
    let text = PIPELINE.replace("WINDOW", window);
    load_text("allocations.toml", &text, &|_| None).unwrap_or_else(|faults| panic!("{}", faults.render(false)))
}

/// Payloads of 100 devices; `first` counts on from batch to batch, a millisecond each.
fn payloads(first: usize, len: usize) -> Payloads {
    let mut payloads = Payloads::default();
    for number in first..first + len {
        let body = format!(
            r#"{{"ts":{},"meta":{{"at":"2026-01-01T00:00:{:02}.{:03}Z"}},"status":"up","temp":{}.25,"count":{number},"ok":true}}"#,
            1_767_225_600_000_u64 + number as u64,
            number / 1_000 % 60,
            number % 1_000,
            number % 40,
        );
        let topic = format!("sites/north/dev-{:03}", number % 100);
        payloads.push(topic.as_bytes(), body.as_bytes(), Timestamp::from_micros(0), Delivery::default());
    }
    payloads
}

/// Counts rows.
#[derive(Default)]
struct Rows(usize);

impl Emit for Rows {
    fn emit_to(&mut self, _: Port, batch: Batch) -> Result<(), Severed> {
        self.0 += batch.num_rows();
        Ok(())
    }
}

struct Stages {
    decoder: Box<dyn Decoder>,
    keys: KeyNumbers,
    operator: Box<dyn Operator>,
    number: usize,
}

impl Stages {
    fn new(window: &str) -> Self {
        let mut plan = plan(window);
        let keys = plan.keys(0).to_vec();
        let source = &plan.sources[0];
        Self {
            decoder: source.decoder.build(&source.columns),
            keys: KeyNumbers::new(&source.output.columns, &keys).unwrap(),
            operator: plan.operators.remove(0).operator,
            number: 0,
        }
    }

    /// What a batch of so many payloads costs in decoder and operator.
    fn batch(&mut self, len: usize) -> [usize; 2] {
        let payloads = payloads(self.number, len);
        self.number += len;
        let mut out = Rows::default();
        let region = Region::new(ALLOCATOR);
        for payload in payloads.iter() {
            self.decoder.push(&payload).unwrap();
        }
        let batch = self.keys.number(self.decoder.flush(), Timestamp::from_micros(0));
        let decoded = region.change();
        let region = Region::new(ALLOCATOR);
        self.operator.process(batch, &mut out).unwrap();
        let folded = region.change();
        [decoded, folded].map(|change| change.allocations + change.reallocations)
    }
}

/// Decoders of other formats, each with columns and one payload, over and over.
const FORMATS: [(&str, &str, &[u8]); 6] = [
    (
        "format = \"csv\"\nheader = true",
        "ts = \"int64\"\nv = \"float64\"\nn = \"utf8\"",
        b"n,ts,v\n\"a \"\"b\",1,2.5\nc,2,3.5\n",
    ),
    ("format = \"csv\"", "ts = \"int64\"\nv = \"float64\"\nn = \"utf8\"", b"1,2.5,a"),
    (
        "format = \"influx\"",
        "time = { type = \"timestamp\", unit = \"ns\" }\nhost = \"utf8\"\nv = \"float64\"\nn = \"int64\"",
        b"cpu,host=a\\ b,az=x v=1.5,n=3i,s=\"q\" 1709208000000000000",
    ),
    (
        "format = \"bytes\"\nfields = [{ name = \"v\", at = 0, type = \"int16\" }, { name = \"b\", at = 2, type = \"bytes\", len = 2 }]",
        "v = { type = \"float64\", scale = 0.1 }\nb = \"utf8\"",
        b"\x00\xcd\xff\x00",
    ),
    (
        "format = \"msgpack\"",
        "v = \"float64\"\nn = \"utf8\"",
        b"\x82\xa1v\xcb\x3f\xb9\x99\x99\x99\x99\x99\x9a\xa1n\xa1x",
    ),
    ("format = \"cbor\"", "v = \"float64\"\nn = \"utf8\"", b"\xa2av\xf9\x3e\x00anax"),
];

fn decoder_costs(decode: &str, columns: &str, body: &[u8]) {
    let text = format!(
        "[pipeline]\nname = \"allocations\"\n[sources.s]\ntype = \"mqtt\"\nurl = \"mqtt://127.0.0.1:1883\"\n\
         topics = [\"t\"]\n[sources.s.decode]\n{decode}\n[sources.s.columns]\n{columns}\n\
         [sinks.o]\ntype = \"stdout\"\ninputs = [\"s\"]\n"
    );
    let plan = load_text("formats.toml", &text, &|_| None).unwrap_or_else(|faults| panic!("{}", faults.render(false)));
    let mut decoder = plan.sources[0].decoder.build(&plan.sources[0].columns);
    let mut batch = |len| {
        let mut payloads = Payloads::default();
        (0..len).for_each(|_| payloads.push(b"t", body, Timestamp::from_micros(0), Delivery::default()));
        let region = Region::new(ALLOCATOR);
        payloads.iter().for_each(|payload| assert!(decoder.push(&payload).is_ok()));
        decoder.flush();
        let change = region.change();
        change.allocations + change.reallocations
    };
    for _ in 0..3 {
        batch(ROWS);
    }
    let few = batch(ROWS / 4);
    batch(ROWS);
    let many = batch(ROWS);
    println!("{decode}: {few} allocations for {} payloads, {many} for {ROWS}", ROWS / 4);
    assert!(many <= A_BATCH && many <= few + MORE, "{decode}: {few} for a quarter, {many} for {ROWS} payloads");
}

#[test]
fn no_payload_costs_an_allocation() {
    for window in [r#"tumbling = "1h""#, r#"hopping = "1h", every = "10m""#, r#"session = "1h""#] {
        let mut stages = Stages::new(window);
        for _ in 0..3 {
            stages.batch(ROWS);
        }
        let few = stages.batch(ROWS / 4);
        stages.batch(ROWS);
        let many = stages.batch(ROWS);
        for (stage, (few, many)) in ["decoder", "operator"].iter().zip(few.into_iter().zip(many)) {
            println!("{window}: {stage}: {few} allocations for {} payloads, {many} for {ROWS}", ROWS / 4);
            assert!(many <= A_BATCH, "{window}: {stage}: {many} allocations for a batch");
            assert!(many <= few + MORE, "{window}: {stage}: {few} for a quarter, {many} for {ROWS} payloads");
        }
    }
    FORMATS.iter().for_each(|(decode, columns, body)| decoder_costs(decode, columns, body));
}
