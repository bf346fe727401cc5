//! The thread that makes epochs durable: it gathers what every stage leaves, and writes it beside the running stages.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};
use tokio::sync::watch;

use crate::disk::SharedDisk;
use crate::engine::checkpoint::manifest::{Counts, Manifest, PartFile, SourceCounts, StageState};
use crate::engine::checkpoint::store::{KEPT, Store, StoreError};
use crate::engine::stage::{Checkpoint, Left, StageError};
use crate::flow::message::{Epoch, Severed};
use crate::flow::meter::{CheckpointMeter, Meter, SourceMeter};
use crate::ingest::intake::SourceState;
use crate::ingest::journal::Handle;
use crate::sink::{SinkError, publish};
use crate::telemetry::Health;

/// Its name among the stages, in logs and on `/readyz`.
pub(crate) const NAME: &str = "checkpoints";
/// The pauses between attempts: the first, and the longest.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// What one stage left at the end of one epoch.
pub(crate) struct Report {
    stage: usize,
    epoch: Epoch,
    left: Left,
    source: Option<SourceState>,
    counts: Counts,
}

/// The end of a stage where it leaves its reports.
#[derive(Clone)]
pub(crate) struct Reporter {
    pub(crate) stage: usize,
    pub(crate) reports: Sender<Report>,
    pub(crate) meter: Arc<Meter>,
    pub(crate) source: Option<Arc<SourceMeter>>,
}

impl Reporter {
    /// Hands over. What the stage has counted is read here, while it stands at the barrier.
    pub(crate) fn report(&self, epoch: Epoch, left: Left, source: Option<SourceState>) -> Result<(), Severed> {
        let counts = Counts::of(&self.meter, self.source.as_deref());
        let report = Report { stage: self.stage, epoch, left, source, counts };
        self.reports.send(report).map_err(|_| Severed)
    }
}

impl Checkpoint for Reporter {
    fn save(&mut self, epoch: Epoch, left: Left) -> Result<(), StageError> {
        Ok(self.report(epoch, left, None)?)
    }

    fn wanted(&self) -> bool {
        true
    }
}

impl Counts {
    fn of(meter: &Meter, source: Option<&SourceMeter>) -> Self {
        let source = source.map(|source| SourceCounts {
            expanded: source.expanded.load(Relaxed),
            rows: source.rows.load(Relaxed),
            dead_letter: source.dead_letter.load(Relaxed),
            future: source.future.load(Relaxed),
            dropped: source.dropped.load(Relaxed),
            duplicates: source.duplicates.load(Relaxed),
            extra_fields: source.extra_fields.load(Relaxed),
            mismatched_values: source.mismatched_values.load(Relaxed),
            lost_messages: source.lost_messages.load(Relaxed),
            bytes: source.bytes.load(Relaxed),
        });
        let rows_out = [0, 1].map(|port| meter.rows_out[port].load(Relaxed));
        Self { rows_in: meter.rows_in.load(Relaxed), rows_out, source }
    }

    /// Goes on counting from here.
    pub(crate) fn restore(&self, meter: &Meter, source: Option<&SourceMeter>) {
        meter.rows_in.store(self.rows_in, Relaxed);
        for port in [0, 1] {
            meter.rows_out[port].store(self.rows_out[port], Relaxed);
        }
        if let Some((counts, source)) = self.source.zip(source) {
            source.received.store(counts.received(), Relaxed);
            source.expanded.store(counts.expanded, Relaxed);
            source.rows.store(counts.rows, Relaxed);
            source.dead_letter.store(counts.dead_letter, Relaxed);
            source.future.store(counts.future, Relaxed);
            source.dropped.store(counts.dropped, Relaxed);
            source.duplicates.store(counts.duplicates, Relaxed);
            source.extra_fields.store(counts.extra_fields, Relaxed);
            source.mismatched_values.store(counts.mismatched_values, Relaxed);
            source.lost_messages.store(counts.lost_messages, Relaxed);
            source.bytes.store(counts.bytes, Relaxed);
        }
    }
}

/// A stage as the checkpointer knows it.
pub(crate) struct Known {
    pub(crate) name: String,
    /// What it left last: kind, identity, and what a restart brought.
    pub(crate) state: StageState,
    /// Of a source: its journal, and how much of it is kept for replays.
    pub(crate) journal: Option<(Handle, u64)>,
}

/// Makes epochs durable.
pub(crate) struct Checkpointer {
    pub(crate) disk: SharedDisk,
    pub(crate) store: Store,
    pub(crate) health: Arc<Health>,
    pub(crate) meter: Arc<CheckpointMeter>,
    /// Pipeline, run and file of every manifest.
    pub(crate) base: Manifest,
    pub(crate) stages: Vec<Known>,
    pub(crate) reports: Receiver<Report>,
    /// Told the newest epoch that is durable and published.
    pub(crate) durable: watch::Sender<Option<Epoch>>,
}

