//! The `dedupe` operator: the first row of each key goes on, its repeats do not.
//!
//! A key is remembered until event time is `within` beyond the row that brought it, and at most `max_keys` are: the oldest
//! go first. Both are decided row by row, so that the result does not depend on how rows were put into batches.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow::array::cast::AsArray;
use arrow::array::types::TimestampMicrosecondType;
use arrow::array::{ArrayRef, BinaryArray, BooleanArray, RecordBatch, TimestampMicrosecondArray};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{DataType, Field, Schema};
use arrow::row::{RowConverter, SortField};
use hashbrown::HashSet;

use crate::component::{Fault, Kind, Name, Settings};
use crate::flow::outbox::Emit;
use crate::flow::schema::{StreamSchema, timestamp_type};
use crate::flow::time::Span;
use crate::operator::{Bound, Operator, OperatorError, OperatorSpec};

/// `type = "dedupe"`.
pub const KIND: Kind<dyn OperatorSpec> =
    Kind { name: "dedupe", about: "the first row of each key, for so long and so many keys", parse };

/// The default of `within`.
const WITHIN: Span = Span::from_secs(600);
/// The default of `max_keys`.
const KEYS_MAX: usize = 1_000_000;

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
        let (mut keys, mut faults) = (Vec::new(), Vec::new());
        for name in &self.keys {
            match input.index_of(&name.text) {
                Some(index) => keys.push(index),
                None => {
                    faults.push(name.fault(format!("no column `{}`", name.text)).nearest(&name.text, input.names()))
                }
            }
        }
        let fields = keys.iter().map(|key| SortField::new(input.columns.field(*key).data_type().clone()));
        let rows = RowConverter::new(fields.collect()).map_err(|error| vec![self.keys[0].fault(error.to_string())]);
        if !faults.is_empty() {
            return Err(faults);
        }
        let dedupe = Dedupe {
            keys,
            time: input.time,
            within: self.within,
            max_keys: self.max_keys,
            rows: rows?,
            seen: HashSet::default(),
            order: VecDeque::new(),
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

type Key = Arc<[u8]>;

struct Dedupe {
    keys: Vec<usize>,
    time: usize,
    within: Span,
    max_keys: usize,
    rows: RowConverter,
    seen: HashSet<Key, foldhash::fast::RandomState>,
    /// Keys in the order in which they came, each with the greatest event time up to then.
    order: VecDeque<(i64, Key)>,
    /// The greatest event time so far.
    newest: i64,
}

impl Dedupe {
    /// Whether this is the first row of its key.
    fn is_first(&mut self, key: &[u8], at: i64) -> bool {
        self.newest = self.newest.max(at);
        while self.order.front().is_some_and(|(came, _)| self.newest.saturating_sub(*came) > self.within.micros()) {
            self.forget();
        }
        if self.seen.contains(key) {
            return false;
        }
        if self.order.len() == self.max_keys {
            self.forget();
        }
        self.remember(self.newest, key.into());
        true
    }

    fn remember(&mut self, came: i64, key: Key) {
        self.seen.insert(key.clone());
        self.order.push_back((came, key));
    }

    fn forget(&mut self) {
        if let Some((_, key)) = self.order.pop_front() {
            self.seen.remove(&key);
        }
    }
}

impl Operator for Dedupe {
    fn process(&mut self, batch: RecordBatch, out: &mut dyn Emit) -> Result<(), OperatorError> {
        let columns: Vec<ArrayRef> = self.keys.iter().map(|key| batch.column(*key).clone()).collect();
        let keys = self.rows.convert_columns(&columns)?;
        let times = batch.column(self.time).as_primitive::<TimestampMicrosecondType>();
        let first: Vec<bool> =
            keys.iter().zip(times.values()).map(|(key, at)| self.is_first(key.as_ref(), *at)).collect();
        if first.iter().all(|first| *first) {
            return Ok(out.emit(batch)?);
        }
        Ok(out.emit(filter_record_batch(&batch, &BooleanArray::from(first))?)?)
    }

    fn snapshot(&mut self) -> Result<Option<RecordBatch>, OperatorError> {
        let metadata = [(NEWEST.to_owned(), self.newest.to_string())].into();
        let fields = vec![Field::new("came", timestamp_type(), false), Field::new("key", DataType::Binary, false)];
        let schema = Arc::new(Schema::new_with_metadata(fields, metadata));
        let came = TimestampMicrosecondArray::from_iter_values(self.order.iter().map(|(came, _)| *came));
        let keys = BinaryArray::from_iter_values(self.order.iter().map(|(_, key)| key));
        Ok(Some(RecordBatch::try_new(schema, vec![Arc::new(came.with_timezone("UTC")), Arc::new(keys)])?))
    }

    fn restore(&mut self, state: &RecordBatch) -> Result<(), OperatorError> {
        let schema = state.schema();
        let newest = schema.metadata().get(NEWEST).and_then(|newest| newest.parse().ok());
        let (Some(newest), 2) = (newest, state.num_columns()) else { return Err(OperatorError::Stateless) };
        let came = state.column(0).as_primitive_opt::<TimestampMicrosecondType>().ok_or(OperatorError::Stateless)?;
        let keys = state.column(1).as_binary_opt::<i32>().ok_or(OperatorError::Stateless)?;
        self.newest = newest;
        for row in 0..state.num_rows() {
            self.remember(came.value(row), keys.value(row).into());
        }
        Ok(())
    }
}

/// Where a snapshot keeps the greatest event time.
const NEWEST: &str = "newest";

#[cfg(test)]
mod tests {
    use arrow::array::StringArray;
    use proptest::prelude::*;

    use super::*;
    use crate::flow::outbox::Port;

    fn schema() -> StreamSchema {
        let columns = vec![Field::new("ts", timestamp_type(), false), Field::new("k", DataType::Utf8, false)];
        StreamSchema { columns: Arc::new(Schema::new(columns)), time: 0, out_of_orderness: Span::ZERO }
    }

    fn bound(within: i64, max_keys: usize) -> Box<dyn Operator> {
        let key = Name { text: "k".to_owned(), at: 0..0, expanded: false };
        let spec = DedupeSpec { keys: vec![key], within: Span::from_micros(within), max_keys };
        spec.bind(&schema()).unwrap().operator
    }

    fn batch(rows: &[(i64, u8)]) -> RecordBatch {
        let times = TimestampMicrosecondArray::from_iter_values(rows.iter().map(|row| row.0)).with_timezone("UTC");
        let keys = StringArray::from_iter_values(rows.iter().map(|row| row.1.to_string()));
        RecordBatch::try_new(schema().columns, vec![Arc::new(times), Arc::new(keys)]).unwrap()
    }

    fn read(out: &[(Port, RecordBatch)]) -> Vec<(i64, u8)> {
        let rows = |batch: &RecordBatch| {
            let times = batch.column(0).as_primitive::<TimestampMicrosecondType>().values().to_vec();
            let keys: Vec<u8> =
                batch.column(1).as_string::<i32>().iter().map(|key| key.unwrap().parse().unwrap()).collect();
            times.into_iter().zip(keys).collect::<Vec<_>>()
        };
        out.iter().flat_map(|(_, batch)| rows(batch)).collect()
    }

    /// Row by row: a row goes on if none of the last `max_keys` that went on, and are not too old, has its key.
    fn oracle(rows: &[(i64, u8)], within: i64, max_keys: usize) -> Vec<(i64, u8)> {
        let (mut kept, mut newest) = (Vec::<(i64, i64, u8)>::new(), i64::MIN);
        for (at, key) in rows {
            newest = newest.max(*at);
            let recent = kept.iter().rev().take(max_keys);
            if !recent.into_iter().any(|(came, _, known)| known == key && newest - came <= within) {
                kept.push((newest, *at, *key));
            }
        }
        kept.into_iter().map(|(_, at, key)| (at, key)).collect()
    }

    proptest! {
        #[test]
        fn repeats_are_held_back_however_rows_are_cut(
            rows in prop::collection::vec((0_i64..40, 0_u8..6), 1..60),
            cuts in prop::collection::vec(1_usize..9, 1..9),
            restart in 0_usize..20,
            within in 0_i64..20,
            max_keys in 1_usize..6,
        ) {
            let mut operator = bound(within, max_keys);
            let mut out: Vec<(Port, RecordBatch)> = Vec::new();
            let (mut at, mut step) = (0, 0);
            while at < rows.len() {
                let next = (at + cuts[step % cuts.len()]).min(rows.len());
                operator.process(batch(&rows[at..next]), &mut out).unwrap();
                if step == restart {
                    let state = operator.snapshot().unwrap().unwrap();
                    operator = bound(within, max_keys);
                    operator.restore(&state).unwrap();
                }
                (at, step) = (next, step + 1);
            }
            prop_assert_eq!(read(&out), oracle(&rows, within, max_keys));
        }
    }
}
