//! Templates: documents of one shape are read by comparing, not by parsing.
//!
//! What a device sends differs from what it sent before in its values only: keys, their order, punctuation and white
//! space are the same bytes (Li et al., "Mison: A Fast JSON Parser for Data Analytics", VLDB 2017, speculate on the same). So the
//! bytes between the values of a document that the [walk](super::walk) has read are kept as literals, and in the next
//! document only the values are read:
//!
//! ```text
//! {"id":"d7","env":{"t":20.5,"tags":["a"]}}
//! {"id":░░░░,"env":{"t":░░░░,"tags":░░░░░}}      three slots: a column, a column, a value that no column wants
//! ```
//!
//! Every byte is looked at: one of a literal is compared, one of a value is read by the walk's own functions. As the
//! literals are of a document that was accepted, a document with the same ones is accepted as well if its values are: its keys are
//! the same, so none stands there twice, and so is the depth of every value; text is checked to be UTF-8 value by value.
//! Whatever else comes is a miss: what was added is taken back, and the walk reads the document and says what is wrong.
//!
//! Shapes share what they begin with. They are a tree: after each slot there are one or more literals to go on with, the
//! most frequent first. A document of another shape is followed until it differs, and only this one literal is compared
//! again. Where no column wants a value, it is a slot whatever it is: an array of varying length is no other shape.

use super::walk::Walk;
use crate::format::number::Short;
use crate::format::swar;
use crate::format::trie::Trie;

/// The most slots of all shapes of a decoder.
const STEPS_MAX: usize = 4096;
/// The most bytes that their literals have beyond what is in the steps.
const LITERALS_MAX: usize = 256 << 10;
/// The most columns without a value of all shapes.
const ABSENT_MAX: usize = 64 << 10;
/// The most ways to go on at one place of a document.
const WAYS_MAX: usize = 32;
/// A shape is learned after so many misses for each four shapes that are known: the first ones at once; where no document is like
/// another, learning soon costs nothing to speak of.
const PATIENCE_SHIFT: u32 = 2;
/// When so many shapes found no room, all are forgotten: the devices may send others now.
const FORGET_REFUSED: u32 = 64;
/// How far the first way at a place can be ahead of the others, in hits.
const LEAD_MAX: i8 = 16;
/// Bytes of a literal that are compared in the registers.
const INLINE: usize = 16;
/// No step.
const NONE: u32 = u32::MAX;

/// What a slot is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Want {
    /// A value for one column.
    Column(u32),
    /// A value for all columns of a node of the trie.
    Node(u32),
    /// A value of any kind for nobody, so many levels deep.
    Skip(u32),
    /// No value: this is the end, and these columns had none.
    End(u32, u32),
}

/// A value that the walk came by: where it begins and ends, and what it is for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slot {
    pub(super) start: usize,
    pub(super) end: usize,
    pub(super) want: Want,
}

/// A literal, and the slot behind it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step {
    /// The first bytes of the literal, and which bits of them there are.
    pub(super) words: [u64; 2],
    pub(super) masks: [u64; 2],
    pub(super) len: u32,
    /// Where the other bytes begin among the literals.
    rest: u32,
    pub(super) want: Want,
    /// The first step at the place after the slot.
    pub(super) then: u32,
    /// Another way to go on at the place of this step.
    pub(super) other: u32,
    /// Of the first step at a place: how much more often than the others it was right.
    lead: i8,
}

/// The shapes that a decoder knows, as a tree of steps; the first one is the first at the beginning.
#[derive(Debug, Default)]
pub(super) struct Templates {
    pub(super) steps: Vec<Step>,
    literals: Vec<u8>,
    /// Columns without a value, in runs.
    absent: Vec<u32>,
    shapes: u32,
    /// Documents of no known shape since one was learned.
    misses: u32,
    /// Shapes that found no room.
    refused: u32,
    /// Room for the slots of one document.
    pub(super) slots: Vec<Slot>,
    /// Documents and rows that a template read.
    #[cfg(test)]
    pub(super) hits: usize,
    /// Neither templates nor fast paths: the oracle of the tests.
    #[cfg(test)]
    pub(super) off: bool,
}

