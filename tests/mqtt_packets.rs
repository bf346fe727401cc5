//! The packet tests of mosquitto, from a scripted broker: what is well-formed arrives, what is not costs its connection at
//! most. They are not part of the project, see `public_data`. `-- --nocapture` shows the table: set, tests, right, let pass (what a
//! stricter client hangs up on), hung up (what a laxer client lets pass), wrong.

mod support;

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use streamgauge::flow::time::Span;
use streamgauge::ingest::mqtt::client::{Client, Event, Limits, connect};
use streamgauge::ingest::mqtt::settings::{Address, Connection};
use support::fake_broker::{FakeBroker, connack, packet, publish, varint};
use support::public_data;

/// How long a client may wait for the rest of a packet that has none before the connection is cut.
const PATIENCE: Duration = Duration::from_secs(3);
/// Where we give a connection up though the set goes on: a largest packet of one byte, in which nothing can be acknowledged;
/// answers to what was not asked; UNSUBACKs without a code or with one that there is not; a server that subscribes.
const GIVEN_UP: [&str; 14] = [
    "v5.0   CONNACK ALLOWED PROPERTIES VALID: 20 with maximum-packet-size (four byte integer)",
    "v3.1.1 PUBACK unsolicited: 40",
    "v5.0   PUBACK unsolicited: 40 len=2",
    "v5.0   PUBACK unsolicited: 40 len=3",
    "v5.0   PUBACK unsolicited: 40 len=3 fail",
    "v5.0   PUBACK unsolicited: 40 len=4 ok",
    "v5.0   PUBACK unsolicited: 40 len=4 rc=fail",
    "v5.0   UNSUBACK unsolicited: B0",
    "v5.0   UNSUBACK unsolicited: B0 with property",
    "v5.0   UNSUBACK unsolicited: B0 reason code 0xFF unknown",
    "v5.0   UNSUBACK: B0",
    "v5.0   UNSUBACK: B0 with property",
    "v5.0   UNSUBACK: B0 reason code 0xFF unknown",
    "v5.0   PUBLISH ALLOWED PROPERTIES: content-type is preserved?",
];
const MARKER: u16 = 60_000;

struct Case {
    name: String,
    version: u64,
    is_connected: bool,
    must_end: bool,
    /// What the client did before: it published at QoS 1, or gave a subscription back.
    command: Option<String>,
    sent: Vec<Vec<u8>>,
    /// What a client that takes it answers.
    answers: Vec<Vec<u8>>,
}

/// The notation of the sets: hex bytes, `'text'`, and numbers behind a letter for their width.
fn bytes(notation: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = notation.trim_start();
    while !rest.is_empty() {
        let quoted = rest.strip_prefix('\'').map(|text| text.split_once('\'').unwrap());
        let (word, after) = quoted.unwrap_or_else(|| rest.split_once(' ').unwrap_or((rest, "")));
        match (quoted, word.split_at(1)) {
            (Some(_), _) => out.extend(word.as_bytes()),
            (None, ("r" | "v", number)) => varint(&mut out, number.parse().unwrap()),
            (None, ("s" | "m" | "k" | "H", number)) => out.extend(number.parse::<u16>().unwrap().to_be_bytes()),
            (None, ("L", number)) => out.extend(number.parse::<u32>().unwrap().to_be_bytes()),
            (None, ("i", number)) => out.push(number.parse().unwrap()),
            (None, _) => {
                out.extend((0..word.len()).step_by(2).map(|at| u8::from_str_radix(&word[at..at + 2], 16).unwrap()));
            }
        }
        rest = after.trim_start();
    }
    out
}

fn cases(file: &Path) -> Vec<Case> {
    let groups: Vec<Value> = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    let case = |group: &Value, test: &Value| {
        let said = |key: &str| test.get(key).or_else(|| group.get(key)).cloned();
        let flag = |key: &str| said(key).and_then(|value| value.as_bool()).unwrap_or(true);
        let of = |kind: &str| -> Vec<Vec<u8>> {
            let messages = test["msgs"].as_array().unwrap().iter().filter(|message| message["type"] == kind);
            messages.map(|message| bytes(message["payload"].as_str().unwrap())).collect()
        };
        Case {
            name: format!("{}: {}", group["group"].as_str().unwrap(), test["name"].as_str().unwrap()),
            version: said("ver").unwrap().as_u64().unwrap(),
            is_connected: flag("connect") && flag("connack"),
            must_end: flag("expect_disconnect"),
            command: said("command").and_then(|value| value.as_str().map(str::to_owned)),
            sent: of("send"),
            answers: of("recv"),
        }
    };
    let tests = |group: &Value| group["tests"].as_array().unwrap().iter().map(|test| case(group, test)).collect();
    groups.iter().flat_map(|group| -> Vec<Case> { tests(group) }).collect()
}

