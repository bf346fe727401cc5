//! Edge cases of the protocol, against a scripted broker.
#![allow(missing_docs)]

mod support;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use streamgauge::flow::meter::SourceMeter;
use streamgauge::flow::payload::{Delivery, Payloads};
use streamgauge::ingest::mqtt::client::{Arrived, Client, Event, Granted, Requests};
use streamgauge::ingest::mqtt::source::{MqttSource, Wanted};
use streamgauge::ingest::{BoxFuture, Source};
use support::connect::{context, next, open, spec, until};
use support::fake_broker::{FakeBroker, connack, packet, publish};
use support::planted::is_caught;

fn text(port: u16) -> String {
    format!("url = \"mqtt://127.0.0.1:{port}\"\ntopics = [\"t\"]\nkeep_alive = \"5s\"")
}

const SHORT: Duration = Duration::from_millis(300);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acks_of_an_old_connection_never_reach_a_new_one() {
    let broker = FakeBroker::bind().await;
    let (mut source, meter) = open(&text(broker.port)).await.unwrap();
    let mut peer = broker.accept().await;
    peer.send(&connack(false, 0, &[])).await;
    peer.subscribed(1).await;
    peer.send(&publish(b"t", 1, &[], b"old")).await;
    assert_eq!(next(&mut *source).await.unwrap().get(0).body, b"old");
    drop(peer);
    let mut peer = broker.accept().await;
    peer.send(&connack(false, 0, &[])).await;
    peer.subscribed(1).await;
    peer.send(&publish(b"t", 1, &[], b"new")).await;
    assert_eq!(next(&mut *source).await.unwrap().get(0).body, b"new");
    source.ack(1).await.unwrap();
    assert_eq!(peer.acks(SHORT).await, [0_u16; 0]);
    source.ack(1).await.unwrap();
    assert_eq!(peer.acks(SHORT).await, [1]);
    assert_eq!((meter.gaps.load(Relaxed), meter.reconnects.load(Relaxed)), (1, 1));
}

