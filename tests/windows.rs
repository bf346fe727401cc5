//! The window operator against a naive oracle: any cut into batches, any order, both clocks, every kind of window,
//! every policy for late rows, and a restart at any batch.
//!
//! The oracle keeps every row it accepted and counts over them anew whenever a window is due; it shares no code with
//! the operator but the types of its settings.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::cast::AsArray;
use arrow::array::{Array, ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, TimestampMicrosecondType};
use proptest::prelude::*;
use streamgauge::flow::outbox::Port;
use streamgauge::flow::schema::{StreamSchema, timestamp_type};
use streamgauge::flow::state::{Part, Restored};
use streamgauge::flow::time::{Span, Timestamp};
use streamgauge::operator::Operator;
use streamgauge::operator::aggregate::kernel;
use streamgauge::operator::window::core::{Clock, Late, Overflow, Setup, Windows};
use streamgauge::operator::window::measure::{Arg, Measure};
use streamgauge::operator::window::shape::{Grid, Shape};

/// Event time, group, value.
type Row = (i64, Option<u8>, Option<i64>);

/// Where a window lies, and whose it is.
type Place = (i64, i64, Option<u8>);

/// Count, sum, first and last of the values, in a window.
type Numbers = (i64, Option<i64>, Option<i64>, Option<i64>);

/// A window as it was emitted: with its revision.
type Emission = (Place, Numbers, i64);

#[derive(Clone, Copy, Debug)]
enum Kind {
    Grid { size: i64, slide: i64, offset: i64 },
    Session { gap: i64 },
}

#[derive(Clone, Copy, Debug)]
struct Case {
    kind: Kind,
    clock: Clock,
    late: Late,
    lateness: i64,
    disorder: i64,
    /// How far clocks of groups may stay behind the stream's.
    idle_minutes: i64,
    /// Two key columns instead of one of text.
    wide_keys: bool,
}

fn schema(case: Case) -> StreamSchema {
    let mut fields = vec![
        Field::new("ts", timestamp_type(), false),
        Field::new("device", DataType::Utf8, true),
        Field::new("value", DataType::Int64, true),
    ];
    if case.wide_keys {
        fields.push(Field::new("site", DataType::Int64, true));
    }
    let columns = Arc::new(Schema::new(fields));
    StreamSchema { columns, time: 0, out_of_orderness: Span::from_micros(case.disorder) }
}

fn batch(case: Case, rows: &[Row]) -> RecordBatch {
    let times =
        TimestampMicrosecondArray::from_iter_values(rows.iter().map(|row| row.0)).with_data_type(timestamp_type());
    let devices: StringArray = rows.iter().map(|row| row.1.map(|device| format!("d{device}"))).collect();
    let values: Int64Array = rows.iter().map(|row| row.2).collect();
    let mut columns: Vec<ArrayRef> = vec![Arc::new(times), Arc::new(devices), Arc::new(values)];
    if case.wide_keys {
        columns
            .push(Arc::new(rows.iter().map(|row| row.1.map(|device| i64::from(device) - 1)).collect::<Int64Array>()));
    }
    RecordBatch::try_new(schema(case).columns, columns).unwrap()
}

fn setup(case: Case) -> Setup {
    let measure = |name: &str, function: &str, args: &[DataType]| Measure {
        name: name.to_owned(),
        factory: kernel(function, args, None).unwrap().unwrap(),
        args: args.iter().map(|_| Arg::Column(2)).collect(),
        filter: None,
    };
    let whole = [DataType::Int64];
    Setup {
        input: schema(case),
        group_by: if case.wide_keys { vec![1, 3] } else { vec![1] },
        measures: vec![
            measure("rows", "count", &[]),
            measure("sum", "sum", &whole),
            measure("first", "first", &whole),
            measure("last", "last", &whole),
        ],
        shape: match case.kind {
            Kind::Grid { size, slide, offset } => Shape::Grid(Grid::fixed(size, slide, offset)),
            Kind::Session { gap } => Shape::Session { gap },
        },
        clock: case.clock,
        group_idle_after: Span::from_secs(case.idle_minutes * 60),
        allowed_lateness: Span::from_micros(case.lateness),
        late: case.late,
        groups_max: 1_000,
        overflow: Overflow::Stop,
    }
}

