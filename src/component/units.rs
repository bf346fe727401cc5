//! Settings with a notation of their own: sizes and secrets.

use std::fmt;

use crate::component::{Node, Setting, Value};

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
