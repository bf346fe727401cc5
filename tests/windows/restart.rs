//! Restarts, with the parts of the state kept from snapshot to snapshot as a checkpoint keeps them.

use std::collections::{BTreeMap, BTreeSet};

use arrow::array::RecordBatch;
use proptest::prelude::*;
use streamgauge::flow::outbox::Port;
use streamgauge::flow::state::{Part, Restored};
use streamgauge::flow::time::{Span, Timestamp};
use streamgauge::operator::Operator;
use streamgauge::operator::window::core::{Clock, Late, Setup, Windows};

use crate::case::{Case, Kind, Numbering, Place, Row, batch, cases, cut, numbered, read, setup, streams};

/// What a checkpoint keeps: the newest rows of every part that was listed last, in its order.
#[derive(Default)]
pub(crate) struct Store(pub(crate) Vec<Restored>);

impl Store {
    /// Takes the parts of a snapshot; gives back the names of those that came with rows.
    pub(crate) fn take(&mut self, parts: Vec<Part>) -> BTreeSet<String> {
        let mut known: BTreeMap<String, RecordBatch> = self.0.drain(..).collect();
        let mut given = BTreeSet::new();
        for Part { name, rows } in parts {
            assert!(name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_'), "{name}");
            let rows = match rows {
                Some(rows) => {
                    assert!(given.insert(name.clone()), "{name} was given twice");
                    rows
                }
                None => known.remove(&name).unwrap_or_else(|| panic!("{name} was never given")),
            };
            self.0.push((name, rows));
        }
        given
    }

    pub(crate) fn names(&self) -> BTreeSet<String> {
        self.0.iter().map(|(name, _)| name.clone()).collect()
    }
}

/// After each batch: whether there is a snapshot, and whether it is gone back to.
pub(crate) fn steps() -> impl Strategy<Value = Vec<(bool, bool)>> {
    prop::collection::vec((any::<bool>(), prop::bool::weighted(0.3)), 80)
}

/// An operator that has been told everything.
pub(crate) type Out = Vec<(Port, RecordBatch)>;

/// The operator over batches of rows; a watermark of the stream follows each batch.
pub(crate) fn run(case: Case, rows: &[Row], cuts: &[usize], steps: &[(bool, bool)]) -> Out {
    run_with(case, rows, cuts, steps, |_| setup(case))
}

/// The same, where each restart brings a setup of its own.
fn run_with(
    case: Case,
    rows: &[Row],
    cuts: &[usize],
    steps: &[(bool, bool)],
    setup_of: impl Fn(usize) -> Setup,
) -> Out {
    let mut windows = Windows::new(setup_of(0)).unwrap();
    let (mut store, mut restarts) = (Store::default(), 0);
    let mut out = Vec::new();
    let mut seen = i64::MIN;
    let mut touched = BTreeSet::new();
    for (index, rows) in cut(rows, cuts).into_iter().enumerate() {
        let emitted = out.len();
        windows.process(numbered(case, rows, index), &mut out).unwrap();
        touched.extend(accepted(case, rows, &out[emitted..]).iter().filter_map(|row| pane_of(case, *row)));
        seen = seen.max(rows.iter().map(|row| row.0).max().unwrap());
        windows.advance(Timestamp::from_micros(seen - case.disorder), &mut out).unwrap();
        let (snapshot, restart) = steps.get(index).copied().unwrap_or_default();
        if snapshot || restart {
            let given = store.take(windows.snapshot().unwrap());
            let panes = |names: &BTreeSet<String>| -> BTreeSet<String> {
                names.iter().filter(|name| name.starts_with("pane-")).cloned().collect()
            };
            let listed = panes(&store.names());
            assert_eq!(
                panes(&given),
                touched.intersection(&listed).cloned().collect(),
                "panes that took rows are given"
            );
            touched.clear();
        }
        if restart {
            restarts += 1;
            windows = Windows::new(setup_of(restarts)).unwrap();
            windows.restore(&store.0).unwrap();
        }
    }
    windows.advance(Timestamp::END, &mut out).unwrap();
    out
}

/// The rows that were not set aside.
fn accepted(case: Case, rows: &[Row], out: &[(Port, RecordBatch)]) -> Vec<Row> {
    let mut accepted = rows.to_vec();
    for late in read(case, out).1 {
        let at = accepted.iter().position(|row| *row == late).expect("only what came is set aside");
        accepted.remove(at);
    }
    accepted
}

/// The part of a row's pane, on the stream's clock.
fn pane_of(case: Case, row: Row) -> Option<String> {
    let Kind::Grid { size, slide, offset } = case.kind else { return None };
    let pane = (1..=slide).rev().find(|pane| size % pane == 0 && slide % pane == 0).expect("one divides all");
    (case.clock == Clock::Stream).then(|| format!("pane-{}", (row.0 - offset).div_euclid(pane) * pane + offset))
}

const CASE: Case = Case {
    kind: Kind::Grid { size: 10, slide: 10, offset: 0 },
    clock: Clock::Stream,
    late: Late::Set,
    lateness: 0,
    disorder: 0,
    idle_minutes: 60,
    wide_keys: false,
    numbers: Numbering::None,
    forget_after: 0,
};

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// Settings that state does not depend on may be others after a restart: no row counts twice, and none is lost.
    #[test]
    fn limits_may_change_at_a_restart(
        case in cases(),
        rows in streams(3),
        cuts in prop::collection::vec(1usize..9, 1..20),
        steps in steps(),
        limits in prop::collection::vec((0i64..12, 0i64..6, 0i64..2), 1..6),
    ) {
        let (Kind::Grid { size, .. } | Kind::Session { gap: size }) = case.kind;
        let case = Case { kind: Kind::Grid { size, slide: size, offset: 0 }, ..case };
        let changed = |restart: usize| {
            let (lateness, disorder, idle) = limits[restart % limits.len()];
            let setup = setup(Case { lateness, disorder, ..case });
            Setup { group_idle_after: Span::from_secs(idle * 60), ..setup }
        };
        let (emissions, late) = read(case, &run_with(case, &rows, &cuts, &steps, changed));
        let mut newest = BTreeMap::<Place, (i64, i64)>::new();
        for (place, numbers, revision) in emissions {
            let before = newest.insert(place, (revision, numbers.0));
            let follows = before.map_or(0, |(before, _)| before + 1);
            prop_assert_eq!(revision, follows, "{:?}", place);
        }
        let counted: i64 = newest.values().map(|(_, rows)| rows).sum();
        prop_assert_eq!(counted + late.len() as i64, rows.len() as i64);
    }

