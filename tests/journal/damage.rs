//! Damage of all kinds to a journal of several segments: it is told, or it changed nothing, or it took what was never
//! proven durable; what is read was written.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use streamgauge::disk::memory::MemoryDisk;
use streamgauge::disk::{self, SharedDisk};
use streamgauge::ingest::journal::{JournalError, JournalSettings, Position, recover};

use crate::support::chance::{Chance, Damage};
use crate::support::journal::{Item, keep, make_folder, payload, reopen, settings};

/// Damages in all, over as many threads.
const DAMAGES: u64 = 50_000;
const THREADS: u64 = 4;
const BATCH: (usize, usize) = (16, 1 << 20);
/// Of a record of the journal that is damaged.
const PAYLOADS: u16 = 4;

/// A journal that was closed.
struct Whole {
    memory: MemoryDisk,
    settings: JournalSettings,
    items: Vec<Item>,
    /// What follows each record, and how many items came up to it.
    places: Vec<(usize, (Position, u64))>,
    files: Vec<PathBuf>,
    /// Segments by number, as they were, with their marks: where each is, and up to where it proves that records are
    /// durable.
    segments: Vec<(u64, Vec<u8>, Vec<Mark>)>,
}

const MARK: usize = 48;

/// Where a mark is, and up to where it speaks.
type Mark = (usize, Position);

impl Whole {
    fn new() -> Self {
        let memory = MemoryDisk::new();
        let disk: SharedDisk = Arc::new(memory.clone());
        make_folder(&disk);
        let settings = JournalSettings { segment: Some(1024), ..settings() };
        let recovered = recover(&*disk, &settings, None, false).unwrap();
        let mut groups = Vec::new();
        for group in 0..9_u16 {
            let payloads = (0..PAYLOADS)
                .map(|index| payload(group * PAYLOADS + index + 1, usize::from(group * 17 + index * 9), 5));
            groups.push(payloads.chain([Item::Barrier(u64::from(group))]).collect::<Vec<_>>());
        }
        let kept = keep(&disk, &settings, &recovered, &groups, BATCH);
        assert_eq!((kept.safe, kept.error), (45, None));
        let whole = reopen(&disk, &settings, None, false, (1, 1 << 20)).unwrap();
        assert_eq!(whole.items, groups.concat());
        let names = disk.list(Path::new("journal")).unwrap();
        let files: Vec<PathBuf> = names.iter().map(|name| Path::new("journal").join(name)).collect();
        assert!((4..9).contains(&files.len()), "{files:?}");
        let segments = (1..).zip(&files).map(|(number, path)| {
            let bytes = disk::read(&*disk, path).unwrap();
            let marks = marks(&bytes);
            (number, bytes, marks)
        });
        let segments: Vec<_> = segments.collect();
        assert!(segments.iter().map(|(_, _, marks)| marks.len()).sum::<usize>() >= 9, "each group has its mark");
        Self { memory, settings, items: whole.items, places: whole.places, files: files.clone(), segments }
    }

    /// How many items the marks and the borders of segments that are as they were prove to have been durable.
    fn proven(&self, disk: &MemoryDisk) -> usize {
        let mut proven = Position::default();
        for (number, bytes, marks) in &self.segments {
            let now = disk::read(disk, &self.files[*number as usize - 1]).unwrap();
            for (at, upto) in marks {
                if now.get(*at..at + MARK) == Some(&bytes[*at..at + MARK]) {
                    proven = proven.max(*upto);
                }
            }
        }
        let places = self.places.iter().filter(|(_, (place, _))| *place <= proven);
        places.map(|(items, _)| *items).max().unwrap_or(0)
    }

