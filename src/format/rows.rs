//! The rows of a source under construction, with a way back.

use std::mem::take;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;

use crate::flow::payload::{Payload, Payloads};
use crate::format::Malformed;
use crate::format::builder::Builder;
use crate::format::columns::{Column, Columns, From};

/// The rows of a source under construction.
pub struct Rows {
    schema: SchemaRef,
    columns: Columns,
    builders: Vec<Builder>,
    /// Columns that do not come from the payload.
    around: Vec<usize>,
    len: usize,
    /// Columns in which a value that does not fit is null.
    lenient: Vec<usize>,
    /// Such values in this batch, as told before.
    mismatched: usize,
    /// The topic of the last row.
    topic: Vec<u8>,
    /// Room for the captures of one topic; empty between payloads.
    captures: Vec<Option<&'static [u8]>>,
}

impl Rows {
    /// Of these columns, none yet.
    pub fn new(columns: &Columns) -> Self {
        let around = |(index, column): (usize, &Column)| (!matches!(column.from, From::Payload(_))).then_some(index);
        Self {
            schema: columns.schema(),
            around: columns.columns.iter().enumerate().filter_map(around).collect(),
            builders: columns.columns.iter().map(Builder::of).collect(),
            columns: columns.clone(),
            len: 0,
            lenient: columns.lenient().collect(),
            mismatched: 0,
            topic: Vec::new(),
            captures: Vec::new(),
        }
    }

    /// How many whole rows.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many values of whole rows are null since this was asked the last time, as their columns cannot hold them.
    /// `None` where no column lets them pass.
    pub fn mismatched(&mut self) -> Option<u64> {
        if self.lenient.is_empty() {
            return None;
        }
        let all = self.lenient.iter().map(|column| self.builders[*column].mismatched()).sum();
        Some((all - std::mem::replace(&mut self.mismatched, all)) as u64)
    }

    /// The builder of a column.
    pub fn builder(&mut self, column: usize) -> &mut Builder {
        &mut self.builders[column]
    }

    /// Ends row `row` (counted from the first of the batch) of a payload column: what did not come is null.
    pub fn fill(&mut self, column: usize, row: usize) -> Result<(), String> {
        if self.builders[column].len() > row {
            return Ok(());
        }
        self.null(column)
    }

    /// Adds a null to each of some columns; false where one must have a value.
    pub fn nulls(&mut self, columns: &[u32]) -> bool {
        columns.iter().all(|column| self.null(*column as usize).is_ok())
    }

    /// Whether a payload without a value for a column has no rows.
    pub fn is_required(&self, column: usize) -> bool {
        self.columns.columns[column].required
    }

    /// Adds a null, if the column may have any.
    pub fn null(&mut self, column: usize) -> Result<(), String> {
        if self.is_required(column) {
            return Err(format!("required column `{}` is missing", self.columns.columns[column].name.text));
        }
        self.builders[column].push_null();
        Ok(())
    }

    /// Adds the rows of one payload, all or none: `decode` adds the values of the payload columns, and says how many
    /// rows they are.
    pub fn payload(
        &mut self,
        payload: &Payload<'_>,
        decode: impl FnOnce(&mut Self) -> Result<usize, Malformed>,
    ) -> Result<usize, Malformed> {
        let done = decode(self).and_then(|count| {
            self.surround(payload, count).map_err(|why| Malformed { at: None, why })?;
            Ok(count)
        });
        match &done {
            Ok(count) => self.len += count,
            Err(_) => {
                let len = self.len;
                self.builders.iter_mut().for_each(|builder| builder.truncate(len));
            }
        }
        done
    }

    /// Ends rows that have a payload each, those from `from` on, and whose payload columns are filled: all, or as many as
    /// the other columns take. What was added beyond them is gone.
    pub fn alike(&mut self, payloads: &Payloads, from: usize, count: usize) -> usize {
        let (first, end) = (self.len, self.len + count);
        if self.around.is_empty() {
            self.len = end;
        }
        while self.len < end && self.surround_some(payloads, from + self.len - first, end - self.len).is_ok() {}
        let len = self.len;
        self.builders.iter_mut().for_each(|builder| builder.truncate(len));
        len - first
    }

