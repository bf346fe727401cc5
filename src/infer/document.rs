//! The payloads of a source laid over each other: a tree of what was seen at each place.

use serde_json::Value;

use crate::flow::time::Timestamp;
use crate::infer::seen::{Leaf, Seen};

/// How many places a tree has at most: more are counted, not kept.
const NODES_MAX: usize = 8_192;
/// How many different fields make an object a map of names that nobody declares.
const MAP_FIELDS: usize = 48;
/// The share of its fields that an object of such a map has at most.
const MAP_SHARE: f64 = 0.5;

/// What was seen at a place, and below.
#[derive(Debug, Default)]
pub struct Node {
    /// Single values.
    pub seen: Seen,
    /// How often there was an object.
    pub objects: u64,
    /// Its fields, in the order in which they came first.
    pub fields: Vec<(String, Node)>,
    /// Arrays, and what was in them.
    pub arrays: Option<Box<Arrays>>,
    /// Objects in which all arrays of single values, two at least, were of one length.
    pub level: u64,
    /// And of different lengths.
    pub uneven: u64,
    members: u64,
}

/// The arrays at a place.
#[derive(Debug)]
pub struct Arrays {
    /// How many.
    pub count: u64,
    /// The shortest.
    pub least: usize,
    /// The longest.
    pub most: usize,
    /// What was in all of them.
    pub item: Node,
}

/// Lays payloads over each other.
#[derive(Debug, Default)]
pub struct Document {
    /// The document of a payload.
    pub root: Node,
    /// Payloads.
    pub payloads: u64,
    /// Fields that are not kept, as there are too many.
    pub passed_over: u64,
    nodes: usize,
}

impl Document {
    /// Adds a JSON document that arrived then.
    pub fn add(&mut self, value: &Value, arrival: Timestamp) {
        self.payloads += 1;
        let mut visit = Visit { arrival, nodes: &mut self.nodes, passed_over: &mut self.passed_over };
        visit.value(&mut self.root, value);
    }

    /// Adds a single value that arrived then.
    pub fn add_leaf(&mut self, leaf: Leaf<'_>, arrival: Timestamp) {
        self.payloads += 1;
        self.root.seen.add(leaf, arrival);
    }
}

struct Visit<'d> {
    arrival: Timestamp,
    nodes: &'d mut usize,
    passed_over: &'d mut u64,
}

impl Visit<'_> {
    fn value(&mut self, node: &mut Node, value: &Value) {
        match value {
            Value::Null => node.seen.add(Leaf::Null, self.arrival),
            Value::Bool(value) => node.seen.add(Leaf::Bool(*value), self.arrival),
            Value::Number(number) => node.seen.add(leaf(number), self.arrival),
            Value::String(text) => node.seen.add(Leaf::Text(text), self.arrival),
            Value::Array(items) => {
                let arrays = node.arrays.get_or_insert_with(|| Box::new(Arrays::new(items.len())));
                arrays.count += 1;
                (arrays.least, arrays.most) = (arrays.least.min(items.len()), arrays.most.max(items.len()));
                items.iter().for_each(|item| self.value(&mut arrays.item, item));
            }
            Value::Object(object) => self.object(node, object),
        }
    }

    fn object(&mut self, node: &mut Node, object: &serde_json::Map<String, Value>) {
        node.objects += 1;
        node.members += object.len() as u64;
        let mut lengths = object.values().filter_map(|value| match value {
            Value::Array(items) if !items.iter().any(|item| item.is_array() || item.is_object()) => Some(items.len()),
            _ => None,
        });
        if let (Some(first), Some(second)) = (lengths.next(), lengths.next()) {
            let even = first > 0 && first == second && lengths.all(|len| len == first);
            *if even { &mut node.level } else { &mut node.uneven } += 1;
        }
        // Most payloads have their fields in the same order.
        let mut expected = 0;
        for (name, value) in object {
            let place = match node.fields.get(expected) {
                Some((known, _)) if known == name => Some(expected),
                _ => node.fields.iter().position(|(known, _)| known == name),
            };
            let place = match place {
                Some(place) => place,
                None if *self.nodes >= NODES_MAX => {
                    *self.passed_over += 1;
                    continue;
                }
                None => {
                    *self.nodes += 1;
                    node.fields.push((name.clone(), Node::default()));
                    node.fields.len() - 1
                }
            };
            expected = place + 1;
            self.value(&mut node.fields[place].1, value);
        }
    }
}

/// A number of JSON. One beyond 64 bits is a fraction here: no column holds it but a decimal.
fn leaf(number: &serde_json::Number) -> Leaf<'static> {
    match number.as_i128() {
        Some(whole) => Leaf::Whole(whole),
        None => Leaf::Fraction(number.as_f64().unwrap_or(f64::NAN)),
    }
}

impl Arrays {
    fn new(len: usize) -> Self {
        Self { count: 0, least: len, most: len, item: Node::default() }
    }
}

impl Node {
    /// Whether it is a map of names to single values: so many different fields that no payload has half of them.
    #[expect(clippy::cast_precision_loss, reason = "a share")]
    pub fn is_map(&self) -> bool {
        let single = |(_, node): &(String, Self)| node.objects == 0 && node.arrays.is_none();
        self.fields.len() >= MAP_FIELDS
            && self.members as f64 <= self.objects as f64 * self.fields.len() as f64 * MAP_SHARE
            && self.fields.iter().all(single)
    }

    /// Values, objects and arrays that came here; nulls are none.
    pub fn present(&self) -> u64 {
        self.seen.values() + self.objects + self.arrays.as_ref().map_or(0, |arrays| arrays.count)
    }

    /// The field of a name.
    pub fn field(&self, name: &str) -> Option<&Self> {
        self.fields.iter().find(|(known, _)| known == name).map(|(_, node)| node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(payloads: &[&str]) -> Document {
        let mut document = Document::default();
        for payload in payloads {
            document.add(&serde_json::from_str(payload).unwrap(), Timestamp::START);
        }
        document
    }

    #[test]
    fn payloads_lie_over_each_other() {
        let document = document(&[
            r#"{"id": "a", "v": 1, "env": {"t": 20.5}, "list": [1, 2], "more": [3, 4]}"#,
            r#"{"v": null, "id": "b", "x": true, "list": [1], "more": [true, 2]}"#,
        ]);
        let root = &document.root;
        assert_eq!((document.payloads, root.objects, root.level, root.uneven), (2, 2, 1, 1));
        let names: Vec<&str> = root.fields.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["id", "v", "env", "list", "more", "x"]);
        let v = &root.field("v").unwrap().seen;
        assert_eq!((v.wholes, v.nulls, v.values(), v.whole_range), (1, 1, 1, Some((1, 1))));
        assert_eq!(root.field("env").unwrap().field("t").unwrap().seen.fractions, 1);
        let more = root.field("more").unwrap().arrays.as_ref().unwrap();
        assert_eq!((more.count, more.least, more.most, more.item.seen.bools, more.item.seen.wholes), (2, 2, 2, 1, 3));
        assert!(!root.is_map());
    }

    #[test]
    fn a_map_has_names_that_change() {
        let payloads: Vec<String> = (0..60).map(|at| format!(r#"{{"sensor{at}": {at}, "n": 1}}"#)).collect();
        let payloads: Vec<&str> = payloads.iter().map(String::as_str).collect();
        assert!(document(&payloads).root.is_map());
        let wide: Vec<String> = (0..60).map(|at| format!(r#""c{at}": {at}"#)).collect();
        let wide = format!("{{{}}}", wide.join(","));
        assert!(!document(&[&wide, &wide]).root.is_map());
    }
}
