//! The cases of public bug reports in `testdata/cases`: input or scenario, the pipeline that its situation asks for, and the
//! answers, which DuckDB compares with what came out.

mod support;

use std::process::Command;

use support::{project, streamgauge, succeed};

/// Feeds a case's input, and compares the answers.
fn answered(case: &str) {
    let (folder, out) = (project("testdata/cases").join(case), tempfile::tempdir().unwrap());
    // What a pipeline names by a relative path is beside it.
    for file in std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()) {
        if file.extension().is_some_and(|extension| extension == "proto") {
            std::fs::copy(&file, out.path().join(file.file_name().unwrap())).unwrap();
        }
    }
    let mut replay = streamgauge();
    replay.arg("replay").arg(folder.join("pipeline.toml")).arg("--recording").arg(folder.join("input.jsonl"));
    succeed(replay.args(["--account", "account.json"]).current_dir(out.path()).env("TZ", "Europe/Berlin"));
    let mut compare = Command::new("python3");
    succeed(compare.arg(project("tests/support/cases.py")).arg(folder.join("answers.slt")).arg(out.path()));
}

macro_rules! cases {
    ($($name:ident $case:literal)*) => {
        $(#[test]
        fn $name() {
            answered($case);
        })*
    };
}

cases! {
    a01_whole_numbers_and_fractions "A01"
    a02_digits_beyond_two_to_the_53 "A02"
    a03_units_of_time "A03"
    a04_zones_and_leap_days "A04"
    a05_an_hour_that_comes_twice "A05"
    a06_wrong_clocks "A06"
    a07_nan_and_infinities "A07"
    a08_keys_that_stand_there_twice "A08"
    a09_bytes_that_are_no_json "A09"
    a10_many_readings_in_one_payload "A10"
    a11_formats_side_by_side "A11"
    a12_topic_filters "A12"
    a13_retained_copies "A13"
    a15_redeliveries "A15"
    a16_borders_of_windows "A16"
    a17_late_rows_and_silence "A17"
    a18_percentiles_and_exact_sums "A18"
    a19_counters "A19"
}
