//! The open sink: rows to files, files to their names.

use std::collections::{HashMap, VecDeque};
use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use ::parquet::arrow::ArrowWriter;
use ::parquet::arrow::arrow_writer::ArrowWriterOptions;
use ::parquet::file::metadata::KeyValue;
use ::parquet::file::properties::WriterProperties;
use arrow::array::RecordBatch;
use arrow::compute::cast;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;

use crate::disk::Folders;
use crate::flow::message::Epoch;
use crate::flow::schema::StreamSchema;
use crate::sink::parquet::file::{ClosedFile, OpenFile, lost, passing};
use crate::sink::parquet::keys::{Folder, Split, Splitter};
use crate::sink::parquet::spec::{ParquetSpec, Roll, stored};
use crate::sink::partition::PartitionValue;
use crate::sink::{PreparedFile, Sink, SinkContext, SinkError, Unpublished};

/// Memory of rows that are not encoded to the end, of all files together; over it the largest ends its row group.
const BUFFERED_BYTES_MAX: usize = 256 << 20;
/// Where files are that nobody should see: readers pass over names that begin with `_`.
pub(crate) const TMP: &str = "_tmp";

/// The open sink.
pub(super) struct ParquetSink {
    root: PathBuf,
    /// `PATH/_tmp/PIPELINE/SINK`.
    tmp: PathBuf,
    /// How many files were begun: names under `tmp`.
    begun: u64,
    context: SinkContext,
    splitter: Splitter,
    schema: SchemaRef,
    properties: WriterProperties,
    roll: Option<Roll>,
    max_partitions: usize,
    /// Files that take rows, by partition.
    open: HashMap<Box<[u8]>, OpenFile>,
    /// Files that wait for the commit, in the order in which they were closed.
    closed: VecDeque<ClosedFile>,
    /// How many files of the epoch that is being committed were named, by folder.
    named: HashMap<PathBuf, u32>,
    folders: Folders,
    /// The epoch that rows belong to, known after the first commit.
    epoch: Option<Epoch>,
    batches: u64,
}

