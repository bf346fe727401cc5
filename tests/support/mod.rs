//! What several tests share: the binary, rows of a folder of Parquet files, comparing them with what was computed
//! elsewhere.
#![allow(dead_code, unreachable_pub, missing_docs, reason = "each test uses a part of it")]

pub mod authority;
pub mod chance;
pub mod committed;
pub mod connect;
pub mod crash;
pub mod fake_broker;
pub mod journal;
pub mod mosquitto;
pub mod numbered;
pub mod parts;
pub mod planted;
pub mod points;
pub mod process;
pub mod proxy;
pub mod publisher;
pub mod slow;
pub mod small_disk;
pub mod tree;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use arrow::array::cast::AsArray;
use arrow::array::types::{Float64Type, Int32Type, Int64Type, TimestampMicrosecondType, UInt8Type, UInt64Type};
use arrow::array::{Array, ArrayRef};
use arrow::datatypes::{DataType, TimeUnit};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::{Map, Value, json};

pub type Row = Map<String, Value>;

/// A file of the project.
pub fn project(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// A folder or file of the public data, which are no part of the project: `STREAMGAUGE_DATA` names their folder,
/// `../shared/data` is looked at otherwise. Where it is not there, says so.
pub fn public_data(name: &str) -> Option<PathBuf> {
    let folder = std::env::var_os("STREAMGAUGE_DATA").map_or_else(|| project("../shared/data"), PathBuf::from);
    let path = folder.join(name);
    if !path.exists() {
        eprintln!("SKIPPED: {} is not there", path.display());
        return None;
    }
    Some(path)
}

/// The binary.
pub fn streamgauge() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_streamgauge"));
    command.env("NO_COLOR", "1");
    command
}

/// Runs it, and shows what it said if it did not go well.
pub fn succeed(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}\n{}\n{out}\n{err}", output.status);
    output
}

/// Lines of JSON objects.
pub fn json_lines(path: &Path) -> Vec<Row> {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// All rows of all Parquet files below a folder, partition columns as text.
pub fn parquet_rows(folder: &Path) -> Vec<Row> {
    let mut rows = Vec::new();
    for path in parquet_files(folder) {
        let mut partition = Row::new();
        for part in path.strip_prefix(folder).unwrap().parent().unwrap().iter() {
            let (key, value) = part.to_str().unwrap().split_once('=').unwrap();
            partition.insert(key.to_owned(), json!(value));
        }
        let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(&path).unwrap()).unwrap().build().unwrap();
        for batch in reader {
            let batch = batch.unwrap();
            for row in 0..batch.num_rows() {
                let mut object = partition.clone();
                for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
                    object.insert(field.name().clone(), value(column, row));
                }
                rows.push(object);
            }
        }
    }
    rows
}

/// Every visible Parquet file below a folder.
pub fn parquet_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for entry in entries {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            if name.starts_with(['_', '.']) {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
            } else if name.ends_with(".parquet") {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}

fn value(column: &ArrayRef, row: usize) -> Value {
    if column.is_null(row) {
        return Value::Null;
    }
    match column.data_type() {
        DataType::Timestamp(TimeUnit::Microsecond, Some(zone)) => {
            assert_eq!(&**zone, "UTC");
            let micros = column.as_primitive::<TimestampMicrosecondType>().value(row);
            let at = jiff::Timestamp::from_microsecond(micros).unwrap();
            json!(at.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string())
        }
        DataType::Utf8 => json!(column.as_string::<i32>().value(row)),
        DataType::Binary => json!(String::from_utf8_lossy(column.as_binary::<i32>().value(row))),
        DataType::Boolean => json!(column.as_boolean().value(row)),
        DataType::Float64 => json!(column.as_primitive::<Float64Type>().value(row)),
        DataType::Int32 => json!(column.as_primitive::<Int32Type>().value(row)),
        DataType::Int64 => json!(column.as_primitive::<Int64Type>().value(row)),
        DataType::UInt8 => json!(column.as_primitive::<UInt8Type>().value(row)),
        DataType::UInt64 => json!(column.as_primitive::<UInt64Type>().value(row)),
        other => panic!("no reading of {other} here"),
    }
}

/// Both have the same rows, in any order, as far as the columns of the expected ones go.
pub fn assert_same_rows(what: &str, expected: &[Row], mut actual: Vec<Row>) {
    let mut missing = Vec::new();
    for row in expected {
        match actual.iter().position(|candidate| fits(row, candidate)) {
            Some(index) => drop(actual.swap_remove(index)),
            None => missing.push(row),
        }
    }
    assert!(
        missing.is_empty() && actual.is_empty(),
        "{what}: {} rows are missing, {} are too many\nmissing: {:?}\ntoo many: {:?}",
        missing.len(),
        actual.len(),
        missing.iter().take(3).collect::<Vec<_>>(),
        actual.iter().take(3).collect::<Vec<_>>(),
    );
}

fn fits(expected: &Row, actual: &Row) -> bool {
    expected.iter().all(|(name, expected)| {
        let Some(actual) = actual.get(name) else { return false };
        match (expected, actual) {
            (Value::Object(range), actual) => {
                let within =
                    |actual: f64| range["min"].as_f64().unwrap() <= actual && actual <= range["max"].as_f64().unwrap();
                actual.as_f64().is_some_and(within)
            }
            (Value::Number(a), Value::Number(b)) if a.is_f64() || b.is_f64() => {
                let (a, b) = (a.as_f64().unwrap(), b.as_f64().unwrap());
                (a - b).abs() <= 1e-9 * a.abs().max(b.abs()).max(1.0)
            }
            (a, b) => a == b,
        }
    })
}

/// Whether a test that needs something that is not there may be passed over: never in CI.
pub fn skip(why: &str) {
    assert!(std::env::var_os("CI").is_none(), "CI must not pass this over: {why}");
    eprintln!("SKIPPED: {why}");
}
