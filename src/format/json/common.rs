//! The values that nearly all documents are made of, in as few instructions as can be: plain strings, short numbers and the
//! three words.

use super::template::{Step, Templates};
use crate::format::builder::Builder;
use crate::format::number::{Seen, Short};
use crate::format::swar::{self, Word};

/// Text of which eight bytes can be read anywhere.
pub(super) trait Bytes {
    /// The eight bytes from `at`; zeros, which no text of JSON has, for what is beyond the end.
    fn word(&self, at: usize) -> u64;
    /// The sixteen bytes from `at`, likewise.
    #[inline(always)]
    fn words(&self, at: usize) -> [u64; 2] {
        [self.word(at), self.word(at + 8)]
    }
    /// All of them.
    fn all(&self) -> &[u8];

    /// Where the quote of a plain string is whose text begins at `at`.
    #[inline(always)]
    fn quote(&self, at: usize) -> Option<usize> {
        let mut from = at;
        loop {
            let word = self.word(from);
            // Behind the end there are zeros, which are no plain text.
            if let Some(before) = swar::before_special(word) {
                return (word.unbounded_shr(8 * before as u32) as u8 == b'"').then_some(from + before);
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
            return Short::read(self.all(), at);
        }
        let digits = first.value(8) * swar::POWERS[more] + second.value(more);
        Some((Short { negative, digits, decimals: 0 }, start + 8 + more))
    }

    /// One of the three words at `at`, and how long it is.
    #[inline(always)]
    fn is_word(&self, at: usize, word: &[u8; 8], len: usize) -> bool {
        (self.word(at) ^ u64::from_le_bytes(*word)) << (64 - 8 * len) == 0
    }

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

    /// Whether the literal of a step stands at `at`.
    #[inline(always)]
    fn has(&self, step: &Step, at: usize, templates: &Templates) -> bool {
        let [first, second] = self.words(at);
        let differs = (first ^ step.words[0]) & step.masks[0] | (second ^ step.words[1]) & step.masks[1];
        differs == 0 && (step.is_short() || step.rest_is_at(self.all(), at, templates))
    }
}

/// What stands at a slot.
pub(super) enum Value {
    /// The text between two places.
    Plain(usize, usize),
    Number(Short),
    Bool(bool),
    Null,
}

impl Value {
    /// Adds it to a column, if it is one of its values.
    #[inline(always)]
    pub(super) fn add(self, text: &[u8], column: &mut Builder, required: bool) -> bool {
        match self {
            Self::Plain(start, end) => column.push_ascii(text, start..end),
            Self::Number(number) => column.push_common(number),
            Self::Bool(value) => column.push_bool(value),
            Self::Null if required => false,
            Self::Null => {
                column.push_null();
                true
            }
        }
    }
}
