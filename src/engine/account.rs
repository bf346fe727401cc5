//! The account: what came in, what became of it, what went out. It adds up, or the run has failed.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use serde::Serialize;

use crate::flow::meter::{Meter, SourceMeter};
use crate::flow::outbox::Port;

/// The counts of a pipeline, by the names of its pipeline file. Its JSON is part of the contract.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Account {
    /// `pipeline.name`.
    pub pipeline: String,
    /// By source.
    pub sources: BTreeMap<String, SourceAccount>,
    /// By operator.
    pub operators: BTreeMap<String, OperatorAccount>,
    /// By sink.
    pub sinks: BTreeMap<String, SinkAccount>,
    /// Where it does not add up. Empty in a run that is well.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<String>,
}

/// `received + expanded = rows + dead_letter + future + dropped + duplicates`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SourceAccount {
    /// Payloads that arrived.
    pub received: u64,
    /// Rows that went on.
    pub rows: u64,
    /// Payloads without rows.
    pub dead_letter: u64,
    /// Rows set aside because they lie too far in the future.
    pub future: u64,
    /// Payloads for which there was no room, or that were dropped as declared.
    pub dropped: u64,
    /// Redeliveries that were recognised.
    pub duplicates: u64,
    /// Rows beyond the first of their payload.
    pub expanded: i64,
    /// Fields that no column is declared for, of payloads with rows.
    pub extra_fields: u64,
    /// Values that are null because their column cannot hold them.
    pub mismatched_values: u64,
    /// Messages that by their numbers were sent and did not come.
    pub lost_messages: u64,
}

/// `accepted + late + filtered` is what came in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct OperatorAccount {
    /// Rows that took part.
    pub accepted: u64,
    /// Rows that came after all their windows had closed.
    pub late: u64,
    /// Rows that a filter or a dedupe held back.
    pub filtered: u64,
    /// Rows that went on.
    pub emitted: u64,
}

/// What a sink took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SinkAccount {
    /// Rows written and committed.
    pub rows: u64,
    /// Rows given up: none, as a sink that fails holds the pipeline back instead.
    pub dropped: u64,
}

/// A stage as the account sees it.
#[derive(Clone)]
pub struct Counted {
    /// Its name in the pipeline file.
    pub name: String,
    /// Its kind: `mqtt`, `window`, `parquet`.
    pub kind: &'static str,
    /// Its pipes' counters.
    pub meter: Arc<Meter>,
    /// Which stages it reads, and at which output.
    pub inputs: Vec<(usize, Port)>,
    /// Of a source.
    pub source: Option<Arc<SourceMeter>>,
    /// It is a sink.
    pub sink: bool,
}

impl Account {
    /// Reads the counters. `complete` says that every stage has come to its end, so that what one sent the other has
    /// received: only then is anything checked.
    pub fn take(pipeline: &str, stages: &[Counted], complete: bool) -> Self {
        let mut account = Self {
            pipeline: pipeline.to_owned(),
            sources: BTreeMap::new(),
            operators: BTreeMap::new(),
            sinks: BTreeMap::new(),
            faults: Vec::new(),
        };
        for stage in stages {
            let rows_in = stage.meter.rows_in.load(Relaxed);
            let rows_out = [Port::Main, Port::Side].map(|port| stage.meter.rows_out[port as usize].load(Relaxed));
            if let Some(source) = &stage.source {
                account.sources.insert(stage.name.clone(), SourceAccount::take(source));
            } else if stage.sink {
                account.sinks.insert(stage.name.clone(), SinkAccount { rows: rows_in, dropped: 0 });
            } else {
                account.operators.insert(stage.name.clone(), OperatorAccount::take(stage.kind, rows_in, rows_out));
            }
            if complete {
                account.check(stage, stages, rows_in, rows_out[0]);
            }
        }
        account
    }

    fn check(&mut self, stage: &Counted, stages: &[Counted], rows_in: u64, rows_out: u64) {
        if let Some(source) = self.sources.get(&stage.name) {
            if let Err(why) = source.adds_up(rows_out) {
                self.faults.push(format!("source `{}`: {why}", stage.name));
            }
            return;
        }
        let sent = |(from, port): &(usize, Port)| stages[*from].meter.rows_out[*port as usize].load(Relaxed);
        let sent: u64 = stage.inputs.iter().map(sent).sum();
        if sent != rows_in {
            self.faults.push(format!("`{}`: {sent} rows were sent to it, {rows_in} arrived", stage.name));
        }
        if let Some(OperatorAccount { accepted, late, filtered, .. }) = self.operators.get(&stage.name)
            && accepted + late + filtered != rows_in
        {
            let what =
                format!("`{}`: accepted {accepted} + late {late} + filtered {filtered} is not {rows_in}", stage.name);
            self.faults.push(what);
        }
    }
}

