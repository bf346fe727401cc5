//! The polling task, which does nothing but poll and never waits for a stage, and the source that takes from it.

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::flow::meter::SourceMeter;
use crate::flow::payload::{Delivery, Payloads};
use crate::flow::time::Timestamp;
use crate::ingest::mqtt::client::{Arrived, Client, Event, Granted, Reason, Requests};
use crate::ingest::mqtt::filters::Filters;
use crate::ingest::mqtt::recent::Recent;
use crate::ingest::{BoxFuture, Fed, Source, SourceContext, SourceError};

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
/// How soon acknowledgements are tried again for which there was no room.
const ACK_RETRY: Duration = Duration::from_millis(10);
/// How long a goodbye may take.
const CLOSE_MAX: Duration = Duration::from_secs(2);

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

/// A payload that is to be acknowledged, if its connection still stands.
#[derive(Clone, Copy)]
struct Token {
    epoch: u64,
    packet_id: u16,
}

struct Waiting {
    payload: Arrived,
    arrival: Timestamp,
    epoch: u64,
}

/// What the polling task and the source share; locked for moments only.
#[derive(Default)]
struct Shared {
    /// Connections so far: acknowledgements of an older one are void.
    epoch: u64,
    queue: VecDeque<Waiting>,
    queue_bytes: u64,
    failed: Option<String>,
    /// The broker has forgotten the session since the source looked.
    forgotten: bool,
    /// We have asked for a goodbye.
    closing: bool,
}

struct Bridge {
    shared: Mutex<Shared>,
    arrived: Notify,
}

impl Bridge {
    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An open `mqtt` source.
pub struct MqttSource {
    bridge: Arc<Bridge>,
    requests: Arc<dyn Requests>,
    /// Given to the feed, in order; `counts` is false for what was skipped in between.
    given: VecDeque<(Option<Token>, bool)>,
    /// Safe, but not yet asked of the client.
    unsent: VecDeque<Token>,
    task: JoinHandle<()>,
    skip_retained: bool,
    meter: Arc<SourceMeter>,
    recent: Recent,
    connections_before: u32,
}

impl MqttSource {
    /// Starts the polling task.
    pub fn start(client: Box<dyn Client>, wanted: Wanted, context: SourceContext) -> Self {
        Self::start_knowing(client, wanted, None, context)
    }

    /// The same, with the filters that a kept session may have.
    pub(super) fn start_knowing(
        client: Box<dyn Client>,
        wanted: Wanted,
        known: Option<Filters>,
        context: SourceContext,
    ) -> Self {
        let bridge = Arc::new(Bridge { shared: Mutex::default(), arrived: Notify::new() });
        let requests = client.requests();
        let skip_retained = wanted.skip_retained;
        let meter = context.meter.clone();
        let recent = Recent::new(&context.redeliveries);
        let connections_before = context.connection + 1;
        let poller = Poller {
            requests: requests.clone(),
            client,
            wanted,
            known,
            context,
            bridge: bridge.clone(),
            epoch: 0,
            connected_before: false,
            connected_at: None,
            failures: 0,
            takeovers: VecDeque::new(),
        };
        let task = tokio::spawn(poller.run());
        let (given, unsent) = (VecDeque::new(), VecDeque::new());
        Self { bridge, requests, given, unsent, task, skip_retained, meter, recent, connections_before }
    }

