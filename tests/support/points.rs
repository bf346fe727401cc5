//! One operation of the disk that goes wrong in a run of the real binary, and what must be there in the end.
//!
//! The messages are at the broker before the first run: nothing depends on when they are published.

use std::ffi::OsStr;
use std::fmt;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use super::committed::{Open, Progress, Raw, assert_account, assert_no_leftovers, assert_windows};
use super::mosquitto::Mosquitto;
use super::numbered::{Pipeline, Publisher};
use super::process::Process;

/// So many messages fill several segments of the smallest journal, and close windows.
pub const MESSAGES: u64 = 4_000;
/// How long a run goes on when all is visible: a few epochs, until old checkpoints go.
const EPOCHS_AFTER: Duration = Duration::from_millis(400);
const VISIBLE_WITHIN: Duration = Duration::from_secs(60);
const STOP_WITHIN: Duration = Duration::from_secs(30);
const READY_WITHIN: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// The exit code where a fault ends the process.
const KILLED: i32 = 137;
/// The broker hands out more than one message at a time.
pub const BROKER: &str = "allow_anonymous true\nmax_inflight_messages 100";

/// What goes wrong, and at which operation, counted among those of a scope: `exit@3:rename /checkpoints`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Point {
    pub effect: String,
    pub at: usize,
    /// A kind, a space and a part of a path; empty for all operations.
    pub scope: String,
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.effect, self.at)?;
        if self.scope.is_empty() { Ok(()) } else { write!(f, ":{}", self.scope) }
    }
}

impl Point {
    pub fn new(effect: &str, at: usize, scope: &str) -> Self {
        Self { effect: effect.to_owned(), at, scope: scope.to_owned() }
    }

    pub fn parse(text: &str) -> Self {
        let (what, scope) = text.split_once(':').unwrap_or((text, ""));
        let (effect, at) = what.split_once('@').expect("EFFECT@N");
        Self::new(effect, at.parse().expect("a number"), scope)
    }

    fn ends_the_process(&self) -> bool {
        self.effect.starts_with("exit")
    }
}

/// Whether a line of the log of operations is in a scope.
pub fn concerns(scope: &str, line: &str) -> bool {
    let (kind, path) = line.split_once(' ').expect("a kind and a path");
    scope.split_once(' ').map_or_else(|| path.contains(scope), |(only, part)| kind == only && path.contains(part))
}

/// A broker with a session of its own for each of some runs, all with the same messages waiting.
pub struct Waiting {
    pub broker: Mosquitto,
    sessions: usize,
}

impl Waiting {
    /// `None` where there is no mosquitto.
    pub fn start(sessions: usize) -> Option<Self> {
        let broker = Mosquitto::start(BROKER)?;
        (0..sessions).for_each(|session| begin_session(broker.port, &format!("numbers{session}")));
        let publisher = Publisher::start(broker.port, 0);
        let sent = publisher.more(MESSAGES);
        publisher.until_acked(sent, VISIBLE_WITHIN);
        Some(Self { broker, sessions })
    }

    /// A fresh folder for the runs of a session.
    pub fn bench(&self, session: usize) -> Bench {
        assert!(session < self.sessions);
        let folder = tempfile::tempdir().unwrap();
        let (out, state) = (folder.path().join("out"), folder.path().join("state"));
        let state = Some((state.as_path(), "1MiB"));
        let text = Pipeline { broker_port: self.broker.port, out: &out, state, epoch: "100ms" }.text();
        let text = text.replace("client_id = \"numbers\"", &format!("client_id = \"numbers{session}\""));
        let text = text.replace("roll = { rows = 5_000 }", "roll = { rows = 400 }");
        // So that the messages come over several epochs.
        let text = text.replace("qos = 1\n", "qos = 1\nreceive_maximum = 20\n");
        Bench { folder, text }
    }
}

/// A session of MQTT 5 that outlives its connection, with the pipeline's subscription.
fn begin_session(port: u16, client: &str) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let mut connect = b"\x00\x04MQTT\x05\x00\x00\x00\x05\x11\x00\x00\x0e\x10\x00".to_vec();
    connect.push(client.len() as u8);
    connect.extend(client.as_bytes());
    let mut packet = vec![0x10, connect.len() as u8];
    packet.extend(connect);
    stream.write_all(&packet).unwrap();
    let answer = answer(&mut stream);
    assert_eq!((answer[0], answer[3]), (0x20, 0), "connected: {answer:?}");
    stream.write_all(b"\x82\x0f\x00\x01\x00\x00\x09numbers/+\x01").unwrap();
    let granted = self::answer(&mut stream);
    assert_eq!((granted[0], granted.last()), (0x90, Some(&1)), "subscribed: {granted:?}");
    stream.write_all(&[0xe0, 0]).unwrap();
}

/// A short packet.
fn answer(stream: &mut TcpStream) -> Vec<u8> {
    let mut packet = vec![0; 2];
    stream.read_exact(&mut packet).unwrap();
    let mut body = vec![0; usize::from(packet[1])];
    stream.read_exact(&mut body).unwrap();
    packet.append(&mut body);
    packet
}

/// The folder of one pipeline, over some runs.
pub struct Bench {
    pub folder: tempfile::TempDir,
    pub text: String,
}

/// A run that is over.
pub struct Ran {
    pub status: ExitStatus,
    pub said: String,
    /// The operations, in the order in which they began.
    pub log: Vec<String>,
    /// Which of them went wrong, from 0.
    pub struck: Option<usize>,
}

