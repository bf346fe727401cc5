//! Everything that is metered, as Prometheus text (format 0.0.4).

use std::collections::BTreeMap;
use std::fmt::{Display, Write as _};
use std::sync::atomic::Ordering::Relaxed;

use crate::flow::meter::{CheckpointMeter, SourceMeter};
use crate::sink::board::Board;
use crate::telemetry::latency::{BOUNDS, QUANTILES, Recorder};
use crate::telemetry::{PipelineInfo, StageInfo, StageKind, Telemetry};

/// What `/metrics` says it is.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";
/// Clock ticks of `/proc/self/stat` in a second: the same on every Linux that is in use.
const TICKS: f64 = 100.0;

/// Samples by family, so that every family has its header once and its samples together.
#[derive(Default)]
struct Families(BTreeMap<String, Family>);

struct Family {
    kind: &'static str,
    help: &'static str,
    samples: String,
}

impl Families {
    fn sample(&mut self, (name, kind, help): (&str, &'static str, &'static str), labels: &str, value: impl Display) {
        self.part((name, kind, help), "", labels, value);
    }

    /// A sample whose name has something after the family's.
    fn part(
        &mut self,
        (name, kind, help): (&str, &'static str, &'static str),
        suffix: &str,
        labels: &str,
        value: impl Display,
    ) {
        if !self.0.contains_key(name) {
            self.0.insert(name.to_owned(), Family { kind, help, samples: String::new() });
        }
        let samples = &mut self.0.get_mut(name).expect("it was put there just now").samples;
        let (open, close) = if labels.is_empty() { ("", "") } else { ("{", "}") };
        writeln!(samples, "{name}{suffix}{open}{labels}{close} {value}").expect("writing to a string never fails");
    }

    fn text(self) -> String {
        let mut out = String::new();
        for (name, Family { kind, help, samples }) in self.0 {
            write!(out, "# HELP {name} {help}\n# TYPE {name} {kind}\n{samples}")
                .expect("writing to a string never fails");
        }
        out
    }
}

/// Everything, now.
pub fn render(telemetry: &Telemetry) -> String {
    let mut out = Families::default();
    let version = label("version", env!("CARGO_PKG_VERSION"));
    out.sample(("streamgauge_build_info", "gauge", "Always 1; the labels say what runs."), &version, 1);
    for pipeline in &telemetry.pipelines {
        for stage in &pipeline.stages {
            self::stage(&mut out, pipeline, stage);
        }
        let labels = label("pipeline", &pipeline.name);
        checkpoints(&mut out, &labels, &pipeline.checkpoints);
        latency(&mut out, "streamgauge_event_to_emit", &labels, &pipeline.latency.event_to_emit);
        latency(&mut out, "streamgauge_arrival_to_emit", &labels, &pipeline.latency.arrival_to_emit);
    }
    for shown in telemetry.boards.all() {
        board(&mut out, &shown);
    }
    process(&mut out);
    out.text()
}

/// `name="value"`, escaped.
fn label(name: &str, value: &str) -> String {
    let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    format!("{name}=\"{value}\"")
}

fn stage(out: &mut Families, pipeline: &PipelineInfo, stage: &StageInfo) {
    let labels = [
        label("pipeline", &pipeline.name),
        label("component", &stage.name),
        label("kind", stage.kind.as_str()),
        label("type", &stage.component),
    ]
    .join(",");
    let meter = &stage.meter;
    let received = stage.source.as_ref().map_or(&meter.rows_in, |source| &source.received).load(Relaxed);
    let help = "Payloads that a source received, rows that any other stage received.";
    out.sample(("streamgauge_component_received_events_total", "counter", help), &labels, received);
    let name = "streamgauge_component_received_batches_total";
    out.sample((name, "counter", "Batches received."), &labels, meter.batches_in.load(Relaxed));
    if stage.kind != StageKind::Sink {
        for (port, output) in ["main", "side"].iter().enumerate() {
            let labels = format!("{labels},{}", label("output", output));
            let name = "streamgauge_component_sent_events_total";
            out.sample((name, "counter", "Rows sent."), &labels, meter.rows_out[port].load(Relaxed));
            let name = "streamgauge_component_sent_batches_total";
            out.sample((name, "counter", "Batches sent."), &labels, meter.batches_out[port].load(Relaxed));
        }
    }
    if stage.kind == StageKind::Operator {
        discarded(out, &labels, "late", meter.rows_out[1].load(Relaxed));
    }
    let held = meter.held.load(Relaxed);
    if held != u64::MAX {
        let help = "Groups or keys that the state of an operator holds.";
        out.sample(("streamgauge_operator_groups", "gauge", help), &labels, held);
    }
    let (busy, blocked, waiting) = meter.seconds();
    out.sample(("streamgauge_stage_busy_seconds_total", "counter", "Time spent working."), &labels, busy);
    let help = "Time spent waiting for room downstream.";
    out.sample(("streamgauge_stage_blocked_seconds_total", "counter", help), &labels, blocked);
    out.sample(
        ("streamgauge_stage_waiting_seconds_total", "counter", "Time spent waiting for input."),
        &labels,
        waiting,
    );
    if let Some(queue) = &stage.queue {
        out.sample(("streamgauge_buffer_batches", "gauge", "Batches that wait."), &labels, (queue.len)());
        let help = "Batches that there is room for.";
        out.sample(("streamgauge_buffer_capacity_batches", "gauge", help), &labels, queue.capacity);
    }
    if let Some(lag) = seconds_since(meter.watermark_micros.load(Relaxed)) {
        let help = "How far the watermark is behind the clock.";
        out.sample(("streamgauge_watermark_lag_seconds", "gauge", help), &labels, lag);
    }
    source(out, &labels, stage);
}

