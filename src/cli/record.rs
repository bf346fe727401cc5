//! `streamgauge record`: what the sources of a pipeline receive, as a file.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::flow::meter::SourceMeter;
use crate::flow::payload::Payloads;
use crate::flow::time::Span;
use crate::ingest::recording::RecordingWriter;
use crate::ingest::{ArrivalClock, Fed, SourceContext, SourceError};
use crate::pipeline::plan::{Plan, PlannedSource};

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// The pipeline file.
    pipeline: PathBuf,
    /// The recording: JSON lines, compressed where it ends in .gz or .zst.
    #[arg(long, value_name = "FILE")]
    to: PathBuf,
    /// Stop after this long.
    #[arg(long = "for", value_name = "SPAN", value_parser = super::span)]
    duration: Option<Span>,
}

/// How many payloads are taken from a source at once.
const PAYLOADS_MAX: usize = 8_192;

/// How many batches may wait for the disk.
const BATCHES: usize = 16;

/// A batch on its way to the file; the answer says that it is there, so that the source may forget it.
type Batch = (Payloads, tokio::sync::oneshot::Sender<()>);

/// Records until a signal, the end of `--for`, or the end of every source.
pub(super) fn record(arguments: &Arguments) -> ExitCode {
    let plan = match super::load(std::slice::from_ref(&arguments.pipeline)) {
        Ok(mut plans) => plans.remove(0),
        Err(code) => return code,
    };
    match write(plan, &arguments.to, arguments.duration) {
        Ok(payloads) => {
            println!("{payloads} payloads in {}", arguments.to.display());
            ExitCode::SUCCESS
        }
        Err(why) => super::failed(&why),
    }
}

/// Records a plan's sources for a while, or until a signal or their end; how many payloads came.
pub(super) fn write(plan: Plan, to: &Path, duration: Option<Span>) -> Result<u64, String> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.map_err(|error| format!("cannot start the runtime: {error}"))?;
    let mut writer = RecordingWriter::create(to).map_err(|error| error.to_string())?;
    let stop = CancellationToken::new();
    let (batches, mut arrived) = tokio::sync::mpsc::channel::<Batch>(BATCHES);
    // All sources share the clock: the file is in order of arrival.
    let clock = Arc::new(ArrivalClock::default());
    let feeds: Vec<_> = plan
        .sources
        .into_iter()
        .map(|source| runtime.spawn(take(source, plan.name.clone(), clock.clone(), batches.clone(), stop.clone())))
        .collect();
    drop(batches);
    let signals = {
        let _inside = runtime.enter();
        super::run::Signals::listen()
    };
    runtime.spawn(super::run::stop_at_signal(signals, vec![stop.clone()], duration));
    let mut seq = 0;
    while let Some((payloads, done)) = arrived.blocking_recv() {
        for payload in payloads.iter() {
            seq += 1;
            writer.write(&payload, seq).map_err(|error| error.to_string())?;
        }
        // A source that was told to stop meanwhile no longer listens.
        let _ignored: Result<(), ()> = done.send(());
    }
    writer.finish().map_err(|error| error.to_string())?;
    for feed in feeds {
        runtime.block_on(feed).map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
    }
    Ok(seq)
}

async fn take(
    source: PlannedSource,
    pipeline: String,
    clock: Arc<ArrivalClock>,
    batches: tokio::sync::mpsc::Sender<Batch>,
    stop: CancellationToken,
) -> Result<(), SourceError> {
    let meter = Arc::new(SourceMeter::default());
    let context = SourceContext {
        name: source.name.text.clone(),
        pipeline,
        clock,
        meter,
        memory_bytes: u64::MAX,
        kept: None,
        taken: 0,
        connection: 0,
        redeliveries: Arc::new([]),
        replies: Arc::default(),
    };
    let mut open = source.spec.open(context).await?;
    loop {
        let mut payloads = Payloads::default();
        let fed = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            fed = open.next(&mut payloads, PAYLOADS_MAX) => fed?,
        };
        if fed == Fed::Exhausted {
            break;
        }
        let count = payloads.len() as u64;
        let (done, written) = tokio::sync::oneshot::channel();
        // The writer is gone where the disk refused: its error says so.
        if batches.send((payloads, done)).await.is_err() || written.await.is_err() {
            break;
        }
        open.ack(count).await?;
    }
    open.close().await;
    Ok(())
}
