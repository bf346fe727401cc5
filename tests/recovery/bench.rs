//! A pipeline with a broker, a state folder and numbered messages, that is stopped, changed and started.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use crate::support::mosquitto::Mosquitto;
use crate::support::process::Process;
use crate::support::publisher::Client;
use crate::support::tree::{Tree, tree};
use crate::support::{Row, parquet_rows};

pub(crate) const WITHIN: Duration = Duration::from_secs(30);
/// Event time of message 0, in milliseconds.
const BASE_MILLIS: u64 = 1_767_600_000_000;
/// Event times of two messages are so far apart.
const STEP_MILLIS: u64 = 10;
/// Messages of a window.
pub(crate) const WINDOW: u64 = 100;
/// The watermark is so many messages behind.
pub(crate) const BEHIND: u64 = 20;

pub(crate) const PIPELINE: &str = r#"
[pipeline]
name = "changing"
state = "STATE"
epoch = "200ms"
journal = { quota = "32MiB" }

[sources.feed]
type = "mqtt"
url = "URL"
topics = ["feed/{device}"]
client_id = "changing-feed"
clean_start = false
session_expiry = "1h"

[sources.feed.decode]
format = "json"

[sources.feed.columns]
ts = { type = "timestamp", unit = "ms" }
n = { type = "int64", required = true }

[sources.feed.time]
column = "ts"
out_of_orderness = "200ms"
idle_after = "never"

[operators.known]
type = "filter"
inputs = ["feed"]
where = "n >= 0"

[operators.by_second]
type = "window"
inputs = ["known"]
window = { tumbling = "1s" }
group_by = ["device"]

[operators.by_second.aggregates]
rows = "count(*)"
total = "sum(n)"
first = "first(n)"
last = "last(n)"

[sinks.raw]
type = "parquet"
inputs = ["known"]
path = "OUT/raw"

[sinks.windows]
type = "parquet"
inputs = ["by_second"]
path = "OUT/windows"

[sinks.latest]
type = "metrics"
inputs = ["by_second"]
labels = ["device"]
"#;

/// A source like the first, of another name.
pub(crate) const MORE: &str = r#"
[sources.more]
type = "mqtt"
url = "URL"
topics = ["more/{device}"]
client_id = "changing-more"
clean_start = false
session_expiry = "1h"

[sources.more.decode]
format = "json"

[sources.more.columns]
ts = { type = "timestamp", unit = "ms" }
n = { type = "int64", required = true }

[sources.more.time]
column = "ts"
out_of_orderness = "200ms"
idle_after = "never"
"#;

/// A pipeline file with one text in the place of another that is in it once.
pub(crate) fn change(text: &str, from: &str, to: &str) -> String {
    assert_eq!(text.matches(from).count(), 1, "{from}");
    text.replace(from, to)
}

pub(crate) struct Bench {
    pub(crate) broker: Mosquitto,
    pub(crate) folder: tempfile::TempDir,
    /// Next numbers, by source.
    sent: BTreeMap<&'static str, u64>,
}