impl Bench {
    pub fn out(&self) -> PathBuf {
        self.folder.path().join("out")
    }

    pub fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    /// A run with a fault until it ends, or, where it does not, until all is visible and a few epochs are over, and it is
    /// stopped.
    pub fn run(&self, point: Option<&Point>) -> Ran {
        let log = self.folder.path().join("log");
        let _ = std::fs::remove_file(&log);
        let fault = point.map(ToString::to_string).unwrap_or_default();
        let environment = [("STREAMGAUGE_FAULT", OsStr::new(&fault)), ("STREAMGAUGE_FAULT_LOG", log.as_os_str())];
        let mut run = Process::start_in(self.folder.path(), &self.text, &environment);
        let mut progress = Progress::of(&self.out().join("raw"));
        let (from, mut visible, mut stopped) = (Instant::now(), None, false);
        let status = loop {
            if let Some(status) = run.status() {
                break status;
            }
            if visible.is_none() && progress.look() == MESSAGES {
                visible = Some(Instant::now());
            }
            if !stopped && visible.is_some_and(|since: Instant| since.elapsed() > EPOCHS_AFTER) && run.ready() {
                run.signal("TERM");
                stopped = true;
            }
            let limit = VISIBLE_WITHIN + if stopped { STOP_WITHIN } else { Duration::ZERO };
            assert!(from.elapsed() < limit, "it goes on, but nothing comes of it: {}\n{}", run.reasons(), run.said());
            std::thread::sleep(LOOK_EVERY);
        };
        let log = std::fs::read_to_string(log).unwrap_or_default();
        let log: Vec<String> = log.lines().map(str::to_owned).collect();
        let struck = point.and_then(|point| {
            let inside = log.iter().enumerate().filter(|(_, line)| concerns(&point.scope, line));
            inside.map(|(index, _)| index).nth(point.at - 1)
        });
        Ran { status, said: run.said_in_the_end(), log, struck }
    }

    /// A run without faults brings everything that is not there yet. All of it is there once.
    pub fn finish(&self) {
        let mut run = Process::start(self.folder.path(), &self.text);
        run.until_ready(READY_WITHIN);
        Progress::of(&self.out().join("raw")).until_all(&mut run, MESSAGES, VISIBLE_WITHIN);
        let account = run.terminate(STOP_WITHIN);
        let out = self.out();
        let raw = Raw::read(&out.join("raw"), MESSAGES);
        raw.assert_exactly_once("files of an epoch");
        Raw::read(&out.join("rolled"), MESSAGES).assert_exactly_once("rolled files");
        assert_windows(&out, &raw.rows, Open::Kept);
        assert_account(&account);
        assert_eq!(account["sources"]["feed"]["rows"], MESSAGES, "{account:#}");
        assert_no_leftovers(&out);
        self.assert_state_is_tidy();
    }

    /// Three checkpoints, and nothing that was begun only.
    fn assert_state_is_tidy(&self) {
        let names = |folder: &Path| -> Vec<String> {
            let entries = std::fs::read_dir(folder).unwrap();
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
        };
        let (state, mut all) = (self.state(), Vec::new());
        for folder in [state.clone(), state.join("checkpoints"), state.join("journal/feed")] {
            all.extend(names(&folder));
        }
        assert!(!all.iter().any(|name| name.ends_with(".tmp")), "{all:?}");
        let checkpoints = all.iter().filter(|name| name.ends_with(".checkpoint")).count();
        assert!((1..=3).contains(&checkpoints), "{all:?}");
    }

    /// Lets an operation go wrong, and checks how the run takes it and what is there in the end. Gives the operation, if
    /// there was such a one.
    pub fn check(&self, point: &Point, then: Option<&Point>) -> Option<String> {
        let ran = self.run(Some(point));
        ran.assert_taken(point);
        if let Some(then) = then {
            self.run(Some(then)).assert_taken(then);
        }
        self.finish();
        ran.struck.map(|index| ran.log[index].clone())
    }
}

impl Ran {
    fn assert_taken(&self, point: &Point) {
        let Self { status, said, log, struck } = self;
        let told = || format!("{status}, struck {:?}\n{said}", struck.map(|index| &log[index]));
        let Some(index) = *struck else { return assert!(status.success(), "nothing went wrong: {}", told()) };
        if point.ends_the_process() {
            return assert_eq!(status.code(), Some(KILLED), "{}", told());
        }
        let (kind, path) = log[index].split_once(' ').expect("a kind and a path");
        let synced = kind.starts_with("sync");
        let again = kind == "sync" && log[index + 1..].contains(&log[index]);
        assert!(!again, "a sync that failed is never tried again: {}", told());
        if status.success() {
            return assert!(!synced, "a sync that failed ends the run: {}", told());
        }
        assert_eq!(status.code(), Some(1), "{}", told());
        // A file that was not finished is told by the name that it was to have.
        let named = path.strip_suffix(".tmp").unwrap_or(path);
        assert!(said.contains(named), "the message names `{named}`: {}", told());
        let may_pass = point.effect == "enospc" && !synced && !self.launching(index);
        assert!(!may_pass, "a full disk ends no run: {}", told());
    }

    /// Whether an operation belongs to the start, which the full disk may end: nothing has been taken yet.
    fn launching(&self, index: usize) -> bool {
        !self.log[..=index].iter().any(|line| line.contains("/out"))
    }
}
