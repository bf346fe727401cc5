//! Topics to patterns: which levels are words, which tell devices apart, and which topics carry messages of one kind.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// A level of so many values or fewer may be a word that names a kind of message.
const WORDS_MAX: usize = 16;
/// Messages of one kind have at least this share of all their fields in common.
const ALIKE: f64 = 0.4;

/// What a payload looks like from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Look {
    /// A JSON object or array.
    Document,
    /// A bare number.
    Number,
    /// A bare word of truth: `ON`, `true`.
    Truth,
    /// Other text.
    Text,
    /// Bytes that are no text.
    Binary,
    /// Nothing: a retained message is cleared so.
    Empty,
}

/// What was seen of a topic.
#[derive(Clone, Debug, Default)]
pub struct Topic {
    /// How often each look came.
    pub looks: BTreeMap<Look, u64>,
    /// The names of fields at the top of its documents, by number.
    pub fields: BTreeSet<u32>,
}

/// Topics that carry messages of one kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Patterns as a pipeline file has them.
    pub patterns: Vec<String>,
    /// What most of its payloads look like.
    pub look: Look,
}

impl Topic {
    fn look(&self) -> Look {
        let told = self.looks.iter().filter(|(look, _)| **look != Look::Empty);
        told.max_by_key(|(_, count)| **count).map_or(Look::Empty, |(look, _)| *look)
    }
}

/// A topic, cut into levels.
type Cut<'t> = (Vec<&'t str>, &'t Topic);

/// Groups of topics, in the order of their first patterns.
pub fn group(topics: &BTreeMap<String, Topic>) -> Vec<Group> {
    let mut by_length: BTreeMap<usize, Vec<Cut<'_>>> = BTreeMap::new();
    for (name, topic) in topics.iter().filter(|(_, topic)| topic.look() != Look::Empty) {
        let levels: Vec<&str> = name.split('/').collect();
        by_length.entry(levels.len()).or_default().push((levels, topic));
    }
    let groups = by_length.into_values().flat_map(|topics| split(topics.clone(), &BTreeSet::new(), &topics));
    let mut groups: Vec<Group> = groups.collect();
    groups.sort_by(|a, b| a.patterns.cmp(&b.patterns));
    groups
}

/// Cuts topics into groups by the level that tells kinds of messages apart best, and those again. What stands at such a
/// level (`words`) is a word of the patterns. `all` are the topics of the same length.
fn split(topics: Vec<Cut<'_>>, words: &BTreeSet<usize>, all: &[Cut<'_>]) -> Vec<Group> {
    let levels = (0..topics[0].0.len()).filter(|level| !words.contains(level));
    // Where two tell as many kinds apart, the one that mixes fewer, and then the one of fewer words: the other one names
    // devices.
    let parts = levels.filter_map(|level| Some((level, kinds(&topics, level)?))).max_by_key(|(level, parts)| {
        (
            parts.len(),
            Reverse(parts.iter().map(|part| strangers(part)).sum::<usize>()),
            Reverse(distinct(&topics, *level)),
        )
    });
    match parts {
        Some((level, parts)) => {
            let words: BTreeSet<usize> = words.iter().copied().chain([level]).collect();
            parts.into_iter().flat_map(|part| split(part, &words, all)).collect()
        }
        None => vec![Group { look: most(&topics), patterns: patterns(&topics, words, all) }],
    }
}

/// The topics by kind of message, where the words at a level tell several kinds apart.
fn kinds<'t>(topics: &[Cut<'t>], level: usize) -> Option<Vec<Vec<Cut<'t>>>> {
    let mut by_word: BTreeMap<&str, Vec<Cut<'t>>> = BTreeMap::new();
    for (levels, topic) in topics {
        by_word.entry(levels[level]).or_default().push((levels.clone(), topic));
    }
    if !(2..=WORDS_MAX).contains(&by_word.len()) {
        return None;
    }
    let mut kinds: Vec<(Profile, Vec<Cut<'t>>)> = Vec::new();
    for topics in by_word.into_values() {
        let profile = Profile::of(&topics);
        match kinds.iter_mut().find(|(known, _)| known.is_like(&profile)) {
            Some((known, all)) => {
                known.join(&profile);
                all.extend(topics);
            }
            None => kinds.push((profile, topics)),
        }
    }
    (kinds.len() > 1).then(|| kinds.into_iter().map(|(_, topics)| topics).collect())
}

