//! Repeats, cut and restarted anywhere, against a naive memory.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::array::{Array, Int64Array, StringArray, TimestampMicrosecondArray, UInt8Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::{Field, Schema};
use proptest::prelude::*;

use super::*;
use crate::flow::outbox::Port;
use crate::flow::schema::timestamp_type;
use crate::operator::key_group::key_groups;

/// How many keys a part has here.
const BLOCK: u64 = 3;

fn schema() -> StreamSchema {
    let columns = vec![Field::new("ts", timestamp_type(), false), Field::new("k", DataType::Utf8, true)];
    StreamSchema { columns: Arc::new(Schema::new(columns)), time: 0, out_of_orderness: Span::ZERO }
}

fn name(text: &str) -> Name {
    Name { text: text.to_owned(), at: 0..0, expanded: false }
}

fn bound(within: i64, max_keys: usize) -> Box<dyn Operator> {
    let spec = DedupeSpec { keys: vec![name("k")], within: Span::from_micros(within), max_keys };
    Box::new(Dedupe { block_keys: BLOCK, ..spec.build(&schema()).unwrap() })
}

/// Key 0 is null.
fn batch(rows: &[(i64, u8)]) -> RecordBatch {
    let times = TimestampMicrosecondArray::from_iter_values(rows.iter().map(|row| row.0)).with_timezone("UTC");
    let keys: StringArray = rows.iter().map(|row| (row.1 > 0).then(|| row.1.to_string())).collect();
    RecordBatch::try_new(schema().columns, vec![Arc::new(times), Arc::new(keys)]).unwrap()
}

fn read(out: &[(Port, RecordBatch)]) -> Vec<(i64, u8)> {
    let rows = |batch: &RecordBatch| {
        let times = batch.column(0).as_primitive::<TimestampMicrosecondType>().values().to_vec();
        let keys = batch.column(1).as_string::<i32>().iter();
        let keys: Vec<u8> = keys.map(|key| key.map_or(0, |key| key.parse().unwrap())).collect();
        times.into_iter().zip(keys).collect::<Vec<_>>()
    };
    out.iter().flat_map(|(_, batch)| rows(batch)).collect()
}

/// What comes: a row, or (without a key) a watermark.
type Event = (i64, Option<u8>);

/// Row by row: a row goes on if none of the last `max_keys` that went on, and are not too old, has its key.
fn oracle(events: &[Event], within: i64, max_keys: usize) -> Vec<(i64, u8)> {
    let (mut kept, mut newest) = (Vec::<(i64, i64, u8)>::new(), i64::MIN);
    for (at, key) in events {
        newest = newest.max(*at);
        let Some(key) = key else { continue };
        let recent = kept.iter().rev().take(max_keys);
        if !recent.into_iter().any(|(came, _, known)| known == key && newest - came <= within) {
            kept.push((newest, *at, *key));
        }
    }
    kept.into_iter().map(|(_, at, key)| (at, key)).collect()
}

/// What a checkpoint keeps: the newest rows of every part that was listed last, in its order.
#[derive(Default)]
struct Store(Vec<Restored>);

