//! Checkpoints on disk: parts first, then the manifest, then what no checkpoint needs any more goes.
//!
//! ```text
//! STATE/checkpoints/00000012.checkpoint            the manifest
//!                   00000012-by_device-pane-5.arrow  a part that epoch 12 wrote; later manifests may name it too
//! ```

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow_ipc::reader::FileReader;
use arrow_ipc::writer::FileWriter;

use crate::disk::{self, Folders, SharedDisk};
use crate::engine::checkpoint::manifest::{Manifest, PartFile, Unreadable, VERSION};
use crate::flow::state::Restored;

const MANIFEST: &str = ".checkpoint";
const PART: &str = ".arrow";
/// How many checkpoints are kept: if the newest cannot be read, an older one and the journal give the same.
pub const KEPT: usize = 3;

/// Why a checkpoint could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file system refused.
    #[error("checkpoint: cannot {what} `{}`: {why}", path.display())]
    Disk {
        /// What was attempted.
        what: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why it failed.
        why: io::Error,
    },
    /// A sync failed: nobody knows what is on the disk.
    #[error("checkpoint: cannot make `{}` durable: {why}", path.display())]
    Lost {
        /// Which file or folder.
        path: PathBuf,
        /// Why it failed.
        why: io::Error,
    },
    /// Rows cannot be written as Arrow IPC.
    #[error("checkpoint: cannot encode state: {0}")]
    Encode(#[from] arrow::error::ArrowError),
    /// There are checkpoints, and none is whole.
    #[error(
        "none of the checkpoints in `{}` can be read: {why}. Restore one of them, or run with --reset-state to begin with empty \
         state",
        folder.display()
    )]
    None {
        /// The folder.
        folder: PathBuf,
        /// What is wrong with the newest.
        why: String,
    },
    /// A newer build wrote it.
    #[error("checkpoint `{}` is of version {version}, and this build knows version {VERSION}; run the newer build", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: u32,
    },
}

impl StoreError {
    /// Whether it may work later.
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::Disk { .. })
    }
}

/// The folder of checkpoints.
#[derive(Clone, Debug)]
pub struct Store {
    disk: SharedDisk,
    folder: PathBuf,
}

impl Store {
    /// Makes the folder if need be. What is in it is durable then, also where the process that wrote it was killed before
    /// it was.
    pub fn open(disk: SharedDisk, folder: PathBuf) -> Result<Self, StoreError> {
        let mut folders = Folders::default();
        folders.create(&*disk, &folder).map_err(|(path, why)| StoreError::Disk { what: "create", path, why })?;
        folders.changed(&folder);
        folders.changed(disk::parent(&folder));
        folders.sync(&*disk).map_err(|(path, why)| StoreError::Lost { path, why })?;
        Ok(Self { disk, folder })
    }

    fn path(&self, epoch: u64) -> PathBuf {
        self.folder.join(format!("{epoch:08}{MANIFEST}"))
    }

    fn disk<T>(&self, what: &'static str, path: &Path, result: io::Result<T>) -> Result<T, StoreError> {
        result.map_err(|why| StoreError::Disk { what, path: path.to_owned(), why })
    }

    /// The epochs of the checkpoints, ascending.
    fn epochs(&self) -> Result<Vec<u64>, StoreError> {
        let names = self.disk("list", &self.folder, self.disk.list(&self.folder))?;
        let mut epochs: Vec<u64> = names.iter().filter_map(|name| name.strip_suffix(MANIFEST)?.parse().ok()).collect();
        epochs.sort_unstable();
        Ok(epochs)
    }

    /// Writes a part. Its name is not durable before [`Store::commit`].
    pub fn write_part(&self, epoch: u64, stage: &str, part: &str, rows: &RecordBatch) -> Result<PartFile, StoreError> {
        let file = format!("{epoch:08}-{stage}-{part}{PART}");
        let path = self.folder.join(&file);
        let mut writer = FileWriter::try_new(Vec::new(), rows.schema_ref())?;
        writer.write(rows)?;
        writer.finish()?;
        let bytes = writer.into_inner()?;
        let open = self.disk("create", &path, self.disk.create(&path))?;
        self.disk("write", &path, open.write_at(&bytes, 0))?;
        open.sync().map_err(|why| StoreError::Lost { path, why })?;
        let (len, crc32c) = (bytes.len() as u64, crc32c::crc32c(&bytes));
        Ok(PartFile { name: part.to_owned(), file, bytes: len, crc32c, rows: rows.num_rows() as u64 })
    }

    /// Makes the epoch durable, as a whole: when this returns it is, and if it never does it is not.
    pub fn commit(&self, manifest: &Manifest) -> Result<(), StoreError> {
        self.sync_folder()?;
        let path = self.path(manifest.epoch);
        let tmp = path.with_extension("tmp");
        let file = self.disk("create", &tmp, self.disk.create(&tmp))?;
        self.disk("write", &tmp, file.write_at(&manifest.encode(), 0))?;
        file.sync().map_err(|why| StoreError::Lost { path: tmp.clone(), why })?;
        // Later ones that are there could not be read, or this epoch would not come again. They must not be taken for the
        // newest when old ones go.
        for later in self.epochs()?.into_iter().filter(|epoch| *epoch > manifest.epoch) {
            let path = self.path(later);
            self.disk("remove", &path, self.disk.remove(&path))?;
        }
        self.disk("rename", &path, self.disk.rename(&tmp, &path))?;
        self.sync_folder()
    }

