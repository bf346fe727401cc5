//! Against a real mosquitto.
#![allow(missing_docs)]

mod support;

use support::connect::{next, open};
use support::mosquitto::Mosquitto;

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
