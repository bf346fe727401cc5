//! Disks that fill up, and a sink that is stuck, while messages come: the process lives, says so, keeps its connection
//! and acknowledges nothing that is not safe; once there is room, everything goes on by itself.
//!
//! `STREAMGAUGE_STALL=600` makes the sink stick for so many seconds. Where a small tmpfs cannot be mounted, the tests of
//! full disks are passed over with a visible line.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use support::committed::{Open, Progress, Raw, assert_account, assert_no_leftovers, assert_windows};
use support::mosquitto::Mosquitto;
use support::numbered::{LAST_STRETCH, Pipeline, Publisher, env_or};
use support::process::Process;
use support::small_disk::SmallDisk;

const MESSAGES_PER_SECOND: u64 = 2_000;
/// Messages before anything is wrong.
const FIRST: u64 = 3_000;
const READY_WITHIN: Duration = Duration::from_secs(30);
/// The journal has room that was written ahead, so a full disk is not noticed at once.
const DEGRADED_WITHIN: Duration = Duration::from_secs(60);
/// How long the disk stays full after that: longer than the broker waits for a client that is silent (1.5 × 5 s,
/// looked at every 5 s).
const FULL_FOR: Duration = Duration::from_secs(14);
const RESUMED_WITHIN: Duration = Duration::from_secs(30);
const CATCH_UP_WITHIN: Duration = Duration::from_secs(60);
const STOP_WITHIN: Duration = Duration::from_secs(30);

/// How long a sink is stuck, in seconds, where `STREAMGAUGE_STALL` says nothing else.
const STALL_SECONDS: u64 = 60;
/// How much more memory a stuck sink may make the process use: channels and caches that fill up once.
const STALL_KIB_MAX: u64 = 32 << 10;
/// How much more it may use in the last third of the time than in the second: nothing grows any more. What comes in a
/// third of 60 s and waits in memory, with what it costs to hold it, would be twice that.
const STALL_GROWTH_KIB_MAX: u64 = 8 << 10;

/// A run whose broker, publisher and folders are the test's.
struct Bench {
    run: Process,
    publisher: Publisher,
    progress: Progress,
    folder: tempfile::TempDir,
    out: PathBuf,
    text: String,
    // Last: it ends after those that use it.
    _broker: Mosquitto,
}

impl Bench {
    /// Messages come, and have become visible. `None` where there is no mosquitto.
    fn start(out: Option<&Path>, state: Option<&Path>, quota: &str) -> Option<Self> {
        let broker = Mosquitto::start("allow_anonymous true\nmax_inflight_messages 200")?;
        let folder = tempfile::tempdir().unwrap();
        let of = |elsewhere: Option<&Path>, name: &str| elsewhere.unwrap_or(folder.path()).join(name);
        let (out, state) = (of(out, "out"), of(state, "state"));
        let text = Pipeline { broker_port: broker.port, out: &out, state: Some((&state, quota)), epoch: "1s" }.text();
        let run = Process::start(folder.path(), &text);
        let publisher = Publisher::start(broker.port, MESSAGES_PER_SECOND);
        let progress = Progress::of(&out.join("raw"));
        let mut bench = Self { run, publisher, progress, folder, out, text, _broker: broker };
        bench.run.until_ready(READY_WITHIN);
        let first = bench.publisher.more(FIRST);
        bench.progress.until_all(&mut bench.run, first, CATCH_UP_WITHIN);
        bench.publisher.go();
        Some(bench)
    }

    fn source(&self, what: &str) -> u64 {
        self.run.metric(&format!("streamgauge_source_{what}"), &["component=\"feed\""]).expect("it answers")
    }

    /// It lives, and has never lost its connection.
    fn assert_connected(&mut self) {
        assert!(self.run.alive(), "it lives\n{}", self.run.said());
        let lost = ["reconnects_total", "backpressure_disconnects_total", "gaps_total"].map(|what| self.source(what));
        assert_eq!((self.source("connected"), lost), (1, [0; 3]), "the connection stays\n{}", self.run.said());
    }

    /// Nobody disturbs it any more: it goes on, and has everything once.
    fn finish(self, what: &str) {
        self.finish_within(what, CATCH_UP_WITHIN);
    }

