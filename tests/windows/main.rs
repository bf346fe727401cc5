//! The window operator against a naive oracle: any cut into batches, any order, both clocks, every kind of window,
//! every policy for late rows, and restarts at any batch.

mod case;
mod damage;
mod oracle;
mod parallel;
mod restart;
mod workers;

use std::collections::BTreeMap;

use proptest::prelude::*;
use streamgauge::flow::time::Timestamp;
use streamgauge::operator::Operator;
use streamgauge::operator::window::core::{Clock, Late, Overflow, Setup, Windows};

use crate::case::{Case, Kind, Numbering, Place, batch, cases, cut, numbered, read, setup, sorted, streams};
use crate::oracle::oracle;
use crate::restart::{run, steps};

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn windows_are_those_of_the_oracle(
        case in cases(),
        other in cases(),
        rows in streams(3),
        cuts in prop::collection::vec(1usize..9, 1..20),
        steps in steps(),
    ) {
        let out = run(case, &rows, &cuts, &steps);
        prop_assert_eq!(&run(case, &rows, &cuts, &[]), &out, "restarts change no byte");
        let alike = Case { numbers: other.numbers, forget_after: other.forget_after, ..case };
        prop_assert_eq!(&run(alike, &rows, &cuts, &steps), &out, "numbers and what is remembered change no byte");
        let (emissions, late) = read(case, &out);
        let oracle = oracle(case, &rows, &cuts);
        prop_assert_eq!(sorted(late), sorted(oracle.late), "late rows");
        prop_assert_eq!(sorted(emissions), sorted(oracle.emissions), "windows");
    }

    #[test]
    fn every_row_is_accepted_or_late(
        case in cases(),
        rows in streams(3),
        cuts in prop::collection::vec(1usize..9, 1..20),
    ) {
        let (Kind::Grid { size, .. } | Kind::Session { gap: size }) = case.kind;
        let case = Case { kind: Kind::Grid { size, slide: size, offset: 0 }, ..case };
        let (emissions, late) = read(case, &run(case, &rows, &cuts, &[]));
        // The newest revision of every window counts each of its rows once.
        let newest: BTreeMap<Place, i64> = sorted(emissions.iter().map(|(place, numbers, revision)| (*place, *revision, numbers.0)).collect())
            .into_iter().map(|(place, _, rows)| (place, rows)).collect();
        prop_assert_eq!(newest.values().sum::<i64>() + late.len() as i64, rows.len() as i64);
    }

    /// Batches are cut between watermarks in any way: the same rows, in the same order.
    #[test]
    fn cuts_make_no_difference(
        case in cases(),
        rows in streams(3),
        cuts in prop::collection::vec(1usize..9, 1..20),
        others in prop::collection::vec(1usize..9, 1..20),
    ) {
        // A watermark after each batch would come elsewhere when it is cut elsewhere, so there is one, at the end.
        let run = |cuts: &[usize]| {
            let mut windows = Windows::new(setup(case)).unwrap();
            let mut out = Vec::new();
            for (index, rows) in cut(&rows, cuts).into_iter().enumerate() {
                windows.process(numbered(case, rows, index), &mut out).unwrap();
            }
            windows.advance(Timestamp::END, &mut out).unwrap();
            read(case, &out)
        };
        prop_assert_eq!(run(&cuts), run(&others));
    }

    #[test]
    fn no_time_is_too_strange(
        case in cases(),
        times in prop::collection::vec(prop_oneof![any::<i64>(), Just(i64::MIN), Just(i64::MAX), Just(0), Just(-1), Just(i64::MIN + 1)], 1..20),
        marks in prop::collection::vec(any::<i64>(), 1..20),
    ) {
        let mut windows = Windows::new(setup(case)).unwrap();
        let mut out = Vec::new();
        for (at, mark) in times.iter().zip(marks.iter().cycle()) {
            windows.process(batch(case, &[(*at, Some(1), None)]).into(), &mut out).unwrap();
            windows.advance(Timestamp::from_micros(*mark), &mut out).unwrap();
        }
        windows.advance(Timestamp::END, &mut out).unwrap();
    }
}

