//! Files become visible: the step after the commit, done again after a restart.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::disk::{Disk, Folders, parent, planted};
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

/// Renames files to where they are seen, and makes the names durable: all of them are there when it returns. Files that
/// are there already are passed over, so it can be done again after any failure, also in another process.
///
/// Nothing is left to an attempt before: a folder that exists, or a file that has its name, may have got there just
/// before a crash, so every folder from the file's up to the one that the files have in common is made durable each
/// time. Then the folders that the files came from: a file that has left one must have arrived in the other.
pub fn publish(disk: &dyn Disk, files: &[PreparedFile]) -> Result<(), SinkError> {
    make_folders(disk, files)?;
    let mut folders = Folders::default();
    for file in files {
        show(disk, file)?;
        if planted("publish-returns-early") {
            return Ok(());
        }
        // Also where it was there: the rename before the restart may not be durable.
        folders.changed(parent(&file.to));
    }
    folders.sync(disk).map_err(|(path, error)| lost(&path, &error))?;
    let sources: BTreeSet<&Path> = files.iter().map(|file| parent(&file.from)).collect();
    for folder in sources {
        if disk.is_folder(folder) {
            disk.sync_folder(folder).map_err(|error| lost(folder, &error))?;
            tidy(disk, folder);
        }
    }
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

/// Gives one file its name, unless it has it.
fn show(disk: &dyn Disk, file: &PreparedFile) -> Result<(), SinkError> {
    let wrong = |what: String| {
        Err(SinkError::Fatal(format!(
            "cannot publish `{}`: `{}` {what}; its rows are in the journal, restart from an older checkpoint",
            file.to.display(),
            file.from.display()
        )))
    };
    match disk.file_len(&file.from) {
        Ok(bytes) if bytes == file.bytes => {}
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(passing("look at", &file.from, &error)),
        _ if is_there(disk, file)? => return Ok(()),
        Ok(bytes) => return wrong(format!("has {bytes} bytes in place of {}", file.bytes)),
        Err(_) => return wrong("is gone, and was not published before".to_owned()),
    }
    disk.rename(&file.from, &file.to).map_err(|error| passing("rename a finished file to", &file.to, &error))
}

/// Whether an earlier attempt has published it.
fn is_there(disk: &dyn Disk, file: &PreparedFile) -> Result<bool, SinkError> {
    match disk.file_len(&file.to) {
        Ok(bytes) => Ok(bytes == file.bytes),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(passing("look at", &file.to, &error)),
    }
}

/// Leaves no empty folders to those who look at the output. Failing costs nothing.
fn tidy(disk: &dyn Disk, mut folder: &Path) {
    while disk.remove_folder(folder).is_ok() && folder.file_name().is_some_and(|name| name != TMP) {
        folder = parent(folder);
    }
}
