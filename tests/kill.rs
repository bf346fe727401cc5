//! `kill -9` of the real binary at random moments, against a real mosquitto, with numbered messages: nothing lost,
//! nothing twice, and windows as if nothing had happened.
//!
//! `STREAMGAUGE_KILLS=5000` makes it longer, `STREAMGAUGE_SEED=7` other moments; `-- --nocapture` shows the record.

mod support;

use std::path::Path;
use std::time::{Duration, Instant};

use support::committed::{Open, Progress, Raw, assert_account, assert_no_leftovers, assert_windows, windows_are};
use support::mosquitto::Mosquitto;
use support::numbered::{LAST_STRETCH, Pipeline, Publisher, Random, env_or};
use support::process::Process;

/// How many kills, where `STREAMGAUGE_KILLS` says nothing else.
const KILLS: u64 = 100;
/// How long a run lives, in milliseconds.
const LIVES: std::ops::Range<u64> = 50..400;
/// Of so many runs one is killed by the time since its start, and the others by the time since they were ready.
const EARLY_ONE_IN: u64 = 4;
const MESSAGES_PER_SECOND: u64 = 2_000;
/// How long a run may take to be ready: recovery and connecting.
const READY_WITHIN: Duration = Duration::from_secs(30);
/// How long the last run may take for what has waited at the broker and in the journal.
const CATCH_UP_WITHIN: Duration = Duration::from_secs(60);
const STOP_WITHIN: Duration = Duration::from_secs(30);

/// The broker hands out more than one message at a time, so that a kill leaves some of every sort behind.
const BROKER: &str = "allow_anonymous true\nmax_inflight_messages 200";

fn pipeline(broker: &Mosquitto, folder: &Path) -> String {
    let (out, state) = (folder.join("out"), folder.join("state"));
    let state = Some((state.as_path(), "2MiB"));
    Pipeline { broker_port: broker.port, out: &out, state, epoch: "200ms" }.text()
}

/// Redeliveries that were recognised, as far as this run knows.
fn duplicates(process: &Process) -> u64 {
    let name = "streamgauge_component_discarded_events_total";
    process.metric(name, &["component=\"feed\"", "reason=\"duplicate\""]).unwrap_or(0)
}

/// What the kills met.
#[derive(Default)]
struct Record {
    kills: u64,
    /// Killed before it was ready.
    early: u64,
    /// Runs after which more was visible than before.
    advanced: u64,
    redelivered: u64,
}

impl Record {
    /// Lets a run live for a while, kills it, and starts the next.
    fn kill(&mut self, run: &mut Process, folder: &Path, pipeline: &str, random: &mut Random) {
        let early = random.within(0..EARLY_ONE_IN) == 0;
        if !early {
            run.until_ready(READY_WITHIN);
        }
        let life = random.millis(LIVES);
        let asked = life * 3 / 4;
        std::thread::sleep(asked);
        let from = Instant::now();
        let duplicates = if early { 0 } else { duplicates(run) };
        std::thread::sleep((life - asked).saturating_sub(from.elapsed()));
        run.kill();
        *run = Process::start(folder, pipeline);
        self.kills += 1;
        self.early += u64::from(early);
        self.redelivered += duplicates;
    }
}

#[test]
fn kills_at_random_moments_lose_nothing_and_double_nothing() {
    kills("group", env_or("STREAMGAUGE_KILLS", KILLS));
}

/// What is written outlives the process, synced or not.
#[test]
fn kills_lose_nothing_however_seldom_the_journal_is_synced() {
    for sync in ["none", "interval:300ms"] {
        kills(sync, KILLS / 10);
    }
}

