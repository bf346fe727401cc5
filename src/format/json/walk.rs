//! The single pass over a document: checks that it is JSON, and reads what columns want on the way.
//!
//! Documents of a known shape need only part of it: see [`super::template`].

mod rows;
mod tokens;

use super::glance::Text;
use super::template::{Slot, Templates, Want};
use super::{Limits, NonFinite};
use crate::format::rows::Rows;
use crate::format::trie::{DOCUMENT, Trie};
use crate::format::{Extra, Malformed};

/// The way through one document.
pub(super) struct Walk<'w> {
    pub(super) body: &'w [u8],
    pub(super) at: usize,
    pub(super) depth: usize,
    pub(super) limits: &'w Limits,
    pub(super) extra: Extra,
    pub(super) non_finite: NonFinite,
    pub(super) extra_fields: u64,
    pub(super) trie: &'w Trie,
    pub(super) places: &'w mut [Option<usize>],
    pub(super) stamps: &'w mut [u64],
    pub(super) stamp: &'w mut u64,
    pub(super) scratch: &'w mut Vec<u8>,
    pub(super) rows: &'w mut Rows,
    /// The first row of this payload in the batch.
    pub(super) first: usize,
    pub(super) count: usize,
    /// Rows are within the document.
    pub(super) explode: bool,
    pub(super) in_row: bool,
    /// They were seen.
    pub(super) exploded: bool,
    pub(super) templates: &'w mut Templates,
    pub(super) text: &'w mut Text,
    /// Values are noted in [`Templates::slots`].
    pub(super) noting: bool,
}

fn bad<T>(at: usize, why: impl Into<String>) -> Result<T, Malformed> {
    Err(Malformed { at: Some(at), why: why.into() })
}

