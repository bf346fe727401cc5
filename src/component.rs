//! How anything that a pipeline file names is found and read.
//!
//! A component is read in two pure steps: [`Kind::parse`] turns its table into a *spec* (legal values,
//! nothing opened), and the spec's `bind` or `open` does the rest. [`Settings`] gathers every fault of
//! a table instead of stopping at the first, and each [`Fault`] knows its place in the file.

use std::cell::RefCell;
use std::fmt;
use std::ops::Range;
use std::rc::Rc;

use crate::flow::time::Span;

/// One kind of source, format, operator or sink.
pub struct Kind<S: ?Sized> {
    /// What `type = "…"` (of a format: `format = "…"`) says.
    pub name: &'static str,
    /// One line for `list`.
    pub about: &'static str,
    /// Reads the rest of its table. Pure: it opens, connects and creates nothing. Its faults are left
    /// in the settings; `None` where there are any that matter.
    pub parse: fn(&mut Settings) -> Option<Box<S>>,
}

/// Something wrong in a pipeline file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Where: bytes of the file.
    pub at: Range<usize>,
    /// What is wrong, and what was expected: lower case, no full stop.
    pub what: String,
    /// What to do, where that is known: "did you mean `temp`?".
    pub help: Option<String>,
}

impl Fault {
    /// A fault without advice.
    pub fn new(at: Range<usize>, what: impl Into<String>) -> Self {
        Self { at, what: what.into(), help: None }
    }

    /// With advice.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// With the advice `did you mean …?`, if one of `known` is near enough to `word`.
    #[must_use]
    pub fn nearest<'a>(mut self, word: &str, known: impl IntoIterator<Item = &'a str>) -> Self {
        if let Some(near) = nearest(word, known) {
            self.help = Some(format!("did you mean `{near}`?"));
        }
        self
    }
}

/// The word of `known` that `word` was probably meant to be: within a third of its letters.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let scored = known.into_iter().map(|candidate| (distance(word, candidate), candidate));
    let (edits, near) = scored.min_by_key(|(edits, _)| *edits)?;
    (edits <= word.chars().count().max(near.chars().count()) / 3 + 1 && edits < near.chars().count()).then_some(near)
}

/// Edits (insert, delete, replace, swap neighbours) that turn one word into the other: optimal string
/// alignment.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.to_lowercase().chars().collect(), b.to_lowercase().chars().collect());
    let mut rows = vec![(0..=b.len()).collect::<Vec<_>>()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replace = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = replace.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

/// A value of a pipeline file, with its place.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Bytes of the file that the value stands in; of a string with its quotes.
    pub at: Range<usize>,
    /// The value.
    pub value: Value,
    /// The string went through `${…}`: offsets into it are no offsets into the file.
    pub expanded: bool,
}

/// What a value is. Strings are expanded already.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Text.
    String(String),
    /// A whole number.
    Integer(i64),
    /// Any other number.
    Float(f64),
    /// `true` or `false`.
    Boolean(bool),
    /// A date, a time or both, as written.
    Datetime(String),
    /// `[…]`.
    Array(Vec<Node>),
    /// `[…]` headers and `{…}`.
    Table(Vec<(Name, Node)>),
}

impl Value {
    /// What it is, for messages.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::String(_) => "a string",
            Self::Integer(_) => "a whole number",
            Self::Float(_) => "a number",
            Self::Boolean(_) => "true or false",
            Self::Datetime(_) => "a date",
            Self::Array(_) => "an array",
            Self::Table(_) => "a table",
        }
    }
}

/// A key, or any other word of a pipeline file, with its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    /// The word.
    pub text: String,
    /// Bytes of the file; of a quoted string with its quotes.
    pub at: Range<usize>,
    /// The word went through `${…}`: offsets into it are no offsets into the file.
    pub expanded: bool,
}

impl Name {
    /// A fault about this word.
    pub fn fault(&self, what: impl Into<String>) -> Fault {
        Fault::new(self.at.clone(), what)
    }

    /// A fault about a part of this word, as far as the file shows that part: `within` are bytes of the
    /// text. Whole where the text is not written out in the file (escapes, `${…}`).
    pub fn fault_within(&self, within: Range<usize>, what: impl Into<String>) -> Fault {
        // A plain basic or literal string is its text and two quotes.
        let plain = !self.expanded && self.at.len() == self.text.len() + 2 && within.end <= self.text.len();
        let at = if plain { self.at.start + 1 + within.start..self.at.start + 1 + within.end } else { self.at.clone() };
        Fault::new(at, what)
    }
}

/// A type that a setting can have.
pub trait Setting: Sized {
    /// What is expected, for messages: `"a length of time like \"10s\""`.
    const EXPECTED: &'static str;

    /// From the value. The error says what is wrong; `None` says that the value is of another type.
    fn read(node: &Node) -> Result<Self, Option<String>>;
}

/// A component's table, and the faults found in it so far.
///
/// Every getter takes its key out; what is left when [`Settings::finish`] is called is unknown.
#[derive(Debug)]
pub struct Settings {
    /// The table's own place: its header, or its braces.
    pub at: Range<usize>,
    entries: Vec<(Name, Node)>,
    /// Keys that were asked for, for "did you mean".
    known: Vec<&'static str>,
    faults: Rc<RefCell<Vec<Fault>>>,
}

