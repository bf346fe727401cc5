//! A live run that was killed and stopped, and replays of its journal.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::mosquitto::{Mosquitto, free_port};
use crate::support::numbered::{Random, env_or, mix};
use crate::support::process::Process;
use crate::support::publisher::Client;
use crate::support::tree::{Tree, assert_same_tree, tree};
use crate::support::{parquet_files, streamgauge, succeed};

const WITHIN: Duration = Duration::from_secs(60);
const KILLS: u64 = 8;
/// How long a run lives once it is ready, in milliseconds.
const LIVES: std::ops::Range<u64> = 150..900;

/// Two sources with clocks and rates of their own meet in windows whose results depend on the order, in a roll and in a
/// merge of merges; one of them goes both ways around a diamond; what is set aside is written too.
const PIPELINE: &str = r#"
[pipeline]
name = "meeting"
state = "${STATE}"
epoch = "300ms"
journal = { keep = "32MiB", quota = "64MiB" }
SIZES

[sources.a]
type = "mqtt"
url = "${MQTT_URL}"
topics = ["a/{device}"]
client_id = "meeting-a"
decoders = DECODERS
clean_start = false
session_expiry = "1h"

[sources.a.decode]
format = "json"

[sources.a.columns]
ts = { type = "timestamp", unit = "ms" }
n = { type = "int64", required = true }
v = { type = "float64", required = true }

[sources.a.time]
column = "ts"
out_of_orderness = "100ms"
idle_after = "250ms"
max_future = "1m"

[sources.b]
type = "mqtt"
url = "${MQTT_URL}"
topics = ["b/{device}"]
client_id = "meeting-b"
clean_start = false
session_expiry = "1h"

[sources.b.decode]
format = "json"

[sources.b.columns]
ts = { type = "timestamp", unit = "ms" }
n = { type = "int64", required = true }
v = { type = "float64", required = true }

[sources.b.time]
column = "ts"
out_of_orderness = "30ms"
idle_after = "1s"
max_future = "1m"

[operators.thirds]
type = "filter"
inputs = ["a"]
where = "n % 3 = 0"

[operators.halves]
type = "filter"
inputs = ["a"]
where = "n % 2 = 0"

[operators.all]
type = "filter"
inputs = ["b", "a"]
where = "v > -9"

[operators.meet]
type = "window"
inputs = ["a", "b"]
window = { tumbling = "500ms" }
group_by = ["device"]
aggregates = { rows = "count(*)", first = "first(n)", last = "last(n)", total = "sum(v)", mean = "avg(v)" }

[operators.runs]
type = "window"
inputs = ["b", "thirds"]
window = { session = "60ms" }
late = "update"
allowed_lateness = "200ms"
group_by = ["device"]
aggregates = { rows = "count(*)", first = "first(v)", last = "last(v)", total = "sum(v)" }

[operators.own]
type = "window"
inputs = ["all", "a"]
window = { hopping = "600ms", every = "200ms" }
clock = "group"
group_by = ["device"]
aggregates = { rows = "count(*)", last = "last(n)", total = "sum(v)", p90 = "quantile(v, 0.9)" }

[operators.own_runs]
type = "window"
inputs = ["all", "a"]
window = { session = "40ms" }
clock = "group"
late = "update"
allowed_lateness = "300ms"
group_by = ["device"]
aggregates = { rows = "count(*)", last = "last(n)", total = "sum(v)" }

[operators.once]
type = "dedupe"
inputs = ["all"]
keys = ["device", "n"]
within = "5s"

[sinks.diamond]
type = "parquet"
inputs = ["thirds", "halves"]
path = "${OUT}/diamond"

[sinks.meet_files]
type = "parquet"
inputs = ["meet"]
path = "${OUT}/meet"
partition_by = ["device"]

[sinks.runs_files]
type = "parquet"
inputs = ["runs"]
path = "${OUT}/runs"

[sinks.own_files]
type = "parquet"
inputs = ["own"]
path = "${OUT}/own"

[sinks.own_runs_files]
type = "parquet"
inputs = ["own_runs"]
path = "${OUT}/own_runs"

[sinks.late]
type = "parquet"
inputs = ["meet.late", "own.late"]
path = "${OUT}/late"

[sinks.letters]
type = "parquet"
inputs = ["a.dead_letter", "b.dead_letter"]
path = "${OUT}/letters"

[sinks.rolled]
type = "parquet"
inputs = ["once", "b", "all"]
path = "${OUT}/rolled"
roll = { rows = 700 }
"#;

/// The pipeline file with these bounds, its own state folder and output.
fn pipeline(url: &str, state: &Path, out: &Path, sizes: &str) -> String {
    let text = PIPELINE.replace("${STATE}", state.to_str().unwrap()).replace("${OUT}", out.to_str().unwrap());
    // Another number with every other sizes.
    let decoders = 1 + sizes.len() % 3;
    text.replace("${MQTT_URL}", url).replace("SIZES", sizes).replace("DECODERS", &decoders.to_string())
}

