//! Parts that are built for tests: a source that gives what is asked for, sinks that are stuck or fail, and a run of them.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex};

use arrow::array::RecordBatch;
use streamgauge::component::Fault;
use streamgauge::engine::{Options, Prepared, Running};
use streamgauge::flow::message::Epoch;
use streamgauge::flow::payload::{Delivery, Payloads};
use streamgauge::flow::schema::StreamSchema;
use streamgauge::flow::time::Timestamp;
use streamgauge::flow::topic::Topics;
use streamgauge::ingest::{BoxFuture, Fed, Source, SourceContext, SourceError, SourceSpec};
use streamgauge::pipeline;
use streamgauge::pipeline::plan::Plan;
use streamgauge::sink::{Sink, SinkContext, SinkError, SinkSpec, Unpublished};
use streamgauge::telemetry::Telemetry;
use tokio::runtime::Runtime;

const PIPELINE: &str = r#"
[pipeline]
name = "parts"
durability = "none"
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
pub struct Endless {
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
pub struct Stuck {
    gate: Arc<(Mutex<bool>, Condvar)>,
    pub rows: Arc<AtomicU64>,
}

impl Stuck {
    pub fn let_go(&self) {
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

    fn prepare(&mut self, _: Epoch, _: bool) -> Result<Unpublished, SinkError> {
        Ok(Unpublished::default())
    }
}

impl Endless {
    /// Gives numbers from nought up to `limit`, and is exhausted then. How many it gave is the counter.
    pub fn new(limit: u64) -> (Self, Arc<AtomicU64>) {
        let given = Arc::new(AtomicU64::new(0));
        (Self { topics: Topics::default(), given: given.clone(), limit }, given)
    }

    /// Goes on where another one was, as a broker does.
    pub fn again(given: Arc<AtomicU64>, limit: u64) -> Self {
        Self { topics: Topics::default(), given, limit }
    }
}

/// Fails, and says why: each `write` asks `how`.
#[derive(Clone, Copy, Debug)]
pub struct Failing(pub fn() -> Result<(), SinkError>);

impl SinkSpec for Failing {
    fn check(&self, _: &StreamSchema) -> Vec<Fault> {
        Vec::new()
    }

    fn describe(&self) -> String {
        "failing".to_owned()
    }

    fn open(&self, _: &SinkContext, _: &StreamSchema) -> Result<Box<dyn Sink>, SinkError> {
        Ok(Box::new(*self))
    }
}

impl Sink for Failing {
    fn write(&mut self, _: &RecordBatch) -> Result<(), SinkError> {
        (self.0)()
    }

    fn prepare(&mut self, _: Epoch, _: bool) -> Result<Unpublished, SinkError> {
        panic!("nothing that failed may be committed")
    }
}

/// Numbers through a filter that keeps them all into a sink, in batches of 16 and channels of 3.
pub fn plan(source: impl SourceSpec + 'static, sink: Box<dyn SinkSpec>) -> Plan {
    let mut plan = pipeline::load_text("parts.toml", PIPELINE, &|_| None).unwrap();
    plan.sources[0].spec = Box::new(source);
    plan.sinks[0].spec = sink;
    plan
}

/// What must live as long as a run.
pub struct Kept {
    pub runtime: Runtime,
    pub telemetry: Telemetry,
}

/// Lets a plan run.
pub fn launch(plan: Plan, options: &Options) -> (Running, Kept) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let prepared = Prepared::new(plan);
    let telemetry = Telemetry { pipelines: vec![prepared.info()], ..Telemetry::default() };
    let running = prepared.launch(options, &runtime, &telemetry).unwrap();
    (running, Kept { runtime, telemetry })
}
