//! SQL in pipeline files: what it computes, in columns and in windows, and what is said of it where it is wrong.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, Float64Type, Schema};
use arrow::util::display::array_value_to_string;
use proptest::prelude::*;
use streamgauge::component::{Fault, Name, Node, Settings, Value};
use streamgauge::expr;
use streamgauge::flow::outbox::Port;
use streamgauge::flow::schema::{StreamSchema, timestamp_type};
use streamgauge::flow::time::Span;
use streamgauge::operator::aggregate::{Aggregate, AggregateFactory, GroupId};
use streamgauge::operator::{OPERATORS, Operator};

fn schema() -> Schema {
    Schema::new(vec![
        Field::new("ts", timestamp_type(), false),
        Field::new("temp", DataType::Float64, true),
        Field::new("site", DataType::Utf8, true),
        Field::new("device", DataType::Utf8, false),
        Field::new("n", DataType::Int64, true),
        Field::new("ok", DataType::Boolean, true),
        Field::new("Power-W.a", DataType::Float64, true),
        Field::new("order", DataType::Int64, true),
        Field::new("Case", DataType::Int64, true),
    ])
}

/// Seconds, temp, site, n, ok.
type Row = (i64, Option<f64>, Option<&'static str>, Option<i64>, Option<bool>);

const FIRST: [Row; 3] = [
    (0, Some(1.5), Some("a"), Some(7), Some(true)),
    (61, None, Some("b"), None, Some(false)),
    (3600, Some(-2.0), None, Some(0), None),
];
const SECOND: [Row; 3] = [
    (10, Some(4.0), Some("a"), Some(2), Some(true)),
    (20, Some(8.0), Some("c"), Some(5), None),
    (30, Some(0.5), Some("z"), Some(7), Some(false)),
];

fn batch(rows: &[Row]) -> RecordBatch {
    let numbers = || Arc::new((1..=rows.len() as i64).map(Some).collect::<Int64Array>());
    let times = TimestampMicrosecondArray::from_iter_values(rows.iter().map(|row| row.0 * 1_000_000));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(times.with_timezone("UTC")),
        Arc::new(rows.iter().map(|row| row.1).collect::<Float64Array>()),
        Arc::new(rows.iter().map(|row| row.2).collect::<StringArray>()),
        Arc::new(rows.iter().map(|row| Some(format!("d{}", row.0))).collect::<StringArray>()),
        Arc::new(rows.iter().map(|row| row.3).collect::<Int64Array>()),
        Arc::new(rows.iter().map(|row| row.4).collect::<BooleanArray>()),
        Arc::new(rows.iter().map(|row| row.1.map(|temp| temp * 100.0)).collect::<Float64Array>()),
        numbers(),
        numbers(),
    ];
    RecordBatch::try_new(Arc::new(schema()), columns).unwrap()
}

/// As it stands in a file, after a hundred bytes and a quote.
fn name(text: &str) -> Name {
    Name { text: text.to_owned(), at: 100..text.len() + 102, expanded: false }
}

/// What each value is as text; null is nothing.
fn shown(values: &dyn Array) -> Vec<String> {
    (0..values.len()).map(|row| array_value_to_string(values, row).unwrap()).collect()
}

