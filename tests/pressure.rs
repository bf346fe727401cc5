//! Backpressure: a stuck sink stops the source at exactly the payload that the arithmetic says, and lets it go on.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use streamgauge::component::Fault;
use streamgauge::engine::{Options, Prepared};
use streamgauge::flow::message::Epoch;
use streamgauge::flow::payload::{Delivery, Payloads};
use streamgauge::flow::schema::StreamSchema;
use streamgauge::flow::time::Timestamp;
use streamgauge::flow::topic::Topics;
use streamgauge::ingest::feed::BRIDGE_BATCHES;
use streamgauge::ingest::{BoxFuture, Fed, Source, SourceContext, SourceError, SourceSpec};
use streamgauge::pipeline;
use streamgauge::sink::{Sink, SinkContext, SinkError, SinkSpec};
use streamgauge::telemetry::Telemetry;

const BATCH: u64 = 16;
const CHANNEL: u64 = 3;

const PIPELINE: &str = r#"
[pipeline]
name = "pressure"
batch_rows = 16
channel_batches = 3

[sources.feed]
type = "mqtt"
url = "mqtt://127.0.0.1:1883"
topics = ["feed"]

[sources.feed.decode]
format = "scalar"

[sources.feed.columns]
value = "int64"

[operators.pass]
type = "filter"
inputs = ["feed"]
where = "true"

[sinks.out]
type = "stdout"
inputs = ["pass"]
"#;

/// As many payloads as are wanted, at once.
#[derive(Debug)]
struct Endless {
    topics: Topics,
    given: Arc<AtomicU64>,
    limit: u64,
}

impl SourceSpec for Endless {
    fn topics(&self) -> &Topics {
        &self.topics
    }

    fn describe(&self) -> String {
        "numbers".to_owned()
    }

    fn open(&self, context: SourceContext) -> BoxFuture<'_, Result<Box<dyn Source>, SourceError>> {
        let numbers = Numbers { given: self.given.clone(), limit: self.limit, context };
        Box::pin(std::future::ready(Ok(Box::new(numbers) as Box<dyn Source>)))
    }
}

struct Numbers {
    given: Arc<AtomicU64>,
    limit: u64,
    context: SourceContext,
}

impl Source for Numbers {
    fn next<'a>(&'a mut self, into: &'a mut Payloads, payloads_max: usize) -> BoxFuture<'a, Result<Fed, SourceError>> {
        Box::pin(async move {
            let from = self.given.load(SeqCst);
            let to = self.limit.min(from + payloads_max as u64);
            for number in from..to {
                let at = Timestamp::from_micros(i64::try_from(number).unwrap());
                into.push(b"feed", number.to_string().as_bytes(), at, Delivery::default());
            }
            self.context.meter.received.fetch_add(to - from, SeqCst);
            self.given.store(to, SeqCst);
            Ok(if from == to { Fed::Exhausted } else { Fed::More })
        })
    }
}

/// Stuck in its first `write` until it is let go.
#[derive(Clone, Debug, Default)]
struct Stuck {
    gate: Arc<(Mutex<bool>, Condvar)>,
    rows: Arc<AtomicU64>,
}

impl Stuck {
    fn let_go(&self) {
        *self.gate.0.lock().unwrap() = true;
        self.gate.1.notify_all();
    }
}

impl SinkSpec for Stuck {
    fn check(&self, _: &StreamSchema) -> Vec<Fault> {
        Vec::new()
    }

    fn describe(&self) -> String {
        "stuck".to_owned()
    }

    fn open(&self, _: &SinkContext, _: &StreamSchema) -> Result<Box<dyn Sink>, SinkError> {
        Ok(Box::new(self.clone()))
    }
}

impl Sink for Stuck {
    fn write(&mut self, batch: &RecordBatch) -> Result<(), SinkError> {
        let open = self.gate.0.lock().unwrap();
        drop(self.gate.1.wait_while(open, |open| !*open).unwrap());
        self.rows.fetch_add(batch.num_rows() as u64, SeqCst);
        Ok(())
    }

    fn commit(&mut self, _: Epoch) -> Result<(), SinkError> {
        Ok(())
    }
}

#[test]
fn a_stuck_sink_stops_the_source_at_a_payload_that_can_be_calculated() {
    let mut plan = pipeline::load_text("pressure.toml", PIPELINE, &|_| None).unwrap();
    let (given, stuck, limit) = (Arc::new(AtomicU64::new(0)), Stuck::default(), 5_000);
    let topics = plan.sources[0].spec.topics().clone();
    plan.sources[0].spec = Box::new(Endless { topics, given: given.clone(), limit });
    plan.sinks[0].spec = Box::new(stuck.clone());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let prepared = Prepared::new(plan);
    let telemetry = Arc::new(Telemetry { pipelines: vec![prepared.info()], ..Telemetry::default() });
    // Without ticks and epochs nothing but batches and watermarks goes through the channels.
    let running = prepared.launch(&Options::replay(), &runtime, &telemetry).unwrap();

    // Each batch is followed by its watermark, so a channel of 3 holds three of (batch, watermark, batch, …). The sink holds
    // the first batch; its channel, from the watermark of that batch on: w0 b1 w1. The filter blocks with b2. Its own
    // channel: w2 b3 w3; the intake blocks with b4, having taken it from the bridge. The bridge holds b5 … b8, and the feed
    // blocks with b9. That are ten batches.
    let in_channel = CHANNEL / 2;
    let batches = 1 + in_channel + 1 + in_channel + 1 + BRIDGE_BATCHES as u64 + 1;
    let expected = batches * BATCH;
    let until = Instant::now() + Duration::from_secs(20);
    while given.load(SeqCst) < expected && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(5));
    }
    // It stays there.
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(given.load(SeqCst), expected, "{batches} batches of {BATCH}");

    stuck.let_go();
    let outcome = running.wait();
    assert_eq!(outcome.failure, None);
    assert_eq!((given.load(SeqCst), stuck.rows.load(SeqCst)), (limit, limit), "nothing is lost on the way");
}
