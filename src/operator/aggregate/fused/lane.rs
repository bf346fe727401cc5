//! The cells of all slots for one argument: one pass over the rows for all that is asked of it.

use std::any::Any;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::cast::AsArray;
use arrow::array::{Array, ArrayData, ArrayRef, Decimal128Array, Float64Array, Int64Array, make_array};
use arrow::buffer::{BooleanBuffer, Buffer, NullBuffer};
use arrow::datatypes::{ArrowPrimitiveType, DataType};

use super::cell::{Both, Cell, Ends, Extent, Number, Rank, Rows, Sum};
use crate::operator::aggregate::GroupId;
use crate::operator::aggregate::extreme::Sense;

/// By how much of what there is the cells grow at once when they are out of space: a quarter.
const GROWTH_SHARE: usize = 4;

/// And at least by so many.
const GROWTH_MIN: usize = 16;

/// Which rows of a batch.
#[derive(Clone, Copy)]
pub(super) enum Of<'a> {
    /// All of them.
    All,
    /// These: a slot each.
    Some(&'a [u32]),
}

/// What partials of the functions say about an argument; the functions that nobody asked for say nothing.
#[derive(Default)]
pub(super) struct Columns<'a> {
    pub(super) rows: Option<&'a Int64Array>,
    pub(super) counts: Option<&'a Int64Array>,
    pub(super) floats: Option<&'a Float64Array>,
    pub(super) wholes: Option<&'a Decimal128Array>,
    pub(super) least: Option<&'a ArrayRef>,
    pub(super) greatest: Option<&'a ArrayRef>,
}

