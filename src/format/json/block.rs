//! Many documents of one shape at once, column by column: the common case of the [glance](super::glance) without its
//! questions, which are asked once for a column of many documents and not for each of its values.
//!
//! ```text
//! {"id":"d7","t":20.5}     step 1: "d7" "d8" "d9" into the column `id`, of one document after the other
//! {"id":"d8","t":20.6}     step 2: 20.5 20.6 2e1? the third goes no further, nor does what is behind it
//! {"id":"d9","t":2e1}
//! ```
//!
//! The first document that goes another way ends the block: it goes by itself, and what is behind it begins a block anew. So
//! blocks grow while all goes well, and shrink to how far it went; where that is not far enough, all go by themselves for a
//! while.

use super::JsonDecoder;
use super::common::Bytes;
use super::template::{Step, Templates, Want};
use crate::flow::payload::Payloads;
use crate::format::builder::{Builder, Quick};
use crate::format::number::Short;
use crate::format::swar::{self, Word};
use crate::format::trie::Shape;
use crate::format::when::Unit;

/// The most documents of a block.
const ROWS_MAX: usize = 256;
/// The fewest: fewer go by themselves.
const ROWS_MIN: usize = 8;
/// How many documents at most go by themselves after a block of fewer than [`ROWS_MIN`].
const PAUSE_MAX: usize = 1024;

/// What blocks have come to.
pub(super) struct Block {
    /// How far each document of the block was read, in the buffer of the payloads.
    ats: Vec<usize>,
    /// How many documents the next one may have.
    size: usize,
    /// How many documents go by themselves after the next block that is too short, and how many still do after the last.
    doubt: usize,
    pause: usize,
}

impl Default for Block {
    fn default() -> Self {
        Self { ats: Vec::new(), size: ROWS_MIN, doubt: ROWS_MIN, pause: 0 }
    }
}

impl Block {
    /// How many documents to try; none where they had better go by themselves.
    fn wanted(&mut self, left: usize) -> usize {
        let paused = self.pause > 0;
        self.pause = self.pause.saturating_sub(1);
        if paused || left < ROWS_MIN { 0 } else { self.size.min(left) }
    }

    fn went(&mut self, wanted: usize, rows: usize) {
        if rows == wanted {
            (self.size, self.doubt) = ((2 * self.size).min(ROWS_MAX), ROWS_MIN);
        } else if rows >= ROWS_MIN {
            (self.size, self.pause) = (rows, 1);
        } else {
            (self.size, self.pause) = (ROWS_MIN, self.doubt);
            self.doubt = (2 * self.doubt).min(PAUSE_MAX);
        }
    }
}

impl JsonDecoder {
    /// Reads the documents from `from` on that are alike; how many. Nothing is left of what follows them.
    pub(super) fn alike(&mut self, payloads: &Payloads, from: usize) -> usize {
        #[cfg(test)]
        if self.templates.off {
            return 0;
        }
        if self.trie.shape != Shape::One {
            return 0;
        }
        let wanted = self.block.wanted(payloads.len() - from);
        if wanted == 0 {
            return 0;
        }
        let rows = self.steps(payloads, from, wanted);
        let rows = self.rows.alike(payloads, from, rows);
        self.block.went(wanted, rows);
        #[cfg(test)]
        (self.templates.hits += rows);
        rows
    }

    /// Follows the most frequent way at each place, all documents at once; how many came to its end, with values in the
    /// columns also of those that did not.
    fn steps(&mut self, payloads: &Payloads, from: usize, wanted: usize) -> usize {
        let text = payloads.buffer();
        let bodies = || payloads.bodies(from).take(wanted);
        let mut rows = bodies().take_while(|(start, end)| end - start <= self.limits.bytes).count();
        self.block.ats.clear();
        self.block.ats.extend(bodies().map(|(start, _)| start));
        let mut place = 0;
        while let Some(step) = self.templates.steps.get(place).copied() {
            let front = Front { text, step: &step, templates: &self.templates, number_len: self.limits.number_len };
            let ats = &mut self.block.ats[..rows];
            rows = match step.want {
                Want::Column(column) => {
                    let required = self.rows.is_required(column as usize);
                    front.column(ats, self.rows.builder(column as usize), required)
                }
                Want::Skip(_) => front.skip(ats),
                Want::Node(_) => 0,
                Want::End(from, to) => {
                    let ends = ats.iter().zip(bodies());
                    let whole = |(at, (_, end)): &(&usize, (usize, usize))| front.end(**at) == Some(*end);
                    let rows = ends.take_while(whole).count();
                    return if (0..rows).all(|_| self.rows.nulls(self.templates.absent(from, to))) { rows } else { 0 };
                }
            };
            if rows < ROWS_MIN {
                return 0;
            }
            self.templates.went(place as u32, place as u32);
            place = step.then as usize;
        }
        0
    }
}

