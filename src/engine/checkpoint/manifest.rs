//! The file whose rename is the commit of an epoch: what the state is, where its parts are, which files are to be published.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::flow::message::Epoch;
use crate::ingest::intake::SourceState;
use crate::operator::Identity;
use crate::sink::PreparedFile;

/// The version of the format. A build reads its own and older ones.
pub const VERSION: u32 = 1;
const MAGIC: &str = "streamgauge-checkpoint";

/// A checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The pipeline's name.
    pub pipeline: String,
    /// Tells the files of this state folder from those of others.
    pub run: String,
    /// A checksum of the pipeline file that ran.
    pub file: String,
    /// The epoch that it ends.
    pub epoch: u64,
    /// By stage.
    pub stages: BTreeMap<String, StageState>,
}

/// What a stage left.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageState {
    /// Its type in the pipeline file.
    pub kind: String,
    /// What its state depends on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub identity: Identity,
    /// Of a source: where it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<SourceState>,
    /// Its state.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<PartFile>,
    /// Files of a sink that belong to the epoch.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<PreparedFile>,
    /// What it had counted.
    #[serde(default)]
    pub counts: Counts,
}

/// A part of a stage's state: an Arrow IPC file beside the manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartFile {
    /// The part's name.
    pub name: String,
    /// The file's name.
    pub file: String,
    /// Its length.
    pub bytes: u64,
    /// Its CRC-32C: an IPC file would be read with wrong values where a bit has changed.
    pub crc32c: u32,
    /// Its rows.
    pub rows: u64,
}

/// What a stage had counted at the end of an epoch, since the state folder was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Rows received.
    pub rows_in: u64,
    /// Rows sent, by port.
    pub rows_out: [u64; 2],
    /// Of a source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<SourceCounts>,
}

/// What a source had counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "named and documented as in `SourceMeter`")]
pub struct SourceCounts {
    pub expanded: i64,
    pub rows: u64,
    pub dead_letter: u64,
    pub future: u64,
    pub dropped: u64,
    pub duplicates: u64,
    #[serde(default)]
    pub extra_fields: u64,
    #[serde(default)]
    pub mismatched_values: u64,
    #[serde(default)]
    pub lost_messages: u64,
    pub bytes: u64,
}

impl SourceCounts {
    /// All payloads that these counts tell of.
    pub fn received(&self) -> u64 {
        let became = self.rows + self.dead_letter + self.future + self.dropped + self.duplicates;
        u64::try_from(i128::from(became) - i128::from(self.expanded)).unwrap_or(0)
    }
}

impl Manifest {
    /// The epoch that it ends.
    pub const fn epoch(&self) -> Epoch {
        Epoch(self.epoch)
    }

    /// As a file: a line with the version, the length and the CRC-32C of what follows, then JSON.
    pub fn encode(&self) -> Vec<u8> {
        let body = serde_json::to_vec_pretty(self).expect("names and numbers are always JSON");
        let mut bytes = format!("{MAGIC} {VERSION} {} {:08x}\n", body.len(), crc32c::crc32c(&body)).into_bytes();
        bytes.extend_from_slice(&body);
        bytes
    }

    /// From a file; why not, where that is no whole checkpoint.
    pub fn decode(bytes: &[u8]) -> Result<Self, Unreadable> {
        let damaged = |why: &str| Unreadable::Damaged(why.to_owned());
        let end = bytes.iter().position(|byte| *byte == b'\n').ok_or_else(|| damaged("it has no first line"))?;
        let (line, body) = (&bytes[..end], &bytes[end + 1..]);
        let line = std::str::from_utf8(line).map_err(|_| damaged("its first line is no text"))?;
        let words: Vec<&str> = line.split(' ').collect();
        let [MAGIC, version, len, checksum] = words.as_slice() else {
            return Err(damaged("its first line is not that of a checkpoint"));
        };
        let version = version.parse().ok().filter(|version: &u32| *version > 0);
        let version = version.ok_or_else(|| damaged("its version is no number"))?;
        if version > VERSION {
            return Err(Unreadable::Newer(version));
        }
        if len.parse() != Ok(body.len()) {
            return Err(damaged("it is longer or shorter than it says"));
        }
        if *checksum != format!("{:08x}", crc32c::crc32c(body)) {
            return Err(damaged("its checksum is wrong"));
        }
        serde_json::from_slice(body).map_err(|error| Unreadable::Damaged(error.to_string()))
    }
}

/// Why a file is no checkpoint that can be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unreadable {
    /// It is not whole.
    Damaged(String),
    /// A newer build wrote it.
    Newer(u32),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        let counts =
            Counts { rows_in: 3, rows_out: [1, 2], source: Some(SourceCounts { rows: 5, ..Default::default() }) };
        let part = PartFile { name: "all".into(), file: "x.arrow".into(), bytes: 9, crc32c: 7, rows: 1 };
        let stage = StageState { kind: "window".into(), parts: vec![part], counts, ..Default::default() };
        let stages = BTreeMap::from([("w".to_owned(), stage)]);
        Manifest { pipeline: "p".into(), run: "r".into(), file: "f".into(), epoch: 4, stages }
    }

    #[test]
    fn it_comes_back_and_no_flipped_bit_or_cut_goes_unnoticed() {
        let bytes = manifest().encode();
        assert_eq!(Manifest::decode(&bytes), Ok(manifest()));
        for at in 0..bytes.len() {
            assert!(Manifest::decode(&bytes[..at]).is_err(), "cut at {at}");
            for bit in 0..8 {
                let mut flipped = bytes.clone();
                flipped[at] ^= 1 << bit;
                assert!(Manifest::decode(&flipped).is_err(), "bit {bit} of byte {at}");
            }
        }
    }

    #[test]
    fn a_newer_one_is_refused() {
        let text = String::from_utf8(manifest().encode()).unwrap().replacen("checkpoint 1 ", "checkpoint 2 ", 1);
        assert_eq!(Manifest::decode(text.as_bytes()), Err(Unreadable::Newer(2)));
    }
}
