//! Group keys to dense ids.
//!
//! The hash is seeded anew in every process, so nobody can prepare keys that collide; nothing that is emitted depends
//! on it. Ids are given in order of first appearance, and given again when no window holds them any more.

use std::hash::BuildHasher;
use std::sync::Arc;

use arrow::array::cast::AsArray;
use arrow::array::{Array, ArrayRef, Int64Array, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type, Schema};
use arrow::error::ArrowError;
use arrow::row::{RowConverter, RowParser, SortField};
use foldhash::fast::RandomState;
use hashbrown::HashTable;

use crate::operator::OperatorError;
use crate::operator::aggregate::GroupId;
use crate::operator::key_group::{Encoding, key_group};

/// The id of a row whose group did not fit any more.
pub(super) const OVERFLOW: GroupId = GroupId::MAX;

/// The number of holders of an id that is not given to any group.
const FREE: u32 = u32::MAX;

/// The groups that some window holds.
pub(super) struct Groups {
    encoder: Encoder,
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

#[cfg(test)]
mod tests {
    use arrow::array::{Float64Array, Int8Array, UInt64Array};
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
}