/// A lane, whatever the type of its argument. `from` is always a lane made of the same.
pub(super) trait Lane: Send {
    /// An empty one of the same kind.
    fn fresh(&self) -> Box<dyn Lane>;
    /// Grows to so many slots, if there are fewer.
    fn reserve(&mut self, len: usize);
    /// Forgets all slots, but not their space.
    fn clear(&mut self);
    /// Folds rows of `values` into slots: those that the mask lets through.
    fn fold(&mut self, slots: &[GroupId], rows: Of<'_>, values: Option<&ArrayRef>, mask: Option<&BooleanBuffer>);
    /// Merges slot `i` of another into slot `slots[i]`.
    fn scatter(&mut self, slots: &[GroupId], from: &dyn Lane);
    /// Merges slot `slots[i]` of another into slot `i`.
    fn gather(&mut self, from: &dyn Lane, slots: &[GroupId]);
    /// Copies slot `i` of another over slot `slots[i]`.
    fn put(&mut self, slots: &[GroupId], from: &dyn Lane);
    /// Adds slots: copies of `slots` of another.
    fn extend(&mut self, from: &dyn Lane, slots: &[GroupId]);
    /// Merges slot `of` of another into slot `into`.
    fn merge_one(&mut self, into: GroupId, from: &dyn Lane, of: GroupId);
    /// Merges row `i` of partials into slot `slots[i]`.
    fn merge_columns(&mut self, slots: &[GroupId], columns: &Columns<'_>);

    /// How many slots there are.
    fn len(&self) -> usize;
    fn rows(&self, slots: Range<usize>) -> Vec<i64>;
    fn counts(&self, slots: Range<usize>) -> Vec<i64>;
    /// The slots that have a value; `None` where all have.
    fn present(&self, slots: Range<usize>) -> Option<NullBuffer>;
    fn floats(&self, slots: Range<usize>) -> Vec<f64>;
    fn wholes(&self, slots: Range<usize>) -> Vec<i128>;
    fn extremes(&self, slots: Range<usize>, sense: Sense, data_type: &DataType) -> ArrayRef;

    fn as_any(&self) -> &dyn Any;
}

/// What is asked of an argument.
#[derive(Clone, Copy, Default)]
pub(super) struct Asked {
    pub(super) rows: bool,
    pub(super) sum: bool,
    pub(super) extremes: bool,
}

/// How the values of an array are read.
type Read<N> = for<'a> fn(&'a dyn Array) -> &'a [N];

/// A lane for arguments of a type; none where only the general functions will do.
pub(super) fn lane(input: &DataType, asked: Asked) -> Option<Box<dyn Lane>> {
    use arrow::datatypes::*;
    if !asked.sum && !asked.extremes {
        return Some(counting(asked));
    }
    Some(match input {
        DataType::Int8 => whole::<Int8Type>(asked),
        DataType::Int16 => whole::<Int16Type>(asked),
        DataType::Int32 => whole::<Int32Type>(asked),
        DataType::Int64 => whole::<Int64Type>(asked),
        DataType::UInt8 => whole::<UInt8Type>(asked),
        DataType::UInt16 => whole::<UInt16Type>(asked),
        DataType::UInt32 => whole::<UInt32Type>(asked),
        DataType::UInt64 => whole::<UInt64Type>(asked),
        DataType::Date32 => whole::<Date32Type>(asked),
        DataType::Timestamp(TimeUnit::Second, _) => whole::<TimestampSecondType>(asked),
        DataType::Timestamp(TimeUnit::Millisecond, _) => whole::<TimestampMillisecondType>(asked),
        DataType::Timestamp(TimeUnit::Microsecond, _) => whole::<TimestampMicrosecondType>(asked),
        DataType::Timestamp(TimeUnit::Nanosecond, _) => whole::<TimestampNanosecondType>(asked),
        DataType::Float32 => number::<f32, f64>(values_of::<Float32Type>, asked),
        DataType::Float64 => number::<f64, f64>(values_of::<Float64Type>, asked),
        _ => return None,
    })
}

fn values_of<T: ArrowPrimitiveType>(array: &dyn Array) -> &[T::Native] {
    array.as_primitive::<T>().values()
}

fn whole<T: ArrowPrimitiveType<Native: Number>>(asked: Asked) -> Box<dyn Lane> {
    number::<T::Native, Both>(values_of::<T>, asked)
}

fn number<N: Number, S: Sum>(read: Read<N>, asked: Asked) -> Box<dyn Lane> {
    match (asked.sum, asked.extremes) {
        (true, true) => counted::<N, S, Ends<N::Rank>>(read, asked),
        (false, true) => counted::<N, (), Ends<N::Rank>>(read, asked),
        (true | false, false) => counted::<N, S, ()>(read, asked),
    }
}

fn counted<N: Number, S: Sum, E: Extent<N>>(read: Read<N>, asked: Asked) -> Box<dyn Lane> {
    if asked.rows { typed::<N, i64, S, E>(Some(read)) } else { typed::<N, (), S, E>(Some(read)) }
}

/// Counts values of any type, or rows.
fn counting(asked: Asked) -> Box<dyn Lane> {
    if asked.rows { typed::<u8, i64, (), ()>(None) } else { typed::<u8, (), (), ()>(None) }
}

fn typed<N: Number, R: Rows, S: Sum, E: Extent<N>>(read: Option<Read<N>>) -> Box<dyn Lane> {
    Box::new(Typed::<N, R, S, E> { read, cells: Vec::new() })
}

struct Typed<N: Number, R, S, E> {
    /// `None` where values only count.
    read: Option<Read<N>>,
    cells: Vec<Cell<R, S, E>>,
}

impl<N: Number, R: Rows, S: Sum, E: Extent<N>> Typed<N, R, S, E> {
    fn of(lane: &dyn Lane) -> &Self {
        lane.as_any().downcast_ref().expect("lanes are merged with those of the same argument")
    }

