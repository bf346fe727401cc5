//! Threads, epochs, the end. A [`Plan`] is opened here, and only here: channels first, then threads from the sinks to
//! the sources, so that nobody sends to a stage that is not there.

pub mod account;
pub mod checkpoint;
mod launch;
mod pace;
mod probe;
mod recovery;
pub mod stage;
pub mod supervise;
mod untouched;
mod wiring;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::component::Secret;
use crate::disk::{self, SharedDisk};
use crate::ingest::feed::Pace;
use crate::pipeline::plan::Plan;
use crate::sink::board::Boards;
use crate::telemetry::{Health, Latency};

pub use launch::Prepared;
pub use recovery::{LaunchError, Resets};
pub use supervise::{Outcome, Running, ThreadUse};

/// What a run does with the state folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Goes on where the last run was, and keeps journal and checkpoints.
    Keep,
    /// Reads its journal again, and changes nothing in it.
    Replay,
    /// Leaves it alone.
    Ignore,
}

/// How pipelines are run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Feeds tell the wall clock's time while they are idle, and epochs end by it. Without: one epoch, and all time is
    /// in the payloads.
    pub live: bool,
    /// Tells this run's files from other runs'.
    pub run: String,
    /// Where the HTTP server listens.
    pub listen: Option<SocketAddr>,
    /// What a client of the HTTP server must show, beyond loopback.
    pub token: Option<Secret>,
    /// How long the stages may take to drain after a stop.
    pub drain_max: Duration,
    /// Where state and files are written.
    pub disk: SharedDisk,
    /// What to do with the pipeline's state folder, if it has one.
    pub state: State,
    /// What to do with state that does not fit, or is damaged.
    pub resets: Resets,
}

impl Options {
    /// A live run, told apart from others by the time that it began.
    pub fn live() -> Self {
        let run = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%S%6f").to_string();
        Self {
            live: true,
            run,
            listen: None,
            token: None,
            drain_max: Duration::from_secs(60),
            disk: disk::of_this_process(),
            state: State::Keep,
            resets: Resets::default(),
        }
    }

    /// A replay: the same recording gives the same files.
    pub fn replay() -> Self {
        Self { live: false, run: "replay".to_owned(), state: State::Ignore, ..Self::live() }
    }

    /// A replay of what a live run had put into its journal: the same files as then.
    pub fn replay_journal() -> Self {
        Self { state: State::Replay, ..Self::replay() }
    }
}

/// What all stages of a run share.
pub(crate) struct Shared {
    pub(crate) pace: watch::Receiver<Pace>,
    pub(crate) boards: Arc<Boards>,
    pub(crate) health: Arc<Health>,
    pub(crate) latency: Arc<Latency>,
    pub(crate) disk: SharedDisk,
}

/// How long a payload may wait for others to go with it.
pub const DELAY_MAX: Duration = Duration::from_millis(5);

/// How often an idle feed says what time it is.
pub const TICK_EVERY: Duration = Duration::from_millis(250);

/// What a plan's source gathers at most before it hands over.
pub(crate) fn gather(plan: &Plan, options: &Options) -> crate::ingest::feed::Gather {
    crate::ingest::feed::Gather {
        payloads_max: plan.batch_rows,
        bytes_max: usize::try_from(plan.batch_bytes).unwrap_or(usize::MAX),
        delay_max: DELAY_MAX,
        tick_every: options.live.then_some(TICK_EVERY),
        // Without a state folder nothing carries open windows over a restart.
        stop_exhausts: options.state != State::Keep || plan.durability.is_none(),
    }
}