impl ParquetSink {
    /// Makes the folder, and removes what an earlier run of this sink had not committed.
    pub(super) fn open(spec: &ParquetSpec, context: &SinkContext, input: &StreamSchema) -> Result<Self, SinkError> {
        let splitter = spec.splitter(input).map_err(|faults| {
            SinkError::Fatal(faults.into_iter().map(|fault| fault.what).collect::<Vec<_>>().join("; "))
        })?;
        let body = splitter.body(&input.columns).map_err(|error| refused(&error))?;
        let schema = Arc::new(stored(&body));
        let properties = spec.properties(&schema);
        let part = |name: &str| PartitionValue::new(Some(name.as_bytes())).to_string();
        let tmp = spec.path.join(TMP).join(part(&context.pipeline)).join(part(&context.name));
        match fs::remove_dir_all(&tmp) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(passing("clear", &tmp, &error)),
            _ => {}
        }
        let mut folders = Folders::default();
        folders
            .create(&*context.disk, &spec.path)
            .map_err(|(path, error)| passing("create the folder", &path, &error))?;
        Ok(Self {
            root: spec.path.clone(),
            tmp,
            begun: 0,
            context: context.clone(),
            splitter,
            schema,
            properties,
            roll: spec.roll,
            max_partitions: spec.max_partitions,
            open: HashMap::new(),
            closed: VecDeque::new(),
            named: HashMap::new(),
            folders,
            epoch: None,
            batches: 0,
        })
    }

    /// Writes to disk what earlier calls left in memory. Fails before anything new is taken.
    fn settle(&mut self) -> Result<(), SinkError> {
        self.open.values_mut().try_for_each(OpenFile::spill)?;
        self.closed.iter_mut().try_for_each(ClosedFile::settle)
    }

    /// The batch's columns in the types that are stored.
    fn stored(&self, batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
        if batch.schema_ref().fields() == self.schema.fields() {
            return Ok(batch.clone());
        }
        let columns = batch.columns().iter().zip(self.schema.fields()).map(|(column, field)| {
            if column.data_type() == field.data_type() { Ok(column.clone()) } else { cast(column, field.data_type()) }
        });
        RecordBatch::try_new(self.schema.clone(), columns.collect::<Result<_, _>>()?)
    }

    /// Takes rows of one partition, in memory.
    fn append(&mut self, split: &Split, part: &Folder) -> Result<(), SinkError> {
        let rows = self.stored(&part.rows).map_err(|error| refused(&error))?;
        let id = split.id(part);
        if !self.open.contains_key(id) {
            if self.open.len() >= self.max_partitions {
                self.close_least_used()?;
            }
            let folder = self.splitter.folder(split, part).map_err(|error| refused(&error))?;
            let file = self.begin(folder)?;
            self.open.insert(id.into(), file);
        }
        let file = self.open.get_mut(id).expect("it was opened just now");
        file.used = self.batches;
        file.append(&rows)?;
        if self.roll.is_some_and(|roll| roll.is_full(file)) {
            self.close(&[id.into()])?;
        }
        Ok(())
    }

    fn begin(&mut self, folder: PathBuf) -> Result<OpenFile, SinkError> {
        let tmp = self.tmp.join(format!("{}.tmp", self.begun));
        self.begun += 1;
        let options = ArrowWriterOptions::new().with_properties(self.properties.clone()).with_skip_arrow_metadata(true);
        let writer = ArrowWriter::try_new_with_options(Vec::new(), self.schema.clone(), options)
            .map_err(|error| SinkError::Fatal(format!("cannot begin a parquet file: {error}")))?;
        Ok(OpenFile::new(folder, tmp, writer))
    }

    fn close_least_used(&mut self) -> Result<(), SinkError> {
        let least = self.open.iter().min_by(|a, b| (a.1.used, &a.1.folder).cmp(&(b.1.used, &b.1.folder)));
        let id = least.map(|(id, _)| id.clone());
        self.close(id.as_slice())
    }

    /// Ends files, in memory, in the order given.
    fn close(&mut self, ids: &[Box<[u8]>]) -> Result<(), SinkError> {
        for id in ids {
            if let Some(file) = self.open.remove(id) {
                let closed = file.close(self.metadata())?;
                self.closed.push_back(closed);
            }
        }
        Ok(())
    }

    /// Where the rows came from. The epoch of a file that was full before the first commit is in its name only.
    fn metadata(&self) -> Vec<KeyValue> {
        let entry = |key: &str, value: String| KeyValue::new(format!("streamgauge.{key}"), value);
        let mut metadata =
            vec![entry("pipeline", self.context.pipeline.clone()), entry("sink", self.context.name.clone())];
        metadata.extend(self.epoch.map(|epoch| entry("epoch", epoch.0.to_string())));
        metadata
    }

    /// Ends row groups until the memory of all is within its bound.
    fn bound_memory(&mut self) -> Result<(), SinkError> {
        let mut buffered: usize = self.open.values().map(|file| file.buffered).sum();
        while buffered > BUFFERED_BYTES_MAX {
            let Some(largest) = self.open.values_mut().max_by_key(|file| file.buffered) else { return Ok(()) };
            buffered -= largest.buffered;
            largest.end_row_group()?;
        }
        Ok(())
    }

    /// Makes files durable: those that are due, or all.
    fn finish(&mut self, epoch: Epoch, all: bool) -> Result<Vec<PreparedFile>, SinkError> {
        self.epoch = Some(epoch);
        let due = |file: &OpenFile| all || self.roll.is_none_or(|roll| roll.is_full(file) || roll.is_old(file));
        let mut ids: Vec<_> = self.open.iter().filter(|(_, file)| due(file)).collect();
        // Names are a function of the rows, so the order may not be the hash table's.
        ids.sort_by(|a, b| a.1.folder.cmp(&b.1.folder));
        let ids: Vec<_> = ids.into_iter().map(|(id, _)| id.clone()).collect();
        self.close(&ids)?;
        self.settle()?;
        self.name(epoch);
        self.folders.sync(&*self.context.disk).map_err(|(path, error)| lost(&path, &error))?;
        self.named.clear();
        self.epoch = Some(epoch.next());
        Ok(self.closed.drain(..).filter_map(|file| file.prepared()).collect())
    }

    /// Gives files their names; those that have one, from a commit that failed half-way, keep it.
    fn name(&mut self, epoch: Epoch) {
        let part = |name: &str| PartitionValue::new(Some(name.as_bytes())).to_string();
        // A `-` in the sink's name would let two sinks of two pipelines have the same file.
        let (pipeline, sink) = (part(&self.context.pipeline), part(&self.context.name).replace('-', "%2D"));
        for file in self.closed.iter_mut().filter(|file| file.target.is_none()) {
            let count = self.named.entry(file.folder.clone()).or_default();
            let name = format!("part-{pipeline}-{sink}-{}-{:08}-{count}.parquet", self.context.run, epoch.0);
            *count += 1;
            file.target = Some(self.root.join(&file.folder).join(name));
        }
    }
}

impl Roll {
    fn is_full(&self, file: &OpenFile) -> bool {
        self.rows.is_some_and(|rows| rows <= file.rows) || self.bytes.is_some_and(|bytes| bytes <= file.bytes())
    }

    fn is_old(&self, file: &OpenFile) -> bool {
        self.age.is_some_and(|age| age.duration() <= file.opened.elapsed())
    }
}

impl Sink for ParquetSink {
    fn write(&mut self, batch: &RecordBatch) -> Result<(), SinkError> {
        self.settle()?;
        if batch.num_rows() == 0 {
            return Ok(());
        }
        self.batches += 1;
        let split = self.splitter.split(batch).map_err(|error| refused(&error))?;
        for part in &split.parts {
            self.append(&split, part)?;
        }
        self.bound_memory()
    }

    fn prepare(&mut self, epoch: Epoch, last: bool) -> Result<Unpublished, SinkError> {
        Ok(Unpublished { files: self.finish(epoch, last)?, parts: Vec::new() })
    }
}

fn refused(error: &ArrowError) -> SinkError {
    SinkError::Fatal(format!("cannot split rows by partition: {error}"))
}