impl Store {
    /// Gives back the names of the parts that came with rows.
    fn take(&mut self, parts: Vec<Part>) -> Vec<String> {
        let mut known: BTreeMap<String, RecordBatch> = self.0.drain(..).collect();
        let mut given = Vec::new();
        for Part { name, rows } in parts {
            let rows = match rows {
                Some(rows) => {
                    given.push(name.clone());
                    rows
                }
                None => known.remove(&name).unwrap_or_else(|| panic!("{name} was never given")),
            };
            assert!(name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_'), "{name}");
            self.0.push((name, rows));
        }
        given
    }
}

fn restarted(mut operator: Box<dyn Operator>, within: i64, max_keys: usize) -> Box<dyn Operator> {
    let mut store = Store::default();
    store.take(operator.snapshot().unwrap());
    let mut next = bound(within, max_keys);
    next.restore(&store.0).unwrap();
    next
}

/// Each of the events cut into batches: with a snapshot after some, and a restart after some of those.
fn run(events: &[Event], cuts: &[usize], steps: &[(bool, bool)], within: i64, max_keys: usize) -> Vec<RecordBatch> {
    let (mut operator, mut store) = (bound(within, max_keys), Store::default());
    let mut out: Vec<(Port, RecordBatch)> = Vec::new();
    let (mut at, mut step) = (0, 0);
    while at < events.len() {
        let rows: Vec<_> = events[at..].iter().map_while(|(at, key)| Some((*at, (*key)?))).collect();
        if rows.is_empty() {
            operator.advance(Timestamp::from_micros(events[at].0), &mut out).unwrap();
            at += 1;
        } else {
            let len = cuts[step % cuts.len()].min(rows.len());
            operator.process(batch(&rows[..len]).into(), &mut out).unwrap();
            at += len;
        }
        let (snapshot, restart) = steps.get(step).copied().unwrap_or_default();
        if snapshot || restart {
            store.take(operator.snapshot().unwrap());
        }
        if restart {
            operator = bound(within, max_keys);
            operator.restore(&store.0).unwrap();
        }
        step += 1;
    }
    out.into_iter().map(|(_, batch)| batch).collect()
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    prop::collection::vec((0_i64..40, prop::option::weighted(0.9, 0_u8..6)), 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn repeats_are_held_back_however_rows_are_cut_and_wherever_it_restarts(
        events in events(),
        cuts in prop::collection::vec(1_usize..9, 1..9),
        steps in prop::collection::vec(any::<(bool, bool)>(), 60),
        within in 0_i64..20,
        max_keys in 1_usize..6,
    ) {
        let out = run(&events, &cuts, &steps, within, max_keys);
        prop_assert_eq!(&out, &run(&events, &cuts, &[], within, max_keys));
        let out: Vec<_> = out.into_iter().map(|batch| (Port::Main, batch)).collect();
        prop_assert_eq!(read(&out), oracle(&events, within, max_keys));
    }

    /// Rows in order of time: out of order, event time depends on the rows of other keys too.
    #[test]
    fn key_groups_can_go_to_other_workers(
        mut rows in prop::collection::vec((0_i64..40, 0_u8..30), 1..60),
        at in 0_usize..60,
        within in 0_i64..20,
    ) {
        rows.sort_by_key(|(at, _)| *at);
        let (before, after) = rows.split_at(at.min(rows.len()));
        let mut whole = bound(within, 1_000);
        let mut out: Vec<(Port, RecordBatch)> = Vec::new();
        whole.process(batch(before).into(), &mut out).unwrap();
        let mut store = Store::default();
        store.take(whole.snapshot().unwrap());
        out.clear();
        whole.process(batch(after).into(), &mut out).unwrap();
        let mut expected = read(&out);
        expected.sort_unstable();
        for workers in [1, 2, 3, 7] {
            let (mut got, mut shares) = (Vec::new(), Vec::new());
            for worker in 0..workers {
                let mine = |group: u8| usize::from(group) * workers / 256 == worker;
                let share: Vec<Restored> = store.0.iter().map(|part| share(part, mine)).collect();
                let mut operator = bound(within, 1_000);
                operator.restore(&share).unwrap();
                let mut store = Store(share);
                store.take(operator.snapshot().unwrap());
                shares.append(&mut store.0);
                let rows = batch(after);
                let groups = key_groups(&rows.columns()[1..], rows.num_rows()).unwrap();
                let mut out: Vec<(Port, RecordBatch)> = Vec::new();
                operator.process(only(&rows, &groups, mine).into(), &mut out).unwrap();
                got.extend(read(&out));
            }
            got.sort_unstable();
            prop_assert_eq!(&got, &expected, "{} workers", workers);
            // And back to one.
            let mut operator = bound(within, 1_000);
            operator.restore(&shares).unwrap();
            let mut out: Vec<(Port, RecordBatch)> = Vec::new();
            operator.process(batch(after).into(), &mut out).unwrap();
            let mut got = read(&out);
            got.sort_unstable();
            prop_assert_eq!(&got, &expected, "{} workers and back", workers);
            Store(shares).take(operator.snapshot().unwrap());
        }
    }

    /// Whatever a checkpoint has, it is taken or refused.
    #[test]
    fn damaged_state_is_refused_or_taken_without_a_panic(
        rows in prop::collection::vec((0_i64..40, 0_u8..30), 1..20),
        part in any::<prop::sample::Index>(),
        column in any::<prop::sample::Index>(),
        row in any::<prop::sample::Index>(),
        damage in 0..5,
        number in prop_oneof![any::<i64>(), Just(i64::MIN), Just(i64::MAX), -9_i64..60],
    ) {
        let mut operator = bound(1_000, 1_000);
        operator.process(batch(&rows).into(), &mut Vec::<(Port, RecordBatch)>::new()).unwrap();
        let mut store = Store::default();
        store.take(operator.snapshot().unwrap());
        let part = part.index(store.0.len());
        let old = store.0[part].1.clone();
        let column = column.index(old.num_columns());
        let (mut fields, mut columns) = (old.schema().fields().to_vec(), old.columns().to_vec());
        match damage {
            0 => {
                fields.remove(column);
                columns.remove(column);
            }
            1 => {
                fields.rotate_left(1);
                columns.rotate_left(1);
            }
            2 => fields[column] = Arc::new(Field::new("other", fields[column].data_type().clone(), true)),
            3 => {
                let texts = StringArray::from_iter((0..old.num_rows()).map(|_| None::<&str>));
                fields[column] = Arc::new(Field::new(fields[column].name(), DataType::Utf8, true));
                columns[column] = Arc::new(texts);
            }
            _ => {
                let row = row.index(old.num_rows());
                let values: Vec<i64> = match columns[column].data_type() {
                    DataType::Int64 => columns[column].as_primitive::<arrow::datatypes::Int64Type>().values().to_vec(),
                    _ => vec![0; old.num_rows()],
                };
                let changed = |(at, value)| if at == row { number } else { value };
                let numbers = Int64Array::from_iter_values(values.into_iter().enumerate().map(changed));
                fields[column] = Arc::new(Field::new(fields[column].name(), DataType::Int64, true));
                columns[column] = Arc::new(numbers);
            }
        }
        let same_shape = damage == 4 && *old.column(column).data_type() == DataType::Int64;
        let is_key = damage == 2 && column > 2 || damage == 3 && *old.column(column).data_type() == DataType::Utf8;
        let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(old.num_rows()));
        let rows = RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options).unwrap();
        store.0[part].1 = rows;
        let mut next = bound(1_000, 1_000);
        match next.restore(&store.0) {
            Ok(()) => {
                prop_assert!(same_shape || is_key, "{:?} was taken", store.0[part]);
                next.process(batch(&[(1, 1), (50, 2)]).into(), &mut Vec::<(Port, RecordBatch)>::new()).unwrap();
                next.snapshot().unwrap();
            }
            Err(error) => prop_assert!(matches!(error, OperatorError::Stateless), "{error:?}"),
        }
    }
}

