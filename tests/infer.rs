//! `streamgauge infer`: what it makes of small recordings, of public feeds and of a live broker, and that it runs.

mod support;

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use support::mosquitto::Mosquitto;
use support::publisher::Client;
use support::{project, public_data, streamgauge, succeed};

/// Writes a recording of `(second, topic, payload)`, and infers its pipeline file.
fn inferred(folder: &Path, payloads: &[(u32, &str, String)]) -> String {
    let recording = folder.join("plant.jsonl");
    let line = |(second, topic, payload): &(u32, &str, String)| {
        let at = format!("2026-01-05T08:{:02}:{:02}Z", second / 60, second % 60);
        serde_json::json!({"recv_time": at, "topic": topic, "payload": payload}).to_string() + "\n"
    };
    std::fs::write(&recording, payloads.iter().map(line).collect::<String>()).unwrap();
    let output = streamgauge().arg("infer").arg("--recording").arg(&recording).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    std::fs::write(folder.join("plant.toml"), &text).unwrap();
    succeed(streamgauge().arg("check").arg(folder.join("plant.toml")));
    text
}

/// Every line of `expected` begins a line of the text.
fn has(text: &str, expected: &str) {
    for wanted in expected.lines().map(str::trim).filter(|line| !line.is_empty()) {
        assert!(text.lines().any(|line| line.starts_with(wanted)), "no line `{wanted}` in\n{text}");
    }
}

const START: i64 = 1_767_600_000;

