//! The `parquet` sink on a disk on which any single step fails, or is the last before a crash: what is published in the end
//! is what a run without trouble publishes.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema};
use streamgauge::component::{Name, Node, Settings, Value};
use streamgauge::disk::{self, Disk, DiskFile, RealDisk, SharedDisk};
use streamgauge::flow::message::Epoch;
use streamgauge::flow::schema::{StreamSchema, timestamp_type};
use streamgauge::flow::state::Restored;
use streamgauge::flow::time::Span;
use streamgauge::sink::{PreparedFile, Sink, SinkContext, SinkError, parquet, publish};

/// A disk whose steps are counted.
#[derive(Clone, Debug)]
struct Counting(Arc<Steps>);

#[derive(Debug)]
struct Steps {
    done: AtomicUsize,
    /// The step that fails.
    fails: usize,
    /// Whether every step after it fails too.
    crash: bool,
    /// Whether the step that fails was a `sync`.
    synced: AtomicUsize,
}

impl Counting {
    fn new(fails: usize, crash: bool) -> Self {
        Self(Arc::new(Steps { done: AtomicUsize::new(0), fails, crash, synced: AtomicUsize::new(0) }))
    }

    fn steps(&self) -> usize {
        self.0.done.load(SeqCst)
    }

    fn step(&self, sync: bool) -> io::Result<()> {
        let step = self.0.done.fetch_add(1, SeqCst);
        let fails = step == self.0.fails || self.0.crash && step > self.0.fails;
        if fails && sync {
            self.0.synced.store(1, SeqCst);
        }
        if fails { Err(io::Error::from(io::ErrorKind::StorageFull)) } else { Ok(()) }
    }
}

impl Disk for Counting {
    fn create_folder(&self, path: &Path) -> io::Result<()> {
        self.step(false).and_then(|()| RealDisk.create_folder(path))
    }

    fn is_folder(&self, path: &Path) -> bool {
        RealDisk.is_folder(path)
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        self.step(false).and_then(|()| RealDisk.list(folder))
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.step(false)?;
        Ok(Box::new(CountingFile(RealDisk.create(path)?, self.clone())))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.step(false)?;
        Ok(Box::new(CountingFile(RealDisk.open(path)?, self.clone())))
    }

    fn file_len(&self, path: &Path) -> io::Result<u64> {
        self.step(false).and_then(|()| RealDisk.file_len(path))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.step(false).and_then(|()| RealDisk.rename(from, to))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.step(false).and_then(|()| RealDisk.remove(path))
    }

    fn remove_folder(&self, path: &Path) -> io::Result<()> {
        self.step(false).and_then(|()| RealDisk.remove_folder(path))
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        self.step(true).and_then(|()| RealDisk.sync_folder(folder))
    }
}

#[derive(Debug)]
struct CountingFile(Box<dyn DiskFile>, Counting);

impl DiskFile for CountingFile {
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        self.1.step(false).and_then(|()| self.0.read_at(into, offset))
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        if let Err(error) = self.1.step(false) {
            // Half of it got there.
            self.0.write_at(&bytes[..bytes.len() / 2], offset)?;
            return Err(error);
        }
        self.0.write_at(bytes, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.1.step(false).and_then(|()| self.0.set_len(len))
    }

    fn sync(&self) -> io::Result<()> {
        self.1.step(true).and_then(|()| self.0.sync())
    }
}

/// The files below a folder with their bytes, but for those under `_tmp`.
fn files(root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    fn walk(root: &Path, folder: &Path, found: &mut BTreeMap<PathBuf, Vec<u8>>) {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() && path.file_name().unwrap() != "_tmp" {
                walk(root, &path, found);
            } else if path.is_file() {
                found.insert(path.strip_prefix(root).unwrap().to_owned(), std::fs::read(&path).unwrap());
            }
        }
    }
    let mut found = BTreeMap::new();
    walk(root, root, &mut found);
    found
}

/// A folder in memory where there is one: thousands of syncs are not what is tested.
fn tempdir() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap()
}

fn prepared(root: &Path) -> Vec<PreparedFile> {
    let tmp = root.join("_tmp/plant/lake");
    std::fs::create_dir_all(&tmp).unwrap();
    let file = |(index, to): (usize, &str)| {
        let from = tmp.join(format!("{index}.tmp"));
        let text = "rows".repeat(index + 1);
        std::fs::write(&from, &text).unwrap();
        PreparedFile { from, to: root.join(to), bytes: text.len() as u64, rows: 1 }
    };
    ["site=a/hour=1/x", "site=a/hour=2/x", "site=b/hour=1/x", "y"].iter().copied().enumerate().map(file).collect()
}