    /// Fills the columns that do not come from the payload, for a row each of the payloads of one topic from `index` on.
    fn surround_some(&mut self, payloads: &Payloads, index: usize, most: usize) -> Result<(), String> {
        let count = payloads.same_topic(index, most);
        self.surround(&payloads.get(index), 1)?;
        // This row stays, whatever comes: its topic is known as that of the last row now.
        self.len += 1;
        for at in 0..self.around.len() {
            let column = self.around[at];
            if matches!(self.columns.columns[column].from, From::Capture(_) | From::Topic) {
                self.builders[column].repeat_last(count - 1)?;
            } else {
                (index + 1..index + count).try_for_each(|index| self.origin(column, &payloads.get(index), None, 1))?;
            }
        }
        self.len += count - 1;
        Ok(())
    }

    /// Fills the columns that do not come from the payload, for `count` rows.
    fn surround(&mut self, payload: &Payload<'_>, count: usize) -> Result<(), String> {
        if count == 0 || self.around.is_empty() {
            return Ok(());
        }
        // Many payloads come by the topic of the one before: what was read from it stands in the row above.
        if self.len > 0 && self.topic == payload.topic {
            return (0..self.around.len()).try_for_each(|at| self.origin(self.around[at], payload, None, count));
        }
        // An empty vector of another lifetime: collecting in place keeps its room.
        let mut captures: Vec<Option<&[u8]>> = take(&mut self.captures).into_iter().map(|_| None).collect();
        self.columns.topics.matches(payload.topic, &mut captures);
        let filled =
            (0..self.around.len()).try_for_each(|at| self.origin(self.around[at], payload, Some(&captures), count));
        if filled.is_ok() {
            self.topic.clear();
            self.topic.extend_from_slice(payload.topic);
        }
        captures.clear();
        self.captures = captures.into_iter().map(|_| None).collect();
        filled
    }

    /// The value of a column for `count` rows. Without `captures`, the topic is that of the row above.
    fn origin(
        &mut self,
        index: usize,
        payload: &Payload<'_>,
        captures: Option<&[Option<&[u8]>]>,
        count: usize,
    ) -> Result<(), String> {
        let column = &self.columns.columns[index];
        let builder = &mut self.builders[index];
        let named = |why| format!("column `{}`: {why}", column.name.text);
        let text = match (&column.from, captures) {
            (From::Capture(_) | From::Topic, None) => return builder.repeat_last(count).map_err(named),
            (From::Capture(place), Some(captures)) => captures.get(*place).copied().flatten(),
            (From::Topic, Some(_)) => Some(payload.topic),
            (From::Payload(_) | From::Inner(_), _) => return Ok(()),
            (From::Property(name), _) => {
                let found = payload.properties.iter().find(|(key, _)| key == name);
                found.map(|(_, value)| value.as_bytes())
            }
            (From::Qos, _) => {
                builder.push_number(&[b'0' + payload.delivery.qos.min(9)])?;
                return builder.repeat_last(count - 1);
            }
            (From::Retained, _) => {
                builder.push_bool(payload.delivery.retained);
                return builder.repeat_last(count - 1);
            }
            (From::Arrival, _) => {
                builder.push_micros(payload.arrival.micros());
                return builder.repeat_last(count - 1);
            }
        };
        match text {
            Some(text) => {
                builder.push_text(text).map_err(named)?;
            }
            None => self.null(index)?,
        }
        self.builders[index].repeat_last(count - 1)
    }

    /// Takes the rows.
    pub fn flush(&mut self) -> RecordBatch {
        (self.len, self.mismatched) = (0, 0);
        let arrays = self.builders.iter_mut().map(Builder::finish).collect();
        RecordBatch::try_new(self.schema.clone(), arrays).expect("builders are made of the schema's columns")
    }
}
