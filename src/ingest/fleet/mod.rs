//! The `fleet` source: simulated devices, for trying out pipelines, for tests and for the demo.
//!
//! The generator ([`Fleet`]) is pure; around it stand the source, a recorder and a publisher.

mod generator;
mod publish;
mod random;
mod settings;
mod source;

pub use generator::{Fleet, FleetMessage, What};
pub use publish::{PublishError, Publisher, publish};
pub use settings::{DEVICES_MAX, FleetSettings, Offset, TOPIC, Walk};
pub use source::FleetSource;

use crate::component::{Kind, Settings};
use crate::flow::payload::{Delivery, Payload};
use crate::flow::topic::Topics;
use crate::ingest::recording::{RecordingError, RecordingWriter, Speed};
use crate::ingest::{BoxFuture, Source, SourceContext, SourceError, SourceSpec};

/// `type = "fleet"`.
pub const KIND: Kind<dyn SourceSpec> =
    Kind { name: "fleet", about: "simulated devices: seeded random walks, late, broken and silent ones", parse };

/// Bytes that a device takes, about.
const DEVICE_BYTES: u64 = 256;

fn parse(settings: &mut Settings) -> Option<Box<dyn SourceSpec>> {
    let faults = settings.faults_len();
    let (fleet, topic) = FleetSettings::read(settings);
    let topics = Topics::read(std::slice::from_ref(&topic));
    settings.finish();
    match topics {
        Ok(topics) if settings.faults_len() == faults => Some(Box::new(FleetSpec { fleet, topics })),
        Ok(_) => None,
        Err(wrong) => {
            wrong.into_iter().for_each(|fault| settings.fault(fault));
            None
        }
    }
}

/// A fleet as the pipeline file describes it.
#[derive(Debug)]
struct FleetSpec {
    fleet: FleetSettings,
    topics: Topics,
}

impl SourceSpec for FleetSpec {
    fn topics(&self) -> &Topics {
        &self.topics
    }

    fn describe(&self) -> String {
        let FleetSettings { devices, rate, seed, speed, .. } = &self.fleet;
        format!("{devices} simulated devices, {rate} messages a second each, seed {seed}, at {speed}")
    }

    /// Also one that starts now is ahead of the wall clock, or behind it, at any speed but `1x`.
    fn has_own_clock(&self) -> bool {
        self.fleet.start.is_some() || self.fleet.speed != Speed::Times(1.0)
    }

    fn memory_bytes(&self) -> u64 {
        self.fleet.devices as u64 * DEVICE_BYTES
    }

    fn open(&self, context: SourceContext) -> BoxFuture<'_, Result<Box<dyn Source>, SourceError>> {
        let start = self.fleet.start.unwrap_or_else(|| context.clock.now());
        let mut fleet = Fleet::new(self.fleet.clone(), start);
        // One that begins now has never been before.
        let taken = if self.fleet.start.is_some() { context.taken } else { 0 };
        let last = (0..taken).map_while(|_| fleet.next()).last();
        let start = last.map_or(start, |message| message.arrival);
        let source = FleetSource::start(fleet, start, self.fleet.speed, context.meter);
        Box::pin(std::future::ready(Ok(Box::new(source) as Box<dyn Source>)))
    }
}

/// What the transport says of every message of a fleet.
const DELIVERY: Delivery = Delivery { qos: 1, retained: false, dup: false, packet_id: 0, connection: 0 };

/// Writes messages into a recording, in order. How many there were.
pub fn record(
    messages: impl IntoIterator<Item = FleetMessage>,
    into: &mut RecordingWriter,
) -> Result<u64, RecordingError> {
    let mut seq = 0;
    for FleetMessage { arrival, topic, body, .. } in messages {
        seq += 1;
        let payload = Payload { topic: &topic, body: &body, arrival, delivery: DELIVERY, properties: &[] };
        into.write(&payload, seq)?;
    }
    Ok(seq)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(text: &str) -> Vec<String> {
        let (mut settings, faults) = Settings::of(text);
        let spec = parse(&mut settings);
        assert_eq!(spec.is_none(), !faults.borrow().is_empty());
        faults.borrow().iter().map(|fault| fault.what.clone()).collect()
    }

    #[test]
    fn a_fleet_is_read_from_its_table() {
        let (mut settings, faults) = Settings::of(
            r#"
            devices = 3
            rate = 2
            topics = ["sites/a/{device}/t"]
            start = 2026-01-01T00:00:00Z
            messages = 5
            speed = "max"
            late = 0.5
            wrong_clock_by = "-10m"
            fields = [{ name = "load", start = 1, step = 0.5, min = 0, max = 2, decimals = 3 }]
            "#,
        );
        let spec = parse(&mut settings).unwrap();
        assert_eq!(*faults.borrow(), []);
        assert_eq!(spec.topics().captures(), ["device"]);
        assert!(spec.has_own_clock());
        assert_eq!(spec.describe(), "3 simulated devices, 2 messages a second each, seed 42, at max");
    }

    #[test]
    fn every_fault_is_found() {
        assert_eq!(faults(""), [""; 0]);
        let found = faults(
            r#"
            rate = 0
            late = 1.5
            topics = ["fleet/+/{device}"]
            silent_for = "0s"
            fields = [{ name = "seq" }, { name = "x", min = 2, max = 1 }, { step = 1 }]
            device = 3
            "#,
        );
        let begins = ["`rate`", "`topics`", "field `x`", "`name`", "`fields`", "`late`", "`silent_for`", "unknown key"];
        assert_eq!(found.len(), begins.len(), "{found:#?}");
        for (fault, begin) in found.iter().zip(begins) {
            assert!(fault.starts_with(begin), "{fault}");
        }
    }
}