    /// Moves what waits into `into`; says whether anything was moved.
    fn take(&mut self, into: &mut Payloads, payloads_max: usize) -> Result<bool, SourceError> {
        let mut shared = self.bridge.lock();
        if std::mem::take(&mut shared.forgotten) {
            self.recent.clear();
        }
        let mut taken = 0;
        while taken < payloads_max {
            let Some(waiting) = shared.queue.pop_front() else { break };
            shared.queue_bytes = shared.queue_bytes.saturating_sub(cost(&waiting.payload));
            let connection = self.connections_before.wrapping_add(u32::try_from(waiting.epoch).unwrap_or(u32::MAX));
            let delivery = Delivery { connection, ..waiting.payload.delivery };
            let token = (delivery.qos > 0).then_some(Token { epoch: waiting.epoch, packet_id: delivery.packet_id });
            if delivery.qos > 0 && self.recent.is_known(&waiting.payload, connection) {
                // It is safe, or will be before this acknowledgement's turn: acknowledgements go in order.
                self.meter.received.fetch_add(1, Relaxed);
                self.meter.duplicates.fetch_add(1, Relaxed);
                self.given.push_back((token, false));
                continue;
            }
            let counts = !(self.skip_retained && delivery.retained);
            self.given.push_back((token, counts));
            if counts {
                // Counted here, so that what the broker takes back was never received.
                self.meter.received.fetch_add(1, Relaxed);
                self.meter.bytes.fetch_add(waiting.payload.body.len() as u64, Relaxed);
                self.meter.last_arrival_micros.store(waiting.arrival.micros(), Relaxed);
                into.push(&waiting.payload.topic, &waiting.payload.body, waiting.arrival, delivery);
                into.set_properties(waiting.payload.properties);
                taken += 1;
            }
        }
        match &shared.failed {
            Some(why) if taken == 0 => Err(SourceError::Fatal(why.clone())),
            _ => Ok(taken > 0),
        }
    }

    /// Marks the next `count` payloads as safe, and what was skipped around them.
    fn safe(&mut self, mut count: u64) {
        while let Some((token, counts)) = self.given.front().copied() {
            if counts && count == 0 {
                break;
            }
            count -= u64::from(counts);
            self.unsent.extend(token);
            self.given.pop_front();
        }
    }

    /// Asks the client to acknowledge, in order, as far as there is room. Never waits.
    fn send_acks(&mut self) {
        // The lock keeps the connection from changing between the comparison and the request.
        let shared = self.bridge.lock();
        while let Some(token) = self.unsent.front() {
            let valid = token.epoch == shared.epoch || crate::disk::planted("no-connection-epoch");
            if valid && !self.requests.try_ack(token.packet_id) {
                break;
            }
            self.unsent.pop_front();
        }
    }
}

impl Source for MqttSource {
    fn next<'a>(&'a mut self, into: &'a mut Payloads, payloads_max: usize) -> BoxFuture<'a, Result<Fed, SourceError>> {
        Box::pin(async move {
            loop {
                let bridge = self.bridge.clone();
                let arrived = bridge.arrived.notified();
                let took = self.take(into, payloads_max)?;
                self.safe(0);
                self.send_acks();
                if took {
                    return Ok(Fed::More);
                }
                if self.unsent.is_empty() {
                    arrived.await;
                } else {
                    let _ = tokio::time::timeout(ACK_RETRY, arrived).await;
                }
            }
        })
    }

    fn ack(&mut self, count: u64) -> BoxFuture<'_, Result<(), SourceError>> {
        self.safe(count);
        self.send_acks();
        Box::pin(std::future::ready(Ok(())))
    }

    fn close(&mut self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let until = tokio::time::Instant::now() + CLOSE_MAX;
            self.bridge.lock().closing = true;
            self.send_acks();
            while !self.unsent.is_empty() && tokio::time::Instant::now() < until {
                tokio::time::sleep(ACK_RETRY).await;
                self.send_acks();
            }
            while !self.requests.disconnect() && tokio::time::Instant::now() < until {
                tokio::time::sleep(ACK_RETRY).await;
            }
            if tokio::time::timeout_at(until, &mut self.task).await.is_err() {
                tracing::debug!("the broker did not take the goodbye in time");
            }
            // What waits at QoS 1 goes to us again, or to whoever takes the session up; at QoS 0 nobody keeps it.
            let queue = std::mem::take(&mut self.bridge.lock().queue);
            let lost = queue.iter().filter(|waiting| {
                waiting.payload.delivery.qos == 0 && !(self.skip_retained && waiting.payload.delivery.retained)
            });
            let lost = lost.count() as u64;
            self.meter.received.fetch_add(lost, Relaxed);
            self.meter.dropped.fetch_add(lost, Relaxed);
        })
    }
}

