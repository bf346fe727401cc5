//! The state as tables, for checkpoints. Every part is a table of its own layout: each row's key group, some numbers,
//! the group's key, and in some layouts every measure's partial. One more part, `clock`, has how far event time has come.

use std::sync::Arc;

use arrow::array::cast::AsArray;
use arrow::array::{Array, ArrayRef, Int64Array, RecordBatch, UInt8Array};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, UInt8Type};

use super::core::Core;
use super::shape::Shape;
use crate::flow::state::{Part, Restored};
use crate::operator::OperatorError;
use crate::operator::aggregate::GroupId;

/// The greatest revision or serial number that state may have: one that can be counted on for good.
pub(super) const COUNT_MAX: i64 = i64::MAX / 2;

/// A row: its numbers, and its group.
pub(super) type Row<const N: usize> = ([i64; N], GroupId);

/// Rows, and the partials of those whose layout has some: a list of columns a measure.
pub(super) struct Table<const N: usize> {
    pub(super) rows: Vec<Row<N>>,
    pub(super) partial: Vec<Vec<ArrayRef>>,
}

/// What the rows of some parts are.
pub(super) struct Layout<const N: usize> {
    /// How the names of its parts begin.
    pub(super) name: &'static str,
    /// The columns of numbers.
    pub(super) numbers: [&'static str; N],
    /// Whether rows have partials.
    pub(super) partials: bool,
}

impl<const N: usize> Layout<N> {
    /// The name of its part of a number.
    pub(super) fn part(&self, number: i64) -> String {
        format!("{}-{number}", self.name)
    }

    /// The number of the part, if it is one of this layout.
    pub(super) fn number(&self, part: &str) -> Option<i64> {
        let number = part.strip_prefix(self.name)?.strip_prefix('-')?.parse().ok()?;
        (self.part(number) == part).then_some(number)
    }

    fn fields(&self, core: &Core) -> Vec<Field> {
        let mut fields = vec![Field::new("key_group", DataType::UInt8, false)];
        fields.extend(self.numbers.map(|name| Field::new(name, DataType::Int64, false)));
        let setup = &core.setup;
        fields.extend(setup.group_by.iter().map(|index| setup.input.columns.field(*index).clone()));
        if self.partials {
            fields.extend(setup.measures.iter().flat_map(|measure| measure.state_fields()));
        }
        fields
    }

    /// The rows as a batch; `partial` has a row for each of them, or no column.
    pub(super) fn encode(&self, core: &Core, table: Table<N>) -> Result<RecordBatch, OperatorError> {
        let groups: Vec<GroupId> = table.rows.iter().map(|(_, group)| *group).collect();
        let key_groups = groups.iter().map(|group| core.groups.key_group(*group));
        let mut columns: Vec<ArrayRef> = vec![Arc::new(UInt8Array::from_iter_values(key_groups))];
        for number in 0..N {
            let numbers = table.rows.iter().map(|(numbers, _)| numbers[number]);
            columns.push(Arc::new(Int64Array::from_iter_values(numbers)));
        }
        columns.extend(core.groups.columns(&groups)?);
        columns.extend(table.partial.into_iter().flatten());
        Ok(RecordBatch::try_new(Arc::new(Schema::new(self.fields(core))), columns)?)
    }

