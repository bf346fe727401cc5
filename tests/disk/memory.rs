//! What may be left after a crash, case by case.

use std::collections::BTreeSet;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use streamgauge::disk::Disk;
use streamgauge::disk::memory::MemoryDisk;

use crate::{SECTOR, read, tree};

/// A file of durable zeros under a durable name.
fn durable_file(disk: &MemoryDisk, path: &str, len: usize) {
    disk.create(Path::new(path)).unwrap().write_at(&vec![0; len], 0).unwrap();
    disk.settle();
}

#[test]
fn writes_survive_in_any_order_and_torn() {
    let disk = MemoryDisk::new();
    durable_file(&disk, "f", 3 * SECTOR);
    let file = disk.open(Path::new("f")).unwrap();
    file.write_at(&[1; SECTOR], 0).unwrap();
    file.write_at(&[2; 2 * SECTOR], SECTOR as u64).unwrap();
    let seen: BTreeSet<_> =
        (0..500).map(|seed| read(&disk.crash(seed), "f").chunks(SECTOR).map(|s| s[0]).collect::<Vec<_>>()).collect();
    let all = [[0, 0, 0], [0, 0, 2], [0, 2, 0], [0, 2, 2], [1, 0, 0], [1, 0, 2], [1, 2, 0], [1, 2, 2]];
    assert_eq!(seen, all.map(Vec::from).into());
}

#[test]
fn a_length_survives_without_its_bytes_and_the_other_way() {
    let disk = MemoryDisk::new();
    durable_file(&disk, "f", 100);
    let file = disk.open(Path::new("f")).unwrap();
    file.write_at(&[1; 100], 50).unwrap();
    let seen: BTreeSet<_> = (0..200).map(|seed| read(&disk.crash(seed), "f")).collect();
    let file = |parts: &[(u8, usize)]| parts.iter().flat_map(|(byte, len)| vec![*byte; *len]).collect::<Vec<_>>();
    let all = [file(&[(0, 100)]), file(&[(0, 150)]), file(&[(0, 50), (1, 50)]), file(&[(0, 50), (1, 100)])];
    assert_eq!(seen, all.into());
}

#[test]
fn a_sector_carries_what_was_written_before() {
    let disk = MemoryDisk::new();
    durable_file(&disk, "f", SECTOR);
    let file = disk.open(Path::new("f")).unwrap();
    file.write_at(&[1; 4], 0).unwrap();
    file.write_at(&[2; 4], 4).unwrap();
    let seen: BTreeSet<_> = (0..200).map(|seed| read(&disk.crash(seed), "f")[..8].to_vec()).collect();
    let all = [[0, 0, 0, 0, 0, 0, 0, 0], [1, 1, 1, 1, 0, 0, 0, 0], [1, 1, 1, 1, 2, 2, 2, 2]];
    assert_eq!(seen, all.map(Vec::from).into());
}

#[test]
fn a_name_must_be_made_durable_too() {
    let disk = MemoryDisk::new();
    disk.create_folder(Path::new("d")).unwrap();
    let file = disk.create(Path::new("d/f")).unwrap();
    file.write_at(b"bytes", 0).unwrap();
    file.sync().unwrap();
    let there = |disk: &MemoryDisk| tree(&disk.crash_hard(), Path::new("")).into_keys().collect::<Vec<_>>();
    let next = disk.kill();
    next.sync_folder(Path::new("d")).unwrap();
    assert_eq!(there(&next), [""; 0].map(PathBuf::from), "nothing leads to the folder");
    let next = next.kill();
    next.sync_folder(Path::new("/")).unwrap();
    assert_eq!(there(&next), ["d", "d/f"].map(PathBuf::from));
    assert_eq!(read(&next.crash_hard(), "d/f"), b"bytes");
}

#[test]
fn a_rename_between_folders_is_one_step() {
    let disk = MemoryDisk::new();
    for folder in ["from", "to"] {
        disk.create_folder(Path::new(folder)).unwrap();
    }
    durable_file(&disk, "from/f", 10);
    disk.create(Path::new("from/before")).unwrap();
    disk.rename(Path::new("from/f"), Path::new("to/f")).unwrap();
    disk.create(Path::new("from/after")).unwrap();
    let names = |disk: &MemoryDisk| {
        let files: Vec<_> = tree(disk, Path::new("")).into_iter().filter(|(_, bytes)| bytes.is_some()).collect();
        files.into_iter().map(|(path, _)| path.to_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let seen: BTreeSet<_> = (0..300).map(|seed| names(&disk.crash(seed))).collect();
    let all: [&[&str]; 4] =
        [&["from/f"], &["from/before", "from/f"], &["from/before", "to/f"], &["from/after", "from/before", "to/f"]];
    assert_eq!(seen, all.iter().map(|names| names.iter().map(ToString::to_string).collect()).collect());
    let next = disk.kill();
    next.sync_folder(Path::new("to")).unwrap();
    assert_eq!(names(&next.crash_hard()), ["from/before", "to/f"], "durable in both, with what came before");
}

#[test]
fn who_writes_on_after_a_crash_changes_nothing() {
    let disk = MemoryDisk::new();
    durable_file(&disk, "f", 4);
    let zombie = disk.open(Path::new("f")).unwrap();
    let next = disk.kill();
    let errno = |result: io::Result<()>| result.unwrap_err().raw_os_error();
    assert_eq!(errno(zombie.write_at(b"late", 0)), Some(5));
    assert_eq!(errno(zombie.sync()), Some(5));
    assert_eq!(errno(zombie.set_len(0)), Some(5));
    assert_eq!(errno(zombie.read_at(&mut [0; 4], 0).map(drop)), Some(5));
    assert_eq!(errno(disk.create(Path::new("g")).map(drop)), Some(5));
    assert_eq!(errno(disk.remove(Path::new("f"))), Some(5));
    assert_eq!(read(&next, "f"), [0; 4]);
    assert_eq!(read(&disk.crash(1), "f"), [0; 4]);
}

#[test]
fn a_full_disk_takes_no_more() {
    let disk = MemoryDisk::with_capacity(1000);
    let file = disk.create(Path::new("f")).unwrap();
    file.write_at(&[1; 600], 0).unwrap();
    let full = file.write_at(&[2; 600], 600).unwrap_err();
    assert_eq!((full.raw_os_error(), full.kind()), (Some(28), ErrorKind::StorageFull));
    assert_eq!(disk.file_len(Path::new("f")).unwrap(), 1000, "what fits is written, as write(2) does");
    file.write_at(&[3; 1000], 0).unwrap();
    disk.create(Path::new("g")).unwrap().set_len(500).unwrap();
    let grown = disk.open(Path::new("g")).unwrap();
    assert_eq!(grown.write_at(&[4], 0).unwrap_err().kind(), ErrorKind::StorageFull, "a length is no place");
    file.set_len(900).unwrap();
    grown.write_at(&[4; 100], 200).unwrap();
    assert!(grown.write_at(&[4; 100], 201).is_err());
    disk.remove(Path::new("f")).unwrap();
    assert_eq!(disk.used(), 1000, "it is still open");
    drop(file);
    assert_eq!(disk.used(), 100);
    disk.set_capacity(Some(50));
    grown.write_at(&[5; 100], 200).unwrap();
    assert!(disk.create(Path::new("h")).unwrap().write_at(&[6], 0).is_err());
    disk.set_capacity(None);
    disk.open(Path::new("h")).unwrap().write_at(&[6; 5000], 0).unwrap();
}
