//! Rows of files that stay open over a barrier, as the parts that carry them.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;

use crate::flow::message::Epoch;
use crate::flow::state::{Part, Restored};
use crate::sink::SinkError;
use crate::sink::parquet::file::OpenFile;

/// Metadata of a part's schema: the file's first row.
const OPENED: &str = "streamgauge.opened";
/// The epoch that brought the rows.
const EPOCH: &str = "streamgauge.epoch";
/// The file's last row.
const USED: &str = "streamgauge.used";
/// After how many rows of the file its row groups were ended early, in this epoch.
const CUTS: &str = "streamgauge.row_groups";

/// A row of the stream: its epoch, and its number among the epoch's rows. A function of the stream, so that what it names
/// or decides is the same for any batches and restarts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Place {
    pub(super) epoch: Epoch,
    pub(super) row: u64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08}-{}", self.epoch.0, self.row)
    }
}

impl FromStr for Place {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (epoch, row) = text.split_once('-').ok_or(())?;
        Ok(Self { epoch: Epoch(epoch.parse().map_err(drop)?), row: row.parse().map_err(drop)? })
    }
}

/// What one epoch brought to a file that stays open.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Carried {
    pub(super) opened: Place,
    pub(super) epoch: Epoch,
    pub(super) used: Place,
    pub(super) cuts: Vec<usize>,
    pub(super) rows: RecordBatch,
}

impl Carried {
    /// Of an open file at the barrier that ends `epoch`; `None` where the epoch brought nothing.
    pub(super) fn of(file: &OpenFile, epoch: Epoch, schema: &SchemaRef) -> Result<Option<Self>, ArrowError> {
        if file.held.is_empty() && file.cuts.is_empty() {
            return Ok(None);
        }
        let schema = file.held.first().map_or(schema, |rows| rows.schema_ref());
        let rows = concat_batches(schema, &file.held)?;
        Ok(Some(Self { opened: file.opened, epoch, used: file.used, cuts: file.cuts.clone(), rows }))
    }

    pub(super) fn part(&self) -> Result<Part, ArrowError> {
        let mut metadata = self.rows.schema_ref().metadata().clone();
        let cuts: Vec<String> = self.cuts.iter().map(usize::to_string).collect();
        let entries = [
            (OPENED, self.opened.to_string()),
            (EPOCH, self.epoch.0.to_string()),
            (USED, self.used.to_string()),
            (CUTS, cuts.join(",")),
        ];
        metadata.extend(entries.map(|(key, value)| (key.to_owned(), value)));
        let schema = self.rows.schema_ref().as_ref().clone().with_metadata(metadata);
        let rows = RecordBatch::try_new(Arc::new(schema), self.rows.columns().to_vec())?;
        Ok(Part::changed(format!("{}-{:08}", self.opened, self.epoch.0), rows))
    }

    /// Reads a part back; its rows must have the columns of `schema`.
    pub(super) fn read((name, rows): &Restored, schema: &SchemaRef) -> Result<Self, SinkError> {
        let shape = |schema: &SchemaRef| {
            let columns = schema.fields().iter().map(|field| format!("{} {}", field.name(), field.data_type()));
            columns.collect::<Vec<_>>().join(", ")
        };
        let (theirs, ours) = (shape(rows.schema_ref()), shape(schema));
        if theirs != ours {
            return Err(SinkError::Fatal(format!(
                "the checkpoint has rows of open files with the columns ({theirs}), and the sink takes ({ours}): run the \
                 pipeline as it was, and stop it, which closes its files; then change it"
            )));
        }
        let metadata = rows.schema_ref().metadata();
        let broken = |key| SinkError::Fatal(format!("part `{name}` of the checkpoint has no `{key}` that can be read"));
        let cuts = metadata.get(CUTS).map(|cuts| cuts.split_terminator(',').map(str::parse).collect());
        Ok(Self {
            opened: metadata.get(OPENED).and_then(|text| text.parse().ok()).ok_or_else(|| broken(OPENED))?,
            epoch: metadata.get(EPOCH).and_then(|text| text.parse().ok()).map(Epoch).ok_or_else(|| broken(EPOCH))?,
            used: metadata.get(USED).and_then(|text| text.parse().ok()).ok_or_else(|| broken(USED))?,
            cuts: cuts.and_then(|cuts: Result<_, _>| cuts.ok()).ok_or_else(|| broken(CUTS))?,
            rows: rows.clone(),
        })
    }
}
