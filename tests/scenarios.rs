//! The cases of `testdata/cases` that are scenarios, on the real binary: brokers that forget and refuse, files that must be
//! whole at any moment, stops, and what a wrong pipeline file says. Those of full disks and stuck sinks (A20 d, A21 b) are
//! `disk_full.rs`, and many more kills `kill.rs`.

mod support;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use support::authority::Authority;
use support::fake_broker::{FakeBroker, connack, publish};
use support::mosquitto::{Mosquitto, free_port};
use support::process::Process;
use support::publisher::Client;
use support::{parquet_files, parquet_rows, project, streamgauge, succeed};

const READY: Duration = Duration::from_secs(30);
const SOON: Duration = Duration::from_secs(60);

/// Bare numbers of one source to files; `more` is added to the source, `sink` to the sink.
fn numbers(url: &str, folder: &Path, state: bool, more: &str, sink: &str) -> String {
    let durability = if state {
        format!("state = {:?}", folder.join("state").to_str().unwrap())
    } else {
        "durability = \"none\"".to_owned()
    };
    let out = folder.join("out");
    format!(
        "[pipeline]\nname = \"numbers\"\nepoch = \"200ms\"\n{durability}\n\n[sources.s]\ntype = \"mqtt\"\nurl = \"{url}\"\n\
         topics = [\"p/#\"]\nqos = 1\nclient_id = \"agg1\"\nclean_start = false\nsession_expiry = \"1h\"\n{more}\n\
         decode = {{ format = \"scalar\" }}\ncolumns = {{ v = \"int64\" }}\n\n\
         [sinks.rows]\ntype = \"parquet\"\ninputs = [\"s\"]\npath = {out:?}\n{sink}\n"
    )
}

fn sum(folder: &Path) -> i64 {
    parquet_rows(&folder.join("out")).iter().map(|row| row["v"].as_i64().unwrap()).sum()
}

