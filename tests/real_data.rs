//! Recorded feeds of real devices, window by window against DuckDB. The feeds are not part of the project; where they are
//! not there the test says so, see `public_data`.

mod support;

use std::path::Path;
use std::process::Command;

use support::{project, public_data, streamgauge, succeed};

fn python(arguments: &[&Path]) {
    let script = project("tests/support/real_data.py");
    succeed(Command::new("python3").arg(script).args(arguments));
}

fn compare(name: &str, folder: &str) {
    let Some(data) = public_data(folder) else { return };
    let out = tempfile::tempdir().unwrap();
    let (recording, result) = (out.path().join("feed.jsonl"), out.path().join("out"));
    python(&[Path::new("prepare"), Path::new(name), &data, &recording]);
    succeed(
        streamgauge()
            .arg("replay")
            .arg(project("testdata/real").join(format!("{name}.toml")))
            .arg("--recording")
            .arg(&recording)
            .args(["--bare", "--topic", "feed"])
            .env("OUT", &result),
    );
    python(&[Path::new("compare"), Path::new(name), &recording, &result]);
}

#[test]
fn environment_sensors() {
    compare("aws-env-sensors", "aws-env-sensors");
}

#[test]
fn smart_plugs() {
    compare("tracebase-plugs", "tracebase-plugs/2012-01-20");
}