impl Bench {
    pub(crate) fn start() -> Option<Self> {
        let broker = Mosquitto::start("allow_anonymous true\nmax_inflight_messages 100")?;
        Some(Self { broker, folder: tempfile::tempdir().unwrap(), sent: BTreeMap::new() })
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn state(&self) -> Tree {
        tree(&self.path("state"))
    }

    /// A pipeline file with this bench's places.
    pub(crate) fn text(&self, template: &str) -> String {
        let place = |name: &str| self.path(name).to_str().unwrap().to_owned();
        let text = template.replace("URL", &self.broker.url());
        text.replace("STATE", &place("state")).replace("OUT", &place("out"))
    }

    pub(crate) fn run(&self, template: &str, more: &[&str]) -> Process {
        let mut run = Process::start_with(self.folder.path(), &self.text(template), more);
        run.until_ready(WITHIN);
        run
    }

    /// It must refuse to start; what it said. The state folder is as it was.
    pub(crate) fn refused(&self, what: &str, template: &str, more: &[&str]) -> String {
        let before = self.state();
        let said = Process::refused(self.folder.path(), &self.text(template), more, WITHIN);
        crate::support::tree::assert_same_tree(what, &before, &self.state());
        said
    }

    /// Publishes the next numbers of a source, of two devices. Those of all sources have the same times.
    pub(crate) fn publish(&mut self, source: &'static str, count: u64) {
        let next = self.sent.entry(source).or_default();
        let mut client = Client::connect(self.broker.port, "publisher");
        for n in *next..*next + count {
            let ts = BASE_MILLIS + STEP_MILLIS * n;
            client.publish(&format!("{source}/d{}", n % 2), &format!(r#"{{"ts":{ts},"n":{n}}}"#));
        }
        client.flush();
        *next += count;
    }

    pub(crate) fn sent(&self, source: &str) -> u64 {
        self.sent.get(source).copied().unwrap_or(0)
    }

    /// Lets a run take what is published, and stops it. Its account.
    pub(crate) fn pass(&mut self, template: &str, more: &[&str], publish: &[(&'static str, u64)]) -> Value {
        let mut run = self.run(template, more);
        let before: Vec<u64> = publish.iter().map(|(source, _)| received(&run, source)).collect();
        for ((source, count), before) in publish.iter().zip(before) {
            self.publish(source, *count);
            run.until("received", WITHIN, |run| received(run, source) >= before + count);
        }
        let account = run.terminate(WITHIN);
        assert_eq!(account.get("faults"), None, "{account:#}");
        account
    }

    /// All numbers of `raw` rows, sorted.
    pub(crate) fn raw(&self, sink: &str) -> Vec<u64> {
        let mut rows: Vec<u64> =
            parquet_rows(&self.path("out").join(sink)).iter().map(|row| row["n"].as_u64().unwrap()).collect();
        rows.sort_unstable();
        rows
    }

    /// The windows that are visible: start in messages and device, and their rows.
    pub(crate) fn windows(&self) -> BTreeMap<(u64, String), Row> {
        let mut windows = BTreeMap::new();
        for row in parquet_rows(&self.path("out").join("windows")) {
            let key = (start_of(&row), row["device"].as_str().unwrap().to_owned());
            assert!(windows.insert(key.clone(), row).is_none(), "{key:?} is there twice");
        }
        windows
    }

    /// All windows that have closed are there and complete, where `sources` sent the same numbers from nought on.
    pub(crate) fn assert_windows(&self, sent: u64, sources: u64) {
        let windows = self.windows();
        let closed = (sent - 1 - BEHIND) / WINDOW;
        assert_eq!(windows.len() as u64, 2 * closed, "windows of {sent} messages: {:?}", windows.keys());
        for ((start, device), row) in &windows {
            let parity: u64 = device[1..].parse().unwrap();
            let numbers: Vec<u64> = (*start..start + WINDOW).filter(|n| n % 2 == parity).collect();
            let count = |key: &str| row[key].as_u64().unwrap();
            let what = format!("{device} from {start}: {row:?}");
            assert_eq!(count("rows"), sources * numbers.len() as u64, "{what}");
            assert_eq!(count("total"), sources * numbers.iter().sum::<u64>(), "{what}");
            assert_eq!((count("first"), count("last")), (numbers[0], *numbers.last().unwrap()), "{what}");
        }
    }
}

fn start_of(row: &Row) -> u64 {
    let start: jiff::Timestamp = row["window_start"].as_str().unwrap().parse().unwrap();
    (u64::try_from(start.as_millisecond()).unwrap() - BASE_MILLIS) / STEP_MILLIS
}

pub(crate) fn received(run: &Process, source: &str) -> u64 {
    let label = format!("component=\"{source}\"");
    run.metric("streamgauge_component_received_events_total", &[&label]).unwrap_or(0)
}

/// Files of a folder by their ending, the newest first: names of both are by number.
pub(crate) fn newest(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut found: Vec<PathBuf> =
        entries.filter(|path| path.file_name().unwrap().to_str().unwrap().ends_with(ending)).collect();
    found.sort_by(|a, b| b.cmp(a));
    found
}
