//! A plan becomes channels and threads.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use crossbeam_channel::{Receiver, Sender, bounded};
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::engine::account::Counted;
use crate::engine::checkpoint::checkpointer::{self, Checkpointer, Known, Report, Reporter};
use crate::engine::checkpoint::manifest::{Counts, PartFile, SourceCounts, StageState};
use crate::engine::checkpoint::store::Store;
use crate::engine::probe::{Arrivals, observe, probe};
use crate::engine::recovery::{self, LaunchError, Recovery, wanted};
use crate::engine::stage::{Checkpoint, NoCheckpoint, SinkStage, StageError, run_operator};
use crate::engine::supervise::{Crew, Running};
use crate::engine::wiring::Wiring;
use crate::engine::{Options, Shared, State, gather, pace};
use crate::flow::message::Epoch;
use crate::flow::meter::{CheckpointMeter, SourceMeter};
use crate::flow::payload::Payloads;
use crate::flow::state::Restored;
use crate::ingest::decoding::{Decoding, default_decoders};
use crate::ingest::feed::{BRIDGE_BATCHES, Crossing, Gather, Pace, Safe, feed};
use crate::ingest::intake::{Inflow, Intake};
use crate::ingest::journal::{Handle, Keeper, Reader, Recovered};
use crate::ingest::keys::KeyNumbers;
use crate::ingest::slices::Slices;
use crate::ingest::watermark::Watermarks;
use crate::ingest::{ArrivalClock, Replies, SourceContext};
use crate::pipeline::plan::{Plan, PlannedOperator, PlannedSink, PlannedSource};
use crate::sink::{SinkContext, publish};
use crate::telemetry::{Health, Latency, PipelineInfo, Telemetry};

/// A plan with its channels, before anything is opened: what the telemetry can be made of.
pub struct Prepared {
    plan: Plan,
    wiring: Wiring,
    stages: Vec<Counted>,
    latency: Arc<Latency>,
    checkpoints: Arc<CheckpointMeter>,
}

impl Prepared {
    /// Makes the channels of a plan.
    pub fn new(plan: Plan) -> Self {
        let wiring = Wiring::of(&plan);
        let stages = wiring.counted(&plan);
        Self { plan, wiring, stages, latency: Arc::default(), checkpoints: Arc::default() }
    }

    /// What there is to measure.
    pub fn info(&self) -> PipelineInfo {
        self.wiring.info(&self.plan, &self.stages, self.latency.clone(), self.checkpoints.clone())
    }

    /// Takes up the state, opens everything and lets it run. The feeds need the runtime's I/O and time.
    pub fn launch(self, options: &Options, runtime: &Runtime, telemetry: &Telemetry) -> Result<Running, LaunchError> {
        let Self { plan, wiring, stages, latency, checkpoints } = self;
        let recovery = match (options.state, &plan.durability) {
            (State::Keep, Some(durability)) => {
                Some(Recovery::of(&plan, durability, &options.disk, &options.run, &options.resets)?)
            }
            (State::Replay, Some(durability)) => {
                Some(Recovery::replay(&plan, durability, &options.disk, &options.resets)?)
            }
            (State::Ignore, _) | (_, None) => None,
        };
        let running = recovery.as_ref().map_or(Epoch(0), |recovery| recovery.running);
        let (pace_sender, pace_receiver) = watch::channel(Pace { epoch: running, stop: false });
        let stop = CancellationToken::new();
        let shared = Shared {
            pace: pace_receiver,
            boards: telemetry.boards.clone(),
            health: telemetry.health.clone(),
            latency,
            disk: options.disk.clone(),
        };
        let (epoch, gather, slices) = (plan.epoch, gather(&plan, options), plan.merges());
        let host_clock = options.live && plan.sources.iter().all(|source| !source.spec.has_own_clock());
        let keeps = options.state == State::Keep;
        let mut launching = Launching {
            pipeline: plan.name.clone(),
            rows_max: plan.batch_rows,
            gather,
            slices: slices.then(Slices::default),
            memory_bytes: plan.memory / plan.sources.len().max(1) as u64 / 2,
            epoch,
            host_clock,
            options,
            runtime,
            shared,
            known: known(&plan, &stages, recovery.as_ref()),
            checkpoints,
            reports: bounded(stages.len() * (pace::EPOCHS_IN_FLIGHT_MAX + 1)),
            keeps: keeps && recovery.is_some(),
            recovery,
            wiring,
            stages,
            crew: Crew::default(),
            arrivals: Arc::default(),
        };
        let base = recovery::base(&plan, launching.run());
        launching.threads(plan)?;
        let (handles, durable) = launching.checkpointer(base)?;
        if options.live {
            runtime.spawn(pace::keep(epoch.duration(), pace_sender, stop.clone(), durable, handles));
        } else {
            runtime.spawn(pace::stop(pace_sender, stop.clone()));
        }
        let Launching { pipeline, crew, stages, recovery, .. } = launching;
        let folder = recovery.map(|recovery| recovery.folder);
        Ok(Running::new(pipeline, crew, stages, stop, options.drain_max, folder))
    }
}

