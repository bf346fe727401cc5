//! The law of every kernel, and values worked out by hand.

use std::sync::Arc;

use arrow::array::cast::AsArray;
use arrow::array::{
    Array, ArrayRef, BooleanArray, Float64Array, Int32Array, Int64Array, StringArray, TimestampMicrosecondArray,
    UInt8Array, UInt32Array,
};
use arrow::compute::take;
use arrow::datatypes::{DataType, Float64Type, Int64Type, UInt64Type};
use proptest::prelude::*;

use super::*;

fn make(function: &str, args: &[ArrayRef], p: Option<f64>) -> Arc<dyn AggregateFactory> {
    let mut types: Vec<_> = args.iter().map(|arg| arg.data_type().clone()).collect();
    if p.is_some() {
        types.push(DataType::Float64);
    }
    kernel(function, &types, p).unwrap().unwrap_or_else(|| panic!("no kernel for {function} of {types:?}"))
}

/// One group, one batch.
fn fold(function: &str, args: &[ArrayRef], p: Option<f64>) -> ArrayRef {
    let factory = make(function, args, p);
    let mut aggregate = factory.create().unwrap();
    let len = args.first().map_or(3, |arg| arg.len());
    let times: Vec<i64> = (0..).take(len).collect();
    aggregate.update(&vec![0; len], 1, args, None, &times).unwrap();
    let result = aggregate.finish(1).unwrap();
    assert_eq!(*result.data_type(), factory.output(), "{function}");
    result
}

fn float(function: &str, values: Vec<Option<f64>>) -> Option<f64> {
    let result = fold(function, &[Arc::new(Float64Array::from(values)) as ArrayRef], None);
    let result = result.as_primitive::<Float64Type>();
    result.is_valid(0).then(|| result.value(0))
}

#[test]
fn nulls_are_no_values() {
    let some = vec![None, Some(1.0), Some(3.0), None];
    let values = [("sum", 4.0), ("avg", 2.0), ("min", 1.0), ("max", 3.0), ("first", 1.0), ("last", 3.0)];
    let spread = [("var", 2.0), ("var_pop", 1.0), ("stddev_pop", 1.0), ("stddev", std::f64::consts::SQRT_2)];
    for (function, value) in values.into_iter().chain(spread) {
        assert_eq!(float(function, some.clone()), Some(value), "{function}");
        assert_eq!(float(function, vec![None, None]), None, "{function} of nulls");
        assert_eq!(float(function, vec![]), None, "{function} of no rows");
    }
    assert_eq!(float("var", vec![Some(1.0)]), None);
    assert_eq!(float("var_pop", vec![Some(1.0)]), Some(0.0));
    let column: ArrayRef = Arc::new(Float64Array::from(some));
    let count = |args: &[ArrayRef]| fold("count", args, None).as_primitive::<Int64Type>().value(0);
    assert_eq!((count(std::slice::from_ref(&column)), count(&[])), (2, 3));
    assert!(fold("quantile", &[Arc::new(Float64Array::from(vec![None, None]))], Some(0.5)).is_null(0));
}

#[test]
fn nan_is_the_greatest_value_and_spoils_sums() {
    for nan in [f64::NAN, -f64::NAN] {
        let values = vec![Some(1.0), Some(nan), Some(f64::INFINITY), Some(-2.0)];
        for function in ["sum", "avg", "max", "var", "stddev_pop"] {
            assert!(float(function, values.clone()).unwrap().is_nan(), "{function}");
        }
        assert_eq!(float("min", values), Some(-2.0));
        assert!(float("min", vec![Some(nan)]).unwrap().is_nan());
    }
    let values: ArrayRef = Arc::new(Float64Array::from(vec![1.0, f64::NAN, 2.0]));
    let quantile = |p| fold("quantile", std::slice::from_ref(&values), Some(p)).as_primitive::<Float64Type>().value(0);
    assert_eq!(quantile(0.0), 1.0);
    assert_eq!(quantile(0.5), 2.0);
    assert!(quantile(1.0).is_nan());
}

#[test]
fn whole_numbers_are_exact() {
    let big: ArrayRef = Arc::new(Int64Array::from(vec![i64::MAX, 1, -1]));
    assert_eq!(fold("sum", &[big], None).as_primitive::<Int64Type>().value(0), i64::MAX);
    let small: ArrayRef = Arc::new(UInt8Array::from(vec![255, 255]));
    assert_eq!(fold("sum", std::slice::from_ref(&small), None).as_primitive::<UInt64Type>().value(0), 510);
    assert_eq!(fold("avg", &[small], None).as_primitive::<Float64Type>().value(0), 255.0);
    let over: ArrayRef = Arc::new(Int64Array::from(vec![i64::MAX, 1]));
    let mut sum = make("sum", std::slice::from_ref(&over), None).create().unwrap();
    sum.update(&[0, 0], 1, &[over], None, &[0, 0]).unwrap();
    assert!(sum.finish(1).is_err());
}

