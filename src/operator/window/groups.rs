//! Group keys to dense ids.
//!
//! The hash is seeded anew in every process, so nobody can prepare keys that collide; nothing that is emitted depends
//! on it. Ids are given in order of first appearance, and given again when no window holds them any more.

use std::hash::BuildHasher;
use std::sync::Arc;

use arrow::array::cast::AsArray;
use arrow::array::{Array, ArrayRef, Int64Array, StringArray, UInt32Array};
use arrow::compute::{cast, take};
use arrow::datatypes::{DataType, Int64Type, Schema};
use arrow::error::ArrowError;
use arrow::row::{RowConverter, RowParser, SortField};
use foldhash::fast::RandomState;
use hashbrown::HashTable;

use crate::flow::batch::{Batch, Keys, Space};
use crate::operator::OperatorError;
use crate::operator::aggregate::GroupId;
use crate::operator::key_group::{Encoding, key_group};

/// The id of a row whose group did not fit any more.
pub(super) const OVERFLOW: GroupId = GroupId::MAX;

/// The number of holders of an id that is not given to any group.
const FREE: u32 = u32::MAX;

/// How many sources' numbers of keys are remembered.
const SPACES_MAX: usize = 16;

/// The groups that some window holds.
pub(super) struct Groups {
    encoder: Encoder,
    /// The columns of the key.
    names: Vec<String>,
    /// The groups that numbers of keys stand for, by space; the newest last.
    numbered: Vec<Numbered>,
    /// How often an id was given to another group, by id.
    stamps: Vec<u32>,
    table: HashTable<GroupId>,
    hasher: RandomState,
    /// By id. Of a group that is gone, empty.
    keys: Vec<Box<[u8]>>,
    /// The key group of a group, by id.
    key_groups: Vec<u8>,
    /// The group of the key NULL of a single column, which has no bytes.
    null: Option<GroupId>,
    /// How many panes or sessions hold a group, by id; or [`FREE`].
    holders: Vec<u32>,
    free: Vec<GroupId>,
    groups_max: usize,
}

/// What numbers of keys stand for.
struct Numbered {
    space: Space,
    /// By number: the group's id and the stamp that this had then. A group that is gone has another.
    groups: Vec<(GroupId, u32)>,
}

enum Encoder {
    /// No `group_by`: one group.
    One,
    /// One text column: its bytes are the key.
    Text,
    /// One column of whole numbers, of this type: the number is the key.
    Whole(DataType),
    /// Anything else, in Arrow's row format.
    Rows(RowConverter, RowParser),
}