/// Every stage as a checkpoint names it, with what it had left.
fn known(plan: &Plan, stages: &[Counted], recovery: Option<&Recovery>) -> Vec<Known> {
    let known = |(wanted, counted): (crate::engine::checkpoint::changes::Wanted, &Counted)| {
        let found = recovery.and_then(|recovery| recovery.stage(&wanted.name)).cloned().unwrap_or_default();
        found.counts.restore(&counted.meter, counted.source.as_deref());
        let state = StageState { kind: wanted.kind.to_owned(), identity: wanted.identity, files: Vec::new(), ..found };
        Known { name: wanted.name, state, journal: None }
    };
    let known = wanted(plan).into_iter().zip(stages).map(known).collect();
    if !add_up(stages) {
        tracing::info!("the pipeline has another shape than the one that was counted; its account begins anew");
        let nothing = Counts { source: Some(SourceCounts::default()), ..Counts::default() };
        stages.iter().for_each(|counted| nothing.restore(&counted.meter, counted.source.as_deref()));
    }
    known
}

/// Whether every stage has counted as many rows as were sent to it: not where stages came or went, or read others.
fn add_up(stages: &[Counted]) -> bool {
    let sent =
        |(from, port): &(usize, crate::flow::outbox::Port)| stages[*from].meter.rows_out[*port as usize].load(Relaxed);
    let adds_up = |stage: &Counted| {
        stage.source.is_some() || stage.inputs.iter().map(sent).sum::<u64>() == stage.meter.rows_in.load(Relaxed)
    };
    stages.iter().all(adds_up)
}

/// The newest epoch that is durable, where any will be.
type Durable = Option<watch::Receiver<Option<Epoch>>>;

struct Launching<'a> {
    pipeline: String,
    rows_max: usize,
    gather: Gather,
    slices: Option<Slices>,
    memory_bytes: u64,
    epoch: crate::flow::time::Span,
    /// Arrival times are this host's: no recording's, and no simulation's.
    host_clock: bool,
    options: &'a Options,
    runtime: &'a Runtime,
    shared: Shared,
    known: Vec<Known>,
    checkpoints: Arc<CheckpointMeter>,
    reports: (Sender<Report>, Receiver<Report>),
    /// Epochs are written to the state folder.
    keeps: bool,
    recovery: Option<Recovery>,
    wiring: Wiring,
    stages: Vec<Counted>,
    crew: Crew,
    arrivals: Arrivals,
}

/// How many emptied batches of payloads a source keeps to be filled again.
const EMPTIED_BATCHES: usize = 16;