/// What a client saw of a case.
#[derive(Debug, Default)]
struct Outcome {
    /// Topics and bodies, without the marker's.
    arrived: Vec<(Vec<u8>, Vec<u8>)>,
    /// What came after the case arrived on the same connection.
    goes_on: bool,
    acknowledged: Vec<u16>,
    /// After it the client connected anew, and a payload arrived.
    recovers: bool,
}

fn marker(v5: bool) -> Vec<u8> {
    let of_five = publish(b"marker", MARKER, &[], b"");
    if v5 { of_five } else { packet(0x32, &of_five[2..of_five.len() - 1]) }
}

fn accepted(v5: bool) -> Vec<u8> {
    if v5 { connack(false, 0, &[]) } else { packet(0x20, &[0, 0]) }
}

/// Polls until the marker was acknowledged (`true`), or until the connection is gone.
async fn listen(client: &mut dyn Client, command: Option<&str>, outcome: &mut Outcome) -> bool {
    let requests = client.requests();
    let mut is_marked = false;
    loop {
        match client.poll().await {
            Event::Connected { .. } => assert!(match command {
                Some("publish-1") => requests.publish("test/publish", "message".into(), 1, false),
                Some("unsubscribe") => requests.unsubscribe(&["test/subscribe".to_owned()]),
                _ => true,
            }),
            Event::Publish(payload) => {
                is_marked |= payload.delivery.packet_id == MARKER;
                if payload.delivery.packet_id != MARKER {
                    outcome.arrived.push((payload.topic.to_vec(), payload.body.to_vec()));
                }
                if payload.delivery.qos == 1 {
                    assert!(requests.try_ack(payload.delivery.packet_id));
                }
            }
            Event::Acknowledged if is_marked => return true,
            Event::Disconnected(_) => return false,
            _ => {}
        }
    }
}

async fn play(case: &Case) -> Outcome {
    let v5 = case.version == 5;
    let broker = FakeBroker::bind().await;
    let address = Address::read(&format!("mqtt://127.0.0.1:{}", broker.port)).unwrap();
    let (client_id, keep_alive) = (Some("packets".to_owned()), Span::from_secs(30));
    let connection = Connection { address, v5, client_id, login: None, ca: None, identity: None, keep_alive };
    let limits = Limits {
        clean_start: true,
        session_expiry: Span::from_secs(60),
        receive_maximum: 64,
        max_packet: 1 << 20,
        outgoing_maximum: 64,
    };
    let mut client = connect(&connection, "packets", limits).unwrap();
    let mut outcome = Outcome::default();
    let hello = if case.is_connected { accepted(v5) } else { Vec::new() };
    let command = case.command.as_deref().filter(|command| *command != "publish-2");
    let served = serve(&broker, &hello, command.is_some(), [case.sent.concat(), marker(v5)].concat());
    let (goes_on, acknowledged) = tokio::join!(listen(&mut *client, command, &mut outcome), served);
    (outcome.goes_on, outcome.acknowledged) = (goes_on, acknowledged);
    client.reset();
    let (hello, mut after) = (accepted(v5), Outcome::default());
    let served = serve(&broker, &hello, false, marker(v5));
    (outcome.recovers, _) = tokio::join!(listen(&mut *client, None, &mut after), served);
    outcome
}

/// Takes one connection, lets the client ask, and writes. Gives what the client acknowledged until it went, had the marker,
/// or waited in vain.
async fn serve(broker: &FakeBroker, hello: &[u8], asks: bool, bytes: Vec<u8>) -> Vec<u16> {
    let mut peer = broker.accept().await;
    peer.send(hello).await;
    if asks {
        peer.read().await.expect("what the client was told to ask");
    }
    // It may be gone before all is written.
    let _gone = peer.try_send(&bytes).await;
    let mut ids = Vec::new();
    while let Ok(Some((first, body))) = tokio::time::timeout(PATIENCE, peer.read()).await {
        if first == 0x40 {
            ids.push(u16::from_be_bytes([body[0], body[1]]));
        }
        if ids.last() == Some(&MARKER) {
            ids.pop();
            break;
        }
    }
    ids
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Right,
    LetPass,
    HungUp,
    Wrong,
}

