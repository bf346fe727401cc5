//! Rows on their way, with dense numbers of their keys.

use std::ops::Deref;
use std::sync::Arc;

use arrow::array::{Array, BooleanArray, RecordBatch, UInt32Array};
use arrow::compute::{filter, filter_record_batch, take_record_batch};
use arrow::error::ArrowError;

/// Rows, and for each of them the number of its key where the source gives one: who groups by that key finds the group
/// by an index, and does not look at text again.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    rows: RecordBatch,
    keys: Option<Box<Keys>>,
}

/// Dense numbers of keys: in one space, rows with the same number have the same key.
#[derive(Clone, Debug, PartialEq)]
pub struct Keys {
    /// The columns that make the key, in order.
    pub columns: Arc<[String]>,
    /// Numbers of another space say nothing about these.
    pub space: Space,
    /// A number a row.
    pub numbers: UInt32Array,
}

/// Where numbers of keys count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// Who gives the numbers; unique in the process.
    pub giver: u64,
    /// Counts up whenever the giver begins anew.
    pub generation: u64,
}

impl Batch {
    /// Rows whose keys have numbers, one a row.
    pub fn keyed(rows: RecordBatch, keys: Keys) -> Self {
        debug_assert_eq!(rows.num_rows(), keys.numbers.len(), "a number a row");
        Self { rows, keys: Some(Box::new(keys)) }
    }

    /// The numbers of the keys, where there are any.
    pub fn keys(&self) -> Option<&Keys> {
        self.keys.as_deref()
    }

    /// The rows alone.
    pub fn into_rows(self) -> RecordBatch {
        self.rows
    }

    /// Rows that stand side by side, without a copy.
    #[must_use]
    pub fn slice(&self, start: usize, len: usize) -> Self {
        let some = |keys: &Keys| Keys { numbers: keys.numbers.slice(start, len), ..keys.clone() };
        Self { rows: self.rows.slice(start, len), keys: self.keys().map(some).map(Box::new) }
    }

    /// The rows that `keep` lets through; null counts as false.
    pub fn filter(&self, keep: &BooleanArray) -> Result<Self, ArrowError> {
        let rows = filter_record_batch(&self.rows, keep)?;
        let some = |keys: &Keys| {
            let numbers = filter(&keys.numbers, keep)?;
            let numbers = UInt32Array::from(numbers.to_data());
            Ok::<_, ArrowError>(Keys { numbers, ..keys.clone() })
        };
        Ok(Self { rows, keys: self.keys().map(some).transpose()?.map(Box::new) })
    }

    /// Some of the rows, in the order of their indices.
    pub fn take(&self, rows: &UInt32Array) -> Result<Self, ArrowError> {
        let keys = self.keys().map(|keys| {
            let numbers = rows.values().iter().map(|row| keys.numbers.value(*row as usize));
            Box::new(Keys { numbers: UInt32Array::from_iter_values(numbers), ..keys.clone() })
        });
        Ok(Self { rows: take_record_batch(&self.rows, rows)?, keys })
    }

    /// The same rows with other columns. They keep their numbers only if the columns of the key are what they were.
    #[must_use]
    pub fn with_columns(&self, rows: RecordBatch) -> Self {
        let same = |name: &String| {
            let before = self.rows.column_by_name(name);
            before.zip(rows.column_by_name(name)).is_some_and(|(before, now)| Arc::ptr_eq(before, now))
        };
        let keys = self.keys.as_ref().filter(|keys| keys.columns.iter().all(same)).cloned();
        Self { rows, keys }
    }
}

impl From<RecordBatch> for Batch {
    fn from(rows: RecordBatch) -> Self {
        Self { rows, keys: None }
    }
}

impl Deref for Batch {
    type Target = RecordBatch;

    fn deref(&self) -> &RecordBatch {
        &self.rows
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, StringArray};

    use super::*;

    fn batch() -> Batch {
        let device: ArrayRef = Arc::new(StringArray::from(vec!["a", "b", "a"]));
        let site: ArrayRef = Arc::new(StringArray::from(vec!["x", "x", "y"]));
        let rows = RecordBatch::try_from_iter([("device", device), ("site", site)]).unwrap();
        let keys = Keys {
            columns: ["device".to_owned()].into(),
            space: Space { giver: 1, generation: 0 },
            numbers: vec![0, 1, 0].into(),
        };
        Batch::keyed(rows, keys)
    }

    fn numbers(batch: &Batch) -> Option<&[u32]> {
        batch.keys().map(|keys| &**keys.numbers.values())
    }

    #[test]
    fn numbers_go_with_their_rows() {
        let batch = batch();
        assert_eq!(numbers(&batch.slice(1, 2)), Some(&[1, 0][..]));
        let kept = batch.filter(&BooleanArray::from(vec![Some(true), None, Some(true)])).unwrap();
        assert_eq!((numbers(&kept), kept.num_rows()), (Some(&[0, 0][..]), 2));
        let taken = batch.take(&vec![1, 0].into()).unwrap();
        assert_eq!((numbers(&taken), taken.num_rows()), (Some(&[1, 0][..]), 2));
    }

    #[test]
    fn numbers_are_lost_with_the_columns_that_they_are_of() {
        let batch = batch();
        let kept = batch.with_columns(batch.project(&[0]).unwrap());
        assert_eq!(numbers(&kept), Some(&[0, 1, 0][..]));
        assert_eq!(numbers(&batch.with_columns(batch.project(&[1]).unwrap())), None);
        let other: ArrayRef = Arc::new(StringArray::from(vec!["a", "b", "c"]));
        assert_eq!(numbers(&batch.with_columns(RecordBatch::try_from_iter([("device", other)]).unwrap())), None);
    }
}
