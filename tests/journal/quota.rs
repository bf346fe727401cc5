//! A journal that has all the room that it may have: payloads wait, barriers do not, and nothing is lost by it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use streamgauge::disk::SharedDisk;
use streamgauge::disk::faulty::{FaultyDisk, Kind};
use streamgauge::disk::memory::MemoryDisk;
use streamgauge::flow::message::Epoch;
use streamgauge::ingest::journal::{JournalSettings, Position, recover};

use crate::support::journal::{Item, Session, assert_kept, items, keep, make_folder, payload, reopen, settings};

const QUOTA: u64 = 8 * 4096;
const PATIENCE: Duration = Duration::from_secs(20);

fn full_journal() -> (MemoryDisk, SharedDisk, JournalSettings) {
    let memory = MemoryDisk::new();
    let disk: SharedDisk = Arc::new(memory.clone());
    make_folder(&disk);
    (memory, disk, JournalSettings { quota: QUOTA, tail_bytes: 0, ..settings() })
}

#[test]
fn barriers_go_ahead_of_payloads_that_wait() {
    let (memory, disk, settings) = full_journal();
    let recovered = recover(&*disk, &settings, None, false).unwrap();
    let (session, mut reader, troubles) = Session::open(&disk, &settings, &recovered, (64, 1 << 20)).unwrap();
    // 60 payloads of 1000 bytes need twice the quota.
    let given: Vec<Item> = (1..=60).map(|number| payload(number, 1000, i64::from(number))).collect();
    session.give(&given);
    let why = troubles.recv_timeout(PATIENCE).unwrap().unwrap();
    assert!(why.contains("32768 bytes"), "{why}");
    let taken = session.released();
    assert!((20..32).contains(&taken), "{taken} of 60 are in 8 segments of 3 each, at least");
    assert!(session.handle.used() <= QUOTA && session.handle.is_pressed());
    assert_eq!(*session.safe.borrow(), taken as u64, "what was taken before is safe, and no more");

    session.pace.send_modify(|pace| pace.epoch = Epoch(2));
    session.wait(taken + 2);
    let mut read = Vec::new();
    let mut place = (Position::default(), 0);
    while read.last() != Some(&Item::Barrier(1)) {
        let next = reader.next(|wait| wait()).unwrap().unwrap();
        read.extend(items(next.crossing));
        place = next.next;
    }
    assert_eq!(read[..taken], given[..taken]);
    assert_eq!(read[taken..], [Item::Barrier(0), Item::Barrier(1)]);
    assert_eq!(*session.safe.borrow(), taken as u64);

    session.handle.release(place.0, 0).unwrap();
    assert_eq!(troubles.recv_timeout(PATIENCE).unwrap(), None);
    // The crossings of these barriers come late; one more is new.
    session.give(&[Item::Barrier(0), Item::Barrier(1)]);
    let why = troubles.recv_timeout(PATIENCE).unwrap();
    assert!(why.is_some(), "the second half does not fit in the rest, as much as there is");
    let more = session.released();
    assert!(session.handle.used() <= QUOTA + 4096);
    drop(session);
    let disk: SharedDisk = Arc::new(memory.kill());
    let rest = reopen(&disk, &settings, Some(place), false, (64, 1 << 20)).unwrap();
    assert!(rest.items.len() >= more - taken - 2);
    assert_eq!(rest.items, given[taken..taken + rest.items.len()]);
}

/// Payloads of all sizes pass through a journal that has room for a fraction of them, with checkpoints that release.
fn passes(seed: u16) {
    let (memory, disk, settings) = full_journal();
    let settings = JournalSettings { tail_bytes: usize::from(seed % 3) * 3000, ..settings };
    let recovered = recover(&*disk, &settings, None, false).unwrap();
    let (session, mut reader, _troubles) = Session::open(&disk, &settings, &recovered, (5, 1 << 20)).unwrap();
    let len = |number: u16| {
        (usize::from(number) * 7919 + usize::from(seed) * 104_729) % 2000
            + if number.is_multiple_of(37) { 5000 } else { 0 }
    };
    let payloads: Vec<Item> = (1..=300).map(|number| payload(number, len(number), i64::from(number))).collect();
    let (tell, barriers) = std::sync::mpsc::channel();
    let reading = thread::spawn(move || {
        let mut read = Vec::new();
        loop {
            let next = reader.next(|wait| wait()).unwrap().unwrap();
            read.extend(items(next.crossing));
            match read.last() {
                Some(Item::Barrier(epoch)) => tell.send((*epoch, next.next, read.len())).unwrap(),
                Some(Item::Stop(_)) => return read,
                _ => {}
            }
        }
    });
    let mut waiting: VecDeque<&[Item]> = payloads.chunks(7).collect();
    let mut place = None;
    let (mut durable, mut ended) = (0, false);
    let began = Instant::now();
    while !session.is_over() {
        assert!(began.elapsed() < PATIENCE, "it is stuck for good");
        assert!(session.handle.used() <= QUOTA + 4096, "{} bytes", session.handle.used());
        let running = session.pace.borrow().epoch;
        if session.handle.is_pressed() && running.0 - durable < 2 && !ended {
            session.pace.send_modify(|pace| pace.epoch = running.next());
            session.give(&[Item::Barrier(running.0)]);
        }
        match waiting.pop_front() {
            Some(chunk) => session.give(chunk),
            None if !ended && *session.safe.borrow() == 300 => {
                session.give(&[Item::Stop(session.pace.borrow().epoch.0)]);
                ended = true;
            }
            None => {}
        }
        while let Ok((epoch, next, count)) = barriers.try_recv() {
            assert_eq!(epoch, durable);
            durable = epoch + 1;
            session.handle.release(next.0, 0).unwrap();
            place = Some((next, count));
        }
        thread::sleep(Duration::from_micros(100));
    }
    session.end().unwrap();
    let read = reading.join().unwrap();
    let marks = |item: &&Item| !matches!(item, Item::Payload(_));
    let (others, got): (Vec<&Item>, Vec<&Item>) = read.iter().partition(marks);
    assert!(got.into_iter().eq(&payloads), "all are there, in order, once");
    let last = others.len() as u64 - 1;
    let expected: Vec<Item> = (0..last).map(Item::Barrier).chain([Item::Stop(last)]).collect();
    assert!(others.into_iter().eq(&expected));
    assert!(last >= 5, "it was full often: {last}");
    let (place, count) = place.unwrap();
    let disk: SharedDisk = Arc::new(memory.crash_hard());
    let rest = reopen(&disk, &settings, Some(place), false, (9, 1 << 20)).unwrap();
    assert_eq!(rest.items, read[count..]);
}

