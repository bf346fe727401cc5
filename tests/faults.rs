//! What is wrong with each file of `testdata/faults/`, as `check` shows it: `NAME.txt` beside `NAME.toml`, to the
//! letter. `UPDATE_EXPECT=1 cargo test --test faults` writes the texts anew; read what it changed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Files by name, as the tests' own folder (that of `Cargo.toml`) sees them: places are shown with these names.
fn files() -> Vec<PathBuf> {
    let folder = fs::read_dir("testdata/faults").unwrap();
    let mut files: Vec<_> = folder.map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|ending| ending == "toml"));
    files.sort();
    files
}

/// What is shown, or the plan where there should have been none.
fn shown(path: &Path) -> String {
    match streamgauge::pipeline::load(path) {
        Err(faults) => faults.to_string(),
        Ok(plan) => panic!("{} has no fault:\n{plan}", path.display()),
    }
}

#[test]
fn faults_are_shown_as_written_down() {
    let files = files();
    assert!(files.len() >= 10, "{files:?}");
    let mut wrong = Vec::new();
    for path in files {
        let (text, found) = (path.with_extension("txt"), shown(&path));
        if std::env::var_os("UPDATE_EXPECT").is_some_and(|value| value == "1") {
            fs::write(&text, &found).unwrap();
        }
        let expected = fs::read_to_string(&text).unwrap_or_default();
        if found != expected {
            wrong.push(format!("{}\nexpected:\n{expected}\nfound:\n{found}", path.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn five_faults_have_five_places() {
    let shown = shown(Path::new("testdata/faults/five.toml"));
    let mut places: Vec<_> = shown.lines().filter_map(|line| line.trim_start().strip_prefix("--> ")).collect();
    assert_eq!(places.len(), 5, "{shown}");
    places.dedup();
    assert_eq!(places.len(), 5, "{shown}");
}

#[test]
fn no_secret_is_shown() {
    for path in files() {
        let shown = shown(&path);
        assert!(!shown.contains("hunter2"), "{}:\n{shown}", path.display());
    }
}

#[test]
fn line_ends_of_windows_change_nothing() {
    // But for a string that is not closed: TOML has something to say of the carriage return in it.
    for path in files().into_iter().filter(|path| !path.ends_with("syntax.toml")) {
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(of_text(&text.replace('\n', "\r\n")), of_text(&text), "{}", path.display());
    }
}

#[test]
fn a_file_that_is_cut_anywhere_is_told_without_its_secrets() {
    for name in ["five", "syntax", "variables", "names"] {
        let text = fs::read_to_string(format!("testdata/faults/{name}.toml")).unwrap();
        for end in 0..text.len() {
            let shown = of_text(&text[..end]).unwrap_or_default();
            assert!(!shown.contains("hunt"), "{name} up to {end}:\n{shown}");
        }
    }
}

/// What is shown of a text, if it has faults.
fn of_text(text: &str) -> Option<String> {
    streamgauge::pipeline::load_text("cut.toml", text, &|_| None).err().map(|faults| faults.to_string())
}

#[test]
fn check_ends_with_its_own_exit_code() {
    let output =
        Command::new(env!("CARGO_BIN_EXE_streamgauge")).args(["check", "testdata/faults/five.toml"]).output().unwrap();
    assert_eq!(output.status.code(), Some(78), "{output:?}");
    assert_eq!(String::from_utf8(output.stderr).unwrap(), fs::read_to_string("testdata/faults/five.txt").unwrap());
}
