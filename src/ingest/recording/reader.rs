//! Reads a recording, a line at a time, from one buffer.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use memchr::{memchr, memchr_iter};

use super::line::Envelopes;
use super::{LINE_BYTES_MAX, Progress, RecordingError, Shape};
use crate::flow::payload::{Delivery, Payloads};
use crate::flow::time::Timestamp;

/// Bytes that are read at once, and the room that the buffer starts with.
const READ_BYTES: usize = 1 << 20;

/// Bytes that are read at once of a bare recording, at least.
const READ_BYTES_MIN: usize = 64 << 10;

/// A recording that is being read.
pub struct Recording {
    path: PathBuf,
    input: Box<dyn Read + Send>,
    shape: Shape,
    envelopes: Envelopes,
    buffer: Vec<u8>,
    /// The part of the buffer that was read and not yet taken.
    from: usize,
    to: usize,
    at_end: bool,
    /// How much is read at once.
    read_bytes: usize,
    line: u64,
    line_bytes_max: usize,
    /// Where the lines of a block stand, and how long one is on average.
    bodies: Vec<(usize, usize)>,
    average: usize,
    clock: Clock,
    progress: Progress,
}

/// Keeps arrival times from going back.
#[derive(Debug)]
struct Clock {
    last: Timestamp,
    back: u64,
}

impl Clock {
    fn next(&mut self, arrival: Timestamp) -> Timestamp {
        if arrival == Timestamp::START {
            return arrival;
        }
        self.back += u64::from(arrival < self.last);
        self.last = self.last.max(arrival);
        self.last
    }
}

/// Counts what is read from the file.
struct Counted {
    file: File,
    bytes: Arc<AtomicU64>,
}

impl Read for Counted {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read(into)?;
        self.bytes.fetch_add(count as u64, Relaxed);
        Ok(count)
    }
}

impl Recording {
    /// Opens a recording of envelopes.
    pub fn open(path: &Path) -> Result<Self, RecordingError> {
        Self::open_as(path, Shape::Envelopes, Progress::default())
    }

    /// Opens a recording of any shape, and tells `progress` how far it is.
    pub fn open_as(path: &Path, shape: Shape, progress: Progress) -> Result<Self, RecordingError> {
        let cannot = |why| RecordingError::Open { doing: "open", path: path.to_owned(), why };
        let file = File::open(path).map_err(cannot)?;
        progress.total_bytes.store(file.metadata().map_err(cannot)?.len(), Relaxed);
        let file = Counted { file, bytes: progress.read_bytes.clone() };
        let input: Box<dyn Read + Send> = match path.extension().and_then(|extension| extension.to_str()) {
            Some("gz") => Box::new(flate2::bufread::MultiGzDecoder::new(BufReader::with_capacity(READ_BYTES, file))),
            Some("zst") => Box::new(zstd::Decoder::new(file).map_err(cannot)?),
            _ => Box::new(file),
        };
        Ok(Self {
            path: path.to_owned(),
            input,
            shape,
            envelopes: Envelopes::default(),
            buffer: vec![0; READ_BYTES],
            from: 0,
            to: 0,
            at_end: false,
            read_bytes: READ_BYTES,
            line: 0,
            line_bytes_max: LINE_BYTES_MAX,
            bodies: Vec::new(),
            average: 0,
            clock: Clock { last: Timestamp::START, back: 0 },
            progress,
        })
    }