fn discarded(out: &mut Families, labels: &str, reason: &str, rows: u64) {
    let labels = format!("{labels},{}", label("reason", reason));
    let help = "Rows and payloads that did not go on in the main output.";
    out.sample(("streamgauge_component_discarded_events_total", "counter", help), &labels, rows);
}

fn source(out: &mut Families, labels: &str, stage: &StageInfo) {
    let Some(source) = &stage.source else { return };
    for (reason, counter) in [
        ("dead_letter", &source.dead_letter),
        ("future", &source.future),
        ("duplicate", &source.duplicates),
        ("dropped", &source.dropped),
    ] {
        discarded(out, labels, reason, counter.load(Relaxed));
    }
    let help = "Fields that no column is declared for, of payloads that have rows (`extra = \"count\"`).";
    let extra = source.extra_fields.load(Relaxed);
    out.sample(("streamgauge_source_extra_fields_total", "counter", help), labels, extra);
    let help = "Values that are null because their column cannot hold them (`mismatch = \"null\"`).";
    let mismatched = source.mismatched_values.load(Relaxed);
    out.sample(("streamgauge_source_mismatched_values_total", "counter", help), labels, mismatched);
    let help = "Messages that by their numbers were sent and did not come (`sparkplug_b`).";
    let lost = source.lost_messages.load(Relaxed);
    out.sample(("streamgauge_source_lost_messages_total", "counter", help), labels, lost);
    let name = "streamgauge_component_received_bytes_total";
    out.sample((name, "counter", "Bytes of payloads received."), labels, source.bytes.load(Relaxed));
    out.sample(("streamgauge_source_connected", "gauge", "1 while connected."), labels, source.connected.load(Relaxed));
    let help = "Connections made after the first.";
    out.sample(("streamgauge_source_reconnects_total", "counter", help), labels, source.reconnects.load(Relaxed));
    let help = "Reconnections at which the broker had forgotten the session.";
    out.sample(("streamgauge_source_gaps_total", "counter", help), labels, source.gaps.load(Relaxed));
    let name = "streamgauge_source_backpressure_disconnects_total";
    let help = "Connections given up because too much waited for the pipeline; the broker keeps it.";
    out.sample((name, "counter", help), labels, source.backpressure_disconnects.load(Relaxed));
    journal(out, labels, source);
    let last = source.last_arrival_micros.load(Relaxed);
    if let Some(lag) = (last != 0).then(|| seconds_since(last)).flatten() {
        out.sample(("streamgauge_source_lag_seconds", "gauge", "Time since the last payload."), labels, lag);
    }
}

/// The journal of a source, where it has one.
#[expect(clippy::cast_precision_loss, reason = "for people")]
fn journal(out: &mut Families, labels: &str, source: &SourceMeter) {
    if source.journal_bytes.load(Relaxed) == 0 {
        return;
    }
    let help = "Bytes that the segments of the journal take.";
    out.sample(("streamgauge_journal_bytes", "gauge", help), labels, source.journal_bytes.load(Relaxed));
    let help = "Records of the journal, counted from its first.";
    out.sample(("streamgauge_journal_records_total", "counter", help), labels, source.journal_records.load(Relaxed));
    let help = "Records of the journal that the stages have not read yet.";
    out.sample(("streamgauge_journal_lag_records", "gauge", help), labels, source.journal_lag.load(Relaxed));
    let help = "Groups of records that were made durable.";
    out.sample(("streamgauge_journal_syncs_total", "counter", help), labels, source.journal_syncs.load(Relaxed));
    let seconds = source.journal_sync_ns.load(Relaxed) as f64 / 1e9;
    let help = "Time spent writing groups and making them durable.";
    out.sample(("streamgauge_journal_sync_seconds_total", "counter", help), labels, seconds);
}

