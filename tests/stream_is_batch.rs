//! For complete windows, a stream gives the answer that DataFusion's batch SQL gives over the same rows: every aggregate of
//! ours under the same name, and those that go through the adapter.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use arrow::array::cast::AsArray;
use arrow::array::types::{Float64Type, Int64Type, TimestampMicrosecondType};
use arrow::array::{
    Array, ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema};
use datafusion::prelude::SessionContext;
use proptest::prelude::*;
use streamgauge::component::Settings;
use streamgauge::flow::outbox::Port;
use streamgauge::flow::schema::{StreamSchema, timestamp_type};
use streamgauge::flow::time::{Span, Timestamp};
use streamgauge::operator::window;
use streamgauge::pipeline::file;

/// Name, SQL of ours, SQL of DataFusion.
const AGGREGATES: &[(&str, &str, &str)] = &[
    ("a_rows", "count(*)", "count(*)"),
    ("b_values", "count(x)", "count(x)"),
    ("c_sum", "sum(x)", "sum(x)"),
    ("d_sum_int", "sum(n)", "sum(n)"),
    ("e_avg", "avg(x)", "avg(x)"),
    ("f_min", "min(x)", "min(x)"),
    ("g_max", "max(n)", "max(n)"),
    ("h_stddev", "stddev(x)", "stddev(x)"),
    ("i_var_pop", "var_pop(x)", "var_pop(x)"),
    ("j_kept", "sum(x * n) FILTER (WHERE ok)", "sum(x * n) FILTER (WHERE ok)"),
    ("k_first", "first(n)", "first_value(n ORDER BY ts, seq)"),
    ("l_last", "last(n)", "last_value(n ORDER BY ts, seq)"),
    ("m_median", "median(x)", "median(x)"),
    ("n_all_ok", "bool_and(ok)", "bool_and(ok)"),
    ("o_corr", "corr(x, n)", "corr(x, n)"),
    ("p_distinct", "count(DISTINCT n)", "count(DISTINCT n)"),
    ("q_approx", "approx_distinct(n)", "approx_distinct(n)"),
    ("r_text", "max(device)", "max(device)"),
];

#[derive(Clone, Debug)]
struct Row {
    ts: i64,
    device: u8,
    x: Option<i32>,
    n: i64,
    ok: Option<bool>,
}

fn schema() -> StreamSchema {
    let columns = Schema::new(vec![
        Field::new("ts", timestamp_type(), false),
        Field::new("seq", DataType::Int64, false),
        Field::new("device", DataType::Utf8, false),
        Field::new("x", DataType::Float64, true),
        Field::new("n", DataType::Int64, true),
        Field::new("ok", DataType::Boolean, true),
    ]);
    StreamSchema { columns: Arc::new(columns), time: 0, out_of_orderness: Span::ZERO }
}

fn batch(rows: &[Row], from: i64) -> RecordBatch {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(TimestampMicrosecondArray::from_iter_values(rows.iter().map(|row| row.ts)).with_timezone("UTC")),
        Arc::new(Int64Array::from_iter_values((from..).take(rows.len()))),
        Arc::new(StringArray::from_iter_values(rows.iter().map(|row| format!("d{}", row.device)))),
        Arc::new(Float64Array::from_iter(rows.iter().map(|row| row.x.map(|x| f64::from(x) / 8.0)))),
        Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.n))),
        Arc::new(BooleanArray::from_iter(rows.iter().map(|row| row.ok))),
    ];
    RecordBatch::try_new(schema().columns, columns).unwrap()
}

/// Window start and device, to the aggregates as text or number.
type Answer = BTreeMap<(i64, String), Vec<Option<Cell>>>;

#[derive(Clone, Debug)]
enum Cell {
    Number(f64),
    Text(String),
}

fn cells(columns: &[ArrayRef], row: usize) -> Vec<Option<Cell>> {
    let cell = |column: &ArrayRef| {
        if column.is_null(row) {
            return None;
        }
        let number = cast(column, &DataType::Float64).ok().filter(|_| !matches!(column.data_type(), DataType::Utf8));
        Some(match number {
            Some(number) => Cell::Number(number.as_primitive::<Float64Type>().value(row)),
            None => Cell::Text(cast(column, &DataType::Utf8).unwrap().as_string::<i32>().value(row).to_owned()),
        })
    };
    columns.iter().map(cell).collect()
}

