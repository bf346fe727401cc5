//! Faults happen at the operation that they are planted at, in this process and in the binary.

use std::io;
use std::path::Path;
use std::sync::Arc;

use streamgauge::disk::faulty::{Effect, Fault, FaultyDisk, Kind};
use streamgauge::disk::memory::MemoryDisk;
use streamgauge::disk::{self, Disk, SharedDisk};

use crate::read;
use crate::support::crash::{every_crash_point, every_fault};
use crate::support::streamgauge;

/// Creates a file, writes to it, makes it durable, gives it another name, makes that durable: five operations.
fn five(disk: &dyn Disk) -> Vec<Result<(), Option<i32>>> {
    let errno = |result: io::Result<()>| result.map_err(|error| error.raw_os_error());
    let created = disk.create(Path::new("f.tmp"));
    let Ok(file) = created else { return vec![errno(created.map(drop))] };
    let write = errno(file.write_at(b"12345678", 0));
    let sync = errno(file.sync());
    let rename = errno(disk.rename(Path::new("f.tmp"), Path::new("f")));
    vec![Ok(()), write, sync, rename, errno(disk.sync_folder(Path::new("")))]
}

fn faulty(faults: &str) -> (MemoryDisk, FaultyDisk) {
    let memory = MemoryDisk::new();
    (memory.clone(), FaultyDisk::new(Arc::new(memory), Fault::parse_all(faults).unwrap()))
}

#[test]
fn faults_happen_where_they_are_planted() {
    let (ok, eio, enospc) = (Ok(()), Err(Some(5)), Err(Some(28)));
    let cases: [(&str, &[_], Option<&[u8]>); 8] = [
        ("eio@9", &[ok, ok, ok, ok, ok], Some(b"12345678")),
        ("enospc@1", &[enospc], None),
        ("eio@2", &[ok, eio, ok, ok, ok], Some(b"")),
        ("torn@2", &[ok, eio, ok, ok, ok], Some(b"1234")),
        ("enospc@3..", &[ok, ok, enospc, enospc, enospc], None),
        ("nosync", &[ok, ok, ok, ok, ok], Some(b"")),
        ("nosync-folder", &[ok, ok, ok, ok, ok], None),
        ("eio@4:tmp,enospc@1:nowhere", &[ok, ok, ok, eio, ok], None),
    ];
    for (faults, expected, left) in cases {
        let (memory, disk) = faulty(faults);
        assert_eq!(five(&disk), expected, "{faults}");
        let left_file = disk::read(&memory.crash_hard(), Path::new("f")).ok();
        assert_eq!(left_file.as_deref(), left, "{faults}");
        assert_eq!(disk.count(), expected.len() as u64, "{faults}");
    }
}

#[test]
fn operations_are_told() {
    let (_, disk) = faulty("eio@3");
    five(&disk);
    let told: Vec<_> = disk.operations().iter().map(ToString::to_string).collect();
    assert_eq!(told, ["create f.tmp", "write_at f.tmp", "sync f.tmp", "rename f", "sync_folder "]);
    assert_eq!(disk.operations()[3].kind, Kind::Rename);
    disk.plant(Fault::from(Effect::Eio, 2));
    assert_eq!(five(&disk).iter().filter(|result| result.is_err()).count(), 4, "it counts from when it was planted");
    disk.heal();
    assert_eq!(five(&disk), [Ok(()); 5]);
    assert_eq!(disk.count(), 15);
}

#[test]
fn a_sync_that_failed_is_no_better_the_second_time() {
    let (memory, disk) = faulty("eio@4");
    let file = disk.create(Path::new("f")).unwrap();
    disk.sync_folder(Path::new("")).unwrap();
    file.write_at(b"lost", 0).unwrap();
    assert!(file.sync().is_err());
    file.sync().expect("the system calls it a success");
    assert_eq!(read(&memory.crash_hard(), "f"), b"");
}

#[test]
fn the_helpers_try_everything() {
    let tried = std::cell::RefCell::new(Vec::new());
    let run = |disk: &SharedDisk| five(&**disk).iter().filter(|result| result.is_ok()).count();
    every_crash_point(|_| (), run, |_, done| tried.borrow_mut().push(*done));
    tried.borrow_mut().dedup();
    assert_eq!(*tried.borrow(), [0, 1, 2, 3, 4, 5], "stopped before each of five, and after the last");
    tried.borrow_mut().clear();
    every_fault(Effect::Enospc, |_| (), run, |_, done| tried.borrow_mut().push(*done));
    tried.borrow_mut().dedup();
    assert_eq!(*tried.borrow(), [0, 4, 5], "without the first there is no file; without another the rest goes on");
}

/// A fleet that is over at once, in a folder of its own, with faults of its disk.
fn run(folder: &Path, faults: &str) -> (Option<i32>, String) {
    std::fs::create_dir_all(folder).unwrap();
    let pipeline = folder.join("fleet.toml");
    std::fs::write(&pipeline, FLEET).unwrap();
    let mut command = streamgauge();
    command.arg("run").arg(pipeline).current_dir(folder).env("STREAMGAUGE_FAULT", faults);
    command.env("STREAMGAUGE_FAULT_COUNT", "count").env("STREAMGAUGE_FAULT_LOG", "log");
    let output = command.output().unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

const FLEET: &str = r#"
[pipeline]
name = "fleet"
durability = "none"
epoch = "1h"

[sources.fleet]
type = "fleet"
devices = 2
rate = 10
seed = 7
start = "2026-01-05T08:00:00Z"
duration = "2s"
speed = "max"

[sources.fleet.decode]
format = "json"

[sources.fleet.columns]
ts = { type = "timestamp", unit = "ms" }

[sources.fleet.time]
column = "ts"

[sinks.out]
type = "parquet"
inputs = ["fleet"]
path = "out"
"#;

#[test]
fn the_binary_ends_at_the_operation_that_it_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let told = |name: &str| {
        let read = |file: &str| std::fs::read_to_string(folder.path().join(name).join(file)).unwrap();
        (read("count").trim().parse::<usize>().unwrap(), read("log").lines().map(str::to_owned).collect::<Vec<_>>())
    };
    let (code, err) = run(&folder.path().join("whole"), "");
    assert_eq!(code, Some(0), "{err}");
    let (total, log) = told("whole");
    assert_eq!(total, log.len());
    assert!(log.iter().any(|line| line.starts_with("rename out/")), "{log:#?}");
    for effect in ["exit", "exit-after"] {
        for number in 1..=total {
            let name = format!("{effect}{number}");
            let (code, err) = run(&folder.path().join(&name), &format!("{effect}@{number}"));
            assert_eq!(code, Some(137), "{name}: {err}");
            assert_eq!(told(&name).0, number);
        }
    }
    let renamed = |name: &str| std::fs::read_dir(folder.path().join(name).join("out")).map_or(0, Iterator::count);
    let rename = log.iter().position(|line| line.starts_with("rename out/")).unwrap() + 1;
    let (before, after) = (renamed(&format!("exit{rename}")), renamed(&format!("exit-after{rename}")));
    assert_eq!((before, after), (1, 2), "beside `_tmp`");
}

#[test]
fn the_binary_says_which_fault_it_does_not_know() {
    let folder = tempfile::tempdir().unwrap();
    let (code, err) = run(folder.path(), "eio@3,explode@4");
    assert_eq!(code, Some(2), "{err}");
    assert!(err.contains("STREAMGAUGE_FAULT: cannot read `explode@4` as a fault"), "{err}");
}
