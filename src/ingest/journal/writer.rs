//! The writing end: records into segments, in groups that become durable together.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::disk::{DiskFile, SharedDisk};
use crate::flow::payload::Payloads;
use crate::flow::time::Timestamp;
use crate::ingest::journal::record::Mark;
use crate::ingest::journal::segment::Fill;
use crate::ingest::journal::syncing::{Ended, Failed, Job, Syncing};
use crate::ingest::journal::tail::Shared;
use crate::ingest::journal::{JournalError, JournalSettings, Position, Recovered, Sync, run, segment};

/// Why a record could not be taken yet.
#[derive(Debug)]
pub(super) enum Stuck {
    /// The journal has all the room that it may have, and no segment can go.
    Quota,
    /// The disk is full.
    Full(JournalError),
    /// It will not work.
    Failed(JournalError),
}

impl From<JournalError> for Stuck {
    fn from(error: JournalError) -> Self {
        if error.is_full() { Self::Full(error) } else { Self::Failed(error) }
    }
}

/// A segment and its length.
type Segment = (Box<dyn DiskFile>, u64);
type Opened = Result<Segment, JournalError>;

/// Appends records. Owned by one thread.
pub(super) struct Writer {
    disk: SharedDisk,
    settings: JournalSettings,
    shared: Arc<Shared>,
    file: Arc<dyn DiskFile>,
    /// Where `buffer` will be written.
    at: Position,
    segment_len: u64,
    /// The number of the next record.
    next: u64,
    /// Encoded records that are not written yet; all of one segment.
    buffer: Vec<u8>,
    /// Where the mark is, or will be, that is to say that the group before it is durable. Nothing stands behind it.
    mark: Option<u64>,
    /// The segment after this one, on its way, and once it is there.
    preparing: Option<JoinHandle<Opened>>,
    prepared: Option<Segment>,
    syncing: Syncing,
    /// Up to where everything is durable, and up to where the sync reaches that was begun last.
    synced: (Position, Position),
    /// How many syncs have ended, and how long they took.
    syncs: (u64, Duration),
    /// Something was written since the last sync began.
    unsynced: bool,
    /// Syncs of this segment.
    segment_syncs: u64,
    synced_at: Instant,
    /// Arrival times never go back within a journal.
    arrival: Timestamp,
}

impl Writer {
    pub(super) fn open(
        disk: SharedDisk,
        settings: &JournalSettings,
        recovered: &Recovered,
        shared: Arc<Shared>,
    ) -> Result<Self, JournalError> {
        let (number, prepared) = recovered.segments;
        let path = segment::path(&settings.folder, number);
        let file = disk.open(&path).map_err(|why| JournalError::disk("open", &path, why))?.into();
        let segment_len = match recovered.is_current {
            true => disk.file_len(&path).map_err(|why| JournalError::disk("read", &path, why))?,
            false => recovered.end.offset,
        };
        let thread = |why| JournalError::disk("begin a thread to sync", &settings.folder, why);
        let mut writer = Self {
            disk,
            settings: settings.clone(),
            shared,
            file,
            at: recovered.end,
            segment_len,
            next: recovered.next,
            buffer: Vec::new(),
            mark: None,
            preparing: None,
            prepared: None,
            syncing: Syncing::begin().map_err(thread)?,
            synced: (recovered.end, recovered.end),
            syncs: (0, Duration::ZERO),
            unsynced: false,
            segment_syncs: 0,
            synced_at: Instant::now(),
            arrival: recovered.arrival,
        };
        if let Some(number) = prepared {
            writer.prepare(number, true);
        }
        Ok(writer)
    }

    /// Arrival times as the journal has them.
    pub(super) fn monotone(&mut self, arrival: Timestamp) -> Timestamp {
        self.arrival = self.arrival.max(arrival);
        self.arrival
    }

    /// The number that the next record will have.
    pub(super) const fn next(&self) -> u64 {
        self.next
    }

    /// Where the next record will be.
    pub(super) fn position(&self) -> Position {
        Position { offset: self.at.offset + self.buffer.len() as u64, ..self.at }
    }

    /// Bytes that wait for the commit.
    pub(super) fn pending(&self) -> usize {
        self.buffer.len()
    }

    /// Takes a mark, in memory. What got stuck was not taken. Marks of time and epochs have a segment beyond the quota, as
    /// nothing is ever released without them.
    pub(super) fn push(&mut self, mark: Mark) -> Result<(), Stuck> {
        self.make_room(mark.len(), false)?;
        mark.encode(&mut self.buffer, self.next);
        self.next += 1;
        Ok(())
    }

