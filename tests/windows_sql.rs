//! The window operator from the text of a pipeline file: SQL arguments, FILTER clauses, functions through the adapter.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use arrow::array::cast::AsArray;
use arrow::array::{ArrayRef, Float64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Float64Type, Int64Type, Schema, TimestampMicrosecondType};
use streamgauge::component::{Fault, Settings};
use streamgauge::flow::outbox::Port;
use streamgauge::flow::schema::{StreamSchema, timestamp_type};
use streamgauge::flow::state::{Part, Restored};
use streamgauge::flow::time::{Span, Timestamp};
use streamgauge::operator::Bound;
use streamgauge::operator::window::KIND;
use streamgauge::pipeline::file::parse;

fn input() -> StreamSchema {
    let columns = Schema::new(vec![
        Field::new("ts", timestamp_type(), false),
        Field::new("device", DataType::Utf8, false),
        Field::new("temp", DataType::Float64, true),
    ]);
    StreamSchema { columns: Arc::new(columns), time: 0, out_of_orderness: Span::ZERO }
}

fn bind(text: &str) -> Result<Bound, Vec<Fault>> {
    let (entries, faults) = parse(text);
    assert_eq!(faults, []);
    let faults = Rc::new(RefCell::new(Vec::new()));
    let mut settings = Settings::new(0..text.len(), entries, faults.clone());
    let spec = (KIND.parse)(&mut settings);
    settings.finish();
    assert_eq!(*faults.borrow(), []);
    spec.expect("no fault").bind(&input())
}

/// Seconds, devices, temperatures.
fn batch(rows: &[(i64, &str, Option<f64>)]) -> RecordBatch {
    let times = TimestampMicrosecondArray::from_iter_values(rows.iter().map(|row| row.0 * 1_000_000));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(times.with_data_type(timestamp_type())),
        Arc::new(StringArray::from_iter_values(rows.iter().map(|row| row.1))),
        Arc::new(rows.iter().map(|row| row.2).collect::<Float64Array>()),
    ];
    RecordBatch::try_new(input().columns, columns).unwrap()
}

#[test]
fn aggregates_of_every_sort_work_side_by_side() {
    let text = r#"
window = { hopping = "20s", every = "10s" }
group_by = ["device"]
[aggregates]
rows = "count(*)"
warm = "count(temp) FILTER (WHERE temp > 10)"
doubled = "sum(temp * 2)"
middle = "quantile(temp, 0.5)"
newest = "last(temp)"
median = "median(temp)"
different = "count(DISTINCT temp)"
"#;
    let mut bound = bind(text).unwrap_or_else(|faults| panic!("{faults:?}"));
    let names: Vec<&str> = bound.output.names().collect();
    let aggregates = ["rows", "warm", "doubled", "middle", "newest", "median", "different"];
    assert_eq!(names, [&["window_start", "window_end", "device"][..], &aggregates].concat());
    let rows =
        [(1, "a", Some(8.0)), (4, "a", Some(16.0)), (12, "a", Some(16.0)), (13, "a", None), (25, "b", Some(1.0))];
    let mut out = Vec::new();
    bound.operator.process(batch(&rows[..3]).into(), &mut out).unwrap();
    bound.operator.process(batch(&rows[3..]).into(), &mut out).unwrap();
    bound.operator.advance(Timestamp::END, &mut out).unwrap();
    let all = arrow::compute::concat_batches(&bound.output.columns, out.iter().map(|(_, batch)| batch)).unwrap();
    assert!(out.iter().all(|(port, _)| *port == Port::Main));
    let ends = all.column(1).as_primitive::<TimestampMicrosecondType>().values().iter().map(|end| end / 1_000_000);
    assert_eq!(ends.collect::<Vec<_>>(), [10, 20, 30, 30, 40]);
    assert_eq!(all.column(2).as_string::<i32>().iter().flatten().collect::<Vec<_>>(), ["a", "a", "a", "b", "b"]);
    let whole = |column: usize| all.column(column).as_primitive::<Int64Type>().values().to_vec();
    let float = |column: usize| all.column(column).as_primitive::<Float64Type>().values().to_vec();
    assert_eq!(whole(3), [2, 4, 2, 1, 1]);
    assert_eq!(whole(4), [1, 2, 1, 0, 0]);
    assert_eq!(float(5), [48.0, 80.0, 32.0, 2.0, 2.0]);
    // Within one percent.
    for (got, want) in float(6).into_iter().zip([8.0, 16.0, 16.0, 1.0, 1.0]) {
        assert!((got / want - 1.0_f64).abs() < 0.0101, "{got} for {want}");
    }
    assert_eq!(float(7), [16.0, 16.0, 16.0, 1.0, 1.0]);
    assert_eq!(float(8), [12.0, 16.0, 16.0, 1.0, 1.0]);
    assert_eq!(whole(9), [2, 2, 1, 1, 1]);
}

