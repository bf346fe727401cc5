//! The binary as a process that tests kill, stop, ask and read.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;

/// How many lines of stderr are kept for the message of a failure.
const LINES_KEPT: usize = 60;
/// How long an answer of the HTTP server may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// How often something that is waited for is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// A run of the binary. It ends with this value, whatever happens.
pub struct Process {
    child: Child,
    said: Arc<(Mutex<Said>, Condvar)>,
    account: PathBuf,
}

/// What it said on stderr.
#[derive(Default)]
struct Said {
    port: Option<u16>,
    lines: VecDeque<String>,
    ended: bool,
}

impl Process {
    /// Writes the pipeline file into a folder, and runs it. Gives back at once: it may not even listen yet.
    pub fn start(folder: &Path, pipeline: &str) -> Self {
        Self::start_as(folder, pipeline, &[], &[])
    }

    /// The same with these in its environment.
    pub fn start_in(folder: &Path, pipeline: &str, environment: &[(&str, &OsStr)]) -> Self {
        Self::start_as(folder, pipeline, environment, &[])
    }

    /// The same with more on the command line.
    pub fn start_with(folder: &Path, pipeline: &str, more: &[&str]) -> Self {
        Self::start_as(folder, pipeline, &[], more)
    }

    fn start_as(folder: &Path, pipeline: &str, environment: &[(&str, &OsStr)], more: &[&str]) -> Self {
        let (file, account) = (folder.join("pipeline.toml"), folder.join("account.json"));
        std::fs::write(&file, pipeline).unwrap();
        let _ = std::fs::remove_file(&account);
        let mut command = super::streamgauge();
        command.envs(environment.iter().copied());
        command.arg("run").arg(&file).args(["--listen", "127.0.0.1:0", "--account"]).arg(&account).args(more);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let said: Arc<(Mutex<Said>, Condvar)> = Arc::default();
        let shared = said.clone();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let mut said = shared.0.lock().unwrap();
                if let Some(port) = line.strip_prefix("listening on http://127.0.0.1:") {
                    said.port = port.parse().ok();
                }
                if said.lines.len() == LINES_KEPT {
                    said.lines.pop_front();
                }
                said.lines.push_back(line);
                shared.1.notify_all();
            }
            shared.0.lock().unwrap().ended = true;
            shared.1.notify_all();
        });
        Self { child, said, account }
    }

    /// The last lines of stderr, when it has ended: all that it said is read by then.
    pub fn said_in_the_end(&self) -> String {
        let (said, told) = &*self.said;
        drop(told.wait_timeout_while(said.lock().unwrap(), ANSWER_WITHIN, |said| !said.ended).unwrap());
        self.said()
    }

    /// The last lines of stderr.
    pub fn said(&self) -> String {
        self.said.0.lock().unwrap().lines.iter().map(|line| format!("  | {line}\n")).collect()
    }

    /// Where it listens; `None` if it does not say so in time.
    pub fn port(&self, within: Duration) -> Option<u16> {
        let (said, told) = &*self.said;
        let open = |said: &mut Said| said.port.is_none() && !said.ended;
        told.wait_timeout_while(said.lock().unwrap(), within, open).unwrap().0.port
    }

    /// Status and body; `None` where nobody answers.
    pub fn get(&self, path: &str) -> Option<(u16, String)> {
        let address = SocketAddr::from(([127, 0, 0, 1], self.port(Duration::ZERO)?));
        let mut stream = TcpStream::connect_timeout(&address, ANSWER_WITHIN).ok()?;
        stream.set_read_timeout(Some(ANSWER_WITHIN)).ok()?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
    }

    pub fn ready(&self) -> bool {
        self.get("/readyz").is_some_and(|(status, _)| status == 200)
    }

    /// The body of `/readyz`: what is wrong at the moment.
    pub fn reasons(&self) -> String {
        self.get("/readyz").map_or_else(|| "no answer".to_owned(), |(_, body)| body)
    }

    /// Waits until something holds; fails, with what the process said, where it ends or takes too long.
    pub fn until(&mut self, what: &str, within: Duration, mut holds: impl FnMut(&Self) -> bool) {
        let from = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("{what}: the process ended ({status})\n{}", self.said_in_the_end());
            }
            if holds(self) {
                return;
            }
            let reasons = || self.reasons();
            assert!(from.elapsed() < within, "{what}: not within {within:?}; {}\n{}", reasons(), self.said());
            std::thread::sleep(LOOK_EVERY);
        }
    }

    pub fn until_ready(&mut self, within: Duration) {
        self.until("ready", within, Self::ready);
    }

    /// The sum of a metric's samples whose labels have all of these parts; `None` where there is no answer.
    pub fn metric(&self, name: &str, labels: &[&str]) -> Option<u64> {
        let (_, text) = self.get("/metrics")?;
        let samples = text.lines().filter(|line| {
            line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']))
                && labels.iter().all(|label| line.contains(label))
        });
        let value = |line: &str| line.rsplit(' ').next().and_then(|value| value.parse::<f64>().ok());
        Some(samples.filter_map(value).sum::<f64>() as u64)
    }

    /// Resident memory in KiB.
    pub fn resident_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok()).expect("Linux tells it")
    }

    pub fn alive(&mut self) -> bool {
        self.status().is_none()
    }

    /// How it ended, if it has.
    pub fn status(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// `kill -9`. It must have been alive: what ends by itself is another story.
    pub fn kill(&mut self) {
        assert!(self.alive(), "it ended before it was killed\n{}", self.said());
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Sends a signal: `TERM`, `STOP`, `CONT`.
    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([&format!("-{name}"), &pid]).status().unwrap().success());
    }

    /// SIGTERM: it ends well within a bound. Its account.
    pub fn terminate(mut self, within: Duration) -> Value {
        self.signal("TERM");
        let status = self.end(within);
        assert!(status.success(), "{status}\n{}", self.said());
        let text = std::fs::read_to_string(&self.account).unwrap();
        serde_json::from_str(&text).unwrap()
    }

    /// It must refuse to start. What it said.
    pub fn refused(folder: &Path, pipeline: &str, more: &[&str], within: Duration) -> String {
        let mut process = Self::start_with(folder, pipeline, more);
        let status = process.end(within);
        process.until_read();
        assert_eq!(status.code(), Some(1), "{}", process.said());
        process.said()
    }

    /// Waits until all that it said before it ended was read.
    fn until_read(&self) {
        let (said, told) = &*self.said;
        drop(told.wait_while(said.lock().unwrap(), |said| !said.ended).unwrap());
    }

    /// Waits for its end.
    pub fn end(&mut self, within: Duration) -> ExitStatus {
        let from = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(from.elapsed() < within, "it did not end within {within:?}\n{}", self.said());
            std::thread::sleep(LOOK_EVERY);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
