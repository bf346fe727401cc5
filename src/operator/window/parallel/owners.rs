//! Which worker has which rows.

use arrow::array::{ArrayRef, UInt32Array};
use arrow::compute::take;
use arrow::error::ArrowError;

use crate::flow::batch::{Batch, Keys, Space};
use crate::operator::key_group::{KEY_GROUPS, key_groups};

/// The owner of a number that is not known yet.
const UNKNOWN: u8 = u8::MAX;

/// The worker that has a key group: all of them have ranges of about the same size.
pub(super) fn owner(key_group: u8, workers_len: usize) -> u8 {
    u8::try_from(usize::from(key_group) * workers_len / KEY_GROUPS).expect("at most WORKERS_MAX")
}

/// Tells the worker of every row.
pub(super) struct Owners {
    group_by: Vec<usize>,
    workers_len: usize,
    /// The numbers of keys that are known, and of each the worker.
    space: Option<Space>,
    by_number: Vec<u8>,
    of_rows: Vec<u8>,
}

impl Owners {
    pub(super) fn new(group_by: Vec<usize>, workers_len: usize) -> Self {
        Self { group_by, workers_len, space: None, by_number: Vec::new(), of_rows: Vec::new() }
    }

    /// The worker of every row.
    pub(super) fn of(&mut self, batch: &Batch) -> Result<&[u8], ArrowError> {
        let schema = batch.schema();
        let is_key = |(name, index): (&String, &usize)| schema.field(*index).name() == name;
        let keys = batch.keys().filter(|keys| {
            keys.columns.len() == self.group_by.len() && keys.columns.iter().zip(&self.group_by).all(is_key)
        });
        let columns: Vec<ArrayRef> = self.group_by.iter().map(|index| batch.column(*index).clone()).collect();
        match keys {
            Some(keys) => self.numbered(keys, &columns)?,
            None => self.of_rows = self.computed(&columns, batch.num_rows())?,
        }
        Ok(&self.of_rows)
    }

    fn computed(&self, columns: &[ArrayRef], rows_len: usize) -> Result<Vec<u8>, ArrowError> {
        let groups = key_groups(columns, rows_len)?;
        Ok(groups.values().iter().map(|group| owner(*group, self.workers_len)).collect())
    }

    /// By the numbers of the keys: only keys that are new here are looked at.
    fn numbered(&mut self, keys: &Keys, columns: &[ArrayRef]) -> Result<(), ArrowError> {
        if self.space != Some(keys.space) {
            self.by_number.clear();
            self.space = Some(keys.space);
        }
        let known = &self.by_number;
        let owner = |number: &u32| known.get(*number as usize).copied().unwrap_or(UNKNOWN);
        self.of_rows.clear();
        self.of_rows.extend(keys.numbers.values().iter().map(owner));
        let new = (0u32..).zip(&self.of_rows).filter(|(_, owner)| **owner == UNKNOWN).map(|(row, _)| row);
        let new = UInt32Array::from_iter_values(new);
        if new.is_empty() {
            return Ok(());
        }
        let columns = columns.iter().map(|column| take(column, &new, None)).collect::<Result<Vec<_>, _>>()?;
        for (row, owner) in new.values().iter().zip(self.computed(&columns, new.len())?) {
            let number = keys.numbers.value(*row as usize) as usize;
            if self.by_number.len() <= number {
                self.by_number.resize(number + 1, UNKNOWN);
            }
            (self.by_number[number], self.of_rows[*row as usize]) = (owner, owner);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{RecordBatch, StringArray};

    use super::*;

    #[test]
    fn ranges_of_key_groups_are_of_one_size() {
        let sizes = |workers: usize| {
            let mut sizes = vec![0; workers];
            (0..=u8::MAX).for_each(|group| sizes[usize::from(owner(group, workers))] += 1);
            sizes
        };
        assert_eq!((sizes(1), sizes(2), sizes(3)), (vec![256], vec![128, 128], vec![86, 85, 85]));
        assert_eq!(sizes(super::super::WORKERS_MAX), vec![4; 64]);
    }

    #[test]
    fn numbers_say_the_same_as_keys() {
        let keys: Vec<String> = (0..500).map(|key| format!("dev-{}", key * 7 % 90)).collect();
        let column: ArrayRef = Arc::new(StringArray::from(keys));
        let rows = RecordBatch::try_from_iter([("device", column)]).unwrap();
        let plain = Owners::new(vec![0], 3).of(&rows.clone().into()).unwrap().to_vec();
        assert!((0..3).all(|worker| plain.contains(&worker)));
        let mut owners = Owners::new(vec![0], 3);
        for generation in [0, 0, 1] {
            let numbers: Vec<u32> = (0..500).map(|key| key * 7 % 90 + generation as u32).collect();
            let columns = ["device".to_owned()].into();
            let keys = Keys { columns, space: Space { giver: 1, generation }, numbers: numbers.into() };
            assert_eq!(owners.of(&Batch::keyed(rows.clone(), keys)).unwrap(), plain);
        }
    }
}
