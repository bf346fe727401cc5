//! Honesty about time, end to end: small recordings through the real engine, and what must come of them, by hand.

mod support;

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use support::{parquet_files, parquet_rows, streamgauge, succeed};
use tempfile::TempDir;

/// 2026-01-05T08:00:00Z in seconds: where the recordings begin.
const START: i64 = 1_767_600_000;

/// Columns `ts` and `v` of JSON objects, `device` of the topic.
const JSON: &str = r#"
decode = { format = "json" }
columns = { ts = { type = "timestamp", unit = "ms" }, v = "int64" }
time = { column = "ts", out_of_orderness = "5s", idle_after = "30s", max_future = "5m" }
"#;

/// A line of a recording: what arrived so many milliseconds after the start.
fn line(arrival: i64, device: &str, payload: &str) -> String {
    let recv_time = jiff::Timestamp::from_millisecond(START * 1000 + arrival).unwrap().to_string();
    let topic = format!("d/{device}");
    json!({"seq": 0, "recv_time": recv_time, "topic": topic, "qos": 1, "retain": false, "enc": "utf8", "payload": payload})
        .to_string()
}

/// A row: arrival and event time in seconds after the start.
fn row(arrival: i64, device: &str, ts: i64, v: i64) -> String {
    line(arrival * 1000, device, &json!({"ts": (START + ts) * 1000, "v": v}).to_string())
}

/// Replays lines through one source and one window; `late` is its side output, where it has one.
struct Run<'r> {
    source: &'r str,
    window: &'r str,
    side: bool,
    batch_rows: usize,
    channel_batches: usize,
}

impl<'r> Run<'r> {
    fn of(window: &'r str) -> Self {
        Self { source: JSON, window, side: true, batch_rows: 8192, channel_batches: 8 }
    }

    fn replay(&self, lines: &[String]) -> Done {
        let dir = tempfile::tempdir().unwrap();
        let late = if self.side {
            "[sinks.late]\ntype = \"parquet\"\ninputs = [\"w.late\"]\npath = \"${OUT}/late\"\n"
        } else {
            ""
        };
        let text = format!(
            r#"
[pipeline]
name = "time"
durability = "none"
batch_rows = {}
channel_batches = {}

[sources.s]
type = "mqtt"
url = "mqtt://127.0.0.1:1"
topics = ["d/{{device}}"]
{}
[operators.w]
type = "window"
inputs = ["s"]
aggregates = {{ n = "count(*)", total = "sum(v)" }}
{}
[sinks.main]
type = "parquet"
inputs = ["w"]
path = "${{OUT}}/main"

[sinks.dead]
type = "parquet"
inputs = ["s.dead_letter"]
path = "${{OUT}}/dead"
{late}"#,
            self.batch_rows, self.channel_batches, self.source, self.window
        );
        let (pipeline, recording) = (dir.path().join("time.toml"), dir.path().join("recording.jsonl"));
        fs::write(&pipeline, text).unwrap();
        fs::write(&recording, lines.join("\n") + "\n").unwrap();
        let account = dir.path().join("account.json");
        let mut command = streamgauge();
        command.arg("replay").arg(pipeline).arg("--recording").arg(recording).arg("--account").arg(&account);
        succeed(command.env("OUT", dir.path()));
        let account = serde_json::from_str(&fs::read_to_string(account).unwrap()).unwrap();
        Done { dir, account }
    }
}

struct Done {
    dir: TempDir,
    account: Value,
}

impl Done {
    fn rows(&self, sink: &str) -> Vec<support::Row> {
        parquet_rows(&self.dir.path().join(sink))
    }

    /// Device, start after the start of the recording, rows and their sum; in order.
    fn windows(&self) -> Vec<(String, i64, i64, i64)> {
        let window = |row: support::Row| {
            let start: jiff::Timestamp = row["window_start"].as_str().unwrap().parse().unwrap();
            let whole = |name: &str| row[name].as_i64().unwrap();
            let device = row.get("device").map_or(String::new(), |device| device.as_str().unwrap().to_owned());
            (device, start.as_second() - START, whole("n"), whole("total"))
        };
        let mut windows: Vec<_> = self.rows("main").into_iter().map(window).collect();
        windows.sort();
        windows
    }

    fn late(&self) -> Vec<i64> {
        self.rows("late").iter().map(|row| row["v"].as_i64().unwrap()).collect()
    }

    fn dead(&self) -> Vec<(String, String)> {
        let text = |row: &support::Row, name: &str| row[name].as_str().unwrap().to_owned();
        self.rows("dead").iter().map(|row| (text(row, "payload"), text(row, "reason"))).collect()
    }

