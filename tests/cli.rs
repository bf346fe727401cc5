//! The command line, as scripts see it: exit codes, what goes where, signals, recordings.

mod support;

use std::collections::HashSet;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use support::{assert_same_rows, json_lines, parquet_rows, project, streamgauge, succeed};

/// A fleet that is the same every time: 5 devices, 20 s of the 5th of January.
const FLEET: &str = r#"
[pipeline]
name = "fleet"
durability = "none"

[sources.fleet]
type = "fleet"
devices = 5
rate = 10
seed = 7
start = "2026-01-05T08:00:00Z"
duration = "20s"
speed = "max"
late = 0.02
malformed = 0.02
duplicate = 0.02

[sources.fleet.decode]
format = "json"

[sources.fleet.columns]
ts = { type = "timestamp", unit = "ms" }
temperature = "float64"

[sources.fleet.time]
column = "ts"

[operators.by_device]
type = "window"
inputs = ["fleet"]
window = { tumbling = "5s" }
group_by = ["device"]

[operators.by_device.aggregates]
samples = "count(*)"
mean = "avg(temperature)"

[sinks.out]
type = "parquet"
inputs = ["by_device"]
path = "${OUT}"
"#;

fn fleet(folder: &Path) -> std::path::PathBuf {
    let path = folder.join("fleet.toml");
    std::fs::write(&path, FLEET).unwrap();
    path
}

fn code(command: &mut Command) -> (i32, String, String) {
    let output = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr))
}

#[test]
fn exit_codes_say_what_went_wrong() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(code(streamgauge().arg("run")).0, 2, "usage");
    assert_eq!(code(streamgauge().args(["check", "no/such.toml"])).0, 78);
    let (faulty, out, err) = code(streamgauge().arg("check").arg(project("testdata/faults/five.toml")));
    assert_eq!((faulty, out.as_str()), (78, ""), "{err}");
    assert_eq!(err.matches("\n--> ").count() + err.matches(" --> ").count(), 5, "five places:\n{err}");
    let pipeline = fleet(folder.path());
    let replay = |recording: &str| {
        let mut command = streamgauge();
        command.arg("replay").arg(&pipeline).args(["--recording", recording]).env("OUT", folder.path().join("out"));
        code(&mut command)
    };
    let (failed, _, err) = replay("no/such.jsonl");
    assert_eq!(failed, 1, "{err}");
    assert!(err.contains("no/such.jsonl"), "{err}");
    assert_eq!(code(streamgauge().arg("list")).0, 0);
}

#[test]
fn what_is_recorded_replays_to_the_same_rows() {
    let folder = tempfile::tempdir().unwrap();
    let pipeline = fleet(folder.path());
    let (live, again) = (folder.path().join("live"), folder.path().join("again"));
    succeed(streamgauge().arg("run").arg(&pipeline).env("OUT", &live));
    let expected = parquet_rows(&live);
    assert!(expected.len() >= 20, "{} windows", expected.len());
    for ending in ["jsonl", "jsonl.gz", "jsonl.zst"] {
        let recording = folder.path().join(format!("fleet.{ending}"));
        succeed(streamgauge().arg("record").arg(&pipeline).arg("--to").arg(&recording).env("OUT", &live));
        std::fs::remove_dir_all(&again).ok();
        succeed(streamgauge().arg("replay").arg(&pipeline).arg("--recording").arg(&recording).env("OUT", &again));
        assert_same_rows(ending, &expected, parquet_rows(&again));
    }
    // A thousand payloads and the repeats, as the fleet's own documentation has it.
    let lines = json_lines(&folder.path().join("fleet.jsonl")).len();
    assert!((1_000..1_100).contains(&lines), "{lines}");
}

/// A simulation of another day gives the same every time: a run goes on where the one before was stopped.
#[test]
fn a_simulation_goes_on_where_it_was_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let (whole, parts) = (folder.path().join("whole"), folder.path().join("parts"));
    succeed(streamgauge().arg("run").arg(fleet(folder.path())).env("OUT", &whole));
    let slow = folder.path().join("slow.toml");
    let state = format!("state = {:?}", folder.path().join("state"));
    let text = FLEET.replace("durability = \"none\"", &state).replace("speed = \"max\"", "speed = \"20x\"");
    std::fs::write(&slow, text).unwrap();
    let account = folder.path().join("account.json");
    let received = |limit: &[&str]| {
        succeed(streamgauge().arg("run").arg(&slow).args(limit).arg("--account").arg(&account).env("OUT", &parts));
        let account: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&account).unwrap()).unwrap();
        account["sources"].as_object().unwrap().values().next().unwrap()["received"].as_u64().unwrap()
    };
    let (first, all) = (received(&["--for", "300ms"]), received(&[]));
    assert!(0 < first && first < all, "{first} of {all}");
    assert_same_rows("in two parts", &parquet_rows(&whole), parquet_rows(&parts));
    // A feed that has come to its end begins anew.
    assert_eq!(received(&[]), all);
}

