//! The file's frame: TOML to [`Node`]s, each with its place.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::component::{Fault, Name, Node, Value};

/// Reads TOML. Every syntax error is a fault; what could be read is given all the same.
pub fn parse(text: &str) -> (Vec<(Name, Node)>, Vec<Fault>) {
    let (table, errors) = DeTable::parse_recoverable(text);
    let faults = errors.iter().map(|error| Fault::new(error.span().unwrap_or(0..text.len().min(1)), error.message()));
    (entries(table.get_ref()), faults.collect())
}

/// The entries of a table in the order of the file.
fn entries(table: &DeTable<'_>) -> Vec<(Name, Node)> {
    let mut entries: Vec<_> = table
        .iter()
        .map(|(key, value)| {
            let name = Name { text: key.get_ref().to_string(), at: key.span(), expanded: false };
            (name, node(value))
        })
        .collect();
    entries.sort_by_key(|(name, _)| name.at.start);
    entries
}

fn node(value: &Spanned<DeValue<'_>>) -> Node {
    let at: Range<usize> = value.span();
    let value = match value.get_ref() {
        DeValue::String(text) => Value::String(text.to_string()),
        DeValue::Integer(number) => {
            let digits = number.as_str();
            i64::from_str_radix(digits, number.radix())
                .map_or_else(|_| Value::Float(digits.parse().unwrap_or(f64::NAN)), Value::Integer)
        }
        DeValue::Float(number) => Value::Float(number.as_str().parse().unwrap_or(f64::NAN)),
        DeValue::Boolean(value) => Value::Boolean(*value),
        DeValue::Datetime(at) => Value::Datetime(at.to_string()),
        DeValue::Array(values) => Value::Array(values.iter().map(node).collect()),
        DeValue::Table(table) => Value::Table(entries(table)),
    };
    Node { at, value, expanded: false }
}

/// For tests of components: the entries of a table from text.
#[cfg(test)]
pub(crate) fn entries_for_tests(text: &str) -> Vec<(Name, Node)> {
    let (entries, faults) = parse(text);
    assert_eq!(faults, [], "the test's own TOML");
    entries
}
