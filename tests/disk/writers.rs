//! What writes to a disk leaves nothing half done, wherever it is stopped.

use std::collections::BTreeMap;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

use streamgauge::disk::faulty::Effect;
use streamgauge::disk::{self, Disk, Folders, SharedDisk};
use streamgauge::sink::{PreparedFile, publish};

use crate::support::crash::{Crashes, Left};
use crate::support::planted::is_caught;
use crate::tree;

/// Writes a file anew over an older one, and looks at what is left wherever it was stopped.
fn write_whole_is_whole(crashes: &Crashes) {
    let path = Path::new("state/file");
    let (old, new, newer) = (vec![1; 700], vec![2; 3000], vec![3; 20]);
    crashes.check(
        |disk| {
            disk.create_folder(Path::new("state")).unwrap();
            disk::write_whole(&**disk, path, &old).unwrap();
        },
        |disk| disk::write_whole(&**disk, path, &new).is_ok(),
        |Left { disk, .. }, returned| {
            let left = disk::read(&**disk, path).unwrap();
            let whole = left == new || (!returned && left == old);
            assert!(whole, "returned: {returned}, left: {} bytes", left.len());
            disk::write_whole(&**disk, path, &newer).unwrap();
            assert_eq!(disk::read(&**disk, path).unwrap(), newer);
            assert_eq!(disk.list(Path::new("state")).unwrap(), ["file"], "nothing is left over");
        },
    );
}

#[test]
fn a_file_is_whole_at_every_crash_point() {
    write_whole_is_whole(&Crashes { seeds: 200, ..Crashes::default() });
    for fault in [Effect::Eio, Effect::Enospc, Effect::Torn] {
        write_whole_is_whole(&Crashes { fault, forever: false, ..Crashes::default() });
    }
}

#[test]
fn a_file_that_was_not_made_durable_is_noticed() {
    for planted in ["nosync", "nosync-folder"] {
        let crashes = Crashes { planted, ..Crashes::default() };
        assert!(catch_unwind(|| write_whole_is_whole(&crashes)).is_err(), "{planted} goes unnoticed");
    }
}

fn folders_are_there(crashes: &Crashes) {
    let folder = Path::new("a/b/c");
    crashes.check(
        |disk| disk.create_folder(Path::new("a")).unwrap(),
        |disk| {
            let mut folders = Folders::default();
            folders.create(&**disk, folder).is_ok() && folders.sync(&**disk).is_ok()
        },
        |Left { disk, .. }, returned| {
            assert!(disk.is_folder(Path::new("a")));
            assert!(disk.is_folder(folder) || !returned);
            Folders::default().create(&**disk, folder).unwrap();
            assert!(disk.is_folder(folder), "it can be done again");
        },
    );
}

#[test]
fn folders_are_there_at_every_crash_point() {
    folders_are_there(&Crashes::default());
    let crashes = Crashes { planted: "nosync-folder", ..Crashes::default() };
    assert!(catch_unwind(|| folders_are_there(&crashes)).is_err());
}

/// Three files of an epoch in two new folders and one that was there.
fn prepared() -> Vec<(PreparedFile, Vec<u8>)> {
    let file = |number: u8, to: &str| {
        let bytes = vec![number; 300 * usize::from(number)];
        let from = PathBuf::from(format!("out/_tmp/p/s/{number}"));
        (PreparedFile { from, to: to.into(), bytes: bytes.len() as u64, rows: 1 }, bytes)
    };
    vec![file(1, "out/day=1/x"), file(2, "out/day=1/y"), file(3, "out/old/z"), file(4, "out/site=a/day=2/x")]
}

fn published(crashes: &Crashes) {
    let files: Vec<_> = prepared().into_iter().map(|(file, _)| file).collect();
    let setup = |disk: &SharedDisk| {
        for folder in ["out/old", "out/_tmp/p/s"] {
            Folders::default().create(&**disk, Path::new(folder)).unwrap();
        }
        for (file, bytes) in prepared() {
            disk.create(&file.from).unwrap().write_at(&bytes, 0).unwrap();
        }
    };
    let all_there = |disk: &dyn Disk| {
        let mut there = tree(disk, Path::new("out"));
        there.retain(|_, bytes| bytes.is_some());
        let expected: BTreeMap<_, _> = prepared().into_iter().map(|(file, bytes)| (file.to, Some(bytes))).collect();
        assert!(there == expected, "every file is at its place, and nowhere else: {:?}", there.keys());
    };
    let run = |disk: &SharedDisk| publish(&**disk, &files).is_ok();
    let check = |left: &Left, returned: &bool| {
        if *returned {
            all_there(&left.memory);
        }
        publish(&left.memory, &files).unwrap();
        all_there(&left.memory);
        all_there(&left.memory.crash_hard());
    };
    crashes.check(setup, run, check);
}

#[test]
fn files_are_published_once_at_every_crash_point() {
    published(&Crashes { seeds: 100, ..Crashes::default() });
    for fault in [Effect::Eio, Effect::Enospc] {
        published(&Crashes { fault, forever: false, ..Crashes::default() });
    }
}

#[test]
fn publishing_that_returns_early_is_noticed() {
    is_caught("publish-returns-early", "writers::files_are_published_once_at_every_crash_point");
}

#[test]
fn names_that_were_not_made_durable_are_noticed() {
    let crashes = Crashes { planted: "nosync-folder", ..Crashes::default() };
    assert!(catch_unwind(|| published(&crashes)).is_err());
}