fn published() -> BTreeMap<PathBuf, Vec<u8>> {
    let all = [("site=a/hour=1/x", 1), ("site=a/hour=2/x", 2), ("site=b/hour=1/x", 3), ("y", 4)];
    all.into_iter().map(|(path, times)| (path.into(), "rows".repeat(times).into_bytes())).collect()
}

#[test]
fn publishing_again_after_any_failure_shows_every_file_once() {
    for crash in [false, true] {
        for fails in 0.. {
            let folder = tempdir();
            let list = prepared(folder.path());
            let disk = Counting::new(fails, crash);
            let first = publish(&disk, &list);
            if disk.steps() <= fails {
                first.unwrap();
                assert!(fails > 20, "only {fails} steps");
                break;
            }
            match &first {
                // Failing to tidy up is no failure.
                Ok(()) => assert_eq!(files(folder.path()), published()),
                Err(SinkError::Fatal(why)) => {
                    assert!(disk.0.synced.load(SeqCst) == 1 && why.contains("durable"), "{why}")
                }
                Err(SinkError::Retry(why)) => assert!(disk.0.synced.load(SeqCst) == 0 || crash, "{why}"),
            }
            for _ in 0..2 {
                let again = Counting::new(usize::MAX, false);
                publish(&again, &list).unwrap();
                assert_eq!(files(folder.path()), published(), "after step {fails}");
            }
            assert!(first.is_ok() || !folder.path().join("_tmp").exists());
        }
    }
}

/// Notes what is renamed and made durable, below a folder.
#[derive(Clone, Debug)]
struct Noting(PathBuf, Arc<Mutex<Vec<String>>>);

impl Noting {
    fn new(root: &Path) -> Self {
        Self(root.to_owned(), Arc::default())
    }

    fn note(&self, what: &str, path: &Path) {
        let path = path.strip_prefix(&self.0).unwrap().to_str().unwrap();
        self.1.lock().unwrap().push(format!("{what} {path}"));
    }

    fn notes(&self) -> Vec<String> {
        std::mem::take(&mut self.1.lock().unwrap())
    }
}

impl Disk for Noting {
    fn create_folder(&self, path: &Path) -> io::Result<()> {
        RealDisk.create_folder(path)
    }

    fn is_folder(&self, path: &Path) -> bool {
        RealDisk.is_folder(path)
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        RealDisk.list(folder)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(NotingFile(RealDisk.create(path)?, path.to_owned(), self.clone())))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        RealDisk.open(path)
    }

    fn file_len(&self, path: &Path) -> io::Result<u64> {
        RealDisk.file_len(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.note("rename to", to);
        RealDisk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove(path)
    }

    fn remove_folder(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove_folder(path)
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        self.note("folder", folder);
        RealDisk.sync_folder(folder)
    }
}

#[derive(Debug)]
struct NotingFile(Box<dyn DiskFile>, PathBuf, Noting);

