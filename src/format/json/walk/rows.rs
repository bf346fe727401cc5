//! Documents that are many rows: the items of an array, the members of a map, parallel arrays.

use super::{Walk, bad};
use crate::format::Malformed;
use crate::format::path::RowsOf;
use crate::format::trie::{ROW, Shape};

impl Walk<'_> {
    /// What is missing where no rows were seen.
    pub(super) fn no_rows(&self) -> &'static str {
        let of = self.trie.nodes.iter().find_map(|node| node.rows);
        match (self.trie.shape, of) {
            (Shape::Parallel, _) => "none of the arrays of values (`[*]`) is there",
            (_, Some(RowsOf::Members)) => "the map of `rows` is missing",
            _ => "the array of `rows` is missing",
        }
    }

    /// What `rows` leads to: a row for each of what is in it.
    pub(super) fn rows_of(&mut self, of: RowsOf) -> Result<(), Malformed> {
        let first = self.peek();
        let (open, close, expected, end) = match of {
            RowsOf::Items => (b'[', b']', "the array of `rows`", "`,` or `]`"),
            RowsOf::Members => (b'{', b'}', "the map of `rows`", "`,` or `}`"),
        };
        if first != Some(open) {
            return bad(self.at, format!("expected {expected}, got {}", self.named(first)));
        }
        self.exploded = true;
        self.enter()?;
        self.in_row = true;
        if self.peek() != Some(close) {
            loop {
                self.row(of)?;
                if self.peek() != Some(b',') {
                    break;
                }
                self.at += 1;
            }
        }
        self.in_row = false;
        self.depth -= 1;
        self.expect(close, end)
    }

    fn row(&mut self, of: RowsOf) -> Result<(), Malformed> {
        self.more_rows(self.count)?;
        self.space();
        if of == RowsOf::Members {
            self.key()?;
        }
        let start = self.at;
        if !self.predicted(false) {
            self.unpredicted(|walk| walk.value(Some(ROW)))?;
        }
        self.end_row().map_err(|wrong| Malformed { at: wrong.at.or(Some(start)), ..wrong })
    }

    /// Whether there may be one more than these.
    fn more_rows(&self, count: usize) -> Result<(), Malformed> {
        if count == self.limits.rows {
            return bad(self.at, format!("more than max_rows = {} rows", self.limits.rows));
        }
        Ok(())
    }

    /// The key of a row, and what is between it and its value.
    fn key(&mut self) -> Result<(), Malformed> {
        let place = self.at;
        if self.body.get(place) != Some(&b'"') {
            return bad(place, "expected a key in quotes");
        }
        let (start, end, escaped) = self.string()?;
        let key = if escaped { &self.scratch[..] } else { &self.body[start..end] };
        for column in &self.trie.keys {
            self.rows.builder(*column).push_text(key).map_err(|why| Malformed { at: Some(place), why })?;
        }
        self.expect(b':', "`:`")?;
        self.space();
        Ok(())
    }

    /// An array whose items are the values of some columns, one a row. `null` is as if it were not there.
    pub(super) fn each(&mut self, columns: &[usize]) -> Result<(), Malformed> {
        let (first, start) = (self.peek(), self.at);
        match first {
            Some(b'[') => self.enter()?,
            Some(b'n') => return self.word("null"),
            _ => return bad(start, format!("expected an array of values, got {}", self.named(first))),
        }
        let mut count = 0;
        if self.peek() != Some(b']') {
            loop {
                self.more_rows(count)?;
                self.space();
                self.columns_at(self.at, columns)?;
                count += 1;
                if self.peek() != Some(b',') {
                    break;
                }
                self.at += 1;
            }
        }
        self.depth -= 1;
        self.expect(b']', "`,` or `]`")?;
        if self.exploded && self.count != count {
            return bad(start, format!("an array of {count} values beside one of {}", self.count));
        }
        (self.exploded, self.count) = (true, count);
        Ok(())
    }

    /// Gives every row what all have in common: the values of the whole document, and null where there is no array.
    pub(super) fn share(&mut self) -> Result<(), Malformed> {
        let (count, trie) = (self.count, self.trie);
        if count == 0 {
            return Ok(());
        }
        let wrong = |why| Malformed { at: None, why };
        for column in trie.shared.iter().copied() {
            match self.places[column] {
                Some(at) => {
                    self.at = at;
                    self.scalar(column)?;
                }
                None => self.rows.null(column).map_err(wrong)?,
            }
            self.rows.builder(column).repeat_last(count - 1).map_err(wrong)?;
        }
        for column in trie.per_row.iter().copied().filter(|_| trie.shape == Shape::Parallel) {
            if self.rows.builder(column).len() == self.first {
                self.rows.null(column).map_err(wrong)?;
                self.rows.builder(column).repeat_last(count - 1).map_err(wrong)?;
            }
        }
        Ok(())
    }
}
