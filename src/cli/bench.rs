//! `streamgauge bench`: how fast a pipeline is on a recording, and whether it gives the same each time.

mod figures;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use figures::{latency, report, stages};

use crate::bench::{
    Comparison, Elsewhere, LatencyFigures, Percent, Report, SinkFigures, SinkUse, StageFigures, Tapped, Told,
    bytes_below, read_report,
};
use crate::cli::replay::{bar, put_in, shape};
use crate::cli::run::drive;
use crate::disk;
use crate::engine::account::Account;
use crate::engine::{Options, State};
use crate::ingest::recording::Speed;
use crate::pipeline::plan::{Durability, Plan};
use crate::telemetry::{Telemetry, process};

/// Ended by a signal.
const INTERRUPTED: u8 = 130;

#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// The pipeline file.
    pipeline: PathBuf,
    /// The recording: JSON lines as `record` writes them, also .gz and .zst.
    #[arg(long, value_name = "FILE")]
    recording: PathBuf,
    /// Which source the recording stands for; the only one where there is one.
    #[arg(long, value_name = "NAME")]
    source: Option<String>,
    /// Each line is a payload without an envelope.
    #[arg(long, requires = "topic")]
    bare: bool,
    /// The topic of a bare recording's payloads.
    #[arg(long, requires = "bare")]
    topic: Option<String>,
    /// How many times it is measured.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..))]
    repeat: u16,
    /// How many times it runs before that, to warm up.
    #[arg(long, value_name = "N", default_value_t = 1)]
    warmup: u16,
    /// Go through journal and checkpoints, in a temporary state folder; with the defaults of
    /// `pipeline.journal` where the pipeline file says `durability = "none"`.
    #[arg(long)]
    durable: bool,
    /// Where the temporary folder is made: it is the disk of this folder that is measured.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Write the figures as JSON to this file, too; `-` is standard output, and the tables go to standard error then.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Compare with what an earlier `--json` wrote, and fail where the best rate, the least processor time or
    /// the memory is worse than `--max-regress`.
    #[arg(long, value_name = "OLD.json")]
    compare: Option<PathBuf>,
    /// How much worse a figure may be.
    #[arg(long, value_name = "PERCENT", default_value = "5%", requires = "compare")]
    max_regress: Percent,
}

const EXAMPLES: &str =
    "Nothing is written where the sinks of the pipeline say: files go to a temporary folder, which is removed, and rows
that would go to a broker or to standard output are counted instead. Every repetition must give the same rows in the
same order, else it fails.

Examples:
  streamgauge bench pipelines/plant.toml --recording plant.jsonl.zst
  streamgauge bench pipelines/plant.toml --recording plant.jsonl --bare --topic plant/1 --repeat 5 --json new.json
  streamgauge bench pipelines/plant.toml --recording plant.jsonl.zst --compare old.json --max-regress 10%
  streamgauge bench pipelines/plant.toml --recording plant.jsonl.zst --durable --compare old.json --max-regress 60%";

/// Why a bench ended early.
enum Ended {
    /// It failed, and this is why.
    Failed(String),
    /// The command line is wrong.
    Usage(String),
    /// Said already.
    Code(ExitCode),
}

/// Runs the repetitions, and tells what they took.
pub(super) fn bench(arguments: &Arguments) -> ExitCode {
    let told = old(arguments).and_then(|old| {
        let (report, account) = measure(arguments)?;
        tell(arguments, &report, &account, old.as_ref())
    });
    match told {
        Ok(()) => ExitCode::SUCCESS,
        Err(Ended::Failed(why)) => super::failed(&why),
        Err(Ended::Usage(why)) => super::usage(&why),
        Err(Ended::Code(code)) => code,
    }
}

/// Read before anything runs: a bench takes its time.
fn old(arguments: &Arguments) -> Result<Option<Report>, Ended> {
    arguments.compare.as_deref().map(read_report).transpose().map_err(Ended::Usage)
}

fn measure(arguments: &Arguments) -> Result<(Report, Account), Ended> {
    let above = arguments.dir.clone().unwrap_or_else(std::env::temp_dir);
    let named = tempfile::Builder::new().prefix("streamgauge-bench-").to_owned();
    let scratch = std::path::absolute(&above).and_then(|above| named.tempdir_in(above));
    let scratch =
        scratch.map_err(|why| Ended::Failed(format!("cannot make a folder in `{}`: {why}", above.display())))?;
    let (warmup, repeat) = (usize::from(arguments.warmup), usize::from(arguments.repeat));
    let mut first: Option<Repetition> = None;
    let mut measured = Vec::new();
    for number in 0..warmup + repeat {
        let prefix = format!("{}/{} ", number + 1, warmup + repeat);
        let repetition = Repetition::run(arguments, (scratch.path(), number), &prefix)?;
        if let Some(first) = &first {
            first.same_as(&repetition, number + 1).map_err(Ended::Failed)?;
        }
        if number >= warmup {
            measured.push(repetition.clone());
        }
        first.get_or_insert(repetition);
    }
    let report = report(arguments, &measured);
    let account = measured.pop().expect("at least one is measured").account;
    Ok((report, account))
}

