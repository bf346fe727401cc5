//! The declared columns of a source: `[sources.NAME.columns]`, and the captures of its topics.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use crate::component::{Fault, Name};
use crate::flow::schema::timestamp_type;
use crate::format::path::Path;
use crate::format::when::When;

/// The columns of a source, in order: declared ones first, then the topic's captures that are not declared, then
/// `arrival` where no other column is the event time.
#[derive(Clone, Debug)]
pub struct Columns {
    /// All of them.
    pub columns: Vec<Column>,
    /// Index of the event-time column.
    pub time: usize,
}

/// One column.
#[derive(Clone, Debug)]
pub struct Column {
    /// Its name, and where it is declared.
    pub name: Name,
    /// Its type.
    pub kind: ColumnType,
    /// Where its values come from.
    pub from: From,
    /// A payload without it has no rows.
    pub required: bool,
}

/// The types that a column can be declared with.
#[derive(Clone, Debug)]
pub enum ColumnType {
    /// Text.
    Utf8,
    /// True or false.
    Boolean,
    /// Whole numbers with a sign: 8, 16, 32 or 64 bits.
    Int(u8),
    /// Whole numbers without: 8, 16, 32 or 64 bits.
    UInt(u8),
    /// IEEE 754 single precision.
    Float32,
    /// IEEE 754 double precision.
    Float64,
    /// Exact decimal: digits in all, digits after the point.
    Decimal(u8, i8),
    /// A time, and how it is written.
    Timestamp(When),
    /// Bytes.
    Binary,
}

/// Where the values of a column come from.
#[derive(Clone, Debug)]
pub enum From {
    /// The payload, at a path.
    Payload(Path),
    /// The topic: the capture of this index.
    Capture(usize),
    /// The whole topic.
    Topic,
    /// The quality of service of the delivery.
    Qos,
    /// Whether the broker had retained it.
    Retained,
    /// The arrival time.
    Arrival,
    /// The MQTT 5 user property of this name.
    Property(String),
}

impl ColumnType {
    /// The Arrow type.
    pub fn data_type(&self) -> DataType {
        match self {
            Self::Utf8 => DataType::Utf8,
            Self::Boolean => DataType::Boolean,
            Self::Int(8) => DataType::Int8,
            Self::Int(16) => DataType::Int16,
            Self::Int(32) => DataType::Int32,
            Self::Int(_) => DataType::Int64,
            Self::UInt(8) => DataType::UInt8,
            Self::UInt(16) => DataType::UInt16,
            Self::UInt(32) => DataType::UInt32,
            Self::UInt(_) => DataType::UInt64,
            Self::Float32 => DataType::Float32,
            Self::Float64 => DataType::Float64,
            Self::Decimal(precision, scale) => DataType::Decimal128(*precision, *scale),
            Self::Timestamp(_) => timestamp_type(),
            Self::Binary => DataType::Binary,
        }
    }
}

impl Columns {
    /// The Arrow schema: a column that is not required may be null.
    pub fn schema(&self) -> SchemaRef {
        let field = |column: &Column| Field::new(&column.name.text, column.kind.data_type(), !column.required);
        Arc::new(Schema::new(self.columns.iter().map(field).collect::<Vec<_>>()))
    }
}

/// Reads `[sources.NAME.columns]`.
///
/// `captures` are the names of the topic's captures, `time` is `time.column` of the source if it is set. Faults are
/// left in the settings; `None` where there are any.
pub fn read(
    settings: Option<crate::component::Settings>,
    captures: &[String],
    time: Option<&Name>,
) -> Result<Columns, Vec<Fault>> {
    let _ = (settings, captures, time);
    Err(Vec::new())
}
