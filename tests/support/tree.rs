//! All files below a folder, with their bytes.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// By path below the folder.
pub type Tree = BTreeMap<PathBuf, Vec<u8>>;

pub fn tree(folder: &Path) -> Tree {
    let (mut tree, mut folders) = (Tree::new(), vec![folder.to_owned()]);
    while let Some(here) = folders.pop() {
        let Ok(entries) = fs::read_dir(&here) else { continue };
        for entry in entries {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                tree.insert(path.strip_prefix(folder).unwrap().to_owned(), fs::read(&path).unwrap());
            }
        }
    }
    tree
}

/// Both have the same files with the same bytes.
pub fn assert_same_tree(what: &str, expected: &Tree, actual: &Tree) {
    let missing: Vec<_> = expected.keys().filter(|path| !actual.contains_key(*path)).take(5).collect();
    let extra: Vec<_> = actual.keys().filter(|path| !expected.contains_key(*path)).take(5).collect();
    let other: Vec<_> =
        expected.iter().filter(|(path, bytes)| actual.get(*path).is_some_and(|actual| actual != *bytes)).collect();
    let differ = other.iter().map(|(path, _)| *path).take(5).collect::<Vec<_>>();
    assert!(
        missing.is_empty() && extra.is_empty() && differ.is_empty(),
        "{what}: of {} files are missing {missing:?}, too many {extra:?}, different {} {differ:?}",
        expected.len(),
        other.len(),
    );
}

/// Copies a folder with all that is in it.
pub fn copy(from: &Path, to: &Path) {
    for (path, bytes) in tree(from) {
        let path = to.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
}
