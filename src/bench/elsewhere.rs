//! A disk on which every path lies below one folder.

use std::borrow::Cow;
use std::io;
use std::path::{Component, Path, PathBuf};

use crate::disk::{Disk, DiskFile, SharedDisk};

/// Stands for `/` below the folder: no pipeline file can name it.
const ROOT: &str = "%2F";
/// Stands for `..`.
const UP: &str = "%2E%2E";

/// Whatever path a sink is told to write to, it writes below a folder of ours. Paths in that folder mean themselves.
#[derive(Debug)]
pub struct Elsewhere {
    disk: SharedDisk,
    /// Whose paths mean themselves.
    ours: PathBuf,
    output: PathBuf,
}

impl Elsewhere {
    /// Writes to `output`, which is made in `folder`, which is made in `ours`.
    pub fn new(disk: SharedDisk, ours: &Path, folder: &Path, output: &Path) -> io::Result<Self> {
        disk.create_folder(folder)?;
        disk.create_folder(output)?;
        disk.create_folder(&output.join(ROOT))?;
        Ok(Self { disk, ours: ours.to_owned(), output: output.to_owned() })
    }

    fn place<'a>(&self, path: &'a Path) -> Cow<'a, Path> {
        if path.starts_with(&self.ours) {
            return Cow::Borrowed(path);
        }
        let mut place = self.output.clone();
        for component in path.components() {
            match component {
                Component::Normal(name) => place.push(name),
                Component::RootDir => place.push(ROOT),
                Component::ParentDir => place.push(UP),
                Component::CurDir | Component::Prefix(_) => {}
            }
        }
        Cow::Owned(place)
    }
}

impl Disk for Elsewhere {
    fn create_folder(&self, path: &Path) -> io::Result<()> {
        self.disk.create_folder(&self.place(path))
    }

    fn is_folder(&self, path: &Path) -> bool {
        self.disk.is_folder(&self.place(path))
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        self.disk.list(&self.place(folder))
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.disk.create(&self.place(path))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.disk.open(&self.place(path))
    }

    fn file_len(&self, path: &Path) -> io::Result<u64> {
        self.disk.file_len(&self.place(path))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(&self.place(from), &self.place(to))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.disk.remove(&self.place(path))
    }

    fn remove_folder(&self, path: &Path) -> io::Result<()> {
        self.disk.remove_folder(&self.place(path))
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        self.disk.sync_folder(&self.place(folder))
    }
}

/// The bytes of all files below a folder; 0 where there is none.
pub fn bytes_below(disk: &dyn Disk, folder: &Path) -> io::Result<u64> {
    if !disk.is_folder(folder) {
        return disk.file_len(folder);
    }
    disk.list(folder)?.iter().map(|name| bytes_below(disk, &folder.join(name))).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{Folders, real};

    #[test]
    fn whatever_path_is_written_to_lies_below_the_folder() {
        let ours = tempfile::tempdir().unwrap();
        let folder = ours.path().join("0");
        let output = folder.join("output");
        let disk = Elsewhere::new(real(), ours.path(), &folder, &output).unwrap();
        let paths = ["out/a", "./out/b", "/srv/out/c", "../../d", "out/../e"].map(PathBuf::from);
        let own = ours.path().join("state/f");
        for path in paths.iter().chain([&own]) {
            let mut folders = Folders::default();
            folders.create(&disk, crate::disk::parent(path)).unwrap();
            folders.sync(&disk).unwrap();
            disk.create(path).unwrap().write_at(b"text", 0).unwrap();
            assert_eq!(disk.file_len(path).unwrap(), 4);
        }
        let there = ["out/a", "out/b", "%2F/srv/out/c", "%2E%2E/%2E%2E/d", "out/%2E%2E/e", "../../state/f"];
        there.iter().for_each(|path| assert!(output.join(path).is_file(), "{path}"));
        assert_eq!(bytes_below(&disk, &output).unwrap(), 5 * 4);
        disk.rename(&paths[2], Path::new("/srv/g")).unwrap();
        assert_eq!(disk.list(Path::new("/srv")).unwrap(), ["g", "out"]);
        disk.remove(Path::new("/srv/g")).unwrap();
        disk.remove_folder(Path::new("/srv/out")).unwrap();
        assert_eq!(disk.list(Path::new("/srv")).unwrap(), [""; 0]);
    }
}
