//! The keeper: the thread between the bridge and the stages that puts everything into the journal, never waits for a stage,
//! and says what is durable.

use std::mem::swap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::runtime::Handle as Runtime;
use tokio::sync::{mpsc, watch};

use crate::disk::SharedDisk;
use crate::flow::message::{Epoch, Severed};
use crate::flow::meter::SourceMeter;
use crate::flow::payload::Payloads;
use crate::ingest::feed::{Crossing, Pace};
use crate::ingest::journal::reader::Reader;
use crate::ingest::journal::record::Mark;
use crate::ingest::journal::tail::{Entry, Handle, Shared};
use crate::ingest::journal::writer::{Stuck, Writer};
use crate::ingest::journal::{JournalError, JournalSettings, Recovered, Sync};

/// A group is written when it has so many crossings, or bytes; or when nothing more waits and no sync is on its way. Two are
/// in memory at most: one that is put together, and one whose sync is on its way.
const GROUP_CROSSINGS: usize = 1_024;
const GROUP_BYTES: usize = 1 << 20;
/// How long a full journal or disk is left alone before the next attempt.
const RETRY: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));

/// Why a keeper stopped.
#[derive(Debug, thiserror::Error)]
pub enum KeeperError {
    /// The feed is gone; the reason is its to tell.
    #[error(transparent)]
    Severed(#[from] Severed),
    /// The journal failed.
    #[error(transparent)]
    Journal(#[from] JournalError),
}

/// What the keeper tells of its troubles: what is wrong, or `None` when it is over.
pub type Troubled = Box<dyn Fn(Option<String>) + Send>;

/// Keeps a journal.
pub struct Keeper {
    writer: Writer,
    shared: Arc<Shared>,
    settings: JournalSettings,
    /// The epoch that the next barrier ends.
    epoch: Epoch,
    pace: watch::Receiver<Pace>,
    /// How many payloads are safe.
    safe: watch::Sender<u64>,
    payloads: u64,
    meter: Arc<SourceMeter>,
    troubled: Troubled,
    /// Crossings that are in the writer's memory.
    group: Vec<Entry>,
    /// Those of the group before, which was written; a sync of it may be on its way.
    syncing: Vec<Entry>,
}

impl Keeper {
    /// A keeper, the reader of what it keeps, and the handle for everybody else. `batch` bounds what the reader gives at once,
    /// in payloads and bytes; `safe` is told how many payloads of this run are safe.
    pub fn open(
        disk: SharedDisk,
        settings: &JournalSettings,
        recovered: &Recovered,
        (epoch, pace): (Epoch, watch::Receiver<Pace>),
        (safe, meter): (watch::Sender<u64>, Arc<SourceMeter>),
        (batch, troubled): ((usize, usize), Troubled),
    ) -> Result<(Self, Reader, Handle), JournalError> {
        let shared = Shared::new(disk.clone(), settings, recovered);
        let reader = Reader::new(shared.clone(), recovered, batch);
        let writer = Writer::open(disk, settings, recovered, shared.clone())?;
        let handle = Handle(shared.clone());
        let (settings, payloads, group, syncing) = (settings.clone(), 0, Vec::new(), Vec::new());
        let keeper = Self { writer, shared, settings, epoch, pace, safe, payloads, meter, troubled, group, syncing };
        Ok((keeper, reader, handle))
    }

    /// Keeps what crosses the bridge until the feed is over.
    pub fn run(mut self, mut bridge: mpsc::Receiver<Crossing>, runtime: &Runtime) -> Result<(), KeeperError> {
        let kept = self.keep(&mut bridge, runtime);
        if kept.is_err() {
            self.shared.sever();
        }
        kept
    }

    fn keep(&mut self, bridge: &mut mpsc::Receiver<Crossing>, runtime: &Runtime) -> Result<(), KeeperError> {
        while !self.gather(bridge, runtime)? {
            self.commit(false)?;
        }
        self.commit(true)?;
        self.settled()
    }

    /// Takes crossings until they are a group: so many, or all that wait once no sync is on its way. True where the last of
    /// all is among them.
    fn gather(&mut self, bridge: &mut mpsc::Receiver<Crossing>, runtime: &Runtime) -> Result<bool, KeeperError> {
        while self.group.len() < GROUP_CROSSINGS && self.writer.pending() < GROUP_BYTES {
            let crossing = match bridge.try_recv() {
                Ok(crossing) => Some(crossing),
                Err(_) if !self.group.is_empty() && !self.writer.is_syncing() => break,
                Err(_) => self.wait(bridge, runtime)?,
            };
            if let Some(crossing) = crossing {
                let last = matches!(crossing, Crossing::End { .. });
                self.take(crossing)?;
                if last {
                    return Ok(true);
                }
            }
            self.writer.poll()?;
            self.release_synced();
        }
        Ok(false)
    }

    /// The next crossing; `None` where a sync has ended instead. What was acknowledged unsynced is synced in time, also when
    /// nothing follows.
    fn wait(
        &mut self,
        bridge: &mut mpsc::Receiver<Crossing>,
        runtime: &Runtime,
    ) -> Result<Option<Crossing>, KeeperError> {
        let crossing = if self.writer.is_syncing() {
            let writer = &mut self.writer;
            let first = runtime.block_on(async {
                tokio::select! {
                    biased;
                    ended = writer.wait() => Err(ended),
                    crossing = bridge.recv() => Ok(crossing),
                }
            });
            match first {
                Ok(crossing) => crossing,
                Err(ended) => return Ok(ended.map(|()| None)?),
            }
        } else if let (Sync::Interval(every), true) = (self.settings.sync, self.writer.unsynced()) {
            let waited = runtime.block_on(async { tokio::time::timeout(every, bridge.recv()).await });
            let Ok(crossing) = waited else {
                self.commit(true)?;
                return Ok(None);
            };
            crossing
        } else {
            bridge.blocking_recv()
        };
        if crossing.is_none() {
            // What came before the feed was gone is as good as any.
            self.commit(true)?;
            self.settled()?;
            return Err(KeeperError::Severed(Severed));
        }
        Ok(crossing)
    }

    fn take(&mut self, crossing: Crossing) -> Result<(), KeeperError> {
        match crossing {
            Crossing::Payloads(payloads) => self.take_payloads(payloads),
            Crossing::Tick { now, listening } => {
                let now = self.writer.monotone(now);
                self.push(Mark::Tick { now, listening }, Crossing::Tick { now, listening })
            }
            Crossing::Heard(now) => {
                let now = self.writer.monotone(now);
                self.push(Mark::Heard(now), Crossing::Heard(now))
            }
            Crossing::Barrier(epoch) => self.barriers(epoch.next()),
            // Said by the keeper alone.
            Crossing::Stop(_) => Ok(()),
            Crossing::End { exhausted, epoch } => {
                self.barriers(epoch)?;
                let mark = if exhausted { Mark::Exhausted(epoch) } else { Mark::Stop(epoch) };
                self.push(mark, Crossing::End { exhausted, epoch })
            }
        }
    }

    /// Barriers up to the one before `until`; some may have been written ahead of their crossing.
    fn barriers(&mut self, until: Epoch) -> Result<(), KeeperError> {
        while self.epoch < until {
            self.push(Mark::Barrier(self.epoch), Crossing::Barrier(self.epoch))?;
            self.epoch = self.epoch.next();
        }
        Ok(())
    }

    fn push(&mut self, mark: Mark, crossing: Crossing) -> Result<(), KeeperError> {
        let (first, ()) = self.patiently(|writer| writer.push(mark))?;
        self.hold(first, crossing);
        Ok(())
    }

    fn take_payloads(&mut self, mut payloads: Payloads) -> Result<(), KeeperError> {
        payloads.raise_arrivals(|arrival| self.writer.monotone(arrival));
        while !payloads.is_empty() {
            let (first, taken) = self.patiently(|writer| writer.push_payloads(&payloads, 0))?;
            // What gets stuck is tried again, patiently, as the first of the rest: marks may come in between.
            let taken = self.push_rest(&payloads, taken)?;
            let rest = if taken < payloads.len() { payloads.split_off(taken) } else { Payloads::default() };
            self.hold(first, Crossing::Payloads(payloads));
            payloads = rest;
        }
        Ok(())
    }

    /// Takes those from `taken` on, up to one that gets stuck, whose index it gives. What fails is not tried again.
    fn push_rest(&mut self, payloads: &Payloads, mut taken: usize) -> Result<usize, KeeperError> {
        while taken < payloads.len() {
            match self.writer.push_payloads(payloads, taken) {
                Ok(until) => taken = until,
                Err(Stuck::Failed(error)) => return Err(error.into()),
                Err(Stuck::Full(_) | Stuck::Quota) => break,
            }
        }
        Ok(taken)
    }

    fn hold(&mut self, first: u64, crossing: Crossing) {
        let next = (self.writer.position(), self.writer.next());
        self.group.push(Entry { first, crossing, next });
    }

    /// Begins to make the group durable, after which the stages may have it, and the broker its acknowledgements.
    fn commit(&mut self, last: bool) -> Result<(), KeeperError> {
        // A checkpoint may not be ahead of its journal, whatever else is synced when.
        let ends = self.group.iter().any(|entry| matches!(entry.crossing, Crossing::Barrier(_)));
        // Ticks alone are worth no sync: what follows from them is not durable before the barrier is.
        let idle = self.group.iter().all(|entry| matches!(entry.crossing, Crossing::Tick { .. }));
        if idle && !last && self.settings.sync == Sync::Group {
            self.patiently(Writer::write)?;
        } else {
            self.patiently(|writer| writer.commit(last || ends))?;
        }
        self.written();
        Ok(())
    }

    /// The group was written, so the sync before it has ended; its own may be on its way.
    fn written(&mut self) {
        self.release();
        swap(&mut self.syncing, &mut self.group);
        self.release_synced();
    }

    /// Waits for the sync that is on its way, and releases what it made durable.
    fn settled(&mut self) -> Result<(), KeeperError> {
        self.writer.finish()?;
        self.release_synced();
        Ok(())
    }

    /// Releases the group that was written last, once no sync of it is on its way.
    fn release_synced(&mut self) {
        if !self.writer.is_syncing() {
            self.release();
        }
    }

    /// Lets the stages have what was written, and the broker its acknowledgements.
    fn release(&mut self) {
        let Some(last) = self.syncing.last() else { return };
        self.meter.journal_records.store(last.next.1 - 1, Relaxed);
        let before = self.payloads;
        for entry in &self.syncing {
            if let Crossing::Payloads(payloads) = &entry.crossing {
                self.payloads += payloads.len() as u64;
            }
        }
        self.shared.push(self.syncing.drain(..), self.settings.tail_bytes);
        if self.payloads > before {
            // Nobody listens once the feed has ended.
            let _ = self.safe.send(self.payloads);
        }
        let (syncs, took) = self.writer.syncs();
        self.meter.journal_syncs.store(syncs, Relaxed);
        self.meter.journal_sync_ns.store(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), Relaxed);
        self.meter.journal_bytes.store(self.shared.used.load(Relaxed), Relaxed);
    }

    /// Does it again until there is room; gives the number that the record had, too. Nothing is acknowledged meanwhile, and
    /// the broker holds back what it may not send without.
    fn patiently<T>(
        &mut self,
        mut attempt: impl FnMut(&mut Writer) -> Result<T, Stuck>,
    ) -> Result<(u64, T), KeeperError> {
        let mut stuck = false;
        loop {
            let number = self.writer.next();
            let (pause, why) = match attempt(&mut self.writer) {
                Ok(done) => {
                    if stuck {
                        tracing::info!("the journal has room again");
                        (self.troubled)(None);
                    }
                    return Ok((number, done));
                }
                Err(Stuck::Failed(error)) => return Err(error.into()),
                Err(Stuck::Full(error)) => {
                    self.settle()?;
                    (RETRY.1, error.to_string())
                }
                Err(Stuck::Quota) => {
                    self.write_ahead()?;
                    self.settle()?;
                    (RETRY.0, format!("the journal has its {} bytes; waiting for the stages", self.settings.quota))
                }
            };
            if !stuck {
                tracing::warn!("{why}; nothing more is acknowledged until there is room");
                (self.troubled)(Some(why));
                stuck = true;
            }
            self.shared.wait(pause);
        }
    }

    /// A full journal is emptied by the end of an epoch, whose barrier waits behind the payloads in the bridge: it is written
    /// ahead of them.
    fn write_ahead(&mut self) -> Result<(), KeeperError> {
        let current = self.pace.borrow().epoch;
        while self.epoch < current {
            let first = self.writer.next();
            match self.writer.push(Mark::Barrier(self.epoch)) {
                Ok(()) => {}
                Err(Stuck::Failed(error)) => return Err(error.into()),
                Err(Stuck::Full(_) | Stuck::Quota) => return Ok(()),
            }
            self.hold(first, Crossing::Barrier(self.epoch));
            self.epoch = self.epoch.next();
        }
        Ok(())
    }

    /// What was taken before it got stuck need not wait with the rest.
    fn settle(&mut self) -> Result<(), KeeperError> {
        match self.writer.commit(true) {
            Err(Stuck::Failed(error)) => return Err(error.into()),
            Err(Stuck::Full(_) | Stuck::Quota) => {}
            Ok(()) => self.written(),
        }
        self.settled()
    }
}
