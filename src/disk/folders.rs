//! Folders whose entries are not known to be durable.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use crate::disk::Disk;

/// Folders that were made or changed, whose entries are not known to be durable.
#[derive(Debug, Default)]
pub struct Folders(BTreeSet<PathBuf>);

impl Folders {
    /// Makes a folder and all above it that are missing. Gives the folder that could not be made with the error.
    pub fn create(&mut self, disk: &dyn Disk, folder: &Path) -> Result<(), (PathBuf, io::Error)> {
        let missing: Vec<&Path> = folder.ancestors().take_while(|path| !disk.is_folder(path)).collect();
        for path in missing.into_iter().rev().filter(|path| !path.as_os_str().is_empty()) {
            match disk.create_folder(path) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists || !disk.is_folder(path) => {
                    return Err((path.to_owned(), error));
                }
                _ => self.changed(parent(path)),
            }
        }
        Ok(())
    }

    /// A name in it was added or removed.
    pub fn changed(&mut self, folder: &Path) {
        if !self.0.contains(folder) {
            self.0.insert(folder.to_owned());
        }
    }

    /// Makes the names durable. Gives the folder that could not be made durable with the error; it and what comes after
    /// it stay to be done.
    pub fn sync(&mut self, disk: &dyn Disk) -> Result<(), (PathBuf, io::Error)> {
        while let Some(folder) = self.0.first() {
            disk.sync_folder(folder).map_err(|error| (folder.clone(), error))?;
            self.0.pop_first();
        }
        Ok(())
    }
}

/// Removes a file, or a folder with everything in it. What is not there is no error, and a link is removed, not followed.
pub fn remove_all(disk: &dyn Disk, path: &Path) -> io::Result<()> {
    match disk.remove(path) {
        Ok(()) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) if !disk.is_folder(path) => return Err(error),
        Err(_) => {}
    }
    for name in disk.list(path)? {
        remove_all(disk, &path.join(name))?;
    }
    match disk.remove_folder(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The folder that a file or folder is in.
pub fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::RealDisk;

    #[test]
    fn a_folder_goes_with_all_that_is_in_it_and_links_are_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let (gone, kept) = (folder.path().join("gone"), folder.path().join("kept"));
        std::fs::create_dir_all(gone.join("a/b")).unwrap();
        std::fs::create_dir(&kept).unwrap();
        for file in [gone.join("x"), gone.join("a/y"), kept.join("z")] {
            std::fs::write(file, "text").unwrap();
        }
        std::os::unix::fs::symlink(&kept, gone.join("a/link")).unwrap();
        remove_all(&RealDisk, &gone).unwrap();
        remove_all(&RealDisk, &gone).unwrap();
        assert_eq!((gone.exists(), kept.join("z").exists()), (false, true));
    }
}