impl DiskFile for NotingFile {
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(into, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.2.note("write", &self.1);
        self.0.write_at(bytes, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        self.2.note("file", &self.1);
        self.0.sync()
    }
}

#[test]
fn every_folder_is_made_durable_though_an_attempt_before_made_it() {
    let folder = tempdir();
    let list = prepared(folder.path());
    let disk = Noting::new(folder.path());
    // Those that hold a folder of the files come first: a file may not be in a folder whose own name can be lost.
    let folders = |paths: &[&str]| paths.iter().map(|path| format!("folder {path}")).collect::<Vec<_>>();
    let parents = folders(&["", "site=a", "site=b"]);
    let targets = folders(&["", "site=a/hour=1", "site=a/hour=2", "site=b/hour=1"]);
    let renames =
        ["site=a/hour=1/x", "site=a/hour=2/x", "site=b/hour=1/x", "y"].map(|path| format!("rename to {path}"));
    // Where the files came from is last: a file that has left must have arrived.
    let expected = [parents.as_slice(), &renames, &targets, &["folder _tmp/plant/lake".to_owned()]].concat();
    publish(&disk, &list).unwrap();
    assert_eq!(disk.notes(), expected);
    publish(&disk, &list).unwrap();
    assert_eq!(disk.notes(), [parents, targets].concat());
}

#[test]
fn a_prepared_file_is_durable_with_every_folder_above_it() {
    let folder = tempdir();
    let noting = Noting::new(folder.path());
    let disk: SharedDisk = Arc::new(noting.clone());
    let root = folder.path().join("out/lake");
    let mut sink = open(&root, &disk, 0).unwrap();
    assert_eq!(noting.notes(), ["folder ", "folder out"], "the folder's own names");
    sink.write(&rows(0..2, Some(7), 3)).unwrap();
    let left = sink.prepare(Epoch(0), false).unwrap();
    assert_eq!(
        (left.files.len(), left.parts.len(), noting.notes().len()),
        (0, 1, 0),
        "rows that are carried need no file"
    );
    for epoch in [1, 2] {
        sink.write(&rows(2..4, Some(7), 3)).unwrap();
        let left = sink.prepare(Epoch(epoch), true).unwrap();
        // Opened in the epoch of its first row.
        let file = if epoch == 1 { "00000000-0" } else { "00000002-0" };
        let file = format!("out/lake/_tmp/plant/lake/{file}.tmp");
        let folders = ["", "/_tmp", "/_tmp/plant", "/_tmp/plant/lake"].map(|path| format!("folder out/lake{path}"));
        let mut expected = vec![format!("write {file}"), format!("file {file}")];
        expected.extend(folders);
        // The epoch before is published, and its empty folders have gone.
        assert_eq!(noting.notes(), expected);
        publish(&RealDisk, &left.files).unwrap();
    }
}

#[test]
fn a_file_that_is_nowhere_or_another_is_said() {
    let folder = tempdir();
    let list = prepared(folder.path());
    std::fs::remove_file(&list[1].from).unwrap();
    let why = publish(&RealDisk, &list).unwrap_err();
    assert!(matches!(&why, SinkError::Fatal(why) if why.contains("1.tmp` is gone, and was not published")), "{why:?}");
    std::fs::write(&list[1].from, "torn").unwrap();
    let why = publish(&RealDisk, &list).unwrap_err();
    assert!(matches!(&why, SinkError::Fatal(why) if why.contains("1.tmp` has 4 bytes in place of 8")), "{why:?}");
    assert!(!list[1].to.exists());
    // What was published is not replaced by what has its old name.
    std::fs::write(&list[1].to, "rowsrows").unwrap();
    publish(&RealDisk, &list).unwrap();
    assert_eq!(std::fs::read(&list[1].to).unwrap(), b"rowsrows");
}

fn schema() -> StreamSchema {
    let columns = Schema::new(vec![
        Field::new("site", DataType::Int64, false),
        Field::new("at", timestamp_type(), false),
        Field::new("text", DataType::Utf8, false),
    ]);
    StreamSchema { columns: Arc::new(columns), time: 1, out_of_orderness: Span::ZERO }
}

/// Rows of a few sites, or of one, with texts of so many bytes that begin with what they differ in.
fn rows(numbers: Range<i64>, site: Option<i64>, bytes: usize) -> RecordBatch {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from_iter_values(numbers.clone().map(|row| site.unwrap_or(row * row % 5)))),
        Arc::new(TimestampMicrosecondArray::from_iter_values(numbers.clone()).with_timezone("UTC")),
        Arc::new(StringArray::from_iter_values(numbers.map(|row| format!("{row:.<bytes$}")))),
    ];
    RecordBatch::try_new(schema().columns, columns).unwrap()
}

fn open(root: &Path, disk: &SharedDisk, epoch: u64) -> Result<Box<dyn Sink>, SinkError> {
    let node = |value| Node { at: 0..0, value, expanded: false };
    let entry = |key: &str, value| (Name { text: key.to_owned(), at: 0..0, expanded: false }, node(value));
    let faults = Rc::new(RefCell::new(Vec::new()));
    let entries = vec![
        entry("path", Value::String(root.to_str().unwrap().to_owned())),
        entry("partition_by", Value::Array(vec![node(Value::String("site".to_owned()))])),
        entry("max_partitions", Value::Integer(2)),
        entry("compression", Value::String("none".to_owned())),
        entry("roll", Value::Table(vec![entry("rows", Value::Integer(8_400))])),
        entry("row_group_rows", Value::Integer(4_096)),
    ];
    let mut settings = Settings::new(0..0, entries, faults.clone());
    let spec = (parquet::KIND.parse)(&mut settings).unwrap();
    settings.finish();
    assert_eq!(*faults.borrow(), []);
    let context = SinkContext {
        pipeline: "plant".into(),
        name: "lake".into(),
        run: "r1".into(),
        boards: Arc::default(),
        disk: disk.clone(),
        epoch: Epoch(epoch),
        epoch_every: Span::from_secs(10),
    };
    spec.open(&context, &schema())
}

