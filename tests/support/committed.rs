//! What is visible in the folders of the numbers' pipeline, beside what must be: computed from the numbers alone.

use std::collections::{BTreeMap, HashSet};
use std::fmt::Debug;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use arrow::array::cast::AsArray;
use arrow::array::types::{Float64Type, Int64Type, TimestampMicrosecondType};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::numbered::{BEHIND_MILLIS, device, millis, value};
use super::numbered::{HOPPING_MILLIS, SESSION_MILLIS, TUMBLING_MILLIS};
use super::parquet_files;
use super::process::Process;

/// How many examples a failure shows.
const SHOWN: usize = 5;
/// How often folders are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);

fn batches(path: &Path) -> Option<Vec<RecordBatch>> {
    // A file may be given its name again between the listing and this.
    let file = File::open(path).ok()?;
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).unwrap_or_else(|error| panic!("{path:?}: {error}"));
    Some(reader.build().unwrap().map(|batch| batch.unwrap_or_else(|error| panic!("{path:?}: {error}"))).collect())
}

fn ints(batch: &RecordBatch, name: &str) -> Vec<i64> {
    batch[name].as_primitive::<Int64Type>().values().to_vec()
}

fn floats(batch: &RecordBatch, name: &str) -> Vec<f64> {
    batch[name].as_primitive::<Float64Type>().values().to_vec()
}

fn times(batch: &RecordBatch, name: &str) -> Vec<i64> {
    let micros = batch[name].as_primitive::<TimestampMicrosecondType>().values();
    assert!(micros.iter().all(|micros| micros % 1_000 == 0), "whole milliseconds");
    micros.iter().map(|micros| micros / 1_000).collect()
}

/// The numbers of a file of raw rows; every row is what its number says.
fn numbers(path: &Path) -> Vec<u64> {
    let mut found = Vec::new();
    for batch in batches(path).unwrap_or_default() {
        let (at, v, devices) = (times(&batch, "ts"), floats(&batch, "v"), batch["device"].as_string::<i32>());
        for (row, n) in ints(&batch, "n").into_iter().enumerate() {
            let n = u64::try_from(n).unwrap();
            let expected = (millis(n), value(n), device(n));
            assert_eq!((at[row], v[row], devices.value(row).to_owned()), expected, "row {row} of {path:?}");
            found.push(n);
        }
    }
    found
}

/// How far raw rows have come, while files are added.
pub struct Progress {
    folder: PathBuf,
    read: HashSet<PathBuf>,
    seen: HashSet<u64>,
}

impl Progress {
    pub fn of(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), read: HashSet::new(), seen: HashSet::new() }
    }

    /// How many different numbers are visible now.
    pub fn look(&mut self) -> u64 {
        for path in parquet_files(&self.folder) {
            if self.read.insert(path.clone()) {
                self.seen.extend(numbers(&path));
            }
        }
        self.seen.len() as u64
    }

    /// Waits until all numbers below `sent` are visible; says which are not where that takes too long.
    pub fn until_all(&mut self, run: &mut Process, sent: u64, within: Duration) {
        let (from, mut found) = (Instant::now(), self.look());
        while found < sent && from.elapsed() < within {
            run.until("alive", within, |_| true);
            std::thread::sleep(LOOK_EVERY);
            found = self.look();
        }
        let lost = some((0..sent).filter(|n| !self.seen.contains(n)));
        assert!(found == sent, "{found} of {sent} numbers are visible within {within:?}; not: {lost}\n{}", run.said());
    }
}

/// What became of the numbers in a folder of raw rows.
pub struct Raw {
    /// Every number that is there, as often as it is there, sorted.
    pub rows: Vec<u64>,
    /// Numbers that are not there.
    pub lost: Vec<u64>,
    /// Numbers that are there more than once.
    pub duplicated: Vec<u64>,
}

