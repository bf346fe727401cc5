//! The `dedupe` operator: the first row of each key goes on, its repeats do not.
//!
//! A key is remembered until event time is more than `within` beyond what it was when the key came, and at most `max_keys`
//! are: the oldest go first. Event time is the greatest time of a row so far, or the watermark where that is beyond it (of
//! silent sources). Both limits are kept row by row, so that the result does not depend on how rows were put into batches.
//!
//! `state` has what goes into checkpoints.

use std::collections::VecDeque;
use std::hash::BuildHasher;

use arrow::array::cast::AsArray;
use arrow::array::types::TimestampMicrosecondType;
use arrow::array::{ArrayRef, BooleanArray};
use arrow::datatypes::DataType;
use arrow::row::{RowConverter, SortField};
use hashbrown::HashTable;

use crate::component::{Fault, Kind, Name, Settings};
use crate::flow::batch::Batch;
use crate::flow::outbox::Emit;
use crate::flow::schema::StreamSchema;
use crate::flow::state::{Part, Restored};
use crate::flow::time::{Span, Timestamp};
use crate::operator::{Bound, Identity, Operator, OperatorError, OperatorSpec};

mod state;

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
        let operator = Box::new(self.build(input)?);
        let names: Vec<&str> = self.keys.iter().map(|name| name.text.as_str()).collect();
        let about = format!("by {}, within {}, at most {} keys", names.join(", "), self.within, self.max_keys);
        Ok(Bound { output: input.clone(), side: None, operator, about, identity: self.identity(input) })
    }

    fn gathers(&self) -> bool {
        true
    }
}

impl DedupeSpec {
    fn build(&self, input: &StreamSchema) -> Result<Dedupe, Vec<Fault>> {
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
        Ok(Dedupe {
            kinds: keys.iter().map(|key| input.columns.field(*key).data_type().clone()).collect(),
            keys,
            time: input.time,
            within: self.within,
            max_keys: self.max_keys,
            rows,
            recent: Recent::default(),
            newest: i64::MIN,
            written: 0,
            block_keys: state::BLOCK_KEYS,
        })
    }

    /// Keys are remembered as they are: how long, and how many, can be changed at any time.
    fn identity(&self, input: &StreamSchema) -> Identity {
        let typed = |name: &Name| {
            let field = input.columns.field_with_name(&name.text).ok()?;
            Some(format!("{} ({})", name.text, field.data_type()))
        };
        vec![("keys".to_owned(), self.keys.iter().filter_map(typed).collect::<Vec<_>>().join(", "))]
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
    /// Keys of serial numbers below this are in the snapshot before, or were restored.
    written: u64,
    /// How many keys a part of a snapshot has.
    block_keys: u64,
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

    /// The serial number of the next key.
    fn next(&self) -> u64 {
        self.first + self.keys.len() as u64
    }

    fn remember(&mut self, came: i64, hash: u64, key: &[u8]) {
        let start = self.gone + self.bytes.len() as u64;
        let serial = self.next();
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
    fn process(&mut self, batch: Batch, out: &mut dyn Emit) -> Result<(), OperatorError> {
        let columns: Vec<ArrayRef> = self.keys.iter().map(|key| batch.column(*key).clone()).collect();
        let keys = self.rows.convert_columns(&columns)?;
        let times = batch.column(self.time).as_primitive::<TimestampMicrosecondType>();
        let first: BooleanArray =
            keys.iter().zip(times.values()).map(|(key, at)| Some(self.is_first(key.as_ref(), *at))).collect();
        match first.true_count() {
            0 => Ok(()),
            all if all == batch.num_rows() => Ok(out.emit(batch)?),
            _ => Ok(out.emit(batch.filter(&first)?)?),
        }
    }

    fn advance(&mut self, watermark: Timestamp, _: &mut dyn Emit) -> Result<(), OperatorError> {
        // The end of time is no time by which a key could be too old.
        if watermark != Timestamp::END {
            self.reach(watermark.micros());
        }
        Ok(())
    }

    fn held(&self) -> Option<usize> {
        Some(self.recent.keys.len())
    }

    fn snapshot(&mut self) -> Result<Vec<Part>, OperatorError> {
        self.parts()
    }

    fn restore(&mut self, parts: &[Restored]) -> Result<(), OperatorError> {
        self.take_back(parts)
    }
}

#[cfg(test)]
mod tests;
