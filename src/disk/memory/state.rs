//! Files, folders and names, as they are and as they are durable.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io::{self, ErrorKind};
use std::path::{Component, Path};
use std::sync::Arc;

use crate::disk::memory::chance::Chance;
use crate::disk::memory::content::Content;

/// Names a file or folder, whatever its path is.
pub(super) type Id = u64;

/// The folder that every path begins in.
const ROOT: Id = 0;

type Entries = BTreeMap<OsString, Id>;

#[derive(Clone, Debug, Default)]
pub(super) struct Folder {
    pub(super) now: Entries,
    durable: Entries,
}

#[derive(Debug)]
pub(super) enum Node {
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
pub(super) type Step = Vec<(Id, OsString, Option<Id>)>;

/// The whole disk.
#[derive(Debug)]
pub(super) struct State {
    pub(super) nodes: BTreeMap<Id, Node>,
    next: Id,
    /// Steps that are not durable.
    pub(super) steps: Vec<Step>,
    pub(super) capacity: Option<u64>,
    pub(super) alive: bool,
}

/// A beginning of every folder's steps, by chance. A step of two folders needs the beginnings of both.
pub(super) fn surviving(steps: &[Step], chance: &mut Chance) -> Vec<Step> {
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
    /// An empty disk.
    pub(super) fn new() -> Self {
        let nodes = BTreeMap::from([(ROOT, Node::Folder(Folder::default()))]);
        Self { nodes, next: ROOT + 1, steps: Vec::new(), capacity: None, alive: true }
    }

    /// As it is for the next process: without handles.
    pub(super) fn reopened(&self) -> Self {
        Self {
            nodes: self.nodes.iter().map(|(id, node)| (*id, node.reopened())).collect(),
            next: self.next,
            steps: self.steps.clone(),
            capacity: self.capacity,
            alive: true,
        }
    }

    /// Makes everything durable.
    pub(super) fn settle(&mut self) {
        let steps = std::mem::take(&mut self.steps);
        self.make_durable(&steps);
        for node in self.nodes.values_mut() {
            if let Node::File(content, _) = node {
                content.sync();
            }
        }
        self.forget_unreachable();
    }

    pub(super) fn folder(&self, id: Id) -> io::Result<&Folder> {
        match self.nodes.get(&id) {
            Some(Node::Folder(folder)) => Ok(folder),
            Some(Node::File(..)) => Err(ErrorKind::NotADirectory.into()),
            None => Err(ErrorKind::NotFound.into()),
        }
    }

    pub(super) fn is_folder(&self, id: Id) -> bool {
        self.folder(id).is_ok()
    }

    pub(super) fn content(&mut self, id: Id) -> io::Result<&mut Content> {
        match self.nodes.get_mut(&id) {
            Some(Node::File(content, _)) => Ok(content),
            Some(Node::Folder(_)) => Err(ErrorKind::IsADirectory.into()),
            None => Err(ErrorKind::NotFound.into()),
        }
    }

    pub(super) fn find(&self, path: &Path) -> io::Result<Id> {
        path.components().try_fold(ROOT, |at, component| match component {
            Component::Normal(name) => self.folder(at)?.now.get(name).copied().ok_or(ErrorKind::NotFound.into()),
            Component::RootDir | Component::CurDir => Ok(at),
            Component::ParentDir | Component::Prefix(_) => Err(ErrorKind::InvalidInput.into()),
        })
    }

    /// The folder that a path is in, its name there, and what has the name.
    pub(super) fn place(&self, path: &Path) -> io::Result<(Id, OsString, Option<Id>)> {
        let name = path.file_name().ok_or(ErrorKind::InvalidInput)?;
        let folder = self.find(path.parent().unwrap_or(Path::new("")))?;
        Ok((folder, name.to_owned(), self.folder(folder)?.now.get(name).copied()))
    }

    pub(super) fn add(&mut self, node: Node) -> Id {
        let id = self.next;
        self.next += 1;
        self.nodes.insert(id, node);
        id
    }

    pub(super) fn step(&mut self, step: Step) {
        self.apply(&step, |folder| &mut folder.now);
        self.steps.push(step);
    }

    pub(super) fn make_durable(&mut self, steps: &[Step]) {
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
    pub(super) fn sync_folder(&mut self, folder: Id) {
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
    pub(super) fn lose(&mut self, mut left: impl FnMut(&Content) -> Content) {
        self.steps.clear();
        for node in self.nodes.values_mut() {
            match node {
                Node::File(content, _) => *content = left(content),
                Node::Folder(folder) => folder.now = folder.durable.clone(),
            }
        }
    }

    /// Forgets files and folders that no name leads to, now or after a crash, and that nobody has open.
    pub(super) fn forget_unreachable(&mut self) {
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
    pub(super) fn used(&self) -> usize {
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

    pub(super) fn free(&self) -> usize {
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
    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
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
