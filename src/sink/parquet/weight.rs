//! How much rows weigh: a function of their values alone.

use arrow::array::{Array, AsArray, GenericByteArray, RecordBatch};
use arrow::datatypes::{
    ArrowNativeType, BinaryType, ByteArrayType, DataType, LargeBinaryType, LargeUtf8Type, Utf8Type,
};

/// What a value takes beside its bytes, and what one of unknown size counts for.
const SLOT_BYTES: usize = 8;

/// About the bytes that rows take in memory. The sum is the same however the rows are cut into batches, whatever their
/// buffers hold beside them or where a value is null: what is decided by it does not depend on batches.
pub(super) fn weight(rows: &RecordBatch) -> usize {
    rows.columns().iter().map(|column| of(column.as_ref())).sum()
}

/// The first rows that reach one of two bounds, and what they weigh; all of them where they reach none.
pub(super) fn first(rows: &RecordBatch, rows_max: usize, bytes_max: usize) -> (usize, usize) {
    let len = rows.num_rows().min(rows_max);
    let bytes = weight(&rows.slice(0, len));
    if bytes < bytes_max || len <= 1 {
        return (len, bytes);
    }
    let (mut low, mut high) = (1, len);
    while low < high {
        let middle = low.midpoint(high);
        if weight(&rows.slice(0, middle)) >= bytes_max { high = middle } else { low = middle + 1 }
    }
    (low, weight(&rows.slice(0, low)))
}

fn of(array: &dyn Array) -> usize {
    match array.data_type() {
        DataType::Utf8 => bytes::<Utf8Type>(array.as_bytes()),
        DataType::LargeUtf8 => bytes::<LargeUtf8Type>(array.as_bytes()),
        DataType::Binary => bytes::<BinaryType>(array.as_bytes()),
        DataType::LargeBinary => bytes::<LargeBinaryType>(array.as_bytes()),
        DataType::Utf8View => views(array, array.as_string_view().views()),
        DataType::BinaryView => views(array, array.as_binary_view().views()),
        DataType::FixedSizeBinary(width) => usize::try_from(*width).unwrap_or(SLOT_BYTES) * array.len(),
        DataType::List(_) => {
            let list = array.as_list::<i32>();
            let values = list.iter().flatten().map(|values| of(values.as_ref()));
            SLOT_BYTES * array.len() + values.sum::<usize>()
        }
        DataType::Struct(_) => {
            let columns = array.as_struct().columns();
            let whole = |at: usize, len: usize| columns.iter().map(|column| of(&column.slice(at, len))).sum::<usize>();
            match array.null_count() {
                0 => whole(0, array.len()),
                _ => (0..array.len()).filter(|row| array.is_valid(*row)).map(|row| whole(row, 1)).sum(),
            }
        }
        kind => kind.primitive_width().unwrap_or(SLOT_BYTES) * array.len(),
    }
}

fn bytes<T: ByteArrayType>(array: &GenericByteArray<T>) -> usize {
    let values = if array.null_count() == 0 {
        let offsets = array.value_offsets();
        offsets[array.len()].as_usize() - offsets[0].as_usize()
    } else {
        // A null may have bytes, which a copy of it has not.
        array.iter().flatten().map(|value| AsRef::<[u8]>::as_ref(value).len()).sum()
    };
    SLOT_BYTES * array.len() + values
}

/// The length of a value is the lower half of the lower half of its view.
fn views(array: &dyn Array, views: &[u128]) -> usize {
    let valid = views.iter().enumerate().filter(|(row, _)| array.is_valid(*row));
    SLOT_BYTES * array.len() + valid.map(|(_, view)| (view & 0xFFFF_FFFF) as usize).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, ListArray, StringArray, StringViewArray, StructArray};
    use arrow::buffer::{NullBuffer, OffsetBuffer};
    use arrow::datatypes::{Field, Int64Type};

    use super::*;

    fn rows() -> RecordBatch {
        let text = [Some("a"), None, Some("a long text, not inlined"), Some("")];
        let hidden = StringArray::new(
            OffsetBuffer::new(vec![0, 1, 4, 5, 5].into()),
            b"abcde".to_vec().into(),
            Some(NullBuffer::from(vec![true, false, true, true])),
        );
        let lists = [Some(vec![Some(1), None]), None, Some(vec![]), Some(vec![Some(2)])];
        let numbers: ArrayRef = Arc::new(Int64Array::from(vec![1, 2, 3, 4]));
        let nested = StructArray::from(vec![(Arc::new(Field::new("n", DataType::Int64, true)), numbers.clone())]);
        RecordBatch::try_from_iter_with_nullable([
            ("text", Arc::new(StringArray::from_iter(text)) as ArrayRef, true),
            ("view", Arc::new(StringViewArray::from_iter(text)), true),
            ("hidden", Arc::new(hidden), true),
            ("list", Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>(lists)), true),
            ("number", numbers, true),
            ("nested", Arc::new(nested), true),
        ])
        .unwrap()
    }

    #[test]
    fn the_weight_is_that_of_the_values() {
        let rows = rows();
        // text 4*8+25, view the same, hidden 4*8+2, list 4*8+3*8, number 4*8, nested 4*8
        assert_eq!(weight(&rows), 57 + 57 + 34 + 56 + 32 + 32);
        for cut in 0..=4 {
            assert_eq!(weight(&rows.slice(0, cut)) + weight(&rows.slice(cut, 4 - cut)), weight(&rows));
        }
    }

    #[test]
    fn the_first_rows_that_reach_a_bound() {
        let numbers: ArrayRef = Arc::new(Int64Array::from((0..10).collect::<Vec<_>>()));
        let rows = RecordBatch::try_from_iter([("n", numbers)]).unwrap();
        assert_eq!(first(&rows, 20, 1_000), (10, 80));
        assert_eq!(first(&rows, 4, 1_000), (4, 32));
        assert_eq!(first(&rows, 20, 24), (3, 24));
        assert_eq!(first(&rows, 20, 25), (4, 32));
        assert_eq!(first(&rows, 20, 1), (1, 8));
    }
}
