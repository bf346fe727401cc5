//! Groups against a naive map of them: holds and releases, limits, forgetting, numbers of keys in several spaces.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Float64Array, Int8Array, Int64Array, RecordBatch, StringArray, UInt64Array};
use arrow::datatypes::{DataType, Field};
use proptest::prelude::*;

use super::*;
use crate::flow::batch::Space;

/// Interns a column, and gives back the ids and the keys that they stand for.
fn round(groups: &mut Groups, column: &ArrayRef) -> (Vec<GroupId>, ArrayRef) {
    let mut ids = Vec::new();
    groups.intern(column.len(), std::slice::from_ref(column), &mut ids).unwrap();
    let keys = groups.columns(&ids).unwrap().remove(0);
    (ids, keys)
}

fn groups(column: &ArrayRef) -> Groups {
    let schema = Schema::new(vec![Field::new("key", column.data_type().clone(), true)]);
    Groups::new(&schema, &[0], 100, Span::ZERO).unwrap()
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
    groups.settle();
    // NULL is gone, `a` is still held.
    let other: ArrayRef = Arc::new(StringArray::from(vec![Some("b"), Some("a"), None]));
    assert_eq!(round(&mut groups, &other), (vec![1, 0, 2], other.clone()));
}

/// The ids of a batch whose keys have numbers of a generation.
fn numbered(groups: &mut Groups, keys: &[&str], numbers: &[u32], generation: u64) -> Vec<GroupId> {
    let column: ArrayRef = Arc::new(StringArray::from(keys.to_vec()));
    let rows = RecordBatch::try_from_iter([("key", column.clone())]).unwrap();
    let columns = ["key".to_owned()].into();
    let keys = Numbers { columns, space: Space { giver: 7, generation }, numbers: numbers.to_vec().into() };
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
    groups.settle();
    assert_eq!(numbered(&mut groups, &["e", "b"], &[9, 3], 1), [1, 4]);
    assert_eq!(numbered(&mut groups, &["e", "b"], &[9, 3], 1), [1, 4]);
}

/// Keys that are easily taken for each other: as short ones and long ones are kept, and just between.
const POOL: [Option<&str>; 12] = [
    None,
    Some(""),
    Some("\0"),
    Some("a"),
    Some("a\0"),
    Some("twelve bytes"),
    Some("twelve byte\0"),
    Some("thirteen byte"),
    Some("thirteen bytf"),
    Some("a long key, longer than any number of bits could be"),
    Some("a long key, longer than any number of bits could bf"),
    Some("thirteen byte\0"),
];

/// What groups are, the naive way.
#[derive(Default)]
struct Naive {
    max: usize,
    forget_after: i64,
    now: i64,
    /// Of every key that counts: how many windows hold it.
    counted: BTreeMap<usize, u32>,
    /// The others that are known, the longest silent first, and since when.
    silent: Vec<(usize, i64)>,
}

impl Naive {
    /// Whether a row's key fits.
    fn row(&mut self, key: usize) -> bool {
        let fits = self.counted.contains_key(&key) || self.counted.len() < self.max;
        if fits {
            self.silent.retain(|(silent, _)| *silent != key);
            self.counted.entry(key).or_default();
        }
        fits
    }

    fn make_room(&mut self) {
        while self.counted.len() + self.silent.len() > self.max && !self.silent.is_empty() {
            self.silent.remove(0);
        }
    }

    fn fall_silent_if_unheld(&mut self, key: usize) {
        if self.counted.get(&key) == Some(&0) {
            self.counted.remove(&key);
            self.silent.push((key, self.now));
        }
    }

    fn settle(&mut self) {
        self.silent.retain(|(_, since)| self.now - since < self.forget_after);
    }
}

/// How a batch gives its keys numbers: who gives them, in which generation, and how many numbers a key has.
type Numbering = Option<(u64, u64, u32)>;

#[derive(Clone, Debug)]
enum Step {
    /// A batch of keys; each is then held so often, or let go.
    Rows(Vec<(usize, u32)>, Numbering),
    /// One window less for the keys that have one.
    Release(Vec<usize>),
    Advance(i64),
}

