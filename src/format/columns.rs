//! The declared columns of a source: `[sources.NAME.columns]`, and the captures of its topics.

use std::fmt;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use crate::component::{Fault, Name, Node, Settings, Value};
use crate::flow::schema::timestamp_type;
use crate::flow::topic::Topics;
use crate::format::builder::Conversion;
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
    /// The patterns whose captures are columns.
    pub topics: Topics,
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
    /// What becomes of its values on their way.
    pub conversion: Option<Conversion>,
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
    /// The payload within the payload (`$inner`), at a path.
    Inner(Path),
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
    /// Those in which a value that does not fit is null.
    pub fn lenient(&self) -> impl Iterator<Item = usize> {
        let lenient = |column: &Column| column.conversion.as_ref().is_some_and(Conversion::is_lenient);
        self.columns.iter().enumerate().filter_map(move |(index, column)| lenient(column).then_some(index))
    }

    /// The Arrow schema: a column that is not required may be null.
    pub fn schema(&self) -> SchemaRef {
        let field = |column: &Column| Field::new(&column.name.text, column.kind.data_type(), !column.required);
        Arc::new(Schema::new(self.columns.iter().map(field).collect::<Vec<_>>()))
    }
}

/// The column that holds arrival times where no other column is the event time.
const ARRIVAL: &str = "arrival";

/// The names of the types, for messages.
const TYPES: [&str; 15] = [
    "utf8",
    "boolean",
    "int8",
    "int16",
    "int32",
    "int64",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
    "float32",
    "float64",
    "decimal(p,s)",
    "timestamp",
    "binary",
];

/// Reads `[sources.NAME.columns]`.
///
/// `time` is `time.column` of the source if it is set; `implied` is the payload column of a format that has one where
/// none is declared. The error holds the faults that are not in the settings already; it may be empty.
pub fn read(
    settings: Option<Settings>,
    topics: &Topics,
    time: Option<&Name>,
    implied: Option<(&str, ColumnType)>,
) -> Result<Columns, Vec<Fault>> {
    let mut faults = Vec::new();
    let mut columns: Vec<Column> = Vec::new();
    let before = settings.as_ref().map_or(0, Settings::faults_len);
    let at = settings.as_ref().map_or(0..0, |settings| settings.at.clone());
    let made = |text: &str| Name { text: text.to_owned(), at: at.clone(), expanded: false };
    let mut settings = settings;
    for (name, node) in settings.as_mut().map(Settings::rest).unwrap_or_default() {
        let is_time = time.is_some_and(|time| time.text == name.text);
        let settings = settings.as_ref().expect("its entries are at hand");
        columns.extend(column(settings, name, node, topics, is_time, &mut faults));
    }
    let failed = |faults: &[Fault]| !faults.is_empty() || settings.as_ref().map_or(0, Settings::faults_len) > before;
    if let Some((name, kind)) = implied.filter(|_| !failed(&faults))
        && !columns.iter().any(|column| matches!(column.from, From::Payload(_)))
        && !columns.iter().any(|column| column.name.text == name)
    {
        let from = From::Payload(Path::field(name));
        columns.push(Column { name: made(name), kind, from, required: true, conversion: None });
    }
    for (index, capture) in topics.captures().iter().enumerate() {
        match columns.iter().find(|column| column.name.text == *capture) {
            None => columns.push(Column {
                name: made(capture),
                kind: ColumnType::Utf8,
                from: From::Capture(index),
                required: false,
                conversion: None,
            }),
            Some(column) if matches!(column.from, From::Capture(_)) => (),
            Some(column) => faults.push(
                column.name.fault(format!("column `{capture}` is also a capture of the topic: rename one of the two")),
            ),
        }
    }
    let index = match time {
        Some(time) => event_time(&columns, time, failed(&faults), &mut faults),
        None => arrival(&mut columns, made(ARRIVAL), &mut faults),
    };
    if failed(&faults) { Err(faults) } else { Ok(Columns { columns, time: index, topics: topics.clone() }) }
}