impl Raw {
    /// Of the numbers below `sent`.
    pub fn read(folder: &Path, sent: u64) -> Self {
        let mut rows: Vec<u64> = parquet_files(folder).iter().flat_map(|path| numbers(path)).collect();
        rows.sort_unstable();
        assert!(rows.last().is_none_or(|last| *last < sent), "{:?} was never sent", rows.last());
        let mut times = vec![0_u32; usize::try_from(sent).unwrap()];
        rows.iter().for_each(|n| times[*n as usize] += 1);
        let those = |keep: fn(u32) -> bool| (0..sent).filter(|n| keep(times[*n as usize])).collect();
        Self { lost: those(|times| times == 0), duplicated: those(|times| times > 1), rows }
    }

    pub fn assert_exactly_once(&self, what: &str) {
        self.assert_nothing_lost(what);
        let (count, first) = (self.duplicated.len(), some(self.duplicated.iter()));
        assert!(self.duplicated.is_empty(), "{what}: {count} numbers are there twice: {first}");
    }

    pub fn assert_nothing_lost(&self, what: &str) {
        let (count, first) = (self.lost.len(), some(self.lost.iter()));
        assert!(self.lost.is_empty(), "{what}: {count} numbers are lost: {first}");
    }
}

/// The first few.
fn some(items: impl Iterator<Item = impl Debug>) -> String {
    format!("{:?} …", items.take(SHOWN).collect::<Vec<_>>())
}

/// A window: device, start, end (milliseconds).
pub type Window = (String, i64, i64);

/// What a window has over its rows.
#[derive(Clone, Debug, PartialEq)]
pub struct Stats {
    pub samples: i64,
    pub lowest: f64,
    pub highest: f64,
    pub total: f64,
    pub numbers: i64,
}

impl Stats {
    fn of(numbers: &[u64]) -> Self {
        let values = || numbers.iter().map(|n| value(*n));
        Self {
            samples: numbers.len() as i64,
            lowest: values().fold(f64::INFINITY, f64::min),
            highest: values().fold(f64::NEG_INFINITY, f64::max),
            total: values().sum(),
            numbers: numbers.iter().map(|n| *n as i64).sum(),
        }
    }
}

pub type Windows = BTreeMap<Window, Stats>;

fn stats(windows: BTreeMap<Window, Vec<u64>>) -> Windows {
    windows.into_iter().map(|(window, numbers)| (window, Stats::of(&numbers))).collect()
}

/// Windows of a size that begin every so often.
fn grid(numbers: &[u64], size: i64, every: i64) -> Windows {
    let mut windows: BTreeMap<Window, Vec<u64>> = BTreeMap::new();
    for n in numbers {
        let newest = millis(*n).div_euclid(every) * every;
        let mut start = newest;
        while start + size > millis(*n) {
            windows.entry((device(*n), start, start + size)).or_default().push(*n);
            start -= every;
        }
    }
    stats(windows)
}

/// `[first, last + gap)` of rows of a device that are less than `gap` apart. `numbers` is sorted.
fn sessions(numbers: &[u64], gap: i64) -> Windows {
    let mut windows = BTreeMap::new();
    let mut open: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    let window = |device: &str, rows: &[u64]| {
        (device.to_owned(), millis(rows[0]), millis(*rows.last().expect("it has one")) + gap)
    };
    for n in numbers {
        let rows = open.entry(device(*n)).or_default();
        if rows.last().is_some_and(|last| millis(*n) - millis(*last) >= gap) {
            windows.insert(window(&device(*n), rows), std::mem::take(rows));
        }
        rows.push(*n);
    }
    windows.extend(open.into_iter().map(|(device, rows)| (window(&device, &rows), rows)));
    stats(windows)
}

/// The visible windows of a folder; none is there twice.
fn visible(folder: &Path) -> Windows {
    let mut windows = Windows::new();
    for path in parquet_files(folder) {
        for batch in batches(&path).unwrap_or_default() {
            let (starts, ends) = (times(&batch, "window_start"), times(&batch, "window_end"));
            let (samples, numbers) = (ints(&batch, "samples"), ints(&batch, "numbers"));
            let [lowest, highest, total] = ["lowest", "highest", "total"].map(|name| floats(&batch, name));
            for row in 0..batch.num_rows() {
                let device = batch["device"].as_string::<i32>().value(row).to_owned();
                let stats = Stats {
                    samples: samples[row],
                    lowest: lowest[row],
                    highest: highest[row],
                    total: total[row],
                    numbers: numbers[row],
                };
                let window = (device, starts[row], ends[row]);
                assert!(windows.insert(window.clone(), stats).is_none(), "{window:?} is there twice in {folder:?}");
            }
        }
    }
    windows
}

