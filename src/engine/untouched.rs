//! A disk on which nothing changes: a replay reads a state folder with the code of a start, which cuts off and clears up.

use std::io;
use std::path::Path;

use crate::disk::{Disk, DiskFile, SharedDisk};

/// Reads what is there, and takes what would change it for done.
#[derive(Debug)]
pub(crate) struct Untouched(pub(crate) SharedDisk);

impl Disk for Untouched {
    fn create_folder(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn is_folder(&self, path: &Path) -> bool {
        self.0.is_folder(path)
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        self.0.list(folder)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        // A part of what is to be read was never there.
        Err(io::Error::new(io::ErrorKind::NotFound, format!("there is no `{}`", path.display())))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(UntouchedFile(self.0.open(path)?)))
    }

    fn file_len(&self, path: &Path) -> io::Result<u64> {
        self.0.file_len(path)
    }

    fn rename(&self, _: &Path, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn remove(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn remove_folder(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn sync_folder(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }
}

#[derive(Debug)]
struct UntouchedFile(Box<dyn DiskFile>);

impl DiskFile for UntouchedFile {
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(into, offset)
    }

    fn write_at(&self, _: &[u8], _: u64) -> io::Result<()> {
        Ok(())
    }

    fn set_len(&self, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}
