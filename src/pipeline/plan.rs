//! What a pipeline file means: names resolved, the graph checked, every schema bound.

use std::path::PathBuf;

use crate::component::{ByteSize, Name};
use crate::flow::outbox::Port;
use crate::flow::schema::StreamSchema;
use crate::flow::time::Span;
use crate::format::DecoderSpec;
use crate::format::columns::Columns;
use crate::ingest::SourceSpec;
pub use crate::ingest::intake::OnError;
use crate::ingest::journal::Sync;
use crate::operator::{Identity, Operator};
use crate::sink::SinkSpec;

/// A pipeline, ready to be opened. Indexes: stages are numbered sources first, then operators in an order in which
/// every operator comes after its inputs, then sinks.
pub struct Plan {
    /// `pipeline.name`.
    pub name: String,
    /// How often results become visible.
    pub epoch: Span,
    /// How many batches a channel holds.
    pub channel_batches: usize,
    /// How many rows a batch has at most.
    pub batch_rows: usize,
    /// How many bytes of payloads a batch is made of at most.
    pub batch_bytes: u64,
    /// How journal and checkpoints are kept; `None` with `durability = "none"`.
    pub durability: Option<Durability>,
    /// Bytes of payloads that may wait in memory, of all sources together.
    pub memory: u64,
    /// A checksum of the pipeline file.
    pub file: String,
    /// The sources.
    pub sources: Vec<PlannedSource>,
    /// The operators, each after its inputs.
    pub operators: Vec<PlannedOperator>,
    /// The sinks.
    pub sinks: Vec<PlannedSink>,
}

/// How journal and checkpoints are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Durability {
    /// The state folder.
    pub state: PathBuf,
    /// Bytes that the journals of all sources may take together.
    pub quota: u64,
    /// When records are made durable.
    pub sync: Sync,
    /// Bytes of journal beyond what a restart needs, kept for `replay --journal`.
    pub keep: u64,
}

impl Default for Durability {
    fn default() -> Self {
        Self { state: PathBuf::from("state"), quota: JOURNAL_QUOTA.0, sync: Sync::Group, keep: 0 }
    }
}

/// The default of `pipeline.journal.quota`.
pub const JOURNAL_QUOTA: ByteSize = ByteSize(4 << 30);

impl Plan {
    /// Whether streams meet anywhere, so that they need an order.
    pub fn merges(&self) -> bool {
        let operators = self.operators.iter().map(|operator| operator.inputs.len());
        operators.chain(self.sinks.iter().map(|sink| sink.inputs.len())).any(|inputs| inputs > 1)
    }
}

impl Plan {
    /// The columns of a source by which the first operator groups rows that gets them unchanged; none where nobody does.
    pub fn keys(&self, source: usize) -> &[String] {
        let mut reached = vec![source];
        for (index, operator) in self.operators.iter().enumerate() {
            let reads = operator.inputs.iter().any(|edge| edge.port == Port::Main && reached.contains(&edge.from));
            if reads && !operator.groups_by.is_empty() {
                return &operator.groups_by;
            }
            if reads {
                reached.push(self.sources.len() + index);
            }
        }
        &[]
    }
}

/// Where rows of a stage come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edge {
    /// The stage's number.
    pub from: usize,
    /// Which of its outputs.
    pub port: Port,
}

/// `[sources.NAME]`.
pub struct PlannedSource {
    /// NAME.
    pub name: Name,
    /// Its kind (`mqtt`).
    pub kind: &'static str,
    /// Where payloads come from.
    pub spec: Box<dyn SourceSpec>,
    /// How they become rows.
    pub decoder: Box<dyn DecoderSpec>,
    /// The rows' columns.
    pub columns: Columns,
    /// How time is told.
    pub time: TimeSettings,
    /// What a payload that does not decode gets.
    pub on_error: OnError,
    /// How many threads decode them; `None` by the number of cores.
    pub decoders: Option<usize>,
    /// The rows.
    pub output: StreamSchema,
}

/// `[sources.NAME.time]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeSettings {
    /// Watermark = greatest accepted event time − this.
    pub out_of_orderness: Span,
    /// A source that is silent for so long stops holding event time back; `None` never.
    pub idle_after: Option<Span>,
    /// Rows further after their arrival than this are set aside.
    pub max_future: Span,
}

/// `[operators.NAME]`.
pub struct PlannedOperator {
    /// NAME.
    pub name: Name,
    /// Where its rows come from.
    pub inputs: Vec<Edge>,
    /// Its kind (`window`).
    pub kind: &'static str,
    /// One line for `check`.
    pub about: String,
    /// The rows that it takes.
    pub input: StreamSchema,
    /// The rows at its main output.
    pub output: StreamSchema,
    /// Its side output.
    pub side: Option<(&'static str, StreamSchema)>,
    /// The operator.
    pub operator: Box<dyn Operator>,
    /// What its state depends on.
    pub identity: Identity,
    /// The columns by which it groups rows.
    pub groups_by: Vec<String>,
}

/// `[sinks.NAME]`.
pub struct PlannedSink {
    /// NAME.
    pub name: Name,
    /// Where its rows come from.
    pub inputs: Vec<Edge>,
    /// Its kind (`parquet`).
    pub kind: &'static str,
    /// Where rows go.
    pub spec: Box<dyn SinkSpec>,
    /// The rows.
    pub input: StreamSchema,
}