impl Launching<'_> {
    /// From the sinks to the sources, so that nobody sends to a stage that is not there.
    fn threads(&mut self, plan: Plan) -> Result<(), LaunchError> {
        let (operators_at, sinks_at) = (plan.sources.len(), plan.sources.len() + plan.operators.len());
        let keys: Vec<Vec<String>> = (0..operators_at).map(|source| plan.keys(source).to_vec()).collect();
        for (index, sink) in plan.sinks.into_iter().enumerate() {
            self.sink(sinks_at + index, sink)?;
        }
        for (index, operator) in plan.operators.into_iter().enumerate().rev() {
            self.operator(operators_at + index, operator)?;
        }
        for (index, (source, keys)) in plan.sources.into_iter().zip(keys).enumerate() {
            self.source(index, source, &keys)?;
        }
        Ok(())
    }

    /// Tells this run's files from others: those of a state folder have the folder's.
    fn run(&self) -> &str {
        self.recovery.as_ref().map_or(&self.options.run, |recovery| &recovery.folder.run)
    }

    fn first_epoch(&self) -> Epoch {
        self.recovery.as_ref().map_or(Epoch(0), |recovery| recovery.first)
    }

    fn reporter(&self, stage: usize) -> Reporter {
        let Counted { meter, source, .. } = &self.stages[stage];
        Reporter { stage, reports: self.reports.0.clone(), meter: meter.clone(), source: source.clone() }
    }

    fn checkpoint(&self, stage: usize) -> Box<dyn Checkpoint> {
        if self.keeps { Box::new(self.reporter(stage)) } else { Box::new(NoCheckpoint) }
    }

    /// The state that a stage takes up.
    fn restored(&self, stage: usize) -> Restoring {
        let store = self.recovery.as_ref().map(|recovery| recovery.store.clone());
        Restoring { store, parts: self.known[stage].state.parts.clone() }
    }

    fn sink(&mut self, stage: usize, sink: PlannedSink) -> std::io::Result<()> {
        let inbox = self.wiring.inbox(stage);
        let context = SinkContext {
            pipeline: self.pipeline.clone(),
            name: sink.name.text.clone(),
            run: self.run().to_owned(),
            boards: self.shared.boards.clone(),
            disk: self.shared.disk.clone(),
            epoch: self.first_epoch(),
            epoch_every: self.epoch,
        };
        let latency = self.shared.latency.clone();
        let (written, reached) = probe(latency, self.arrivals.clone(), sink.input.time, self.host_clock);
        let running = SinkStage {
            name: sink.name.text.clone(),
            health: self.shared.health.clone(),
            disk: self.shared.disk.clone(),
            written: Box::new(written),
            reached: Box::new(reached),
        };
        let mut checkpoint = self.checkpoint(stage);
        let restored = self.restored(stage);
        // Published before the process died, or not: whichever, it is after this.
        let found = self.recovery.as_ref().filter(|_| self.keeps).and_then(|recovery| recovery.stage(&sink.name.text));
        let files = found.map(|state| state.files.clone()).unwrap_or_default();
        let disk = self.shared.disk.clone();
        self.crew.spawn(&sink.name.text, move || {
            let parts = restored.read()?;
            let open = || {
                publish(&*disk, &files)?;
                let mut open = sink.spec.open(&context, &sink.input)?;
                if !parts.is_empty() {
                    open.restore(&parts)?;
                }
                Ok(open)
            };
            running.run(inbox, open, &mut *checkpoint)
        })
    }

    fn operator(&mut self, stage: usize, mut operator: PlannedOperator) -> std::io::Result<()> {
        let inbox = self.wiring.inbox(stage);
        let outbox = self.wiring.outbox(stage, self.rows_max);
        let mut checkpoint = self.checkpoint(stage);
        let restored = self.restored(stage);
        self.crew.spawn(&operator.name.text, move || {
            let parts = restored.read()?;
            if !parts.is_empty() {
                operator.operator.restore(&parts)?;
            }
            run_operator(inbox, operator.operator, outbox, &mut *checkpoint)
        })
    }

    fn source(&mut self, stage: usize, source: PlannedSource, keys: &[String]) -> Result<(), LaunchError> {
        let name = source.name.text.clone();
        let meter = self.stages[stage].source.clone().expect("the first stages are sources");
        let (took, observer) = observe(self.arrivals.clone(), self.host_clock);
        let (keeps, reporter) = (self.keeps, self.reporter(stage));
        let keep = move |epoch, state, last| {
            let left = crate::engine::stage::Left { last, ..Default::default() };
            if keeps { reporter.report(epoch, left, Some(state)) } else { Ok(()) }
        };
        let decoders = if source.decoder.is_stateful() { 1 } else { source.decoders.unwrap_or_else(default_decoders) };
        let decoders = (0..decoders).map(|_| source.decoder.build(&source.columns)).collect();
        let (decoding, threads) = Decoding::of(decoders);
        for (thread, number) in threads.into_iter().zip(1..) {
            self.crew.spawn(&format!("{name} (decoder {number})"), move || {
                thread.run();
                Ok(())
            })?;
        }
        let (emptied_sender, emptied) = bounded(EMPTIED_BATCHES);
        let replies: Arc<Replies> = Arc::default();
        let intake = Intake {
            name: name.clone(),
            decoding,
            time: source.output.time,
            keys: KeyNumbers::new(&source.output.columns, keys),
            watermarks: Watermarks::new(source.time.out_of_orderness, source.time.idle_after, source.time.max_future),
            max_future: source.time.max_future,
            on_error: source.on_error,
            meter: meter.clone(),
            stage: self.wiring.meters[stage].clone(),
            took: Box::new(took),
            observer: Box::new(observer),
            keeps,
            keep: Box::new(keep),
            slices: self.slices,
            taken: 0,
            before: self.first_epoch()..self.recovery.as_ref().map_or(Epoch(0), |recovery| recovery.begins[stage]),
            replies: replies.clone(),
            emptied: emptied_sender,
            outbox: self.wiring.outbox(stage, self.rows_max),
        };
        let restored = self.known[stage].state.source.clone();
        let inflow = self.inflow(stage, source, (&meter, &replies), emptied)?;
        self.crew.spawn(&name, move || Ok(intake.run(inflow, restored)?))?;
        Ok(())
    }

    /// Starts the feed, and the keeper of its journal where there is one.
    fn inflow(
        &mut self,
        stage: usize,
        source: PlannedSource,
        (meter, replies): (&Arc<SourceMeter>, &Arc<Replies>),
        emptied: Receiver<Payloads>,
    ) -> Result<Inflow, LaunchError> {
        let batch = (self.gather.payloads_max, self.gather.bytes_max);
        let (bridge, crossings) = mpsc::channel(BRIDGE_BATCHES);
        let Some(recovery) = &self.recovery else {
            self.feed(source, None, (bridge, emptied), (Epoch(0), Safe::Taken), (meter, replies));
            return Ok(Inflow::Bridge(crossings));
        };
        let (settings, recovered) = recovery.journals[stage].clone();
        meter.received.fetch_add(recovered.payloads.0, Relaxed);
        meter.bytes.fetch_add(recovered.payloads.1, Relaxed);
        if !self.keeps || recovered.exhausted {
            let reader = Reader::whole(self.shared.disk.clone(), &settings, &recovered, batch);
            return Ok(Inflow::Journal(reader));
        }
        let epoch = recovered.epoch.map_or(recovery.first, |epoch| epoch.next().max(recovery.first));
        let (safe_sender, safe) = watch::channel(0);
        let name = format!("{} (journal)", source.name.text);
        let troubled = troubled(self.shared.health.clone(), name.clone());
        let pace = (epoch, self.shared.pace.clone());
        let disk = self.shared.disk.clone();
        let told = (safe_sender, meter.clone());
        let (keeper, reader, handle) =
            Keeper::open(disk, &settings, &recovered, pace, told, (batch, Box::new(troubled)))?;
        self.known[stage].journal = Some((handle, settings.keep));
        let runtime = self.runtime.handle().clone();
        self.crew.spawn(&name, move || Ok(keeper.run(crossings, &runtime)?))?;
        self.feed(source, Some(&recovered), (bridge, emptied), (epoch, Safe::Journaled(safe)), (meter, replies));
        Ok(Inflow::Journal(reader))
    }

    fn feed(
        &mut self,
        source: PlannedSource,
        recovered: Option<&Recovered>,
        bridge: (mpsc::Sender<Crossing>, Receiver<Payloads>),
        (epoch, safe): (Epoch, Safe),
        (meter, replies): (&Arc<SourceMeter>, &Arc<Replies>),
    ) {
        let name = source.name.text;
        let before = self.recovery.as_ref().and_then(|recovery| recovery.stage(&name)?.source.as_ref());
        let taken = before.map_or(0, |before| before.taken) + recovered.map_or(0, |recovered| recovered.payloads.0);
        let context = SourceContext {
            name: name.clone(),
            pipeline: self.pipeline.clone(),
            clock: Arc::new(ArrivalClock::default()),
            meter: meter.clone(),
            memory_bytes: self.memory_bytes,
            kept: recovered
                .zip(self.recovery.as_ref())
                .map(|(_, recovery)| (self.shared.disk.clone(), recovery.folder.journal(&name))),
            taken,
            connection: recovered.map_or(0, |recovered| recovered.connection),
            redeliveries: recovered.map_or_else(Vec::new, |recovered| recovered.redeliveries.clone()).into(),
            replies: replies.clone(),
        };
        // A recording brings its own time.
        let tick_every = self.gather.tick_every.filter(|_| !source.spec.has_own_clock());
        let gather = Gather { tick_every, ..self.gather };
        let (pace, spec) = (self.shared.pace.clone(), source.spec);
        let task =
            async move { feed(&*spec, context, gather, bridge, (epoch, pace), safe).await.map_err(StageError::from) };
        self.crew.task(&name, self.runtime, task);
    }

    /// Starts the thread that writes epochs, if any are; gives what the pace depends on.
    fn checkpointer(
        &mut self,
        base: crate::engine::checkpoint::manifest::Manifest,
    ) -> Result<(Vec<Handle>, Durable), LaunchError> {
        let Some(recovery) = self.recovery.as_ref().filter(|_| self.keeps) else { return Ok((Vec::new(), None)) };
        let handles: Vec<Handle> =
            self.known.iter().filter_map(|known| known.journal.as_ref().map(|(handle, _)| handle.clone())).collect();
        let before = recovery.manifest.as_ref().map(crate::engine::checkpoint::manifest::Manifest::epoch);
        let (durable_sender, durable) = watch::channel(before);
        let (sender, receiver) = bounded(0);
        let checkpointer = Checkpointer {
            disk: self.shared.disk.clone(),
            store: recovery.store.clone(),
            health: self.shared.health.clone(),
            meter: self.checkpoints.clone(),
            base,
            stages: std::mem::take(&mut self.known),
            reports: std::mem::replace(&mut self.reports, (sender, receiver)).1,
            durable: durable_sender,
        };
        self.crew.spawn(checkpointer::NAME, move || checkpointer.run())?;
        Ok((handles, Some(durable)))
    }
}

/// Tells of a journal's troubles on `/readyz`.
fn troubled(health: Arc<Health>, name: String) -> impl Fn(Option<String>) + Send {
    move |why| health.set(&name, why)
}

/// Parts to be read by the stage's own thread.
struct Restoring {
    store: Option<Store>,
    parts: Vec<PartFile>,
}

impl Restoring {
    fn read(&self) -> Result<Vec<Restored>, StageError> {
        match &self.store {
            Some(store) => Ok(store.read_parts(&self.parts)?),
            None => Ok(Vec::new()),
        }
    }
}
