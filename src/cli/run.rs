//! `streamgauge run`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::engine::{Options, Outcome, Prepared, Resets, Running};
use crate::flow::time::Span;
use crate::pipeline::plan::Plan;
use crate::telemetry::{Telemetry, http};

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// Pipeline files.
    #[arg(required = true)]
    pipelines: Vec<PathBuf>,
    #[command(flatten)]
    listen: super::Listen,
    /// Stop after this long, as SIGTERM would.
    #[arg(long = "for", value_name = "SPAN", value_parser = super::span)]
    duration: Option<Span>,
    #[command(flatten)]
    account: super::AccountTo,
    /// Give up the state of every stage (what is in open windows is lost); the journal goes on where it was.
    #[arg(long)]
    reset_state: bool,
    /// Give up the state of this operator, source or sink only. May be given several times.
    #[arg(long, value_name = "NAME", conflicts_with = "reset_state")]
    reset_operator: Vec<String>,
    /// Go on behind damage of the journal: what stood there is lost.
    #[arg(long)]
    accept_loss: bool,
}

/// Runs pipelines until they end or are told to stop.
pub(super) fn run(arguments: &Arguments) -> ExitCode {
    let plans = match super::load(&arguments.pipelines) {
        Ok(plans) => plans,
        Err(code) => return code,
    };
    let stdout_is_data = plans.iter().any(writes_stdout);
    let mut options = Options::live();
    options.resets = Resets {
        all: arguments.reset_state,
        stages: arguments.reset_operator.iter().cloned().collect(),
        accept_loss: arguments.accept_loss,
    };
    if let Err(why) = listen(&arguments.listen, &mut options) {
        return super::usage(&why);
    }
    let outcome = drive(plans, &options, arguments.duration, |_| ());
    finish(outcome, &arguments.account, stdout_is_data)
}

/// Whether a plan's rows go to stdout, so that nothing else may.
pub(super) fn writes_stdout(plan: &Plan) -> bool {
    plan.sinks.iter().any(|sink| sink.kind == "stdout")
}

/// Reads where to listen, and refuses what would be open to strangers.
pub(super) fn listen(arguments: &super::Listen, options: &mut Options) -> Result<(), String> {
    options.listen = arguments.listen;
    if let Some(path) = &arguments.listen_token_file {
        let read = std::fs::read_to_string(path);
        let token = read.map_err(|error| format!("cannot read the token file `{}`: {error}", path.display()))?;
        options.token = Some(crate::component::Secret::new(token.trim()));
    }
    options.listen.map_or(Ok(()), |address| http::check_listen(address, options.token.as_ref()))
}

/// Launches plans, waits for their end, and meanwhile stops them at a signal or when their time is over. `watch` is
/// given the telemetry before anything runs.
pub(super) fn drive(
    plans: Vec<Plan>,
    options: &Options,
    duration: Option<Span>,
    watch: impl FnOnce(&Arc<Telemetry>),
) -> Result<Vec<Outcome>, String> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.map_err(|error| format!("cannot start the runtime: {error}"))?;
    let names: Vec<String> = plans.iter().map(|plan| plan.name.clone()).collect();
    let prepared: Vec<Prepared> = plans.into_iter().map(Prepared::new).collect();
    let pipelines = prepared.iter().map(Prepared::info).collect();
    let telemetry = Arc::new(Telemetry { pipelines, ..Telemetry::default() });
    watch(&telemetry);
    let serving = CancellationToken::new();
    if let Some(address) = options.listen {
        let listener = runtime.block_on(tokio::net::TcpListener::bind(address));
        let listener = listener.map_err(|error| format!("cannot listen on {address}: {error}"))?;
        let local = listener.local_addr().map_err(|error| format!("cannot tell where it listens: {error}"))?;
        // Not a log line: scripts wait for it, whatever is logged and how.
        eprintln!("listening on http://{local}");
        runtime.spawn(http::serve(listener, telemetry.clone(), options.token.clone(), serving.clone()));
    }
    let signals = {
        let _inside = runtime.enter();
        Signals::listen()
    };
    let mut running: Vec<Running> = Vec::new();
    for (prepared, name) in prepared.into_iter().zip(names) {
        match prepared.launch(options, &runtime, &telemetry) {
            Ok(launched) => running.push(launched),
            Err(why) => {
                running.iter().for_each(|running| running.stop_token().cancel());
                running.into_iter().for_each(|running| drop(running.wait()));
                return Err(format!("pipeline {name}: {why}"));
            }
        }
    }
    let stops: Vec<CancellationToken> = running.iter().map(Running::stop_token).collect();
    runtime.spawn(stop_at_signal(signals, stops, duration));
    // Each is looked after by itself: the failure of one is told, and ends it, while the others go on.
    let outcomes = std::thread::scope(|scope| {
        let waiting: Vec<_> = running.into_iter().map(|running| scope.spawn(|| running.wait())).collect();
        waiting.into_iter().map(|waiting| waiting.join().map_err(|_| "the supervisor panicked".to_owned())).collect()
    });
    serving.cancel();
    runtime.shutdown_timeout(std::time::Duration::from_millis(200));
    outcomes
}

/// The signals that stop a run. Listened to before anything runs: who finds it ready may stop it.
pub(super) struct Signals(Option<(Signal, Signal)>);

impl Signals {
    /// To be called inside the runtime.
    pub(super) fn listen() -> Self {
        let signals = signal(SignalKind::interrupt()).and_then(|int| Ok((int, signal(SignalKind::terminate())?)));
        Self(signals.inspect_err(|why| tracing::error!("cannot listen for signals, stop it with SIGKILL: {why}")).ok())
    }
}

/// The first signal, or the end of `--for`, drains; a second signal ends the process at once.
pub(super) async fn stop_at_signal(signals: Signals, stops: Vec<CancellationToken>, duration: Option<Span>) {
    let signals = async {
        let Some((mut interrupt, mut terminate)) = signals.0 else { return std::future::pending().await };
        let (mut seen, stop) = (0, || stops.iter().for_each(CancellationToken::cancel));
        loop {
            tokio::select! {
                _ = interrupt.recv() => (),
                _ = terminate.recv() => (),
            }
            seen += 1;
            if seen > 1 {
                std::process::exit(130);
            }
            tracing::info!("draining; a second signal ends it at once");
            stop();
        }
    };
    let time = async {
        match duration {
            Some(span) => tokio::time::sleep(span.duration()).await,
            None => std::future::pending().await,
        }
        stops.iter().for_each(CancellationToken::cancel);
        std::future::pending::<()>().await;
    };
    tokio::join!(signals, time);
}

/// Prints and writes the accounts, and gives the exit code.
pub(super) fn finish(outcomes: Result<Vec<Outcome>, String>, to: &super::AccountTo, stdout_is_data: bool) -> ExitCode {
    let outcomes = match outcomes {
        Ok(outcomes) => outcomes,
        Err(why) => return super::failed(&why),
    };
    let accounts: Vec<_> = outcomes.iter().map(|outcome| outcome.account.clone()).collect();
    if let Err(why) = super::tell(&accounts, to.account.as_deref(), stdout_is_data) {
        return super::failed(&why);
    }
    let mut code = ExitCode::SUCCESS;
    for outcome in &outcomes {
        if let Some(why) = &outcome.failure {
            code = super::failed(&format!("pipeline {}: {why}", outcome.account.pipeline));
        }
    }
    code
}
