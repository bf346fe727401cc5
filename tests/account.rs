//! The account adds up, over whatever comes: random payloads of every sort through a pipeline with a filter, a dedupe, a
//! window and every side output, counted here one by one beside it.

use std::collections::HashSet;
use std::sync::Arc;

use proptest::prelude::*;
use streamgauge::engine::account::Account;
use streamgauge::engine::{Options, Prepared};
use streamgauge::flow::payload::{Delivery, Payloads};
use streamgauge::flow::time::Timestamp;
use streamgauge::ingest::recording::{RecordingWriter, ReplaySpec, Shape, Speed};
use streamgauge::pipeline;
use streamgauge::telemetry::Telemetry;

const PIPELINE: &str = r#"
[pipeline]
name = "account"
batch_rows = 5
channel_batches = 2

[sources.feed]
type = "mqtt"
url = "mqtt://127.0.0.1:1883"
topics = ["feed"]

[sources.feed.decode]
format = "json"
rows = "$.r[*]"

[sources.feed.columns]
ts = { type = "timestamp", unit = "s" }
key = { type = "int64", required = true }
x = "float64"

[sources.feed.time]
column = "ts"
out_of_orderness = "5s"
idle_after = "never"
max_future = "60s"

[operators.positive]
type = "filter"
inputs = ["feed"]
where = "x > 0"

[operators.once]
type = "dedupe"
inputs = ["positive"]
keys = ["key"]
within = "10000h"

[operators.windows]
type = "window"
inputs = ["once"]
window = { tumbling = "10s" }

[operators.windows.aggregates]
n = "count(*)"

[sinks.results]
type = "parquet"
inputs = ["windows"]
path = "${OUT}/results"

[sinks.late]
type = "parquet"
inputs = ["windows.late"]
path = "${OUT}/late"

[sinks.rejected]
type = "parquet"
inputs = ["feed.dead_letter"]
path = "${OUT}/rejected"
"#;

/// A row of a payload: seconds relative to the arrival, key, x.
type Element = (i64, i64, Option<i64>);

#[derive(Clone, Debug)]
enum Body {
    Rows(Vec<Element>),
    /// One of the rows has no key, so there are none.
    Incomplete(Vec<Element>),
    Garbage(String),
}

fn bodies() -> impl Strategy<Value = Vec<Body>> {
    // Mostly on time, now and then late (seconds before the arrival) or in the future (beyond the 60 s).
    let behind = prop_oneof![8 => -4_i64..=0, 1 => -60_i64..-20, 1 => 61_i64..100_000];
    let element = (behind, 0_i64..40, prop::option::of(-3_i64..9));
    let rows = prop::collection::vec(element, 0..4);
    prop::collection::vec(
        prop_oneof![
            8 => rows.clone().prop_map(Body::Rows),
            1 => rows.prop_map(Body::Incomplete),
            1 => "[ -~]{0,12}".prop_map(Body::Garbage),
        ],
        0..60,
    )
}

impl Body {
    fn text(&self, arrival: i64) -> String {
        let element = |(behind, key, x): &Element| {
            let x = x.map_or("null".to_owned(), |x| x.to_string());
            format!("{{\"ts\":{},\"key\":{key},\"x\":{x}}}", arrival + behind)
        };
        match self {
            Self::Rows(rows) => format!("{{\"r\":[{}]}}", rows.iter().map(element).collect::<Vec<_>>().join(",")),
            Self::Incomplete(rows) => {
                let rows: String = rows.iter().map(|row| element(row) + ",").collect();
                format!("{{\"r\":[{rows}{{\"ts\":{arrival}}}]}}")
            }
            // Never JSON: it has no value before the brace.
            Self::Garbage(text) => format!("}}{text}"),
        }
    }
}

/// What the pipeline must count, by the rules of the documentation, one row after the other.
#[derive(Debug, Default, PartialEq, Eq)]
struct Counts {
    received: u64,
    rows: u64,
    dead_letter: u64,
    future: u64,
    expanded: i64,
    filtered: u64,
    repeated: u64,
    late: u64,
    accepted: u64,
    windows: u64,
}

/// When the first payload arrives, in seconds.
const START: i64 = 1_767_600_000;

fn count(bodies: &[Body]) -> Counts {
    let mut counts = Counts::default();
    let (mut newest, mut keys, mut windows) = (i64::MIN, HashSet::new(), HashSet::new());
    for (arrival, body) in (START..).zip(bodies) {
        counts.received += 1;
        let Body::Rows(rows) = body else {
            counts.dead_letter += 1;
            continue;
        };
        counts.expanded += rows.len() as i64 - 1;
        for (behind, key, x) in rows {
            if *behind > 60 {
                counts.future += 1;
                continue;
            }
            counts.rows += 1;
            let at = arrival + behind;
            let watermark = newest.saturating_sub(5);
            newest = newest.max(at);
            let window = at.div_euclid(10);
            if x.is_none_or(|x| x <= 0) {
                counts.filtered += 1;
            } else if !keys.insert(*key) {
                counts.repeated += 1;
            } else if window * 10 + 10 <= watermark {
                counts.late += 1;
            } else {
                counts.accepted += 1;
                windows.insert(window);
            }
        }
    }
    counts.windows = windows.len() as u64;
    counts
}

fn run(bodies: &[Body]) -> (Account, Option<String>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("feed.jsonl");
    let mut payloads = Payloads::default();
    for (arrival, body) in (START..).zip(bodies) {
        let at = Timestamp::from_micros(arrival * 1_000_000);
        payloads.push(b"feed", body.text(arrival).as_bytes(), at, Delivery::default());
    }
    let mut writer = RecordingWriter::create(&path).unwrap();
    payloads.iter().zip(1..).for_each(|(payload, seq)| writer.write(&payload, seq).unwrap());
    writer.finish().unwrap();
    let out = folder.path().display().to_string();
    let mut plan = pipeline::load_text("account.toml", PIPELINE, &|name| (name == "OUT").then(|| out.clone())).unwrap();
    let topics = plan.sources[0].spec.topics().clone();
    plan.sources[0].spec = Box::new(ReplaySpec::new(topics, path, Shape::Envelopes, Speed::Max));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let prepared = Prepared::new(plan);
    let telemetry = Arc::new(Telemetry { pipelines: vec![prepared.info()], ..Telemetry::default() });
    let outcome = prepared.launch(&Options::replay(), &runtime, &telemetry).unwrap().wait();
    (outcome.account, outcome.failure)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn the_account_adds_up(bodies in bodies()) {
        let (account, failure) = run(&bodies);
        prop_assert_eq!(failure, None);
        prop_assert!(account.faults.is_empty(), "{}", account);
        let (source, operators) = (account.sources["feed"], &account.operators);
        let counted = Counts {
            received: source.received,
            rows: source.rows,
            dead_letter: source.dead_letter,
            future: source.future,
            expanded: source.expanded,
            filtered: operators["positive"].filtered,
            repeated: operators["once"].filtered,
            late: operators["windows"].late,
            accepted: operators["windows"].accepted,
            windows: operators["windows"].emitted,
        };
        prop_assert_eq!(counted, count(&bodies));
        prop_assert_eq!((source.dropped, source.duplicates), (0, 0));
        prop_assert_eq!(account.sinks["results"].rows, operators["windows"].emitted);
        prop_assert_eq!(account.sinks["late"].rows, operators["windows"].late);
        prop_assert_eq!(account.sinks["rejected"].rows, source.dead_letter + source.future);
    }
}
