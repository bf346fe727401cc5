//! Every example of `pipelines/` passes `check`, and makes of its recording what `testdata/pipelines/make.py` computed.

mod support;

use std::path::Path;

use support::{assert_same_rows, json_lines, parquet_rows, project, streamgauge, succeed};

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
fn the_same_recording_gives_the_same_bytes() {
    let replay = || {
        let out = tempfile::tempdir().unwrap();
        let recording = project("testdata/pipelines/plant/recording.jsonl");
        succeed(
            streamgauge()
                .arg("replay")
                .arg(project("pipelines/plant.toml"))
                .arg("--recording")
                .arg(recording)
                .env("OUT", out.path()),
        );
        let bytes = |path: &std::path::PathBuf| {
            (path.strip_prefix(out.path()).unwrap().to_owned(), std::fs::read(path).unwrap())
        };
        let files = support::parquet_files(out.path());
        files.iter().map(bytes).collect::<Vec<_>>()
    };
    let first = replay();
    assert!(first.len() >= 3, "{} files", first.len());
    assert!(first == replay(), "two replays of one recording differ");
}