impl Step {
    fn new(literal: &[u8], rest: usize, want: Want, then: u32) -> Self {
        let mask = |at: usize| u64::MAX.unbounded_shr(64 - 8 * (literal.len().saturating_sub(at).min(8) as u32));
        Self {
            words: [swar::window(literal, 0), swar::window(literal, 8)],
            masks: [mask(0), mask(8)],
            len: literal.len() as u32,
            rest: rest as u32,
            want,
            then,
            other: NONE,
            lead: 0,
        }
    }

    /// Where the literal ends, if it stands at `at`.
    #[inline]
    fn follows(&self, body: &[u8], at: usize, literals: &[u8]) -> Option<usize> {
        // Beyond its end a body gives zeros, of which a literal has none: JSON has no NUL.
        let differs = |word: usize| (swar::window(body, at + 8 * word) ^ self.words[word]) & self.masks[word] != 0;
        let (len, rest) = (self.len as usize, self.rest as usize);
        let same = !differs(0)
            && (len <= 8 || !differs(1))
            && (len <= INLINE || body.get(at + INLINE..at + len) == literals.get(rest..rest + len - INLINE));
        same.then_some(at + len)
    }

    /// Whether the registers hold all of the literal.
    #[inline(always)]
    pub(super) fn is_short(&self) -> bool {
        self.len as usize <= INLINE
    }

    /// Whether what the registers do not hold of it stands in a body where the literal begins at `at`.
    #[inline(never)]
    pub(super) fn rest_is_at(&self, body: &[u8], at: usize, templates: &Templates) -> bool {
        let (len, rest) = (self.len as usize, self.rest as usize);
        body.get(at + INLINE..at + len) == templates.literals.get(rest..rest + len - INLINE)
    }

    fn literal<'l>(&'l self, literals: &'l [u8]) -> impl Iterator<Item = u8> + 'l {
        let len = self.len as usize;
        let inline = self.words.into_iter().flat_map(u64::to_le_bytes).take(len.min(INLINE));
        inline.chain(literals[self.rest as usize..].iter().copied().take(len.saturating_sub(INLINE)))
    }
}

impl Templates {
    /// Bytes of what was learned.
    #[cfg(test)]
    pub(super) fn room(&self) -> usize {
        self.steps.capacity() * size_of::<Step>() + self.literals.capacity() + self.absent.capacity() * size_of::<u32>()
    }

    /// A run of columns without a value.
    pub(super) fn absent(&self, from: u32, to: u32) -> &[u32] {
        &self.absent[from as usize..to as usize]
    }

    /// Says that no shape fitted, and whether the slots of the document should be kept to learn its shape.
    pub(super) fn missed(&mut self) -> bool {
        self.misses = self.misses.saturating_add(1);
        self.misses > self.shapes >> PATIENCE_SHIFT
    }

    /// Learns the shape of a document that was accepted, by its slots in [`Self::slots`].
    pub(super) fn learn(&mut self, document: &[u8], trie: &Trie) {
        self.misses = 0;
        let slots = std::mem::take(&mut self.slots);
        let room = self.steps.len() + slots.len() < STEPS_MAX
            && self.literals.len() + document.len() <= LITERALS_MAX
            && self.absent.len() + trie.per_row.len() <= ABSENT_MAX;
        if room && self.insert(document, &slots, trie).is_some() {
            self.shapes += 1;
        } else {
            self.refused += 1;
        }
        self.slots = slots;
        if self.refused == FORGET_REFUSED {
            self.steps.clear();
            self.literals.clear();
            self.absent.clear();
            (self.shapes, self.refused) = (0, 0);
        }
    }

