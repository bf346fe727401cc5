//! The open sink: rows to files, files to their names.
//!
//! What becomes of a row is a function of the rows before it and of the barriers, never of how they came in batches, of
//! restarts or of a clock. Two things make it so. Partitions are opened and closed in the order of rows: a batch is split
//! only up to the row for which there is no room. And memory and the size of files are looked at after a fixed amount of
//! rows of an epoch, where batches are cut.

use std::collections::{HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;

use ::parquet::file::metadata::KeyValue;
use arrow::array::RecordBatch;
use arrow::compute::cast;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;

use crate::flow::message::Epoch;
use crate::flow::schema::StreamSchema;
use crate::flow::state::{Part, Restored};
use crate::sink::parquet::bounds::Bounds;
use crate::sink::parquet::carry::{Carried, Place};
use crate::sink::parquet::file::{ClosedFile, OpenFile};
use crate::sink::parquet::keys::{Share, Split, Splitter};
use crate::sink::parquet::recipe::Recipe;
use crate::sink::parquet::spec::{ParquetSpec, Roll, stored};
use crate::sink::parquet::tmp::Tmp;
use crate::sink::parquet::{part, weight};
use crate::sink::{Sink, SinkContext, SinkError, Unpublished};

/// The open sink.
pub(super) struct ParquetSink {
    root: PathBuf,
    tmp: Tmp,
    context: SinkContext,
    /// The shape of the rows as they come.
    input: SchemaRef,
    splitter: Splitter,
    /// How files are written, with the shape of the rows in them.
    recipe: Arc<Recipe>,
    roll: Option<Roll>,
    max_partitions: usize,
    pub(super) bounds: Bounds,
    /// Files that take rows, by partition.
    open: HashMap<Box<[u8]>, OpenFile>,
    /// Files that wait for the commit, in the order in which they were closed.
    closed: VecDeque<ClosedFile>,
    /// How many files of the epoch that is being committed were named, by folder.
    named: HashMap<PathBuf, u32>,
    /// The next row.
    place: Place,
    /// Rows and bytes of the epoch since memory was looked at.
    unchecked: (usize, usize),
}

impl ParquetSink {
    /// Makes the folder, and removes what an earlier run of this sink had not committed.
    pub(super) fn open(spec: &ParquetSpec, context: &SinkContext, input: &StreamSchema) -> Result<Self, SinkError> {
        let splitter = spec.splitter(input).map_err(|faults| {
            SinkError::Fatal(faults.into_iter().map(|fault| fault.what).collect::<Vec<_>>().join("; "))
        })?;
        let body = splitter.body(&input.columns).map_err(|error| refused(&error))?;
        let recipe = Arc::new(spec.recipe(stored(&body)));
        Ok(Self {
            root: spec.path.clone(),
            tmp: Tmp::open(&spec.path, context)?,
            context: context.clone(),
            input: input.columns.clone(),
            splitter,
            recipe,
            roll: spec.roll,
            max_partitions: spec.max_partitions,
            bounds: Bounds::default(),
            open: HashMap::new(),
            closed: VecDeque::new(),
            named: HashMap::new(),
            place: Place { epoch: context.epoch, row: 0 },
            unchecked: (0, 0),
        })
    }

    /// Writes to disk what earlier calls left in memory. Fails before anything new is taken.
    fn settle(&mut self) -> Result<(), SinkError> {
        self.open.values_mut().try_for_each(|file| file.spill(&mut self.tmp))?;
        self.closed.iter_mut().try_for_each(|file| file.settle(&mut self.tmp))
    }

    /// Takes rows, in memory.
    fn take(&mut self, rows: &RecordBatch) -> Result<(), SinkError> {
        let split = self.splitter.split(rows, self.roll.is_some()).map_err(|error| refused(&error))?;
        let mut start = 0;
        while start < rows.num_rows() {
            while self.open.len() >= self.max_partitions && !self.open.contains_key(split.id(start)) {
                self.close_least_used()?;
            }
            let room = self.max_partitions.saturating_sub(self.open.len());
            let shares = split.shares(start, room, |id| self.open.contains_key(id));
            let (end, shares) = shares.map_err(|error| refused(&error))?;
            for share in &shares {
                self.append(&split, share)?;
            }
            start = end;
        }
        self.place.row += rows.num_rows() as u64;
        Ok(())
    }

    /// Takes rows of one partition, and ends its file wherever that is full.
    fn append(&mut self, split: &Split, share: &Share) -> Result<(), SinkError> {
        let rows = split.take(share).map_err(|error| refused(&error))?;
        let body = self.body(&rows).map_err(|error| refused(&error))?;
        let mut start = 0;
        while start < rows.num_rows() {
            let row = share.row(start);
            let place = |row: usize| Place { row: self.place.row + row as u64, ..self.place };
            if !self.open.contains_key(split.id(row)) {
                let folder = self.splitter.folder(split, row).map_err(|error| refused(&error))?;
                let file = self.begin(folder, place(row));
                self.open.insert(split.id(row).into(), file);
            }
            let file = self.open.get_mut(split.id(row)).expect("it was opened just now");
            let until_full = self.roll.and_then(|roll| roll.rows).map_or(usize::MAX, |max| max - file.rows.min(max));
            let len = (rows.num_rows() - start).min(file.room()).min(until_full.max(1));
            file.append(&body.slice(start, len))?;
            file.used = place(share.row(start + len - 1));
            if let Some(roll) = self.roll {
                file.hold(rows.slice(start, len));
                if roll.has_rows(file) {
                    self.close(&[split.id(row).into()])?;
                }
            }
            start += len;
        }
        Ok(())
    }

    /// The columns that are stored, in the types that are stored.
    fn body(&self, rows: &RecordBatch) -> Result<RecordBatch, ArrowError> {
        let body = if self.roll.is_some() { self.splitter.body_of(rows)? } else { rows.clone() };
        self.stored(&body)
    }

    fn stored(&self, body: &RecordBatch) -> Result<RecordBatch, ArrowError> {
        let columns = body.columns().iter().zip(self.recipe.schema.fields()).map(|(column, field)| {
            if column.data_type() == field.data_type() { Ok(column.clone()) } else { cast(column, field.data_type()) }
        });
        RecordBatch::try_new(self.recipe.schema.clone(), columns.collect::<Result<_, _>>()?)
    }

    fn begin(&self, folder: PathBuf, opened: Place) -> OpenFile {
        OpenFile::new(folder, opened, self.tmp.file(opened), self.recipe.clone(), self.bounds.encode_rows)
    }

    fn close_least_used(&mut self) -> Result<(), SinkError> {
        let least = self.open.iter().min_by_key(|(_, file)| file.used).map(|(id, _)| id.clone());
        self.close(least.as_slice())
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

    /// The files that are due, in the order of their folders.
    fn due(&self, due: impl Fn(&OpenFile) -> bool) -> Vec<Box<[u8]>> {
        let mut ids: Vec<_> = self.open.iter().filter(|(_, file)| due(file)).collect();
        ids.sort_by(|a, b| a.1.folder.cmp(&b.1.folder));
        ids.into_iter().map(|(id, _)| id.clone()).collect()
    }

    /// Where the rows came from, and the epoch in which the file becomes visible.
    fn metadata(&self) -> Vec<KeyValue> {
        let entry = |key: &str, value: String| KeyValue::new(format!("streamgauge.{key}"), value);
        vec![
            entry("pipeline", self.context.pipeline.clone()),
            entry("sink", self.context.name.clone()),
            entry("epoch", self.place.epoch.0.to_string()),
        ]
    }

    /// Ends files that are large enough, and brings the memory of the others within its bounds.
    fn check(&mut self) -> Result<(), SinkError> {
        self.close(&self.due(|file| self.roll.is_some_and(|roll| roll.has_bytes(file))))?;
        let mut buffered: usize = self.open.values().map(OpenFile::buffered).sum();
        while buffered > self.bounds.buffered_bytes {
            let largest = self.open.values_mut().max_by_key(|file| (file.buffered(), file.opened));
            let Some(largest) = largest.filter(|file| file.buffered() > 0) else { break };
            buffered -= largest.buffered();
            largest.end_row_group()?;
            if self.roll.is_some() {
                largest.cuts.push(largest.rows);
            }
        }
        let mut held: usize = self.open.values().map(|file| file.held_bytes).sum();
        while held > self.bounds.held_bytes {
            let largest = self.open.iter().max_by_key(|(_, file)| (file.held_bytes, file.opened));
            let Some((id, bytes)) = largest.map(|(id, file)| (id.clone(), file.held_bytes)) else { break };
            held -= bytes;
            self.close(&[id])?;
        }
        Ok(())
    }

    /// Whether the file is closed at the barrier that ends this epoch.
    fn is_due(&self, file: &OpenFile) -> bool {
        let Some(roll) = self.roll else { return true };
        let epochs = roll.age.map(|age| epochs(age.micros(), self.context.epoch_every.micros()));
        let old = epochs.is_some_and(|epochs| file.opened.epoch.0.saturating_add(epochs) <= self.place.epoch.0 + 1);
        old || roll.has_rows(file) || roll.has_bytes(file) || file.carried.len() >= self.bounds.parts
    }

    /// Gives files their names; those that have one, from a commit that failed half-way, keep it.
    fn name(&mut self, epoch: Epoch) {
        // A `-` in the sink's name would let two sinks of two pipelines have the same file.
        let (pipeline, sink) = (part(&self.context.pipeline), part(&self.context.name).replace('-', "%2D"));
        for file in self.closed.iter_mut().filter(|file| file.target.is_none()) {
            let count = self.named.entry(file.folder.clone()).or_default();
            let name = format!("part-{pipeline}-{sink}-{}-{:08}-{count}.parquet", self.context.run, epoch.0);
            *count += 1;
            file.target = Some(self.root.join(&file.folder).join(name));
        }
    }

    /// What carries the rows of open files over the barrier, the oldest file first.
    fn parts(&mut self) -> Result<Vec<Part>, ArrowError> {
        let mut files: Vec<_> = self.open.values_mut().collect();
        files.sort_by_key(|file| file.opened);
        let mut parts = Vec::new();
        for file in files {
            parts.extend(file.carried.iter().map(Part::same));
            if let Some(carried) = Carried::of(file, self.place.epoch, &self.input)? {
                let part = carried.part()?;
                file.carried.push(part.name.clone());
                parts.push(part);
            }
            (file.held, file.held_bytes, file.cuts) = (Vec::new(), 0, Vec::new());
        }
        Ok(parts)
    }

    /// Writes what a part carries into its file again, as it was written before.
    fn take_back(&mut self, name: &str, part: &Carried, ids: &mut HashMap<Place, Box<[u8]>>) -> Result<(), SinkError> {
        let whole = self.splitter.split(&part.rows, true).map_err(|error| refused(&error))?;
        if part.rows.num_rows() > 0 {
            let (end, _) = whole.shares(0, 1, |_| false).map_err(|error| refused(&error))?;
            let id = ids.entry(part.opened).or_insert_with(|| whole.id(0).into());
            if end < part.rows.num_rows() || **id != *whole.id(0) {
                return Err(SinkError::Fatal(format!(
                    "part `{name}` of the checkpoint has rows of several folders: run the pipeline with the \
                     `partition_by` that it had, and stop it, which closes its files; then change it"
                )));
            }
            if !self.open.contains_key(id) {
                let folder = self.splitter.folder(&whole, 0).map_err(|error| refused(&error))?;
                let file = self.begin(folder, part.opened);
                self.open.insert(id.clone(), file);
            }
        }
        let body = self.splitter.body_of(&part.rows).and_then(|body| self.stored(&body));
        let body = body.map_err(|error| refused(&error))?;
        let file = ids.get(&part.opened).and_then(|id| self.open.get_mut(id)).filter(|file| file.opened == part.opened);
        let Some(file) = file else {
            return Err(SinkError::Fatal(format!("part `{name}` of the checkpoint belongs to no file")));
        };
        let first = file.rows;
        for cut in part.cuts.iter().map(|cut| cut.saturating_sub(first).min(body.num_rows())) {
            file.append(&body.slice(file.rows - first, cut.saturating_sub(file.rows - first)))?;
            file.end_row_group()?;
        }
        let done = file.rows - first;
        file.append(&body.slice(done, body.num_rows() - done))?;
        file.used = part.used;
        file.carried.push(name.to_owned());
        // Where the disk is full, the bytes stay in memory, and the next write says so.
        let _ = file.spill(&mut self.tmp);
        Ok(())
    }
}

impl Roll {
    fn has_rows(&self, file: &OpenFile) -> bool {
        self.rows.is_some_and(|rows| rows <= file.rows)
    }

    /// Asked only at certain rows of the stream, as the size of a file is not known of each of its rows.
    fn has_bytes(&self, file: &OpenFile) -> bool {
        self.bytes.is_some_and(|bytes| bytes <= file.bytes())
    }
}

/// How many epochs, begun ones too, make an age.
fn epochs(age_micros: i64, every_micros: i64) -> u64 {
    age_micros.unsigned_abs().div_ceil(every_micros.unsigned_abs().max(1)).max(1)
}

impl Sink for ParquetSink {
    fn write(&mut self, batch: &RecordBatch) -> Result<(), SinkError> {
        self.settle()?;
        let mut rest = batch.clone();
        while rest.num_rows() > 0 {
            let (rows, bytes) = self.unchecked;
            let (rows_max, bytes_max) = (self.bounds.check_rows - rows, self.bounds.check_bytes - bytes);
            let (len, weight) = weight::first(&rest, rows_max, bytes_max);
            self.take(&rest.slice(0, len))?;
            self.unchecked = (rows + len, bytes + weight);
            if len == rows_max || weight >= bytes_max {
                self.check()?;
                self.unchecked = (0, 0);
            }
            rest = rest.slice(len, rest.num_rows() - len);
        }
        Ok(())
    }

    fn prepare(&mut self, epoch: Epoch, last: bool) -> Result<Unpublished, SinkError> {
        self.place.epoch = epoch;
        self.close(&self.due(|file| last || self.is_due(file)))?;
        self.settle()?;
        self.name(epoch);
        if !self.closed.is_empty() {
            self.tmp.sync()?;
        }
        let parts = self.parts().map_err(|error| refused(&error))?;
        let mut files: Vec<_> = self.closed.drain(..).filter_map(ClosedFile::prepared).collect();
        files.sort_by(|a, b| a.to.cmp(&b.to));
        self.named.clear();
        self.place = Place { epoch: epoch.next(), row: 0 };
        self.unchecked = (0, 0);
        Ok(Unpublished { files, parts })
    }

    fn restore(&mut self, parts: &[Restored]) -> Result<(), SinkError> {
        let read = |part: &Restored| Ok((part.0.clone(), Carried::read(part, &self.input)?));
        let mut parts = parts.iter().map(read).collect::<Result<Vec<_>, SinkError>>()?;
        parts.sort_by_key(|(_, part)| (part.opened, part.epoch));
        let mut ids = HashMap::new();
        for (name, part) in &parts {
            self.take_back(name, part, &mut ids)?;
        }
        // Only where `roll` was changed.
        self.close(&self.due(|file| self.roll.is_some_and(|roll| roll.has_rows(file))))
    }
}

fn refused(error: &ArrowError) -> SinkError {
    SinkError::Fatal(format!("cannot split rows by partition: {error}"))
}