impl Drop for MqttSource {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn cost(payload: &Arrived) -> u64 {
    let properties: usize = payload.properties.iter().map(|(name, value)| name.len() + value.len()).sum();
    (payload.topic.len() + payload.body.len() + properties) as u64 + PAYLOAD_OVERHEAD
}

struct Poller {
    client: Box<dyn Client>,
    requests: Arc<dyn Requests>,
    wanted: Wanted,
    /// Filters that the session may have.
    known: Option<Filters>,
    context: SourceContext,
    bridge: Arc<Bridge>,
    /// As in [`Shared`]; only this task changes it.
    epoch: u64,
    connected_before: bool,
    /// When the present connection was made.
    connected_at: Option<Instant>,
    /// Since the last good connection.
    failures: u32,
    takeovers: VecDeque<Instant>,
}

impl Poller {
    async fn run(mut self) {
        let mut goodbye = false;
        loop {
            // The future is dropped only when the connection is given up as well.
            let polled = tokio::time::timeout(self.wanted.silence_max, self.client.poll()).await;
            let event =
                polled.unwrap_or_else(|_| Event::Disconnected(Reason::Passing("the broker is silent".to_owned())));
            let reason = match event {
                Event::Connected { session_present } => self.connected(session_present),
                Event::Publish(payload) => self.arrived(payload),
                Event::Subscribed(granted) => self.subscribed(&granted),
                Event::Disconnected(reason) => Err(reason),
                Event::Closed if self.bridge.lock().closing => {
                    // Only the broker hangs up: if we did while it still sends, the reset that follows would make
                    // it throw away the acknowledgements that it has not read yet.
                    goodbye = true;
                    self.context.meter.connected.store(0, Relaxed);
                    Ok(())
                }
                // What the broker repeats for ever is never acknowledged: only this is progress.
                Event::Acknowledged => {
                    self.failures = 0;
                    Ok(())
                }
                Event::Other | Event::Closed | Event::Sent(_) | Event::Taken(..) => Ok(()),
            };
            let Err(reason) = reason else { continue };
            if goodbye {
                return;
            }
            self.disconnected();
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

    fn arrived(&self, payload: Arrived) -> Result<(), Reason> {
        let meter = &self.context.meter;
        let arrival = self.context.clock.now();
        let skipped = self.wanted.skip_retained && payload.delivery.retained;
        let mut shared = self.bridge.lock();
        // One payload there is always room for, or it would never get through.
        let full = !shared.queue.is_empty() && shared.queue_bytes + cost(&payload) > self.wanted.queue_bytes;
        if full && payload.delivery.qos > 0 {
            meter.backpressure_disconnects.fetch_add(1, Relaxed);
            return Err(Reason::Passing("too many bytes wait for the pipeline; the broker keeps the rest".to_owned()));
        }
        if full {
            meter.received.fetch_add(u64::from(!skipped), Relaxed);
            meter.dropped.fetch_add(u64::from(!skipped), Relaxed);
            return Ok(());
        }
        shared.queue_bytes += cost(&payload);
        shared.queue.push_back(Waiting { payload, arrival, epoch: self.epoch });
        drop(shared);
        self.bridge.arrived.notify_one();
        Ok(())
    }

    /// Voids everything of the connection that the broker will send again.
    fn disconnected(&mut self) {
        self.context.meter.connected.store(0, Relaxed);
        if self.connected_at.take().is_some_and(|since| since.elapsed() >= STEADY_AFTER) {
            self.failures = 0;
        }
        self.epoch += 1;
        let mut shared = self.bridge.lock();
        shared.epoch = self.epoch;
        self.client.reset();
        // What has reached nobody will come again.
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
