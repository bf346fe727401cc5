//! Values of a pipeline file, each with its place.

use std::ops::Range;

use crate::component::Fault;

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
