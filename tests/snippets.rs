//! The pipeline snippets of the formats' pages pass `check`, each completed by what it leaves out.

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use support::{project, streamgauge};

/// The blocks of TOML in the documentation of a file's module.
fn snippets(file: &Path) -> Vec<String> {
    let text = fs::read_to_string(file).unwrap();
    let lines = text.lines().map_while(|line| line.strip_prefix("//!"));
    let lines: Vec<&str> = lines.map(|line| line.strip_prefix(' ').unwrap_or(line)).collect();
    let text = lines.join("\n");
    text.split("```toml\n").skip(1).map(|rest| rest.split("\n```").next().unwrap().to_owned()).collect()
}

/// The snippet with a source, a decoder and a sink for each of its sources that has none.
fn completed(snippet: &str) -> String {
    let named =
        |line: &str| line.strip_prefix("[sources.").and_then(|rest| rest.split([']', '.']).next().map(str::to_owned));
    let sources: BTreeSet<String> = snippet.lines().filter_map(named).collect();
    assert!(!sources.is_empty(), "no source in\n{snippet}");
    let mut text = "[pipeline]\nname = \"snippet\"\n".to_owned();
    let own = "type = \"mqtt\"\nurl = \"mqtt://127.0.0.1:1883\"\n";
    for source in &sources {
        let head = format!("[sources.{source}]\n");
        let has = |part: &str| snippet.contains(&format!("[sources.{source}.{part}]"));
        if !snippet.contains(&head) {
            text.push_str(&format!("{head}{own}topics = [\"t/#\"]\n"));
            if !has("decode") {
                text.push_str("decode = { format = \"json\" }\n");
            }
        }
        text.push_str(&format!(
            "[sinks.of_{source}]\ntype = \"parquet\"\ninputs = [\"{source}\"]\npath = \"out/{source}\"\n"
        ));
    }
    // What a snippet says of its source is not the type and the broker.
    let snippet = snippet.lines().map(|line| match line.strip_prefix("[sources.") {
        Some(rest) if !rest.contains('.') && !snippet.contains("type = \"mqtt\"") => format!("{line}\n{own}"),
        Some(rest) if !rest.contains('.') => format!("{line}\nurl = \"mqtt://127.0.0.1:1883\""),
        _ => line.to_owned(),
    });
    text + &snippet.collect::<Vec<_>>().join("\n")
}

/// The files that snippets name.
fn schemas(folder: &Path) {
    fs::create_dir_all(folder.join("protos")).unwrap();
    fs::create_dir_all(folder.join("schemas")).unwrap();
    let proto = "syntax = \"proto3\";\npackage plant.v1;\nimport \"google/protobuf/timestamp.proto\";\n\
                 message Reading { google.protobuf.Timestamp at = 1; string pump = 2; double flow = 3; }\n";
    fs::write(folder.join("protos/plant.proto"), proto).unwrap();
    let schema = r#"{"type": "record", "name": "Event", "fields": [{"name": "kind", "type": "string"}]}"#;
    fs::write(folder.join("schemas/event.avsc"), schema).unwrap();
}

#[test]
fn snippets_of_formats_pass_check() {
    let folder = tempfile::tempdir().unwrap();
    schemas(folder.path());
    let mut pages: Vec<PathBuf> =
        fs::read_dir(project("src/format")).unwrap().map(|entry| entry.unwrap().path()).collect();
    pages.push(project("src/format/builder/conversion.rs"));
    pages.retain(|page| page.is_file());
    pages.sort();
    let mut checked = BTreeSet::new();
    for page in pages {
        let name = page.file_stem().unwrap().to_str().unwrap().to_owned();
        for snippet in snippets(&page) {
            // A setting of many formats is shown with any of them.
            let mut snippet = snippet.replace("sources.NAME.", "sources.name.");
            if !snippet.contains("format = ") {
                snippet = snippet.replace(".decode]", ".decode]\nformat = \"csv\"");
            }
            let text = completed(&snippet);
            let file = folder.path().join(format!("{name}.toml"));
            fs::write(&file, &text).unwrap();
            let output = streamgauge().arg("check").arg(&file).current_dir(folder.path()).output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{name}\n{text}\n{said}");
            checked.insert(name.clone());
        }
    }
    for format in streamgauge::format::FORMATS {
        assert!(checked.contains(format.name), "the page of `{}` has no snippet", format.name);
    }
}
