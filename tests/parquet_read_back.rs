//! What the `parquet` sink writes, read by others; and what it does when it cannot write.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema};
use streamgauge::component::{Name, Node, Settings, Value};
use streamgauge::disk;
use streamgauge::flow::message::Epoch;
use streamgauge::flow::schema::{StreamSchema, timestamp_type};
use streamgauge::flow::time::Span;
use streamgauge::sink::{Sink, SinkContext, SinkError, parquet, publish};

/// 2026-11-25T10:00:00Z.
const TEN: i64 = 1_795_600_800_000_000;
const HOUR: i64 = 3_600_000_000;

fn node(value: Value) -> Node {
    Node { at: 0..0, value, expanded: false }
}

fn entry(key: &str, value: Value) -> (Name, Node) {
    (Name { text: key.to_owned(), at: 0..0, expanded: false }, node(value))
}

fn schema() -> StreamSchema {
    let columns = Schema::new(vec![
        Field::new("site", DataType::Utf8, true),
        Field::new("device", DataType::Utf8, false),
        Field::new("window_start", timestamp_type(), false),
        Field::new("samples", DataType::Int64, false),
        Field::new("temp", DataType::Float64, true),
    ]);
    StreamSchema { columns: Arc::new(columns), time: 2, out_of_orderness: Span::ZERO }
}

type Line<'a> = (Option<&'a str>, &'a str, i64, i64, Option<f64>);

fn rows(rows: &[Line<'_>]) -> RecordBatch {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter(rows.iter().map(|row| row.0))),
        Arc::new(StringArray::from_iter_values(rows.iter().map(|row| row.1))),
        Arc::new(TimestampMicrosecondArray::from_iter_values(rows.iter().map(|row| row.2)).with_timezone("UTC")),
        Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.3))),
        Arc::new(Float64Array::from_iter(rows.iter().map(|row| row.4))),
    ];
    RecordBatch::try_new(schema().columns, columns).unwrap()
}

fn open(path: &Path, more: Vec<(Name, Node)>) -> Result<Box<dyn Sink>, SinkError> {
    let faults = Rc::new(RefCell::new(Vec::new()));
    let mut entries = vec![entry("path", Value::String(path.to_str().unwrap().to_owned()))];
    entries.extend(more);
    let mut settings = Settings::new(0..0, entries, faults.clone());
    let spec = (parquet::KIND.parse)(&mut settings).unwrap();
    settings.finish();
    assert_eq!((faults.borrow().as_slice(), spec.check(&schema()).as_slice()), ([].as_slice(), [].as_slice()));
    let context = SinkContext {
        pipeline: "plant".into(),
        name: "lake".into(),
        run: "r1".into(),
        boards: Arc::default(),
        disk: disk::real(),
        epoch: Epoch(0),
        epoch_every: Span::from_secs(10),
    };
    spec.open(&context, &schema())
}

/// Ends an epoch as a run without a state folder does.
fn commit(sink: &mut dyn Sink, epoch: Epoch, last: bool) -> Result<(), SinkError> {
    let prepared = sink.prepare(epoch, last)?;
    publish(&*disk::real(), &prepared.files)
}

fn partitioned() -> Vec<(Name, Node)> {
    let keys = ["site", "date(window_start)", "hour(window_start)"];
    vec![entry("partition_by", Value::Array(keys.map(|key| node(Value::String(key.into()))).to_vec()))]
}

fn roll(rows: i64) -> Vec<(Name, Node)> {
    vec![entry("roll", Value::Table(vec![entry("rows", Value::Integer(rows))]))]
}

fn files(root: &Path) -> Vec<String> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            if entry.path().is_dir() { walk(&entry.path(), found) } else { found.push(entry.path()) }
        }
    }
    let mut found = Vec::new();
    walk(root, &mut found);
    let mut names: Vec<_> =
        found.iter().map(|path| path.strip_prefix(root).unwrap().to_str().unwrap().to_owned()).collect();
    names.sort();
    names
}

/// Runs a script that prints; `None`, said aloud, where a module is missing and this is not CI.
fn python(script: &str, path: &Path) -> Option<String> {
    let out = Command::new("python3").args(["-c", script, path.to_str().unwrap()]).output();
    let missing = match &out {
        Err(_) => true,
        Ok(out) => String::from_utf8_lossy(&out.stderr).contains("ModuleNotFoundError"),
    };
    if missing {
        assert!(
            std::env::var("CI").as_deref() != Ok("true"),
            "python3 with duckdb, polars and pyarrow is needed in CI"
        );
        eprintln!("SKIPPED: python3 with duckdb, polars and pyarrow is not here");
        return None;
    }
    let out = out.unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    Some(String::from_utf8(out.stdout).unwrap())
}

fn hostile() -> RecordBatch {
    rows(&[
        (Some("berlin"), "d1", TEN, 1, Some(20.5)),
        (Some("../../etc"), "d2", TEN + 1, i64::MAX, None),
        (None, "d3", TEN + HOUR, 3, Some(-0.25)),
        (Some("berlin"), "ü\"", TEN + 2, 4, Some(1e300)),
    ])
}

