//! The `metrics` sink: the newest row of every group, on `/metrics` and as JSON.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, TimestampMicrosecondType};
use arrow::error::ArrowError;
use arrow::util::display::{ArrayFormatter, FormatOptions};

use crate::component::{Fault, Kind, Name, Settings};
use crate::flow::message::Epoch;
use crate::flow::schema::{StreamSchema, timestamp_type};
use crate::flow::time::Span;
use crate::sink::board::Board;
use crate::sink::json_rows::JsonRows;
use crate::sink::{Sink, SinkContext, SinkError, SinkSpec, Unpublished};

/// `type = "metrics"`.
pub const KIND: Kind<dyn SinkSpec> =
    Kind { name: "metrics", about: "the newest row of every group on the HTTP endpoint", parse };

/// Groups that are shown, where nothing else is said.
const MAX_SERIES: usize = 10_000;
/// Labels that every gauge of a sink has; columns of these names become `exported_…`, as in Prometheus.
const OWN_LABELS: [&str; 2] = ["pipeline", "sink"];

#[derive(Debug)]
struct MetricsSpec {
    /// The columns that tell groups apart; by default every text column.
    labels: Option<Vec<Name>>,
    max_series: usize,
    stale_after: Option<Span>,
}

fn parse(settings: &mut Settings) -> Option<Box<dyn SinkSpec>> {
    let faults = settings.faults_len();
    let labels = settings.optional("labels");
    let max_series = settings.or("max_series", MAX_SERIES);
    let stale_after = settings.optional("stale_after");
    (settings.faults_len() == faults).then(|| Box::new(MetricsSpec { labels, max_series, stale_after }) as _)
}

impl MetricsSpec {
    /// Label columns and gauge columns, or what is wrong.
    fn bind(&self, input: &StreamSchema) -> Result<(Vec<usize>, Vec<usize>), Vec<Fault>> {
        let kind = |column: usize| input.columns.field(column).data_type();
        let all = 0..input.columns.fields().len();
        let mut faults = Vec::new();
        let mut labels: Vec<usize> = Vec::new();
        for name in self.labels.iter().flatten() {
            match input.index_of(&name.text) {
                None => faults.push(
                    name.fault(format!("`labels`: no column `{}`", name.text)).nearest(&name.text, input.names()),
                ),
                Some(column)
                    if !(is_text(kind(column)) || kind(column).is_integer() || *kind(column) == DataType::Boolean) =>
                {
                    faults.push(name.fault(format!(
                        "`labels`: `{}` is {}: labels are text, whole numbers, true and false",
                        name.text,
                        kind(column)
                    )));
                }
                Some(column) if labels.contains(&column) => {
                    faults.push(name.fault(format!("`labels`: `{}` twice", name.text)))
                }
                Some(column) => labels.push(column),
            }
        }
        if self.labels.is_none() {
            labels = all.clone().filter(|column| is_text(kind(*column))).collect();
        }
        let gauges: Vec<usize> = all.filter(|column| kind(*column).is_numeric() && !labels.contains(column)).collect();
        for columns in [&labels, &gauges] {
            let mut names: Vec<_> = columns.iter().map(|column| word(input.columns.field(*column).name())).collect();
            names.sort();
            if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
                faults.push(Fault::new(0..0, format!("two columns would both be `{}` in the metrics", pair[0])));
            }
        }
        if faults.is_empty() { Ok((labels, gauges)) } else { Err(faults) }
    }
}