    fn source(&self, what: &str) -> i64 {
        self.account["sources"]["s"][what].as_i64().unwrap()
    }

    fn files(&self) -> Vec<(String, Vec<u8>)> {
        let name = |path: &Path| path.strip_prefix(self.dir.path()).unwrap().to_str().unwrap().to_owned();
        parquet_files(self.dir.path()).iter().map(|path| (name(path), fs::read(path).unwrap())).collect()
    }
}

fn windows(expected: &[(&str, i64, i64, i64)]) -> Vec<(String, i64, i64, i64)> {
    expected.iter().map(|window| (window.0.to_owned(), window.1, window.2, window.3)).collect()
}

const TUMBLING: &str = "window = { tumbling = \"10s\" }\ngroup_by = [\"device\"]\n";

#[test]
fn a_clock_in_2036_is_set_aside_and_moves_nothing() {
    let future = json!({"ts": 2_082_758_400_000_i64, "v": 9}).to_string();
    let lines = [row(0, "a", 0, 1), line(100, "b", &future), row(1, "a", 1, 2), row(10, "a", 9, 3)];
    let done = Run::of(TUMBLING).replay(&lines);
    assert_eq!(done.windows(), windows(&[("a", 0, 3, 6)]));
    assert_eq!((done.source("future"), done.source("rows"), done.source("dead_letter")), (1, 3, 0));
    let dead = done.dead();
    assert_eq!(dead.len(), 1);
    assert_eq!(dead[0].0, future);
    assert!(dead[0].1.starts_with("future: event time 2036-01-01T00:00:00Z"), "{}", dead[0].1);
    assert_eq!(done.late(), [0; 0]);
}

#[test]
fn times_of_1970_and_the_ends_of_time_are_rows_like_others() {
    let source = JSON.replace("\"ms\"", "\"us\"");
    let body = |ts: i64| json!({"ts": ts, "v": 1}).to_string();
    let times = [-1, 0, i64::MIN, START * 1_000_000, 0, i64::MAX, i64::MIN + 1];
    let lines = times.map(|ts| line(0, "a", &body(ts)));
    for batch_rows in [1, 8192] {
        let done = Run { source: &source, batch_rows, side: false, ..Run::of(TUMBLING) }.replay(&lines);
        // Before the first row of this age nothing has closed: the rows around 1970 have their windows.
        assert_eq!(done.windows(), windows(&[("a", -10 - START, 1, 1), ("a", -START, 1, 1), ("a", 0, 1, 1)]));
        assert_eq!(done.source("future"), 1, "{}", done.account);
        assert_eq!(done.account["operators"]["w"]["late"], 3, "{}", done.account);
    }
}

#[test]
fn late_rows_get_what_the_file_says() {
    // The watermark after each row: -4, 11, 11, 21, 21. [0, 10) is open until 20.
    let lines = [row(0, "a", 1, 1), row(0, "a", 16, 2), row(0, "a", 2, 4), row(0, "a", 26, 8), row(0, "a", 3, 16)];
    let final_windows = windows(&[("a", 0, 2, 5), ("a", 10, 1, 2), ("a", 20, 1, 8)]);
    let with = |late: &str| format!("{TUMBLING}allowed_lateness = \"10s\"\nlate = \"{late}\"\n");
    for batch_rows in [1, 8192] {
        let side = Run { batch_rows, ..Run::of(&with("side")) }.replay(&lines);
        assert_eq!((side.windows(), side.late()), (final_windows.clone(), vec![16]));
        let dropped = Run { batch_rows, side: false, ..Run::of(&with("drop")) }.replay(&lines);
        assert_eq!(dropped.windows(), final_windows);
        assert_eq!(dropped.account["operators"]["w"]["late"], 1, "{}", dropped.account);
        let update = Run { batch_rows, ..Run::of(&with("update")) }.replay(&lines);
        let all = windows(&[("a", 0, 1, 1), ("a", 0, 2, 5), ("a", 10, 1, 2), ("a", 20, 1, 8)]);
        assert_eq!((update.windows(), update.late()), (all, vec![16]));
        let revisions: Vec<_> = update.rows("main").iter().map(|row| row["revision"].as_i64().unwrap()).collect();
        assert_eq!(revisions, [0, 1, 0, 0], "windows in order of time");
    }
}

