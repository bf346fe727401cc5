//! A plan becomes channels and threads.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::RecordBatch;
use arrow::array::cast::AsArray;
use arrow::array::types::TimestampMicrosecondType;
use crossbeam_channel::{Receiver, Sender, bounded};
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::engine::account::Counted;
use crate::engine::stage::{NoCheckpoint, SinkStage, StageError, run_operator};
use crate::engine::supervise::{Crew, Running};
use crate::engine::{Options, Shared, gather, tick_epochs};
use crate::flow::inbox::Inbox;
use crate::flow::message::{Epoch, Message};
use crate::flow::meter::{Meter, PORTS, SourceMeter};
use crate::flow::outbox::Outbox;
use crate::flow::time::{Span, Timestamp};
use crate::ingest::feed::{BRIDGE_BATCHES, Gather, feed};
use crate::ingest::intake::Intake;
use crate::ingest::watermark::Watermarks;
use crate::ingest::{ArrivalClock, SourceContext};
use crate::pipeline::plan::{Edge, Plan, PlannedOperator, PlannedSink, PlannedSource};
use crate::sink::SinkContext;
use crate::telemetry::{Latency, PipelineInfo, Queue, StageInfo, StageKind, Telemetry};

/// A plan with its channels, before anything is opened: what the telemetry can be made of.
pub struct Prepared {
    plan: Plan,
    wiring: Wiring,
    stages: Vec<Counted>,
    latency: Arc<Latency>,
}

impl Prepared {
    /// Makes the channels of a plan.
    pub fn new(plan: Plan) -> Self {
        let wiring = Wiring::of(&plan);
        let stages = wiring.counted(&plan);
        Self { plan, wiring, stages, latency: Arc::default() }
    }

    /// What there is to measure.
    pub fn info(&self) -> PipelineInfo {
        self.wiring.info(&self.plan, &self.stages, self.latency.clone())
    }

    /// Opens everything and lets it run. The feeds need the runtime's I/O and time.
    pub fn launch(self, options: &Options, runtime: &Runtime, telemetry: &Telemetry) -> std::io::Result<Running> {
        let Self { plan, wiring, stages, latency } = self;
        let (epoch_sender, epochs) = watch::channel(Epoch(0));
        let stop = CancellationToken::new();
        if options.live {
            runtime.spawn(tick_epochs(plan.epoch.duration(), epoch_sender, stop.clone()));
        }
        let gather = gather(&plan, options);
        let shared = Shared {
            stop: stop.clone(),
            epochs,
            boards: telemetry.boards.clone(),
            health: telemetry.health.clone(),
            disk: options.disk.clone(),
            latency,
        };
        let mut launching = Launching {
            pipeline: plan.name.clone(),
            epoch_every: plan.epoch,
            rows_max: plan.batch_rows,
            options,
            runtime,
            shared,
            wiring,
            stages,
            crew: Crew::default(),
            arrivals: Arc::default(),
        };
        let (operators_at, sinks_at) = (plan.sources.len(), plan.sources.len() + plan.operators.len());
        for (index, sink) in plan.sinks.into_iter().enumerate() {
            launching.sink(sinks_at + index, sink)?;
        }
        for (index, operator) in plan.operators.into_iter().enumerate().rev() {
            launching.operator(operators_at + index, operator)?;
        }
        for (index, source) in plan.sources.into_iter().enumerate() {
            launching.source(index, source, gather)?;
        }
        Ok(Running::new(launching.pipeline, launching.crew, launching.stages, stop, options.drain_max))
    }
}

/// The channels of a pipeline, by stage.
struct Wiring {
    receivers: Vec<Vec<Receiver<Message>>>,
    senders: Vec<[Vec<Sender<Message>>; PORTS]>,
    meters: Vec<Arc<Meter>>,
    inputs: Vec<Vec<Edge>>,
    channel_batches: usize,
}

