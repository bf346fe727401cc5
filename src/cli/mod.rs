//! The command line: a file for each command. Data goes to stdout, logs to stderr.
//!
//! Exit codes: 0 drained, 1 failed at run time, 2 usage, 78 a faulty pipeline file (`EX_CONFIG` of sysexits.h), 130 ended
//! at once by a second interrupt.

mod bench;
pub mod broker;
mod check;
mod demo;
mod infer;
mod list;
mod record;
mod replay;
mod run;

use std::io::IsTerminal;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};

use crate::engine::account::Account;
use crate::flow::time::Span;
use crate::pipeline;
use crate::pipeline::plan::Plan;

/// A faulty pipeline file.
const FAULTY: u8 = 78;

#[derive(Parser)]
#[command(name = "streamgauge", version, about, max_term_width = 100, after_help = EXAMPLES)]
struct Arguments {
    /// How log lines look.
    #[arg(long, global = true, value_enum, default_value = "text")]
    log_format: LogFormat,
    /// What is logged: `error`, `warn`, `info`, `debug`, or filters such as `streamgauge::ingest=debug`.
    #[arg(long, global = true, env = "STREAMGAUGE_LOG", default_value = "info,rumqttd=off")]
    log: String,
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "Examples:
  streamgauge demo --for 20s --dir demo-out
  streamgauge check pipelines/plant.toml
  streamgauge run pipelines/plant.toml --listen 127.0.0.1:9464
  streamgauge record pipelines/plant.toml --to plant.jsonl.zst --for 1h
  streamgauge replay pipelines/plant.toml --recording plant.jsonl.zst
  streamgauge infer --recording plant.jsonl.zst --to inferred.toml
  streamgauge bench pipelines/plant.toml --recording plant.jsonl.zst";

#[derive(Clone, Copy, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

#[derive(Subcommand)]
enum Command {
    /// Run pipelines until SIGINT or SIGTERM, then drain, commit and print the account.
    Run(run::Arguments),
    /// Show every fault of pipeline files at once, or the plan where there is none.
    Check {
        /// Pipeline files.
        #[arg(required = true)]
        pipelines: Vec<PathBuf>,
    },
    /// Run a pipeline on a recording instead of its source; the arrival clock is the recording's.
    Replay(replay::Arguments),
    /// Replay a recording several times as fast as it goes, and report speed, processor time, memory and a checksum.
    Bench(bench::Arguments),
    /// Record what the sources of a pipeline receive.
    Record(record::Arguments),
    /// Write a commented pipeline file for a recording, or for what a broker sends in a while.
    Infer(infer::Arguments),
    /// Watch it work: an embedded broker, a simulated fleet, a live table, Parquet files.
    Demo(demo::Arguments),
    /// What this build can read, compute and write.
    List,
}

/// Where the account goes.
#[derive(clap::Args)]
struct AccountTo {
    /// Write the account as JSON to this file, too.
    #[arg(long, value_name = "FILE")]
    account: Option<PathBuf>,
}

/// Runs the command of the command line.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Err(why) = logs(arguments.log_format, &arguments.log) {
        eprintln!("error: --log {}: {why}", arguments.log);
        return ExitCode::from(2);
    }
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        tracing::debug!("another TLS provider was installed before");
    }
    match arguments.command {
        Command::Run(arguments) => run::run(&arguments),
        Command::Check { pipelines } => check::check(&pipelines),
        Command::Replay(arguments) => replay::replay(&arguments),
        Command::Bench(arguments) => bench::bench(&arguments),
        Command::Record(arguments) => record::record(&arguments),
        Command::Infer(arguments) => infer::run(&arguments),
        Command::Demo(arguments) => demo::demo(&arguments),
        Command::List => list::list(),
    }
}

fn logs(format: LogFormat, filter: &str) -> Result<(), String> {
    let filter = tracing_subscriber::EnvFilter::try_new(filter).map_err(|error| error.to_string())?;
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colour());
    let done = match format {
        LogFormat::Text => logs.compact().try_init(),
        LogFormat::Json => logs.json().try_init(),
    };
    done.map_err(|error| error.to_string())
}

/// Whether stderr takes colour: a terminal, and nobody said `NO_COLOR`.
fn colour() -> bool {
    takes_colour(&std::io::stderr())
}

/// Whether an output takes colour.
fn takes_colour(output: &impl IsTerminal) -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()) && output.is_terminal()
}

/// Loads pipeline files; prints every fault of every file.
fn load(paths: &[PathBuf]) -> Result<Vec<Plan>, ExitCode> {
    let mut plans = Vec::new();
    let mut faulty = false;
    for path in paths {
        match pipeline::load(path) {
            Ok(plan) => plans.push(plan),
            Err(faults) => {
                faulty = true;
                eprint!("{}", faults.render(colour()));
            }
        }
    }
    if faulty { Err(ExitCode::from(FAULTY)) } else { Ok(plans) }
}

/// Says why a command failed.
fn failed(why: &str) -> ExitCode {
    eprintln!("error: {why}");
    ExitCode::FAILURE
}

/// Says what is wrong with the command line.
fn usage(why: &str) -> ExitCode {
    eprintln!("error: {why}");
    ExitCode::from(2)
}

/// Prints the accounts of a run, and writes them where they were asked for: one as it is, several as an array.
fn tell(accounts: &[Account], to: Option<&Path>, stdout_is_data: bool) -> Result<(), String> {
    for account in accounts {
        if stdout_is_data {
            eprint!("{account}");
        } else {
            print!("{account}");
        }
    }
    let Some(path) = to else { return Ok(()) };
    let json = match accounts {
        [account] => serde_json::to_vec_pretty(account),
        accounts => serde_json::to_vec_pretty(accounts),
    };
    let mut json = json.map_err(|error| error.to_string())?;
    json.push(b'\n');
    std::fs::write(path, json).map_err(|error| format!("cannot write the account to `{}`: {error}", path.display()))
}

/// Reads `--for` and its like.
fn span(text: &str) -> Result<Span, String> {
    text.parse()
}

/// Where the HTTP server listens.
#[derive(clap::Args)]
struct Listen {
    /// Serve metrics and live results here; port 0 takes a free one. Beyond loopback a token is required.
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// A file with the token that clients must show (`Authorization: Bearer …`).
    #[arg(long, value_name = "FILE")]
    listen_token_file: Option<PathBuf>,
}
