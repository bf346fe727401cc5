//! The `dedupe` operator: the first row of each key goes on, its repeats do not.
//!
//! A key is remembered until event time is more than `within` beyond what it was when the key came, and at most `max_keys`
//! are: the oldest go first. Event time is the greatest time of a row so far, or the watermark where that is beyond it (of
//! silent sources). Both limits are kept row by row, so that the result does not depend on how rows were put into batches.

use std::collections::VecDeque;
use std::hash::BuildHasher;
use std::sync::Arc;

use arrow::array::cast::AsArray;
use arrow::array::types::TimestampMicrosecondType;
use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, TimestampMicrosecondArray};
use arrow::compute::{cast, filter_record_batch};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::row::{RowConverter, SortField};
use hashbrown::HashTable;

use crate::component::{Fault, Kind, Name, Settings};
use crate::flow::outbox::Emit;
use crate::flow::schema::{StreamSchema, timestamp_type};
use crate::flow::time::{Span, Timestamp};
use crate::operator::{Bound, Operator, OperatorError, OperatorSpec};

/// `type = "dedupe"`.
pub const KIND: Kind<dyn OperatorSpec> =
    Kind { name: "dedupe", about: "the first row of each key, for so long and so many keys", parse };

/// The default of `within`.
const WITHIN: Span = Span::from_secs(600);
/// The default of `max_keys`.
const KEYS_MAX: usize = 1_000_000;
/// Bytes of forgotten keys that are not worth moving the others for.
const DEAD_BYTES_MIN: usize = 64 * 1024;

#[derive(Debug)]
struct DedupeSpec {
    keys: Vec<Name>,
    within: Span,
    max_keys: usize,
}

fn parse(settings: &mut Settings) -> Option<Box<dyn OperatorSpec>> {
    let keys: Option<Vec<Name>> = settings.required("keys");
    let (within, max_keys) = (settings.or("within", WITHIN), settings.or("max_keys", KEYS_MAX));
    let keys = keys?;
    if keys.is_empty() {
        settings.fault(Fault::new(settings.at.clone(), "`keys`: expected at least one column"));
    }
    Some(Box::new(DedupeSpec { keys, within, max_keys }))
}

impl OperatorSpec for DedupeSpec {
    fn bind(&self, input: &StreamSchema) -> Result<Bound, Vec<Fault>> {
        let (mut keys, mut fields, mut faults) = (Vec::new(), Vec::new(), Vec::new());
        for name in &self.keys {
            let Some(index) = input.index_of(&name.text) else {
                faults.push(name.fault(format!("no column `{}`", name.text)).nearest(&name.text, input.names()));
                continue;
            };
            let field = SortField::new(input.columns.field(index).data_type().clone());
            if !RowConverter::supports_fields(std::slice::from_ref(&field)) {
                let kind = input.columns.field(index).data_type();
                faults.push(name.fault(format!("`{}` cannot be a key: its values are of type {kind}", name.text)));
            }
            keys.push(index);
            fields.push(field);
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        let rows = RowConverter::new(fields).map_err(|error| vec![self.keys[0].fault(error.to_string())])?;
        let dedupe = Dedupe {
            kinds: keys.iter().map(|key| input.columns.field(*key).data_type().clone()).collect(),
            keys,
            time: input.time,
            within: self.within,
            max_keys: self.max_keys,
            rows,
            recent: Recent::default(),
            newest: i64::MIN,
        };
        let names: Vec<&str> = self.keys.iter().map(|name| name.text.as_str()).collect();
        let about = format!("by {}, within {}, at most {} keys", names.join(", "), self.within, self.max_keys);
        Ok(Bound { output: input.clone(), side: None, operator: Box::new(dedupe), about })
    }

    fn gathers(&self) -> bool {
        true
    }
}

struct Dedupe {
    keys: Vec<usize>,
    kinds: Vec<DataType>,
    time: usize,
    within: Span,
    max_keys: usize,
    rows: RowConverter,
    recent: Recent,
    /// Event time: the greatest so far, of rows or watermarks.
    newest: i64,
}

impl Dedupe {
    /// Event time has reached `at`.
    fn reach(&mut self, at: i64) {
        self.newest = self.newest.max(at);
        let within = self.within.micros();
        while self.recent.oldest().is_some_and(|came| self.newest.saturating_sub(came) > within) {
            self.recent.forget();
        }
    }

