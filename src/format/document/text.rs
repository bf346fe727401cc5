//! JSON under construction.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::format::Malformed;

/// JSON under construction, value after value: commas are set where they are due.
pub struct Text {
    bytes: Vec<u8>,
    depth: usize,
    max_depth: usize,
}

impl Text {
    /// Of maps and arrays within each other so deep at most.
    pub fn new(max_depth: usize) -> Self {
        Self { bytes: Vec::new(), depth: 0, max_depth }
    }

    /// Begins anew.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.depth = 0;
    }

    /// What was written.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn comma(&mut self) {
        if !matches!(self.bytes.last(), None | Some(b'{' | b'[' | b':')) {
            self.bytes.push(b',');
        }
    }

    fn open(&mut self, sign: u8) -> Result<(), Malformed> {
        self.depth += 1;
        if self.depth > self.max_depth {
            return Err(Malformed { at: None, why: format!("deeper than max_depth = {}", self.max_depth) });
        }
        self.comma();
        self.bytes.push(sign);
        Ok(())
    }

    /// Begins a map: keys and values follow in turn.
    pub fn map(&mut self) -> Result<(), Malformed> {
        self.open(b'{')
    }

    /// Ends it.
    pub fn end_map(&mut self) {
        self.depth -= 1;
        self.bytes.push(b'}');
    }

    /// Begins an array.
    pub fn array(&mut self) -> Result<(), Malformed> {
        self.open(b'[')
    }

    /// Ends it.
    pub fn end_array(&mut self) {
        self.depth -= 1;
        self.bytes.push(b']');
    }

    /// The key of a member.
    pub fn key(&mut self, key: &str) {
        self.string(key);
        self.bytes.push(b':');
    }

    /// A key that is a number.
    pub fn number_key(&mut self, key: impl std::fmt::Display) {
        self.key(&key.to_string());
    }

    /// Nothing.
    pub fn null(&mut self) {
        self.number("null");
    }

    /// True or false.
    pub fn bool(&mut self, value: bool) {
        self.number(if value { "true" } else { "false" });
    }

    /// A whole number.
    pub fn int(&mut self, value: impl Into<i128>) {
        self.comma();
        let value = value.into();
        match i64::try_from(value) {
            Ok(value) => self.json(&value),
            Err(_) => self.bytes.extend_from_slice(value.to_string().as_bytes()),
        }
    }

    /// A float: the shortest text that reads as the same.
    pub fn float(&mut self, value: f64) {
        if value.is_finite() {
            self.comma();
            return self.json(&value);
        }
        self.number(match value {
            value if value.is_nan() => "NaN",
            value if value > 0.0 => "Infinity",
            _ => "-Infinity",
        });
    }

    /// A number as it is written in JSON.
    pub fn number(&mut self, text: &str) {
        self.comma();
        self.bytes.extend_from_slice(text.as_bytes());
    }

    /// Text.
    pub fn string(&mut self, text: &str) {
        self.comma();
        self.json(text);
    }

    /// Bytes, as text in base64.
    pub fn base64(&mut self, bytes: &[u8]) {
        self.string(&STANDARD.encode(bytes));
    }

    /// Bytes, as text in hex.
    pub fn hex(&mut self, bytes: &[u8]) {
        let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
        let text: String = digits.filter_map(|digit| char::from_digit(u32::from(digit), 16)).collect();
        self.string(&text);
    }

    /// A time: so many nanoseconds behind so many seconds since 1970, as text of RFC 3339.
    pub fn time(&mut self, seconds: i64, nanos: i32) -> Result<(), Malformed> {
        let time = jiff::Timestamp::new(seconds, nanos).map_err(|why| Malformed { at: None, why: why.to_string() })?;
        self.string(&time.to_string());
        Ok(())
    }

    /// What serde can say of a plain value, which never fails on a vector.
    fn json(&mut self, value: &(impl serde::Serialize + ?Sized)) {
        let before = self.bytes.len();
        if serde_json::to_writer(&mut self.bytes, value).is_err() {
            self.bytes.truncate(before);
            self.bytes.extend_from_slice(b"null");
        }
    }
}