impl Groups {
    pub(super) fn new(schema: &Schema, group_by: &[usize], groups_max: usize) -> Result<Self, ArrowError> {
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
            stamps: Vec::new(),
            table: HashTable::new(),
            hasher: RandomState::default(),
            keys: Vec::new(),
            key_groups: Vec::new(),
            null: None,
            holders: Vec::new(),
            free: Vec::new(),
            // The last id stands for rows that do not fit.
            groups_max: groups_max.min(OVERFLOW as usize),
        })
    }

    /// One past the greatest id.
    pub(super) fn ids_len(&self) -> usize {
        self.keys.len()
    }

    fn len(&self) -> usize {
        self.keys.len() - self.free.len()
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
        let mut unknown: Vec<u32> = Vec::new();
        ids.clear();
        ids.extend((0u32..).zip(keys.numbers.values()).map(
            |(row, number)| match numbered.groups.get(*number as usize) {
                Some((id, stamp)) if self.stamps.get(*id as usize) == Some(stamp) => *id,
                _ => {
                    unknown.push(row);
                    OVERFLOW
                }
            },
        ));
        let mut overflown = false;
        if !unknown.is_empty() {
            let rows = UInt32Array::from(unknown);
            let columns = columns.iter().map(|column| take(column, &rows, None)).collect::<Result<Vec<_>, _>>()?;
            let mut new = Vec::new();
            overflown = self.intern(rows.len(), &columns, &mut new)?;
            for (row, id) in rows.values().iter().zip(new) {
                ids[*row as usize] = id;
                numbered.learn(keys.numbers.value(*row as usize), id, &self.stamps);
            }
        }
        self.numbered.push(numbered);
        Ok(overflown)
    }

    /// What is known of the numbers of a batch, to be put back. Of one giver only the newest numbers count.
    fn take_numbered(&mut self, keys: &Keys) -> Numbered {
        let place = self.numbered.iter().position(|numbered| numbered.space.giver == keys.space.giver);
        let known = place.map(|place| self.numbered.remove(place)).filter(|known| known.space == keys.space);
        if self.numbered.len() >= SPACES_MAX {
            self.numbered.remove(0);
        }
        known.unwrap_or_else(|| Numbered { space: keys.space, groups: Vec::new() })
    }

    /// The group of every row; [`OVERFLOW`] for rows of new groups beyond `groups_max`. True where there are any.
    pub(super) fn intern(
        &mut self,
        rows_len: usize,
        columns: &[ArrayRef],
        ids: &mut Vec<GroupId>,
    ) -> Result<bool, ArrowError> {
        ids.clear();
        match &self.encoder {
            Encoder::One => {
                let id = self.id(&[]);
                ids.resize(rows_len, id);
            }
            Encoder::Text => {
                let column = columns[0].as_string::<i32>();
                for row in 0..rows_len {
                    let id = if column.is_null(row) { self.null_id() } else { self.id(column.value(row).as_bytes()) };
                    ids.push(id);
                }
            }
            Encoder::Whole(_) => {
                let column = cast(&columns[0], &DataType::Int64)?;
                let column = column.as_primitive::<Int64Type>();
                for row in 0..rows_len {
                    let id =
                        if column.is_null(row) { self.null_id() } else { self.id(&column.value(row).to_le_bytes()) };
                    ids.push(id);
                }
            }
            Encoder::Rows(converter, _) => {
                let rows = converter.convert_columns(columns)?;
                ids.extend(rows.iter().map(|row| self.id(row.as_ref())));
            }
        }
        Ok(ids.contains(&OVERFLOW))
    }

    /// The same for the groups of a checkpoint, however many: `groups_max` is for those to come.
    pub(super) fn intern_restored(
        &mut self,
        rows_len: usize,
        columns: &[ArrayRef],
        ids: &mut Vec<GroupId>,
    ) -> Result<(), OperatorError> {
        let groups_max = std::mem::replace(&mut self.groups_max, OVERFLOW as usize);
        let overflown = self.intern(rows_len, columns, ids);
        self.groups_max = groups_max;
        if overflown? { Err(OperatorError::Stateless) } else { Ok(()) }
    }

    /// The key group of a group.
    pub(super) fn key_group(&self, id: GroupId) -> u8 {
        self.key_groups[id as usize]
    }

    /// Whether something holds a group.
    pub(super) fn is_held(&self, id: GroupId) -> bool {
        !matches!(self.holders[id as usize], 0 | FREE)
    }

    fn id(&mut self, key: &[u8]) -> GroupId {
        let hash = self.hasher.hash_one(key);
        if let Some(id) = self.table.find(hash, |id| *self.keys[*id as usize] == *key) {
            return *id;
        }
        let id = self.create(key);
        if id != OVERFLOW {
            let (keys, hasher) = (&self.keys, &self.hasher);
            self.table.insert_unique(hash, id, |id| hasher.hash_one(&*keys[*id as usize]));
        }
        id
    }

    fn null_id(&mut self) -> GroupId {
        self.null.unwrap_or_else(|| {
            let id = self.create(&[]);
            self.null = (id != OVERFLOW).then_some(id);
            id
        })
    }

    fn create(&mut self, key: &[u8]) -> GroupId {
        if self.len() >= self.groups_max {
            return OVERFLOW;
        }
        if let Some(id) = self.free.pop() {
            self.keys[id as usize] = key.into();
            self.key_groups[id as usize] = key_group(key);
            self.holders[id as usize] = 0;
            return id;
        }
        self.keys.push(key.into());
        self.stamps.push(0);
        self.key_groups.push(key_group(key));
        self.holders.push(0);
        GroupId::try_from(self.keys.len() - 1).expect("groups_max fits")
    }

    /// One more pane or session holds the group.
    pub(super) fn hold(&mut self, id: GroupId) {
        self.holders[id as usize] += 1;
    }

    /// One less; without any the group is forgotten.
    pub(super) fn release(&mut self, id: GroupId) {
        self.holders[id as usize] -= 1;
        self.forget_unheld(id);
    }

    /// Forgets a group that nothing has ever held.
    pub(super) fn forget_unheld(&mut self, id: GroupId) {
        let index = id as usize;
        if self.holders[index] > 0 {
            return;
        }
        self.holders[index] = FREE;
        self.stamps[index] = self.stamps[index].wrapping_add(1);
        if self.null == Some(id) {
            self.null = None;
        } else {
            let hash = self.hasher.hash_one(&*self.keys[index]);
            if let Ok(entry) = self.table.find_entry(hash, |known| *known == id) {
                entry.remove();
            }
        }
        self.keys[index] = Box::default();
        self.free.push(id);
    }

    /// The key columns of groups.
    pub(super) fn columns(&self, ids: &[GroupId]) -> Result<Vec<ArrayRef>, ArrowError> {
        let key = |id: &GroupId| &*self.keys[*id as usize];
        match &self.encoder {
            Encoder::One => Ok(Vec::new()),
            Encoder::Text => {
                let text = |id: &GroupId| {
                    (self.null != Some(*id)).then(|| std::str::from_utf8(key(id)).expect("came from a text column"))
                };
                Ok(vec![Arc::new(ids.iter().map(text).collect::<StringArray>())])
            }
            Encoder::Whole(data_type) => {
                let whole = |id: &GroupId| {
                    (self.null != Some(*id)).then(|| i64::from_le_bytes(key(id).try_into().expect("eight bytes")))
                };
                Ok(vec![cast(&ids.iter().map(whole).collect::<Int64Array>(), data_type)?])
            }
            Encoder::Rows(converter, parser) => converter.convert_rows(ids.iter().map(|id| parser.parse(key(id)))),
        }
    }
}