    /// Takes payloads from the one at `from` on, in memory, as many as go into a record, and gives the index of the next.
    pub(super) fn push_payloads(&mut self, payloads: &Payloads, from: usize) -> Result<usize, Stuck> {
        let room = self.make_room(run::len_max(&payloads.get(from)), true)?;
        let until = run::encode(&mut self.buffer, self.next, payloads, from, room);
        self.next += (until - from) as u64;
        Ok(until)
    }

    /// Sees to it that a record of so many bytes goes into the segment, and tells how much does.
    fn make_room(&mut self, record: usize, payload: bool) -> Result<usize, Stuck> {
        if self.position().offset + record as u64 > self.segment_len {
            self.roll(record as u64, payload)?;
        }
        Ok(usize::try_from(self.segment_len - self.position().offset).unwrap_or(usize::MAX))
    }

    /// Writes what was taken, and begins to make it durable as the settings say, or as `now` says, once the sync before it
    /// has ended.
    pub(super) fn commit(&mut self, now: bool) -> Result<(), Stuck> {
        let due = match self.settings.sync {
            Sync::Group => true,
            Sync::Interval(every) => self.synced_at.elapsed() >= every,
            Sync::None => false,
        };
        if now || due { self.write_and_sync() } else { self.write() }
    }

    /// Writes what was taken, and waits for the end of the sync before it; a later commit makes it durable.
    pub(super) fn write(&mut self) -> Result<(), Stuck> {
        self.write_buffer()?;
        Ok(self.finish()?)
    }

    /// Whether something is written that a power cut would take, and no sync of it has begun.
    pub(super) const fn unsynced(&self) -> bool {
        self.unsynced
    }

    /// Whether a sync is on its way.
    pub(super) const fn is_syncing(&self) -> bool {
        self.syncing.is_busy()
    }

    /// How many syncs have ended, and how long they took.
    pub(super) const fn syncs(&self) -> (u64, Duration) {
        self.syncs
    }

    fn write_and_sync(&mut self) -> Result<(), Stuck> {
        if !self.buffer.is_empty() || self.unsynced {
            self.leave_mark();
        }
        self.write_buffer()?;
        Ok(self.begin_sync()?)
    }

    /// Ends the group with a mark that says what is known so far, to be written over once more is. In its place would be a
    /// gap until then. It is done without where the segment ends.
    fn leave_mark(&mut self) {
        let Position { offset, .. } = self.position();
        let mark = Mark::Synced(self.synced.0);
        let len = mark.len() as u64;
        // A disk that is full is tried again and again.
        if self.mark.is_some_and(|mark| mark + len == offset) {
            return;
        }
        // One that was left in vain, with records behind it by now, says what it says.
        self.mark = (offset + len <= self.segment_len).then_some(offset);
        if self.mark.is_some() {
            mark.encode(&mut self.buffer, self.next);
        }
    }

    fn write_buffer(&mut self) -> Result<(), Stuck> {
        self.look_after_preparing(false)?;
        if self.buffer.is_empty() {
            return Ok(());
        }
        // Files of some systems are never written over in place, so that this may find the disk full, too.
        if let Err(why) = self.file.write_at(&self.buffer, self.at.offset) {
            return Err(self.failed("write", why).into());
        }
        self.unsynced = true;
        self.at.offset += self.buffer.len() as u64;
        self.buffer.clear();
        self.prepare_in_time();
        Ok(())
    }

    /// Begins to make durable what was written.
    fn begin_sync(&mut self) -> Result<(), JournalError> {
        self.finish()?;
        if self.unsynced {
            let until = Position { offset: self.mark.unwrap_or(self.at.offset), ..self.at };
            let mark = self.mark.take().map(|offset| {
                let mut bytes = Vec::new();
                Mark::Synced(until).encode(&mut bytes, self.next);
                (bytes, offset)
            });
            self.synced.1 = until;
            self.syncing.give(Job { file: self.file.clone(), mark });
            (self.unsynced, self.synced_at) = (false, Instant::now());
            self.segment_syncs += 1;
        }
        Ok(())
    }

    /// Waits for the end of a sync, if one is on its way.
    pub(super) fn finish(&mut self) -> Result<(), JournalError> {
        let ended = self.syncing.finish();
        self.ended(ended)
    }

    /// Takes note of the end of a sync, if it has come.
    pub(super) fn poll(&mut self) -> Result<(), JournalError> {
        let ended = self.syncing.poll();
        self.ended(ended)
    }

    /// Waits for the end of a sync that is on its way. May be dropped.
    pub(super) async fn wait(&mut self) -> Result<(), JournalError> {
        let ended = self.syncing.wait().await;
        self.ended(ended)
    }

    /// After a failed sync nobody knows what is on the disk: it is not tried again, and the run ends.
    fn ended(&mut self, ended: Option<Ended>) -> Result<(), JournalError> {
        let Some((result, took)) = ended else { return Ok(()) };
        result.map_err(|failed| match failed {
            Failed::Sync(why) => JournalError::lost(&segment::path(&self.settings.folder, self.at.segment), why),
            Failed::Mark(why) => self.failed("write", why),
        })?;
        self.synced.0 = self.synced.1;
        self.syncs = (self.syncs.0 + 1, self.syncs.1 + took);
        Ok(())
    }