    /// Adds the steps of a shape that are not there. `None` where there are too many ways at a place of it.
    fn insert(&mut self, document: &[u8], slots: &[Slot], trie: &Trie) -> Option<()> {
        let wanted = |column: usize| {
            slots.iter().any(|slot| match slot.want {
                Want::Column(only) => only as usize == column,
                Want::Node(node) => trie.nodes[node as usize].columns.contains(&column),
                Want::Skip(_) | Want::End(..) => false,
            })
        };
        let first_absent = self.absent.len();
        let absent = trie.per_row.iter().copied().filter(|column| !wanted(*column));
        self.absent.extend(absent.map(|column| column as u32));
        let absent = Want::End(first_absent as u32, self.absent.len() as u32);
        let end = Slot { start: document.len(), end: document.len(), want: absent };
        let mut from = 0;
        let mut place = if self.steps.is_empty() { NONE } else { 0 };
        let mut before = NONE;
        for slot in slots.iter().chain([&end]) {
            let literal = &document[from..slot.start];
            from = slot.end;
            before = self.way(place, literal, slot.want, before)?;
            place = self.steps[before as usize].then;
        }
        Some(())
    }

    /// The step of a literal and a slot among those at a place, which is added where it is not. `None` where they are
    /// too many. At no place (`NONE`) it is the first one after `before`.
    fn way(&mut self, place: u32, literal: &[u8], want: Want, before: u32) -> Option<u32> {
        let (mut last, mut ways, mut step) = (NONE, 0, place);
        while step != NONE {
            let known = &self.steps[step as usize];
            if known.want == want && known.literal(&self.literals).eq(literal.iter().copied()) {
                return Some(step);
            }
            (last, step) = (step, known.other);
            ways += 1;
        }
        if ways == WAYS_MAX {
            return None;
        }
        let added = self.steps.len() as u32;
        let rest = self.literals.len();
        self.literals.extend_from_slice(literal.get(INLINE..).unwrap_or_default());
        self.steps.push(Step::new(literal, rest, want, NONE));
        if last != NONE {
            self.steps[last as usize].other = added;
        } else if before != NONE {
            self.steps[before as usize].then = added;
        }
        Some(added)
    }

    /// The same, where it may be the only way.
    #[inline(always)]
    pub(super) fn went(&mut self, place: u32, way: u32) {
        if place != way || self.steps.get(place as usize).is_some_and(|step| step.other != NONE) {
            self.count(place, way);
        }
    }

    /// Notes which way at a place was right. The first one stays first as long as it has the majority (Boyer and Moore,
    /// "MJRTY", 1991): two shapes in turn change nothing, another device's shape soon comes to the front.
    #[inline]
    fn count(&mut self, place: u32, step: u32) {
        let (place, step) = (place as usize, step as usize);
        let lead = self.steps[place].lead;
        if step == place {
            if self.steps[place].other != NONE {
                self.steps[place].lead = (lead + 1).min(LEAD_MAX);
            }
        } else if lead > 0 {
            self.steps[place].lead = lead - 1;
        } else {
            // The steps change places; the chain between the places stays.
            self.steps.swap(place, step);
            let other = self.steps[place].other;
            self.steps[place].other = self.steps[step].other;
            self.steps[step].other = other;
            self.steps[place].lead = 1;
        }
    }
}

