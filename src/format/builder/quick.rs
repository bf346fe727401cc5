//! The common values, in as few instructions as can be: what is none of them goes the ways of [`Builder`] that know all.

use std::ops::Range;

use super::{Builder, TEXT_BYTES_MAX, Values};
use crate::format::columns::ColumnType;
use crate::format::number::Short;
use crate::format::when::{Unit, When};

/// Text that is copied whole, with what follows it: most keys are as short.
const SHORT_TEXT: usize = 16;

/// Where many values of a column go that has no nulls so far.
pub enum Quick<'b> {
    /// Doubles.
    Float64(&'b mut Vec<f64>),
    /// Whole numbers.
    Int64(&'b mut Vec<i64>),
    /// Microseconds since 1970, which come as numbers of a unit.
    Time(Unit, &'b mut Vec<i64>),
    /// Text: by [`Builder::push_ascii`].
    Text,
    /// Any other way.
    Other,
}

impl Builder {
    /// As [`Self::push_short`], the most common types first.
    #[inline(always)]
    pub fn push_common(&mut self, number: Short) -> bool {
        match &mut self.values {
            Values::F64(vec) => match number.float64() {
                Some(value) => vec.push(value),
                None => return false,
            },
            Values::I64(vec) => {
                let value = match &self.kind {
                    ColumnType::Timestamp(when) => when.read_short(number),
                    _ => number.int64(),
                };
                match value {
                    Some(value) => vec.push(value),
                    None => return false,
                }
            }
            _ => return self.push_short(number),
        }
        self.there();
        true
    }

    /// Where to put many values that are there and common, if the column has any; room for `rows` of them.
    pub fn quick(&mut self, rows: usize) -> Quick<'_> {
        if self.valid.is_some() {
            return Quick::Other;
        }
        match &mut self.values {
            Values::F64(vec) => {
                vec.reserve(rows);
                Quick::Float64(vec)
            }
            Values::I64(vec) => {
                vec.reserve(rows);
                match &self.kind {
                    ColumnType::Timestamp(When::Unit(unit)) => Quick::Time(*unit, vec),
                    ColumnType::Timestamp(_) => Quick::Other,
                    _ => Quick::Int64(vec),
                }
            }
            Values::Text { .. } => Quick::Text,
            _ => Quick::Other,
        }
    }

    /// ASCII text that stands in `body`. False, and nothing added, where [`Self::push_string`] must say.
    #[inline]
    pub fn push_ascii(&mut self, body: &[u8], text: Range<usize>) -> bool {
        let Values::Text { offsets, bytes } = &mut self.values else {
            return body.get(text).is_some_and(|text| self.push_string(text).is_ok());
        };
        let (start, len) = (bytes.len(), text.len());
        if start + len > TEXT_BYTES_MAX {
            return false;
        }
        // A copy of a constant length is a few instructions, of any other a call.
        match body.get(text.start..).and_then(<[u8]>::first_chunk::<SHORT_TEXT>) {
            Some(chunk) if len <= SHORT_TEXT => {
                bytes.extend_from_slice(chunk);
                bytes.truncate(start + len);
            }
            _ => bytes.extend_from_slice(&body[text]),
        }
        offsets.push((start + len) as i32);
        self.there();
        true
    }
}
