//! The real binary against a real mosquitto.

mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use streamgauge::flow::time::Timestamp;
use streamgauge::ingest::fleet::{FleetMessage, Publisher, What, publish as publish_to};
use streamgauge::ingest::recording::Speed;
use support::mosquitto::Mosquitto;
use support::{parquet_rows, streamgauge};

/// How long anything may take before the test gives up.
const PATIENCE: Duration = Duration::from_secs(120);

const PIPELINE: &str = r#"
[pipeline]
name = "live"
durability = "none"
epoch = "1s"

[sources.telemetry]
type = "mqtt"
url = "${MQTT_URL}"
topics = ["sites/{site}/devices/{device}/telemetry"]
qos = 1

[sources.telemetry.decode]
format = "json"

[sources.telemetry.columns]
ts = { type = "timestamp", unit = "ms" }
n = { type = "int64", required = true }

[sources.telemetry.time]
column = "ts"

[operators.by_device]
type = "window"
inputs = ["telemetry"]
window = { tumbling = "10s" }
group_by = ["site", "device"]

[operators.by_device.aggregates]
samples = "count(*)"
total = "sum(n)"

[sinks.history]
type = "parquet"
inputs = ["by_device"]
path = "${OUT}"

[sinks.live]
type = "metrics"
inputs = ["by_device"]
labels = ["site", "device"]
"#;

/// A run that listens, and the port that it got.
struct Run {
    child: Child,
    port: u16,
}

impl Run {
    fn start(folder: &Path, url: &str) -> Self {
        let pipeline = folder.join("live.toml");
        std::fs::write(&pipeline, PIPELINE).unwrap();
        let mut child = streamgauge()
            .arg("run")
            .arg(&pipeline)
            .args(["--listen", "127.0.0.1:0", "--account"])
            .arg(folder.join("account.json"))
            .env("MQTT_URL", url)
            .env("OUT", folder.join("out"))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
        let port = lines
            .find_map(|line| line.strip_prefix("listening on http://127.0.0.1:").and_then(|port| port.parse().ok()));
        // What it says later must go somewhere.
        std::thread::spawn(move || lines.for_each(|line| eprintln!("{line}")));
        Self { child, port: port.expect("it says where it listens") }
    }

    fn get(&self, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nConnection: close\r\n\r\n", self.port).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap();
        (status, answer)
    }

    fn until(&self, what: &str, mut done: impl FnMut(&Self) -> bool) {
        let from = Instant::now();
        while !done(self) {
            assert!(from.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}\n{}", self.get("/metrics").1);
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn received(&self) -> u64 {
        let (_, metrics) = self.get("/metrics");
        let line = metrics.lines().find(|line| {
            line.starts_with("streamgauge_component_received_events_total{") && line.contains("\"telemetry\"")
        });
        line.and_then(|line| line.rsplit(' ').next()).and_then(|count| count.parse::<f64>().ok()).unwrap_or(0.0) as u64
    }

    fn stop(mut self) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        let status = self.child.wait().unwrap();
        assert!(status.success(), "{status}");
    }
}

impl Drop for Run {
    /// A test that failed leaves nothing running.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// At QoS 1, in order; returns once the broker has acknowledged every one.
fn publish(broker: &Mosquitto, topic: &'static str, bodies: impl Iterator<Item = String> + Send) {
    let message = |body: String| FleetMessage {
        arrival: Timestamp::from_micros(0),
        device: 0,
        topic: topic.into(),
        body: body.into(),
        what: What::Good,
    };
    let to = Publisher { host: "127.0.0.1".to_owned(), port: broker.port, qos: 1, connections: 1, speed: Speed::Max };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let messages: Vec<FleetMessage> = bodies.map(message).collect();
    let count = messages.len() as u64;
    assert_eq!(runtime.block_on(publish_to(messages, &to)).unwrap(), count);
}

// A stock broker drops what waits for a subscriber beyond 1,000 messages, and tells nobody: here it may keep them all.
const KEEP_ALL: &str = "allow_anonymous true";

#[test]
fn a_hundred_thousand_messages_are_accounted_for_one_by_one() {
    let Some(broker) = Mosquitto::start(KEEP_ALL) else { return };
    let folder = tempfile::tempdir().unwrap();
    let run = Run::start(folder.path(), &broker.url());
    run.until("subscribed", |run| run.get("/readyz").0 == 200);
    let message = |n: u64| format!("{{\"ts\":{},\"n\":{n}}}", 1_767_600_000_000 + n);
    publish(&broker, "sites/a/devices/d1/telemetry", (0..100_000).map(message));
    run.until("all received", |run| run.received() == 100_000);
    run.stop();
    let account: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(folder.path().join("account.json")).unwrap()).unwrap();
    assert_eq!(account["sources"]["telemetry"]["received"], 100_000);
    assert_eq!(account["sources"]["telemetry"]["rows"], 100_000);
    assert_eq!(account["operators"]["by_device"]["late"], 0);
    let rows = parquet_rows(&folder.path().join("out"));
    let sum = |column: &str| rows.iter().map(|row| row[column].as_i64().unwrap()).sum::<i64>();
    // 0 + 1 + … + 99,999
    assert_eq!((sum("samples"), sum("total")), (100_000, 4_999_950_000));
    assert_eq!(rows.len(), 10, "100 s in windows of ten");
}

#[test]
fn a_broker_that_restarts_loses_no_window_and_no_session() {
    let Some(mut broker) = Mosquitto::start(KEEP_ALL) else { return };
    let folder = tempfile::tempdir().unwrap();
    let run = Run::start(folder.path(), &broker.url());
    run.until("subscribed", |run| run.get("/readyz").0 == 200);
    let message = |n: u64| format!("{{\"ts\":{},\"n\":{n}}}", 1_767_600_000_000 + n);
    publish(&broker, "sites/a/devices/d1/telemetry", (0..100).map(message));
    run.until("the first half", |run| run.received() == 100);
    broker.restart();
    run.until("subscribed again", |run| run.get("/readyz").0 == 200);
    publish(&broker, "sites/a/devices/d1/telemetry", (100..200).map(message));
    run.until("the second half", |run| run.received() == 200);
    let (status, latest) = run.get("/api/v1/latest/live");
    assert_eq!(status, 200, "{latest}");
    run.stop();
    let rows = parquet_rows(&folder.path().join("out"));
    assert_eq!((rows.len(), rows[0]["samples"].as_i64()), (1, Some(200)), "one window over both halves");
}