/// What was emitted at the main output, and the rows that were set aside.
fn read(case: Case, out: &[(Port, RecordBatch)]) -> (Vec<Emission>, Vec<Row>) {
    let (mut emissions, mut late) = (Vec::new(), Vec::new());
    let device = |column: &ArrayRef, row: usize| {
        let text = column.as_string::<i32>();
        text.is_valid(row).then(|| text.value(row)[1..].parse::<u8>().unwrap())
    };
    let whole = |column: &ArrayRef, row: usize| {
        let whole = column.as_primitive::<Int64Type>();
        whole.is_valid(row).then(|| whole.value(row))
    };
    for (port, batch) in out {
        let time = |column: usize, row| batch.column(column).as_primitive::<TimestampMicrosecondType>().value(row);
        for row in 0..batch.num_rows() {
            if *port == Port::Side {
                late.push((time(0, row), device(batch.column(1), row), whole(batch.column(2), row)));
                continue;
            }
            let from = if case.wide_keys { 4 } else { 3 };
            let place = (time(0, row), time(1, row), device(batch.column(2), row));
            if case.wide_keys {
                assert_eq!(whole(batch.column(3), row), place.2.map(|device| i64::from(device) - 1));
            }
            let [rows, sum, first, last] = [0, 1, 2, 3].map(|at| whole(batch.column(from + at), row));
            let revision = if case.late == Late::Update { whole(batch.column(from + 4), row).unwrap() } else { 0 };
            emissions.push((place, (rows.unwrap(), sum, first, last), revision));
        }
    }
    (emissions, late)
}

fn numbers(rows: &[Row]) -> Numbers {
    let mut valued: Vec<(i64, i64)> = rows.iter().filter_map(|row| row.2.map(|value| (row.0, value))).collect();
    valued.sort_by_key(|(at, _)| *at);
    let sum = (!valued.is_empty()).then(|| valued.iter().map(|(_, value)| value).sum());
    let first = valued.first().map(|first| first.1);
    (rows.len() as i64, sum, first, valued.last().map(|last| last.1))
}

/// The naive way: every window keeps its rows.
struct Oracle {
    case: Case,
    /// Open windows: rows, and how often each was emitted, and whether rows came since.
    open: BTreeMap<Place, (Vec<Row>, i64, bool)>,
    watermarks: BTreeMap<Option<u8>, i64>,
    emissions: Vec<Emission>,
    late: Vec<Row>,
}

impl Oracle {
    fn new(case: Case) -> Self {
        Self { case, open: BTreeMap::new(), watermarks: BTreeMap::new(), emissions: Vec::new(), late: Vec::new() }
    }

    fn closed(&self, device: Option<u8>) -> i64 {
        match self.watermarks.get(&device) {
            None => i64::MIN,
            Some(&i64::MAX) => i64::MAX,
            Some(watermark) => watermark - self.case.lateness,
        }
    }

    /// The windows that a row is in, if they were all open.
    fn places(&self, row: Row) -> Vec<Place> {
        match self.case.kind {
            Kind::Grid { size, slide, offset } => (-200..200)
                .map(|k| (offset + k * slide, offset + k * slide + size, row.1))
                .filter(|(start, end, _)| *start <= row.0 && row.0 < *end)
                .collect(),
            Kind::Session { gap } => {
                let near = |place: &&Place| place.2 == row.1 && row.0 < place.1 && row.0 + gap > place.0;
                let touched = self.open.keys().filter(near).map(|place| (place.0, place.1));
                let own = (row.0, row.0 + gap);
                let (start, end) = touched.fold(own, |all, place| (all.0.min(place.0), all.1.max(place.1)));
                vec![(start, end, row.1)]
            }
        }
    }

    fn push(&mut self, row: Row) {
        let closed = self.closed(row.1);
        let places: Vec<Place> = self.places(row).into_iter().filter(|place| place.1 > closed).collect();
        if places.is_empty() {
            self.late.push(row);
        }
        for place in places {
            let mut window = (Vec::new(), 0, true);
            if matches!(self.case.kind, Kind::Session { .. }) {
                let inside = |old: &Place| old.2 == row.1 && old.0 >= place.0 && old.1 <= place.1;
                let joined: Vec<Place> = self.open.keys().filter(|old| inside(old)).copied().collect();
                for old in joined {
                    let (rows, times, _) = self.open.remove(&old).unwrap();
                    window.0.extend(rows);
                    window.1 = times.max(window.1);
                }
            } else if let Some(old) = self.open.remove(&place) {
                window = old;
            }
            window.0.push(row);
            window.2 = true;
            self.open.insert(place, window);
        }
    }

    /// Emits what is due for a group, and closes what is to be closed.
    fn settle(&mut self, device: Option<u8>) {
        let closed = self.closed(device);
        let watermark = self.watermarks.get(&device).copied().unwrap_or(i64::MIN);
        let fire = if self.case.late == Late::Update { watermark } else { closed };
        for (place, window) in self.open.iter_mut().filter(|(place, _)| place.2 == device) {
            if window.2 && place.1 <= fire {
                self.emissions.push((*place, numbers(&window.0), window.1));
                window.1 += 1;
                window.2 = false;
            }
        }
        self.open.retain(|place, _| place.2 != device || place.1 > closed);
    }

