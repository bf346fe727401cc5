//! `streamgauge bench`: what it prints and writes, what it refuses, and that it leaves nothing behind.

mod support;

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::Command;

use expect_test::expect;
use serde_json::{Value, json};
use support::{parquet_rows, streamgauge, succeed};

/// All sorts of sinks: one that writes, one that keeps in memory, and two that speak to the world.
const PIPELINE: &str = r#"
[pipeline]
name = "gauge"
durability = "none"

[sources.feed]
type = "mqtt"
url = "mqtt://127.0.0.1:1"
topics = ["feed"]
decoders = 1

[sources.feed.decode]
format = "json"

[sources.feed.columns]
ts = { type = "timestamp", unit = "ms" }
device = "utf8"
temp = "float64"

[sources.feed.time]
column = "ts"

[operators.by_device]
type = "window"
inputs = ["feed"]
window = { tumbling = "10s" }
group_by = ["device"]

[operators.by_device.aggregates]
samples = "count(*)"
mean = "avg(temp)"

[sinks.files]
type = "parquet"
inputs = ["by_device"]
path = "${OUT}"

[sinks.letters]
type = "parquet"
inputs = ["feed.dead_letter"]
path = "${OUT}-letters"

[sinks.shown]
type = "metrics"
inputs = ["by_device"]

[sinks.sent]
type = "mqtt"
inputs = ["by_device"]
url = "mqtt://127.0.0.1:1"
topic = "results/{device}"

[sinks.printed]
type = "stdout"
inputs = ["feed"]
"#;

/// Four devices in turn, a reading every 100 ms for 100 s, some of them without a value, two that are no JSON.
const LINES: u64 = 1_000;
const DEVICES: u64 = 4;
const LETTERS: u64 = 2;

struct Bench {
    folder: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let bench = Self { folder: tempfile::tempdir().unwrap() };
        std::fs::write(bench.path("gauge.toml"), PIPELINE).unwrap();
        std::fs::write(bench.path("feed.jsonl"), lines(|line| line % 7)).unwrap();
        std::fs::create_dir(bench.path("scratch")).unwrap();
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        self.on("feed.jsonl", arguments)
    }

    fn on(&self, recording: &str, arguments: &[&str]) -> Command {
        let mut command = streamgauge();
        command.arg("bench").arg(self.path("gauge.toml")).arg("--recording").arg(self.path(recording));
        command.args(["--bare", "--topic", "feed", "--repeat", "2", "--warmup", "0", "--log", "warn"]);
        command.arg("--dir").arg(self.path("scratch")).args(arguments).env("OUT", self.path("out"));
        command.current_dir(self.folder.path());
        command
    }

    /// What `--json` wrote.
    fn report(&self, arguments: &[&str]) -> Value {
        read(&succeed(self.command(&["--json", "-"]).args(arguments)).stdout)
    }

    fn write(&self, name: &str, report: &Value) {
        std::fs::write(self.path(name), report.to_string()).unwrap();
    }
}

fn read(json: &[u8]) -> Value {
    serde_json::from_slice(json).unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(json)))
}

/// A recording whose readings are what `value` says of their lines.
fn lines(value: impl Fn(u64) -> u64) -> String {
    let mut text = String::new();
    for line in 0..LINES {
        let (device, at) = (line % DEVICES, 1_767_600_000_000 + line * 100);
        let _ = match line {
            500 | 501 => writeln!(text, "no JSON"),
            line if line % 11 == 0 => writeln!(text, r#"{{"device":"d{device}","ts":{at}}}"#),
            line => writeln!(text, r#"{{"device":"d{device}","ts":{at},"temp":{}.5}}"#, value(line)),
        };
    }
    text
}

fn code(command: &mut Command) -> (i32, String, String) {
    let output = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr))
}

