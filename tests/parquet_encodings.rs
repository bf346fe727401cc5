//! How the `parquet` sink encodes columns: chosen by the rows of a file, read by others, the same however rows come.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::process::Command;
use std::rc::Rc;
use std::sync::Arc;

use ::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use ::parquet::basic::Encoding;
use ::parquet::file::reader::{FileReader, SerializedFileReader};
use arrow::array::{
    Array, ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float32Array, Float64Array, Int32Array,
    Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray, UInt8Array, UInt64Array,
};
use arrow::compute::concat_batches;
use proptest::prelude::*;
use streamgauge::component::{Name, Node, Settings, Value};
use streamgauge::disk;
use streamgauge::flow::message::Epoch;
use streamgauge::flow::schema::StreamSchema;
use streamgauge::flow::state::{Part, Restored};
use streamgauge::flow::time::Span;
use streamgauge::sink::{Sink, SinkContext, parquet, publish};

/// 2026-11-25T10:00:00Z.
const TEN: i64 = 1_795_600_800_000_000;

/// `SplitMix64` (Steele, Lea, Flood 2014): a number of row and salt, the same every time.
fn random(row: usize, salt: u64) -> u64 {
    let z = (row as u64).wrapping_add(salt << 40).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

fn stream(rows: &RecordBatch) -> StreamSchema {
    StreamSchema { columns: rows.schema(), time: 0, out_of_orderness: Span::ZERO }
}

/// A sink with settings that are texts or whole numbers.
fn open(path: &Path, input: &StreamSchema, epoch: u64, settings: &[(&str, &str)], roll: Option<i64>) -> Box<dyn Sink> {
    let node = |value| Node { at: 0..0, value, expanded: false };
    let entry = |key: &str, value| (Name { text: key.to_owned(), at: 0..0, expanded: false }, node(value));
    let value = |text: &str| text.parse().map_or_else(|_| Value::String(text.to_owned()), Value::Integer);
    let mut entries = vec![entry("path", Value::String(path.to_str().unwrap().to_owned()))];
    entries.extend(settings.iter().map(|(key, text)| entry(key, value(text))));
    entries.extend(roll.map(|rows| entry("roll", Value::Table(vec![entry("rows", Value::Integer(rows))]))));
    let faults = Rc::new(RefCell::new(Vec::new()));
    let mut settings = Settings::new(0..0, entries, faults.clone());
    let spec = (parquet::KIND.parse)(&mut settings).unwrap();
    settings.finish();
    assert_eq!((faults.borrow().as_slice(), spec.check(input).as_slice()), ([].as_slice(), [].as_slice()));
    let context = SinkContext {
        pipeline: "plant".into(),
        name: "lake".into(),
        run: "r1".into(),
        boards: Arc::default(),
        disk: disk::real(),
        epoch: Epoch(epoch),
        epoch_every: Span::from_secs(10),
    };
    spec.open(&context, input).unwrap()
}

/// The only file that there is.
fn only(root: &Path) -> std::path::PathBuf {
    let names = std::fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = names.filter(|path| path.is_file()).collect();
    assert_eq!(files.len(), 1, "{files:?}");
    files.remove(0)
}

/// Writes rows to one file, handed to the sink in batches of so many.
fn write(root: &Path, rows: &RecordBatch, cut: usize, settings: &[(&str, &str)]) {
    let mut sink = open(root, &stream(rows), 0, settings, None);
    let mut start = 0;
    while start < rows.num_rows() {
        let len = cut.min(rows.num_rows() - start);
        sink.write(&rows.slice(start, len)).unwrap();
        start += len;
    }
    let prepared = sink.prepare(Epoch(0), true).unwrap();
    publish(&*disk::real(), &prepared.files).unwrap();
}

fn read(file: &Path) -> RecordBatch {
    let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(file).unwrap()).unwrap().build().unwrap();
    let batches: Vec<RecordBatch> = reader.map(Result::unwrap).collect();
    concat_batches(&batches[0].schema(), &batches).unwrap()
}

