//! `streamgauge replay`: a pipeline on a recording.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::cli::run::{drive, finish, listen, writes_stdout};
use crate::engine::Options;
use crate::ingest::recording::{Progress, ReplaySpec, Shape, Speed};
use crate::pipeline::plan::{Durability, Plan};

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// The pipeline file.
    pipeline: PathBuf,
    /// The recording: JSON lines as `record` writes them, also .gz and .zst.
    #[arg(long, value_name = "FILE", required_unless_present = "journal")]
    recording: Option<PathBuf>,
    /// Instead of a recording: the state folder of a live run, whose journal is read again from its beginning, or from the
    /// oldest checkpoint where the beginning is gone. Nothing in it is changed.
    #[arg(long, value_name = "STATE_DIR", conflicts_with_all = ["recording", "source", "speed", "bare"])]
    journal: Option<PathBuf>,
    /// With --journal: go on behind damage of the journal.
    #[arg(long, requires = "journal")]
    accept_loss: bool,
    /// Which source the recording stands for. Without it all of them, each for the payloads of its topics; where there is one
    /// only, for all payloads.
    #[arg(long, value_name = "NAME")]
    source: Option<String>,
    /// How fast arrival times pass: `max`, or times as fast as it happened (`1x`, `60x`).
    #[arg(long, default_value = "max")]
    speed: Speed,
    /// Each line is a payload without an envelope.
    #[arg(long, requires = "topic")]
    bare: bool,
    /// The topic of a bare recording's payloads.
    #[arg(long, requires = "bare")]
    topic: Option<String>,
    #[command(flatten)]
    listen: super::Listen,
    #[command(flatten)]
    account: super::AccountTo,
}

/// Replays a recording through a pipeline.
pub(super) fn replay(arguments: &Arguments) -> ExitCode {
    let mut plan = match super::load(std::slice::from_ref(&arguments.pipeline)) {
        Ok(mut plans) => plans.remove(0),
        Err(code) => return code,
    };
    let put_in = match (&arguments.recording, &arguments.journal) {
        (Some(recording), _) => {
            let shape = shape(arguments.topic.as_deref());
            put_in(&mut plan, arguments.source.as_deref(), recording, shape, arguments.speed)
        }
        (None, Some(state)) => {
            let known = plan.durability.take().unwrap_or_default();
            plan.durability = Some(Durability { state: state.clone(), ..known });
            Ok(Progress::default())
        }
        (None, None) => Err("say what to replay: --recording FILE or --journal STATE_DIR".to_owned()),
    };
    let progress = match put_in {
        Ok(progress) => progress,
        Err(why) => return super::usage(&why),
    };
    let mut options = if arguments.journal.is_some() { Options::replay_journal() } else { Options::replay() };
    options.resets.accept_loss = arguments.accept_loss;
    if let Err(why) = listen(&arguments.listen, &mut options) {
        return super::usage(&why);
    }
    let stdout_is_data = writes_stdout(&plan);
    let bar = bar(&progress, "");
    let outcomes = drive(vec![plan], &options, None, |_| ());
    bar.finish_and_clear();
    finish(outcomes, &arguments.account, stdout_is_data)
}

/// How the lines of a recording are read: those of a bare one are payloads of a topic.
pub(super) fn shape(topic: Option<&str>) -> Shape {
    topic.map_or(Shape::Envelopes, |topic| Shape::Bare(topic.to_owned()))
}

/// Puts a recording in the place of `source`; where none is named, in the place of the only one, or of all, each of which
/// then gets the payloads of its topics.
pub(super) fn put_in(
    plan: &mut Plan,
    source: Option<&str>,
    recording: &Path,
    shape: Shape,
    speed: Speed,
) -> Result<Progress, String> {
    let names: Vec<String> = plan.sources.iter().map(|source| source.name.text.clone()).collect();
    if let Some(name) = source.filter(|name| !names.iter().any(|known| known == name)) {
        return Err(format!("--source {name}: the pipeline has no such source; it has {}", names.join(", ")));
    }
    let mut progress = None;
    for planned in &mut plan.sources {
        let topics = planned.spec.topics().clone();
        if source.is_none_or(|name| planned.name.text == name) {
            let spec = ReplaySpec::new(topics, recording.to_owned(), shape.clone(), speed);
            let is_one_of_several = source.is_none() && names.len() > 1;
            let spec = if is_one_of_several { spec.only_its_topics() } else { spec };
            progress.get_or_insert(spec.progress());
            planned.spec = Box::new(spec);
        } else {
            planned.spec = Box::new(crate::ingest::silent::SilentSpec::new(topics));
        }
    }
    Ok(progress.unwrap_or_default())
}

/// A bar with rate and remaining time behind a `prefix`, on stderr where that is a terminal.
pub(super) fn bar(progress: &Progress, prefix: &str) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
    let template = "{prefix}{bar:30} {bytes}/{total_bytes} {bytes_per_sec} {msg} {eta}";
    bar.set_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.set_prefix(prefix.to_owned());
    if bar.is_hidden() {
        return bar;
    }
    let (shown, progress) = (bar.clone(), progress.clone());
    // Ends with the process, or with the bar.
    std::thread::spawn(move || {
        let from = std::time::Instant::now();
        while !shown.is_finished() {
            let (read, total) = progress.bytes();
            shown.set_length(total);
            shown.set_position(read);
            let payloads = progress.payloads.load(std::sync::atomic::Ordering::Relaxed);
            let rate = payloads as f64 / from.elapsed().as_secs_f64().max(0.001);
            shown.set_message(format!("{payloads} payloads, {rate:.0}/s"));
            std::thread::sleep(Duration::from_millis(100));
        }
    });
    bar
}