#[test]
fn spread_does_not_cancel() {
    // 1e9 + {4, 7, 13, 16}: mean 1e9 + 10, squares 36 + 9 + 9 + 36 = 90.
    let values = [4.0, 7.0, 13.0, 16.0].map(|value| Some(1e9 + value)).to_vec();
    assert_eq!(float("var", values.clone()), Some(30.0));
    assert_eq!(float("var_pop", values), Some(22.5));
}

#[test]
fn first_and_last_go_by_time_and_then_by_arrival() {
    let values: ArrayRef = Arc::new(StringArray::from(vec![Some("a"), Some("b"), Some("c"), Some("d"), None]));
    for (function, expected) in [("first", "b"), ("last", "d")] {
        let mut aggregate = make(function, std::slice::from_ref(&values), None).create().unwrap();
        aggregate.update(&[0; 5], 1, std::slice::from_ref(&values), None, &[5, 2, 2, 5, 9]).unwrap();
        assert_eq!(aggregate.finish(1).unwrap().as_string::<i32>().value(0), expected, "{function}");
    }
}

#[test]
fn other_types_have_extremes() {
    let text: ArrayRef = Arc::new(StringArray::from(vec![Some("b"), None, Some("a"), Some("ab")]));
    assert_eq!(fold("min", std::slice::from_ref(&text), None).as_string::<i32>().value(0), "a");
    assert_eq!(fold("max", &[text], None).as_string::<i32>().value(0), "b");
    let truth: ArrayRef = Arc::new(BooleanArray::from(vec![false, true]));
    assert!(fold("max", &[truth], None).as_boolean().value(0));
    let time: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![3, -1]).with_timezone("UTC"));
    assert_eq!(fold("min", std::slice::from_ref(&time), None).data_type(), time.data_type());
}

#[test]
fn wrong_arguments_say_why() {
    let float = DataType::Float64;
    assert!(kernel("quantile", &[float.clone(), float.clone()], None).is_err());
    assert!(kernel("quantile", &[float.clone(), float.clone()], Some(1.5)).is_err());
    assert!(kernel("quantile", &[DataType::Utf8, float.clone()], Some(0.5)).is_err());
    assert!(kernel("first", &[], None).is_err());
    assert!(kernel("median", &[float], None).is_ok_and(|kernel| kernel.is_none()));
}

#[test]
fn a_filter_lets_rows_through() {
    let values: ArrayRef = Arc::new(Int32Array::from(vec![1, 2, 4, 8]));
    let keep = BooleanArray::from(vec![Some(true), None, Some(false), Some(true)]);
    let mut sum = make("sum", std::slice::from_ref(&values), None).create().unwrap();
    sum.update(&[0, 0, 1, 1], 2, &[values], Some(&keep), &[0; 4]).unwrap();
    assert_eq!(sum.finish(2).unwrap().as_primitive::<Int64Type>().values(), &[1, 8]);
}

/// Every kernel, by name, over numbers.
const ALL: [(&str, Option<f64>); 18] = [
    ("count", None),
    ("sum", None),
    ("avg", None),
    ("min", None),
    ("max", None),
    ("first", None),
    ("last", None),
    ("var", None),
    ("var_pop", None),
    ("stddev", None),
    ("stddev_pop", None),
    ("quantile", Some(0.0)),
    ("quantile", Some(0.5)),
    ("quantile", Some(0.99)),
    ("quantile_exact", Some(0.3)),
    ("fsum", None),
    ("increase", None),
    ("resets", None),
];

