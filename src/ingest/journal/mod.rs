//! The journal of a source: everything that crosses from the feed to the intake, on disk before it is acknowledged.
//!
//! ```text
//! feed ─► bridge ─► [keeper: append, sync] ─► acknowledgement
//!                        │         └─► tail (in memory, bounded) ─┐
//!                        └─► segments ────────────────────────────┴─► reader ─► intake
//! ```
//!
//! Payloads, ticks of the arrival clock, and the ends of epochs are records of one log, so what the stages see is a function
//! of the journal alone: after a crash, or in `replay --journal`, they see the same again. The keeper never waits for a
//! stage; only the quota holds it back. The reader takes the tail from memory while it keeps up, and reads segments when it
//! does not.
//!
//! A segment is a file of zeros that is written over: then a sync need not write metadata, which makes it ten times faster.
//! Where much comes between two syncs, the zeros are a hole instead, and nothing is written twice.
//! Records are synced in groups: everything that came while the last sync was on its way goes with the next. A group ends
//! with a `Synced` mark, which is written again once the group is durable, and says so then: a bad record before what a mark
//! speaks of was once good, so it is damage, and the start stops there; a bad record after that was being written in the
//! crash, and is cut off.

mod keeper;
mod reader;
mod record;
mod recover;
mod run;
mod segment;
mod syncing;
mod tail;
mod writer;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use keeper::{Keeper, KeeperError, Troubled};
pub use reader::{Read, Reader};
pub use recover::{Recovered, Redelivery, recover};
pub use tail::Handle;

/// A place in a journal. Ordered as the records are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Position {
    /// The segment's number.
    pub segment: u64,
    /// Bytes from its beginning.
    pub offset: u64,
}

/// A place, and the number of the record that is or will be there.
pub type Next = (Position, u64);

/// When records are made durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sync {
    /// Before they are acknowledged: nothing that was acknowledged is lost, not even in a power cut.
    Group,
    /// So often. A power cut loses at most what was acknowledged in that time; the death of the process loses nothing.
    Interval(Duration),
    /// At the end of each epoch. A power cut loses at most an epoch; the death of the process loses nothing.
    None,
}

/// How a journal is kept.
#[derive(Clone, Debug)]
pub struct JournalSettings {
    /// Where its segments are.
    pub folder: PathBuf,
    /// Bytes that its segments may take.
    pub quota: u64,
    /// When records are made durable.
    pub sync: Sync,
    /// Bytes of payloads that wait in memory for the stages.
    pub tail_bytes: usize,
    /// Bytes of segments that no checkpoint needs any more, kept for `replay --journal`.
    pub keep: u64,
    /// Bytes of a segment; `None` for what suits the quota.
    pub segment: Option<u64>,
    /// Segments are filled with zeros beforehand where fewer bytes than these come between two syncs.
    pub zeros_below: u64,
}

/// [`JournalSettings::zeros_below`] where nothing else is known. Measured on ext4, for all of it: with groups of 64 KiB zeros
/// save a fifth of the time, with 256 KiB it is the same, and with 1 MiB they cost a fifth.
pub const ZEROS_BELOW: u64 = 512 << 10;

/// The greatest size of a segment.
const SEGMENT_BYTES_MAX: u64 = 16 << 20;
/// The least.
const SEGMENT_BYTES_MIN: u64 = 64 << 10;
/// So many segments make a quota.
const SEGMENTS: u64 = 16;

impl JournalSettings {
    /// Bytes of a segment: small where the quota is small.
    pub fn segment_bytes(&self) -> u64 {
        self.segment.unwrap_or_else(|| (self.quota / SEGMENTS).clamp(SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX))
    }
}

/// Why a journal cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The file system refused.
    #[error("journal: cannot {what} `{}`: {why}", path.display())]
    Disk {
        /// What was attempted.
        what: &'static str,
        /// On which file or folder.
        path: PathBuf,
        /// Why it failed.
        why: io::Error,
    },
    /// A sync failed: nobody knows what is on the disk, and trying again would not tell.
    #[error("journal: cannot make `{}` durable: {why}", path.display())]
    Lost {
        /// Which file or folder.
        path: PathBuf,
        /// Why it failed.
        why: io::Error,
    },
    /// A record that was safe once is not what it was.
    #[error(
        "journal: `{}` is damaged at byte {offset}: {why}; what was acknowledged is lost there. Restore the file, or run with \
         --accept-loss to go on with the next good record",
        path.display()
    )]
    Damaged {
        /// The segment's file.
        path: PathBuf,
        /// Where in it.
        offset: u64,
        /// What is wrong.
        why: String,
    },
    /// A newer program wrote it.
    #[error("journal: `{}` is of version {version}, and this build knows version {known}; run the newer build", path.display())]
    Newer {
        /// The segment's file.
        path: PathBuf,
        /// Its version.
        version: u32,
        /// Ours.
        known: u32,
    },
}

impl JournalError {
    fn disk(what: &'static str, path: &Path, why: io::Error) -> Self {
        Self::Disk { what, path: path.to_owned(), why }
    }

    /// A sync has failed. That is never tried again, also where it failed because the disk is full.
    fn lost(path: &Path, why: io::Error) -> Self {
        Self::Lost { path: path.to_owned(), why }
    }

    /// Whether the disk is full, which may pass.
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Disk { why, .. } if is_full(why))
    }
}

/// A full disk or an exhausted quota of the file system.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
