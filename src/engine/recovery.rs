//! What a run goes on from: the newest checkpoint, reconciled with the pipeline file, and the journals behind it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use crate::disk::{Folders, SharedDisk, remove_all};
use crate::engine::checkpoint::changes::{Wanted, reconcile};
use crate::engine::checkpoint::manifest::{Manifest, StageState};
use crate::engine::checkpoint::store::{Store, StoreError};
use crate::engine::checkpoint::{StateError, StateFolder};
use crate::engine::untouched::Untouched;
use crate::flow::message::Epoch;
use crate::ingest::feed::Crossing;
use crate::ingest::intake::SourceState;
use crate::ingest::journal::{JournalError, JournalSettings, Next, Position, Reader, Recovered, ZEROS_BELOW, recover};
use crate::ingest::slices::Slices;
use crate::ingest::watermark::WatermarkState;
use crate::pipeline::plan::{Durability, Plan};

/// Payloads of a source that wait for the stages in memory, at most.
const TAIL_BYTES_MAX: u64 = 64 << 20;
/// Payloads, and their bytes, that are read at once where only the ends of epochs are looked for.
const LOOK: (usize, usize) = (4_096, 4 << 20);

/// What to do with state that does not fit, or is damaged.
#[derive(Clone, Debug, Default)]
pub struct Resets {
    /// Begin with empty state; the journal goes on where it was.
    pub all: bool,
    /// Begin with the empty state of these stages.
    pub stages: BTreeSet<String>,
    /// Go on behind damage of a journal.
    pub accept_loss: bool,
}

