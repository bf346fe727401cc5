//! The folder that nobody looks into: `PATH/_tmp/PIPELINE/SINK`.

use std::io;
use std::path::{Path, PathBuf};

use crate::disk::{DiskFile, Folders, SharedDisk, parent, remove_all};
use crate::sink::parquet::file::{lost, passing};
use crate::sink::{SinkContext, SinkError, parquet};

/// How often a file is created where its folder has gone: whoever publishes files removes the folder once it is empty,
/// also right after it was found to exist.
const CREATIONS_MAX: usize = 3;

/// The folder of a sink's files until they are published.
#[derive(Debug)]
pub(super) struct Tmp {
    disk: SharedDisk,
    /// The sink's `path`.
    root: PathBuf,
    path: PathBuf,
    folders: Folders,
}

impl Tmp {
    /// Makes the sink's folder, and removes what is not published by now: nobody will ask for it again.
    pub(super) fn open(root: &Path, context: &SinkContext) -> Result<Self, SinkError> {
        let disk = context.disk.clone();
        let path = root.join(parquet::TMP).join(parquet::part(&context.pipeline)).join(parquet::part(&context.name));
        remove_all(&*disk, &path).map_err(|error| passing("clear", &path, &error))?;
        let mut folders = Folders::default();
        folders.create(&*disk, root).map_err(|(path, error)| passing("create the folder", &path, &error))?;
        // Also where it was there: a run before may have been killed just before this.
        folders.changed(parent(root));
        folders.sync(&*disk).map_err(|(path, error)| lost(&path, &error))?;
        Ok(Self { disk, root: root.to_owned(), path, folders })
    }

    /// Where a file of this name is.
    pub(super) fn file(&self, name: impl std::fmt::Display) -> PathBuf {
        self.path.join(format!("{name}.tmp"))
    }

    /// Makes a file, and the folder where need be.
    pub(super) fn create(&mut self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let mut creations = 0;
        loop {
            self.folders.create(&*self.disk, parent(path)).map_err(|(_, error)| error)?;
            creations += 1;
            match self.disk.create(path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound && creations < CREATIONS_MAX => {}
                made => return made,
            }
        }
    }

    /// Makes the names of the files durable, and those of the folders above them: another sink or a run before may have
    /// made those, and not have got to it.
    pub(super) fn sync(&mut self) -> Result<(), SinkError> {
        self.path
            .ancestors()
            .take_while(|path| path.starts_with(&self.root))
            .for_each(|path| self.folders.changed(path));
        self.folders.sync(&*self.disk).map_err(|(path, error)| lost(&path, &error))
    }
}