fn kills(sync: &str, kills: u64) {
    let Some(broker) = Mosquitto::start(BROKER) else { return };
    let (folder, from) = (tempfile::tempdir().unwrap(), Instant::now());
    let (folder, out) = (folder.path(), folder.path().join("out"));
    let text = pipeline(&broker, folder).replace("sync = \"group\"", &format!("sync = {sync:?}"));
    assert!(text.contains(&format!("sync = {sync:?}")));
    let mut random = Random::seeded(3);
    let mut run = Process::start(folder, &text);
    run.until_ready(READY_WITHIN);
    let publisher = Publisher::start(broker.port, MESSAGES_PER_SECOND);
    publisher.go();
    let (mut record, mut progress, mut visible) = (Record::default(), Progress::of(&out.join("raw")), 0);
    for _ in 0..kills {
        record.kill(&mut run, folder, &text, &mut random);
        let now = progress.look();
        record.advanced += u64::from(now > visible);
        visible = now;
    }
    // What the runs did not get done in so much time, one run does in the same.
    let catch_up = CATCH_UP_WITHIN + from.elapsed();
    let sent = publisher.more(LAST_STRETCH);
    publisher.until_acked(sent, catch_up);
    progress.until_all(&mut run, sent, catch_up);
    let account = run.terminate(STOP_WITHIN);
    let (raw, rolled) = (Raw::read(&out.join("raw"), sent), Raw::read(&out.join("rolled"), sent));
    // An account that goes on over restarts has them all; else the runs are added up.
    let source = |key: &str| account["sources"]["feed"][key].as_u64().unwrap();
    let redelivered =
        if source("rows") == sent { source("duplicates") } else { record.redelivered + source("duplicates") };
    println!(
        "sync {sync}: kills {} ({} before it was ready, {} after new rows), messages {sent}, redelivered {redelivered}, lost {}, \
         duplicated {}, {:.1} s",
        record.kills,
        record.early,
        record.advanced,
        raw.lost.len() + rolled.lost.len(),
        raw.duplicated.len() + rolled.duplicated.len(),
        from.elapsed().as_secs_f64(),
    );
    raw.assert_exactly_once("files of an epoch");
    rolled.assert_exactly_once("rolled files");
    println!("{} windows as computed", assert_windows(&out, &raw.rows, Open::Kept));
    assert_account(&account);
    assert_no_leftovers(&out);
    assert!(publisher.resent().is_empty(), "the broker lost no connection: the publisher sent everything once");
    assert!(record.advanced * 10 >= record.kills, "runs live long enough to do something");
    assert!(redelivered > 0 || record.kills < KILLS, "kills between journal and acknowledgement were among them");
}

#[test]
fn what_the_broker_acknowledged_survives_its_stops_restarts_and_our_kills() {
    let kept = format!("{BROKER}\npersistence true\npersistence_location {{dir}}/\nautosave_interval 1800");
    let Some(mut broker) = Mosquitto::start(&kept) else { return };
    let (folder, from) = (tempfile::tempdir().unwrap(), Instant::now());
    let (folder, out) = (folder.path(), folder.path().join("out"));
    let (text, mut random) = (pipeline(&broker, folder), Random::seeded(4));
    let mut run = Process::start(folder, &text);
    run.until_ready(READY_WITHIN);
    let publisher = Publisher::start(broker.port, MESSAGES_PER_SECOND);
    publisher.go();
    let (mut record, mut restarts, mut stops) = (Record::default(), 0, 0);
    for round in 0..24 {
        match round % 3 {
            0 => record.kill(&mut run, folder, &text, &mut random),
            1 => {
                broker.sigstop();
                stops += 1;
                std::thread::sleep(random.millis(50..800));
                broker.sigcont();
            }
            _ => {
                broker.terminate();
                restarts += 1;
                std::thread::sleep(random.millis(0..300));
                broker.start_again();
                run.until_ready(READY_WITHIN);
            }
        }
        std::thread::sleep(random.millis(50..500));
    }
    let sent = publisher.more(LAST_STRETCH);
    publisher.until_acked(sent, CATCH_UP_WITHIN);
    let mut progress = Progress::of(&out.join("raw"));
    progress.until_all(&mut run, sent, CATCH_UP_WITHIN);
    let account = run.terminate(STOP_WITHIN);
    let (raw, rolled) = (Raw::read(&out.join("raw"), sent), Raw::read(&out.join("rolled"), sent));
    println!(
        "kills {}, broker restarts {restarts}, stops {stops}, messages {sent}, sent again {}, lost {}, twice {}, {:.1} s",
        record.kills,
        publisher.resent().len(),
        raw.lost.len() + rolled.lost.len(),
        raw.duplicated.len(),
        from.elapsed().as_secs_f64(),
    );
    raw.assert_nothing_lost("files of an epoch");
    // What a broker was given twice, because it ended before it acknowledged, it may hand out twice, as two messages.
    assert!(raw.rows == rolled.rows, "both sinks have the same rows");
    let resent = publisher.resent();
    let unexplained: Vec<_> = raw.duplicated.iter().filter(|n| !resent.contains(n)).collect();
    let (count, first) = (unexplained.len(), unexplained.iter().take(5).collect::<Vec<_>>());
    assert!(unexplained.is_empty(), "{count} numbers that the broker had once are there twice: {first:?} …");
    assert_windows(&out, &raw.rows, Open::Kept);
    assert_account(&account);
    assert_no_leftovers(&out);
}

