//! The ways to a broker and the life of a session, against a real mosquitto: TLS, mutual TLS, websocket, MQTT 3.1.1, kept
//! and shared sessions, a broker that is frozen.
#![allow(missing_docs)]

mod support;

use std::net::TcpListener;
use std::path::Path;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use streamgauge::flow::time::Timestamp;
use streamgauge::ingest::Source;
use streamgauge::ingest::fleet::{FleetMessage, Publisher, What, publish};
use streamgauge::ingest::recording::Speed;
use support::connect::{next, open};
use support::mosquitto::Mosquitto;

const OPEN: &str = "allow_anonymous true\nuser root";

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Publishes `bodies` at QoS 1 to the plain listener.
async fn send(broker: &Mosquitto, topic: &'static str, bodies: impl IntoIterator<Item = String>) {
    let message = |body: String| FleetMessage {
        arrival: Timestamp::from_micros(0),
        device: 0,
        topic: topic.into(),
        body: body.into(),
        what: What::Good,
    };
    let to = Publisher { host: "127.0.0.1".to_owned(), port: broker.port, qos: 1, connections: 1, speed: Speed::Max };
    let messages: Vec<FleetMessage> = bodies.into_iter().map(message).collect();
    publish(messages, &to).await.unwrap();
}

/// The next `count` bodies, acknowledged where that is wanted.
async fn take(source: &mut dyn Source, count: usize, ack: bool) -> Vec<String> {
    let mut bodies = Vec::new();
    while bodies.len() < count {
        let payloads = next(source).await.unwrap();
        bodies.extend(payloads.iter().map(|payload| String::from_utf8(payload.body.to_vec()).unwrap()));
        if ack {
            source.ack(payloads.len() as u64).await.unwrap();
        }
    }
    bodies
}

/// Opens a source, and waits until it is subscribed.
async fn subscribed(text: &str) -> Box<dyn Source> {
    let (source, meter) = open(text).await.unwrap();
    let patience = async {
        while meter.connected.load(Relaxed) == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), patience).await.expect("it subscribes");
    source
}

fn numbers(range: std::ops::Range<u32>) -> Vec<String> {
    range.map(|number| number.to_string()).collect()
}

/// A throw-away authority, and what it has signed, as PEM files of a folder.
fn authority(folder: &Path, name: &str) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    std::fs::write(folder.join(format!("{name}.pem")), authority.pem()).unwrap();
    for who in ["broker", "client"] {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &authority).unwrap();
        std::fs::write(folder.join(format!("{name}-{who}.pem")), certificate.pem()).unwrap();
        std::fs::write(folder.join(format!("{name}-{who}.key")), key.serialize_pem()).unwrap();
    }
}

