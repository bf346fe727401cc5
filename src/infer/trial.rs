//! A recording read by the pipeline file that was made of it: what becomes rows, how late they are, what repeats.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::TimestampMicrosecondType;
use arrow::util::display::array_value_to_string;

use crate::flow::payload::Payload;
use crate::flow::time::{Span, Timestamp};
use crate::format::Decoder;
use crate::pipeline::plan::PlannedSource;

/// How many rows are remembered, to tell how late they are and what repeats.
const ROWS_MAX: usize = 2_000_000;
/// How many devices are told apart.
const GROUPS_MAX: usize = 100_000;
/// How many differences between a device's clock and the arrival are kept.
const OFFSETS_MAX: usize = 63;
/// How many reasons of dead letters are told.
const REASONS_MAX: usize = 5;
/// Payloads between two looks at the rows.
const PAYLOADS_A_BATCH: usize = 4_096;
/// A clock so far from those of the others is off.
const CLOCK_OFF: Span = Span::from_secs(300);

/// One source on trial.
pub struct Trial {
    source: PlannedSource,
    decoder: Box<dyn Decoder>,
    keys: Vec<usize>,
    hashing: RandomState,
    /// Arrival of each row that waits in the decoder.
    arrivals: Vec<Timestamp>,
    waiting: usize,
    /// Payloads, rows, dead letters.
    pub payloads: u64,
    /// Rows.
    pub rows: u64,
    /// Payloads that do not decode.
    pub dead_letters: u64,
    /// Why, by a message without its numbers, with how often, and one message whole.
    pub reasons: Vec<(String, u64, String)>,
    /// Payloads that were there before, byte for byte, by the same topic.
    pub repeated: u64,
    payloads_seen: HashSet<u64>,
    groups: HashMap<String, u32>,
    devices: Vec<Device>,
    /// Time and device of each row, in order of arrival.
    times: Vec<(i64, u32)>,
    future: u64,
    gaps: Vec<i64>,
    last_arrival: Option<Timestamp>,
}

#[derive(Debug, Default)]
struct Device {
    name: String,
    offsets: Vec<i64>,
    greatest: Option<i64>,
    steps: Vec<i64>,
    behind: i64,
}

/// What a trial found.
#[derive(Debug, Default)]
pub struct Findings {
    /// How many devices.
    pub devices: usize,
    /// First and last event time.
    pub times: Option<(i64, i64)>,
    /// How far a row is behind the newest one before it: half of the late rows, 99.9 % of all rows, all.
    pub behind: Option<[Span; 2]>,
    /// How many rows are behind at all.
    pub late_rows: u64,
    /// The same within each device alone: the most.
    pub behind_in_device: Span,
    /// Rows with a time that their device had before.
    pub same_time: u64,
    /// The usual time between two rows of a device.
    pub step: Option<Span>,
    /// The time between two payloads: 99.9 % of them, and the longest.
    pub gaps: Option<[Span; 2]>,
    /// Devices whose clocks are off: name, and by how much they are ahead of the others.
    pub clocks_off: Vec<(String, i64)>,
    /// By how much the clocks of the others are ahead of the arrival, in the middle.
    pub ahead: Option<i64>,
    /// Rows further in the future than the pipeline file lets pass.
    pub future: u64,
}

impl Trial {
    /// Of a source; `keys` are the names of the columns that tell devices apart.
    pub fn new(source: PlannedSource, keys: &[String]) -> Self {
        let place = |name: &String| source.columns.columns.iter().position(|column| column.name.text == *name);
        Self {
            decoder: source.decoder.build(&source.columns),
            keys: keys.iter().filter_map(place).collect(),
            source,
            hashing: RandomState::new(),
            arrivals: Vec::new(),
            waiting: 0,
            payloads: 0,
            rows: 0,
            dead_letters: 0,
            reasons: Vec::new(),
            repeated: 0,
            payloads_seen: HashSet::new(),
            groups: HashMap::new(),
            devices: Vec::new(),
            times: Vec::new(),
            future: 0,
            gaps: Vec::new(),
            last_arrival: None,
        }
    }

    /// Whether a payload is of this source.
    pub fn takes(&self, topic: &[u8]) -> bool {
        self.source.columns.topics.matches(topic, &mut Vec::new())
    }

    /// Reads one.
    pub fn add(&mut self, payload: &Payload<'_>) {
        self.payloads += 1;
        if payload.arrival != Timestamp::START {
            if let Some(last) = self.last_arrival.filter(|_| self.gaps.len() < ROWS_MAX) {
                self.gaps.push(payload.arrival.since(last).micros());
            }
            self.last_arrival = Some(payload.arrival);
        }
        if self.payloads_seen.len() < ROWS_MAX {
            self.repeated +=
                u64::from(!self.payloads_seen.insert(self.hashing.hash_one((payload.topic, payload.body))));
        }
        match self.decoder.push(payload) {
            Ok(rows) => {
                self.rows += rows as u64;
                self.arrivals.resize(self.arrivals.len() + rows, payload.arrival);
            }
            Err(why) => self.dead_letter(&why.why),
        }
        self.waiting += 1;
        if self.waiting == PAYLOADS_A_BATCH {
            self.look();
        }
    }

