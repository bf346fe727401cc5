//! Beside the functions one by one: the same to the last bit, but for which NaN a NaN is.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Float32Array, Float64Array, PrimitiveArray};
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Date32Type, Float32Type, Float64Type, Int8Type, Int32Type, Int64Type, TimeUnit,
    TimestampMicrosecondType, UInt8Type, UInt64Type,
};
use proptest::prelude::*;

use super::*;
use crate::operator::aggregate::{Aggregate, AggregateFactory, kernel};

const SLOTS: usize = 5;

/// A row: its slot, how its value is made, whether it is there, and whether the filter lets it through.
type Row = (u32, (u8, u64), bool, Option<bool>);

fn rows() -> impl Strategy<Value = Vec<Row>> {
    let value = (0u8..12, any::<u64>());
    let keep = prop_oneof![4 => any::<bool>().prop_map(Some), 1 => Just(None)];
    prop::collection::vec((0..SLOTS as u32, value, prop::bool::weighted(0.8), keep), 0..40)
}

/// Ends of whole numbers, small ones, and any.
fn whole<T: ArrowPrimitiveType>(rows: &[Row], least: T::Native, greatest: T::Native) -> PrimitiveArray<T>
where
    T::Native: TryFrom<i64>,
{
    let value = |(_, (kind, bits), is_there, _): &Row| {
        let small = T::Native::try_from((bits % 100).cast_signed()).ok();
        let any = T::Native::try_from(bits.cast_signed()).ok().or(small);
        is_there.then_some(match kind {
            0 => least,
            1 => greatest,
            2..=6 => small.unwrap_or_default(),
            _ => any.unwrap_or_default(),
        })
    };
    rows.iter().map(value).collect()
}

/// Every oddity of floats, numbers whose sums are rounded, and any bits at all.
fn float((kind, bits): (u8, u64)) -> f64 {
    const ODD: [f64; 8] = [0.0, -0.0, f64::NAN, -f64::NAN, f64::INFINITY, f64::NEG_INFINITY, f64::MAX, 5e-324];
    match kind {
        0..=4 => ODD[(bits % 8) as usize],
        5..=10 => (bits % 2_000_003) as f64 / 7.0 - 1e5,
        _ => f64::from_bits(bits),
    }
}

fn column(input: usize, rows: &[Row]) -> ArrayRef {
    let floats = || rows.iter().map(|row| row.2.then(|| float(row.1)));
    match input {
        0 => Arc::new(floats().collect::<Float64Array>()),
        1 => Arc::new(floats().map(|value| value.map(|value| value as f32)).collect::<Float32Array>()),
        2 => Arc::new(whole::<Int64Type>(rows, i64::MIN, i64::MAX)),
        3 => Arc::new(whole::<UInt64Type>(rows, 0, u64::MAX)),
        4 => Arc::new(whole::<Int8Type>(rows, i8::MIN, i8::MAX)),
        5 => Arc::new(whole::<UInt8Type>(rows, 0, u8::MAX)),
        6 => Arc::new(whole::<Int32Type>(rows, i32::MIN, i32::MAX)),
        7 => Arc::new(whole::<Date32Type>(rows, i32::MIN, i32::MAX)),
        _ => {
            let times = whole::<TimestampMicrosecondType>(rows, i64::MIN, i64::MAX);
            Arc::new(times.with_timezone("UTC"))
        }
    }
}

/// Every function that takes the type, without and with a filter.
struct Measures {
    factories: Vec<Arc<dyn AggregateFactory>>,
    sources: [Vec<(usize, Simple)>; 3],
}

/// A function counts, or takes the values.
fn measures(input: &DataType, asked: u8) -> Measures {
    let mut measures = Measures { factories: Vec::new(), sources: Default::default() };
    for filtered in [false, true] {
        for (bit, function) in ["count(*)", "count", "sum", "avg", "min", "max"].into_iter().enumerate() {
            let star = function == "count(*)";
            let args = if star { &[][..] } else { std::slice::from_ref(input) };
            let factory = kernel(function.trim_end_matches("(*)"), args, None).unwrap();
            let Some(factory) = factory.filter(|_| asked >> bit & 1 == 1) else { continue };
            let simple = factory.simple().expect("all of these are simple").clone();
            // `count(*)` under a filter is a source of its own, which this test has no fourth list for.
            let source = if filtered { 2 } else { usize::from(!star) };
            if filtered && star {
                continue;
            }
            measures.sources[source].push((measures.factories.len(), simple));
            measures.factories.push(factory);
        }
    }
    measures
}

