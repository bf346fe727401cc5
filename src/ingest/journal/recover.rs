//! The journal as a start finds it: what is whole, what was being written in a crash, what is damaged.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};

use crate::disk::{self, Disk};
use crate::flow::message::Epoch;
use crate::flow::payload::Payload;
use crate::flow::time::Timestamp;
use crate::ingest::journal::record::{Decoded, HEAD, Mark, Record, decode, may_begin};
use crate::ingest::journal::segment::Fill;
use crate::ingest::journal::{JournalError, JournalSettings, Position, segment};

/// How many redeliveries are looked for at most: MQTT has no more packet ids.
pub(super) const REDELIVERIES_MAX: usize = 65_535;
/// Records that may be missing before one that is looked for behind a damage: a bound for what can be a number at all.
const AHEAD_MAX: u64 = 1 << 32;
const HEADER: usize = segment::HEADER as usize;

/// A payload whose acknowledgement may have been lost: the broker may send it again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Redelivery {
    /// Under this packet id.
    pub packet_id: u16,
    /// With this topic and body, as [`fingerprint`](crate::ingest::fingerprint) has it.
    pub fingerprint: u64,
}

/// What a journal holds.
#[derive(Clone, Debug)]
pub struct Recovered {
    /// Where the reader goes on.
    pub from: Position,
    /// The number of the first record there.
    pub number: u64,
    /// Where the next record will be.
    pub end: Position,
    /// Its number.
    pub next: u64,
    /// Bytes that the segments take.
    pub used: u64,
    /// The last epoch that was ended.
    pub epoch: Option<Epoch>,
    /// The number of the last record, if it is the end of a run.
    pub stopped: Option<u64>,
    /// The feed has come to its end.
    pub exhausted: bool,
    /// Payloads from there on, and their bytes.
    pub payloads: (u64, u64),
    /// When the last payload arrived.
    pub arrival: Timestamp,
    /// The last connection.
    pub connection: u32,
    /// What may be delivered again, in the order of arrival.
    pub redeliveries: Vec<Redelivery>,
    /// How many of them are in which segment, ascending.
    pub(super) redeliverable: BTreeMap<u64, u64>,
    /// Stretches without a good record, whose loss was accepted.
    pub holes: Vec<(Position, Position)>,
    /// How many records were in them.
    pub lost: u64,
    /// The file of the last segment, and a whole one after it where it was prepared.
    pub(super) segments: (u64, Option<u64>),
    /// The last segment is of this version, so that records may be added to it.
    pub(super) is_current: bool,
}

/// Reads a journal from a checkpoint's position (or the beginning), and cuts off what was being written in a crash.
pub fn recover(
    disk: &dyn Disk,
    settings: &JournalSettings,
    from: Option<(Position, u64)>,
    accept_loss: bool,
) -> Result<Recovered, JournalError> {
    let folder = &settings.folder;
    segment::clear(disk, folder)?;
    let mut numbers = segment::list(disk, folder)?;
    if numbers.is_empty() && from.is_none() {
        segment::create(disk, folder, 1, settings.segment_bytes(), Fill::Written)?;
        numbers.push(1);
    }
    let missing = |number: u64| JournalError::Damaged {
        path: segment::path(folder, number),
        offset: 0,
        why: "the segment is not there".to_owned(),
    };
    let first = *numbers.first().ok_or_else(|| missing(from.map_or(1, |(at, _)| at.segment)))?;
    let (from, number) = match from {
        Some(known) => known,
        None if first == 1 => (Position { segment: 1, offset: segment::HEADER }, 1),
        None => return Err(missing(1)),
    };
    let mut scan = Scan::new(from, number, accept_loss);
    for pair in numbers.windows(2) {
        if pair[1] != pair[0] + 1 && pair[1] > from.segment {
            return Err(missing(pair[0] + 1));
        }
    }
    if !numbers.contains(&from.segment) {
        return Err(missing(from.segment));
    }
    scan.earlier(disk, folder, &numbers);
    let mut used = 0;
    for segment in numbers.iter().copied() {
        let path = segment::path(folder, segment);
        used += disk.file_len(&path).map_err(|why| JournalError::disk("read", &path, why))?;
        if segment < from.segment {
            continue;
        }
        let bytes = disk::read(disk, &path).map_err(|why| JournalError::disk("read", &path, why))?;
        scan.segment(&path, segment, &bytes)?;
    }
    let mut recovered = Recovered { redeliveries: scan.redeliveries.into(), ..scan.found };
    recovered.used = used;
    cut_off(disk, settings, &mut recovered, &numbers)?;
    Ok(recovered)
}