    fn values<'a>(&self, column: Option<&'a ArrayRef>) -> Option<&'a [N]> {
        self.read.zip(column).map(|(read, column)| read(column))
    }

    fn grow(&mut self, len: usize) {
        let short = len.saturating_sub(self.cells.capacity());
        if short > 0 {
            let spare = self.cells.capacity() - self.cells.len();
            let more = short.max(self.cells.len() / GROWTH_SHARE).max(GROWTH_MIN);
            self.cells.reserve_exact(spare + more);
        }
    }

    /// Folds values that are there: `slots`, and the values in their order.
    #[inline(always)]
    fn fold_all(&mut self, slots: &[GroupId], values: impl Iterator<Item = N>) {
        for (slot, value) in slots.iter().zip(values) {
            let cell = &mut self.cells[*slot as usize];
            cell.rows.add(1);
            cell.fold::<N>(value);
        }
    }

    /// Calls `fold` with every position in `slots` whose row the mask lets through, and its row.
    #[inline(always)]
    fn each(slots: &[GroupId], rows: Of<'_>, mask: Option<&BooleanBuffer>, mut fold: impl FnMut(GroupId, usize)) {
        match (rows, mask) {
            (Of::All, None) => slots.iter().enumerate().for_each(|(row, slot)| fold(*slot, row)),
            (Of::All, Some(mask)) => mask.set_indices().for_each(|row| fold(slots[row], row)),
            (Of::Some(rows), mask) => slots
                .iter()
                .zip(rows)
                .filter(|(_, row)| mask.is_none_or(|mask| mask.value(**row as usize)))
                .for_each(|(slot, row)| fold(*slot, *row as usize)),
        }
    }

    fn column<T>(&self, slots: Range<usize>, value: impl Fn(&Cell<R, S, E>) -> T) -> Vec<T> {
        self.cells[slots].iter().map(value).collect()
    }
}

impl<N: Number, R: Rows, S: Sum, E: Extent<N>> Lane for Typed<N, R, S, E> {
    fn fresh(&self) -> Box<dyn Lane> {
        typed::<N, R, S, E>(self.read)
    }

    fn reserve(&mut self, len: usize) {
        if self.cells.len() < len {
            self.grow(len);
            self.cells.resize(len, Cell::empty());
        }
    }

    fn clear(&mut self) {
        self.cells.clear();
    }

    fn fold(&mut self, slots: &[GroupId], rows: Of<'_>, values: Option<&ArrayRef>, mask: Option<&BooleanBuffer>) {
        match (self.values(values), rows, mask) {
            (Some(values), Of::All, None) => self.fold_all(slots, values.iter().copied()),
            (Some(values), Of::Some(rows), None) => {
                self.fold_all(slots, rows.iter().map(|row| values[*row as usize]));
            }
            (values, rows, mask) => {
                if R::KEPT {
                    slots.iter().for_each(|slot| self.cells[*slot as usize].rows.add(1));
                }
                match values {
                    Some(values) => Self::each(slots, rows, mask, |slot, row| {
                        self.cells[slot as usize].fold::<N>(values[row]);
                    }),
                    None => Self::each(slots, rows, mask, |slot, _| {
                        let count = &mut self.cells[slot as usize].count;
                        *count = count.wrapping_add(1);
                    }),
                }
            }
        }
    }

    fn scatter(&mut self, slots: &[GroupId], from: &dyn Lane) {
        for (slot, cell) in slots.iter().zip(&Self::of(from).cells) {
            self.cells[*slot as usize].merge::<N>(cell);
        }
    }

    fn gather(&mut self, from: &dyn Lane, slots: &[GroupId]) {
        let from = &Self::of(from).cells[..];
        for (cell, slot) in self.cells.iter_mut().zip(slots) {
            cell.merge::<N>(&from[*slot as usize]);
        }
    }

    fn put(&mut self, slots: &[GroupId], from: &dyn Lane) {
        for (slot, cell) in slots.iter().zip(&Self::of(from).cells) {
            self.cells[*slot as usize] = *cell;
        }
    }

    fn extend(&mut self, from: &dyn Lane, slots: &[GroupId]) {
        let from = &Self::of(from).cells[..];
        self.grow(self.cells.len() + slots.len());
        self.cells.extend(slots.iter().map(|slot| from[*slot as usize]));
    }

