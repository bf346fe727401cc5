//! Backpressure: a stuck sink stops the source at exactly the payload that the arithmetic says, and lets it go on.

mod support;

use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use streamgauge::engine::Options;
use streamgauge::flow::time::Timestamp;
use streamgauge::ingest::decoding::batches_ahead;
use streamgauge::ingest::feed::BRIDGE_BATCHES;
use streamgauge::ingest::fleet::{FleetMessage, Publisher, What, publish};
use streamgauge::ingest::recording::Speed;
use support::mosquitto::Mosquitto;
use support::parts::{Endless, Stuck, launch, plan};

const BATCH: u64 = 16;
const CHANNEL: u64 = 3;

#[test]
fn a_stuck_sink_stops_the_source_at_a_payload_that_can_be_calculated() {
    [1, 3].into_iter().for_each(stuck_with);
}

fn stuck_with(decoders: usize) {
    let (stuck, limit) = (Stuck::default(), 5_000);
    let (endless, given) = Endless::new(limit);
    // Without ticks and epochs nothing but batches and watermarks goes through the channels.
    let mut plan = plan(endless, Box::new(stuck.clone()));
    plan.sources[0].decoders = Some(decoders);
    let (running, _runtime) = launch(plan, &Options::replay());

    // Each batch is followed by its watermark, so a channel of 3 holds three of (batch, watermark, batch, …). The sink holds
    // the first batch; its channel, from the watermark of that batch on: w0 b1 w1. The filter blocks with b2. Its own
    // channel: w2 b3 w3; the intake blocks with b4, having taken it from the bridge. The bridge holds b5 … b8, and the feed
    // blocks with b9. That are ten batches. Several decoders have others, but for the one with which the intake blocks.
    let in_channel = CHANNEL / 2;
    let batches = 1 + in_channel + 1 + in_channel + 1 + BRIDGE_BATCHES as u64 + 1;
    let batches = batches + batches_ahead(decoders) as u64 - 1;
    let expected = batches * BATCH;
    let until = Instant::now() + Duration::from_secs(20);
    while given.load(SeqCst) < expected && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(5));
    }
    // It stays there.
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(given.load(SeqCst), expected, "{batches} batches of {BATCH}");

    stuck.let_go();
    let outcome = running.wait();
    assert_eq!(outcome.failure, None);
    assert_eq!((given.load(SeqCst), stuck.rows.load(SeqCst)), (limit, limit), "nothing is lost on the way");
}

#[test]
fn no_session_is_lost_while_a_sink_is_stuck() {
    let Some(broker) = Mosquitto::start("allow_anonymous true") else { return };
    let text = format!(
        "[pipeline]\nname = \"stuck\"\ndurability = \"none\"\nbatch_rows = 16\nchannel_batches = 2\n\
         [sources.feed]\ntype = \"mqtt\"\nurl = \"{}\"\ntopics = [\"feed\"]\nkeep_alive = \"5s\"\nreceive_maximum = 100\n\
         decode = {{ format = \"scalar\" }}\ncolumns = {{ value = \"int64\" }}\n\
         [sinks.out]\ntype = \"stdout\"\ninputs = [\"feed\"]\n",
        broker.url()
    );
    let mut plan = streamgauge::pipeline::load_text("stuck.toml", &text, &|_| None).unwrap();
    let (stuck, count) = (Stuck::default(), 2_000_u64);
    plan.sinks[0].spec = Box::new(stuck.clone());
    let (running, kept) = launch(plan, &Options::live());
    let source = kept.telemetry.pipelines[0].stages[0].source.clone().unwrap();
    let until = |what: &str, done: &dyn Fn() -> bool| {
        let from = Instant::now();
        while !done() {
            assert!(from.elapsed() < Duration::from_secs(60), "{what}");
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    until("subscribed", &|| source.connected.load(SeqCst) == 1);
    let message = |number: u64| FleetMessage {
        arrival: Timestamp::from_micros(0),
        device: 0,
        topic: "feed".into(),
        body: number.to_string().into(),
        what: What::Good,
    };
    let to = Publisher { host: "127.0.0.1".to_owned(), port: broker.port, qos: 1, connections: 1, speed: Speed::Max };
    let messages: Vec<_> = (0..count).map(message).collect();
    kept.runtime.block_on(publish(messages, &to)).unwrap();

    // Longer than a broker waits for a client that has fallen silent: one and a half times the keep-alive.
    std::thread::sleep(Duration::from_secs(9));
    assert_eq!((source.connected.load(SeqCst), source.reconnects.load(SeqCst)), (1, 0), "the session goes on");
    let received = source.received.load(SeqCst);
    assert!(received < count, "what is not acknowledged waits at the broker: {received} received");

    stuck.let_go();
    until("all received", &|| stuck.rows.load(SeqCst) == count);
    running.stop_token().cancel();
    let outcome = running.wait();
    assert_eq!(outcome.failure, None);
    assert_eq!(outcome.account.sources["feed"].received, count, "none lost, none twice");
}
