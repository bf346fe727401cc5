//! A stop keeps open windows, ends within a bound, and says who does not.

use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use serde_json::Value;
use streamgauge::engine::Options;
use streamgauge::pipeline::plan::Durability;

use crate::bench::{Bench, PIPELINE, WITHIN};
use crate::support::parts::{Endless, Stuck, launch, plan};

/// How long a stop of a pipeline that is well may take.
const STOP_WITHIN: Duration = Duration::from_secs(5);
/// What the stuck one is given.
const DRAIN_MAX: Duration = Duration::from_millis(700);

#[test]
fn a_stop_keeps_open_windows_and_the_next_start_completes_them() {
    let Some(mut bench) = Bench::start() else { return };
    bench.pass(PIPELINE, &[], &[("feed", 150)]);
    // 130 and more have reached the watermark: the first window of each device, and no part of the second.
    bench.assert_windows(150, 1);
    let mut run = bench.run(PIPELINE, &[]);
    bench.publish("feed", 60);
    run.until("received", WITHIN, |run| crate::bench::received(run, "feed") == 210);
    let from = Instant::now();
    run.terminate(STOP_WITHIN);
    assert!(from.elapsed() < STOP_WITHIN);
    bench.assert_windows(210, 1);
    bench.pass(PIPELINE, &[], &[("feed", 120)]);
    bench.assert_windows(330, 1);
    assert_eq!(bench.raw("raw"), (0..330).collect::<Vec<_>>());
}

fn latest(run: &crate::support::process::Process) -> Option<Vec<Value>> {
    let (_, body) = run.get("/api/v1/latest/latest")?;
    let mut rows: Vec<Value> = serde_json::from_str(&body).ok()?;
    rows.sort_by_key(|row| row["device"].as_str().unwrap().to_owned());
    Some(rows)
}

/// What the `metrics` sink shows survives a kill: from the last checkpoint on, with what the journal has after it.
#[test]
fn the_newest_rows_are_shown_again_after_a_kill() {
    let Some(mut bench) = Bench::start() else { return };
    let mut run = bench.run(PIPELINE, &[]);
    bench.publish("feed", 350);
    let newest = |rows: &[Value]| rows.len() == 2 && rows.iter().all(|row| row["last"].as_u64() >= Some(298));
    run.until("the third window", WITHIN, |run| latest(run).is_some_and(|rows| newest(&rows)));
    let before = latest(&run).unwrap();
    for _ in 0..3 {
        run.kill();
        run = bench.run(PIPELINE, &[]);
        run.until("the same rows", WITHIN, |run| latest(run).as_ref() == Some(&before));
    }
    bench.publish("feed", 100);
    run.until("the fourth window", WITHIN, |run| {
        latest(run).is_some_and(|rows| rows.iter().all(|row| row["last"].as_u64() >= Some(398)))
    });
    run.kill();
    run = bench.run(PIPELINE, &[]);
    run.until("the rows after", WITHIN, |run| {
        latest(run).is_some_and(|rows| rows.iter().all(|row| row["last"].as_u64() >= Some(398)))
    });
    run.terminate(WITHIN);
}

#[test]
fn a_stage_that_is_stuck_is_named_and_nothing_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options { drain_max: DRAIN_MAX, ..Options::live() };
    let durable = |mut plan: streamgauge::pipeline::plan::Plan| {
        plan.durability = Some(Durability { state: folder.path().join("state"), ..Durability::default() });
        plan
    };
    let limit = 5_000;
    let (source, given) = Endless::new(limit);
    let stuck = Stuck::default();
    let (running, kept) = launch(durable(plan(source, Box::new(stuck.clone()))), &options);
    let from = Instant::now();
    while given.load(SeqCst) < limit {
        assert!(from.elapsed() < WITHIN, "the journal takes what the sink does not");
        std::thread::sleep(Duration::from_millis(5));
    }
    running.stop_token().cancel();
    let from = Instant::now();
    let outcome = running.wait();
    assert!(from.elapsed() < DRAIN_MAX + STOP_WITHIN, "{:?}", from.elapsed());
    let failure = outcome.failure.unwrap();
    assert!(failure.contains("still busy after 700ms: ") && failure.contains("`out`"), "{failure}");
    assert!(outcome.busy.contains(&"out".to_owned()), "{:?}", outcome.busy);
    assert_eq!(stuck.rows.load(SeqCst), 0);
    // The stuck thread stays as it is, as it would until the process ends.
    drop(kept.telemetry);
    kept.runtime.shutdown_background();

    let working = Stuck::default();
    working.let_go();
    let source = Endless::again(given, limit);
    let (running, _kept) = launch(durable(plan(source, Box::new(working.clone()))), &options);
    let from = Instant::now();
    while working.rows.load(SeqCst) < limit {
        assert!(from.elapsed() < WITHIN, "{} of {limit} rows", working.rows.load(SeqCst));
        std::thread::sleep(Duration::from_millis(5));
    }
    running.stop_token().cancel();
    let outcome = running.wait();
    assert_eq!((outcome.failure, outcome.busy), (None, Vec::new()));
    assert_eq!((outcome.account.sources["feed"].rows, outcome.account.sinks["out"].rows), (limit, limit));
}