impl Walk<'_> {
    /// All rows of the body.
    pub(super) fn rows(&mut self) -> Result<usize, Malformed> {
        if self.body.len() > self.limits.bytes {
            let (len, max) = (self.body.len(), self.limits.bytes);
            return Err(Malformed { at: None, why: format!("payload of {len} bytes is over max_bytes = {max}") });
        }
        if self.explode {
            self.document()?;
            self.share()?;
            return Ok(self.count);
        }
        if self.glanced() {
            return Ok(1);
        }
        self.take_back();
        if self.predicted(true) {
            return Ok(1);
        }
        self.unpredicted(Self::document)?;
        Ok(self.count)
    }

    /// Takes back what was added of the row at hand.
    fn take_back(&mut self) {
        let row = self.first + self.count;
        self.trie.per_row.iter().for_each(|column| self.rows.builder(*column).truncate(row));
    }

    /// Reads what no template could, a document or a row of one, and learns its shape if that is due.
    #[inline(never)]
    fn unpredicted(&mut self, read: impl FnOnce(&mut Self) -> Result<(), Malformed>) -> Result<(), Malformed> {
        self.take_back();
        let start = self.at;
        self.templates.slots.clear();
        self.noting = self.templates.missed();
        let extra_fields = self.extra_fields;
        read(self)?;
        // A template would pass over what is to be counted.
        if std::mem::take(&mut self.noting) && extra_fields == self.extra_fields {
            let from = |slot: &mut Slot| (slot.start, slot.end) = (slot.start - start, slot.end - start);
            self.templates.slots.iter_mut().for_each(from);
            self.templates.learn(&self.body[start..self.at], self.trie);
        }
        Ok(())
    }

    fn document(&mut self) -> Result<(), Malformed> {
        if let Err(error) = std::str::from_utf8(self.body) {
            return bad(error.valid_up_to(), "expected UTF-8");
        }
        if self.body.starts_with("\u{feff}".as_bytes()) {
            return bad(0, "expected JSON, got a byte order mark");
        }
        self.value(Some(DOCUMENT))?;
        self.space();
        if self.at < self.body.len() {
            return bad(self.at, "expected the end after one JSON value");
        }
        if !self.explode {
            self.end_row()?;
        } else if !self.exploded {
            return bad(0, self.no_rows());
        }
        Ok(())
    }

    fn end_row(&mut self) -> Result<(), Malformed> {
        for column in &self.trie.per_row {
            let filled = self.rows.fill(*column, self.first + self.count);
            filled.map_err(|why| Malformed { at: None, why })?;
        }
        self.count += 1;
        Ok(())
    }

    fn space(&mut self) {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.body.get(self.at) {
            self.at += 1;
        }
    }

    fn peek(&mut self) -> Option<u8> {
        self.space();
        self.body.get(self.at).copied()
    }

    fn expect(&mut self, byte: u8, what: &str) -> Result<(), Malformed> {
        match self.peek() {
            Some(got) if got == byte => self.at += 1,
            Some(_) => return bad(self.at, format!("expected {what}")),
            None => return bad(self.at, format!("expected {what}, got the end")),
        }
        Ok(())
    }

    /// A value, with what the paths want of it.
    pub(super) fn value(&mut self, node: Option<usize>) -> Result<(), Malformed> {
        let want = self.noting.then(|| self.want(node)).flatten();
        let Some(want) = want else { return self.unnoted(node) };
        // What is inside of a slot is none.
        self.noting = false;
        self.space();
        let start = self.at;
        self.unnoted(node)?;
        self.noting = true;
        self.templates.slots.push(Slot { start, end: self.at, want });
        Ok(())
    }

    /// What a template would want of a value. `None` where the paths lead through it.
    fn want(&self, node: Option<usize>) -> Option<Want> {
        let Some(node) = node else { return Some(Want::Skip(self.depth as u32)) };
        let here = &self.trie.nodes[node];
        match here.columns[..] {
            [] => (!here.is_way()).then_some(Want::Skip(self.depth as u32)),
            [column] => Some(Want::Column(column as u32)),
            [..] => Some(Want::Node(node as u32)),
        }
    }

    fn unnoted(&mut self, node: Option<usize>) -> Result<(), Malformed> {
        let first = self.peek();
        let here = node.map(|node| &self.trie.nodes[node]);
        if let Some(here) = here {
            if let Some(of) = here.rows {
                return self.rows_of(of);
            }
            if !here.each.is_empty() {
                return self.each(&here.each);
            }
            if !here.columns.is_empty() {
                return self.leaf(node);
            }
            let (fields, items) = (!here.fields.is_empty(), !here.items.is_empty());
            let fits = matches!(
                (first, fields, items),
                (Some(b'{'), true, _) | (Some(b'['), _, true) | (Some(b'n') | None, ..)
            );
            if !fits && (fields || items) {
                let expected = if fields { "an object" } else { "an array" };
                return bad(self.at, format!("expected {expected}, got {}", self.named(first)));
            }
        }
        match first {
            Some(b'{') => self.object(node),
            Some(b'[') => self.array(node),
            Some(b'"') => self.string().map(|_| ()),
            Some(b'-' | b'0'..=b'9') if self.non_finite_len().is_none() => self.number().map(|_| ()),
            Some(b't') => self.word("true"),
            Some(b'f') => self.word("false"),
            Some(b'n') if self.is_null() => self.word("null"),
            Some(_) => self.other(),
            None => bad(self.at, "expected a JSON value, got the end"),
        }
    }

    fn is_null(&self) -> bool {
        self.body[self.at..].starts_with(b"null")
    }

    /// How long the word is that stands for no finite number here, if there is one.
    fn non_finite_len(&self) -> Option<usize> {
        let signed = usize::from(matches!(self.body.get(self.at), Some(b'-' | b'+')));
        let rest =
            self.body.get(self.at + signed..).filter(|rest| rest.first().is_some_and(u8::is_ascii_alphabetic))?;
        let is = |word: &&[u8]| rest.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word));
        let words: [&[u8]; 3] = [b"infinity", b"inf", b"nan"];
        words.into_iter().find(is).map(|word| signed + word.len())
    }

    /// What is no JSON value, but may pass for null.
    fn other(&mut self) -> Result<(), Malformed> {
        match (self.non_finite_len(), self.non_finite) {
            (Some(len), NonFinite::Null) => {
                self.at += len;
                Ok(())
            }
            (Some(_), NonFinite::DeadLetter) => {
                bad(self.at, "expected a number, got NaN or an infinity (`non_finite = \"null\"` takes them as null)")
            }
            _ => bad(self.at, "expected a JSON value"),
        }
    }

    fn named(&self, first: Option<u8>) -> &'static str {
        match first {
            Some(b'{') => "an object",
            Some(b'[') => "an array",
            Some(b'"') => "a string",
            Some(b't' | b'f') => "true or false",
            Some(b'-' | b'0'..=b'9') => "a number",
            Some(_) => "what is no JSON",
            None => "the end",
        }
    }

    fn enter(&mut self) -> Result<(), Malformed> {
        self.depth += 1;
        if self.depth > self.limits.depth {
            return bad(self.at, format!("deeper than max_depth = {}", self.limits.depth));
        }
        self.at += 1;
        Ok(())
    }

    fn object(&mut self, node: Option<usize>) -> Result<(), Malformed> {
        self.enter()?;
        *self.stamp += 1;
        let stamp = *self.stamp;
        if self.peek() != Some(b'}') {
            loop {
                self.space();
                let place = self.at;
                if self.body.get(place) != Some(&b'"') {
                    return bad(place, "expected a key in quotes");
                }
                let (start, end, escaped) = self.string()?;
                let key = if escaped { &self.scratch[..] } else { &self.body[start..end] };
                let next = node.and_then(|node| self.trie.nodes[node].field(key));
                match (next, node) {
                    (Some(next), _) if self.stamps[next] == stamp => {
                        return bad(place, "the key of a declared column stands there twice");
                    }
                    (Some(next), _) => self.stamps[next] = stamp,
                    (None, Some(_)) => self.extra_field(place)?,
                    (None, None) => (),
                }
                self.expect(b':', "`:`")?;
                self.value(next)?;
                if self.peek() != Some(b',') {
                    break;
                }
                self.at += 1;
            }
        }
        self.depth -= 1;
        self.expect(b'}', "`,` or `}`")
    }

    /// A field of what paths lead into, to which none does.
    fn extra_field(&mut self, place: usize) -> Result<(), Malformed> {
        match self.extra {
            Extra::Ignore => (),
            Extra::Count => self.extra_fields += 1,
            Extra::DeadLetter => return bad(place, "no column is declared for this field (`extra = \"dead_letter\"`)"),
        }
        Ok(())
    }

    fn array(&mut self, node: Option<usize>) -> Result<(), Malformed> {
        self.enter()?;
        if self.peek() != Some(b']') {
            for index in 0.. {
                let next = node.and_then(|node| self.trie.nodes[node].item(index));
                self.value(next)?;
                if self.peek() != Some(b',') {
                    break;
                }
                self.at += 1;
            }
        }
        self.depth -= 1;
        self.expect(b']', "`,` or `]`")
    }

    /// A value that columns want.
    fn leaf(&mut self, node: Option<usize>) -> Result<(), Malformed> {
        let start = self.at;
        let trie = self.trie;
        let columns = node.map_or(&[][..], |node| &trie.nodes[node].columns);
        if self.explode && !self.in_row {
            columns.iter().for_each(|column| self.places[*column] = Some(start));
            return self.value(None);
        }
        self.columns_at(start, columns)
    }

    /// The value at `start` into each of some columns.
    pub(super) fn columns_at(&mut self, start: usize, columns: &[usize]) -> Result<(), Malformed> {
        columns.iter().try_for_each(|column| {
            self.at = start;
            self.scalar(*column)
        })
    }

    /// A value into a column.
    fn scalar(&mut self, column: usize) -> Result<(), Malformed> {
        let start = self.at;
        if let Some(end) = self.quick(start, column) {
            self.at = end;
            return Ok(());
        }
        let wrong = |why| Malformed { at: Some(start), why };
        match self.body.get(start).copied() {
            Some(b'"') => {
                let (from, to, escaped) = self.string()?;
                let text = if escaped { &self.scratch[..] } else { &self.body[from..to] };
                self.rows.builder(column).push_string(text).map_err(wrong)
            }
            Some(b'-' | b'0'..=b'9') if self.non_finite_len().is_none() => {
                let (from, to) = self.number()?;
                self.rows.builder(column).push_number(&self.body[from..to]).map_err(wrong)
            }
            Some(word @ (b't' | b'f')) => {
                self.word(if word == b't' { "true" } else { "false" })?;
                self.rows.builder(column).push_truth(word == b't').map_err(wrong)
            }
            Some(b'n') if self.is_null() => {
                self.word("null")?;
                self.rows.null(column).map_err(wrong)
            }
            Some(_) if self.non_finite_len().is_some() => {
                self.other()?;
                self.rows.null(column).map_err(wrong)
            }
            Some(b'{' | b'[') if self.rows.builder(column).push_mismatch() => self.value(None),
            other => {
                let expected = self.rows.builder(column).kind().to_string();
                bad(start, format!("expected {expected}, got {}", self.named(other)))
            }
        }
    }
}
