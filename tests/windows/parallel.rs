//! Several workers emit what one operator emits, to the order of rows and to the byte; also when every restart brings
//! another number of them.

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use proptest::prelude::*;
use streamgauge::flow::outbox::Port;
use streamgauge::flow::time::Timestamp;
use streamgauge::operator::Operator;
use streamgauge::operator::window::core::{Overflow, Setup, Windows};
use streamgauge::operator::window::parallel::Parallel;

use crate::case::{Case, Row, batch, cases, cut, setup, streams};
use crate::restart::{Out, Store, steps};

fn operator(setup: Setup, workers: usize) -> Box<dyn Operator> {
    match workers {
        1 => Box::new(Windows::new(setup).unwrap()),
        _ => Box::new(Parallel::new(setup, workers).unwrap()),
    }
}

/// As `restart::run`, with so many workers from each restart to the next.
fn run(case: Case, rows: &[Row], cuts: &[usize], steps: &[(bool, bool)], setup: &Setup, workers: &[usize]) -> Out {
    let mut workers = workers.iter().cycle();
    let mut windows = operator(setup.clone(), *workers.next().unwrap());
    let (mut store, mut out, mut seen) = (Store::default(), Vec::new(), i64::MIN);
    for (index, rows) in cut(rows, cuts).into_iter().enumerate() {
        windows.process(batch(case, rows).into(), &mut out).unwrap();
        seen = seen.max(rows.iter().map(|row| row.0).max().unwrap());
        // Now and then two batches come without a watermark between them.
        if index % 3 != 1 {
            windows.advance(Timestamp::from_micros(seen - case.disorder), &mut out).unwrap();
        }
        let (snapshot, restart) = steps.get(index).copied().unwrap_or_default();
        if snapshot || restart {
            windows.flush(&mut out).unwrap();
            store.take(windows.snapshot().unwrap());
        }
        if restart {
            windows = operator(setup.clone(), *workers.next().unwrap());
            windows.restore(&store.0).unwrap();
        }
    }
    windows.advance(Timestamp::END, &mut out).unwrap();
    out
}

/// All rows of a port.
fn rows_of(out: &Out, port: Port) -> Option<RecordBatch> {
    let batches: Vec<&RecordBatch> = out.iter().filter(|(at, _)| *at == port).map(|(_, batch)| batch).collect();
    Some(concat_batches(&batches.first()?.schema(), batches).unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn workers_emit_what_one_operator_emits(
        case in cases(),
        rows in streams(20),
        cuts in prop::collection::vec(1usize..9, 1..20),
        steps in steps(),
        workers in prop::collection::vec(1usize..6, 1..5),
        groups_max in prop_oneof![Just(1_000_usize), 1_usize..12],
    ) {
        let setup = Setup { groups_max, overflow: Overflow::Side, ..setup(case) };
        let one = run(case, &rows, &cuts, &[], &setup, &[1]);
        let several = run(case, &rows, &cuts, &steps, &setup, &workers);
        for port in [Port::Main, Port::Side] {
            prop_assert_eq!(rows_of(&several, port), rows_of(&one, port), "{:?}, workers {:?}", port, workers);
        }
    }
}

#[test]
fn too_many_groups_stop_all_workers() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let case = proptest::strategy::Strategy::new_tree(&cases(), &mut runner).unwrap();
    let case = proptest::strategy::ValueTree::current(&case);
    let setup = Setup { groups_max: 2, overflow: Overflow::Stop, ..setup(case) };
    let mut windows = Parallel::new(setup, 3).unwrap();
    let mut out = Vec::new();
    let rows: Vec<Row> = (0..3).map(|device| (0, Some(device), None)).collect();
    windows.process(batch(case, &rows[..2]).into(), &mut out).unwrap();
    let why = windows.process(batch(case, &rows).into(), &mut out).unwrap_err().to_string();
    assert_eq!(why, "more than 2 groups at once (`max_groups`)");
}
