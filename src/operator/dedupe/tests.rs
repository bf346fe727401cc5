//! Repeats, cut and restarted anywhere, against a naive memory.

use arrow::array::StringArray;
use proptest::prelude::*;

use super::*;
use crate::flow::outbox::Port;

fn schema() -> StreamSchema {
    let columns = vec![Field::new("ts", timestamp_type(), false), Field::new("k", DataType::Utf8, true)];
    StreamSchema { columns: Arc::new(Schema::new(columns)), time: 0, out_of_orderness: Span::ZERO }
}

fn name(text: &str) -> Name {
    Name { text: text.to_owned(), at: 0..0, expanded: false }
}

fn bound(within: i64, max_keys: usize) -> Box<dyn Operator> {
    let spec = DedupeSpec { keys: vec![name("k")], within: Span::from_micros(within), max_keys };
    spec.bind(&schema()).unwrap().operator
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

/// A whole snapshot, as it is given back.
fn restored(parts: Vec<Part>) -> Vec<Restored> {
    parts.into_iter().map(|part| (part.name, part.rows.unwrap())).collect()
}

fn restarted(mut operator: Box<dyn Operator>, within: i64, max_keys: usize) -> Box<dyn Operator> {
    let state = restored(operator.snapshot().unwrap());
    let mut next = bound(within, max_keys);
    next.restore(&state).unwrap();
    next
}

proptest! {
    #[test]
    fn repeats_are_held_back_however_rows_are_cut(
        events in prop::collection::vec((0_i64..40, prop::option::weighted(0.9, 0_u8..6)), 1..60),
        cuts in prop::collection::vec(1_usize..9, 1..9),
        restarts in prop::collection::vec(any::<bool>(), 60),
        within in 0_i64..20,
        max_keys in 1_usize..6,
    ) {
        let mut operator = bound(within, max_keys);
        let mut out: Vec<(Port, RecordBatch)> = Vec::new();
        let (mut at, mut step) = (0, 0);
        while at < events.len() {
            let rows: Vec<_> = events[at..].iter().map_while(|(at, key)| Some((*at, (*key)?))).collect();
            if rows.is_empty() {
                operator.advance(Timestamp::from_micros(events[at].0), &mut out).unwrap();
                at += 1;
            } else {
                let len = cuts[step % cuts.len()].min(rows.len());
                operator.process(batch(&rows[..len]), &mut out).unwrap();
                at += len;
            }
            if restarts[step] {
                operator = restarted(operator, within, max_keys);
            }
            step += 1;
        }
        prop_assert_eq!(read(&out), oracle(&events, within, max_keys));
    }
}

#[test]
fn a_batch_of_repeats_is_not_sent() {
    let mut out: Vec<(Port, RecordBatch)> = Vec::new();
    let mut operator = bound(10, 9);
    operator.process(batch(&[(1, 1), (1, 2)]), &mut out).unwrap();
    operator.process(batch(&[(2, 2), (3, 1)]), &mut out).unwrap();
    assert_eq!((out.len(), read(&out)), (1, vec![(1, 1), (1, 2)]));
}

#[test]
fn the_ends_of_time_forget_nothing() {
    let mut out: Vec<(Port, RecordBatch)> = Vec::new();
    let mut operator = bound(10, 9);
    operator.advance(Timestamp::START, &mut out).unwrap();
    operator.process(batch(&[(i64::MIN, 1), (1, 2)]), &mut out).unwrap();
    operator.advance(Timestamp::END, &mut out).unwrap();
    operator.process(batch(&[(11, 2), (12, 2)]), &mut out).unwrap();
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
    operator.process(batch(&[(1, 1), (2, 2), (3, 3)]), &mut out).unwrap();
    let mut operator = restarted(operator, 100, 2);
    out.clear();
    // 1 was forgotten; its return pushes out 2, and that pushes out 3.
    operator.process(batch(&[(4, 3), (4, 1), (4, 2), (4, 3)]), &mut out).unwrap();
    assert_eq!(read(&out), [(4, 1), (4, 2), (4, 3)]);
}

#[test]
fn state_of_other_keys_is_refused() {
    let state = restored(bound(1, 1).snapshot().unwrap());
    let spec = DedupeSpec { keys: vec![name("ts")], within: WITHIN, max_keys: 1 };
    let mut other = spec.bind(&schema()).unwrap().operator;
    assert!(matches!(other.restore(&state), Err(OperatorError::Stateless)));
    let nothing = [("keys".to_owned(), state[0].1.project(&[]).unwrap())];
    assert!(matches!(bound(1, 1).restore(&nothing), Err(OperatorError::Stateless)));
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
