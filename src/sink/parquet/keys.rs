//! `partition_by`: which folder a row goes to, and batches split by folder.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, UInt32Array};
use arrow::compute::{cast, take_record_batch};
use arrow::datatypes::{DataType, Int64Type, SchemaRef, TimestampMicrosecondType};
use arrow::error::ArrowError;
use arrow::row::{RowConverter, Rows, SortField};
use arrow::util::display::{ArrayFormatter, FormatOptions};

use crate::component::{Fault, Name};
use crate::flow::schema::StreamSchema;
use crate::sink::json_rows::push_date;
use crate::sink::partition::PartitionValue;

const DAY_MICROS: i64 = 86_400_000_000;
const HOUR_MICROS: i64 = 3_600_000_000;

/// One entry of `partition_by` as it is written: `site`, `date(window_start)`, `hour(window_start)`.
#[derive(Clone, Debug)]
pub(super) struct KeySpec {
    text: Name,
    part: Part,
    /// Where in the text the column's name is.
    column: Range<usize>,
}

/// What of the column's value makes the folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Whole,
    /// The day, in UTC: `2026-11-25`.
    Date,
    /// The hour of the day, in UTC: `00` to `23`.
    Hour,
}

/// An entry of `partition_by` with its column found.
#[derive(Clone, Debug)]
struct Key {
    /// The part of the path before `=`.
    name: String,
    column: usize,
    part: Part,
}

impl KeySpec {
    pub(super) fn parse(text: Name) -> Result<Self, Fault> {
        let whole = text.text.as_str();
        let Some(open) = whole.find('(') else {
            let column = 0..whole.len();
            return if whole.is_empty() {
                Err(text.fault("`partition_by`: an empty name"))
            } else {
                Ok(Self { part: Part::Whole, column, text })
            };
        };
        let function = whole[..open].trim();
        let part = match function {
            "date" => Part::Date,
            "hour" => Part::Hour,
            _ => {
                let what = format!("`partition_by`: no function `{function}`: known are date and hour");
                return Err(text.fault_within(0..open, what).nearest(function, ["date", "hour"]));
            }
        };
        let Some(inner) = whole[open + 1..].strip_suffix(')') else {
            return Err(text.fault(format!("`partition_by`: `{whole}` does not end with `)`")));
        };
        let start = open + 1 + (inner.len() - inner.trim_start().len());
        let column = start..start + inner.trim().len();
        if column.is_empty() {
            return Err(text.fault(format!("`partition_by`: `{function}` of which column")));
        }
        Ok(Self { part, column, text })
    }

    pub(super) fn as_str(&self) -> &str {
        &self.text.text
    }

    fn column(&self) -> &str {
        &self.text.text[self.column.clone()]
    }

    /// What stands before `=` in the path.
    fn name(&self) -> &str {
        match self.part {
            Part::Whole => self.column(),
            Part::Date => "date",
            Part::Hour => "hour",
        }
    }

    fn fault(&self, what: impl Into<String>) -> Fault {
        self.text.fault_within(self.column.clone(), what)
    }

    fn bind(&self, input: &StreamSchema) -> Result<Key, Fault> {
        let Some(column) = input.index_of(self.column()) else {
            let what = format!("`partition_by`: no column `{}`", self.column());
            return Err(self.fault(what).nearest(self.column(), input.names()));
        };
        let kind = input.columns.field(column).data_type();
        let time = matches!(kind, DataType::Timestamp(..));
        match self.part {
            Part::Date | Part::Hour if !time => Err(self.fault(format!(
                "`partition_by`: `{}` is {kind}, and {} needs a time",
                self.column(),
                self.name()
            ))),
            Part::Whole if time => Err(self
                .fault(format!("`partition_by`: `{}` would make a folder for every time", self.column()))
                .help(format!("write `date({0})` or `hour({0})`", self.column()))),
            Part::Whole if !foldable(kind) => Err(self.fault(format!(
                "`partition_by`: `{}` is {kind}: folders are made of text, whole numbers, true and false",
                self.column()
            ))),
            part => {
                let name = PartitionValue::new(Some(self.name().as_bytes())).to_string();
                Ok(Key { name, column, part })
            }
        }
    }
}

/// Types of few values that are written in one way.
fn foldable(kind: &DataType) -> bool {
    kind.is_integer()
        || matches!(
            kind,
            DataType::Boolean
                | DataType::Utf8
                | DataType::LargeUtf8
                | DataType::Utf8View
                | DataType::Binary
                | DataType::Date32
        )
}

/// Splits batches by folder.
#[derive(Debug)]
pub(super) struct Splitter {
    keys: Vec<Key>,
    converter: RowConverter,
    /// The columns that go into the files.
    body: Vec<usize>,
}

/// The rows of one batch that go to one folder.
pub(super) struct Folder {
    /// A row of the batch that goes there too.
    row: usize,
    /// The rows, without the columns that stand in the path.
    pub(super) rows: RecordBatch,
}

/// A batch, split.
pub(super) struct Split {
    keys: Vec<ArrayRef>,
    rows: Option<Rows>,
    pub(super) parts: Vec<Folder>,
}

impl Split {
    /// What tells the part's folder from others.
    pub(super) fn id(&self, part: &Folder) -> &[u8] {
        self.rows.as_ref().map_or(&[], |rows| rows.row(part.row).data())
    }
}

