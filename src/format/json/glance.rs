//! The common case of a [template](super::template), in as few instructions as can be: a short document of a known shape,
//! whose values are plain strings, short numbers and the three words.
//!
//! The document is copied into a buffer of constant length with zeros behind it, so that eight bytes are read anywhere
//! without a question: that costs a few instructions and saves some at every word. Whatever is not common makes the glance
//! fail, and the template's own way, which knows every value, is gone from the beginning.

use super::common::Bytes;
use super::template::{Templates, Want};
use super::walk::Walk;

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
}

impl Bytes for Text {
    /// `at` is at most [`BEYOND`] less eight behind the end.
    #[inline(always)]
    fn word(&self, at: usize) -> u64 {
        // The mask changes nothing, but shows that no bound need be checked.
        let at = at & (ROOM - 1);
        u64::from_le_bytes(*self.bytes[at..at + 8].first_chunk().expect("eight bytes"))
    }

    fn all(&self) -> &[u8] {
        &self.bytes[..self.len.min(ROOM)]
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
                    let required = self.rows.is_required(column as usize);
                    if !value.add(&self.text.bytes[..], self.rows.builder(column as usize), required) {
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
            if self.has(step, at, templates) {
                return Some((way, step.len as usize, step.want, step.then));
            }
            way = step.other;
        }
    }
}