impl Wiring {
    fn of(plan: &Plan) -> Self {
        let inputs: Vec<Vec<Edge>> = std::iter::repeat_n(Vec::new(), plan.sources.len())
            .chain(plan.operators.iter().map(|operator| operator.inputs.clone()))
            .chain(plan.sinks.iter().map(|sink| sink.inputs.clone()))
            .collect();
        let len = inputs.len();
        let mut wiring = Self {
            receivers: vec![Vec::new(); len],
            senders: (0..len).map(|_| Default::default()).collect(),
            meters: (0..len).map(|_| Arc::default()).collect(),
            inputs: inputs.clone(),
            channel_batches: plan.channel_batches,
        };
        for (stage, edges) in inputs.into_iter().enumerate() {
            for Edge { from, port } in edges {
                let (sender, receiver) = bounded(plan.channel_batches);
                wiring.senders[from][port as usize].push(sender);
                wiring.receivers[stage].push(receiver);
            }
        }
        wiring
    }

    fn inbox(&mut self, stage: usize) -> Inbox {
        Inbox::new(std::mem::take(&mut self.receivers[stage]), self.meters[stage].clone())
    }

    fn outbox(&mut self, stage: usize, rows_max: usize) -> Outbox {
        let [main, side] = std::mem::take(&mut self.senders[stage]);
        Outbox::new(main, side, rows_max, self.meters[stage].clone())
    }

    /// Every stage of the plan, as the account and the telemetry see it.
    fn counted(&self, plan: &Plan) -> Vec<Counted> {
        let inputs = |stage: usize| self.inputs[stage].iter().map(|edge| (edge.from, edge.port)).collect();
        let counted = |stage: usize, name: &str, kind, source: Option<Arc<SourceMeter>>, sink| Counted {
            name: name.to_owned(),
            kind,
            meter: self.meters[stage].clone(),
            inputs: inputs(stage),
            source,
            sink,
        };
        let sources = plan.sources.iter().map(|s| (s.name.text.as_str(), s.kind, Some(Arc::default()), false));
        let operators = plan.operators.iter().map(|o| (o.name.text.as_str(), o.kind, None, false));
        let sinks = plan.sinks.iter().map(|s| (s.name.text.as_str(), s.kind, None, true));
        let all = sources.chain(operators).chain(sinks).enumerate();
        all.map(|(stage, (name, kind, source, sink))| counted(stage, name, kind, source, sink)).collect()
    }

    fn info(&self, plan: &Plan, stages: &[Counted], latency: Arc<Latency>) -> PipelineInfo {
        let stage = |counted: &Counted| {
            // Told by the counters: a handle of the channel here would keep it open when its stage is gone.
            let sent: Vec<_> = counted.inputs.iter().map(|(from, port)| (self.meters[*from].clone(), *port)).collect();
            let received = counted.meter.clone();
            let capacity = self.channel_batches * sent.len();
            StageInfo {
                name: counted.name.clone(),
                kind: match (&counted.source, counted.sink) {
                    (Some(_), _) => StageKind::Source,
                    (None, true) => StageKind::Sink,
                    (None, false) => StageKind::Operator,
                },
                component: counted.kind.to_owned(),
                meter: counted.meter.clone(),
                source: counted.source.clone(),
                queue: (capacity > 0).then(|| {
                    let len = move || {
                        let sent: u64 =
                            sent.iter().map(|(meter, port)| meter.batches_out[*port as usize].load(Relaxed)).sum();
                        let waiting = sent.saturating_sub(received.batches_in.load(Relaxed));
                        usize::try_from(waiting).unwrap_or(usize::MAX).min(capacity)
                    };
                    Queue { len: Box::new(len), capacity }
                }),
            }
        };
        PipelineInfo { name: plan.name.clone(), stages: stages.iter().map(stage).collect(), latency }
    }
}

/// Which arrival raised which watermark, so that a sink can tell how long a result took. Bounded: the oldest go first.
type Arrivals = Arc<Mutex<VecDeque<(Timestamp, Timestamp)>>>;

/// How many watermarks back an arrival can be told.
const ARRIVALS_MAX: usize = 4_096;

struct Launching<'a> {
    pipeline: String,
    epoch_every: Span,
    rows_max: usize,
    options: &'a Options,
    runtime: &'a Runtime,
    shared: Shared,
    wiring: Wiring,
    stages: Vec<Counted>,
    crew: Crew,
    arrivals: Arrivals,
}

