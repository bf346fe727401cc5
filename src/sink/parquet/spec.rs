//! The settings of a `parquet` sink, and what they mean for a schema.

use std::path::PathBuf;
use std::sync::Arc;

use ::parquet::basic::{Compression, ZstdLevel};
use arrow::datatypes::{DataType, Field, Schema};

use crate::component::{ByteSize, Fault, Name, Settings};
use crate::flow::schema::{StreamSchema, timestamp_type};
use crate::flow::time::Span;
use crate::sink::parquet::keys::{KeySpec, Splitter};
use crate::sink::parquet::recipe::Recipe;
use crate::sink::parquet::writer::ParquetSink;
use crate::sink::{Sink, SinkContext, SinkError, SinkSpec};

/// Rows of a row group, where nothing else is said.
const ROW_GROUP_ROWS: usize = 1_000_000;
/// Files that take rows at the same time, where nothing else is said.
const MAX_PARTITIONS: usize = 256;
/// Levels of zstd.
const ZSTD_LEVELS: std::ops::RangeInclusive<i32> = 1..=22;

/// A `parquet` sink as it is written in the pipeline file.
#[derive(Clone, Debug)]
pub(super) struct ParquetSpec {
    pub(super) path: PathBuf,
    partition_by: Vec<KeySpec>,
    /// As written, for people.
    compression_text: String,
    compression: Compression,
    pub(super) roll: Option<Roll>,
    row_group_rows: usize,
    /// Over it the file whose last row is the oldest is closed early, and its next row begins another.
    pub(super) max_partitions: usize,
}

/// Files are kept open over commits until one of these is reached. At least one is set.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Roll {
    pub(super) rows: Option<usize>,
    /// Looked at after every so many rows of an epoch, and at barriers.
    pub(super) bytes: Option<u64>,
    /// Counted in epochs, begun ones too, never by a clock.
    pub(super) age: Option<Span>,
}

/// Reads the table.
pub(super) fn parse(settings: &mut Settings) -> Option<Box<dyn SinkSpec>> {
    read(settings).map(|spec| Box::new(spec) as _)
}

/// As `parse`, as what it is.
pub(super) fn read(settings: &mut Settings) -> Option<ParquetSpec> {
    let faults = settings.faults_len();
    let path: Option<Name> = settings.required("path");
    if let Some(path) = path.as_ref().filter(|path| path.text.is_empty()) {
        settings.fault(path.fault("`path`: expected a folder, got an empty string"));
    }
    let mut partition_by = Vec::new();
    for text in settings.or::<Vec<Name>>("partition_by", Vec::new()) {
        match KeySpec::parse(text) {
            Ok(key) => partition_by.push(key),
            Err(fault) => settings.fault(fault),
        }
    }
    let compression: Option<Name> = settings.optional("compression");
    let compression_text = compression.as_ref().map_or("zstd(1)", |name| name.text.as_str()).to_owned();
    let codec = read_compression(&compression_text);
    if let (Err(what), Some(name)) = (&codec, &compression) {
        settings.fault(name.fault(what.clone()).nearest(&name.text, ["zstd", "snappy", "lz4", "none"]));
    }
    let roll = read_roll(settings);
    let row_group_rows = settings.or("row_group_rows", ROW_GROUP_ROWS);
    let max_partitions = settings.or("max_partitions", MAX_PARTITIONS);
    if settings.faults_len() > faults {
        return None;
    }
    Some(ParquetSpec {
        path: PathBuf::from(path?.text),
        partition_by,
        compression_text,
        compression: codec.ok()?,
        roll,
        row_group_rows,
        max_partitions,
    })
}

fn read_roll(settings: &mut Settings) -> Option<Roll> {
    let mut table = settings.table("roll")?;
    let faults = table.faults_len();
    let (rows, bytes, age) = (table.optional("rows"), table.optional::<ByteSize>("bytes"), table.optional("age"));
    table.finish();
    if rows.is_none() && bytes.is_none() && age.is_none() && table.faults_len() == faults {
        table.fault(Fault::new(table.at.clone(), "`roll`: expected at least one of `rows`, `bytes` and `age`"));
    }
    Some(Roll { rows, bytes: bytes.map(|size| size.0), age })
}

fn read_compression(text: &str) -> Result<Compression, String> {
    let wrong = || format!("`compression`: expected \"zstd(1)\", \"snappy\", \"lz4\" or \"none\", got \"{text}\"");
    match text {
        "snappy" => return Ok(Compression::SNAPPY),
        "lz4" => return Ok(Compression::LZ4_RAW),
        "none" => return Ok(Compression::UNCOMPRESSED),
        "zstd" => return Ok(Compression::ZSTD(ZstdLevel::default())),
        _ => {}
    }
    let level = text.strip_prefix("zstd(").and_then(|rest| rest.strip_suffix(')')).ok_or_else(wrong)?;
    let level: i32 = level.trim().parse().map_err(|_| wrong())?;
    if !ZSTD_LEVELS.contains(&level) {
        return Err(format!("`compression`: levels of zstd are 1 to 22, got {level}"));
    }
    ZstdLevel::try_new(level).map(Compression::ZSTD).map_err(|_| wrong())
}

impl ParquetSpec {
    /// How rows are split by folder.
    pub(super) fn splitter(&self, input: &StreamSchema) -> Result<Splitter, Vec<Fault>> {
        Splitter::bind(&self.partition_by, input)
    }

