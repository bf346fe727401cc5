//! A plan as `check` shows it: the graph, the schema on every edge, what the channels can hold.

use std::fmt;

use arrow::datatypes::DataType;

use crate::component::ByteSize;
use crate::flow::outbox::Port;
use crate::flow::schema::{StreamSchema, dead_letter_schema, timestamp_type};
use crate::ingest::decoding::batches_ahead;
use crate::ingest::feed::BRIDGE_BATCHES;
use crate::ingest::journal::Sync;
use crate::pipeline::plan::{Durability, Edge, Plan};

/// What a row is reckoned at, for columns whose width is not fixed.
const TEXT_BYTES: u64 = 32;

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pipeline {}: an epoch every {}, ", self.name, self.epoch)?;
        match &self.durability {
            None => writeln!(f, "durability none")?,
            Some(Durability { state, quota, sync, .. }) => {
                let sync = match sync {
                    Sync::Group => "each group synced".to_owned(),
                    Sync::Interval(every) => format!("synced every {every:?}"),
                    Sync::None => "synced at the end of each epoch".to_owned(),
                };
                writeln!(
                    f,
                    "journal of {} at most and checkpoints in `{}`, {sync}",
                    ByteSize(*quota),
                    state.display()
                )?;
            }
        }
        for (stage, source) in self.sources.iter().enumerate() {
            writeln!(f, "\nsource {} ({}): {}", source.name.text, source.kind, source.spec.describe())?;
            let time = source.time;
            let idle = time.idle_after.map_or("never".to_owned(), |span| span.to_string());
            writeln!(
                f,
                "  time by {}, out of order by {} at most, idle after {idle}, set aside from {} in the future",
                source.output.columns.field(source.output.time).name(),
                time.out_of_orderness,
                time.max_future
            )?;
            schema(f, &source.output)?;
            self.side(f, stage)?;
        }
        for (index, operator) in self.operators.iter().enumerate() {
            writeln!(
                f,
                "\noperator {} ({}) ◄─ {}: {}",
                operator.name.text,
                operator.kind,
                self.inputs(&operator.inputs),
                operator.about
            )?;
            schema(f, &operator.output)?;
            self.side(f, self.sources.len() + index)?;
        }
        for sink in &self.sinks {
            writeln!(
                f,
                "\nsink {} ({}) ◄─ {}: {}",
                sink.name.text,
                sink.kind,
                self.inputs(&sink.inputs),
                sink.spec.describe()
            )?;
        }
        self.memory(f)
    }
}

fn schema(f: &mut fmt::Formatter<'_>, schema: &StreamSchema) -> fmt::Result {
    let width = schema.names().map(|name| name.chars().count()).max().unwrap_or(0);
    schema.columns.fields().iter().enumerate().try_for_each(|(index, field)| {
        let null = if field.is_nullable() { "" } else { ", never null" };
        let time = if index == schema.time { ", event time" } else { "" };
        writeln!(f, "    {:width$}  {}{null}{time}", field.name(), type_word(field.data_type()))
    })
}

impl Plan {
    fn inputs(&self, edges: &[Edge]) -> String {
        edges.iter().map(|edge| self.output_name(*edge)).collect::<Vec<_>>().join(" + ")
    }

    /// The rows at a stage's side output, if anybody reads it.
    fn side(&self, f: &mut fmt::Formatter<'_>, from: usize) -> fmt::Result {
        let side = Edge { from, port: Port::Side };
        if !self.channels().any(|(_, edge)| edge == side) {
            return Ok(());
        }
        writeln!(f, "  {}", self.output_name(side))?;
        schema(f, &self.rows(side))
    }

    /// Every channel: who reads it, and where its rows come from.
    fn channels(&self) -> impl Iterator<Item = (&str, Edge)> {
        let operators = self.operators.iter().map(|operator| (&operator.name, &operator.inputs));
        let sinks = self.sinks.iter().map(|sink| (&sink.name, &sink.inputs));
        operators.chain(sinks).flat_map(|(name, inputs)| inputs.iter().map(|edge| (name.text.as_str(), *edge)))
    }

    /// `NAME`, `NAME.late`, `NAME.dead_letter`.
    fn output_name(&self, edge: Edge) -> String {
        let (name, side) = match edge.from.checked_sub(self.sources.len()) {
            None => (&self.sources[edge.from].name.text, "dead_letter"),
            Some(index) => {
                let operator = &self.operators[index];
                (&operator.name.text, operator.side.as_ref().map_or("", |(side, _)| *side))
            }
        };
        if edge.port == Port::Main { name.clone() } else { format!("{name}.{side}") }
    }

    fn rows(&self, edge: Edge) -> StreamSchema {
        match (edge.from.checked_sub(self.sources.len()), edge.port) {
            (None, Port::Main) => self.sources[edge.from].output.clone(),
            (Some(index), Port::Main) => self.operators[index].output.clone(),
            (None, Port::Side) => dead_letter_schema(),
            (Some(index), Port::Side) => {
                let operator = &self.operators[index];
                operator.side.as_ref().map_or_else(|| operator.output.clone(), |(_, schema)| schema.clone())
            }
        }
    }

    /// What the bridges and channels can hold.
    fn memory(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\nchannels: {} batches of at most {} rows each", self.channel_batches, self.batch_rows)?;
        let mut total = 0;
        for source in &self.sources {
            // A batch that is gathered and one that is decoded stand beside those in the bridge.
            let ahead = source.decoders.map_or(1, batches_ahead) as u64;
            let bytes = source.spec.memory_bytes() + (BRIDGE_BATCHES as u64 + 1 + ahead) * self.batch_bytes;
            total += bytes;
            writeln!(f, "  {} and its bridge of {BRIDGE_BATCHES} batches: {}", source.name.text, about(bytes))?;
        }
        for (name, edge) in self.channels() {
            let (rows, width) = (self.channel_batches * self.batch_rows, row_bytes(&self.rows(edge)));
            let bytes = rows as u64 * width;
            total += bytes;
            writeln!(f, "  {} ─► {name}: {rows} rows of {width} bytes, {}", self.output_name(edge), about(bytes))?;
        }
        writeln!(
            f,
            "  together {} (a text is reckoned at {TEXT_BYTES} bytes), beside what windows and sinks keep",
            about(total)
        )
    }
}

fn row_bytes(schema: &StreamSchema) -> u64 {
    let width = |field: &arrow::datatypes::FieldRef| {
        field.data_type().primitive_width().map_or(TEXT_BYTES, |width| width as u64)
    };
    schema.columns.fields().iter().map(width).sum()
}

/// To the nearest mebibyte above.
fn about(bytes: u64) -> ByteSize {
    ByteSize(bytes.next_multiple_of(1 << 20))
}

/// A type in the words of pipeline files; one that they have no word for as Arrow writes it.
pub(crate) fn type_word(data_type: &DataType) -> String {
    match data_type {
        known if *known == timestamp_type() => "timestamp".to_owned(),
        DataType::Decimal128(precision, scale) => format!("decimal({precision},{scale})"),
        other => other.to_string().to_lowercase(),
    }
}