/// Of each column how its values are encoded, in all row groups together; a dictionary is `RLE_DICTIONARY` alone.
fn encodings(file: &Path) -> BTreeMap<String, Vec<Encoding>> {
    let reader = SerializedFileReader::new(File::open(file).unwrap()).unwrap();
    let mut found: BTreeMap<String, Vec<Encoding>> = BTreeMap::new();
    for group in reader.metadata().row_groups() {
        for column in group.columns() {
            let known = found.entry(column.column_path().string()).or_default();
            known.extend(column.page_encoding_stats_mask().unwrap().encodings());
            known.sort();
            known.dedup();
        }
    }
    found
}

/// So many rows of columns of all kinds, with the encoding that each should have in a file of many rows.
fn table(rows: usize) -> Vec<(&'static str, ArrayRef, Encoding)> {
    use Encoding::{BYTE_STREAM_SPLIT, DELTA_BINARY_PACKED, DELTA_BYTE_ARRAY, DELTA_LENGTH_BYTE_ARRAY, PLAIN};
    const DICTIONARY: Encoding = Encoding::RLE_DICTIONARY;
    let ints = |value: &dyn Fn(usize) -> i64| Arc::new(Int64Array::from_iter_values((0..rows).map(value))) as ArrayRef;
    let times = |value: &dyn Fn(usize) -> i64| {
        let micros = (0..rows).map(|row| TEN + value(row));
        Arc::new(TimestampMicrosecondArray::from_iter_values(micros).with_timezone("UTC")) as ArrayRef
    };
    let floats =
        |value: &dyn Fn(usize) -> f64| Arc::new(Float64Array::from_iter_values((0..rows).map(value))) as ArrayRef;
    let texts =
        |value: &dyn Fn(usize) -> String| Arc::new(StringArray::from_iter_values((0..rows).map(value))) as ArrayRef;
    let unit = |row, salt| random(row, salt) as f64 / u64::MAX as f64;
    let below = |row, salt, bound| (random(row, salt) % bound) as i64;
    vec![
        ("ts", times(&|row| row as i64 * 1_000 + below(row, 1, 900)), DELTA_BINARY_PACKED),
        ("window_start", times(&|row| row as i64 / 2_000 * 10_000_000), DICTIONARY),
        ("arrival", times(&|row| row as i64 / 100 * 1_000), DELTA_BINARY_PACKED),
        ("seq", ints(&|row| row as i64), DELTA_BINARY_PACKED),
        ("seq_of_device", ints(&|row| row as i64 / 500 + below(row, 2, 7)), DELTA_BINARY_PACKED),
        ("status", ints(&|row| i64::from(below(row, 3, 100) > 0)), DICTIONARY),
        ("constant", ints(&|_| 7), DICTIONARY),
        ("count", ints(&|row| 95 + below(row, 4, 11)), DICTIONARY),
        ("noise", ints(&|row| random(row, 5) as i64), PLAIN),
        ("hashes", ints(&|row| random(below(row, 6, 500) as usize, 7) as i64), DICTIONARY),
        (
            "climbs",
            Arc::new(UInt64Array::from_iter_values((0..rows).map(|row| u64::MAX - row as u64))),
            DELTA_BINARY_PACKED,
        ),
        ("small", Arc::new(UInt8Array::from_iter_values((0..rows).map(|row| below(row, 8, 200) as u8))), DICTIONARY),
        ("steps", Arc::new(Int32Array::from_iter_values((0..rows).map(|row| row as i32 * 3 - 5))), DELTA_BINARY_PACKED),
        ("day", Arc::new(Date32Array::from_iter_values((0..rows).map(|row| row as i32 / 3))), DELTA_BINARY_PACKED),
        ("temperature", floats(&|row| (1_500 + below(row, 9, 1_500)) as f64 / 100.0), DICTIONARY),
        ("humidity", floats(&|row| (3_000 + below(row, 10, 4_000)) as f64 / 100.0), DICTIONARY),
        (
            "mostly_null",
            Arc::new(Float64Array::from_iter((0..rows).map(|row| (row % 50 == 3).then(|| below(row, 11, 9) as f64)))),
            DICTIONARY,
        ),
        ("noise64", floats(&|row| unit(row, 12) - 0.5), BYTE_STREAM_SPLIT),
        (
            "noise32",
            Arc::new(Float32Array::from_iter_values((0..rows).map(|row| unit(row, 13) as f32))),
            BYTE_STREAM_SPLIT,
        ),
        ("all_null", Arc::new(Int64Array::from_iter((0..rows).map(|_| None::<i64>))), DELTA_BINARY_PACKED),
        ("device", texts(&|row| format!("dev-{:07}", below(row, 14, 10_000))), DICTIONARY),
        ("site", texts(&|row| ["north", "", "süd"][below(row, 15, 3) as usize].to_owned()), DICTIONARY),
        ("id", texts(&|row| format!("{:016x}{:016x}", random(row, 16), random(row, 17))), DELTA_LENGTH_BYTE_ARRAY),
        ("path", texts(&|row| format!("/plants/berlin/hall-7/line-3/frames/{row:08}")), DELTA_BYTE_ARRAY),
        (
            "blob",
            Arc::new(BinaryArray::from_iter_values(
                (0..rows).map(|row| random(row, 18).to_le_bytes()[..row % 9].to_vec()),
            )),
            DELTA_LENGTH_BYTE_ARRAY,
        ),
        (
            "price",
            Arc::new(
                Decimal128Array::from_iter_values((0..rows).map(|row| i128::from(below(row, 19, 500))))
                    .with_precision_and_scale(10, 2)
                    .unwrap(),
            ),
            DICTIONARY,
        ),
        ("ok", Arc::new(BooleanArray::from_iter((0..rows).map(|row| Some(below(row, 20, 3) > 0)))), PLAIN),
    ]
}