impl SourceAccount {
    fn take(meter: &SourceMeter) -> Self {
        Self {
            received: meter.received.load(Relaxed),
            rows: meter.rows.load(Relaxed),
            dead_letter: meter.dead_letter.load(Relaxed),
            future: meter.future.load(Relaxed),
            dropped: meter.dropped.load(Relaxed),
            duplicates: meter.duplicates.load(Relaxed),
            expanded: meter.expanded.load(Relaxed),
            extra_fields: meter.extra_fields.load(Relaxed),
            mismatched_values: meter.mismatched_values.load(Relaxed),
            lost_messages: meter.lost_messages.load(Relaxed),
        }
    }

    fn adds_up(&self, rows_out: u64) -> Result<(), String> {
        let came = i128::from(self.received) + i128::from(self.expanded);
        let Self { rows, dead_letter, future, dropped, duplicates, .. } = *self;
        let became = rows + dead_letter + future + dropped + duplicates;
        if came != i128::from(became) {
            let received = self.received;
            return Err(format!(
                "received {received} + expanded {} is not rows {rows} + dead_letter {dead_letter} + future {future} \
                 + dropped {dropped} + duplicates {duplicates}",
                self.expanded
            ));
        }
        if rows != rows_out {
            return Err(format!("{rows} rows decoded, {rows_out} sent on"));
        }
        Ok(())
    }
}

impl OperatorAccount {
    fn take(kind: &str, rows_in: u64, [emitted, late]: [u64; 2]) -> Self {
        let filtered = if matches!(kind, "filter" | "dedupe") { rows_in.saturating_sub(emitted) } else { 0 };
        Self { accepted: rows_in.saturating_sub(late + filtered), late, filtered, emitted }
    }
}

impl fmt::Display for Account {
    /// A table a kind of stage.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sources = self.sources.iter().map(|(name, a)| {
            let counts = [a.received, a.rows, a.dead_letter, a.future, a.dropped, a.duplicates];
            (name, counts.map(|count| count.to_string()).to_vec())
        });
        writeln!(f, "account of pipeline {}", self.pipeline)?;
        table(f, &["source", "received", "rows", "dead_letter", "future", "dropped", "duplicates"], sources)?;
        for (name, SourceAccount { extra_fields, mismatched_values, lost_messages, .. }) in &self.sources {
            if *lost_messages > 0 {
                writeln!(
                    f,
                    "  of the messages of {name}, {lost_messages} were lost before they came here, by their numbers"
                )?;
            }
            if extra_fields + mismatched_values > 0 {
                writeln!(
                    f,
                    "  in payloads of {name}, {extra_fields} fields were not declared, and {mismatched_values} values are \
                     null because they did not fit"
                )?;
            }
        }
        let operators = self.operators.iter().map(|(name, a)| {
            (name, [a.accepted, a.late, a.filtered, a.emitted].map(|count| count.to_string()).to_vec())
        });
        table(f, &["operator", "accepted", "late", "filtered", "emitted"], operators)?;
        let sinks =
            self.sinks.iter().map(|(name, a)| (name, [a.rows, a.dropped].map(|count| count.to_string()).to_vec()));
        table(f, &["sink", "rows", "dropped"], sinks)?;
        self.faults.iter().try_for_each(|fault| writeln!(f, "does not add up: {fault}"))
    }
}

fn table<'a>(
    f: &mut fmt::Formatter<'_>,
    head: &[&str],
    rows: impl Iterator<Item = (&'a String, Vec<String>)>,
) -> fmt::Result {
    let rows: Vec<_> = rows.collect();
    if rows.is_empty() {
        return Ok(());
    }
    let names = rows.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0).max(head[0].len());
    let width = |column: usize| {
        rows.iter().map(|(_, counts)| counts[column].len()).max().unwrap_or(0).max(head[column + 1].len())
    };
    let widths: Vec<usize> = (0..head.len() - 1).map(width).collect();
    let mut line = |name: &str, cells: &mut dyn Iterator<Item = &str>| {
        write!(f, "  {name:names$}")?;
        for (cell, width) in cells.zip(&widths) {
            write!(f, "  {cell:>width$}")?;
        }
        writeln!(f)
    };
    line(head[0], &mut head[1..].iter().copied())?;
    rows.iter().try_for_each(|(name, counts)| line(name, &mut counts.iter().map(String::as_str)))
}
