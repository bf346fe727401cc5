//! Columns under construction, with a way back.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, BooleanBufferBuilder, Decimal128Array, PrimitiveArray, StringArray,
    TimestampMicrosecondArray,
};
use arrow::buffer::{Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{
    ArrowPrimitiveType, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type,
    UInt32Type, UInt64Type,
};

use crate::format::columns::{Column, ColumnType};
use crate::format::number::{self, Rest, Short};
use crate::format::when::shorten;

mod conversion;
mod quick;

pub use conversion::Conversion;
use conversion::Converted;
pub use quick::Quick;

/// How many bytes of text a column of one batch can hold: Arrow's offsets are 32 bits.
const TEXT_BYTES_MAX: usize = i32::MAX as usize;

/// One column under construction.
pub struct Builder {
    kind: ColumnType,
    values: Values,
    /// Which values are there; `None` as long as all are.
    valid: Option<BooleanBufferBuilder>,
}

enum Values {
    I8(Vec<i8>),
    I16(Vec<i16>),
    I32(Vec<i32>),
    I64(Vec<i64>),
    U8(Vec<u8>),
    U16(Vec<u16>),
    U32(Vec<u32>),
    U64(Vec<u64>),
    F32(Vec<f32>),
    F64(Vec<f64>),
    I128(Vec<i128>),
    Bool(BooleanBufferBuilder),
    Text {
        offsets: Vec<i32>,
        bytes: Vec<u8>,
    },
    /// In a builder of its own, which has the values that come out: the fast ways know nothing of it.
    Converted(Box<Converted>),
}

/// The same for the vector of every primitive variant.
macro_rules! each {
    ($values:expr, $vec:ident => $do:expr, bool $bits:ident => $bool:expr, text $offsets:ident $bytes:ident => $text:expr, converted $inner:ident => $converted:expr) => {
        match $values {
            Values::I8($vec) => $do,
            Values::I16($vec) => $do,
            Values::I32($vec) => $do,
            Values::I64($vec) => $do,
            Values::U8($vec) => $do,
            Values::U16($vec) => $do,
            Values::U32($vec) => $do,
            Values::U64($vec) => $do,
            Values::F32($vec) => $do,
            Values::F64($vec) => $do,
            Values::I128($vec) => $do,
            Values::Bool($bits) => $bool,
            Values::Text { offsets: $offsets, bytes: $bytes } => $text,
            Values::Converted($inner) => $converted,
        }
    };
}

impl Builder {
    /// Of a type, empty.
    pub fn new(kind: ColumnType) -> Self {
        let values = match &kind {
            ColumnType::Int(8) => Values::I8(Vec::new()),
            ColumnType::Int(16) => Values::I16(Vec::new()),
            ColumnType::Int(32) => Values::I32(Vec::new()),
            ColumnType::Int(_) | ColumnType::Timestamp(_) => Values::I64(Vec::new()),
            ColumnType::UInt(8) => Values::U8(Vec::new()),
            ColumnType::UInt(16) => Values::U16(Vec::new()),
            ColumnType::UInt(32) => Values::U32(Vec::new()),
            ColumnType::UInt(_) => Values::U64(Vec::new()),
            ColumnType::Float32 => Values::F32(Vec::new()),
            ColumnType::Float64 => Values::F64(Vec::new()),
            ColumnType::Decimal(..) => Values::I128(Vec::new()),
            ColumnType::Boolean => Values::Bool(BooleanBufferBuilder::new(0)),
            ColumnType::Utf8 | ColumnType::Binary => Values::Text { offsets: vec![0], bytes: Vec::new() },
        };
        Self { kind, values, valid: None }
    }

    /// Of a column.
    pub fn of(column: &Column) -> Self {
        let inner = Self::new(column.kind.clone());
        match &column.conversion {
            None => inner,
            Some(conversion) => Self {
                kind: column.kind.clone(),
                values: Values::Converted(Box::new(Converted::new(inner, conversion.clone()))),
                valid: None,
            },
        }
    }

    /// Its type.
    pub fn kind(&self) -> &ColumnType {
        &self.kind
    }

    /// How many values.
    pub fn len(&self) -> usize {
        each!(
            &self.values, vec => vec.len(), bool bits => bits.len(), text offsets _bytes => offsets.len() - 1,
            converted own => own.inner.len()
        )
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Values that are null because the column cannot hold them.
    pub(super) fn mismatched(&self) -> usize {
        match &self.values {
            Values::Converted(converted) => converted.mismatched.len(),
            _ => 0,
        }
    }

    /// Adds a null for a value that no column can hold, if this one lets it pass.
    pub fn push_mismatch(&mut self) -> bool {
        match &mut self.values {
            Values::Converted(converted) => converted.mismatch(),
            _ => false,
        }
    }

    /// Forgets all but the first `len` values.
    pub fn truncate(&mut self, len: usize) {
        if len >= self.len() {
            return;
        }
        each!(&mut self.values, vec => vec.truncate(len), bool bits => bits.truncate(len), text offsets bytes => {
            offsets.truncate(len + 1);
            bytes.truncate(offsets[len] as usize);
        }, converted own => own.truncate(len));
        if let Some(valid) = &mut self.valid {
            valid.truncate(len);
        }
    }

    /// A value that is not there.
    pub fn push_null(&mut self) {
        if let Values::Converted(converted) = &mut self.values {
            return converted.inner.push_null();
        }
        let len = self.len();
        let valid = self.valid.get_or_insert_with(|| {
            let mut valid = BooleanBufferBuilder::new(len + 1);
            valid.append_n(len, true);
            valid
        });
        valid.append(false);
        each!(&mut self.values, vec => vec.push(Default::default()), bool bits => bits.append(false), text offsets bytes => {
            offsets.push(bytes.len() as i32);
        }, converted _own => ());
    }

    fn there(&mut self) {
        if let Some(valid) = &mut self.valid {
            valid.append(true);
        }
    }

    /// The last value, `count` more times.
    pub fn repeat_last(&mut self, count: usize) -> Result<(), String> {
        let Some(last) = self.len().checked_sub(1) else { return Ok(()) };
        each!(&mut self.values, vec => vec.resize(last + 1 + count, vec[last]), bool bits => {
            let value = bits.get_bit(last);
            bits.append_n(count, value);
        }, text offsets bytes => {
            let (start, end) = (offsets[last] as usize, offsets[last + 1] as usize);
            if bytes.len() + (end - start) * count > TEXT_BYTES_MAX {
                return Err("the batch has no room for so much text".to_owned());
            }
            for _ in 0..count {
                bytes.extend_from_within(start..end);
                offsets.push(bytes.len() as i32);
            }
        }, converted own => return own.inner.repeat_last(count));
        if let Some(valid) = &mut self.valid {
            let value = valid.get_bit(last);
            valid.append_n(count, value);
        }
        Ok(())
    }

    /// True or false; false where the column does not take it, and [`Self::push_truth`] says why.
    pub fn push_bool(&mut self, value: bool) -> bool {
        let Values::Bool(bits) = &mut self.values else {
            return matches!(self.values, Values::Converted(_)) && self.push_truth(value).is_ok();
        };
        bits.append(value);
        self.there();
        true
    }

    /// True or false.
    pub fn push_truth(&mut self, value: bool) -> Result<(), String> {
        if let Values::Converted(converted) = &mut self.values {
            return converted.push_bool(value);
        }
        if self.push_bool(value) { Ok(()) } else { Err(format!("expected {}, got true or false", self.kind)) }
    }

    /// Microseconds since 1970, into a timestamp column.
    pub(super) fn push_micros(&mut self, micros: i64) {
        if let Values::I64(vec) = &mut self.values {
            vec.push(micros);
            self.there();
        }
    }

    /// A short number. False, and nothing added, where only [`Self::push_number`] can tell its value, or what is wrong.
    #[inline]
    pub fn push_short(&mut self, number: Short) -> bool {
        macro_rules! add {
            ($vec:expr, $value:expr) => {{
                let Some(value) = $value else { return false };
                $vec.push(value);
            }};
        }
        macro_rules! int {
            ($vec:expr) => {{
                // An integer is written without point.
                add!($vec, number.int64().and_then(|value| value.try_into().ok()))
            }};
        }
        match &mut self.values {
            Values::F64(vec) => add!(vec, number.float64()),
            Values::I64(vec) => match &self.kind {
                ColumnType::Timestamp(when) => add!(vec, when.read_short(number)),
                _ => int!(vec),
            },
            Values::F32(vec) => add!(vec, number.float32()),
            Values::I8(vec) => int!(vec),
            Values::I16(vec) => int!(vec),
            Values::I32(vec) => int!(vec),
            Values::U8(vec) => int!(vec),
            Values::U16(vec) => int!(vec),
            Values::U32(vec) => int!(vec),
            Values::U64(vec) => int!(vec),
            Values::I128(vec) => add!(vec, decimal(&self.kind, number)),
            Values::Bool(_) | Values::Text { .. } | Values::Converted(_) => return false,
        }
        self.there();
        true
    }

    /// A number as text of the grammar of JSON.
    pub fn push_number(&mut self, text: &[u8]) -> Result<(), String> {
        if let Values::Converted(converted) = &mut self.values {
            return converted.push_number(text);
        }
        let shown = || shorten(&String::from_utf8_lossy(text));
        let wrong = |kind: &ColumnType| format!("{} does not fit {kind}", shown());
        macro_rules! int {
            ($vec:expr) => {{
                match number::integer(text).and_then(|value| value.try_into().ok()) {
                    Some(value) => $vec.push(value),
                    None if text.iter().any(|byte| matches!(byte, b'.' | b'e' | b'E')) => {
                        return Err(format!(
                            "expected a whole number ({}) written without point or exponent, got {}",
                            self.kind,
                            shown()
                        ));
                    }
                    None => return Err(wrong(&self.kind)),
                }
            }};
        }
        if let ColumnType::Timestamp(when) = &self.kind {
            let micros = when.read_number(text)?;
            self.push_micros(micros);
            return Ok(());
        }
        match &mut self.values {
            Values::I8(vec) => int!(vec),
            Values::I16(vec) => int!(vec),
            Values::I32(vec) => int!(vec),
            Values::I64(vec) => int!(vec),
            Values::U8(vec) => int!(vec),
            Values::U16(vec) => int!(vec),
            Values::U32(vec) => int!(vec),
            Values::U64(vec) => int!(vec),
            Values::F32(vec) => vec.push(number::float32(text).ok_or_else(|| wrong(&self.kind))?),
            Values::F64(vec) => vec.push(number::float64(text).ok_or_else(|| wrong(&self.kind))?),
            Values::I128(vec) => {
                let ColumnType::Decimal(precision, scale) = self.kind else { return Err(wrong(&self.kind)) };
                let fits = |whole: i128| whole.unsigned_abs() < 10u128.pow(u32::from(precision));
                let value = number::scaled(text, i32::from(scale));
                let exact = value.filter(|(whole, _, rest)| *rest == Rest::None && fits(*whole));
                vec.push(exact.ok_or_else(|| wrong(&self.kind))?.0);
            }
            Values::Bool(_) | Values::Text { .. } | Values::Converted(_) => {
                return Err(format!("expected {}, got a number", self.kind));
            }
        }
        self.there();
        Ok(())
    }

    /// A string: text, bytes or a time. Never turned into a number or a truth value.
    pub fn push_string(&mut self, text: &[u8]) -> Result<(), String> {
        if let Values::Text { offsets, bytes } = &mut self.values {
            if bytes.len() + text.len() > TEXT_BYTES_MAX {
                return Err("the batch has no room for so much text".to_owned());
            }
            if matches!(self.kind, ColumnType::Utf8) && !text.is_ascii() {
                std::str::from_utf8(text).map_err(|_| "expected UTF-8".to_owned())?;
            }
            bytes.extend_from_slice(text);
            offsets.push(bytes.len() as i32);
            self.there();
            return Ok(());
        }
        if let Values::Converted(converted) = &mut self.values {
            return converted.push_string(text);
        }
        let ColumnType::Timestamp(when) = &self.kind else {
            return Err(format!("expected {}, got a string", self.kind));
        };
        let text = std::str::from_utf8(text).map_err(|_| "expected UTF-8".to_owned())?;
        let micros = when.read_text(text)?;
        self.push_micros(micros);
        Ok(())
    }

    /// Text that stands for a value of whatever type: a capture, a property, a bare payload.
    pub fn push_text(&mut self, text: &[u8]) -> Result<(), String> {
        if let Values::Converted(converted) = &mut self.values {
            return converted.push_text(text);
        }
        if matches!(self.kind, ColumnType::Utf8 | ColumnType::Binary) {
            return self.push_string(text);
        }
        let trimmed = text.trim_ascii();
        match &self.kind {
            ColumnType::Timestamp(_) => self.push_string(trimmed),
            ColumnType::Boolean => {
                let is = |words: [&str; 3]| words.iter().any(|word| trimmed.eq_ignore_ascii_case(word.as_bytes()));
                let (yes, no) = (is(["true", "on", "1"]), is(["false", "off", "0"]));
                if yes || no {
                    self.push_bool(yes);
                    return Ok(());
                }
                let got = String::from_utf8_lossy(trimmed);
                Err(format!("expected true, false, ON, OFF, 1 or 0, got \"{}\"", shorten(&got)))
            }
            _ if number::is_number(trimmed) => self.push_number(trimmed),
            kind => Err(format!("expected {kind}, got \"{}\"", shorten(&String::from_utf8_lossy(trimmed)))),
        }
    }

    /// The values as an array; the builder is empty again.
    pub fn finish(&mut self) -> ArrayRef {
        fn primitive<T: ArrowPrimitiveType>(vec: &mut Vec<T::Native>, nulls: Option<NullBuffer>) -> ArrayRef {
            Arc::new(PrimitiveArray::<T>::new(ScalarBuffer::from(fresh(vec)), nulls))
        }
        let nulls = self.valid.take().map(|mut valid| NullBuffer::new(valid.finish()));
        match &mut self.values {
            Values::I8(vec) => primitive::<Int8Type>(vec, nulls),
            Values::I16(vec) => primitive::<Int16Type>(vec, nulls),
            Values::I32(vec) => primitive::<Int32Type>(vec, nulls),
            Values::I64(vec) if matches!(self.kind, ColumnType::Timestamp(_)) => {
                Arc::new(TimestampMicrosecondArray::new(fresh(vec).into(), nulls).with_timezone("UTC"))
            }
            Values::I64(vec) => primitive::<Int64Type>(vec, nulls),
            Values::U8(vec) => primitive::<UInt8Type>(vec, nulls),
            Values::U16(vec) => primitive::<UInt16Type>(vec, nulls),
            Values::U32(vec) => primitive::<UInt32Type>(vec, nulls),
            Values::U64(vec) => primitive::<UInt64Type>(vec, nulls),
            Values::F32(vec) => primitive::<Float32Type>(vec, nulls),
            Values::F64(vec) => primitive::<Float64Type>(vec, nulls),
            Values::I128(vec) => {
                let array = Decimal128Array::new(fresh(vec).into(), nulls).with_data_type(self.kind.data_type());
                Arc::new(array)
            }
            Values::Converted(converted) => converted.finish(),
            Values::Bool(bits) => {
                let room = BooleanBufferBuilder::new(bits.len());
                let mut bits = std::mem::replace(bits, room);
                Arc::new(BooleanArray::new(bits.finish(), nulls))
            }
            Values::Text { offsets, bytes } => {
                let starts = OffsetBuffer::new(fresh(offsets).into());
                offsets.push(0);
                let bytes = Buffer::from_vec(fresh(bytes));
                match self.kind {
                    ColumnType::Binary => Arc::new(BinaryArray::new(starts, bytes, nulls)),
                    _ => Arc::new(StringArray::new(starts, bytes, nulls)),
                }
            }
        }
    }
}

/// Takes a vector, and leaves one with room for a little more: batches are much alike, but text varies in length, and
/// what grows on the way is copied.
fn fresh<T>(vec: &mut Vec<T>) -> Vec<T> {
    let room = Vec::with_capacity(vec.len() + vec.len() / 8);
    std::mem::replace(vec, room)
}

/// A short number in units of a decimal column, if it has no more digits than the column.
fn decimal(kind: &ColumnType, number: Short) -> Option<i128> {
    let ColumnType::Decimal(precision, scale) = kind else { return None };
    let shift = u32::try_from(*scale).ok()?.checked_sub(number.decimals)?;
    let magnitude = i128::from(number.digits).checked_mul(10i128.checked_pow(shift)?)?;
    let fits = magnitude.unsigned_abs() < 10u128.pow(u32::from(*precision));
    fits.then_some(if number.negative { -magnitude } else { magnitude })
}
