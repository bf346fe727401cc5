//! Backpressure: a stuck sink stops the source at exactly the payload that the arithmetic says, and lets it go on.

mod support;

use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use streamgauge::engine::Options;
use streamgauge::ingest::feed::BRIDGE_BATCHES;
use support::parts::{Endless, Stuck, launch, plan};

const BATCH: u64 = 16;
const CHANNEL: u64 = 3;

#[test]
fn a_stuck_sink_stops_the_source_at_a_payload_that_can_be_calculated() {
    let (stuck, limit) = (Stuck::default(), 5_000);
    let (endless, given) = Endless::new(limit);
    // Without ticks and epochs nothing but batches and watermarks goes through the channels.
    let (running, _runtime) = launch(plan(endless, Box::new(stuck.clone())), &Options::replay());

    // Each batch is followed by its watermark, so a channel of 3 holds three of (batch, watermark, batch, …). The sink holds
    // the first batch; its channel, from the watermark of that batch on: w0 b1 w1. The filter blocks with b2. Its own
    // channel: w2 b3 w3; the intake blocks with b4, having taken it from the bridge. The bridge holds b5 … b8, and the feed
    // blocks with b9. That are ten batches.
    let in_channel = CHANNEL / 2;
    let batches = 1 + in_channel + 1 + in_channel + 1 + BRIDGE_BATCHES as u64 + 1;
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
