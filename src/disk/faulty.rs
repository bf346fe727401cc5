//! A disk that fails at the operation that a test has chosen.
//!
//! Builds for tests read from the environment how the binary's disk fails:
//!
//! - `STREAMGAUGE_FAULT`: [`Fault`]s, separated by commas, such as `exit@17` or `enospc@3..:checkpoints/`;
//! - `STREAMGAUGE_FAULT_COUNT`: a file that always holds the number of operations begun so far, as digits and a line end;
//! - `STREAMGAUGE_FAULT_LOG`: a file that gets a line for each operation when it begins, its kind and its path.
//!
//! A test runs once with the count alone, and then once for every number up to it.

mod fault;

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

pub use fault::{Effect, Fault, Kind, UnknownFault};

use crate::disk::{Disk, DiskFile, EIO, ENOSPC, SharedDisk};

/// The exit code of a process that a fault ends: that of SIGKILL.
pub const EXIT: i32 = 137;

/// How many operations are remembered; later ones are only counted.
const LOG_MAX: usize = 100_000;

/// An operation that was begun, whether or not it was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// What it was.
    pub kind: Kind,
    /// What it was done to: of a file, the path that it was opened by; of a rename, the new name.
    pub path: PathBuf,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.path.display())
    }
}

/// What has happened so far, and what is to happen.
#[derive(Debug, Default)]
struct Course {
    total: u64,
    log: Vec<Operation>,
    /// Each with the number of operations that it has counted.
    faults: Vec<(Fault, u64)>,
    count_to: Option<File>,
    log_to: Option<File>,
}

/// What an operation must do.
#[derive(Clone, Copy, Debug, Default)]
struct Orders {
    /// Write half, then fail.
    torn: bool,
    /// Do nothing, and say that it was done.
    pretend: bool,
    /// End the process when it is done.
    exit_after: bool,
}

#[derive(Debug)]
struct Shared {
    disk: SharedDisk,
    course: Mutex<Course>,
}

/// A disk with faults, around another. Clones are the same disk.
#[derive(Clone, Debug)]
pub struct FaultyDisk(Arc<Shared>);

impl FaultyDisk {
    /// Plants faults. None is as good as any: it counts the operations.
    pub fn new(disk: SharedDisk, faults: impl IntoIterator<Item = Fault>) -> Self {
        let faults = faults.into_iter().map(|fault| (fault, 0)).collect();
        Self(Arc::new(Shared { disk, course: Mutex::new(Course { faults, ..Course::default() }) }))
    }

    /// The disk with the faults that an environment variable asks for, counted and told as [`self`](crate::disk::faulty)
    /// says under its name with `_COUNT` and `_LOG`; the disk itself where none of the three is set.
    pub fn from_env(variable: &str, disk: SharedDisk) -> io::Result<SharedDisk> {
        let set = |end: &str| std::env::var_os(format!("{variable}{end}")).filter(|value| !value.is_empty());
        let (faults, count_to, log_to) = (set(""), set("_COUNT"), set("_LOG"));
        if faults.is_none() && count_to.is_none() && log_to.is_none() {
            return Ok(disk);
        }
        let told = |error: &dyn fmt::Display| io::Error::new(ErrorKind::InvalidInput, format!("{variable}: {error}"));
        let faults = faults.map_or(Ok(Vec::new()), |text| Fault::parse_all(&text.to_string_lossy()));
        let faulty = Self::new(disk, faults.map_err(|error| told(&error))?);
        let mut course = faulty.0.course();
        course.count_to = count_to.map(File::create).transpose().map_err(|error| told(&error))?;
        let append = |path| OpenOptions::new().create(true).append(true).open(path);
        course.log_to = log_to.map(append).transpose().map_err(|error| told(&error))?;
        drop(course);
        Ok(Arc::new(faulty))
    }

    /// Plants one more; it counts from here.
    pub fn plant(&self, fault: Fault) {
        self.0.course().faults.push((fault, 0));
    }

    /// Takes all faults away.
    pub fn heal(&self) {
        self.0.course().faults.clear();
    }

    /// How many operations were begun.
    pub fn count(&self) -> u64 {
        self.0.course().total
    }

    /// The operations that were begun; number 1 is the first.
    pub fn operations(&self) -> Vec<Operation> {
        self.0.course().log.clone()
    }
}

/// See [`crate::disk::of_this_process`].
pub(super) fn of_this_process() -> SharedDisk {
    static DISK: OnceLock<SharedDisk> = OnceLock::new();
    let disk = DISK.get_or_init(|| {
        FaultyDisk::from_env("STREAMGAUGE_FAULT", crate::disk::real()).unwrap_or_else(|error| {
            eprintln!("{error}");
            std::process::exit(2)
        })
    });
    disk.clone()
}

