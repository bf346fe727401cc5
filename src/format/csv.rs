//! The `csv` format: delimited text, one row a record, one record or many a payload.
//!
//! ```toml
//! [sources.loggers.decode]
//! format = "csv"
//! header = true                    # the first record of every payload has the names; or:
//! # fields = ["ts", "temp", "hum"] # the names, in order. Without either: the declared columns, in order
//! delimiter = ";"                  # one byte: ","
//! quote = "'"                      # one byte, or "" for none: "\""
//! comment = "#"                    # records that begin so are passed over: none are
//! skip_records = 2                 # passed over at the beginning of every payload, before the header: 0
//! decimal = ","                    # "21,5" is 21.5: "."
//! trim = true                      # white space around fields goes: false
//! ragged = true                    # records may be shorter or longer than there are names: false
//! extra = "count"                  # fields that no column is declared for: "ignore", "count" or "dead_letter"; "ignore"
//! max_bytes = "1MiB"               # these, and how it is packed: see the `reader` module
//!
//! [sources.loggers.columns]
//! ts = { type = "timestamp", unit = "%Y-%m-%d %H:%M:%S", zone = "Europe/Berlin" }    # the field of its name
//! temp = "float64"
//! state = { type = "utf8", path = "$[3]" }                # the fourth
//! ```
//!
//! An empty field is null; `nulls` of a column says what else is. Records end in LF, CR or both; a quote within quotes is
//! doubled (RFC 4180). A payload with anything wrong has no rows; messages name the line, counted from 1.

use csv_core::{ReadRecordResult, ReaderBuilder};

use crate::component::{Fault, Kind, Settings};
use crate::flow::payload::Payload;
use crate::format::columns::{ColumnType, Columns, From};
use crate::format::path::Step;
use crate::format::reader::{Common, Limits, Reader};
use crate::format::rows::Rows;
use crate::format::{Decoder, DecoderSpec, Extra, Malformed};

/// `format = "csv"`.
pub const KIND: Kind<dyn DecoderSpec> =
    Kind { name: "csv", about: "delimited text, a row for each record, with or without a header", parse };

/// How payloads are written.
#[derive(Clone, Debug)]
struct Dialect {
    header: bool,
    fields: Option<Vec<String>>,
    skip: u64,
    delimiter: u8,
    quote: Option<u8>,
    comment: Option<u8>,
    decimal_comma: bool,
    trim: bool,
    ragged: bool,
    extra: Extra,
}

#[derive(Debug)]
struct Csv {
    dialect: Dialect,
    common: Common,
}

fn parse(settings: &mut Settings) -> Option<Box<dyn DecoderSpec>> {
    let before = settings.faults_len();
    let header = settings.or("header", false);
    let fields: Option<Vec<String>> = settings.optional("fields");
    if header && fields.is_some() {
        let what = "`fields` names what `header = true` names too: keep one of the two";
        settings.fault(Fault::new(settings.at.clone(), what).help("of a header that is wrong, `skip_records = 1`"));
    }
    let delimiter = one_byte(settings, "delimiter", Some(b','))?;
    let Some(delimiter) = delimiter else {
        settings
            .fault(Fault::new(settings.at.clone(), "`delimiter` is empty: records of one field are `scalar` payloads"));
        return None;
    };
    let dialect = Dialect {
        header,
        fields,
        skip: settings.or("skip_records", 0),
        delimiter,
        quote: one_byte(settings, "quote", Some(b'"'))?,
        comment: one_byte(settings, "comment", None)?,
        decimal_comma: settings.choice("decimal", &[(".", false), (",", true)], false),
        trim: settings.or("trim", false),
        ragged: settings.or("ragged", false),
        extra: Extra::read(settings),
    };
    if dialect.decimal_comma && dialect.delimiter == b',' {
        let what = "`decimal = \",\"` with fields that are delimited by commas, too";
        settings.fault(Fault::new(settings.at.clone(), what).help("set `delimiter`"));
    }
    let common = Common::read(settings);
    (settings.faults_len() == before).then(|| Box::new(Csv { dialect, common }) as Box<dyn DecoderSpec>)
}

/// A setting that is one byte of ASCII, or none. The outer `None` is a fault.
fn one_byte(settings: &mut Settings, key: &'static str, default: Option<u8>) -> Option<Option<u8>> {
    match settings.optional::<String>(key).as_deref().map(str::as_bytes) {
        None => Some(default),
        Some([]) => Some(None),
        Some([byte]) if byte.is_ascii() => Some(Some(*byte)),
        Some(_) => {
            settings.fault(Fault::new(settings.at.clone(), format!("`{key}`: expected one sign of ASCII")));
            None
        }
    }
}

/// Where a column finds its field.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    Name(String),
    Index(usize),
}

impl Place {
    /// The index of the field, where fields have these names.
    fn among(&self, names: &[String]) -> Option<usize> {
        match self {
            Self::Index(index) => Some(*index),
            Self::Name(name) => names.iter().position(|known| known == name),
        }
    }
}