impl Checkpointer {
    /// Works until every stage has ended. An epoch that not all stages have ended is never written.
    pub(crate) fn run(mut self) -> Result<(), StageError> {
        let mut waiting: BTreeMap<Epoch, Vec<Report>> = BTreeMap::new();
        let mut ended = vec![false; self.stages.len()];
        loop {
            let report = self.reports.recv().map_err(|_| Severed)?;
            waiting.entry(report.epoch).or_default().push(report);
            while let Some(entry) = waiting.first_entry() {
                let reported = |stage| entry.get().iter().any(|report| report.stage == stage);
                if !(0..ended.len()).all(|stage| ended[stage] || reported(stage)) {
                    break;
                }
                let (epoch, reports) = entry.remove_entry();
                reports.iter().filter(|report| report.left.last).for_each(|report| ended[report.stage] = true);
                self.epoch(epoch, reports)?;
                if ended.iter().all(|ended| *ended) {
                    return Ok(());
                }
            }
        }
    }

    fn epoch(&mut self, epoch: Epoch, reports: Vec<Report>) -> Result<(), StageError> {
        let started = Instant::now();
        // Files of a stage that has ended were published with its last epoch.
        self.stages.iter_mut().for_each(|known| known.state.files.clear());
        for report in reports {
            self.take(epoch, report)?;
        }
        let stages = self.stages.iter().map(|known| (known.name.clone(), known.state.clone())).collect();
        let manifest = Manifest { epoch: epoch.0, stages, ..self.base.clone() };
        self.patiently(|this| this.store.commit(&manifest).map_err(Trouble::from))?;
        for state in manifest.stages.values() {
            self.patiently(|this| publish(&*this.disk, &state.files).map_err(Trouble::from))?;
        }
        self.release();
        self.meter.written.fetch_add(1, Relaxed);
        self.meter.epoch.store(epoch.0, Relaxed);
        self.meter.durable_micros.store(jiff::Timestamp::now().as_microsecond(), Relaxed);
        self.meter.busy_ns.fetch_add(u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX), Relaxed);
        // Nobody listens once the run is over.
        let _ = self.durable.send(Some(epoch));
        Ok(())
    }

    /// Writes what has changed of a stage's state.
    fn take(&mut self, epoch: Epoch, report: Report) -> Result<(), StageError> {
        let Report { stage, left, source, counts, .. } = report;
        let mut parts = Vec::with_capacity(left.parts.len());
        for part in left.parts {
            let file = match part.rows {
                Some(rows) => {
                    let file = self.patiently(|this| {
                        let name = &this.stages[stage].name;
                        this.store.write_part(epoch.0, name, &part.name, &rows).map_err(Trouble::from)
                    })?;
                    self.meter.bytes.fetch_add(file.bytes, Relaxed);
                    file
                }
                None => self.before(stage, &part.name)?,
            };
            parts.push(file);
        }
        let state = &mut self.stages[stage].state;
        (state.parts, state.files, state.counts) = (parts, left.files, counts);
        state.source = source.or(state.source.take());
        Ok(())
    }

    /// A part that is as it was in the checkpoint before.
    fn before(&self, stage: usize, part: &str) -> Result<PartFile, StageError> {
        let Known { name, state, .. } = &self.stages[stage];
        let found = state.parts.iter().find(|known| known.name == part).cloned();
        found.ok_or_else(|| {
            StageError::Panicked(format!("`{name}` says that its part `{part}` is as before; there is none"))
        })
    }

    /// Lets go of what no kept checkpoint needs. Failing costs nothing but room.
    fn release(&self) {
        let pressed =
            self.stages.iter().any(|known| known.journal.as_ref().is_some_and(|(journal, _)| journal.is_pressed()));
        let kept = match self.store.prune(if pressed { 1 } else { KEPT }) {
            Ok(kept) => kept,
            Err(error) => return tracing::warn!("old checkpoints stay: {error}"),
        };
        for known in &self.stages {
            let Some((journal, keep)) = &known.journal else { continue };
            let needed =
                kept.iter().map(|manifest| manifest.stages.get(&known.name).and_then(|state| state.source.as_ref()));
            // A source that is new in a kept checkpoint is needed from its beginning.
            let Some(needed) = needed.map(|source| source.map(|source| source.position)).min().flatten() else {
                continue;
            };
            if let Err(error) = journal.release(needed, *keep) {
                tracing::warn!("old segments stay: {error}");
            }
        }
    }

    /// Tries until it works or fails for good. Meanwhile nothing new becomes visible, and journals grow.
    fn patiently<T>(&mut self, mut attempt: impl FnMut(&mut Self) -> Result<T, Trouble>) -> Result<T, StageError> {
        let mut pause = PAUSE.0;
        let mut troubled = false;
        loop {
            match attempt(self) {
                Ok(done) => {
                    if troubled {
                        tracing::info!("checkpoints can be written again");
                        self.health.set(NAME, None);
                    }
                    return Ok(done);
                }
                Err(Trouble::Passing(why)) => {
                    tracing::warn!(?pause, "{why}; trying again");
                    self.health.set(NAME, Some(why));
                    troubled = true;
                    std::thread::sleep(pause);
                    pause = (pause * 2).min(PAUSE.1);
                }
                Err(Trouble::Fatal(error)) => return Err(error),
            }
        }
    }
}

enum Trouble {
    Passing(String),
    Fatal(StageError),
}

impl From<StoreError> for Trouble {
    fn from(error: StoreError) -> Self {
        if error.may_pass() { Self::Passing(error.to_string()) } else { Self::Fatal(StageError::Store(error)) }
    }
}

impl From<SinkError> for Trouble {
    fn from(error: SinkError) -> Self {
        match error {
            SinkError::Retry(why) => Self::Passing(why),
            fatal => Self::Fatal(StageError::Sink(fatal)),
        }
    }
}