impl Settings {
    /// Of a table.
    pub fn new(at: Range<usize>, entries: Vec<(Name, Node)>, faults: Rc<RefCell<Vec<Fault>>>) -> Self {
        Self { at, entries, known: Vec::new(), faults }
    }

    /// Of text, for tests of components.
    #[cfg(test)]
    pub(crate) fn of(text: &str) -> (Self, Rc<RefCell<Vec<Fault>>>) {
        let faults = Rc::new(RefCell::new(Vec::new()));
        let entries = crate::pipeline::file::entries_for_tests(text);
        (Self::new(0..text.len(), entries, faults.clone()), faults)
    }

    /// Notes a fault.
    pub fn fault(&self, fault: Fault) {
        self.faults.borrow_mut().push(fault);
    }

    /// Takes a value out as it stands.
    pub fn take(&mut self, key: &'static str) -> Option<(Name, Node)> {
        self.known.push(key);
        let index = self.entries.iter().position(|(name, _)| name.text == key)?;
        Some(self.entries.remove(index))
    }

    /// A setting that may be left out. `None` also where it is at fault.
    pub fn optional<T: Setting>(&mut self, key: &'static str) -> Option<T> {
        let (_, node) = self.take(key)?;
        match T::read(&node) {
            Ok(value) => Some(value),
            Err(why) => {
                let why = why.unwrap_or_else(|| format!("expected {}, got {}", T::EXPECTED, node.value.type_name()));
                self.fault(Fault::new(node.at, format!("`{key}`: {why}")));
                None
            }
        }
    }

    /// A setting with a default.
    pub fn or<T: Setting>(&mut self, key: &'static str, default: T) -> T {
        self.optional(key).unwrap_or(default)
    }

    /// A setting that must be there.
    pub fn required<T: Setting>(&mut self, key: &'static str) -> Option<T> {
        if !self.has(key) {
            self.known.push(key);
            self.fault(Fault::new(self.at.clone(), format!("`{key}` is missing: expected {}", T::EXPECTED)));
            return None;
        }
        self.optional(key)
    }

    /// One of a few words.
    pub fn choice<T: Copy>(&mut self, key: &'static str, choices: &[(&'static str, T)], default: T) -> T {
        let Some(word) = self.optional::<Name>(key) else { return default };
        let found = choices.iter().find(|(name, _)| *name == word.text);
        found.map_or_else(
            || {
                let names: Vec<_> = choices.iter().map(|(name, _)| format!("\"{name}\"")).collect();
                let what = format!("`{key}`: expected {}, got \"{}\"", names.join(" or "), word.text);
                self.fault(word.fault(what).nearest(&word.text, choices.iter().map(|(name, _)| *name)));
                default
            },
            |(_, value)| *value,
        )
    }

    /// A table within the table; shares the faults. Its unknown keys are noted when it is finished.
    pub fn table(&mut self, key: &'static str) -> Option<Settings> {
        let (_, node) = self.take(key)?;
        self.as_table(key, node)
    }

    /// A value as a table; noted as a fault where it is none.
    pub fn as_table(&self, key: &str, node: Node) -> Option<Settings> {
        match node.value {
            Value::Table(entries) => Some(Settings::new(node.at, entries, self.faults.clone())),
            other => {
                self.fault(Fault::new(node.at, format!("`{key}`: expected a table, got {}", other.type_name())));
                None
            }
        }
    }

    /// Takes out everything that is left: of tables whose keys are the user's names.
    pub fn rest(&mut self) -> Vec<(Name, Node)> {
        std::mem::take(&mut self.entries)
    }

    /// Whether a key is there (and was not taken).
    pub fn has(&self, key: &str) -> bool {
        self.entries.iter().any(|(name, _)| name.text == key)
    }

    /// How many faults have been found so far, in this table and those that share its faults.
    pub fn faults_len(&self) -> usize {
        self.faults.borrow().len()
    }

    /// Notes every key that nobody asked for.
    pub fn finish(&mut self) {
        for (name, _) in std::mem::take(&mut self.entries) {
            let mut known = self.known.clone();
            known.sort_unstable();
            known.dedup();
            let mut fault =
                name.fault(format!("unknown key `{}`", name.text)).nearest(&name.text, known.iter().copied());
            if fault.help.is_none() {
                fault.help = Some(format!("known here: {}", known.join(", ")));
            }
            self.fault(fault);
        }
    }
}

impl Setting for String {
    const EXPECTED: &'static str = "a string";
    fn read(node: &Node) -> Result<Self, Option<String>> {
        match &node.value {
            Value::String(text) => Ok(text.clone()),
            _ => Err(None),
        }
    }
}

impl Setting for Name {
    const EXPECTED: &'static str = "a string";
    fn read(node: &Node) -> Result<Self, Option<String>> {
        let text = String::read(node)?;
        Ok(Name { text, at: node.at.clone(), expanded: node.expanded })
    }
}