/// Columns that come from the payload, and their places.
fn places(columns: &Columns) -> impl Iterator<Item = (usize, Option<Place>)> {
    columns.columns.iter().enumerate().filter_map(|(index, column)| match &column.from {
        From::Payload(path) => Some((
            index,
            match &path.steps[..] {
                [Step::Field(name)] => Some(Place::Name(name.clone())),
                [Step::Item(index)] => Some(Place::Index(*index)),
                _ => None,
            },
        )),
        _ => None,
    })
}

impl Csv {
    /// The names, as far as they are known before a payload comes.
    fn names(&self, columns: &Columns) -> Option<Vec<String>> {
        match (&self.dialect.fields, self.dialect.header) {
            (Some(fields), _) => Some(fields.clone()),
            (None, true) => None,
            (None, false) => {
                let name = |(_, place)| if let Some(Place::Name(name)) = place { Some(name) } else { None };
                Some(places(columns).filter_map(name).collect())
            }
        }
    }
}

impl DecoderSpec for Csv {
    fn check(&self, columns: &Columns) -> Vec<Fault> {
        let names = self.names(columns);
        let mut faults = Vec::new();
        for (index, place) in places(columns) {
            let column = &columns.columns[index].name;
            match (place, &names) {
                (None, _) => {
                    let what = format!("column `{}`: a field of csv is `$.name` or `$[0]`", column.text);
                    faults.push(column.fault(what));
                }
                (Some(Place::Name(name)), Some(names)) if !names.contains(&name) => {
                    let fault = column.fault(format!("column `{}`: `fields` has no `{name}`", column.text));
                    faults.push(fault.nearest(&name, names.iter().map(String::as_str)));
                }
                _ => (),
            }
        }
        let mixed = |(_, place): &(usize, Option<Place>)| matches!(place, Some(Place::Index(_)));
        if let (None, false, Some((index, _))) =
            (&self.dialect.fields, self.dialect.header, places(columns).find(mixed))
            && places(columns).any(|(_, place)| matches!(place, Some(Place::Name(_))))
        {
            let column = &columns.columns[index].name;
            let what = format!("column `{}` has its place by index, and others by their order", column.text);
            faults.push(column.fault(what).help("set `fields`, or give all of them an index"));
        }
        faults
    }

    fn build(&self, columns: &Columns) -> Box<dyn Decoder> {
        let dialect = &self.dialect;
        let mut builder = ReaderBuilder::new();
        builder.delimiter(dialect.delimiter).comment(dialect.comment).quoting(dialect.quote.is_some());
        dialect.quote.iter().for_each(|quote| {
            builder.quote(*quote);
        });
        let columns_of = |(column, place): (usize, Option<Place>)| {
            let kind = &columns.columns[column].kind;
            let text = matches!(kind, ColumnType::Utf8 | ColumnType::Binary | ColumnType::Timestamp(_));
            place.map(|place| Wanted { column, place, is_number: !text && !matches!(kind, ColumnType::Boolean) })
        };
        let wanted: Vec<Wanted> = places(columns).filter_map(columns_of).collect();
        let names = self.names(columns).unwrap_or_default();
        let reader = CsvReader {
            core: builder.build(),
            dialect: dialect.clone(),
            limits: self.common.limits,
            at: wanted.iter().map(|wanted| wanted.place.among(&names)).collect(),
            wanted,
            known: names.len(),
            header: Default::default(),
            fields: Vec::new(),
            ends: Vec::new(),
            number: Vec::new(),
            extra_fields: 0,
        };
        self.common.decoder(columns, reader)
    }
}

/// A column of the payload.
struct Wanted {
    column: usize,
    place: Place,
    /// Its decimal sign may be a comma.
    is_number: bool,
}

struct CsvReader {
    core: csv_core::Reader,
    dialect: Dialect,
    limits: Limits,
    wanted: Vec<Wanted>,
    /// The index of the field of each wanted column; `None` of one that the header lacks.
    at: Vec<Option<usize>>,
    /// How many fields have names.
    known: usize,
    /// The header that this was found by: its fields end to end, and where they end.
    header: (Vec<u8>, Vec<usize>),
    /// The fields of the record at hand, end to end.
    fields: Vec<u8>,
    ends: Vec<usize>,
    number: Vec<u8>,
    extra_fields: u64,
}

/// What is left of a payload.
struct Input<'b> {
    rest: &'b [u8],
    /// The line at which the record at hand began.
    line: u64,
}

impl Reader for CsvReader {
    fn read(&mut self, payload: &Payload<'_>, rows: &mut Rows) -> Result<usize, Malformed> {
        self.core.reset();
        self.extra_fields = 0;
        let mut input = Input { rest: payload.body, line: 1 };
        for _ in 0..self.dialect.skip {
            self.next(&mut input);
        }
        if self.dialect.header {
            let Some(count) = self.next(&mut input) else { return Ok(0) };
            self.name_fields(count).map_err(|why| malformed(&input, why))?;
        }
        let mut count = 0;
        while let Some(fields) = self.next(&mut input) {
            self.limits.check_rows(count + 1)?;
            self.record(fields, rows.len() + count, rows).map_err(|why| malformed(&input, why))?;
            count += 1;
        }
        Ok(count)
    }