/// The index of the declared time column. A fault for its absence only where all columns could be read.
fn event_time(columns: &[Column], time: &Name, failed: bool, faults: &mut Vec<Fault>) -> usize {
    let Some(index) = columns.iter().position(|column| column.name.text == time.text) else {
        if !failed {
            let fault = time.fault(format!("time column `{}` is not declared", time.text));
            faults.push(fault.nearest(&time.text, columns.iter().map(|column| column.name.text.as_str())));
        }
        return 0;
    };
    if !matches!(columns[index].kind, ColumnType::Timestamp(_)) {
        let what = format!("time column `{}`: expected type timestamp, got {}", time.text, columns[index].kind);
        faults.push(columns[index].name.fault(what));
    } else if !columns[index].required {
        let what = format!("time column `{}` must be required: a row without a time has no window", time.text);
        faults.push(columns[index].name.fault(what));
    }
    index
}

/// The index of the arrival column, which is added where it is not declared.
fn arrival(columns: &mut Vec<Column>, name: Name, faults: &mut Vec<Fault>) -> usize {
    if let Some(index) = columns.iter().position(|column| matches!(column.from, From::Arrival)) {
        columns[index].required = true;
        return index;
    }
    if let Some(clash) = columns.iter().find(|column| column.name.text == ARRIVAL) {
        faults.push(
            clash
                .name
                .fault("column `arrival` clashes with the arrival time, which is the event time here")
                .help("rename it, or set `time.column`"),
        );
    }
    let kind = ColumnType::Timestamp(When::Rfc3339 { zone: None });
    columns.push(Column { name, kind, from: From::Arrival, required: true, conversion: None });
    columns.len() - 1
}

/// One entry. `None` where it is at fault.
fn column(
    settings: &Settings,
    name: Name,
    node: Node,
    topics: &Topics,
    is_time: bool,
    faults: &mut Vec<Fault>,
) -> Option<Column> {
    let before = (settings.faults_len(), faults.len());
    let (kind, mut table) = match &node.value {
        Value::String(text) => (Some(Name { text: text.clone(), at: node.at, expanded: node.expanded }), None),
        Value::Table(_) => {
            let mut table = settings.as_table(&name.text, node)?;
            (table.required::<Name>("type"), Some(table))
        }
        other => {
            let what = format!("column `{}`: expected a type or a table, got {}", name.text, other.type_name());
            faults.push(Fault::new(node.at, what));
            return None;
        }
    };
    let mut setting = |key| table.as_mut().and_then(|table| table.optional::<Name>(key));
    let (path, from, unit, zone) = (setting("path"), setting("from"), setting("unit"), setting("zone"));
    let required = table.as_mut().and_then(|table| table.optional::<bool>("required")).unwrap_or(is_time);
    let kind = kind.and_then(|kind| column_type(&kind, unit.as_ref(), zone.as_ref(), faults));
    let conversion = match (&mut table, &kind) {
        (Some(table), Some(kind)) => Conversion::read(table, &name, kind, required),
        _ => None,
    };
    if let Some(table) = table.as_mut().filter(|_| kind.is_some()) {
        table.finish();
    }
    let origin = origin(&name, from.as_ref(), path.as_ref(), topics, faults);
    if let (Some(kind), Some(origin)) = (&kind, &origin)
        && let Some(expected) = misfit(kind, origin)
    {
        faults.push(name.fault(format!("column `{}`: expected type {expected}, got {kind}", name.text)));
    }
    if let (Some(From::Qos | From::Retained | From::Arrival), Some(_)) = (&origin, &conversion) {
        let what = format!("column `{}`: no device writes its values, so there is nothing to convert", name.text);
        faults.push(name.fault(what));
    }
    if before != (settings.faults_len(), faults.len()) {
        return None;
    }
    Some(Column { name, kind: kind?, from: origin?, required, conversion })
}

/// The type that an origin needs, where `kind` is another.
fn misfit(kind: &ColumnType, origin: &From) -> Option<&'static str> {
    let (fits, expected) = match origin {
        From::Topic => (matches!(kind, ColumnType::Utf8 | ColumnType::Binary), "utf8 or binary"),
        From::Qos => (matches!(kind, ColumnType::Int(_) | ColumnType::UInt(_)), "uint8"),
        From::Retained => (matches!(kind, ColumnType::Boolean), "boolean"),
        From::Arrival => (matches!(kind, ColumnType::Timestamp(_)), "timestamp"),
        From::Payload(_) | From::Inner(_) | From::Capture(_) | From::Property(_) => return None,
    };
    (!fits).then_some(expected)
}