#[test]
fn expressions_have_the_values_that_they_have_by_hand() {
    let (text, whole, float, truth) = (DataType::Utf8, DataType::Int64, DataType::Float64, DataType::Boolean);
    let time = timestamp_type();
    let cases: &[(&str, &DataType, [&str; 3])] = &[
        ("temp * 2 + n", &float, ["10.0", "", "-4.0"]),
        ("coalesce(temp, 0.0)", &float, ["1.5", "0.0", "-2.0"]),
        ("n / 2", &whole, ["3", "", "0"]),
        ("temp / 0", &float, ["inf", "", "-inf"]),
        ("10 / nullif(n, 0)", &whole, ["1", "", ""]),
        ("CASE WHEN n <> 0 THEN 10 / n ELSE -1 END", &whole, ["1", "-1", "-1"]),
        ("upper(site) || '-' || device", &text, ["A-d0", "B-d61", ""]),
        ("concat(site, n)", &text, ["a7", "b", "0"]),
        ("substr(device, 2)", &text, ["0", "61", "3600"]),
        ("arrow_cast(site, 'Utf8View')", &text, ["a", "b", ""]),
        ("arrow_cast(site, 'Dictionary(Int32, Utf8)')", &text, ["a", "b", ""]),
        ("CAST(n AS TEXT)", &text, ["7", "", "0"]),
        ("CAST(NULL AS DOUBLE)", &float, ["", "", ""]),
        ("TRY_CAST(site AS DOUBLE)", &float, ["", "", ""]),
        ("\"Power-W.a\" + 1", &float, ["151.0", "", "-199.0"]),
        ("order + \"order\"", &whole, ["2", "4", "6"]),
        ("Case", &whole, ["1", "2", "3"]),
        ("date_trunc('hour', ts)", &time, ["1970-01-01T00:00:00Z", "1970-01-01T00:00:00Z", "1970-01-01T01:00:00Z"]),
        (
            "date_bin(INTERVAL '1 minute', ts)",
            &time,
            ["1970-01-01T00:00:00Z", "1970-01-01T00:01:00Z", "1970-01-01T01:00:00Z"],
        ),
        (
            "arrow_cast(ts, 'Timestamp(Nanosecond, None)') + INTERVAL '1 second'",
            &time,
            ["1970-01-01T00:00:01Z", "1970-01-01T00:01:02Z", "1970-01-01T01:00:01Z"],
        ),
        ("ok AND n > 1", &truth, ["true", "false", "false"]),
        ("ok IS NULL OR ok", &truth, ["true", "false", "true"]),
        ("site IN ('a', 'x')", &truth, ["true", "false", ""]),
        ("temp BETWEEN 1 AND 2", &truth, ["true", "", "false"]),
        ("device LIKE 'd%1'", &truth, ["false", "true", "false"]),
        ("ts >= '1970-01-01T00:01:00Z'", &truth, ["false", "true", "true"]),
        ("site ~ '^[a-m]$'", &truth, ["true", "true", ""]),
    ];
    for (sql, data_type, expected) in cases {
        let scalar = expr::scalar(&name(sql), &schema()).unwrap_or_else(|fault| panic!("{sql}: {fault:?}"));
        let values = scalar.evaluate(&batch(&FIRST)).unwrap();
        assert_eq!((values.data_type(), shown(&values)), (*data_type, expected.map(str::to_owned).to_vec()), "{sql}");
        assert_eq!(&scalar.data_type, *data_type, "{sql}");
    }
}

/// The groups of the rows of both batches; group 2 has no row.
const GROUPS: [GroupId; 3] = [0, 1, 0];

struct Call {
    args: Vec<expr::Scalar>,
    filter: Option<expr::Scalar>,
    factory: Arc<dyn AggregateFactory>,
}

fn call(sql: &str) -> Call {
    let call = expr::aggregate(&name(sql), &schema()).unwrap_or_else(|fault| panic!("{sql}: {fault:?}"));
    Call { args: call.args, filter: call.filter, factory: call.adapter.unwrap() }
}

impl Call {
    fn fold(&self, into: &mut dyn Aggregate, groups: &[GroupId], rows: &RecordBatch) {
        let args: Vec<_> = self.args.iter().map(|arg| arg.evaluate(rows).unwrap()).collect();
        let keep = self.filter.as_ref().map(|filter| filter.evaluate(rows).unwrap());
        let keep = keep.map(|keep| keep.as_any().downcast_ref::<BooleanArray>().unwrap().clone());
        into.update(groups, 3, &args, keep.as_ref(), &[0; 6][..groups.len()]).unwrap();
    }