/// What the payloads of some topics have in common: a field, and in how many of the topics it comes.
struct Profile {
    look: Look,
    topics: usize,
    fields: HashMap<u32, usize>,
}

impl Profile {
    fn of(topics: &[Cut<'_>]) -> Self {
        let mut fields = HashMap::new();
        topics.iter().flat_map(|(_, topic)| &topic.fields).for_each(|field| *fields.entry(*field).or_default() += 1);
        Self { look: most(topics), topics: topics.len(), fields }
    }

    /// Weighted Jaccard similarity of how usual each field is.
    #[expect(clippy::cast_precision_loss, reason = "a share")]
    fn is_like(&self, other: &Self) -> bool {
        if self.look != other.look {
            return false;
        }
        let all: BTreeSet<u32> = self.fields.keys().chain(other.fields.keys()).copied().collect();
        if all.is_empty() {
            return true;
        }
        let share = |of: &Self, field| of.fields.get(field).map_or(0.0, |count| *count as f64 / of.topics as f64);
        let common: f64 = all.iter().map(|field| share(self, field).min(share(other, field))).sum();
        let either: f64 = all.iter().map(|field| share(self, field).max(share(other, field))).sum();
        common >= ALIKE * either
    }

    fn join(&mut self, other: &Self) {
        self.topics += other.topics;
        other.fields.iter().for_each(|(field, count)| *self.fields.entry(*field).or_default() += count);
    }
}

fn most(topics: &[Cut<'_>]) -> Look {
    let mut looks: BTreeMap<Look, u64> = BTreeMap::new();
    for (look, count) in topics.iter().flat_map(|(_, topic)| &topic.looks).filter(|(look, _)| **look != Look::Empty) {
        *looks.entry(*look).or_default() += count;
    }
    looks.into_iter().max_by_key(|(_, count)| *count).map_or(Look::Empty, |(look, _)| look)
}

/// Topics that look otherwise than most of these do.
fn strangers(topics: &[Cut<'_>]) -> usize {
    let look = most(topics);
    topics.iter().filter(|(_, topic)| topic.look() != look).count()
}

/// The patterns that match topics of one kind and none of another: one for each choice of `words`.
fn patterns(topics: &[Cut<'_>], words: &BTreeSet<usize>, all: &[Cut<'_>]) -> Vec<String> {
    let captures = captures(topics, words, all);
    let device = captures.iter().copied().max_by_key(|level| distinct(topics, *level));
    let choices: BTreeSet<Vec<&str>> =
        topics.iter().map(|(levels, _)| words.iter().map(|level| levels[*level]).collect()).collect();
    let pattern = |choice: Vec<&str>| {
        let (mut chosen, mut names) = (choice.into_iter(), Vec::new());
        let mut pattern: Vec<String> = Vec::new();
        for (level, only) in topics[0].0.iter().enumerate() {
            let word = if words.contains(&level) { chosen.next().unwrap_or_default() } else { *only };
            if !captures.contains(&level) && is_literal(word) {
                pattern.push(word.to_owned());
                continue;
            }
            let before = level.checked_sub(1).filter(|before| !captures.contains(before));
            let name = match before.and_then(|before| singular(&pattern[before])) {
                Some(name) => name,
                None if device.is_none_or(|device| device == level) => "device".to_owned(),
                None => format!("level{}", level + 1),
            };
            let name = if names.contains(&name) { format!("{name}{}", level + 1) } else { name };
            pattern.push(format!("{{{name}}}"));
            names.push(name);
        }
        pattern.join("/")
    };
    choices.into_iter().map(pattern).collect()
}

/// The levels that tell topics of one kind apart, from the last one on: where they differ, or where topics differ that are
/// the same in all other levels (of a device that has been seen alone).
fn captures(topics: &[Cut<'_>], words: &BTreeSet<usize>, all: &[Cut<'_>]) -> BTreeSet<usize> {
    let (levels, first) = (topics[0].0.len(), &topics[0].0);
    let tells = |level: &usize| distinct(topics, *level) > 1 || is_id(first[*level]);
    let mut captures: BTreeSet<usize> = (0..levels).filter(tells).collect();
    captures.retain(|level| !words.contains(level));
    for level in (0..levels).rev().filter(|level| !words.contains(level)) {
        let fixed: Vec<usize> =
            (0..levels).filter(|at| *at != level && !words.contains(at) && !captures.contains(at)).collect();
        let like = all.iter().filter(|(of, _)| fixed.iter().all(|at| of[*at] == first[*at]));
        if !fixed.is_empty() && like.map(|(of, _)| of[level]).collect::<BTreeSet<_>>().len() > 1 {
            captures.insert(level);
        }
    }
    captures
}

fn distinct(topics: &[Cut<'_>], level: usize) -> usize {
    topics.iter().map(|(levels, _)| levels[level]).collect::<BTreeSet<_>>().len()
}

/// Whether a word looks like the number of a device, as an EUI or a MAC address does.
fn is_id(word: &str) -> bool {
    let plain = word.strip_prefix("0x").unwrap_or(word);
    let digits = plain.bytes().filter(u8::is_ascii_digit).count();
    plain.len() >= 8 && digits >= 2 && plain.bytes().all(|byte| byte.is_ascii_hexdigit() || matches!(byte, b'-' | b':'))
}

/// Whether a level can stand in a pattern as it is.
fn is_literal(level: &str) -> bool {
    !level.contains(['{', '}', '+', '#'])
}

/// `devices` to `device`: what one of them is called.
fn singular(word: &str) -> Option<String> {
    let plain = |word: &str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    let one = match word {
        _ if word.ends_with("ies") => format!("{}y", word.strip_suffix("ies")?),
        _ if word.ends_with("ches") || word.ends_with("xes") => word.strip_suffix("es")?.to_owned(),
        _ if word.ends_with("ss") => return None,
        _ => word.strip_suffix('s')?.to_owned(),
    };
    (one.len() > 1 && plain(&one)).then_some(one)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lines of `topic fields…` or `topic =look`.
    fn grouped(lines: &str) -> Vec<String> {
        let mut numbers: BTreeMap<String, u32> = BTreeMap::new();
        let mut topics: BTreeMap<String, Topic> = BTreeMap::new();
        for line in lines.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let mut words = line.split(' ');
            let topic = topics.entry(words.next().unwrap().to_owned()).or_default();
            for word in words {
                let look = match word {
                    "=number" => Look::Number,
                    "=truth" => Look::Truth,
                    "=empty" => Look::Empty,
                    _ => Look::Document,
                };
                *topic.looks.entry(look).or_default() += 1;
                if look == Look::Document {
                    let next = u32::try_from(numbers.len()).unwrap();
                    topic.fields.insert(*numbers.entry(word.to_owned()).or_insert(next));
                }
            }
        }
        group(&topics).iter().map(|group| format!("{:?} {}", group.look, group.patterns.join(" "))).collect()
    }

    #[test]
    fn devices_are_captures_and_kinds_are_words() {
        assert_eq!(
            grouped(
                "sites/lyon/devices/d1/telemetry ts temp hum
                 sites/lyon/devices/d2/telemetry ts temp hum
                 sites/graz/devices/d3/telemetry ts temp
                 sites/lyon/devices/d1/status online uptime"
            ),
            ["Document sites/{site}/devices/{device}/status", "Document sites/{site}/devices/{device}/telemetry",]
        );
        assert_eq!(
            grouped(
                "tele/plug1/SENSOR Time ENERGY\ntele/plug2/SENSOR Time ENERGY\ntele/plug1/STATE Time Uptime Wifi Heap
                 tele/plug2/STATE Time Uptime Wifi Heap\ntele/plug1/LWT =truth"
            ),
            ["Truth tele/{device}/LWT", "Document tele/{device}/SENSOR", "Document tele/{device}/STATE"]
        );
        assert_eq!(
            grouped("home/kitchen/temp =number\nhome/hall/temp =number\nhome/hall/hum =number\nhome/hall/lamp =truth"),
            ["Number home/{device}/hum home/{device}/temp", "Truth home/{device}/lamp"]
        );
        assert_eq!(grouped("log/a v\nlog/b v\ncell/c w"), ["Document cell/c", "Document log/{device}"]);
        assert_eq!(grouped("feed a b"), ["Document feed"]);
        assert_eq!(grouped("lora/33323431007C727B/up a"), ["Document lora/{device}/up"]);
        assert_eq!(grouped("a/x+y/b v\nold =empty"), ["Document a/{device}/b"]);
    }

    #[test]
    fn many_devices_of_many_kinds_are_one_source() {
        let lines: Vec<String> =
            (0..20).map(|at| format!("zigbee2mqtt/0x{at:04x} linkquality f{} g{}", at % 7, at % 3)).collect();
        assert_eq!(grouped(&lines.join("\n")), ["Document zigbee2mqtt/{device}"]);
    }
}
