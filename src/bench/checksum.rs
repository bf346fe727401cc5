//! A checksum of rows in their order, however they are cut into batches and however Arrow holds them.

use std::hash::Hasher as _;

use arrow::array::cast::AsArray;
use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, SchemaRef};
use arrow::error::ArrowError;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use twox_hash::xxhash3_64::Hasher;

/// XXH3 of every column, then of all columns: 64 bits, to tell results apart that should be the same. Nothing protects it
/// against somebody who wants two results to look the same.
pub struct Checksum {
    rows: u64,
    columns: Vec<Column>,
}

/// A column is three streams, none of which knows of batches.
struct Column {
    name: String,
    kind: DataType,
    /// The bytes of all values that are not null, one after the other.
    values: Hasher,
    /// The length of each, where they differ.
    lengths: Hasher,
    /// The numbers of the rows that are null.
    nulls: Hasher,
}

impl Checksum {
    /// Of rows with these columns.
    pub fn new(schema: &SchemaRef) -> Self {
        let column = |field: &std::sync::Arc<arrow::datatypes::Field>| Column {
            name: field.name().clone(),
            kind: plain(field.data_type()),
            values: Hasher::new(),
            lengths: Hasher::new(),
            nulls: Hasher::new(),
        };
        Self { rows: 0, columns: schema.fields().iter().map(column).collect() }
    }

    /// Adds rows.
    pub fn add(&mut self, batch: &RecordBatch) -> Result<(), ArrowError> {
        for (column, array) in self.columns.iter_mut().zip(batch.columns()) {
            column.add(array, self.rows)?;
        }
        self.rows += batch.num_rows() as u64;
        Ok(())
    }

    /// How many rows were added.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// The checksum of the rows so far.
    pub fn value(&self) -> u64 {
        let mut all = Hasher::new();
        all.write(&self.rows.to_le_bytes());
        for column in &self.columns {
            all.write(format!("{}\0{}\0", column.name, column.kind).as_bytes());
            for part in [&column.values, &column.lengths, &column.nulls] {
                all.write(&part.finish().to_le_bytes());
            }
        }
        all.finish()
    }
}

/// The type as far as values go: how they are packed is not told apart.
fn plain(kind: &DataType) -> DataType {
    match kind {
        DataType::Dictionary(_, value) => plain(value),
        DataType::LargeUtf8 | DataType::Utf8View => DataType::Utf8,
        DataType::LargeBinary | DataType::BinaryView => DataType::Binary,
        other => other.clone(),
    }
}

impl Column {
    /// Adds the values of a batch whose first row has this number.
    fn add(&mut self, array: &ArrayRef, first_row: u64) -> Result<(), ArrowError> {
        let array = if *array.data_type() == self.kind { array.clone() } else { cast(array, &self.kind)? };
        let nulls = array.logical_nulls().filter(|nulls| nulls.null_count() > 0);
        let Some(nulls) = nulls else { return self.run(&array) };
        for row in (0..array.len()).filter(|row| nulls.is_null(*row)) {
            self.nulls.write(&(first_row + row as u64).to_le_bytes());
        }
        for (start, end) in nulls.valid_slices() {
            self.run(&array.slice(start, end - start))?;
        }
        Ok(())
    }

    /// Adds values of which none is null.
    fn run(&mut self, array: &ArrayRef) -> Result<(), ArrowError> {
        match array.data_type() {
            DataType::Null => {}
            DataType::Boolean => {
                let bits: Vec<u8> = array.as_boolean().values().iter().map(u8::from).collect();
                self.values.write(&bits);
            }
            DataType::Utf8 => {
                let text = array.as_string::<i32>();
                self.bytes(text.value_data(), text.value_offsets());
            }
            DataType::Binary => {
                let binary = array.as_binary::<i32>();
                self.bytes(binary.value_data(), binary.value_offsets());
            }
            kind => match kind.primitive_width() {
                Some(width) => {
                    let data = array.to_data();
                    let from = data.offset() * width;
                    self.values.write(&data.buffers()[0].as_slice()[from..from + data.len() * width]);
                }
                None => return self.as_text(array),
            },
        }
        Ok(())
    }

    fn bytes(&mut self, bytes: &[u8], offsets: &[i32]) {
        let at = |index: usize| usize::try_from(offsets[index]).expect("offsets count up from 0");
        self.values.write(&bytes[at(0)..at(offsets.len() - 1)]);
        let lengths: Vec<u8> = offsets.windows(2).flat_map(|pair| (pair[1] - pair[0]).to_le_bytes()).collect();
        self.lengths.write(&lengths);
    }

