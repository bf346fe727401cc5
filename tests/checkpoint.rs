//! Checkpoints against a list: after any crash the newest is the last that was committed, or the one that was being
//! committed, with every part as it was written.
#![allow(missing_docs)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use proptest::prelude::*;
use streamgauge::disk::faulty::Effect;
use streamgauge::disk::memory::MemoryDisk;
use streamgauge::disk::{self, SharedDisk};
use streamgauge::engine::checkpoint::manifest::{Manifest, PartFile, StageState};
use streamgauge::engine::checkpoint::store::{KEPT, Store, StoreError};
use support::chance::{Chance, Damage};
use support::crash::{Crashes, Left};

const FOLDER: &str = "state/checkpoints";

/// The state of all stages at the end of an epoch: by stage and part, a number that stands for its rows.
type State = BTreeMap<(String, String), u64>;

fn rows(content: u64) -> RecordBatch {
    let count = (content % 40) as i64;
    let numbers = Int64Array::from_iter_values((0..count).map(|row| row * 7 + content as i64));
    let names = StringArray::from_iter_values((0..count).map(|row| format!("{content}-{row}")));
    RecordBatch::try_from_iter([("n", Arc::new(numbers) as ArrayRef), ("t", Arc::new(names))]).unwrap()
}

/// A state whose parts change at different epochs: some every time, some never, some come and go.
fn state(epoch: u64) -> State {
    let mut state = State::new();
    for (stage, part, every) in [("w", "all", 1), ("w", "pane-0", 1001), ("w", "pane-1", 3), ("sink", "rows", 2)] {
        state.insert((stage.to_owned(), part.to_owned()), epoch / every * 100 + every);
    }
    state.insert(("w".to_owned(), format!("pane-{}", 10 + epoch / 2)), epoch / 2 * 100 + 17);
    state
}

/// Writes the parts that have changed, and commits.
fn commit(store: &Store, epoch: u64, before: &Manifest, was: &State, state: &State) -> Result<Manifest, StoreError> {
    let mut stages: BTreeMap<String, StageState> = BTreeMap::new();
    for ((stage, part), content) in state {
        let known = before.stages.get(stage).and_then(|known| known.parts.iter().find(|file| file.name == *part));
        let same = was.get(&(stage.clone(), part.clone())) == Some(content);
        let file = match known.filter(|_| same) {
            Some(file) => file.clone(),
            None => store.write_part(epoch, stage, part, &rows(*content))?,
        };
        stages.entry(stage.clone()).or_default().parts.push(file);
    }
    let manifest = Manifest { epoch, stages, ..empty() };
    store.commit(&manifest)?;
    Ok(manifest)
}

fn empty() -> Manifest {
    Manifest { pipeline: "p".into(), run: "r".into(), file: "f".into(), epoch: 0, stages: BTreeMap::new() }
}

fn open(disk: &SharedDisk) -> Result<Store, StoreError> {
    Store::open(disk.clone(), FOLDER.into())
}

/// The newest checkpoint, with its parts as they are read.
fn newest(disk: &SharedDisk) -> Result<Option<(Manifest, State)>, StoreError> {
    let store = open(disk)?;
    let Some(manifest) = store.newest()? else { return Ok(None) };
    let state = read(&store, &manifest)?;
    Ok(Some((manifest, state)))
}

/// Reads all parts of a checkpoint; each must be exactly as it was written.
fn read(store: &Store, manifest: &Manifest) -> Result<State, StoreError> {
    let mut state = State::new();
    for (name, stage) in &manifest.stages {
        for (part, got) in store.read_parts(&stage.parts)? {
            let content = match got.num_rows() {
                0 => 0,
                _ => got.column_by_name("n").unwrap().as_any().downcast_ref::<Int64Array>().unwrap().value(0) as u64,
            };
            assert_eq!(got, rows(content), "{name} {part}");
            state.insert((name.clone(), part), content);
        }
    }
    Ok(state)
}

/// Epochs after the newest that is there, each pruned; how many were committed for sure, and whether it came to its end.
fn epochs(disk: &SharedDisk, count: u64) -> (u64, Result<(), StoreError>) {
    let mut committed = 0;
    let result = go_on(disk, count, &mut committed);
    (committed, result)
}

