//! The reader: the newest records from memory, older ones from their segments.

use std::sync::Arc;

use crate::disk::{DiskFile, SharedDisk};
use crate::flow::message::Epoch;
use crate::flow::payload::Payloads;
use crate::ingest::feed::Crossing;
use crate::ingest::journal::record::{Decoded, HEAD, Mark, Record, decode};
use crate::ingest::journal::tail::{Entry, Over, Shared, State, bytes_of};
use crate::ingest::journal::{JournalError, JournalSettings, Next, Position, Recovered, segment};

/// How much of a segment is read at once.
const WINDOW_BYTES: usize = 1 << 20;
/// Payloads are put together until they are such a part of a batch: what comes in larger pieces is handed on as it is.
const GATHERED_PART: usize = 4;

/// What was read.
#[derive(Debug)]
pub struct Read {
    /// A crossing, as the feed had sent it.
    pub crossing: Crossing,
    /// The place and the number of what follows.
    pub next: Next,
}

/// Reads a journal from a position on, and waits at its end for more.
#[derive(Debug)]
pub struct Reader {
    shared: Arc<Shared>,
    /// The place and the number of the next record.
    next: Next,
    /// Payloads that are given at once, and their bytes; from disk up to a record more.
    batch: (usize, usize),
    holes: Vec<(Position, Position)>,
    segment: Option<Box<OpenSegment>>,
    /// Taken from memory, and to be given as one.
    taken: Vec<Entry>,
    /// How large the last batch from disk was: payloads and bytes.
    last: (usize, usize),
    /// The epoch after the last that was read.
    epoch: Epoch,
    /// What ended the feed was read already.
    exhausted: bool,
}

#[derive(Debug)]
struct OpenSegment {
    number: u64,
    len: u64,
    file: Box<dyn DiskFile>,
    window: Vec<u8>,
    /// Where the window begins.
    start: u64,
    /// Records before this number were whole when the window was read.
    fresh: u64,
}

/// What the reader does next.
enum Step {
    /// What was taken from memory.
    Give,
    /// Records before this number are on disk.
    Disk(u64),
    Over,
    Severed,
    Wait,
}

impl Reader {
    pub(super) fn new(shared: Arc<Shared>, recovered: &Recovered, batch: (usize, usize)) -> Self {
        let epoch = recovered.epoch.map_or(Epoch(0), Epoch::next);
        let (next, holes) = ((recovered.from, recovered.number), recovered.holes.clone());
        let exhausted = recovered.exhausted;
        let (taken, last) = (Vec::new(), (0, 0));
        Self { shared, next, batch, holes, segment: None, taken, last, epoch, exhausted }
    }

    /// Reads a journal that nobody writes to, from where it was recovered to its end.
    pub fn whole(disk: SharedDisk, settings: &JournalSettings, recovered: &Recovered, batch: (usize, usize)) -> Self {
        let shared = Shared::new(disk, settings, recovered);
        shared.close(recovered.stopped);
        Self::new(shared, recovered, batch)
    }

    /// How many records wait.
    pub fn lag(&self) -> u64 {
        self.shared.lock().next.saturating_sub(self.next.1)
    }

    /// The next crossing; `waiting` is called around what may take long. `None` if the keeper is gone.
    pub fn next(&mut self, waiting: impl Fn(&mut dyn FnMut())) -> Result<Option<Read>, JournalError> {
        loop {
            match self.step() {
                Step::Give => return Ok(Some(self.put_together())),
                Step::Disk(until) => {
                    if let Some(read) = self.read_from_disk(until)? {
                        return Ok(Some(read));
                    }
                }
                Step::Over => {
                    let end = Crossing::End { exhausted: self.exhausted, epoch: self.epoch };
                    return Ok(Some(Read { crossing: end, next: self.next }));
                }
                Step::Severed => return Ok(None),
                Step::Wait => {
                    let shared = &self.shared;
                    let number = self.next.1;
                    waiting(&mut || {
                        let state = shared.lock();
                        let idle = |state: &mut State| state.next <= number && state.over == Over::No;
                        drop(shared.changed.wait_while(state, idle));
                    });
                }
            }
        }
    }

    fn step(&mut self) -> Step {
        let shared = self.shared.clone();
        let mut state = shared.lock();
        while state.entries.front().is_some_and(|entry| entry.first < self.next.1) {
            // It was read from disk meanwhile.
            let entry = state.entries.pop_front().expect("there is a front");
            state.entries_bytes -= bytes_of(&entry.crossing);
        }
        match state.entries.front() {
            Some(entry) if entry.first == self.next.1 => {
                self.take_from_memory(&mut state);
                Step::Give
            }
            Some(entry) => Step::Disk(entry.first),
            None if self.next.1 < state.next => Step::Disk(state.next),
            None => match state.over {
                Over::No => Step::Wait,
                Over::Yes(_) => Step::Over,
                Over::Severed => Step::Severed,
            },
        }
    }

    /// Takes the front, and as many payloads that stand behind it as are to go with it.
    fn take_from_memory(&mut self, state: &mut State) {
        let (mut payloads, mut bytes) = (0, 0);
        while let Some(entry) = state.entries.front() {
            let Crossing::Payloads(more) = &entry.crossing else { break };
            payloads += more.len();
            bytes += more.len_bytes();
            let room = payloads <= self.batch.0 / GATHERED_PART && bytes <= self.batch.1 / GATHERED_PART;
            if !self.taken.is_empty() && !room {
                break;
            }
            self.taken.extend(state.entries.pop_front());
        }
        if self.taken.is_empty() {
            self.taken.extend(state.entries.pop_front());
        }
        state.entries_bytes -= self.taken.iter().map(|entry| bytes_of(&entry.crossing)).sum::<usize>();
    }

