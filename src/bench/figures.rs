//! The figures of a bench: what `--json` writes and `--compare` reads.

use std::hash::Hasher as _;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use twox_hash::xxhash3_64::Hasher;

/// The version of the JSON: raised when a key changes its meaning or goes.
pub const FORMAT: u32 = 1;

/// What a bench found. Its JSON is part of the contract.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// [`FORMAT`].
    pub format: u32,
    /// The version of streamgauge.
    pub version: String,
    /// `pipeline.name`.
    pub pipeline: String,
    /// A checksum of the pipeline file.
    pub pipeline_file: String,
    /// The recording, as it was named.
    pub recording: String,
    /// Through journal and checkpoints.
    pub durable: bool,
    /// Where it ran.
    pub machine: Machine,
    /// Repetitions that count.
    pub repeat: usize,
    /// Repetitions before, that do not.
    pub warmup: usize,
    /// Payloads of one repetition.
    pub payloads: u64,
    /// Bytes of their bodies.
    pub payload_bytes: u64,
    /// Rows that they became, of all sources.
    pub rows: u64,
    /// From the start of the threads to the end of the last.
    pub wall_seconds: Best,
    /// Processor time of the whole process, less what checksums took.
    pub cpu_seconds: Best,
    /// Payloads by wall time.
    pub payloads_per_second: Best,
    /// Rows by wall time.
    pub rows_per_second: Best,
    /// Bytes of payloads by wall time.
    pub bytes_per_second: Best,
    /// Rows by processor time.
    pub rows_per_cpu_second: Best,
    /// The most memory that the process ever had resident, all repetitions together; `null` where nobody tells.
    pub peak_resident_bytes: Option<u64>,
    /// From the taking of payloads by the intake to the writing of the rows that they let go, weighed by rows, in the fastest
    /// repetition; `null` where every row waited for the end of the recording.
    pub latency_seconds: Option<LatencyFigures>,
    /// The stages of the fastest repetition, sources first, and the threads beside them.
    pub stages: Vec<StageFigures>,
    /// Processor time of all other threads in the fastest repetition: reading the recording, and the runtime.
    pub other_cpu_seconds: f64,
    /// What holds the pipeline back in the fastest repetition.
    pub bottleneck: Option<Bottleneck>,
    /// What the sinks were given, the same in every repetition.
    pub sinks: Vec<SinkFigures>,
    /// Bytes of all files that were written.
    pub output_bytes: u64,
    /// Processor time that checksums took in the fastest repetition: in no other figure but wall time and busy shares.
    pub checksum_cpu_seconds: f64,
    /// Of the rows of all sinks, order included.
    pub checksum: String,
    /// The account of one repetition.
    pub account: Value,
}

/// Where a bench ran.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// `linux`.
    pub os: String,
    /// `x86_64`.
    pub architecture: String,
    /// Cores that the process may use.
    pub cores: usize,
}

impl Machine {
    /// This one.
    pub fn this() -> Self {
        Self {
            os: std::env::consts::OS.to_owned(),
            architecture: std::env::consts::ARCH.to_owned(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
        }
    }
}

/// A figure of several repetitions.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Best {
    /// Of the repetition in which it was best.
    pub best: f64,
    /// The middle one.
    pub median: f64,
}

impl Best {
    /// Of figures of which the least is the best: at least one.
    pub fn least(mut all: Vec<f64>) -> Self {
        assert!(!all.is_empty(), "a bench has at least one repetition");
        all.sort_by(f64::total_cmp);
        let middle = all.len() / 2;
        let median = if all.len() % 2 == 1 { all[middle] } else { f64::midpoint(all[middle - 1], all[middle]) };
        Self { best: all[0], median }
    }

    /// How many a second, of so many in these times.
    #[expect(clippy::cast_precision_loss, reason = "a rate")]
    #[must_use]
    pub fn rate(self, count: u64) -> Self {
        let rate = |seconds: f64| if seconds > 0.0 { count as f64 / seconds } else { 0.0 };
        Self { best: rate(self.best), median: rate(self.median) }
    }
}

/// Quantiles of a latency, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct LatencyFigures {
    /// Half of the rows.
    pub p50: f64,
    /// Nine of ten.
    pub p90: f64,
    /// 99 of a hundred.
    pub p99: f64,
    /// 999 of a thousand.
    pub p999: f64,
    /// How many rows there were.
    pub rows: u64,
}

/// What a stage did, or a thread beside the stages.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StageFigures {
    /// Its name in the pipeline file; of a thread, its name.
    pub name: String,
    /// `source`, `operator`, `sink` or `thread`.
    pub kind: String,
    /// Its type in the pipeline file.
    pub component: String,
    /// Rows (of a source: payloads) that came.
    pub rows_in: Option<u64>,
    /// Rows that went on, at both outputs.
    pub rows_out: Option<u64>,
    /// Processor time of its thread.
    pub cpu_seconds: f64,
    /// How its time passed; none of a thread beside the stages.
    pub shares: Option<Shares>,
}