#[test]
fn a_fleet_is_read_as_it_was_sent() {
    let folder = tempfile::tempdir().unwrap();
    let mut payloads = Vec::new();
    for second in 0..240u32 {
        let (device, at) = (second % 3, (START + i64::from(second)) * 1000);
        let topic =
            ["sites/lyon/devices/d0/telemetry", "sites/lyon/devices/d1/telemetry", "sites/graz/devices/d2/telemetry"];
        // Every tenth row is 4 s late; a probe that is off says -127; the pump says ON and OFF.
        let at = if second % 10 == 9 { at - 4_000 } else { at };
        let temp = if second == 50 { "-127".to_owned() } else { format!("{}.5", 20 + second % 5) };
        let body = format!(
            r#"{{"ts": {at}, "temp": {temp}, "env": {{"relHum": {}}}, "pump": "{}", "seq": {second}, "level": {}}}"#,
            40 + second % 7,
            if second % 2 == 0 { "ON" } else { "OFF" },
            if second % 20 == 0 { "\"unavailable\"".to_owned() } else { "7".to_owned() },
        );
        payloads.push((second, topic[device as usize], body));
        if second % 60 == 0 {
            payloads.push((second, "sites/lyon/devices/d0/status", r#"{"online": true, "uptime": 17}"#.to_owned()));
        }
    }
    payloads.push((240, "sites/lyon/devices/d0/telemetry", r#"{"ts": 1767600240000, "temp": nan}"#.to_owned()));
    let text = inferred(folder.path(), &payloads);
    has(
        &text,
        r#"
        # Inferred from 245 payloads of plant.jsonl.
        # Read by this file they are 244 rows and 1 dead letter.
        name = "plant"
        topics = ["sites/{site}/devices/{device}/telemetry"]
        topics = ["sites/{site}/devices/{device}/status"]
        ts = { type = "timestamp", unit = "ms" }
        temp = "float64"
        rel_hum = { type = "float64", path = "$.env.relHum" }
        pump = { type = "boolean", values = { OFF = false, ON = true } }
        seq = "int64"
        level = { type = "float64", nulls = ["unavailable"] }
        column = "ts"
        out_of_orderness = "5s"
        idle_after = "10s"
        group_by = ["site", "device"]
        window = { tumbling = "1m" }
        temp_avg = "avg(temp)"
        uptime = "int64"
        "#,
    );
    assert!(text.contains("`temp` is -127 1 times"), "{text}");
    // As it was forecast.
    let account = folder.path().join("account.json");
    succeed(
        streamgauge()
            .current_dir(folder.path())
            .args(["replay", "plant.toml", "--recording", "plant.jsonl", "--account"])
            .arg(&account),
    );
    let account: serde_json::Value = serde_json::from_slice(&std::fs::read(account).unwrap()).unwrap();
    let count = |source: &str, what: &str| account["sources"][source][what].as_u64();
    assert_eq!(count("telemetry", "received"), Some(241), "{account}");
    assert_eq!((count("telemetry", "rows"), count("telemetry", "dead_letter")), (Some(240), Some(1)));
    assert_eq!((count("status", "rows"), count("status", "dead_letter")), (Some(4), Some(0)));
    assert_eq!(account["operators"]["telemetry_windows"]["late"].as_u64(), Some(0));
}

#[test]
fn rows_arrays_and_clocks_are_found() {
    let folder = tempfile::tempdir().unwrap();
    let mut payloads = Vec::new();
    for minute in 0..30u32 {
        let at = START + i64::from(minute) * 20;
        for (device, shift) in [("a", 0), ("b", 0), ("c", -7_200)] {
            let readings: Vec<String> = (0..3)
                .map(|of| format!(r#"{{"t": {}, "v": {}.25}}"#, at + shift - 2 + of, minute * 3 + of as u32))
                .collect();
            payloads.push((
                minute * 20,
                ["loggers/a", "loggers/b", "loggers/c"][(device.as_bytes()[0] - b'a') as usize],
                format!(r#"{{"fw": "1.2", "readings": [{}]}}"#, readings.join(",")),
            ));
        }
        payloads.push((minute * 20, "cells/x1", format!(r#"{{"time": [{at}, {}], "mv": [1.5, 2.5]}}"#, at + 1)));
    }
    let text = inferred(folder.path(), &payloads);
    has(
        &text,
        r#"
        # Read by this file they are 330 rows and 0 dead letters.
        topics = ["loggers/{logger}"]
        rows = "$.readings[*]"
        t = { type = "timestamp", unit = "s" }
        v = "float64"
        fw = { type = "utf8", path = "$$.fw" }
        clock = "group"
        topics = ["cells/x1"]
        time = { type = "timestamp", path = "$.time[*]", unit = "s" }
        mv = { type = "float64", path = "$.mv[*]" }
        "#,
    );
    assert!(text.contains("the clock of c is 2h behind the others'"), "{text}");
    assert!(!text.contains("the clock of a"), "{text}");
}

#[test]
fn bare_values_are_read_by_topic() {
    let folder = tempfile::tempdir().unwrap();
    let mut payloads = Vec::new();
    for second in 0..40u32 {
        payloads.push((second, "home/hall/temp", format!("{}.5", second % 9)));
        payloads.push((second, "home/kitchen/hum", (40 + second % 9).to_string()));
        payloads.push((second, "home/hall/lamp", ["ON", "OFF"][second as usize % 2].to_owned()));
    }
    let text = inferred(folder.path(), &payloads);
    has(
        &text,
        r#"
        # Read by this file they are 120 rows and 0 dead letters.
        topics = ["home/{device}/hum", "home/{device}/temp"]
        topic = { type = "utf8", from = "topic" }
        value = "float64"
        topics = ["home/{device}/lamp"]
        value = "boolean"
        group_by = ["topic"]
        "#,
    );
}

#[test]
fn what_cannot_be_inferred_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let recording = folder.path().join("r.jsonl");
    std::fs::write(&recording, r#"{"topic": "t", "enc": "base64", "payload": "AAEC"}"#).unwrap();
    let output = streamgauge().arg("infer").arg("--recording").arg(&recording).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("payloads of t are binary"), "{said}");
    // A file that is there is not written over.
    let to = folder.path().join("there.toml");
    std::fs::write(&to, "mine").unwrap();
    let output = streamgauge().args(["infer", "--recording"]).arg(&recording).arg("--to").arg(&to).output().unwrap();
    assert_eq!((output.status.code(), std::fs::read_to_string(&to).unwrap()), (Some(2), "mine".to_owned()));
}

fn public(name: &str, folder: &str) {
    let Some(data) = public_data(folder) else { return };
    let folder = tempfile::tempdir().unwrap();
    let python = |arguments: &[&Path]| {
        succeed(
            Command::new("python3")
                .arg(project("tests/support/inferred.py"))
                .args(arguments)
                .current_dir(folder.path()),
        );
    };
    let recording = folder.path().join("feed.jsonl");
    python(&[Path::new("prepare"), Path::new(name), &data, &recording]);
    succeed(streamgauge().current_dir(folder.path()).args(["infer", "--recording", "feed.jsonl", "--to", "feed.toml"]));
    succeed(streamgauge().current_dir(folder.path()).args(["replay", "feed.toml", "--recording", "feed.jsonl"]));
    python(&[Path::new("compare"), Path::new("feed.toml"), Path::new("feed.jsonl"), Path::new(".")]);
}

#[test]
fn environment_sensors_agree_with_duckdb() {
    public("aws", "aws-env-sensors");
}

#[test]
fn smart_plugs_agree_with_duckdb() {
    public("plugs", "tracebase-plugs/2012-01-20");
}

#[test]
fn a_zigbee_bridge_agrees_with_duckdb() {
    public("zigbee", "zigbee2mqtt");
}

#[test]
fn lorawan_uplinks_agree_with_duckdb() {
    public("helium", "campusiot-lorawan");
}

#[test]
fn air_quality_agrees_with_duckdb() {
    public("air", "beijing-air");
}

#[test]
fn a_live_feed_is_listened_to() {
    let Some(broker) = Mosquitto::start("allow_anonymous true") else { return };
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("live.toml");
    let mut listening = streamgauge()
        .args(["infer", "--url", &broker.url(), "--topics", "sites/#", "--for", "3s", "--to"])
        .arg(&to)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut publisher = Client::connect(broker.port, "fleet");
    let mut count = 0;
    while listening.try_wait().unwrap().is_none() {
        for device in ["d1", "d2"] {
            publisher.publish(&format!("sites/{device}/env"), &format!(r#"{{"temp": {count}.5}}"#));
            publisher.publish("other/topic", "{}");
        }
        publisher.flush();
        count += 1;
        std::thread::sleep(Duration::from_millis(20));
    }
    let text = std::fs::read_to_string(&to).unwrap();
    has(&text, &format!("url = \"{}\"\ntopics = [\"sites/{{site}}/env\"]\ntemp = \"float64\"", broker.url()));
    assert!(text.contains("and 0 dead letters"), "{text}");
    succeed(streamgauge().arg("check").arg(&to));
}