impl Setting for bool {
    const EXPECTED: &'static str = "true or false";
    fn read(node: &Node) -> Result<Self, Option<String>> {
        match node.value {
            Value::Boolean(value) => Ok(value),
            _ => Err(None),
        }
    }
}

impl Setting for i64 {
    const EXPECTED: &'static str = "a whole number";
    fn read(node: &Node) -> Result<Self, Option<String>> {
        match node.value {
            Value::Integer(value) => Ok(value),
            _ => Err(None),
        }
    }
}

impl Setting for u64 {
    const EXPECTED: &'static str = "a whole number from 0";
    fn read(node: &Node) -> Result<Self, Option<String>> {
        let value = i64::read(node)?;
        u64::try_from(value).map_err(|_| Some(format!("expected a whole number from 0, got {value}")))
    }
}

impl Setting for u16 {
    const EXPECTED: &'static str = "a whole number from 0 to 65535";
    fn read(node: &Node) -> Result<Self, Option<String>> {
        let value = i64::read(node)?;
        u16::try_from(value).map_err(|_| Some(format!("expected {}, got {value}", Self::EXPECTED)))
    }
}

impl Setting for usize {
    const EXPECTED: &'static str = "a whole number from 1";
    fn read(node: &Node) -> Result<Self, Option<String>> {
        let value = i64::read(node)?;
        let wrong = || Some(format!("expected a whole number from 1, got {value}"));
        usize::try_from(value).ok().filter(|value| *value > 0).ok_or_else(wrong)
    }
}

impl Setting for f64 {
    const EXPECTED: &'static str = "a number";
    #[expect(clippy::cast_precision_loss, reason = "a setting that is written as a whole number")]
    fn read(node: &Node) -> Result<Self, Option<String>> {
        match node.value {
            Value::Float(value) => Ok(value),
            Value::Integer(value) => Ok(value as f64),
            _ => Err(None),
        }
    }
}

impl Setting for Span {
    const EXPECTED: &'static str = "a length of time like \"10s\"";
    fn read(node: &Node) -> Result<Self, Option<String>> {
        match &node.value {
            Value::String(text) => text.parse().map_err(Some),
            Value::Integer(n) => {
                Err(Some(format!("a bare number is no length of time; write its unit: \"{n}s\" or \"{n}ms\"")))
            }
            _ => Err(None),
        }
    }
}

impl<T: Setting> Setting for Vec<T> {
    const EXPECTED: &'static str = "an array";
    fn read(node: &Node) -> Result<Self, Option<String>> {
        match &node.value {
            Value::Array(nodes) => {
                let wrong =
                    |node: &Node| format!("expected {} in the array, got {}", T::EXPECTED, node.value.type_name());
                nodes.iter().map(|node| T::read(node).map_err(|why| why.or_else(|| Some(wrong(node))))).collect()
            }
            _ => Err(None),
        }
    }
}

/// A number of bytes. In pipeline files `"64MiB"` (binary) or `"64MB"` (decimal).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

/// The units of a [`ByteSize`].
const SIZES: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1_000),
    ("B", 1),
];

impl Setting for ByteSize {
    const EXPECTED: &'static str = "a size like \"64MiB\"";
    fn read(node: &Node) -> Result<Self, Option<String>> {
        let text = match &node.value {
            Value::String(text) => text,
            Value::Integer(n) => {
                return Err(Some(format!("a bare number is no size; write its unit: \"{n}B\" or \"{n}MiB\"")));
            }
            _ => return Err(None),
        };
        let wrong = || {
            Some(format!(
                "`{text}` is no size; write it like \"64MiB\" or \"64MB\" (units B KB MB GB TB KiB MiB GiB TiB)"
            ))
        };
        let (unit, bytes) = SIZES.iter().find(|(unit, _)| text.ends_with(unit)).ok_or_else(wrong)?;
        let count: u64 = text[..text.len() - unit.len()].trim().parse().map_err(|_| wrong())?;
        count.checked_mul(*bytes).map(Self).ok_or_else(wrong)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = SIZES.iter().find(|(unit, bytes)| {
            (unit.ends_with("iB") || *unit == "B") && self.0 >= *bytes && self.0.is_multiple_of(*bytes)
        });
        let (unit, bytes) = whole.unwrap_or(&("B", 1));
        write!(f, "{}{unit}", self.0 / bytes)
    }
}

/// Text that must never be shown: passwords and tokens. Prints as `***`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Of text that came another way than by a pipeline file.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text, for the one who needs it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Setting for Secret {
    const EXPECTED: &'static str = "a string";
    fn read(node: &Node) -> Result<Self, Option<String>> {
        String::read(node).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_is_near() {
        assert_eq!(nearest("tpye", ["type", "topics"]), Some("type"));
        assert_eq!(nearest("inputz", ["inputs", "path"]), Some("inputs"));
        assert_eq!(nearest("banana", ["type", "topics"]), None);
        assert_eq!(nearest("x", ["y"]), None);
    }

    #[test]
    fn secrets_do_not_print() {
        let secret = Secret("hunter2".to_owned());
        assert_eq!(format!("{secret} {secret:?}"), "*** ***");
    }
}
