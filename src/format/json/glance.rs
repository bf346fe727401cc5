//! The common case of a [template](super::template), in as few instructions as can be: a short document of a known shape,
//! whose values are plain strings, short numbers and the three words.
//!
//! The document is copied into a buffer of constant length with zeros behind it, so that eight bytes are read anywhere
//! without a question: that costs a few instructions and saves some at every word. Whatever is not common makes the glance
//! fail, and the template's own way, which knows every value, is gone from the beginning.

use super::template::{Templates, Want};
use super::walk::Walk;
use crate::format::number::{Seen, Short};
use crate::format::swar::{self, Word};

/// Bytes of the buffer in which a word may begin.
const ROOM: usize = 1 << 10;
/// How far behind the end of a document a word may end.
const BEYOND: usize = 32;
/// The longest document: words behind it begin within [`ROOM`], too.
const LEN_MAX: usize = ROOM - BEYOND;
/// After failures in a row so many documents at most go without a glance.
const DOUBT_MAX: u32 = 64;

/// A document with zeros behind it. No text of JSON has a NUL: what ends with the document ends with a zero.
pub(super) struct Text {
    bytes: Box<[u8; ROOM + BEYOND]>,
    len: usize,
    /// How many documents go without a glance after the next failure, and how many still do after the last.
    doubt: u32,
    passed: u32,
}

impl Text {
    pub(super) fn new() -> Self {
        Self { bytes: Box::new([0; ROOM + BEYOND]), len: 0, doubt: 0, passed: 0 }
    }

    /// Takes a document; false where it is too long, or a glance is hardly worth it.
    #[inline(always)]
    fn set(&mut self, body: &[u8]) -> bool {
        if self.passed > 0 || body.len() > LEN_MAX {
            self.passed = self.passed.saturating_sub(1);
            return false;
        }
        self.len = body.len();
        self.bytes[..body.len()].copy_from_slice(body);
        self.bytes[body.len()..body.len() + BEYOND].fill(0);
        true
    }

    fn succeeded(&mut self) -> bool {
        self.doubt = 0;
        true
    }

    #[inline(never)]
    fn failed(&mut self) -> bool {
        self.doubt = (2 * self.doubt + 1).min(DOUBT_MAX);
        self.passed = self.doubt;
        false
    }

    /// The eight bytes from `at`, which is at most [`BEYOND`] less eight behind the end.
    #[inline(always)]
    fn word(&self, at: usize) -> u64 {
        // The mask changes nothing, but shows that no bound need be checked.
        let at = at & (ROOM - 1);
        u64::from_le_bytes(*self.bytes[at..at + 8].first_chunk().expect("eight bytes"))
    }

    /// Where the quote of a plain string is whose text begins at `at`.
    #[inline(always)]
    fn quote(&self, at: usize) -> Option<usize> {
        let mut from = at;
        loop {
            let word = self.word(from);
            // Behind the end there are zeros, which are no plain text.
            if let Some(before) = swar::before_special(word) {
                let end = from + before;
                return (self.bytes[end & (ROOM - 1)] == b'"').then_some(end);
            }
            from += 8;
        }
    }

    /// A short number, and where it ends.
    #[inline(always)]
    fn number(&self, at: usize, first: Word) -> Option<(Short, usize)> {
        let negative = first.byte(0) == b'-';
        let (start, word) = if negative { (at + 1, Word::of(self.word(at + 1))) } else { (at, first) };
        match Short::seen(word, negative) {
            Seen::Whole(number, len) => Some((number, start + len)),
            Seen::Nothing => None,
            Seen::Part => self.long_number(at, start, word, negative),
        }
    }

    /// One that goes on behind its first eight bytes: up to fifteen digits, as times have, or any other.
    #[inline(always)]
    fn long_number(&self, at: usize, start: usize, first: Word, negative: bool) -> Option<(Short, usize)> {
        let second = Word::of(self.word(start + 8));
        let more = second.digits();
        let is_plain = first.digits() == 8 && more < 8 && first.byte(0) != b'0';
        if !is_plain || matches!(second.byte(more), b'.' | b'e' | b'E') {
            return Short::read(&self.bytes[..self.len.min(ROOM)], at);
        }
        let digits = first.value(8) * swar::POWERS[more] + second.value(more);
        Some((Short { negative, digits, decimals: 0 }, start + 8 + more))
    }