#[test]
fn an_ack_that_knows_no_connection_is_noticed() {
    is_caught("no-connection-epoch", "acks_of_an_old_connection_never_reach_a_new_one");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acks_come_in_order_and_odd_topics_pass() {
    let broker = FakeBroker::bind().await;
    let (mut source, _) = open(&text(broker.port)).await.unwrap();
    let mut peer = broker.accept().await;
    // A server keep-alive of 0 must not make a storm of pings.
    peer.send(&connack(false, 0, &[0x13, 0, 0])).await;
    peer.subscribed(1).await;
    peer.send(&publish(&[0xff, 0xfe], 7, &[], b"a")).await;
    peer.send(&publish(b"t", 3, &[], b"b")).await;
    peer.send(&publish(b"t", 5, &[0x26, 0, 1, b'k', 0, 1, b'v'], b"c")).await;
    let mut seen = Vec::new();
    while seen.len() < 3 {
        for payload in next(&mut *source).await.unwrap().iter() {
            seen.push((payload.topic.to_vec(), payload.properties.to_vec()));
        }
    }
    assert_eq!(seen[0].0, [0xff, 0xfe]);
    assert_eq!(seen[2].1, [("k".to_owned(), "v".to_owned())]);
    source.ack(2).await.unwrap();
    source.ack(1).await.unwrap();
    assert_eq!(peer.acks(SHORT).await, [7, 3, 5]);
}

/// A broker that allows nothing in flight, once: the client kept that for ever, and acknowledged nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_connection_allows_is_forgotten_with_it() {
    let broker = FakeBroker::bind().await;
    let (mut source, _) = open(&text(broker.port)).await.unwrap();
    let mut peer = broker.accept().await;
    peer.send(&connack(false, 0, &[0x21, 0, 0])).await;
    assert_eq!(peer.read().await, None, "the connection is given up");
    let mut peer = broker.accept().await;
    peer.send(&connack(false, 0, &[])).await;
    peer.subscribed(1).await;
    peer.send(&publish(b"t", 7, &[], b"a")).await;
    next(&mut *source).await.unwrap();
    source.ack(1).await.unwrap();
    assert_eq!(peer.acks(SHORT).await, [7]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_pipeline_keeps_the_connection() {
    let broker = FakeBroker::bind().await;
    let (mut source, meter) = open(&text(broker.port)).await.unwrap();
    let mut peer = broker.accept().await;
    peer.send(&connack(false, 0, &[])).await;
    peer.subscribed(1).await;
    for id in 1..=50 {
        peer.send(&publish(b"t", id, &[], b"x")).await;
    }
    assert_eq!(peer.acks(Duration::from_secs(12)).await, [0_u16; 0]);
    assert_eq!((meter.connected.load(Relaxed), meter.reconnects.load(Relaxed)), (1, 0));
    assert_eq!(next(&mut *source).await.unwrap().len(), 50);
    source.ack(50).await.unwrap();
    assert_eq!(peer.acks(SHORT).await, (1..=50).collect::<Vec<u16>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_end_the_source_and_say_what_to_fix() {
    for (connect, subscribe, says) in
        [(0x86, None, "password"), (0, Some(0x87), "`t`"), (0, Some(0), "allow_downgrade")]
    {
        let broker = FakeBroker::bind().await;
        let (mut source, _) = open(&text(broker.port)).await.unwrap();
        let mut peer = broker.accept().await;
        peer.send(&connack(false, connect, &[])).await;
        if let Some(code) = subscribe {
            peer.subscribed(code).await;
        }
        let why = next(&mut *source).await.unwrap_err().to_string();
        assert!(why.contains(says), "{why}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_takeovers_are_one_too_many() {
    let broker = FakeBroker::bind().await;
    let (mut source, _) = open(&text(broker.port)).await.unwrap();
    for _ in 0..3 {
        let mut peer = broker.accept().await;
        peer.send(&connack(true, 0, &[])).await;
        peer.send(&packet(0xe0, &[0x8e, 0])).await;
    }
    let why = next(&mut *source).await.unwrap_err().to_string();
    assert!(why.contains("client_id"), "{why}");
}

#[test]
fn faults_are_found_at_once() {
    let faults = spec("url = \"http://h\"\nqos = 3\nprotocol = 6\ncert = \"c\"").unwrap_err();
    assert_eq!(faults.len(), 5, "url, protocol, cert without key, topics, qos: {faults:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn topic_aliases_are_understood_though_none_are_allowed() {
    let broker = FakeBroker::bind().await;
    let (mut source, meter) = open(&text(broker.port)).await.unwrap();
    let mut peer = broker.accept().await;
    peer.send(&connack(false, 0, &[])).await;
    peer.subscribed(1).await;
    peer.send(&publish(b"t", 1, &[0x23, 0, 1], b"a")).await;
    peer.send(&publish(b"", 2, &[0x23, 0, 1], b"b")).await;
    // An alias that was never told, and none at all.
    peer.send(&publish(b"", 3, &[0x23, 0, 9], b"c")).await;
    peer.send(&publish(b"", 4, &[], b"d")).await;
    peer.send(&publish(b"t", 5, &[], b"e")).await;
    let mut seen = Vec::new();
    while seen.len() < 5 {
        seen.extend(next(&mut *source).await.unwrap().iter().map(|payload| payload.topic.to_vec()));
    }
    assert_eq!(seen, [b"t".as_slice(), b"t", b"", b"", b"t"]);
    source.ack(5).await.unwrap();
    assert_eq!(peer.acks(SHORT).await, [1, 2, 3, 4, 5]);
    assert_eq!(meter.reconnects.load(Relaxed), 0);
    // They die with their connection.
    drop(peer);
    let mut peer = broker.accept().await;
    peer.send(&connack(true, 0, &[])).await;
    peer.send(&publish(b"", 1, &[0x23, 0, 1], b"f")).await;
    assert_eq!(next(&mut *source).await.unwrap().get(0).topic, b"");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_packet_that_is_too_large_makes_no_storm_of_connections() {
    let broker = FakeBroker::bind().await;
    let (mut source, _) = open(&format!("{}\nmax_packet = \"1KiB\"", text(broker.port))).await.unwrap();
    let too_large = publish(b"t", 1, &[], &[b'x'; 4096]);
    let mut connections = 0;
    let until = tokio::time::Instant::now() + Duration::from_secs(3);
    while let Ok(mut peer) = tokio::time::timeout_at(until, broker.accept()).await {
        peer.send(&connack(connections > 0, 0, &[])).await;
        if connections == 0 {
            peer.subscribed(1).await;
        }
        peer.send(&too_large).await;
        peer.acks(Duration::from_secs(1)).await;
        connections += 1;
    }
    // The pauses add up to at least 0.1 + 0.1 + 0.2 + 0.4 + 0.8 + 1.6 s before the seventh.
    assert!((2..=6).contains(&connections), "{connections}");
    // Once the broker has let go of it, all is well.
    let mut peer = broker.accept().await;
    peer.send(&connack(true, 0, &[])).await;
    peer.send(&publish(b"t", 2, &[], b"fits")).await;
    assert_eq!(next(&mut *source).await.unwrap().get(0).body, b"fits");
    source.ack(1).await.unwrap();
    assert_eq!(peer.acks(SHORT).await, [2]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_many_bytes_that_wait_give_the_connection_up() {
    let broker = FakeBroker::bind().await;
    // Room for two packets of 1 KiB, and 128 bytes of bookkeeping for each.
    let limits = "receive_maximum = 2\nmax_packet = \"1KiB\"";
    let (mut source, meter) = open(&format!("{}\n{limits}", text(broker.port))).await.unwrap();
    let mut peer = broker.accept().await;
    peer.send(&connack(false, 0, &[])).await;
    peer.subscribed(1).await;
    let body = [b'x'; 900];
    for id in 1..=2 {
        peer.send(&publish(b"t", id, &[], &body)).await;
    }
    assert_eq!(peer.acks(SHORT).await, [0_u16; 0]);
    assert_eq!(meter.backpressure_disconnects.load(Relaxed), 0);
    // A broker that does not keep to the window.
    peer.send(&publish(b"t", 3, &[], &body)).await;
    assert_eq!(peer.read().await, None);
    assert_eq!(meter.backpressure_disconnects.load(Relaxed), 1);
    assert_eq!(meter.received.load(Relaxed), 0, "what comes again is not counted twice");
    let mut peer = broker.accept().await;
    peer.send(&connack(true, 0, &[])).await;
    for id in 1..=3 {
        peer.send(&publish(b"t", id, &[], &body)).await;
        assert_eq!(next(&mut *source).await.unwrap().get(0).body, body);
    }
    source.ack(3).await.unwrap();
    assert_eq!(peer.acks(SHORT).await, [1, 2, 3]);
    assert_eq!((meter.received.load(Relaxed), meter.gaps.load(Relaxed)), (3, 0));
}

/// A client that does what the test says: each event once, then nothing more.
struct Scripted {
    events: VecDeque<Event>,
    requests: Arc<Grudging>,
    resets: Arc<AtomicU64>,
}

/// Refuses two of three acknowledgements.
#[derive(Default)]
struct Grudging {
    asked: AtomicU64,
    acks: Mutex<Vec<u16>>,
}

impl Client for Scripted {
    fn poll(&mut self) -> BoxFuture<'_, Event> {
        match self.events.pop_front() {
            Some(event) => Box::pin(std::future::ready(event)),
            None => Box::pin(std::future::pending()),
        }
    }

    fn reset(&mut self) {
        self.resets.fetch_add(1, Relaxed);
    }

    fn requests(&self) -> Arc<dyn Requests> {
        self.requests.clone()
    }
}

impl Requests for Grudging {
    fn unsubscribe(&self, _: &[String]) -> bool {
        true
    }

    fn subscribe(&self, _: &[String], _: u8) -> bool {
        true
    }

    fn try_ack(&self, packet_id: u16) -> bool {
        let takes = self.asked.fetch_add(1, Relaxed) % 3 == 2;
        if takes {
            self.acks.lock().unwrap().push(packet_id);
        }
        takes
    }

    fn publish(&self, _: &str, _: Bytes, _: u8, _: bool) -> bool {
        true
    }

    fn disconnect(&self) -> bool {
        true
    }
}

fn scripted(
    silence_max: Duration,
    events: impl IntoIterator<Item = Event>,
) -> (MqttSource, Arc<Grudging>, Arc<AtomicU64>, Arc<SourceMeter>) {
    let (requests, resets) = (Arc::new(Grudging::default()), Arc::new(AtomicU64::new(0)));
    let client = Scripted { events: events.into_iter().collect(), requests: requests.clone(), resets: resets.clone() };
    let wanted = Wanted {
        filters: vec!["t".to_owned()],
        qos: 1,
        skip_retained: false,
        allow_downgrade: false,
        silence_max,
        queue_bytes: 1 << 20,
    };
    let (context, meter) = context();
    (MqttSource::start(Box::new(client), wanted, context), requests, resets, meter)
}

fn opened() -> [Event; 2] {
    [Event::Connected { session_present: false }, Event::Subscribed(vec![Granted::Qos(1)])]
}

fn payload(packet_id: u16) -> Event {
    let delivery = Delivery { qos: 1, retained: false, dup: false, packet_id, connection: 0 };
    Event::Publish(Arrived { topic: "t".into(), body: "b".into(), delivery, properties: Vec::new() })
}

#[tokio::test]
async fn acks_for_which_there_is_no_room_are_tried_again_in_order() {
    let (mut source, requests, resets, _) =
        scripted(Duration::from_secs(30), opened().into_iter().chain((1..=20).map(payload)));
    let mut taken = 0;
    while taken < 20 {
        taken += next(&mut source).await.unwrap().len();
    }
    source.ack(20).await.unwrap();
    assert_eq!(*requests.acks.lock().unwrap(), [0_u16; 0], "the first is refused");
    // Nothing more comes: waiting for it is what tries again.
    let mut into = Payloads::default();
    let until = tokio::time::Instant::now() + Duration::from_secs(10);
    while requests.acks.lock().unwrap().len() < 20 && resets.load(Relaxed) == 0 {
        assert!(tokio::time::Instant::now() < until);
        let _ = tokio::time::timeout(Duration::from_millis(5), source.next(&mut into, 100)).await;
    }
    let acks = requests.acks.lock().unwrap().clone();
    assert_eq!(acks, (1..=20).collect::<Vec<u16>>());
}

#[tokio::test]
async fn a_client_that_is_stuck_is_given_up() {
    // As when the peer reads nothing more, and a write never ends: no event, for ever.
    let (mut source, requests, resets, meter) = scripted(SHORT, opened().into_iter().chain([payload(1)]));
    assert_eq!(next(&mut source).await.unwrap().len(), 1);
    until("the connection is given up", || resets.load(Relaxed) > 0).await;
    assert_eq!(meter.connected.load(Relaxed), 0);
    // The payload will come again: its acknowledgement is void.
    source.ack(1).await.unwrap();
    assert_eq!(requests.asked.load(Relaxed), 0);
}

#[test]
fn faults_stand_at_the_values() {
    for (wrong, value) in [
        ("qos = 3", "3"),
        ("protocol = 6", "6"),
        ("receive_maximum = 0", "0"),
        ("max_packet = \"1B\"", "\"1B\""),
        ("keep_alive = \"1s\"", "\"1s\""),
        ("client_id = \"\"", "\"\""),
        ("shared_group = \"a/b\"", "\"a/b\""),
        ("password = \"p\"", "\"p\""),
    ] {
        let keep_alive = if wrong.starts_with("keep") { "" } else { "keep_alive = \"5s\"" };
        let text = format!("url = \"mqtt://h\"\ntopics = [\"t\"]\n{keep_alive}\n{wrong}\n");
        let faults = spec(&text).unwrap_err();
        assert_eq!(faults.len(), 1, "{wrong}: {faults:?}");
        assert_eq!(&text[faults[0].at.clone()], value, "{}", faults[0].what);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_may_have_no_password() {
    for protocol in [4, 5] {
        let broker = FakeBroker::bind().await;
        let settings = format!("{}\nusername = \"u\"\nprotocol = {protocol}", text(broker.port));
        let (_source, _) = open(&settings).await.unwrap();
        // The flags stand behind the protocol's name and level.
        let flags = broker.accept_with_connect().await.1[7];
        assert_eq!(flags & 0b1100_0000, 0b1000_0000, "a user, no password");
    }
}
