//! What the journal, the checkpoints and the published files need of a file system, as a trait: so that a test can be the
//! disk that loses what was not made durable, fills up, or fails at any single step.
//!
//! The rules that hold everywhere: a file is made durable before its name is changed, and its folder after; a new folder is
//! an entry of the one above it; a failed `sync` is never tried again, because the system may have thrown the bytes away and
//! call the next one a success.

#[cfg(feature = "faults")]
pub mod faulty;
mod folders;
#[cfg(feature = "faults")]
pub mod memory;
mod real;

use std::fmt::Debug;
use std::io;
use std::path::Path;
use std::sync::Arc;

pub use folders::{Folders, parent, remove_all};
pub use real::RealDisk;

/// A file system.
pub trait Disk: Send + Sync + Debug {
    /// Makes a folder in one that exists.
    fn create_folder(&self, path: &Path) -> io::Result<()>;
    /// Whether there is a folder.
    fn is_folder(&self, path: &Path) -> bool;
    /// The names in a folder, ascending.
    fn list(&self, folder: &Path) -> io::Result<Vec<String>>;
    /// Makes a file, empty, to be written and read; one that exists is emptied.
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;
    /// Opens a file that exists, to be written and read.
    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;
    /// How many bytes a file has; an error where there is none.
    fn file_len(&self, path: &Path) -> io::Result<u64>;
    /// Gives a file another name on the same file system, in one step; what had the name is replaced.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Removes an empty folder.
    fn remove_folder(&self, path: &Path) -> io::Result<()>;
    /// Makes the names in a folder durable.
    fn sync_folder(&self, folder: &Path) -> io::Result<()>;
}

/// An open file. Positions are given, not kept, so that one thread may read what another writes.
pub trait DiskFile: Send + Sync + Debug {
    /// Reads at most `into.len()` bytes from `offset`; 0 at the end.
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes all of `bytes` from `offset`; the file grows as need be.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Cuts the file off, or fills it up with zeros.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Makes the bytes durable (`fdatasync`).
    fn sync(&self) -> io::Result<()>;
}

/// The disk that everything of a run is on.
pub type SharedDisk = Arc<dyn Disk>;

/// The file system of this machine.
pub fn real() -> SharedDisk {
    Arc::new(RealDisk)
}

/// The disk that a run of this process writes to: the file system of this machine. Builds for tests, with the feature
/// `faults`, let it fail as `STREAMGAUGE_FAULT` says, see [`faulty`]; a text that is not understood ends the process.
#[cfg(feature = "faults")]
pub fn of_this_process() -> SharedDisk {
    faulty::of_this_process()
}

/// The disk that a run of this process writes to: the file system of this machine.
#[cfg(not(feature = "faults"))]
pub fn of_this_process() -> SharedDisk {
    real()
}

/// Whether a mistake is planted in this process, for a test that must notice it: `STREAMGAUGE_PLANTED` lists their names,
/// separated by commas. Never in builds without the feature `faults`.
#[cfg(feature = "faults")]
pub fn planted(name: &str) -> bool {
    static PLANTED: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    let planted = PLANTED.get_or_init(|| std::env::var("STREAMGAUGE_PLANTED").unwrap_or_default());
    planted.split(',').any(|planted| planted == name)
}

/// Whether a mistake is planted in this process: never, as this is no build for tests.
#[cfg(not(feature = "faults"))]
pub const fn planted(_: &str) -> bool {
    false
}

/// No room on the disk, as Linux and macOS number it.
#[cfg(feature = "faults")]
const ENOSPC: i32 = 28;

/// The disk cannot.
#[cfg(feature = "faults")]
const EIO: i32 = 5;

/// Reads a whole file.
pub fn read(disk: &dyn Disk, path: &Path) -> io::Result<Vec<u8>> {
    let len = usize::try_from(disk.file_len(path)?).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
    let file = disk.open(path)?;
    let mut bytes = vec![0; len];
    let mut read = 0;
    while read < len {
        match file.read_at(&mut bytes[read..], read as u64)? {
            0 => break,
            more => read += more,
        }
    }
    bytes.truncate(read);
    Ok(bytes)
}

/// Writes a file that is there whole or not at all, also after a crash: under another name first, then renamed. A sync that
/// fails is an error of no kind that may pass, also where the disk was full.
pub fn write_whole(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let lost = |error: io::Error| io::Error::other(format!("cannot make it durable: {error}"));
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".tmp");
    let tmp = path.with_file_name(name);
    let file = disk.create(&tmp)?;
    file.write_at(bytes, 0)?;
    file.sync().map_err(lost)?;
    disk.rename(&tmp, path)?;
    disk.sync_folder(parent(path)).map_err(lost)
}
