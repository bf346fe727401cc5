//! What the operator remembers, for checkpoints: a part `clock`, and the keys in blocks by their serial numbers.
//!
//! Keys come in the order of their numbers and are forgotten in it, so a block that is full never changes; it is listed
//! until all of it is forgotten. Which of its keys are forgotten already says the clock, with the number of the oldest.

use std::sync::Arc;

use arrow::array::cast::AsArray;
use arrow::array::types::{Int64Type, TimestampMicrosecondType, UInt8Type};
use arrow::array::{Array, ArrayRef, Int64Array, RecordBatch, TimestampMicrosecondArray};
use arrow::compute::{cast, concat};
use arrow::datatypes::{DataType, Field, Schema};

use super::{Dedupe, place};
use crate::flow::schema::timestamp_type;
use crate::flow::state::{Part, Restored};
use crate::operator::OperatorError;
use crate::operator::key_group::key_groups;

/// How many keys a part has.
pub(super) const BLOCK_KEYS: u64 = 16_384;

/// The greatest serial number that state may have: one from which it can be counted on for good.
const SERIAL_MAX: i64 = i64::MAX / 2;

/// The part that is always given, and given anew: event time, and the serial number of the oldest key.
const CLOCK: &str = "clock";

/// Its columns, both of them `Int64`.
const CLOCK_COLUMNS: [&str; 2] = ["newest", "first"];

/// How the names of the other parts begin.
const KEYS: &str = "keys-";

/// The columns before the key's: its key group, its serial number, and the event time when it came.
const OWN_COLUMNS: [&str; 3] = ["key_group", "serial", "came"];

/// A key that was remembered: when it came, its serial number, and its row among all.
type Known = (i64, i64, usize);

impl Dedupe {
    pub(super) fn parts(&mut self) -> Result<Vec<Part>, OperatorError> {
        let (first, next) = (self.recent.first, self.recent.next());
        let clock = [self.newest, first.cast_signed()];
        let clock = clock.map(|value| Arc::new(Int64Array::from_iter_values([value])) as ArrayRef);
        let fields = CLOCK_COLUMNS.map(|name| Field::new(name, DataType::Int64, false));
        let clock = RecordBatch::try_new(Arc::new(Schema::new(fields.to_vec())), clock.to_vec())?;
        let mut parts = vec![Part::changed(CLOCK, clock)];
        if first < next {
            let len = self.block_keys;
            for block in first / len..=(next - 1) / len {
                let name = part(block);
                let end = next.min((block + 1) * len);
                // Nothing came since that would belong to it.
                let same = self.written >= end;
                parts.push(if same {
                    Part::same(name)
                } else {
                    Part::changed(name, self.rows(first.max(block * len), end)?)
                });
            }
        }
        self.written = next;
        Ok(parts)
    }

    /// The keys of some serial numbers.
    fn rows(&self, from: u64, to: u64) -> Result<RecordBatch, OperatorError> {
        let first = self.recent.first;
        let remembered = || self.recent.keys.range(place(from - first)..place(to - first));
        let parser = self.rows.parser();
        let keys = self.rows.convert_rows(remembered().map(|key| parser.parse(self.recent.bytes_of(key))))?;
        let came = TimestampMicrosecondArray::from_iter_values(remembered().map(|key| key.came));
        let mut columns: Vec<ArrayRef> = vec![
            Arc::new(key_groups(&keys, remembered().len())?),
            Arc::new(Int64Array::from_iter_values((from..to).map(u64::cast_signed))),
            Arc::new(came.with_data_type(timestamp_type())),
        ];
        columns.extend(keys);
        let field = |(index, column): (usize, &ArrayRef)| {
            let own = OWN_COLUMNS.get(index).map(|name| (*name).to_owned());
            let nullable = own.is_none();
            let name = own.unwrap_or_else(|| format!("key{}", index + 1 - OWN_COLUMNS.len()));
            Field::new(name, column.data_type().clone(), nullable)
        };
        let fields: Vec<Field> = columns.iter().enumerate().map(field).collect();
        Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
    }

    /// Takes back the parts of a snapshot, or of those of several workers, one after the other.
    pub(super) fn take_back(&mut self, parts: &[Restored]) -> Result<(), OperatorError> {
        let (mut first, mut clocks) = (None, 0);
        let (mut known, mut keys) = (Vec::<Known>::new(), vec![Vec::new(); self.kinds.len()]);
        for (name, batch) in parts {
            if name == CLOCK {
                let (newest, oldest) = clock(batch)?;
                self.newest = self.newest.max(newest);
                first = Some(oldest);
                clocks += 1;
                continue;
            }
            let block = name.strip_prefix(KEYS).and_then(|block| block.parse::<u64>().ok());
            let block = block.filter(|block| part(*block) == *name);
            let (Some(first), Some(block)) = (first, block) else { return Err(OperatorError::Stateless) };
            let (columns, serials, came) = self.block(batch, block)?;
            let forgotten = serials.iter().take_while(|serial| **serial < first).count();
            let rows = keys.first().map_or(0, |column: &Vec<ArrayRef>| column.iter().map(|piece| piece.len()).sum());
            known.extend((forgotten..serials.len()).map(|row| (came[row], serials[row], rows + row - forgotten)));
            for (all, column) in keys.iter_mut().zip(columns) {
                all.push(column.slice(forgotten, serials.len() - forgotten));
            }
        }
        let first = first.ok_or(OperatorError::Stateless)?;
        let follow = clocks == 1 && known.iter().zip(first..).all(|((_, serial, _), expected)| *serial == expected);
        let ordered = known.is_sorted_by_key(|(came, ..)| *came);
        if follow && ordered {
            self.recent.first = first.cast_unsigned();
        } else {
            // Keys of some key groups only, or of several workers: they are numbered anew.
            known.sort_by_key(|(came, serial, _)| (*came, *serial));
        }
        if known.last().is_some_and(|(came, ..)| *came > self.newest) {
            return Err(OperatorError::Stateless);
        }
        self.learn(&known, &keys)?;
        self.written = if follow && ordered { self.recent.next() } else { 0 };
        Ok(())
    }