/// The checkpoints of a pipeline, where it has some.
#[expect(clippy::cast_precision_loss, reason = "for people")]
fn checkpoints(out: &mut Families, labels: &str, meter: &CheckpointMeter) {
    let written = meter.written.load(Relaxed);
    if written == 0 {
        return;
    }
    let help = "Checkpoints written since the process began.";
    out.sample(("streamgauge_checkpoints_total", "counter", help), labels, written);
    let help = "The newest epoch that is durable and published.";
    out.sample(("streamgauge_checkpoint_epoch", "gauge", help), labels, meter.epoch.load(Relaxed));
    let help = "Bytes of state written to checkpoints.";
    out.sample(("streamgauge_checkpoint_bytes_total", "counter", help), labels, meter.bytes.load(Relaxed));
    let seconds = meter.busy_ns.load(Relaxed) as f64 / 1e9;
    let help = "Time spent writing checkpoints and publishing files.";
    out.sample(("streamgauge_checkpoint_seconds_total", "counter", help), labels, seconds);
    if let Some(age) = seconds_since(meter.durable_micros.load(Relaxed)) {
        let help = "Time since the newest epoch was durable.";
        out.sample(("streamgauge_checkpoint_age_seconds", "gauge", help), labels, age);
    }
}

/// Seconds from a time to now; none for the ends of time.
#[expect(clippy::cast_precision_loss, reason = "for people")]
fn seconds_since(micros: i64) -> Option<f64> {
    let now = jiff::Timestamp::now().as_microsecond();
    (micros != i64::MIN && micros != i64::MAX).then(|| now.saturating_sub(micros) as f64 / 1e6)
}

fn latency(out: &mut Families, name: &str, labels: &str, recorder: &Recorder) {
    let shot = recorder.snapshot();
    let family = format!("{name}_seconds");
    let family = (family.as_str(), "histogram", "How long rows take until they are emitted.");
    for (bound, rows) in BOUNDS.iter().zip(shot.buckets) {
        out.part(family, "_bucket", &format!("{labels},le=\"{bound}\""), rows);
    }
    out.part(family, "_bucket", &format!("{labels},le=\"+Inf\""), shot.count);
    out.part(family, "_sum", labels, shot.sum);
    out.part(family, "_count", labels, shot.count);
    let family = format!("{name}_quantile_seconds");
    let family = (family.as_str(), "summary", "How long rows take until they are emitted, since the start.");
    for (quantile, value) in QUANTILES.iter().zip(shot.quantiles.iter().flatten()) {
        out.part(family, "", &format!("{labels},quantile=\"{quantile}\""), value);
    }
    out.part(family, "_sum", labels, shot.sum);
    out.part(family, "_count", labels, shot.count);
}

fn board(out: &mut Families, board: &Board) {
    let own = format!("{},{}", label("pipeline", &board.pipeline), label("sink", &board.sink));
    let name = "streamgauge_metrics_sink_dropped_series_total";
    out.sample((name, "counter", "Rows of groups beyond `max_series`, not shown."), &own, board.dropped());
    board.visit(|labels, row| {
        let labels = if labels.is_empty() { own.clone() } else { format!("{own},{labels}") };
        for (gauge, value) in board.gauges.iter().zip(&row.values) {
            if let Some(value) = value {
                out.sample((gauge, "gauge", "The newest value of the group."), &labels, Number(*value));
            }
        }
    });
}

/// A value as Prometheus reads it.
struct Number(f64);

impl Display for Number {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.is_infinite() { f.write_str(if self.0 > 0.0 { "+Inf" } else { "-Inf" }) } else { self.0.fmt(f) }
    }
}

/// What Linux tells of the process; nothing elsewhere.
fn process(out: &mut Families) {
    let read = |file: &str| std::fs::read_to_string(file).unwrap_or_default();
    let status = read("/proc/self/status");
    let resident =
        status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse().ok());
    if let Some(kib) = resident.map(|kib: u64| kib * 1024) {
        out.sample(("process_resident_memory_bytes", "gauge", "Memory in use."), "", kib);
    }
    let stat = read("/proc/self/stat");
    // The name may hold anything, so fields are counted from its end.
    let fields: Vec<f64> = stat
        .rsplit_once(')')
        .map(|(_, rest)| rest.split_whitespace().map(|field| field.parse().unwrap_or(0.0)).collect())
        .unwrap_or_default();
    if let [user, system] = fields.get(11..13).unwrap_or_default() {
        let help = "Processor time used.";
        out.sample(("process_cpu_seconds_total", "counter", help), "", (user + system) / TICKS);
    }
    let boot = read("/proc/stat");
    let boot = boot.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse::<f64>().ok());
    if let (Some(boot), Some(ticks)) = (boot, fields.get(19)) {
        let help = "When the process started, in seconds since 1970.";
        out.sample(("process_start_time_seconds", "gauge", help), "", boot + ticks / TICKS);
    }
    if let Ok(files) = std::fs::read_dir("/proc/self/fd") {
        out.sample(("process_open_fds", "gauge", "Open files."), "", files.count());
    }
}