fn go_on(disk: &SharedDisk, until: u64, committed: &mut u64) -> Result<(), StoreError> {
    let store = open(disk)?;
    let (mut manifest, mut was) = newest(disk)?.unwrap_or_else(|| (empty(), State::new()));
    *committed = manifest.epoch;
    for epoch in manifest.epoch + 1..=until {
        let now = state(epoch);
        manifest = commit(&store, epoch, &manifest, &was, &now)?;
        was = now;
        *committed = epoch;
        store.prune(KEPT)?;
    }
    Ok(())
}

fn setup(disk: &SharedDisk) {
    disk.create_folder(Path::new("state")).unwrap();
}

fn check(left: &Left, (committed, _): &(u64, Result<(), StoreError>)) {
    let found = newest(&left.disk).unwrap();
    let epoch = found.as_ref().map_or(0, |(manifest, _)| manifest.epoch);
    assert!(epoch == *committed || epoch == committed + 1, "epoch {epoch}, and {committed} was committed");
    if let Some((_, found)) = found {
        assert_eq!(found, state(epoch));
    }
    // What a run has begun with is durable.
    let again: SharedDisk = Arc::new(left.memory.crash_hard());
    let twice = newest(&again).unwrap().map_or(0, |(manifest, _)| manifest.epoch);
    assert_eq!(twice, epoch, "what was found once is durable");
    // Older ones are whole, too, as many as are kept: the newest may be damaged.
    let store = open(&again).unwrap();
    let names = again.list(Path::new(FOLDER)).unwrap();
    let manifests = names.iter().filter(|name| name.ends_with(".checkpoint")).count() as u64;
    assert!(manifests >= epoch.min(KEPT as u64), "{names:?}");
    for epoch in (epoch.saturating_sub(KEPT as u64) + 1..=epoch).filter(|epoch| *epoch > 0) {
        let path = Path::new(FOLDER).join(format!("{epoch:08}.checkpoint"));
        let manifest = Manifest::decode(&disk::read(&*again, &path).unwrap()).unwrap();
        assert_eq!(read(&store, &manifest).unwrap(), state(epoch));
    }
    // And it goes on.
    let (committed, result) = epochs(&again, epoch + 3);
    result.unwrap();
    assert_eq!(committed, epoch + 3);
    let kept = store.prune(KEPT).unwrap();
    assert_eq!(kept.iter().map(|kept| kept.epoch).collect::<Vec<_>>(), [epoch + 1, epoch + 2, epoch + 3]);
    let needed: Vec<&PartFile> =
        kept.iter().flat_map(|kept| kept.stages.values()).flat_map(|stage| &stage.parts).collect();
    for name in again.list(Path::new(FOLDER)).unwrap() {
        assert!(
            name.ends_with(".checkpoint") || needed.iter().any(|part| part.file == name),
            "{name} is needed by none"
        );
    }
}

fn crashes(seeds: u64) -> Crashes {
    Crashes { seeds, ..Crashes::default() }
}

#[test]
fn the_newest_is_the_last_that_was_committed_at_every_crash_point() {
    crashes(5).check(setup, |disk| epochs(disk, 7), check);
}

#[test]
fn a_fault_takes_no_checkpoint() {
    for fault in [Effect::Eio, Effect::Enospc, Effect::Torn] {
        let crashes = Crashes { fault, forever: false, ..crashes(2) };
        crashes.check(setup, |disk| epochs(disk, 5), check);
    }
}

#[test]
fn parts_that_were_not_synced_are_noticed() {
    let crashes = Crashes { planted: "nosync", ..crashes(2) };
    assert!(catch_unwind(|| crashes.check(setup, |disk| epochs(disk, 5), check)).is_err());
}