/// How the time of a stage passed: the shares add up to 1.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Shares {
    /// Working, or ready to work without a core to do so.
    pub busy: f64,
    /// Waiting for room downstream.
    pub blocked: f64,
    /// Waiting for input.
    pub waiting: f64,
}

impl Shares {
    /// Of a life of so many seconds.
    pub fn of(lived: f64, blocked: f64, waiting: f64) -> Self {
        let lived = lived.max(blocked + waiting).max(f64::MIN_POSITIVE);
        let (blocked, waiting) = (blocked / lived, waiting / lived);
        Self { busy: (1.0 - blocked - waiting).max(0.0), blocked, waiting }
    }
}

/// What holds a pipeline back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "at")]
pub enum Bottleneck {
    /// A stage: those before it are blocked, those behind it wait.
    Stage {
        /// Its name.
        name: String,
        /// Its busy share.
        busy: f64,
    },
    /// What comes before a source: reading the recording, or the journal.
    Feed {
        /// The source that waits.
        name: String,
        /// The share of its time for which it does.
        waiting: f64,
    },
}

/// The stage that is busiest; or the feed, where a source waits for it longer than any stage is busy.
pub fn bottleneck(stages: &[StageFigures]) -> Option<Bottleneck> {
    let shares = || stages.iter().filter_map(|stage| stage.shares.map(|shares| (stage, shares)));
    let (busiest, busy) = shares().max_by(|a, b| a.1.busy.total_cmp(&b.1.busy))?;
    let sources = shares().filter(|(stage, _)| stage.kind == "source" && stage.rows_in.is_some_and(|rows| rows > 0));
    match sources.max_by(|a, b| a.1.waiting.total_cmp(&b.1.waiting)) {
        Some((source, shares)) if shares.waiting > busy.busy => {
            Some(Bottleneck::Feed { name: source.name.clone(), waiting: shares.waiting })
        }
        _ => Some(Bottleneck::Stage { name: busiest.name.clone(), busy: busy.busy }),
    }
}

/// What was done with the rows of a sink.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SinkUse {
    /// It wrote them, to a temporary folder.
    Written,
    /// It kept them in memory, as it does.
    Memory,
    /// They were counted in its place: it would have spoken to the world.
    Counted,
}

/// What a sink was given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SinkFigures {
    /// Its name in the pipeline file.
    pub name: String,
    /// Its type in the pipeline file.
    pub component: String,
    /// What was done with them.
    pub rows_were: SinkUse,
    /// How many.
    pub rows: u64,
    /// Of them, order included.
    pub checksum: String,
}

impl SinkFigures {
    /// The checksum of what all of them were given.
    pub fn checksum_of(sinks: &[Self]) -> String {
        let mut all = Hasher::new();
        for sink in sinks {
            all.write(format!("{}\0{}\0", sink.name, sink.checksum).as_bytes());
        }
        format!("{:016x}", all.finish())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stage(name: &str, kind: &str, busy: f64, blocked: f64, waiting: f64) -> StageFigures {
        StageFigures {
            name: name.to_owned(),
            kind: kind.to_owned(),
            component: String::new(),
            rows_in: Some(1),
            rows_out: None,
            cpu_seconds: 0.0,
            shares: Some(Shares { busy, blocked, waiting }),
        }
    }

    #[test]
    fn the_bottleneck_is_the_busiest_stage_or_what_feeds_the_first() {
        let by_sink = [stage("feed", "source", 0.3, 0.7, 0.0), stage("out", "sink", 0.9, 0.0, 0.1)];
        assert_eq!(bottleneck(&by_sink), Some(Bottleneck::Stage { name: "out".to_owned(), busy: 0.9 }));
        let by_feed = [stage("feed", "source", 0.3, 0.0, 0.7), stage("out", "sink", 0.2, 0.0, 0.8)];
        assert_eq!(bottleneck(&by_feed), Some(Bottleneck::Feed { name: "feed".to_owned(), waiting: 0.7 }));
        let mut silent = stage("other", "source", 0.0, 0.0, 1.0);
        silent.rows_in = Some(0);
        let with_silent = [by_sink[0].clone(), silent, by_sink[1].clone()];
        assert_eq!(bottleneck(&with_silent), bottleneck(&by_sink));
        assert_eq!(bottleneck(&[]), None);
    }

    #[test]
    fn best_and_median_are_of_all_repetitions() {
        assert_eq!(Best::least(vec![3.0, 1.0, 2.0]), Best { best: 1.0, median: 2.0 });
        assert_eq!(Best::least(vec![4.0, 1.0, 3.0, 2.0]), Best { best: 1.0, median: 2.5 });
        assert_eq!(Best::least(vec![2.0, 4.0, 5.0]).rate(20), Best { best: 10.0, median: 5.0 });
    }

    #[test]
    fn shares_add_up() {
        let Shares { busy, blocked, waiting } = Shares::of(4.0, 1.0, 2.0);
        assert!((busy - 0.25).abs() < 1e-12 && (blocked - 0.25).abs() < 1e-12 && (waiting - 0.5).abs() < 1e-12);
        assert!(Shares::of(1.0, 1.0, 1.0).busy.abs() < 1e-12, "clocks that disagree");
    }
}