    fn finish_within(mut self, what: &str, within: Duration) {
        self.run.until_ready(RESUMED_WITHIN);
        let sent = self.publisher.more(LAST_STRETCH);
        self.publisher.until_acked(sent, within);
        self.progress.until_all(&mut self.run, sent, within);
        let account = self.run.terminate(STOP_WITHIN);
        let (raw, rolled) = (Raw::read(&self.out.join("raw"), sent), Raw::read(&self.out.join("rolled"), sent));
        println!(
            "{what}: messages {sent}, redelivered {}, lost {}, duplicated {}",
            account["sources"]["feed"]["duplicates"],
            raw.lost.len() + rolled.lost.len(),
            raw.duplicated.len() + rolled.duplicated.len(),
        );
        raw.assert_exactly_once("files of an epoch");
        rolled.assert_exactly_once("rolled files");
        assert_windows(&self.out, &raw.rows, Open::Kept);
        assert_account(&account);
        assert_no_leftovers(&self.out);
    }

    /// The disk is full, and stays so however much is removed, until it was noticed and for a while longer.
    fn endure(&mut self, disk: &SmallDisk) {
        let (from, mut degraded) = (Instant::now(), None);
        while degraded.is_none_or(|since: Instant| since.elapsed() < FULL_FOR) {
            disk.fill();
            if !self.run.ready() {
                degraded.get_or_insert_with(Instant::now);
            }
            let noticed = degraded.is_some() || from.elapsed() < DEGRADED_WITHIN;
            assert!(noticed, "a full disk is not told on /readyz within {DEGRADED_WITHIN:?}\n{}", self.run.said());
            assert!(self.run.alive(), "it lives\n{}", self.run.said());
            std::thread::sleep(Duration::from_millis(50));
        }
        assert!(!self.run.ready(), "it says so as long as the disk is full");
        println!("full: {}", self.run.reasons().trim());
        self.assert_connected();
    }
}

#[test]
fn a_full_disk_below_the_state_folder_holds_back_and_resumes() {
    let Some(disk) = SmallDisk::mount() else { return };
    let Some(mut bench) = Bench::start(None, Some(disk.path()), "4MiB") else { return };
    bench.endure(&disk);
    disk.free();
    bench.run.until_ready(RESUMED_WITHIN);
    bench.assert_connected();
    bench.finish("full below the state folder");
}

/// What was acknowledged without being in the journal would be gone.
#[test]
fn a_kill_while_the_disk_of_the_journal_is_full_loses_nothing() {
    let Some(disk) = SmallDisk::mount() else { return };
    let Some(mut bench) = Bench::start(None, Some(disk.path()), "4MiB") else { return };
    bench.endure(&disk);
    bench.run.kill();
    disk.free();
    bench.run = Process::start(bench.folder.path(), &bench.text);
    bench.finish("killed while full below the state folder");
}

#[test]
fn a_full_disk_below_the_output_folder_holds_back_and_resumes() {
    let Some(disk) = SmallDisk::mount() else { return };
    let Some(mut bench) = Bench::start(Some(disk.path()), None, "64MiB") else { return };
    bench.endure(&disk);
    disk.free();
    bench.run.until_ready(RESUMED_WITHIN);
    bench.assert_connected();
    bench.finish("full below the output folder");
}

#[test]
fn a_sink_that_is_stuck_for_long_costs_no_connection_and_no_memory() {
    // What comes in half of the time is more than the quota, so after that only the broker can hold it.
    let Some(mut bench) = Bench::start(None, None, "4MiB") else { return };
    let (out, away) = (bench.out.clone(), bench.out.with_extension("away"));
    fs::rename(&out, &away).unwrap();
    fs::write(&out, "in the way").unwrap();
    let (from, stall) = (Instant::now(), Duration::from_secs(env_or("STREAMGAUGE_STALL", STALL_SECONDS)));
    let before = bench.run.resident_kib();
    let mut most = [0; 3];
    while from.elapsed() < stall {
        let third = (from.elapsed().as_secs_f64() / stall.as_secs_f64() * 3.0) as usize;
        most[third.min(2)] = bench.run.resident_kib().max(most[third.min(2)]);
        bench.assert_connected();
        std::thread::sleep(Duration::from_millis(200));
    }
    println!(
        "stuck for {stall:?}: {before} KiB before, at most {most:?} in its thirds; {}",
        bench.run.reasons().trim()
    );
    assert!(!bench.run.ready(), "it says that the sink is stuck");
    fs::remove_file(&out).unwrap();
    fs::rename(&away, &out).unwrap();
    bench.run.until_ready(RESUMED_WITHIN);
    bench.assert_connected();
    bench.finish_within("stuck sink", CATCH_UP_WITHIN + stall);
    assert!(most.iter().max() <= Some(&(before + STALL_KIB_MAX)), "{most:?} KiB, {before} before");
    assert!(most[2] <= most[1] + STALL_GROWTH_KIB_MAX, "it goes on growing: {most:?} KiB");
}
