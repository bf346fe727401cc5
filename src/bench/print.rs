//! The figures of a bench for people.

use std::fmt::Write as _;

use crate::bench::figures::{Bottleneck, Report, SinkUse, StageFigures};
use crate::bench::table::{grouped, per_cent, size, table, time, whole};

impl Report {
    /// As tables; with bold headings in `colour`.
    pub fn render(&self, colour: bool) -> String {
        let parts = [self.about(), self.speed(colour), self.facts(), self.stages(colour), self.sinks(colour)];
        parts.join("\n")
    }

    fn about(&self) -> String {
        let Self { pipeline, recording, repeat, warmup, machine, .. } = self;
        let how = if self.durable { "through journal and checkpoints" } else { "without a journal" };
        format!(
            "bench of pipeline {pipeline} on {recording}, {how}: {repeat} repetitions after {warmup} to warm up, {} cores\n",
            machine.cores
        )
    }

    fn speed(&self, colour: bool) -> String {
        let figures = [
            ("wall", self.wall_seconds, time as fn(f64) -> String),
            ("cpu", self.cpu_seconds, time),
            ("payloads/s", self.payloads_per_second, whole),
            ("rows/s", self.rows_per_second, whole),
            ("bytes/s", self.bytes_per_second, size),
            ("rows/cpu s", self.rows_per_cpu_second, whole),
        ];
        let rows = figures.map(|(name, best, shown)| vec![name.to_owned(), shown(best.best), shown(best.median)]);
        table(&["figure", "best", "median"], 1, &rows, colour)
    }

    #[expect(clippy::cast_precision_loss, reason = "bytes for people")]
    fn facts(&self) -> String {
        let mut text = String::new();
        let _ = writeln!(
            text,
            "payloads  {} ({}), {} rows",
            grouped(self.payloads),
            size(self.payload_bytes as f64),
            grouped(self.rows)
        );
        let peak = self.peak_resident_bytes.map_or_else(|| "not told here".to_owned(), |bytes| size(bytes as f64));
        let _ = writeln!(text, "memory    {peak} at most");
        let latency = match self.latency_seconds {
            Some(latency) => {
                let shown = [("p50", latency.p50), ("p90", latency.p90), ("p99", latency.p99), ("p99.9", latency.p999)];
                let shown = shown.map(|(name, seconds)| format!("{name} {}", time(seconds)));
                format!("{}, from taken to written, {} rows", shown.join("  "), grouped(latency.rows))
            }
            None => "none: every row waited for the end of the recording".to_owned(),
        };
        let _ = writeln!(text, "latency   {latency}");
        let _ = writeln!(text, "output    {}, checksum {}", size(self.output_bytes as f64), self.checksum);
        text
    }

    fn stages(&self, colour: bool) -> String {
        let head = ["stage", "kind", "in", "out", "cpu", "busy", "blocked", "waiting"];
        let mut rows: Vec<Vec<String>> = self.stages.iter().map(stage).collect();
        let mut other = vec!["other threads".to_owned(), String::new(), String::new(), String::new()];
        other.extend([time(self.other_cpu_seconds), String::new(), String::new(), String::new()]);
        rows.push(other);
        let mut text = table(&head, 2, &rows, colour);
        let _ = match &self.bottleneck {
            Some(Bottleneck::Stage { name, busy }) => {
                writeln!(text, "bottleneck: {name}, busy {} of the time", per_cent(*busy))
            }
            Some(Bottleneck::Feed { name, waiting }) => {
                writeln!(text, "bottleneck: what feeds {name}, which waits {} of the time for it", per_cent(*waiting))
            }
            None => Ok(()),
        };
        text
    }

    fn sinks(&self, colour: bool) -> String {
        let row = |sink: &crate::bench::SinkFigures| {
            let were = match sink.rows_were {
                SinkUse::Written => "written to a temporary folder",
                SinkUse::Memory => "kept in memory",
                SinkUse::Counted => "counted only, not sent",
            };
            vec![sink.name.clone(), sink.component.clone(), were.to_owned(), sink.checksum.clone(), grouped(sink.rows)]
        };
        let rows: Vec<Vec<String>> = self.sinks.iter().map(row).collect();
        table(&["sink", "kind", "rows were", "checksum", "rows"], 4, &rows, colour)
    }
}

fn stage(stage: &StageFigures) -> Vec<String> {
    let count = |count: Option<u64>| count.map_or_else(String::new, grouped);
    let share = |share: Option<f64>| share.map_or_else(String::new, per_cent);
    let kind =
        if stage.component.is_empty() { stage.kind.clone() } else { format!("{} ({})", stage.kind, stage.component) };
    vec![
        stage.name.clone(),
        kind,
        count(stage.rows_in),
        count(stage.rows_out),
        time(stage.cpu_seconds),
        share(stage.shares.map(|shares| shares.busy)),
        share(stage.shares.map(|shares| shares.blocked)),
        share(stage.shares.map(|shares| shares.waiting)),
    ]
}