    fn extra_fields(&self) -> Option<u64> {
        (self.dialect.extra == Extra::Count).then_some(self.extra_fields)
    }
}

fn malformed(input: &Input<'_>, why: String) -> Malformed {
    Malformed { at: None, why: format!("line {}: {why}", input.line) }
}

fn field<'f>(fields: &'f [u8], ends: &[usize], index: usize) -> &'f [u8] {
    let start = index.checked_sub(1).map_or(0, |before| ends[before]);
    &fields[start..ends[index]]
}

impl CsvReader {
    /// Reads a record into `fields` and `ends`, and tells how many fields it has; `None` at the end. Blank lines are none.
    fn next(&mut self, input: &mut Input<'_>) -> Option<usize> {
        let (mut written, mut ended) = (0, 0);
        // What has to be read goes in at once, whatever it is: fields are no longer than what they are read from.
        self.fields.resize(self.fields.len().max(input.rest.len()), 0);
        self.ends.resize(self.ends.len().max(16), 0);
        // The record begins on the line that the one before has ended on, or on a later one, if there are blanks.
        let blank = input.rest.iter().take_while(|byte| matches!(byte, b'\n' | b'\r')).count();
        let (blanks, rest) = input.rest.split_at(blank);
        self.core.set_line(self.core.line() + crate::format::reader::line_of(blanks, blanks.len()) as u64 - 1);
        (input.rest, input.line) = (rest, self.core.line());
        loop {
            let (result, read, wrote, ends) =
                self.core.read_record(input.rest, &mut self.fields[written..], &mut self.ends[ended..]);
            input.rest = &input.rest[read..];
            (written, ended) = (written + wrote, ended + ends);
            match result {
                // With nothing left it is told of the end, and gives the last record.
                ReadRecordResult::InputEmpty => (),
                ReadRecordResult::OutputFull => self.fields.resize(2 * self.fields.len() + 16, 0),
                ReadRecordResult::OutputEndsFull => self.ends.resize(2 * self.ends.len(), 0),
                ReadRecordResult::Record => return Some(ended),
                ReadRecordResult::End => return None,
            }
        }
    }

    /// Takes the record at hand as the header, unless it is the same as the one before.
    fn name_fields(&mut self, count: usize) -> Result<(), String> {
        let ends = &self.ends[..count];
        let text = &self.fields[..ends.last().copied().unwrap_or(0)];
        if self.header.0 == text && self.header.1 == ends {
            return Ok(());
        }
        let name = |index| String::from_utf8_lossy(field(text, ends, index).trim_ascii()).into_owned();
        let names: Vec<String> = (0..count).map(name).collect();
        let is_twice = |wanted: &&Wanted| match &wanted.place {
            Place::Name(name) => names.iter().filter(|known| *known == name).count() > 1,
            Place::Index(_) => false,
        };
        if let Some(Wanted { place: Place::Name(name), .. }) = self.wanted.iter().find(is_twice) {
            return Err(format!("the header has `{name}` twice"));
        }
        self.at = self.wanted.iter().map(|wanted| wanted.place.among(&names)).collect();
        (self.header, self.known) = ((text.to_vec(), ends.to_vec()), count);
        Ok(())
    }

    fn record(&mut self, fields: usize, row: usize, rows: &mut Rows) -> Result<(), String> {
        let known = self.known;
        if !self.dialect.ragged && known > 0 && fields != known {
            return Err(format!("expected {known} fields, got {fields}"));
        }
        let mut named = 0;
        for (wanted, at) in self.wanted.iter().zip(&self.at) {
            let Some(at) = at.filter(|at| *at < fields) else {
                rows.fill(wanted.column, row)?;
                continue;
            };
            named += 1;
            let mut text = field(&self.fields, &self.ends, at);
            if self.dialect.trim {
                text = text.trim_ascii();
            }
            if self.dialect.decimal_comma && wanted.is_number {
                self.number.clear();
                self.number.extend(text.iter().map(|byte| if *byte == b',' { b'.' } else { *byte }));
                text = &self.number;
            }
            let name = || match &wanted.place {
                Place::Name(name) => format!("field `{name}`"),
                Place::Index(index) => format!("field {index}"),
            };
            let pushed =
                if text.is_empty() { rows.null(wanted.column) } else { rows.builder(wanted.column).push_text(text) };
            pushed.map_err(|why| format!("{}: {why}", name()))?;
        }
        match (fields.saturating_sub(named), self.dialect.extra) {
            (0, _) | (_, Extra::Ignore) => Ok(()),
            (extra, Extra::Count) => {
                self.extra_fields += extra as u64;
                Ok(())
            }
            (extra, Extra::DeadLetter) => {
                Err(format!("no columns are declared for {extra} of its fields (`extra = \"dead_letter\"`)"))
            }
        }
    }
}

#[cfg(test)]
mod tests;
