//! Journals as lists of values: a keeper that is given crossings in groups, what a reader gives, and what is found when
//! the journal is opened again.

use std::fmt;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use streamgauge::disk::SharedDisk;
use streamgauge::flow::message::Epoch;
use streamgauge::flow::meter::SourceMeter;
use streamgauge::flow::payload::{Delivery, Payloads};
use streamgauge::flow::time::Timestamp;
use streamgauge::ingest::feed::{Crossing, Pace};
use streamgauge::ingest::journal::{
    Handle, JournalError, JournalSettings, Keeper, KeeperError, Position, Reader, Recovered, Sync, recover,
};
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, watch};

pub const FOLDER: &str = "journal";

/// A payload with all that comes with it.
#[derive(Clone, PartialEq, Eq)]
pub struct Given {
    pub topic: Vec<u8>,
    pub body: Vec<u8>,
    pub arrival: i64,
    pub delivery: Delivery,
    pub properties: Vec<(String, String)>,
}

impl fmt::Debug for Given {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { topic, body, arrival, delivery, properties } = self;
        let (first, len) = (body.first(), body.len());
        write!(f, "{topic:?} {first:?}..{len} at {arrival} {} {properties:?}", delivery.packet_id)
    }
}

/// One record of a journal that is not its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    Payload(Given),
    Tick { now: i64, listening: bool },
    Heard(i64),
    Barrier(u64),
    Stop(u64),
    Exhausted(u64),
}

/// A payload of so many bytes, that tells itself from others by its number.
pub fn payload(number: u16, len: usize, arrival: i64) -> Item {
    let body = (0..len).map(|index| (index as u8).wrapping_mul(31) ^ (number as u8) ^ ((number >> 8) as u8)).collect();
    let delivery = Delivery {
        qos: (number % 3) as u8,
        retained: number.is_multiple_of(5),
        dup: number.is_multiple_of(7),
        packet_id: number,
        connection: u32::from(number / 11),
    };
    let properties = match number % 4 {
        0 => vec![("unit".to_owned(), format!("k{number}")), (String::new(), "é".to_owned())],
        _ => Vec::new(),
    };
    Item::Payload(Given { topic: format!("site/{}", number % 6).into_bytes(), body, arrival, delivery, properties })
}

/// Settings of a journal with segments of 4 KiB, some with written zeros and some without, on an endless quota.
pub fn settings() -> JournalSettings {
    JournalSettings {
        folder: FOLDER.into(),
        quota: 1 << 30,
        sync: Sync::Group,
        tail_bytes: 1 << 20,
        keep: 0,
        segment: Some(4096),
        zeros_below: 700,
    }
}

/// Makes the folder, durably.
pub fn make_folder(disk: &SharedDisk) {
    disk.create_folder(Path::new(FOLDER)).unwrap();
    disk.sync_folder(Path::new(".")).unwrap();
}

/// Payloads in a row cross together.
pub fn crossings(items: &[Item]) -> Vec<Crossing> {
    let mut crossings = Vec::new();
    let mut payloads = Payloads::default();
    for item in items {
        if let Item::Payload(given) = item {
            let arrival = Timestamp::from_micros(given.arrival);
            payloads.push(&given.topic, &given.body, arrival, given.delivery);
            payloads.set_properties(given.properties.clone());
            continue;
        }
        if !payloads.is_empty() {
            crossings.push(Crossing::Payloads(std::mem::take(&mut payloads)));
        }
        crossings.push(match item {
            Item::Payload(_) => continue,
            Item::Tick { now, listening } => {
                Crossing::Tick { now: Timestamp::from_micros(*now), listening: *listening }
            }
            Item::Heard(now) => Crossing::Heard(Timestamp::from_micros(*now)),
            Item::Barrier(epoch) => Crossing::Barrier(Epoch(*epoch)),
            Item::Stop(epoch) => Crossing::End { exhausted: false, epoch: Epoch(*epoch) },
            Item::Exhausted(epoch) => Crossing::End { exhausted: true, epoch: Epoch(*epoch) },
        });
    }
    if !payloads.is_empty() {
        crossings.push(Crossing::Payloads(payloads));
    }
    crossings
}