impl Measures {
    fn fused(&self) -> Fused {
        let source = |(index, asked): (usize, &Vec<(usize, Simple)>)| {
            asked.first().map(|(measure, _)| Source { measure: *measure, filtered: index == 2, asked: asked.clone() })
        };
        Fused::new(self.sources.iter().enumerate().filter_map(source).collect())
    }

    fn boxed(&self) -> Vec<Box<dyn Aggregate>> {
        self.factories.iter().map(|factory| factory.create().unwrap()).collect()
    }

    /// The arguments of every measure.
    fn argued(&self, input: usize, rows: &[Row]) -> Vec<Argued> {
        let (values, keep) = (column(input, rows), rows.iter().map(|row| row.3).collect::<BooleanArray>());
        let is_in = |source: usize, measure: usize| self.sources[source].iter().any(|(asked, _)| *asked == measure);
        let of = |measure: usize| {
            let args = if is_in(0, measure) { Vec::new() } else { vec![values.clone()] };
            (args, is_in(2, measure).then(|| keep.clone()))
        };
        (0..self.factories.len()).map(of).collect()
    }
}

/// Bits of floats, where every NaN is one; other columns as they are.
fn bits(column: &ArrayRef) -> ArrayRef {
    match column.data_type() {
        DataType::Float64 => {
            let bits = |value: f64| if value.is_nan() { f64::NAN.to_bits() } else { value.to_bits() };
            Arc::new(column.as_primitive::<Float64Type>().unary::<_, UInt64Type>(bits))
        }
        DataType::Float32 => {
            let bits = |value: f32| if value.is_nan() { f32::NAN.to_bits() } else { value.to_bits() };
            Arc::new(column.as_primitive::<Float32Type>().unary::<_, arrow::datatypes::UInt32Type>(bits))
        }
        _ => column.clone(),
    }
}

type Columns = Vec<Vec<ArrayRef>>;

fn partial_of(fused: &Fused, measures_len: usize) -> Columns {
    let mut partial = vec![Vec::new(); measures_len];
    fused.partial(|measure, columns| partial[measure] = columns).unwrap();
    partial
}

/// Results; where one does not fit its type, none.
fn results_of(fused: &Fused, measures_len: usize) -> Option<Columns> {
    let mut results = vec![Vec::new(); measures_len];
    let slots = 0..fused.tracks.first().map_or(0, |track| track.lane.len());
    fused.finish(slots, |measure, column| results[measure] = vec![column]).ok()?;
    Some(results)
}

fn same(one: &Columns, other: &Columns) -> bool {
    let all = |columns: &Columns| columns.iter().flatten().map(bits).collect::<Vec<_>>();
    all(one) == all(other)
}

/// A pane: what was folded both ways, with slots in an order of its own.
struct Pane {
    fused: Fused,
    boxed: Vec<Box<dyn Aggregate>>,
    /// The slot in the whole of each slot.
    slots: Vec<u32>,
}

fn pane(measures: &Measures, input: usize, rows: &[Row], cut: usize, turn: u32) -> Pane {
    let slots: Vec<u32> = (0..SLOTS as u32).map(|slot| (slot + turn) % SLOTS as u32).collect();
    let own = |slot: u32| slots.iter().position(|whole| *whole == slot).unwrap() as u32;
    let (mut fused, mut boxed) = (measures.fused(), measures.boxed());
    fused.reserve(SLOTS);
    for rows in rows.chunks(cut) {
        let argued = measures.argued(input, rows);
        let places: Vec<u32> = rows.iter().map(|row| own(row.0)).collect();
        if turn.is_multiple_of(2) {
            fused.update(&places, None, &argued).unwrap();
        } else {
            // The same rows out of a larger batch, whose others must not matter.
            let larger: Vec<Row> = rows.iter().flat_map(|row| [(0, (1, 3), true, Some(true)), *row]).collect();
            let at: Vec<u32> = (0..rows.len() as u32).map(|row| 2 * row + 1).collect();
            fused.update(&places, Some(&at), &measures.argued(input, &larger)).unwrap();
        }
        for (aggregate, (args, keep)) in boxed.iter_mut().zip(&argued) {
            aggregate.update(&places, SLOTS, args, keep.as_ref(), &vec![0; rows.len()]).unwrap();
        }
    }
    Pane { fused, boxed, slots }
}

