//! Files on their way: encoded in memory, spilled to disk, closed, made durable.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ::parquet::file::metadata::KeyValue;
use arrow::array::RecordBatch;
use arrow::compute::concat_batches;

use crate::disk::DiskFile;
use crate::sink::parquet::carry::Place;
use crate::sink::parquet::recipe::{Encoder, Recipe};
use crate::sink::parquet::tmp::Tmp;
use crate::sink::parquet::weight::weight;
use crate::sink::{PreparedFile, SinkError};

/// Encoded bytes of one file that are gathered before they go to disk.
pub(super) const SPILL_BYTES: usize = 1 << 20;

/// Encoded bytes, of which a known-good beginning is on disk. A failed write loses nothing: it is cut off, and what it
/// was to write is kept.
#[derive(Debug)]
struct Spool {
    path: PathBuf,
    /// Held until everything is durable, so that a file is never opened twice.
    file: Option<Box<dyn DiskFile>>,
    /// Bytes that are on disk for sure.
    flushed: u64,
    pending: Vec<u8>,
}

impl Spool {
    fn flush(&mut self, tmp: &mut Tmp) -> io::Result<&dyn DiskFile> {
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(tmp.create(&self.path)?),
        };
        if !self.pending.is_empty() {
            if let Err(error) = file.write_at(&self.pending, self.flushed) {
                // Gives the space of the torn part back, for others; writing starts at the same place in any case.
                let _ = file.set_len(self.flushed);
                return Err(error);
            }
            self.flushed += self.pending.len() as u64;
            self.pending = Vec::new();
        }
        Ok(&**file)
    }
}

/// A file that takes rows.
pub(super) struct OpenFile {
    /// Below the sink's folder.
    pub(super) folder: PathBuf,
    /// Its first row.
    pub(super) opened: Place,
    /// Its last row.
    pub(super) used: Place,
    pub(super) rows: usize,
    /// The rows of this epoch, with all their columns, where they may have to be carried over the barrier.
    pub(super) held: Vec<RecordBatch>,
    pub(super) held_bytes: usize,
    /// After how many of its rows a row group was ended early, in this epoch.
    pub(super) cuts: Vec<usize>,
    /// The parts that carry the rows of epochs before.
    pub(super) carried: Vec<String>,
    /// Rows that are handed to the encoder at once: always so many, but for the last of a file or row group. It decides at
    /// the end of each hand-over whether a page is full, so bytes would depend on how rows came otherwise.
    encode_rows: usize,
    /// Fewer than that, not handed over yet.
    waiting: Vec<RecordBatch>,
    waiting_rows: usize,
    waiting_bytes: usize,
    recipe: Arc<Recipe>,
    /// From the first hand-over on, whose rows decide how columns are encoded.
    encoder: Option<Encoder>,
    spool: Spool,
}

impl OpenFile {
    pub(super) fn new(folder: PathBuf, opened: Place, path: PathBuf, recipe: Arc<Recipe>, encode_rows: usize) -> Self {
        Self {
            folder,
            opened,
            used: opened,
            rows: 0,
            held: Vec::new(),
            held_bytes: 0,
            cuts: Vec::new(),
            carried: Vec::new(),
            encode_rows,
            waiting: Vec::new(),
            waiting_rows: 0,
            waiting_bytes: 0,
            recipe,
            encoder: None,
            spool: Spool { path, file: None, flushed: 0, pending: Vec::new() },
        }
    }

    /// How many rows it takes until the next hand-over.
    pub(super) fn room(&self) -> usize {
        self.encode_rows - self.waiting_rows
    }

    /// Takes rows, in memory.
    pub(super) fn append(&mut self, rows: &RecordBatch) -> Result<(), SinkError> {
        let mut start = 0;
        while start < rows.num_rows() {
            let slice = rows.slice(start, self.room().min(rows.num_rows() - start));
            start += slice.num_rows();
            self.rows += slice.num_rows();
            self.waiting_rows += slice.num_rows();
            self.waiting_bytes += weight(&slice);
            self.waiting.push(slice);
            if self.room() == 0 {
                self.encode()?;
            }
        }
        Ok(())
    }

    /// Keeps rows that `append` took, with all their columns, for the barrier.
    pub(super) fn hold(&mut self, rows: RecordBatch) {
        self.held_bytes += weight(&rows);
        self.held.push(rows);
    }

    /// Hands what waits to the encoder.
    fn encode(&mut self) -> Result<(), SinkError> {
        let all = self.waiting_rows < self.encode_rows;
        (self.waiting_rows, self.waiting_bytes) = (0, 0);
        let waiting = std::mem::take(&mut self.waiting);
        let rows = match waiting.as_slice() {
            [] if self.encoder.is_some() => return Ok(()),
            [rows] => rows.clone(),
            more => concat_batches(&self.recipe.schema, more).map_err(|error| encoding(&error.into()))?,
        };
        let encoder = match &mut self.encoder {
            Some(encoder) => encoder,
            none => none.insert(self.recipe.begin(&rows, all).map_err(|error| encoding(&error))?),
        };
        encoder.write(&rows, &mut self.spool.pending).map_err(|error| encoding(&error))
    }

    /// Ends the row group early, so that its rows cost no more memory than their encoded form.
    pub(super) fn end_row_group(&mut self) -> Result<(), SinkError> {
        self.encode()?;
        let encoder = self.encoder.as_mut();
        encoder
            .map_or(Ok(()), |encoder| encoder.end_row_group(&mut self.spool.pending))
            .map_err(|error| encoding(&error))
    }

    /// Memory held by rows that are not encoded to the end.
    pub(super) fn buffered(&self) -> usize {
        self.encoder.as_ref().map_or(0, Encoder::memory) + self.waiting_bytes
    }

    /// About how large the file would be.
    pub(super) fn bytes(&self) -> u64 {
        (self.encoder.as_ref().map_or(0, Encoder::bytes) + self.waiting_bytes) as u64
    }

    /// Writes what is encoded, once it is worth a system call.
    pub(super) fn spill(&mut self, tmp: &mut Tmp) -> Result<(), SinkError> {
        if self.spool.pending.len() < SPILL_BYTES {
            return Ok(());
        }
        self.spool.flush(tmp).map(drop).map_err(|error| passing("write", &self.spool.path, &error))
    }

    /// Encodes the rest, in memory.
    pub(super) fn close(mut self, metadata: Vec<KeyValue>) -> Result<ClosedFile, SinkError> {
        self.encode()?;
        let mut spool = self.spool;
        let finished = self.encoder.map_or(Ok(()), |encoder| encoder.finish(metadata, &mut spool.pending));
        finished.map_err(|error| encoding(&error))?;
        let rows = self.rows as u64;
        Ok(ClosedFile { folder: self.folder, rows, spool, durable: false, target: None })
    }
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
    /// Brings its bytes to disk for good.
    pub(super) fn settle(&mut self, tmp: &mut Tmp) -> Result<(), SinkError> {
        if self.durable {
            return Ok(());
        }
        let path = self.spool.path.clone();
        let file = self.spool.flush(tmp).map_err(|error| passing("write", &path, &error))?;
        file.sync().map_err(|error| lost(&path, &error))?;
        (self.durable, self.spool.file) = (true, None);
        Ok(())
    }

    /// What is to be published, once it is durable and has a target.
    pub(super) fn prepared(self) -> Option<PreparedFile> {
        Some(PreparedFile { from: self.spool.path, to: self.target?, bytes: self.spool.flushed, rows: self.rows })
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
