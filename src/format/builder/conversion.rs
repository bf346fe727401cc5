//! What becomes of a value on its way into a column, where the column says so.
//!
//! ```toml
//! [sources.plugs.columns]
//! on = { type = "boolean", values = { ON = true, OFF = false } }      # as it is written = what it is here
//! mode = { type = "utf8", values = { "0" = "off", "1" = "heat" } }
//! temp = { type = "float64", scale = 0.1, offset = -40 }              # raw * scale + offset, exactly, rounded once
//! power = { type = "float64", text = true }                           # "21.5" is the number, too
//! serial = { type = "utf8", text = true }                             # and 4711 the text
//! probe = { type = "float64", nulls = [-127, "unavailable", ""] }     # what stands for no value
//! level = { type = "float64", mismatch = "null" }                     # "n/a" is null, and counted ("dead_letter")
//! ```
//!
//! In this order: `nulls`, `values`, `scale` and `offset`, `mismatch`. Numbers are compared as numbers (`-127` is
//! `-127.0`), text byte by byte. Where there are `values`, any other value is a mismatch, as is one of another type or out
//! of range: its payload is malformed, or the value null and counted in `mismatched_values` of the source.

use arrow::array::ArrayRef;

use super::Builder;
use crate::component::{Fault, Name, Node, Settings, Value};
use crate::format::columns::ColumnType;
use crate::format::number::{self, Exact};
use crate::format::when::shorten;

/// How many of the declared values a message names.
const NAMED_MAX: usize = 8;

/// What a column declares.
#[derive(Clone, Debug)]
pub struct Conversion {
    nulls: Vec<Written>,
    values: Vec<(Written, Target)>,
    text: bool,
    linear: Option<Linear>,
    lenient: bool,
    /// A value that stands for none is malformed.
    required: bool,
}

/// A value as devices write it.
#[derive(Clone, Debug)]
struct Written {
    text: String,
    number: Option<Exact>,
}

/// A value as the pipeline file writes it.
#[derive(Clone, Debug)]
enum Target {
    Bool(bool),
    Number(String),
    Text(String),
}

/// `value * scale + offset`, in decimals.
#[derive(Clone, Copy, Debug)]
struct Linear {
    scale: Exact,
    offset: Exact,
}