/// Some rows of a batch.
fn only(batch: &RecordBatch, groups: &UInt8Array, mine: impl Fn(u8) -> bool) -> RecordBatch {
    let rows = (0_u32..).zip(groups.values()).filter(|(_, group)| mine(**group)).map(|(row, _)| row);
    take_record_batch(batch, &arrow::array::UInt32Array::from_iter_values(rows)).unwrap()
}

/// What a part has of some key groups; all of one that has none.
fn share((name, rows): &Restored, mine: impl Fn(u8) -> bool) -> Restored {
    let groups = rows.column_by_name("key_group").map(|groups| groups.as_primitive::<arrow::datatypes::UInt8Type>());
    (name.clone(), groups.map_or_else(|| rows.clone(), |groups| only(rows, groups, mine)))
}

#[test]
fn blocks_are_given_once_they_are_full_and_listed_until_they_are_forgotten() {
    let (mut operator, mut store) = (bound(100, 6), Store::default());
    let mut take = |operator: &mut Box<dyn Operator>, rows: &[(i64, u8)]| {
        operator.process(batch(rows).into(), &mut Vec::<(Port, RecordBatch)>::new()).unwrap();
        let given = store.take(operator.snapshot().unwrap());
        (given, store.0.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>())
    };
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let all = words(&["clock", "keys-0", "keys-1"]);
    assert_eq!(take(&mut operator, &[(1, 1), (1, 2), (1, 3), (1, 4)]), (all.clone(), all.clone()));
    assert_eq!(take(&mut operator, &[(2, 4)]), (words(&["clock"]), all.clone()));
    assert_eq!(take(&mut operator, &[(3, 5)]), (words(&["clock", "keys-1"]), all));
    // Keys 1 and 2 are forgotten, but the block has 3 still.
    let all = words(&["clock", "keys-0", "keys-1", "keys-2"]);
    assert_eq!(take(&mut operator, &[(4, 6), (4, 7), (4, 8)]), (words(&["clock", "keys-1", "keys-2"]), all));
    let all = words(&["clock", "keys-1", "keys-2"]);
    assert_eq!(take(&mut operator, &[(4, 9)]), (words(&["clock", "keys-2"]), all));
    // 4 and 5 are too old, and their block is as it was.
    let all = words(&["clock", "keys-1", "keys-2"]);
    assert_eq!(take(&mut operator, &[(104, 9)]), (words(&["clock"]), all));
    assert_eq!(take(&mut operator, &[(200, 1)]), (words(&["clock", "keys-3"]), words(&["clock", "keys-3"])));
}