    fn dead_letter(&mut self, why: &str) {
        self.dead_letters += 1;
        let plain: String = why.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
        if let Some((_, count, _)) = self.reasons.iter_mut().find(|(known, ..)| *known == plain) {
            *count += 1;
        } else if self.reasons.len() < REASONS_MAX {
            self.reasons.push((plain, 1, why.to_owned()));
        }
    }

    /// Looks at the rows that wait.
    fn look(&mut self) {
        self.waiting = 0;
        let batch = self.decoder.flush();
        let times = batch.column(self.source.columns.time).as_primitive::<TimestampMicrosecondType>().clone();
        let arrivals = std::mem::take(&mut self.arrivals);
        for (row, arrival) in arrivals.iter().enumerate() {
            if times.is_null(row) || self.times.len() == ROWS_MAX {
                continue;
            }
            let Some(device) = self.device(&batch, row) else { continue };
            let time = times.value(row);
            let latest = arrival.plus(self.source.time.max_future);
            if *arrival != Timestamp::START && time > latest.micros() {
                self.future += 1;
            } else {
                self.times.push((time, device));
            }
            self.devices[device as usize].add(time, *arrival);
        }
    }

    fn device(&mut self, batch: &RecordBatch, row: usize) -> Option<u32> {
        let text = |column: &usize| array_value_to_string(batch.column(*column), row).unwrap_or_default();
        let name = self.keys.iter().map(text).collect::<Vec<_>>().join("/");
        if let Some(known) = self.groups.get(&name) {
            return Some(*known);
        }
        let number = u32::try_from(self.devices.len()).ok().filter(|_| self.devices.len() < GROUPS_MAX)?;
        self.devices.push(Device { name: name.clone(), ..Device::default() });
        self.groups.insert(name, number);
        Some(number)
    }

    /// What was found.
    pub fn findings(&mut self) -> Findings {
        self.look();
        let mut found = Findings { devices: self.devices.len(), future: self.future, ..Findings::default() };
        found.gaps =
            quantile(&mut self.gaps, 0.999).zip(self.gaps.last()).map(|(most, last)| [span(most), span(*last)]);
        let mut offsets: Vec<i64> =
            self.devices.iter_mut().filter_map(|device| quantile(&mut device.offsets, 0.5)).collect();
        found.ahead = quantile(&mut offsets, 0.5);
        let mut off = vec![false; self.devices.len()];
        if let Some(usual) = found.ahead {
            for (device, off) in self.devices.iter_mut().zip(&mut off) {
                let ahead = quantile(&mut device.offsets, 0.5).map_or(0, |median| median - usual);
                if ahead.abs() > CLOCK_OFF.micros() {
                    *off = true;
                    found.clocks_off.push((device.name.clone(), ahead));
                }
            }
            found.clocks_off.sort_by_key(|(name, ahead)| (std::cmp::Reverse(ahead.abs()), name.clone()));
        }
        self.lateness(&off, &mut found);
        let mut steps: Vec<i64> =
            self.devices.iter_mut().filter_map(|device| quantile(&mut device.steps, 0.5)).collect();
        found.step = quantile(&mut steps, 0.5).map(span);
        found
    }

    /// How far rows are behind, of devices whose clocks are not off and that are not in the future.
    fn lateness(&self, off: &[bool], found: &mut Findings) {
        let mut greatest = i64::MIN;
        let mut behind = Vec::with_capacity(self.times.len());
        let mut seen = HashSet::with_capacity(self.times.len());
        for (time, device) in &self.times {
            found.same_time += u64::from(!seen.insert((*time, *device)));
            if off[*device as usize] {
                continue;
            }
            let (first, last) = found.times.unwrap_or((*time, *time));
            found.times = Some((first.min(*time), last.max(*time)));
            behind.push(greatest.saturating_sub(*time).max(0));
            greatest = greatest.max(*time);
        }
        found.late_rows = behind.iter().filter(|behind| **behind > 0).count() as u64;
        let most = quantile(&mut behind, 0.999);
        found.behind = most.zip(behind.last()).map(|(most, last)| [span(most), span(*last)]);
        let in_device = self.devices.iter().zip(off).filter(|(_, off)| !**off).map(|(device, _)| device.behind).max();
        found.behind_in_device = span(in_device.unwrap_or(0));
    }
}

impl Device {
    fn add(&mut self, time: i64, arrival: Timestamp) {
        if arrival != Timestamp::START && self.offsets.len() < OFFSETS_MAX {
            self.offsets.push(time.saturating_sub(arrival.micros()));
        }
        let greatest = self.greatest.unwrap_or(time);
        if time > greatest && self.steps.len() < OFFSETS_MAX {
            self.steps.push(time.saturating_sub(greatest));
        }
        self.behind = self.behind.max(greatest.saturating_sub(time));
        self.greatest = Some(greatest.max(time));
    }
}

fn span(micros: i64) -> Span {
    Span::from_micros(micros)
}

/// The value that a share of all is not above (nearest rank). Sorts them.
#[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rank")]
fn quantile(values: &mut [i64], share: f64) -> Option<i64> {
    values.sort_unstable();
    let rank = (values.len() as f64 * share).ceil() as usize;
    values.get(rank.max(1) - 1).copied()
}