fn step() -> impl Strategy<Value = Step> {
    let key = || 0..POOL.len();
    let numbering = prop::option::of((0u64..3, 0u64..2, 1u32..3));
    prop_oneof![
        3 => (prop::collection::vec((key(), 0u32..3), 0..12), numbering)
            .prop_map(|(rows, numbering)| Step::Rows(rows, numbering)),
        2 => prop::collection::vec(key(), 0..12).prop_map(Step::Release),
        1 => (0i64..6).prop_map(Step::Advance),
    ]
}

/// Key columns for some keys of the pool: one of text, or of text and a number.
fn columns(keys: &[usize], wide: bool) -> Vec<ArrayRef> {
    let texts: StringArray = keys.iter().map(|key| POOL[*key]).collect();
    let numbers: Int64Array = keys.iter().map(|key| (*key % 3 > 0).then_some(*key as i64 % 2)).collect();
    if wide { vec![Arc::new(texts), Arc::new(numbers)] } else { vec![Arc::new(texts)] }
}

fn batch(keys: &[usize], wide: bool, numbering: Numbering) -> Batch {
    let fields = ["key", "number"].into_iter().zip(columns(keys, wide));
    let rows = RecordBatch::try_from_iter_with_nullable(fields.map(|(name, column)| (name, column, true))).unwrap();
    let Some((giver, generation, many)) = numbering else { return rows.into() };
    let number = |(row, key): (usize, &usize)| {
        let number = (*key * 2 + row % many as usize) as u32;
        if generation == 0 { number } else { 99 - number }
    };
    let names: Vec<String> = rows.schema().fields().iter().map(|field| field.name().clone()).collect();
    let numbers: Vec<u32> = keys.iter().enumerate().map(number).collect();
    let space = Space { giver, generation };
    Batch::keyed(rows, Numbers { columns: names.into(), space, numbers: numbers.into() })
}

/// Which keys of the pool are known.
fn known(groups: &Groups, wide: bool) -> Vec<usize> {
    let is_known = |key: &usize| match &groups.encoder.encode(&columns(&[*key], wide)).unwrap() {
        Encoded::Text(text) if text.is_null(0) => groups.null.is_some(),
        Encoded::Text(text) => groups.keys.find(&Wanted::of(text.value(0).as_bytes())).is_some(),
        Encoded::Rows(rows) => groups.keys.find(&Wanted::of(rows.row(0).as_ref())).is_some(),
        Encoded::One | Encoded::Whole(_) => unreachable!("not a key of text"),
    };
    (0..POOL.len()).filter(is_known).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn groups_are_those_of_a_naive_map(
        steps in prop::collection::vec(step(), 1..40),
        max in 0usize..14,
        forget_after in 0i64..9,
        wide in any::<bool>(),
    ) {
        let fields = ["key", "number"].into_iter().zip(columns(&[0], wide));
        let fields: Vec<Field> = fields.map(|(name, column)| Field::new(name, column.data_type().clone(), true)).collect();
        let group_by: Vec<usize> = (0..fields.len()).collect();
        let mut groups = Groups::new(&Schema::new(fields), &group_by, max, Span::from_micros(forget_after)).unwrap();
        let mut naive = Naive { max, forget_after, ..Naive::default() };
        groups.reach(0);
        // The ids of keys that count.
        let mut ids_of = BTreeMap::<usize, GroupId>::new();
        for step in steps {
            match step {
                Step::Rows(rows, numbering) => {
                    let keys: Vec<usize> = rows.iter().map(|(key, _)| *key).collect();
                    let batch = batch(&keys, wide, numbering);
                    let mut ids = Vec::new();
                    let overflown = groups.intern_batch(&batch, batch.columns(), &mut ids).unwrap();
                    let fit: Vec<bool> = keys.iter().map(|key| naive.row(*key)).collect();
                    naive.make_room();
                    prop_assert_eq!(ids.iter().map(|id| *id != OVERFLOW).collect::<Vec<_>>(), fit.clone());
                    prop_assert_eq!(overflown, fit.contains(&false));
                    for (id, key) in ids.iter().zip(&keys).filter(|(id, _)| **id != OVERFLOW) {
                        prop_assert_eq!(*ids_of.entry(*key).or_insert(*id), *id, "the id of a group that counts");
                    }
                    let kept: Vec<usize> = keys.iter().zip(&fit).filter(|(_, fits)| **fits).map(|(key, _)| *key).collect();
                    ids.retain(|id| *id != OVERFLOW);
                    prop_assert_eq!(groups.columns(&ids).unwrap(), columns(&kept, wide));
                    for ((key, times), _) in rows.iter().zip(&fit).filter(|(_, fits)| **fits) {
                        for _ in 0..*times {
                            groups.hold(ids_of[key]);
                            *naive.counted.get_mut(key).unwrap() += 1;
                        }
                    }
                    for key in kept {
                        groups.forget_unheld(ids_of[&key]);
                        naive.fall_silent_if_unheld(key);
                    }
                }
                Step::Release(keys) => {
                    for key in keys {
                        let Some(holders) = naive.counted.get_mut(&key) else { continue };
                        *holders -= 1;
                        groups.release(ids_of[&key]);
                        naive.fall_silent_if_unheld(key);
                    }
                }
                Step::Advance(by) => {
                    naive.now += by;
                    groups.reach(naive.now);
                }
            }
            groups.settle();
            naive.settle();
            ids_of.retain(|key, _| naive.counted.contains_key(key));
            prop_assert!(ids_of.values().all(|id| groups.is_held(*id)));
            let mut expected: Vec<usize> = naive.counted.keys().copied().chain(naive.silent.iter().map(|(key, _)| *key)).collect();
            expected.sort_unstable();
            prop_assert_eq!(known(&groups, wide), expected);
            prop_assert_eq!(groups.lives.known(), naive.counted.len() + naive.silent.len());
        }
    }
}