    /// Sessions too take up their state under any limits.
    #[test]
    fn sessions_go_on_under_other_limits(
        case in cases(),
        gap in 1i64..8,
        rows in streams(3),
        cuts in prop::collection::vec(1usize..9, 1..20),
        steps in steps(),
        limits in prop::collection::vec((0i64..12, 0i64..6), 1..6),
    ) {
        let case = Case { kind: Kind::Session { gap }, late: Late::Set, ..case };
        let changed = |restart: usize| {
            let (lateness, disorder) = limits[restart % limits.len()];
            setup(Case { lateness, disorder, ..case })
        };
        let (emissions, late) = read(case, &run_with(case, &rows, &cuts, &steps, changed));
        let counted: i64 = emissions.iter().map(|(_, numbers, _)| numbers.0).sum();
        prop_assert_eq!(counted + late.len() as i64, rows.len() as i64);
    }
}

/// The parts that are given after the next row, out of those that are listed.
fn given(case: Case, before: &[Row], row: Row) -> (BTreeSet<String>, BTreeSet<String>) {
    let mut windows = Windows::new(setup(case)).unwrap();
    let (mut store, mut out) = (Store::default(), Vec::new());
    windows.process(batch(case, before).into(), &mut out).unwrap();
    let given = store.take(windows.snapshot().unwrap());
    assert_eq!(given, store.names(), "all parts are new");
    assert_eq!(store.take(windows.snapshot().unwrap()), BTreeSet::from(["clock".to_owned()]));
    let mut windows = Windows::new(setup(case)).unwrap();
    windows.restore(&store.0).unwrap();
    assert_eq!(store.take(windows.snapshot().unwrap()), BTreeSet::from(["clock".to_owned()]));
    windows.process(batch(case, &[row]).into(), &mut out).unwrap();
    let given = store.take(windows.snapshot().unwrap());
    assert!(out.is_empty());
    (given, store.names())
}