    /// All rows at once; batch by batch; the first batch by way of its partial; each by way of its own.
    fn ways(&self) -> [ArrayRef; 4] {
        let (first, second) = (batch(&FIRST), batch(&SECOND));
        let both = concat_batches(&first.schema(), [&first, &second]).unwrap();
        let mut at_once = self.factory.create().unwrap();
        self.fold(&mut *at_once, &[GROUPS, GROUPS].concat(), &both);
        let mut in_turn = self.factory.create().unwrap();
        self.fold(&mut *in_turn, &GROUPS, &first);
        let partial = in_turn.partial(3).unwrap();
        // Neither a partial nor a result changes what has been folded.
        in_turn.finish(3).unwrap();
        self.fold(&mut *in_turn, &GROUPS, &second);
        let types: Vec<_> = self.factory.partial().iter().map(|field| field.data_type().clone()).collect();
        assert_eq!(partial.iter().map(|column| column.data_type().clone()).collect::<Vec<_>>(), types);
        let mut merged = self.factory.create().unwrap();
        merged.merge(&[0, 1, 2], 3, &partial).unwrap();
        self.fold(&mut *merged, &GROUPS, &second);
        let (mut other, mut parts) = (self.factory.create().unwrap(), self.factory.create().unwrap());
        self.fold(&mut *other, &GROUPS, &second);
        parts.merge(&[0, 1, 2], 3, &partial).unwrap();
        parts.merge(&[0, 1, 2], 3, &other.partial(3).unwrap()).unwrap();
        [at_once, in_turn, merged, parts].map(|mut aggregate| aggregate.finish(3).unwrap())
    }
}

#[test]
fn aggregates_have_the_values_that_they_have_by_hand_whichever_way_rows_come() {
    let cases: &[(&str, [&str; 3])] = &[
        ("count(DISTINCT site)", ["2", "2", "0"]),
        ("approx_distinct(site)", ["2", "2", "0"]),
        ("median(temp)", ["1.0", "8.0", ""]),
        ("median(temp * 2 + n)", ["9.0", "21.0", ""]),
        ("bool_and(ok)", ["false", "false", ""]),
        ("bool_or(ok)", ["true", "false", ""]),
        ("bit_or(n)", ["7", "5", ""]),
        ("sum(DISTINCT n)", ["9", "5", ""]),
        ("covar_pop(temp, n)", ["1.5", "0.0", ""]),
        ("string_agg(site, ',' ORDER BY ts)", ["a,a,z", "c,b", ""]),
        ("string_agg(device, '+' ORDER BY ts DESC) FILTER (WHERE ok)", ["d10+d0", "", ""]),
        ("first_value(n ORDER BY ts)", ["7", "5", ""]),
        ("last_value(n ORDER BY ts)", ["0", "", ""]),
        ("first_value(arrow_cast(site, 'Utf8View') ORDER BY ts)", ["a", "c", ""]),
        ("first_value(arrow_cast(site, 'Dictionary(Int32, Utf8)') ORDER BY ts)", ["a", "c", ""]),
        (
            "first_value(date_bin(INTERVAL '1 minute', ts) ORDER BY ts DESC)",
            ["1970-01-01T01:00:00Z", "1970-01-01T00:01:00Z", ""],
        ),
        ("percentile_cont(0.5) WITHIN GROUP (ORDER BY temp)", ["1.0", "8.0", ""]),
        ("approx_percentile_cont(1.0) WITHIN GROUP (ORDER BY temp)", ["4.0", "8.0", ""]),
        ("count(DISTINCT n) FILTER (WHERE temp > 0)", ["2", "1", "0"]),
        ("count(DISTINCT n) FILTER (WHERE ok)", ["2", "0", "0"]),
        ("min(upper(site))", ["A", "B", ""]),
        ("avg(DISTINCT n)", ["3.0", "5.0", ""]),
    ];
    for (sql, expected) in cases {
        let call = call(sql);
        let mut empty = call.factory.create().unwrap();
        assert_eq!(empty.partial(0).unwrap().len(), call.factory.partial().len(), "{sql}");
        assert_eq!(empty.finish(0).unwrap().len(), 0, "{sql}");
        for (way, found) in call.ways().iter().enumerate() {
            assert_eq!(shown(found), expected, "{sql}, way {way}");
            assert_eq!(found.data_type(), &call.factory.output(), "{sql}");
            let plain = [
                DataType::Utf8,
                DataType::Int64,
                DataType::UInt64,
                DataType::Float64,
                DataType::Boolean,
                timestamp_type(),
            ];
            assert!(plain.contains(found.data_type()), "{sql}: {}", found.data_type());
        }
    }
}