/// One replay and what it took.
#[derive(Clone)]
struct Repetition {
    pipeline: String,
    file: String,
    wall: Duration,
    /// Of the process, less what checksums took.
    cpu: Duration,
    checksum_cpu: Duration,
    other_cpu: Duration,
    stages: Vec<StageFigures>,
    latency: Option<LatencyFigures>,
    payloads: u64,
    payload_bytes: u64,
    rows: u64,
    sinks: Vec<SinkFigures>,
    output_bytes: u64,
    account: Account,
}

/// A sink of the plan, and where it tells what it was given.
struct Listening {
    name: String,
    kind: &'static str,
    rows_were: SinkUse,
    told: Told,
}

impl Repetition {
    /// Replays the recording in a folder below `scratch` that is made for it and removed.
    fn run(arguments: &Arguments, (scratch, number): (&Path, usize), prefix: &str) -> Result<Self, Ended> {
        let plans = super::load(std::slice::from_ref(&arguments.pipeline)).map_err(Ended::Code)?;
        let mut plan = plans.into_iter().next().expect("one pipeline file gives one plan");
        let (source, shape) = (arguments.source.as_deref(), shape(arguments.topic.as_deref()));
        let progress = put_in(&mut plan, source, &arguments.recording, shape, Speed::Max).map_err(Ended::Usage)?;
        let (pipeline, file) = (plan.name.clone(), plan.file.clone());
        let sinks = tap(&mut plan);
        let (options, output) = elsewhere(&mut plan, arguments.durable, (scratch, number)).map_err(Ended::Failed)?;

        let bar = bar(&progress, prefix);
        let mut telemetry: Option<Arc<Telemetry>> = None;
        let (began, cpu) = (Instant::now(), process::process_cpu());
        let outcomes = drive(vec![plan], &options, None, |all| telemetry = Some(all.clone()));
        let (wall, cpu) = (began.elapsed(), process::process_cpu().saturating_sub(cpu));
        bar.finish_and_clear();

        let outcome = outcomes.map_err(Ended::Failed)?.pop().expect("one plan gives one outcome");
        if let Some(why) = outcome.failure {
            return Err(Ended::Failed(format!("pipeline {pipeline}: {why}")));
        }
        let (read, total) = progress.bytes();
        if read < total {
            return Err(Ended::Code(ExitCode::from(INTERRUPTED)));
        }
        let telemetry = telemetry.expect("it is given before anything runs");
        let trouble = |why| Ended::Failed(format!("cannot look at what was written to `{}`: {why}", output.display()));
        let output_bytes = bytes_below(&*options.disk, &output).map_err(trouble)?;
        let folder = disk::parent(&output);
        let removed = disk::remove_all(&*options.disk, folder);
        removed.map_err(|why| Ended::Failed(format!("cannot remove `{}`: {why}", folder.display())))?;

        let (sinks, checksum_cpu) = given(&sinks).map_err(Ended::Failed)?;
        let info = &telemetry.pipelines[0];
        let sources = || info.stages.iter().filter_map(|stage| stage.source.as_ref());
        let (stages, other_cpu) = stages(info, &outcome.threads, &checksum_cpu, cpu);
        let checksum_cpu: Duration = checksum_cpu.iter().map(|(_, cpu)| *cpu).sum();
        Ok(Self {
            pipeline,
            file,
            wall,
            cpu: cpu.saturating_sub(checksum_cpu),
            checksum_cpu,
            other_cpu,
            stages,
            latency: latency(info),
            payloads: sources().map(|source| source.received.load(Relaxed)).sum(),
            payload_bytes: sources().map(|source| source.bytes.load(Relaxed)).sum(),
            rows: sources().map(|source| source.rows.load(Relaxed)).sum(),
            sinks,
            output_bytes,
            account: outcome.account,
        })
    }

    /// Whether another repetition gave the same, else what differs.
    fn same_as(&self, other: &Self, number: usize) -> Result<(), String> {
        let same = "the same recording must give the same";
        for (first, sink) in self.sinks.iter().zip(&other.sinks) {
            if first != sink {
                return Err(format!(
                    "repetition {number} gave sink `{}` {} rows with checksum {}, the first {} with {}: {same}",
                    sink.name, sink.rows, sink.checksum, first.rows, first.checksum
                ));
            }
        }
        if self.account == other.account {
            return Ok(());
        }
        Err(format!(
            "repetition {number} has another account than the first: {same}\n{}{}",
            self.account, other.account
        ))
    }
}

/// Lets every sink tell what it is given, and those that would speak to the world do nothing else.
fn tap(plan: &mut Plan) -> Vec<Listening> {
    let mut listening = Vec::new();
    for sink in &mut plan.sinks {
        // A kind that is not known to stay on this machine is not opened.
        let rows_were = match sink.kind {
            "parquet" => SinkUse::Written,
            "metrics" => SinkUse::Memory,
            _ => SinkUse::Counted,
        };
        let counted = Tapped::instead_of(&*sink.spec);
        let tapped = match rows_were {
            SinkUse::Counted => counted,
            _ => Tapped::through(std::mem::replace(&mut sink.spec, Box::new(counted))),
        };
        listening.push(Listening { name: sink.name.text.clone(), kind: sink.kind, rows_were, told: tapped.told() });
        sink.spec = Box::new(tapped);
    }
    listening
}

