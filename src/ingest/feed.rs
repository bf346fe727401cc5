//! The async half of ingest: opens the source, again and again if need be, gathers its payloads, and puts them and
//! the marks of time into the bridge. Where the bridge ends, so does async: see [`intake`](crate::ingest::intake).

use std::collections::VecDeque;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use crossbeam_channel::Receiver;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until};

use crate::flow::message::{Epoch, Severed};
use crate::flow::payload::Payloads;
use crate::flow::time::Timestamp;
use crate::ingest::{BoxFuture, Fed, Source, SourceContext, SourceError, SourceSpec};

/// What crosses from the task to the thread. The bridge between them is bounded too.
#[derive(Debug)]
pub enum Crossing {
    /// At least one payload.
    Payloads(Payloads),
    /// The arrival clock has got here, and nothing arrived.
    Tick {
        /// What time it is.
        now: Timestamp,
        /// The source could be heard: it is silent, and not away.
        listening: bool,
    },
    /// The source can be heard from here on: for the first time, or again. Time before this is no silence.
    Heard(Timestamp),
    /// This epoch is over.
    Barrier(Epoch),
    /// This epoch is over, and so was a run; another took it up from here. From a journal only.
    Stop(Epoch),
    /// The feed is over, or was told to stop.
    End {
        /// No payload will ever follow, so every window may close.
        exhausted: bool,
        /// The epoch that this closes.
        epoch: Epoch,
    },
}

/// Where the pipeline's epochs are, for all of its feeds at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// The epoch that is running.
    pub epoch: Epoch,
    /// The feeds are to stop: this epoch is the last, for all of them.
    pub stop: bool,
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

/// How a feed learns which of its payloads are safe.
#[derive(Debug)]
pub enum Safe {
    /// Once the bridge has taken them: there is no journal.
    Taken,
    /// Once the journal says so: how many of this run are.
    Journaled(watch::Receiver<u64>),
}

type News = Option<watch::Receiver<u64>>;

impl Safe {
    fn news(&self) -> News {
        match self {
            Self::Taken => None,
            Self::Journaled(safe) => Some(safe.clone()),
        }
    }
}

/// Waits until more payloads are safe; for ever where crossing makes them so.
async fn more(news: &mut News) {
    let changed = match news {
        Some(news) => news.changed().await.is_ok(),
        None => false,
    };
    if !changed {
        // There is no journal, or it is gone; then the bridge will tell.
        std::future::pending::<()>().await;
    }
}

/// Drives a source until it is exhausted or told to stop. `epoch` is the first that it takes part in.
pub async fn feed(
    spec: &dyn SourceSpec,
    context: SourceContext,
    gather: Gather,
    (bridge, emptied): (mpsc::Sender<Crossing>, Receiver<Payloads>),
    (mut epoch, mut pace): (Epoch, watch::Receiver<Pace>),
    safe: Safe,
) -> Result<(), FeedError> {
    let (door, mut news) = (bridge.clone(), safe.news());
    let mut link = Link { spec, context, source: None, opening: None, given: 0, lost: 0 };
    let mut gathered = Gathered::new(gather, (bridge, emptied), safe);
    let mut ticks = interval(gather.tick_every.unwrap_or(PAUSE.1));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut connections = None;
    pace.mark_changed();
    let exhausted = loop {
        let (len, free, due) = (gathered.payloads.len(), gathered.outgoing.is_empty(), gathered.due);
        tokio::select! {
            biased;
            permit = door.reserve(), if !free => {
                let permit = permit.map_err(|_| FeedError::Severed(Severed))?;
                permit.send(gathered.outgoing.pop_front().expect("it is not empty"));
                gathered.acknowledge(&mut link).await?;
            }
            changed = pace.changed() => {
                changed.map_err(|_| FeedError::Severed(Severed))?;
                let now = *pace.borrow_and_update();
                gathered.flush();
                // Every epoch gets its barrier, also those that a full bridge made us miss.
                while epoch < now.epoch {
                    gathered.outgoing.push_back(Crossing::Barrier(epoch));
                    epoch = epoch.next();
                }
                if now.stop {
                    break gather.stop_exhausts;
                }
            }
            () = more(&mut news) => gathered.acknowledge(&mut link).await?,
            () = sleep_until(due), if len > 0 && free => gathered.flush(),
            fed = link.next(&mut gathered.payloads, gather.payloads_max.saturating_sub(len).max(1)), if free => {
                match fed? {
                    Fed::More => {
                        let made = link.context.meter.reconnects.load(Relaxed);
                        if gather.tick_every.is_some() && connections.replace(made) != Some(made) {
                            gathered.outgoing.push_back(Crossing::Heard(link.context.clock.now()));
                        }
                        gathered.grown(len);
                    }
                    Fed::Exhausted => break true,
                }
            }
            // A full bridge means that the pipeline is behind, not that the feed is idle.
            _ = ticks.tick(), if gather.tick_every.is_some() && len == 0 && free => {
                let listening = link.context.meter.connected.load(Relaxed) == 1;
                gathered.tick(Crossing::Tick { now: link.context.clock.now(), listening });
            }
        }
    };
    gathered.finish(&mut link, &mut news).await?;
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
    /// Payloads that all sources gave, and how many of them came from sources that were lost: nobody waits for their
    /// acknowledgement.
    given: u64,
    lost: u64,
}