    /// How files of these columns are written.
    pub(super) fn recipe(&self, schema: Schema) -> Recipe {
        Recipe {
            schema: Arc::new(schema),
            compression: self.compression,
            row_group_rows: self.row_group_rows,
            file_rows: self.roll.and_then(|roll| roll.rows),
        }
    }
}

/// The same columns in the types that every reader knows: times in microseconds UTC, plain strings.
pub(super) fn stored(schema: &Schema) -> Schema {
    let field = |field: &Arc<Field>| Field::new(field.name(), stored_type(field.data_type()), field.is_nullable());
    Schema::new(schema.fields().iter().map(field).collect::<Vec<_>>())
}

fn stored_type(kind: &DataType) -> DataType {
    match kind {
        DataType::Timestamp(..) => timestamp_type(),
        DataType::LargeUtf8 | DataType::Utf8View => DataType::Utf8,
        DataType::LargeBinary | DataType::BinaryView => DataType::Binary,
        DataType::Dictionary(_, value) => stored_type(value),
        DataType::Float16 => DataType::Float32,
        DataType::Date64 => DataType::Date32,
        other => other.clone(),
    }
}

/// Types that have no place in a Parquet file.
fn unknown_to_parquet(kind: &DataType) -> bool {
    matches!(kind, DataType::Interval(_) | DataType::Duration(_) | DataType::Union(..) | DataType::RunEndEncoded(..))
}

impl SinkSpec for ParquetSpec {
    fn check(&self, input: &StreamSchema) -> Vec<Fault> {
        let mut faults = self.splitter(input).err().unwrap_or_default();
        for field in input.columns.fields().iter().filter(|field| unknown_to_parquet(field.data_type())) {
            let what = format!("column `{}` is {}, which Parquet has not", field.name(), field.data_type());
            faults.push(Fault::new(0..0, what).help("cast it in a `derive` operator"));
        }
        faults
    }

    fn describe(&self) -> String {
        let mut text = format!("parquet files in `{}`", self.path.display());
        if !self.partition_by.is_empty() {
            let keys: Vec<_> = self.partition_by.iter().map(KeySpec::as_str).collect();
            text = format!("{text} by {}", keys.join(", "));
        }
        text = format!("{text}, {}", self.compression_text);
        let Some(roll) = self.roll else { return format!("{text}, visible at every epoch") };
        let bounds = [
            roll.rows.map(|rows| format!("{rows} rows")),
            roll.bytes.map(|bytes| ByteSize(bytes).to_string()),
            roll.age.map(|age| age.to_string()),
        ];
        format!("{text}, rolled at {}", bounds.into_iter().flatten().collect::<Vec<_>>().join(" or "))
    }

    fn open(&self, context: &SinkContext, input: &StreamSchema) -> Result<Box<dyn Sink>, SinkError> {
        Ok(Box::new(ParquetSink::open(self, context, input)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::schema::dead_letter_schema;

    fn faults(text: &str) -> Vec<String> {
        let (mut settings, faults) = Settings::of(text);
        let spec = (super::parse)(&mut settings);
        settings.finish();
        if let Some(spec) = spec {
            faults.borrow_mut().extend(spec.check(&dead_letter_schema()));
        }
        let faults = faults.borrow();
        faults.iter().map(|fault| format!("{} | {}", fault.what, fault.help.as_deref().unwrap_or(""))).collect()
    }

    #[test]
    fn good_settings_are_described() {
        let (mut settings, faults) = Settings::of(
            "path = 'out'\npartition_by = ['source', 'date(arrival)', 'hour( arrival )']\ncompression = 'lz4'\nroll = { rows = 5, age = '5m' }",
        );
        let spec = super::parse(&mut settings).unwrap();
        settings.finish();
        assert_eq!(*faults.borrow(), []);
        assert_eq!(spec.check(&dead_letter_schema()), []);
        assert_eq!(
            spec.describe(),
            "parquet files in `out` by source, date(arrival), hour( arrival ), lz4, rolled at 5 rows or 5m"
        );
    }

    #[test]
    fn faults_say_what_to_do() {
        assert_eq!(
            faults("path = 'o'\npartition_by = ['sorce']"),
            ["`partition_by`: no column `sorce` | did you mean `source`?"]
        );
        assert_eq!(
            faults("path = 'o'\npartition_by = ['arrival']"),
            ["`partition_by`: `arrival` would make a folder for every time | write `date(arrival)` or `hour(arrival)`"]
        );
        assert!(
            faults("path = 'o'\npartition_by = ['day(arrival)']")[0].starts_with("`partition_by`: no function `day`")
        );
        assert!(faults("path = 'o'\npartition_by = ['date(source)']")[0].contains("date needs a time"));
        assert!(faults("path = 'o'\npartition_by = ['source', 'source']")[0].contains("two folders"));
        assert!(faults("path = 'o'\ncompression = 'zstd(99)'")[0].contains("1 to 22, got 99"));
        assert!(faults("path = 'o'\nroll = {}")[0].contains("at least one of"));
        assert!(faults("path = 'o'\nroll = { row = 1 }")[0].contains("unknown key `row`"));
        assert!(faults("partition_by = []")[0].contains("`path` is missing"));
    }
}
