//! A disk in memory that knows what is durable, and what may be left of it after a crash.
//!
//! The model is that of ALICE (Pillai et al., "All File Systems Are Not Created Equal", OSDI 2014): nothing survives a
//! power cut but what was asked to, and what was not may survive in any order.
//!
//! - **Files**: a `sync` makes the bytes and the length durable, not the name. Of the writes since then any subset may
//!   survive, each whole or torn at a border of 512 bytes; new lengths likewise, with or without the bytes. Bytes that a
//!   length survives without are zeros. A sector is written in one step, as the page cache had it at some moment.
//! - **Folders**: `sync_folder` makes its entries durable, not its own name and not the bytes of its files. Of the
//!   operations on a folder's entries since then any beginning may survive. A rename is one step, also between two
//!   folders, as in every file system with a journal or copy on write: to make it durable in one of them is to make it
//!   durable in both, with all that came before it in both. Folders know no other order between them: what was done in
//!   one may survive although what was done before in another did not, so that a file that was renamed into a new folder
//!   is lost where the name of that folder is.
//! - **Space**: bytes that were written take it, also after a crash; the rest of a file that `set_len` made longer takes
//!   none, so that writing there may fail. What was removed gives it back at once, or when the last handle is gone.
//!
//! Real file systems lose less: each by rules of its own, which change with versions and mount options.

mod chance;
mod content;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fmt;
use std::io::{self, ErrorKind};
use std::path::{Component, Path};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::disk::memory::chance::Chance;
use crate::disk::memory::content::Content;
use crate::disk::{Disk, DiskFile, EIO};

/// Names a file or folder, whatever its path is.
type Id = u64;

/// The folder that every path begins in.
const ROOT: Id = 0;

type Entries = BTreeMap<OsString, Id>;

#[derive(Clone, Debug, Default)]
struct Folder {
    now: Entries,
    durable: Entries,
}

#[derive(Debug)]
enum Node {
    /// With what the open handles keep a copy of.
    File(Content, Arc<()>),
    Folder(Folder),
}

impl Node {
    /// As it is for the next process: without handles.
    fn reopened(&self) -> Self {
        match self {
            Self::File(content, _) => Self::File(content.clone(), Arc::default()),
            Self::Folder(folder) => Self::Folder(folder.clone()),
        }
    }
}

/// One step: what names lead to from then on, in one folder or two.
type Step = Vec<(Id, OsString, Option<Id>)>;

/// The whole disk.
#[derive(Debug)]
struct State {
    nodes: BTreeMap<Id, Node>,
    next: Id,
    /// Steps that are not durable.
    steps: Vec<Step>,
    capacity: Option<u64>,
    alive: bool,
}

/// A disk in memory. Clones are the same disk; [`crash`](Self::crash) and its like give another, and leave this one to
/// fail from then on, so that who still writes to it changes nothing. They can be called again: each crash is of the same
/// moment.
#[derive(Clone)]
pub struct MemoryDisk(Arc<Mutex<State>>);

impl Default for MemoryDisk {
    fn default() -> Self {
        let nodes = BTreeMap::from([(ROOT, Node::Folder(Folder::default()))]);
        Self(Arc::new(Mutex::new(State { nodes, next: ROOT + 1, steps: Vec::new(), capacity: None, alive: true })))
    }
}

impl fmt::Debug for MemoryDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryDisk").finish_non_exhaustive()
    }
}

impl MemoryDisk {
    /// An empty disk that is never full.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty disk with room for so many bytes of files. Names take none.
    pub fn with_capacity(bytes: u64) -> Self {
        let disk = Self::default();
        disk.set_capacity(Some(bytes));
        disk
    }

