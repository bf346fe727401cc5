//! Every crash point and every fault of a disk, for a journal that is created, grows over segments, and is opened again.

use std::panic::catch_unwind;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use streamgauge::disk::SharedDisk;
use streamgauge::disk::faulty::Effect;
use streamgauge::disk::memory::MemoryDisk;
use streamgauge::ingest::journal::{JournalSettings, KeeperError, Position, recover};

use crate::support::crash::{Crashes, End, Left};
use crate::support::journal::{
    Item, Session, assert_kept, keep, make_folder, monotone, payload, read_all, reopen, settings,
};
use crate::support::planted::is_caught;
use crate::support::slow::SlowSyncs;

const BATCH: (usize, usize) = (3, 1 << 20);

/// Two runs: groups of each. They cross segments in the middle of a group, between groups, and with a payload that is
/// larger than a segment.
fn first() -> Vec<Vec<Item>> {
    let small = |from: u16| (from..from + 4).map(|number| payload(number, 300, i64::from(number)));
    vec![
        vec![Item::Heard(0)],
        small(1).collect(),
        vec![Item::Tick { now: 5, listening: true }],
        small(5).chain([Item::Barrier(0)]).chain(small(9)).collect(),
        (20..40).map(|number| payload(number, 350, 40)).collect(),
        vec![payload(41, 9000, 41), payload(42, 10, 42)],
        vec![Item::Barrier(1), payload(43, 100, 43)],
    ]
}

fn second() -> Vec<Vec<Item>> {
    vec![
        vec![payload(50, 100, 50)],
        (51..70).map(|number| payload(number, 300, 60)).collect(),
        vec![Item::Tick { now: 70, listening: false }, Item::Stop(2)],
    ]
}

/// What both runs were given, as far as it matters, and how much of it is safe.
fn two_runs(disk: &SharedDisk) -> (Vec<Item>, usize, Option<String>) {
    let settings = settings();
    let all: Vec<Item> = first().concat();
    let kept = match recover(&**disk, &settings, None, false) {
        Ok(recovered) => keep(disk, &settings, &recovered, &first(), BATCH),
        Err(error) => return (all, 0, Some(error.to_string())),
    };
    let read: Vec<Item> = kept.read.iter().flat_map(|(items, _)| items.clone()).collect();
    assert_kept(&read, &all, kept.released);
    if kept.error.is_some() {
        return (all, kept.safe, kept.error);
    }
    match recover(&**disk, &settings, None, false) {
        Ok(recovered) => {
            assert_eq!(recovered.next - 1, all.len() as u64);
            let kept_too = keep(disk, &settings, &recovered, &second(), BATCH);
            let safe = if kept_too.safe > 0 { all.len() + kept_too.safe } else { kept.safe };
            (monotone(&[all, second().concat()].concat(), 0), safe, kept_too.error)
        }
        Err(error) => (all, kept.safe, Some(error.to_string())),
    }
}

/// After the crash everything that was safe is there; also after another crash; and the journal goes on from there.
fn check(left: &Left, (given, safe, _): &(Vec<Item>, usize, Option<String>)) {
    let settings = settings();
    let found = reopen(&left.disk, &settings, None, false, BATCH).unwrap();
    assert_kept(&found.items, given, *safe);
    // A stage that saw it may rely on it.
    let again: SharedDisk = Arc::new(left.memory.crash_hard());
    let twice = reopen(&again, &settings, None, false, BATCH).unwrap();
    assert_eq!(twice.items, found.items, "what was found once is durable");
    let more = vec![vec![payload(900, 700, 1000), payload(901, 2000, 1000)], vec![payload(902, 4000, 1001)]];
    let recovered = recover(&*again, &settings, None, false).unwrap();
    let kept = keep(&again, &settings, &recovered, &more, BATCH);
    assert_eq!((kept.safe, kept.error), (3, None));
    let again = reopen(&again, &settings, None, false, (100, 1 << 20)).unwrap();
    assert_eq!(again.items, [found.items, more.concat()].concat());
}

/// What comes without a pause, in groups that are full before the one before them is durable; on two segments.
fn flood() -> Vec<Item> {
    let large = |number: u16| payload(number, 700_000, i64::from(number));
    (1..=8).map(large).chain([Item::Barrier(0), large(9), payload(10, 10, 10)]).collect()
}

fn flood_settings() -> JournalSettings {
    JournalSettings { segment: Some(4 << 20), ..settings() }
}

/// How much of it is safe, and why it ended. So many syncs are `sure` to meet a group that is written meanwhile; `met` counts
/// those that did.
fn flooded(disk: &SharedDisk, given: &[Item], (sure, met): (u64, &Arc<AtomicU64>)) -> (usize, Option<String>) {
    let sure = Arc::new(AtomicU64::new(sure));
    let disk: SharedDisk = Arc::new(SlowSyncs { disk: disk.clone(), sure, met: met.clone() });
    let opened = recover(&*disk, &flood_settings(), None, false)
        .and_then(|recovered| Session::open(&disk, &flood_settings(), &recovered, BATCH));
    let (session, reader, _troubles) = match opened {
        Ok(opened) => opened,
        Err(error) => return (0, Some(error.to_string())),
    };
    given.iter().for_each(|item| session.give(std::slice::from_ref(item)));
    let safe = session.safe.clone();
    let ended = session.end();
    let read: Vec<Item> = read_all(reader).into_iter().flat_map(|(items, _)| items).collect();
    let payloads = *safe.borrow() as usize;
    let is_payload = |(_, item): &(usize, &Item)| matches!(item, Item::Payload(_));
    let last =
        given.iter().enumerate().filter(is_payload).nth(payloads.wrapping_sub(1)).map_or(0, |(last, _)| last + 1);
    assert_kept(&read, given, last);
    let error = match ended {
        Ok(()) | Err(KeeperError::Severed(_)) => None,
        Err(error) => Some(error.to_string()),
    };
    (last.max(read.len()), error)
}