impl<'a> Link<'a> {
    /// As [`Source::next`], and as cancel safe. A source that was lost is opened again.
    async fn next(&mut self, into: &mut Payloads, payloads_max: usize) -> Result<Fed, FeedError> {
        let before = into.len();
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
                    self.lost = self.given;
                }
                fed => {
                    self.given += (into.len() - before) as u64;
                    return Ok(fed?);
                }
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

/// The payloads since the last flush, and what waits for room in the bridge.
struct Gathered {
    payloads: Payloads,
    due: Instant,
    gather: Gather,
    bridge: mpsc::Sender<Crossing>,
    /// Payloads that are done with: their room is used again.
    emptied: Receiver<Payloads>,
    /// What crosses next. The source is not read while anything waits here: that is the backpressure.
    outgoing: VecDeque<Crossing>,
    safe: Safe,
    /// Payloads that have crossed, and how many of them the source may have forgotten.
    crossed: u64,
    acknowledged: u64,
}

impl Gathered {
    fn new(gather: Gather, (bridge, emptied): (mpsc::Sender<Crossing>, Receiver<Payloads>), safe: Safe) -> Self {
        Self {
            payloads: Payloads::default(),
            due: Instant::now(),
            gather,
            bridge,
            emptied,
            outgoing: VecDeque::new(),
            safe,
            crossed: 0,
            acknowledged: 0,
        }
    }

    /// Payloads were added to the `before` that there were.
    fn grown(&mut self, before: usize) {
        if before == 0 {
            self.due = Instant::now() + self.gather.delay_max;
        }
        let full =
            self.payloads.len() >= self.gather.payloads_max || self.payloads.len_bytes() >= self.gather.bytes_max;
        // What waits for the journal gathers there, and a recording gives as much as it has.
        if full || matches!(self.safe, Safe::Journaled(_)) || self.gather.tick_every.is_none() {
            self.flush();
        }
    }

    /// Lets the payloads cross next.
    fn flush(&mut self) {
        if !self.payloads.is_empty() {
            self.crossed += self.payloads.len() as u64;
            let room = self.emptied.try_recv().unwrap_or_default();
            self.outgoing.push_back(Crossing::Payloads(std::mem::replace(&mut self.payloads, room)));
        }
    }

    /// Tells the source which payloads are safe.
    async fn acknowledge(&mut self, link: &mut Link<'_>) -> Result<(), FeedError> {
        let safe = match &self.safe {
            Safe::Taken if self.outgoing.iter().any(|crossing| matches!(crossing, Crossing::Payloads(_))) => {
                return Ok(());
            }
            Safe::Taken => self.crossed,
            Safe::Journaled(safe) => *safe.borrow(),
        };
        // What a lost source gave and nobody acknowledged comes again, by its own guarantee.
        let from = self.acknowledged.max(link.lost);
        self.acknowledged = self.acknowledged.max(safe);
        match &mut link.source {
            Some(source) if safe > from => Ok(source.ack(safe - from).await?),
            _ => Ok(()),
        }
    }

    /// Lets everything cross, and waits until it is safe.
    async fn finish(&mut self, link: &mut Link<'_>, news: &mut News) -> Result<(), FeedError> {
        self.flush();
        while let Some(crossing) = self.outgoing.pop_front() {
            self.send(crossing).await?;
        }
        self.acknowledge(link).await?;
        while self.acknowledged < self.crossed {
            tokio::select! {
                () = more(news) => (),
                () = self.bridge.closed() => return Err(FeedError::Severed(Severed)),
            }
            self.acknowledge(link).await?;
        }
        Ok(())
    }

    async fn send(&mut self, crossing: Crossing) -> Result<(), FeedError> {
        self.bridge.send(crossing).await.map_err(|_| FeedError::Severed(Severed))
    }

    fn tick(&mut self, tick: Crossing) {
        // A bridge without room is no reason to wait: the time will be told by the next tick.
        drop(self.bridge.try_send(tick));
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