    fn tick(&mut self, device: Option<u8>, watermark: i64) {
        let known = self.watermarks.entry(device).or_insert(i64::MIN);
        *known = watermark.max(*known);
        self.settle(device);
    }
}

const DEVICES: [Option<u8>; 4] = [None, Some(0), Some(1), Some(2)];

/// The oracle over batches of rows; a watermark of the stream follows each batch.
fn oracle(case: Case, rows: &[Row], cuts: &[usize]) -> Oracle {
    let mut oracle = Oracle::new(case);
    let mut seen = i64::MIN;
    for rows in cut(rows, cuts) {
        for row in rows {
            let late = oracle.late.len();
            oracle.push(*row);
            if late == oracle.late.len() {
                match case.clock {
                    Clock::Group => oracle.tick(row.1, row.0 - case.disorder),
                    // A window behind the watermark that gets a row shows it at once.
                    Clock::Stream => oracle.settle(row.1),
                }
            }
            seen = seen.max(row.0);
        }
        if case.clock == Clock::Group {
            let minute = 60_000_000;
            let floor = ((seen - case.disorder).div_euclid(minute) - case.idle_minutes) * minute;
            DEVICES.into_iter().for_each(|device| oracle.tick(device, floor));
        } else {
            DEVICES.into_iter().for_each(|device| oracle.tick(device, seen - case.disorder));
        }
    }
    DEVICES.into_iter().for_each(|device| oracle.tick(device, i64::MAX));
    oracle
}

fn cut<'a>(rows: &'a [Row], cuts: &[usize]) -> Vec<&'a [Row]> {
    let (mut rest, mut parts) = (rows, Vec::new());
    for cut in cuts.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (part, after) = rest.split_at((*cut).min(rest.len()));
        parts.push(part);
        rest = after;
    }
    parts
}

/// A whole snapshot, as it is given back.
fn restored(parts: Vec<Part>) -> Vec<Restored> {
    parts.into_iter().map(|part| (part.name, part.rows.unwrap())).collect()
}

/// The operator over the same batches. `restart`: it is stopped after so many batches, and another goes on.
fn operator(case: Case, rows: &[Row], cuts: &[usize], restart: Option<usize>) -> Vec<(Port, RecordBatch)> {
    let mut windows = Windows::new(setup(case)).unwrap();
    let mut out = Vec::new();
    let mut seen = i64::MIN;
    for (index, rows) in cut(rows, cuts).into_iter().enumerate() {
        windows.process(batch(case, rows), &mut out).unwrap();
        seen = seen.max(rows.iter().map(|row| row.0).max().unwrap());
        windows.advance(Timestamp::from_micros(seen - case.disorder), &mut out).unwrap();
        if restart == Some(index) {
            let state = restored(windows.snapshot().unwrap());
            windows = Windows::new(setup(case)).unwrap();
            windows.restore(&state).unwrap();
        }
    }
    windows.advance(Timestamp::END, &mut out).unwrap();
    out
}

fn kinds() -> impl Strategy<Value = Kind> {
    let grid = |(size, slide, offset): (i64, i64, i64)| Kind::Grid {
        size,
        slide: slide.min(size),
        offset: offset % slide.min(size),
    };
    prop_oneof![
        (1i64..12).prop_map(|size| Kind::Grid { size, slide: size, offset: 0 }),
        (1i64..12, 1i64..12, 0i64..12).prop_map(grid),
        (1i64..8).prop_map(|gap| Kind::Session { gap }),
    ]
}

fn cases() -> impl Strategy<Value = Case> {
    let clocks = prop_oneof![Just(Clock::Stream), Just(Clock::Group)];
    let lates = prop_oneof![Just(Late::Set), Just(Late::Update)];
    // Rows are around 0, which is where a minute begins: without any idle time the floor comes to 0 there.
    let idle = prop_oneof![Just(0), Just(60)];
    (kinds(), clocks, lates, 0i64..12, 0i64..6, idle, any::<bool>()).prop_map(
        |(kind, clock, late, lateness, disorder, idle_minutes, wide_keys)| Case {
            kind,
            clock,
            late,
            lateness,
            disorder,
            idle_minutes,
            wide_keys,
        },
    )
}

/// Mostly in order, some far behind.
fn streams() -> impl Strategy<Value = Vec<Row>> {
    let device = prop_oneof![Just(None), (0u8..3).prop_map(Some)];
    let jitter = prop_oneof![4 => -3i64..3, 1 => -40i64..3];
    prop::collection::vec((0i64..3, jitter, device, prop::option::of(-50i64..50)), 1..80).prop_map(|steps| {
        let mut now = -60;
        let row = |(step, jitter, device, value): (i64, i64, Option<u8>, Option<i64>)| {
            now += step;
            (now + jitter, device, value)
        };
        steps.into_iter().map(row).collect()
    })
}

