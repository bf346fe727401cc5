//! Key groups: the 256 shares that the keys of an operator fall into.
//!
//! Every row of state says its key group, so that state can be handed to another number of workers by ranges of key
//! groups, without a look at the keys. So a key's group is for good: it depends on the key's values alone, not on
//! process, seed or build.

use arrow::array::cast::AsArray;
use arrow::array::{Array, ArrayRef, UInt8Array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};
use arrow::error::ArrowError;
use arrow::row::{RowConverter, SortField};

/// How many key groups there are.
pub const KEY_GROUPS: usize = 256;

/// The key group of a key, by its bytes; NULL of a single column has none.
///
/// The bytes are those of the text where the key is one column of text, eight little-endian bytes where it is one
/// column of whole numbers (but for `UInt64`), and Arrow's row format of all columns otherwise.
pub fn key_group(key: &[u8]) -> u8 {
    // The checksum of keys that differ in a bit differs by a constant; the finaliser of MurmurHash3 breaks that up.
    let mut hash = crc32c::crc32c(key);
    hash = (hash ^ (hash >> 16)).wrapping_mul(0x85eb_ca6b);
    hash = (hash ^ (hash >> 13)).wrapping_mul(0xc2b2_ae35);
    hash ^= hash >> 16;
    hash.to_be_bytes()[0]
}

/// The key group of every row of key columns; of no column, all rows have the same.
pub fn key_groups(columns: &[ArrayRef], rows_len: usize) -> Result<UInt8Array, ArrowError> {
    let columns = columns.iter().map(flat).collect::<Result<Vec<_>, _>>()?;
    let types: Vec<DataType> = columns.iter().map(|column| column.data_type().clone()).collect();
    Ok(match Encoding::of(&types) {
        Encoding::One => UInt8Array::from_value(key_group(&[]), rows_len),
        Encoding::Text => {
            let texts = columns[0].as_string::<i32>();
            UInt8Array::from_iter_values(texts.iter().map(|text| key_group(text.unwrap_or_default().as_bytes())))
        }
        Encoding::Whole => {
            let numbers = cast(&columns[0], &DataType::Int64)?;
            let group = |number: Option<i64>| match number {
                Some(number) => key_group(&number.to_le_bytes()),
                None => key_group(&[]),
            };
            UInt8Array::from_iter_values(numbers.as_primitive::<Int64Type>().iter().map(group))
        }
        Encoding::Rows => {
            let rows = RowConverter::new(types.into_iter().map(SortField::new).collect())?.convert_columns(&columns)?;
            UInt8Array::from_iter_values(rows.iter().map(|row| key_group(row.as_ref())))
        }
    })
}

/// Values of a dictionary written out: a key is the same however its column is laid out.
fn flat(column: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    match column.data_type() {
        DataType::Dictionary(_, values) => cast(column, values),
        _ => Ok(column.clone()),
    }
}

/// How the bytes of a key are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    /// No column: there is one key.
    One,
    /// One text column.
    Text,
    /// One column of whole numbers that fit 64 bits with a sign.
    Whole,
    /// Anything else, in Arrow's row format.
    Rows,
}

impl Encoding {
    pub(super) fn of(types: &[DataType]) -> Self {
        match types {
            [] => Self::One,
            [DataType::Utf8] => Self::Text,
            [whole] if whole.is_integer() && *whole != DataType::UInt64 => Self::Whole,
            _ => Self::Rows,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{BooleanArray, DictionaryArray, Float64Array, Int8Array, Int64Array, StringArray};
    use arrow::datatypes::Int32Type;

    use super::*;

    /// State on disks is sorted by these numbers: whatever makes this test fail must not be done.
    #[test]
    fn the_key_group_of_a_key_never_changes() {
        let text: ArrayRef = Arc::new(StringArray::from(vec![Some("device-1"), Some("device-2"), Some("ü"), None]));
        let small: ArrayRef = Arc::new(Int8Array::from(vec![Some(1), Some(-1), Some(0), None]));
        let whole: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), Some(-1), Some(0), None]));
        let float: ArrayRef = Arc::new(Float64Array::from(vec![Some(0.5), Some(-0.5), Some(f64::NAN), None]));
        let bool: ArrayRef = Arc::new(BooleanArray::from(vec![Some(true), Some(false), None, None]));
        let of = |columns: &[&ArrayRef]| {
            let columns: Vec<ArrayRef> = columns.iter().map(|column| (*column).clone()).collect();
            key_groups(&columns, 4).unwrap().values().to_vec()
        };
        assert_eq!(of(&[]), GOLDEN[0]);
        assert_eq!(of(&[&text]), GOLDEN[1]);
        assert_eq!(of(&[&whole]), GOLDEN[2]);
        assert_eq!(of(&[&small]), GOLDEN[2]);
        assert_eq!(of(&[&float]), GOLDEN[3]);
        assert_eq!(of(&[&text, &whole]), GOLDEN[4]);
        assert_eq!(of(&[&bool, &float]), GOLDEN[5]);
    }

    /// Worked out by a program of its own, from the definition of CRC32C and Arrow's row format.
    const GOLDEN: [[u8; 4]; 6] =
        [[0, 0, 0, 0], [138, 65, 1, 0], [221, 73, 97, 0], [206, 130, 242, 12], [20, 79, 34, 145], [251, 124, 150, 167]];

    #[test]
    fn dictionaries_are_as_good_as_their_values() {
        let words = ["a", "b", "a", "c"];
        let plain: ArrayRef = Arc::new(StringArray::from(words.to_vec()));
        let dictionary: ArrayRef = Arc::new(words.into_iter().collect::<DictionaryArray<Int32Type>>());
        assert_eq!(key_groups(&[plain], 4).unwrap(), key_groups(&[dictionary], 4).unwrap());
    }

    #[test]
    fn keys_that_are_alike_spread_evenly() {
        let texts: ArrayRef = Arc::new(StringArray::from_iter_values((0..25_600).map(|n| format!("device-{n}"))));
        let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..25_600));
        let strided: ArrayRef = Arc::new(Int64Array::from_iter_values((0..25_600).map(|n| n * 4_096)));
        for keys in [texts, numbers, strided] {
            let mut counts = [0; KEY_GROUPS];
            key_groups(&[keys], 25_600).unwrap().values().iter().for_each(|group| counts[usize::from(*group)] += 1);
            // A hundred each; at random nearly all are within five standard deviations of ten.
            assert!(counts.iter().all(|count| (50..=150).contains(count)), "{counts:?}");
        }
    }
}