    /// What was taken as one.
    fn put_together(&mut self) -> Read {
        let mut taken = self.taken.drain(..);
        let Entry { mut crossing, mut next, .. } = taken.next().expect("a front was taken");
        if let Crossing::Payloads(payloads) = &mut crossing {
            for entry in taken {
                if let Crossing::Payloads(more) = &entry.crossing {
                    payloads.append(more);
                }
                next = entry.next;
            }
        }
        self.next = next;
        Read { crossing, next }
    }

    /// Reads records below `until`: payloads until they are a batch, or one of another kind.
    fn read_from_disk(&mut self, until: u64) -> Result<Option<Read>, JournalError> {
        let mut payloads = Payloads::default();
        payloads.reserve(self.last.0, self.last.1);
        while self.next.1 < until && payloads.len() < self.batch.0 && payloads.len_bytes() < self.batch.1 {
            let holes = &self.holes;
            if let Some((_, to)) = holes.iter().find(|(from, _)| *from == self.next.0) {
                // The number is known when the record is.
                self.next = (*to, 0);
            }
            self.load()?;
            let segment = self.segment.as_ref().expect("it was loaded");
            let from = usize::try_from(self.next.0.offset - segment.start).unwrap_or(usize::MAX);
            let bytes = segment.window.get(from..).unwrap_or_default();
            let (number, record, len) = match decode(bytes) {
                Decoded::Record(number, record, len) => (number, record, len),
                Decoded::Nothing => {
                    self.next.0 = Position { segment: segment.number + 1, offset: segment::HEADER };
                    continue;
                }
                Decoded::Bad(why) => {
                    let path = segment::path(&self.shared.folder, segment.number);
                    return Err(JournalError::Damaged { path, offset: self.next.0.offset, why: why.to_owned() });
                }
            };
            self.next.1 = number;
            let after = Position { offset: self.next.0.offset + len as u64, ..self.next.0 };
            let mark = match record {
                Record::Payloads(run) => {
                    run.each(|payload| {
                        payloads.push(payload.topic, payload.body, payload.arrival, payload.delivery);
                        payloads.set_properties(payload.properties.to_vec());
                    });
                    self.next = (after, number + u64::from(run.len()));
                    continue;
                }
                Record::Mark(mark) => mark,
            };
            let crossing = match mark {
                Mark::Synced(_) => {
                    self.next.0 = after;
                    continue;
                }
                // The next call comes back to it.
                _ if !payloads.is_empty() => break,
                Mark::Tick { now, listening } => Crossing::Tick { now, listening },
                Mark::Heard(now) => Crossing::Heard(now),
                Mark::Barrier(epoch) => Crossing::Barrier(epoch),
                Mark::Stop(epoch) if self.shared.lock().over == Over::Yes(Some(number)) => {
                    Crossing::End { exhausted: false, epoch }
                }
                Mark::Stop(epoch) => Crossing::Stop(epoch),
                Mark::Exhausted(epoch) => Crossing::End { exhausted: true, epoch },
            };
            if let Crossing::Barrier(epoch) | Crossing::Stop(epoch) = crossing {
                self.epoch = epoch.next();
            }
            self.next = (after, number + 1);
            return Ok(Some(Read { crossing, next: self.next }));
        }
        self.last = (payloads.len(), payloads.len_bytes());
        let read = Read { crossing: Crossing::Payloads(payloads), next: self.next };
        Ok(Some(read).filter(|read| !matches!(&read.crossing, Crossing::Payloads(payloads) if payloads.is_empty())))
    }

    /// Brings the next record into the window, whole.
    fn load(&mut self) -> Result<(), JournalError> {
        let Position { segment: number, offset } = self.next.0;
        let is_whole = |open: &OpenSegment| {
            let from = usize::try_from(offset.checked_sub(open.start)?).ok()?;
            let rest = open.window.get(from..)?;
            let len = u32::from_le_bytes(*rest.first_chunk::<4>()?) as usize;
            Some(len > 0 && rest.len() >= HEAD + len)
        };
        let at_hand = self.segment.as_deref().filter(|open| open.number == number && self.next.1 < open.fresh);
        if at_hand.and_then(is_whole) == Some(true) {
            return Ok(());
        }
        let path = segment::path(&self.shared.folder, number);
        if self.segment.as_ref().is_none_or(|open| open.number != number) {
            let disk = &self.shared.disk;
            let file = disk.open(&path).map_err(|why| JournalError::disk("open", &path, why))?;
            let len = disk.file_len(&path).map_err(|why| JournalError::disk("read", &path, why))?;
            let window = self.segment.take().map(|open| open.window).unwrap_or_default();
            self.segment = Some(Box::new(OpenSegment { number, len, file, window, start: offset, fresh: 0 }));
        }
        let open = self.segment.as_mut().expect("it was opened just now");
        // What is durable now has been written whole.
        open.fresh = self.shared.lock().next;
        let mut want = WINDOW_BYTES;
        loop {
            let rest = usize::try_from(open.len.saturating_sub(offset)).unwrap_or(usize::MAX);
            open.window.resize(want.min(rest), 0);
            open.start = offset;
            let mut read = 0;
            while read < open.window.len() {
                match open.file.read_at(&mut open.window[read..], offset + read as u64) {
                    Ok(0) => break,
                    Ok(more) => read += more,
                    Err(why) => return Err(JournalError::disk("read", &path, why)),
                }
            }
            open.window.truncate(read);
            let len = open.window.first_chunk::<4>().map_or(0, |len| u32::from_le_bytes(*len) as usize);
            if len + HEAD <= open.window.len() || open.window.len() < want {
                return Ok(());
            }
            want = len + HEAD;
        }
    }
}
