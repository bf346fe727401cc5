//! Mistakes on purpose, and the tests that must notice them.

use std::process::Command;

/// Runs one test of this test binary with a mistake planted in the library, and without: it must notice.
pub fn is_caught(mistake: &str, test: &str) {
    let run = |planted: &str| {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", test, "--nocapture"]).env("STREAMGAUGE_PLANTED", planted);
        let output = command.output().unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (well, said) = run("");
    assert!(well && said.contains("1 passed"), "`{test}` with nothing planted: {said}");
    let (well, said) = run(mistake);
    assert!(!well && said.contains("1 failed"), "`{test}` does not notice `{mistake}`: {said}");
}
