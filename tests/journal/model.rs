//! Random runs with random ends, against a list of what was given.

use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;
use streamgauge::disk::SharedDisk;
use streamgauge::disk::memory::MemoryDisk;
use streamgauge::flow::time::Timestamp;
use streamgauge::ingest::journal::{JournalSettings, Position, recover};

use crate::support::journal::{
    Found, Item, Kept, assert_kept, keep_beside, make_folder, monotone, payload, reopen, settings,
};

#[derive(Clone, Debug)]
enum Op {
    Payload(usize),
    Tick(bool),
    Heard,
    Barrier,
}

/// How a run ends.
#[derive(Clone, Copy, Debug)]
enum Over {
    Kill,
    Hard,
    Crash(u64),
    /// It was told to stop; then the process ends.
    Stop,
}

#[derive(Clone, Debug)]
struct Run {
    groups: Vec<Vec<Op>>,
    tail_bytes: usize,
    batch: usize,
    over: Over,
    /// Begin from one of the places that the run before came by, rather than from the oldest that is needed.
    from: Option<prop::sample::Index>,
    /// Give up what is before that, but for so many bytes.
    release: Option<u64>,
}

fn run() -> impl Strategy<Value = Run> {
    let len = prop_oneof![6 => 0..600_usize, 1 => 600..3000_usize, 1 => 4000..9000_usize];
    let op = prop_oneof![
        12 => len.prop_map(Op::Payload),
        3 => any::<bool>().prop_map(Op::Tick),
        1 => Just(Op::Heard),
        2 => Just(Op::Barrier)
    ];
    let groups = prop::collection::vec(prop::collection::vec(op, 1..14), 0..9);
    let over = prop_oneof![
        2 => Just(Over::Kill),
        2 => Just(Over::Hard),
        4 => any::<u64>().prop_map(Over::Crash),
        2 => Just(Over::Stop)
    ];
    let tail = prop_oneof![Just(0), 0..3000_usize, Just(1 << 20)];
    let from = prop::option::of(any::<prop::sample::Index>());
    let release = prop::option::of(prop_oneof![Just(0), 0..20_000_u64]);
    (groups, tail, 1..9_usize, over, from, release).prop_map(|(groups, tail_bytes, batch, over, from, release)| Run {
        groups,
        tail_bytes,
        batch,
        over,
        from,
        release,
    })
}

/// What a test knows of a journal.
struct Model {
    memory: MemoryDisk,
    /// What is there from `base` on.
    items: Vec<Item>,
    base: Option<(Position, u64)>,
    /// Places in it, with how many items come before.
    places: Vec<(usize, (Position, u64))>,
    /// Payloads and times made so far.
    made: u16,
}

impl Model {
    fn groups(&mut self, ops: &[Vec<Op>], mut epoch: u64, stop: bool) -> Vec<Vec<Item>> {
        let mut groups: Vec<Vec<Item>> = Vec::new();
        for group in ops {
            let mut items = Vec::new();
            for op in group {
                self.made += 1;
                // The host's clock goes back now and then.
                let at = i64::from(self.made) * 10 - if self.made.is_multiple_of(9) { 45 } else { 0 };
                items.push(match op {
                    Op::Payload(len) => payload(self.made, *len, at),
                    Op::Tick(listening) => Item::Tick { now: at, listening: *listening },
                    Op::Heard => Item::Heard(at),
                    Op::Barrier => {
                        epoch += 1;
                        Item::Barrier(epoch - 1)
                    }
                });
            }
            groups.push(items);
        }
        if stop {
            groups.push(vec![Item::Stop(epoch)]);
        }
        groups
    }

