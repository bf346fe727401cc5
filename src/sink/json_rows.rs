//! Rows as JSON objects.

use std::fmt::Write as _;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Decimal128Array, LargeBinaryArray, LargeStringArray,
    PrimitiveArray, RecordBatch, StringArray, StringViewArray,
};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type,
    TimeUnit, TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType,
    UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// The rows of one batch as JSON objects, columns in the order of the batch.
///
/// Whole numbers and decimals are exact however large, other numbers the shortest that read back as the same (NaN and
/// infinities, which JSON has not, are null), times RFC 3339 in UTC with as many digits as they need, bytes base64.
/// Columns are looked up once per batch.
pub struct JsonRows<'a> {
    columns: Vec<(String, Column<'a>)>,
    rows: usize,
}

/// A column by its type, and whether it holds nulls.
struct Column<'a> {
    array: &'a dyn Array,
    cells: Cells<'a>,
}

enum Cells<'a> {
    Null,
    Boolean(&'a BooleanArray),
    Int8(&'a PrimitiveArray<Int8Type>),
    Int16(&'a PrimitiveArray<Int16Type>),
    Int32(&'a PrimitiveArray<Int32Type>),
    Int64(&'a PrimitiveArray<Int64Type>),
    UInt8(&'a PrimitiveArray<UInt8Type>),
    UInt16(&'a PrimitiveArray<UInt16Type>),
    UInt32(&'a PrimitiveArray<UInt32Type>),
    UInt64(&'a PrimitiveArray<UInt64Type>),
    Float32(&'a PrimitiveArray<Float32Type>),
    Float64(&'a PrimitiveArray<Float64Type>),
    Decimal(&'a Decimal128Array),
    Utf8(&'a StringArray),
    LargeUtf8(&'a LargeStringArray),
    Utf8View(&'a StringViewArray),
    Binary(&'a BinaryArray),
    LargeBinary(&'a LargeBinaryArray),
    /// Values, how many of them make a second, and how many digits that is.
    Timestamp(&'a [i64], i64, usize),
    Date(&'a PrimitiveArray<Date32Type>),
    /// Anything else: as Arrow prints it, in quotes.
    Other(ArrayFormatter<'a>),
}

impl<'a> JsonRows<'a> {
    /// Of a batch.
    pub fn new(batch: &'a RecordBatch) -> Self {
        let column = |(field, array): (&arrow::datatypes::FieldRef, &'a ArrayRef)| {
            let mut key = String::with_capacity(field.name().len() + 3);
            push_text(&mut key, field.name());
            key.push(':');
            (key, Column { array: array.as_ref(), cells: Cells::of(array.as_ref()) })
        };
        let schema = batch.schema_ref();
        Self { columns: schema.fields().iter().zip(batch.columns()).map(column).collect(), rows: batch.num_rows() }
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.rows
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// Appends one row.
    pub fn write(&self, row: usize, out: &mut String) {
        out.push('{');
        for (index, (key, column)) in self.columns.iter().enumerate() {
            if index > 0 {
                out.push(',');
            }
            out.push_str(key);
            if column.array.is_null(row) {
                out.push_str("null");
            } else {
                column.cells.write(row, out);
            }
        }
        out.push('}');
    }

    /// One row, as text of its own.
    pub fn row(&self, row: usize) -> String {
        let mut out = String::new();
        self.write(row, &mut out);
        out
    }

    /// Appends every row, each with a line feed.
    pub fn write_lines(&self, out: &mut String) {
        for row in 0..self.rows {
            self.write(row, out);
            out.push('\n');
        }
    }

    /// Appends all rows as one array.
    pub fn write_array(&self, out: &mut String) {
        out.push('[');
        for row in 0..self.rows {
            if row > 0 {
                out.push(',');
            }
            self.write(row, out);
        }
        out.push(']');
    }
}

impl<'a> Cells<'a> {
    fn of(array: &'a dyn Array) -> Self {
        match array.data_type() {
            DataType::Null => Self::Null,
            DataType::Boolean => Self::Boolean(array.as_boolean()),
            DataType::Int8 => Self::Int8(array.as_primitive()),
            DataType::Int16 => Self::Int16(array.as_primitive()),
            DataType::Int32 => Self::Int32(array.as_primitive()),
            DataType::Int64 => Self::Int64(array.as_primitive()),
            DataType::UInt8 => Self::UInt8(array.as_primitive()),
            DataType::UInt16 => Self::UInt16(array.as_primitive()),
            DataType::UInt32 => Self::UInt32(array.as_primitive()),
            DataType::UInt64 => Self::UInt64(array.as_primitive()),
            DataType::Float32 => Self::Float32(array.as_primitive()),
            DataType::Float64 => Self::Float64(array.as_primitive()),
            DataType::Decimal128(..) => Self::Decimal(array.as_primitive::<Decimal128Type>()),
            DataType::Utf8 => Self::Utf8(array.as_string()),
            DataType::LargeUtf8 => Self::LargeUtf8(array.as_string()),
            DataType::Utf8View => Self::Utf8View(array.as_string_view()),
            DataType::Binary => Self::Binary(array.as_binary()),
            DataType::LargeBinary => Self::LargeBinary(array.as_binary()),
            DataType::Date32 => Self::Date(array.as_primitive()),
            DataType::Timestamp(unit, _) => Self::timestamp(array, *unit),
            _ => Self::other(array),
        }
    }

    fn timestamp(array: &'a dyn Array, unit: TimeUnit) -> Self {
        match unit {
            TimeUnit::Second => Self::Timestamp(array.as_primitive::<TimestampSecondType>().values(), 1, 0),
            TimeUnit::Millisecond => {
                Self::Timestamp(array.as_primitive::<TimestampMillisecondType>().values(), 1_000, 3)
            }
            TimeUnit::Microsecond => {
                Self::Timestamp(array.as_primitive::<TimestampMicrosecondType>().values(), 1_000_000, 6)
            }
            TimeUnit::Nanosecond => {
                Self::Timestamp(array.as_primitive::<TimestampNanosecondType>().values(), 1_000_000_000, 9)
            }
        }
    }

    fn other(array: &'a dyn Array) -> Self {
        static OPTIONS: FormatOptions<'static> = FormatOptions::new();
        ArrayFormatter::try_new(array, &OPTIONS).map_or(Self::Null, Self::Other)
    }

    /// Appends a cell that is not null.
    fn write(&self, row: usize, out: &mut String) {
        match self {
            Self::Null => out.push_str("null"),
            Self::Boolean(array) => out.push_str(if array.value(row) { "true" } else { "false" }),
            Self::Int8(array) => push(out, array.value(row)),
            Self::Int16(array) => push(out, array.value(row)),
            Self::Int32(array) => push(out, array.value(row)),
            Self::Int64(array) => push(out, array.value(row)),
            Self::UInt8(array) => push(out, array.value(row)),
            Self::UInt16(array) => push(out, array.value(row)),
            Self::UInt32(array) => push(out, array.value(row)),
            Self::UInt64(array) => push(out, array.value(row)),
            Self::Float32(array) => {
                let value = array.value(row);
                if value.is_finite() { push_debug(out, value) } else { out.push_str("null") }
            }
            Self::Float64(array) => {
                let value = array.value(row);
                if value.is_finite() { push_debug(out, value) } else { out.push_str("null") }
            }
            Self::Decimal(array) => push_decimal(out, array.value(row), array.scale()),
            Self::Utf8(array) => push_text(out, array.value(row)),
            Self::LargeUtf8(array) => push_text(out, array.value(row)),
            Self::Utf8View(array) => push_text(out, array.value(row)),
            Self::Binary(array) => push_base64(out, array.value(row)),
            Self::LargeBinary(array) => push_base64(out, array.value(row)),
            Self::Timestamp(values, per_second, digits) => {
                out.push('"');
                push_time(out, values[row], *per_second, *digits);
                out.push('"');
            }
            Self::Date(array) => {
                out.push('"');
                push_date(out, i64::from(array.value(row)));
                out.push('"');
            }
            Self::Other(formatter) => push_text(out, &formatter.value(row).to_string()),
        }
    }
}

fn push(out: &mut String, value: impl std::fmt::Display) {
    write!(out, "{value}").expect("writing to a string never fails");
}

/// `{:?}` of a float is the shortest text that reads back as the same, with an exponent where that is shorter.
fn push_debug(out: &mut String, value: impl std::fmt::Debug) {
    write!(out, "{value:?}").expect("writing to a string never fails");
}

fn push_base64(out: &mut String, bytes: &[u8]) {
    out.push('"');
    STANDARD.encode_string(bytes, out);
    out.push('"');
}

fn push_decimal(out: &mut String, value: i128, scale: i8) {
    if value < 0 {
        out.push('-');
    }
    let digits = value.unsigned_abs();
    let Ok(places) = usize::try_from(scale) else {
        push(out, digits);
        (0..scale.unsigned_abs()).for_each(|_| out.push('0'));
        return;
    };
    // 10^38 is the greatest power of ten there is.
    let unit = 10u128.pow(u32::try_from(places.min(38)).unwrap_or(38));
    push(out, digits / unit);
    if places > 0 {
        write!(out, ".{:0places$}", digits % unit).expect("writing to a string never fails");
    }
}

/// Appends text in quotes, escaped.
pub(crate) fn push_text(out: &mut String, text: &str) {
    out.push('"');
    let mut plain_from = 0;
    for (index, byte) in text.bytes().enumerate() {
        if byte >= 0x20 && byte != b'"' && byte != b'\\' {
            continue;
        }
        out.push_str(&text[plain_from..index]);
        plain_from = index + 1;
        match byte {
            b'"' => out.push_str("\\\""),
            b'\\' => out.push_str("\\\\"),
            b'\n' => out.push_str("\\n"),
            b'\r' => out.push_str("\\r"),
            b'\t' => out.push_str("\\t"),
            _ => write!(out, "\\u{byte:04x}").expect("writing to a string never fails"),
        }
    }
    out.push_str(&text[plain_from..]);
    out.push('"');
}

/// Appends a time as RFC 3339 in UTC, without trailing noughts.
fn push_time(out: &mut String, value: i64, per_second: i64, digits: usize) {
    let (seconds, fraction) = (value.div_euclid(per_second), value.rem_euclid(per_second));
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    push_date(out, days);
    write!(out, "T{:02}:{:02}:{:02}", second / 3_600, second / 60 % 60, second % 60)
        .expect("writing to a string never fails");
    if fraction > 0 {
        write!(out, ".{fraction:0digits$}").expect("writing to a string never fails");
        out.truncate(out.trim_end_matches('0').len());
    }
    out.push('Z');
}

/// Appends the date of a day since the Unix epoch. Years beyond four digits have six and a sign, as in
/// ECMAScript and ISO 8601.
pub(crate) fn push_date(out: &mut String, days: i64) {
    let (year, month, day) = civil(days);
    if (0..=9999).contains(&year) {
        write!(out, "{year:04}-{month:02}-{day:02}")
    } else {
        write!(out, "{year:+07}-{month:02}-{day:02}")
    }
    .expect("writing to a string never fails");
}

/// Year, month and day of a day since the Unix epoch, in the Gregorian calendar without end: Howard Hinnant's
/// `civil_from_days`, in eras of 400 years that begin in March.
fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let (era, of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let march = (5 * of_year + 2) / 153;
    let (day, month) = (of_year - (153 * march + 2) / 5 + 1, if march < 10 { march + 3 } else { march - 9 });
    (year + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Float32Array, Float64Array, Int64Array, TimestampMicrosecondArray, UInt64Array};
    use arrow::datatypes::{Field, Schema};

    use super::*;

    fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
        let fields: Vec<_> =
            columns.iter().map(|(name, array)| Field::new(*name, array.data_type().clone(), true)).collect();
        RecordBatch::try_new(Arc::new(Schema::new(fields)), columns.into_iter().map(|(_, array)| array).collect())
            .unwrap()
    }

    #[test]
    fn every_type_is_written_exactly() {
        let rows = batch(vec![
            ("i", Arc::new(Int64Array::from(vec![Some(i64::MAX), None]))),
            ("u", Arc::new(UInt64Array::from(vec![u64::MAX, 0]))),
            ("f", Arc::new(Float64Array::from(vec![0.1, f64::NAN]))),
            ("g", Arc::new(Float32Array::from(vec![0.1, f32::INFINITY]))),
            ("b", Arc::new(BooleanArray::from(vec![true, false]))),
            ("s", Arc::new(StringArray::from(vec!["a\"\\\n\u{1}ü", ""]))),
            ("x", Arc::new(BinaryArray::from(vec![b"\xff\x00".as_ref(), b""]))),
            ("t", Arc::new(TimestampMicrosecondArray::from(vec![1_500_000, -1]).with_timezone("UTC"))),
            ("d", Arc::new(Decimal128Array::from(vec![-5, 12_345]).with_precision_and_scale(10, 2).unwrap())),
        ]);
        let json = JsonRows::new(&rows);
        assert_eq!(
            json.row(0),
            "{\"i\":9223372036854775807,\"u\":18446744073709551615,\"f\":0.1,\"g\":0.1,\"b\":true,\
             \"s\":\"a\\\"\\\\\\n\\u0001ü\",\"x\":\"/wA=\",\"t\":\"1970-01-01T00:00:01.5Z\",\"d\":-0.05}"
        );
        assert_eq!(
            json.row(1),
            "{\"i\":null,\"u\":0,\"f\":null,\"g\":null,\"b\":false,\"s\":\"\",\"x\":\"\",\
             \"t\":\"1969-12-31T23:59:59.999999Z\",\"d\":123.45}"
        );
        let mut lines = String::new();
        json.write_lines(&mut lines);
        assert_eq!(lines, format!("{}\n{}\n", json.row(0), json.row(1)));
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (days, expected) in [
            (0, "1970-01-01"),
            (-1, "1969-12-31"),
            (11_016, "2000-02-29"),
            (20_782, "2026-11-25"),
            (2_932_896, "9999-12-31"),
            (2_932_897, "+010000-01-01"),
            (-719_528, "0000-01-01"),
            (-719_529, "-000001-12-31"),
        ] {
            let mut out = String::new();
            push_date(&mut out, days);
            assert_eq!(out, expected);
        }
    }

    proptest::proptest! {
        #[test]
        fn what_is_written_reads_back(text in ".*", number: f64, whole: i64) {
            let rows = batch(vec![
                ("k\"", Arc::new(StringArray::from(vec![text.as_str()])) as ArrayRef),
                ("f", Arc::new(Float64Array::from(vec![number]))),
                ("i", Arc::new(Int64Array::from(vec![whole]))),
                ("t", Arc::new(TimestampMicrosecondArray::from(vec![whole]))),
            ]);
            let read: serde_json::Value = serde_json::from_str(&JsonRows::new(&rows).row(0)).unwrap();
            proptest::prop_assert_eq!(read["k\""].as_str(), Some(text.as_str()));
            proptest::prop_assert_eq!(read["i"].as_i64(), Some(whole));
            if let Ok(at) = jiff::Timestamp::from_microsecond(whole) {
                let expected = at.to_string();
                proptest::prop_assert_eq!(read["t"].as_str(), Some(expected.as_str()));
            }
        }
    }
}