#[test]
fn names_that_were_not_made_durable_are_noticed() {
    let crashes = Crashes { planted: "nosync-folder", ..crashes(2) };
    assert!(catch_unwind(|| crashes.check(setup, |disk| epochs(disk, 5), check)).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    /// Any parts, some of them the same as before, with restarts after kills and power cuts.
    #[test]
    fn any_state_comes_back(
        runs in prop::collection::vec(
            (prop::collection::vec((prop::collection::btree_map(0_u8..6, 0_u64..500, 0..6), 1_usize..4), 1..5), 0_u64..9),
            1..5,
        ),
    ) {
        let mut memory = MemoryDisk::new();
        let mut last: (u64, State) = (0, State::new());
        for (epochs, end) in runs {
            let disk: SharedDisk = Arc::new(memory.clone());
            let store = open(&disk).unwrap();
            let (mut manifest, was) = newest(&disk).unwrap().unwrap_or_else(|| (empty(), State::new()));
            prop_assert_eq!((manifest.epoch, &was), (last.0, &last.1));
            for (parts, kept) in epochs {
                // A content without rows would be told from none by nothing.
                let parts = parts.into_iter().map(|(part, content)| (part, content / 40 * 40 + 1 + content % 39));
                let now: State = parts.map(|(part, content)| ((format!("s{}", part % 2), format!("p{part}")), content)).collect();
                manifest = commit(&store, last.0 + 1, &manifest, &last.1, &now).unwrap();
                last = (last.0 + 1, now);
                let manifests = store.prune(kept).unwrap();
                prop_assert!(manifests.len() <= kept && manifests.last() == Some(&manifest));
            }
            memory = match end {
                0 => memory.kill(),
                1 => memory.crash_hard(),
                seed => memory.crash(seed),
            };
        }
        prop_assert_eq!(newest(&(Arc::new(memory) as SharedDisk)).unwrap().map(|(_, state)| state), Some(last.1));
    }
}

fn rewrite(disk: &SharedDisk, name: &str, change: impl Fn(&mut Vec<u8>)) {
    let path = Path::new(FOLDER).join(name);
    let mut bytes = disk::read(&**disk, &path).unwrap();
    change(&mut bytes);
    disk.create(&path).unwrap().write_at(&bytes, 0).unwrap();
}

fn with_epochs(count: u64) -> (MemoryDisk, SharedDisk) {
    let memory = MemoryDisk::new();
    let disk: SharedDisk = Arc::new(memory.clone());
    setup(&disk);
    epochs(&disk, count).1.unwrap();
    (memory, disk)
}

#[test]
fn one_that_is_damaged_gives_way_to_those_that_follow_its_predecessors() {
    let (_, disk) = with_epochs(5);
    for epoch in [4, 5] {
        rewrite(&disk, &format!("{epoch:08}.checkpoint"), |bytes| bytes[200] ^= 1);
    }
    assert_eq!(newest(&disk).unwrap().unwrap().0.epoch, 3);
    // Epoch 4 comes again; little room is left, so only the newest is kept.
    let store = open(&disk).unwrap();
    let (before, was) = newest(&disk).unwrap().unwrap();
    let again = commit(&store, 4, &before, &was, &state(4)).unwrap();
    assert_eq!(store.prune(1).unwrap(), [again]);
    let (manifest, found) = newest(&disk).unwrap().unwrap();
    assert_eq!((manifest.epoch, found), (4, state(4)));
}

#[test]
fn one_under_the_name_of_another_is_none() {
    let (_, disk) = with_epochs(5);
    let [four, five] = [4, 5].map(|epoch| Path::new(FOLDER).join(format!("{epoch:08}.checkpoint")));
    let [was_four, was_five] = [&four, &five].map(|path| disk::read(&*disk, path).unwrap());
    disk.create(&four).unwrap().write_at(&was_five, 0).unwrap();
    disk.create(&five).unwrap().write_at(&was_four, 0).unwrap();
    let (manifest, found) = newest(&disk).unwrap().unwrap();
    assert_eq!((manifest.epoch, found), (3, state(3)));
}

/// Damages in all, over as many threads.
const DAMAGES: u64 = 50_000;
const THREADS: u64 = 4;

/// Three checkpoints, and which files each needs.
struct Whole {
    memory: MemoryDisk,
    files: Vec<PathBuf>,
    /// The bytes of each.
    bytes: Vec<Vec<u8>>,
    needs: BTreeMap<u64, BTreeSet<PathBuf>>,
    manifests: BTreeMap<u64, Manifest>,
}

impl Whole {
    fn new() -> Self {
        let (memory, disk) = with_epochs(6);
        let files: Vec<PathBuf> =
            disk.list(Path::new(FOLDER)).unwrap().iter().map(|name| Path::new(FOLDER).join(name)).collect();
        let (mut needs, mut manifests) = (BTreeMap::new(), BTreeMap::new());
        for epoch in 4..=6 {
            let path = Path::new(FOLDER).join(format!("{epoch:08}.checkpoint"));
            let manifest = Manifest::decode(&disk::read(&*disk, &path).unwrap()).unwrap();
            let parts = manifest.stages.values().flat_map(|stage| &stage.parts);
            needs.insert(epoch, parts.map(|part| Path::new(FOLDER).join(&part.file)).chain([path]).collect());
            manifests.insert(epoch, manifest);
        }
        assert_eq!(files.iter().collect::<BTreeSet<_>>(), needs.values().flatten().collect());
        let bytes = files.iter().map(|path| disk::read(&*disk, path).unwrap()).collect();
        Self { memory, files, bytes, needs, manifests }
    }

    /// One damage, or two: the newest checkpoint of which nothing was touched is found, as it was written. Whether it was
    /// told rather than found, and whether the newest of all was found.
    fn check(&self, seed: u64) -> (bool, bool) {
        let mut chance = Chance::new(seed);
        let disk = self.memory.kill();
        let damages: Vec<Damage> =
            (0..1 + chance.of(3)).map(|_| Damage::new(&mut chance, &disk, &self.files)).collect();
        damages.iter().for_each(|damage| damage.apply(&disk));
        let files = self.files.iter().zip(&self.bytes);
        let touched = files.filter(|(path, bytes)| disk::read(&disk, path).unwrap() != **bytes);
        let touched: Vec<&PathBuf> = touched.map(|(path, _)| path).collect();
        let whole = self.needs.iter().filter(|(_, needs)| touched.iter().all(|path| !needs.contains(*path)));
        let expected = whole.map(|(epoch, _)| *epoch).max();
        let disk: SharedDisk = Arc::new(disk);
        let store = open(&disk).unwrap();
        match store.newest() {
            Ok(found) => {
                let manifest = found.expect("there is one");
                assert_eq!(Some(&manifest), self.manifests.get(&manifest.epoch), "{damages:?}");
                // Some damage of the first line changes nothing that it says.
                assert!(Some(manifest.epoch) >= expected, "{damages:?}: {} rather than {expected:?}", manifest.epoch);
                let parts = manifest.stages.values().flat_map(|stage| &stage.parts);
                let parts: Vec<PathBuf> = parts.map(|part| Path::new(FOLDER).join(&part.file)).collect();
                assert!(parts.iter().all(|path| !touched.contains(&path)), "{damages:?}: a part that was touched");
                if seed.is_multiple_of(16) {
                    assert_eq!(read(&store, &manifest).unwrap(), state(manifest.epoch));
                }
                (false, manifest.epoch == 6)
            }
            Err(error) => {
                let newer = matches!(error, StoreError::Newer { .. });
                assert!(
                    newer || (expected.is_none() && matches!(error, StoreError::None { .. })),
                    "{damages:?}: {error}"
                );
                let told = error.to_string();
                assert!(self.files.iter().any(|path| told.contains(&format!("`{}`", path.display()))), "{told}");
                (true, false)
            }
        }
    }
}

#[test]
fn damage_is_told_and_never_read() {
    let whole = Arc::new(Whole::new());
    let threads = (0..THREADS).map(|thread| {
        let whole = whole.clone();
        thread::spawn(move || {
            let check = |seed| {
                let checked = catch_unwind(AssertUnwindSafe(|| whole.check(seed)));
                checked.unwrap_or_else(|_| panic!("damage {seed}"))
            };
            (thread..DAMAGES).step_by(THREADS as usize).map(check).collect::<Vec<_>>()
        })
    });
    let threads: Vec<_> = threads.collect();
    let outcomes: Vec<_> = threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
    let told = outcomes.iter().filter(|(told, _)| *told).count() as u64;
    let newest = outcomes.iter().filter(|(_, newest)| *newest).count() as u64;
    println!("of {} damages {told} were told, {newest} left the newest, the others an older one", outcomes.len());
    assert!(outcomes.len() as u64 == DAMAGES && told > DAMAGES / 50 && newest > DAMAGES / 20);
}