fn batch(columns: &[(&'static str, ArrayRef, Encoding)]) -> RecordBatch {
    RecordBatch::try_from_iter_with_nullable(columns.iter().map(|(name, column, _)| (*name, column.clone(), true)))
        .unwrap()
}

#[test]
fn each_column_gets_the_encoding_that_fits_its_values() {
    let columns = table(30_000);
    let rows = batch(&columns);
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), &rows, 8_192, &[]);
    let found = encodings(&only(folder.path()));
    for (name, _, expected) in &columns {
        assert_eq!(found[*name], [*expected], "{name}");
    }
    assert_eq!(read(&only(folder.path())).columns(), rows.columns());
}

#[test]
fn a_file_of_few_rows_decides_on_what_it_has() {
    for rows in [1, 2, 5, 100, 8_191] {
        let rows = batch(&table(rows));
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), &rows, 8_192, &[]);
        assert_eq!(read(&only(folder.path())).columns(), rows.columns());
    }
    // A hundred numbers of which each is there twice: too few for a dictionary of doubles to pay.
    let halves: ArrayRef = Arc::new(Float64Array::from_iter_values((0..100).map(|row| f64::from(row / 2) / 7.0)));
    let ones: ArrayRef = Arc::new(Float64Array::from_iter_values((0..100).map(|row| f64::from(row % 4) / 7.0)));
    let times: ArrayRef =
        Arc::new(TimestampMicrosecondArray::from_iter_values((0..100).map(|row| TEN + row)).with_timezone("UTC"));
    let columns = [
        ("ts", times, Encoding::DELTA_BINARY_PACKED),
        ("halves", halves, Encoding::RLE_DICTIONARY),
        ("ones", ones, Encoding::RLE_DICTIONARY),
    ];
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), &batch(&columns), 7, &[]);
    let found = encodings(&only(folder.path()));
    assert_eq!(
        columns.each_ref().map(|column| found[column.0].clone()),
        columns.each_ref().map(|column| vec![column.2])
    );
}

#[test]
fn what_is_not_compressed_is_not_split_into_bytes() {
    let noise: ArrayRef = Arc::new(Float64Array::from_iter_values((0..9_000).map(|row| random(row, 1) as f64)));
    let times: ArrayRef =
        Arc::new(TimestampMicrosecondArray::from_iter_values((0..9_000).map(|row| TEN + row)).with_timezone("UTC"));
    let rows = RecordBatch::try_from_iter([("ts", times), ("noise", noise)]).unwrap();
    for (compression, expected) in [("none", Encoding::PLAIN), ("lz4", Encoding::BYTE_STREAM_SPLIT)] {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), &rows, 9_000, &[("compression", compression)]);
        assert_eq!(encodings(&only(folder.path()))["noise"], [expected], "{compression}");
    }
}