fn judge(case: &Case, outcome: &Outcome, of_server: bool) -> Verdict {
    let kind = |message: &[u8]| message[0] >> 4;
    // What comes before a handshake, and the second half of a QoS 2 that we never begin, no server of ours sends.
    let first = kind(&case.sent[0]);
    let judged = of_server && (case.is_connected || first == 2) && first != 5;
    let answers = case.answers.iter().filter(|answer| answer[0] == 0x40);
    let acknowledged: Vec<u16> = answers.map(|answer| u16::from_be_bytes([answer[2], answer[3]])).collect();
    let published: Vec<&Vec<u8>> = case.sent.iter().filter(|message| kind(message) == 3).collect();
    let has = |message: &[u8], part: &[u8]| part.is_empty() || message.windows(part.len()).any(|sent| sent == part);
    let mut pairs = published.iter().zip(&outcome.arrived);
    let arrived = published.len() == outcome.arrived.len()
        && pairs.all(|(message, (topic, body))| has(message, topic) && message.ends_with(body));
    match outcome.goes_on {
        _ if !outcome.recovers => Verdict::Wrong,
        true if !judged || case.must_end => Verdict::LetPass,
        false if !judged || case.must_end => Verdict::Right,
        false => Verdict::HungUp,
        true if outcome.acknowledged != acknowledged || !arrived => Verdict::Wrong,
        true => Verdict::Right,
    }
}

/// Prints a line of the table; gives how many came out wrong.
async fn set(file: PathBuf) -> usize {
    // What a server sends; the others are what clients send, and a server that sends it is broken.
    let of_server = file.parent().unwrap().ends_with("mosquitto-lib") || file.ends_with("PUBLISH.json");
    let (cases, mut counts, mut playing) = (cases(&file), [0; 4], tokio::task::JoinSet::new());
    for case in cases {
        if playing.len() == 64 {
            count(&mut counts, playing.join_next().await);
        }
        playing.spawn(async move {
            let outcome = play(&case).await;
            let verdict = judge(&case, &outcome, of_server);
            if verdict == Verdict::HungUp && GIVEN_UP.contains(&case.name.as_str()) {
                return verdict;
            }
            if matches!(verdict, Verdict::HungUp | Verdict::Wrong) {
                println!("  {verdict:?} {}: {outcome:?}", case.name);
                return Verdict::Wrong;
            }
            verdict
        });
    }
    while let Some(ended) = playing.join_next().await {
        count(&mut counts, Some(ended));
    }
    let name =
        format!("{}/{}", file.parent().unwrap().file_name().unwrap().display(), file.file_name().unwrap().display());
    let [right, let_pass, hung_up, wrong] = counts;
    println!("{name:34} {:9} {right:7} {let_pass:8} {hung_up:7} {wrong:6}", counts.iter().sum::<usize>());
    counts[Verdict::Wrong as usize]
}

fn count(counts: &mut [usize; 4], ended: Option<Result<Verdict, tokio::task::JoinError>>) {
    let verdict = ended.unwrap().expect("no case panics");
    counts[verdict as usize] += 1;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn packets_of_every_kind_cost_their_connection_at_most() {
    let Some(folder) = public_data("mqtt-packets") else { return };
    let mut wrong = 0;
    println!("{:34} {:>9} {:>7} {:>8} {:>7} {:>6}", "set", "tests", "right", "let pass", "hung up", "wrong");
    for folder in ["mosquitto-lib", "mosquitto-broker"].map(|name| folder.join(name)) {
        let entries = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
        let mut files: Vec<PathBuf> =
            entries.filter(|path| path.extension().is_some_and(|end| end == "json")).collect();
        files.sort();
        for file in files {
            wrong += set(file).await;
        }
    }
    assert_eq!(wrong, 0);
}

/// What a server (port 1883) of a little-endian capture of Ethernet and IPv4 sent to a port, in the order of the capture.
fn captured(capture: &[u8], port: u16) -> Vec<u8> {
    let short = |bytes: &[u8], at: usize| usize::from(u16::from_be_bytes([bytes[at], bytes[at + 1]]));
    let (mut at, mut out) = (24, Vec::new());
    while let Some(header) = capture.get(at..at + 16) {
        let len = u32::from_le_bytes(header[8..12].try_into().unwrap()) as usize;
        let ip = &capture[at + 16 + 14..at + 16 + len];
        let tcp = &ip[usize::from(ip[0] & 15) * 4..short(ip, 2)];
        if (short(tcp, 0), short(tcp, 2)) == (1883, usize::from(port)) {
            out.extend(&tcp[usize::from(tcp[12] >> 4) * 4..]);
        }
        at += 16 + len;
    }
    out
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_capture_of_2010_arrives() {
    let Some(path) = public_data("mqtt-packets/zeek-mqtt31.pcap") else { return };
    let sent = captured(&std::fs::read(path).unwrap(), 49327);
    let name = "a capture".to_owned();
    let case = Case {
        name,
        version: 4,
        is_connected: false,
        must_end: false,
        command: None,
        sent: vec![sent],
        answers: Vec::new(),
    };
    let outcome = play(&case).await;
    assert!(outcome.goes_on && outcome.recovers, "{outcome:?}");
    let bodies = ["Hello from the Paho blocking client", "Hello MQTT"];
    assert_eq!(outcome.arrived, bodies.map(|body| (b"SampleTopic".to_vec(), body.as_bytes().to_vec())));
}
