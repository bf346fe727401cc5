//! The state as rows, for checkpoints: `kind`, `start`, `end`, `revision`, the group, and every measure's partial.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::cast::AsArray;
use arrow::array::{Array, ArrayRef, Int8Array, Int64Array, RecordBatch, new_null_array};
use arrow::compute::concat;
use arrow::datatypes::{DataType, Field, Int8Type, Int64Type, Schema};

use super::core::Core;
use crate::operator::OperatorError;
use crate::operator::aggregate::GroupId;

/// Where the state says how far event time had come, as it may have no rows to say it in.
const WATERMARK: &str = "watermark";

/// What a row of the state is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Of a pane or session, with its partials: these rows come first. `start` and `end` are a pane's start (both), or
    /// the times of a session's first and last row.
    Partial = 0,
    /// A group's clock: `start` is its greatest event time, `revision` how early the group appeared among all.
    Clock = 1,
    /// The newest revision of the window that ends at `end`.
    Revision = 2,
}

/// A row but for its partials.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    pub(super) kind: Kind,
    pub(super) start: i64,
    pub(super) end: i64,
    pub(super) revision: i64,
    pub(super) group: GroupId,
}

/// The rows, and the partials of those that have some.
pub(super) struct State {
    pub(super) rows: Vec<Row>,
    /// A list of columns a measure, a row for each row of [`Kind::Partial`].
    pub(super) partial: Vec<Vec<ArrayRef>>,
}

impl State {
    /// How many rows have partials.
    pub(super) fn partial_len(&self) -> usize {
        self.rows.iter().take_while(|row| row.kind == Kind::Partial).count()
    }

    fn fields(core: &Core) -> Vec<Field> {
        let mut fields = vec![Field::new("kind", DataType::Int8, false)];
        fields.extend(["start", "end", "revision"].map(|name| Field::new(name, DataType::Int64, false)));
        let setup = &core.setup;
        fields.extend(setup.group_by.iter().map(|index| setup.input.columns.field(*index).clone()));
        fields.extend(setup.measures.iter().flat_map(|measure| measure.state_fields()));
        fields
    }

    pub(super) fn encode(self, core: &Core) -> Result<RecordBatch, OperatorError> {
        let fields = Self::fields(core);
        let without = self.rows.len() - self.partial_len();
        let column = |field: fn(&Row) -> i64| -> ArrayRef {
            Arc::new(Int64Array::from_iter_values(self.rows.iter().map(field)))
        };
        let kinds = self.rows.iter().map(|row| row.kind as i8);
        let mut columns: Vec<ArrayRef> = vec![Arc::new(Int8Array::from_iter_values(kinds))];
        columns.extend([column(|row| row.start), column(|row| row.end), column(|row| row.revision)]);
        columns.extend(core.groups.columns(&self.rows.iter().map(|row| row.group).collect::<Vec<_>>())?);
        for partial in self.partial.iter().flatten() {
            let nulls = new_null_array(partial.data_type(), without);
            columns.push(if without == 0 { partial.clone() } else { concat(&[partial.as_ref(), nulls.as_ref()])? });
        }
        let metadata = HashMap::from([(WATERMARK.to_owned(), core.watermark.to_string())]);
        Ok(RecordBatch::try_new(Arc::new(Schema::new_with_metadata(fields, metadata)), columns)?)
    }

    /// The state, without groups, and the key columns of its rows. Sets the core's watermark.
    pub(super) fn decode(core: &mut Core, batch: &RecordBatch) -> Result<(Self, Vec<ArrayRef>), OperatorError> {
        let fields = Self::fields(core);
        let schema = batch.schema();
        let same = |(mine, theirs): (&Field, &Arc<Field>)| {
            (mine.name(), mine.data_type()) == (theirs.name(), theirs.data_type())
        };
        let watermark = schema.metadata().get(WATERMARK).and_then(|micros| micros.parse().ok());
        let known = fields.len() == schema.fields().len() && fields.iter().zip(schema.fields()).all(same);
        core.watermark = watermark.filter(|_| known).ok_or(OperatorError::Stateless)?;
        let kinds = batch.column(0).as_primitive::<Int8Type>();
        let [starts, ends, revisions] = [1, 2, 3].map(|column| batch.column(column).as_primitive::<Int64Type>());
        let row = |row: usize| {
            let kind = match kinds.value(row) {
                0 => Kind::Partial,
                1 => Kind::Clock,
                2 => Kind::Revision,
                _ => return Err(OperatorError::Stateless),
            };
            Ok(Row { kind, start: starts.value(row), end: ends.value(row), revision: revisions.value(row), group: 0 })
        };
        let rows = (0..batch.num_rows()).map(row).collect::<Result<Vec<_>, _>>()?;
        let mut state = Self { rows, partial: Vec::new() };
        let (keys, mut partials) = batch.columns()[4..].split_at(core.setup.group_by.len());
        for measure in &core.setup.measures {
            let (mine, rest) = partials.split_at(measure.factory.partial().len());
            state.partial.push(mine.iter().map(|column| column.slice(0, state.partial_len())).collect());
            partials = rest;
        }
        Ok((state, keys.to_vec()))
    }
}
