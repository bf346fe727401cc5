//! Group keys to dense ids.
//!
//! The hash is seeded anew in every process, so nobody can prepare keys that collide; nothing that is emitted depends
//! on it, nor on ids. A group that no window holds any more is remembered for a while: a device that reports now and
//! then is not made and dropped with every window. It does not count against the bound meanwhile, and makes room where
//! room is needed, the longest silent first.
//!
//! `encoding` makes the bytes of keys and gives keys back, `key` has them, `lives` knows which ids are whose, `numbered` what the
//! sources' numbers of keys stand for.

mod encoding;
mod key;
mod lives;
mod numbered;

use std::collections::HashSet;

use arrow::array::{Array, ArrayRef, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::Schema;
use arrow::error::ArrowError;
use arrow::row::{RowConverter, SortField};

use self::encoding::{Encoded, Encoder};
use self::key::{Keys, Wanted};
use self::lives::Lives;
use self::numbered::{Found, Numbered};
use crate::flow::batch::{Batch, Keys as Numbers};
use crate::flow::time::{Span, Timestamp};
use crate::operator::OperatorError;
use crate::operator::aggregate::GroupId;
use crate::operator::key_group::Encoding;

/// The id of a row whose group did not fit any more.
pub(super) const OVERFLOW: GroupId = GroupId::MAX;

/// How many groups there can be at all: with those of a batch beyond it, ids still fit.
const GROUPS_MAX: usize = 1 << 31;

/// How many sources' numbers of keys are remembered.
const SPACES_MAX: usize = 16;

/// The groups that some window holds, and those that are remembered.
pub(super) struct Groups {
    encoder: Encoder,
    /// The columns of the key.
    names: Vec<String>,
    /// The groups that numbers of keys stand for, by space; the newest last.
    numbered: Vec<Numbered>,
    keys: Keys,
    lives: Lives,
    /// The group of the key NULL of a single column, which has no bytes.
    null: Option<GroupId>,
    groups_max: usize,
    /// How long a group is remembered, in microseconds of event time.
    forget_after: i64,
    /// Event time: the operator's watermark.
    now: i64,
}

impl Groups {
    pub(super) fn new(
        schema: &Schema,
        group_by: &[usize],
        groups_max: usize,
        forget_after: Span,
    ) -> Result<Self, ArrowError> {
        let types: Vec<_> = group_by.iter().map(|index| schema.field(*index).data_type().clone()).collect();
        let encoder = match Encoding::of(&types) {
            Encoding::One => Encoder::One,
            Encoding::Text => Encoder::Text,
            Encoding::Whole => Encoder::Whole(types[0].clone()),
            Encoding::Rows => {
                let converter = RowConverter::new(types.into_iter().map(SortField::new).collect())?;
                let parser = converter.parser();
                Encoder::Rows(converter, parser)
            }
        };
        Ok(Self {
            encoder,
            names: group_by.iter().map(|index| schema.field(*index).name().clone()).collect(),
            numbered: Vec::new(),
            keys: Keys::default(),
            lives: Lives::default(),
            null: None,
            groups_max: groups_max.min(GROUPS_MAX),
            forget_after: forget_after.micros(),
            now: Timestamp::START.micros(),
        })
    }

    /// One past the greatest id.
    pub(super) fn ids_len(&self) -> usize {
        self.lives.ids_len()
    }

    /// Makes a place for every id in a list by id, and gives back those of ids that are not given any more.
    pub(super) fn place<T: Default>(&self, list: &mut Vec<T>) {
        let (before, len) = (list.len(), self.ids_len());
        list.resize_with(len, T::default);
        if len < before {
            list.shrink_to(len);
        }
    }

    /// As `intern`, by the numbers of the keys where the batch has them: then only keys that are new here are looked at.
    pub(super) fn intern_batch(
        &mut self,
        batch: &Batch,
        columns: &[ArrayRef],
        ids: &mut Vec<GroupId>,
    ) -> Result<bool, ArrowError> {
        let Some(keys) = batch.keys().filter(|keys| *keys.columns == *self.names) else {
            return self.intern(batch.num_rows(), columns, ids);
        };
        let mut numbered = self.take_numbered(keys);
        let numbers = keys.numbers.values();
        let (stamps, mut known) = (self.lives.stamps(), true);
        ids.clear();
        ids.extend(numbers.iter().map(|number| {
            let (id, stamp) = numbered.get(*number);
            let counts = stamps.get(id as usize).is_some_and(|now| *now == stamp);
            known &= counts;
            if counts { id } else { OVERFLOW }
        }));
        let overflown = !known && self.intern_strangers(&mut numbered, numbers, columns, ids)?;
        self.numbered.push(numbered);
        Ok(overflown)
    }

    /// As `intern_batch`, for rows that are welcome only where their groups count already.
    pub(super) fn intern_known(
        &mut self,
        batch: &Batch,
        columns: &[ArrayRef],
        ids: &mut Vec<GroupId>,
    ) -> Result<bool, ArrowError> {
        let groups_max = std::mem::replace(&mut self.groups_max, 0);
        let overflown = self.intern_batch(batch, columns, ids);
        self.groups_max = groups_max;
        overflown
    }

    /// The rows that would be the first of groups that do not count yet, without those that are late.
    pub(super) fn probe(
        &self,
        rows_len: usize,
        columns: &[ArrayRef],
        is_late: impl Fn(usize) -> bool,
    ) -> Result<Vec<usize>, ArrowError> {
        let keys = self.encoder.encode(columns)?;
        let mut new = HashSet::new();
        let is_new = |row: &usize| {
            let key: Option<Vec<u8>> = match &keys {
                Encoded::One => Some(Vec::new()),
                Encoded::Text(texts) => texts.is_valid(*row).then(|| texts.value(*row).as_bytes().to_vec()),
                Encoded::Whole(numbers) => numbers.is_valid(*row).then(|| numbers.value(*row).to_le_bytes().to_vec()),
                Encoded::Rows(rows) => Some(rows.row(*row).as_ref().to_vec()),
            };
            let id = key.as_ref().map_or(self.null, |key| self.keys.find(&Wanted::of(key)));
            !id.is_some_and(|id| self.lives.counts(id)) && new.insert(key)
        };
        Ok((0..rows_len).filter(|row| !is_late(*row)).filter(is_new).collect())
    }

    /// How many groups count.
    pub(super) fn counted(&self) -> usize {
        self.lives.counted()
    }

    /// What is known of the numbers of a batch, to be put back. Of one giver only the newest numbers count.
    fn take_numbered(&mut self, keys: &Numbers) -> Numbered {
        let place = self.numbered.iter().position(|numbered| numbered.space.giver == keys.space.giver);
        let known = place.map(|place| self.numbered.remove(place)).filter(|known| known.space == keys.space);
        if self.numbered.len() >= SPACES_MAX {
            self.numbered.remove(0);
        }
        known.unwrap_or_else(|| Numbered { space: keys.space, groups: Vec::new() })
    }

    /// The groups of rows that are [`OVERFLOW`] so far, in their order.
    fn intern_strangers(
        &mut self,
        numbered: &mut Numbered,
        numbers: &[u32],
        columns: &[ArrayRef],
        ids: &mut [GroupId],
    ) -> Result<bool, ArrowError> {
        let unknown = |(number, id): (&u32, &GroupId)| {
            *id == OVERFLOW && matches!(numbered.find(*number, self.lives.stamps()), Found::Unknown)
        };
        let strangers = (0u32..).zip(numbers.iter().zip(&*ids)).filter(|(_, row)| unknown(*row)).map(|(row, _)| row);
        let strangers = UInt32Array::from_iter_values(strangers);
        let known = rows_of(columns, &strangers)?;
        let keys = self.encoder.encode(&known)?;
        let (mut next, mut overflown) = (0, false);
        for (row, (number, id)) in (0u32..).zip(numbers.iter().zip(ids)).filter(|(_, (_, id))| **id == OVERFLOW) {
            let stranger = (strangers.values().get(next) == Some(&row)).then_some(next);
            next += usize::from(stranger.is_some());
            *id = match (numbered.find(*number, self.lives.stamps()), stranger) {
                (Found::Counts(id), _) => id,
                (Found::Silent(id), _) => self.wake(id),
                (Found::Unknown, Some(stranger)) => self.find(&keys, stranger),
                // Another number of its key woke the group, and it has another id now.
                (Found::Unknown, None) => {
                    let key = rows_of(columns, &UInt32Array::from(vec![row]))?;
                    let key = self.encoder.encode(&key)?;
                    self.find(&key, 0)
                }
            };
            if *id == OVERFLOW {
                overflown = true;
            } else {
                numbered.learn(*number, (*id, self.lives.stamps()[*id as usize]));
            }
        }
        self.make_room();
        Ok(overflown)
    }

    /// The group of every row; [`OVERFLOW`] for rows of new groups beyond `groups_max`. True where there are any.
    pub(super) fn intern(
        &mut self,
        rows_len: usize,
        columns: &[ArrayRef],
        ids: &mut Vec<GroupId>,
    ) -> Result<bool, ArrowError> {
        ids.clear();
        match &self.encoder.encode(columns)? {
            Encoded::One if rows_len > 0 => {
                let id = self.id(&Wanted::of(&[]));
                ids.resize(rows_len, id);
            }
            Encoded::Text(texts) if texts.null_count() == 0 => {
                let data = texts.value_data();
                ids.extend(texts.value_offsets().windows(2).map(|ends| {
                    let (start, end) = (ends[0] as usize, ends[1] as usize);
                    self.id(&Wanted::within(data, start, end - start))
                }));
            }
            keys => ids.extend((0..rows_len).map(|row| self.find(keys, row))),
        }
        self.make_room();
        Ok(ids.contains(&OVERFLOW))
    }

    /// The same for the groups of a checkpoint, however many: `groups_max` is for those to come.
    pub(super) fn intern_restored(
        &mut self,
        rows_len: usize,
        columns: &[ArrayRef],
        ids: &mut Vec<GroupId>,
    ) -> Result<(), OperatorError> {
        let groups_max = std::mem::replace(&mut self.groups_max, GROUPS_MAX);
        let overflown = self.intern(rows_len, columns, ids);
        self.groups_max = groups_max;
        if overflown? { Err(OperatorError::Stateless) } else { Ok(()) }
    }

    /// The group of a row.
    fn find(&mut self, keys: &Encoded, row: usize) -> GroupId {
        match keys {
            Encoded::One => self.id(&Wanted::of(&[])),
            Encoded::Text(texts) if texts.is_null(row) => self.null_id(),
            Encoded::Text(texts) => self.id(&Wanted::of(texts.value(row).as_bytes())),
            Encoded::Whole(numbers) if numbers.is_null(row) => self.null_id(),
            Encoded::Whole(numbers) => self.id(&Wanted::of(&numbers.value(row).to_le_bytes())),
            Encoded::Rows(rows) => self.id(&Wanted::of(rows.row(row).as_ref())),
        }
    }

    fn id(&mut self, wanted: &Wanted) -> GroupId {
        match self.keys.find(wanted) {
            Some(id) if self.lives.counts(id) => id,
            Some(id) => self.wake(id),
            None if self.is_full() => OVERFLOW,
            None => {
                let id = self.lives.begin();
                self.keys.insert(id, wanted);
                id
            }
        }
    }

    fn null_id(&mut self) -> GroupId {
        match self.null {
            Some(id) if self.lives.counts(id) => id,
            Some(id) => self.wake(id),
            None if self.is_full() => OVERFLOW,
            None => {
                let id = self.lives.begin();
                self.keys.insert_null(id);
                self.null = Some(id);
                id
            }
        }
    }

    fn is_full(&self) -> bool {
        self.lives.counted() >= self.groups_max
    }

    /// A group that was remembered counts again, maybe by another id: nothing has the one that it had.
    fn wake(&mut self, id: GroupId) -> GroupId {
        if self.is_full() {
            return OVERFLOW;
        }
        if !self.lives.is_in_the_way(id) {
            self.lives.wake(id);
            return id;
        }
        self.lives.forget(id);
        let other = self.lives.begin();
        self.keys.rename(id, other);
        if self.null == Some(id) {
            self.null = Some(other);
        }
        other
    }

    /// Forgets groups that are only remembered where there are more of both than may count. Not while a batch is looked
    /// at: its rows may be of these.
    fn make_room(&mut self) {
        while self.lives.known() > self.groups_max
            && let Some((id, _)) = self.lives.longest_silent()
        {
            self.forget(id);
        }
    }

    /// The key group of a group.
    pub(super) fn key_group(&self, id: GroupId) -> u8 {
        self.keys.key_group(id)
    }

    /// Whether something holds a group.
    pub(super) fn is_held(&self, id: GroupId) -> bool {
        self.lives.holders(id) > 0
    }

    /// One more pane or session holds the group.
    pub(super) fn hold(&mut self, id: GroupId) {
        self.lives.hold(id);
    }

    /// One less; without any the group is only remembered.
    pub(super) fn release(&mut self, id: GroupId) {
        if self.lives.release(id) == 0 {
            self.lives.fall_silent(id, self.now);
        }
    }

    /// A row of the group has gone another way: if nothing holds the group, it is only remembered.
    pub(super) fn forget_unheld(&mut self, id: GroupId) {
        if self.lives.counts(id) && self.lives.holders(id) == 0 {
            self.lives.fall_silent(id, self.now);
        }
    }

    /// Event time has come to `now`, by the operator's watermark.
    pub(super) fn reach(&mut self, now: i64) {
        self.now = now;
    }

    /// Forgets groups that have been silent for long enough, and gives their memory back if it is worth it.
    pub(super) fn settle(&mut self) {
        while let Some((id, since)) = self.lives.longest_silent() {
            if self.now.saturating_sub(since) < self.forget_after {
                break;
            }
            self.forget(id);
        }
        self.keys.tidy();
        if let Some(len) = self.lives.enough() {
            self.lives.truncate(len);
            self.keys.truncate(len);
            // Stamps begin anew for ids that are given again.
            self.numbered.clear();
        }
    }

    fn forget(&mut self, id: GroupId) {
        if self.null == Some(id) {
            self.null = None;
        } else {
            self.keys.remove(id);
        }
        self.lives.forget(id);
    }
}

/// Some of the rows.
fn rows_of(columns: &[ArrayRef], rows: &UInt32Array) -> Result<Vec<ArrayRef>, ArrowError> {
    columns.iter().map(|column| take(column, rows, None)).collect()
}

#[cfg(test)]
mod tests;
