//! A disk whose syncs take until something else is written to the same file, if that comes: what may be written meanwhile is.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use streamgauge::disk::{Disk, DiskFile, SharedDisk};

#[derive(Debug)]
pub struct SlowSyncs {
    pub disk: SharedDisk,
    /// How many syncs of files that were opened wait for a write that is sure to come, on a machine of any speed.
    pub sure: Arc<AtomicU64>,
    /// How many of those met one.
    pub met: Arc<AtomicU64>,
}

#[derive(Debug)]
struct SlowFile {
    file: Box<dyn DiskFile>,
    sure: Arc<AtomicU64>,
    seen: Mutex<Seen>,
    written: Condvar,
    met: Arc<AtomicU64>,
}

/// What was done to a file. The write that a sync waits for may come before the sync does, on a thread that is late: each sync
/// is for one write at the end of the file, so that the one after the n-th sync's is the n+1-th.
#[derive(Debug, Default)]
struct Seen {
    end: u64,
    /// Writes at the end.
    writes: u64,
    syncs: u64,
}

/// How long a sync waits for a write that need not come, and after how long one that is sure to has failed to.
const PATIENCE: (Duration, Duration) = (Duration::from_millis(5), Duration::from_secs(60));

impl SlowSyncs {
    fn slow(file: Box<dyn DiskFile>, sure: Arc<AtomicU64>, met: Arc<AtomicU64>) -> Box<dyn DiskFile> {
        Box::new(SlowFile { file, sure, seen: Mutex::default(), written: Condvar::new(), met })
    }
}

impl Disk for SlowSyncs {
    fn create_folder(&self, path: &Path) -> io::Result<()> {
        self.disk.create_folder(path)
    }

    fn is_folder(&self, path: &Path) -> bool {
        self.disk.is_folder(path)
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        self.disk.list(folder)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(Self::slow(self.disk.create(path)?, Arc::default(), Arc::default()))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(Self::slow(self.disk.open(path)?, self.sure.clone(), self.met.clone()))
    }

    fn file_len(&self, path: &Path) -> io::Result<u64> {
        self.disk.file_len(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.disk.remove(path)
    }

    fn remove_folder(&self, path: &Path) -> io::Result<()> {
        self.disk.remove_folder(path)
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        self.disk.sync_folder(folder)
    }
}

impl DiskFile for SlowFile {
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(into, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_at(bytes, offset)?;
        let mut seen = self.seen.lock().unwrap();
        seen.writes += u64::from(offset >= seen.end);
        seen.end = seen.end.max(offset + bytes.len() as u64);
        self.written.notify_all();
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        let mut seen = self.seen.lock().unwrap();
        seen.syncs += 1;
        let next = seen.syncs + 1;
        // A recovery syncs what it has read: nothing follows that.
        let is_group = seen.writes > 0;
        let is_sure = is_group && self.sure.fetch_update(Relaxed, Relaxed, |sure| sure.checked_sub(1)).is_ok();
        let patience = if is_sure { PATIENCE.1 } else { PATIENCE.0 };
        let (seen, waited) = self.written.wait_timeout_while(seen, patience, |seen| seen.writes < next).unwrap();
        drop(seen);
        self.met.fetch_add(u64::from(!waited.timed_out()), Relaxed);
        self.file.sync()
    }
}
