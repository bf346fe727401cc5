//! Joins what was launched, finds the one root cause of a failure, and keeps the time limit of a stop.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, unbounded};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

use crate::engine::account::{Account, Counted};
use crate::engine::checkpoint::StateFolder;
use crate::engine::stage::StageError;
use crate::telemetry::process;

/// Everything that runs for a pipeline, and where it says that it has ended.
pub(crate) struct Crew {
    names: Vec<String>,
    // Bounded by the number of stages: each reports once.
    ended: (Sender<Report>, Receiver<Report>),
}

type Report = (usize, Result<(), StageError>, Option<Used>);

/// How long a thread lived, and the processor time that it took.
type Used = (Duration, Duration);

impl Default for Crew {
    fn default() -> Self {
        Self { names: Vec::new(), ended: unbounded() }
    }
}

/// Reports that a stage has ended, also where its task was dropped or its thread unwound past everything.
struct Ending {
    index: usize,
    ended: Sender<Report>,
    result: Option<Result<(), StageError>>,
    used: Option<Used>,
}

impl Ending {
    fn with(mut self, result: Result<(), StageError>) {
        self.result = Some(result);
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        let result = self.result.take().unwrap_or_else(|| Err(StageError::Panicked("it was dropped".to_owned())));
        // Nobody listens once the run is given up.
        drop(self.ended.send((self.index, result, self.used)));
    }
}

impl Crew {
    fn enlist(&mut self, name: &str) -> Ending {
        self.names.push(name.to_owned());
        Ending { index: self.names.len() - 1, ended: self.ended.0.clone(), result: None, used: None }
    }

    /// Starts a stage's thread.
    pub(crate) fn spawn(
        &mut self,
        name: &str,
        run: impl FnOnce() -> Result<(), StageError> + Send + 'static,
    ) -> std::io::Result<()> {
        let mut ending = self.enlist(name);
        let thread = thread::Builder::new().name(name.to_owned());
        thread.spawn(move || {
            let began = Instant::now();
            let result = catch_unwind(AssertUnwindSafe(run));
            ending.used = Some((began.elapsed(), process::thread_cpu()));
            ending.with(result.unwrap_or_else(|panic| Err(StageError::Panicked(text_of(&*panic)))));
        })?;
        Ok(())
    }

    /// Starts a feed's task.
    pub(crate) fn task(
        &mut self,
        name: &str,
        runtime: &Runtime,
        run: impl Future<Output = Result<(), StageError>> + Send + 'static,
    ) {
        let ending = self.enlist(name);
        runtime.spawn(async move { ending.with(run.await) });
    }
}

fn text_of(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned())
}

/// A pipeline that runs.
pub struct Running {
    pipeline: String,
    crew: Crew,
    stages: Vec<Counted>,
    stop: CancellationToken,
    drain_max: Duration,
    /// Held until all is over.
    _folder: Option<StateFolder>,
}

/// How a run ended.
#[derive(Debug)]
pub struct Outcome {
    /// What came in and what became of it.
    pub account: Account,
    /// The one root cause, in the words of who can mend it; `None` if it went well.
    pub failure: Option<String>,
    /// The stages that had not ended when the time of a stop was over, or a failure had spread: none in a run that is well.
    pub busy: Vec<String>,
    /// The threads that have ended.
    pub threads: Vec<ThreadUse>,
}

/// What a thread of a run took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ThreadUse {
    /// Its name: the stage's, or what it does for one.
    pub name: String,
    /// How long it lived.
    pub lived: Duration,
    /// Its processor time.
    pub cpu: Duration,
}

/// How often a stop looks whether its time is over.
const LOOK_EVERY: Duration = Duration::from_millis(100);

impl Running {
    pub(crate) fn new(
        pipeline: String,
        crew: Crew,
        stages: Vec<Counted>,
        stop: CancellationToken,
        drain_max: Duration,
        folder: Option<StateFolder>,
    ) -> Self {
        Self { pipeline, crew, stages, stop, drain_max, _folder: folder }
    }

    /// Cancelled, it stops the feeds; the rest drains by itself.
    pub fn stop_token(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// The counts so far.
    pub fn account(&self) -> Account {
        Account::take(&self.pipeline, &self.stages, false)
    }

    /// Waits until every stage has ended, or the time that a stop may take is over.
    pub fn wait(self) -> Outcome {
        let mut busy: Vec<bool> = vec![true; self.crew.names.len()];
        let mut threads = Vec::new();
        let (mut failure, mut severed) = (None, false);
        let mut stopped_at: Option<Instant> = None;
        while busy.contains(&true) {
            stopped_at = stopped_at.or_else(|| self.stop.is_cancelled().then(Instant::now));
            if stopped_at.is_some_and(|at| at.elapsed() > self.drain_max) {
                break;
            }
            let Ok((index, result, used)) = self.crew.ended.1.recv_timeout(LOOK_EVERY) else { continue };
            busy[index] = false;
            let name = || self.crew.names[index].clone();
            threads.extend(used.map(|(lived, cpu)| ThreadUse { name: name(), lived, cpu }));
            match result {
                Ok(()) => (),
                Err(StageError::Severed(_)) => severed = true,
                Err(error) => {
                    let why = format!("`{}` failed: {error}", self.crew.names[index]);
                    tracing::error!(pipeline = self.pipeline, "{why}");
                    failure.get_or_insert(why);
                }
            }
            if failure.is_some() || severed {
                // The others end by their closed channels; feeds that wait for the world must be told.
                self.stop.cancel();
            }
        }
        let still = self.crew.names.iter().zip(busy).filter(|(_, busy)| *busy).map(|(name, _)| name.clone()).collect();
        Outcome { threads, ..self.outcome(failure, severed, still) }
    }

    fn outcome(self, failure: Option<String>, severed: bool, busy: Vec<String>) -> Outcome {
        let late = (!busy.is_empty()).then(|| {
            let names: Vec<_> = busy.iter().map(|name| format!("`{name}`")).collect();
            format!(
                "still busy after {:?}: {}; what was not committed is not visible",
                self.drain_max,
                names.join(", ")
            )
        });
        let failure =
            failure.or(late).or_else(|| severed.then(|| "a stage stopped early, and none said why".to_owned()));
        let account = Account::take(&self.pipeline, &self.stages, failure.is_none());
        let unbalanced = (!account.faults.is_empty()).then(|| "the account does not add up".to_owned());
        Outcome { failure: failure.or(unbalanced), account, busy, threads: Vec::new() }
    }
}