#[test]
fn a_stream_passes_through_a_small_journal() {
    for seed in 0..9 {
        passes(seed);
    }
}

#[test]
fn a_full_disk_holds_payloads_back_and_loses_none() {
    full_disk(u64::MAX, "cannot create", 15);
    // The room was not taken before, so the group that does not fit waits as a whole.
    full_disk(0, "cannot write", 0);
}

fn full_disk(zeros_below: u64, what: &str, least: usize) {
    let (memory, disk, settings) = full_journal();
    let settings = JournalSettings { quota: 1 << 30, zeros_below, ..settings };
    let recovered = recover(&*disk, &settings, None, false).unwrap();
    memory.set_capacity(Some(5 * 4096 + 100));
    let (session, _reader, troubles) = Session::open(&disk, &settings, &recovered, (64, 1 << 20)).unwrap();
    let given: Vec<Item> = (1..=60).map(|number| payload(number, 1000, i64::from(number))).collect();
    session.give(&given);
    let why = troubles.recv_timeout(PATIENCE).unwrap().unwrap();
    assert!(why.contains(what), "{why}");
    let taken = session.released();
    assert!((least..20).contains(&taken), "{taken} are in 5 segments");
    assert_eq!(*session.safe.borrow(), taken as u64);
    // What was acknowledged so far is there.
    let crashed: SharedDisk = Arc::new(copy_of(&memory));
    let found = reopen(&crashed, &settings, None, false, (64, 1 << 20)).unwrap();
    assert_kept(&found.items, &given, taken);
    assert!(zeros_below == 0 || found.items.len() == taken, "and nothing else was written");
    memory.set_capacity(None);
    session.wait(60);
    assert_eq!(troubles.recv_timeout(PATIENCE).unwrap(), None);
    assert_eq!(*session.safe.borrow(), 60);
    drop(session);
    let disk: SharedDisk = Arc::new(memory.crash_hard());
    assert_eq!(reopen(&disk, &settings, None, false, (7, 1 << 20)).unwrap().items, given);
}

/// The files as they are, on a disk that lives.
fn copy_of(memory: &MemoryDisk) -> MemoryDisk {
    let copy = MemoryDisk::new();
    let disk: SharedDisk = Arc::new(copy.clone());
    make_folder(&disk);
    for name in streamgauge::disk::Disk::list(memory, "journal".as_ref()).unwrap() {
        let path = std::path::Path::new("journal").join(name);
        let bytes = streamgauge::disk::read(memory, &path).unwrap();
        disk.create(&path).unwrap().write_at(&bytes, 0).unwrap();
    }
    copy
}

/// Nothing is written twice where much comes between two syncs, and zeros are written ahead where little does.
#[test]
fn large_groups_need_no_zeros() {
    for (payloads, zeros) in [(1, true), (40, false)] {
        let memory = MemoryDisk::new();
        let disk = FaultyDisk::new(Arc::new(memory.clone()), []);
        let shared: SharedDisk = Arc::new(disk.clone());
        make_folder(&shared);
        let settings = JournalSettings { segment: Some(8192), ..settings() };
        let recovered = recover(&*shared, &settings, None, false).unwrap();
        let groups: Vec<Vec<Item>> = (0..160 / payloads)
            .map(|group| (1..=payloads).map(|index| payload(group + index, 100, 5)).collect())
            .collect();
        let kept = keep(&shared, &settings, &recovered, &groups, (64, 1 << 20));
        assert_eq!((kept.safe, kept.error), (160, None));
        let made = disk.operations();
        let holes = made.iter().filter(|operation| operation.kind == Kind::SetLen).count();
        let segments = made.iter().filter(|operation| operation.kind == Kind::Rename).count();
        assert!(segments >= 3, "{segments}");
        assert_eq!(holes, if zeros { 0 } else { segments - 1 }, "the first is made before any group");
        let disk: SharedDisk = Arc::new(memory.crash_hard());
        assert_eq!(reopen(&disk, &settings, None, false, (64, 1 << 20)).unwrap().items, groups.concat());
    }
}
