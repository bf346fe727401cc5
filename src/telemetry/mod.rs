//! Meters as Prometheus text, and the HTTP server.
//!
//! The engine fills in a [`Telemetry`] and hands it to [`serve`](http::serve); nothing here writes to a pipeline.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};

use crate::flow::meter::{CheckpointMeter, Meter, SourceMeter};
use crate::flow::time::{Span, Timestamp};
use crate::sink::board::Boards;
pub use crate::telemetry::latency::Latency;

pub mod http;
pub mod latency;
pub mod process;
pub mod text;

/// Everything that can be looked at while pipelines run.
#[derive(Debug, Default)]
pub struct Telemetry {
    /// What runs.
    pub pipelines: Vec<PipelineInfo>,
    /// The newest rows of the `metrics` sinks.
    pub boards: Arc<Boards>,
    /// What is wrong at the moment.
    pub health: Arc<Health>,
}

impl Telemetry {
    /// How far event time is behind the wall clock, at the source that is furthest behind. `None` before the first watermark.
    pub fn watermark_delay(&self) -> Option<Span> {
        let stages = self.pipelines.iter().flat_map(|pipeline| &pipeline.stages);
        let sources = stages.filter(|stage| stage.kind == StageKind::Source);
        let lowest = sources.map(|stage| stage.meter.watermark_micros.load(Relaxed)).min()?;
        let now = Timestamp::from_micros(jiff::Timestamp::now().as_microsecond());
        (lowest != i64::MIN).then(|| now.since(Timestamp::from_micros(lowest)))
    }
}

/// One running pipeline.
#[derive(Debug)]
pub struct PipelineInfo {
    /// Its name.
    pub name: String,
    /// Its stages: sources, operators, sinks.
    pub stages: Vec<StageInfo>,
    /// How long rows take.
    pub latency: Arc<Latency>,
    /// The checkpoints; nothing is counted where there are none.
    pub checkpoints: Arc<CheckpointMeter>,
}

/// Which part of a pipeline a stage is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StageKind {
    /// World to rows.
    Source,
    /// Rows to rows.
    Operator,
    /// Rows to world.
    Sink,
}

impl StageKind {
    /// As a label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Operator => "operator",
            Self::Sink => "sink",
        }
    }
}

/// One stage.
#[derive(Debug)]
pub struct StageInfo {
    /// Its name in the pipeline file.
    pub name: String,
    /// Source, operator or sink.
    pub kind: StageKind,
    /// Its type in the pipeline file: `mqtt`, `window`.
    pub component: String,
    /// What its inbox and outbox count.
    pub meter: Arc<Meter>,
    /// What a source counts besides.
    pub source: Option<Arc<SourceMeter>>,
    /// The channels that it reads, as one.
    pub queue: Option<Queue>,
}

/// How full the channels of a stage are.
pub struct Queue {
    /// Batches that wait.
    pub len: Box<dyn Fn() -> usize + Send + Sync>,
    /// Batches that there is room for.
    pub capacity: usize,
}

impl std::fmt::Debug for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} of {} batches", (self.len)(), self.capacity)
    }
}

/// What is wrong at the moment, by component.
#[derive(Debug, Default)]
pub struct Health(Mutex<BTreeMap<String, String>>);

impl Health {
    /// Notes why a component is not well; `None` that it is well again.
    pub fn set(&self, component: &str, reason: Option<String>) {
        let mut reasons = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match reason {
            Some(reason) => reasons.insert(component.to_owned(), reason),
            None => reasons.remove(component),
        };
    }

    /// All that is wrong.
    pub fn reasons(&self) -> BTreeMap<String, String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Telemetry {
    /// All that is wrong: what was noted, and sources without a connection.
    pub fn reasons(&self) -> BTreeMap<String, String> {
        let mut reasons = self.health.reasons();
        for stage in self.pipelines.iter().flat_map(|pipeline| &pipeline.stages) {
            if stage.source.as_ref().is_some_and(|source| source.connected.load(Relaxed) == 0) {
                reasons.entry(stage.name.clone()).or_insert_with(|| "not connected".to_owned());
            }
        }
        reasons
    }
}
