//! Every crash point of the commit: one operation of the disk goes wrong in a run of the real binary, the process ends
//! there, or the disk is full or fails for that once; in the end everything is there once.
//!
//! `STREAMGAUGE_POINTS=all` tries every operation of a run with every effect; `STREAMGAUGE_POINTS=eio@3:sync /journal` one
//! point, or several, separated by commas.

mod support;

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::time::Instant;

use support::numbered::mix;
use support::points::{Point, Waiting, concerns};

/// Runs at once: most of their time they wait.
const WORKERS: usize = 6;
/// Runs that share a broker.
const CHUNK: usize = 12;
const EFFECTS: [&str; 4] = ["exit", "exit-after", "enospc", "eio"];
/// The operations of a start are the same in each: state folder, checkpoints, the first segment of the journal.
const START: usize = 19;
/// A second crash is within so many operations of the next start.
const RECOVERY: u64 = 60;

/// Operations of the commit, and how many of each are tried: state in parts, the manifest and its name, files and their
/// names, what goes afterwards; and some of the journal.
fn scopes() -> Vec<(String, usize)> {
    let mut scopes = Vec::new();
    let mut add = |kinds: &[(&str, usize)], part: &str| {
        scopes.extend(kinds.iter().map(|(kind, count)| (format!("{kind} {part}"), *count)));
    };
    add(&[("create", 2), ("write_at", 2), ("sync", 2), ("remove", 2)], ".arrow");
    for epoch in 0..2 {
        add(&[("create", 1), ("write_at", 1), ("sync", 1)], &format!("/checkpoints/{epoch:08}.tmp"));
    }
    add(&[("rename", 2), ("sync_folder", 4)], "/checkpoints");
    add(&[("remove", 1)], ".checkpoint");
    for sink in ["raw", "rolled"] {
        add(&[("create", 1), ("write_at", 1), ("sync", 1), ("rename", 2)], &format!("/out/{sink}/"));
        add(&[("create_folder", 4), ("sync_folder", 6), ("remove_folder", 2)], &format!("/out/{sink}"));
    }
    add(&[("rename", 1), ("sync_folder", 2)], "/out/tumbling");
    add(&[("create", 2), ("write_at", 4), ("sync", 4), ("rename", 2), ("sync_folder", 2), ("remove", 1)], "/journal/");
    scopes
}

/// The points of a run whose operations are those of `log`.
fn points(log: &[String]) -> Vec<Point> {
    let everywhere =
        |count| EFFECTS.into_iter().flat_map(move |effect| (1..=count).map(move |at| Point::new(effect, at, "")));
    match std::env::var("STREAMGAUGE_POINTS") {
        Ok(all) if all == "all" => everywhere(log.len()).collect(),
        Ok(some) => some.split(',').map(Point::parse).collect(),
        Err(_) => {
            let commit = scopes().into_iter().flat_map(|(scope, count)| {
                let there = log.iter().filter(|line| concerns(&scope, line)).count();
                assert!(there > 0, "a run has no `{scope}`");
                let of = move |effect| {
                    let scope = scope.clone();
                    (1..=count.min(there)).map(move |at| Point::new(effect, at, &scope))
                };
                EFFECTS.into_iter().flat_map(of)
            });
            everywhere(START).chain(commit).collect()
        }
    }
}

/// What became of the points.
#[derive(Default)]
struct Record {
    struck: BTreeSet<String>,
    missed: Vec<String>,
    wrong: Vec<String>,
}

fn check(points: &[Point], record: &Mutex<Record>) {
    let waiting = Waiting::start(points.len()).expect("it was there before");
    for (session, point) in points.iter().enumerate() {
        let seed = mix((point.at * 31 + point.scope.len()) as u64);
        let then = (point.effect == "exit-after").then(|| Point::new("exit", (1 + seed % RECOVERY) as usize, ""));
        let bench = waiting.bench(session);
        let checked = catch_unwind(AssertUnwindSafe(|| bench.check(point, then.as_ref())));
        let mut record = record.lock().unwrap();
        match checked {
            Ok(Some(_)) => drop(record.struck.insert(point.to_string())),
            Ok(None) => record.missed.push(point.to_string()),
            Err(panic) => {
                let why = panic.downcast_ref::<String>().cloned().unwrap_or_default();
                record.wrong.push(format!("== {point}, then {then:?}\n{why}"));
            }
        }
    }
}

#[test]
fn whatever_goes_wrong_at_any_point_of_the_commit_everything_is_there_once() {
    let Some(waiting) = Waiting::start(1) else { return };
    let from = Instant::now();
    let bench = waiting.bench(0);
    let whole = bench.run(None);
    assert!(whole.status.success(), "{}", whole.said);
    bench.finish();
    let points = points(&whole.log);
    let (record, rest) = (Mutex::default(), Mutex::new(points.chunks(CHUNK)));
    std::thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                loop {
                    let Some(chunk) = rest.lock().unwrap().next() else { break };
                    check(chunk, &record);
                }
            });
        }
    });
    let Record { struck, missed, wrong } = record.into_inner().unwrap();
    println!(
        "{} operations in a run; {} points: {} struck, {} not met, {} wrong, {:.1} s",
        whole.log.len(),
        points.len(),
        struck.len(),
        missed.len(),
        wrong.len(),
        from.elapsed().as_secs_f64(),
    );
    println!("not met: {missed:?}");
    assert!(wrong.is_empty(), "{} points went wrong:\n{}", wrong.len(), wrong.join("\n"));
    assert!(missed.len() * 5 <= points.len(), "most points are met");
}
