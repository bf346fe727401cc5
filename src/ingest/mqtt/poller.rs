//! The polling task, which does nothing but poll and never waits for a stage, and what it shares with the source.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::hash::{BuildHasher, RandomState};
use std::pin::pin;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::flow::time::Timestamp;
use crate::ingest::mqtt::client::{Arrived, Client, Event, Events, Granted, Reason, Requests};
use crate::ingest::mqtt::filters::Filters;
use crate::ingest::{SourceContext, SourceError};

/// The pause after the first failure to connect; doubles up to [`BACK_OFF_MAX`].
const BACK_OFF_MIN: Duration = Duration::from_millis(100);
const BACK_OFF_MAX: Duration = Duration::from_secs(30);
/// So many takeovers of the session within [`TAKEOVERS_WITHIN`] say that two clients have the same id.
const TAKEOVERS_MAX: usize = 3;
const TAKEOVERS_WITHIN: Duration = Duration::from_secs(60);
/// A connection that lasted so long was a good one: the pause begins at its shortest again.
const STEADY_AFTER: Duration = Duration::from_secs(5);
/// What a waiting payload costs beside its bytes.
pub(super) const PAYLOAD_OVERHEAD: u64 = 128;
/// What the source wants of its broker.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Filters, as they are sent.
    pub filters: Vec<String>,
    /// Quality of service, 0 or 1.
    pub qos: u8,
    /// Payloads from before the subscription are not wanted.
    pub skip_retained: bool,
    /// A lower quality of service is good enough.
    pub allow_downgrade: bool,
    /// A connection that is silent for so long is dead.
    pub silence_max: Duration,
    /// Bytes that may wait for the feed.
    pub queue_bytes: u64,
}

pub(super) struct Waiting {
    pub(super) payload: Arrived,
    pub(super) arrival: Timestamp,
    pub(super) epoch: u64,
}

/// What the polling task and the source share; locked for moments only.
#[derive(Default)]
pub(super) struct Shared {
    /// Connections so far: acknowledgements of an older one are void.
    pub(super) epoch: u64,
    pub(super) queue: VecDeque<Waiting>,
    pub(super) queue_bytes: u64,
    pub(super) failed: Option<String>,
    /// The broker has forgotten the session since the source looked.
    pub(super) forgotten: bool,
    /// We have asked for a goodbye.
    pub(super) closing: bool,
}

pub(super) struct Bridge {
    pub(super) shared: Mutex<Shared>,
    pub(super) arrived: Notify,
}

impl Bridge {
    pub(super) fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) fn cost(payload: &Arrived) -> u64 {
    let properties: usize = payload.properties.iter().map(|(name, value)| name.len() + value.len()).sum();
    (payload.topic.len() + payload.body.len() + properties) as u64 + PAYLOAD_OVERHEAD
}

pub(super) struct Poller {
    pub(super) requests: Arc<dyn Requests>,
    pub(super) wanted: Wanted,
    /// Filters that the session may have.
    pub(super) known: Option<Filters>,
    pub(super) context: SourceContext,
    pub(super) bridge: Arc<Bridge>,
    /// As in [`Shared`]; only this task changes it.
    pub(super) epoch: u64,
    /// Payloads that the source does not have yet; none while the client is waited for.
    pub(super) batch: Vec<Waiting>,
    pub(super) connected_before: bool,
    /// When the present connection was made.
    pub(super) connected_at: Option<Instant>,
    /// Since the last good connection.
    pub(super) failures: u32,
    pub(super) takeovers: VecDeque<Instant>,
}

impl Poller {
    pub(super) async fn run(mut self, mut client: Box<dyn Client>) {
        loop {
            let Some(reason) = self.connection(&mut *client).await else { return };
            self.disconnected(&mut *client);
            match self.judge(reason) {
                Ok(pause) => tokio::time::sleep(pause).await,
                Err(why) => {
                    self.bridge.lock().failed = Some(why);
                    self.bridge.arrived.notify_one();
                    return;
                }
            }
        }
    }