const EXPECTED: &str = "../../etc|2026-11-25|10|d2|1795600800000001|9223372036854775807|None\n\
                        None|2026-11-25|11|d3|1795604400000000|3|-0.25\n\
                        berlin|2026-11-25|10|d1|1795600800000000|1|20.5\n\
                        berlin|2026-11-25|10|ü\"|1795600800000002|4|1e+300\n";

const PRINT: &str = "
import datetime as d
def show(rows):
    e = d.datetime(1970, 1, 1, tzinfo=d.timezone.utc)
    out = []
    for s, day, h, dev, t, n, x in rows:
        assert t.tzinfo is not None, t
        out.append('|'.join(map(str, [s, day, int(h), dev, (t - e) // d.timedelta(microseconds=1), n, x])))
    print('\\n'.join(sorted(out)))
";

#[test]
fn duckdb_polars_and_pyarrow_read_what_was_written() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("a/b");
    let mut sink = open(&root, partitioned()).unwrap();
    sink.write(&hostile()).unwrap();
    assert_eq!(files(&root), [] as [&str; 0], "nothing is visible before the commit");
    commit(&mut *sink, Epoch(7), false).unwrap();
    let name = "part-plant-lake-r1-00000007-0.parquet";
    assert_eq!(
        files(&root),
        [
            format!("site=%2E.%2F..%2Fetc/date=2026-11-25/hour=10/{name}"),
            format!("site=__HIVE_DEFAULT_PARTITION__/date=2026-11-25/hour=11/{name}"),
            format!("site=berlin/date=2026-11-25/hour=10/{name}"),
        ]
    );
    assert!(!root.join("_tmp").exists());
    let duckdb = "
import sys, duckdb
duckdb.sql(\"SET TimeZone='UTC'\")
cols = 'site, date, hour, device, window_start, samples, temp'
show(duckdb.sql(f\"SELECT {cols} FROM read_parquet('{sys.argv[1]}/**/*.parquet', hive_partitioning=true)\").fetchall())
";
    let polars = "
import sys, polars
frame = polars.scan_parquet(sys.argv[1], hive_partitioning=True).collect()
show(frame.select('site', 'date', 'hour', 'device', 'window_start', 'samples', 'temp').rows())
";
    let pyarrow = "
import sys, pyarrow.dataset as ds
table = ds.dataset(sys.argv[1], partitioning='hive').to_table()
show([tuple(row[c] for c in ['site', 'date', 'hour', 'device', 'window_start', 'samples', 'temp']) for row in table.to_pylist()])
";
    for script in [duckdb, polars, pyarrow] {
        let Some(out) = python(&format!("{PRINT}{script}"), &root) else { return };
        assert_eq!(out, EXPECTED, "{script}");
    }
}

#[test]
fn a_repeat_replaces_and_an_epoch_without_rows_makes_no_file() {
    let folder = tempfile::tempdir().unwrap();
    for _ in 0..2 {
        let mut sink = open(folder.path(), Vec::new()).unwrap();
        sink.write(&hostile()).unwrap();
        commit(&mut *sink, Epoch(1), false).unwrap();
        commit(&mut *sink, Epoch(2), false).unwrap();
        assert_eq!(files(folder.path()), ["part-plant-lake-r1-00000001-0.parquet"]);
        // What is not committed is never seen, and the next run clears it away.
        sink.write(&hostile()).unwrap();
    }
    assert_eq!(files(folder.path()), ["part-plant-lake-r1-00000001-0.parquet"]);
}

#[test]
fn the_bytes_do_not_depend_on_how_rows_came() {
    let devices: Vec<String> = (0..7).map(|device| format!("d{device}")).collect();
    // Enough rows for several pages of every column.
    let all: Vec<Line<'_>> = (0..50_000_i64)
        .map(|n| (Some("north"), devices[(n % 7) as usize].as_str(), TEN + n, n * n, Some(n as f64 / 3.0)))
        .collect();
    let bytes = |cut: usize| {
        let folder = tempfile::tempdir().unwrap();
        let mut sink = open(folder.path(), Vec::new()).unwrap();
        all.chunks(cut).for_each(|lines| sink.write(&rows(lines)).unwrap());
        commit(&mut *sink, Epoch(0), true).unwrap();
        let names = files(folder.path());
        assert_eq!(names.len(), 1);
        std::fs::read(folder.path().join(&names[0])).unwrap()
    };
    let whole = bytes(50_000);
    for cut in [777, 1_000, 8_192, 20_000] {
        assert!(bytes(cut) == whole, "in batches of {cut}");
    }
}

#[test]
fn rolled_rows_wait_for_their_bound_or_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let mut sink = open(folder.path(), roll(10)).unwrap();
    for epoch in 0..4 {
        sink.write(&hostile()).unwrap();
        commit(&mut *sink, Epoch(epoch), false).unwrap();
    }
    assert_eq!(files(folder.path()), ["part-plant-lake-r1-00000002-0.parquet"], "3 times 4 rows reach 10");
    commit(&mut *sink, Epoch(4), true).unwrap();
    assert_eq!(files(folder.path()).len(), 2);
    let count =
        "import sys, duckdb; print(duckdb.sql(f\"SELECT count(*) FROM '{sys.argv[1]}/*.parquet'\").fetchall()[0][0])";
    assert!(python(count, folder.path()).is_none_or(|out| out == "16\n"));
}

#[test]
fn rolled_files_are_bounded_by_bytes_and_by_age() {
    let bound =
        |key: &str, value: &str| vec![entry("roll", Value::Table(vec![entry(key, Value::String(value.to_owned()))]))];
    let files_after_two_epochs = |settings: Vec<(Name, Node)>| {
        let folder = tempfile::tempdir().unwrap();
        let mut sink = open(folder.path(), settings).unwrap();
        for epoch in 0..2 {
            sink.write(&hostile()).unwrap();
            commit(&mut *sink, Epoch(epoch), false).unwrap();
        }
        files(folder.path()).iter().filter(|name| !name.starts_with("_tmp")).count()
    };
    // A file of four rows has more than a byte, and less than a mebibyte.
    assert_eq!(files_after_two_epochs(bound("bytes", "1B")), 2);
    assert_eq!(files_after_two_epochs(bound("bytes", "1MiB")), 0);
    assert_eq!(files_after_two_epochs(bound("age", "1us")), 2);
    assert_eq!(files_after_two_epochs(bound("age", "1h")), 0);
}

#[test]
fn few_open_files_serve_many_partitions() {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = partitioned();
    settings.push(entry("max_partitions", Value::Integer(2)));
    let mut sink = open(folder.path(), settings).unwrap();
    for _ in 0..3 {
        sink.write(&hostile()).unwrap();
    }
    commit(&mut *sink, Epoch(0), false).unwrap();
    let count = "import sys, duckdb; print(duckdb.sql(f\"SELECT count(*), count(DISTINCT device) FROM read_parquet('{sys.argv[1]}/**/*.parquet')\").fetchall()[0])";
    assert!(python(count, folder.path()).is_none_or(|out| out == "(12, 4)\n"));
}

#[test]
fn what_could_not_be_written_is_written_later() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("lake");
    let mut sink = open(&root, Vec::new()).unwrap();
    sink.write(&hostile()).unwrap();
    std::fs::remove_dir(&root).unwrap();
    std::fs::write(&root, "in the way").unwrap();
    for _ in 0..2 {
        let error = commit(&mut *sink, Epoch(0), false).unwrap_err();
        assert!(matches!(&error, SinkError::Retry(why) if why.starts_with("cannot write")), "{error:?}");
        assert!(matches!(open(&root, Vec::new()), Err(SinkError::Retry(_))));
    }
    std::fs::remove_file(&root).unwrap();
    commit(&mut *sink, Epoch(0), false).unwrap();
    assert_eq!(files(&root), ["part-plant-lake-r1-00000000-0.parquet"]);
    let count =
        "import sys, duckdb; print(duckdb.sql(f\"SELECT count(*) FROM '{sys.argv[1]}/*.parquet'\").fetchall()[0][0])";
    assert!(python(count, &root).is_none_or(|out| out == "4\n"));
}

/// A mount that goes away with the test.
struct Mounted<'a>(&'a Path);

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        // Lazily: files of the test may still be open.
        let _ = Command::new("umount").arg("-l").arg(self.0).status();
    }
}

#[test]
fn a_full_disk_loses_and_doubles_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mount = Command::new("mount").args(["-t", "tmpfs", "-o", "size=1m", "none"]).arg(folder.path()).output();
    if !mount.is_ok_and(|out| out.status.success()) {
        eprintln!("SKIPPED: cannot mount a small tmpfs here");
        return;
    }
    // Dropped before the folder, also when the test fails.
    let _mounted = Mounted(folder.path());
    let ballast = folder.path().join("ballast");
    let mut sink = open(&folder.path().join("lake"), Vec::new()).unwrap();
    let failed = std::fs::write(&ballast, vec![1; 2 << 20]).is_err();
    sink.write(&hostile()).unwrap();
    let full = commit(&mut *sink, Epoch(0), false);
    std::fs::remove_file(&ballast).unwrap();
    let after = commit(&mut *sink, Epoch(0), false);
    let names = files(&folder.path().join("lake"));
    let count = "import sys, duckdb; print(duckdb.sql(f\"SELECT count(*) FROM '{sys.argv[1]}/lake/*.parquet'\").fetchall()[0][0])";
    let count = python(count, folder.path());
    assert!(failed, "the ballast fills the disk");
    assert!(matches!(&full, Err(SinkError::Retry(why)) if why.contains("No space left")), "{full:?}");
    assert!(after.is_ok(), "{after:?}");
    assert_eq!(names, ["part-plant-lake-r1-00000000-0.parquet"]);
    assert!(count.is_none_or(|out| out == "4\n"));
}