#[test]
fn a12_filters_that_are_none_are_refused_by_their_text() {
    let folder = tempfile::tempdir().unwrap();
    for filter in ["foo/#/baz", "foo+/x", ""] {
        let text = numbers("mqtt://127.0.0.1:1", folder.path(), false, "", "").replace("p/#", filter);
        let file = folder.path().join("p.toml");
        fs::write(&file, text).unwrap();
        for command in ["check", "run"] {
            let output = streamgauge().arg(command).arg(&file).output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(78), "{said}");
            assert!(said.contains("p.toml:9:11") && said.contains(&format!("topic `{filter}`")), "{said}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a14_a_session_that_is_gone_is_made_anew() {
    let (broker, folder) = (FakeBroker::bind().await, tempfile::tempdir().unwrap());
    let url = format!("mqtt://127.0.0.1:{}", broker.port);
    let mut run = Process::start(folder.path(), &numbers(&url, folder.path(), true, "", ""));
    for (body, known) in [("1", false), ("2", false), ("4", true)] {
        let mut peer = broker.accept().await;
        peer.send(&connack(known, 0, &[])).await;
        if !known {
            // Every session that the broker does not know is subscribed again.
            peer.subscribed(1).await;
        }
        peer.send(&publish(b"p/a", 1, &[], body.as_bytes())).await;
        assert_eq!(peer.acks(Duration::from_secs(1)).await, [1], "{}", run.said());
        // The last one stays.
        if body == "4" {
            let count = |run: &Process, name| run.metric(name, &["component=\"s\""]);
            run.until("three payloads", SOON, |run| {
                count(run, "streamgauge_component_received_events_total") == Some(3)
            });
            assert_eq!(count(&run, "streamgauge_source_reconnects_total"), Some(2));
            assert_eq!(count(&run, "streamgauge_source_gaps_total"), Some(1));
            assert!(run.said().contains("session"), "{}", run.said());
            run.signal("TERM");
            while peer.read().await.is_some() {}
        }
    }
    assert!(run.end(SOON).success(), "{}", run.said());
    assert_eq!(sum(folder.path()), 7);
}

#[test]
fn a15_poison_is_acknowledged_once_and_what_follows_comes() {
    let Some(broker) = Mosquitto::start("allow_anonymous true\nmax_inflight_messages 1") else { return };
    let folder = tempfile::tempdir().unwrap();
    let text = numbers(&broker.url(), folder.path(), true, "receive_maximum = 1", "");
    let mut run = Process::start(folder.path(), &text);
    run.until_ready(READY);
    let mut client = Client::connect(broker.port, "publisher");
    ["10", "{\"v\":", "40"].into_iter().for_each(|body| client.publish("p/a", body));
    client.flush();
    let rows = |run: &Process| run.metric("streamgauge_component_received_events_total", &["component=\"s\""]);
    run.until("all three", SOON, |run| rows(run) == Some(3));
    let account = run.terminate(SOON);
    assert_eq!((account["sources"]["s"]["dead_letter"].as_u64(), sum(folder.path())), (Some(1), 50));
}

#[test]
fn a20_a_column_that_comes_later_is_null_before() {
    let folder = tempfile::tempdir().unwrap();
    let (recording, out) = (folder.path().join("r.jsonl"), folder.path().join("out"));
    let replay = |name: &str, columns: &str, payloads: &[&str]| {
        let file = folder.path().join(format!("{name}.toml"));
        let text = format!(
            "[pipeline]\nname = \"{name}\"\n[sources.s]\ntype = \"mqtt\"\nurl = \"mqtt://127.0.0.1:1\"\ntopics = [\"t\"]\n\
             decode = {{ format = \"json\" }}\ncolumns = {{ {columns} }}\n\
             [sinks.rows]\ntype = \"parquet\"\ninputs = [\"s\"]\npath = {out:?}\n"
        );
        fs::write(&file, text).unwrap();
        fs::write(&recording, payloads.join("\n")).unwrap();
        let mut command = streamgauge();
        command.arg("replay").arg(&file).arg("--recording").arg(&recording).args(["--bare", "--topic", "t"]);
        succeed(&mut command);
    };
    // Before anybody thought of `c`, and after.
    replay("before", "a = \"int64\", b = \"int64\"", &[r#"{"a":1,"b":1}"#, r#"{"a":2,"b":2}"#, r#"{"a":3,"b":3}"#]);
    replay("after", "a = \"int64\", b = \"int64\", c = \"float64\"", &[r#"{"a":4,"b":4,"c":1.5}"#]);
    let script = "import duckdb, sys\n\
                  files = sys.argv[1] + '/**/*.parquet'\n\
                  print(duckdb.sql(f\"SELECT a, c FROM read_parquet('{files}', union_by_name = true) ORDER BY a\").fetchall())";
    let output = succeed(Command::new("python3").args(["-c", script]).arg(&out));
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "[(1, None), (2, None), (3, None), (4, 1.5)]");
}

#[test]
fn a20_files_are_whole_at_every_moment_and_age_without_traffic() {
    let Some(broker) = Mosquitto::start("allow_anonymous true") else { return };
    let folder = tempfile::tempdir().unwrap();
    let old = numbers(&broker.url(), folder.path(), true, "", "roll = { age = \"1h\" }");
    let mut run = Process::start(folder.path(), &old);
    run.until_ready(READY);
    let mut client = Client::connect(broker.port, "publisher");
    (1..=100).for_each(|number| client.publish("p/a", &number.to_string()));
    client.flush();
    let received = |run: &Process| run.metric("streamgauge_component_received_events_total", &["component=\"s\""]);
    run.until("all rows", SOON, |run| received(run) == Some(100));
    // Before the file is due: nothing that is half a file may be seen.
    run.kill();
    assert_eq!(parquet_files(&folder.path().join("out")), Vec::<std::path::PathBuf>::new());
    let young = old.replace("1h", "1s");
    let mut run = Process::start(folder.path(), &young);
    run.until_ready(READY);
    // Nothing comes any more, and the rows are there within an age and a little.
    run.until("the rows of before", SOON, |_| sum(folder.path()) == 5050);
    assert_eq!(parquet_files(&folder.path().join("out")).len(), 1);
    run.terminate(SOON);
    assert_eq!(sum(folder.path()), 5050);
}

#[test]
fn a21_groups_that_have_gone_leave_no_state() {
    let Some(broker) = Mosquitto::start("allow_anonymous true") else { return };
    for workers in [1, 2] {
        let folder = tempfile::tempdir().unwrap();
        let text = format!(
            "[pipeline]\nname = \"groups\"\ndurability = \"none\"\n[sources.s]\ntype = \"mqtt\"\nurl = \"{}\"\n\
             topics = [\"p/#\"]\nqos = 1\nclient_id = \"groups{workers}\"\ndecode = {{ format = \"json\" }}\n\
             time = {{ column = \"ts\" }}\n\
             columns = {{ ts = {{ type = \"timestamp\", unit = \"s\" }}, d = \"int64\" }}\n\
             [operators.by]\ntype = \"window\"\ninputs = [\"s\"]\nwindow = {{ tumbling = \"10s\" }}\ngroup_by = [\"d\"]\n\
             workers = {workers}\naggregates = {{ samples = \"count(*)\" }}\n\
             [sinks.rows]\ntype = \"parquet\"\ninputs = [\"by\"]\npath = {:?}\n",
            broker.url(),
            folder.path().join("out")
        );
        let mut run = Process::start(folder.path(), &text);
        run.until_ready(READY);
        let mut client = Client::connect(broker.port, "publisher");
        let publish = |client: &mut Client, second: u64, device: u64| {
            client.publish("p/a", &format!("{{\"ts\":{},\"d\":{device}}}", 1_709_208_000 + second));
        };
        let groups = |run: &Process| run.metric("streamgauge_operator_groups", &["component=\"by\""]);
        (0..10_000).for_each(|device| publish(&mut client, device / 1000, device));
        client.flush();
        // What several workers are still about is not told before something follows.
        run.until("many groups", SOON, |run| groups(run).is_some_and(|groups| groups > 1_000));
        (10..70).for_each(|second| (0..10).for_each(|device| publish(&mut client, second, device)));
        client.flush();
        let rows = |run: &Process| run.metric("streamgauge_component_received_events_total", &["component=\"by\""]);
        run.until("all rows", SOON, |run| rows(run) == Some(10_600));
        run.until("few groups", SOON, |run| groups(run).is_some_and(|groups| groups <= 10));
        let account = run.terminate(SOON);
        assert_eq!(account["operators"]["by"]["accepted"].as_u64(), Some(10_600));
    }
}

#[test]
fn a21_a_stop_at_once_writes_all_that_was_taken() {
    let Some(broker) = Mosquitto::start("allow_anonymous true") else { return };
    let folder = tempfile::tempdir().unwrap();
    let mut run = Process::start(folder.path(), &numbers(&broker.url(), folder.path(), true, "", ""));
    run.until_ready(READY);
    let mut client = Client::connect(broker.port, "publisher");
    (0..1000).for_each(|number| client.publish("p/a", &number.to_string()));
    client.flush();
    let account = run.terminate(SOON);
    let count = |part: &str, name: &str, key: &str| account[part][name][key].as_u64().unwrap();
    let taken = count("sources", "s", "received");
    assert_eq!(count("sinks", "rows", "rows") + count("sources", "s", "dropped"), taken);
    // What was not taken is the broker's, and comes next.
    let mut again = Process::start(folder.path(), &numbers(&broker.url(), folder.path(), true, "", ""));
    again.until_ready(READY);
    again.until("the rest", SOON, |_| parquet_rows(&folder.path().join("out")).len() >= 1000);
    again.terminate(SOON);
    assert_eq!((parquet_rows(&folder.path().join("out")).len(), sum(folder.path())), (1000, 499_500));
}

/// What `check` says of a text.
fn checked(text: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("p.toml");
    fs::write(&file, text).unwrap();
    let output = streamgauge().arg("check").arg(&file).output().unwrap();
    assert_eq!(output.status.code(), Some(78));
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a22_faults_of_a_pipeline_file_can_be_mended() {
    let folder = tempfile::tempdir().unwrap();
    let good = numbers("mqtt://127.0.0.1:1", folder.path(), false, "keep_alive = \"5s\"", "");
    let said = checked(&good.replace("keep_alive", "keep_alvie"));
    assert!(said.contains("`keep_alvie`") && said.contains("p.toml:") && said.contains("`keep_alive`"), "{said}");
    for wrong in ["\"5seconds\"", "5"] {
        let said = checked(&good.replace("keep_alive = \"5s\"", &format!("keep_alive = {wrong}")));
        assert!(said.contains("keep_alive") && said.contains(wrong.trim_matches('"')), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a22_a_refusal_names_the_user_and_no_password() {
    let (broker, folder) = (FakeBroker::bind().await, tempfile::tempdir().unwrap());
    let url = format!("mqtt://127.0.0.1:{}", broker.port);
    let login = "username = \"meter\"\npassword = \"hunter2hunter2\"";
    let mut run = Process::start(folder.path(), &numbers(&url, folder.path(), false, login, ""));
    let mut peer = broker.accept().await;
    peer.send(&connack(false, 0x87, &[])).await;
    assert_eq!(run.end(SOON).code(), Some(1));
    let said = run.said_in_the_end();
    assert!(said.contains("127.0.0.1") && said.contains("meter") && said.contains("NotAuthorized"), "{said}");
    assert!(!said.contains("hunter2"), "{said}");
}

#[test]
fn a22_certificates_are_named() {
    let (authority, port, folder) = (Authority::of("other.example"), free_port(), tempfile::tempdir().unwrap());
    let Some(_broker) = Mosquitto::start(&authority.listener(port)) else { return };
    let ca = |ca: &str| format!("ca = \"{ca}\"");
    let url = format!("mqtts://localhost:{port}");
    let text = numbers(&url, folder.path(), false, &ca(&authority.file("ca.pem")), "");
    let said = Process::refused(folder.path(), &text, &[], SOON);
    assert!(said.contains("localhost") && said.contains("other.example"), "{said}");
    let text = numbers(&url, folder.path(), false, &ca("/nowhere/ca.pem"), "");
    let said = Process::refused(folder.path(), &text, &[], SOON);
    assert!(said.contains("/nowhere/ca.pem"), "{said}");
}

#[test]
fn every_case_has_a_test() {
    let own = [include_str!("cases.rs"), include_str!("scenarios.rs")].concat();
    let cases = fs::read_dir(project("testdata/cases")).unwrap().map(|entry| entry.unwrap().file_name());
    let cases: Vec<String> =
        cases.map(|name| name.into_string().unwrap()).filter(|name| name.starts_with('A')).collect();
    assert_eq!(cases.len(), 22);
    for case in cases {
        assert!(own.contains(&format!(" {}_", case.to_lowercase())), "{case}");
    }
}

/// Not of the cases: a birth that was missed is asked for through the broker, and what comes after it is read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sparkplug_births_are_asked_for() {
    // {seq 1, metrics: [{alias 1, double 21.5}]}, and a birth {seq 0, metrics: [{name "T", alias 1, type Double, 20.5}]}.
    const DATA: &[u8] = &[0x12, 0x0b, 0x10, 1, 0x69, 0, 0, 0, 0, 0, 0x80, 0x35, 0x40, 0x18, 1];
    const BIRTH: &[u8] =
        &[0x12, 0x10, 0x0a, 1, b'T', 0x10, 1, 0x20, 10, 0x69, 0, 0, 0, 0, 0, 0x80, 0x34, 0x40, 0x18, 0];
    let (broker, folder) = (FakeBroker::bind().await, tempfile::tempdir().unwrap());
    let url = format!("mqtt://127.0.0.1:{}", broker.port);
    let text = numbers(&url, folder.path(), true, "", "")
        .replace("\"p/#\"", "\"spBv1.0/#\"")
        .replace("{ format = \"scalar\" }", "{ format = \"sparkplug_b\", rebirth = true }")
        .replace("{ v = \"int64\" }", "{ name = \"utf8\", number = \"float64\" }");
    let mut run = Process::start(folder.path(), &text);
    let mut peer = broker.accept().await;
    peer.send(&connack(false, 0, &[])).await;
    peer.subscribed(1).await;
    peer.send(&publish(b"spBv1.0/g/NDATA/e", 1, &[], DATA)).await;
    let asked = loop {
        let (first, body) = peer.read().await.unwrap();
        match first {
            0x30 => break body,
            0xc0 => peer.send(&[0xd0, 0]).await,
            _ => (),
        }
    };
    assert!(asked.starts_with(b"\x00\x10spBv1.0/g/NCMD/e"), "{}", asked.escape_ascii());
    assert!(asked.windows(20).any(|window| window == b"Node Control/Rebirth"), "{}", asked.escape_ascii());
    peer.send(&publish(b"spBv1.0/g/NBIRTH/e", 2, &[], BIRTH)).await;
    peer.send(&publish(b"spBv1.0/g/NDATA/e", 3, &[], DATA)).await;
    let rows = |run: &Process| run.metric("streamgauge_component_sent_events_total", &["component=\"s\"", "main"]);
    run.until("two rows", SOON, |run| rows(run) == Some(2));
    run.signal("TERM");
    while peer.read().await.is_some() {}
    assert!(run.end(SOON).success(), "{}", run.said());
    let rows: Vec<_> = parquet_rows(&folder.path().join("out"))
        .iter()
        .map(|row| (row["name"].clone(), row["number"].clone()))
        .collect();
    assert_eq!(rows, [("T".into(), 20.5.into()), ("T".into(), 21.5.into())]);
}
