//! The disk in memory against a real one, and what it leaves after a crash against snapshots of how things were.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use streamgauge::disk::memory::MemoryDisk;
use streamgauge::disk::{self, Disk, RealDisk};

use crate::{SECTOR, tree};

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
