//! What a fleet is like, as the pipeline file says it.

use std::str::FromStr;

use crate::component::{Fault, Name, Node, Setting, Settings, Value};
use crate::flow::time::{Span, Timestamp};
use crate::ingest::recording::{Speed, read_time};

/// The most devices a fleet may have.
pub const DEVICES_MAX: usize = 10_000_000;

/// The most decimals a field may have.
const DECIMALS_MAX: u64 = 9;

/// The topic of a device where nothing else is said.
pub const TOPIC: &str = "fleet/{device}/telemetry";

/// What a fleet is like.
#[derive(Clone, Debug, PartialEq)]
pub struct FleetSettings {
    /// How many devices.
    pub devices: usize,
    /// Messages a second of each device.
    pub rate: f64,
    /// The same seed and start give the same bytes.
    pub seed: u64,
    /// The topic of a device; `{device}` is its name.
    pub topic: String,
    /// The arrival time of the first message; the time of opening where there is none.
    pub start: Option<Timestamp>,
    /// The feed ends after so much of its own time.
    pub duration: Option<Span>,
    /// The feed ends after so many messages.
    pub messages: Option<u64>,
    /// How fast its time passes.
    pub speed: Speed,
    /// The numbers that a message carries.
    pub fields: Vec<Walk>,
    /// The share of messages whose event time lies `late_by` further back.
    pub late: f64,
    /// See `late`.
    pub late_by: Span,
    /// The share of messages that come twice.
    pub duplicate: f64,
    /// The share of messages that are cut off in the middle.
    pub malformed: f64,
    /// The share of devices that say nothing for `silent_for`, now and then.
    pub silent: f64,
    /// See `silent`.
    pub silent_for: Span,
    /// The share of devices whose clock is wrong by `wrong_clock_by`.
    pub wrong_clock: f64,
    /// See `wrong_clock`.
    pub wrong_clock_by: Offset,
}

impl Default for FleetSettings {
    fn default() -> Self {
        Self {
            devices: 10,
            rate: 1.0,
            seed: 42,
            topic: TOPIC.to_owned(),
            start: None,
            duration: None,
            messages: None,
            speed: Speed::Times(1.0),
            fields: vec![
                Walk { name: "temperature".into(), start: 20.0, step: 0.3, min: -10.0, max: 45.0, decimals: 2 },
                Walk { name: "humidity".into(), start: 50.0, step: 1.0, min: 0.0, max: 100.0, decimals: 1 },
            ],
            late: 0.0,
            late_by: Span::from_secs(30),
            duplicate: 0.0,
            malformed: 0.0,
            silent: 0.0,
            silent_for: Span::from_secs(60),
            wrong_clock: 0.0,
            wrong_clock_by: Offset(3_600_000_000),
        }
    }
}

/// A number of a message: a random walk between two bounds.
#[derive(Clone, Debug, PartialEq)]
pub struct Walk {
    /// Its key.
    pub name: String,
    /// Where it begins.
    pub start: f64,
    /// The most it changes from one message to the next.
    pub step: f64,
    /// It never falls below.
    pub min: f64,
    /// It never rises above.
    pub max: f64,
    /// How many decimals are written.
    pub decimals: u32,
}

/// How far a clock is ahead (`"1h"`) or behind (`"-1h"`), in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offset(pub i64);

impl FromStr for Offset {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_prefix('-') {
            Some(behind) => behind.parse().map(|span: Span| Self(-span.micros())),
            None => text.parse().map(|span: Span| Self(span.micros())),
        }
    }
}

impl Setting for Offset {
    const EXPECTED: &'static str = "a length of time like \"1h\" or \"-1h\"";

    fn read(node: &Node) -> Result<Self, Option<String>> {
        match &node.value {
            Value::String(text) => text.parse().map_err(Some),
            _ => Err(None),
        }
    }
}

/// A point in time, for settings: RFC 3339 as a string or as TOML's own date.
struct Start(Timestamp);

impl Setting for Start {
    const EXPECTED: &'static str = "a time like \"2026-01-01T00:00:00Z\"";

    fn read(node: &Node) -> Result<Self, Option<String>> {
        match &node.value {
            Value::String(text) | Value::Datetime(text) => read_time(text).map(Self).map_err(Some),
            _ => Err(None),
        }
    }
}

/// A share: 0 to 1.
struct Share(f64);

impl Setting for Share {
    const EXPECTED: &'static str = "a share from 0 to 1";

    fn read(node: &Node) -> Result<Self, Option<String>> {
        let share = f64::read(node)?;
        let wrong = || Some(format!("expected {}, got {share}", Self::EXPECTED));
        (0.0..=1.0).contains(&share).then_some(Self(share)).ok_or_else(wrong)
    }
}

