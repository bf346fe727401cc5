//! The columns behind a worker's own that say when one operator would have emitted a row, among all that it emits for the
//! same batch or watermark.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;

/// How many there are of windows.
pub(super) const LEN: usize = 3;
/// How many there are of rows that are set aside: which kind of them goes first, and the row's number.
pub(super) const ASIDE_LEN: usize = 2;

const NAMES: [&str; LEN] = ["turn_0", "turn_1", "turn_2"];
const ASIDE: &str = "aside";

/// For a watermark: the window's end, and where it stands among those that end then. For a batch: the row that made it
/// due, and where it stands among those of the row.
pub(in super::super) type Turn = [i64; LEN];

/// The columns of windows with their turns behind them.
pub(in super::super) fn schema(schema: &Schema) -> SchemaRef {
    let turns = NAMES.map(|name| Arc::new(Field::new(name, DataType::Int64, false)));
    Arc::new(Schema::new(schema.fields().iter().cloned().chain(turns).collect::<Vec<_>>()))
}

/// The columns of turns.
pub(in super::super) fn columns(turns: &[Turn]) -> [ArrayRef; LEN] {
    let column =
        |index: usize| Arc::new(Int64Array::from_iter_values(turns.iter().map(|turn| turn[index]))) as ArrayRef;
    std::array::from_fn(column)
}

/// Rows that are set aside, whose last column is their number, with the turn of their kind before it.
pub(in super::super) fn aside(rows: &RecordBatch, turn: i64) -> Result<RecordBatch, ArrowError> {
    let schema = rows.schema();
    let (mut fields, mut columns) = (schema.fields().to_vec(), rows.columns().to_vec());
    let place = columns.len() - 1;
    fields.insert(place, Arc::new(Field::new(ASIDE, DataType::Int64, false)));
    columns.insert(place, Arc::new(Int64Array::from_value(turn, rows.num_rows())));
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)
}
