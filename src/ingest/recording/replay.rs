//! A recording as a source.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::{LINE_BYTES_MAX, Progress, Recording, RecordingError, Shape, Speed};
use crate::flow::meter::SourceMeter;
use crate::flow::payload::Payloads;
use crate::flow::time::Timestamp;
use crate::flow::topic::Topics;
use crate::ingest::{BoxFuture, Fed, Source, SourceContext, SourceError, SourceSpec};

/// How many payloads the reading thread hands over at once.
const CHUNK_PAYLOADS: usize = 8192;

/// How many bytes of payloads the reading thread hands over at once.
const CHUNK_BYTES: usize = 1 << 20;

/// How many chunks may wait between the reading thread and the feed.
const CHUNKS: usize = 4;

/// How many emptied chunks are kept to be filled again: as many as may be on their way at once.
const EMPTY_CHUNKS: usize = 16;

/// After so many chunks in a row without a wait, other tasks get their turn.
const CHUNKS_PER_TURN: u32 = 16;

/// A recording in the place of a source of the pipeline file.
#[derive(Debug)]
pub struct ReplaySpec {
    topics: Topics,
    /// Payloads of other topics are passed over: they are for other sources.
    only_its_topics: bool,
    path: PathBuf,
    shape: Shape,
    speed: Speed,
    progress: Progress,
}

impl ReplaySpec {
    /// Of a file, in place of a source that listens to `topics`.
    pub fn new(topics: Topics, path: PathBuf, shape: Shape, speed: Speed) -> Self {
        Self { topics, only_its_topics: false, path, shape, speed, progress: Progress::default() }
    }

    /// Of the payloads of its topics alone, as a broker would give it: where a recording stands for several sources.
    #[must_use]
    pub fn only_its_topics(self) -> Self {
        Self { only_its_topics: true, ..self }
    }

    /// How far the replay is, once it is opened.
    pub fn progress(&self) -> Progress {
        self.progress.clone()
    }
}

impl SourceSpec for ReplaySpec {
    fn topics(&self) -> &Topics {
        &self.topics
    }

    fn describe(&self) -> String {
        format!("replay of {} at {}", self.path.display(), self.speed)
    }

    fn has_own_clock(&self) -> bool {
        true
    }

    fn memory_bytes(&self) -> u64 {
        // The chunks that wait, the one that is read and the one that is taken.
        ((CHUNKS + 2) * (CHUNK_BYTES + LINE_BYTES_MAX.min(CHUNK_BYTES))) as u64
    }

    fn open(&self, context: SourceContext) -> BoxFuture<'_, Result<Box<dyn Source>, SourceError>> {
        Box::pin(async move {
            let recording = Recording::open_as(&self.path, self.shape.clone(), self.progress.clone());
            let only = self.only_its_topics.then(|| self.topics.clone());
            let source =
                recording.and_then(|recording| ReplaySource::start(recording, only, self.speed, context.meter));
            source.map(|source| Box::new(source) as Box<dyn Source>).map_err(fatal)
        })
    }
}

fn fatal(why: RecordingError) -> SourceError {
    SourceError::Fatal(why.to_string())
}

/// The payloads of a recording, in order: as fast as they are asked for, or when they are due by the recording's
/// arrival clock. A thread of its own reads the file.
#[derive(Debug)]
pub struct ReplaySource {
    chunks: mpsc::Receiver<Result<Payloads, RecordingError>>,
    /// Emptied chunks, on their way back to the reading thread.
    empty: crossbeam_channel::Sender<Payloads>,
    chunk: Payloads,
    /// The first payload of the chunk that was not given yet.
    next: usize,
    pace: Pace,
    meter: Arc<SourceMeter>,
    chunks_in_turn: u32,
}

/// When payloads are due.
#[derive(Debug)]
struct Pace {
    speed: Speed,
    /// When the first payload with a known arrival time was given, and that time.
    origin: Option<(Instant, Timestamp)>,
}

impl Pace {
    /// When a payload is due; `None` at once.
    fn due(&mut self, arrival: Timestamp) -> Option<Instant> {
        if self.speed == Speed::Max || arrival == Timestamp::START {
            return None;
        }
        let (began, first) = *self.origin.get_or_insert_with(|| (Instant::now(), arrival));
        began.checked_add(self.speed.wait(arrival.since(first))?).or_else(|| began.checked_add(FAR))
    }
}

/// Where a payload is due after the end of the computer's clock.
const FAR: std::time::Duration = std::time::Duration::from_secs(86_400 * 365 * 30);