    /// Makes the disk larger or smaller, also than what is on it.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.any_state().capacity = bytes;
    }

    /// The bytes that files take.
    pub fn used(&self) -> u64 {
        self.any_state().used() as u64
    }

    /// Makes everything durable, as `sync(1)`.
    pub fn settle(&self) {
        let mut state = self.any_state();
        let steps = std::mem::take(&mut state.steps);
        state.make_durable(&steps);
        for node in state.nodes.values_mut() {
            if let Node::File(content, _) = node {
                content.sync();
            }
        }
        state.forget_unreachable();
    }

    /// A power cut: what may be left, by chance.
    pub fn crash(&self, seed: u64) -> Self {
        let mut chance = Chance::new(seed);
        self.end(|state| {
            let steps = surviving(&state.steps, &mut chance);
            state.make_durable(&steps);
            state.lose(|content| content.crash(&mut chance));
        })
    }

    /// A power cut after which there is only what was made durable.
    pub fn crash_hard(&self) -> Self {
        self.end(|state| state.lose(Content::hard))
    }

    /// The end of the process, not of the system: all that was written is there, and no more durable than it was.
    pub fn kill(&self) -> Self {
        self.end(|_| ())
    }

    /// The disk as the next process finds it.
    fn end(&self, lose: impl FnOnce(&mut State)) -> Self {
        let mut old = self.any_state();
        old.alive = false;
        let mut state = State {
            nodes: old.nodes.iter().map(|(id, node)| (*id, node.reopened())).collect(),
            next: old.next,
            steps: old.steps.clone(),
            capacity: old.capacity,
            alive: true,
        };
        lose(&mut state);
        state.forget_unreachable();
        Self(Arc::new(Mutex::new(state)))
    }

    fn any_state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn state(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.any_state();
        if state.alive { Ok(state) } else { Err(io::Error::from_raw_os_error(EIO)) }
    }
}

/// A beginning of every folder's steps, by chance. A step of two folders needs the beginnings of both.
fn surviving(steps: &[Step], chance: &mut Chance) -> Vec<Step> {
    // Often all of them, often few: short histories must be cut, long ones not always near their beginning.
    let odds = [1, 2, 4, 16, usize::MAX][chance.of(0..5)];
    let mut ended = BTreeSet::new();
    let mut left = Vec::new();
    for step in steps {
        let over = step.iter().any(|(folder, ..)| ended.contains(folder));
        if over || (odds < usize::MAX && chance.one_in(odds)) {
            ended.extend(step.iter().map(|(folder, ..)| *folder));
        } else {
            left.push(step.clone());
        }
    }
    left
}

impl State {
    fn folder(&self, id: Id) -> io::Result<&Folder> {
        match self.nodes.get(&id) {
            Some(Node::Folder(folder)) => Ok(folder),
            Some(Node::File(..)) => Err(ErrorKind::NotADirectory.into()),
            None => Err(ErrorKind::NotFound.into()),
        }
    }

    fn is_folder(&self, id: Id) -> bool {
        self.folder(id).is_ok()
    }

    fn content(&mut self, id: Id) -> io::Result<&mut Content> {
        match self.nodes.get_mut(&id) {
            Some(Node::File(content, _)) => Ok(content),
            Some(Node::Folder(_)) => Err(ErrorKind::IsADirectory.into()),
            None => Err(ErrorKind::NotFound.into()),
        }
    }

    fn find(&self, path: &Path) -> io::Result<Id> {
        path.components().try_fold(ROOT, |at, component| match component {
            Component::Normal(name) => self.folder(at)?.now.get(name).copied().ok_or(ErrorKind::NotFound.into()),
            Component::RootDir | Component::CurDir => Ok(at),
            Component::ParentDir | Component::Prefix(_) => Err(ErrorKind::InvalidInput.into()),
        })
    }

    /// The folder that a path is in, its name there, and what has the name.
    fn place(&self, path: &Path) -> io::Result<(Id, OsString, Option<Id>)> {
        let name = path.file_name().ok_or(ErrorKind::InvalidInput)?;
        let folder = self.find(path.parent().unwrap_or(Path::new("")))?;
        Ok((folder, name.to_owned(), self.folder(folder)?.now.get(name).copied()))
    }