/// Writes zeros over what follows the last good record: a part of a record must not be taken for one later. Then makes all
/// that is there durable, as stages rely on it from here on, and who wrote it may have been killed before its sync. Segments
/// before the last were synced before the next was begun.
fn cut_off(
    disk: &dyn Disk,
    settings: &JournalSettings,
    recovered: &mut Recovered,
    numbers: &[u64],
) -> Result<(), JournalError> {
    let path = segment::path(&settings.folder, recovered.end.segment);
    let bytes = disk::read(disk, &path).map_err(|why| JournalError::disk("read", &path, why))?;
    let end = usize::try_from(recovered.end.offset).unwrap_or(usize::MAX).min(bytes.len());
    let file = disk.open(&path).map_err(|why| JournalError::disk("open", &path, why))?;
    if let Some(last) = bytes[end..].iter().rposition(|byte| *byte != 0) {
        tracing::info!(path = %path.display(), offset = end, bytes = last + 1, "cut off what a crash left half written");
        file.write_at(&vec![0; last + 1], end as u64).map_err(|why| JournalError::disk("cut off", &path, why))?;
    }
    file.sync().map_err(|why| JournalError::lost(&path, why))?;
    let mut prepared = None;
    for segment in numbers.iter().copied().filter(|segment| *segment > recovered.end.segment) {
        let path = segment::path(&settings.folder, segment);
        let bytes = disk::read(disk, &path).map_err(|why| JournalError::disk("read", &path, why))?;
        if segment == recovered.end.segment + 1 && segment::is_unused(&path, segment, &bytes) {
            prepared = Some(segment);
            continue;
        }
        // Records of a torn group may be at its beginning: they must not come back behind those that are written now.
        disk.remove(&path).map_err(|why| JournalError::disk("remove", &path, why))?;
        recovered.used -= bytes.len() as u64;
    }
    (recovered.segments, recovered.is_current) = ((recovered.end.segment, prepared), segment::is_current(&bytes));
    for folder in [&*settings.folder, disk::parent(&settings.folder)] {
        disk.sync_folder(folder).map_err(|why| JournalError::lost(folder, why))?;
    }
    Ok(())
}

/// Whether the broker may send it again.
fn is_redeliverable(payload: &Payload<'_>) -> bool {
    payload.delivery.qos > 0
}

