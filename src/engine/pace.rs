//! When epochs end.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::flow::message::Epoch;
use crate::ingest::feed::Pace;
use crate::ingest::journal::Handle;

/// Epochs that have ended and are not durable yet, at most: a slow disk makes epochs longer, it piles nothing up.
pub(crate) const EPOCHS_IN_FLIGHT_MAX: usize = 2;
/// How often the journals are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Ends an epoch every `every`, and earlier where a journal is short of room, until the run is to stop.
pub(crate) async fn keep(
    every: Duration,
    pace: watch::Sender<Pace>,
    stop_token: CancellationToken,
    durable: Option<watch::Receiver<Option<Epoch>>>,
    journals: Vec<Handle>,
) {
    let mut ticks = interval(every.min(LOOK_EVERY));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut ended = Instant::now();
    let first = pace.borrow().epoch;
    loop {
        tokio::select! {
            () = stop_token.cancelled() => break,
            _ = ticks.tick() => {}
        }
        let pressed = journals.iter().any(Handle::is_pressed);
        let due = ended.elapsed() >= every || pressed;
        let next_durable = durable.as_ref().map(|durable| durable.borrow().map_or(Epoch(0), Epoch::next));
        let in_flight = next_durable.map_or(0, |next| pace.borrow().epoch.0.saturating_sub(next.0.max(first.0)));
        if due && in_flight < EPOCHS_IN_FLIGHT_MAX as u64 {
            ended = Instant::now();
            pace.send_modify(|pace| pace.epoch = pace.epoch.next());
        }
    }
    pace.send_modify(|pace| pace.stop = true);
    // The receivers must find the sender alive until they have seen the stop.
    pace.closed().await;
}

/// One epoch, until the run is to stop.
pub(crate) async fn stop(pace: watch::Sender<Pace>, stop_token: CancellationToken) {
    tokio::select! {
        () = stop_token.cancelled() => pace.send_modify(|pace| pace.stop = true),
        () = pace.closed() => {}
    }
    pace.closed().await;
}