    fn add(&mut self, node: Node) -> Id {
        let id = self.next;
        self.next += 1;
        self.nodes.insert(id, node);
        id
    }

    fn step(&mut self, step: Step) {
        self.apply(&step, |folder| &mut folder.now);
        self.steps.push(step);
    }

    fn make_durable(&mut self, steps: &[Step]) {
        for step in steps {
            self.apply(step, |folder| &mut folder.durable);
        }
    }

    fn apply(&mut self, step: &Step, entries: impl Fn(&mut Folder) -> &mut Entries) {
        for (folder, name, id) in step {
            if let Some(Node::Folder(folder)) = self.nodes.get_mut(folder) {
                match id {
                    Some(id) => entries(folder).insert(name.clone(), *id),
                    None => entries(folder).remove(name),
                };
            }
        }
    }

    /// A folder's steps, and what must be durable with them: the earlier steps of folders that they share a step with.
    fn sync_folder(&mut self, folder: Id) {
        let mut folders = BTreeSet::from([folder]);
        let (mut durable, mut open) = (Vec::new(), Vec::new());
        for step in std::mem::take(&mut self.steps).into_iter().rev() {
            if step.iter().any(|(folder, ..)| folders.contains(folder)) {
                folders.extend(step.iter().map(|(folder, ..)| *folder));
                durable.push(step);
            } else {
                open.push(step);
            }
        }
        durable.reverse();
        open.reverse();
        self.make_durable(&durable);
        self.steps = open;
        self.forget_unreachable();
    }

    /// Forgets what is not durable; `left` makes of each file what is left of it.
    fn lose(&mut self, mut left: impl FnMut(&Content) -> Content) {
        self.steps.clear();
        for node in self.nodes.values_mut() {
            match node {
                Node::File(content, _) => *content = left(content),
                Node::Folder(folder) => folder.now = folder.durable.clone(),
            }
        }
    }

    /// Forgets files and folders that no name leads to, now or after a crash, and that nobody has open.
    fn forget_unreachable(&mut self) {
        let mut reachable = BTreeSet::from([ROOT]);
        let mut look_at = vec![ROOT];
        look_at.extend(self.steps.iter().flatten().filter_map(|(.., id)| *id));
        while let Some(id) = look_at.pop() {
            reachable.insert(id);
            if let Some(Node::Folder(folder)) = self.nodes.get(&id) {
                let below = folder.now.values().chain(folder.durable.values());
                look_at.extend(below.filter(|id| !reachable.contains(id)));
            }
        }
        self.nodes.retain(|id, node| {
            reachable.contains(id) || matches!(node, Node::File(_, handles) if Arc::strong_count(handles) > 1)
        });
    }

    /// The bytes that files take that have a name or are open.
    fn used(&self) -> usize {
        let folders = self.nodes.values().filter_map(|node| match node {
            Node::Folder(folder) => Some(folder),
            Node::File(..) => None,
        });
        let named: BTreeSet<Id> = folders.flat_map(|folder| folder.now.values().copied()).collect();
        let files = self.nodes.iter().filter_map(|(id, node)| match node {
            Node::File(content, handles) if named.contains(id) || Arc::strong_count(handles) > 1 => Some(content),
            _ => None,
        });
        files.map(Content::allocated).sum()
    }

    fn free(&self) -> usize {
        let Some(capacity) = self.capacity else { return usize::MAX };
        usize::try_from(capacity).unwrap_or(usize::MAX).saturating_sub(self.used())
    }

    /// Whether a folder is another, or above it.
    fn holds(&self, folder: Id, other: Id) -> bool {
        folder == other
            || self.folder(folder).is_ok_and(|folder| folder.now.values().any(|below| self.holds(*below, other)))
    }

