//! Edge cases of the protocol, against a scripted broker.
#![allow(missing_docs)]

mod support;

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use support::connect::{next, open, spec};
use support::fake_broker::{FakeBroker, connack, packet, publish};

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
