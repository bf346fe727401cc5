//! The async half of ingest: opens the source, again and again if need be, gathers its payloads, and puts them and
//! the marks of time into the bridge. Where the bridge ends, so does async: see [`intake`](crate::ingest::intake).

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::flow::message::{Epoch, Severed};
use crate::flow::payload::Payloads;
use crate::flow::time::Timestamp;
use crate::ingest::{BoxFuture, Fed, Source, SourceContext, SourceError, SourceSpec};

/// What crosses from the task to the thread. The bridge between them is bounded too.
#[derive(Debug)]
pub enum Crossing {
    /// At least one payload.
    Payloads(Payloads),
    /// The arrival clock has got here, the source could be polled, and it was empty.
    Tick(Timestamp),
    /// The source can be heard from here on: for the first time, or again. Time before this is no silence.
    Heard(Timestamp),
    /// This epoch is over.
    Barrier(Epoch),
    /// The feed is over, or was told to stop.
    End {
        /// No payload will ever follow, so every window may close.
        exhausted: bool,
        /// The epoch that this closes.
        epoch: Epoch,
    },
}

/// How the feed gathers payloads.
#[derive(Clone, Copy, Debug)]
pub struct Gather {
    /// A batch goes out when it has this many payloads …
    pub payloads_max: usize,
    /// … or this many bytes …
    pub bytes_max: usize,
    /// … or is this old.
    pub delay_max: Duration,
    /// How often an idle feed says what time it is; `None` where the arrival clock is a recording's.
    pub tick_every: Option<Duration>,
    /// A stop lets every window close, as nothing would carry them over a restart.
    pub stop_exhausts: bool,
}

/// How many batches the bridge holds.
pub const BRIDGE_BATCHES: usize = 4;

/// The pauses between attempts to open a source: the first, and the longest.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));

/// Drives a source until it is exhausted or told to stop.
pub async fn feed(
    spec: &dyn SourceSpec,
    context: SourceContext,
    gather: Gather,
    bridge: mpsc::Sender<Crossing>,
    mut epochs: watch::Receiver<Epoch>,
    stop: CancellationToken,
) -> Result<(), FeedError> {
    let mut link = Link { spec, context, source: None, opening: None };
    let mut gathered = Gathered { payloads: Payloads::default(), due: Instant::now(), gather, bridge };
    let mut ticks = interval(gather.tick_every.unwrap_or(PAUSE.1));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut epoch = *epochs.borrow_and_update();
    let mut connections = None;
    let exhausted = loop {
        let len = gathered.payloads.len();
        tokio::select! {
            biased;
            () = stop.cancelled() => break gather.stop_exhausts,
            Ok(()) = epochs.changed() => {
                // Every epoch gets its barrier, also those that a full bridge made us miss.
                let current = *epochs.borrow_and_update();
                gathered.flush(&mut link).await?;
                while epoch < current {
                    gathered.send(Crossing::Barrier(epoch)).await?;
                    epoch = epoch.next();
                }
            }
            () = sleep_until(gathered.due), if len > 0 => gathered.flush(&mut link).await?,
            fed = link.next(&mut gathered.payloads, gather.payloads_max.saturating_sub(len).max(1)) => {
                match fed? {
                    Fed::More => {
                        let meter = &link.context.meter;
                        let made = meter.reconnects.load(Relaxed);
                        if gather.tick_every.is_some() && connections.replace(made) != Some(made) {
                            let now = link.context.clock.now();
                            gathered.send(Crossing::Heard(now)).await?;
                        }
                        gathered.grown(len, &mut link).await?;
                    }
                    Fed::Exhausted => break true,
                }
            }
            // A full bridge means that the pipeline is behind, not that the feed is idle.
            _ = ticks.tick(), if gather.tick_every.is_some() && len == 0 => {
                // Nor is a feed that is away.
                if link.context.meter.connected.load(Relaxed) == 1 {
                    gathered.tick(link.context.clock.now());
                }
            }
        }
    };
    gathered.flush(&mut link).await?;
    if let Some(mut source) = link.source.take() {
        source.close().await;
    }
    gathered.send(Crossing::End { exhausted, epoch }).await
}

