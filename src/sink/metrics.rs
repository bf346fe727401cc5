//! The `metrics` sink: the newest row of every group, on `/metrics` and as JSON.
//!
//! What is shown survives a restart: the newest rows are one part of the checkpoint, written when any of them has changed.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, RecordBatch};
use arrow::compute::{cast, interleave};
use arrow::datatypes::{DataType, SchemaRef, TimestampMicrosecondType};
use arrow::error::ArrowError;
use arrow::util::display::{ArrayFormatter, FormatOptions};

use crate::component::{Fault, Kind, Name, Settings};
use crate::flow::message::Epoch;
use crate::flow::schema::{StreamSchema, timestamp_type};
use crate::flow::state::{Part, Restored};
use crate::flow::time::Span;
use crate::sink::board::Board;
use crate::sink::json_rows::JsonRows;
use crate::sink::{Sink, SinkContext, SinkError, SinkSpec, Unpublished};

/// `type = "metrics"`.
pub const KIND: Kind<dyn SinkSpec> =
    Kind { name: "metrics", about: "the newest row of every group on the HTTP endpoint", parse };

/// Groups that are shown, where nothing else is said.
const MAX_SERIES: usize = 10_000;
/// Batches that are kept for their newest rows; then those rows are copied into one.
const KEPT_BATCHES: usize = 64;
/// Rows that are kept beside the newest ones, for the same reason.
const KEPT_ROWS: usize = 65_536;
/// The part of the checkpoint that has the newest rows.
const PART: &str = "newest";
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
        Ok(Box::new(MetricsSink {
            board,
            labels,
            gauges,
            columns: input.columns.clone(),
            time: input.time,
            key: String::new(),
            text: String::new(),
            kept: Vec::new(),
            changed: false,
        }))
    }
}

/// The open sink. Rows are shown when they are written; a commit has nothing to add.
struct MetricsSink {
    board: Arc<Board>,
    labels: Vec<(usize, String)>,
    gauges: Vec<usize>,
    columns: SchemaRef,
    time: usize,
    key: String,
    text: String,
    /// Batches with the newest rows; the board knows which those are.
    kept: Vec<RecordBatch>,
    /// Whether a row was shown since the last barrier.
    changed: bool,
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
        let (key, scratch, place) = (&mut self.key, &mut self.text, self.kept.len());
        let (mut any, mut groups) = (false, 0);
        self.board.update(|shown| {
            for row in 0..batch.num_rows() {
                key.clear();
                for (name, values) in &labels {
                    push_label(key, scratch, name, values, row);
                }
                shown.row(key, times.value(row), |series| {
                    json.write(row, &mut series.json);
                    series.values.extend(gauges.iter().map(|array| array.is_valid(row).then(|| array.value(row))));
                    (series.kept, any) = ((place, row), true);
                });
            }
            groups = shown.len();
        });
        if self.board.is_watched() {
            self.text.clear();
            json.write_array(&mut self.text);
            self.board.announce(&self.text);
        }
        if any {
            self.changed = true;
            self.kept.push(batch.clone());
            let rows: usize = self.kept.iter().map(RecordBatch::num_rows).sum();
            if self.kept.len() > KEPT_BATCHES || rows > groups + KEPT_ROWS {
                self.gather()?;
            }
        }
        Ok(())
    }

    /// Copies the newest rows, in the order of their labels, so that the batches that they came in can go.
    fn gather(&mut self) -> Result<(), ArrowError> {
        let mut places = Vec::new();
        self.board.update(|shown| {
            shown.each(|series| {
                let next = (0, places.len());
                places.push(std::mem::replace(&mut series.kept, next));
            });
        });
        let kept = std::mem::take(&mut self.kept);
        if !places.is_empty() {
            let column = |index: usize| {
                let arrays: Vec<&dyn Array> = kept.iter().map(|batch| batch.column(index).as_ref()).collect();
                interleave(&arrays, &places)
            };
            let columns = (0..self.columns.fields().len()).map(column).collect::<Result<_, _>>()?;
            self.kept.push(RecordBatch::try_new(self.columns.clone(), columns)?);
        }
        Ok(())
    }

    /// The newest rows, as a part where they have changed since the barrier before.
    fn parts(&mut self) -> Result<Vec<Part>, ArrowError> {
        if std::mem::take(&mut self.changed) {
            self.gather()?;
            return Ok(self.kept.iter().map(|rows| Part::changed(PART, rows.clone())).collect());
        }
        Ok(self.kept.iter().map(|_| Part::same(PART)).collect())
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
        self.show(batch).map_err(|error| refused(&error))
    }

    fn prepare(&mut self, _: Epoch, _: bool) -> Result<Unpublished, SinkError> {
        let parts = self.parts().map_err(|error| refused(&error))?;
        Ok(Unpublished { files: Vec::new(), parts })
    }

    fn restore(&mut self, parts: &[Restored]) -> Result<(), SinkError> {
        for (_, rows) in parts {
            let fields = |schema: &SchemaRef| {
                let fields = schema.fields().iter().map(|field| (field.name().clone(), field.data_type().clone()));
                fields.collect::<Vec<_>>()
            };
            if fields(rows.schema_ref()) != fields(&self.columns) {
                // Nothing is lost but what was to be seen: the next row of each group shows it again.
                tracing::warn!(
                    sink = self.board.sink,
                    "the rows that were shown before have other columns, so they go"
                );
                continue;
            }
            self.show(rows).map_err(|error| refused(&error))?;
        }
        // The checkpoint has them.
        self.changed = self.kept.len() > 1;
        Ok(())
    }
}