/// The records at the beginning of a segment.
fn each_record(bytes: &[u8], mut each: impl FnMut(&Record<'_>)) {
    let mut at = HEADER;
    while let Some(Decoded::Record(_, record, len)) = bytes.get(at..).map(decode) {
        each(&record);
        at += len;
    }
}

/// A stretch that is no record, until it is known what it is.
struct Wrong {
    path: PathBuf,
    at: Position,
    why: &'static str,
}

struct Scan {
    accept_loss: bool,
    wrong: Option<Wrong>,
    redeliveries: VecDeque<Redelivery>,
    found: Recovered,
}

impl Scan {
    fn new(from: Position, number: u64, accept_loss: bool) -> Self {
        let found = Recovered {
            from,
            number,
            end: from,
            next: number,
            used: 0,
            epoch: None,
            stopped: None,
            exhausted: false,
            payloads: (0, 0),
            arrival: Timestamp::START,
            connection: 0,
            redeliveries: Vec::new(),
            redeliverable: BTreeMap::new(),
            holes: Vec::new(),
            lost: 0,
            segments: (from.segment, None),
            is_current: true,
        };
        Self { accept_loss, wrong: None, redeliveries: VecDeque::new(), found }
    }

    fn segment(&mut self, path: &Path, segment: u64, bytes: &[u8]) -> Result<(), JournalError> {
        let from = if segment == self.found.from.segment {
            usize::try_from(self.found.from.offset).unwrap_or(usize::MAX).min(bytes.len())
        } else {
            HEADER
        };
        self.before(segment, bytes.get(..from).unwrap_or_default());
        match segment::check(path, segment, bytes) {
            Err(error @ JournalError::Newer { .. }) => return Err(error),
            Err(error) if !self.accept_loss => return Err(error),
            _ => {}
        }
        let mut at = from.max(HEADER);
        while at < bytes.len() {
            let here = Position { segment, offset: at as u64 };
            let why = match decode(&bytes[at..]) {
                Decoded::Record(number, record, len) if number >= self.found.next => {
                    self.record(path, here, (number, &record), len)?;
                    at += len;
                    continue;
                }
                Decoded::Record(..) => "an old record stands there",
                Decoded::Bad(why) => why,
                // Nothing more was written here, or a hole.
                Decoded::Nothing => "zeros where a record was",
            };
            let next = self.next_good(bytes, at);
            if next.is_some() || why != "zeros where a record was" {
                self.wrong.get_or_insert_with(|| Wrong { path: path.to_owned(), at: here, why });
            }
            at = next.unwrap_or(bytes.len());
        }
        Ok(())
    }

    /// Segments before the one where the reader goes on, back to where nothing can be delivered again any more. What cannot
    /// be read there ends it: no state depends on it.
    fn earlier(&mut self, disk: &dyn Disk, folder: &Path, numbers: &[u64]) {
        let (mut segments, mut count) = (Vec::new(), 0);
        let mut next = self.found.from.segment;
        for segment in numbers.iter().copied().rev().filter(|segment| *segment < self.found.from.segment) {
            if segment + 1 != next || count >= REDELIVERIES_MAX {
                break;
            }
            let Ok(bytes) = disk::read(disk, &segment::path(folder, segment)) else { break };
            each_record(&bytes, |record| {
                if let Record::Payloads(run) = record {
                    run.each(|payload| count += usize::from(is_redeliverable(payload)));
                }
            });
            segments.push((segment, bytes));
            next = segment;
        }
        segments.into_iter().rev().for_each(|(segment, bytes)| self.before(segment, &bytes));
    }

    /// What stands before the place where the reader goes on: only what the broker may send again is of interest.
    fn before(&mut self, segment: u64, bytes: &[u8]) {
        each_record(bytes, |record| self.note(segment, record));
    }

    /// Takes a good record.
    fn record(
        &mut self,
        path: &Path,
        here: Position,
        (number, record): (u64, &Record<'_>),
        len: usize,
    ) -> Result<(), JournalError> {
        if number > self.found.next && self.wrong.is_none() {
            let why = "records are missing there";
            self.wrong = Some(Wrong { path: path.to_owned(), at: self.found.end, why });
        }
        let mark = if let Record::Mark(Mark::Synced(at)) = record { Some(*at) } else { None };
        let begins = Position { segment: here.segment, offset: segment::HEADER } == here;
        if let Some(wrong) = self.wrong.take_if(|_| begins && number == self.found.next) {
            // No record is missing: it was the mark of a segment's last sync, which no other has made durable.
            self.found.holes.push((wrong.at, here));
        }
        if let Some(wrong) = &self.wrong {
            // What comes after proves that it was durable once: a segment is begun after a sync, too.
            let durable = mark.map_or(wrong.at.segment < here.segment, |synced| wrong.at < synced);
            if durable && !self.accept_loss {
                let (path, offset, why) = (wrong.path.clone(), wrong.at.offset, wrong.why.to_owned());
                return Err(JournalError::Damaged { path, offset, why });
            }
            if !self.accept_loss {
                // Of a group that was being written in the crash, unless what follows tells otherwise.
                return Ok(());
            }
            self.found.lost += number - self.found.next;
            self.found.holes.push((wrong.at, here));
            self.wrong = None;
        }
        self.note(here.segment, record);
        if let Record::Payloads(run) = record {
            let (count, bytes) = &mut self.found.payloads;
            *count += record.numbers();
            run.each(|payload| *bytes += payload.body.len() as u64);
        }
        self.found.end = Position { segment: here.segment, offset: here.offset + len as u64 };
        self.found.next = number + record.numbers();
        if mark.is_none() {
            self.found.stopped = matches!(record, Record::Mark(Mark::Stop(_))).then_some(number);
            self.found.exhausted = matches!(record, Record::Mark(Mark::Exhausted(_)));
        }
        Ok(())
    }

    fn note(&mut self, segment: u64, record: &Record<'_>) {
        match record {
            Record::Payloads(run) => run.each(|payload| self.payload(segment, payload)),
            Record::Mark(Mark::Barrier(epoch) | Mark::Stop(epoch) | Mark::Exhausted(epoch)) => {
                self.found.epoch = self.found.epoch.max(Some(*epoch));
            }
            Record::Mark(Mark::Tick { now, .. } | Mark::Heard(now)) => {
                self.found.arrival = self.found.arrival.max(*now);
            }
            Record::Mark(Mark::Synced(_)) => {}
        }
    }

    fn payload(&mut self, segment: u64, payload: &Payload<'_>) {
        self.found.arrival = self.found.arrival.max(payload.arrival);
        self.found.connection = self.found.connection.max(payload.delivery.connection);
        if is_redeliverable(payload) {
            *self.found.redeliverable.entry(segment).or_default() += 1;
            if self.redeliveries.len() == REDELIVERIES_MAX {
                self.redeliveries.pop_front();
            }
            let fingerprint = crate::ingest::fingerprint(payload.topic, payload.body);
            self.redeliveries.push_back(Redelivery { packet_id: payload.delivery.packet_id, fingerprint });
        }
    }

    /// The next place where a record of this journal stands that is not older than what was read.
    fn next_good(&self, bytes: &[u8], from: usize) -> Option<usize> {
        let mut at = from + 1;
        loop {
            // Nearly all of what follows the last record is zeros.
            at += bytes.get(at..)?.iter().position(|byte| *byte != 0)?;
            // The first bytes of a length may be noughts.
            for start in at.saturating_sub(3).max(from + 1)..=at {
                let Some(number) = bytes.get(start + HEAD..).and_then(|rest| rest.first_chunk::<8>()) else { continue };
                let ahead = u64::from_le_bytes(*number).checked_sub(self.found.next);
                if ahead.is_some_and(|ahead| ahead < AHEAD_MAX)
                    && may_begin(&bytes[start..])
                    && matches!(decode(&bytes[start..]), Decoded::Record(..))
                {
                    return Some(start);
                }
            }
            at += 1;
        }
    }
}
