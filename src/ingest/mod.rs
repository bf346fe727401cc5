//! The world to the first batch. With the network sinks and telemetry the only async code: it ends at the
//! bounded bridge between [`feed`] (a task) and [`intake`] (a thread).

use std::hash::BuildHasher;
use std::path::PathBuf;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

use crate::component::{Fault, Kind, Name};
use crate::disk::SharedDisk;
use crate::flow::meter::SourceMeter;
use crate::flow::payload::Payloads;
use crate::flow::time::Timestamp;
use crate::flow::topic::Topics;
use crate::format::Request;
use crate::ingest::journal::Redelivery;

mod dead_letters;
pub mod decoding;
pub mod feed;
pub mod fleet;
pub mod intake;
pub mod journal;
pub mod keys;
pub mod mqtt;
pub mod recording;
pub mod silent;
pub mod slices;
pub mod watermark;

/// Every kind of source.
pub static SOURCES: &[Kind<dyn SourceSpec>] = &[mqtt::KIND, fleet::KIND];

/// A future behind a pointer, as `Box<dyn Source>` needs.
pub type BoxFuture<'a, T> = std::pin::Pin<Box<dyn std::future::Future<Output = T> + Send + 'a>>;

/// A feed of payloads. The only async trait of the crate.
pub trait Source: Send {
    /// Waits for at least one payload, and adds what is there to `into`: at most `payloads_max`.
    /// Called by the feed, over and over, while the bridge has room.
    ///
    /// Cancel safe: a future dropped before it is ready has taken nothing.
    fn next<'a>(&'a mut self, into: &'a mut Payloads, payloads_max: usize) -> BoxFuture<'a, Result<Fed, SourceError>>;

    /// The next `count` payloads, in the order that [`Source::next`] gave them, are safe: the feed may
    /// forget them. Called by the feed; may not wait for any stage.
    fn ack(&mut self, count: u64) -> BoxFuture<'_, Result<(), SourceError>> {
        let _ = count;
        Box::pin(std::future::ready(Ok(())))
    }

    /// Says goodbye: what was acknowledged is on its way, nothing more is wanted. Called once, at a stop.
    fn close(&mut self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }
}

/// Whether more may come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fed {
    /// Payloads were added; ask again.
    More,
    /// No payload was added, and none will ever follow.
    Exhausted,
}

/// A source as the pipeline file describes it.
pub trait SourceSpec: std::fmt::Debug + Send + Sync {
    /// The topics it listens to, whose captures become columns.
    fn topics(&self) -> &Topics;

    /// Several processes may share the feed, so that nobody sees all payloads of a key. The name is
    /// the setting that says so.
    fn shared_group(&self) -> Option<&Name> {
        None
    }

    /// One line for `check`, without secrets.
    fn describe(&self) -> String;

    /// What is wrong beyond its own table.
    fn check(&self) -> Vec<Fault> {
        Vec::new()
    }

    /// Its payloads bring their own arrival times (a recording, a simulation of other days): the wall clock says
    /// nothing of their silence, and must not be told to the watermark.
    fn has_own_clock(&self) -> bool {
        false
    }

    /// How many bytes of payloads it may hold before the bridge, for the memory line of `check`.
    fn memory_bytes(&self) -> u64 {
        0
    }

    /// Connects. Called again, after a pause, whenever the source was lost.
    fn open(&self, context: SourceContext) -> BoxFuture<'_, Result<Box<dyn Source>, SourceError>>;
}

/// What a source is given when it is opened.
#[derive(Clone, Debug)]
pub struct SourceContext {
    /// The source's name in the pipeline file.
    pub name: String,
    /// The pipeline's name.
    pub pipeline: String,
    /// Stamps payloads with their arrival time.
    pub clock: Arc<ArrivalClock>,
    /// Where it counts what it dropped and recognised, and tells whether it is connected.
    pub meter: Arc<SourceMeter>,
    /// Bytes of payloads that may wait in the source's memory.
    pub memory_bytes: u64,
    /// A folder of its own that outlives the process; none without a journal.
    pub kept: Option<(SharedDisk, PathBuf)>,
    /// How many payloads of the feed are safe from earlier runs: a feed that gives the same again each time goes on there.
    pub taken: u64,
    /// How many connections there were before this run: payloads say which one brought them.
    pub connection: u32,
    /// Payloads of earlier runs that are safe, but whose acknowledgement may have been lost.
    pub redeliveries: Arc<[Redelivery]>,
    /// What the pipeline says to senders: a source that can publish takes it on.
    pub replies: Arc<Replies>,
}

/// Publishes a message; false where there is no room for it.
type Publish = Box<dyn Fn(&str, &[u8]) -> bool + Send + Sync>;

/// The way back to senders, by the connection that their payloads come by. What nobody takes on is gone: nothing that is
/// said here must be heard.
#[derive(Default)]
pub struct Replies(OnceLock<Publish>);

impl Replies {
    /// Takes on what is said from now on. The first one does.
    pub fn take_on(&self, publish: impl Fn(&str, &[u8]) -> bool + Send + Sync + 'static) {
        // A source is opened once.
        let _ = self.0.set(Box::new(publish));
    }

    /// Says something.
    pub fn send(&self, request: &Request) {
        let sent = self.0.get().is_some_and(|publish| publish(&request.topic, &request.body));
        tracing::info!(topic = request.topic, sent, "asked a sender for what it has not told");
    }
}

impl std::fmt::Debug for Replies {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Replies").field(&self.0.get().is_some()).finish()
    }
}

/// Tells payloads apart that may come twice. The same in every run of one build, which is all that is asked of it: what is
/// compared is computed anew from the bytes.
pub fn fingerprint(topic: &[u8], body: &[u8]) -> u64 {
    foldhash::quality::FixedState::with_seed(0).hash_one((topic, body))
}

/// The wall clock, made monotone: arrival times never go back, whatever is done to the host's clock.
#[derive(Debug)]
pub struct ArrivalClock(AtomicI64);

impl Default for ArrivalClock {
    fn default() -> Self {
        Self(AtomicI64::new(i64::MIN))
    }
}

impl ArrivalClock {
    /// Now, or the last time that was given if the host's clock went back.
    pub fn now(&self) -> Timestamp {
        let now = jiff::Timestamp::now().as_microsecond();
        Timestamp::from_micros(self.0.fetch_max(now, Relaxed).max(now))
    }
}

/// Why a source failed.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// It may work again later: the feed reopens it after a pause.
    #[error("lost the feed: {0}")]
    Lost(String),
    /// It will not work until a person does something: the run ends.
    #[error("{0}")]
    Fatal(String),
}
