//! Recordings: a stretch of a feed as a file, a payload a line, in order of arrival.
//!
//! ```json
//! {"seq":1,"recv_time":"2026-01-02T03:04:05.123456Z","topic":"a/b","qos":1,"retain":false,"enc":"utf8","payload":"21.5"}
//! ```
//!
//! | key | is |
//! | --- | --- |
//! | `seq` | counts up from 1; for people, not read |
//! | `recv_time` | the arrival time: RFC 3339, to the microsecond. Left out where nobody knows it |
//! | `topic` | the topic; with `"topic_enc":"base64"` beside it where it is not UTF-8 |
//! | `qos`, `retain` | as the transport said |
//! | `dup`, `packet_id` | the same; left out where `false` and 0 |
//! | `properties` | MQTT 5 user properties: an object of strings, in which a key may come twice; left out where there are none |
//! | `enc` | `utf8` (the default) or `base64`: how `payload` is written |
//! | `payload` | a string. Any other JSON value is read too: the payload is its text, byte for byte |
//!
//! Only `topic` and `payload` are required; other keys are passed over. The file is plain, gzip (`.gz`, also of many
//! members) or Zstandard (`.zst`). A *bare* recording has no envelopes: each line that is not empty is a payload, all
//! of one topic, and nobody knows when they arrived.

mod clock;
mod line;
mod reader;
mod replay;
mod speed;
mod writer;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

pub use clock::{read_time, write_time};
pub use reader::Recording;
pub use replay::{ReplaySource, ReplaySpec};
pub use speed::Speed;
pub use writer::RecordingWriter;

/// The longest line that a recording may have, unless another bound is given.
pub const LINE_BYTES_MAX: usize = 16 << 20;

/// How a recording's lines are to be read.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum Shape {
    /// Each line is an envelope around a payload.
    #[default]
    Envelopes,
    /// Each line is a payload of this topic.
    Bare(
        /// The topic.
        String,
    ),
}

/// How far a recording has been read, for a progress bar. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    /// Bytes of the file that were read.
    pub read_bytes: Arc<AtomicU64>,
    /// Bytes of the whole file; 0 until it is opened.
    pub total_bytes: Arc<AtomicU64>,
    /// Payloads that were read.
    pub payloads: Arc<AtomicU64>,
}

impl Progress {
    /// `(read, total)` bytes of the file, for one look.
    pub fn bytes(&self) -> (u64, u64) {
        (self.read_bytes.load(Relaxed), self.total_bytes.load(Relaxed))
    }
}

/// Why a recording cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum RecordingError {
    /// The file cannot be opened or created.
    #[error("cannot {doing} the recording {}: {why}", path.display())]
    Open {
        /// `open` or `create`.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        why: std::io::Error,
    },
    /// A line is no payload, or cannot be read.
    #[error("{}:{line}: {why}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Counts from 1.
        line: u64,
        /// What is wrong with it.
        why: String,
    },
    /// A line cannot be written.
    #[error("cannot write to the recording {}: {why}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        why: std::io::Error,
    },
}