impl ReplaySource {
    /// Starts the reading thread, for the payloads of all topics or of some.
    pub fn start(
        recording: Recording,
        only: Option<Topics>,
        speed: Speed,
        meter: Arc<SourceMeter>,
    ) -> Result<Self, RecordingError> {
        let (full, chunks) = mpsc::channel(CHUNKS);
        let (empty, emptied) = crossbeam_channel::bounded(EMPTY_CHUNKS);
        let path = recording.path().to_owned();
        let reading = thread::Builder::new().name("recording".to_owned());
        reading.spawn(move || read(recording, only.as_ref(), &full, &emptied)).map_err(|why| RecordingError::Open {
            doing: "start a thread to read",
            path,
            why,
        })?;
        meter.connected.store(1, Relaxed);
        let pace = Pace { speed, origin: None };
        Ok(Self { chunks, empty, chunk: Payloads::default(), next: 0, pace, meter, chunks_in_turn: 0 })
    }

    /// Waits until there is a payload to give; false at the end. Takes none.
    async fn wait(&mut self) -> Result<bool, SourceError> {
        if self.next == self.chunk.len() {
            if self.chunks_in_turn >= CHUNKS_PER_TURN {
                self.chunks_in_turn = 0;
                tokio::task::yield_now().await;
            }
            match self.chunks.recv().await {
                Some(Ok(chunk)) => {
                    let mut old = std::mem::replace(&mut self.chunk, chunk);
                    self.next = 0;
                    self.chunks_in_turn += 1;
                    old.clear();
                    // Where there is no room, or nobody, it is freed.
                    let _ = self.empty.try_send(old);
                }
                Some(Err(why)) => return Err(fatal(why)),
                None => return Ok(false),
            }
        }
        if let Some(due) = self.pace.due(self.chunk.get(self.next).arrival) {
            tokio::time::sleep_until(due).await;
        }
        Ok(true)
    }

    /// Gives what is there and due.
    fn give(&mut self, into: &mut Payloads, payloads_max: usize) {
        let before = into.len();
        if self.pace.speed == Speed::Max && self.next == 0 && before == 0 && self.chunk.len() <= payloads_max {
            std::mem::swap(into, &mut self.chunk);
            self.chunk.clear();
        } else {
            let now = Instant::now();
            while self.next < self.chunk.len() && into.len() - before < payloads_max.max(1) {
                let payload = self.chunk.get(self.next);
                if self.pace.due(payload.arrival).is_some_and(|due| due > now) {
                    break;
                }
                into.push(payload.topic, payload.body, payload.arrival, payload.delivery);
                into.set_properties(payload.properties.to_vec());
                self.next += 1;
            }
        }
        self.meter.received.fetch_add((into.len() - before) as u64, Relaxed);
        self.meter.bytes.fetch_add(into.body_bytes(before), Relaxed);
        if before < into.len() {
            self.meter.last_arrival_micros.store(into.arrival(into.len() - 1).micros(), Relaxed);
        }
    }
}

impl Source for ReplaySource {
    fn next<'a>(&'a mut self, into: &'a mut Payloads, payloads_max: usize) -> BoxFuture<'a, Result<Fed, SourceError>> {
        Box::pin(async move {
            if !self.wait().await? {
                self.meter.connected.store(0, Relaxed);
                return Ok(Fed::Exhausted);
            }
            self.give(into, payloads_max);
            Ok(Fed::More)
        })
    }
}