    /// One of the three words at `at`, and how long it is.
    #[inline(always)]
    fn is_word(&self, at: usize, word: &[u8; 8], len: usize) -> bool {
        (self.word(at) ^ u64::from_le_bytes(*word)) << (64 - 8 * len) == 0
    }
}

/// What stands at a slot.
enum Value {
    /// The text between two places.
    Plain(usize, usize),
    Number(Short),
    Bool(bool),
    Null,
}

impl Text {
    /// The value at `at`, if it is a common one, and where it ends.
    #[inline(always)]
    fn value(&self, at: usize, number_len: usize) -> Option<(Value, usize)> {
        let word = Word::of(self.word(at));
        match word.byte(0) {
            b'"' => self.quote(at + 1).map(|end| (Value::Plain(at + 1, end), end + 1)),
            b't' if self.is_word(at, b"true\0\0\0\0", 4) => Some((Value::Bool(true), at + 4)),
            b'f' if self.is_word(at, b"false\0\0\0", 5) => Some((Value::Bool(false), at + 5)),
            b'n' if self.is_word(at, b"null\0\0\0\0", 4) => Some((Value::Null, at + 4)),
            _ => {
                let (number, end) = self.number(at, word)?;
                (end - at <= number_len).then_some((Value::Number(number), end))
            }
        }
    }
}

impl Walk<'_> {
    /// Reads a whole document at a glance: all of it, or false, with values in the columns that have to be taken back.
    pub(super) fn glanced(&mut self) -> bool {
        #[cfg(test)]
        if self.templates.off {
            return false;
        }
        self.text.set(self.body) && if self.followed() { self.text.succeeded() } else { self.text.failed() }
    }

    #[inline(always)]
    fn followed(&mut self) -> bool {
        let number_len = self.limits.number_len;
        let (mut at, mut place) = (0, 0);
        loop {
            let Some((way, step_len, want, then)) = self.text.way(self.templates, at, place) else { return false };
            self.templates.went(place, way);
            at += step_len;
            match want {
                Want::Column(column) => {
                    let Some((value, end)) = self.text.value(at, number_len) else { return false };
                    if !self.add(column as usize, value) {
                        return false;
                    }
                    at = end;
                }
                Want::Skip(_) => match self.text.value(at, number_len) {
                    Some((_, end)) => at = end,
                    None => return false,
                },
                Want::Node(_) => return false,
                Want::End(from, to) => return at == self.text.len && self.end(from, to),
            }
            place = then;
        }
    }

    /// Adds a value to a column.
    #[inline(always)]
    fn add(&mut self, column: usize, value: Value) -> bool {
        match value {
            Value::Plain(start, end) => self.rows.builder(column).push_ascii(&self.text.bytes[..], start..end),
            Value::Number(number) => self.rows.builder(column).push_common(number),
            Value::Bool(value) => self.rows.builder(column).push_bool(value),
            Value::Null => self.rows.null(column).is_ok(),
        }
    }

    /// Ends the row: some columns have no value.
    #[inline(always)]
    fn end(&mut self, from: u32, to: u32) -> bool {
        #[cfg(test)]
        (self.templates.hits += 1);
        from == to || self.absent(from, to)
    }
}

impl Text {
    /// The step at a place whose literal stands at `at`: its number, the literal's length, its slot and the place behind.
    #[inline(always)]
    fn way(&self, templates: &Templates, at: usize, place: u32) -> Option<(u32, usize, Want, u32)> {
        let mut way = place;
        loop {
            let step = templates.steps.get(way as usize)?;
            let [first, second] = [0, 1].map(|word| (self.word(at + 8 * word) ^ step.words[word]) & step.masks[word]);
            if first | second == 0
                && (step.is_short() || step.rest_is_at(&self.bytes[..self.len.min(ROOM)], at, templates))
            {
                return Some((way, step.len as usize, step.want, step.then));
            }
            way = step.other;
        }
    }
}
