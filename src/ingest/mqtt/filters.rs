//! Which filters a kept session may have: a session outlives the process, and with it the filters that a pipeline file had
//! before it was changed. They are written down beside the journal, and those that nobody wants any more are given back.

use std::path::PathBuf;

use crate::disk::{self, SharedDisk};
use crate::ingest::SourceError;
use crate::ingest::journal::is_full;

/// The filters that the broker may know of, on disk.
#[derive(Debug)]
pub(super) struct Filters {
    disk: SharedDisk,
    path: PathBuf,
    wanted: Vec<String>,
    /// Known to the broker from an earlier run, and not wanted.
    pub(super) stale: Vec<String>,
}

impl Filters {
    /// Reads what earlier runs had asked for, and writes down what this one will: before it asks.
    pub(super) fn open(disk: SharedDisk, folder: PathBuf, wanted: &[String]) -> Result<Self, SourceError> {
        let path = folder.join("filters.json");
        let known: Vec<String> = match disk::read(&*disk, &path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| {
                SourceError::Fatal(format!("cannot understand `{}`: {error}; remove it", path.display()))
            })?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(SourceError::Lost(format!("cannot read `{}`: {error}", path.display()))),
        };
        let stale: Vec<String> = known.iter().filter(|filter| !wanted.contains(filter)).cloned().collect();
        let filters = Self { disk, path, wanted: wanted.to_vec(), stale };
        if !wanted.iter().all(|filter| known.contains(filter)) {
            filters.write(&[filters.stale.as_slice(), wanted].concat())?;
        }
        Ok(filters)
    }

    /// The broker has done what it was asked: it knows of no others than those that are wanted.
    pub(super) fn settled(&mut self) -> Result<(), SourceError> {
        if self.stale.is_empty() {
            return Ok(());
        }
        self.stale.clear();
        self.write(&self.wanted)
    }

    /// A full disk may have room later. Anything else may be a sync that failed, after which nobody knows what is there.
    fn write(&self, filters: &[String]) -> Result<(), SourceError> {
        let bytes = serde_json::to_vec(filters).expect("texts are always JSON");
        disk::write_whole(&*self.disk, &self.path, &bytes).map_err(|error| {
            let why = format!("cannot write `{}`: {error}", self.path.display());
            if is_full(&error) { SourceError::Lost(why) } else { SourceError::Fatal(why) }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_wanted_any_more_is_known_until_it_was_given_back() {
        let folder = tempfile::tempdir().unwrap();
        let open = |wanted: &[&str]| {
            let wanted: Vec<String> = wanted.iter().map(|filter| (*filter).to_owned()).collect();
            Filters::open(disk::real(), folder.path().to_owned(), &wanted).unwrap()
        };
        assert_eq!(open(&["a/#", "b/#"]).stale, [""; 0]);
        assert_eq!(open(&["a/#"]).stale, ["b/#"]);
        let mut filters = open(&["a/#", "c"]);
        assert_eq!(filters.stale, ["b/#"], "the run before did not get to it");
        filters.settled().unwrap();
        assert_eq!(open(&["c"]).stale, ["a/#"]);
    }
}