/// What sinks were given, and the processor time that each spent on the checksum.
type Given = (Vec<SinkFigures>, Vec<(String, Duration)>);

/// Asks the sinks once they have ended.
fn given(sinks: &[Listening]) -> Result<Given, String> {
    let mut figures = Vec::new();
    let mut cpu = Vec::new();
    for Listening { name, kind, rows_were, told } in sinks {
        let written = told.get().ok_or_else(|| format!("sink `{name}` ended without saying what it was given"))?;
        cpu.push((name.clone(), written.checksum_cpu));
        figures.push(SinkFigures {
            name: name.clone(),
            component: (*kind).to_owned(),
            rows_were: *rows_were,
            rows: written.rows,
            checksum: format!("{:016x}", written.checksum),
        });
    }
    Ok((figures, cpu))
}

/// Everything that the run writes goes to a new folder below `scratch`, `output` in it is for the sinks.
fn elsewhere(plan: &mut Plan, durable: bool, (scratch, number): (&Path, usize)) -> Result<(Options, PathBuf), String> {
    let folder = scratch.join(number.to_string());
    let output = folder.join("output");
    let disk = Elsewhere::new(disk::of_this_process(), scratch, &folder, &output);
    let disk = disk.map_err(|why| format!("cannot make the folder `{}`: {why}", folder.display()))?;
    let mut options = Options { disk: Arc::new(disk), ..Options::replay() };
    if durable {
        let known = plan.durability.take().unwrap_or_default();
        plan.durability = Some(Durability { state: folder.join("state"), ..known });
        // As a live run: epochs end by the wall clock.
        options = Options { live: true, state: State::Keep, ..options };
    }
    Ok((options, output))
}

/// Prints and writes the figures, and judges them.
fn tell(arguments: &Arguments, report: &Report, account: &Account, old: Option<&Report>) -> Result<(), Ended> {
    let to_stdout = arguments.json.as_deref() == Some(Path::new("-"));
    let colour = if to_stdout { super::colour() } else { super::takes_colour(&std::io::stdout()) };
    let comparison = old.map(|old| Comparison::new(old, report, arguments.max_regress)).transpose();
    let mut text = format!("{}\n{account}", report.render(colour));
    if let Ok(Some(comparison)) = &comparison {
        text.push('\n');
        text.push_str(&comparison.render(colour));
    }
    if to_stdout {
        eprint!("{text}");
    } else {
        print!("{text}");
    }
    if let Some(path) = &arguments.json {
        let mut json = serde_json::to_string_pretty(report).expect("a report is always JSON");
        json.push('\n');
        if to_stdout {
            print!("{json}");
        } else {
            let cannot = |why| Ended::Failed(format!("cannot write the figures to `{}`: {why}", path.display()));
            std::fs::write(path, json).map_err(cannot)?;
        }
    }
    let worse = comparison.map_err(Ended::Failed)?.map_or_else(Vec::new, |comparison| comparison.worse());
    if worse.is_empty() {
        return Ok(());
    }
    Err(Ended::Failed(format!("worse by more than {}: {}", arguments.max_regress, worse.join("; "))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repetition(rows: u64, checksum: &str, pipeline: &str) -> Repetition {
        let sink = SinkFigures {
            name: "out".to_owned(),
            component: "parquet".to_owned(),
            rows_were: SinkUse::Written,
            rows,
            checksum: checksum.to_owned(),
        };
        Repetition {
            pipeline: pipeline.to_owned(),
            file: String::new(),
            wall: Duration::from_secs(rows),
            cpu: Duration::from_secs(1),
            checksum_cpu: Duration::ZERO,
            other_cpu: Duration::ZERO,
            stages: Vec::new(),
            latency: None,
            payloads: rows,
            payload_bytes: rows,
            rows,
            sinks: vec![sink],
            output_bytes: 0,
            account: Account::take(pipeline, &[], true),
        }
    }

    #[test]
    fn a_repetition_that_gives_something_else_is_told() {
        let first = repetition(10, "0a", "p");
        assert_eq!(first.same_as(&Repetition { wall: Duration::ZERO, ..first.clone() }, 2), Ok(()));
        let why = first.same_as(&repetition(9, "0a", "p"), 2).unwrap_err();
        assert!(
            why.starts_with("repetition 2 gave sink `out` 9 rows with checksum 0a, the first 10 with 0a: "),
            "{why}"
        );
        let why = first.same_as(&repetition(10, "0b", "p"), 3).unwrap_err();
        assert!(
            why.starts_with("repetition 3 gave sink `out` 10 rows with checksum 0b, the first 10 with 0a: "),
            "{why}"
        );
        let why = first.same_as(&repetition(10, "0a", "q"), 3).unwrap_err();
        assert!(why.starts_with("repetition 3 has another account than the first: "), "{why}");
    }
}
