//! The figures of repetitions: of each, and put together.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::{Arguments, Repetition};
use crate::bench::{Best, FORMAT, LatencyFigures, Machine, Report, Shares, SinkFigures, StageFigures, bottleneck};
use crate::engine::ThreadUse;
use crate::telemetry::{PipelineInfo, StageInfo, StageKind, process};

pub(super) fn latency(info: &PipelineInfo) -> Option<LatencyFigures> {
    let shot = info.latency.taken_to_written.snapshot();
    shot.quantiles.map(|[p50, p90, p99, p999]| LatencyFigures { p50, p90, p99, p999, rows: shot.count })
}

/// The stages, the threads beside them, and the processor time of all others. Checksums are taken out.
pub(super) fn stages(
    info: &PipelineInfo,
    threads: &[ThreadUse],
    checksum_cpu: &[(String, Duration)],
    cpu: Duration,
) -> (Vec<StageFigures>, Duration) {
    let mut figures: Vec<StageFigures> = Vec::new();
    for stage in &info.stages {
        let Some(thread) = threads.iter().find(|thread| thread.name == stage.name) else { continue };
        let checksum = checksum_cpu.iter().find(|(name, _)| stage.kind == StageKind::Sink && *name == stage.name);
        figures.push(stage_figures(stage, thread, checksum.map_or(Duration::ZERO, |(_, cpu)| *cpu)));
    }
    for thread in threads.iter().filter(|thread| info.stages.iter().all(|stage| stage.name != thread.name)) {
        figures.push(StageFigures {
            name: thread.name.clone(),
            kind: "thread".to_owned(),
            component: String::new(),
            rows_in: None,
            rows_out: None,
            cpu_seconds: thread.cpu.as_secs_f64(),
            shares: None,
        });
    }
    (figures, cpu.saturating_sub(threads.iter().map(|thread| thread.cpu).sum()))
}

fn stage_figures(stage: &StageInfo, thread: &ThreadUse, checksum: Duration) -> StageFigures {
    let meter = &stage.meter;
    let came = stage.source.as_ref().map_or(&meter.rows_in, |source| &source.received).load(Relaxed);
    let went: u64 = meter.rows_out.iter().map(|rows| rows.load(Relaxed)).sum();
    let (_, blocked, waiting) = meter.seconds();
    StageFigures {
        name: stage.name.clone(),
        kind: stage.kind.as_str().to_owned(),
        component: stage.component.clone(),
        rows_in: Some(came),
        rows_out: (stage.kind != StageKind::Sink).then_some(went),
        cpu_seconds: thread.cpu.saturating_sub(checksum).as_secs_f64(),
        shares: Some(Shares::of(thread.lived.as_secs_f64(), blocked, waiting)),
    }
}

/// Puts the repetitions together: at least one.
pub(super) fn report(arguments: &Arguments, repetitions: &[Repetition]) -> Report {
    let fastest = repetitions.iter().min_by_key(|repetition| repetition.wall).expect("at least one was asked for");
    let seconds = |of: fn(&Repetition) -> Duration| repetitions.iter().map(|one| of(one).as_secs_f64()).collect();
    let wall = Best::least(seconds(|repetition| repetition.wall));
    let cpu = Best::least(seconds(|repetition| repetition.cpu));
    Report {
        format: FORMAT,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pipeline: fastest.pipeline.clone(),
        pipeline_file: fastest.file.clone(),
        recording: arguments.recording.display().to_string(),
        durable: arguments.durable,
        machine: Machine::this(),
        repeat: repetitions.len(),
        warmup: usize::from(arguments.warmup),
        payloads: fastest.payloads,
        payload_bytes: fastest.payload_bytes,
        rows: fastest.rows,
        wall_seconds: wall,
        cpu_seconds: cpu,
        payloads_per_second: wall.rate(fastest.payloads),
        rows_per_second: wall.rate(fastest.rows),
        bytes_per_second: wall.rate(fastest.payload_bytes),
        rows_per_cpu_second: cpu.rate(fastest.rows),
        peak_resident_bytes: process::peak_resident_bytes(),
        latency_seconds: fastest.latency,
        bottleneck: bottleneck(&fastest.stages),
        stages: fastest.stages.clone(),
        other_cpu_seconds: fastest.other_cpu.as_secs_f64(),
        checksum: SinkFigures::checksum_of(&fastest.sinks),
        sinks: fastest.sinks.clone(),
        output_bytes: fastest.output_bytes,
        checksum_cpu_seconds: fastest.checksum_cpu.as_secs_f64(),
        account: serde_json::to_value(&fastest.account).expect("an account is always JSON"),
    }
}