    /// Whether this is the first row of its key.
    fn is_first(&mut self, key: &[u8], at: i64) -> bool {
        self.reach(at);
        let hash = self.recent.hash(key);
        if self.recent.contains(hash, key) {
            return false;
        }
        self.remember(self.newest, hash, key);
        true
    }

    fn remember(&mut self, came: i64, hash: u64, key: &[u8]) {
        while self.recent.keys.len() >= self.max_keys {
            self.recent.forget();
        }
        self.recent.remember(came, hash, key);
    }
}

/// The keys that are remembered, in the order in which they came: found by hash, their bytes all in one piece, so that
/// no key is an allocation.
#[derive(Default)]
struct Recent {
    hasher: foldhash::fast::RandomState,
    /// Serial numbers of keys.
    table: HashTable<u64>,
    keys: VecDeque<Remembered>,
    /// The serial number of the oldest key.
    first: u64,
    /// The keys' bytes, and before them those of forgotten keys that were not yet given up.
    bytes: Vec<u8>,
    /// How many bytes were given up so far.
    gone: u64,
}

struct Remembered {
    hash: u64,
    came: i64,
    /// Counted over all bytes that there ever were.
    start: u64,
    len: usize,
}

impl Recent {
    fn hash(&self, key: &[u8]) -> u64 {
        self.hasher.hash_one(key)
    }

    fn oldest(&self) -> Option<i64> {
        self.keys.front().map(|key| key.came)
    }

    fn bytes_of(&self, key: &Remembered) -> &[u8] {
        let start = place(key.start - self.gone);
        &self.bytes[start..start + key.len]
    }

    fn contains(&self, hash: u64, key: &[u8]) -> bool {
        let same = |serial: &u64| self.bytes_of(&self.keys[place(serial - self.first)]) == key;
        self.table.find(hash, same).is_some()
    }

    fn remember(&mut self, came: i64, hash: u64, key: &[u8]) {
        let start = self.gone + self.bytes.len() as u64;
        let serial = self.first + self.keys.len() as u64;
        self.bytes.extend_from_slice(key);
        self.keys.push_back(Remembered { hash, came, start, len: key.len() });
        let (keys, first) = (&self.keys, self.first);
        self.table.insert_unique(hash, serial, |serial| keys[place(serial - first)].hash);
    }

    /// Forgets the oldest key.
    fn forget(&mut self) {
        let Some(key) = self.keys.pop_front() else { return };
        if let Ok(found) = self.table.find_entry(key.hash, |serial| *serial == self.first) {
            found.remove();
        }
        self.first += 1;
        let dead = place(key.start - self.gone) + key.len;
        // At least as many bytes are given up as are moved.
        if dead >= DEAD_BYTES_MIN && dead >= self.bytes.len() / 2 {
            self.bytes.drain(..dead);
            self.gone += dead as u64;
        }
    }
}

/// A place in memory that was counted in 64 bits.
fn place(count: u64) -> usize {
    usize::try_from(count).expect("what is in memory can be counted by usize")
}

impl Operator for Dedupe {
    fn process(&mut self, batch: RecordBatch, out: &mut dyn Emit) -> Result<(), OperatorError> {
        let columns: Vec<ArrayRef> = self.keys.iter().map(|key| batch.column(*key).clone()).collect();
        let keys = self.rows.convert_columns(&columns)?;
        let times = batch.column(self.time).as_primitive::<TimestampMicrosecondType>();
        let first: BooleanArray =
            keys.iter().zip(times.values()).map(|(key, at)| Some(self.is_first(key.as_ref(), *at))).collect();
        match first.true_count() {
            0 => Ok(()),
            all if all == batch.num_rows() => Ok(out.emit(batch)?),
            _ => Ok(out.emit(filter_record_batch(&batch, &first)?)?),
        }
    }

