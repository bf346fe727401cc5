//! Dense numbers of keys: what rows are grouped by downstream is looked up once, where rows come in.
//!
//! Devices report in turns, so the key that followed a key the last time is tried first: then nothing is hashed. Numbers
//! are good for this process only, and nothing that comes out depends on them.

use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use arrow::array::cast::AsArray;
use arrow::array::{Array, RecordBatch, StringArray, UInt32Array};
use arrow::datatypes::{DataType, Schema};
use foldhash::fast::RandomState;
use hashbrown::HashTable;

use crate::flow::batch::{Batch, Keys, Space};
use crate::flow::time::{Span, Timestamp};

/// How many keys have numbers at once, at most.
const KEYS_MAX: usize = 1 << 21;
/// How many bytes those keys have, at most.
const KEY_BYTES_MAX: usize = 64 << 20;
/// When more than half of the keys have not been seen for so long, numbers begin anew.
const FORGET_AFTER: Span = Span::from_secs(600);
/// Keys that come less often than this on average are not worth a number.
const ROWS_A_KEY_MIN: u64 = 2;

/// The key NULL of a single column: no text has this byte.
const NULL: &[u8] = &[0xFF];

static GIVERS: AtomicU64 = AtomicU64::new(0);

/// Gives numbers to the keys of a source.
pub struct KeyNumbers {
    columns: Arc<[String]>,
    indices: Vec<usize>,
    known: Known,
    space: Space,
    /// Event time at which the present stretch of `FORGET_AFTER` began.
    since: Timestamp,
    /// Rows since numbers began.
    rows: u64,
    /// Nearly every row has a key of its own: no numbers any more.
    given_up: bool,
    key: Vec<u8>,
}

impl KeyNumbers {
    /// Of these columns, all of them text; `None` where one is not.
    pub fn new(schema: &Schema, columns: &[String]) -> Option<Self> {
        let index = |name: &String| {
            let index = schema.index_of(name).ok()?;
            (*schema.field(index).data_type() == DataType::Utf8).then_some(index)
        };
        let indices: Vec<usize> = columns.iter().map(index).collect::<Option<_>>()?;
        (!indices.is_empty()).then(|| Self {
            columns: columns.into(),
            indices,
            known: Known::default(),
            space: Space { giver: GIVERS.fetch_add(1, Relaxed), generation: 0 },
            since: Timestamp::START,
            rows: 0,
            given_up: false,
            key: Vec::new(),
        })
    }

    /// Numbers the rows of a batch, when event time is `now`.
    pub fn number(&mut self, rows: RecordBatch, now: Timestamp) -> Batch {
        self.settle(now);
        if self.given_up {
            return rows.into();
        }
        self.rows += rows.num_rows() as u64;
        let columns: Vec<&StringArray> = self.indices.iter().map(|index| rows.column(*index).as_string()).collect();
        let numbers: Vec<u32> = match columns.as_slice() {
            [column] if column.null_count() == 0 => {
                let (offsets, bytes) = (column.value_offsets(), column.value_data());
                let keys = offsets.windows(2).map(|ends| &bytes[ends[0] as usize..ends[1] as usize]);
                keys.map(|key| self.known.number(key)).collect()
            }
            [column] => column.iter().map(|key| self.known.number(key.map_or(NULL, str::as_bytes))).collect(),
            columns => {
                (0..rows.num_rows()).map(|row| self.known.number(written(&mut self.key, columns, row))).collect()
            }
        };
        let keys = Keys { columns: self.columns.clone(), space: self.space, numbers: UInt32Array::from(numbers) };
        Batch::keyed(rows, keys)
    }

    /// Begins anew where there are too many keys, or too many that are gone.
    fn settle(&mut self, now: Timestamp) {
        let full = self.known.len() >= KEYS_MAX || self.known.bytes.len() >= KEY_BYTES_MAX;
        if full && self.rows < ROWS_A_KEY_MIN * self.known.len() as u64 {
            self.given_up = true;
        }
        let due = now.since(self.since) >= FORGET_AFTER;
        if full || (due && self.known.live < self.known.len() / 2) {
            self.known = Known::default();
            self.space.generation += 1;
            self.rows = 0;
        }
        if due {
            self.since = now;
            self.known.stretch += 1;
            self.known.live = 0;
        }
    }
}

/// A key of several columns as bytes: of each its length and itself, or that it is null.
fn written<'k>(key: &'k mut Vec<u8>, columns: &[&StringArray], row: usize) -> &'k [u8] {
    key.clear();
    for column in columns {
        if column.is_null(row) {
            key.extend_from_slice(&u32::MAX.to_le_bytes());
        } else {
            let value = column.value(row).as_bytes();
            key.extend_from_slice(&(value.len() as u32).to_le_bytes());
            key.extend_from_slice(value);
        }
    }
    key
}

/// The keys that have numbers.
#[derive(Default)]
struct Known {
    hasher: RandomState,
    table: HashTable<u32>,
    /// All keys, one after the other.
    bytes: Vec<u8>,
    keys: Vec<Key>,
    /// The key before this one.
    last: usize,
    /// Counts stretches of `FORGET_AFTER`, and how many keys have been seen in this one.
    stretch: u32,
    live: usize,
}