fn sorted<T: Ord>(mut items: Vec<T>) -> Vec<T> {
    items.sort();
    items
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn windows_are_those_of_the_oracle(
        case in cases(),
        rows in streams(),
        cuts in prop::collection::vec(1usize..9, 1..20),
        restart in prop::option::of(0usize..20),
    ) {
        let (emissions, late) = read(case, &operator(case, &rows, &cuts, restart));
        prop_assert_eq!(&read(case, &operator(case, &rows, &cuts, None)).0, &emissions, "a restart changes nothing");
        let oracle = oracle(case, &rows, &cuts);
        prop_assert_eq!(sorted(late), sorted(oracle.late), "late rows");
        prop_assert_eq!(sorted(emissions), sorted(oracle.emissions), "windows");
    }

    #[test]
    fn every_row_is_accepted_or_late(case in cases(), rows in streams(), cuts in prop::collection::vec(1usize..9, 1..20)) {
        let (Kind::Grid { size, .. } | Kind::Session { gap: size }) = case.kind;
        let case = Case { kind: Kind::Grid { size, slide: size, offset: 0 }, ..case };
        let (emissions, late) = read(case, &operator(case, &rows, &cuts, None));
        // The newest revision of every window counts each of its rows once.
        let newest: BTreeMap<Place, i64> = sorted(emissions.iter().map(|(place, numbers, revision)| (*place, *revision, numbers.0)).collect())
            .into_iter().map(|(place, _, rows)| (place, rows)).collect();
        prop_assert_eq!(newest.values().sum::<i64>() + late.len() as i64, rows.len() as i64);
    }

    /// Batches are cut between watermarks in any way: the same rows, in the same order.
    #[test]
    fn cuts_make_no_difference(
        case in cases(),
        rows in streams(),
        cuts in prop::collection::vec(1usize..9, 1..20),
        others in prop::collection::vec(1usize..9, 1..20),
    ) {
        // A watermark after each batch would come elsewhere when it is cut elsewhere, so there is one, at the end.
        let run = |cuts: &[usize]| {
            let mut windows = Windows::new(setup(case)).unwrap();
            let mut out = Vec::new();
            for rows in cut(&rows, cuts) {
                windows.process(batch(case, rows), &mut out).unwrap();
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
            windows.process(batch(case, &[(*at, Some(1), None)]), &mut out).unwrap();
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
    };
    let mut windows = Windows::new(setup(case)).unwrap();
    let mut out = Vec::new();
    windows
        .process(batch(case, &[(1, Some(1), Some(5)), (11, Some(1), Some(7)), (12, Some(1), Some(9))]), &mut out)
        .unwrap();
    windows.advance(Timestamp::from_micros(9), &mut out).unwrap();
    assert!(out.is_empty());
    windows.advance(Timestamp::from_micros(10), &mut out).unwrap();
    assert_eq!(read(case, &out).0, [((0, 10, Some(1)), (1, Some(5), Some(5), Some(5)), 0)]);
    out.clear();
    windows.process(batch(case, &[(9, Some(1), Some(1)), (10, Some(1), Some(1))]), &mut out).unwrap();
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
    };
    let rows = batch(case, &[(1, Some(0), None), (2, Some(1), None), (3, Some(0), None), (4, None, None)]);
    let bounded = |overflow| Setup { groups_max: 1, overflow, ..setup(case) };
    let error = Windows::new(bounded(Overflow::Stop)).unwrap().process(rows.clone(), &mut Vec::new()).unwrap_err();
    assert_eq!(error.to_string(), "more than 1 groups at once (`max_groups`)");
    let mut windows = Windows::new(bounded(Overflow::Side)).unwrap();
    let mut out = Vec::new();
    windows.process(rows, &mut out).unwrap();
    windows.advance(Timestamp::from_micros(10), &mut out).unwrap();
    // The first group's window has closed, so there is room for another.
    windows.process(batch(case, &[(11, Some(1), None)]), &mut out).unwrap();
    windows.advance(Timestamp::END, &mut out).unwrap();
    let (emissions, aside) = read(case, &out);
    assert_eq!(aside, [(2, Some(1), None), (4, None, None)]);
    let counts: Vec<_> = emissions.iter().map(|(place, numbers, _)| (*place, numbers.0)).collect();
    assert_eq!(counts, [((0, 10, Some(0)), 2), ((10, 20, Some(1)), 1)]);
}

#[test]
fn the_state_of_another_operator_is_refused() {
    let kind = Kind::Session { gap: 5 };
    let case = Case {
        kind,
        clock: Clock::Group,
        late: Late::Set,
        lateness: 0,
        disorder: 0,
        idle_minutes: 60,
        wide_keys: false,
    };
    let mut windows = Windows::new(setup(case)).unwrap();
    assert!(windows.restore(&[("all".to_owned(), batch(case, &[(1, None, None)]))]).is_err());
}