/// Keys of a text column from some numbers on: short ones and long ones in turns.
fn texts(numbers: std::ops::Range<usize>) -> ArrayRef {
    let text = |number: usize| format!("device-{number:0width$}", width = 4 + number % 2 * 20);
    Arc::new(StringArray::from_iter_values(numbers.map(text)))
}

#[test]
fn groups_that_are_gone_leave_no_memory_behind() {
    let column = texts(0..100_000);
    let schema = Schema::new(vec![Field::new("key", DataType::Utf8, true)]);
    let mut groups = Groups::new(&schema, &[0], 1_000_000, Span::from_micros(10)).unwrap();
    groups.reach(0);
    let (ids, _) = round(&mut groups, &column);
    ids.iter().for_each(|id| groups.hold(*id));
    // Every thousandth device stays, and so does one at the end.
    let stays = |id: &&GroupId| **id % 1_000 == 999;
    ids.iter().filter(|id| !stays(id)).for_each(|id| groups.release(*id));
    groups.reach(10);
    groups.settle();
    assert_eq!((groups.lives.known(), groups.ids_len()), (100, 100_000), "what is held keeps its id");
    assert_eq!(groups.columns(&[99_999]).unwrap(), [texts(99_999..100_000)]);
    // Once nothing holds them they get other ids when they come again, and keep their keys.
    ids.iter().filter(stays).for_each(|id| groups.release(*id));
    for number in (999..100_000).step_by(1_000) {
        let (ids, keys) = round(&mut groups, &texts(number..number + 1));
        assert_eq!(&keys, &texts(number..number + 1));
        groups.hold(ids[0]);
    }
    groups.settle();
    assert_eq!((groups.lives.known(), groups.ids_len()), (100, 128), "in whole words of 64");
    assert_eq!(round(&mut groups, &texts(99_999..100_000)).0, [99]);
    (0..100).for_each(|id| groups.release(id));
    groups.reach(20);
    groups.settle();
    assert_eq!((groups.lives.known(), groups.ids_len()), (0, 128));
    let (ids, keys) = round(&mut groups, &column);
    assert_eq!((ids[0], ids[99_999], &keys), (0, 99_999, &column));
}