    /// One damage; `from` is a place, counted in items, that a checkpoint knows: the end of a record.
    fn check(&self, seed: u64) -> Outcome {
        let mut chance = Chance::new(seed);
        let disk = self.memory.kill();
        let damage = Damage::new(&mut chance, &disk, &self.files);
        damage.apply(&disk);
        let proven = self.proven(&disk);
        let record = if chance.of(3) == 0 { 0 } else { chance.of(self.places.len() as u64) as usize };
        let (from, place) = record.checked_sub(1).map_or((0, None), |last| {
            let (items, place) = self.places[last];
            (items, Some(place))
        });
        let accept = chance.of(4) == 0;
        let shared: SharedDisk = Arc::new(disk);
        match reopen(&shared, &self.settings, place, accept, BATCH) {
            Ok(found) if accept => {
                let mut rest = self.items[from..].iter();
                let good = found.items.iter().all(|item| rest.any(|given| given == item));
                assert!(good, "{damage:?}: records in order, and none that was not given");
                if matches!(damage, Damage::Flip(..)) {
                    let kept = found.items.len() + PAYLOADS as usize;
                    assert!(kept >= self.items.len() - from, "{damage:?}: a flip takes one record");
                }
                let told = found.recovered.next - found.recovered.number - found.recovered.lost;
                assert_eq!(told, found.items.len() as u64, "{damage:?}: what is lost is counted");
                Outcome::Read
            }
            Ok(found) => {
                let found = found.items;
                assert!(self.items[from..].starts_with(&found), "{damage:?}: another content");
                let missing = proven.saturating_sub(from + found.len());
                assert!(missing == 0, "{damage:?}: {missing} of {proven} that were durable are missing");
                if from + found.len() == self.items.len() { Outcome::Same } else { Outcome::Cut }
            }
            Err(error) => {
                assert!(!accept, "{damage:?}: {error}");
                assert!(matches!(error, JournalError::Damaged { .. } | JournalError::Newer { .. }), "{error}");
                let told = error.to_string();
                assert!(self.files.iter().any(|path| told.contains(&format!("`{}`", path.display()))), "{told}");
                Outcome::Told
            }
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Told,
    Same,
    Cut,
    Read,
}

/// The marks of a segment, found by their kind and length: where they are, and up to where they speak.
fn marks(bytes: &[u8]) -> Vec<Mark> {
    let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    let mut marks = Vec::new();
    let mut at = 40;
    while at + 8 <= bytes.len() {
        let len = u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
        if len == 0 {
            break;
        }
        if bytes[at + 24] == 6 {
            assert_eq!(8 + len, MARK);
            marks.push((at, Position { segment: word(at + 32), offset: word(at + 40) }));
        }
        at += 8 + len;
    }
    marks
}

#[test]
fn damage_is_told_and_never_read() {
    let whole = Arc::new(Whole::new());
    let threads = (0..THREADS).map(|thread| {
        let whole = whole.clone();
        thread::spawn(move || {
            let mut outcomes = Vec::new();
            for seed in (thread..DAMAGES).step_by(THREADS as usize) {
                let checked = catch_unwind(AssertUnwindSafe(|| whole.check(seed)));
                outcomes.push(checked.unwrap_or_else(|_| panic!("damage {seed}")));
            }
            outcomes
        })
    });
    let threads: Vec<_> = threads.collect();
    let outcomes: Vec<Outcome> = threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
    let count = |outcome| outcomes.iter().filter(|other| **other == outcome).count() as u64;
    let [told, same, cut, read] = [Outcome::Told, Outcome::Same, Outcome::Cut, Outcome::Read].map(count);
    println!("{told} were told, {same} changed nothing, {cut} cut the end off, {read} were accepted");
    assert_eq!(told + same + cut + read, DAMAGES);
    assert!(told > DAMAGES / 4 && same > DAMAGES / 50 && read > DAMAGES / 6, "all of them happen");
}

/// A place of garbage is searched for the next good record once, whatever it looks like.
#[test]
fn a_garbled_segment_is_gone_through_in_time() {
    let memory = MemoryDisk::new();
    let disk: SharedDisk = Arc::new(memory);
    make_folder(&disk);
    let settings = JournalSettings { segment: Some(4 << 20), ..settings() };
    let recovered = recover(&*disk, &settings, None, false).unwrap();
    let given = vec![payload(1, 100, 1)];
    keep(&disk, &settings, &recovered, std::slice::from_ref(&given), BATCH);
    // Each eighth byte looks like the beginning of a record that fills the segment, with a number that may follow.
    let file = disk.open("journal/000000000001.journal".as_ref()).unwrap();
    let pattern: Vec<u8> = [200_000_u32.to_le_bytes(), [0; 4]].concat().repeat((4 << 20) / 8 - 4096);
    file.write_at(&pattern, 16_384).unwrap();
    let found = reopen(&disk, &settings, None, false, BATCH).unwrap();
    assert_eq!(found.items, given);
}
