//! What the keeper and the reader share: the newest records in memory, and which segments are needed.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::disk::SharedDisk;
use crate::ingest::feed::Crossing;
use crate::ingest::journal::recover::REDELIVERIES_MAX;
use crate::ingest::journal::{JournalError, JournalSettings, Next, Position, Recovered, segment};

/// Segments that only redeliveries are known by take at most this part of the quota.
const REDELIVERABLE_PART: u64 = 8;

/// What the keeper and the reader share.
#[derive(Debug)]
pub(super) struct Shared {
    state: Mutex<State>,
    /// Something was added, or room was made.
    pub(super) changed: Condvar,
    /// Bytes of all segments.
    pub(super) used: AtomicU64,
    quota: u64,
    pub(super) folder: PathBuf,
    pub(super) disk: SharedDisk,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) entries: VecDeque<Entry>,
    pub(super) entries_bytes: usize,
    /// Records up to here may be read.
    end: Position,
    pub(super) next: u64,
    pub(super) over: Over,
    /// How many payloads that the broker may send again are in which segment, ascending; as many as that can be, or more.
    redeliverable: BTreeMap<u64, u64>,
}

/// Whether more will come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Over {
    No,
    /// Nothing follows. The record of this number, if it is given, is a stop that is the end, and not one on the way.
    Yes(Option<u64>),
    /// The keeper is gone; the reason is its to tell.
    Severed,
}

/// One crossing.
#[derive(Debug)]
pub(super) struct Entry {
    /// The number of its first record.
    pub(super) first: u64,
    pub(super) crossing: Crossing,
    /// The place and the number of what follows.
    pub(super) next: Next,
}

impl Shared {
    pub(super) fn new(disk: SharedDisk, settings: &JournalSettings, recovered: &Recovered) -> Arc<Self> {
        let state = State {
            entries: VecDeque::new(),
            entries_bytes: 0,
            end: recovered.end,
            next: recovered.next,
            over: Over::No,
            redeliverable: recovered.redeliverable.clone(),
        };
        let (state, used) = (Mutex::new(state), AtomicU64::new(recovered.used));
        let (quota, folder) = (settings.quota, settings.folder.clone());
        Arc::new(Self { state, changed: Condvar::new(), used, quota, folder, disk })
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets the reader have what was made durable.
    pub(super) fn push(&self, durable: impl Iterator<Item = Entry>, bytes_max: usize) {
        let mut state = self.lock();
        for entry in durable {
            state.redeliverable(&entry.crossing);
            state.entries_bytes += bytes_of(&entry.crossing);
            if matches!(entry.crossing, Crossing::End { .. }) {
                state.over = Over::Yes(Some(entry.first));
            }
            (state.end, state.next) = entry.next;
            state.entries.push_back(entry);
        }
        // The reader finds what falls out here on disk.
        while state.entries_bytes > bytes_max {
            let Some(entry) = state.entries.pop_front() else { break };
            state.entries_bytes -= bytes_of(&entry.crossing);
        }
        drop(state);
        self.changed.notify_all();
    }

    /// Nothing follows; the number is that of the last record, if that is a stop.
    pub(super) fn close(&self, stop: Option<u64>) {
        self.lock().over = Over::Yes(stop);
        self.changed.notify_all();
    }

    /// The keeper has failed.
    pub(super) fn sever(&self) {
        let mut state = self.lock();
        if state.over == Over::No {
            state.over = Over::Severed;
        }
        self.changed.notify_all();
    }

    /// Waits until something changes, or for so long.
    pub(super) fn wait(&self, at_most: Duration) {
        drop(self.changed.wait_timeout(self.lock(), at_most));
    }
}

impl State {
    /// Counts what the broker may send again. A crossing begins where the last ended, so no segment is counted too late.
    fn redeliverable(&mut self, crossing: &Crossing) {
        let Crossing::Payloads(payloads) = crossing else { return };
        let count = payloads.deliveries().filter(|delivery| delivery.qos > 0).count() as u64;
        if count > 0 {
            *self.redeliverable.entry(self.end.segment).or_default() += count;
            let all: u64 = self.redeliverable.values().sum();
            // The oldest segment is of no interest when the others have as many as there can be.
            if let Some(oldest) = self.redeliverable.first_entry()
                && all - oldest.get() >= REDELIVERIES_MAX as u64
            {
                oldest.remove();
            }
        }
    }
}

pub(super) fn bytes_of(crossing: &Crossing) -> usize {
    if let Crossing::Payloads(payloads) = crossing { payloads.memory_bytes() } else { 0 }
}

/// What others may ask of a journal.
#[derive(Clone, Debug)]
pub struct Handle(pub(super) Arc<Shared>);

impl Handle {
    /// Removes segments of which no checkpoint needs anything any more, but for the newest `keep` bytes of them, and those
    /// by which payloads are known that the broker may send again, as far as a part of the quota goes.
    pub fn release(&self, needed: Position, keep: u64) -> Result<(), JournalError> {
        let Shared { folder, disk, used, quota, .. } = &*self.0;
        let known_by = self.0.lock().redeliverable.keys().next().copied().unwrap_or(u64::MAX);
        let mut gone = Vec::new();
        let all = segment::list(&**disk, folder)?;
        let old: Vec<u64> = all.into_iter().filter(|number| *number < needed.segment).collect();
        let mut kept = 0;
        for number in old.into_iter().rev() {
            let path = segment::path(folder, number);
            let len = disk.file_len(&path).map_err(|why| JournalError::disk("read", &path, why))?;
            kept += len;
            let known_by = number >= known_by && kept <= quota / REDELIVERABLE_PART;
            if kept > keep && !known_by {
                gone.push((path, len));
            }
        }
        // The oldest first: what is left has no holes.
        for (path, len) in gone.into_iter().rev() {
            disk.remove(&path).map_err(|why| JournalError::disk("remove", &path, why))?;
            used.fetch_sub(len, Relaxed);
        }
        self.0.changed.notify_all();
        Ok(())
    }

    /// Bytes that the segments take.
    pub fn used(&self) -> u64 {
        self.0.used.load(Relaxed)
    }

    /// Whether little room is left: then an epoch should end, and old checkpoints be given up.
    pub fn is_pressed(&self) -> bool {
        self.used() > self.0.quota / 4 * 3
    }

    /// How many records there are, counted from the first of all.
    pub fn records(&self) -> u64 {
        self.0.lock().next - 1
    }
}