/// Whether windows that are open at the end stay in the checkpoint, or are flushed as there is none.
#[derive(Clone, Copy, PartialEq)]
pub enum Open {
    Kept,
    Flushed,
}

/// The visible windows of all sorts are those of these numbers, which are sorted. How many there are.
pub fn assert_windows(out: &Path, numbers: &[u64], open: Open) -> usize {
    windows_are(out, numbers, open).unwrap_or_else(|why| panic!("{why}"))
}

/// As [`assert_windows`], for a test that wants them to differ.
pub fn windows_are(out: &Path, numbers: &[u64], open: Open) -> Result<usize, String> {
    let (hop, every) = HOPPING_MILLIS;
    let expected = [
        ("tumbling", grid(numbers, TUMBLING_MILLIS, TUMBLING_MILLIS)),
        ("hopping", grid(numbers, hop, every)),
        ("session", sessions(numbers, SESSION_MILLIS)),
    ];
    let watermark = millis(*numbers.last().expect("at least one")) - BEHIND_MILLIS;
    let mut count = 0;
    for (name, mut expected) in expected {
        expected.retain(|(_, _, end), _| open == Open::Flushed || *end <= watermark);
        assert!(!expected.is_empty(), "{name}: there are windows to look at");
        let actual = visible(&out.join(name));
        if expected != actual {
            return Err(difference(name, &expected, &actual));
        }
        count += expected.len();
    }
    Ok(count)
}

fn difference(name: &str, expected: &Windows, actual: &Windows) -> String {
    let missing = expected.iter().filter(|(window, _)| !actual.contains_key(*window));
    let extra = actual.iter().filter(|(window, _)| !expected.contains_key(*window));
    let both = expected.iter().filter_map(|(window, stats)| Some((window, stats, actual.get(window)?)));
    let wrong = both.filter(|(_, expected, actual)| expected != actual);
    format!(
        "{name}: {} windows expected, {} visible\nmissing: {}\ntoo many: {}\nexpected, but visible: {}",
        expected.len(),
        actual.len(),
        some(missing),
        some(extra),
        some(wrong),
    )
}

/// Every file below a folder is one that readers see: nothing is left over.
pub fn assert_no_leftovers(out: &Path) {
    let (mut folders, mut left) = (vec![out.to_owned()], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                left.push(path);
            }
        }
    }
    let seen: HashSet<PathBuf> = parquet_files(out).into_iter().collect();
    left.retain(|path| !seen.contains(path));
    assert!(left.is_empty(), "{} files are left over: {}", left.len(), some(left.iter()));
}

/// The account of the numbers' pipeline is well, and adds up by our own sums: nothing late, dropped or set aside.
pub fn assert_account(account: &serde_json::Value) {
    assert!(account.get("faults").is_none(), "{account:#}");
    let feed = |key: &str| account["sources"]["feed"][key].as_i64().unwrap();
    let became = ["rows", "dead_letter", "future", "dropped", "duplicates"].map(feed);
    assert_eq!(feed("received") + feed("expanded"), became.iter().sum::<i64>(), "{account:#}");
    assert_eq!((became[1], became[2], became[3]), (0, 0, 0), "{account:#}");
    for sink in ["raw", "rolled"] {
        assert_eq!(account["sinks"][sink]["rows"].as_i64().unwrap(), became[0], "{account:#}");
    }
    for window in ["tumbling", "hopping", "session"] {
        let operator = &account["operators"][window];
        let count = |key: &str| operator[key].as_i64().unwrap();
        assert_eq!((count("accepted"), count("late")), (became[0], 0), "{account:#}");
        assert_eq!(
            account["sinks"][format!("{window}_files")]["rows"].as_i64().unwrap(),
            count("emitted"),
            "{account:#}"
        );
    }
}
