//! Recordings: the text that people and scripts see, and back.
#![expect(clippy::result_large_err, reason = "a test wants both what was read and the error")]

use std::io::Write;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use streamgauge::flow::payload::{Delivery, Payloads};
use streamgauge::flow::time::Timestamp;
use streamgauge::ingest::fleet::{Fleet, FleetSettings, record};
use streamgauge::ingest::recording::{Progress, Recording, RecordingError, RecordingWriter, Shape};

/// 2026-01-02T03:04:05Z.
const MICROS: i64 = 1_767_323_045_000_000;

const GOLDEN: &str = r#"{"seq":1,"recv_time":"2026-01-02T03:04:05.123456Z","topic":"sites/a/t","qos":1,"retain":false,"enc":"utf8","payload":"{\"v\":21.5}"}
{"seq":2,"recv_time":"2026-01-02T03:04:06.000000Z","topic":"sites/ä/t","qos":2,"retain":true,"dup":true,"packet_id":7,"enc":"base64","payload":"AP+A"}
{"seq":3,"topic":"c/4=","topic_enc":"base64","qos":0,"retain":false,"properties":{"unit":"°C","unit":"K"},"enc":"utf8","payload":"line\nbreak\t\u0001"}
"#;

fn golden() -> Payloads {
    let mut payloads = Payloads::default();
    let at = |micros| Timestamp::from_micros(MICROS + micros);
    payloads.push(b"sites/a/t", br#"{"v":21.5}"#, at(123_456), Delivery { qos: 1, ..Delivery::default() });
    let delivery = Delivery { qos: 2, retained: true, dup: true, packet_id: 7, connection: 0 };
    payloads.push("sites/ä/t".as_bytes(), &[0, 0xff, 0x80], at(1_000_000), delivery);
    // "c/4=" is base64 of 0x73 0xfe: an `s` and a byte that begins no character.
    payloads.push(&[0x73, 0xfe], b"line\nbreak\t\x01", Timestamp::START, Delivery::default());
    payloads.set_properties(vec![("unit".into(), "°C".into()), ("unit".into(), "K".into())]);
    payloads
}

/// All that can be seen of payloads.
fn seen(payloads: &Payloads) -> Vec<String> {
    payloads.iter().map(|payload| format!("{payload:?}")).collect()
}

fn write(payloads: &Payloads, path: &Path) {
    let mut writer = RecordingWriter::create(path).unwrap();
    for (seq, payload) in (1..).zip(payloads.iter()) {
        writer.write(&payload, seq).unwrap();
    }
    writer.finish().unwrap();
}

/// Few at a time, so that the bounds are used.
fn read_all(mut recording: Recording) -> Result<Payloads, (Payloads, RecordingError)> {
    let mut payloads = Payloads::default();
    loop {
        match recording.read(&mut payloads, 3, 1 << 10) {
            Ok(0) => return Ok(payloads),
            Ok(count) => assert!(count <= 3),
            Err(why) => return Err((payloads, why)),
        }
    }
}

fn file(folder: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder.join(name);
    std::fs::File::create(&path).unwrap().write_all(bytes).unwrap();
    path
}

fn read_text(text: &str) -> Result<Payloads, (Payloads, RecordingError)> {
    let folder = tempfile::tempdir().unwrap();
    read_all(Recording::open(&file(folder.path(), "r.jsonl", text.as_bytes())).unwrap())
}

#[test]
fn payloads_are_written_as_the_contract_says() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("golden.jsonl");
    write(&golden(), &path);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), GOLDEN);
}

#[test]
fn payloads_are_read_back() {
    assert_eq!(seen(&read_text(GOLDEN).unwrap()), seen(&golden()));
    let windows = GOLDEN.replace('\n', "\r\n").replace("\r\n", "\r\n\r\n");
    assert_eq!(seen(&read_text(&windows).unwrap()), seen(&golden()), "blank lines and other line ends");
    assert_eq!(seen(&read_text(GOLDEN.trim_end()).unwrap()), seen(&golden()), "no last line end");
}