#[test]
fn a_gap_longer_than_idle_after_closes_windows_before_the_next_row() {
    // At 100 s the watermark is 95 s, by the arrival clock alone; at 125 s there was no such gap.
    let lines = [
        row(0, "a", 0, 1),
        row(1, "a", 1, 2),
        row(100, "a", 2, 4),
        row(100, "a", 99, 8),
        row(125, "a", 96, 16),
        row(200, "a", 94, 32),
        row(200, "a", 198, 64),
    ];
    for batch_rows in [1, 2, 3, 8192] {
        let done = Run { batch_rows, ..Run::of(TUMBLING) }.replay(&lines);
        assert_eq!(done.windows(), windows(&[("a", 0, 2, 3), ("a", 90, 2, 24), ("a", 190, 1, 64)]));
        assert_eq!(done.late(), [4, 32]);
    }
}

#[test]
fn disorder_within_the_bound_makes_nothing_late() {
    let lines = [row(0, "a", 10, 1), row(0, "a", 5, 2), row(0, "a", 14, 4), row(0, "a", 9, 8), row(0, "a", 10, 16)];
    let done = Run::of(TUMBLING).replay(&lines);
    assert_eq!((done.windows(), done.late()), (windows(&[("a", 0, 2, 10), ("a", 10, 3, 21)]), vec![]));
}

#[test]
fn a_slow_device_is_not_late_on_its_own_clock() {
    let lines =
        [row(1800, "fast", 1800, 1), row(1800, "slow", 600, 2), row(1829, "fast", 1825, 4), row(1829, "slow", 605, 8)];
    let own = format!("{TUMBLING}clock = \"group\"\n");
    let done = Run::of(&own).replay(&lines);
    let expected = [("fast", 1800, 1, 1), ("fast", 1820, 1, 4), ("slow", 600, 2, 10)];
    assert_eq!((done.windows(), done.late()), (windows(&expected), vec![]));
    assert_eq!(Run::of(TUMBLING).replay(&lines).late(), [2, 8], "on the stream's clock it is");
}

#[test]
fn a_group_that_falls_silent_is_closed_by_the_others() {
    // At 1800 s the watermark is 1795, in whole minutes 1740: ten minutes behind is 1140.
    let lines = [
        row(0, "slow", 0, 1),
        row(29, "fast", 29, 2),
        row(1800, "fast", 1800, 4),
        row(1800, "slow", 5, 8),
        row(1800, "slow", 1129, 16),
        row(1800, "slow", 1130, 32),
        row(1800, "slow", 1145, 64),
    ];
    let own = format!("{TUMBLING}clock = \"group\"\ngroup_idle_after = \"10m\"\n");
    for batch_rows in [1, 8192] {
        let done = Run { batch_rows, ..Run::of(&own) }.replay(&lines);
        let expected = [("fast", 20, 1, 2), ("fast", 1800, 1, 4), ("slow", 0, 1, 1), ("slow", 1140, 1, 64)];
        assert_eq!((done.windows(), done.late()), (windows(&expected), vec![8, 16, 32]));
    }
}

#[test]
fn sessions_end_after_their_gap() {
    let lines = [row(0, "a", 0, 1), row(5, "a", 5, 2), row(14, "a", 14, 4), row(30, "a", 30, 8), row(31, "b", 31, 16)];
    let done = Run::of("window = { session = \"10s\" }\ngroup_by = [\"device\"]\n").replay(&lines);
    assert_eq!(done.windows(), windows(&[("a", 0, 3, 7), ("a", 30, 1, 8), ("b", 31, 1, 16)]));
    let ends: Vec<_> =
        done.rows("main").iter().map(|row| row["window_end"].as_str().unwrap()[11..19].to_owned()).collect();
    assert_eq!(ends, ["08:00:24", "08:00:40", "08:00:41"]);
}

#[test]
fn days_with_23_and_25_hours_hold_all_their_rows() {
    let times = [
        "2026-03-28T22:59:59Z",
        "2026-03-28T23:00:00Z",
        "2026-03-29T21:59:59Z",
        "2026-03-29T22:00:00Z",
        "2026-10-24T21:59:59Z",
        "2026-10-24T22:00:00Z",
        "2026-10-25T22:59:59Z",
        "2026-10-25T23:00:00Z",
    ];
    let row = |time: &&str| {
        let ts = time.parse::<jiff::Timestamp>().unwrap().as_second() - START;
        row(ts, "a", ts, 1)
    };
    let lines: Vec<_> = times.iter().map(row).collect();
    let done = Run::of("window = { tumbling = \"1d\", timezone = \"Europe/Berlin\" }\n").replay(&lines);
    let text = |row: &support::Row, name: &str| row[name].as_str().unwrap()[5..13].to_owned();
    let days: Vec<_> = done
        .rows("main")
        .iter()
        .map(|row| (text(row, "window_start"), text(row, "window_end"), row["n"].as_i64().unwrap()))
        .collect();
    let day = |start: &str, end: &str, n| (start.to_owned(), end.to_owned(), n);
    let expected = [
        day("03-27T23", "03-28T23", 1),
        day("03-28T23", "03-29T22", 2),
        day("03-29T22", "03-30T22", 1),
        day("10-23T22", "10-24T22", 1),
        day("10-24T22", "10-25T23", 2),
        day("10-25T23", "10-26T23", 1),
    ];
    assert_eq!(days, expected);
}

