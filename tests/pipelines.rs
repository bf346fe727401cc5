//! Every example of `pipelines/` passes `check`, and makes of its recording what `testdata/pipelines/make.py` computed.

mod support;

use std::path::Path;

use support::connect::{next, open};
use support::mosquitto::Mosquitto;
use support::{Row, assert_same_rows, json_lines, parquet_rows, project, streamgauge, succeed};

/// Replays an example into a fresh folder, and compares what each Parquet sink wrote.
fn check(name: &str, sinks: &[(&str, &str)]) {
    let out = tempfile::tempdir().unwrap();
    let data = project("testdata/pipelines").join(name);
    let account = out.path().join("account.json");
    succeed(
        streamgauge()
            .arg("replay")
            .arg(project("pipelines").join(format!("{name}.toml")))
            .arg("--recording")
            .arg(data.join("recording.jsonl"))
            .arg("--account")
            .arg(&account)
            .env("OUT", out.path()),
    );
    for (sink, folder) in sinks {
        let expected = json_lines(&data.join(format!("{sink}.jsonl")));
        assert_same_rows(&format!("{name}.{sink}"), &expected, parquet_rows(&out.path().join(folder)));
    }
    let received = json_lines(&data.join("recording.jsonl")).len();
    let account: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(account).unwrap()).unwrap();
    let sources = account["sources"].as_object().unwrap();
    assert_eq!(sources.values().next().unwrap()["received"], received, "{account}");
}

#[test]
fn every_example_passes_check() {
    let mut examples: Vec<_> =
        std::fs::read_dir(project("pipelines")).unwrap().map(|entry| entry.unwrap().path()).collect();
    examples.sort();
    assert!(examples.len() >= 5, "{examples:?}");
    let output = succeed(streamgauge().arg("check").args(&examples));
    let plan = String::from_utf8(output.stdout).unwrap();
    for example in &examples {
        let name = example.file_stem().and_then(|name| name.to_str()).unwrap();
        assert!(plan.contains(name), "{plan}");
        assert!(Path::new(&project("testdata/pipelines")).join(name).is_dir(), "{name} has no recording");
    }
}

#[test]
fn the_pipeline_of_the_readme_passes_check() {
    let readme = std::fs::read_to_string(project("README.md")).unwrap();
    let block = readme.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    streamgauge::pipeline::load_text("README.md", block, &|_| None).unwrap_or_else(|faults| panic!("{faults}"));
}

#[test]
fn plant() {
    check("plant", &[("history", "plant"), ("late", "plant-late"), ("rejected", "plant-rejected")]);
}

#[test]
fn plugs() {
    check("plugs", &[("power_history", "plugs"), ("run_history", "plug-runs")]);
}

#[test]
fn zigbee() {
    check("zigbee", &[("history", "zigbee")]);
}

#[test]
fn lorawan() {
    check("lorawan", &[("history", "lorawan")]);
}

#[test]
fn alerts() {
    let Some(broker) = Mosquitto::start("allow_anonymous true") else { return };
    let data = project("testdata/pipelines/alerts");
    let expected = json_lines(&data.join("alarms.jsonl"));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let listener = format!("url = \"{}\"\ntopics = [\"sites/#\"]\nclient_id = \"listener\"", broker.url());
    let (mut source, meter) = runtime.block_on(open(&listener)).unwrap();
    runtime.block_on(async {
        // The listener must be subscribed before anything is published.
        while meter.connected.load(std::sync::atomic::Ordering::Relaxed) == 0 {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    });
    succeed(
        streamgauge()
            .arg("replay")
            .arg(project("pipelines/alerts.toml"))
            .arg("--recording")
            .arg(data.join("recording.jsonl"))
            .env("MQTT_URL", broker.url()),
    );
    let mut alarms = Vec::new();
    while alarms.len() < expected.len() {
        let payloads = runtime.block_on(next(&mut *source)).unwrap();
        for payload in payloads.iter() {
            let mut alarm: Row = serde_json::from_slice(payload.body).unwrap();
            alarm.insert("topic".to_owned(), String::from_utf8_lossy(payload.topic).into());
            // JSON leaves the noughts of a fraction out.
            let at: jiff::Timestamp = alarm["window_start"].as_str().unwrap().parse().unwrap();
            alarm.insert("window_start".to_owned(), at.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string().into());
            alarms.push(alarm);
        }
    }
    assert_same_rows("alerts.alarms", &expected, alarms);
}

#[test]
fn the_same_recording_gives_the_same_bytes_however_it_is_cut() {
    let pipeline = std::fs::read_to_string(project("pipelines/plant.toml")).unwrap();
    let replay = |batch_rows: usize| {
        let out = tempfile::tempdir().unwrap();
        let path = out.path().join("plant.toml");
        std::fs::write(&path, pipeline.replace("[pipeline]", &format!("[pipeline]\nbatch_rows = {batch_rows}")))
            .unwrap();
        let recording = project("testdata/pipelines/plant/recording.jsonl");
        succeed(streamgauge().arg("replay").arg(path).arg("--recording").arg(recording).env("OUT", out.path()));
        let bytes = |path: &std::path::PathBuf| {
            (path.strip_prefix(out.path()).unwrap().to_owned(), std::fs::read(path).unwrap())
        };
        let files = support::parquet_files(out.path());
        files.iter().map(bytes).collect::<Vec<_>>()
    };
    let first = replay(8_192);
    assert!(first.len() >= 4, "{} files", first.len());
    for batch_rows in [8_192, 1, 7] {
        for ((name, a), (_, b)) in first.iter().zip(replay(batch_rows)) {
            assert!(*a == b, "{} differs at batch_rows = {batch_rows}", name.display());
        }
    }
}