    fn sync_folder(&self) -> Result<(), StoreError> {
        let synced = self.disk.sync_folder(&self.folder);
        synced.map_err(|why| StoreError::Lost { path: self.folder.clone(), why })
    }

    /// The newest checkpoint that is whole, with all of its parts; `None` where there never was one.
    pub fn newest(&self) -> Result<Option<Manifest>, StoreError> {
        let mut first = None;
        for epoch in self.epochs()?.into_iter().rev() {
            let path = self.path(epoch);
            match self.whole(epoch)? {
                Ok(manifest) => return Ok(Some(manifest)),
                Err(why) => {
                    tracing::warn!(path = %path.display(), why, "a checkpoint cannot be read; trying the one before");
                    first.get_or_insert(format!("`{}`: {why}", path.display()));
                }
            }
        }
        match first {
            Some(why) => Err(StoreError::None { folder: self.folder.clone(), why }),
            None => Ok(None),
        }
    }

    /// The oldest checkpoint that is whole.
    pub fn oldest(&self) -> Result<Option<Manifest>, StoreError> {
        for epoch in self.epochs()? {
            if let Ok(manifest) = self.whole(epoch)? {
                return Ok(Some(manifest));
            }
        }
        Ok(None)
    }

    /// A checkpoint, or why it is not whole.
    fn whole(&self, epoch: u64) -> Result<Result<Manifest, String>, StoreError> {
        let path = &self.path(epoch);
        let bytes = self.disk("read", path, disk::read(&*self.disk, path))?;
        let manifest = match Manifest::decode(&bytes) {
            Ok(manifest) => manifest,
            Err(Unreadable::Newer(version)) => return Err(StoreError::Newer { path: path.to_owned(), version }),
            Err(Unreadable::Damaged(why)) => return Ok(Err(why)),
        };
        if manifest.epoch != epoch {
            return Ok(Err(format!("it is that of epoch {} under another name", manifest.epoch)));
        }
        for part in manifest.stages.values().flat_map(|stage| &stage.parts) {
            if let Err(why) = self.bytes_of(part) {
                return Ok(Err(why));
            }
        }
        Ok(Ok(manifest))
    }

    fn bytes_of(&self, part: &PartFile) -> Result<Vec<u8>, String> {
        let path = self.folder.join(&part.file);
        let bytes = disk::read(&*self.disk, &path).map_err(|why| format!("its part `{}`: {why}", path.display()))?;
        if bytes.len() as u64 != part.bytes || crc32c::crc32c(&bytes) != part.crc32c {
            return Err(format!("its part `{}` is not what was written", path.display()));
        }
        Ok(bytes)
    }

    /// Reads parts of a checkpoint back.
    pub fn read_parts(&self, parts: &[PartFile]) -> Result<Vec<Restored>, StoreError> {
        let damaged = |why: String| StoreError::None { folder: self.folder.clone(), why };
        let read = |part: &PartFile| {
            let bytes = self.bytes_of(part).map_err(damaged)?;
            let reader = FileReader::try_new(io::Cursor::new(bytes), None)?;
            let schema = reader.schema();
            let batches = reader.collect::<Result<Vec<_>, _>>()?;
            Ok((part.name.clone(), concat_batches(&schema, &batches)?))
        };
        parts.iter().map(read).collect()
    }

    /// Removes all but the newest `kept` checkpoints, and parts that none of those names. Gives those that are kept, the oldest
    /// first.
    pub fn prune(&self, kept: usize) -> Result<Vec<Manifest>, StoreError> {
        let epochs = self.epochs()?;
        let (old, new) = epochs.split_at(epochs.len().saturating_sub(kept));
        for epoch in old {
            let path = self.path(*epoch);
            self.disk("remove", &path, self.disk.remove(&path))?;
        }
        let mut manifests = Vec::new();
        for epoch in new {
            let path = self.path(*epoch);
            // One that cannot be read is of no use, and holds nothing back.
            let bytes = self.disk("read", &path, disk::read(&*self.disk, &path))?;
            manifests.extend(Manifest::decode(&bytes));
        }
        let parts = manifests.iter().flat_map(|manifest| manifest.stages.values()).flat_map(|stage| &stage.parts);
        let needed: BTreeSet<&str> = parts.map(|part| part.file.as_str()).collect();
        for name in self.disk("list", &self.folder, self.disk.list(&self.folder))? {
            let stray = name.ends_with(".tmp") || (name.ends_with(PART) && !needed.contains(name.as_str()));
            if stray {
                let path = self.folder.join(name);
                self.disk("remove", &path, self.disk.remove(&path))?;
            }
        }
        Ok(manifests)
    }
}