#[test]
fn one_bad_element_sets_its_payload_aside_and_no_other() {
    let source = r#"
decode = { format = "json", rows = "$.r[*]" }
columns = { ts = { type = "timestamp", unit = "ms", path = "$$.ts" }, v = "int64" }
time = { column = "ts" }
"#;
    let body = |readings: Value| json!({"ts": START * 1000, "r": readings}).to_string();
    let bad = body(json!([{"v": 100}, {"v": "x"}, {"v": 200}]));
    let good = [body(json!([{"v": 1}, {"v": 2}])), body(json!([])), body(json!([{"v": 4}]))];
    let lines = [line(0, "a", &good[0]), line(0, "a", &bad), line(0, "a", &good[1]), line(0, "a", &good[2])];
    let done = Run { source, ..Run::of(TUMBLING) }.replay(&lines);
    assert_eq!(done.windows(), windows(&[("a", 0, 3, 7)]));
    let dead = done.dead();
    assert_eq!((dead.len(), &dead[0].0), (1, &bad));
    assert!(dead[0].1.contains("got a string"), "{}", dead[0].1);
    assert_eq!(done.source("dead_letter"), 1);
}

#[test]
fn bare_values_and_typed_captures_are_rows_at_their_arrival() {
    let source = r#"
decode = { format = "scalar" }
columns = { v = "int64", device = "int32" }
"#;
    let lines = [
        line(0, "7", "21"),
        line(9999, "7", " -1 "),
        line(10_000, "8", "5"),
        line(10_001, "8", "ON"),
        line(10_002, "x", "6"),
    ];
    let done = Run { source, ..Run::of(TUMBLING) }.replay(&lines);
    let rows: Vec<_> = done.rows("main").iter().map(|row| json!([row["device"], row["n"], row["total"]])).collect();
    assert_eq!(rows, [json!([7, 2, 20]), json!([8, 1, 5])]);
    let dead: Vec<_> = done.dead().into_iter().map(|dead| dead.0).collect();
    assert_eq!(dead, ["ON", "6"]);
}

/// Some devices in disorder, some rows far behind, some gaps, some garbage: the same every time.
fn river() -> Vec<String> {
    let mut state = 7_u64;
    let mut below = |bound: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 33) % bound).cast_signed()
    };
    let mut arrival = 0;
    let mut lines = Vec::new();
    for _ in 0..500 {
        arrival += if below(60) == 0 { 45_000 + below(90_000) } else { below(900) };
        let behind = if below(12) == 0 { below(400_000) } else { below(4_000) };
        let device = format!("d{}", below(5));
        let behind = if device == "d4" { behind + 100_000 } else { behind };
        let ts = START * 1000 + arrival - behind;
        let body = if below(50) == 0 { "{".to_owned() } else { json!({"ts": ts, "v": below(100)}).to_string() };
        lines.push(line(arrival, &device, &body));
    }
    lines
}

#[test]
fn cuts_into_batches_leave_no_trace_in_the_files() {
    let lines = river();
    for window in ["{ tumbling = \"10s\" }", "{ hopping = \"20s\", every = \"5s\" }", "{ session = \"3s\" }"] {
        for clock in ["clock = \"stream\"", "clock = \"group\"\ngroup_idle_after = \"2m\""] {
            for late in ["side", "drop", "update"] {
                let text = format!(
                    "window = {window}\ngroup_by = [\"device\"]\n{clock}\nlate = \"{late}\"\nallowed_lateness = \"20s\"\n"
                );
                let side = late != "drop";
                let run = |batch_rows, channel_batches| {
                    Run { batch_rows, channel_batches, side, ..Run::of(&text) }.replay(&lines)
                };
                let first = run(8192, 8);
                assert!(first.files().len() > usize::from(side), "{text}");
                assert!(first.account["operators"]["w"]["late"].as_i64().unwrap() > 0, "{text}\n{}", first.account);
                for (batch_rows, channel_batches) in [(1, 1), (7, 8), (8192, 1)] {
                    let other = run(batch_rows, channel_batches);
                    assert_eq!(first.account, other.account, "{text} at {batch_rows}");
                    assert_eq!(first.rows("main"), other.rows("main"), "{text} at {batch_rows}");
                    assert!(first.files() == other.files(), "bytes differ: {text} at {batch_rows}");
                }
            }
        }
    }
}
