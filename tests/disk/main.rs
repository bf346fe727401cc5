//! The disk that tests crash: that it is like a real one while it lives, that what is left of it after a crash is what
//! may be left, and that what writes to it leaves nothing half done.
#![allow(missing_docs)]

mod faults;
mod memory;
mod oracle;
#[path = "../support/mod.rs"]
mod support;
mod writers;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use streamgauge::disk::{self, Disk};

const SECTOR: usize = 512;

/// Everything on a disk: files with their bytes, folders without.
fn tree(disk: &dyn Disk, folder: &Path) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
    let mut found = BTreeMap::new();
    for name in disk.list(folder).unwrap() {
        let path = folder.join(name);
        if disk.is_folder(&path) {
            found.extend(tree(disk, &path));
            found.insert(path, None);
        } else {
            let bytes = disk::read(disk, &path).unwrap();
            assert_eq!(disk.file_len(&path).unwrap(), bytes.len() as u64);
            found.insert(path, Some(bytes));
        }
    }
    found
}

fn read(disk: &dyn Disk, path: &str) -> Vec<u8> {
    disk::read(disk, Path::new(path)).unwrap()
}
