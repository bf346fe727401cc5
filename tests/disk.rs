//! The disk that tests crash: that it is like a real one while it lives, that what is left of it after a crash is what
//! may be left, and that what writes to it leaves nothing half done.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind};
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use proptest::prelude::*;
use streamgauge::disk::faulty::{Effect, Fault, FaultyDisk, Kind};
use streamgauge::disk::memory::MemoryDisk;
use streamgauge::disk::{self, Disk, Folders, RealDisk, SharedDisk};
use streamgauge::sink::{PreparedFile, publish};
use support::crash::{Crashes, Left, every_crash_point, every_fault};
use support::planted::is_caught;
use support::streamgauge;

const SECTOR: usize = 512;
const PATHS: [&str; 8] = ["a", "b", "d", "e", "d/a", "d/b", "e/a", "d/e"];

#[derive(Clone, Debug)]
enum Op {
    CreateFolder(&'static str),
    Create(&'static str),
    Write {
        path: &'static str,
        offset: usize,
        bytes: Vec<u8>,
    },
    SetLen(&'static str, usize),
    Sync(&'static str),
    Rename(&'static str, &'static str),
    Remove(&'static str),
    RemoveFolder(&'static str),
    /// The empty path is the folder that all is in.
    SyncFolder(&'static str),
}

fn op() -> impl Strategy<Value = Op> {
    let path = || prop::sample::select(&PATHS[..]);
    let write = (path(), 0..1500_usize, 1..2000_usize, 1..=u8::MAX);
    prop_oneof![
        3 => path().prop_map(Op::CreateFolder),
        5 => path().prop_map(Op::Create),
        8 => write.prop_map(|(path, offset, len, byte)| Op::Write { path, offset, bytes: vec![byte; len] }),
        3 => (path(), 0..2500_usize).prop_map(|(path, len)| Op::SetLen(path, len)),
        4 => path().prop_map(Op::Sync),
        4 => (path(), path()).prop_map(|(from, to)| Op::Rename(from, to)),
        2 => path().prop_map(Op::Remove),
        1 => path().prop_map(Op::RemoveFolder),
        4 => prop::sample::select(vec!["", "d", "e", "d/e"]).prop_map(Op::SyncFolder),
    ]
}

impl Op {
    fn apply(&self, disk: &dyn Disk, root: &Path) -> io::Result<()> {
        let at = |path: &str| if path.is_empty() { root.to_owned() } else { root.join(path) };
        match self {
            Self::CreateFolder(path) => disk.create_folder(&at(path)),
            Self::Create(path) => disk.create(&at(path)).map(drop),
            Self::Write { path, offset, bytes } => disk.open(&at(path))?.write_at(bytes, *offset as u64),
            Self::SetLen(path, len) => disk.open(&at(path))?.set_len(*len as u64),
            Self::Sync(path) => disk.open(&at(path))?.sync(),
            Self::Rename(from, to) => disk.rename(&at(from), &at(to)),
            Self::Remove(path) => disk.remove(&at(path)),
            Self::RemoveFolder(path) => disk.remove_folder(&at(path)),
            // Linux syncs a file then.
            Self::SyncFolder(path) if !disk.is_folder(&at(path)) => Err(ErrorKind::NotADirectory.into()),
            Self::SyncFolder(path) => disk.sync_folder(&at(path)),
        }
    }
}

/// Everything on a disk: files with their bytes, folders without.
fn tree(disk: &dyn Disk, folder: &Path) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
    let mut found = BTreeMap::new();
    for name in disk.list(folder).unwrap() {
        let path = folder.join(name);
        if disk.is_folder(&path) {
            found.extend(tree(disk, &path));
            found.insert(path, None);
        } else {
            let bytes = disk::read(disk, &path).unwrap();
            assert_eq!(disk.file_len(&path).unwrap(), bytes.len() as u64);
            found.insert(path, Some(bytes));
        }
    }
    found
}

/// What a name leads to: places in [`Oracle`].
#[derive(Clone, Copy, Debug, PartialEq)]
enum Node {
    File(usize),
    Folder(usize),
}

type Entries = BTreeMap<String, Node>;

/// Snapshots of every file and folder after each operation since it was last made durable, the durable one first. Knows
/// nothing of sectors, nor of what an operation changes: only how things were.
struct Oracle {
    files: Vec<Vec<Vec<u8>>>,
    folders: Vec<Vec<Entries>>,
}

impl Oracle {
    fn new() -> Self {
        Self { files: Vec::new(), folders: vec![vec![Entries::new()]] }
    }

    fn find(&self, path: &str) -> Option<Node> {
        path.split('/').filter(|name| !name.is_empty()).try_fold(Node::Folder(0), |node, name| match node {
            Node::Folder(folder) => self.folders[folder].last().unwrap().get(name).copied(),
            Node::File(_) => None,
        })
    }

    fn file(&mut self, path: &str) -> &mut Vec<Vec<u8>> {
        let Some(Node::File(file)) = self.find(path) else { panic!("{path} is a file") };
        &mut self.files[file]
    }

    fn edit_file(&mut self, path: &str, edit: impl FnOnce(&mut Vec<u8>)) {
        let snapshots = self.file(path);
        let mut bytes = snapshots.last().unwrap().clone();
        edit(&mut bytes);
        snapshots.push(bytes);
    }

    /// All edits are of one folder, and one step.
    fn edit_folder(&mut self, edits: &[(&str, Option<Node>)]) {
        let folder = edits[0].0.rsplit_once('/').map_or("", |(folder, _)| folder);
        let Some(Node::Folder(folder)) = self.find(folder) else { panic!("{folder} is a folder") };
        let mut entries = self.folders[folder].last().unwrap().clone();
        for (path, node) in edits {
            let name = path.rsplit('/').next().unwrap().to_owned();
            match node {
                Some(node) => entries.insert(name, *node),
                None => entries.remove(&name),
            };
        }
        self.folders[folder].push(entries);
    }

    /// What an operation that went well has done.
    fn apply(&mut self, op: &Op) {
        match op {
            Op::CreateFolder(path) => {
                self.folders.push(vec![Entries::new()]);
                self.edit_folder(&[(path, Some(Node::Folder(self.folders.len() - 1)))]);
            }
            Op::Create(path) if self.find(path).is_some() => self.edit_file(path, Vec::clear),
            Op::Create(path) => {
                self.files.push(vec![Vec::new()]);
                self.edit_folder(&[(path, Some(Node::File(self.files.len() - 1)))]);
            }
            Op::Write { path, offset, bytes } => self.edit_file(path, |now| {
                now.resize(now.len().max(offset + bytes.len()), 0);
                now[*offset..offset + bytes.len()].copy_from_slice(bytes);
            }),
            Op::SetLen(path, len) => self.edit_file(path, |now| now.resize(*len, 0)),
            Op::Sync(path) => {
                let snapshots = self.file(path);
                snapshots.drain(..snapshots.len() - 1);
            }
            Op::Rename(from, to) if from == to => {}
            Op::Rename(from, to) => self.edit_folder(&[(from, None), (to, self.find(from))]),
            Op::Remove(path) | Op::RemoveFolder(path) => self.edit_folder(&[(path, None)]),
            Op::SyncFolder(path) => {
                let Some(Node::Folder(folder)) = self.find(path) else { panic!("{path} is a folder") };
                let snapshots = &mut self.folders[folder];
                snapshots.drain(..snapshots.len() - 1);
            }
        }
    }

    /// Whether a folder is as one of the snapshots that are picked, and all below it.
    fn explains(&self, disk: &dyn Disk, path: &Path, folder: usize, pick: Pick) -> bool {
        let names = disk.list(path).unwrap();
        pick.of(&self.folders[folder]).iter().any(|entries| {
            entries.keys().eq(&names)
                && entries.iter().all(|(name, node)| match node {
                    Node::Folder(below) => {
                        disk.is_folder(&path.join(name)) && self.explains(disk, &path.join(name), *below, pick)
                    }
                    Node::File(file) => disk::read(disk, &path.join(name))
                        .is_ok_and(|bytes| explained(&bytes, pick.of(&self.files[*file]))),
                })
        })
    }
}

/// Which snapshots may be what is left.
#[derive(Clone, Copy)]
enum Pick {
    Durable,
    Any,
    Last,
}

impl Pick {
    fn of<T>(self, snapshots: &[T]) -> &[T] {
        match self {
            Self::Durable => &snapshots[..1],
            Self::Any => snapshots,
            Self::Last => &snapshots[snapshots.len() - 1..],
        }
    }
}

/// Whether the length is that of a snapshot, and every sector is as in one, with zeros behind its end.
fn explained(bytes: &[u8], snapshots: &[Vec<u8>]) -> bool {
    let sector_of = |snapshot: &[u8], at: usize, byte: usize| *snapshot.get(at * SECTOR + byte).unwrap_or(&0);
    snapshots.iter().any(|snapshot| snapshot.len() == bytes.len())
        && bytes.chunks(SECTOR).enumerate().all(|(at, sector)| {
            snapshots.iter().any(|snapshot| (0..).zip(sector).all(|(i, byte)| sector_of(snapshot, at, i) == *byte))
        })
}

proptest! {
    #[test]
    fn memory_is_like_a_real_disk(ops in prop::collection::vec(op(), 1..60)) {
        let real = tempfile::tempdir().unwrap();
        let memory = MemoryDisk::new();
        for op in &ops {
            let (here, there) = (op.apply(&memory, Path::new("")), op.apply(&RealDisk, real.path()));
            let kinds = (here.map_err(|error| error.kind()), there.map_err(|error| error.kind()));
            prop_assert_eq!(&kinds.0, &kinds.1, "{:?}", op);
        }
        let below = |(path, bytes): (PathBuf, _)| (path.strip_prefix(real.path()).unwrap().to_owned(), bytes);
        let there: BTreeMap<_, _> = tree(&RealDisk, real.path()).into_iter().map(below).collect();
        prop_assert_eq!(tree(&memory, Path::new("")), there);
    }

    #[test]
    fn what_a_crash_leaves_can_be_explained(ops in prop::collection::vec(op(), 1..60), seed: u32) {
        let memory = MemoryDisk::new();
        let mut oracle = Oracle::new();
        for op in &ops {
            // Between two folders it is one step of both, which snapshots of each cannot tell; see the test below.
            let parent = |path: &str| path.rsplit_once('/').map(|(folder, _)| folder.to_owned());
            if matches!(op, Op::Rename(from, to) if parent(from) != parent(to)) {
                continue;
            }
            if op.apply(&memory, Path::new("")).is_ok() {
                oracle.apply(op);
            }
        }
        let root = Path::new("");
        prop_assert!(oracle.explains(&memory.kill(), root, 0, Pick::Last), "kill: everything is there");
        prop_assert!(oracle.explains(&memory.crash_hard(), root, 0, Pick::Durable), "what was made durable, no more");
        for seed in 0..8 + u64::from(seed % 8) {
            let left = memory.crash(seed);
            prop_assert!(oracle.explains(&left, root, 0, Pick::Any), "crash({}): {:?}", seed, tree(&left, root));
            let there = tree(&left, root);
            prop_assert_eq!(&tree(&memory.crash(seed), root), &there, "the same seed, the same crash");
            prop_assert_eq!(&tree(&left.crash_hard(), root), &there, "what has survived is durable");
        }
        prop_assert!(oracle.explains(&memory.kill().kill(), root, 0, Pick::Last));
        prop_assert!(oracle.explains(&memory.kill().crash_hard(), root, 0, Pick::Durable), "a kill makes nothing durable");
    }
}

/// A file of durable zeros under a durable name.
fn durable_file(disk: &MemoryDisk, path: &str, len: usize) {
    disk.create(Path::new(path)).unwrap().write_at(&vec![0; len], 0).unwrap();
    disk.settle();
}

fn read(disk: &dyn Disk, path: &str) -> Vec<u8> {
    disk::read(disk, Path::new(path)).unwrap()
}

#[test]
fn writes_survive_in_any_order_and_torn() {
    let disk = MemoryDisk::new();
    durable_file(&disk, "f", 3 * SECTOR);
    let file = disk.open(Path::new("f")).unwrap();
    file.write_at(&[1; SECTOR], 0).unwrap();
    file.write_at(&[2; 2 * SECTOR], SECTOR as u64).unwrap();
    let seen: BTreeSet<_> =
        (0..500).map(|seed| read(&disk.crash(seed), "f").chunks(SECTOR).map(|s| s[0]).collect::<Vec<_>>()).collect();
    let all = [[0, 0, 0], [0, 0, 2], [0, 2, 0], [0, 2, 2], [1, 0, 0], [1, 0, 2], [1, 2, 0], [1, 2, 2]];
    assert_eq!(seen, all.map(Vec::from).into());
}

#[test]
fn a_length_survives_without_its_bytes_and_the_other_way() {
    let disk = MemoryDisk::new();
    durable_file(&disk, "f", 100);
    let file = disk.open(Path::new("f")).unwrap();
    file.write_at(&[1; 100], 50).unwrap();
    let seen: BTreeSet<_> = (0..200).map(|seed| read(&disk.crash(seed), "f")).collect();
    let file = |parts: &[(u8, usize)]| parts.iter().flat_map(|(byte, len)| vec![*byte; *len]).collect::<Vec<_>>();
    let all = [file(&[(0, 100)]), file(&[(0, 150)]), file(&[(0, 50), (1, 50)]), file(&[(0, 50), (1, 100)])];
    assert_eq!(seen, all.into());
}

#[test]
fn a_sector_carries_what_was_written_before() {
    let disk = MemoryDisk::new();
    durable_file(&disk, "f", SECTOR);
    let file = disk.open(Path::new("f")).unwrap();
    file.write_at(&[1; 4], 0).unwrap();
    file.write_at(&[2; 4], 4).unwrap();
    let seen: BTreeSet<_> = (0..200).map(|seed| read(&disk.crash(seed), "f")[..8].to_vec()).collect();
    let all = [[0, 0, 0, 0, 0, 0, 0, 0], [1, 1, 1, 1, 0, 0, 0, 0], [1, 1, 1, 1, 2, 2, 2, 2]];
    assert_eq!(seen, all.map(Vec::from).into());
}

#[test]
fn a_name_must_be_made_durable_too() {
    let disk = MemoryDisk::new();
    disk.create_folder(Path::new("d")).unwrap();
    let file = disk.create(Path::new("d/f")).unwrap();
    file.write_at(b"bytes", 0).unwrap();
    file.sync().unwrap();
    let there = |disk: &MemoryDisk| tree(&disk.crash_hard(), Path::new("")).into_keys().collect::<Vec<_>>();
    let next = disk.kill();
    next.sync_folder(Path::new("d")).unwrap();
    assert_eq!(there(&next), [""; 0].map(PathBuf::from), "nothing leads to the folder");
    let next = next.kill();
    next.sync_folder(Path::new("/")).unwrap();
    assert_eq!(there(&next), ["d", "d/f"].map(PathBuf::from));
    assert_eq!(read(&next.crash_hard(), "d/f"), b"bytes");
}

#[test]
fn a_rename_between_folders_is_one_step() {
    let disk = MemoryDisk::new();
    for folder in ["from", "to"] {
        disk.create_folder(Path::new(folder)).unwrap();
    }
    durable_file(&disk, "from/f", 10);
    disk.create(Path::new("from/before")).unwrap();
    disk.rename(Path::new("from/f"), Path::new("to/f")).unwrap();
    disk.create(Path::new("from/after")).unwrap();
    let names = |disk: &MemoryDisk| {
        let files: Vec<_> = tree(disk, Path::new("")).into_iter().filter(|(_, bytes)| bytes.is_some()).collect();
        files.into_iter().map(|(path, _)| path.to_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let seen: BTreeSet<_> = (0..300).map(|seed| names(&disk.crash(seed))).collect();
    let all: [&[&str]; 4] =
        [&["from/f"], &["from/before", "from/f"], &["from/before", "to/f"], &["from/after", "from/before", "to/f"]];
    assert_eq!(seen, all.iter().map(|names| names.iter().map(ToString::to_string).collect()).collect());
    let next = disk.kill();
    next.sync_folder(Path::new("to")).unwrap();
    assert_eq!(names(&next.crash_hard()), ["from/before", "to/f"], "durable in both, with what came before");
}

#[test]
fn who_writes_on_after_a_crash_changes_nothing() {
    let disk = MemoryDisk::new();
    durable_file(&disk, "f", 4);
    let zombie = disk.open(Path::new("f")).unwrap();
    let next = disk.kill();
    let errno = |result: io::Result<()>| result.unwrap_err().raw_os_error();
    assert_eq!(errno(zombie.write_at(b"late", 0)), Some(5));
    assert_eq!(errno(zombie.sync()), Some(5));
    assert_eq!(errno(zombie.set_len(0)), Some(5));
    assert_eq!(errno(zombie.read_at(&mut [0; 4], 0).map(drop)), Some(5));
    assert_eq!(errno(disk.create(Path::new("g")).map(drop)), Some(5));
    assert_eq!(errno(disk.remove(Path::new("f"))), Some(5));
    assert_eq!(read(&next, "f"), [0; 4]);
    assert_eq!(read(&disk.crash(1), "f"), [0; 4]);
}

#[test]
fn a_full_disk_takes_no_more() {
    let disk = MemoryDisk::with_capacity(1000);
    let file = disk.create(Path::new("f")).unwrap();
    file.write_at(&[1; 600], 0).unwrap();
    let full = file.write_at(&[2; 600], 600).unwrap_err();
    assert_eq!((full.raw_os_error(), full.kind()), (Some(28), ErrorKind::StorageFull));
    assert_eq!(disk.file_len(Path::new("f")).unwrap(), 1000, "what fits is written, as write(2) does");
    file.write_at(&[3; 1000], 0).unwrap();
    disk.create(Path::new("g")).unwrap().set_len(500).unwrap();
    let grown = disk.open(Path::new("g")).unwrap();
    assert_eq!(grown.write_at(&[4], 0).unwrap_err().kind(), ErrorKind::StorageFull, "a length is no place");
    file.set_len(900).unwrap();
    grown.write_at(&[4; 100], 200).unwrap();
    assert!(grown.write_at(&[4; 100], 201).is_err());
    disk.remove(Path::new("f")).unwrap();
    assert_eq!(disk.used(), 1000, "it is still open");
    drop(file);
    assert_eq!(disk.used(), 100);
    disk.set_capacity(Some(50));
    grown.write_at(&[5; 100], 200).unwrap();
    assert!(disk.create(Path::new("h")).unwrap().write_at(&[6], 0).is_err());
    disk.set_capacity(None);
    disk.open(Path::new("h")).unwrap().write_at(&[6; 5000], 0).unwrap();
}

/// Creates a file, writes to it, makes it durable, gives it another name, makes that durable: five operations.
fn five(disk: &dyn Disk) -> Vec<Result<(), Option<i32>>> {
    let errno = |result: io::Result<()>| result.map_err(|error| error.raw_os_error());
    let created = disk.create(Path::new("f.tmp"));
    let Ok(file) = created else { return vec![errno(created.map(drop))] };
    let write = errno(file.write_at(b"12345678", 0));
    let sync = errno(file.sync());
    let rename = errno(disk.rename(Path::new("f.tmp"), Path::new("f")));
    vec![Ok(()), write, sync, rename, errno(disk.sync_folder(Path::new("")))]
}

fn faulty(faults: &str) -> (MemoryDisk, FaultyDisk) {
    let memory = MemoryDisk::new();
    (memory.clone(), FaultyDisk::new(Arc::new(memory), Fault::parse_all(faults).unwrap()))
}

#[test]
fn faults_happen_where_they_are_planted() {
    let (ok, eio, enospc) = (Ok(()), Err(Some(5)), Err(Some(28)));
    let cases: [(&str, &[_], Option<&[u8]>); 8] = [
        ("eio@9", &[ok, ok, ok, ok, ok], Some(b"12345678")),
        ("enospc@1", &[enospc], None),
        ("eio@2", &[ok, eio, ok, ok, ok], Some(b"")),
        ("torn@2", &[ok, eio, ok, ok, ok], Some(b"1234")),
        ("enospc@3..", &[ok, ok, enospc, enospc, enospc], None),
        ("nosync", &[ok, ok, ok, ok, ok], Some(b"")),
        ("nosync-folder", &[ok, ok, ok, ok, ok], None),
        ("eio@4:tmp,enospc@1:nowhere", &[ok, ok, ok, eio, ok], None),
    ];
    for (faults, expected, left) in cases {
        let (memory, disk) = faulty(faults);
        assert_eq!(five(&disk), expected, "{faults}");
        let left_file = disk::read(&memory.crash_hard(), Path::new("f")).ok();
        assert_eq!(left_file.as_deref(), left, "{faults}");
        assert_eq!(disk.count(), expected.len() as u64, "{faults}");
    }
}

#[test]
fn operations_are_told() {
    let (_, disk) = faulty("eio@3");
    five(&disk);
    let told: Vec<_> = disk.operations().iter().map(ToString::to_string).collect();
    assert_eq!(told, ["create f.tmp", "write_at f.tmp", "sync f.tmp", "rename f", "sync_folder "]);
    assert_eq!(disk.operations()[3].kind, Kind::Rename);
    disk.plant(Fault::from(Effect::Eio, 2));
    assert_eq!(five(&disk).iter().filter(|result| result.is_err()).count(), 4, "it counts from when it was planted");
    disk.heal();
    assert_eq!(five(&disk), [Ok(()); 5]);
    assert_eq!(disk.count(), 15);
}

#[test]
fn a_sync_that_failed_is_no_better_the_second_time() {
    let (memory, disk) = faulty("eio@4");
    let file = disk.create(Path::new("f")).unwrap();
    disk.sync_folder(Path::new("")).unwrap();
    file.write_at(b"lost", 0).unwrap();
    assert!(file.sync().is_err());
    file.sync().expect("the system calls it a success");
    assert_eq!(read(&memory.crash_hard(), "f"), b"");
}

/// Writes a file anew over an older one, and looks at what is left wherever it was stopped.
fn write_whole_is_whole(crashes: &Crashes) {
    let path = Path::new("state/file");
    let (old, new, newer) = (vec![1; 700], vec![2; 3000], vec![3; 20]);
    crashes.check(
        |disk| {
            disk.create_folder(Path::new("state")).unwrap();
            disk::write_whole(&**disk, path, &old).unwrap();
        },
        |disk| disk::write_whole(&**disk, path, &new).is_ok(),
        |Left { disk, .. }, returned| {
            let left = disk::read(&**disk, path).unwrap();
            let whole = left == new || (!returned && left == old);
            assert!(whole, "returned: {returned}, left: {} bytes", left.len());
            disk::write_whole(&**disk, path, &newer).unwrap();
            assert_eq!(disk::read(&**disk, path).unwrap(), newer);
            assert_eq!(disk.list(Path::new("state")).unwrap(), ["file"], "nothing is left over");
        },
    );
}

#[test]
fn a_file_is_whole_at_every_crash_point() {
    write_whole_is_whole(&Crashes { seeds: 200, ..Crashes::default() });
    for fault in [Effect::Eio, Effect::Enospc, Effect::Torn] {
        write_whole_is_whole(&Crashes { fault, forever: false, ..Crashes::default() });
    }
}

#[test]
fn a_file_that_was_not_made_durable_is_noticed() {
    for planted in ["nosync", "nosync-folder"] {
        let crashes = Crashes { planted, ..Crashes::default() };
        assert!(catch_unwind(|| write_whole_is_whole(&crashes)).is_err(), "{planted} goes unnoticed");
    }
}

fn folders_are_there(crashes: &Crashes) {
    let folder = Path::new("a/b/c");
    crashes.check(
        |disk| disk.create_folder(Path::new("a")).unwrap(),
        |disk| {
            let mut folders = Folders::default();
            folders.create(&**disk, folder).is_ok() && folders.sync(&**disk).is_ok()
        },
        |Left { disk, .. }, returned| {
            assert!(disk.is_folder(Path::new("a")));
            assert!(disk.is_folder(folder) || !returned);
            Folders::default().create(&**disk, folder).unwrap();
            assert!(disk.is_folder(folder), "it can be done again");
        },
    );
}

#[test]
fn folders_are_there_at_every_crash_point() {
    folders_are_there(&Crashes::default());
    let crashes = Crashes { planted: "nosync-folder", ..Crashes::default() };
    assert!(catch_unwind(|| folders_are_there(&crashes)).is_err());
}

/// Three files of an epoch in two new folders and one that was there.
fn prepared() -> Vec<(PreparedFile, Vec<u8>)> {
    let file = |number: u8, to: &str| {
        let bytes = vec![number; 300 * usize::from(number)];
        let from = PathBuf::from(format!("out/_tmp/p/s/{number}"));
        (PreparedFile { from, to: to.into(), bytes: bytes.len() as u64, rows: 1 }, bytes)
    };
    vec![file(1, "out/day=1/x"), file(2, "out/day=1/y"), file(3, "out/old/z"), file(4, "out/site=a/day=2/x")]
}

fn published(crashes: &Crashes) {
    let files: Vec<_> = prepared().into_iter().map(|(file, _)| file).collect();
    let setup = |disk: &SharedDisk| {
        for folder in ["out/old", "out/_tmp/p/s"] {
            Folders::default().create(&**disk, Path::new(folder)).unwrap();
        }
        for (file, bytes) in prepared() {
            disk.create(&file.from).unwrap().write_at(&bytes, 0).unwrap();
        }
    };
    let all_there = |disk: &dyn Disk| {
        let mut there = tree(disk, Path::new("out"));
        there.retain(|_, bytes| bytes.is_some());
        let expected: BTreeMap<_, _> = prepared().into_iter().map(|(file, bytes)| (file.to, Some(bytes))).collect();
        assert!(there == expected, "every file is at its place, and nowhere else: {:?}", there.keys());
    };
    let run = |disk: &SharedDisk| publish(&**disk, &files).is_ok();
    let check = |left: &Left, returned: &bool| {
        if *returned {
            all_there(&left.memory);
        }
        publish(&left.memory, &files).unwrap();
        all_there(&left.memory);
        all_there(&left.memory.crash_hard());
    };
    crashes.check(setup, run, check);
}

#[test]
fn files_are_published_once_at_every_crash_point() {
    published(&Crashes { seeds: 100, ..Crashes::default() });
    for fault in [Effect::Eio, Effect::Enospc] {
        published(&Crashes { fault, forever: false, ..Crashes::default() });
    }
}

#[test]
fn publishing_that_returns_early_is_noticed() {
    is_caught("publish-returns-early", "files_are_published_once_at_every_crash_point");
}

#[test]
fn names_that_were_not_made_durable_are_noticed() {
    let crashes = Crashes { planted: "nosync-folder", ..Crashes::default() };
    assert!(catch_unwind(|| published(&crashes)).is_err());
}

#[test]
fn the_helpers_try_everything() {
    let tried = std::cell::RefCell::new(Vec::new());
    let run = |disk: &SharedDisk| five(&**disk).iter().filter(|result| result.is_ok()).count();
    every_crash_point(|_| (), run, |_, done| tried.borrow_mut().push(*done));
    tried.borrow_mut().dedup();
    assert_eq!(*tried.borrow(), [0, 1, 2, 3, 4, 5], "stopped before each of five, and after the last");
    tried.borrow_mut().clear();
    every_fault(Effect::Enospc, |_| (), run, |_, done| tried.borrow_mut().push(*done));
    tried.borrow_mut().dedup();
    assert_eq!(*tried.borrow(), [0, 4, 5], "without the first there is no file; without another the rest goes on");
}

/// A fleet that is over at once, in a folder of its own, with faults of its disk.
fn run(folder: &Path, faults: &str) -> (Option<i32>, String) {
    std::fs::create_dir_all(folder).unwrap();
    let pipeline = folder.join("fleet.toml");
    std::fs::write(&pipeline, FLEET).unwrap();
    let mut command = streamgauge();
    command.arg("run").arg(pipeline).current_dir(folder).env("STREAMGAUGE_FAULT", faults);
    command.env("STREAMGAUGE_FAULT_COUNT", "count").env("STREAMGAUGE_FAULT_LOG", "log");
    let output = command.output().unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

const FLEET: &str = r#"
[pipeline]
name = "fleet"
durability = "none"
epoch = "1h"

[sources.fleet]
type = "fleet"
devices = 2
rate = 10
seed = 7
start = "2026-01-05T08:00:00Z"
duration = "2s"
speed = "max"

[sources.fleet.decode]
format = "json"

[sources.fleet.columns]
ts = { type = "timestamp", unit = "ms" }

[sources.fleet.time]
column = "ts"

[sinks.out]
type = "parquet"
inputs = ["fleet"]
path = "out"
"#;

#[test]
fn the_binary_ends_at_the_operation_that_it_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let told = |name: &str| {
        let read = |file: &str| std::fs::read_to_string(folder.path().join(name).join(file)).unwrap();
        (read("count").trim().parse::<usize>().unwrap(), read("log").lines().map(str::to_owned).collect::<Vec<_>>())
    };
    let (code, err) = run(&folder.path().join("whole"), "");
    assert_eq!(code, Some(0), "{err}");
    let (total, log) = told("whole");
    assert_eq!(total, log.len());
    assert!(log.iter().any(|line| line.starts_with("rename out/")), "{log:#?}");
    for effect in ["exit", "exit-after"] {
        for number in 1..=total {
            let name = format!("{effect}{number}");
            let (code, err) = run(&folder.path().join(&name), &format!("{effect}@{number}"));
            assert_eq!(code, Some(137), "{name}: {err}");
            assert_eq!(told(&name).0, number);
        }
    }
    let renamed = |name: &str| std::fs::read_dir(folder.path().join(name).join("out")).map_or(0, Iterator::count);
    let rename = log.iter().position(|line| line.starts_with("rename out/")).unwrap() + 1;
    let (before, after) = (renamed(&format!("exit{rename}")), renamed(&format!("exit-after{rename}")));
    assert_eq!((before, after), (1, 2), "beside `_tmp`");
}

#[test]
fn the_binary_says_which_fault_it_does_not_know() {
    let folder = tempfile::tempdir().unwrap();
    let (code, err) = run(folder.path(), "eio@3,explode@4");
    assert_eq!(code, Some(2), "{err}");
    assert!(err.contains("STREAMGAUGE_FAULT: cannot read `explode@4` as a fault"), "{err}");
}