impl Splitter {
    /// For rows of this shape, or what is wrong about the keys.
    pub(super) fn bind(specs: &[KeySpec], input: &StreamSchema) -> Result<Self, Vec<Fault>> {
        let (mut keys, mut faults): (Vec<Key>, Vec<Fault>) = (Vec::new(), Vec::new());
        for spec in specs {
            match spec.bind(input) {
                Ok(key) if keys.iter().any(|other| other.name == key.name) => {
                    faults.push(spec.text.fault(format!("`partition_by`: two folders named `{}`", spec.name())));
                }
                Ok(key) => keys.push(key),
                Err(fault) => faults.push(fault),
            }
        }
        let in_path = |column: usize| keys.iter().any(|key| key.part == Part::Whole && key.column == column);
        let body: Vec<usize> = (0..input.columns.fields().len()).filter(|column| !in_path(*column)).collect();
        for spec in specs.iter().filter(|spec| spec.part != Part::Whole) {
            if body.iter().any(|column| input.columns.field(*column).name() == spec.name()) {
                let what = format!("`partition_by`: the folder `{0}=` would hide the column `{0}`", spec.name());
                faults.push(spec.text.fault(what));
            }
        }
        if let (true, true, Some(spec)) = (faults.is_empty(), body.is_empty(), specs.first()) {
            faults.push(spec.text.fault("`partition_by`: no column is left for the files"));
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        let field = |key: &Key| match key.part {
            Part::Whole => SortField::new(input.columns.field(key.column).data_type().clone()),
            Part::Date | Part::Hour => SortField::new(DataType::Int64),
        };
        let converter = RowConverter::new(keys.iter().map(field).collect()).map_err(|error| {
            specs.iter().map(|spec| spec.text.fault(format!("`partition_by`: {error}"))).collect::<Vec<_>>()
        })?;
        Ok(Self { keys, converter, body })
    }

    /// The columns that go into the files.
    pub(super) fn body(&self, schema: &SchemaRef) -> Result<SchemaRef, ArrowError> {
        Ok(Arc::new(schema.project(&self.body)?))
    }

    /// Splits a batch; parts in the order of their first rows, rows in the order of the batch.
    pub(super) fn split(&self, batch: &RecordBatch) -> Result<Split, ArrowError> {
        let body = batch.project(&self.body)?;
        if self.keys.is_empty() {
            return Ok(Split { keys: Vec::new(), rows: None, parts: vec![Folder { row: 0, rows: body }] });
        }
        let keys = self.keys.iter().map(|key| key.values(batch)).collect::<Result<Vec<_>, _>>()?;
        let rows = self.converter.convert_columns(&keys)?;
        // Neighbours mostly go to the same folder, so most rows cost one comparison.
        let mut lists: Vec<(usize, Vec<u32>)> = Vec::new();
        let mut known: HashMap<&[u8], usize> = HashMap::new();
        let mut current = 0;
        for row in 0..batch.num_rows() {
            let id = rows.row(row).data();
            if row == 0 || id != rows.row(row - 1).data() {
                current = *known.entry(id).or_insert_with(|| {
                    lists.push((row, Vec::new()));
                    lists.len() - 1
                });
            }
            lists[current].1.push(u32::try_from(row).map_err(|_| ArrowError::ComputeError("too many rows".into()))?);
        }
        drop(known);
        let single = lists.len() == 1;
        let part = |(row, list): (usize, Vec<u32>)| {
            let rows = if single { body.clone() } else { take_record_batch(&body, &UInt32Array::from(list))? };
            Ok(Folder { row, rows })
        };
        let parts = lists.into_iter().map(part).collect::<Result<Vec<_>, ArrowError>>()?;
        Ok(Split { keys, rows: Some(rows), parts })
    }

    /// The folder of a part, below the sink's.
    pub(super) fn folder(&self, split: &Split, part: &Folder) -> Result<PathBuf, ArrowError> {
        let mut path = PathBuf::new();
        for (key, values) in self.keys.iter().zip(&split.keys) {
            path.push(format!("{}={}", key.name, key.value(values, part.row)?));
        }
        Ok(path)
    }
}

impl Key {
    /// The column, or the days or hours of it.
    fn values(&self, batch: &RecordBatch) -> Result<ArrayRef, ArrowError> {
        let column = batch.column(self.column);
        let whole: fn(i64) -> i64 = match self.part {
            Part::Whole => return Ok(column.clone()),
            Part::Date => |micros| micros.div_euclid(DAY_MICROS),
            Part::Hour => |micros| micros.rem_euclid(DAY_MICROS) / HOUR_MICROS,
        };
        let micros = cast(column, &crate::flow::schema::timestamp_type())?;
        let values: Int64Array = micros.as_primitive::<TimestampMicrosecondType>().unary(whole);
        Ok(Arc::new(values))
    }

    fn value(&self, values: &ArrayRef, row: usize) -> Result<PartitionValue, ArrowError> {
        if values.is_null(row) {
            return Ok(PartitionValue::new(None));
        }
        let mut text = String::new();
        match self.part {
            Part::Date => push_date(&mut text, values.as_primitive::<Int64Type>().value(row)),
            Part::Hour => write!(text, "{:02}", values.as_primitive::<Int64Type>().value(row))
                .expect("writing to a string never fails"),
            Part::Whole if *values.data_type() == DataType::Binary => {
                return Ok(PartitionValue::new(Some(values.as_binary::<i32>().value(row))));
            }
            Part::Whole => {
                text = ArrayFormatter::try_new(values.as_ref(), &FormatOptions::new())?.value(row).to_string();
            }
        }
        Ok(PartitionValue::new(Some(text.as_bytes())))
    }
}
