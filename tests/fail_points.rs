//! Every crash point of the commit: one operation of the disk goes wrong in a run of the real binary, the process ends
//! there, or the disk is full or fails for that once; in the end everything is there once.
//!
//! `STREAMGAUGE_POINTS=all` tries every operation of a run with every effect; `STREAMGAUGE_POINTS=eio@3:sync /journal` one
//! point, or several, separated by commas.

mod support;

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use support::committed::{Open, Progress, Raw, assert_account, assert_no_leftovers, assert_windows};
use support::mosquitto::Mosquitto;
use support::numbered::{LAST_STRETCH, Pipeline, Publisher, mix};
use support::points::{BROKER, Point, Waiting, concerns};
use support::process::Process;
use support::small_disk::SmallDisk;

/// Runs at once: most of their time they wait.
const WORKERS: usize = 6;
/// Runs that share a broker.
const CHUNK: usize = 12;
const EFFECTS: [&str; 4] = ["exit", "exit-after", "enospc", "eio"];
/// The operations of a start are the same in each: state folder, checkpoints, the first segment of the journal.
const START: usize = 19;
/// A second crash is within so many operations of the next start.
const RECOVERY: u64 = 60;

/// Operations of the commit, and how many of each are tried: state in parts, the manifest and its name, files and their
/// names, what goes afterwards; and some of the journal.
fn scopes() -> Vec<(String, usize)> {
    let mut scopes = Vec::new();
    let mut add = |kinds: &[(&str, usize)], part: &str| {
        scopes.extend(kinds.iter().map(|(kind, count)| (format!("{kind} {part}"), *count)));
    };
    add(&[("create", 2), ("write_at", 2), ("sync", 2), ("remove", 2)], ".arrow");
    for epoch in 0..2 {
        add(&[("create", 1), ("write_at", 1), ("sync", 1)], &format!("/checkpoints/{epoch:08}.tmp"));
    }
    add(&[("rename", 2), ("sync_folder", 4)], "/checkpoints");
    add(&[("remove", 1)], ".checkpoint");
    for sink in ["raw", "rolled"] {
        add(&[("create", 1), ("write_at", 1), ("sync", 1), ("rename", 2)], &format!("/out/{sink}/"));
        add(&[("create_folder", 4), ("sync_folder", 6), ("remove_folder", 2)], &format!("/out/{sink}"));
    }
    add(&[("rename", 1), ("sync_folder", 2)], "/out/tumbling");
    add(&[("create", 2), ("write_at", 4), ("sync", 4), ("rename", 2), ("sync_folder", 2), ("remove", 1)], "/journal/");
    scopes
}

/// The points of a run whose operations are those of `log`.
fn points(log: &[String]) -> Vec<Point> {
    let everywhere =
        |count| EFFECTS.into_iter().flat_map(move |effect| (1..=count).map(move |at| Point::new(effect, at, "")));
    match std::env::var("STREAMGAUGE_POINTS") {
        Ok(all) if all == "all" => everywhere(log.len()).collect(),
        Ok(some) => some.split(',').map(Point::parse).collect(),
        Err(_) => {
            let commit = scopes().into_iter().flat_map(|(scope, count)| {
                let there = log.iter().filter(|line| concerns(&scope, line)).count();
                assert!(there > 0, "a run has no `{scope}`");
                let of = move |effect| {
                    let scope = scope.clone();
                    (1..=count.min(there)).map(move |at| Point::new(effect, at, &scope))
                };
                EFFECTS.into_iter().flat_map(of)
            });
            everywhere(START).chain(commit).collect()
        }
    }
}

/// What became of the points.
#[derive(Default)]
struct Record {
    struck: BTreeSet<String>,
    missed: Vec<String>,
    wrong: Vec<String>,
}

fn check(points: &[Point], record: &Mutex<Record>) {
    let waiting = Waiting::start(points.len()).expect("it was there before");
    for (session, point) in points.iter().enumerate() {
        let seed = mix((point.at * 31 + point.scope.len()) as u64);
        let then = (point.effect == "exit-after").then(|| Point::new("exit", (1 + seed % RECOVERY) as usize, ""));
        let bench = waiting.bench(session);
        let checked = catch_unwind(AssertUnwindSafe(|| bench.check(point, then.as_ref())));
        let mut record = record.lock().unwrap();
        match checked {
            Ok(Some(_)) => drop(record.struck.insert(point.to_string())),
            Ok(None) => record.missed.push(point.to_string()),
            Err(panic) => {
                let why = panic.downcast_ref::<String>().cloned().unwrap_or_default();
                record.wrong.push(format!("== {point}, then {then:?}\n{why}"));
            }
        }
    }
}

#[test]
fn whatever_goes_wrong_at_any_point_of_the_commit_everything_is_there_once() {
    let Some(waiting) = Waiting::start(1) else { return };
    let from = Instant::now();
    let bench = waiting.bench(0);
    let whole = bench.run(None);
    assert!(whole.status.success(), "{}", whole.said);
    bench.finish();
    let points = points(&whole.log);
    let (record, rest) = (Mutex::default(), Mutex::new(points.chunks(CHUNK)));
    std::thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                loop {
                    let Some(chunk) = rest.lock().unwrap().next() else { break };
                    check(chunk, &record);
                }
            });
        }
    });
    let Record { struck, missed, wrong } = record.into_inner().unwrap();
    println!(
        "{} operations in a run; {} points: {} struck, {} not met, {} wrong, {:.1} s",
        whole.log.len(),
        points.len(),
        struck.len(),
        missed.len(),
        wrong.len(),
        from.elapsed().as_secs_f64(),
    );
    println!("not met: {missed:?}");
    assert!(wrong.is_empty(), "{} points went wrong:\n{}", wrong.len(), wrong.join("\n"));
    assert!(missed.len() * 5 <= points.len(), "most points are met");
}