#[test]
fn what_is_safe_is_there_though_the_next_group_was_written_meanwhile() {
    let (given, met) = (flood(), Arc::new(AtomicU64::new(0)));
    let memory: SharedDisk = Arc::new(MemoryDisk::new());
    make_folder(&memory);
    // The first group is one payload or two, and two are more than a group: before the first segment is full there are three.
    assert_eq!(flooded(&memory, &given, (2, &met)), (given.len(), None));
    assert!(met.load(Relaxed) >= 2, "a group was written while the one before it was synced");
    for fault in
        [Crashes { seeds: 2, ..Crashes::default() }, Crashes { seeds: 1, forever: false, ..Crashes::default() }]
    {
        fault.check(
            make_folder,
            |disk| flooded(disk, &given, (0, &met)),
            |left, (safe, error)| {
                let found = reopen(&left.disk, &flood_settings(), None, false, BATCH).unwrap();
                assert_kept(&found.items, &given, *safe);
                assert!(error.is_some() || *safe == given.len(), "what the feed left behind was made durable");
            },
        );
    }
}

fn crashes(seeds: u64) -> Crashes {
    Crashes { seeds, ..Crashes::default() }
}

#[test]
fn what_is_safe_is_there_after_every_crash_point() {
    crashes(4).check(make_folder, two_runs, check);
}

#[test]
fn a_disk_that_fails_once_ends_the_keeper_and_takes_nothing() {
    let crashes = Crashes { fault: Effect::Eio, forever: false, ..crashes(2) };
    crashes.check(make_folder, two_runs, check);
}

#[test]
fn a_disk_that_is_full_once_is_waited_for() {
    let crashes = Crashes { fault: Effect::Enospc, forever: false, ..crashes(2) };
    crashes.check(make_folder, two_runs, |left, result| {
        let (given, safe, error) = result;
        match error {
            None => assert_eq!(*safe, given.len(), "it went on by itself"),
            // A sync is not tried again; and without a first segment there is no start.
            Some(why) => assert!(why.contains("durable") || *safe == 0, "{why}"),
        }
        check(left, result);
    });
}

#[test]
fn a_write_that_tears_ends_the_keeper() {
    let crashes = Crashes { fault: Effect::Torn, forever: false, ..crashes(2) };
    crashes.check(make_folder, two_runs, check);
}

#[test]
fn groups_that_were_not_synced_are_noticed() {
    let crashes = Crashes { planted: "nosync", ..crashes(1) };
    assert!(catch_unwind(|| crashes.check(make_folder, two_runs, check)).is_err());
}

#[test]
fn names_of_segments_that_were_not_made_durable_are_noticed() {
    let crashes = Crashes { planted: "nosync-folder", ..crashes(1) };
    assert!(catch_unwind(|| crashes.check(make_folder, two_runs, check)).is_err());
}

#[test]
fn acknowledging_before_the_sync_is_noticed() {
    is_caught("no-fsync", "crash::what_is_safe_is_there_after_every_crash_point");
}

/// A journal whose last group is torn is cut off, at every crash point of that too.
#[test]
fn cutting_a_torn_tail_can_be_interrupted() {
    let before: Vec<Item> = (1..=6).map(|number| payload(number, 300, 1)).collect();
    for seed in 0..30 {
        let setup = |disk: &SharedDisk| {
            let memory = MemoryDisk::new();
            let other: SharedDisk = Arc::new(memory.clone());
            make_folder(&other);
            let recovered = recover(&*other, &settings(), None, false).unwrap();
            assert_eq!(keep(&other, &settings(), &recovered, std::slice::from_ref(&before), BATCH).safe, 6);
            tear(&other, 1, recovered.end);
            copy(&(Arc::new(memory.crash(seed)) as SharedDisk), disk);
        };
        let run = |disk: &SharedDisk| recover(&**disk, &settings(), None, false).is_ok();
        let check = |left: &Left, _: &bool| {
            let found = reopen(&left.disk, &settings(), None, false, BATCH).unwrap();
            assert_kept(&found.items, &before, 6);
            if left.end == End::Kill {
                assert_eq!(found.recovered.end.segment, 1);
            }
        };
        crashes(2).check(setup, run, check);
    }
}

/// Writes over the free end of a segment, in pieces that are not synced.
fn tear(disk: &SharedDisk, segment: u64, _: Position) {
    let path = format!("journal/{segment:012}.journal");
    let bytes = streamgauge::disk::read(&**disk, path.as_ref()).unwrap();
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    let file = disk.open(path.as_ref()).unwrap();
    for at in (end..bytes.len() - 200).step_by(150) {
        file.write_at(&[(at % 251) as u8 + 1; 190], at as u64).unwrap();
    }
}

fn copy(from: &SharedDisk, to: &SharedDisk) {
    make_folder(to);
    for name in from.list("journal".as_ref()).unwrap() {
        let path = std::path::Path::new("journal").join(name);
        let bytes = streamgauge::disk::read(&**from, &path).unwrap();
        to.create(&path).unwrap().write_at(&bytes, 0).unwrap();
    }
}