/// Longer than the broker waits for a client that is silent (1.5 × 5 s, looked at every 5 s).
const STOPPED_FOR: Duration = Duration::from_secs(14);

#[test]
fn a_process_that_was_stopped_for_long_finds_its_session_again() {
    let Some(broker) = Mosquitto::start(BROKER) else { return };
    let folder = tempfile::tempdir().unwrap();
    let (folder, out) = (folder.path(), folder.path().join("out"));
    let mut run = Process::start(folder, &pipeline(&broker, folder));
    run.until_ready(READY_WITHIN);
    let publisher = Publisher::start(broker.port, MESSAGES_PER_SECOND);
    publisher.go();
    std::thread::sleep(Duration::from_secs(1));
    run.signal("STOP");
    std::thread::sleep(STOPPED_FOR);
    run.signal("CONT");
    let source = |run: &Process, what: &str| {
        run.metric(&format!("streamgauge_source_{what}_total"), &["component=\"feed\""]).unwrap_or(0)
    };
    run.until("connected again", READY_WITHIN, |run| source(run, "reconnects") > 0 && run.ready());
    let sent = publisher.more(LAST_STRETCH);
    publisher.until_acked(sent, CATCH_UP_WITHIN);
    let mut progress = Progress::of(&out.join("raw"));
    progress.until_all(&mut run, sent, CATCH_UP_WITHIN);
    assert_eq!(source(&run, "gaps"), 0, "the broker kept the session");
    let account = run.terminate(STOP_WITHIN);
    let raw = Raw::read(&out.join("raw"), sent);
    raw.assert_exactly_once("files of an epoch");
    Raw::read(&out.join("rolled"), sent).assert_exactly_once("rolled files");
    assert_windows(&out, &raw.rows, Open::Kept);
    assert_account(&account);
    assert_no_leftovers(&out);
}

/// The tests' own tools, on a run that nobody disturbs.
#[test]
fn without_a_journal_a_clean_stop_writes_everything() {
    let Some(broker) = Mosquitto::start(BROKER) else { return };
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let text = Pipeline { broker_port: broker.port, out: &out, state: None, epoch: "200ms" }.text();
    let mut run = Process::start(folder.path(), &text);
    run.until_ready(READY_WITHIN);
    let publisher = Publisher::start(broker.port, 0);
    let sent = publisher.more(20_000);
    let mut progress = Progress::of(&out.join("raw"));
    progress.until_all(&mut run, sent, CATCH_UP_WITHIN);
    let account = run.terminate(STOP_WITHIN);
    for sink in ["raw", "rolled"] {
        Raw::read(&out.join(sink), sent).assert_exactly_once(sink);
    }
    assert_windows(&out, &(0..sent).collect::<Vec<_>>(), Open::Flushed);
    assert_account(&account);
    assert_eq!(account["sources"]["feed"]["received"], sent);
    assert_no_leftovers(&out);
}

/// What the tests above would see if nothing were kept.
#[test]
fn without_a_journal_a_kill_loses_rows_and_this_is_seen() {
    let Some(broker) = Mosquitto::start(BROKER) else { return };
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let text = Pipeline { broker_port: broker.port, out: &out, state: None, epoch: "10m" }.text();
    let mut run = Process::start(folder.path(), &text);
    run.until_ready(READY_WITHIN);
    let publisher = Publisher::start(broker.port, 0);
    let received =
        |run: &Process| run.metric("streamgauge_component_received_events_total", &["component=\"feed\""]).unwrap_or(0);
    publisher.more(1_000);
    run.until("received", CATCH_UP_WITHIN, |run| received(run) == 1_000);
    run.kill();
    let mut run = Process::start(folder.path(), &text);
    run.until_ready(READY_WITHIN);
    let sent = publisher.more(LAST_STRETCH);
    run.until("received", CATCH_UP_WITHIN, |run| received(run) >= LAST_STRETCH);
    run.terminate(STOP_WITHIN);
    let raw = Raw::read(&out.join("raw"), sent);
    assert!(raw.lost.contains(&0) && raw.rows.contains(&(sent - 1)), "the first are lost, the last are there");
    let windows = windows_are(&out, &(0..sent).collect::<Vec<_>>(), Open::Flushed);
    assert!(windows.is_err(), "windows without their rows are found");
}