    fn advance(&mut self, watermark: Timestamp, _: &mut dyn Emit) -> Result<(), OperatorError> {
        // The end of time is no time by which a key could be too old.
        if watermark != Timestamp::END {
            self.reach(watermark.micros());
        }
        Ok(())
    }

    /// When each key came, and its columns, the oldest key first.
    fn snapshot(&mut self) -> Result<Option<RecordBatch>, OperatorError> {
        let parser = self.rows.parser();
        let keys = self.recent.keys.iter().map(|key| parser.parse(self.recent.bytes_of(key)));
        let columns = self.rows.convert_rows(keys)?;
        let came = TimestampMicrosecondArray::from_iter_values(self.recent.keys.iter().map(|key| key.came));
        let mut state: Vec<ArrayRef> = vec![Arc::new(came.with_timezone("UTC"))];
        state.extend(columns);
        let field = |(index, column): (usize, &ArrayRef)| {
            let name = if index == 0 { "came".to_owned() } else { format!("key{index}") };
            Field::new(name, column.data_type().clone(), index > 0)
        };
        let fields: Vec<Field> = state.iter().enumerate().map(field).collect();
        debug_assert_eq!(*fields[0].data_type(), timestamp_type());
        let metadata = [(NEWEST.to_owned(), self.newest.to_string())].into();
        Ok(Some(RecordBatch::try_new(Arc::new(Schema::new_with_metadata(fields, metadata)), state)?))
    }

    fn restore(&mut self, state: &RecordBatch) -> Result<(), OperatorError> {
        let schema = state.schema();
        let newest = schema.metadata().get(NEWEST).and_then(|newest| newest.parse().ok());
        let (Some(newest), Some((came, keys))) = (newest, state.columns().split_first()) else {
            return Err(OperatorError::Stateless);
        };
        let came = came.as_primitive_opt::<TimestampMicrosecondType>().ok_or(OperatorError::Stateless)?;
        if keys.len() != self.kinds.len() {
            return Err(OperatorError::Stateless);
        }
        let keys: Vec<ArrayRef> =
            keys.iter().zip(&self.kinds).map(|(key, kind)| as_kind(key, kind)).collect::<Result<_, _>>()?;
        let keys = self.rows.convert_columns(&keys)?;
        self.newest = newest;
        for (key, came) in keys.iter().zip(came.values()) {
            self.remember(*came, self.recent.hash(key.as_ref()), key.as_ref());
        }
        Ok(())
    }
}

/// A key column of a snapshot, which holds the values of dictionaries written out.
fn as_kind(key: &ArrayRef, kind: &DataType) -> Result<ArrayRef, OperatorError> {
    match kind {
        _ if key.data_type() == kind => Ok(key.clone()),
        DataType::Dictionary(_, values) if key.data_type() == &**values => Ok(cast(key, kind)?),
        _ => Err(OperatorError::Stateless),
    }
}

/// Where a snapshot keeps event time.
const NEWEST: &str = "newest";

#[cfg(test)]
mod tests {
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

    fn restarted(mut operator: Box<dyn Operator>, within: i64, max_keys: usize) -> Box<dyn Operator> {
        let state = operator.snapshot().unwrap().unwrap();
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
        let state = bound(1, 1).snapshot().unwrap().unwrap();
        let spec = DedupeSpec { keys: vec![name("ts")], within: WITHIN, max_keys: 1 };
        let mut other = spec.bind(&schema()).unwrap().operator;
        assert!(matches!(other.restore(&state), Err(OperatorError::Stateless)));
        let nothing = state.project(&[]).unwrap();
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
}