    fn run(&mut self, run: &Run) {
        let disk: SharedDisk = Arc::new(self.memory.clone());
        let settings = JournalSettings { tail_bytes: run.tail_bytes, ..settings() };
        let place =
            run.from.filter(|_| !self.places.is_empty()).map(|index| self.places[index.index(self.places.len())]);
        let (skipped, from) = place.map_or((0, self.base), |(count, place)| (count, Some(place)));
        let recovered = recover(&*disk, &settings, from, false).unwrap();
        let old = self.items[skipped..].to_vec();
        assert_eq!(recovered.next - recovered.number, old.len() as u64);
        let last = self.items.last();
        assert_eq!(recovered.stopped.is_some(), matches!(last, Some(Item::Stop(_))) && !old.is_empty());
        let payloads = old.iter().filter(|item| matches!(item, Item::Payload(_))).count() as u64;
        assert_eq!(recovered.payloads.0, payloads);

        let epoch = recovered.epoch.map_or(0, |epoch| epoch.0 + 1);
        let groups = self.groups(&run.groups, epoch, matches!(run.over, Over::Stop));
        let since = if recovered.arrival == Timestamp::START { i64::MIN } else { recovered.arrival.micros() };
        let given = [old, monotone(&groups.concat(), since)].concat();
        let release = |handle: &streamgauge::ingest::journal::Handle| {
            if let (Some(keep), Some((needed, _))) = (run.release, from) {
                handle.release(needed, keep).unwrap();
            }
        };
        let kept = keep_beside(&disk, &settings, &recovered, &groups, (run.batch, 1 << 20), release);
        self.check_read(&kept, &given);
        if let (Some((count, place)), Some(_)) = (place, run.release) {
            self.items.drain(..count);
            self.base = Some(place);
        }
        self.end(run, &settings, &given[given.len() - groups.concat().len()..], kept.safe);
    }

    /// The stages have seen everything, in order, once, from wherever it came.
    fn check_read(&self, kept: &Kept, given: &[Item]) {
        assert_eq!(kept.error, None);
        let mut read = Vec::new();
        for (items, _) in &kept.read {
            read.extend(items.iter().cloned());
        }
        assert_kept(&read, given, given.len());
    }

    /// The end of the process, and what the next one finds.
    fn end(&mut self, run: &Run, settings: &JournalSettings, given: &[Item], safe: usize) {
        self.memory = match run.over {
            Over::Kill | Over::Stop => self.memory.kill(),
            Over::Hard => self.memory.crash_hard(),
            Over::Crash(seed) => self.memory.crash(seed),
        };
        let disk: SharedDisk = Arc::new(self.memory.clone());
        let found = reopen(&disk, settings, self.base, false, (run.batch, 1 << 20)).unwrap();
        let given = [&self.items[..], given].concat();
        assert_kept(&found.items, &given, self.items.len() + safe);
        if matches!(run.over, Over::Kill | Over::Stop) {
            assert_eq!(found.items.len(), given.len(), "a kill loses nothing");
        }
        self.check_places(&disk, settings, &found);
        let files = disk.list(Path::new("journal")).unwrap();
        let bytes: u64 = files.iter().map(|name| disk.file_len(&Path::new("journal").join(name)).unwrap()).sum();
        assert_eq!(found.recovered.used, bytes);
        (self.items, self.places) = (found.items, found.places);
    }

    /// From every place the rest is the same.
    fn check_places(&self, disk: &SharedDisk, settings: &JournalSettings, found: &Found) {
        let step = found.places.len() / 4 + 1;
        for (count, place) in found.places.iter().rev().step_by(step) {
            for batch in [1, 1000] {
                let rest = reopen(disk, settings, Some(*place), false, (batch, 1 << 20)).unwrap();
                assert!(rest.items == found.items[*count..], "from item {count} at {place:?}");
                assert_eq!(rest.recovered.next, found.recovered.next);
                assert_eq!(rest.recovered.end, found.recovered.end);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 120, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_journal_has_what_it_was_given(runs in prop::collection::vec(run(), 1..5)) {
        let memory = MemoryDisk::new();
        make_folder(&(Arc::new(memory.clone()) as SharedDisk));
        let mut model = Model { memory, items: Vec::new(), base: None, places: Vec::new(), made: 0 };
        for run in &runs {
            model.run(run);
        }
    }
}