struct Key {
    start: u32,
    end: u32,
    /// The key that followed it the last time.
    next: u32,
    /// The stretch in which it was seen last.
    seen: u32,
}

impl Known {
    fn len(&self) -> usize {
        self.keys.len()
    }

    fn number(&mut self, bytes: &[u8]) -> u32 {
        let guess = self.keys.get(self.last).map_or(0, |last| last.next);
        let guessed = self.keys.get(guess as usize).is_some_and(|key| self.bytes_of(key) == bytes);
        let number = if guessed { guess } else { self.find(bytes) };
        if !guessed && let Some(last) = self.keys.get_mut(self.last) {
            last.next = number;
        }
        self.last = number as usize;
        let key = &mut self.keys[number as usize];
        if key.seen != self.stretch {
            key.seen = self.stretch;
            self.live += 1;
        }
        number
    }

    fn bytes_of(&self, key: &Key) -> &[u8] {
        &self.bytes[key.start as usize..key.end as usize]
    }

    fn find(&mut self, bytes: &[u8]) -> u32 {
        let hash = self.hasher.hash_one(bytes);
        if let Some(number) = self.table.find(hash, |number| self.bytes_of(&self.keys[*number as usize]) == bytes) {
            return *number;
        }
        let number = u32::try_from(self.keys.len()).expect("KEYS_MAX and a batch fit 32 bits");
        let place = |len: usize| u32::try_from(len).expect("KEY_BYTES_MAX and a batch fit 32 bits");
        let start = place(self.bytes.len());
        self.bytes.extend_from_slice(bytes);
        self.live += 1;
        self.keys.push(Key { start, end: place(self.bytes.len()), next: 0, seen: self.stretch });
        let (keys, all, hasher) = (&self.keys, &self.bytes, &self.hasher);
        self.table.insert_unique(hash, number, |number| {
            let key = &keys[*number as usize];
            hasher.hash_one(&all[key.start as usize..key.end as usize])
        });
        number
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, Int64Array};

    use super::*;

    fn rows(columns: &[(&str, &[Option<&str>])]) -> RecordBatch {
        let column = |(name, values): &(&str, &[Option<&str>])| {
            ((*name).to_owned(), Arc::new(StringArray::from(values.to_vec())) as ArrayRef, true)
        };
        RecordBatch::try_from_iter_with_nullable(columns.iter().map(column)).unwrap()
    }

    fn numbers(batch: &Batch) -> Vec<u32> {
        batch.keys().unwrap().numbers.values().to_vec()
    }

    fn of(rows: &RecordBatch, names: &[&str]) -> KeyNumbers {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        KeyNumbers::new(&rows.schema(), &names).unwrap()
    }

    #[test]
    fn equal_keys_have_equal_numbers_and_others_others() {
        let first = rows(&[("device", &[Some("a"), Some("b"), Some("c"), Some("a"), Some("c"), Some("b"), Some("")])]);
        let mut keys = of(&first, &["device"]);
        let batch = keys.number(first, Timestamp::START);
        assert_eq!(numbers(&batch), [0, 1, 2, 0, 2, 1, 3]);
        assert_eq!(&*batch.keys().unwrap().columns, ["device".to_owned()]);
        let second = rows(&[("device", &[Some("b"), None, Some("d"), Some("")])]);
        assert_eq!(numbers(&keys.number(second, Timestamp::START)), [1, 4, 5, 3]);
    }

    #[test]
    fn columns_do_not_run_into_each_other() {
        let all = rows(&[
            ("device", &[Some("ab"), Some("a"), None, Some(""), Some("a")]),
            ("site", &[Some(""), Some("b"), Some("b"), None, Some("b")]),
        ]);
        assert_eq!(numbers(&of(&all, &["device", "site"]).number(all, Timestamp::START)), [0, 1, 2, 3, 1]);
    }

    #[test]
    fn keys_that_are_gone_are_forgotten() {
        let at = |minutes: i64| Timestamp::from_micros(minutes * 60_000_000);
        let many = rows(&[("device", &[Some("a"), Some("b"), Some("c"), Some("d"), Some("e")])]);
        let one = rows(&[("device", &[Some("e")])]);
        let mut keys = of(&many, &["device"]);
        let space = |batch: &Batch| batch.keys().unwrap().space.generation;
        assert_eq!(space(&keys.number(many.clone(), at(0))), 0);
        assert_eq!(space(&keys.number(one.clone(), at(9))), 0);
        assert_eq!(space(&keys.number(many, at(10))), 0, "all were seen");
        assert_eq!(space(&keys.number(one.clone(), at(20))), 0, "all were seen at the beginning");
        let anew = keys.number(one, at(30));
        assert_eq!((space(&anew), numbers(&anew)), (1, vec![0]));
    }

    #[test]
    fn only_text_has_numbers() {
        let column: ArrayRef = Arc::new(Int64Array::from(vec![1]));
        let rows = RecordBatch::try_from_iter([("n", column)]).unwrap();
        assert!(KeyNumbers::new(&rows.schema(), &["n".to_owned()]).is_none());
        assert!(KeyNumbers::new(&rows.schema(), &["m".to_owned()]).is_none());
        assert!(KeyNumbers::new(&rows.schema(), &[]).is_none());
    }
}
