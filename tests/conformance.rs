//! Public payloads of many formats against independent oracles. They are not part of the project; where they are not there
//! the test says so, see `public_data`. `-- --nocapture` shows
//! the table: set, messages, right, refused with a reason, wrong.

mod support;

use std::process::Command;

use support::{project, public_data};

/// Runs a script over the data, which compares what comes out; shows what it says.
fn agrees(script: &str, arguments: &[&str]) {
    let Some(data) = public_data("") else { return };
    let mut python = Command::new("python3");
    // Scripts import each other, and leave nothing beside them.
    python.env("PYTHONDONTWRITEBYTECODE", "1");
    python.arg(project("tests/support").join(script)).args(arguments).arg(env!("CARGO_BIN_EXE_streamgauge")).arg(&data);
    let output = python.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    println!("{said}");
}

#[test]
fn public_payloads_come_out_right() {
    agrees("conformance.py", &[]);
}

#[test]
fn repeated_seconds_are_one_by_each_rule() {
    agrees("feeds.py", &["plugs"]);
}

#[test]
fn a_clock_that_is_years_slow_is_late_alone() {
    agrees("feeds.py", &["gateways"]);
}

#[test]
fn a_clean_feed_loses_nothing() {
    agrees("feeds.py", &["air"]);
}
