//! What is common to the tests: rows, a window operator with aggregates over them, and what it emitted.

use std::sync::Arc;

use arrow::array::cast::AsArray;
use arrow::array::{Array, ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, TimestampMicrosecondType};
use proptest::prelude::*;
use streamgauge::flow::batch::{Batch, Keys, Space};
use streamgauge::flow::outbox::Port;
use streamgauge::flow::schema::{StreamSchema, timestamp_type};
use streamgauge::flow::time::Span;
use streamgauge::operator::aggregate::kernel;
use streamgauge::operator::window::core::{Clock, Late, Overflow, Setup};
use streamgauge::operator::window::measure::{Arg, Measure};
use streamgauge::operator::window::shape::{Grid, Shape};

/// Event time, group, value.
pub(crate) type Row = (i64, Option<u8>, Option<i64>);

/// Where a window lies, and whose it is.
pub(crate) type Place = (i64, i64, Option<u8>);

/// Count, sum, first and last of the values, in a window.
pub(crate) type Numbers = (i64, Option<i64>, Option<i64>, Option<i64>);

/// A window as it was emitted: with its revision.
pub(crate) type Emission = (Place, Numbers, i64);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Grid { size: i64, slide: i64, offset: i64 },
    Session { gap: i64 },
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Case {
    pub(crate) kind: Kind,
    pub(crate) clock: Clock,
    pub(crate) late: Late,
    pub(crate) lateness: i64,
    pub(crate) disorder: i64,
    /// How far clocks of groups may stay behind the stream's.
    pub(crate) idle_minutes: i64,
    /// Two key columns instead of one of text.
    pub(crate) wide_keys: bool,
    pub(crate) numbers: Numbering,
    /// How long groups that no window holds are remembered.
    pub(crate) forget_after: i64,
}

/// What numbers of keys batches come with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Numbering {
    None,
    /// All of one giver, who never begins anew.
    One,
    /// Of two givers in turns, who begin anew now and then; and some batches have none.
    Many,
}

pub(crate) fn schema(case: Case) -> StreamSchema {
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

pub(crate) fn batch(case: Case, rows: &[Row]) -> RecordBatch {
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

/// The same with the numbers of their keys, as the batch of this index has them.
pub(crate) fn numbered(case: Case, rows: &[Row], index: usize) -> Batch {
    let (giver, generation) = match case.numbers {
        Numbering::Many if index % 5 != 4 => (index as u64 % 2, index as u64 / 7),
        Numbering::One => (0, 0),
        Numbering::None | Numbering::Many => return batch(case, rows).into(),
    };
    // Other generations have other numbers.
    let number = |row: &Row| (row.1.map_or(0, |device| u32::from(device) + 1) + generation as u32) % 300;
    let names: &[&str] = if case.wide_keys { &["device", "site"] } else { &["device"] };
    let keys = Keys {
        columns: names.iter().map(|name| (*name).to_owned()).collect(),
        space: Space { giver, generation },
        numbers: rows.iter().map(number).collect::<Vec<u32>>().into(),
    };
    Batch::keyed(batch(case, rows), keys)
}

pub(crate) fn setup(case: Case) -> Setup {
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
            measure("spread", "stddev_pop", &whole),
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
        forget_after: Span::from_micros(case.forget_after),
    }
}

/// What was emitted at the main output, and the rows that were set aside.
pub(crate) fn read(case: Case, out: &[(Port, RecordBatch)]) -> (Vec<Emission>, Vec<Row>) {
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
            let revision = if case.late == Late::Update { whole(batch.column(from + 5), row).unwrap() } else { 0 };
            emissions.push((place, (rows.unwrap(), sum, first, last), revision));
        }
    }
    (emissions, late)
}

pub(crate) fn cut<'a>(rows: &'a [Row], cuts: &[usize]) -> Vec<&'a [Row]> {
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

pub(crate) fn kinds() -> impl Strategy<Value = Kind> {
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

pub(crate) fn cases() -> impl Strategy<Value = Case> {
    let clocks = prop_oneof![Just(Clock::Stream), Just(Clock::Group)];
    let lates = prop_oneof![Just(Late::Set), Just(Late::Update)];
    // Rows are around 0, which is where a minute begins: without any idle time the floor comes to 0 there.
    let idle = prop_oneof![Just(0), Just(60)];
    let numbers = prop_oneof![Just(Numbering::None), Just(Numbering::One), Just(Numbering::Many)];
    let forget_after = prop_oneof![Just(0), 1i64..20, Just(3_600_000_000)];
    let keys = (any::<bool>(), numbers, forget_after);
    (kinds(), clocks, lates, 0i64..12, 0i64..6, idle, keys).prop_map(
        |(kind, clock, late, lateness, disorder, idle_minutes, (wide_keys, numbers, forget_after))| Case {
            kind,
            clock,
            late,
            lateness,
            disorder,
            idle_minutes,
            wide_keys,
            numbers,
            forget_after,
        },
    )
}

/// Mostly in order, some far behind: of so many devices, and of rows without one.
pub(crate) fn streams(devices: u8) -> impl Strategy<Value = Vec<Row>> {
    let device = prop_oneof![1 => Just(None), 3 => (0..devices).prop_map(Some)];
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

pub(crate) fn sorted<T: Ord>(mut items: Vec<T>) -> Vec<T> {
    items.sort();
    items
}