    /// The rows of a batch, whose groups get ids.
    pub(super) fn decode(&self, core: &mut Core, batch: &RecordBatch) -> Result<Table<N>, OperatorError> {
        let fields = self.fields(core);
        let fits = |((mine, theirs), column): ((&Field, &Arc<Field>), &ArrayRef)| {
            (mine.name(), mine.data_type()) == (theirs.name(), theirs.data_type())
                && (mine.is_nullable() || column.null_count() == 0)
        };
        let schema = batch.schema();
        let mut columns = fields.iter().zip(schema.fields()).zip(batch.columns());
        if fields.len() != batch.num_columns() || !columns.all(fits) {
            return Err(OperatorError::Stateless);
        }
        let (numbers, rest) = batch.columns()[1..].split_at(N);
        let (keys, mut partials) = rest.split_at(core.setup.group_by.len());
        let mut ids = Vec::new();
        core.groups.intern_restored(batch.num_rows(), keys, &mut ids)?;
        let key_groups = batch.column(0).as_primitive::<UInt8Type>().values();
        if ids.iter().zip(key_groups).any(|(id, key_group)| core.groups.key_group(*id) != *key_group) {
            return Err(OperatorError::Stateless);
        }
        let numbers: Vec<&[i64]> =
            numbers.iter().map(|column| &**column.as_primitive::<Int64Type>().values()).collect();
        let row = |(row, id): (usize, &GroupId)| (std::array::from_fn(|number| numbers[number][row]), *id);
        let rows = ids.iter().enumerate().map(row).collect();
        let mut partial = Vec::new();
        for measure in core.setup.measures.iter().filter(|_| self.partials) {
            let (mine, rest) = partials.split_at(measure.factory.partial().len());
            partial.push(mine.to_vec());
            partials = rest;
        }
        Ok(Table { rows, partial })
    }
}

impl<const N: usize> Table<N> {
    /// Rows without partials.
    pub(super) fn of(rows: Vec<Row<N>>) -> Self {
        Self { rows, partial: Vec::new() }
    }
}

/// Whether a pane can begin there.
pub(super) fn is_pane(shape: &Shape, start: i64) -> bool {
    let Shape::Grid(grid) = shape else { return false };
    shape.representable().contains(&start) && grid.pane(start).0 == start
}

/// The part that is always given, and given anew.
const CLOCK: &str = "clock";

/// Its columns, all of them `Int64`. There is one row; of the states of several workers, one each.
const CLOCK_COLUMNS: [&str; 5] = ["watermark", "floor", "closed", "fired", "begun"];

/// How far event time has come.
pub(super) fn clock(core: &Core) -> Result<Part, OperatorError> {
    let values = [core.watermark, core.group_floor, core.closed, core.fired, core.begun];
    let columns = values.map(|value| Arc::new(Int64Array::from_iter_values([value])) as ArrayRef);
    let fields: Vec<Field> = CLOCK_COLUMNS.iter().map(|name| Field::new(*name, DataType::Int64, false)).collect();
    Ok(Part::changed(CLOCK, RecordBatch::try_new(Arc::new(Schema::new(fields)), columns.to_vec())?))
}

/// Takes back how far event time had come, and gives back the other parts.
pub(super) fn restore_clock<'a>(core: &mut Core, parts: &'a [Restored]) -> Result<Vec<&'a Restored>, OperatorError> {
    let (clocks, others): (Vec<_>, Vec<_>) = parts.iter().partition(|(name, _)| name == CLOCK);
    let mut known = None;
    for (_, batch) in clocks {
        let schema = batch.schema();
        let fits = |(field, name): (&Arc<Field>, &&str)| field.name() == name && *field.data_type() == DataType::Int64;
        let fits = batch.num_columns() == CLOCK_COLUMNS.len()
            && schema.fields().iter().zip(&CLOCK_COLUMNS).all(fits)
            && batch.columns().iter().all(|column| column.null_count() == 0);
        if !fits {
            return Err(OperatorError::Stateless);
        }
        for row in 0..batch.num_rows() {
            let own: [i64; 5] = std::array::from_fn(|index| batch.column(index).as_primitive::<Int64Type>().value(row));
            let Some(all) = &mut known else {
                known = Some(own);
                continue;
            };
            all[0] = own[0].min(all[0]);
            (1..5).for_each(|index| all[index] = own[index].max(all[index]));
        }
    }
    let [watermark, floor, closed, fired, begun] = known.ok_or(OperatorError::Stateless)?;
    if !(0..=COUNT_MAX).contains(&begun) {
        return Err(OperatorError::Stateless);
    }
    (core.watermark, core.closed, core.fired, core.begun) = (watermark, closed, fired, begun);
    (core.swept, core.group_floor) = (floor, floor.max(core.setup.group_floor(watermark)));
    Ok(others)
}