#[test]
fn keys_and_their_types_are_the_identity() {
    let spec = DedupeSpec { keys: vec![name("k"), name("ts")], within: WITHIN, max_keys: 1 };
    let identity = spec.bind(&schema()).unwrap().identity;
    assert_eq!(identity, [("keys".to_owned(), "k (Utf8), ts (Timestamp(µs, \"UTC\"))".to_owned())]);
    let other = DedupeSpec { keys: spec.keys.clone(), within: Span::ZERO, max_keys: 9 };
    assert_eq!(other.bind(&schema()).unwrap().identity, identity);
}

#[test]
fn a_batch_of_repeats_is_not_sent() {
    let mut out: Vec<(Port, RecordBatch)> = Vec::new();
    let mut operator = bound(10, 9);
    operator.process(batch(&[(1, 1), (1, 2)]).into(), &mut out).unwrap();
    operator.process(batch(&[(2, 2), (3, 1)]).into(), &mut out).unwrap();
    assert_eq!((out.len(), read(&out)), (1, vec![(1, 1), (1, 2)]));
}

#[test]
fn the_ends_of_time_forget_nothing() {
    let mut out: Vec<(Port, RecordBatch)> = Vec::new();
    let mut operator = bound(10, 9);
    operator.advance(Timestamp::START, &mut out).unwrap();
    operator.process(batch(&[(i64::MIN, 1), (1, 2)]).into(), &mut out).unwrap();
    operator.advance(Timestamp::END, &mut out).unwrap();
    operator.process(batch(&[(11, 2), (12, 2)]).into(), &mut out).unwrap();
    assert_eq!(read(&out), [(i64::MIN, 1), (1, 2), (12, 2)]);
}

#[test]
fn memory_follows_the_keys_that_are_remembered() {
    let mut recent = Recent::default();
    for number in 0_u64..200_000 {
        let key = number.to_be_bytes();
        if recent.keys.len() == 1_000 {
            recent.forget();
        }
        recent.remember(0, recent.hash(&key), &key);
    }
    assert!(recent.bytes.len() <= 2 * DEAD_BYTES_MIN + 16_000, "{}", recent.bytes.len());
    let known = |number: u64| recent.contains(recent.hash(&number.to_be_bytes()), &number.to_be_bytes());
    assert!(known(199_000) && known(199_999) && !known(198_999));
    assert_eq!(recent.table.len(), 1_000);
}

#[test]
fn fewer_keys_after_a_restart_are_the_newest() {
    let mut out: Vec<(Port, RecordBatch)> = Vec::new();
    let mut operator = bound(100, 9);
    operator.process(batch(&[(1, 1), (2, 2), (3, 3)]).into(), &mut out).unwrap();
    let mut operator = restarted(operator, 100, 2);
    out.clear();
    // 1 was forgotten; its return pushes out 2, and that pushes out 3.
    operator.process(batch(&[(4, 3), (4, 1), (4, 2), (4, 3)]).into(), &mut out).unwrap();
    assert_eq!(read(&out), [(4, 1), (4, 2), (4, 3)]);
}

#[test]
fn state_of_other_keys_is_refused() {
    let mut operator = bound(1, 1);
    operator.process(batch(&[(1, 1)]).into(), &mut Vec::<(Port, RecordBatch)>::new()).unwrap();
    let mut store = Store::default();
    store.take(operator.snapshot().unwrap());
    let spec = DedupeSpec { keys: vec![name("ts")], within: WITHIN, max_keys: 1 };
    let mut other = spec.bind(&schema()).unwrap().operator;
    assert!(matches!(other.restore(&store.0), Err(OperatorError::Stateless)));
    assert!(matches!(bound(1, 1).restore(&store.0[1..]), Err(OperatorError::Stateless)));
    assert!(matches!(bound(1, 1).restore(&[]), Err(OperatorError::Stateless)));
}

#[test]
fn settings_that_make_no_sense_are_faults() {
    let spec = DedupeSpec { keys: vec![name("tss"), name("k")], within: WITHIN, max_keys: 1 };
    let faults = spec.bind(&schema()).err().unwrap();
    assert_eq!(faults, [Fault::new(0..0, "no column `tss`").help("did you mean `ts`?")]);
    for (text, what) in [
        ("within = \"5s\"", "`keys` is missing: expected an array"),
        ("keys = []", "`keys`: expected at least one column"),
    ] {
        let (mut settings, faults) = Settings::of(text);
        let _ = parse(&mut settings);
        settings.finish();
        assert_eq!(faults.borrow().iter().map(|fault| fault.what.as_str()).collect::<Vec<_>>(), [what]);
    }
}