fn is_text(kind: &DataType) -> bool {
    matches!(kind, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}

/// A name with what Prometheus does not allow as `_`.
fn word(name: &str) -> String {
    let mut word: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    if word.is_empty() || word.starts_with(|c: char| c.is_ascii_digit()) {
        word.insert(0, '_');
    }
    word
}

impl SinkSpec for MetricsSpec {
    fn check(&self, input: &StreamSchema) -> Vec<Fault> {
        self.bind(input).err().unwrap_or_default()
    }

    fn describe(&self) -> String {
        format!("newest row per group on the HTTP endpoint, at most {} groups", self.max_series)
    }

    fn open(&self, context: &SinkContext, input: &StreamSchema) -> Result<Box<dyn Sink>, SinkError> {
        let (labels, gauges) = self.bind(input).map_err(|faults| {
            SinkError::Fatal(faults.into_iter().map(|fault| fault.what).collect::<Vec<_>>().join("; "))
        })?;
        let name = |column: &usize| word(input.columns.field(*column).name());
        let names = gauges.iter().map(|column| format!("streamgauge_{}_{}", word(&context.name), name(column)));
        let board = Board::new(
            &context.pipeline,
            &context.name,
            names.collect(),
            self.max_series,
            self.stale_after.map(Span::duration),
        );
        let board = Arc::new(board);
        context.boards.put(board.clone());
        let label = |column: &usize| {
            let label = name(column);
            let own = OWN_LABELS.contains(&label.as_str());
            (*column, if own { format!("exported_{label}") } else { label })
        };
        let labels = labels.iter().map(label).collect();
        Ok(Box::new(MetricsSink { board, labels, gauges, time: input.time, key: String::new(), text: String::new() }))
    }
}

/// The open sink. Rows are shown when they are written; a commit has nothing to add.
struct MetricsSink {
    board: Arc<Board>,
    labels: Vec<(usize, String)>,
    gauges: Vec<usize>,
    time: usize,
    key: String,
    text: String,
}

impl MetricsSink {
    fn show(&mut self, batch: &RecordBatch) -> Result<(), ArrowError> {
        let json = JsonRows::new(batch);
        let times = cast(batch.column(self.time), &timestamp_type())?;
        let times = times.as_primitive::<TimestampMicrosecondType>();
        let gauges = self.gauges.iter().map(|column| cast(batch.column(*column), &DataType::Float64));
        let gauges = gauges.collect::<Result<Vec<ArrayRef>, _>>()?;
        let gauges: Vec<&Float64Array> = gauges.iter().map(|array| array.as_primitive()).collect();
        let options = FormatOptions::new();
        let labels = self.labels.iter().map(|(column, name)| {
            Ok((name.as_str(), ArrayFormatter::try_new(batch.column(*column).as_ref(), &options)?))
        });
        let labels = labels.collect::<Result<Vec<_>, ArrowError>>()?;
        let (key, scratch) = (&mut self.key, &mut self.text);
        self.board.update(|shown| {
            for row in 0..batch.num_rows() {
                key.clear();
                for (name, values) in &labels {
                    push_label(key, scratch, name, values, row);
                }
                shown.row(key, times.value(row), |series| {
                    json.write(row, &mut series.json);
                    series.values.extend(gauges.iter().map(|array| array.is_valid(row).then(|| array.value(row))));
                });
            }
        });
        if self.board.is_watched() {
            self.text.clear();
            json.write_array(&mut self.text);
            self.board.announce(&self.text);
        }
        Ok(())
    }
}

/// Appends `name="value",`, escaped as Prometheus wants it.
fn push_label(out: &mut String, scratch: &mut String, name: &str, values: &ArrayFormatter<'_>, row: usize) {
    use std::fmt::Write as _;
    scratch.clear();
    write!(scratch, "{}", values.value(row)).expect("writing to a string never fails");
    if !out.is_empty() {
        out.push(',');
    }
    out.push_str(name);
    out.push_str("=\"");
    for c in scratch.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            c => out.push(c),
        }
    }
    out.push('"');
}

impl Sink for MetricsSink {
    fn write(&mut self, batch: &RecordBatch) -> Result<(), SinkError> {
        self.show(batch).map_err(|error| SinkError::Fatal(format!("cannot show rows as metrics: {error}")))
    }

    fn prepare(&mut self, _: Epoch, _: bool) -> Result<Unpublished, SinkError> {
        Ok(Unpublished::default())
    }
}
