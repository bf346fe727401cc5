//! `benches/peers`: that other engines give our answer, on a small feed, and that one who does not is noticed.

mod support;

use std::path::Path;
use std::process::Command;

use support::{project, skip, succeed};

fn python() -> Command {
    let mut command = Command::new("python3");
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    command
}

#[test]
fn duckdb_and_polars_give_our_answers() {
    let there = python().args(["-c", "import duckdb, polars"]).output().is_ok_and(|ran| ran.status.success());
    if !there {
        return skip("python3 with duckdb and polars");
    }
    let folder = tempfile::tempdir().unwrap();
    let (json, svg) = (folder.path().join("run.json"), folder.path().join("peers.svg"));
    let mut run = python();
    run.arg(project("benches/peers/run.py")).arg(env!("CARGO_BIN_EXE_streamgauge"));
    run.args(["--system", "--engines", "duckdb,polars", "--queries", "windows,archive"]);
    run.args(["--lines", "20000", "--repeat", "1", "--cache"]).arg(folder.path());
    let output = succeed(run.arg("--json").arg(&json).arg("--svg").arg(&svg));
    let table = String::from_utf8(output.stdout).unwrap();
    for query in ["windows", "archive"] {
        for engine in ["streamgauge", "duckdb", "polars"] {
            assert_eq!(table.matches(&format!("\n| {query} | {engine} | ")).count(), 1, "{table}");
        }
    }
    let found: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(json).unwrap()).unwrap();
    assert_eq!((&found["wrong"], &found["left_out"]), (&serde_json::json!([]), &serde_json::json!([])));
    let results = found["results"].as_array().unwrap();
    assert_eq!(results.len(), 6);
    let figures = ["wall_seconds", "cpu_seconds", "rows_per_second", "rows_per_cpu_second", "peak_bytes"];
    assert!(
        results.iter().all(|result| figures.iter().all(|figure| result[figure].as_f64().unwrap() > 0.0)),
        "{found}"
    );
    let svg = std::fs::read_to_string(svg).unwrap();
    assert_eq!((svg.matches("<rect ").count(), svg.matches("class=\"ours\"").count()), (6, 2), "{svg}");
}

/// Two answers of two windows and two rows each, the second changed as said.
const ANSWERS: &str = "
import sys, duckdb
from pathlib import Path
ours, theirs, change = sys.argv[1:]
WINDOWS = '''SELECT * FROM (VALUES (TIMESTAMP '2026-01-01 00:00:00', 'a', 2, 1.0, 3.0, 2.0),
    (TIMESTAMP '2026-01-01 00:00:10', 'a', 1, 5.0, 5.0, 5.0)) t(window_start, device, samples, temp_min, temp_max, temp_avg)'''
ROWS = '''SELECT * FROM (VALUES ('a', TIMESTAMP '2026-01-01 00:00:01', 1.0, 192, 0),
    ('a', TIMESTAMP '2026-01-01 00:00:02', 3.0, 192, 1)) t(device, ts, temp, q, seq)'''
name, changed = change.split(':') if change else ('', '')
changed = f'* REPLACE ({changed})' if ' AS ' in changed else f'* FROM ({{}}) WHERE {changed}'
for folder, where in [(ours, ''), (theirs, name)]:
    for table, query in [('windows', WINDOWS), ('archive', ROWS)]:
        (Path(folder) / table).mkdir(parents=True)
        if table == where:
            query = 'SELECT ' + (changed.format(query) if '{}' in changed else f'{changed} FROM ({query})')
        duckdb.execute(f\"COPY ({query}) TO '{folder}/{table}/part.parquet'\")
";

#[test]
fn an_answer_that_is_not_ours_is_told() {
    let there = python().args(["-c", "import duckdb"]).output().is_ok_and(|ran| ran.status.success());
    if !there {
        return skip("python3 with duckdb");
    }
    let folder = tempfile::tempdir().unwrap();
    let check = |name: &str, change: &str| {
        let at = |whose: &str| folder.path().join(name).join(whose);
        let [ours, theirs]: [std::path::PathBuf; 2] = [at("ours"), at("theirs")];
        succeed(python().args(["-c", ANSWERS]).arg(&ours).arg(&theirs).arg(change));
        answer(&ours, &theirs)
    };
    assert_eq!(check("same", ""), (0, "\n".to_owned()));
    assert_eq!(check("close", "windows:temp_avg * (1 + 1e-12) AS temp_avg"), (0, "\n".to_owned()));
    let one_of_two = "windows: of 2 rows 0 are missing, 0 are too many, ";
    assert_eq!(check("far", "windows:temp_avg * (1 + 1e-8) AS temp_avg"), (1, format!("{one_of_two}2 differ\n")));
    assert_eq!(check("count", "windows:2 AS samples"), (1, format!("{one_of_two}1 differ\n")));
    assert_eq!(check("null", "windows:NULL AS temp_min"), (1, format!("{one_of_two}2 differ\n")));
    assert_eq!(
        check("missing", "windows:samples = 2"),
        (1, "windows: of 2 rows 1 are missing, 0 are too many, 0 differ\n".to_owned())
    );
    assert_eq!(
        check("row", "archive:3.0 AS temp"),
        (1, "archive: of 2 rows 0 are missing, 0 are too many, 1 differ\n".to_owned())
    );
    assert_eq!(
        check("number", "archive:seq * 2 AS seq"),
        (1, "archive: of 3 rows 1 are missing, 1 are too many, 0 differ\n".to_owned())
    );
}

fn answer(ours: &Path, theirs: &Path) -> (i32, String) {
    let output = python().arg(project("benches/peers/answers.py")).arg(ours).arg(theirs).output().unwrap();
    let (out, err) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert_eq!(err, "");
    (output.status.code().unwrap(), out)
}