#[test]
fn only_what_has_changed_is_given_again() {
    let rows: Vec<Row> = (0..200).map(|device| (i64::from(device) % 7, Some(device), Some(1))).collect();
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
    let hopping = Case { kind: Kind::Grid { size: 6, slide: 2, offset: 0 }, ..CASE };
    let panes = names(&["clock", "pane-0", "pane-2", "pane-4", "pane-6"]);
    assert_eq!(given(hopping, &rows, (5, Some(4), None)), (names(&["clock", "pane-4"]), panes));
    let session = Case { kind: Kind::Session { gap: 5 }, ..CASE };
    for (case, kinds) in [
        (session, &["sessions"][..]),
        (Case { clock: Clock::Group, ..session }, &["groups", "sessions"]),
        (Case { clock: Clock::Group, ..CASE }, &["groups", "panes"]),
    ] {
        let (given, listed) = given(case, &rows, (6, Some(4), None));
        assert_eq!(listed.len(), 1 + 16 * kinds.len(), "{listed:?}");
        let range = D4 / 16;
        let expected: BTreeSet<String> = kinds.iter().map(|kind| format!("{kind}-{range}")).collect();
        assert_eq!(given.difference(&expected).collect::<Vec<_>>(), ["clock"], "{case:?}");
        assert_eq!(given.len(), 1 + kinds.len());
    }
}

/// The key group of the device `d4`, worked out by hand from its definition.
const D4: u8 = 255;

#[test]
fn panes_before_1970_have_names_too() {
    let mut windows = Windows::new(setup(CASE)).unwrap();
    windows.process(batch(CASE, &[(-15, None, None), (-5, None, None)]).into(), &mut Vec::new()).unwrap();
    let names: Vec<String> = windows.snapshot().unwrap().into_iter().map(|part| part.name).collect();
    assert_eq!(names, ["clock", "pane--20", "pane--10"]);
}

#[test]
fn there_is_state_without_rows() {
    let mut windows = Windows::new(setup(CASE)).unwrap();
    let mut out = Vec::new();
    windows.advance(Timestamp::from_micros(25), &mut out).unwrap();
    let mut store = Store::default();
    store.take(windows.snapshot().unwrap());
    let mut windows = Windows::new(setup(CASE)).unwrap();
    windows.restore(&store.0).unwrap();
    windows.process(batch(CASE, &[(19, None, None), (20, None, None)]).into(), &mut out).unwrap();
    assert_eq!(read(CASE, &out).1, [(19, None, None)], "it is late still");
}

#[test]
fn groups_of_a_checkpoint_are_kept_beyond_the_bound() {
    let mut windows = Windows::new(setup(CASE)).unwrap();
    let mut out = Vec::new();
    windows.process(batch(CASE, &[(1, Some(0), None), (2, Some(1), None)]).into(), &mut out).unwrap();
    let mut store = Store::default();
    store.take(windows.snapshot().unwrap());
    let mut windows = Windows::new(Setup { groups_max: 1, ..setup(CASE) }).unwrap();
    windows.restore(&store.0).unwrap();
    windows.process(batch(CASE, &[(3, Some(0), None), (4, Some(1), None)]).into(), &mut out).unwrap();
    let error = windows.process(batch(CASE, &[(5, Some(2), None)]).into(), &mut out).unwrap_err();
    assert_eq!(error.to_string(), "more than 1 groups at once (`max_groups`)");
    windows.advance(Timestamp::END, &mut out).unwrap();
    let counts: Vec<_> = read(CASE, &out).0.into_iter().map(|(place, numbers, _)| (place.2, numbers.0)).collect();
    assert_eq!(counts, [(Some(0), 2), (Some(1), 2)]);
}

/// A restart that closes more than the limits of the next one would: what was closed is emitted all the same.
#[test]
fn what_was_closed_under_other_limits_is_emitted() {
    let kind = Kind::Grid { size: 1, slide: 1, offset: 0 };
    let case = Case { kind, clock: Clock::Group, ..CASE };
    let rows: [Row; 4] = [(5, None, None), (-7, Some(0), None), (5, None, None), (0, Some(0), None)];
    // By the second run's limits the row at -7 is in a window that is closed; the third would hold it open up to 3.
    let limits = [(10, 60), (0, 0), (10, 60)];
    let changed = |restart: usize| {
        let (lateness, idle_minutes) = limits[restart];
        setup(Case { lateness, idle_minutes, ..case })
    };
    let steps = [(false, false), (false, true), (false, true), (false, false)];
    let (emissions, late) = read(case, &run_with(case, &rows, &[1], &steps, changed));
    let windows: Vec<Place> = crate::case::sorted(emissions.iter().map(|(place, ..)| *place).collect());
    assert_eq!(windows, [(-7, -6, Some(0)), (0, 1, Some(0)), (5, 6, None)]);
    assert_eq!((emissions.iter().map(|(_, numbers, _)| numbers.0).sum::<i64>(), late.len()), (4, 0));
}