#[test]
fn a_dictionary_that_outgrows_its_bound_is_given_up_for_what_is_as_good() {
    // Constant as far as is looked, and then all different.
    let value = |row: usize| if row < 10_000 { 0 } else { random(row, 1) };
    let (rows, same) = (250_000_usize, 10_000);
    let climbs = Int64Array::from_iter_values((0..rows).map(|row| row.saturating_sub(same) as i64));
    let noise = Float64Array::from_iter_values((0..rows).map(|row| value(row) as f64));
    let columns: [(_, ArrayRef); 2] = [("climbs", Arc::new(climbs)), ("noise", Arc::new(noise))];
    let rows = RecordBatch::try_from_iter(columns).unwrap();
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), &rows, 65_536, &[]);
    let found = encodings(&only(folder.path()));
    let sorted = |mut known: Vec<Encoding>| {
        known.sort();
        known
    };
    assert_eq!(found["climbs"], sorted(vec![Encoding::RLE_DICTIONARY, Encoding::DELTA_BINARY_PACKED]));
    assert_eq!(found["noise"], sorted(vec![Encoding::RLE_DICTIONARY, Encoding::BYTE_STREAM_SPLIT]));
    assert_eq!(read(&only(folder.path())).columns(), rows.columns());
}

#[test]
fn the_bytes_do_not_depend_on_how_rows_came() {
    let rows = batch(&table(70_000));
    let bytes = |cut: usize| {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), &rows, cut, &[]);
        std::fs::read(only(folder.path())).unwrap()
    };
    let whole = bytes(70_000);
    for cut in [777, 8_192, 65_536] {
        assert!(bytes(cut) == whole, "in batches of {cut}");
    }
    let few = rows.slice(0, 9_000);
    let bytes = |cut: usize| {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), &few, cut, &[]);
        std::fs::read(only(folder.path())).unwrap()
    };
    assert!(bytes(1) == bytes(9_000), "row by row");
}

/// Writes rows in epochs that end after so many rows, into a file that stays open, and starts again after those of
/// `restarts`; gives the bytes of the file.
fn roll(rows: &RecordBatch, ends: &[usize], cut: usize, restarts: &[usize]) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let input = stream(rows);
    let mut sink = open(folder.path(), &input, 0, &[], Some(1_000_000));
    let mut store: Vec<Restored> = Vec::new();
    let mut start = 0;
    for (epoch, end) in ends.iter().enumerate() {
        while start < *end {
            let len = cut.min(end - start);
            sink.write(&rows.slice(start, len)).unwrap();
            start += len;
        }
        let last = epoch + 1 == ends.len();
        let left = sink.prepare(Epoch(epoch as u64), last).unwrap();
        publish(&*disk::real(), &left.files).unwrap();
        let part = |part: Part| match part.rows {
            Some(rows) => (part.name, rows),
            None => store.iter().find(|(name, _)| *name == part.name).unwrap().clone(),
        };
        store = left.parts.into_iter().map(part).collect();
        if restarts.contains(&epoch) {
            sink = open(folder.path(), &input, epoch as u64 + 1, &[], Some(1_000_000));
            sink.restore(&store).unwrap();
        }
    }
    std::fs::read(only(folder.path())).unwrap()
}

#[test]
fn the_bytes_do_not_depend_on_restarts() {
    let rows = batch(&table(30_000));
    // The first two epochs end among the rows that decide, and the third after them.
    let ends = [100, 3_000, 9_000, 30_000];
    let expected = roll(&rows, &ends, 30_000, &[]);
    for (cut, restarts) in [(777, [].as_slice()), (8_192, &[0]), (10_000, &[1]), (999, &[0, 1, 2])] {
        assert!(roll(&rows, &ends, cut, restarts) == expected, "in batches of {cut}, started again after {restarts:?}");
    }
}