/// Nothing but the empty segment, at the start, was synced before: whatever the broker was told is safe would be gone with the folders.
#[test]
fn what_could_not_be_synced_was_not_acknowledged() {
    let Some(waiting) = Waiting::start(1) else { return };
    let bench = waiting.bench(0);
    let ran = bench.run(Some(&Point::new("eio", 2, "sync /000000000001.journal")));
    assert_eq!(ran.status.code(), Some(1), "{}", ran.said);
    let segment = bench.state().join("journal/feed/000000000001.journal");
    let why = format!("`feed (journal)` failed: journal: cannot make `{}` durable", segment.display());
    assert!(ran.said.contains(&why), "{}", ran.said);
    let written = ran.log.iter().filter(|line| concerns("write_at /000000000001.journal", line)).count();
    assert!(written > 0, "there was something to lose");
    fs::remove_dir_all(bench.state()).unwrap();
    fs::remove_dir_all(bench.out()).unwrap();
    bench.finish();
}

const MESSAGES_PER_SECOND: u64 = 2_000;
const READY_WITHIN: Duration = Duration::from_secs(30);
const DEGRADED_WITHIN: Duration = Duration::from_secs(60);
const CATCH_UP_WITHIN: Duration = Duration::from_secs(60);
const STOP_WITHIN: Duration = Duration::from_secs(30);
/// How long trouble lasts when it was noticed.
const ENDURED: Duration = Duration::from_secs(3);

/// A run while messages come.
struct Live {
    run: Process,
    publisher: Publisher,
    out: std::path::PathBuf,
    folder: tempfile::TempDir,
    text: String,
    // Last: it ends after those that use it.
    _broker: Mosquitto,
}

impl Live {
    /// `None` where there is no mosquitto.
    fn start(out: Option<&std::path::Path>, fault: &str) -> Option<Self> {
        let broker = Mosquitto::start(BROKER)?;
        let folder = tempfile::tempdir().unwrap();
        let (out, state) = (out.unwrap_or(folder.path()).join("out"), folder.path().join("state"));
        let state = Some((state.as_path(), "16MiB"));
        let text = Pipeline { broker_port: broker.port, out: &out, state, epoch: "200ms" }.text();
        let mut run = Process::start_in(folder.path(), &text, &[("STREAMGAUGE_FAULT", OsStr::new(fault))]);
        run.until_ready(READY_WITHIN);
        let publisher = Publisher::start(broker.port, MESSAGES_PER_SECOND);
        publisher.go();
        Some(Self { run, publisher, out, folder, text, _broker: broker })
    }

    /// It says what is wrong, and goes on saying it, alive and connected.
    fn endure(&mut self, who: &str, what: &str) {
        let says = |run: &Process| {
            let reasons = run.reasons();
            !run.ready() && reasons.contains(who) && reasons.contains(what)
        };
        self.run.until(what, DEGRADED_WITHIN, says);
        let from = Instant::now();
        while from.elapsed() < ENDURED {
            assert!(self.run.alive() && !self.run.ready(), "{}", self.run.said());
            let connected = self.run.metric("streamgauge_source_connected", &["component=\"feed\""]);
            assert_eq!(connected, Some(1), "{}", self.run.said());
            std::thread::sleep(Duration::from_millis(50));
        }
        println!("{}", self.run.reasons().trim());
    }

    /// All comes, once.
    fn finish(mut self) {
        self.run.until_ready(READY_WITHIN);
        let sent = self.publisher.more(LAST_STRETCH);
        self.publisher.until_acked(sent, CATCH_UP_WITHIN);
        Progress::of(&self.out.join("raw")).until_all(&mut self.run, sent, CATCH_UP_WITHIN);
        let account = self.run.terminate(STOP_WITHIN);
        let raw = Raw::read(&self.out.join("raw"), sent);
        raw.assert_exactly_once("files of an epoch");
        Raw::read(&self.out.join("rolled"), sent).assert_exactly_once("rolled files");
        assert_windows(&self.out, &raw.rows, Open::Kept);
        assert_account(&account);
        assert_no_leftovers(&self.out);
    }
}

#[test]
fn a_journal_without_room_is_told_and_a_kill_meanwhile_loses_nothing() {
    let Some(mut live) = Live::start(None, "enospc@200..:write_at /journal/") else { return };
    live.endure("feed (journal)", "No space left on device");
    live.run.kill();
    live.run = Process::start(live.folder.path(), &live.text);
    live.finish();
}

#[test]
fn an_output_folder_that_is_read_only_for_a_while_is_told_and_written_again() {
    let Some(disk) = SmallDisk::mount() else { return };
    let Some(mut live) = Live::start(Some(disk.path()), "") else { return };
    let mut progress = Progress::of(&live.out.join("raw"));
    live.run.until("visible", CATCH_UP_WITHIN, |_| progress.look() > 0);
    // Refused while one of the sinks has a file open.
    live.run.until("read-only", READY_WITHIN, |_| disk.read_only());
    live.endure("", "Read-only file system");
    let visible = progress.look();
    disk.writable();
    live.run.until("more is visible", READY_WITHIN, |_| progress.look() > visible);
    live.finish();
}