/// Publishes to a source until it is told to stop: rows in and out of order, late ones, some of another century, some that
/// are none, in bursts and after pauses that are longer than `idle_after`. How many there were.
fn publish(port: u16, source: &'static str, per_burst: u64, pause_ms: u64, stop: Arc<AtomicBool>) -> u64 {
    let mut client = Client::connect(port, &format!("publisher-{source}"));
    let (mut n, mut future) = (0, false);
    // A fast machine is stopped early: what the account must have of this source comes nevertheless.
    while !stop.load(Relaxed) || !future {
        for _ in 0..per_burst {
            let random = mix(n ^ u64::from(source.as_bytes()[0]) << 32);
            let now = jiff::Timestamp::now().as_millisecond();
            let ts = match random % 200 {
                0 => now + 3_600_000,
                1..=5 => now - 2_000,
                other => now - i64::try_from(other % 50).unwrap(),
            };
            future |= random.is_multiple_of(200) && !random.is_multiple_of(97);
            let v = (random >> 20 & 0xffff) as f64 / 977.0 - 10.0;
            let body =
                if random.is_multiple_of(97) { "{".to_owned() } else { format!(r#"{{"ts":{ts},"n":{n},"v":{v}}}"#) };
            client.publish(&format!("{source}/d{}", random >> 40 & 3), &body);
            n += 1;
        }
        client.flush();
        let pause = if mix(n).is_multiple_of(11) { 400 } else { pause_ms };
        thread::sleep(Duration::from_millis(pause));
    }
    n
}

/// What an account says of the journal: redeliveries are not in it.
fn of_the_journal(mut account: Value) -> Value {
    for source in account["sources"].as_object_mut().unwrap().values_mut() {
        let count = |key: &str| source[key].as_u64().unwrap();
        let journaled = count("received") - count("duplicates");
        (source["received"], source["duplicates"]) = (json!(journaled), json!(0));
    }
    account
}

struct Replays {
    folder: PathBuf,
    state: PathBuf,
    count: usize,
}

impl Replays {
    /// Replays the journal with these bounds. What is visible then, and the account.
    fn replay(&mut self, sizes: &str) -> (Tree, Value) {
        self.count += 1;
        let folder = self.folder.join(format!("replay-{}", self.count));
        std::fs::create_dir_all(&folder).unwrap();
        let (file, account, out) = (folder.join("pipeline.toml"), folder.join("account.json"), folder.join("out"));
        // Nobody listens there: a replay does not connect.
        std::fs::write(&file, pipeline("mqtt://127.0.0.1:1", &self.state, &out, sizes)).unwrap();
        let mut command = streamgauge();
        command.arg("replay").arg(&file).arg("--journal").arg(&self.state).arg("--account").arg(&account);
        succeed(&mut command);
        let account = serde_json::from_slice(&std::fs::read(&account).unwrap()).unwrap();
        (tree(&out), account)
    }
}

fn received(run: &Process, source: &str) -> u64 {
    let label = format!("component=\"{source}\"");
    run.metric("streamgauge_component_received_events_total", &[&label]).unwrap_or(0)
}

#[test]
fn a_replay_of_the_journal_gives_the_bytes_of_the_live_run() {
    let Some(broker) = Mosquitto::start("allow_anonymous true\nmax_inflight_messages 100") else { return };
    let folder = tempfile::tempdir().unwrap();
    let (folder, mut random) = (folder.path().to_owned(), Random::seeded(11));
    let (state, out) = (folder.join("state"), folder.join("out"));
    let text = pipeline(&broker.url(), &state, &out, "");
    let mut run = Process::start(&folder, &text);
    run.until_ready(WITHIN);
    let (stop, port) = (Arc::new(AtomicBool::new(false)), broker.port);
    let publishers = [("a", 20, 20), ("b", 3, 35)].map(|(source, per_burst, pause)| {
        let stop = stop.clone();
        thread::spawn(move || publish(port, source, per_burst, pause, stop))
    });
    let kills = env_or("STREAMGAUGE_KILLS", KILLS);
    for kill in 0..kills {
        thread::sleep(random.millis(LIVES));
        if kill == kills / 2 {
            run.terminate(WITHIN);
        } else {
            run.kill();
        }
        // Other bounds live, too: the bytes must not depend on them.
        let sizes = ["", "batch_rows = 13", "channel_batches = 1"][kill as usize % 3];
        run = Process::start(&folder, &pipeline(&broker.url(), &state, &out, sizes));
        run.until_ready(WITHIN);
    }
    stop.store(true, Relaxed);
    let sent = publishers.map(|publisher| publisher.join().unwrap());
    run.until("all received", WITHIN, |run| received(run, "a") >= sent[0] && received(run, "b") >= sent[1]);
    let account = of_the_journal(run.terminate(WITHIN));
    assert_eq!(account.get("faults"), None, "{account:#}");
    for (source, sent) in ["a", "b"].iter().zip(sent) {
        assert_eq!(account["sources"][source]["received"], sent, "{account:#}");
        for what in ["rows", "dead_letter", "future"] {
            assert!(account["sources"][source][what].as_u64().unwrap() > 0, "{what} of {source}: {account:#}");
        }
    }
    assert!(account["operators"]["meet"]["late"].as_u64().unwrap() > 0, "{account:#}");
    let live = tree(&out);
    for sink in ["diamond", "meet", "runs", "own", "late", "letters", "rolled"] {
        assert!(!parquet_files(&out.join(sink)).is_empty(), "{sink} has files");
    }
    let before = tree(&state);
    let mut replays = Replays { folder, state: state.clone(), count: 0 };
    for sizes in
        ["", "", "batch_rows = 1", "batch_rows = 7\nchannel_batches = 1", "batch_rows = 1000\nchannel_batches = 64"]
    {
        let (visible, replayed) = replays.replay(sizes);
        assert_same_tree(&format!("replay with `{sizes}`"), &live, &visible);
        assert_eq!(of_the_journal(replayed), account, "replay with `{sizes}`");
    }
    assert_same_tree("the state folder after its replays", &before, &tree(&state));
}

/// A replay of what a killed process left: everything that it had committed is there, and the state folder is as it was.
#[test]
fn a_replay_of_a_killed_run_has_all_that_was_committed_and_changes_nothing() {
    let Some(broker) = Mosquitto::start("allow_anonymous true\nmax_inflight_messages 100") else { return };
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().to_owned();
    let (state, out) = (folder.join("state"), folder.join("out"));
    let mut run = Process::start(&folder, &pipeline(&broker.url(), &state, &out, ""));
    run.until_ready(WITHIN);
    let (stop, port) = (Arc::new(AtomicBool::new(false)), broker.port);
    let stopped = stop.clone();
    let publisher = thread::spawn(move || publish(port, "a", 40, 5, stopped));
    let files = || parquet_files(&out.join("diamond")).len();
    run.until("some epochs", WITHIN, |_| files() > 3);
    run.kill();
    stop.store(true, Relaxed);
    publisher.join().unwrap();
    let (before, live) = (tree(&state), tree(&out));
    let (visible, _) = Replays { folder, state: state.clone(), count: 0 }.replay("batch_rows = 50");
    // What the killed run had not published yet is there beside it, where readers do not look.
    let hidden = |path: &Path| path.iter().any(|part| part.to_str().unwrap().starts_with(['_', '.']));
    for (path, bytes) in live.iter().filter(|(path, _)| !hidden(path)) {
        assert!(visible.get(path) == Some(bytes), "{path:?}: {} bytes", bytes.len());
    }
    assert_same_tree("the state folder after its replay", &before, &tree(&state));
}

/// A source that is away, and one that says nothing, hold nobody up where streams meet.
#[test]
fn sources_that_are_silent_or_away_do_not_hold_up_the_others() {
    let Some(broker) = Mosquitto::start("allow_anonymous true") else { return };
    let source = |name: &str, port: u16| {
        format!(
            "[sources.{name}]\ntype = \"mqtt\"\nurl = \"mqtt://127.0.0.1:{port}\"\ntopics = [\"{name}/{{device}}\"]\n\
             client_id = \"{name}\"\n[sources.{name}.decode]\nformat = \"json\"\n[sources.{name}.columns]\n\
             n = {{ type = \"int64\", required = true }}\n"
        )
    };
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    // An epoch would let them go anyway.
    let head =
        format!("[pipeline]\nname = \"held\"\nepoch = \"1h\"\nstate = {:?}\n", folder.join("state").to_str().unwrap());
    let sources = source("a", broker.port) + &source("silent", broker.port) + &source("away", free_port());
    let meet = "[operators.all]\ntype = \"filter\"\ninputs = [\"silent\", \"a\", \"away\"]\nwhere = \"n >= 0\"\n\
                [sinks.live]\ntype = \"metrics\"\ninputs = [\"all\", \"away\"]\nlabels = [\"device\"]\n";
    let mut run = Process::start(folder, &(head + &sources + meet));
    let connected = |run: &Process, source: &str| {
        run.metric("streamgauge_source_connected", &[&format!("component=\"{source}\"")]) == Some(1)
    };
    run.until("connected", WITHIN, |run| connected(run, "a") && connected(run, "silent"));
    let mut client = Client::connect(broker.port, "publisher");
    for n in 0..500 {
        client.publish(&format!("a/d{n}"), &format!("{{\"n\":{n}}}"));
    }
    client.flush();
    let shown = |run: &Process| {
        let (_, body) = run.get("/api/v1/latest/live")?;
        serde_json::from_str::<Value>(&body).ok()?.as_array().map(Vec::len)
    };
    run.until("all rows came out", Duration::from_secs(10), |run| shown(run) == Some(500));
    assert!(!connected(&run, "away"));
    // A stop does not wait for it either.
    assert_eq!(run.terminate(Duration::from_secs(10))["sinks"]["live"]["rows"], 500);
}
