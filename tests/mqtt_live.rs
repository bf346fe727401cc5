//! Against a real mosquitto.
#![allow(missing_docs)]

mod support;

use std::sync::atomic::Ordering::Relaxed;

use support::authority::Authority;
use support::connect::{acked_bodies, bodies, next, numbers, open, publish_all, subscribed, until};
use support::mosquitto::{Mosquitto, free_port};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_thousand_payloads_arrive_one_by_one() {
    let Some(broker) = Mosquitto::start("allow_anonymous true") else { return };
    let url = format!("url = \"mqtt://127.0.0.1:{}\"\ntopics = [\"n/#\"]", broker.port);
    let (mut source, _) = open(&url).await.unwrap();
    let mut options = rumqttc::MqttOptions::new("publisher", "127.0.0.1", broker.port);
    options.set_inflight(100);
    let (client, mut events) = rumqttc::AsyncClient::new(options, 100);
    tokio::spawn(async move { while events.poll().await.is_ok() {} });
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    tokio::spawn(async move {
        for number in 0..100_000_u32 {
            client.publish("n/x", rumqttc::QoS::AtLeastOnce, false, number.to_string()).await.unwrap();
        }
        std::future::pending::<()>().await;
    });
    let mut expected = 0_u32;
    while expected < 100_000 {
        let payloads = next(&mut *source).await.unwrap();
        for payload in payloads.iter() {
            assert_eq!(payload.body, expected.to_string().as_bytes());
            expected += 1;
        }
        source.ack(payloads.len() as u64).await.unwrap();
    }
    source.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_are_told_to_check_their_password() {
    let Some(broker) = Mosquitto::start("allow_anonymous false") else { return };
    for protocol in [4, 5] {
        let url = format!("url = \"mqtt://127.0.0.1:{}\"\ntopics = [\"n/#\"]\nprotocol = {protocol}", broker.port);
        let (mut source, _) = open(&url).await.unwrap();
        let why = next(&mut *source).await.unwrap_err().to_string();
        assert!(why.contains("password"), "{why}");
    }
}

/// Everything that is published arrives at the source of these settings.
async fn carries(broker: &Mosquitto, settings: &str) {
    let (mut source, meter) = open(settings).await.unwrap();
    subscribed(&meter).await;
    publish_all(broker.port, "n/x", false, numbers(0..300)).await;
    assert_eq!(acked_bodies(&mut *source, 300).await, numbers(0..300), "{settings}");
    source.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_protocols_carry_payloads_through_tls() {
    let (authority, port) = (Authority::new(), free_port());
    let Some(broker) = Mosquitto::start(&authority.listener(port)) else { return };
    for protocol in [4, 5] {
        let ca = authority.file("ca.pem");
        let text =
            format!("url = \"mqtts://localhost:{port}\"\ntopics = [\"n/#\"]\nca = \"{ca}\"\nprotocol = {protocol}");
        carries(&broker, &text).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_is_not_trusted_ends_the_source() {
    let (authority, other, port) = (Authority::new(), Authority::new(), free_port());
    let Some(_broker) = Mosquitto::start(&authority.listener(port)) else { return };
    // Signed by somebody else; signed for another name.
    for (host, ca) in [("localhost", other.file("ca.pem")), ("127.0.0.1", authority.file("ca.pem"))] {
        for protocol in [4, 5] {
            let text =
                format!("url = \"mqtts://{host}:{port}\"\ntopics = [\"t\"]\nca = \"{ca}\"\nprotocol = {protocol}");
            let (mut source, _) = open(&text).await.unwrap();
            let why = next(&mut *source).await.unwrap_err().to_string();
            assert!(why.contains("certificate") && why.contains("check `ca`"), "{why}");
        }
    }
    let text = format!("url = \"mqtts://localhost:{port}\"\ntopics = [\"t\"]\nca = \"/nowhere.pem\"");
    let why = open(&text).await.err().unwrap().to_string();
    assert!(why.contains("`ca`") && why.contains("/nowhere.pem"), "{why}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_may_want_a_certificate_of_ours() {
    let (authority, port) = (Authority::new(), free_port());
    let listener = format!("{}\nrequire_certificate true", authority.listener(port));
    let Some(broker) = Mosquitto::start(&listener) else { return };
    let (ca, cert, key) = (authority.file("ca.pem"), authority.file("client.pem"), authority.file("client.key"));
    let without = format!("url = \"mqtts://localhost:{port}\"\ntopics = [\"n/#\"]\nca = \"{ca}\"");
    carries(&broker, &format!("{without}\ncert = \"{cert}\"\nkey = \"{key}\"")).await;
    let (mut source, _) = open(&without).await.unwrap();
    let why = next(&mut *source).await.unwrap_err().to_string();
    assert!(why.contains("check `ca`, `cert`, `key`"), "{why}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn websockets_carry_payloads() {
    let port = free_port();
    let extra = format!("allow_anonymous true\nlistener {port} 127.0.0.1\nprotocol websockets");
    let Some(broker) = Mosquitto::start(&extra) else { return };
    for protocol in [4, 5] {
        let text = format!("url = \"ws://127.0.0.1:{port}/mqtt\"\ntopics = [\"n/#\"]\nprotocol = {protocol}");
        carries(&broker, &text).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_old_protocol_carries_payloads() {
    let Some(broker) = Mosquitto::start("allow_anonymous true") else { return };
    for qos in [0, 1, 2] {
        let text = format!("url = \"{}\"\ntopics = [\"n/#\"]\nprotocol = 4\nqos = {qos}", broker.url());
        carries(&broker, &text).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_session_outlives_a_restart_of_ours() {
    let Some(broker) = Mosquitto::start("allow_anonymous true") else { return };
    let text = format!("url = \"{}\"\ntopics = [\"n/#\"]\nreceive_maximum = 50", broker.url());
    let (mut source, meter) = open(&text).await.unwrap();
    subscribed(&meter).await;
    source.close().await;
    publish_all(broker.port, "n/x", false, numbers(0..500)).await;
    // An orderly end: acknowledgements arrive, the rest comes again.
    let (mut source, _) = open(&text).await.unwrap();
    let seen = bodies(&mut *source, 30).await;
    assert_eq!(seen, numbers(0..seen.len() as u32));
    source.ack(20).await.unwrap();
    source.close().await;
    // A crash: nothing is said any more, so everything unacknowledged comes again.
    let (mut source, meter) = open(&text).await.unwrap();
    assert_eq!(bodies(&mut *source, 1).await[0], "20");
    assert_eq!(meter.gaps.load(Relaxed), 0);
    drop(source);
    let (mut source, _) = open(&text).await.unwrap();
    assert_eq!(acked_bodies(&mut *source, 480).await, numbers(20..500));
    source.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_restarts_is_found_again() {
    let Some(mut broker) = Mosquitto::start("allow_anonymous true") else { return };
    let text = format!("url = \"{}\"\ntopics = [\"n/#\"]", broker.url());
    let (mut source, meter) = open(&text).await.unwrap();
    subscribed(&meter).await;
    for round in 1..=3 {
        broker.stop();
        until("the loss is noticed", || meter.connected.load(Relaxed) == 0).await;
        broker.start_again();
        subscribed(&meter).await;
        publish_all(broker.port, "n/x", false, numbers(0..100)).await;
        assert_eq!(bodies(&mut *source, 100).await, numbers(0..100));
        source.ack(100).await.unwrap();
        // It keeps nothing, so each of its ends is a gap.
        assert_eq!((meter.reconnects.load(Relaxed), meter.gaps.load(Relaxed)), (round, round));
    }
    source.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_stands_still_is_noticed() {
    let Some(broker) = Mosquitto::start("allow_anonymous true") else { return };
    let text = format!("url = \"{}\"\ntopics = [\"n/#\"]\nkeep_alive = \"5s\"", broker.url());
    let (mut source, meter) = open(&text).await.unwrap();
    subscribed(&meter).await;
    broker.sigstop();
    until("the silence is noticed", || meter.connected.load(Relaxed) == 0).await;
    broker.sigcont();
    subscribed(&meter).await;
    publish_all(broker.port, "n/x", false, numbers(0..10)).await;
    assert_eq!(bodies(&mut *source, 10).await, numbers(0..10));
    // The session was there all the time.
    assert_eq!(meter.gaps.load(Relaxed), 0);
    source.ack(10).await.unwrap();
    source.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_of_a_group_share_the_payloads() {
    let Some(broker) = Mosquitto::start("allow_anonymous true") else { return };
    let text = |id: &str| {
        format!("url = \"{}\"\ntopics = [\"n/#\"]\nshared_group = \"g\"\nclient_id = \"{id}\"", broker.url())
    };
    let (mut a, meter_a) = open(&text("a")).await.unwrap();
    let (mut b, meter_b) = open(&text("b")).await.unwrap();
    subscribed(&meter_a).await;
    subscribed(&meter_b).await;
    publish_all(broker.port, "n/x", false, numbers(0..200)).await;
    // mosquitto takes turns.
    let (seen_a, seen_b) = (bodies(&mut *a, 100).await, bodies(&mut *b, 100).await);
    assert_eq!((seen_a.len(), seen_b.len()), (100, 100));
    let mut all: Vec<u32> = seen_a.iter().chain(&seen_b).map(|body| body.parse().unwrap()).collect();
    all.sort_unstable();
    assert_eq!(all, (0..200).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retained_payloads_are_kept_or_skipped() {
    let Some(broker) = Mosquitto::start("allow_anonymous true") else { return };
    publish_all(broker.port, "n/old", true, ["old".to_owned()]).await;
    for (protocol, retained) in [(4, "keep"), (5, "keep"), (4, "skip"), (5, "skip")] {
        let text = format!(
            "url = \"{}\"\ntopics = [\"n/#\"]\nretained = \"{retained}\"\nprotocol = {protocol}\nclient_id = \"{retained}{protocol}\"",
            broker.url()
        );
        let (mut source, meter) = open(&text).await.unwrap();
        subscribed(&meter).await;
        publish_all(broker.port, "n/new", false, ["new".to_owned()]).await;
        let expected: &[(&str, bool)] =
            if retained == "keep" { &[("old", true), ("new", false)] } else { &[("new", false)] };
        let mut seen = Vec::new();
        while seen.len() < expected.len() {
            for payload in next(&mut *source).await.unwrap().iter() {
                seen.push((String::from_utf8(payload.body.to_vec()).unwrap(), payload.delivery.retained));
            }
        }
        let seen: Vec<_> = seen.iter().map(|(body, retained)| (body.as_str(), *retained)).collect();
        assert_eq!(seen, expected, "{protocol} {retained}");
        assert_eq!(meter.received.load(Relaxed), expected.len() as u64);
        source.ack(expected.len() as u64).await.unwrap();
        source.close().await;
    }
}
