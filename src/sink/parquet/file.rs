//! Files on their way: encoded in memory, spilled to disk, closed, made durable, renamed.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use ::parquet::arrow::ArrowWriter;
use ::parquet::file::metadata::KeyValue;
use arrow::array::{Array, RecordBatch};
use arrow::compute::concat_batches;

use crate::sink::SinkError;

/// Encoded bytes of one file that are gathered before they go to disk.
pub(super) const SPILL_BYTES: usize = 1 << 20;

/// Encoded bytes, of which a known-good beginning is on disk. A failed write loses nothing: it is cut off, and what it
/// was to write is kept.
#[derive(Debug)]
struct Spool {
    path: PathBuf,
    /// Held until everything is durable, so that a file is never opened twice.
    file: Option<File>,
    /// Bytes that are on disk for sure.
    flushed: u64,
    pending: Vec<u8>,
}

impl Spool {
    fn flush(&mut self) -> io::Result<()> {
        if self.file.is_none() {
            if let Some(folder) = self.path.parent() {
                fs::create_dir_all(folder)?;
            }
            self.file = Some(OpenOptions::new().write(true).create(true).truncate(true).open(&self.path)?);
        }
        let file = self.file.as_mut().expect("it was opened just now");
        file.seek(SeekFrom::Start(self.flushed))?;
        if let Err(error) = file.write_all(&self.pending) {
            // Gives the space of the torn part back, for others; writing starts at the same place in any case.
            let _ = file.set_len(self.flushed);
            return Err(error);
        }
        self.flushed += self.pending.len() as u64;
        self.pending = Vec::new();
        Ok(())
    }
}

/// Rows that are handed to the encoder at once: always so many, but for the last of a file. It decides at the end of each
/// hand-over whether a page is full, so bytes would depend on how rows came otherwise.
const ENCODE_ROWS: usize = 8_192;

/// A file that takes rows.
pub(super) struct OpenFile {
    /// Below the sink's folder.
    pub(super) folder: PathBuf,
    /// When it was used last, in batches.
    pub(super) used: u64,
    pub(super) rows: usize,
    /// Memory held by rows that are not encoded to the end.
    pub(super) buffered: usize,
    pub(super) opened: Instant,
    /// Fewer than [`ENCODE_ROWS`] rows, not handed to the encoder yet.
    waiting: Vec<RecordBatch>,
    waiting_rows: usize,
    waiting_bytes: usize,
    writer: ArrowWriter<Vec<u8>>,
    spool: Spool,
}

impl OpenFile {
    pub(super) fn new(folder: PathBuf, tmp: PathBuf, writer: ArrowWriter<Vec<u8>>) -> Self {
        let spool = Spool { path: tmp, file: None, flushed: 0, pending: Vec::new() };
        let (waiting, opened) = (Vec::new(), Instant::now());
        Self {
            folder,
            used: 0,
            rows: 0,
            buffered: 0,
            opened,
            waiting,
            waiting_rows: 0,
            waiting_bytes: 0,
            writer,
            spool,
        }
    }

    /// Takes rows, in memory.
    pub(super) fn append(&mut self, rows: &RecordBatch) -> Result<(), SinkError> {
        self.rows += rows.num_rows();
        let mut start = 0;
        while start < rows.num_rows() {
            let len = (ENCODE_ROWS - self.waiting_rows).min(rows.num_rows() - start);
            let slice = rows.slice(start, len);
            self.waiting_rows += len;
            self.waiting_bytes += bytes_of(&slice);
            self.waiting.push(slice);
            start += len;
            if self.waiting_rows == ENCODE_ROWS {
                self.encode()?;
            }
        }
        self.drain();
        Ok(())
    }

    /// Hands what waits to the encoder.
    fn encode(&mut self) -> Result<(), SinkError> {
        (self.waiting_rows, self.waiting_bytes) = (0, 0);
        let waiting = std::mem::take(&mut self.waiting);
        let encoded = match waiting.as_slice() {
            [] => Ok(()),
            [rows] => self.writer.write(rows),
            [first, ..] => match concat_batches(first.schema_ref(), &waiting) {
                Ok(rows) => self.writer.write(&rows),
                Err(error) => Err(error.into()),
            },
        };
        encoded.map_err(|error| encoding(&error))
    }

    /// Ends the row group early, so that its rows cost no more memory than their encoded form.
    pub(super) fn end_row_group(&mut self) -> Result<(), SinkError> {
        self.encode()?;
        self.writer.flush().map_err(|error| encoding(&error))?;
        self.drain();
        Ok(())
    }

