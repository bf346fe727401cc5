//! Values of any type that a group can remember one of.

use std::cmp::Ordering;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, ArrowNativeTypeOp, ArrowPrimitiveType, BinaryArray, BooleanArray, PrimitiveArray, StringArray,
};
use arrow::datatypes::DataType;

/// A type of values: how to read one from an array, remember it, compare it, and give it back.
pub(super) trait Cell: Send + 'static {
    /// The array.
    type Array: Array + 'static;
    /// A value in the array.
    type Item<'a>: Copy;
    /// A value that is remembered.
    type Owned: Clone + Send + 'static;

    fn item(array: &Self::Array, row: usize) -> Self::Item<'_>;
    /// Remembers a value; reuses what it can of the one before.
    fn store(item: Self::Item<'_>, place: &mut Option<Self::Owned>);
    /// A total order; NaN is greater than every number.
    fn compare(item: Self::Item<'_>, owned: &Self::Owned) -> Ordering;
    fn build<'a>(values: impl Iterator<Item = Option<&'a Self::Owned>>, data_type: &DataType) -> ArrayRef;
}

pub(super) struct Primitive<T>(std::marker::PhantomData<fn() -> T>);
pub(super) struct Text;
pub(super) struct Bytes;
pub(super) struct Bool;

impl<T: ArrowPrimitiveType + 'static> Cell for Primitive<T> {
    type Array = PrimitiveArray<T>;
    type Item<'a> = T::Native;
    type Owned = T::Native;

    #[inline]
    fn item(array: &Self::Array, row: usize) -> T::Native {
        array.values()[row]
    }

    #[inline]
    fn store(item: T::Native, place: &mut Option<T::Native>) {
        *place = Some(item);
    }

    #[inline]
    #[expect(clippy::eq_op, reason = "only NaN is not equal to itself")]
    fn compare(item: T::Native, owned: &T::Native) -> Ordering {
        match (item != item, owned != owned) {
            (false, false) => ArrowNativeTypeOp::compare(item, *owned),
            (item, owned) => item.cmp(&owned),
        }
    }

    fn build<'a>(values: impl Iterator<Item = Option<&'a T::Native>>, data_type: &DataType) -> ArrayRef {
        Arc::new(
            values.map(Option::<&T::Native>::copied).collect::<PrimitiveArray<T>>().with_data_type(data_type.clone()),
        )
    }
}

impl Cell for Bool {
    type Array = BooleanArray;
    type Item<'a> = bool;
    type Owned = bool;

    fn item(array: &BooleanArray, row: usize) -> bool {
        array.value(row)
    }

    fn store(item: bool, place: &mut Option<bool>) {
        *place = Some(item);
    }

    fn compare(item: bool, owned: &bool) -> Ordering {
        item.cmp(owned)
    }

    fn build<'a>(values: impl Iterator<Item = Option<&'a bool>>, _: &DataType) -> ArrayRef {
        Arc::new(values.map(Option::<&bool>::copied).collect::<BooleanArray>())
    }
}

impl Cell for Text {
    type Array = StringArray;
    type Item<'a> = &'a str;
    type Owned = String;

    fn item(array: &StringArray, row: usize) -> &str {
        array.value(row)
    }

    fn store(item: &str, place: &mut Option<String>) {
        let place = place.get_or_insert_default();
        place.clear();
        place.push_str(item);
    }

    fn compare(item: &str, owned: &String) -> Ordering {
        item.cmp(owned)
    }

    fn build<'a>(values: impl Iterator<Item = Option<&'a String>>, _: &DataType) -> ArrayRef {
        Arc::new(values.collect::<StringArray>())
    }
}

impl Cell for Bytes {
    type Array = BinaryArray;
    type Item<'a> = &'a [u8];
    type Owned = Vec<u8>;

    fn item(array: &BinaryArray, row: usize) -> &[u8] {
        array.value(row)
    }

    fn store(item: &[u8], place: &mut Option<Vec<u8>>) {
        let place = place.get_or_insert_default();
        place.clear();
        place.extend_from_slice(item);
    }

    fn compare(item: &[u8], owned: &Vec<u8>) -> Ordering {
        item.cmp(owned)
    }

    fn build<'a>(values: impl Iterator<Item = Option<&'a Vec<u8>>>, _: &DataType) -> ArrayRef {
        Arc::new(values.collect::<BinaryArray>())
    }
}

/// The type in which values of a type are kept: strings of every layout as `Utf8`.
pub(super) fn kept_type(input: &DataType) -> DataType {
    match input {
        DataType::Utf8View | DataType::LargeUtf8 => DataType::Utf8,
        DataType::BinaryView | DataType::LargeBinary => DataType::Binary,
        other => other.clone(),
    }
}

/// `Some(make::<the cell of the type>(…))`, or `None` for a type that has none.
macro_rules! by_cell {
    ($data_type:expr, $make:ident($($arg:expr),*)) => {{
        use arrow::datatypes::*;
        use $crate::operator::aggregate::cell::{Bool, Bytes, Primitive, Text};
        match $data_type {
            DataType::Int8 => Some($make::<Primitive<Int8Type>>($($arg),*)),
            DataType::Int16 => Some($make::<Primitive<Int16Type>>($($arg),*)),
            DataType::Int32 => Some($make::<Primitive<Int32Type>>($($arg),*)),
            DataType::Int64 => Some($make::<Primitive<Int64Type>>($($arg),*)),
            DataType::UInt8 => Some($make::<Primitive<UInt8Type>>($($arg),*)),
            DataType::UInt16 => Some($make::<Primitive<UInt16Type>>($($arg),*)),
            DataType::UInt32 => Some($make::<Primitive<UInt32Type>>($($arg),*)),
            DataType::UInt64 => Some($make::<Primitive<UInt64Type>>($($arg),*)),
            DataType::Float32 => Some($make::<Primitive<Float32Type>>($($arg),*)),
            DataType::Float64 => Some($make::<Primitive<Float64Type>>($($arg),*)),
            DataType::Date32 => Some($make::<Primitive<Date32Type>>($($arg),*)),
            DataType::Decimal128(..) => Some($make::<Primitive<Decimal128Type>>($($arg),*)),
            DataType::Timestamp(TimeUnit::Second, _) => Some($make::<Primitive<TimestampSecondType>>($($arg),*)),
            DataType::Timestamp(TimeUnit::Millisecond, _) => {
                Some($make::<Primitive<TimestampMillisecondType>>($($arg),*))
            }
            DataType::Timestamp(TimeUnit::Microsecond, _) => {
                Some($make::<Primitive<TimestampMicrosecondType>>($($arg),*))
            }
            DataType::Timestamp(TimeUnit::Nanosecond, _) => {
                Some($make::<Primitive<TimestampNanosecondType>>($($arg),*))
            }
            DataType::Boolean => Some($make::<Bool>($($arg),*)),
            DataType::Utf8 => Some($make::<Text>($($arg),*)),
            DataType::Binary => Some($make::<Bytes>($($arg),*)),
            _ => None,
        }
    }};
}
pub(super) use by_cell;
