//! Public payloads of many formats against independent oracles. They are not part of the project; where they are not there
//! the test says so: `STREAMGAUGE_DATA` names their folder, `../shared/data` is looked at otherwise. `-- --nocapture` shows
//! the table: set, messages, right, refused with a reason, wrong.

mod support;

use std::path::PathBuf;
use std::process::Command;

use support::project;

#[test]
fn public_payloads_come_out_right() {
    let data = std::env::var_os("STREAMGAUGE_DATA").map_or_else(|| project("../shared/data"), PathBuf::from);
    if !data.is_dir() {
        return eprintln!("SKIPPED: {} is not there", data.display());
    }
    let mut script = Command::new("python3");
    script.arg(project("tests/support/conformance.py")).arg(env!("CARGO_BIN_EXE_streamgauge")).arg(&data);
    let output = script.output().unwrap();
    let table = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{table}\n{}", String::from_utf8_lossy(&output.stderr));
    println!("{table}");
}
