//! What a run goes on from: the newest checkpoint, reconciled with the pipeline file, and the journals behind it.

use std::collections::{BTreeMap, BTreeSet};

use crate::disk::{Folders, SharedDisk};
use crate::engine::checkpoint::changes::{Wanted, reconcile};
use crate::engine::checkpoint::manifest::{Manifest, StageState};
use crate::engine::checkpoint::store::{Store, StoreError};
use crate::engine::checkpoint::{StateError, StateFolder};
use crate::flow::message::Epoch;
use crate::ingest::journal::{JournalError, JournalSettings, Recovered, recover};
use crate::pipeline::plan::{Durability, Plan};

/// Payloads of a source that wait for the stages in memory, at most.
const TAIL_BYTES_MAX: u64 = 64 << 20;

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
        let store = Store::open(disk.clone(), folder.checkpoints())?;
        let mut whole = Vec::new();
        for source in &plan.sources {
            let settings = settings(plan, durability, &folder, &source.name.text);
            if let Ok(recovered) = recover(&**disk, &settings, None, resets.accept_loss) {
                whole.push((settings, recovered));
            }
        }
        if whole.len() == plan.sources.len() {
            return Ok(Self { folder, store, manifest: None, journals: whole, first: Epoch(0), running: Epoch(0) });
        }
        Self::from_checkpoint(folder, store.clone(), store.oldest()?, plan, durability, disk, resets)
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
            Err(StoreError::None { .. }) if resets.all => None,
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
        if let Some(manifest) = &mut manifest {
            if resets.all {
                for state in manifest.stages.values_mut() {
                    state.parts.clear();
                    state.source = state.source.map(crate::ingest::intake::SourceState::without_time);
                }
            }
            let sources = || manifest.stages.values().filter_map(|state| state.source);
            if sources().count() > 0 && sources().all(|source| source.exhausted) {
                tracing::info!(epoch = manifest.epoch, "all sources had come to their end; they begin anew");
                for state in manifest.stages.values_mut() {
                    let source = state.source.map(crate::ingest::intake::SourceState::anew);
                    *state = StageState {
                        kind: state.kind.clone(),
                        source,
                        files: state.files.clone(),
                        ..StageState::default()
                    };
                }
            }
            reconcile(manifest, &wanted(plan), &resets.stages, &durability.state).map_err(LaunchError::Changed)?;
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
            let state = manifest.as_ref().and_then(|manifest| manifest.stages.get(&source.name.text)?.source);
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
        Ok(Self { folder, store, manifest, journals, first, running })
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
    }
}

/// The plan's stages, and what the state of each depends on.
pub(crate) fn wanted(plan: &Plan) -> Vec<Wanted> {
    let sources = plan.sources.iter().map(|source| (&source.name, source.kind, Vec::new()));
    let operators = plan.operators.iter().map(|operator| (&operator.name, operator.kind, operator.identity.clone()));
    let sinks = plan.sinks.iter().map(|sink| {
        // Rows that a sink holds back are rows of its input.
        let columns = sink.input.columns.fields().iter();
        let columns: Vec<_> = columns.map(|field| format!("{} {}", field.name(), field.data_type())).collect();
        (&sink.name, sink.kind, vec![("inputs".to_owned(), columns.join(", "))])
    });
    let all = sources.chain(operators).chain(sinks);
    all.map(|(name, kind, identity)| Wanted { name: name.text.clone(), kind, identity }).collect()
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