    /// Whether a rename may put something from a folder at the place of something else.
    fn may_replace(&self, replaced: Id, what: Id, from_folder: Id) -> io::Result<()> {
        match (self.folder(replaced), self.is_folder(what)) {
            (Ok(_), _) if self.holds(replaced, from_folder) => Err(ErrorKind::DirectoryNotEmpty.into()),
            (Ok(_), false) => Err(ErrorKind::IsADirectory.into()),
            (Ok(folder), true) if !folder.now.is_empty() => Err(ErrorKind::DirectoryNotEmpty.into()),
            (Err(_), true) => Err(ErrorKind::NotADirectory.into()),
            _ => Ok(()),
        }
    }

    /// As rename(2).
    fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let (from_folder, from_name, what) = self.place(from)?;
        let (to_folder, to_name, replaced) = self.place(to)?;
        let what = what.ok_or(ErrorKind::NotFound)?;
        if replaced == Some(what) {
            return Ok(());
        }
        if self.holds(what, to_folder) {
            return Err(ErrorKind::InvalidInput.into());
        }
        if let Some(replaced) = replaced {
            self.may_replace(replaced, what, from_folder)?;
        }
        self.step(vec![(from_folder, from_name, None), (to_folder, to_name, Some(what))]);
        Ok(())
    }
}

impl Disk for MemoryDisk {
    fn create_folder(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state()?;
        let (folder, name, None) = state.place(path)? else { return Err(ErrorKind::AlreadyExists.into()) };
        let id = state.add(Node::Folder(Folder::default()));
        state.step(vec![(folder, name, Some(id))]);
        Ok(())
    }

    fn is_folder(&self, path: &Path) -> bool {
        self.state().is_ok_and(|state| state.find(path).is_ok_and(|id| state.is_folder(id)))
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        let state = self.state()?;
        let names = state.folder(state.find(folder)?)?.now.keys();
        let mut names: Vec<_> = names.map(|name| name.to_string_lossy().into_owned()).collect();
        names.sort();
        Ok(names)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.state()?;
        let (folder, name, there) = state.place(path)?;
        if let Some(id) = there {
            state.content(id)?.set_len(0);
        } else {
            let id = state.add(Node::File(Content::default(), Arc::default()));
            state.step(vec![(folder, name, Some(id))]);
        }
        drop(state);
        self.open(path)
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let state = self.state()?;
        let id = state.find(path)?;
        match state.nodes.get(&id) {
            Some(Node::File(_, handles)) => {
                Ok(Box::new(MemoryFile { disk: self.clone(), id, _handle: handles.clone() }))
            }
            _ => Err(ErrorKind::IsADirectory.into()),
        }
    }

    fn file_len(&self, path: &Path) -> io::Result<u64> {
        let mut state = self.state()?;
        let id = state.find(path)?;
        Ok(state.content(id)?.len() as u64)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.state()?.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state()?;
        let (folder, name, there) = state.place(path)?;
        state.content(there.ok_or(ErrorKind::NotFound)?)?;
        state.step(vec![(folder, name, None)]);
        Ok(())
    }

    fn remove_folder(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state()?;
        let (folder, name, there) = state.place(path)?;
        if !state.folder(there.ok_or(ErrorKind::NotFound)?)?.now.is_empty() {
            return Err(ErrorKind::DirectoryNotEmpty.into());
        }
        state.step(vec![(folder, name, None)]);
        Ok(())
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        let mut state = self.state()?;
        let id = state.find(folder)?;
        state.folder(id)?;
        state.sync_folder(id);
        Ok(())
    }
}

/// An open file.
#[derive(Debug)]
struct MemoryFile {
    disk: MemoryDisk,
    id: Id,
    _handle: Arc<()>,
}

/// A place in a file.
fn place(offset: u64) -> io::Result<usize> {
    usize::try_from(offset).map_err(|_| ErrorKind::FileTooLarge.into())
}

impl DiskFile for MemoryFile {
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        Ok(self.disk.state()?.content(self.id)?.read_at(into, place(offset)?))
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.disk.state()?;
        let free = state.free();
        state.content(self.id)?.write(bytes, place(offset)?, free)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.disk.state()?.content(self.id)?.set_len(place(len)?);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.disk.state()?.content(self.id)?.sync();
        Ok(())
    }
}
