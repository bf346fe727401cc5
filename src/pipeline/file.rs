//! The file's frame: TOML to [`Node`]s, each with its place.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeFloat, DeInteger, DeTable, DeValue};

use crate::component::{Fault, Name, Node, Value};

/// What the TOML reader says of a key that stands there twice.
const TWICE: &str = "duplicate key";

/// A file as TOML.
pub(crate) struct File {
    pub(crate) entries: Vec<(Name, Node)>,
    pub(crate) faults: Vec<Fault>,
    /// The syntax is wrong: what follows the fault may have been read as something that it is not.
    pub(crate) broken: bool,
}

/// Reads TOML. Every syntax error is a fault; what could be read is given all the same.
pub fn parse(text: &str) -> (Vec<(Name, Node)>, Vec<Fault>) {
    let File { entries, faults, .. } = read(text);
    (entries, faults)
}

/// Reads TOML, and tells faults that leave the rest of the file readable from those that do not.
pub(crate) fn read(text: &str) -> File {
    let (table, errors) = DeTable::parse_recoverable(text);
    let broken = errors.iter().any(|error| error.message() != TWICE);
    let again: Vec<Range<usize>> = errors.iter().filter_map(|error| below_repeated_header(text, error)).collect();
    let told = |fault: &Fault| again.iter().any(|below| below.contains(&fault.at.start));
    let mut faults: Vec<Fault> =
        errors.iter().map(|error| syntax(text, error)).filter(|fault| broken || !told(fault)).collect();
    let entries = entries(table.get_ref(), &mut faults);
    File { entries, faults, broken }
}

fn syntax(text: &str, error: &toml::de::Error) -> Fault {
    let at = error.span().unwrap_or(text.len()..text.len());
    match text.get(at.clone()) {
        Some(key) if error.message() == TWICE => Fault::new(at, format!("`{key}` stands there twice")),
        _ => Fault::new(at, error.message()),
    }
}

/// The lines below a `[header]` that stands there twice: their keys repeat those of the first, which is the same fault.
fn below_repeated_header(text: &str, error: &toml::de::Error) -> Option<Range<usize>> {
    let at = error.span().filter(|_| error.message() == TWICE)?;
    let line = text[..at.start].rfind('\n').map_or(0, |end| end + 1);
    let below = at.end..text[at.end..].find("\n[").map_or(text.len(), |len| at.end + len);
    text[line..].trim_start().starts_with('[').then_some(below)
}

/// The entries of a table in the order of the file.
fn entries(table: &DeTable<'_>, faults: &mut Vec<Fault>) -> Vec<(Name, Node)> {
    let mut entries: Vec<_> = table
        .iter()
        .map(|(key, value)| {
            let name = Name { text: key.get_ref().to_string(), at: key.span(), expanded: false };
            (name, node(value, faults))
        })
        .collect();
    entries.sort_by_key(|(name, _)| name.at.start);
    entries
}

fn node(value: &Spanned<DeValue<'_>>, faults: &mut Vec<Fault>) -> Node {
    let at: Range<usize> = value.span();
    let value = match value.get_ref() {
        DeValue::String(text) => Value::String(text.to_string()),
        DeValue::Integer(number) => Value::Integer(integer(number, &at, faults)),
        DeValue::Float(number) => Value::Float(float(number, &at, faults)),
        DeValue::Boolean(value) => Value::Boolean(*value),
        DeValue::Datetime(at) => Value::Datetime(at.to_string()),
        DeValue::Array(values) => Value::Array(values.iter().map(|value| node(value, faults)).collect()),
        DeValue::Table(table) => Value::Table(entries(table, faults)),
    };
    Node { at, value, expanded: false }
}

/// TOML's whole numbers have 64 bits. One that does not fit is a fault, and the number nearest to it.
fn integer(number: &DeInteger<'_>, at: &Range<usize>, faults: &mut Vec<Fault>) -> i64 {
    i64::from_str_radix(number.as_str(), number.radix()).unwrap_or_else(|_| {
        faults.push(Fault::new(at.clone(), format!("`{number}` does not fit into 64 bits")));
        if number.as_str().starts_with('-') { i64::MIN } else { i64::MAX }
    })
}

/// `1e999` is a fault, `inf` is not.
fn float(number: &DeFloat<'_>, at: &Range<usize>, faults: &mut Vec<Fault>) -> f64 {
    let value = number.as_str().parse().unwrap_or(f64::NAN);
    if value.is_infinite() && !number.as_str().contains("inf") {
        faults.push(Fault::new(at.clone(), format!("`{number}` does not fit into 64 bits")));
    }
    value
}

/// For tests of components: the entries of a table from text.
#[cfg(test)]
pub(crate) fn entries_for_tests(text: &str) -> Vec<(Name, Node)> {
    let (entries, faults) = parse(text);
    assert_eq!(faults, [], "the test's own TOML");
    entries
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_know_their_places() {
        let text = "a = 0x1f\n[b.\"c d\"]\ne = [1_000, 'x', inf]\n";
        let (entries, faults) = parse(text);
        assert_eq!(faults, []);
        assert_eq!((&entries[0].1.value, &text[entries[0].1.at.clone()]), (&Value::Integer(31), "0x1f"));
        let Value::Table(b) = &entries[1].1.value else { panic!("{entries:?}") };
        assert_eq!((b[0].0.text.as_str(), &text[b[0].0.at.clone()]), ("c d", "\"c d\""));
        let Value::Table(c) = &b[0].1.value else { panic!("{b:?}") };
        let Value::Array(e) = &c[0].1.value else { panic!("{c:?}") };
        let values: Vec<_> = e.iter().map(|node| (&node.value, &text[node.at.clone()])).collect();
        let expected = [
            (&Value::Integer(1000), "1_000"),
            (&Value::String("x".to_owned()), "'x'"),
            (&Value::Float(f64::INFINITY), "inf"),
        ];
        assert_eq!(values, expected);
    }

    #[test]
    fn what_can_be_read_on_after_a_fault_is() {
        let twice = read("[a]\nx = 1\nx = 2\n[a]\nx = 1\n[b]\nz = 1\n");
        assert_eq!((twice.faults.len(), twice.broken, twice.entries.len()), (2, false, 2), "{:?}", twice.faults);
        assert_eq!(twice.faults[0], Fault::new(10..11, "`x` stands there twice"));
        let large = read("a = 9223372036854775808\nb = 1e999\nc = -9223372036854775809");
        let places: Vec<_> = large.faults.iter().map(|fault| fault.at.start).collect();
        assert_eq!((places, large.broken), (vec![4, 28, 38], false));
        for broken in ["a = ", "a = [1", "[a", "a = \"x", "= 1", "a b = 1"] {
            assert!(read(broken).broken, "{broken}");
        }
    }
}
