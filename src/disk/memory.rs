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
mod state;

use std::fmt;
use std::io::{self, ErrorKind};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::disk::memory::chance::Chance;
use crate::disk::memory::content::Content;
use crate::disk::memory::state::{Folder, Id, Node, State, surviving};
use crate::disk::{Disk, DiskFile, EIO};

/// A disk in memory. Clones are the same disk; [`crash`](Self::crash) and its like give another, and leave this one to
/// fail from then on, so that who still writes to it changes nothing. They can be called again: each crash is of the same
/// moment.
#[derive(Clone)]
pub struct MemoryDisk(Arc<Mutex<State>>);

impl Default for MemoryDisk {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(State::new())))
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
        self.any_state().settle();
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
        let mut state = old.reopened();
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