/// Why a pipeline could not be started.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// The state folder cannot be used.
    #[error(transparent)]
    State(#[from] StateError),
    /// A checkpoint cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A journal cannot be read.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The state is not that of this pipeline file.
    #[error("{0}")]
    Changed(String),
    /// A thread could not be started.
    #[error("cannot start a thread: {0}")]
    Thread(#[from] std::io::Error),
}

/// The state that a run begins with.
pub(crate) struct Recovery {
    pub(crate) folder: StateFolder,
    pub(crate) store: Store,
    pub(crate) manifest: Option<Manifest>,
    /// By source, in their order.
    pub(crate) journals: Vec<(JournalSettings, Recovered)>,
    /// By source, the first epoch that its journal tells the end of: of one that was added later, not the first of all.
    pub(crate) begins: Vec<Epoch>,
    /// The first epoch that rows belong to.
    pub(crate) first: Epoch,
    /// The first epoch of this run: the journals know all before it.
    pub(crate) running: Epoch,
}

impl Recovery {
    /// Opens the state folder of a plan and reads what is there.
    pub(crate) fn of(
        plan: &Plan,
        durability: &Durability,
        disk: &SharedDisk,
        run: &str,
        resets: &Resets,
    ) -> Result<Self, LaunchError> {
        let folder = StateFolder::open(disk, &durability.state, &plan.name, run)?;
        Self::read(folder, plan, durability, disk, resets)
    }

    /// Reads a state folder that is there already, for a replay of it: from its beginning if that is still there, else from
    /// its oldest checkpoint.
    pub(crate) fn replay(
        plan: &Plan,
        durability: &Durability,
        disk: &SharedDisk,
        resets: &Resets,
    ) -> Result<Self, LaunchError> {
        let folder = StateFolder::existing(disk, &durability.state)?;
        let disk: SharedDisk = Arc::new(Untouched(disk.clone()));
        let store = Store::open(disk.clone(), folder.checkpoints())?;
        let mut journals = Vec::new();
        for source in &plan.sources {
            let settings = settings(plan, durability, &folder, &source.name.text);
            match recover(&*disk, &settings, None, resets.accept_loss) {
                Ok(recovered) => journals.push((settings, recovered)),
                // Its beginning is gone, as no checkpoint needs it.
                Err(JournalError::Damaged { path, .. }) if disk.file_len(&path).is_err() => break,
                Err(error) => return Err(error.into()),
            }
        }
        if journals.len() < plan.sources.len() {
            let oldest = store.oldest()?;
            return Self::from_checkpoint(folder, store, oldest, plan, durability, &disk, resets);
        }
        let begins = journals.iter().map(|(settings, recovered)| {
            let first = epochs(&disk, settings, recovered, |_| true)?;
            Ok(first.map_or(Epoch(0), |(epoch, _)| epoch))
        });
        let begins = begins.collect::<Result<_, JournalError>>()?;
        Ok(Self { folder, store, manifest: None, journals, begins, first: Epoch(0), running: Epoch(0) })
    }

    fn read(
        folder: StateFolder,
        plan: &Plan,
        durability: &Durability,
        disk: &SharedDisk,
        resets: &Resets,
    ) -> Result<Self, LaunchError> {
        let store = Store::open(disk.clone(), folder.checkpoints())?;
        let newest = match store.newest() {
            Err(StoreError::None { .. }) if resets.all => Some(from_journals(&folder, plan, durability, disk)?),
            newest => newest?,
        };
        Self::from_checkpoint(folder, store, newest, plan, durability, disk, resets)
    }

    fn from_checkpoint(
        folder: StateFolder,
        store: Store,
        mut manifest: Option<Manifest>,
        plan: &Plan,
        durability: &Durability,
        disk: &SharedDisk,
        resets: &Resets,
    ) -> Result<Self, LaunchError> {
        let mut given_up = Vec::new();
        if let Some(manifest) = &mut manifest {
            let mut reset = resets.stages.clone();
            if resets.all {
                for state in manifest.stages.values_mut() {
                    state.source = state.source.take().map(SourceState::without_time);
                }
                reset.extend(manifest.stages.keys().cloned());
            }
            let sources = || manifest.stages.values().filter_map(|state| state.source.as_ref());
            if sources().count() > 0 && sources().all(|source| source.exhausted) {
                tracing::info!(epoch = manifest.epoch, "all sources had come to their end; they begin anew");
                for state in manifest.stages.values_mut() {
                    let source = state.source.take().map(SourceState::anew);
                    *state = StageState {
                        kind: state.kind.clone(),
                        source,
                        files: state.files.clone(),
                        ..StageState::default()
                    };
                }
            }
            given_up = sources_without(manifest, plan);
            reconcile(manifest, &wanted(plan), &reset, &durability.state).map_err(LaunchError::Changed)?;
            if manifest.file != plan.file {
                tracing::info!(
                    epoch = manifest.epoch,
                    "the pipeline file has changed since the checkpoint; its state fits"
                );
            }
        }
        let mut folders = Folders::default();
        let mut journals = Vec::new();
        for source in &plan.sources {
            let settings = settings(plan, durability, &folder, &source.name.text);
            let trouble = |(path, why)| JournalError::Disk { what: "create", path, why };
            folders.create(&**disk, &settings.folder).map_err(trouble)?;
            folders.sync(&**disk).map_err(trouble)?;
            let state = manifest.as_ref().and_then(|manifest| manifest.stages.get(&source.name.text)?.source.as_ref());
            let from = state.map(|state| (state.position, state.number));
            let mut recovered = recover(&**disk, &settings, from, resets.accept_loss)?;
            recovered.exhausted |= state.is_some_and(|state| state.exhausted);
            if recovered.lost > 0 {
                tracing::warn!(
                    source = source.name.text,
                    records = recovered.lost,
                    "went on behind damage of the journal"
                );
            }
            journals.push((settings, recovered));
        }
        let first = manifest.as_ref().map_or(Epoch(0), |manifest| manifest.epoch().next());
        let known = journals.iter().filter_map(|(_, recovered)| recovered.epoch);
        let running = known.map(Epoch::next).max().unwrap_or(first).max(first);
        for journal in given_up.iter().map(|source| folder.journal(source)) {
            // A source that comes back by this name must not find what it gave before.
            let removed = remove_all(&**disk, &journal);
            removed.map_err(|why| JournalError::Disk { what: "remove", path: journal, why })?;
        }
        let begins = vec![first; journals.len()];
        Ok(Self { folder, store, manifest, journals, begins, first, running })
    }

    /// What a stage had left.
    pub(crate) fn stage(&self, name: &str) -> Option<&StageState> {
        self.manifest.as_ref()?.stages.get(name)
    }
}

fn settings(plan: &Plan, durability: &Durability, folder: &StateFolder, source: &str) -> JournalSettings {
    let sources = plan.sources.len() as u64;
    JournalSettings {
        folder: folder.journal(source),
        quota: durability.quota / sources,
        sync: durability.sync,
        tail_bytes: usize::try_from((plan.memory / sources / 2).min(TAIL_BYTES_MAX)).unwrap_or(usize::MAX),
        keep: durability.keep / sources,
        segment: None,
        zeros_below: ZEROS_BELOW,
    }
}

/// The sources of a checkpoint that the plan has no more.
fn sources_without(manifest: &Manifest, plan: &Plan) -> Vec<String> {
    let sources = manifest.stages.iter().filter(|(_, state)| state.source.is_some()).map(|(name, _)| name);
    sources.filter(|name| plan.sources.iter().all(|source| source.name.text != **name)).cloned().collect()
}

/// An epoch, and the place and the number of what follows it in a journal.
type EpochEnd = (Epoch, Next);

/// The end of the first epoch in a journal for which `wanted` holds.
fn epochs(
    disk: &SharedDisk,
    settings: &JournalSettings,
    recovered: &Recovered,
    wanted: impl Fn(Epoch) -> bool,
) -> Result<Option<EpochEnd>, JournalError> {
    let mut reader = Reader::whole(disk.clone(), settings, recovered, LOOK);
    while reader.lag() > 0 {
        let Some(read) = reader.next(|wait| wait())? else { break };
        match read.crossing {
            Crossing::Barrier(epoch) | Crossing::Stop(epoch) | Crossing::End { epoch, .. } if wanted(epoch) => {
                return Ok(Some((epoch, read.next)));
            }
            _ => {}
        }
    }
    Ok(None)
}

/// What stands for the newest checkpoint where none can be read: its name says which epoch was committed, and the journals say
/// where that ended. No stage has state there.
fn from_journals(
    folder: &StateFolder,
    plan: &Plan,
    durability: &Durability,
    disk: &SharedDisk,
) -> Result<Manifest, LaunchError> {
    let checkpoints = folder.checkpoints();
    let names = disk.list(&checkpoints).map_err(|why| StoreError::Disk { what: "list", path: checkpoints, why })?;
    let epochs_known = names.iter().filter_map(|name| name.strip_suffix(".checkpoint")?.parse().ok());
    let mut manifest = Manifest { epoch: epochs_known.max().unwrap_or(0), ..base(plan, &folder.run) };
    // Only read here: what it finds wrong is judged when the journal is opened.
    let untouched: SharedDisk = Arc::new(Untouched(disk.clone()));
    for source in &plan.sources {
        let name = &source.name.text;
        let settings = settings(plan, durability, folder, name);
        let Some(first) = first_segment(disk, &settings.folder) else { continue };
        // Where the first is gone, nobody knows the number of what comes next: it begins with a loss that is none.
        let begin = (first > 1).then_some((Position { segment: first, offset: 0 }, 1));
        let recovered = recover(&*untouched, &settings, begin, true)?;
        let found = epochs(&untouched, &settings, &recovered, |epoch| epoch.0 >= manifest.epoch)?;
        // A journal that begins later is of a source that was new then.
        if let Some((_, (position, number))) = found.filter(|(epoch, _)| epoch.0 == manifest.epoch) {
            let (watermarks, slices) = (WatermarkState::default(), Slices::default());
            let state = SourceState { position, number, taken: 0, watermarks, slices, ..SourceState::default() };
            let state = StageState { kind: source.kind.to_owned(), source: Some(state), ..StageState::default() };
            manifest.stages.insert(name.clone(), state);
        }
    }
    Ok(manifest)
}

/// The number of the first segment of a journal, if there is any.
fn first_segment(disk: &SharedDisk, folder: &Path) -> Option<u64> {
    let names = disk.list(folder).ok()?;
    names.iter().filter_map(|name| name.strip_suffix(".journal")?.parse().ok()).min()
}

/// The plan's stages, and what the state of each depends on.
pub(crate) fn wanted(plan: &Plan) -> Vec<Wanted> {
    let sources = plan.sources.iter().map(|source| (&source.name, source.kind, Vec::new(), true));
    let operators =
        plan.operators.iter().map(|operator| (&operator.name, operator.kind, operator.identity.clone(), false));
    let sinks = plan.sinks.iter().map(|sink| {
        // Rows that a sink holds back are rows of its input.
        let columns = sink.input.columns.fields().iter();
        let columns: Vec<_> = columns.map(|field| format!("{} {}", field.name(), field.data_type())).collect();
        (&sink.name, sink.kind, vec![("inputs".to_owned(), columns.join(", "))], false)
    });
    let all = sources.chain(operators).chain(sinks);
    all.map(|(name, kind, identity, source)| Wanted { name: name.text.clone(), kind, identity, source }).collect()
}

/// What the first checkpoint of a run begins with.
pub(crate) fn base(plan: &Plan, run: &str) -> Manifest {
    Manifest {
        pipeline: plan.name.clone(),
        run: run.to_owned(),
        file: plan.file.clone(),
        epoch: 0,
        stages: BTreeMap::new(),
    }
}