impl Course {
    /// Counts an operation, and says what is to become of it.
    fn begin(&mut self, kind: Kind, paths: &[&Path]) -> io::Result<Orders> {
        self.total += 1;
        self.tell(Operation { kind, path: paths.last().map_or_else(PathBuf::new, |path| path.to_path_buf()) })?;
        let mut orders = Orders::default();
        let mut errno = None;
        for (fault, seen) in self.faults.iter_mut().filter(|(fault, _)| fault.concerns(kind, paths)) {
            *seen += 1;
            if !(fault.first..=fault.last).contains(seen) {
                continue;
            }
            match fault.effect {
                Effect::Exit => std::process::exit(EXIT),
                Effect::ExitAfter => orders.exit_after = true,
                Effect::Torn if kind == Kind::Write => orders.torn = true,
                Effect::Eio | Effect::Torn => errno = errno.or(Some(EIO)),
                Effect::Enospc => errno = errno.or(Some(ENOSPC)),
                Effect::NoSync | Effect::NoSyncFolder => orders.pretend = true,
            }
        }
        errno.map_or(Ok(orders), |errno| Err(io::Error::from_raw_os_error(errno)))
    }

    fn tell(&mut self, operation: Operation) -> io::Result<()> {
        if let Some(file) = &self.count_to {
            // It only ever gets longer, and is whole in one step for whoever reads it.
            file.write_all_at(format!("{}\n", self.total).as_bytes(), 0)?;
        }
        if let Some(file) = &mut self.log_to {
            file.write_all(format!("{operation}\n").as_bytes())?;
        }
        if self.log.len() < LOG_MAX {
            self.log.push(operation);
        }
        Ok(())
    }
}

impl Shared {
    fn course(&self) -> MutexGuard<'_, Course> {
        self.course.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where the process ends here, the lock is held: no operation of another thread begins after the one that was chosen.
    fn begin(&self, kind: Kind, paths: &[&Path]) -> io::Result<Orders> {
        self.course().begin(kind, paths)
    }

    fn end<T>(&self, orders: Orders, result: io::Result<T>) -> io::Result<T> {
        if orders.exit_after {
            let _course = self.course();
            std::process::exit(EXIT);
        }
        result
    }

    fn file(self: &Arc<Self>, file: Box<dyn DiskFile>, path: &Path) -> Box<dyn DiskFile> {
        Box::new(FaultyFile { shared: self.clone(), file, path: path.to_owned(), unsynced: AtomicBool::new(false) })
    }
}

impl Disk for FaultyDisk {
    fn create_folder(&self, path: &Path) -> io::Result<()> {
        let orders = self.0.begin(Kind::CreateFolder, &[path])?;
        self.0.end(orders, self.0.disk.create_folder(path))
    }

    fn is_folder(&self, path: &Path) -> bool {
        self.0.disk.is_folder(path)
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        self.0.disk.list(folder)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let orders = self.0.begin(Kind::Create, &[path])?;
        let file = self.0.end(orders, self.0.disk.create(path))?;
        Ok(self.0.file(file, path))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(self.0.file(self.0.disk.open(path)?, path))
    }

    fn file_len(&self, path: &Path) -> io::Result<u64> {
        self.0.disk.file_len(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let orders = self.0.begin(Kind::Rename, &[from, to])?;
        self.0.end(orders, self.0.disk.rename(from, to))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let orders = self.0.begin(Kind::Remove, &[path])?;
        self.0.end(orders, self.0.disk.remove(path))
    }

    fn remove_folder(&self, path: &Path) -> io::Result<()> {
        let orders = self.0.begin(Kind::RemoveFolder, &[path])?;
        self.0.end(orders, self.0.disk.remove_folder(path))
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        let orders = self.0.begin(Kind::SyncFolder, &[folder])?;
        let result = if orders.pretend { Ok(()) } else { self.0.disk.sync_folder(folder) };
        self.0.end(orders, result)
    }
}

/// A file of a disk with faults.
#[derive(Debug)]
struct FaultyFile {
    shared: Arc<Shared>,
    file: Box<dyn DiskFile>,
    path: PathBuf,
    /// A `sync` has failed.
    unsynced: AtomicBool,
}

impl DiskFile for FaultyFile {
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(into, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let orders = self.shared.begin(Kind::Write, &[&self.path])?;
        let result = if orders.torn {
            self.file.write_at(&bytes[..bytes.len() / 2], offset).and(Err(io::Error::from_raw_os_error(EIO)))
        } else {
            self.file.write_at(bytes, offset)
        };
        self.shared.end(orders, result)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let orders = self.shared.begin(Kind::SetLen, &[&self.path])?;
        self.shared.end(orders, self.file.set_len(len))
    }

    fn sync(&self) -> io::Result<()> {
        let begun = self.shared.begin(Kind::Sync, &[&self.path]);
        let orders = begun.inspect_err(|_| self.unsynced.store(true, Relaxed))?;
        let result = if orders.pretend || self.unsynced.load(Relaxed) { Ok(()) } else { self.file.sync() };
        self.shared.end(orders, result)
    }
}