/// A value of a payload.
#[derive(Clone, Copy)]
enum Given<'t> {
    Number(&'t [u8]),
    Text(&'t [u8]),
    Bool(bool),
}

impl Conversion {
    /// Takes the settings of a column's table that ask for one; none where there are none. What is wrong is noted.
    pub fn read(table: &mut Settings, name: &Name, kind: &ColumnType, required: bool) -> Option<Self> {
        let (nulls, values) = (table.take("nulls"), table.take("values"));
        let (scale, offset) = (table.take("scale"), table.take("offset"));
        let text = table.optional::<bool>("text");
        let is_lenient = table.has("mismatch");
        if !is_lenient && nulls.is_none() && values.is_none() && scale.is_none() && offset.is_none() && text.is_none() {
            return None;
        }
        let lenient = table.choice("mismatch", &[("dead_letter", false), ("null", true)], false);
        if lenient && required {
            let what =
                format!("column `{}`: with `mismatch = \"null\"` it may have no value, but it is required", name.text);
            table.fault(name.fault(what));
        }
        let is_number =
            !matches!(kind, ColumnType::Utf8 | ColumnType::Binary | ColumnType::Boolean | ColumnType::Timestamp(_));
        if let Some((key, _)) = scale.as_ref().or(offset.as_ref()).filter(|_| !is_number) {
            table.fault(
                name.fault(format!(
                    "column `{}`: `{}` goes with a type of numbers, not with {kind}",
                    name.text, key.text
                )),
            );
        }
        let linear = (scale.is_some() || offset.is_some()).then(|| Linear {
            scale: scale.and_then(|(_, node)| exact(table, "scale", &node)).unwrap_or(Exact::ONE),
            offset: offset.and_then(|(_, node)| exact(table, "offset", &node)).unwrap_or(Exact::ZERO),
        });
        Some(Self {
            nulls: nulls.map_or_else(Vec::new, |(_, node)| read_nulls(table, node)),
            values: values.map_or_else(Vec::new, |(_, node)| read_values(table, name, kind, node)),
            text: text.unwrap_or(false),
            linear,
            lenient,
            required,
        })
    }

    /// Whether a value that does not fit is null.
    pub(in crate::format) fn is_lenient(&self) -> bool {
        self.lenient
    }
}

/// The text of a number of the pipeline file.
fn number_text(value: &Value) -> Option<String> {
    match value {
        Value::Integer(value) => Some(value.to_string()),
        Value::Float(value) if value.is_finite() => Some(value.to_string()),
        _ => None,
    }
}

fn exact(table: &Settings, key: &str, node: &Node) -> Option<Exact> {
    let number = number_text(&node.value).and_then(|text| Exact::read(text.as_bytes()));
    if number.is_none() {
        let what = format!("`{key}`: expected a number, got {}", node.value.type_name());
        table.fault(Fault::new(node.at.clone(), what));
    }
    number
}

fn read_nulls(table: &Settings, node: Node) -> Vec<Written> {
    let Value::Array(items) = node.value else {
        let what = format!("`nulls`: expected an array of texts and numbers, got {}", node.value.type_name());
        table.fault(Fault::new(node.at, what));
        return Vec::new();
    };
    let written = |item: Node| match item.value {
        Value::String(text) => Some(Written::of(text)),
        value => {
            let text = number_text(&value);
            if text.is_none() {
                let what = format!("`nulls`: expected a text or a number, got {}", value.type_name());
                table.fault(Fault::new(item.at, what));
            }
            text.map(Written::of)
        }
    };
    items.into_iter().filter_map(written).collect()
}

fn read_values(table: &Settings, name: &Name, kind: &ColumnType, node: Node) -> Vec<(Written, Target)> {
    let at = node.at.clone();
    let Some(mut values) = table.as_table("values", node) else { return Vec::new() };
    let entries = values.rest();
    if entries.is_empty() {
        table.fault(Fault::new(at, "`values`: expected at least one value, like `{ ON = true, OFF = false }`"));
    }
    let mut scratch = Builder::new(kind.clone());
    let mut read = |(key, node): (Name, Node)| {
        let target = match node.value {
            Value::Boolean(value) => Target::Bool(value),
            Value::String(text) => Target::Text(text),
            ref value => match number_text(value) {
                Some(text) => Target::Number(text),
                None => {
                    let what = format!("`values`: expected a value of {kind}, got {}", value.type_name());
                    table.fault(Fault::new(node.at, what));
                    return None;
                }
            },
        };
        if let Err(why) = target.push(&mut scratch) {
            table.fault(Fault::new(node.at, format!("column `{}`: `values`: {why}", name.text)));
        }
        Some((Written::of(key.text), target))
    };
    entries.into_iter().filter_map(&mut read).collect()
}

impl Written {
    fn of(text: String) -> Self {
        let number = Some(text.as_bytes()).filter(|text| number::is_number(text)).and_then(Exact::read);
        Self { text, number }
    }

    fn is(&self, given: Given<'_>) -> bool {
        match given {
            // Most numbers are written alike; what they are worth counts.
            Given::Number(text) => {
                self.text.as_bytes() == text || self.number.is_some_and(|number| Exact::read(text) == Some(number))
            }
            Given::Text(text) => self.text.as_bytes() == text,
            Given::Bool(value) => self.text == if value { "true" } else { "false" },
        }
    }
}

impl Target {
    fn push(&self, column: &mut Builder) -> Result<(), String> {
        match self {
            Self::Bool(value) if column.push_bool(*value) => Ok(()),
            Self::Bool(_) => Err(format!("expected {}, got true or false", column.kind())),
            Self::Number(text) => column.push_number(text.as_bytes()),
            Self::Text(text) => column.push_string(text.as_bytes()),
        }
    }
}

/// A column whose values are converted first.
pub(super) struct Converted {
    pub(super) inner: Builder,
    conversion: Conversion,
    /// The rows in which the value did not fit.
    pub(super) mismatched: Vec<usize>,
    /// The text of a number that was computed.
    scratch: String,
}

impl Converted {
    pub(super) fn new(inner: Builder, conversion: Conversion) -> Self {
        Self { inner, conversion, mismatched: Vec::new(), scratch: String::new() }
    }

    /// Forgets all but the first `len` values.
    pub(super) fn truncate(&mut self, len: usize) {
        self.inner.truncate(len);
        let fit = self.mismatched.partition_point(|row| *row < len);
        self.mismatched.truncate(fit);
    }

    pub(super) fn finish(&mut self) -> ArrayRef {
        self.mismatched.clear();
        self.inner.finish()
    }

    /// Adds a null for a value that does not fit, where that is let pass.
    pub(super) fn mismatch(&mut self) -> bool {
        if self.conversion.lenient {
            self.mismatched.push(self.inner.len());
            self.inner.push_null();
        }
        self.conversion.lenient
    }

    fn or_null(&mut self, pushed: Result<(), String>) -> Result<(), String> {
        pushed.or_else(|why| if self.mismatch() { Ok(()) } else { Err(why) })
    }

    pub(super) fn push_bool(&mut self, value: bool) -> Result<(), String> {
        let pushed = self.convert_bool(value);
        self.or_null(pushed)
    }

    pub(super) fn push_number(&mut self, text: &[u8]) -> Result<(), String> {
        let pushed = self.convert_number(text);
        self.or_null(pushed)
    }

    pub(super) fn push_string(&mut self, text: &[u8]) -> Result<(), String> {
        let pushed = self.convert_string(text);
        self.or_null(pushed)
    }

    pub(super) fn push_text(&mut self, text: &[u8]) -> Result<(), String> {
        let pushed = self.convert_text(text);
        self.or_null(pushed)
    }

    fn convert_bool(&mut self, value: bool) -> Result<(), String> {
        if self.found(Given::Bool(value))? || self.inner.push_bool(value) {
            return Ok(());
        }
        let text = if value { "true" } else { "false" };
        if self.conversion.text && matches!(self.inner.kind(), ColumnType::Utf8) {
            return self.inner.push_string(text.as_bytes());
        }
        Err(format!("expected {}, got true or false", self.inner.kind()))
    }

    fn convert_number(&mut self, text: &[u8]) -> Result<(), String> {
        if self.found(Given::Number(text))? {
            return Ok(());
        }
        if self.conversion.text && matches!(self.inner.kind(), ColumnType::Utf8) {
            return self.inner.push_string(text);
        }
        self.push_computed(text)
    }

    fn convert_string(&mut self, text: &[u8]) -> Result<(), String> {
        if self.found(Given::Text(text))? {
            return Ok(());
        }
        if self.conversion.text {
            return self.push_bare(text);
        }
        self.inner.push_string(text)
    }

    fn convert_text(&mut self, text: &[u8]) -> Result<(), String> {
        let given =
            if number::is_number(text.trim_ascii()) { Given::Number(text.trim_ascii()) } else { Given::Text(text) };
        if self.found(given)? {
            return Ok(());
        }
        self.push_bare(text)
    }

    /// Text that stands for a value, which is none of the declared ones.
    fn push_bare(&mut self, text: &[u8]) -> Result<(), String> {
        if self.conversion.linear.is_some() && number::is_number(text.trim_ascii()) {
            return self.push_computed(text.trim_ascii());
        }
        self.inner.push_text(text)
    }

    /// Adds what a value stands for, if it stands for anything; else true only where it may not stand for itself.
    fn found(&mut self, given: Given<'_>) -> Result<bool, String> {
        let Self { inner, conversion, .. } = self;
        if conversion.nulls.iter().any(|null| null.is(given)) {
            if conversion.required {
                return Err(format!("{} stands for no value, and the column is required", given.shown()));
            }
            inner.push_null();
            return Ok(true);
        }
        if conversion.values.is_empty() {
            return Ok(false);
        }
        let Some((_, target)) = conversion.values.iter().find(|(written, _)| written.is(given)) else {
            return Err(conversion.unknown(given));
        };
        target.push(inner)?;
        Ok(true)
    }

    fn push_computed(&mut self, text: &[u8]) -> Result<(), String> {
        let Some(linear) = self.conversion.linear else { return self.inner.push_number(text) };
        let exact = Exact::read(text).and_then(|value| value.times(linear.scale)?.plus(linear.offset));
        let Some(exact) = exact else {
            let shown = shorten(&String::from_utf8_lossy(text));
            return Err(format!("{shown} cannot be scaled exactly: it takes more than 38 digits"));
        };
        self.scratch.clear();
        exact.write(&mut self.scratch);
        self.inner.push_number(self.scratch.as_bytes())
    }
}

impl Conversion {
    fn unknown(&self, given: Given<'_>) -> String {
        let named = self.values.iter().take(NAMED_MAX).map(|(written, _)| written.text.as_str());
        let more = if self.values.len() > NAMED_MAX { ", …" } else { "" };
        format!("expected one of {}{more}, got {}", named.collect::<Vec<_>>().join(", "), given.shown())
    }
}

impl Given<'_> {
    fn shown(self) -> String {
        match self {
            Self::Number(text) => shorten(&String::from_utf8_lossy(text)),
            Self::Text(text) => format!("\"{}\"", shorten(&String::from_utf8_lossy(text))),
            Self::Bool(value) => value.to_string(),
        }
    }
}