fn origin(
    name: &Name,
    from: Option<&Name>,
    path: Option<&Name>,
    topics: &Topics,
    faults: &mut Vec<Fault>,
) -> Option<From> {
    let capture = topics.captures().iter().position(|capture| *capture == name.text);
    let origin = match from.map(|from| from.text.as_str()) {
        None => capture.filter(|_| path.is_none()).map(From::Capture),
        Some("payload") => None,
        Some("topic") => Some(From::Topic),
        Some("qos") => Some(From::Qos),
        Some("retained") => Some(From::Retained),
        Some("arrival") => Some(From::Arrival),
        Some(other) => match other.strip_prefix("property:").filter(|property| !property.is_empty()) {
            Some(property) => Some(From::Property(property.to_owned())),
            None => {
                let what = format!(
                    "`from`: expected payload, topic, qos, retained, arrival or property:NAME, got \"{other}\""
                );
                let known = ["payload", "topic", "qos", "retained", "arrival", "property:NAME"];
                faults.push(from?.fault(what).nearest(other, known));
                return None;
            }
        },
    };
    match (origin, path) {
        (Some(_), Some(path)) => {
            faults.push(path.fault("`path` leads into the payload, but `from` names another origin"));
            None
        }
        (Some(origin), None) => Some(origin),
        (None, None) => Some(From::Payload(Path::field(&name.text))),
        (None, Some(path)) => {
            let inner = path.text.strip_prefix("$inner").filter(|rest| rest.is_empty() || rest.starts_with(['.', '[']));
            let read = match inner {
                Some(rest) => Path::parse(&format!("${rest}")).map(From::Inner),
                None => Path::parse(&path.text).map(From::Payload),
            };
            read.map_err(|why| faults.push(path.fault(why))).ok()
        }
    }
}

fn column_type(kind: &Name, unit: Option<&Name>, zone: Option<&Name>, faults: &mut Vec<Fault>) -> Option<ColumnType> {
    let text = kind.text.as_str();
    if text == "timestamp" {
        let written = unit.map_or("rfc3339", |unit| unit.text.as_str());
        let when = When::parse(written, zone.map(|zone| zone.text.as_str()));
        let place = unit.or(zone).unwrap_or(kind);
        return when.map(ColumnType::Timestamp).map_err(|why| faults.push(place.fault(why))).ok();
    }
    for setting in unit.into_iter().chain(zone) {
        faults.push(setting.fault(format!("`unit` and `zone` go with type timestamp, not with {text}")));
    }
    if let Some(inner) = text.strip_prefix("decimal(").and_then(|rest| rest.strip_suffix(')')) {
        let parts = inner.split_once(',').map(|(p, s)| (p.trim().parse::<u8>(), s.trim().parse::<i8>()));
        if let Some((Ok(precision @ 1..=38), Ok(scale))) = parts
            && (0..=precision as i8).contains(&scale)
        {
            return Some(ColumnType::Decimal(precision, scale));
        }
        faults.push(kind.fault(format!("type `{text}`: expected decimal(p,s) with p from 1 to 38 and s from 0 to p")));
        return None;
    }
    Some(match text {
        "utf8" => ColumnType::Utf8,
        "boolean" => ColumnType::Boolean,
        "int8" => ColumnType::Int(8),
        "int16" => ColumnType::Int(16),
        "int32" => ColumnType::Int(32),
        "int64" => ColumnType::Int(64),
        "uint8" => ColumnType::UInt(8),
        "uint16" => ColumnType::UInt(16),
        "uint32" => ColumnType::UInt(32),
        "uint64" => ColumnType::UInt(64),
        "float32" => ColumnType::Float32,
        "float64" => ColumnType::Float64,
        "binary" => ColumnType::Binary,
        _ => {
            let mut fault = kind.fault(format!("unknown type `{text}`")).nearest(text, TYPES);
            fault.help = fault.help.or_else(|| Some(format!("known: {}", TYPES.join(", "))));
            faults.push(fault);
            return None;
        }
    })
}

impl fmt::Display for ColumnType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Utf8 => f.write_str("utf8"),
            Self::Boolean => f.write_str("boolean"),
            Self::Int(bits) => write!(f, "int{bits}"),
            Self::UInt(bits) => write!(f, "uint{bits}"),
            Self::Float32 => f.write_str("float32"),
            Self::Float64 => f.write_str("float64"),
            Self::Decimal(precision, scale) => write!(f, "decimal({precision},{scale})"),
            Self::Timestamp(_) => f.write_str("timestamp"),
            Self::Binary => f.write_str("binary"),
        }
    }
}