impl Numbered {
    fn learn(&mut self, number: u32, id: GroupId, stamps: &[u32]) {
        let Some(stamp) = stamps.get(id as usize) else { return };
        let number = number as usize;
        if self.groups.len() <= number {
            self.groups.resize(number + 1, (OVERFLOW, 0));
        }
        self.groups[number] = (id, *stamp);
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Float64Array, Int8Array, RecordBatch, UInt64Array};
    use arrow::datatypes::Field;

    use super::*;

    /// Interns a column, and gives back the ids and the keys that they stand for.
    fn round(groups: &mut Groups, column: &ArrayRef) -> (Vec<GroupId>, ArrayRef) {
        let mut ids = Vec::new();
        groups.intern(column.len(), std::slice::from_ref(column), &mut ids).unwrap();
        let keys = groups.columns(&ids).unwrap().remove(0);
        (ids, keys)
    }

    fn groups(column: &ArrayRef) -> Groups {
        let schema = Schema::new(vec![Field::new("key", column.data_type().clone(), true)]);
        Groups::new(&schema, &[0], 100).unwrap()
    }

    #[test]
    fn keys_of_every_type_come_back() {
        let columns: [ArrayRef; 4] = [
            Arc::new(StringArray::from(vec![Some(""), None, Some("a"), Some(""), None])),
            Arc::new(Int8Array::from(vec![Some(0), None, Some(-128), Some(0), None])),
            Arc::new(UInt64Array::from(vec![Some(0), None, Some(u64::MAX), Some(0), None])),
            Arc::new(Float64Array::from(vec![Some(0.5), None, Some(-1.0), Some(0.5), None])),
        ];
        for column in columns {
            let (ids, keys) = round(&mut groups(&column), &column);
            assert_eq!(ids, [0, 1, 2, 0, 1], "{column:?}");
            assert_eq!(&keys, &column);
        }
    }

    #[test]
    fn ids_are_given_again_when_nothing_holds_them() {
        let column: ArrayRef = Arc::new(StringArray::from(vec![Some("a"), None]));
        let mut groups = groups(&column);
        round(&mut groups, &column);
        groups.hold(0);
        groups.hold(0);
        groups.hold(1);
        groups.release(0);
        groups.release(1);
        // NULL is gone, `a` is still held.
        let other: ArrayRef = Arc::new(StringArray::from(vec![Some("b"), Some("a"), None]));
        assert_eq!(round(&mut groups, &other), (vec![1, 0, 2], other.clone()));
    }

    /// The ids of a batch whose keys have numbers of a generation.
    fn numbered(groups: &mut Groups, keys: &[&str], numbers: &[u32], generation: u64) -> Vec<GroupId> {
        let column: ArrayRef = Arc::new(StringArray::from(keys.to_vec()));
        let rows = RecordBatch::try_from_iter([("key", column.clone())]).unwrap();
        let columns = ["key".to_owned()].into();
        let keys = Keys { columns, space: Space { giver: 7, generation }, numbers: numbers.to_vec().into() };
        let mut ids = Vec::new();
        groups.intern_batch(&Batch::keyed(rows, keys), &[column], &mut ids).unwrap();
        ids
    }

    #[test]
    fn numbers_stand_for_the_groups_that_their_keys_are_in() {
        let column: ArrayRef = Arc::new(StringArray::from(vec!["a"]));
        let mut groups = groups(&column);
        assert_eq!(numbered(&mut groups, &["a", "b", "a", "c", "c"], &[3, 0, 3, 1, 1], 0), [0, 1, 0, 2, 2]);
        (0..3).for_each(|id| groups.hold(id));
        // What is known is not looked at: the text here says otherwise.
        assert_eq!(numbered(&mut groups, &["?", "d"], &[3, 2], 0), [0, 3]);
        groups.hold(3);
        // Numbers of another generation are other numbers, and so is a group that is given again.
        assert_eq!(numbered(&mut groups, &["b"], &[3], 1), [1]);
        groups.release(1);
        assert_eq!(numbered(&mut groups, &["e", "b"], &[9, 3], 1), [1, 4]);
        assert_eq!(numbered(&mut groups, &["e", "b"], &[9, 3], 1), [1, 4]);
    }
}
