//! What survives the process: the state folder of a pipeline.
//!
//! ```text
//! STATE/LOCK                   one process at a time
//!       state.json             the format's version, the pipeline, and what tells this folder's files from others
//!       journal/SOURCE/        what arrived, see [`journal`](crate::ingest::journal)
//!       checkpoints/           the state of every stage at the end of an epoch
//! ```
//!
//! At a barrier each stage hands over what it leaves (state in parts, prepared files, a source its place in the journal) and
//! goes on. When all stages have, the checkpointer writes the parts that have changed, then the
//! manifest; its rename is the commit. Only then are the epoch's files published, and what no kept checkpoint needs any more
//! goes. After a crash the newest whole checkpoint is taken up, its files are published again (which does nothing where they
//! were), and the journal is read from its place: the same rows, the same epochs, the same files.

pub(crate) mod changes;
pub(crate) mod checkpointer;
pub mod manifest;
pub mod store;

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::disk::{self, Folders, SharedDisk};

/// The version of the folder's layout.
const VERSION: u32 = 1;

/// A pipeline's state folder, held by this process.
#[derive(Debug)]
pub struct StateFolder {
    root: PathBuf,
    /// Tells this folder's files from those of others; the same in every run with it.
    pub run: String,
    /// Released with the file.
    _lock: File,
}

#[derive(Serialize, Deserialize)]
struct About {
    version: u32,
    pipeline: String,
    run: String,
}

/// Why a state folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// Another process has it.
    #[error("state folder `{}` is in use by another process; stop that one first, or give this pipeline another `state`", .0.display())]
    Locked(PathBuf),
    /// It is another pipeline's.
    #[error(
        "state folder `{}` belongs to the pipeline `{theirs}`, not to `{ours}`: give `{ours}` a `state` of its own",
        root.display()
    )]
    Foreign {
        /// The folder.
        root: PathBuf,
        /// Whose it is.
        theirs: String,
        /// Who wanted it.
        ours: String,
    },
    /// A newer build made it.
    #[error("state folder `{}` is of version {version}, and this build knows version {VERSION}; run the newer build", root.display())]
    Newer {
        /// The folder.
        root: PathBuf,
        /// Its version.
        version: u32,
    },
    /// There is no state.
    #[error("there is no state folder `{}`", .0.display())]
    Missing(PathBuf),
    /// The file system refused.
    #[error("state folder: cannot {what} `{}`: {why}", path.display())]
    Disk {
        /// What was attempted.
        what: &'static str,
        /// On which file or folder.
        path: PathBuf,
        /// Why it failed.
        why: String,
    },
}

impl StateFolder {
    /// Takes the folder, and makes it where there is none. `run` names the files of a new one.
    pub fn open(disk: &SharedDisk, root: &Path, pipeline: &str, run: &str) -> Result<Self, StateError> {
        let mut folders = Folders::default();
        folders.create(&**disk, root).map_err(|(path, why)| trouble("create", &path, &why))?;
        let lock = lock(root)?;
        let path = root.join("state.json");
        if disk.file_len(&path).is_err() {
            // Who made the folders may have been killed before their names were durable.
            let above = disk::parent(root);
            folders.changed(above);
            folders.changed(disk::parent(above));
        }
        folders.sync(&**disk).map_err(|(path, why)| trouble("sync", &path, &why))?;
        let about = match disk::read(&**disk, &path) {
            Ok(bytes) => Self::about(root, &bytes)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let about = About { version: VERSION, pipeline: pipeline.to_owned(), run: run.to_owned() };
                let bytes = serde_json::to_vec(&about).expect("names are always JSON");
                disk::write_whole(&**disk, &path, &bytes).map_err(|why| trouble("write", &path, &why))?;
                about
            }
            Err(why) => return Err(trouble("read", &path, &why)),
        };
        if about.pipeline != pipeline {
            return Err(StateError::Foreign {
                root: root.to_owned(),
                theirs: about.pipeline,
                ours: pipeline.to_owned(),
            });
        }
        Ok(Self { root: root.to_owned(), run: about.run, _lock: lock })
    }

    /// Takes a folder that must exist, whosesoever it is.
    pub fn existing(disk: &SharedDisk, root: &Path) -> Result<Self, StateError> {
        let path = root.join("state.json");
        let bytes = disk::read(&**disk, &path).map_err(|_| StateError::Missing(root.to_owned()))?;
        let about = Self::about(root, &bytes)?;
        Ok(Self { root: root.to_owned(), run: about.run, _lock: lock(root)? })
    }

    fn about(root: &Path, bytes: &[u8]) -> Result<About, StateError> {
        let path = root.join("state.json");
        let value: serde_json::Value =
            serde_json::from_slice(bytes).map_err(|error| trouble("understand", &path, &error))?;
        let version = value.get("version").and_then(serde_json::Value::as_u64).unwrap_or(0);
        let version = u32::try_from(version).unwrap_or(u32::MAX);
        if version > VERSION {
            return Err(StateError::Newer { root: root.to_owned(), version });
        }
        serde_json::from_value(value).map_err(|error| trouble("understand", &path, &error))
    }

    /// Where the checkpoints are.
    pub fn checkpoints(&self) -> PathBuf {
        self.root.join("checkpoints")
    }

    /// Where a source's journal is.
    pub fn journal(&self, source: &str) -> PathBuf {
        self.root.join("journal").join(source)
    }
}

fn lock(root: &Path) -> Result<File, StateError> {
    let path = root.join("LOCK");
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
    let file = file.map_err(|why| trouble("open", &path, &why))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StateError::Locked(root.to_owned())),
        Err(TryLockError::Error(why)) => Err(trouble("lock", &path, &why)),
    }
}

fn trouble(what: &'static str, path: &Path, why: &dyn std::fmt::Display) -> StateError {
    StateError::Disk { what, path: path.to_owned(), why: why.to_string() }
}