/// The rows of an epoch; one of them brings so much to one site that its file is spilled before it is closed.
fn batches(epoch: u64) -> Vec<RecordBatch> {
    match epoch {
        0 => vec![rows(0..9, None, 3)],
        1 => vec![rows(100_000..108_200, Some(1), 135), rows(200_000..200_400, Some(1), 135), rows(9..10, None, 3)],
        2 => vec![rows(10..12, None, 3), rows(12..30, None, 3)],
        _ => vec![rows(30..33, None, 3)],
    }
}

const EPOCHS: u64 = 4;

/// What a checkpoint has of the sink.
#[derive(Clone, Default)]
struct Checkpoint {
    epoch: u64,
    files: Vec<PreparedFile>,
    parts: Vec<Restored>,
}

/// Runs from a checkpoint on as the engine does; gives up where the engine does.
fn run(root: &Path, disk: &SharedDisk, kept: &mut Checkpoint, attempts: usize) -> Result<(), SinkError> {
    let patiently = |attempt: &mut dyn FnMut() -> Result<(), SinkError>| {
        let mut left = attempts;
        loop {
            left -= 1;
            match attempt() {
                Err(SinkError::Retry(_)) if left > 0 => {}
                result => return result,
            }
        }
    };
    patiently(&mut || publish(&**disk, &kept.files))?;
    let mut sink = None;
    patiently(&mut || open(root, disk, kept.epoch).map(|opened| sink = Some(opened)))?;
    let mut sink = sink.unwrap();
    sink.restore(&kept.parts)?;
    while kept.epoch < EPOCHS {
        for batch in batches(kept.epoch) {
            patiently(&mut || sink.write(&batch))?;
        }
        let mut left = None;
        let last = kept.epoch + 1 == EPOCHS;
        patiently(&mut || sink.prepare(Epoch(kept.epoch), last).map(|unpublished| left = Some(unpublished)))?;
        let left = left.unwrap();
        for file in &left.files {
            assert_eq!(std::fs::metadata(&file.from).unwrap().len(), file.bytes);
        }
        let old = std::mem::take(&mut kept.parts);
        let part = |part: streamgauge::flow::state::Part| match part.rows {
            Some(rows) => (part.name, rows),
            None => old.iter().find(|(name, _)| *name == part.name).expect("it was not listed before").clone(),
        };
        *kept =
            Checkpoint { epoch: kept.epoch + 1, files: left.files, parts: left.parts.into_iter().map(part).collect() };
        patiently(&mut || publish(&**disk, &kept.files))?;
    }
    Ok(())
}

#[test]
fn a_step_that_fails_or_is_the_last_before_a_crash_changes_no_file() {
    let folder = tempdir();
    let counting = Counting::new(usize::MAX, false);
    let disk: SharedDisk = Arc::new(counting.clone());
    run(&folder.path().join("lake"), &disk, &mut Checkpoint::default(), 1).unwrap();
    let expected = files(&folder.path().join("lake"));
    let sizes: Vec<usize> = expected.values().map(Vec::len).collect();
    assert!(sizes.len() > 10 && sizes.iter().any(|bytes| *bytes > 1 << 20), "{sizes:?}");
    let steps = counting.steps();
    std::thread::scope(|scope| {
        for crash in [false, true] {
            let expected = &expected;
            scope.spawn(move || (0..steps).for_each(|step| disturbed(step, crash, expected)));
        }
    });
}

/// A run of which a step fails, and with `crash` every step after it; gone on with on a good disk where it ended.
fn disturbed(fails: usize, crash: bool, expected: &BTreeMap<PathBuf, Vec<u8>>) {
    let folder = tempdir();
    let root = folder.path().join("lake");
    let counting = Counting::new(fails, crash);
    let mut kept = Checkpoint::default();
    let disk: SharedDisk = Arc::new(counting.clone());
    if let Err(error) = run(&root, &disk, &mut kept, 2) {
        assert!(crash || matches!(error, SinkError::Fatal(_)), "step {fails}: {error}");
        assert!(crash || counting.0.synced.load(SeqCst) == 1, "step {fails} is no sync, and stops the run: {error}");
        run(&root, &disk::real(), &mut kept, 1).unwrap();
    }
    let found = files(&root);
    assert!(found.keys().eq(expected.keys()), "step {fails}: {:?}", found.keys());
    assert!(found == *expected, "step {fails}: other bytes");
}