fn stream(rows: &[Row], cuts: &[usize], size: i64, every: i64) -> Answer {
    let shape = if size == every {
        format!("{{ tumbling = \"{size}us\" }}")
    } else {
        format!("{{ hopping = \"{size}us\", every = \"{every}us\" }}")
    };
    let mut text = format!("window = {shape}\ngroup_by = [\"device\"]\n[aggregates]\n");
    for (name, ours, _) in AGGREGATES {
        text += &format!("{name} = \"{ours}\"\n");
    }
    let (entries, faults) = file::parse(&text);
    assert_eq!(faults, []);
    let faults = Rc::new(RefCell::new(Vec::new()));
    let mut settings = Settings::new(0..text.len(), entries, faults.clone());
    let spec = (window::KIND.parse)(&mut settings).unwrap_or_else(|| panic!("{:?}", faults.borrow()));
    let mut bound = spec.bind(&schema()).unwrap_or_else(|faults| panic!("{faults:?}"));
    let mut out: Vec<(Port, RecordBatch)> = Vec::new();
    let (mut at, mut cut) = (0, 0);
    while at < rows.len() {
        let next = (at + cuts[cut % cuts.len()]).min(rows.len());
        bound.operator.process(batch(&rows[at..next], at as i64).into(), &mut out).unwrap();
        (at, cut) = (next, cut + 1);
    }
    bound.operator.advance(Timestamp::END, &mut out).unwrap();
    let mut answer = Answer::new();
    for (port, batch) in out {
        assert_eq!(port, Port::Main, "no row is late");
        let starts = batch.column_by_name("window_start").unwrap().as_primitive::<TimestampMicrosecondType>().clone();
        let devices = batch.column_by_name("device").unwrap().as_string::<i32>().clone();
        let columns: Vec<ArrayRef> =
            AGGREGATES.iter().map(|(name, ..)| batch.column_by_name(name).unwrap().clone()).collect();
        for row in 0..batch.num_rows() {
            let key = (starts.value(row), devices.value(row).to_owned());
            assert!(answer.insert(key, cells(&columns, row)).is_none(), "a window came twice");
        }
    }
    answer
}

/// Each row once for each of its windows, with that window's start: then it is a plain GROUP BY.
fn batch_sql(rows: &[Row], size: i64, every: i64) -> Answer {
    let mut expanded = Vec::new();
    for (seq, row) in rows.iter().enumerate() {
        let last = row.ts.div_euclid(every) * every;
        let starts = (0..).map(|back| last - back * every).take_while(|start| start + size > row.ts);
        expanded.extend(starts.map(|start| (start, seq as i64, row.clone())));
    }
    let batches: Vec<RecordBatch> = expanded
        .iter()
        .map(|(start, seq, row)| {
            let batch = batch(std::slice::from_ref(row), *seq);
            let mut fields: Vec<Field> = batch.schema().fields().iter().map(|field| Field::clone(field)).collect();
            fields.push(Field::new("w", DataType::Int64, false));
            let mut columns = batch.columns().to_vec();
            columns.push(Arc::new(Int64Array::from(vec![*start])));
            RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
        })
        .collect();
    let sql: Vec<String> = AGGREGATES.iter().map(|(name, _, theirs)| format!("{theirs} AS {name}")).collect();
    let sql = format!("SELECT w, device, {} FROM t GROUP BY w, device", sql.join(", "));
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let results = runtime.block_on(async {
        let context = SessionContext::new();
        let schema = batches[0].schema();
        let one = arrow::compute::concat_batches(&schema, &batches).unwrap();
        context.register_batch("t", one).unwrap();
        context.sql(&sql).await.unwrap().collect().await.unwrap()
    });
    let mut answer = Answer::new();
    for batch in results {
        let starts = batch.column(0).as_primitive::<Int64Type>().clone();
        let devices = cast(batch.column(1), &DataType::Utf8).unwrap();
        for row in 0..batch.num_rows() {
            let key = (starts.value(row), devices.as_string::<i32>().value(row).to_owned());
            answer.insert(key, cells(&batch.columns()[2..], row));
        }
    }
    answer
}

fn same(a: &Option<Cell>, b: &Option<Cell>) -> bool {
    match (a, b) {
        (Some(Cell::Number(a)), Some(Cell::Number(b))) => {
            (a - b).abs() <= 1e-9 * a.abs().max(b.abs()).max(1.0) || (a.is_nan() && b.is_nan())
        }
        (Some(Cell::Text(a)), Some(Cell::Text(b))) => a == b,
        (None, None) => true,
        // A correlation of constant values has no value: NaN here, null there, as the order of floats has it.
        (None, Some(Cell::Number(x))) | (Some(Cell::Number(x)), None) => x.is_nan(),
        _ => false,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn complete_windows_equal_batch_sql(
        mut rows in prop::collection::vec(
            (-60_i64..60, 0_u8..3, prop::option::of(-80_i32..80), -9_i64..9, prop::option::of(any::<bool>()))
                .prop_map(|(ts, device, x, n, ok)| Row { ts, device, x, n, ok }),
            1..50,
        ),
        cuts in prop::collection::vec(1_usize..9, 1..9),
        (size, every) in (1_i64..30, 1_i64..30).prop_map(|(a, b)| (a.max(b), a.min(b))),
        tumbling in any::<bool>(),
    ) {
        // The stream sees them in any order: no watermark passes before the end.
        let every = if tumbling { size } else { every };
        rows.sort_by_key(|row| row.n);
        let (ours, theirs) = (stream(&rows, &cuts, size, every), batch_sql(&rows, size, every));
        prop_assert_eq!(ours.keys().collect::<Vec<_>>(), theirs.keys().collect::<Vec<_>>());
        for (key, ours) in &ours {
            for (((name, ..), a), b) in AGGREGATES.iter().zip(ours).zip(&theirs[key]) {
                prop_assert!(same(a, b), "{} of {:?}: stream {:?}, batch {:?}", name, key, a, b);
            }
        }
    }
}
