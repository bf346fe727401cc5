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

/// Rows of a batch, with the folder of each.
pub(super) struct Split {
    keys: Vec<ArrayRef>,
    ids: Option<Rows>,
    rows: RecordBatch,
}

/// Rows of a split batch that go to one folder, in their order.
#[derive(Debug, PartialEq)]
pub(super) enum Share {
    /// Neighbours.
    Run(Range<usize>),
    List(UInt32Array),
}

impl Share {
    fn of(list: Vec<u32>) -> Self {
        match (list.first(), list.last()) {
            (Some(first), Some(last)) if (last - first) as usize + 1 == list.len() => {
                Self::Run(*first as usize..*last as usize + 1)
            }
            _ => Self::List(list.into()),
        }
    }

    /// Where in the batch its row `index` is.
    pub(super) fn row(&self, index: usize) -> usize {
        match self {
            Self::Run(rows) => rows.start + index,
            Self::List(rows) => rows.value(index) as usize,
        }
    }
}

impl Split {
    /// What tells the row's folder from others.
    pub(super) fn id(&self, row: usize) -> &[u8] {
        self.ids.as_ref().map_or(&[], |ids| ids.row(row).data())
    }

    /// Shares of the rows from `start` on, in the order of their first rows, and the row where they end: the first one
    /// whose folder would be one too many, where `room` more beside those that are open are allowed.
    pub(super) fn shares(
        &self,
        start: usize,
        mut room: usize,
        is_open: impl Fn(&[u8]) -> bool,
    ) -> Result<(usize, Vec<Share>), ArrowError> {
        let mut end = self.rows.num_rows();
        let Some(ids) = &self.ids else { return Ok((end, vec![Share::Run(start..end)])) };
        // Neighbours mostly go to the same folder, so most rows cost one comparison.
        let mut lists: Vec<Vec<u32>> = Vec::new();
        let mut known: HashMap<&[u8], usize> = HashMap::new();
        let mut current = 0;
        for row in start..end {
            let id = ids.row(row).data();
            if row == start || id != ids.row(row - 1).data() {
                current = match known.get(id) {
                    Some(list) => *list,
                    None => {
                        if !is_open(id) {
                            if room == 0 {
                                end = row;
                                break;
                            }
                            room -= 1;
                        }
                        known.insert(id, lists.len());
                        lists.push(Vec::new());
                        lists.len() - 1
                    }
                };
            }
            lists[current].push(u32::try_from(row).map_err(|_| ArrowError::ComputeError("too many rows".into()))?);
        }
        Ok((end, lists.into_iter().map(Share::of).collect()))
    }

    /// The rows of a share.
    pub(super) fn take(&self, share: &Share) -> Result<RecordBatch, ArrowError> {
        match share {
            Share::Run(rows) => Ok(self.rows.slice(rows.start, rows.len())),
            Share::List(rows) => take_record_batch(&self.rows, rows),
        }
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

    /// The columns of rows that go into the files.
    pub(super) fn body_of(&self, rows: &RecordBatch) -> Result<RecordBatch, ArrowError> {
        rows.project(&self.body)
    }

    /// Finds the folders of a batch's rows. They keep all their columns if they are wanted `whole`, otherwise those that
    /// go into the files.
    pub(super) fn split(&self, batch: &RecordBatch, whole: bool) -> Result<Split, ArrowError> {
        let rows = if whole { batch.clone() } else { self.body_of(batch)? };
        if self.keys.is_empty() {
            return Ok(Split { keys: Vec::new(), ids: None, rows });
        }
        let keys = self.keys.iter().map(|key| key.values(batch)).collect::<Result<Vec<_>, _>>()?;
        let ids = self.converter.convert_columns(&keys)?;
        Ok(Split { keys, ids: Some(ids), rows })
    }

    /// The folder of a row, below the sink's.
    pub(super) fn folder(&self, split: &Split, row: usize) -> Result<PathBuf, ArrowError> {
        let mut path = PathBuf::new();
        for (key, values) in self.keys.iter().zip(&split.keys) {
            path.push(format!("{}={}", key.name, key.value(values, row)?));
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
