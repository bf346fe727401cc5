//! The `influx` format: [line protocol](https://docs.influxdata.com/influxdb/v2/reference/syntax/line-protocol/), one row a
//! line, one line or many a payload.
//!
//! ```toml
//! [sources.telegraf.decode]
//! format = "influx"
//! extra = "count"                  # fields and tags that no column is declared for: "ignore", "count" or "dead_letter"
//! max_bytes = "1MiB"               # these, and how it is packed: see the `reader` module
//!
//! [sources.telegraf.columns]
//! time = { type = "timestamp", unit = "ns", path = "$.time" }    # its unit is the precision of the lines
//! measurement = { type = "utf8", path = "$.measurement" }
//! host = { type = "utf8", path = "$.tags.host" }
//! usage = { type = "float64", path = "$.fields.usage_idle" }
//! site = "utf8"                    # the field of this name; where a line has none, the tag
//! ```
//!
//! `cpu,host=a\ b usage_idle=97.5,n=4i,up=t,note="x y" 1709207264000000000` is a row. A line without a time has the arrival.
//! Integers (`4i`, `4u`) are no floats and the reverse, but any number goes into a column that holds it. Blank lines and
//! those that begin with `#` are passed over. A payload with anything wrong has no rows; messages name the line.

use crate::component::{Fault, Kind, Settings};
use crate::flow::payload::Payload;
use crate::format::columns::{ColumnType, Columns, From};
use crate::format::path::Step;
use crate::format::reader::{Common, Limits, Reader};
use crate::format::rows::Rows;
use crate::format::{Decoder, DecoderSpec, Extra, Malformed};

mod line;

use line::{Line, Value};

/// `format = "influx"`.
pub const KIND: Kind<dyn DecoderSpec> =
    Kind { name: "influx", about: "InfluxDB line protocol, a row for each line", parse };

#[derive(Debug)]
struct Influx {
    extra: Extra,
    common: Common,
}

fn parse(settings: &mut Settings) -> Option<Box<dyn DecoderSpec>> {
    Some(Box::new(Influx { extra: Extra::read(settings), common: Common::read(settings) }))
}

/// Where a column finds its value.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    Measurement,
    Time,
    Tag(String),
    Field(String),
    /// The field, or the tag.
    Any(String),
}

fn place(steps: &[Step]) -> Option<Place> {
    match steps {
        [Step::Field(name)] if name == "measurement" => Some(Place::Measurement),
        [Step::Field(name)] if name == "time" => Some(Place::Time),
        [Step::Field(of), Step::Field(name)] if of == "tags" => Some(Place::Tag(name.clone())),
        [Step::Field(of), Step::Field(name)] if of == "fields" => Some(Place::Field(name.clone())),
        [Step::Field(name)] => Some(Place::Any(name.clone())),
        _ => None,
    }
}

impl DecoderSpec for Influx {
    fn check(&self, columns: &Columns) -> Vec<Fault> {
        let mut faults = Vec::new();
        for column in &columns.columns {
            let From::Payload(path) = &column.from else { continue };
            match place(&path.steps) {
                None => {
                    let what = format!(
                        "column `{}`: a line has `$.measurement`, `$.time`, `$.tags.NAME` and `$.fields.NAME`",
                        column.name.text
                    );
                    faults.push(column.name.fault(what));
                }
                Some(Place::Time) if !matches!(column.kind, ColumnType::Timestamp(_) | ColumnType::Int(64)) => {
                    let what = format!("column `{}`: the time of a line is a timestamp", column.name.text);
                    faults.push(column.name.fault(what).help("a field of this name is `$.fields.time`"));
                }
                Some(_) => (),
            }
        }
        faults
    }

    fn build(&self, columns: &Columns) -> Box<dyn Decoder> {
        let wanted = columns.columns.iter().enumerate().filter_map(|(column, of)| match &of.from {
            From::Payload(path) => place(&path.steps).map(|place| (column, place)),
            _ => None,
        });
        let reader = InfluxReader {
            extra: self.extra,
            limits: self.common.limits,
            wanted: wanted.collect(),
            line: Line::default(),
            extra_fields: 0,
        };
        self.common.decoder(columns, reader)
    }
}

struct InfluxReader {
    extra: Extra,
    limits: Limits,
    wanted: Vec<(usize, Place)>,
    line: Line,
    extra_fields: u64,
}

impl Reader for InfluxReader {
    fn read(&mut self, payload: &Payload<'_>, rows: &mut Rows) -> Result<usize, Malformed> {
        self.extra_fields = 0;
        let (body, mut at, mut count) = (payload.body, 0, 0);
        while at < body.len() {
            let start = at;
            let begun = body[at..].trim_ascii_start();
            at = body.len() - begun.len();
            if begun.is_empty() {
                break;
            }
            if begun[0] == b'#' {
                at += memchr::memchr(b'\n', begun).unwrap_or(begun.len());
                continue;
            }
            let wrong = |why: String| {
                let line = crate::format::reader::line_of(body, body.len() - begun.len());
                Malformed { at: None, why: format!("line {line}: {why}") }
            };
            self.limits.check_rows(count + 1)?;
            at += self.line.parse(begun).map_err(wrong)?;
            self.row(payload, begun, rows.len() + count, rows).map_err(wrong)?;
            count += 1;
            debug_assert!(at > start, "it goes on");
        }
        Ok(count)
    }

    fn extra_fields(&self) -> Option<u64> {
        (self.extra == Extra::Count).then_some(self.extra_fields)
    }
}

impl InfluxReader {
    fn row(&mut self, payload: &Payload<'_>, text: &[u8], row: usize, rows: &mut Rows) -> Result<(), String> {
        let line = &self.line;
        let mut taken = 0;
        for (column, place) in &self.wanted {
            let tag = |name| line.tag(name).map(Value::Text);
            let field = |name| line.field(text, name);
            let (name, value) = match place {
                Place::Measurement => {
                    rows.builder(*column).push_text(line.measurement())?;
                    continue;
                }
                Place::Time => {
                    match line.time(text) {
                        Some(time) => rows.builder(*column).push_number(time)?,
                        None => rows.builder(*column).push_micros(payload.arrival.micros()),
                    }
                    continue;
                }
                Place::Tag(name) => (name, tag(name)),
                Place::Field(name) => (name, field(name)),
                Place::Any(name) => (name, field(name).or_else(|| tag(name))),
            };
            let Some(value) = value else {
                rows.fill(*column, row)?;
                continue;
            };
            taken += 1;
            let builder = rows.builder(*column);
            let pushed = match value {
                Value::Number(number) => builder.push_number(&number),
                Value::Truth(value) => builder.push_truth(value),
                Value::String(text) => builder.push_string(&text),
                Value::Text(text) => builder.push_text(text),
            };
            pushed.map_err(|why| format!("`{name}`: {why}"))?;
        }
        match (line.len().saturating_sub(taken), self.extra) {
            (0, _) | (_, Extra::Ignore) => Ok(()),
            (extra, Extra::Count) => {
                self.extra_fields += extra as u64;
                Ok(())
            }
            (extra, Extra::DeadLetter) => {
                Err(format!("no columns are declared for {extra} of its fields and tags (`extra = \"dead_letter\"`)"))
            }
        }
    }
}

#[cfg(test)]
mod tests;