/// The reading thread: ends with the recording, or when nobody wants more.
fn read(
    mut recording: Recording,
    only: Option<&Topics>,
    full: &mpsc::Sender<Result<Payloads, RecordingError>>,
    emptied: &crossbeam_channel::Receiver<Payloads>,
) {
    // Chunks are much alike: one that comes back without its room, or does not come back, gets that of the last.
    let mut room = (0, 0);
    loop {
        let mut chunk = emptied.try_recv().unwrap_or_default();
        chunk.reserve(room.0, room.1);
        let outcome = recording.read(&mut chunk, CHUNK_PAYLOADS, CHUNK_BYTES);
        room = (chunk.len(), chunk.len_bytes());
        if let Some(topics) = only {
            chunk.retain(|payload| topics.matches(payload.topic, &mut Vec::new()));
        }
        // What was read before a wrong line goes first.
        let more = chunk.is_empty() || full.blocking_send(Ok(chunk)).is_ok();
        match outcome {
            Ok(count) if count > 0 && more => (),
            Ok(_) => return,
            Err(why) => {
                let _ = full.blocking_send(Err(why));
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::time::Duration;

    use super::*;

    fn recording(lines: &str) -> (tempfile::TempDir, Recording) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("r.jsonl");
        std::fs::File::create(&path).unwrap().write_all(lines.as_bytes()).unwrap();
        let recording = Recording::open(&path).unwrap();
        (folder, recording)
    }

    fn line(second: u32, payload: &str) -> String {
        format!("{{\"recv_time\":\"2026-01-01T00:00:{second:02}Z\",\"topic\":\"t\",\"payload\":\"{payload}\"}}\n")
    }

    fn bodies(payloads: &Payloads) -> Vec<&str> {
        payloads.iter().map(|payload| std::str::from_utf8(payload.body).unwrap()).collect()
    }

    #[tokio::test]
    async fn gives_all_in_order_whatever_is_asked_for() {
        let text: String = (0..20).map(|second| line(second, &second.to_string())).collect();
        let (_folder, recording) = recording(&text);
        let meter = Arc::new(SourceMeter::default());
        let mut source = ReplaySource::start(recording, None, Speed::Max, meter.clone()).unwrap();
        let mut into = Payloads::default();
        for asked in (1..4).cycle() {
            let before = into.len();
            if source.next(&mut into, asked).await.unwrap() == Fed::Exhausted {
                break;
            }
            assert!(into.len() > before && into.len() - before <= asked);
        }
        assert_eq!(bodies(&into), (0..20).map(|n| n.to_string()).collect::<Vec<_>>());
        assert_eq!((meter.received.load(Relaxed), meter.connected.load(Relaxed)), (20, 0));
        assert_eq!(meter.bytes.load(Relaxed), 10 + 2 * 10, "ten of one digit, ten of two");
        assert_eq!(source.next(&mut into, 1).await.unwrap(), Fed::Exhausted);
    }

    #[tokio::test]
    async fn gives_each_when_it_is_due() {
        let (_folder, recording) = recording(&[line(0, "a"), line(0, "b"), line(10, "c"), line(5, "d")].concat());
        let mut source = ReplaySource::start(recording, None, Speed::Times(50.0), Arc::default()).unwrap();
        let (began, mut into) = (Instant::now(), Payloads::default());
        source.next(&mut into, 100).await.unwrap();
        assert_eq!(bodies(&into), ["a", "b"]);
        // A future that is dropped has taken nothing.
        let cut = tokio::time::timeout(Duration::from_millis(20), source.next(&mut into, 100)).await;
        assert!(cut.is_err());
        source.next(&mut into, 100).await.unwrap();
        assert_eq!(bodies(&into), ["a", "b", "c", "d"]);
        // 10 s at fifty times the speed; an arrival that goes back waits no more.
        assert!(began.elapsed() >= Duration::from_millis(200));
    }

    #[tokio::test]
    async fn gives_those_of_its_topics_alone() {
        let lines = (0..6)
            .map(|at| line(at, &at.to_string()).replace("\"t\"", &format!("\"{}\"", ["t", "u"][at as usize % 2])));
        let with_property = line(9, "p").replace("\"topic\"", "\"properties\":{\"k\":\"v\"},\"topic\"");
        let (_folder, recording) = recording(&lines.chain([with_property]).collect::<String>());
        let only = Topics::parse(["t"]).unwrap();
        let mut source = ReplaySource::start(recording, Some(only), Speed::Max, Arc::default()).unwrap();
        let mut into = Payloads::default();
        assert_eq!(source.next(&mut into, 100).await.unwrap(), Fed::More);
        assert_eq!(bodies(&into), ["0", "2", "4", "p"]);
        let properties: Vec<usize> = into.iter().map(|payload| payload.properties.len()).collect();
        assert_eq!(properties, [0, 0, 0, 1]);
        assert_eq!(source.next(&mut into, 100).await.unwrap(), Fed::Exhausted);
    }

    #[tokio::test]
    async fn a_wrong_line_is_fatal_and_comes_after_those_before_it() {
        let (_folder, recording) = recording(&(line(0, "a") + "oops\n"));
        let mut source = ReplaySource::start(recording, None, Speed::Max, Arc::default()).unwrap();
        let mut into = Payloads::default();
        assert_eq!(source.next(&mut into, 100).await.unwrap(), Fed::More);
        assert_eq!(bodies(&into), ["a"]);
        let Err(SourceError::Fatal(why)) = source.next(&mut into, 100).await else { panic!("must be fatal") };
        assert!(why.contains("r.jsonl:2: no JSON: "), "{why}");
    }
}