impl Walk<'_> {
    /// Reads the document, or the row of an exploded one, that begins at `self.at`, if its shape is known: all of it, or
    /// nothing and false. A whole document ends where the body does.
    #[inline]
    pub(super) fn predicted(&mut self, whole: bool) -> bool {
        #[cfg(test)]
        if self.templates.off {
            return false;
        }
        let (body, start) = (self.body, self.at);
        let (mut at, mut place) = (start, 0);
        'places: loop {
            let mut way = place;
            while let Some(step) = self.templates.steps.get(way as usize) {
                let (want, then, other) = (step.want, step.then, step.other);
                if let Some(start) = step.follows(body, at, &self.templates.literals)
                    && let Some(end) = self.slot(start, want, whole)
                {
                    self.templates.count(place, way);
                    if let Want::End(..) = want {
                        self.at = end;
                        #[cfg(test)]
                        (self.templates.hits += 1);
                        return true;
                    }
                    (at, place) = (end, then);
                    continue 'places;
                }
                way = other;
            }
            self.at = start;
            return false;
        }
    }

    /// Reads the value at `start`, and says where it ends. `None`, and nothing added, where it is none for this slot.
    #[inline(always)]
    fn slot(&mut self, start: usize, want: Want, whole: bool) -> Option<usize> {
        match want {
            Want::Column(column) => match self.quick_here(start, column as usize) {
                Some(end) => Some(end),
                None => self.slow_slot(start, want),
            },
            Want::Skip(_) => match self.quick_skip(start) {
                Some(end) => Some(end),
                None => self.slow_slot(start, want),
            },
            Want::Node(_) => self.slow_slot(start, want),
            Want::End(from, to) => {
                if whole && start < self.body.len() {
                    return None;
                }
                self.absent(from, to).then_some(start)
            }
        }
    }

    /// Some columns have no value; false where one must have.
    #[inline(never)]
    pub(super) fn absent(&mut self, from: u32, to: u32) -> bool {
        self.rows.nulls(self.templates.absent(from, to))
    }

    /// The same by the functions of the walk.
    #[inline(never)]
    fn slow_slot(&mut self, start: usize, want: Want) -> Option<usize> {
        self.at = start;
        let (trie, column) = (self.trie, if let Want::Column(column) = want { [column as usize] } else { [0] });
        let columns = match want {
            Want::Column(_) => &column[..],
            Want::Node(node) => &trie.nodes[node as usize].columns,
            Want::Skip(_) | Want::End(..) => &[],
        };
        let read = if let Want::Skip(depth) = want {
            let outside = std::mem::replace(&mut self.depth, depth as usize);
            let read = self.value(None);
            self.depth = outside;
            read
        } else {
            self.columns_at(start, columns)
        };
        // The walk has checked all of the body at its beginning; here only this value counts.
        if read.is_ok() && std::str::from_utf8(&self.body[start..self.at]).is_ok() {
            return Some(self.at);
        }
        let row = self.first + self.count;
        columns.iter().for_each(|column| self.rows.builder(*column).truncate(row));
        None
    }

    /// A plain string or a short number into a column; where it ends.
    #[inline(never)]
    pub(super) fn quick(&mut self, start: usize, column: usize) -> Option<usize> {
        self.quick_here(start, column)
    }

    /// The same without a call.
    #[inline(always)]
    fn quick_here(&mut self, start: usize, column: usize) -> Option<usize> {
        if self.body.get(start) == Some(&b'"') {
            let end = self.quick_string(start)?;
            return self.rows.builder(column).push_ascii(self.body, start + 1..end - 1).then_some(end);
        }
        let (number, end) = self.quick_number(start)?;
        self.rows.builder(column).push_short(number).then_some(end)
    }

    /// Where a plain string or a short number ends.
    #[inline]
    fn quick_skip(&self, start: usize) -> Option<usize> {
        if self.body.get(start) == Some(&b'"') {
            return self.quick_string(start);
        }
        self.quick_number(start).map(|(_, end)| end)
    }

    /// Where a string without escapes, of ASCII, ends with its quote.
    #[inline]
    pub(super) fn quick_string(&self, start: usize) -> Option<usize> {
        #[cfg(test)]
        if self.templates.off {
            return None;
        }
        swar::plain_until_quote(self.body, start + 1).map(|end| end + 1)
    }

    /// A short number, and where it ends.
    #[inline]
    pub(super) fn quick_number(&self, start: usize) -> Option<(Short, usize)> {
        #[cfg(test)]
        if self.templates.off {
            return None;
        }
        Short::read(self.body, start).filter(|(_, end)| end - start <= self.limits.number_len)
    }
}
