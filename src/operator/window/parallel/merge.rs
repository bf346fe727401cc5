//! What workers made, in the order in which one operator would have made it.

use arrow::array::cast::AsArray;
use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::compute::interleave;
use arrow::datatypes::{Int64Type, SchemaRef};
use arrow::error::ArrowError;

/// The rows of all batches by the numbers in their last `N` columns, which are left out; none where there are no rows.
pub(super) fn merged<const N: usize>(
    batches: Vec<RecordBatch>,
    schema: &SchemaRef,
) -> Result<Option<RecordBatch>, ArrowError> {
    let width = schema.fields().len();
    if let [batch] = batches.as_slice() {
        // One worker's rows are in order.
        return RecordBatch::try_new(schema.clone(), batch.columns()[..width].to_vec()).map(Some);
    }
    let mut rows: Vec<([i64; N], (usize, usize))> = Vec::new();
    for (index, batch) in batches.iter().enumerate() {
        let turns: [&[i64]; N] =
            std::array::from_fn(|turn| &**batch.column(width + turn).as_primitive::<Int64Type>().values());
        rows.extend((0..batch.num_rows()).map(|row| (turns.map(|turn| turn[row]), (index, row))));
    }
    if rows.is_empty() {
        return Ok(None);
    }
    // The rows of each worker are a run already, which this sort makes use of.
    rows.sort();
    let places: Vec<(usize, usize)> = rows.into_iter().map(|(_, place)| place).collect();
    let column = |index: usize| -> Result<ArrayRef, ArrowError> {
        let columns: Vec<&dyn Array> = batches.iter().map(|batch| batch.column(index).as_ref()).collect();
        interleave(&columns, &places)
    };
    RecordBatch::try_new(schema.clone(), (0..width).map(column).collect::<Result<_, _>>()?).map(Some)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Int64Array, StringArray};
    use arrow::datatypes::{DataType, Field, Schema};

    use super::*;

    fn batch(rows: &[(&str, i64, i64)]) -> RecordBatch {
        let texts: ArrayRef = Arc::new(StringArray::from_iter_values(rows.iter().map(|row| row.0)));
        let first: ArrayRef = Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.1)));
        let second: ArrayRef = Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.2)));
        RecordBatch::try_from_iter([("text", texts), ("turn_0", first), ("turn_1", second)]).unwrap()
    }

    #[test]
    fn rows_come_in_turn() {
        let schema = Arc::new(Schema::new(vec![Field::new("text", DataType::Utf8, false)]));
        let texts = |batches: Vec<RecordBatch>| {
            let rows = merged::<2>(batches, &schema).unwrap()?;
            assert_eq!(rows.num_columns(), 1);
            Some(rows.column(0).as_string::<i32>().iter().flatten().collect::<String>())
        };
        let one = batch(&[("a", 1, 5), ("d", 2, 0)]);
        assert_eq!(texts(vec![]), None);
        assert_eq!(texts(vec![one.clone()]).as_deref(), Some("ad"));
        let two = [batch(&[("b", 1, 7)]), batch(&[("c", 1, 9), ("e", 3, -1)])];
        assert_eq!(texts(vec![two[0].clone(), one, two[1].clone()]).as_deref(), Some("abcde"));
    }
}