/// The windows of a day by hand: values of one device, at seconds 1, 11 and 12, in windows of ten seconds.
#[test]
fn a_window_closes_when_the_watermark_reaches_its_end() {
    let kind = Kind::Grid { size: 10, slide: 10, offset: 0 };
    let case = Case {
        kind,
        clock: Clock::Stream,
        late: Late::Set,
        lateness: 0,
        disorder: 0,
        idle_minutes: 60,
        wide_keys: false,
        numbers: Numbering::None,
        forget_after: 0,
    };
    let mut windows = Windows::new(setup(case)).unwrap();
    let mut out = Vec::new();
    windows
        .process(batch(case, &[(1, Some(1), Some(5)), (11, Some(1), Some(7)), (12, Some(1), Some(9))]).into(), &mut out)
        .unwrap();
    windows.advance(Timestamp::from_micros(9), &mut out).unwrap();
    assert!(out.is_empty());
    windows.advance(Timestamp::from_micros(10), &mut out).unwrap();
    assert_eq!(read(case, &out).0, [((0, 10, Some(1)), (1, Some(5), Some(5), Some(5)), 0)]);
    out.clear();
    windows.process(batch(case, &[(9, Some(1), Some(1)), (10, Some(1), Some(1))]).into(), &mut out).unwrap();
    windows.advance(Timestamp::END, &mut out).unwrap();
    let (emissions, late) = read(case, &out);
    assert_eq!(late, [(9, Some(1), Some(1))]);
    assert_eq!(emissions, [((10, 20, Some(1)), (3, Some(17), Some(1), Some(9)), 0)]);
}

#[test]
fn groups_beyond_the_bound_stop_the_run_or_go_aside() {
    let kind = Kind::Grid { size: 10, slide: 10, offset: 0 };
    let case = Case {
        kind,
        clock: Clock::Stream,
        late: Late::Set,
        lateness: 0,
        disorder: 0,
        idle_minutes: 60,
        wide_keys: true,
        numbers: Numbering::None,
        forget_after: 0,
    };
    let rows = batch(case, &[(1, Some(0), None), (2, Some(1), None), (3, Some(0), None), (4, None, None)]);
    let bounded = |overflow| Setup { groups_max: 1, overflow, ..setup(case) };
    let error =
        Windows::new(bounded(Overflow::Stop)).unwrap().process(rows.clone().into(), &mut Vec::new()).unwrap_err();
    assert_eq!(error.to_string(), "more than 1 groups at once (`max_groups`)");
    let mut windows = Windows::new(bounded(Overflow::Side)).unwrap();
    let mut out = Vec::new();
    windows.process(rows.into(), &mut out).unwrap();
    windows.advance(Timestamp::from_micros(10), &mut out).unwrap();
    // The first group's window has closed, so there is room for another.
    windows.process(batch(case, &[(11, Some(1), None)]).into(), &mut out).unwrap();
    windows.advance(Timestamp::END, &mut out).unwrap();
    let (emissions, aside) = read(case, &out);
    assert_eq!(aside, [(2, Some(1), None), (4, None, None)]);
    let counts: Vec<_> = emissions.iter().map(|(place, numbers, _)| (*place, numbers.0)).collect();
    assert_eq!(counts, [((0, 10, Some(0)), 2), ((10, 20, Some(1)), 1)]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// A row overflows if as many other groups are held, whatever is remembered beside them and whatever the keys' numbers.
    #[test]
    fn the_bound_of_groups_is_exact(
        case in cases(),
        rows in streams(8),
        cuts in prop::collection::vec(1usize..9, 1..20),
        max in 1usize..6,
    ) {
        let bounded = |case: Case| {
            let mut windows =
                Windows::new(Setup { groups_max: max, overflow: Overflow::Side, ..setup(case) }).unwrap();
            let (mut out, mut seen) = (Vec::new(), i64::MIN);
            for (index, rows) in cut(&rows, &cuts).into_iter().enumerate() {
                windows.process(numbered(case, rows, index), &mut out).unwrap();
                seen = seen.max(rows.iter().map(|row| row.0).max().unwrap());
                windows.advance(Timestamp::from_micros(seen - case.disorder), &mut out).unwrap();
            }
            windows.advance(Timestamp::END, &mut out).unwrap();
            out
        };
        let out = bounded(Case { numbers: Numbering::None, forget_after: 0, ..case });
        prop_assert_eq!(&bounded(case), &out);
        // Where windows are on the stream's clock and each row has one, it can be counted by hand which fit.
        let Kind::Grid { size, .. } = case.kind else { return Ok(()) };
        let case = Case { kind: Kind::Grid { size, slide: size, offset: 0 }, clock: Clock::Stream, late: Late::Set, ..case };
        let (mut aside, mut open, mut closed, mut seen) = (Vec::new(), Vec::new(), i64::MIN, i64::MIN);
        for rows in cut(&rows, &cuts) {
            for row in rows {
                let end = row.0.div_euclid(size) * size + size;
                let mut held: Vec<Option<u8>> = open.iter().map(|(_, device): &(i64, Option<u8>)| *device).collect();
                held.sort_unstable();
                held.dedup();
                if end <= closed || (held.len() >= max && !held.contains(&row.1)) {
                    aside.push(*row);
                } else {
                    open.push((end, row.1));
                }
                seen = seen.max(row.0);
            }
            closed = closed.max(seen - case.disorder - case.lateness);
            open.retain(|(end, _)| *end > closed);
        }
        prop_assert_eq!(sorted(read(case, &bounded(case)).1), sorted(aside));
    }
}
