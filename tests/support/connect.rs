//! What the MQTT tests share.
#![allow(dead_code, missing_docs, unreachable_pub)]

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use streamgauge::component::{Fault, Settings};
use streamgauge::flow::meter::SourceMeter;
use streamgauge::flow::payload::Payloads;
use streamgauge::ingest::{ArrivalClock, Source, SourceContext, SourceError, SourceSpec, mqtt};

pub fn spec(text: &str) -> Result<Box<dyn SourceSpec>, Vec<Fault>> {
    let (entries, faults) = streamgauge::pipeline::file::parse(text);
    assert_eq!(faults, [], "the test's own TOML");
    let faults = Rc::new(RefCell::new(Vec::new()));
    let mut settings = Settings::new(0..text.len(), entries, faults.clone());
    let spec = (mqtt::KIND.parse)(&mut settings);
    settings.finish();
    drop(settings);
    let faults = faults.take();
    if faults.is_empty() { Ok(spec.unwrap()) } else { Err(faults) }
}

pub fn context() -> (SourceContext, Arc<SourceMeter>) {
    let meter = Arc::new(SourceMeter::default());
    let context = SourceContext {
        name: "s".into(),
        pipeline: "p".into(),
        clock: Arc::new(ArrivalClock::default()),
        meter: meter.clone(),
        memory_bytes: u64::MAX,
        kept: None,
        taken: 0,
        connection: 0,
        redeliveries: Arc::new([]),
        replies: Arc::default(),
    };
    (context, meter)
}

pub async fn open(text: &str) -> Result<(Box<dyn Source>, Arc<SourceMeter>), SourceError> {
    let (context, meter) = context();
    Ok((spec(text).unwrap().open(context).await?, meter))
}

pub async fn next(source: &mut dyn Source) -> Result<Payloads, SourceError> {
    let mut into = Payloads::default();
    tokio::time::timeout(Duration::from_secs(20), source.next(&mut into, 4096)).await.expect("a payload in time")?;
    Ok(into)
}

/// Waits until something holds.
pub async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(25);
    while !holds() {
        assert!(tokio::time::Instant::now() < deadline, "in time: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Waits until a source is subscribed.
pub async fn subscribed(meter: &SourceMeter) {
    until("subscribed", || meter.connected.load(Relaxed) == 1).await;
}

/// Publishes bodies at QoS 1, and waits until the broker has taken every one.
pub async fn publish_all(port: u16, topic: &str, retain: bool, bodies: impl IntoIterator<Item = String>) {
    let bodies: Vec<String> = bodies.into_iter().collect();
    let mut options = rumqttc::MqttOptions::new(format!("publisher-{topic}").replace('/', "-"), "127.0.0.1", port);
    options.set_inflight(100);
    let (client, mut events) = rumqttc::AsyncClient::new(options, 100);
    let (topic, mut left) = (topic.to_owned(), bodies.len());
    let asking = tokio::spawn(async move {
        for body in bodies {
            client.publish(&topic, rumqttc::QoS::AtLeastOnce, retain, body).await.unwrap();
        }
        client
    });
    while left > 0 {
        let event = events.poll().await.unwrap();
        left -= usize::from(matches!(event, rumqttc::Event::Incoming(rumqttc::Packet::PubAck(_))));
    }
    asking.await.unwrap().disconnect().await.unwrap();
    while !matches!(events.poll().await, Ok(rumqttc::Event::Outgoing(rumqttc::Outgoing::Disconnect)) | Err(_)) {}
}

/// The bodies of the next `count` payloads, or a few more; they are not acknowledged.
pub async fn bodies(source: &mut dyn Source, count: usize) -> Vec<String> {
    let mut seen = Vec::new();
    while seen.len() < count {
        let payloads = next(source).await.unwrap();
        seen.extend(payloads.iter().map(|payload| String::from_utf8(payload.body.to_vec()).unwrap()));
    }
    seen
}

/// As `bodies`, each acknowledged at once.
pub async fn acked_bodies(source: &mut dyn Source, count: usize) -> Vec<String> {
    let mut seen = Vec::new();
    while seen.len() < count {
        let more = bodies(source, 1).await;
        source.ack(more.len() as u64).await.unwrap();
        seen.extend(more);
    }
    seen
}

/// Whole numbers as text.
pub fn numbers(range: std::ops::Range<u32>) -> Vec<String> {
    range.map(|number| number.to_string()).collect()
}