    /// Lists, structures and whatever else is no plain column.
    fn as_text(&mut self, array: &ArrayRef) -> Result<(), ArrowError> {
        let options = FormatOptions::default();
        let shown = ArrayFormatter::try_new(array.as_ref(), &options)?;
        for row in 0..array.len() {
            let text = shown.value(row).try_to_string()?;
            self.values.write(text.as_bytes());
            self.lengths.write(&(text.len() as u64).to_le_bytes());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{BooleanArray, DictionaryArray, Float64Array, Int64Array, ListArray, StringArray};
    use arrow::datatypes::{Field, Int32Type, Schema};

    use super::*;

    fn batch(columns: Vec<ArrayRef>) -> RecordBatch {
        let field =
            |(index, column): (usize, &ArrayRef)| Field::new(index.to_string(), column.data_type().clone(), true);
        let schema = Schema::new(columns.iter().enumerate().map(field).collect::<Vec<_>>());
        RecordBatch::try_new(Arc::new(schema), columns).unwrap()
    }

    /// A column of every sort, with nulls.
    fn rows() -> RecordBatch {
        let list: [Option<Vec<Option<i32>>>; 5] = [Some(vec![Some(1)]), None, Some(vec![]), Some(vec![None]), None];
        batch(vec![
            Arc::new(Int64Array::from(vec![Some(1), None, Some(3), Some(4), None])),
            Arc::new(StringArray::from(vec![Some("a"), Some(""), None, Some("bc"), Some("a")])),
            Arc::new(BooleanArray::from(vec![Some(true), Some(false), None, None, Some(true)])),
            Arc::new(Float64Array::from(vec![0.1, -0.0, f64::NAN, 1e300, 5.0])),
            Arc::new(
                vec![Some("x"), None, Some("y"), Some("x"), Some("x")]
                    .into_iter()
                    .collect::<DictionaryArray<Int32Type>>(),
            ),
            Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>(list)),
        ])
    }

    fn value(batches: &[RecordBatch]) -> u64 {
        let mut checksum = Checksum::new(&batches[0].schema());
        batches.iter().for_each(|batch| checksum.add(batch).unwrap());
        checksum.value()
    }

    #[test]
    fn it_does_not_depend_on_how_rows_are_cut() {
        let rows = rows();
        let whole = value(std::slice::from_ref(&rows));
        for cuts in 0_u32..16 {
            let ends = (1..5).filter(|row| cuts & (1 << (row - 1)) != 0).chain([5]);
            let mut start = 0;
            let mut parts = Vec::new();
            for end in ends {
                parts.push(rows.slice(start, end - start));
                start = end;
            }
            assert_eq!(value(&parts), whole, "cut at {cuts:b}");
        }
    }

    #[test]
    fn it_does_not_depend_on_how_values_are_packed() {
        let plain: ArrayRef = Arc::new(StringArray::from(vec![Some("x"), None, Some("y")]));
        let view = cast(&plain, &DataType::Utf8View).unwrap();
        let packed = cast(&plain, &DataType::Dictionary(Box::new(DataType::UInt16), Box::new(DataType::Utf8))).unwrap();
        let plain = value(&[batch(vec![plain])]);
        assert_eq!((value(&[batch(vec![view])]), value(&[batch(vec![packed])])), (plain, plain));
    }

    #[test]
    fn every_change_of_a_value_a_null_an_order_or_a_border_shows() {
        let text = |values: Vec<Option<&str>>| value(&[batch(vec![Arc::new(StringArray::from(values))])]);
        let number = |values: Vec<Option<i64>>| value(&[batch(vec![Arc::new(Int64Array::from(values))])]);
        let seen = [
            text(vec![Some("ab"), Some("c")]),
            text(vec![Some("a"), Some("bc")]),
            text(vec![Some("c"), Some("ab")]),
            text(vec![Some("ab"), Some("c"), None]),
            text(vec![Some("ab"), Some("c"), Some("")]),
            text(vec![None, Some("ab"), Some("c")]),
            number(vec![Some(1), Some(2)]),
            number(vec![Some(2), Some(1)]),
            number(vec![Some(1), None]),
            number(vec![None, Some(1)]),
            number(vec![Some(1)]),
            value(&[batch(vec![Arc::new(Float64Array::from(vec![0.0]))])]),
            value(&[batch(vec![Arc::new(Float64Array::from(vec![-0.0]))])]),
            value(&[batch(vec![Arc::new(Int64Array::from(vec![0]))])]),
        ];
        let different: std::collections::HashSet<u64> = seen.into_iter().collect();
        assert_eq!(different.len(), seen.len(), "{seen:x?}");
    }
}