#[test]
fn compressed_recordings_are_read_by_their_names() {
    let folder = tempfile::tempdir().unwrap();
    for (name, magic) in [("r.jsonl.gz", &[0x1f, 0x8b][..]), ("r.jsonl.zst", &[0x28, 0xb5, 0x2f, 0xfd])] {
        let path = folder.path().join(name);
        write(&golden(), &path);
        let bytes = std::fs::read(&path).unwrap();
        assert!(bytes.starts_with(magic));
        assert_eq!(seen(&read_all(Recording::open(&path).unwrap()).unwrap()), seen(&golden()));

        let twice = file(folder.path(), &format!("twice-{name}"), &[bytes.as_slice(), &bytes].concat());
        let recording = Recording::open(&twice).unwrap();
        let progress = recording.progress();
        assert_eq!(read_all(recording).unwrap().len(), 6, "of two members");
        assert_eq!(progress.bytes(), (2 * bytes.len() as u64, 2 * bytes.len() as u64));

        let cut = file(folder.path(), &format!("cut-{name}"), &bytes[..bytes.len() - 12]);
        let (_, why) = read_all(Recording::open(&cut).unwrap()).unwrap_err();
        assert!(why.to_string().contains("cannot read on: "), "{why}");
    }
}

#[test]
fn other_spellings_of_an_envelope_are_read() {
    for (line, body) in [
        (r#"{"payload":"x","topic":"t"}"#, "x"),
        (
            r#" { "topic" : "\u0074" , "more" : [ {"payload":"y"}, "]" ] , "payload" : "\u00e4\ud83d\ude00\/" } "#,
            "ä😀/",
        ),
        (r#"{"topic":"t","payload":{"v": 1.50, "s":"}"}}"#, r#"{"v": 1.50, "s":"}"}"#),
        (r#"{"topic":"t","payload":[1,2]}"#, "[1,2]"),
        (r#"{"topic":"t","payload":123456789012345678901234567890}"#, "123456789012345678901234567890"),
        (r#"{"topic":"t","payload":null,"enc":"base64"}"#, "null"),
    ] {
        let payloads = read_text(line).unwrap();
        assert_eq!(payloads.len(), 1, "{line}");
        let payload = payloads.get(0);
        assert_eq!((payload.topic, payload.body), (&b"t"[..], body.as_bytes()), "{line}");
        assert_eq!(payload.arrival, Timestamp::START);
    }
}

#[test]
fn a_wrong_line_is_named_and_those_before_it_are_kept() {
    let good = r#"{"topic":"t","payload":"x"}"#;
    for (wrong, why) in [
        ("oops", "no JSON: "),
        (r#"{"topic":"t","payload":"x""#, "no JSON: "),
        (r#"{"topic":"t","payload":"x"} {}"#, "no JSON: "),
        (r#"{"topic":"t","payload":"\ud800"}"#, "no"),
        ("{\"topic\":\"t\",\"payload\":\"\u{1}\"}", "no JSON: "),
        ("[]", "expected `{` at byte 0"),
        (r#"{"payload":"x"}"#, "`topic` is missing"),
        (r#"{"topic":"t"}"#, "`payload` is missing"),
        (r#"{"topic":1,"payload":"x"}"#, "`topic`: "),
        (r#"{"topic":"t","qos":3,"payload":"x"}"#, "`qos`: expected a whole number from 0 to 2, got 3"),
        (r#"{"topic":"t","retain":"no","payload":"x"}"#, "`retain`: expected true or false"),
        (r#"{"topic":"t","enc":"hex","payload":"x"}"#, "`enc`: expected \"utf8\" or \"base64\", got \"hex\""),
        (r#"{"topic":"t","enc":"base64","payload":"?"}"#, "`payload` is no base64: "),
        (r#"{"topic":"t","recv_time":"today","payload":"x"}"#, "`today` is no RFC 3339 time"),
        (r#"{"topic":"t","properties":{"a":1},"payload":"x"}"#, "`properties`: expected a string"),
    ] {
        let (payloads, error) = read_text(&format!("{good}\n\n{wrong}\n{good}\n")).unwrap_err();
        assert_eq!(payloads.len(), 1, "{wrong}");
        let error = error.to_string();
        assert!(error.contains(&format!("r.jsonl:3: {why}")), "{wrong}: {error}");
    }
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let why = Recording::open(Path::new("nowhere/r.jsonl")).unwrap_err().to_string();
    assert!(why.starts_with("cannot open the recording nowhere/r.jsonl: "), "{why}");
    let why = RecordingWriter::create(Path::new("nowhere/r.jsonl")).unwrap_err().to_string();
    assert!(why.starts_with("cannot create the recording nowhere/r.jsonl: "), "{why}");
}

#[test]
fn bare_lines_are_payloads() {
    let folder = tempfile::tempdir().unwrap();
    let path = file(folder.path(), "bare.jsonl", b"{\"v\":1}\n\nnot even JSON \xff\r\nlast");
    let shape = Shape::Bare("a/b".to_owned());
    let payloads = read_all(Recording::open_as(&path, shape, Progress::default()).unwrap()).unwrap();
    let bodies: Vec<_> = payloads.iter().map(|payload| payload.body).collect();
    assert_eq!(bodies, [&b"{\"v\":1}"[..], b"not even JSON \xff", b"last"]);
    assert!(payloads.iter().all(|payload| payload.topic == b"a/b" && payload.arrival == Timestamp::START));
}

#[test]
fn lines_are_bounded_and_may_be_longer_than_the_buffer() {
    let folder = tempfile::tempdir().unwrap();
    let long = "x".repeat(5 << 20);
    let path = file(folder.path(), "long.jsonl", format!("a\n{long}\nb\n").as_bytes());
    let open = || Recording::open_as(&path, Shape::Bare("t".to_owned()), Progress::default()).unwrap();
    let payloads = read_all(open()).unwrap();
    let lens: Vec<_> = payloads.iter().map(|payload| payload.body.len()).collect();
    assert_eq!(lens, [1, 5 << 20, 1]);
    let (payloads, why) = read_all(open().line_bytes_max((5 << 20) - 1)).unwrap_err();
    assert_eq!(payloads.len(), 1);
    assert!(why.to_string().ends_with("long.jsonl:2: the line is longer than 5242879 bytes"), "{why}");
    assert_eq!(read_all(open().line_bytes_max(5 << 20)).unwrap().len(), 3);
}

proptest! {
    /// A bare recording is handed over in blocks, which is no matter of its payloads.
    #[test]
    fn blocks_have_all_lines(
        lines in prop::collection::vec(prop_oneof![4 => "[a-z]{0,9}\r?", 1 => "[a-z]{50,400}"], 0..60),
        ends in any::<bool>(),
        payloads_max in 1_usize..20,
        bytes_max in 1_usize..600,
        name in 0_usize..2,
    ) {
        let text = lines.join("\n") + if ends { "\n" } else { "" };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(["b.jsonl", "b.jsonl.zst"][name]);
        let bytes = if name == 0 { text.clone().into_bytes() } else { zstd::encode_all(text.as_bytes(), 1).unwrap() };
        std::fs::write(&path, bytes).unwrap();
        let shape = Shape::Bare("a/b".to_owned());
        let mut recording = Recording::open_as(&path, shape, Progress::default()).unwrap();
        let (mut chunk, mut bodies) = (Payloads::default(), Vec::new());
        while recording.read(&mut chunk, payloads_max, bytes_max).unwrap() > 0 {
            prop_assert!(chunk.len() <= payloads_max);
            prop_assert!(chunk.iter().all(|payload| payload.topic == b"a/b"));
            bodies.extend(chunk.iter().map(|payload| String::from_utf8(payload.body.to_vec()).unwrap()));
            chunk.clear();
        }
        let expected: Vec<&str> = text.split('\n').map(|line| line.strip_suffix('\r').unwrap_or(line)).collect();
        prop_assert_eq!(bodies, expected.into_iter().filter(|line| !line.is_empty()).collect::<Vec<_>>());
    }
}

#[test]
fn arrival_times_never_go_back() {
    let line = |second| format!("{{\"recv_time\":\"1970-01-01T00:00:0{second}Z\",\"topic\":\"t\",\"payload\":\"\"}}\n");
    let text = [line(5), line(3), "{\"topic\":\"t\",\"payload\":\"\"}\n".to_owned(), line(4), line(6)].concat();
    let folder = tempfile::tempdir().unwrap();
    let mut recording = Recording::open(&file(folder.path(), "r.jsonl", text.as_bytes())).unwrap();
    let mut payloads = Payloads::default();
    recording.read(&mut payloads, 100, 1 << 20).unwrap();
    let arrivals: Vec<_> = payloads.iter().map(|payload| payload.arrival).collect();
    let at = |second: i64| Timestamp::from_micros(second * 1_000_000);
    assert_eq!(arrivals, [at(5), at(5), Timestamp::START, at(5), at(6)]);
    assert_eq!(recording.went_back(), 2);
}

#[test]
fn a_fleet_is_recorded_and_read_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("fleet.jsonl.zst");
    let start = Timestamp::from_micros(MICROS);
    let settings = FleetSettings { messages: Some(20_000), malformed: 0.1, duplicate: 0.1, ..FleetSettings::default() };
    let fleet = || Fleet::new(settings.clone(), start);
    let mut writer = RecordingWriter::create(&path).unwrap();
    assert_eq!(record(fleet(), &mut writer).unwrap(), 20_000);
    writer.finish().unwrap();
    let payloads = read_all(Recording::open(&path).unwrap()).unwrap();
    assert_eq!(payloads.len(), 20_000);
    for (payload, message) in payloads.iter().zip(fleet()) {
        assert_eq!((payload.topic, payload.body), (&message.topic[..], &message.body[..]));
        assert_eq!((payload.arrival, payload.delivery.qos), (message.arrival, 1));
    }
}

type Raw = (Vec<u8>, Vec<u8>, Option<i64>, (u8, bool, bool, u16), Vec<(String, String)>);

fn any_payload() -> impl Strategy<Value = Raw> {
    let bytes = || prop_oneof![prop::collection::vec(any::<u8>(), 0..40), any::<String>().prop_map(String::into_bytes)];
    let properties = prop::collection::vec((any::<String>(), any::<String>()), 0..3);
    let arrival = prop::option::of(-62_167_219_200_000_000_i64..253_402_300_799_999_999);
    (bytes(), bytes(), arrival, (0_u8..3, any::<bool>(), any::<bool>(), any::<u16>()), properties)
}

proptest! {
    #[test]
    fn whatever_is_written_is_read_back(raw in prop::collection::vec(any_payload(), 0..12), name in 0_usize..3) {
        let mut payloads = Payloads::default();
        let mut last = i64::MIN;
        for (topic, body, arrival, (qos, retained, dup, packet_id), properties) in raw {
            last = arrival.unwrap_or(last).max(last);
            let arrival = arrival.map_or(Timestamp::START, |_| Timestamp::from_micros(last));
            payloads.push(&topic, &body, arrival, Delivery { qos, retained, dup, packet_id, connection: 0 });
            payloads.set_properties(properties);
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(["r.jsonl", "r.jsonl.gz", "r.jsonl.zst"][name]);
        write(&payloads, &path);
        let read = read_all(Recording::open(&path).unwrap()).map_err(|(_, why)| TestCaseError::fail(why.to_string()))?;
        prop_assert_eq!(seen(&read), seen(&payloads));
    }
}