fn provider() {
    // The binary does so at its start; another test may have done so already.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_verifies_the_broker() {
    provider();
    let folder = tempfile::tempdir().unwrap();
    authority(folder.path(), "ours");
    authority(folder.path(), "theirs");
    let (port, dir) = (free_port(), folder.path().display().to_string());
    let listener =
        format!("{OPEN}\nlistener {port} 127.0.0.1\ncertfile {dir}/ours-broker.pem\nkeyfile {dir}/ours-broker.key");
    let Some(broker) = Mosquitto::start(&listener) else { return };
    let settings =
        |ca: &str| format!("url = \"mqtts://localhost:{port}\"\ntopics = [\"n/#\"]\nca = \"{dir}/{ca}.pem\"");
    let mut source = subscribed(&settings("ours")).await;
    send(&broker, "n/x", numbers(0..10)).await;
    assert_eq!(take(&mut *source, 10, true).await, numbers(0..10));

    let (mut stranger, _) = open(&settings("theirs")).await.unwrap();
    let why = next(&mut *stranger).await.unwrap_err().to_string();
    assert!(why.contains("certificate"), "an authority that is not ours is refused for good: {why}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mutual_tls_shows_who_we_are() {
    provider();
    let folder = tempfile::tempdir().unwrap();
    authority(folder.path(), "ours");
    let (port, dir) = (free_port(), folder.path().display().to_string());
    let listener = format!(
        "{OPEN}\nlistener {port} 127.0.0.1\ncafile {dir}/ours.pem\ncertfile {dir}/ours-broker.pem\n\
         keyfile {dir}/ours-broker.key\nrequire_certificate true"
    );
    let Some(broker) = Mosquitto::start(&listener) else { return };
    let anonymous = format!("url = \"mqtts://localhost:{port}\"\ntopics = [\"n/#\"]\nca = \"{dir}/ours.pem\"");
    let known = format!("{anonymous}\ncert = \"{dir}/ours-client.pem\"\nkey = \"{dir}/ours-client.key\"");
    let mut source = subscribed(&known).await;
    send(&broker, "n/x", numbers(0..10)).await;
    assert_eq!(take(&mut *source, 10, true).await, numbers(0..10));

    let (mut stranger, _) = open(&anonymous).await.unwrap();
    let why = next(&mut *stranger).await.unwrap_err().to_string();
    assert!(why.contains("CertificateRequired"), "who shows no certificate is told so: {why}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn websockets_carry_the_same() {
    let port = free_port();
    let Some(broker) = Mosquitto::start(&format!("{OPEN}\nlistener {port} 127.0.0.1\nprotocol websockets")) else {
        return;
    };
    for protocol in [5, 4] {
        let settings = format!(
            "url = \"ws://127.0.0.1:{port}/mqtt\"\ntopics = [\"n/#\"]\nprotocol = {protocol}\nclient_id = \"ws{protocol}\""
        );
        let mut source = subscribed(&settings).await;
        send(&broker, "n/x", numbers(0..100)).await;
        assert_eq!(take(&mut *source, 100, true).await, numbers(0..100), "MQTT {protocol}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mqtt_3_carries_the_same() {
    let Some(broker) = Mosquitto::start(OPEN) else { return };
    let mut source = subscribed(&format!("url = \"{}\"\ntopics = [\"n/{{x}}\"]\nprotocol = 4", broker.url())).await;
    send(&broker, "n/x", numbers(0..5_000)).await;
    assert_eq!(take(&mut *source, 5_000, true).await, numbers(0..5_000));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_broker_keeps_our_session_while_we_are_away() {
    let Some(broker) = Mosquitto::start(OPEN) else { return };
    for protocol in [5, 4] {
        let settings = format!(
            "url = \"{}\"\ntopics = [\"n/#\"]\nprotocol = {protocol}\nclient_id = \"kept{protocol}\"",
            broker.url()
        );
        let mut source = subscribed(&settings).await;
        send(&broker, "n/x", numbers(0..20)).await;
        // Ten are safe; the others were seen, but nobody said that they are safe.
        assert_eq!(take(&mut *source, 20, false).await, numbers(0..20));
        source.ack(10).await.unwrap();
        source.close().await;
        drop(source);
        send(&broker, "n/x", numbers(20..40)).await;
        let mut source = subscribed(&settings).await;
        assert_eq!(
            take(&mut *source, 30, true).await,
            numbers(10..40),
            "MQTT {protocol}: in order, nothing lost, nothing safe again"
        );
        source.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_broker_is_noticed_and_taken_up_again() {
    let Some(broker) = Mosquitto::start(OPEN) else { return };
    let (mut source, meter) =
        open(&format!("url = \"{}\"\ntopics = [\"n/#\"]\nkeep_alive = \"5s\"", broker.url())).await.unwrap();
    while meter.connected.load(Relaxed) == 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    broker.sigstop();
    let patience = async {
        while meter.connected.load(Relaxed) == 1 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), patience).await.expect("silence is noticed");
    broker.sigcont();
    let patience = async {
        while meter.connected.load(Relaxed) == 0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), patience).await.expect("it comes back by itself");
    send(&broker, "n/x", numbers(0..10)).await;
    assert_eq!(take(&mut *source, 10, true).await, numbers(0..10));
    assert_eq!(meter.gaps.load(Relaxed), 0, "the broker kept the session");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_of_a_group_share_the_messages() {
    let Some(broker) = Mosquitto::start(OPEN) else { return };
    let settings = |id: &str| {
        format!("url = \"{}\"\ntopics = [\"n/#\"]\nshared_group = \"g\"\nclient_id = \"{id}\"", broker.url())
    };
    let (mut a, mut b) = (subscribed(&settings("a")).await, subscribed(&settings("b")).await);
    send(&broker, "n/x", numbers(0..100)).await;
    // mosquitto deals them in turn.
    let mut all = take(&mut *a, 50, true).await;
    all.extend(take(&mut *b, 50, true).await);
    all.sort_by_key(|number| number.parse::<u32>().unwrap());
    assert_eq!(all, numbers(0..100));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retained_payloads_are_kept_or_skipped() {
    let Some(broker) = Mosquitto::start(OPEN) else { return };
    let (client, mut events) = rumqttc::AsyncClient::new(rumqttc::MqttOptions::new("p", "127.0.0.1", broker.port), 10);
    client.publish("n/old", rumqttc::QoS::AtLeastOnce, true, "old").await.unwrap();
    while !matches!(events.poll().await.unwrap(), rumqttc::Event::Incoming(rumqttc::Packet::PubAck(_))) {}
    for (retained, expected) in [("keep", vec!["old", "new"]), ("skip", vec!["new"])] {
        let settings = format!(
            "url = \"{}\"\ntopics = [\"n/#\"]\nretained = \"{retained}\"\nclient_id = \"{retained}\"",
            broker.url()
        );
        let mut source = subscribed(&settings).await;
        send(&broker, "n/new", ["new".to_owned()]).await;
        assert_eq!(take(&mut *source, expected.len(), true).await, expected, "{retained}");
    }
}