/// As [`crossings`], the other way.
pub fn items(crossing: Crossing) -> Vec<Item> {
    vec![match crossing {
        Crossing::Payloads(payloads) => {
            let given = payloads.iter().map(|payload| {
                Item::Payload(Given {
                    topic: payload.topic.to_vec(),
                    body: payload.body.to_vec(),
                    arrival: payload.arrival.micros(),
                    delivery: payload.delivery,
                    properties: payload.properties.to_vec(),
                })
            });
            return given.collect();
        }
        Crossing::Tick { now, listening } => Item::Tick { now: now.micros(), listening },
        Crossing::Heard(now) => Item::Heard(now.micros()),
        Crossing::Barrier(epoch) => Item::Barrier(epoch.0),
        Crossing::Stop(epoch) | Crossing::End { exhausted: false, epoch } => Item::Stop(epoch.0),
        Crossing::End { exhausted: true, epoch } => Item::Exhausted(epoch.0),
    }]
}

/// The times that a journal has: they never go back, from `since` on.
pub fn monotone(given: &[Item], mut since: i64) -> Vec<Item> {
    let mut expected = given.to_vec();
    for item in &mut expected {
        if let Item::Payload(Given { arrival: at, .. }) | Item::Tick { now: at, .. } | Item::Heard(at) = item {
            since = since.max(*at);
            *at = since;
        }
    }
    expected
}

fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| Runtime::new().unwrap())
}

/// A keeper at work.
pub struct Session {
    pub handle: Handle,
    pub pace: watch::Sender<Pace>,
    pub safe: watch::Receiver<u64>,
    bridge: mpsc::Sender<Crossing>,
    keeper: Option<thread::JoinHandle<Result<(), KeeperError>>>,
    /// Records that there were before.
    before: u64,
}

impl Session {
    /// Begins to keep, with the reader of it. Troubles are told to the channel.
    pub fn open(
        disk: &SharedDisk,
        settings: &JournalSettings,
        recovered: &Recovered,
        batch: (usize, usize),
    ) -> Result<(Self, Reader, std::sync::mpsc::Receiver<Option<String>>), JournalError> {
        let epoch = recovered.epoch.map_or(Epoch(0), Epoch::next);
        let (pace, paced) = watch::channel(Pace { epoch, stop: false });
        let (said_safe, safe) = watch::channel(0);
        let (tell, troubles) = std::sync::mpsc::channel();
        let troubled = Box::new(move |what| drop(tell.send(what)));
        let told = (said_safe, Arc::new(SourceMeter::default()));
        let (keeper, reader, handle) =
            Keeper::open(disk.clone(), settings, recovered, (epoch, paced), told, (batch, troubled))?;
        let (bridge, crossings) = mpsc::channel(1024);
        let keeper = thread::spawn(move || keeper.run(crossings, runtime().handle()));
        let before = recovered.next - 1;
        Ok((Self { handle, pace, safe, bridge, keeper: Some(keeper), before }, reader, troubles))
    }

    /// Puts crossings into the bridge.
    pub fn give(&self, items: &[Item]) {
        for crossing in crossings(items) {
            // The keeper's end tells why it is gone.
            drop(self.bridge.blocking_send(crossing));
        }
    }

    /// How many records of this session may be read.
    pub fn released(&self) -> usize {
        (self.handle.records() - self.before) as usize
    }

    pub fn is_over(&self) -> bool {
        self.keeper.as_ref().is_none_or(thread::JoinHandle::is_finished)
    }

    /// Waits until so many records may be read, or the keeper has failed. What waits for room is woken.
    pub fn wait(&self, records: usize) {
        while self.released() < records && !self.is_over() {
            thread::sleep(Duration::from_micros(50));
            self.wake();
        }
    }

    /// Has a keeper that waits for room look again.
    pub fn wake(&self) {
        drop(self.handle.release(Position::default(), u64::MAX));
    }

    /// The feed is gone.
    pub fn end(mut self) -> Result<(), KeeperError> {
        let keeper = self.keeper.take().unwrap();
        drop(self);
        keeper.join().unwrap()
    }
}

/// What came of a session.
#[derive(Debug)]
pub struct Kept {
    /// How many of the items that were given are safe.
    pub safe: usize,
    /// How many of the items the stages might read.
    pub released: usize,
    /// What they read, with what follows each crossing.
    pub read: Vec<(Vec<Item>, (Position, u64))>,
    /// Why the journal failed.
    pub error: Option<String>,
}

