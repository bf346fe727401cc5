//! A fleet as a source.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use tokio::time::Instant;

use super::DELIVERY;
use super::generator::{Fleet, FleetMessage};
use crate::flow::meter::SourceMeter;
use crate::flow::payload::Payloads;
use crate::flow::time::Timestamp;
use crate::ingest::recording::Speed;
use crate::ingest::{BoxFuture, Fed, Source, SourceError};

/// The messages of a fleet, when they are due.
#[derive(Debug)]
pub struct FleetSource {
    fleet: Fleet,
    /// The next message, not given yet.
    next: Option<FleetMessage>,
    start: Timestamp,
    began: Instant,
    speed: Speed,
    meter: Arc<SourceMeter>,
}

impl FleetSource {
    /// Starts now with what comes after `start`.
    pub fn start(mut fleet: Fleet, start: Timestamp, speed: Speed, meter: Arc<SourceMeter>) -> Self {
        meter.connected.store(1, Relaxed);
        let next = fleet.next();
        Self { fleet, next, start, began: Instant::now(), speed, meter }
    }

    fn due(&self, message: &FleetMessage) -> Option<Instant> {
        // What is due beyond the end of the computer's clock is due at once; nobody will see it.
        self.speed.wait(message.arrival.since(self.start)).and_then(|wait| self.began.checked_add(wait))
    }

    /// Gives what is due, at most `payloads_max`.
    fn give(&mut self, into: &mut Payloads, payloads_max: usize) {
        let now = Instant::now();
        let mut bytes = 0;
        let before = into.len();
        while into.len() - before < payloads_max.max(1) {
            let is_due = |message: &FleetMessage| self.due(message).is_none_or(|at| at <= now);
            if !self.next.as_ref().is_some_and(is_due) {
                break;
            }
            let Some(message) = std::mem::replace(&mut self.next, self.fleet.next()) else { break };
            into.push(&message.topic, &message.body, message.arrival, DELIVERY);
            bytes += message.body.len() as u64;
            self.meter.last_arrival_micros.store(message.arrival.micros(), Relaxed);
        }
        self.meter.received.fetch_add((into.len() - before) as u64, Relaxed);
        self.meter.bytes.fetch_add(bytes, Relaxed);
    }
}

impl Source for FleetSource {
    fn next<'a>(&'a mut self, into: &'a mut Payloads, payloads_max: usize) -> BoxFuture<'a, Result<Fed, SourceError>> {
        Box::pin(async move {
            let Some(message) = &self.next else {
                self.meter.connected.store(0, Relaxed);
                return Ok(Fed::Exhausted);
            };
            match self.due(message) {
                Some(due) => tokio::time::sleep_until(due).await,
                // At full speed nothing else waits: other tasks get their turn.
                None => tokio::task::yield_now().await,
            }
            self.give(into, payloads_max);
            Ok(Fed::More)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::time::Span;
    use crate::ingest::fleet::FleetSettings;

    fn source(speed: Speed) -> FleetSource {
        let start = Timestamp::from_micros(0);
        let settings = FleetSettings { duration: Some(Span::from_secs(10)), ..FleetSettings::default() };
        FleetSource::start(Fleet::new(settings, start), start, speed, Arc::default())
    }

    #[tokio::test]
    async fn messages_come_when_they_are_due() {
        let (began, mut source, mut into) = (Instant::now(), source(Speed::Times(50.0)), Payloads::default());
        while source.next(&mut into, 3).await.unwrap() == Fed::More {
            let last = into.get(into.len() - 1).arrival.since(Timestamp::from_micros(0));
            let ahead = last.duration().checked_sub(began.elapsed() * 50);
            assert!(ahead.is_none(), "{ahead:?} early");
        }
        assert_eq!(into.len(), 100);
    }

    #[tokio::test]
    async fn at_full_speed_they_come_at_once() {
        let (mut source, mut into) = (source(Speed::Max), Payloads::default());
        assert_eq!(source.next(&mut into, 40).await.unwrap(), Fed::More);
        assert_eq!(into.len(), 40);
        while source.next(&mut into, 40).await.unwrap() == Fed::More {}
        assert_eq!((into.len(), source.meter.received.load(Relaxed)), (100, 100));
    }
}
