//! Columns that do not come from the payload: typed captures, the topic, the quality of service, the retained flag, the
//! arrival time, MQTT 5 user properties.

mod support;

use serde_json::json;
use support::{assert_same_rows, parquet_rows, streamgauge, succeed};

const PIPELINE: &str = r#"
[pipeline]
name = "columns"

[sources.feed]
type = "mqtt"
url = "mqtt://127.0.0.1:1883"
topics = ["line/{line}/{_}/{slot}", "spare/{slot}/#"]

[sources.feed.decode]
format = "scalar"

[sources.feed.columns]
value = "float64"
slot = "int64"
topic = { type = "utf8", from = "topic" }
qos = { type = "uint8", from = "qos" }
kept = { type = "boolean", from = "retained" }
at = { type = "timestamp", from = "arrival" }
unit = { type = "utf8", from = "property:unit" }

[sources.feed.time]
column = "at"
idle_after = "never"

[sinks.out]
type = "parquet"
inputs = ["feed"]
path = "${OUT}/rows"

[sinks.rejected]
type = "parquet"
inputs = ["feed.dead_letter"]
path = "${OUT}/rejected"
"#;

/// `x` and `é` are no slots; 0xff is no text.
const RECORDING: &str = r#"
{"seq":1,"recv_time":"2026-01-05T08:00:00.25Z","topic":"line/a/_/7","qos":1,"retain":true,"enc":"utf8","payload":"1.5","properties":{"unit":"bar","other":"x"}}
{"seq":2,"recv_time":"2026-01-05T08:00:01Z","topic":"spare/-3/deep/down","qos":0,"retain":false,"enc":"utf8","payload":" -2 "}
{"seq":3,"recv_time":"2026-01-05T08:00:02Z","topic":"line/a/_/x","qos":1,"retain":false,"enc":"utf8","payload":"3"}
{"seq":4,"recv_time":"2026-01-05T08:00:03Z","topic":"line/a/_/8","qos":1,"retain":false,"enc":"base64","payload":"/w=="}
{"seq":5,"recv_time":"2026-01-05T08:00:04Z","topic":"line/ü b/_/9","qos":2,"retain":false,"enc":"utf8","payload":"9007199254740993"}
"#;

#[test]
fn what_the_transport_says_becomes_columns() {
    let folder = tempfile::tempdir().unwrap();
    let (pipeline, recording) = (folder.path().join("p.toml"), folder.path().join("r.jsonl"));
    std::fs::write(&pipeline, PIPELINE).unwrap();
    std::fs::write(&recording, RECORDING.trim_start()).unwrap();
    succeed(streamgauge().arg("replay").arg(&pipeline).arg("--recording").arg(&recording).env("OUT", folder.path()));
    let expected = [
        json!({"value": 1.5, "line": "a", "slot": 7, "topic": "line/a/_/7", "qos": 1, "kept": true,
               "at": "2026-01-05T08:00:00.250000Z", "unit": "bar"}),
        json!({"value": -2.0, "line": null, "slot": -3, "topic": "spare/-3/deep/down", "qos": 0, "kept": false,
               "at": "2026-01-05T08:00:01.000000Z", "unit": null}),
        // As a double, as declared: 2^53 + 1 has no neighbour nearer than 2^53.
        json!({"value": 9_007_199_254_740_992.0, "line": "ü b", "slot": 9, "topic": "line/ü b/_/9", "qos": 2, "kept": false,
               "at": "2026-01-05T08:00:04.000000Z", "unit": null}),
    ];
    let rows = |expected: &[serde_json::Value]| {
        expected.iter().map(|row| row.as_object().unwrap().clone()).collect::<Vec<_>>()
    };
    assert_same_rows("rows", &rows(&expected), parquet_rows(&folder.path().join("rows")));
    let rejected = [json!({"topic": "line/a/_/x", "source": "feed"}), json!({"topic": "line/a/_/8", "source": "feed"})];
    assert_same_rows("rejected", &rows(&rejected), parquet_rows(&folder.path().join("rejected")));
}

const METRICS: &str = r#"
[pipeline]
name = "metrics"

[sources.feed]
type = "mqtt"
url = "mqtt://127.0.0.1:1883"
topics = ["m/{device}"]

[sources.feed.decode]
format = "json"
rows = "$.values.*"
extra = "count"

[sources.feed.columns]
at = { type = "timestamp", unit = "s", path = "$$.at", required = true }
metric = { type = "utf8", path = "$key" }
value = { type = "float64", path = "$", mismatch = "null" }

[sources.feed.time]
column = "at"

[sinks.out]
type = "parquet"
inputs = ["feed"]
path = "${OUT}/rows"
"#;

/// The second payload has a field more, and a value that is no number; the third is refused as a whole, and counts nothing.
const METRICS_RECORDING: &str = r#"
{"seq":1,"recv_time":"2026-01-05T08:00:01Z","topic":"m/a","qos":1,"retain":false,"enc":"utf8","payload":"{\"at\":1767600000,\"values\":{\"t\":1.5,\"h\":40}}"}
{"seq":2,"recv_time":"2026-01-05T08:00:02Z","topic":"m/b","qos":1,"retain":false,"enc":"utf8","payload":"{\"fw\":\"1.2\",\"at\":1767600001,\"values\":{\"state\":\"ON\",\"t\":2}}"}
{"seq":3,"recv_time":"2026-01-05T08:00:03Z","topic":"m/a","qos":1,"retain":false,"enc":"utf8","payload":"{\"fw\":\"1.2\",\"values\":{\"t\":\"x\"}}"}
"#;

#[test]
fn what_is_let_pass_is_counted() {
    let folder = tempfile::tempdir().unwrap();
    let [pipeline, recording, account] = ["p.toml", "r.jsonl", "a.json"].map(|name| folder.path().join(name));
    std::fs::write(&pipeline, METRICS).unwrap();
    std::fs::write(&recording, METRICS_RECORDING.trim_start()).unwrap();
    let mut command = streamgauge();
    command.arg("replay").arg(&pipeline).arg("--recording").arg(&recording).env("OUT", folder.path());
    succeed(command.arg("--account").arg(&account));
    let row = |device: &str, second: u32, metric: &str, value: Option<f64>| {
        let at = format!("2026-01-05T08:00:0{second}.000000Z");
        json!({"device": device, "at": at, "metric": metric, "value": value}).as_object().unwrap().clone()
    };
    let expected = [
        row("a", 0, "t", Some(1.5)),
        row("a", 0, "h", Some(40.0)),
        row("b", 1, "state", None),
        row("b", 1, "t", Some(2.0)),
    ];
    assert_same_rows("rows", &expected, parquet_rows(&folder.path().join("rows")));
    let account: serde_json::Value = serde_json::from_slice(&std::fs::read(&account).unwrap()).unwrap();
    let feed = &account["sources"]["feed"];
    let counts = ["received", "rows", "dead_letter", "expanded", "extra_fields", "mismatched_values"];
    assert_eq!(counts.map(|count| feed[count].as_i64().unwrap()), [3, 4, 1, 2, 1, 1], "{feed}");
}