/// The source, or the way to it.
struct Link<'a> {
    spec: &'a dyn SourceSpec,
    context: SourceContext,
    source: Option<Box<dyn Source>>,
    /// Kept between polls, so that a barrier does not make it start anew.
    opening: Option<BoxFuture<'a, Result<Box<dyn Source>, SourceError>>>,
}

impl<'a> Link<'a> {
    /// As [`Source::next`], and as cancel safe. A source that was lost is opened again.
    async fn next(&mut self, into: &mut Payloads, payloads_max: usize) -> Result<Fed, FeedError> {
        loop {
            let Some(source) = &mut self.source else {
                let opening = self.opening.get_or_insert_with(|| Box::pin(open(self.spec, self.context.clone())));
                let opened = opening.await;
                self.opening = None;
                self.source = Some(opened?);
                continue;
            };
            match source.next(into, payloads_max).await {
                Err(SourceError::Lost(why)) => {
                    tracing::warn!(source = self.context.name, why, "lost the source, opening it again");
                    self.source = None;
                }
                fed => return Ok(fed?),
            }
        }
    }
}

/// Opens the source, with growing pauses, until it is open or has failed for good.
async fn open(spec: &dyn SourceSpec, context: SourceContext) -> Result<Box<dyn Source>, SourceError> {
    let mut pause = PAUSE.0;
    loop {
        match spec.open(context.clone()).await {
            Err(SourceError::Lost(why)) => {
                tracing::warn!(source = context.name, why, ?pause, "cannot open the source, trying again");
                sleep(pause).await;
                pause = (pause * 2).min(PAUSE.1);
            }
            opened => return opened,
        }
    }
}

/// The payloads since the last flush.
struct Gathered {
    payloads: Payloads,
    due: Instant,
    gather: Gather,
    bridge: mpsc::Sender<Crossing>,
}

impl Gathered {
    /// Payloads were added to the `before` that there were.
    async fn grown(&mut self, before: usize, link: &mut Link<'_>) -> Result<(), FeedError> {
        if before == 0 {
            self.due = Instant::now() + self.gather.delay_max;
        }
        let full =
            self.payloads.len() >= self.gather.payloads_max || self.payloads.len_bytes() >= self.gather.bytes_max;
        if full { self.flush(link).await } else { Ok(()) }
    }

    /// Hands the payloads over. The source may forget them once the bridge has taken them.
    async fn flush(&mut self, link: &mut Link<'_>) -> Result<(), FeedError> {
        if self.payloads.is_empty() {
            return Ok(());
        }
        let payloads = std::mem::take(&mut self.payloads);
        let count = payloads.len() as u64;
        self.send(Crossing::Payloads(payloads)).await?;
        match &mut link.source {
            Some(source) => Ok(source.ack(count).await?),
            // Lost meanwhile: what was not acknowledged comes again, by the source's own guarantee.
            None => Ok(()),
        }
    }

    /// Waits while the bridge is full. The source is not read meanwhile: that is the backpressure.
    async fn send(&mut self, crossing: Crossing) -> Result<(), FeedError> {
        self.bridge.send(crossing).await.map_err(|_| FeedError::Severed(Severed))
    }

    fn tick(&mut self, now: Timestamp) {
        // A bridge without room is no reason to wait: the time will be told by the next tick.
        drop(self.bridge.try_send(Crossing::Tick(now)));
    }
}

/// Why a feed stopped.
#[derive(Debug, thiserror::Error)]
pub enum FeedError {
    /// The intake thread is gone; the reason is its to tell.
    #[error(transparent)]
    Severed(Severed),
    /// The source failed.
    #[error(transparent)]
    Source(#[from] SourceError),
}