    fn merge_one(&mut self, into: GroupId, from: &dyn Lane, of: GroupId) {
        self.cells[into as usize].merge::<N>(&Self::of(from).cells[of as usize]);
    }

    fn merge_columns(&mut self, slots: &[GroupId], columns: &Columns<'_>) {
        let nulls = [columns.wholes.and_then(Array::nulls), columns.least.and_then(|least| least.nulls())];
        let greatest = columns.greatest.and_then(|greatest| greatest.nulls());
        let (least, most) = (self.values(columns.least), self.values(columns.greatest));
        let is_there = |nulls: Option<&NullBuffer>, row| nulls.is_none_or(|nulls| nulls.is_valid(row));
        for (row, slot) in slots.iter().enumerate() {
            let known = |column: Option<&Int64Array>| {
                column.filter(|column| column.is_valid(row)).map_or(0, |column| column.value(row))
            };
            let whole = columns.wholes.filter(|_| is_there(nulls[0], row)).map(|wholes| wholes.value(row));
            let least = least.filter(|_| is_there(nulls[1], row)).map(|least| least[row].rank());
            let most = most.filter(|_| is_there(greatest, row)).map(|most| most[row].rank());
            let seen = i64::from(whole.is_some() || least.is_some() || most.is_some());
            let count = match columns.counts {
                Some(_) => known(columns.counts),
                None => seen,
            };
            let float = columns.floats.filter(|floats| floats.is_valid(row)).map_or(0.0, |floats| floats.value(row));
            let cell = &mut self.cells[*slot as usize];
            cell.rows.add(known(columns.rows));
            cell.count = cell.count.wrapping_add(count);
            cell.sum.add(float, whole.unwrap_or(0));
            cell.range.fold(least.unwrap_or(N::Rank::GREATEST), most.unwrap_or(N::Rank::LEAST));
        }
    }

    fn len(&self) -> usize {
        self.cells.len()
    }

    fn rows(&self, slots: Range<usize>) -> Vec<i64> {
        self.column(slots, |cell| cell.rows.get())
    }

    fn counts(&self, slots: Range<usize>) -> Vec<i64> {
        self.column(slots, |cell| cell.count)
    }

    fn present(&self, slots: Range<usize>) -> Option<NullBuffer> {
        let cells = &self.cells[slots];
        let present = BooleanBuffer::collect_bool(cells.len(), |slot| cells[slot].count > 0);
        Some(NullBuffer::new(present)).filter(|nulls| nulls.null_count() > 0)
    }

    fn floats(&self, slots: Range<usize>) -> Vec<f64> {
        // Which of several NaN comes out of an addition is the compiler's choice.
        self.column(slots, |cell| if cell.sum.float().is_nan() { f64::NAN } else { cell.sum.float() })
    }

    fn wholes(&self, slots: Range<usize>) -> Vec<i128> {
        self.column(slots, |cell| cell.sum.whole())
    }

    fn extremes(&self, slots: Range<usize>, sense: Sense, data_type: &DataType) -> ArrayRef {
        let value = |cell: &Cell<R, S, E>| match sense {
            _ if cell.count <= 0 => N::default(),
            Sense::Least => N::of_rank(cell.range.least()),
            Sense::Greatest => N::of_rank(cell.range.greatest()),
        };
        let values = ArrayData::builder(data_type.clone())
            .len(slots.len())
            .add_buffer(Buffer::from_vec(self.column(slots.clone(), value)))
            .nulls(self.present(slots));
        make_array(values.build().expect("as many values of the type as there are slots"))
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// A column of values of which some are not there.
pub(super) fn whole_column<T: ArrowPrimitiveType>(values: Vec<T::Native>, nulls: Option<NullBuffer>) -> ArrayRef {
    Arc::new(arrow::array::PrimitiveArray::<T>::new(values.into(), nulls))
}