    /// Goes to the next segment. Everything in this one is durable then: recovery relies on it.
    fn roll(&mut self, record: u64, payload: bool) -> Result<(), Stuck> {
        self.write_and_sync()?;
        self.finish()?;
        let number = self.at.segment + 1;
        let len = self.settings.segment_bytes();
        let needed = segment::HEADER + record;
        self.look_after_preparing(true)?;
        match self.prepared.take() {
            Some((file, there)) if there >= needed => {
                self.go_on(number, file, there);
                Ok(())
            }
            // A payload that is larger than a segment has one of its own; and what was prepared with other settings, or could
            // not be prepared, is made here.
            _ => self.begin(number, needed.max(len), payload),
        }
    }

    /// Takes over the segment that is being prepared, if that is over, or waits for it. A full disk may have room by now;
    /// what failed otherwise is not done again.
    fn look_after_preparing(&mut self, wait: bool) -> Result<(), Stuck> {
        if let Some(preparing) = self.preparing.take_if(|preparing| wait || preparing.is_finished()) {
            match preparing.join() {
                Ok(Ok(opened)) => self.prepared = Some(opened),
                Ok(Err(error)) if !error.is_full() => return Err(Stuck::Failed(error)),
                // It panicked: as if nothing had been prepared.
                Ok(Err(_)) | Err(_) => {}
            }
        }
        Ok(())
    }

    fn begin(&mut self, number: u64, len: u64, payload: bool) -> Result<(), Stuck> {
        let reserve = if payload { 0 } else { self.settings.segment_bytes() };
        // One that was prepared, and is too small, is replaced.
        let there = self.disk.file_len(&segment::path(&self.settings.folder, number)).unwrap_or(0);
        if self.shared.used.load(Relaxed).saturating_sub(there) + len > self.settings.quota + reserve {
            return Err(Stuck::Quota);
        }
        let file = segment::create(&*self.disk, &self.settings.folder, number, len, self.fill())?;
        // Segments may have been released meanwhile: what was read above is not what is there now.
        self.shared.used.fetch_add(len, Relaxed);
        self.shared.used.fetch_sub(there, Relaxed);
        self.go_on(number, file, len);
        Ok(())
    }

    fn go_on(&mut self, number: u64, file: Box<dyn DiskFile>, len: u64) {
        (self.file, self.segment_len, self.segment_syncs) = (file.into(), len, 0);
        self.at = Position { segment: number, offset: segment::HEADER };
    }

    /// What suits such groups as this segment has.
    const fn fill(&self) -> Fill {
        if self.at.offset / (self.segment_syncs + 1) < self.settings.zeros_below { Fill::Written } else { Fill::Hole }
    }

    /// Has the next segment made beside, once half of this one is used.
    fn prepare_in_time(&mut self) {
        let len = self.settings.segment_bytes();
        let room = self.shared.used.load(Relaxed) + len <= self.settings.quota;
        if self.preparing.is_none() && self.prepared.is_none() && self.at.offset > self.segment_len / 2 && room {
            self.shared.used.fetch_add(len, Relaxed);
            self.prepare(self.at.segment + 1, false);
        }
    }

    fn prepare(&mut self, number: u64, exists: bool) {
        let (disk, folder, len) = (self.disk.clone(), self.settings.folder.clone(), self.settings.segment_bytes());
        let (shared, fill) = (self.shared.clone(), self.fill());
        let job = move || {
            if exists {
                let path = segment::path(&folder, number);
                let file = disk.open(&path).map_err(|why| JournalError::disk("open", &path, why))?;
                let there = disk.file_len(&path).map_err(|why| JournalError::disk("read", &path, why))?;
                return Ok((file, there));
            }
            let made = segment::create(&*disk, &folder, number, len, fill);
            if made.is_err() {
                shared.used.fetch_sub(len, Relaxed);
            }
            Ok((made?, len))
        };
        self.preparing = std::thread::Builder::new().name("journal segment".to_owned()).spawn(job).ok();
        if self.preparing.is_none() && !exists {
            self.shared.used.fetch_sub(len, Relaxed);
        }
    }

    fn failed(&self, what: &'static str, why: std::io::Error) -> JournalError {
        JournalError::disk(what, &segment::path(&self.settings.folder, self.at.segment), why)
    }
}

impl Drop for Writer {
    /// Nothing is written any more once the writer is gone.
    fn drop(&mut self) {
        if let Some(preparing) = self.preparing.take() {
            drop(preparing.join());
        }
    }
}

#[cfg(test)]
mod tests;