fn near(a: &ArrayRef, b: &ArrayRef) -> bool {
    match a.data_type() {
        DataType::Float64 => {
            let pairs = a.as_primitive::<Float64Type>().iter().zip(b.as_primitive::<Float64Type>());
            a.len() == b.len()
                && pairs.into_iter().all(|pair| match pair {
                    (Some(a), Some(b)) => (a - b).abs() <= 1e-6 * a.abs().max(b.abs()).max(1.0),
                    (a, b) => a.is_none() && b.is_none(),
                })
        }
        _ => a == b,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn merging_partials_is_folding_all(
        rows in prop::collection::vec((0u32..4, prop::option::of(-1000i32..1000), any::<bool>(), -9i64..9), 0..60),
        cut in 0usize..60,
        whole in any::<bool>(),
    ) {
        let cut = cut.min(rows.len());
        let groups: Vec<u32> = rows.iter().map(|row| row.0).collect();
        let values: ArrayRef = if whole {
            Arc::new(rows.iter().map(|row| row.1).collect::<Int32Array>())
        } else {
            Arc::new(rows.iter().map(|row| row.1.map(|value| f64::from(value) / 8.0)).collect::<Float64Array>())
        };
        let keep: BooleanArray = rows.iter().map(|row| Some(row.2)).collect();
        let times: Vec<i64> = rows.iter().map(|row| row.3).collect();
        for (function, p) in ALL {
            let factory = make(function, std::slice::from_ref(&values), p);
            let folded = |from: usize, to: usize| {
                let mut aggregate = factory.create().unwrap();
                let (args, keep) = (values.slice(from, to - from), keep.slice(from, to - from));
                aggregate.update(&groups[from..to], 4, &[args], Some(&keep), &times[from..to]).unwrap();
                aggregate
            };
            let mut all = folded(0, rows.len());
            // Groups of the second part in the opposite order, as another pane would have them.
            let (mut first, mut second) = (folded(0, cut), folded(cut, rows.len()));
            let turned = UInt32Array::from(vec![3, 2, 1, 0]);
            let partial: Vec<ArrayRef> =
                second.partial(4).unwrap().iter().map(|column| take(column, &turned, None).unwrap()).collect();
            for (column, field) in partial.iter().zip(factory.partial()) {
                prop_assert_eq!(column.data_type(), field.data_type());
            }
            first.merge(&[3, 2, 1, 0], 4, &partial).unwrap();
            let (got, want) = (first.finish(4).unwrap(), all.finish(4).unwrap());
            prop_assert!(near(&got, &want), "{} {:?} {:?}", function, got, want);
            // A partial leaves the state as it is.
            prop_assert!(near(&all.finish(4).unwrap(), &want));
        }
    }

    #[test]
    fn quantiles_are_within_one_percent(
        mut values in prop::collection::vec(prop_oneof![-1e6f64..1e6, Just(0.0), -1.0f64..1.0, 1e-6f64..1e-3], 1..200),
        p in 0.0f64..=1.0,
    ) {
        let column: ArrayRef = Arc::new(Float64Array::from(values.clone()));
        let got = fold("quantile", &[column], Some(p)).as_primitive::<Float64Type>().value(0);
        values.sort_by(f64::total_cmp);
        let rank = (p * (values.len() - 1) as f64) as usize;
        let want = values[rank];
        prop_assert!((got - want).abs() <= want.abs() * quantile::ERROR * 1.000_001, "{got} for {want}");
    }
}

#[test]
fn a_sketch_spans_all_numbers_in_bounded_space() {
    let values: Vec<f64> = (-300..=300).map(|exponent| 10f64.powi(exponent)).collect();
    let column: ArrayRef = Arc::new(Float64Array::from(values));
    let factory = make("quantile", std::slice::from_ref(&column), Some(0.99));
    let mut aggregate = factory.create().unwrap();
    aggregate.update(&vec![0; 601], 1, &[column], None, &[0; 601]).unwrap();
    // Rank ⌊0.99·600⌋ = 594 of 0..=600: 10^294.
    let got = aggregate.finish(1).unwrap().as_primitive::<Float64Type>().value(0);
    assert!((got / 1e294 - 1.0).abs() < 0.0101, "{got}");
    let bytes = aggregate.partial(1).unwrap()[0].as_binary::<i32>().value_length(0);
    assert!(usize::try_from(bytes).unwrap() <= 8 * (quantile::BINS_MAX + 10), "{bytes}");
}

#[test]
fn a_partial_is_taken_over_to_the_last_bit() {
    // The square of the mean is beyond a float.
    let values: ArrayRef = Arc::new(Float64Array::from(vec![1e200, 1e200]));
    let factory = make("var_pop", std::slice::from_ref(&values), None);
    let (mut one, mut other) = (factory.create().unwrap(), factory.create().unwrap());
    one.update(&[0, 0], 1, &[values], None, &[0, 0]).unwrap();
    let partial = one.partial(1).unwrap();
    other.merge(&[0], 1, &partial).unwrap();
    assert_eq!(other.partial(1).unwrap(), partial);
    assert_eq!(other.finish(1).unwrap().as_primitive::<Float64Type>().value(0), 0.0);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// A sketch whose bytes are others is refused, or computes something: it never ends the process.
    #[test]
    fn damaged_sketches_are_no_panic(
        values in prop::collection::vec(prop_oneof![any::<f64>(), -9.0..9.0], 0..9),
        word in any::<prop::sample::Index>(),
        damage in prop_oneof![any::<u64>(), Just(u64::MAX), Just(1 << 48), Just(f64::NAN.to_bits()), 0_u64..3_000],
        cut in 0_usize..3,
    ) {
        let values: ArrayRef = Arc::new(Float64Array::from(values));
        let factory = make("quantile", std::slice::from_ref(&values), Some(0.5));
        let mut whole = factory.create().unwrap();
        let times = vec![0; values.len()];
        whole.update(&vec![0; values.len()], 1, std::slice::from_ref(&values), None, &times).unwrap();
        let mut bytes = whole.partial(1).unwrap()[0].as_binary::<i32>().value(0).to_vec();
        let at = word.index(bytes.len() / 8) * 8;
        bytes[at..at + 8].copy_from_slice(&damage.to_le_bytes());
        bytes.truncate(bytes.len() - cut);
        let damaged: ArrayRef = Arc::new(arrow::array::BinaryArray::from_iter_values([&bytes, &bytes]));
        let mut other = factory.create().unwrap();
        if other.merge(&[0, 0], 1, &[damaged]).is_ok() {
            other.update(&vec![0; values.len()], 1, &[values], None, &times).unwrap();
            other.finish(1).unwrap();
        }
    }
}