    /// Makes a connection and listens to it until it is over; says why, or `None` after our goodbye.
    async fn connection(&mut self, client: &mut dyn Client) -> Option<Reason> {
        let (events, mut happened, mut goodbye) = (Events::default(), Vec::new(), false);
        // Dropped only when the connection is given up as well.
        let mut pump = client.pump(&events);
        let mut silence = pin!(tokio::time::sleep(self.wanted.silence_max));
        loop {
            let heard = poll_fn(|context| {
                let over = pump.as_mut().poll(context).is_ready();
                if over || !events.is_empty() {
                    return Poll::Ready(true);
                }
                silence.as_mut().poll(context).map(|()| false)
            });
            if !heard.await {
                return (!goodbye).then(|| Reason::Passing("the broker is silent".to_owned()));
            }
            // All that is there is handed over at once.
            events.take(&mut happened);
            let all = happened.drain(..).try_for_each(|event| self.happened(event, &mut goodbye));
            if let Err(reason) = all.and_then(|()| self.hand_over()) {
                return (!goodbye).then_some(reason);
            }
            silence.as_mut().reset(tokio::time::Instant::now() + self.wanted.silence_max);
        }
    }

    fn happened(&mut self, event: Event, goodbye: &mut bool) -> Result<(), Reason> {
        match event {
            Event::Connected { session_present } => self.connected(session_present)?,
            Event::Publish(payload) => self.arrived(payload),
            Event::Subscribed(granted) => self.subscribed(&granted)?,
            Event::Disconnected(reason) => return Err(reason),
            Event::Closed if self.bridge.lock().closing => {
                // Only the broker hangs up: if we did while it still sends, the reset that follows would make
                // it throw away the acknowledgements that it has not read yet.
                *goodbye = true;
                self.context.meter.connected.store(0, Relaxed);
            }
            // What the broker repeats for ever is never acknowledged: only this is progress.
            Event::Acknowledged => self.failures = 0,
            Event::Other | Event::Closed | Event::Sent(_) | Event::Taken(..) => {}
        }
        Ok(())
    }

    fn connected(&mut self, session_present: bool) -> Result<(), Reason> {
        let meter = &self.context.meter;
        if self.connected_before {
            meter.reconnects.fetch_add(1, Relaxed);
        }
        if self.connected_before && !session_present {
            meter.gaps.fetch_add(1, Relaxed);
            tracing::warn!(source = %self.context.name, "the broker forgot the session: payloads may be missing");
        }
        self.bridge.lock().forgotten |= !session_present;
        // Our first session, though known, may have been made with other filters. Not at every connection:
        // each subscription makes the broker send its retained payloads again.
        let subscribed = session_present && self.connected_before;
        self.connected_before = true;
        self.connected_at = Some(Instant::now());
        // Without the subscription nothing can be heard yet.
        meter.connected.store(u64::from(subscribed), Relaxed);
        if let Some(known) = self.known.as_ref().filter(|known| session_present && !known.stale.is_empty()) {
            tracing::info!(source = %self.context.name, filters = ?known.stale, "the session has filters that are not wanted any more");
            if !self.requests.unsubscribe(&known.stale) {
                return Err(Reason::Passing("no room to give old filters back".to_owned()));
            }
        }
        if subscribed || self.requests.subscribe(&self.wanted.filters, self.wanted.qos) {
            Ok(())
        } else {
            Err(Reason::Passing("no room to ask for the subscription".to_owned()))
        }
    }

    fn subscribed(&mut self, granted: &[Granted]) -> Result<(), Reason> {
        for (filter, granted) in self.wanted.filters.iter().zip(granted) {
            match granted {
                Granted::Refused(code) => {
                    return Err(Reason::Fatal(format!("the broker refused the subscription to `{filter}`: {code}")));
                }
                Granted::Qos(qos) if *qos < self.wanted.qos && !self.wanted.allow_downgrade => {
                    return Err(Reason::Fatal(format!(
                        "the broker granted qos {qos} instead of {} for `{filter}`; set `allow_downgrade = true` or `qos = {qos}`",
                        self.wanted.qos
                    )));
                }
                Granted::Qos(_) => {}
            }
        }
        // The broker answers in order, so that it has given back what it was asked to before.
        match self.known.as_mut().map(Filters::settled) {
            Some(Err(SourceError::Lost(why))) => {
                tracing::warn!(source = %self.context.name, "{why}; old filters are given back again after a restart");
            }
            Some(Err(SourceError::Fatal(why))) => return Err(Reason::Fatal(why)),
            Some(Ok(())) | None => {}
        }
        self.context.meter.connected.store(1, Relaxed);
        Ok(())
    }

