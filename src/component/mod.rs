//! How anything that a pipeline file names is found and read.
//!
//! A component is read in two pure steps: [`Kind::parse`] turns its table into a *spec* (legal values,
//! nothing opened), and the spec's `bind` or `open` does the rest. [`Settings`] gathers every fault of
//! a table instead of stopping at the first, and each [`Fault`] knows its place in the file.

mod setting;
mod settings;
mod topics;
mod units;
mod value;

use std::ops::Range;

pub use setting::Setting;
pub use settings::Settings;
pub use units::{ByteSize, Secret};
pub use value::{Name, Node, Value};

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
        let secret = Secret::new("hunter2");
        assert_eq!(format!("{secret} {secret:?}"), "*** ***");
    }
}
