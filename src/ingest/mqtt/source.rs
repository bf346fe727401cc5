//! The source: takes what the polling task received, and acknowledges what is safe.

use std::collections::VecDeque;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::flow::meter::SourceMeter;
use crate::flow::payload::{Delivery, Payloads};
use crate::ingest::mqtt::client::{Client, Requests};
use crate::ingest::mqtt::filters::Filters;
use crate::ingest::mqtt::poller::{Bridge, Poller, Waiting, cost};
pub use crate::ingest::mqtt::poller::{Wanted, back_off};
use crate::ingest::mqtt::recent::Recent;
use crate::ingest::{BoxFuture, Fed, Source, SourceContext, SourceError};

/// How soon acknowledgements are tried again for which there was no room.
const ACK_RETRY: Duration = Duration::from_millis(10);
/// How long a goodbye may take.
const CLOSE_MAX: Duration = Duration::from_secs(2);

/// A payload that is to be acknowledged, if its connection still stands.
#[derive(Clone, Copy)]
struct Token {
    epoch: u64,
    packet_id: u16,
}

/// An open `mqtt` source.
pub struct MqttSource {
    bridge: Arc<Bridge>,
    requests: Arc<dyn Requests>,
    /// Taken out of the bridge at once; empty between calls.
    taken: Vec<Waiting>,
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
        let publisher = requests.clone();
        context.replies.take_on(move |topic, body| publisher.publish(topic, Bytes::copy_from_slice(body), 0, false));
        let skip_retained = wanted.skip_retained;
        let meter = context.meter.clone();
        let recent = Recent::new(&context.redeliveries);
        let connections_before = context.connection + 1;
        let poller = Poller {
            requests: requests.clone(),
            wanted,
            known,
            context,
            bridge: bridge.clone(),
            epoch: 0,
            batch: Vec::new(),
            connected_before: false,
            connected_at: None,
            failures: 0,
            takeovers: VecDeque::new(),
        };
        let task = tokio::spawn(poller.run(client));
        let (taken, given, unsent) = (Vec::new(), VecDeque::new(), VecDeque::new());
        Self { bridge, requests, taken, given, unsent, task, skip_retained, meter, recent, connections_before }
    }

    /// Moves what waits into `into`, at most so many; says whether any were moved. Among what waits there may be nothing that
    /// is wanted.
    fn take(&mut self, into: &mut Payloads, payloads_max: usize) -> Result<bool, SourceError> {
        let before = into.len();
        while into.len() == before {
            let mut shared = self.bridge.lock();
            if std::mem::take(&mut shared.forgotten) {
                self.recent.clear();
            }
            let count = payloads_max.min(shared.queue.len());
            self.taken.extend(shared.queue.drain(..count));
            let cost: u64 = self.taken.iter().map(|waiting| cost(&waiting.payload)).sum();
            shared.queue_bytes = shared.queue_bytes.saturating_sub(cost);
            match &shared.failed {
                Some(why) if count == 0 => return Err(SourceError::Fatal(why.clone())),
                _ if count == 0 => return Ok(false),
                _ => {}
            }
            drop(shared);
            self.keep(into);
        }
        Ok(true)
    }

    /// Puts what was taken into `into`, but for what nobody wants; the meter is told of all of it at once.
    fn keep(&mut self, into: &mut Payloads) {
        let (mut received, mut duplicates, mut bytes, mut last) = (0, 0, 0, None);
        for waiting in self.taken.drain(..) {
            let connection = self.connections_before.wrapping_add(u32::try_from(waiting.epoch).unwrap_or(u32::MAX));
            let delivery = Delivery { connection, ..waiting.payload.delivery };
            let token = (delivery.qos > 0).then_some(Token { epoch: waiting.epoch, packet_id: delivery.packet_id });
            if delivery.qos > 0 && self.recent.is_known(&waiting.payload, connection) {
                // It is safe, or will be before this acknowledgement's turn: acknowledgements go in order.
                received += 1;
                duplicates += 1;
                self.given.push_back((token, false));
                continue;
            }
            let counts = !(self.skip_retained && delivery.retained);
            self.given.push_back((token, counts));
            if counts {
                // Counted here, so that what the broker takes back was never received.
                received += 1;
                bytes += waiting.payload.body.len() as u64;
                last = Some(waiting.arrival);
                into.push(&waiting.payload.topic, &waiting.payload.body, waiting.arrival, delivery);
                into.set_properties(waiting.payload.properties);
            }
        }
        self.meter.received.fetch_add(received, Relaxed);
        self.meter.duplicates.fetch_add(duplicates, Relaxed);
        self.meter.bytes.fetch_add(bytes, Relaxed);
        if let Some(arrival) = last {
            self.meter.last_arrival_micros.store(arrival.micros(), Relaxed);
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
