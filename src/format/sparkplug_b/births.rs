//! What births tell, kept for each edge node: aliases, data types, and where its numbers are.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::proto::{Metric, Payload as Message};
use super::topic::{Address, MessageType};
use super::value::DataType;
use super::{Malformed, bad};

/// How many edge nodes are remembered; of more, the ones heard of first are forgotten.
const NODES_MAX: usize = 10_000;
/// How many metrics births of all edge nodes may tell.
const METRICS_MAX: usize = 1_000_000;

/// An edge node is asked for a birth so often at most, by the arrival times of its messages.
const REBIRTH_PAUSE_MICROS: i64 = 60_000_000;

/// What is known of edge nodes.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Nodes {
    /// By group and edge node.
    known: HashMap<String, Node>,
    /// How many were ever heard of.
    heard: u64,
}

/// What is known of an edge node and its devices.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Node {
    /// The how manieth it was.
    number: u64,
    /// The number of the message before.
    seq: Option<u8>,
    /// Of the birth.
    pub(super) bd_seq: Option<u64>,
    /// What metrics are, by alias.
    aliases: HashMap<u64, Known>,
    /// The data types of metrics, by device and name.
    types: HashMap<String, u32>,
    /// When a birth was asked for last, in microseconds since 1970.
    #[serde(default)]
    asked: Option<i64>,
}

/// What a birth tells of a metric.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Known {
    name: String,
    datatype: u32,
}

/// A metric with what is known of it.
pub(super) struct Resolved<'m> {
    pub(super) metric: &'m Metric,
    pub(super) name: Option<&'m str>,
    pub(super) datatype: DataType,
}

impl Nodes {
    /// What is known of the edge node of an address.
    pub(super) fn of(&mut self, address: &Address<'_>) -> &mut Node {
        let key = address.node_key();
        if !self.known.contains_key(&key) {
            self.heard += 1;
            if self.known.len() >= NODES_MAX
                && let Some(first) = self.known.iter().min_by_key(|(_, node)| node.number).map(|(key, _)| key.clone())
            {
                self.known.remove(&first);
            }
        }
        let number = self.heard;
        self.known.entry(key).or_insert_with(|| Node { number, ..Node::default() })
    }

    /// How many metrics births of this edge node may tell.
    pub(super) fn room(&self, address: &Address<'_>) -> usize {
        let key = address.node_key();
        let others = self.known.iter().filter(|(other, _)| **other != key).map(|(_, node)| node.metrics());
        METRICS_MAX.saturating_sub(others.sum())
    }
}

impl Node {
    /// Whether enough time is over since a birth was asked for. It is over from now on, if so.
    pub(super) fn may_ask(&mut self, now: i64) -> bool {
        let may = self.asked.is_none_or(|asked| now - asked >= REBIRTH_PAUSE_MICROS);
        self.asked = if may { Some(now) } else { self.asked };
        may
    }

    /// How many numbers are missing before this one. A birth of the edge node begins anew, and a death has none.
    pub(super) fn follow(&mut self, message: MessageType, seq: Option<u64>) -> u64 {
        let Some(seq) = seq.filter(|_| message != MessageType::NodeDeath) else { return 0 };
        let seq = (seq % 256) as u8;
        let before = self.seq.replace(seq).filter(|_| message != MessageType::NodeBirth);
        // The same again is a second delivery.
        before.map_or(0, |before| u64::from(seq.wrapping_sub(before).saturating_sub(1)))
    }

    /// How many metrics it is known of, by alias or name.
    fn metrics(&self) -> usize {
        self.types.len().max(self.aliases.len())
    }

    /// Learns what a birth tells, of so many metrics at most. True where a death is one of an earlier session.
    pub(super) fn take_over(
        &mut self,
        message_type: MessageType,
        address: &Address<'_>,
        message: &Message,
        room: usize,
    ) -> Result<bool, Malformed> {
        let bd_seq = message.metrics.iter().find(|metric| metric.name.as_deref() == Some("bdSeq"));
        let bd_seq = bd_seq.and_then(Metric::whole);
        match message_type {
            MessageType::NodeBirth => {
                self.aliases.clear();
                self.types.clear();
                self.bd_seq = bd_seq;
            }
            MessageType::NodeDeath => {
                let stale = self.bd_seq.is_some() && bd_seq.is_some() && self.bd_seq != bd_seq;
                if !stale {
                    // What comes next is a birth, or means nothing.
                    let number = self.number;
                    *self = Self { number, bd_seq: self.bd_seq, asked: self.asked, ..Self::default() };
                }
                return Ok(stale);
            }
            MessageType::DeviceBirth => (),
            _ => return Ok(false),
        }
        for metric in &message.metrics {
            let Some(name) = &metric.name else { continue };
            let Some(datatype) = metric.datatype else { continue };
            self.types.insert(address.metric_key(name), datatype);
            if let Some(alias) = metric.alias {
                self.aliases.insert(alias, Known { name: name.clone(), datatype });
            }
            // What is told again is nothing new.
            if self.metrics() > room {
                return bad(format!("births have told more than {METRICS_MAX} metrics in all"));
            }
        }
        Ok(false)
    }

    /// An alias of which no birth has told, of a metric that has no other name.
    pub(super) fn unknown(&self, metrics: &[Metric]) -> Option<u64> {
        let unnamed = metrics.iter().filter(|metric| metric.name.as_deref().is_none_or(str::is_empty));
        unnamed.filter_map(|metric| metric.alias).find(|alias| !self.aliases.contains_key(alias))
    }

    pub(super) fn resolve<'m>(&'m self, address: &Address<'_>, metric: &'m Metric) -> Resolved<'m> {
        let known = metric.alias.and_then(|alias| self.aliases.get(&alias));
        let own = metric.name.as_deref().filter(|name| !name.is_empty());
        let name = own.or_else(|| known.map(|known| known.name.as_str()));
        let by_name = || self.types.get(&address.metric_key(name?)).copied();
        let datatype = metric.datatype.or_else(|| known.map(|known| known.datatype)).or_else(by_name);
        Resolved { metric, name, datatype: DataType(datatype.unwrap_or(0)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn births_have_a_bound_for_all_of_them() {
        let address = |topic: &'static str| Address::of(topic.as_bytes()).unwrap();
        let (first, second) = (address("spBv1.0/g/NBIRTH/e"), address("spBv1.0/g/NBIRTH/f"));
        let metric = |alias: u64| Metric {
            name: Some("m".to_owned()),
            alias: Some(alias),
            datatype: Some(3),
            ..Metric::default()
        };
        let birth = |count| Message { metrics: (0..count).map(metric).collect(), ..Message::default() };
        let mut nodes = Nodes::default();
        // One name by three aliases is three.
        assert_eq!(nodes.of(&first).take_over(MessageType::NodeBirth, &first, &birth(3), 3), Ok(false));
        assert_eq!((nodes.room(&first), nodes.room(&second)), (METRICS_MAX, METRICS_MAX - 3));
        let wrong = nodes.of(&second).take_over(MessageType::NodeBirth, &second, &birth(3), 2);
        assert!(wrong.unwrap_err().why.contains("in all"));
        // A birth of the edge node begins anew, one of a device does not.
        assert_eq!(nodes.of(&first).take_over(MessageType::NodeBirth, &first, &birth(3), 3), Ok(false));
        assert!(nodes.of(&first).take_over(MessageType::DeviceBirth, &first, &birth(4), 3).is_err());
    }
}