/// The operator over rows one by one, in seconds; with a snapshot after each of them and a restart after every fourth, or
/// without.
fn run(text: &str, rows: &[(i64, &str, Option<f64>)], restarts: bool) -> Vec<(Port, RecordBatch)> {
    let mut operator = bind(text).unwrap_or_else(|faults| panic!("{faults:?}")).operator;
    let mut store: Vec<Restored> = Vec::new();
    let mut out = Vec::new();
    for (index, row) in rows.iter().enumerate() {
        operator.process(batch(&[*row]).into(), &mut out).unwrap();
        operator.advance(Timestamp::from_micros(row.0 * 1_000_000 - 5_000_000), &mut out).unwrap();
        if restarts {
            // Parts that have not changed are those of the snapshot before.
            let known: HashMap<String, RecordBatch> = store.drain(..).collect();
            let kept = |part: Part| (part.name.clone(), part.rows.unwrap_or_else(|| known[&part.name].clone()));
            store.extend(operator.snapshot().unwrap().into_iter().map(kept));
            if index % 4 == 3 {
                operator = bind(text).unwrap().operator;
                operator.restore(&store).unwrap();
            }
        }
    }
    operator.advance(Timestamp::END, &mut out).unwrap();
    out
}

#[test]
fn every_aggregate_is_the_same_to_the_last_bit_after_restarts() {
    let rows: Vec<(i64, &str, Option<f64>)> = (0..100)
        .map(|n: i32| {
            // A third as a float has no end; some rows are late, and each seventh has no value.
            let value = (n % 7 > 0).then(|| f64::from(n * 37 % 101) / 3.0 - 9.0);
            (i64::from(n / 5 - n * 13 % 6), ["a", "b", "c", "d"][(n * 7 % 4) as usize], value)
        })
        .collect();
    let windows = [
        "{ tumbling = \"10s\" }",
        "{ hopping = \"20s\", every = \"10s\" }",
        "{ hopping = \"20s\", every = \"2s\" }",
        "{ tumbling = \"1d\", timezone = \"Europe/Berlin\" }",
        "{ session = \"2s\" }",
    ];
    for window in windows {
        for more in ["", "late = \"update\"\nallowed_lateness = \"4s\"\n", "clock = \"group\"\nlate = \"update\"\n"] {
            let text = format!(
                r#"
window = {window}
group_by = ["device"]
{more}
[aggregates]
rows = "count(*)"
sum = "sum(temp)"
mean = "avg(temp) FILTER (WHERE temp > 0)"
low = "min(temp)"
first = "first(temp)"
last = "last(temp)"
spread = "stddev(temp)"
middle = "quantile(temp, 0.5)"
median = "median(temp)"
different = "count(DISTINCT temp)"
related = "corr(temp, temp * temp)"
"#
            );
            let out = run(&text, &rows, true);
            assert!(out.iter().any(|(port, _)| *port == Port::Main));
            assert_eq!(out, run(&text, &rows, false), "{window} {more}");
        }
    }
}

#[test]
fn state_of_adapted_functions_survives_a_restart() {
    let text = "window = { session = \"10s\" }\n[aggregates]\nmedian = \"median(temp)\"\nspread = \"stddev(temp)\"\n";
    let mut first = bind(text).unwrap();
    let mut out = Vec::new();
    first.operator.process(batch(&[(1, "a", Some(1.0)), (2, "b", Some(5.0))]).into(), &mut out).unwrap();
    let state = restored(first.operator.snapshot().unwrap());
    let mut second = bind(text).unwrap();
    second.operator.restore(&state).unwrap();
    second.operator.process(batch(&[(3, "a", Some(3.0))]).into(), &mut out).unwrap();
    second.operator.advance(Timestamp::END, &mut out).unwrap();
    assert_eq!(out.len(), 1);
    let value = |column: usize| out[0].1.column(column).as_primitive::<Float64Type>().value(0);
    assert_eq!((value(2), value(3)), (3.0, 2.0));
}

#[test]
fn aggregates_that_make_no_sense_are_faults() {
    for wrong in ["quantile(temp, 2.0)", "quantile(device, 0.5)", "temp", "no_such(temp)", "sum(tmp)"] {
        let text = format!("window = {{ tumbling = \"10s\" }}\n[aggregates]\nx = \"{wrong}\"\n");
        let Err(faults) = bind(&text) else { panic!("{wrong} binds") };
        assert_eq!(faults.len(), 1, "{wrong}: {faults:?}");
        let at = text.find(wrong).unwrap();
        assert!(faults[0].at.start + 1 >= at && faults[0].at.end <= at + wrong.len() + 1, "{wrong}: {faults:?}");
    }
}

/// A whole snapshot, as it is given back.
fn restored(parts: Vec<Part>) -> Vec<Restored> {
    parts.into_iter().map(|part| (part.name, part.rows.unwrap())).collect()
}