impl Launching<'_> {
    fn sink(&mut self, stage: usize, sink: PlannedSink) -> std::io::Result<()> {
        let inbox = self.wiring.inbox(stage);
        let context = SinkContext {
            pipeline: self.pipeline.clone(),
            name: sink.name.text.clone(),
            run: self.options.run.clone(),
            boards: self.shared.boards.clone(),
            disk: self.shared.disk.clone(),
            epoch: Epoch(0),
            epoch_every: self.epoch_every,
        };
        let latency = self.shared.latency.clone();
        let (written, reached) = probe(latency, self.arrivals.clone(), sink.input.time, self.options.live);
        let running = SinkStage {
            name: sink.name.text.clone(),
            health: self.shared.health.clone(),
            disk: self.shared.disk.clone(),
            written: Box::new(written),
            reached: Box::new(reached),
        };
        self.crew.spawn(&sink.name.text, move || {
            running.run(inbox, || sink.spec.open(&context, &sink.input), &mut NoCheckpoint)
        })
    }

    fn operator(&mut self, stage: usize, operator: PlannedOperator) -> std::io::Result<()> {
        let inbox = self.wiring.inbox(stage);
        let outbox = self.wiring.outbox(stage, self.rows_max);
        self.crew.spawn(&operator.name.text, move || run_operator(inbox, operator.operator, outbox, &mut NoCheckpoint))
    }

    fn source(&mut self, stage: usize, source: PlannedSource, gather: Gather) -> std::io::Result<()> {
        // A recording brings its own time.
        let tick_every = gather.tick_every.filter(|_| !source.spec.has_own_clock());
        let gather = Gather { tick_every, ..gather };
        let name = source.name.text.clone();
        let meter = self.stages[stage].source.clone().expect("the first stages are sources");
        let (bridge, crossings) = mpsc::channel(BRIDGE_BATCHES);
        let arrivals = self.arrivals.clone();
        let intake = Intake {
            name: name.clone(),
            decoder: source.decoder.build(&source.columns),
            time: source.output.time,
            watermarks: Watermarks::new(source.time.out_of_orderness, source.time.idle_after, source.time.max_future),
            max_future: source.time.max_future,
            on_error: source.on_error,
            meter: meter.clone(),
            stage: self.wiring.meters[stage].clone(),
            observer: Box::new(move |at, arrival| remember(&arrivals, at, arrival)),
            outbox: self.wiring.outbox(stage, self.rows_max),
        };
        self.crew.spawn(&name, move || Ok(intake.run(crossings)?))?;
        let clock = Arc::new(ArrivalClock::default());
        let context = SourceContext { name: name.clone(), pipeline: self.pipeline.clone(), clock, meter };
        let (epochs, stop, spec) = (self.shared.epochs.clone(), self.shared.stop.clone(), source.spec);
        let task = async move { feed(&*spec, context, gather, bridge, epochs, stop).await.map_err(StageError::from) };
        self.crew.task(&name, self.runtime, task);
        Ok(())
    }
}

fn remember(arrivals: &Arrivals, at: Timestamp, arrival: Timestamp) {
    let mut arrivals = arrivals.lock().unwrap_or_else(PoisonError::into_inner);
    if arrivals.len() == ARRIVALS_MAX {
        arrivals.pop_front();
    }
    arrivals.push_back((at, arrival));
}

/// Measures, a batch at a time, how long results take: from their event time, and from the arrival of the payload whose
/// watermark let them go. Only where the arrival clock is this host's.
fn probe(
    latency: Arc<Latency>,
    arrivals: Arrivals,
    time: usize,
    live: bool,
) -> (impl FnMut(&RecordBatch) + Send, impl FnMut(Timestamp) + Send) {
    let now = || Timestamp::from_micros(jiff::Timestamp::now().as_microsecond());
    // Rows since the last watermark: both closures are called by the sink's thread.
    let pending = Arc::new(AtomicU64::new(0));
    let (rows, by_event) = (pending.clone(), latency.clone());
    let written = move |batch: &RecordBatch| {
        let times = batch.column(time).as_primitive::<TimestampMicrosecondType>();
        if live && let Some(newest) = times.values().iter().max() {
            let count = batch.num_rows() as u64;
            by_event.event_to_emit.record(now().since(Timestamp::from_micros(*newest)), count);
            rows.fetch_add(count, Relaxed);
        }
    };
    let reached = move |at: Timestamp| {
        let count = pending.swap(0, Relaxed);
        if count == 0 {
            return;
        }
        let arrivals = arrivals.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, arrival)) = arrivals.iter().rev().find(|(watermark, _)| *watermark == at) {
            latency.arrival_to_emit.record(now().since(*arrival), count);
        }
    };
    (written, reached)
}
