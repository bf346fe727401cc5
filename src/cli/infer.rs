//! `streamgauge infer`: a recording, or a while of a live feed, to a pipeline file that reads it.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::cli::record::write;
use crate::flow::time::Span;
use crate::infer::names::{quoted, snake};
use crate::infer::{Inferred, Request, infer};
use crate::ingest::recording::Progress;
use crate::pipeline;

#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// The recording: JSON lines as `record` writes them, also .gz and .zst.
    #[arg(long, value_name = "FILE", required_unless_present = "url")]
    recording: Option<PathBuf>,
    /// Each line is a payload without an envelope.
    #[arg(long, requires = "topic")]
    bare: bool,
    /// The topic of a bare recording's payloads.
    #[arg(long, requires = "bare")]
    topic: Option<String>,
    /// Instead of a recording: listen to this broker, like mqtt://127.0.0.1:1883.
    #[arg(long, value_name = "URL", conflicts_with = "recording", requires = "topics")]
    url: Option<String>,
    /// With --url: what to subscribe to, like 'sites/#'. May be given several times.
    #[arg(long, value_name = "FILTER", requires = "url")]
    topics: Vec<String>,
    /// With --url: how long to listen.
    #[arg(long = "for", value_name = "SPAN", value_parser = super::span, default_value = "30s")]
    duration: Span,
    /// With --url: who to be for the broker. The password is in the variable MQTT_PASSWORD.
    #[arg(long, requires = "url")]
    username: Option<String>,
    /// With --url: certificates of the authorities to trust, as PEM; those of the system without it.
    #[arg(long, value_name = "FILE", requires = "url")]
    ca: Option<PathBuf>,
    /// The name of the pipeline; that of the recording without it.
    #[arg(long)]
    name: Option<String>,
    /// Look at so many payloads at most.
    #[arg(long, value_name = "PAYLOADS", default_value_t = 1_000_000)]
    max_payloads: u64,
    /// Write the pipeline file here, not to stdout. A file that is there stays as it is.
    #[arg(long, value_name = "FILE")]
    to: Option<PathBuf>,
}

const EXAMPLES: &str = "Examples:
  streamgauge infer --recording plant.jsonl.zst --to plant.toml
  streamgauge infer --recording feed.jsonl --bare --topic feed
  streamgauge infer --url mqtt://127.0.0.1:1883 --topics 'sites/#' --for 1m --to plant.toml

Then:
  streamgauge check plant.toml
  streamgauge replay plant.toml --recording plant.jsonl.zst";

/// What a pipeline file says where nobody named a broker.
const URL: &str = "${MQTT_URL:-mqtt://127.0.0.1:1883}";

/// Infers a pipeline file.
pub(super) fn run(arguments: &Arguments) -> ExitCode {
    if let Some(to) = arguments.to.as_ref().filter(|to| to.exists()) {
        return super::usage(&format!("--to {}: it is there already; remove it, or write to another", to.display()));
    }
    // Ends with the function: what was listened to is kept for no longer.
    let heard = match &arguments.url {
        Some(url) => match listen(arguments, url) {
            Ok(heard) => Some(heard),
            Err(why) => return super::failed(&why),
        },
        None => None,
    };
    let recording = heard.as_ref().map(|(_, path)| path.as_path()).or(arguments.recording.as_deref());
    let Some(recording) = recording else { return super::usage("say what to look at: --recording FILE or --url URL") };
    let request = Request {
        name: arguments.name.clone().unwrap_or_else(|| name(recording, arguments.url.is_some())),
        shape: super::replay::shape(arguments.topic.as_deref()),
        url: arguments.url.clone().unwrap_or_else(|| URL.to_owned()),
        payloads_max: arguments.max_payloads,
    };
    let progress = Progress::default();
    let bar = super::replay::bar(&progress, "");
    let inferred = infer(recording, &request, &progress);
    bar.finish_and_clear();
    match inferred.map_err(|why| why.to_string()).and_then(|inferred| tell(&inferred, arguments.to.as_deref())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => super::failed(&why),
    }
}

/// `plant` of `plant.jsonl.zst`.
fn name(recording: &Path, live: bool) -> String {
    let stem = recording.file_name().and_then(|name| name.to_str()).and_then(|name| name.split('.').next());
    match snake(stem.unwrap_or_default()) {
        name if !live && name.starts_with(|c: char| c.is_ascii_lowercase()) => name,
        _ => "inferred".to_owned(),
    }
}

/// Records a broker's topics for a while.
fn listen(arguments: &Arguments, url: &str) -> Result<(tempfile::TempDir, PathBuf), String> {
    let topics: Vec<String> = arguments.topics.iter().map(|topic| quoted(topic)).collect();
    let mut source =
        format!("[sources.live]\ntype = \"mqtt\"\nurl = {}\ntopics = [{}]\n", quoted(url), topics.join(", "));
    if let Some(username) = &arguments.username {
        source.push_str(&format!("username = {}\npassword = \"${{MQTT_PASSWORD}}\"\n", quoted(username)));
    }
    if let Some(ca) = &arguments.ca {
        source.push_str(&format!("ca = {}\n", quoted(&ca.display().to_string())));
    }
    let text = format!(
        "[pipeline]\nname = \"infer\"\ndurability = \"none\"\n\n{source}\n[sources.live.decode]\nformat = \"scalar\"\n\n\
         [sources.live.columns]\npayload = \"binary\"\n\n[sinks.out]\ntype = \"stdout\"\ninputs = [\"live\"]\n"
    );
    let plan = pipeline::load_text("--url and --topics", &text, &|name| std::env::var(name).ok());
    let plan = plan.map_err(|faults| faults.render(super::colour()))?;
    let folder = tempfile::tempdir().map_err(|error| format!("cannot make a folder to listen into: {error}"))?;
    let path = folder.path().join("live.jsonl.zst");
    eprintln!("listening to {url} for {}", arguments.duration);
    let payloads = write(plan, &path, Some(arguments.duration))?;
    if payloads == 0 {
        return Err(format!(
            "nothing came from {url} within {}; is there anything on these topics?",
            arguments.duration
        ));
    }
    Ok((folder, path))
}

/// Writes the pipeline file, and says on stderr what it found.
fn tell(inferred: &Inferred, to: Option<&Path>) -> Result<(), String> {
    match to {
        None => print!("{}", inferred.text),
        Some(path) => {
            let file = std::fs::OpenOptions::new().write(true).create_new(true).open(path);
            let written = file.and_then(|mut file| std::io::Write::write_all(&mut file, inferred.text.as_bytes()));
            written.map_err(|error| format!("cannot write `{}`: {error}", path.display()))?;
        }
    }
    eprintln!("{:<24} {:>10} {:>10} {:>12} {:>8}  topics", "source", "payloads", "rows", "dead letters", "devices");
    for source in &inferred.sources {
        let (name, found) = (&source.name, &source.findings);
        let topics = source.group.patterns.join(" ");
        let counts = (source.payloads, source.rows, source.dead_letters, found.devices);
        eprintln!("{name:<24} {:>10} {:>10} {:>12} {:>8}  {topics}", counts.0, counts.1, counts.2, counts.3);
    }
    let notes = inferred
        .sources
        .iter()
        .flat_map(|source| source.notes().into_iter().map(|note| format!("{}: {note}", source.name)));
    inferred.notes.iter().cloned().chain(notes).for_each(|note| eprintln!("- {note}"));
    if let Some(path) = to {
        eprintln!("{} is written; `streamgauge check` shows its plan", path.display());
    }
    Ok(())
}
