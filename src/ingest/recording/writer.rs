//! Writes a recording.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use base64::engine::general_purpose::STANDARD;
use flate2::write::GzEncoder;

use super::RecordingError;
use super::clock::write_time;
use crate::flow::payload::Payload;
use crate::flow::time::Timestamp;

/// Bytes that are written at once.
const WRITE_BYTES: usize = 256 << 10;

/// The Zstandard level: fast, and a fifth of the size.
const ZSTD_LEVEL: i32 = 3;

/// A recording that is being written. Without [`RecordingWriter::finish`] its end may be missing.
pub struct RecordingWriter {
    path: PathBuf,
    out: Out,
    line: Vec<u8>,
}

enum Out {
    Plain(BufWriter<File>),
    Gz(GzEncoder<BufWriter<File>>),
    Zst(zstd::Encoder<'static, BufWriter<File>>),
}

impl Out {
    fn writer(&mut self) -> &mut dyn Write {
        match self {
            Self::Plain(out) => out,
            Self::Gz(out) => out,
            Self::Zst(out) => out,
        }
    }

    fn finish(self) -> io::Result<()> {
        let buffered = match self {
            Self::Plain(out) => out,
            Self::Gz(out) => out.finish()?,
            Self::Zst(out) => out.finish()?,
        };
        buffered.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()
    }
}

impl RecordingWriter {
    /// Creates the file, or empties it: gzip where it is called `.gz`, Zstandard where `.zst`, plain otherwise.
    pub fn create(path: &Path) -> Result<Self, RecordingError> {
        let cannot = |why| RecordingError::Open { doing: "create", path: path.to_owned(), why };
        let file = BufWriter::with_capacity(WRITE_BYTES, File::create(path).map_err(cannot)?);
        let out = match path.extension().and_then(|extension| extension.to_str()) {
            Some("gz") => Out::Gz(GzEncoder::new(file, flate2::Compression::default())),
            Some("zst") => Out::Zst(zstd::Encoder::new(file, ZSTD_LEVEL).map_err(cannot)?),
            _ => Out::Plain(file),
        };
        Ok(Self { path: path.to_owned(), out, line: Vec::new() })
    }

    /// Writes one payload as line `seq`.
    pub fn write(&mut self, payload: &Payload<'_>, seq: u64) -> Result<(), RecordingError> {
        self.line.clear();
        line(payload, seq, &mut self.line)
            .and_then(|()| self.out.writer().write_all(&self.line))
            .map_err(|why| RecordingError::Write { path: self.path.clone(), why })
    }

    /// Writes what is left, and waits until the disk has it.
    pub fn finish(self) -> Result<(), RecordingError> {
        self.out.finish().map_err(|why| RecordingError::Write { path: self.path, why })
    }
}

impl std::fmt::Debug for RecordingWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RecordingWriter").field("path", &self.path).finish_non_exhaustive()
    }
}

/// Appends the line of a payload.
fn line(payload: &Payload<'_>, seq: u64, into: &mut Vec<u8>) -> io::Result<()> {
    write!(into, "{{\"seq\":{seq}")?;
    if payload.arrival != Timestamp::START {
        into.extend_from_slice(b",\"recv_time\":\"");
        if !write_time(payload.arrival, into) {
            let why = format!("the arrival time {} is beyond the calendar", payload.arrival);
            return Err(io::Error::new(io::ErrorKind::InvalidData, why));
        }
        into.push(b'"');
    }
    into.extend_from_slice(b",\"topic\":");
    if !text(payload.topic, into)? {
        into.extend_from_slice(b",\"topic_enc\":\"base64\"");
    }
    let delivery = payload.delivery;
    write!(into, ",\"qos\":{},\"retain\":{}", delivery.qos, delivery.retained)?;
    if delivery.dup {
        into.extend_from_slice(b",\"dup\":true");
    }
    if delivery.packet_id != 0 {
        write!(into, ",\"packet_id\":{}", delivery.packet_id)?;
    }
    if !payload.properties.is_empty() {
        properties(payload.properties, into)?;
    }
    let is_text = std::str::from_utf8(payload.body).is_ok();
    into.extend_from_slice(if is_text {
        b",\"enc\":\"utf8\",\"payload\":"
    } else {
        b",\"enc\":\"base64\",\"payload\":"
    });
    text(payload.body, into)?;
    into.extend_from_slice(b"}\n");
    Ok(())
}

/// Appends bytes as a JSON string: as they are where they are UTF-8 (true), in base64 where not.
fn text(bytes: &[u8], into: &mut Vec<u8>) -> io::Result<bool> {
    match std::str::from_utf8(bytes) {
        Ok(text) => {
            serde_json::to_writer(into, text)?;
            Ok(true)
        }
        Err(_) => {
            write!(into, "\"{}\"", base64::display::Base64Display::new(bytes, &STANDARD))?;
            Ok(false)
        }
    }
}

fn properties(properties: &[(String, String)], into: &mut Vec<u8>) -> io::Result<()> {
    into.extend_from_slice(b",\"properties\":{");
    for (index, (key, value)) in properties.iter().enumerate() {
        if index > 0 {
            into.push(b',');
        }
        serde_json::to_writer(&mut *into, key)?;
        into.push(b':');
        serde_json::to_writer(&mut *into, value)?;
    }
    into.push(b'}');
    Ok(())
}