/// As our rows are told to others: whole numbers, and texts that have no other way to be written.
const COMPARE: &str = "
import math, struct
def text(value):
    if value is None: return '-'
    if isinstance(value, bool): return str(int(value))
    if isinstance(value, float): return 'nan' if math.isnan(value) else struct.pack('<d', value).hex()
    if isinstance(value, bytes): return 'x' + value.hex()
    if hasattr(value, 'utcoffset'):
        import datetime as d
        assert value.utcoffset() is not None, value
        return str((value - d.datetime(1970, 1, 1, tzinfo=d.timezone.utc)) // d.timedelta(microseconds=1))
    if hasattr(value, 'toordinal'): return str(value.toordinal() - 719163)
    return str(value)
def show(rows):
    import zlib
    out = '\\n'.join('|'.join(map(text, row)) for row in rows)
    print(len(out), zlib.crc32(out.encode()))
";

/// The same of what the sink was given.
fn told(rows: &RecordBatch) -> String {
    use arrow::array::AsArray;
    use arrow::datatypes::{DataType, Float32Type, Float64Type};
    let float = |value: f64| {
        let hex = |bytes: [u8; 8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        if value.is_nan() { "nan".to_owned() } else { hex(value.to_le_bytes()) }
    };
    let one = |column: &ArrayRef, row: usize| match column.data_type() {
        _ if column.is_null(row) => "-".to_owned(),
        DataType::Float64 => float(column.as_primitive::<Float64Type>().value(row)),
        DataType::Float32 => float(f64::from(column.as_primitive::<Float32Type>().value(row))),
        DataType::Binary => {
            let bytes = column.as_binary::<i32>().value(row).iter();
            bytes.fold("x".to_owned(), |text, byte| format!("{text}{byte:02x}"))
        }
        DataType::Boolean => u8::from(column.as_boolean().value(row)).to_string(),
        DataType::Timestamp(..) | DataType::Date32 => {
            let whole = arrow::compute::cast(
                column,
                &if column.data_type() == &DataType::Date32 { DataType::Int32 } else { DataType::Int64 },
            );
            arrow::util::display::array_value_to_string(&whole.unwrap(), row).unwrap()
        }
        _ => arrow::util::display::array_value_to_string(column, row).unwrap(),
    };
    let line = |row| rows.columns().iter().map(|column| one(column, row)).collect::<Vec<_>>().join("|");
    let text = (0..rows.num_rows()).map(line).collect::<Vec<_>>().join("\n");
    let mut crc = flate2::Crc::new();
    crc.update(text.as_bytes());
    format!("{} {}\n", text.chars().count(), crc.sum())
}

/// Runs a script that prints; `None`, said aloud, where a module is missing and this is not CI.
fn python(script: &str, path: &Path) -> Option<String> {
    let out = Command::new("python3").args(["-c", script, path.to_str().unwrap()]).output();
    let missing = match &out {
        Err(_) => true,
        Ok(out) => String::from_utf8_lossy(&out.stderr).contains("ModuleNotFoundError"),
    };
    if missing {
        let ci = std::env::var("CI").as_deref() == Ok("true");
        assert!(!ci, "python3 with duckdb, polars and pyarrow is needed in CI");
        eprintln!("SKIPPED: python3 with duckdb, polars and pyarrow is not here");
        return None;
    }
    let out = out.unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    Some(String::from_utf8(out.stdout).unwrap())
}

#[test]
fn others_read_every_encoding() {
    let rows = 20_000;
    let mut columns = table(rows);
    let special = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -0.0, 0.0, f64::MIN_POSITIVE, 1e300];
    let often = |row: usize| special[row * row % 7];
    let seldom = |row: usize| if row.is_multiple_of(97) { special[row % 7] } else { random(row, 30) as f64 / 3.0 };
    columns.push(("special", Arc::new(Float64Array::from_iter_values((0..rows).map(often))), Encoding::RLE_DICTIONARY));
    columns.push((
        "seldom",
        Arc::new(Float64Array::from_iter_values((0..rows).map(seldom))),
        Encoding::BYTE_STREAM_SPLIT,
    ));
    // Every kind again, with nulls.
    let names = ["n0", "n1", "n2", "n3", "n4", "n5", "n6", "n7", "n8", "n9", "n10", "n11", "n12", "n13"];
    let nulls = BooleanArray::from_iter((0..rows).map(|row| Some(random(row, 31).is_multiple_of(3))));
    let kinds = [
        "ts",
        "seq",
        "status",
        "noise",
        "climbs",
        "day",
        "temperature",
        "noise64",
        "noise32",
        "device",
        "id",
        "path",
        "blob",
        "price",
    ];
    let again = names.iter().zip(kinds).map(|(name, kind)| {
        let (_, column, encoding) = columns.iter().find(|column| column.0 == kind).unwrap();
        (*name, arrow::compute::nullif(column, &nulls).unwrap(), *encoding)
    });
    columns.extend(again.collect::<Vec<_>>());
    let rows = batch(&columns);
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), &rows, 8_192, &[]);
    let file = only(folder.path());
    let found = encodings(&file);
    for (name, _, expected) in &columns {
        assert_eq!(found[*name], [*expected], "{name}");
    }
    let scripts = [
        "import sys, duckdb\nduckdb.sql(\"SET TimeZone='UTC'\")\nshow(duckdb.sql(f\"SELECT * FROM '{sys.argv[1]}'\").fetchall())",
        "import sys, polars\nshow(polars.read_parquet(sys.argv[1]).rows())",
        "import sys, pyarrow.parquet as pq\nshow(row.values() for row in pq.read_table(sys.argv[1]).to_pylist())",
    ];
    let expected = told(&rows);
    for script in scripts {
        let Some(out) = python(&format!("{COMPARE}{script}"), &file) else { return };
        assert_eq!(out, expected, "{script}");
    }
}