/// One step of many documents: what is before their values, and their values.
struct Front<'f> {
    text: &'f [u8],
    step: &'f Step,
    templates: &'f Templates,
    number_len: usize,
}

impl Bytes for &[u8] {
    #[inline(always)]
    fn word(&self, at: usize) -> u64 {
        swar::window(self, at)
    }

    #[inline(always)]
    fn words(&self, at: usize) -> [u64; 2] {
        // One question for both words, but at the end.
        match self.get(at..).and_then(<[u8]>::first_chunk::<16>) {
            Some(bytes) => {
                let both = u128::from_le_bytes(*bytes);
                [both as u64, (both >> 64) as u64]
            }
            None => [self.word(at), self.word(at + 8)],
        }
    }

    fn all(&self) -> &[u8] {
        self
    }
}

impl Front<'_> {
    /// Where the literal at `at` ends.
    #[inline(always)]
    fn end(&self, at: usize) -> Option<usize> {
        self.text.has(self.step, at, self.templates).then_some(at + self.step.len as usize)
    }

    /// Reads the value of each document by `read`, which says where it ends; how many there were before the first of which it
    /// does not.
    #[inline(always)]
    fn each(&self, ats: &mut [usize], mut read: impl FnMut(usize) -> Option<usize>) -> usize {
        for (row, at) in ats.iter_mut().enumerate() {
            match self.end(*at).and_then(&mut read) {
                Some(end) => *at = end,
                None => return row,
            }
        }
        ats.len()
    }

    /// A short number, and where it ends.
    #[inline(always)]
    fn number(&self, at: usize) -> Option<(Short, usize)> {
        let (number, end) = self.text.number(at, Word::of(self.text.word(at)))?;
        (end - at <= self.number_len).then_some((number, end))
    }

    fn skip(&self, ats: &mut [usize]) -> usize {
        self.each(ats, |at| self.text.value(at, self.number_len).map(|(_, end)| end))
    }

    /// Values into a column: as long as they are what nearly all of its values are, and where one is not, by asking what it is.
    fn column(&self, ats: &mut [usize], column: &mut Builder, required: bool) -> usize {
        let mut rows = 0;
        while rows < ats.len() {
            rows += self.quick(&mut ats[rows..], column, required);
            if rows < ats.len() && self.any(&mut ats[rows..=rows], column, required) == 0 {
                return rows;
            }
            rows += 1;
        }
        ats.len()
    }

    #[inline(never)]
    fn any(&self, ats: &mut [usize], column: &mut Builder, required: bool) -> usize {
        self.each(ats, |at| {
            let (value, end) = self.text.value(at, self.number_len)?;
            value.add(self.text, column, required).then_some(end)
        })
    }

    fn quick(&self, ats: &mut [usize], column: &mut Builder, required: bool) -> usize {
        match column.quick(ats.len()) {
            Quick::Float64(values) => self.numbers(ats, values, Short::float64),
            Quick::Int64(values) => self.numbers(ats, values, Short::int64),
            // One loop for each unit: a question of the unit less at each value.
            Quick::Time(Unit::S, values) => self.numbers(ats, values, |number| Unit::S.micros(number)),
            Quick::Time(Unit::Ms, values) => self.numbers(ats, values, |number| Unit::Ms.micros(number)),
            Quick::Time(Unit::Us, values) => self.numbers(ats, values, |number| Unit::Us.micros(number)),
            Quick::Time(Unit::Ns, values) => self.numbers(ats, values, |number| Unit::Ns.micros(number)),
            Quick::Text => self.each(ats, |at| match self.text.word(at) as u8 {
                b'"' => {
                    let end = self.text.quote(at + 1)?;
                    column.push_ascii(self.text, at + 1..end).then_some(end + 1)
                }
                _ => None,
            }),
            Quick::Other => self.any(ats, column, required),
        }
    }

    #[inline(always)]
    fn numbers<T>(&self, ats: &mut [usize], values: &mut Vec<T>, of: impl Fn(Short) -> Option<T>) -> usize {
        self.each(ats, |at| {
            let (number, end) = self.number(at)?;
            values.push(of(number)?);
            Some(end)
        })
    }
}