    fn drain(&mut self) {
        self.spool.pending.append(self.writer.inner_mut());
        self.buffered = self.writer.memory_size() + self.waiting_bytes;
    }

    /// About how large the file would be.
    pub(super) fn bytes(&self) -> u64 {
        (self.writer.bytes_written() + self.writer.in_progress_size() + self.waiting_bytes) as u64
    }

    /// Whether it has a file on disk.
    pub(super) fn spilled(&self) -> bool {
        self.spool.file.is_some()
    }

    /// Writes what is encoded, once it is worth a system call.
    pub(super) fn spill(&mut self) -> Result<(), SinkError> {
        if self.spool.pending.len() < SPILL_BYTES {
            return Ok(());
        }
        self.spool.flush().map_err(|error| passing("write", &self.spool.path, &error))
    }

    /// Encodes the rest, in memory.
    pub(super) fn close(mut self, metadata: Vec<KeyValue>) -> Result<ClosedFile, SinkError> {
        self.encode()?;
        for entry in metadata {
            self.writer.append_key_value_metadata(entry);
        }
        let mut spool = self.spool;
        spool.pending.append(&mut self.writer.into_inner().map_err(|error| encoding(&error))?);
        Ok(ClosedFile { folder: self.folder, spool, durable: false, target: None })
    }
}

/// What the rows take in memory, without what their buffers hold beside them.
fn bytes_of(rows: &RecordBatch) -> usize {
    rows.columns().iter().map(|column| column.to_data().get_slice_memory_size().unwrap_or(0)).sum()
}

/// A complete file, that nobody sees yet.
pub(super) struct ClosedFile {
    /// Below the sink's folder.
    pub(super) folder: PathBuf,
    /// Where it will be seen, once that is known.
    pub(super) target: Option<PathBuf>,
    spool: Spool,
    durable: bool,
}

impl ClosedFile {
    /// Brings it to disk for good.
    pub(super) fn settle(&mut self) -> Result<(), SinkError> {
        if self.durable {
            return Ok(());
        }
        let path = &self.spool.path.clone();
        self.spool.flush().map_err(|error| passing("write", path, &error))?;
        let file = self.spool.file.as_ref().expect("a spool that was flushed has its file");
        file.sync_all().map_err(|error| lost(path, &error))?;
        (self.durable, self.spool.file) = (true, None);
        Ok(())
    }

    /// Shows it at its target, in one step.
    pub(super) fn publish(&self, target: &Path) -> Result<(), SinkError> {
        fs::rename(&self.spool.path, target).map_err(|error| passing("rename a finished file to", target, &error))
    }
}

/// Folders that were made or changed, whose entries are not known to be durable.
#[derive(Debug, Default)]
pub(super) struct Folders(BTreeSet<PathBuf>);

impl Folders {
    /// Makes a folder and all above it that are missing.
    pub(super) fn create(&mut self, folder: &Path) -> Result<(), SinkError> {
        let missing: Vec<&Path> = folder.ancestors().take_while(|path| !path.is_dir()).collect();
        for path in missing.into_iter().rev().filter(|path| !path.as_os_str().is_empty()) {
            match fs::create_dir(path) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists || !path.is_dir() => {
                    return Err(passing("create the folder", path, &error));
                }
                _ => self.changed(parent(path)),
            }
        }
        Ok(())
    }

    /// A name in it was added.
    pub(super) fn changed(&mut self, folder: &Path) {
        if !self.0.contains(folder) {
            self.0.insert(folder.to_owned());
        }
    }

    /// Makes the names durable.
    pub(super) fn sync(&mut self) -> Result<(), SinkError> {
        while let Some(folder) = self.0.first() {
            let file = File::open(folder).map_err(|error| passing("open the folder", folder, &error))?;
            file.sync_all().map_err(|error| lost(folder, &error))?;
            self.0.pop_first();
        }
        Ok(())
    }
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// A full disk, a read-only folder, a missing mount: it may pass.
pub(super) fn passing(what: &str, path: &Path, error: &io::Error) -> SinkError {
    SinkError::Retry(format!("cannot {what} `{}`: {error}", path.display()))
}

/// After a failed fsync the system may have thrown the bytes away and call the next fsync a success, so there is nothing
/// to try again.
fn lost(path: &Path, error: &io::Error) -> SinkError {
    SinkError::Fatal(format!("cannot make `{}` durable: {error}", path.display()))
}

fn encoding(error: &::parquet::errors::ParquetError) -> SinkError {
    SinkError::Fatal(format!("cannot encode rows as parquet: {error}"))
}
