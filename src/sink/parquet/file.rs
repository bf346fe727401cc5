//! Files on their way: encoded in memory, spilled to disk, closed, made durable, renamed.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use ::parquet::arrow::ArrowWriter;
use ::parquet::file::metadata::KeyValue;
use arrow::array::{Array, RecordBatch};
use arrow::compute::concat_batches;

use crate::sink::{PreparedFile, SinkError};

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
        let rows = self.rows as u64;
        Ok(ClosedFile { folder: self.folder, rows, spool, durable: false, target: None })
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
    rows: u64,
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

    /// What is to be published, once it is durable and has a target.
    pub(super) fn prepared(&self) -> Option<PreparedFile> {
        let to = self.target.clone()?;
        Some(PreparedFile { from: self.spool.path.clone(), to, bytes: self.spool.flushed, rows: self.rows })
    }
}

/// A full disk, a read-only folder, a missing mount: it may pass.
pub(crate) fn passing(what: &str, path: &Path, error: &io::Error) -> SinkError {
    SinkError::Retry(format!("cannot {what} `{}`: {error}", path.display()))
}

/// After a failed fsync the system may have thrown the bytes away and call the next fsync a success, so there is nothing
/// to try again.
pub(crate) fn lost(path: &Path, error: &io::Error) -> SinkError {
    SinkError::Fatal(format!("cannot make `{}` durable: {error}", path.display()))
}

fn encoding(error: &::parquet::errors::ParquetError) -> SinkError {
    SinkError::Fatal(format!("cannot encode rows as parquet: {error}"))
}
