//! The messages of a fleet, one after the other: pure, and the same for ever for the same settings and start.

use std::io::Write;

use bytes::Bytes;

use super::random::Random;
use super::settings::{FleetSettings, Walk};
use crate::flow::time::Timestamp;

/// The most that a message is under way, in microseconds.
const DELAY_MAX: u64 = 20_000;

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FleetMessage {
    /// When it arrives.
    pub arrival: Timestamp,
    /// Who sent it: counts from 0.
    pub device: usize,
    /// Where to.
    pub topic: Bytes,
    /// `{"ts":…,"device":"device-0000","seq":…,"temperature":…}`; `ts` in milliseconds, `seq` counts from 1.
    pub body: Bytes,
    /// What was done to it.
    pub what: What,
}

/// What was done to a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// Nothing.
    Good,
    /// Its event time lies further back than the device's others.
    Late,
    /// It is the message before it once more, byte for byte.
    Duplicate,
    /// It ends in the middle.
    Malformed,
}

/// The messages of a fleet in order of arrival.
#[derive(Clone, Debug)]
pub struct Fleet {
    settings: FleetSettings,
    start: Timestamp,
    /// Microseconds from one message of a device to its next.
    period: f64,
    /// In the order in which they send within a round.
    devices: Vec<Device>,
    walks: Vec<Steps>,
    round: u64,
    next: usize,
    sent: u64,
    again: Option<FleetMessage>,
    body: Vec<u8>,
}

#[derive(Clone, Debug)]
struct Device {
    index: usize,
    name: String,
    topic: Bytes,
    random: Random,
    /// Microseconds of each round before its message.
    phase: i64,
    seq: u64,
    clock_off_by: i64,
    /// When its next silence begins, in microseconds since the start; `i64::MAX` of a device that never is silent.
    silent_from: i64,
    /// In units of the last decimal.
    values: Vec<i64>,
}

/// A [`Walk`] in units of its last decimal: whole numbers are the same on every machine.
#[derive(Clone, Debug)]
struct Steps {
    key: Vec<u8>,
    start: i64,
    step: i64,
    min: i64,
    max: i64,
    decimals: u32,
}

impl Steps {
    #[expect(clippy::cast_possible_truncation, reason = "bounds and decimals are checked with the settings")]
    fn of(walk: &Walk) -> Self {
        let unit = 10_f64.powi(walk.decimals as i32);
        let units = |value: f64| (value * unit).round() as i64;
        let mut key = Vec::new();
        serde_json::to_writer(&mut key, &walk.name).expect("a string is written to memory");
        Self {
            key,
            start: units(walk.start),
            step: units(walk.step),
            min: units(walk.min),
            max: units(walk.max),
            decimals: walk.decimals,
        }
    }

    fn walk(&self, value: &mut i64, random: &mut Random) {
        let step = random.below(self.step.unsigned_abs() * 2 + 1) as i64 - self.step;
        *value = (*value + step).clamp(self.min, self.max);
    }

    fn write(&self, value: i64, into: &mut Vec<u8>) {
        let unit = 10_u64.pow(self.decimals);
        let (sign, value) = (if value < 0 { "-" } else { "" }, value.unsigned_abs());
        let places = self.decimals as usize;
        let written = match places {
            0 => write!(into, "{sign}{value}"),
            _ => write!(into, "{sign}{}.{:0places$}", value / unit, value % unit),
        };
        written.expect("memory takes everything");
    }
}

impl Fleet {
    /// The fleet of these settings, whose first round begins at `start`.
    pub fn new(settings: FleetSettings, start: Timestamp) -> Self {
        let walks: Vec<_> = settings.fields.iter().map(Steps::of).collect();
        let period = 1e6 / settings.rate;
        let device = |index| Device::new(index, &settings, period, &walks);
        let mut devices: Vec<_> = (0..settings.devices).map(device).collect();
        devices.sort_by_key(|device| (device.phase, device.index));
        Self { settings, start, period, devices, walks, round: 0, next: 0, sent: 0, again: None, body: Vec::new() }
    }

    /// The message of the next device whose turn it is; `None` where that device is silent.
    fn turn(&mut self, elapsed: i64) -> Option<FleetMessage> {
        let device = &mut self.devices[self.next];
        if device.is_silent(elapsed, self.settings.silent_for.micros()) {
            return None;
        }
        let late = device.random.happens(self.settings.late);
        let malformed = device.random.happens(self.settings.malformed);
        let arrival = self.start.micros().saturating_add(elapsed);
        let behind = device.random.below(DELAY_MAX) as i64 + if late { self.settings.late_by.micros() } else { 0 };
        let time = arrival.saturating_sub(behind).saturating_add(device.clock_off_by);
        device.write(time.div_euclid(1_000), &self.walks, &mut self.body);
        if malformed {
            self.body.truncate(self.body.len() / 2);
        }
        let what = match (malformed, late) {
            (true, _) => What::Malformed,
            (false, true) => What::Late,
            (false, false) => What::Good,
        };
        let message = FleetMessage {
            arrival: Timestamp::from_micros(arrival),
            device: device.index,
            topic: device.topic.clone(),
            body: Bytes::copy_from_slice(&self.body),
            what,
        };
        if device.random.happens(self.settings.duplicate) {
            self.again = Some(FleetMessage { what: What::Duplicate, ..message.clone() });
        }
        Some(message)
    }
}