#[test]
fn floating_point_aggregates_agree_up_to_rounding() {
    // Over (temp, n) = (1.5, 7), (-2, 0), (4, 2), (0.5, 7): means 1 and 4, Σxy = 6, Σxx = 18.5, Σyy = 38.
    for (sql, expected) in [("corr(temp, n)", 6.0 / 703.0_f64.sqrt()), ("regr_slope(temp, n)", 6.0 / 38.0)] {
        for found in call(sql).ways() {
            let found = arrow::array::cast::AsArray::as_primitive::<Float64Type>(&found).clone();
            assert!((found.value(0) - expected).abs() < 1e-12, "{sql}: {found:?}");
            assert!(found.is_null(2), "{sql}");
        }
    }
}

/// The words at which a fault points, and what it says.
fn told(sql: &str, fault: &Fault) -> (String, String, String) {
    assert!(fault.at.start >= 100 && fault.at.end <= name(sql).at.end, "{sql}: {fault:?}");
    let whole = fault.at == name(sql).at;
    let place = if whole { "" } else { &sql[fault.at.start - 101..fault.at.end - 101] };
    let first = fault.what.chars().next().unwrap();
    let capitals = fault.what.chars().nth(1).is_some_and(char::is_uppercase);
    assert!((!first.is_uppercase() || capitals) && !fault.what.ends_with('.'), "{sql}: {}", fault.what);
    assert!(fault.what.chars().count() < 200 && !fault.what.contains('\n'), "{sql}: {}", fault.what);
    (place.to_owned(), fault.what.clone(), fault.help.clone().unwrap_or_default())
}

const COLUMNS: &str = "there are ts, temp, site, device, n, ok, Power-W.a, order, Case";

