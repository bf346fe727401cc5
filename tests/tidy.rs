//! What a machine can check of the source tree: the borders between folders, their words, and the lists in the README.

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn sources() -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut folders = vec![root().join("src")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                let name = path.strip_prefix(root().join("src")).unwrap().to_str().unwrap().to_owned();
                found.push((name, fs::read_to_string(&path).unwrap()));
            }
        }
    }
    found.sort();
    assert!(found.len() > 40, "the tree was found");
    found
}

/// The code of a file, less its unit tests and comments.
fn code(text: &str) -> String {
    let text = text.split("#[cfg(test)]\nmod tests").next().unwrap();
    text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// The folder (or file) below `src` that a path of `crate::…` leads to, for every one in the code.
fn uses(code: &str) -> Vec<String> {
    let mut found = Vec::new();
    for part in code.split("crate::").skip(1) {
        if let Some(group) = part.strip_prefix('{') {
            let group = group.split('}').next().unwrap();
            found.extend(group.split(',').map(|path| path.trim().split("::").next().unwrap().to_owned()));
        } else {
            found.push(part.chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect());
        }
    }
    found.retain(|name| !name.is_empty());
    found
}

/// What each folder may use beside itself.
const BORDERS: &[(&str, &[&str])] = &[
    ("flow", &[]),
    ("disk", &[]),
    ("component", &["flow", "pipeline"]),
    ("ingest", &["flow", "component", "disk", "format"]),
    ("format", &["flow", "component"]),
    ("operator", &["flow", "component", "expr"]),
    ("expr", &["flow", "component", "operator"]),
    ("sink", &["flow", "component", "disk", "ingest"]),
    ("pipeline", &["flow", "component", "ingest", "format", "operator", "sink"]),
    ("engine", &["flow", "component", "disk", "pipeline", "ingest", "operator", "sink", "telemetry"]),
    ("telemetry", &["flow", "component", "sink"]),
    ("bench", &["flow", "component", "disk", "sink", "telemetry"]),
    ("infer", &["flow", "component", "format", "ingest", "pipeline"]),
    (
        "cli",
        &[
            "bench",
            "infer",
            "flow",
            "component",
            "disk",
            "pipeline",
            "ingest",
            "format",
            "operator",
            "expr",
            "sink",
            "engine",
            "telemetry",
        ],
    ),
    ("main.rs", &[]),
    ("lib.rs", &[]),
];

#[test]
fn folders_keep_their_borders() {
    let mut wrong = Vec::new();
    for (name, text) in sources() {
        let folder = name.split('/').next().unwrap();
        let (_, allowed) =
            BORDERS.iter().find(|(known, _)| *known == folder).unwrap_or_else(|| panic!("a new folder: {name}"));
        let own = folder.trim_end_matches(".rs");
        for used in uses(&code(&text)) {
            if used != own && !allowed.contains(&used.as_str()) {
                wrong.push(format!("src/{name} uses crate::{used}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn async_stays_where_the_network_is() {
    let allowed = ["ingest/", "sink/mqtt", "sink/board", "engine/", "telemetry/", "cli/"];
    let wrong: Vec<_> = sources()
        .into_iter()
        .filter(|(name, text)| code(text).contains("tokio") && !allowed.iter().any(|part| name.starts_with(part)))
        .map(|(name, _)| name)
        .collect();
    assert!(wrong.is_empty(), "{wrong:?} speak of tokio");
}

#[test]
fn operators_and_formats_know_no_clock() {
    let words = ["Instant::now", "SystemTime", "Timestamp::now", "Zoned::now", "Utc::now"];
    let wrong: Vec<_> = sources()
        .into_iter()
        .filter(|(name, _)| ["operator/", "format/", "expr/"].iter().any(|folder| name.starts_with(folder)))
        .filter(|(_, text)| words.iter().any(|word| code(text).contains(word)))
        .map(|(name, _)| name)
        .collect();
    assert!(wrong.is_empty(), "{wrong:?} read a clock");
}

#[test]
fn every_file_says_what_it_is_for() {
    let wrong: Vec<_> =
        sources().into_iter().filter(|(_, text)| !text.starts_with("//! ")).map(|(name, _)| name).collect();
    assert!(wrong.is_empty(), "{wrong:?} have no module doc");
}

#[test]
fn nothing_is_unfinished() {
    let words = ["todo!(", "unimplemented!(", "FIXME", "dbg!("];
    let wrong: Vec<_> = sources()
        .into_iter()
        .filter(|(_, text)| words.iter().any(|word| text.contains(word)))
        .map(|(name, _)| name)
        .collect();
    assert!(wrong.is_empty(), "{wrong:?}");
}

#[test]
fn the_readme_lists_every_part() {
    let readme = fs::read_to_string(Path::new(&root()).join("README.md")).unwrap();
    let kinds = |names: Vec<&str>| names.into_iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(" ");
    let rows = [
        ("sources", kinds(streamgauge::ingest::SOURCES.iter().map(|kind| kind.name).collect())),
        ("formats", kinds(streamgauge::format::FORMATS.iter().map(|kind| kind.name).collect())),
        ("operators", kinds(streamgauge::operator::OPERATORS.iter().map(|kind| kind.name).collect())),
        ("aggregates", kinds(streamgauge::operator::aggregate::AGGREGATES.iter().map(|(name, _)| *name).collect())),
        ("sinks", kinds(streamgauge::sink::SINKS.iter().map(|kind| kind.name).collect())),
    ];
    for (part, names) in rows {
        let row = format!("| {part} | {names} |");
        assert!(readme.contains(&row), "README.md lacks the row:\n{row}");
    }
}

#[test]
fn every_promise_has_its_test() {
    let text = fs::read_to_string(root().join("src/lib.rs")).unwrap();
    let rows: Vec<&str> =
        text.lines().filter(|line| line.starts_with("//! | ") && line.contains("| `tests/")).collect();
    assert!(rows.len() > 10, "the table was found");
    for row in rows {
        let names: Vec<&str> = row.split('`').filter(|word| !word.contains([' ', '|'])).collect();
        let [.., file, name] = names.as_slice() else { panic!("{row}") };
        let test = fs::read_to_string(root().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
        assert!(test.contains(&format!("fn {name}(")), "{file} has no test {name}");
    }
}
