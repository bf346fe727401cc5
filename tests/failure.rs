//! Failures: one root cause is named, nothing is committed, nobody waits for ever.

mod support;

use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use streamgauge::engine::Options;
use streamgauge::flow::topic::Topics;
use streamgauge::ingest::{BoxFuture, Source, SourceContext, SourceError, SourceSpec};
use streamgauge::sink::SinkError;
use support::parts::{Endless, Failing, Stuck, launch, plan};

/// A failure must spread by itself, well within this.
fn options() -> Options {
    Options { drain_max: Duration::from_secs(10), ..Options::replay() }
}

#[test]
fn a_sink_that_fails_for_good_is_the_one_cause() {
    let failing = Failing(|| Err(SinkError::Fatal("the disk is on fire".to_owned())));
    let (running, _runtime) = launch(plan(Endless::new(u64::MAX).0, Box::new(failing)), &options());
    let outcome = running.wait();
    assert_eq!(outcome.failure.as_deref(), Some("`out` failed: the disk is on fire"));
    assert_eq!(outcome.busy, [""; 0], "the failure has closed every door");
}

#[test]
fn a_panic_is_a_failure_with_a_name() {
    let failing = Failing(|| panic!("a fault of ours"));
    let (running, _runtime) = launch(plan(Endless::new(u64::MAX).0, Box::new(failing)), &options());
    let outcome = running.wait();
    assert_eq!(outcome.failure.as_deref(), Some("`out` failed: panicked: a fault of ours"));
    assert_eq!(outcome.busy, [""; 0], "the panic has closed every door");
}

#[test]
fn a_stop_that_takes_too_long_names_who_is_busy() {
    let stuck = Stuck::default();
    let options = Options { drain_max: Duration::from_millis(300), ..Options::replay() };
    let (endless, given) = Endless::new(u64::MAX);
    let (running, _runtime) = launch(plan(endless, Box::new(stuck.clone())), &options);
    // A full pipeline: the sink has its batch.
    while given.load(SeqCst) < 160 {
        std::thread::yield_now();
    }
    running.stop_token().cancel();
    let failure = running.wait().failure.unwrap();
    assert!(failure.starts_with("still busy after 300ms: ") && failure.contains("`out`"), "{failure}");
    stuck.let_go();
}

#[derive(Debug)]
struct Refused(Topics);

impl SourceSpec for Refused {
    fn topics(&self) -> &Topics {
        &self.0
    }

    fn describe(&self) -> String {
        "refused".to_owned()
    }

    fn open(&self, _: SourceContext) -> BoxFuture<'_, Result<Box<dyn Source>, SourceError>> {
        let why = "the broker refused the password; set `username` and `password`".to_owned();
        Box::pin(std::future::ready(Err(SourceError::Fatal(why))))
    }
}

#[test]
fn a_source_that_is_refused_ends_the_run() {
    let (running, _runtime) = launch(plan(Refused(Topics::default()), Box::new(Stuck::default())), &Options::replay());
    let failure = running.wait().failure.unwrap();
    assert_eq!(failure, "`feed` failed: the broker refused the password; set `username` and `password`");
}