fn check(cases: &[(&str, &str, &str, &str)], read: impl Fn(&Name) -> Option<Fault>) {
    let mut wrong = Vec::new();
    for (sql, place, what, help) in cases {
        let expected = ((*place).to_owned(), what.replace("{COLUMNS}", COLUMNS), (*help).to_owned());
        match read(&name(sql)) {
            None => wrong.push(format!("{sql}: no fault")),
            Some(fault) if told(sql, &fault) == expected => {}
            Some(fault) => wrong.push(format!("{sql}: found, expected\n  {:?}\n  {expected:?}", told(sql, &fault))),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn faults_of_expressions_point_at_the_word() {
    let differs = "differs from run to run, but the same rows must always give the same result";
    let cases: &[(&str, &str, &str, &str)] = &[
        ("tmep + 1", "tmep", "no column `tmep`; {COLUMNS}", "did you mean `temp`?"),
        ("site = 'tmep' AND tmep > 1", "tmep", "no column `tmep`; {COLUMNS}", "did you mean `temp`?"),
        ("case + 1", "case", "no column `case`; {COLUMNS}", "did you mean `Case`?"),
        ("\"case\" + 1", "\"case\"", "no column `case`; {COLUMNS}", "did you mean `Case`?"),
        ("Power-W.a", "Power", "no column `Power`", "write \"Power-W.a\" in quotes"),
        ("telemetry.temp", "telemetry", "no column `telemetry.temp`: columns stand without the name of a table", ""),
        ("uper(site)", "uper", "there is no function `uper`", "did you mean `upper`?"),
        ("upper(site, 1)", "upper", "`upper` takes 1 argument, got 2", ""),
        ("abs()", "abs", "`abs` takes at least 1 argument, got 0", ""),
        ("abs(site)", "abs", "`abs` takes Numeric, got String", ""),
        ("site + 1", "", "cannot compute Utf8 + Int64", ""),
        ("temp > 'warm'", "'warm'", "cannot cast string 'warm' to value of Float64 type", ""),
        ("CAST(site AS FOO)", "FOO", "there is no type `FOO`", ""),
        ("(temp + 1", "(", "`(` is not closed", ""),
        ("abs(temp + (1)", "(", "`(` is not closed", ""),
        ("temp + 1)", ")", "`)` closes nothing", ""),
        ("temp +", "+", "expected an expression after this, got nothing", ""),
        ("temp\n+ ) 1", ")", "`)` closes nothing", ""),
        ("temp\n+ site site", "site", "expected the end of the expression, got `site`", ""),
        ("temp, site", ",", "expected the end of the expression, got `,`", ""),
        ("'open", "'open", "unterminated string literal", ""),
        ("", "", "expected an expression in SQL, got an empty text", ""),
        (" \n", "", "expected an expression in SQL, got an empty text", ""),
        ("temp AS x", "", "an expression has no alias: it is named by its key", ""),
        ("1 + sum(n)", "sum", "`sum` gathers rows: it belongs into the aggregates of a window", ""),
        ("sum(n) OVER ()", "OVER", "OVER is not for streams: use a window operator", ""),
        ("row_number() over ()", "over", "OVER is not for streams: use a window operator", ""),
        ("n IN (SELECT 1)", "SELECT", "expected an expression, got a query: there are no tables here", ""),
        ("NULL", "", "it is always null, so it has no type; write CAST(NULL AS DOUBLE) or the like", ""),
        ("INTERVAL '1 hour'", "", "an interval is no value of a column; add it to a time", ""),
        ("1 / 0 + n", "", "divide by zero error", ""),
        ("9223372036854775807 + 1", "", "overflow happened on: 9223372036854775807 + 1", ""),
        ("site ~ '['", "", "the regular expression cannot be read: unclosed character class", ""),
        ("$1 + n", "", "a placeholder has no value here", ""),
        ("device[0]", "", "nothing here has elements: `[…]` cannot be taken", ""),
        ("ts < now()", "now", &format!("`now` {differs}"), ""),
        ("rand() < 0.5", "rand", &format!("`rand` {differs}"), ""),
        ("uuid()", "uuid", &format!("`uuid` {differs}"), ""),
        ("current_date", "current_date", &format!("`current_date` {differs}"), ""),
        ("CURRENT_TIMESTAMP", "CURRENT_TIMESTAMP", &format!("`current_timestamp` {differs}"), ""),
        ("current_time() IS NULL", "current_time", &format!("`current_time` {differs}"), ""),
        ("today()", "today", &format!("`today` {differs}"), ""),
    ];
    check(cases, |text| expr::scalar(text, &schema()).err());
    let condition = "expected a condition that is true or false, got values of type Float64";
    check(&[("temp", "", condition, "")], |text| expr::predicate(text, &schema()).err());
}

#[test]
fn faults_of_aggregates_point_at_the_word() {
    let one = "expected one aggregate function, such as `sum(x)`; what is computed from several belongs into a `derive` after the window";
    let differs = "differs from run to run, but the same rows must always give the same result";
    let cases: &[(&str, &str, &str, &str)] = &[
        ("suum(temp)", "suum", "there is no function `suum`", "did you mean `sum`?"),
        ("sum(tepm)", "tepm", "no column `tepm`; {COLUMNS}", "did you mean `temp`?"),
        ("avg(device)", "avg", "`avg` takes Decimal, Duration or Float64, got Utf8", ""),
        ("avg(ts)", "avg", "`avg` takes Decimal, Duration or Float64, got Timestamp(µs, \"UTC\")", ""),
        ("stddev(device)", "stddev", "`stddev` takes Float64, got Utf8", ""),
        ("corr(site, n)", "corr", "`corr` takes Float64, Float64, got Utf8, Int64", ""),
        ("sum(temp, n)", "sum", "`sum` takes 1 argument, got 2", ""),
        ("sum(temp", "(", "`(` is not closed", ""),
        ("temp", "", one, ""),
        ("sum(temp) / count(*)", "", one, ""),
        ("sum(sum(temp))", "sum", "`sum` gathers rows: it cannot stand within another aggregate", ""),
        ("sum(random())", "random", &format!("`random` {differs}"), ""),
        ("count(*) FILTER (WHERE ts > now())", "now", &format!("`now` {differs}"), ""),
        ("first_value(n ORDER BY uuid())", "uuid", &format!("`uuid` {differs}"), ""),
        (
            "sum(temp) FILTER (WHERE n)",
            "FILTER",
            "`FILTER`: expected a condition that is true or false, got values of type Int64",
            "",
        ),
        ("array_agg(n)", "", "a column has one value a row, got values of type List(Int64)", ""),
        ("min(NULL)", "", "it is always null, so it has no type; write CAST(NULL AS DOUBLE) or the like", ""),
        ("first(n ORDER BY ts)", "first", "`first` takes neither DISTINCT nor ORDER BY", ""),
        (
            "nth_value(n, 2 ORDER BY ts)",
            "nth_value",
            "`nth_value` with ORDER BY needs rows that come in order; use first_value or last_value",
            "",
        ),
        ("grouping(n)", "grouping", "there is no function `grouping`", ""),
        ("sum(n) OVER (ORDER BY ts)", "OVER", "OVER is not for streams: use a window operator", ""),
    ];
    check(cases, |text| expr::aggregate(text, &schema()).err());
    // What a constant may be is looked at before any row.
    for sql in ["approx_percentile_cont(1.5) WITHIN GROUP (ORDER BY temp)", "string_agg(site, device)"] {
        told(sql, &expr::aggregate(&name(sql), &schema()).err().unwrap());
    }
}

#[test]
fn what_nests_without_end_is_refused_and_nothing_overflows() {
    let many = 20_000;
    for sql in [
        format!("{}n{}", "(".repeat(many), ")".repeat(many)),
        format!("{}n{}", "abs(".repeat(100), ")".repeat(100)),
        format!("{} ok", "NOT ".repeat(many)),
        format!("{} n", "- ".repeat(many)),
        format!("n{}", " + n".repeat(many)),
        format!("n{}", "::bigint".repeat(many)),
        format!("n{}", "[0]".repeat(many)),
        format!("{} 1 {}", "CASE WHEN ok THEN".repeat(many), "END".repeat(many)),
    ] {
        let fault = expr::scalar(&name(&sql), &schema()).expect_err("it nests too deep");
        assert!(fault.what.starts_with("too long: ") || fault.what.starts_with("it nests deeper"), "{fault:?}");
        assert!(expr::aggregate(&name(&sql), &schema()).is_err());
    }
    // Up to the limit it works: 128 terms and the signs between them.
    let sql = format!("order{}", " + 1".repeat(127));
    let values = expr::scalar(&name(&sql), &schema()).unwrap().evaluate(&batch(&FIRST)).unwrap();
    assert_eq!(shown(&values), ["128", "129", "130"]);
    let many = format!("n IN ({})", (0..5_000).map(|n| n.to_string()).collect::<Vec<_>>().join(", "));
    let values = expr::predicate(&name(&many), &schema()).unwrap().evaluate(&batch(&FIRST)).unwrap();
    assert_eq!(shown(&values), ["true", "", "true"]);
}

#[test]
fn a_row_that_cannot_be_computed_is_an_error_that_names_the_expression() {
    for (sql, why) in [
        ("10 / n", "divide by zero"),
        ("10 % n", "divide by zero"),
        ("n + 9223372036854775807", "overflow"),
        ("n * 9223372036854775807", "overflow"),
        ("-9223372036854775807 - n", "overflow"),
        ("CAST(site AS BIGINT)", "cannot cast"),
    ] {
        let scalar = expr::scalar(&name(sql), &schema()).unwrap_or_else(|fault| panic!("{sql}: {fault:?}"));
        let error = scalar.evaluate(&batch(&FIRST)).expect_err(sql).to_string();
        assert!(error.contains(&format!("`{sql}`: ")) && error.to_lowercase().contains(why), "{sql}: {error}");
    }
    let argument = call("median(10 / n)");
    let error = argument.args[0].evaluate(&batch(&FIRST)).unwrap_err().to_string();
    assert!(error.contains("`median(10 / n)`: divide by zero"), "{error}");
}

fn operator(kind: &str, settings: Vec<(&str, Value)>) -> (Arc<Schema>, Box<dyn Operator>) {
    let entries = settings.into_iter().map(|(key, value)| (name(key), node(value))).collect();
    let faults = Rc::new(RefCell::new(Vec::new()));
    let mut settings = Settings::new(0..0, entries, faults.clone());
    let kind = OPERATORS.iter().find(|found| found.name == kind).unwrap();
    let spec = (kind.parse)(&mut settings).unwrap();
    assert!(faults.borrow().is_empty(), "{faults:?}");
    let input = StreamSchema { columns: Arc::new(schema()), time: 0, out_of_orderness: Span::ZERO };
    let bound = spec.bind(&input).unwrap_or_else(|faults| panic!("{faults:?}"));
    (bound.output.columns, bound.operator)
}

fn node(value: Value) -> Node {
    Node { at: 0..0, value, expanded: false }
}

fn filter(condition: &str) -> Box<dyn Operator> {
    operator("filter", vec![("where", Value::String(condition.to_owned()))]).1
}

fn derive(columns: &[(&str, &str)], drop: &[&str]) -> (Arc<Schema>, Box<dyn Operator>) {
    let text = |text: &str| node(Value::String(text.to_owned()));
    let columns = columns.iter().map(|(column, sql)| (name(column), text(sql))).collect();
    let drop = drop.iter().map(|column| text(column)).collect();
    operator("derive", vec![("columns", Value::Table(columns)), ("drop", Value::Array(drop))])
}

fn run(operator: &mut dyn Operator, batch: RecordBatch) -> Option<RecordBatch> {
    let mut out: Vec<(Port, RecordBatch)> = Vec::new();
    operator.process(batch.into(), &mut out).unwrap();
    assert!(out.len() <= 1);
    out.pop().map(|(_, batch)| batch)
}

#[test]
fn filter_keeps_rows_for_which_the_condition_is_true_and_not_null() {
    for (condition, kept) in [
        ("ok", vec!["d0"]),
        ("NOT ok", vec!["d61"]),
        ("temp IS NULL OR temp < 0", vec!["d61", "d3600"]),
        ("true", vec!["d0", "d61", "d3600"]),
        ("n > 7", vec![]),
        ("n = NULL", vec![]),
    ] {
        let out = run(&mut *filter(condition), batch(&FIRST));
        let devices = out.map(|out| shown(out.column_by_name("device").unwrap())).unwrap_or_default();
        assert_eq!(devices, kept, "{condition}");
    }
}

#[test]
fn derive_reads_the_columns_of_the_input_and_replaces_in_place() {
    // `n` is replaced, yet `twice` is computed from what it was.
    let columns = [("n", "n + 1"), ("twice", "n * 2"), ("hour", "date_trunc('hour', ts)"), ("Up", "upper(site)")];
    let (schema, mut operator) = derive(&columns, &["temp", "order"]);
    let out = run(&mut *operator, batch(&FIRST)).unwrap();
    let names: Vec<_> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    assert_eq!(names, ["ts", "site", "device", "n", "ok", "Power-W.a", "Case", "twice", "hour", "Up"]);
    assert_eq!(out.schema(), schema);
    assert_eq!(schema.field_with_name("hour").unwrap().data_type(), &timestamp_type());
    assert_eq!(schema.field_with_name("Up").unwrap().data_type(), &DataType::Utf8);
    assert_eq!(shown(out.column_by_name("n").unwrap()), ["8", "", "1"]);
    assert_eq!(shown(out.column_by_name("twice").unwrap()), ["14", "", "0"]);
    assert_eq!(shown(out.column_by_name("Up").unwrap()), ["A", "B", ""]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn filter_and_derive_do_not_depend_on_how_rows_are_cut(
        rows in prop::collection::vec((
            0_i64..10_000,
            prop::option::of(-10.0..10.0_f64),
            prop::option::of(prop::sample::select(vec!["a", "b", "", "ß"])),
            prop::option::of(-3_i64..4),
            prop::option::of(any::<bool>()),
        ), 1..40),
        cuts in prop::collection::vec(1_usize..9, 1..9),
    ) {
        let mut keeps = filter("n IS NULL OR (ok AND temp < 5) OR upper(site) = 'A'");
        let columns = [("x", "temp / n + length(site)"), ("s", "CASE WHEN n <> 0 THEN 6 / n END"), ("u", "upper(site)")];
        let (schema, mut computes) = derive(&columns, &[]);
        let mut through = |batch: RecordBatch| run(&mut *keeps, batch).and_then(|kept| run(&mut *computes, kept));
        let all = batch(&rows);
        let whole: Vec<RecordBatch> = through(all.clone()).into_iter().collect();
        let (mut parts, mut at, mut step) = (Vec::new(), 0, 0);
        while at < rows.len() {
            let len = cuts[step % cuts.len()].min(rows.len() - at);
            parts.extend(through(all.slice(at, len)));
            (at, step) = (at + len, step + 1);
        }
        prop_assert_eq!(concat_batches(&schema, &parts).unwrap(), concat_batches(&schema, &whole).unwrap());
    }
}