    fn arrived(&mut self, payload: Arrived) {
        // Those that are there at once have arrived at once.
        let arrival = self.batch.last().map_or_else(|| self.context.clock.now(), |before| before.arrival);
        self.batch.push(Waiting { payload, arrival, epoch: self.epoch });
    }

    /// Lets the source have the payloads of the batch, as far as there is room.
    fn hand_over(&mut self) -> Result<(), Reason> {
        if self.batch.is_empty() {
            return Ok(());
        }
        let (mut refused, mut dropped) = (false, 0);
        let mut shared = self.bridge.lock();
        for waiting in self.batch.drain(..) {
            let (cost, delivery) = (cost(&waiting.payload), waiting.payload.delivery);
            // One payload there is always room for, or it would never get through.
            let full = !shared.queue.is_empty() && shared.queue_bytes + cost > self.wanted.queue_bytes;
            refused |= full && delivery.qos > 0;
            if full && delivery.qos == 0 {
                dropped += u64::from(!(self.wanted.skip_retained && delivery.retained));
            }
            // After one that is to come again come all that follow it, so that they stay in order.
            let comes_again = refused && delivery.qos > 0;
            if !(full || comes_again) {
                shared.queue_bytes += cost;
                shared.queue.push_back(waiting);
            }
        }
        drop(shared);
        self.bridge.arrived.notify_one();
        let meter = &self.context.meter;
        if dropped > 0 {
            meter.received.fetch_add(dropped, Relaxed);
            meter.dropped.fetch_add(dropped, Relaxed);
        }
        if refused {
            meter.backpressure_disconnects.fetch_add(1, Relaxed);
            return Err(Reason::Passing("too many bytes wait for the pipeline; the broker keeps the rest".to_owned()));
        }
        Ok(())
    }

    /// Voids everything of the connection that the broker will send again.
    fn disconnected(&mut self, client: &mut dyn Client) {
        // What has reached nobody will come again, but for what has no acknowledgement.
        self.batch.retain(|waiting| waiting.payload.delivery.qos == 0);
        let _never_refused = self.hand_over();
        self.context.meter.connected.store(0, Relaxed);
        if self.connected_at.take().is_some_and(|since| since.elapsed() >= STEADY_AFTER) {
            self.failures = 0;
        }
        self.epoch += 1;
        let mut shared = self.bridge.lock();
        shared.epoch = self.epoch;
        client.reset();
        shared.queue.retain(|waiting| waiting.payload.delivery.qos == 0);
        shared.queue_bytes = shared.queue.iter().map(|waiting| cost(&waiting.payload)).sum();
    }

    /// How long to wait before the next attempt, or why there is none.
    fn judge(&mut self, reason: Reason) -> Result<Duration, String> {
        let why = match reason {
            Reason::Fatal(why) => return Err(why),
            Reason::Passing(why) => why,
            Reason::TakenOver => {
                let now = Instant::now();
                self.takeovers.push_back(now);
                while self.takeovers.front().is_some_and(|at| now.duration_since(*at) > TAKEOVERS_WITHIN) {
                    self.takeovers.pop_front();
                }
                if self.takeovers.len() >= TAKEOVERS_MAX {
                    return Err(format!(
                        "the session was taken over {TAKEOVERS_MAX} times within a minute: another client has the same `client_id`"
                    ));
                }
                "another client took the session over".to_owned()
            }
        };
        let pause = back_off(self.failures);
        self.failures = self.failures.saturating_add(1);
        tracing::warn!(source = %self.context.name, pause_ms = pause.as_millis() as u64, "lost the broker: {why}");
        Ok(pause)
    }
}

/// Doubles from failure to failure; a random half of it keeps many clients from coming back at once.
pub fn back_off(failures: u32) -> Duration {
    let whole = BACK_OFF_MIN.saturating_mul(2_u32.saturating_pow(failures)).min(BACK_OFF_MAX);
    let share = u32::try_from(RandomState::new().hash_one(failures) % 1024).unwrap_or(0);
    (whole / 2 + whole / 2 * share / 1024).max(BACK_OFF_MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_stays_in_its_bounds() {
        for failures in 0..100 {
            let pause = back_off(failures);
            assert!((BACK_OFF_MIN..=BACK_OFF_MAX).contains(&pause), "{failures}: {pause:?}");
        }
    }
}
