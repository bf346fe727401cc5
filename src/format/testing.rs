//! Text in, rows out: what the tests of readers have in common.

use arrow::array::RecordBatch;
use arrow::util::display::array_value_to_string;

use crate::component::Settings;
use crate::flow::payload::{Delivery, Payload};
use crate::flow::time::Timestamp;
use crate::flow::topic::Topics;
use crate::format::columns::{self, Columns};
use crate::format::{Decoder, DecoderSpec, Malformed};

pub(super) type Parse = fn(&mut Settings) -> Option<Box<dyn DecoderSpec>>;

/// The arrival of all payloads: five microseconds after 1970 began.
pub(super) const ARRIVAL: Timestamp = Timestamp::from_micros(5);

fn declared(text: &str) -> Columns {
    let (table, faults) = Settings::of(text);
    columns::read(Some(table), &Topics::default(), None, None).unwrap_or_else(|why| panic!("{why:?} {faults:?}"))
}

/// What is wrong with settings, or with columns for them.
pub(super) fn faults(parse: Parse, settings: &str, columns: &str) -> Vec<String> {
    let (mut table, faults) = Settings::of(settings);
    let spec = parse(&mut table);
    table.finish();
    let mut found: Vec<String> = faults.borrow().iter().map(|fault| fault.what.clone()).collect();
    if let Some(spec) = spec {
        found.extend(spec.check(&declared(columns)).into_iter().map(|fault| fault.what));
    }
    found
}

/// A decoder, of settings that are right.
pub(super) fn decoder(parse: Parse, settings: &str, columns: &str) -> Box<dyn Decoder> {
    assert_eq!(faults(parse, settings, columns), Vec::<String>::new(), "{settings}");
    let (mut table, _) = Settings::of(settings);
    let (spec, columns) = (parse(&mut table).unwrap(), declared(columns));
    // What it reads from files it reads when it is checked.
    spec.check(&columns);
    spec.build(&columns)
}

pub(super) fn push(decoder: &mut dyn Decoder, body: &[u8]) -> Result<usize, Malformed> {
    let delivery = Delivery::default();
    decoder.push(&Payload { topic: b"t", body, arrival: ARRIVAL, delivery, properties: &[] })
}

/// Bytes written in hex, with white space in between.
pub(super) fn of_hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.chars().filter_map(|sign| sign.to_digit(16)).map(|digit| digit as u8).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

/// Rows as text: values by `,`, rows by `;`, null as `-`; without the arrival, which is the last column.
pub(super) fn text(batch: &RecordBatch) -> String {
    let value = |column: usize, row: usize| match batch.column(column) {
        column if column.is_null(row) => "-".to_owned(),
        column => array_value_to_string(column, row).unwrap(),
    };
    let row = |row| (0..batch.num_columns() - 1).map(|column| value(column, row)).collect::<Vec<_>>().join(",");
    (0..batch.num_rows()).map(row).collect::<Vec<_>>().join(";")
}

/// The rows of one payload.
pub(super) fn rows(parse: Parse, settings: &str, columns: &str, body: &[u8]) -> Result<String, Malformed> {
    let mut decoder = decoder(parse, settings, columns);
    let count = push(&mut *decoder, body)?;
    let batch = decoder.flush();
    assert_eq!(batch.num_rows(), count);
    Ok(text(&batch))
}

/// That a payload is read whole or not at all, between two good ones of a row each.
pub(super) fn all_or_none(decoder: &mut dyn Decoder, good: &[u8], other: &[u8]) {
    assert_eq!(push(decoder, good), Ok(1));
    let count = push(decoder, other).unwrap_or(0);
    assert_eq!(push(decoder, good), Ok(1));
    let batch = decoder.flush();
    assert_eq!(batch.num_rows(), count + 2);
    assert_eq!(text(&batch.slice(0, 1)), text(&batch.slice(count + 1, 1)));
}