/// Figures that differ from run to run as `N`, with their units; spaces as one.
fn masked(text: &str) -> String {
    let units = ["s", "ms", "µs", "B", "KiB", "MiB", "%"];
    let line = |line: &str| {
        let mut words: Vec<&str> = Vec::new();
        for word in line.split_whitespace() {
            let digits = word.trim_end_matches([',', ':', ')']).trim_start_matches('(');
            let figure = !digits.is_empty() && digits.chars().all(|c| c.is_ascii_digit() || c == ',' || c == '.');
            let checksum = digits.len() == 16 && digits.chars().all(|c| c.is_ascii_hexdigit());
            match word {
                _ if checksum => words.push("CHECKSUM"),
                _ if figure => words.push("N"),
                word if words.last() == Some(&"N") && units.contains(&word.trim_end_matches(['/', ',', ')'])) => {}
                word => words.push(word),
            }
        }
        words.join(" ")
    };
    text.lines().map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_tables_say_what_it_took_and_nothing_is_left() {
    let bench = Bench::new();
    let output = succeed(&mut bench.command(&[]));
    let text = String::from_utf8(output.stdout).unwrap();
    let recording = bench.path("feed.jsonl").display().to_string();
    expect![[r#"
        bench of pipeline gauge on RECORDING, without a journal: N repetitions after N to warm up, N cores

        figure best median
        wall N N
        cpu N N
        payloads/s N N
        rows/s N N
        bytes/s N N
        rows/cpu s N N

        payloads N N N rows
        memory N at most
        latency p50 N p90 N p99 N p99.9 N from taken to written, N rows
        output N checksum CHECKSUM

        stage kind in out cpu busy blocked waiting
        feed source (mqtt) N N N N N N
        by_device operator (window) N N N N N N
        files sink (parquet) N N N N N
        letters sink (parquet) N N N N N
        shown sink (metrics) N N N N N
        sent sink (mqtt) N N N N N
        printed sink (stdout) N N N N N
        other threads N
        bottleneck: WHERE

        sink kind rows were checksum rows
        files parquet written to a temporary folder CHECKSUM N
        letters parquet written to a temporary folder CHECKSUM N
        shown metrics kept in memory CHECKSUM N
        sent mqtt counted only, not sent CHECKSUM N
        printed stdout counted only, not sent CHECKSUM N

        account of pipeline gauge
        source received rows dead_letter future dropped duplicates
        feed N N N N N N
        operator accepted late filtered emitted
        by_device N N N N
        sink rows dropped
        files N N
        letters N N
        printed N N
        sent N N
        shown N N"#]]
    .assert_eq(&without_place(&masked(&text.replace(&recording, "RECORDING"))));
    assert!(!text.contains('\x1b'), "no colours where nobody sees them");
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "", "no bar where nobody sees it");
    let found: Vec<_> =
        std::fs::read_dir(bench.folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(found.len(), 3, "the pipeline, the recording and the folder of --dir, no output: {found:?}");
    assert_eq!(std::fs::read_dir(bench.path("scratch")).unwrap().count(), 0, "the temporary folder has gone");
}

/// Which stage holds the others back is not the same on every machine.
fn without_place(text: &str) -> String {
    let line = |line: &str| match line.split_once("bottleneck: ") {
        Some((before, _)) => format!("{before}bottleneck: WHERE"),
        None => line.to_owned(),
    };
    text.lines().map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_json_has_every_figure_and_agrees_with_a_replay() {
    let bench = Bench::new();
    let report = bench.report(&["--durable"]);
    assert_eq!((&report["format"], &report["durable"]), (&json!(1), &json!(true)));
    assert_eq!((&report["repeat"], &report["warmup"]), (&json!(2), &json!(0)));
    assert_eq!(report["payloads"], json!(LINES));
    assert_eq!(report["rows"], json!(LINES - LETTERS));
    let bytes = std::fs::metadata(bench.path("feed.jsonl")).unwrap().len();
    assert_eq!(report["payload_bytes"], json!(bytes - LINES), "all but the ends of lines");
    for (figure, better) in [
        ("wall_seconds", f64::le as fn(&f64, &f64) -> bool),
        ("cpu_seconds", f64::le),
        ("payloads_per_second", f64::ge),
        ("rows_per_second", f64::ge),
        ("bytes_per_second", f64::ge),
        ("rows_per_cpu_second", f64::ge),
    ] {
        let [best, median] = ["best", "median"].map(|key| report[figure][key].as_f64().unwrap());
        assert!(best > 0.0 && better(&best, &median), "{figure}: {best}, {median}");
    }
    let [p50, p90, p99, p999] =
        ["p50", "p90", "p99", "p999"].map(|key| report["latency_seconds"][key].as_f64().unwrap());
    assert!(0.0 < p50 && p50 <= p90 && p90 <= p99 && p99 <= p999, "{}", report["latency_seconds"]);
    if cfg!(target_os = "linux") {
        assert!(report["peak_resident_bytes"].as_u64().unwrap() > 1 << 20);
    }
    assert!(report["bottleneck"]["at"] == json!("stage") || report["bottleneck"]["at"] == json!("feed"));
    stages_and_sinks(&report);
    the_same_as_a_replay(&bench, &report);
}

fn stages_and_sinks(report: &Value) {
    let stages = report["stages"].as_array().unwrap();
    let named: Vec<_> =
        stages.iter().map(|stage| (stage["name"].as_str().unwrap(), stage["kind"].as_str().unwrap())).collect();
    let expected = [
        ("feed", "source"),
        ("by_device", "operator"),
        ("files", "sink"),
        ("letters", "sink"),
        ("shown", "sink"),
        ("sent", "sink"),
        ("printed", "sink"),
    ];
    assert_eq!(named[..7], expected);
    assert!(named[7..].iter().all(|(_, kind)| *kind == "thread") && named.contains(&("feed (journal)", "thread")));
    for stage in &stages[..7] {
        let shares = ["busy", "blocked", "waiting"].map(|share| stage["shares"][share].as_f64().unwrap());
        assert!((shares.iter().sum::<f64>() - 1.0).abs() < 1e-9 && shares.iter().all(|share| *share >= 0.0), "{stage}");
    }
    let windows = DEVICES * 10;
    let sinks = report["sinks"].as_array().unwrap();
    let told: Vec<_> = sinks.iter().map(|sink| (&sink["name"], &sink["rows_were"], &sink["rows"])).collect();
    let expected = [
        (json!("files"), json!("written"), json!(windows)),
        (json!("letters"), json!("written"), json!(LETTERS)),
        (json!("shown"), json!("memory"), json!(windows)),
        (json!("sent"), json!("counted"), json!(windows)),
        (json!("printed"), json!("counted"), json!(LINES - LETTERS)),
    ];
    assert_eq!(told, expected.iter().map(|(name, were, rows)| (name, were, rows)).collect::<Vec<_>>());
    assert_eq!(sinks[0]["checksum"], sinks[2]["checksum"], "both were given the same rows");
    assert_ne!(sinks[0]["checksum"], sinks[4]["checksum"]);
}

fn the_same_as_a_replay(bench: &Bench, report: &Value) {
    let plain = PIPELINE.split("\n[sinks.sent]").next().unwrap();
    std::fs::write(bench.path("plain.toml"), plain).unwrap();
    let mut replay = streamgauge();
    replay.arg("replay").arg(bench.path("plain.toml")).arg("--recording").arg(bench.path("feed.jsonl"));
    replay
        .args(["--bare", "--topic", "feed", "--account"])
        .arg(bench.path("account.json"))
        .env("OUT", bench.path("out"));
    succeed(&mut replay);
    let account: Value = serde_json::from_str(&std::fs::read_to_string(bench.path("account.json")).unwrap()).unwrap();
    for part in ["sources", "operators"] {
        assert_eq!(report["account"][part], account[part]);
    }
    assert_eq!(report["account"]["sinks"]["files"], account["sinks"]["files"]);
    let rows = parquet_rows(&bench.path("out"));
    let samples: u64 = rows.iter().map(|row| row["samples"].as_u64().unwrap()).sum();
    assert_eq!((rows.len() as u64, samples), (DEVICES * 10, LINES - LETTERS));
}

#[test]
fn the_checksum_is_of_the_rows_however_they_were_cut() {
    let bench = Bench::new();
    let checksum = |report: &Value| report["checksum"].as_str().unwrap().to_owned();
    let expected = checksum(&bench.report(&[]));
    for batch_rows in [1, 7, 100_000] {
        let text =
            PIPELINE.replace("durability = \"none\"", &format!("durability = \"none\"\nbatch_rows = {batch_rows}"));
        std::fs::write(bench.path("gauge.toml"), text).unwrap();
        assert_eq!(checksum(&bench.report(&[])), expected, "batches of {batch_rows}");
        assert_eq!(checksum(&bench.report(&["--durable"])), expected, "through the journal, batches of {batch_rows}");
    }
    // One reading of a thousand is another one.
    std::fs::write(bench.path("other.jsonl"), lines(|line| if line == 998 { 9 } else { line % 7 })).unwrap();
    let other = read(&succeed(&mut bench.on("other.jsonl", &["--json", "-"])).stdout);
    assert_ne!(checksum(&other), expected);
    assert_eq!(
        other["sinks"][1]["checksum"],
        bench.report(&[])["sinks"][1]["checksum"],
        "its dead letters are the same"
    );
}

/// An earlier bench whose judged figures were so many times as good as now.
fn earlier(report: &Value, better: f64) -> Value {
    let mut old = report.clone();
    let scaled = |value: &Value, by: f64| json!(value.as_f64().unwrap() * by);
    old["rows_per_second"]["best"] = scaled(&report["rows_per_second"]["best"], better);
    old["cpu_seconds"]["best"] = scaled(&report["cpu_seconds"]["best"], 1.0 / better);
    let peak = report["peak_resident_bytes"].as_f64().unwrap() / better;
    old["peak_resident_bytes"] = json!(peak.round() as u64);
    old
}

#[test]
fn it_is_judged_by_an_earlier_one() {
    let bench = Bench::new();
    let report = bench.report(&[]);
    bench.write("slow.json", &earlier(&report, 1e-6));
    let (status, out, err) = code(&mut bench.command(&["--compare", "slow.json"]));
    assert_eq!((status, err.as_str()), (0, ""), "{out}");
    let table = out.split("account of").nth(1).unwrap().split_once("\n\n").unwrap().1;
    expect![[r#"
        figure old new new/old verdict
        rows/s, best N N N ok
        rows/s, median N N N
        wall, best N N N
        cpu, best N N N ok
        cpu, median N N N
        output N N N
        memory N N N ok
        latency, p50 N N N
        latency, p99 N N N"#]]
    .assert_eq(&masked(table).replace(" GiB", ""));

    bench.write("fast.json", &earlier(&report, 1e6));
    let (status, out, err) =
        code(&mut bench.command(&["--compare", "fast.json", "--max-regress", "50%", "--json", "new.json"]));
    assert_eq!(status, 1, "{out}");
    assert_eq!(err, "error: worse by more than 50%: rows/s, best; cpu, best; memory\n");
    assert_eq!(out.matches("worse\n").count(), 3, "{out}");
    assert_eq!(
        read(&std::fs::read(bench.path("new.json")).unwrap())["checksum"],
        report["checksum"],
        "written all the same"
    );
    // What was not made alike is told.
    let mut other = earlier(&report, 1e-6);
    other["checksum"] = json!("0123456789abcdef");
    bench.write("other.json", &other);
    let (status, out, _) = code(&mut bench.command(&["--compare", "other.json", "--durable", "--json", "new.json"]));
    assert_eq!(status, 0);
    assert!(out.contains("\ndiffers: durable: false, now true\n"), "{out}");
    assert!(out.contains("\ndiffers: checksum of the output: 0123456789abcdef, now "), "{out}");
}

#[test]
fn an_earlier_bench_that_cannot_be_used_is_refused() {
    let bench = Bench::new();
    let refused = |name: &str| {
        let (status, out, err) = code(&mut bench.command(&["--compare", name]));
        (status, out.is_empty(), err)
    };
    let (status, silent, err) = refused("none.json");
    assert_eq!((status, silent), (2, true), "before anything runs");
    assert!(err.starts_with("error: cannot read the earlier bench `none.json`: "), "{err}");
    std::fs::write(bench.path("broken.json"), "{").unwrap();
    assert!(matches!(refused("broken.json"), (2, true, err) if err.contains("broken.json`: EOF")));
    std::fs::write(bench.path("else.json"), "{}").unwrap();
    assert!(matches!(refused("else.json"), (2, true, err) if err.contains("it has no `format`")));
    std::fs::write(bench.path("newer.json"), r#"{"format":99}"#).unwrap();
    assert!(
        matches!(refused("newer.json"), (2, true, err) if err.contains("it is of format 99, and this build knows format 1"))
    );
    std::fs::write(bench.path("part.json"), r#"{"format":1}"#).unwrap();
    assert!(matches!(refused("part.json"), (2, true, err) if err.contains("missing field `version`")));
    let mut other = bench.report(&[]);
    other["payloads"] = json!(7);
    bench.write("other.json", &other);
    assert!(matches!(refused("other.json"), (1, false, err) if err.contains("of another recording: 7 payloads of")));
}

#[test]
fn what_is_wrong_with_the_command_line_or_the_recording_is_told() {
    let bench = Bench::new();
    let (status, _, err) = code(&mut bench.on("none.jsonl", &[]));
    assert_eq!(status, 1);
    assert!(err.contains("none.jsonl"), "{err}");
    for wrong in [
        &["--repeat", "0"][..],
        &["--max-regress", "5%"],
        &["--compare", "x", "--max-regress", "5"],
        &["--source", "x"],
    ] {
        assert_eq!(code(&mut bench.command(wrong)).0, 2, "{wrong:?}");
    }
    std::fs::remove_dir(bench.path("scratch")).unwrap();
    let (status, _, err) = code(&mut bench.command(&[]));
    assert_eq!((status, err.contains("/scratch`: ")), (1, true), "{err}");
    let (status, out, _) = code(streamgauge().args(["bench", "--help"]));
    assert_eq!(status, 0);
    assert!(out.contains("Examples:\n  streamgauge bench "), "{out}");
}
