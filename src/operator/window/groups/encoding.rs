//! Keys of rows to bytes, and back to columns.

use std::sync::Arc;

use arrow::array::cast::AsArray;
use arrow::array::{ArrayRef, Int64Array, StringArray};
use arrow::buffer::{Buffer, NullBuffer, OffsetBuffer};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};
use arrow::error::ArrowError;
use arrow::row::{RowConverter, RowParser, Rows};

use super::Groups;
use crate::operator::aggregate::GroupId;

pub(super) enum Encoder {
    /// No `group_by`: one group.
    One,
    /// One text column: its bytes are the key.
    Text,
    /// One column of whole numbers, of this type: the number is the key.
    Whole(DataType),
    /// Anything else, in Arrow's row format.
    Rows(RowConverter, RowParser),
}

/// The keys of some rows.
pub(super) enum Encoded<'c> {
    One,
    Text(&'c StringArray),
    Whole(Int64Array),
    Rows(Rows),
}

impl Encoder {
    pub(super) fn encode<'c>(&self, columns: &'c [ArrayRef]) -> Result<Encoded<'c>, ArrowError> {
        Ok(match self {
            Self::One => Encoded::One,
            Self::Text => Encoded::Text(columns[0].as_string()),
            Self::Whole(_) => Encoded::Whole(cast(&columns[0], &DataType::Int64)?.as_primitive::<Int64Type>().clone()),
            Self::Rows(converter, _) => Encoded::Rows(converter.convert_columns(columns)?),
        })
    }
}

impl Groups {
    /// The key columns of groups.
    pub(in super::super) fn columns(&self, ids: &[GroupId]) -> Result<Vec<ArrayRef>, ArrowError> {
        let key = |id: &GroupId| self.keys.bytes(*id);
        match &self.encoder {
            Encoder::One => Ok(Vec::new()),
            Encoder::Text => Ok(vec![Arc::new(self.texts(ids)?)]),
            Encoder::Whole(data_type) => {
                let whole = |id: &GroupId| {
                    (self.null != Some(*id)).then(|| i64::from_le_bytes(key(id).try_into().expect("eight bytes")))
                };
                Ok(vec![cast(&ids.iter().map(whole).collect::<Int64Array>(), data_type)?])
            }
            Encoder::Rows(converter, parser) => converter.convert_rows(ids.iter().map(|id| parser.parse(key(id)))),
        }
    }

    /// The keys of groups as text: checked to be so once for all of them.
    fn texts(&self, ids: &[GroupId]) -> Result<StringArray, ArrowError> {
        let (mut bytes, mut offsets) = (Vec::new(), Vec::with_capacity(ids.len() + 1));
        offsets.push(0);
        for id in ids {
            bytes.extend_from_slice(self.keys.bytes(*id));
            let end = i32::try_from(bytes.len());
            offsets.push(end.map_err(|_| ArrowError::OffsetOverflowError(bytes.len()))?);
        }
        let null = self.null.filter(|null| ids.contains(null));
        let nulls = null.map(|null| NullBuffer::from_iter(ids.iter().map(|id| *id != null)));
        StringArray::try_new(OffsetBuffer::new(offsets.into()), Buffer::from_vec(bytes), nulls)
    }
}
