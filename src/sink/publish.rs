//! Files become visible: the step after the commit, done again after a restart.

use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::disk::{Disk, Folders, parent};
use crate::sink::SinkError;
use crate::sink::parquet::{TMP, lost, passing};

/// A file that is complete and durable where nobody sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PreparedFile {
    /// Where it is.
    pub from: PathBuf,
    /// Where it will be seen; the same file system.
    pub to: PathBuf,
    /// How many bytes it has.
    pub bytes: u64,
    /// How many rows it has.
    pub rows: u64,
}

/// Renames files to where they are seen, and makes the names durable. Files that are there already are passed over, so
/// that it can be done again after any failure: all of them are there when it returns.
pub fn publish(disk: &dyn Disk, files: &[PreparedFile]) -> Result<(), SinkError> {
    make_folders(disk, files)?;
    let mut folders = Folders::default();
    for file in files {
        match disk.rename(&file.from, &file.to) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && is_there(disk, file) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(SinkError::Fatal(format!(
                    "`{}` is gone, and was not published as `{}`: who removed it? The rows are in the journal; restart \
                     from an older checkpoint",
                    file.from.display(),
                    file.to.display()
                )));
            }
            Err(error) => return Err(passing("rename a finished file to", &file.to, &error)),
            Ok(()) => {}
        }
        // Also where it was there: the rename before the restart may not be durable.
        folders.changed(parent(&file.to));
    }
    folders.sync(disk).map_err(|(path, error)| lost(&path, &error))?;
    tidy(disk, files);
    Ok(())
}

/// Makes the folders, and their names durable before anything is in them: a rename that survives a crash into a folder
/// that does not would lose the file. Also where they are there already: who made them may have been killed before that.
fn make_folders(disk: &dyn Disk, files: &[PreparedFile]) -> Result<(), SinkError> {
    let mut folders = Folders::default();
    for file in files {
        let folder = parent(&file.to);
        folders.create(disk, folder).map_err(|(path, error)| passing("create the folder", &path, &error))?;
        for below in folder.ancestors().take_while(|folder| !file.from.starts_with(folder)) {
            folders.changed(parent(below));
        }
    }
    folders.sync(disk).map_err(|(path, error)| lost(&path, &error))
}

/// Leaves no empty folders to those who look at the output. Failing costs nothing.
fn tidy(disk: &dyn Disk, files: &[PreparedFile]) {
    let Some(file) = files.last() else { return };
    let mut folder = parent(&file.from);
    while disk.remove_folder(folder).is_ok() && folder.file_name().is_some_and(|name| name != TMP) {
        folder = parent(folder);
    }
}

/// Whether an earlier attempt has published it.
fn is_there(disk: &dyn Disk, file: &PreparedFile) -> bool {
    disk.file_len(&file.to).is_ok_and(|bytes| bytes == file.bytes)
}