/// Merges a pane into the whole, in one of the ways there are.
fn merge(measures: &Measures, whole: &mut Fused, pane: &Pane, way: u8) {
    match way % 4 {
        0 => whole.scatter(&pane.slots, &pane.fused),
        1 => whole.merge(&pane.slots, &partial_of(&pane.fused, measures.factories.len())),
        2 => {
            // In the order of the whole first.
            let slots: Vec<u32> = (0..SLOTS as u32)
                .map(|slot| pane.slots.iter().position(|whole| *whole == slot).unwrap() as u32)
                .collect();
            whole.gather(&pane.fused, &slots);
        }
        _ => {
            // Beside, and back; one by one.
            let mut other = whole.fresh();
            other.extend(whole, &pane.slots);
            for (slot, of) in (0..).zip(0..SLOTS as u32) {
                other.merge_one(slot, &pane.fused, of);
            }
            whole.put(&pane.slots, &other);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn fused_functions_are_the_functions_one_by_one(
        input in 0usize..9,
        asked in 1u8..64,
        panes in prop::collection::vec((rows(), 1usize..20, 0u32..5, any::<u8>()), 1..5),
    ) {
        let measures = measures(column(input, &[]).data_type(), asked);
        prop_assume!(!measures.factories.is_empty());
        let (mut fused, mut boxed) = (measures.fused(), measures.boxed());
        fused.reserve(SLOTS);
        for (rows, cut, turn, way) in &panes {
            let mut pane = pane(&measures, input, rows, *cut, *turn);
            let partial: Columns = pane.boxed.iter_mut().map(|one| one.partial(SLOTS).unwrap()).collect();
            prop_assert!(same(&partial_of(&pane.fused, partial.len()), &partial), "partials of a pane");
            merge(&measures, &mut fused, &pane, *way);
            for (aggregate, columns) in boxed.iter_mut().zip(&partial) {
                aggregate.merge(&pane.slots, SLOTS, columns).unwrap();
            }
        }
        let wanted: Result<Columns, ArrowError> =
            boxed.iter_mut().map(|aggregate| Ok(vec![aggregate.finish(SLOTS)?])).collect();
        match (results_of(&fused, measures.factories.len()), wanted) {
            (Some(results), Ok(wanted)) => prop_assert!(same(&results, &wanted), "{results:?} for {wanted:?}"),
            (None, Err(_)) => {}
            (results, wanted) => prop_assert!(false, "{results:?} for {wanted:?}"),
        }
        let partial: Columns = boxed.iter_mut().map(|aggregate| aggregate.partial(SLOTS).unwrap()).collect();
        prop_assert!(same(&partial_of(&fused, partial.len()), &partial), "partials");
        // Forgotten slots leave nothing behind.
        fused.clear();
        fused.reserve(SLOTS);
        let empty: Columns = measures.boxed().iter_mut().map(|aggregate| aggregate.partial(SLOTS).unwrap()).collect();
        prop_assert!(same(&partial_of(&fused, empty.len()), &empty), "no partials");
    }
}

#[test]
fn extremes_are_in_the_total_order() {
    let values: ArrayRef = Arc::new(Float64Array::from(vec![0.0, -0.0, -f64::NAN, f64::NEG_INFINITY, f64::NAN]));
    let measures = measures(&DataType::Float64, 0b11_0000);
    let mut fused = measures.fused();
    fused.reserve(3);
    // Both noughts; a NaN and an infinity; a NaN alone, whose sign says nothing.
    let argued = vec![(vec![values], None); 2];
    let argued: Vec<Argued> = argued.iter().cycle().take(measures.factories.len()).cloned().collect();
    fused.update(&[0, 0, 1, 1, 2], None, &argued).unwrap();
    let results = results_of(&fused, measures.factories.len()).unwrap();
    let result = |measure: usize, slot: usize| results[measure][0].as_primitive::<Float64Type>().value(slot);
    assert!(result(0, 0).is_sign_negative() && result(1, 0).is_sign_positive());
    assert_eq!(result(0, 1), f64::NEG_INFINITY);
    assert!(result(1, 1).is_nan() && result(0, 2).is_nan() && result(1, 2).is_nan());
}

#[test]
fn types_that_have_no_lane_are_not_simple() {
    for input in [DataType::Utf8, DataType::Boolean, DataType::Decimal128(9, 2)] {
        assert!(kernel("min", std::slice::from_ref(&input), None).unwrap().unwrap().simple().is_none(), "{input}");
        assert!(kernel("count", &[input], None).unwrap().unwrap().simple().is_some());
    }
    let nanos = DataType::Timestamp(TimeUnit::Nanosecond, None);
    assert!(kernel("max", &[nanos], None).unwrap().unwrap().simple().is_some());
}