impl FleetSettings {
    /// Reads the table; its faults are left in `settings`. With the pattern of its topics, for the captures.
    pub(super) fn read(settings: &mut Settings) -> (Self, Name) {
        let mut fleet = Self::default();
        let at = settings.at.clone();
        fleet.devices = Self::bounded(settings, "devices", fleet.devices, DEVICES_MAX);
        fleet.rate = Self::rate(settings, fleet.rate);
        fleet.seed = settings.or("seed", fleet.seed);
        let topic = Self::topic(settings).unwrap_or(Name { text: fleet.topic, at, expanded: true });
        fleet.topic = topic.text.clone();
        fleet.start = settings.optional("start").map(|Start(at)| at);
        fleet.duration = settings.optional("duration");
        fleet.messages = settings.optional("messages");
        fleet.speed = settings.or("speed", fleet.speed);
        fleet.fields = Self::fields(settings).unwrap_or(fleet.fields);
        fleet.late = settings.or("late", Share(fleet.late)).0;
        fleet.late_by = settings.or("late_by", fleet.late_by);
        fleet.duplicate = settings.or("duplicate", Share(fleet.duplicate)).0;
        fleet.malformed = settings.or("malformed", Share(fleet.malformed)).0;
        fleet.silent = settings.or("silent", Share(fleet.silent)).0;
        fleet.silent_for = Self::silent_for(settings, fleet.silent_for);
        fleet.wrong_clock = settings.or("wrong_clock", Share(fleet.wrong_clock)).0;
        fleet.wrong_clock_by = settings.or("wrong_clock_by", fleet.wrong_clock_by);
        (fleet, topic)
    }

    fn bounded(settings: &mut Settings, key: &'static str, default: usize, max: usize) -> usize {
        let at = settings.at.clone();
        let value = settings.or(key, default);
        if value > max {
            settings.fault(Fault::new(at, format!("`{key}`: expected 1 to {max}, got {value}")));
        }
        value.min(max)
    }

    fn rate(settings: &mut Settings, default: f64) -> f64 {
        let rate = settings.or("rate", default);
        if rate > 0.0 && rate <= 1e6 {
            return rate;
        }
        let what = format!("`rate`: expected more than 0 and at most 1000000 messages a second, got {rate}");
        settings.fault(Fault::new(settings.at.clone(), what));
        default
    }

    fn silent_for(settings: &mut Settings, default: Span) -> Span {
        let span = settings.or("silent_for", default);
        if span == Span::ZERO {
            let what = "`silent_for`: expected more than no time at all";
            settings.fault(Fault::new(settings.at.clone(), what));
            return default;
        }
        span
    }

    /// The only pattern of `topics`: `{device}` is the only thing in it that is not literal.
    fn topic(settings: &mut Settings) -> Option<Name> {
        let mut topics: Vec<Name> = settings.optional("topics")?;
        let at = topics.first().map_or(settings.at.clone(), |topic| topic.at.clone());
        let literal = |level: &str| level == "{device}" || !level.contains(['{', '}', '+', '#']);
        let ok = |topic: &Name| topic.text.contains("{device}") && topic.text.split('/').all(literal);
        match topics.pop() {
            Some(topic) if topics.is_empty() && ok(&topic) => Some(topic),
            _ => {
                let what = format!("`topics`: expected one topic with the level `{{device}}`, like \"{TOPIC}\"");
                settings.fault(Fault::new(at, what));
                None
            }
        }
    }

    fn fields(settings: &mut Settings) -> Option<Vec<Walk>> {
        let (name, node) = settings.take("fields")?;
        let Value::Array(nodes) = node.value else {
            let what = format!("`fields`: expected an array of tables, got {}", node.value.type_name());
            settings.fault(Fault::new(node.at, what));
            return None;
        };
        let fields: Vec<Walk> = nodes
            .into_iter()
            .filter_map(|node| {
                let mut table = settings.as_table("fields", node)?;
                let walk = Walk::read(&mut table);
                table.finish();
                walk
            })
            .collect();
        for (index, field) in fields.iter().enumerate() {
            let taken = |name: &str| matches!(name, "ts" | "device" | "seq");
            if taken(&field.name) || fields[..index].iter().any(|other| other.name == field.name) {
                settings.fault(name.fault(format!("`fields`: the name `{}` is taken", field.name)));
            }
        }
        Some(fields)
    }
}

impl Walk {
    /// The greatest bound of a field: with nine decimals it still fits into 64 bits.
    const BOUND: f64 = 1e9;

    fn read(settings: &mut Settings) -> Option<Self> {
        let at = settings.at.clone();
        let name: Option<String> = settings.required("name");
        let (min, max) = (settings.or("min", -1000.0), settings.or("max", 1000.0));
        let walk = Self {
            start: settings.or("start", (min + max) / 2.0),
            step: settings.or("step", 1.0),
            min,
            max,
            decimals: settings.or("decimals", 2_u64).min(DECIMALS_MAX + 1) as u32,
            name: name?,
        };
        let within = |value: f64| (-Self::BOUND..=Self::BOUND).contains(&value);
        let why = if !within(walk.min) || !within(walk.max) || walk.min > walk.max {
            "expected `min` and `max` in order, within a thousand million"
        } else if !(walk.min..=walk.max).contains(&walk.start) {
            "expected `start` between `min` and `max`"
        } else if !(0.0..=Self::BOUND).contains(&walk.step) {
            "expected `step` from 0 to a thousand million"
        } else if u64::from(walk.decimals) > DECIMALS_MAX {
            "expected at most 9 `decimals`"
        } else {
            return Some(walk);
        };
        settings.fault(Fault::new(at, format!("field `{}`: {why}", walk.name)));
        None
    }
}