fn refused(error: &ArrowError) -> SinkError {
    SinkError::Fatal(format!("cannot show rows as metrics: {error}"))
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int64Array, StringArray, TimestampMicrosecondArray};
    use arrow::datatypes::{Field, Schema};

    use super::*;
    use crate::disk;
    use crate::sink::board::Boards;

    fn schema() -> StreamSchema {
        let columns = Schema::new(vec![
            Field::new("device", DataType::Utf8, false),
            Field::new("at", timestamp_type(), false),
            Field::new("samples", DataType::Int64, false),
        ]);
        StreamSchema { columns: Arc::new(columns), time: 1, out_of_orderness: Span::ZERO }
    }

    fn rows(rows: &[(&str, i64, i64)]) -> RecordBatch {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from_iter_values(rows.iter().map(|row| row.0))),
            Arc::new(TimestampMicrosecondArray::from_iter_values(rows.iter().map(|row| row.1)).with_timezone("UTC")),
            Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.2))),
        ];
        RecordBatch::try_new(schema().columns, columns).unwrap()
    }

    /// A sink, and what it shows.
    fn open(settings: &str) -> (Box<dyn Sink>, Arc<Boards>) {
        let (mut settings, faults) = Settings::of(settings);
        let spec = parse(&mut settings).unwrap();
        settings.finish();
        assert_eq!(*faults.borrow(), []);
        let boards = Arc::<Boards>::default();
        let context = SinkContext {
            pipeline: "plant".into(),
            name: "now".into(),
            run: "r".into(),
            boards: boards.clone(),
            disk: disk::real(),
            epoch: Epoch(0),
            epoch_every: Span::from_secs(10),
        };
        (spec.open(&context, &schema()).unwrap(), boards)
    }

    fn latest(boards: &Boards) -> String {
        boards.get(None, "now").unwrap().latest()
    }

    #[test]
    fn what_is_shown_survives_a_restart() {
        let (mut sink, boards) = open("max_series = 2");
        assert_eq!(sink.prepare(Epoch(0), false).unwrap(), Unpublished::default());
        sink.write(&rows(&[("b", 5, 1), ("a", 6, 2), ("b", 4, 3)])).unwrap();
        sink.write(&rows(&[("a", 7, 4), ("c", 8, 5)])).unwrap();
        let parts = sink.prepare(Epoch(1), false).unwrap().parts;
        assert_eq!(parts, [Part::changed(PART, rows(&[("a", 7, 4), ("b", 5, 1)]))]);
        // Nothing came, or nothing that is newer.
        assert_eq!(sink.prepare(Epoch(2), false).unwrap().parts, [Part::same(PART)]);
        sink.write(&rows(&[("a", 6, 9)])).unwrap();
        assert_eq!(sink.prepare(Epoch(3), false).unwrap().parts, [Part::same(PART)]);

        let (mut again, shown) = open("max_series = 2");
        again.restore(&[(PART.to_owned(), parts[0].rows.clone().unwrap())]).unwrap();
        assert_eq!(latest(&shown), latest(&boards));
        assert!(latest(&shown).contains("\"samples\":4"), "{}", latest(&shown));
        assert_eq!(again.prepare(Epoch(4), false).unwrap().parts, [Part::same(PART)]);
        again.write(&rows(&[("a", 7, 6), ("b", 3, 7)])).unwrap();
        let parts = again.prepare(Epoch(5), true).unwrap().parts;
        assert_eq!(parts, [Part::changed(PART, rows(&[("a", 7, 6), ("b", 5, 1)]))]);
    }

    #[test]
    fn many_batches_are_not_kept_for_a_few_rows() {
        let (mut sink, _) = open("");
        let names: Vec<String> = (0..1_000).map(|n| format!("d{n:04}")).collect();
        for (at, name) in names.iter().enumerate() {
            sink.write(&rows(&[(name, at as i64, 1)])).unwrap();
        }
        let parts = sink.prepare(Epoch(0), false).unwrap().parts;
        let expected: Vec<_> = names.iter().enumerate().map(|(at, name)| (name.as_str(), at as i64, 1)).collect();
        assert_eq!(parts, [Part::changed(PART, rows(&expected))]);
    }

    #[test]
    fn rows_that_went_stale_are_not_carried_and_other_columns_are_no_failure() {
        let (mut sink, boards) = open("stale_after = '1us'");
        sink.write(&rows(&[("a", 1, 1)])).unwrap();
        while latest(&boards) != "[]" {
            std::hint::spin_loop();
        }
        assert_eq!(sink.prepare(Epoch(0), false).unwrap().parts, []);
        let narrow = rows(&[("a", 1, 1)]).project(&[0, 1]).unwrap();
        let (mut sink, boards) = open("");
        sink.restore(&[(PART.to_owned(), narrow)]).unwrap();
        assert_eq!((latest(&boards).as_str(), sink.prepare(Epoch(0), false).unwrap().parts), ("[]", vec![]));
    }
}