impl Iterator for Fleet {
    type Item = FleetMessage;

    fn next(&mut self) -> Option<FleetMessage> {
        if self.settings.messages.is_some_and(|messages| self.sent >= messages) {
            return None;
        }
        if let Some(again) = self.again.take() {
            self.sent += 1;
            return Some(again);
        }
        loop {
            let phase = self.devices.get(self.next)?.phase;
            #[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "exact for 285 years")]
            let elapsed = ((self.round as f64 * self.period) as i64).saturating_add(phase);
            if self.settings.duration.is_some_and(|duration| elapsed >= duration.micros()) {
                return None;
            }
            let message = self.turn(elapsed);
            self.next += 1;
            if self.next == self.devices.len() {
                (self.round, self.next) = (self.round + 1, 0);
            }
            if message.is_some() {
                self.sent += 1;
                return message;
            }
        }
    }
}

impl Device {
    fn new(index: usize, settings: &FleetSettings, period: f64, walks: &[Steps]) -> Self {
        let mut random = Random::new(settings.seed, index as u64);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "rates are bounded")]
        let phase = random.below(period as u64) as i64;
        let wrong_clock = random.happens(settings.wrong_clock);
        let silent_for = settings.silent_for.micros().unsigned_abs();
        let silent_from = match random.happens(settings.silent) {
            true => random.below(silent_for.saturating_mul(4).max(1)) as i64,
            false => i64::MAX,
        };
        let name = format!("device-{index:04}");
        Self {
            index,
            topic: Bytes::from(settings.topic.replace("{device}", &name)),
            name,
            random,
            phase,
            seq: 0,
            clock_off_by: if wrong_clock { settings.wrong_clock_by.0 } else { 0 },
            silent_from,
            values: walks.iter().map(|walk| walk.start).collect(),
        }
    }

    /// Whether it is in a silence. Between two of them lie one to four times their length.
    fn is_silent(&mut self, elapsed: i64, silent_for: i64) -> bool {
        while elapsed.saturating_sub(self.silent_from) >= silent_for && self.silent_from < i64::MAX {
            let talks =
                silent_for.saturating_add(self.random.below(silent_for.unsigned_abs().saturating_mul(3)) as i64);
            self.silent_from = self.silent_from.saturating_add(silent_for).saturating_add(talks);
        }
        elapsed >= self.silent_from
    }

    fn write(&mut self, millis: i64, walks: &[Steps], into: &mut Vec<u8>) {
        self.seq += 1;
        into.clear();
        let head = write!(into, "{{\"ts\":{millis},\"device\":\"{}\",\"seq\":{}", self.name, self.seq);
        head.expect("memory takes everything");
        for (walk, value) in walks.iter().zip(&mut self.values) {
            walk.walk(value, &mut self.random);
            into.push(b',');
            into.extend_from_slice(&walk.key);
            into.push(b':');
            walk.write(*value, into);
        }
        into.push(b'}');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::time::Span;
    use crate::ingest::fleet::settings::Offset;

    const START: Timestamp = Timestamp::from_micros(1_700_000_000_000_000);

    fn fleet(change: impl FnOnce(&mut FleetSettings)) -> Vec<FleetMessage> {
        let mut settings = FleetSettings { duration: Some(Span::from_secs(100)), ..FleetSettings::default() };
        change(&mut settings);
        Fleet::new(settings, START).collect()
    }

    fn json(message: &FleetMessage) -> serde_json::Value {
        serde_json::from_slice(&message.body).unwrap()
    }

    fn count(messages: &[FleetMessage], what: What) -> usize {
        messages.iter().filter(|message| message.what == what).count()
    }

    #[test]
    fn every_device_sends_at_its_rate_and_in_order() {
        let messages = fleet(|fleet| fleet.rate = 4.0);
        assert_eq!(messages.len(), 10 * 4 * 100);
        assert!(messages.is_sorted_by_key(|message| message.arrival));
        for device in 0..10 {
            let own: Vec<_> = messages.iter().filter(|message| message.device == device).collect();
            assert_eq!(own.len(), 400);
            for (index, message) in own.iter().enumerate() {
                let row = json(message);
                assert_eq!(row["seq"], index + 1);
                assert_eq!(row["device"], format!("device-000{device}"));
                assert_eq!(message.topic, format!("fleet/device-000{device}/telemetry"));
                let (ts, temperature) = (row["ts"].as_i64().unwrap(), row["temperature"].as_f64().unwrap());
                assert!((0..=21).contains(&(message.arrival.micros() / 1000 - ts)));
                assert!((-10.0..=45.0).contains(&temperature));
            }
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_bytes_and_another_one_others() {
        let noisy = |seed: u64| {
            fleet(|fleet| {
                (fleet.seed, fleet.late, fleet.duplicate) = (seed, 0.1, 0.1);
                (fleet.malformed, fleet.silent, fleet.wrong_clock) = (0.1, 0.5, 0.5);
            })
        };
        assert_eq!(noisy(1), noisy(1));
        assert_ne!(noisy(1), noisy(2));
    }

    #[test]
    fn shares_are_kept() {
        let messages =
            fleet(|fleet| (fleet.late, fleet.duplicate, fleet.malformed, fleet.rate) = (0.2, 0.1, 0.1, 10.0));
        // 10,000 messages and 10 % of them once more; of those 10 % malformed, of the others 20 % late.
        let within = |what, around: usize| {
            let count = count(&messages, what);
            assert!(count.abs_diff(around) < around / 5, "{what:?}: {count}");
        };
        within(What::Malformed, 1_000);
        within(What::Duplicate, 1_000);
        within(What::Late, 1_800);
        within(What::Good, 7_200);
        for pair in messages.windows(2).filter(|pair| pair[1].what == What::Duplicate) {
            assert_eq!((&pair[0].body, &pair[0].topic), (&pair[1].body, &pair[1].topic));
        }
        let malformed = |message: &&FleetMessage| serde_json::from_slice::<serde_json::Value>(&message.body).is_err();
        let originals = messages.iter().filter(|message| message.what != What::Duplicate);
        assert_eq!(originals.filter(malformed).count(), count(&messages, What::Malformed));
    }

    #[test]
    fn late_messages_and_wrong_clocks_are_off_by_what_was_asked_for() {
        let delay = |message: &FleetMessage| message.arrival.micros() / 1000 - json(message)["ts"].as_i64().unwrap();
        let late = fleet(|fleet| fleet.late = 1.0);
        assert!(late.iter().all(|message| (30_000..=30_021).contains(&delay(message))));
        let ahead = fleet(|fleet| (fleet.wrong_clock, fleet.wrong_clock_by) = (1.0, "1h".parse().unwrap()));
        assert!(ahead.iter().all(|message| (-3_600_000..=-3_599_979).contains(&delay(message))));
        assert_eq!("-1h".parse(), Ok(Offset(-3_600_000_000)));
    }

    #[test]
    fn silent_devices_pause_for_as_long_as_was_asked_for() {
        let messages = fleet(|fleet| {
            (fleet.devices, fleet.silent, fleet.silent_for) = (4, 1.0, Span::from_secs(10));
            fleet.duration = Some(Span::from_secs(1000));
        });
        for device in 0..4 {
            let own: Vec<_> = messages.iter().filter(|message| message.device == device).collect();
            let pauses: Vec<_> = own.windows(2).map(|pair| pair[1].arrival.since(pair[0].arrival).micros()).collect();
            let silences: Vec<_> = pauses.iter().filter(|pause| **pause > 1_000_000).collect();
            // From one silence to the next 20 to 50 s; ten messages fall into each.
            assert!((18..=51).contains(&silences.len()), "{silences:?}");
            assert!(silences.iter().all(|pause| **pause == 11_000_000), "{silences:?}");
        }
    }

    #[test]
    fn the_feed_ends_after_the_messages_it_was_given() {
        assert_eq!(fleet(|fleet| fleet.messages = Some(7)).len(), 7);
        assert_eq!(fleet(|fleet| (fleet.messages, fleet.duplicate) = (Some(7), 1.0)).len(), 7);
        assert_eq!(fleet(|fleet| fleet.messages = Some(0)).len(), 0);
    }

    #[test]
    fn numbers_are_written_with_their_decimals() {
        let write = |value, decimals| {
            let walk = Walk { name: "x".into(), start: 0.0, step: 1.0, min: -9.0, max: 9.0, decimals };
            let mut text = Vec::new();
            Steps::of(&walk).write(value, &mut text);
            String::from_utf8(text).unwrap()
        };
        assert_eq!([write(-5, 2), write(1203, 2), write(7, 0), write(0, 1)], ["-0.05", "12.03", "7", "0.0"]);
    }
}