/// A column of so many rows: of what kind, of how many distinct values, in runs of what length, how many of ten are null.
fn column(rows: usize, (kind, values, run, nulls, salt): (u8, u64, usize, u64, u64)) -> ArrayRef {
    let at = |row: usize| {
        let valid = random(row, salt + 1) % 10 >= nulls;
        valid.then(|| random((random(row / run, salt) % values) as usize, salt + 2))
    };
    let walk = |row: usize| at(row).map(|value| row as i64 * 10 + (value % values) as i64);
    let rows = 0..rows;
    match kind {
        0 => Arc::new(Int64Array::from_iter(rows.map(|row| at(row).map(|value| value as i64)))),
        1 => Arc::new(Int64Array::from_iter(rows.map(walk))),
        2 => Arc::new(Int32Array::from_iter(rows.map(|row| at(row).map(|value| value as i32 % 1_000)))),
        3 => Arc::new(Float64Array::from_iter(rows.map(|row| at(row).map(f64::from_bits)))),
        4 => Arc::new(Float32Array::from_iter(rows.map(|row| at(row).map(|value| (value % 10_000) as f32 / 8.0)))),
        5 => Arc::new(StringArray::from_iter(rows.map(|row| at(row).map(|value| "x".repeat((value % 20) as usize))))),
        6 => Arc::new(StringArray::from_iter(rows.map(|row| at(row).map(|value| format!("{row:020}-{value}"))))),
        7 => Arc::new(BinaryArray::from_iter(
            rows.map(|row| at(row).map(|value| value.to_le_bytes()[..(value % 9) as usize].to_vec())),
        )),
        _ => Arc::new(TimestampMicrosecondArray::from_iter(rows.map(walk)).with_timezone("UTC")),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn any_columns_come_back_whatever_the_batches_and_restarts(
        rows in prop_oneof![1_usize..50, 1_usize..20_000],
        kinds in prop::collection::vec((0_u8..9, prop_oneof![1_u64..20, 1_u64..30_000], 1_usize..40, 0_u64..11, 0_u64..1_000), 1..4),
        cut in 1_usize..9_000,
        ends in prop::collection::vec(0_usize..20_000, 0..3),
        restarts in prop::collection::vec(0_usize..3, 0..3),
    ) {
        let time = column(rows, (8, 5, 1, 0, 9));
        let names = ["a", "b", "c"];
        let columns = names.iter().zip(&kinds).map(|(name, kind)| (*name, column(rows, *kind), true));
        let rows = RecordBatch::try_from_iter_with_nullable([("ts", time, true)].into_iter().chain(columns)).unwrap();
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), &rows, cut, &[]);
        let back = read(&only(folder.path()));
        prop_assert_eq!(back.columns(), rows.columns());
        let mut ends: Vec<usize> = ends.into_iter().map(|end| end.min(rows.num_rows())).chain([rows.num_rows()]).collect();
        ends.sort_unstable();
        prop_assert!(roll(&rows, &ends, cut, &restarts) == roll(&rows, &ends, 20_000, &[]));
    }
}