#[test]
fn json_logs_and_data_keep_apart() {
    let folder = tempfile::tempdir().unwrap();
    let pipeline = folder.path().join("stdout.toml");
    std::fs::write(
        &pipeline,
        FLEET.replace("type = \"parquet\"", "type = \"stdout\"").replace("path = \"${OUT}\"", ""),
    )
    .unwrap();
    let (status, out, err) = code(streamgauge().args(["--log-format", "json", "--log", "debug", "run"]).arg(&pipeline));
    assert_eq!(status, 0, "{err}");
    assert!(out.lines().count() >= 20);
    for line in out.lines() {
        let row: serde_json::Value = serde_json::from_str(line).unwrap();
        assert!(row["samples"].as_i64().is_some_and(|samples| samples > 0), "{line}");
    }
    assert!(err.contains("account of pipeline fleet"), "the account gives way to the data\n{err}");
    assert!(!err.contains('\x1b'), "no colours where nobody sees them");
}

/// A run that goes on until it is told to stop.
fn endless(folder: &Path) -> Child {
    let pipeline = folder.join("endless.toml");
    let text = FLEET.replace("duration = \"20s\"\n", "").replace("speed = \"max\"", "speed = \"1x\"");
    std::fs::write(&pipeline, text.replace("start = \"2026-01-05T08:00:00Z\"\n", "")).unwrap();
    let child = streamgauge()
        .arg("run")
        .arg(&pipeline)
        .arg("--account")
        .arg(folder.join("account.json"))
        .env("OUT", folder.join("out"))
        .stdout(Stdio::null())
        .spawn();
    child.unwrap()
}

fn signal(child: &Child, name: &str) {
    assert!(Command::new("kill").args([name, &child.id().to_string()]).status().unwrap().success());
}

#[test]
fn a_signal_drains_and_commits() {
    for name in ["-INT", "-TERM"] {
        let folder = tempfile::tempdir().unwrap();
        let mut child = endless(folder.path());
        // Long enough to have received something; how much does not matter.
        std::thread::sleep(Duration::from_millis(1_500));
        signal(&child, name);
        let until = Instant::now() + Duration::from_secs(20);
        let status = loop {
            match child.try_wait().unwrap() {
                Some(status) => break status,
                None => assert!(Instant::now() < until, "still running"),
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        assert_eq!(status.code(), Some(0), "{name}");
        let account: serde_json::Value =
            serde_json::from_str(&std::fs::read_to_string(folder.path().join("account.json")).unwrap()).unwrap();
        let accepted = account["operators"]["by_device"]["accepted"].as_i64().unwrap();
        let rows = parquet_rows(&folder.path().join("out"));
        let samples: i64 = rows.iter().map(|row| row["samples"].as_i64().unwrap()).sum();
        assert!(accepted > 0);
        assert_eq!(samples, accepted, "open windows are not lost at a stop");
    }
}

#[test]
fn a_sink_that_cannot_write_holds_a_stop_up_until_the_second_signal() {
    let folder = tempfile::tempdir().unwrap();
    // A file stands where the folder should be.
    std::fs::write(folder.path().join("out"), "").unwrap();
    let mut child = endless(folder.path());
    std::thread::sleep(Duration::from_millis(1_000));
    signal(&child, "-TERM");
    std::thread::sleep(Duration::from_millis(1_000));
    assert!(child.try_wait().unwrap().is_none(), "it waits for the sink");
    signal(&child, "-TERM");
    assert_eq!(child.wait().unwrap().code(), Some(130));
}

#[test]
fn the_demo_finds_every_device() {
    let folder = tempfile::tempdir().unwrap();
    let account = folder.path().join("account.json");
    succeed(
        streamgauge()
            .args(["demo", "--for", "5s", "--dir"])
            .arg(folder.path().join("demo"))
            .arg("--account")
            .arg(&account),
    );
    let account: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(account).unwrap()).unwrap();
    let rows = parquet_rows(&folder.path().join("demo/by_device"));
    let devices: HashSet<&str> = rows.iter().map(|row| row["device"].as_str().unwrap()).collect();
    let samples: i64 = rows.iter().map(|row| row["samples"].as_i64().unwrap()).sum();
    assert_eq!(devices.len(), 200);
    assert_eq!(Some(samples), account["operators"]["by_device"]["accepted"].as_i64());
}