    /// With another bound on the length of a line.
    #[must_use]
    pub fn line_bytes_max(mut self, bytes: usize) -> Self {
        self.line_bytes_max = bytes;
        self
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How far it is.
    pub fn progress(&self) -> Progress {
        self.progress.clone()
    }

    /// How many payloads had an arrival time before that of the one before them. Theirs was raised to it.
    pub fn went_back(&self) -> u64 {
        self.clock.back
    }

    /// Adds payloads until there are `payloads_max` of them or `bytes_max` bytes. How many were added: 0 at the end.
    ///
    /// After an error the payloads of the lines before it have been added.
    pub fn read(
        &mut self,
        into: &mut Payloads,
        payloads_max: usize,
        bytes_max: usize,
    ) -> Result<usize, RecordingError> {
        let (before, back_before) = (into.len(), self.clock.back);
        let outcome = match &self.shape {
            Shape::Bare(_) if into.is_empty() => self.read_block(into, payloads_max, bytes_max),
            _ => self.read_lines(into, before, payloads_max, bytes_max),
        };
        let added = into.len() - before;
        self.progress.payloads.fetch_add(added as u64, Relaxed);
        if back_before == 0 && self.clock.back > 0 {
            let path = self.path.display();
            tracing::warn!("{path}: arrival times go back before line {}; they are raised to the last one", self.line);
        }
        outcome.map(|()| added)
    }

    fn read_lines(
        &mut self,
        into: &mut Payloads,
        before: usize,
        payloads_max: usize,
        bytes_max: usize,
    ) -> Result<(), RecordingError> {
        let bytes_before = into.len_bytes();
        while into.len() - before < payloads_max && into.len_bytes() - bytes_before < bytes_max {
            let Some((from, to)) = self.next_line()? else { break };
            let line = self.buffer[from..to].strip_suffix(b"\r").unwrap_or(&self.buffer[from..to]);
            if line.is_empty() {
                continue;
            }
            match &self.shape {
                Shape::Bare(topic) => into.push(topic.as_bytes(), line, Timestamp::START, Delivery::default()),
                Shape::Envelopes => {
                    let clock = &mut self.clock;
                    let pushed = self.envelopes.push(line, into, |arrival| clock.next(arrival));
                    pushed.map_err(|why| self.wrong(why))?;
                }
            }
        }
        Ok(())
    }

    /// Bare lines, without a copy: the buffer itself goes, and what is left in it comes into the next one.
    fn read_block(&mut self, into: &mut Payloads, payloads_max: usize, bytes_max: usize) -> Result<(), RecordingError> {
        // Read no more than goes at once: what is left is copied.
        self.read_bytes = (self.average * payloads_max).min(bytes_max).clamp(READ_BYTES_MIN, READ_BYTES);
        self.bodies.clear();
        let left = &self.buffer[self.from..self.to];
        if !self.at_end && left.len() < self.read_bytes && memchr(b'\n', left).is_some() {
            // Else the lines that are left would be a block. What cannot be read is told of when they are gone.
            let line = self.line;
            if self.fill().is_err() {
                self.line = line;
            }
        }
        while self.bodies.is_empty() {
            let Some(first) = self.next_line()? else { return Ok(()) };
            self.find_bodies(first, payloads_max, bytes_max);
        }
        let Shape::Bare(topic) = &self.shape else { return Ok(()) };
        let (left, until) = (self.from, self.to);
        into.adopt(topic.as_bytes(), &mut self.buffer, &self.bodies);
        self.buffer.extend_from_slice(&into.buffer()[left..until]);
        (self.from, self.to) = (0, self.buffer.len());
        // Room for what is read at once, and for as much again as what is left.
        self.buffer.resize(self.to + self.read_bytes.max(self.to + 1), 0);
        Ok(())
    }

    /// Notes where the first line and the whole lines behind it stand, but for empty ones.
    fn find_bodies(&mut self, (from, end): (usize, usize), payloads_max: usize, bytes_max: usize) {
        let Self { buffer, bodies, .. } = self;
        let mut note = |from: usize, end: usize| {
            let line = &buffer[from..end];
            let len = line.strip_suffix(b"\r").unwrap_or(line).len();
            if len > 0 {
                bodies.push((from, from + len));
            }
            bodies.len()
        };
        let (begin, behind) = (from, self.from);
        let mut count = note(from, end);
        for newline in memchr_iter(b'\n', &buffer[behind..self.to]) {
            let end = behind + newline;
            // One that is too long is told of when it is the first.
            if count >= payloads_max || self.from - begin >= bytes_max || end - self.from > self.line_bytes_max {
                break;
            }
            self.line += 1;
            count = note(self.from, end);
            self.from = end + 1;
        }
        self.average = (self.from - begin).div_ceil(count.max(1));
    }

    /// Where the next line stands in the buffer, without its end.
    fn next_line(&mut self) -> Result<Option<(usize, usize)>, RecordingError> {
        let mut searched = self.from;
        loop {
            let found = memchr(b'\n', &self.buffer[searched..self.to]);
            let end = found.map_or(self.to, |index| searched + index);
            if end - self.from > self.line_bytes_max {
                self.line += 1;
                return Err(self.wrong(format!("the line is longer than {} bytes", self.line_bytes_max)));
            }
            let from = self.from;
            if found.is_some() || (self.at_end && from < end) {
                self.line += 1;
                self.from = end + usize::from(found.is_some());
                return Ok(Some((from, end)));
            }
            if self.at_end {
                return Ok(None);
            }
            let unfinished = end - from;
            self.fill()?;
            searched = self.from + unfinished;
        }
    }

    /// Makes room behind what is left, and reads.
    fn fill(&mut self) -> Result<(), RecordingError> {
        self.buffer.copy_within(self.from..self.to, 0);
        (self.from, self.to) = (0, self.to - self.from);
        if self.to > self.buffer.len() / 2 {
            self.buffer.resize(self.buffer.len() * 2, 0);
        }
        let end = self.buffer.len().min(self.to + self.read_bytes);
        loop {
            match self.input.read(&mut self.buffer[self.to..end]) {
                Ok(count) => {
                    self.at_end = count == 0;
                    self.to += count;
                    return Ok(());
                }
                Err(why) if why.kind() == io::ErrorKind::Interrupted => (),
                Err(why) => {
                    self.line += 1;
                    return Err(self.wrong(format!("cannot read on: {why}")));
                }
            }
        }
    }

    fn wrong(&self, why: String) -> RecordingError {
        RecordingError::Line { path: self.path.clone(), line: self.line, why }
    }
}

impl std::fmt::Debug for Recording {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recording").field("path", &self.path).field("line", &self.line).finish_non_exhaustive()
    }
}