/// Gives groups of items to a keeper, each when the one before was released. The feed is gone after the last.
pub fn keep(
    disk: &SharedDisk,
    settings: &JournalSettings,
    recovered: &Recovered,
    groups: &[Vec<Item>],
    batch: (usize, usize),
) -> Kept {
    keep_beside(disk, settings, recovered, groups, batch, |_| ())
}

/// The same, with something done to the journal after each group.
pub fn keep_beside(
    disk: &SharedDisk,
    settings: &JournalSettings,
    recovered: &Recovered,
    groups: &[Vec<Item>],
    batch: (usize, usize),
    beside: impl Fn(&Handle),
) -> Kept {
    let (session, reader, _troubles) = match Session::open(disk, settings, recovered, batch) {
        Ok(opened) => opened,
        Err(error) => return Kept { safe: 0, released: 0, read: Vec::new(), error: Some(error.to_string()) },
    };
    let reading = thread::spawn(move || read_all(reader));
    let (mut given, mut safe) = (0, 0);
    for group in groups {
        session.give(group);
        given += group.len();
        session.wait(given);
        if session.released() < given {
            break;
        }
        beside(&session.handle);
        // Nothing is durable of ticks alone, and those at the end may have been taken by themselves.
        let ticks = group.iter().rev().take_while(|item| matches!(item, Item::Tick { .. })).count();
        if ticks < group.len() {
            safe = given - ticks;
        }
    }
    let (released, said_safe) = (session.handle.clone(), session.safe.clone());
    let before = session.before;
    let error = match session.end() {
        Ok(()) | Err(KeeperError::Severed(_)) => None,
        Err(error) => Some(error.to_string()),
    };
    let released = (released.records() - before) as usize;
    let all: Vec<&Item> = groups.iter().flatten().collect();
    let payloads = all.iter().enumerate().filter(|(_, item)| matches!(item, Item::Payload(_)));
    let said_safe = *said_safe.borrow() as usize;
    if said_safe > 0 {
        let last = payloads.map(|(index, _)| index).nth(said_safe - 1).expect("no more is safe than was given");
        safe = safe.max(last + 1);
    }
    Kept { safe, released, read: reading.join().unwrap(), error }
}

/// Reads until the keeper is gone.
pub fn read_all(mut reader: Reader) -> Vec<(Vec<Item>, (Position, u64))> {
    let mut read = Vec::new();
    while let Ok(Some(next)) = reader.next(|wait| wait()) {
        let end = matches!(next.crossing, Crossing::End { .. });
        read.push((items(next.crossing), next.next));
        if end {
            break;
        }
    }
    read
}

/// What a journal has from a position on.
#[derive(Debug)]
pub struct Found {
    pub items: Vec<Item>,
    /// What follows each read, and how many items came up to it.
    pub places: Vec<(usize, (Position, u64))>,
    pub recovered: Recovered,
}

/// Opens a journal again, and reads it to its end.
pub fn reopen(
    disk: &SharedDisk,
    settings: &JournalSettings,
    from: Option<(Position, u64)>,
    accept_loss: bool,
    batch: (usize, usize),
) -> Result<Found, JournalError> {
    let recovered = recover(&**disk, settings, from, accept_loss)?;
    let mut reader = Reader::whole(disk.clone(), settings, &recovered, batch);
    let (mut all, mut places) = (Vec::new(), Vec::new());
    loop {
        let read = reader.next(|wait| wait())?.expect("nobody severs it");
        if let Crossing::End { exhausted, .. } = read.crossing {
            // The reader makes up an end where there is no record of one.
            if exhausted || recovered.stopped.is_some_and(|stop| all.len() as u64 + recovered.number == stop) {
                all.extend(items(read.crossing));
                places.push((all.len(), read.next));
            }
            return Ok(Found { items: all, places, recovered });
        }
        all.extend(items(read.crossing));
        places.push((all.len(), read.next));
    }
}

/// What is found must be a beginning of what was given, and at least what is safe.
pub fn assert_kept(found: &[Item], given: &[Item], safe: usize) {
    assert!(found.len() <= given.len(), "{} items of {} that were given", found.len(), given.len());
    let wrong = found.iter().zip(given).position(|(found, given)| found != given);
    if let Some(at) = wrong {
        panic!("item {at} of {}: {:?} in place of {:?}", given.len(), found[at], given[at]);
    }
    assert!(found.len() >= safe, "{} items are there of {safe} that were safe", found.len());
}