    /// The keys of a part: their columns, serial numbers, and when they came.
    #[expect(clippy::type_complexity, reason = "three columns of one batch")]
    fn block<'a>(
        &self,
        batch: &'a RecordBatch,
        block: u64,
    ) -> Result<(Vec<ArrayRef>, &'a [i64], &'a [i64]), OperatorError> {
        let schema = batch.schema();
        let names = schema.fields().iter().map(|field| field.name().as_str());
        let fits = batch.num_columns() == OWN_COLUMNS.len() + self.kinds.len()
            && names.zip(OWN_COLUMNS).all(|(name, own)| name == own)
            && batch.columns()[..OWN_COLUMNS.len()].iter().all(|column| column.null_count() == 0);
        if !fits {
            return Err(OperatorError::Stateless);
        }
        let key_group = batch.column(0).as_primitive_opt::<UInt8Type>();
        let serials = batch.column(1).as_primitive_opt::<Int64Type>();
        let came = batch.column(2).as_primitive_opt::<TimestampMicrosecondType>();
        let (Some(key_group), Some(serials), Some(came)) = (key_group, serials, came) else {
            return Err(OperatorError::Stateless);
        };
        let keys = &batch.columns()[OWN_COLUMNS.len()..];
        let inside =
            |serial: &i64| (0..=SERIAL_MAX).contains(serial) && serial.cast_unsigned() / self.block_keys == block;
        if !serials.values().iter().all(inside) || !serials.values().is_sorted_by(|one, next| one < next) {
            return Err(OperatorError::Stateless);
        }
        let columns: Vec<ArrayRef> =
            keys.iter().zip(&self.kinds).map(|(key, kind)| as_kind(key, kind)).collect::<Result<_, _>>()?;
        if key_groups(keys, batch.num_rows())?.values() != key_group.values() {
            return Err(OperatorError::Stateless);
        }
        Ok((columns, serials.values(), came.values()))
    }

    /// Remembers keys of a snapshot, in order.
    fn learn(&mut self, known: &[Known], keys: &[Vec<ArrayRef>]) -> Result<(), OperatorError> {
        if known.is_empty() {
            return Ok(());
        }
        let whole = |pieces: &Vec<ArrayRef>| concat(&pieces.iter().map(|piece| piece.as_ref()).collect::<Vec<_>>());
        let columns: Vec<ArrayRef> = keys.iter().map(whole).collect::<Result<_, _>>()?;
        let rows = self.rows.convert_columns(&columns)?;
        for (came, _, row) in known {
            let key = rows.row(*row);
            let hash = self.recent.hash(key.as_ref());
            if self.recent.contains(hash, key.as_ref()) {
                return Err(OperatorError::Stateless);
            }
            self.remember(*came, hash, key.as_ref());
        }
        Ok(())
    }
}

/// The name of a block's part.
fn part(block: u64) -> String {
    format!("{KEYS}{block}")
}

/// Event time, and the serial number of the oldest key.
fn clock(batch: &RecordBatch) -> Result<(i64, i64), OperatorError> {
    let schema = batch.schema();
    let names = schema.fields().iter().map(|field| field.name().as_str());
    if batch.num_rows() != 1 || !names.eq(CLOCK_COLUMNS) {
        return Err(OperatorError::Stateless);
    }
    let value = |column: &ArrayRef| {
        let column = column.as_primitive_opt::<Int64Type>().filter(|column| column.null_count() == 0);
        column.map(|column| column.value(0)).ok_or(OperatorError::Stateless)
    };
    let (newest, first) = (value(batch.column(0))?, value(batch.column(1))?);
    if (0..=SERIAL_MAX).contains(&first) { Ok((newest, first)) } else { Err(OperatorError::Stateless) }
}

/// A key column of a snapshot, which holds the values of dictionaries written out.
fn as_kind(key: &ArrayRef, kind: &DataType) -> Result<ArrayRef, OperatorError> {
    match kind {
        _ if key.data_type() == kind => Ok(key.clone()),
        DataType::Dictionary(_, values) if key.data_type() == &**values => Ok(cast(key, kind)?),
        _ => Err(OperatorError::Stateless),
    }
}
