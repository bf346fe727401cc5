//! State of another shape, or that no rows can have made: it is refused, or taken, without a panic.

use std::sync::Arc;

use arrow::array::cast::AsArray;
use arrow::array::{
    Array, ArrayRef, BinaryArray, Decimal128Array, Int64Array, RecordBatch, RecordBatchOptions, StringArray, UInt8Array,
};
use arrow::datatypes::{DataType, Decimal128Type, Field, Int64Type, Schema, UInt8Type};
use proptest::prelude::*;
use proptest::sample::Index;
use streamgauge::flow::state::Restored;
use streamgauge::flow::time::Timestamp;
use streamgauge::operator::window::core::{Late, Windows};
use streamgauge::operator::{Operator, OperatorError};

use crate::case::{Case, batch, cases, setup, streams};
use crate::restart::Store;

/// What is done to a part.
#[derive(Clone, Debug)]
enum Damage {
    /// The column is gone.
    Drop(Index),
    /// All columns stand one place further.
    Rotate,
    /// The column has another name.
    Rename(Index),
    /// The column has other values, all of them null.
    Retype(Index),
    /// The column may be null, and is.
    Null(Index),
    /// The value is another, in a column of numbers.
    Number(Index, Index, i64),
    /// The rows stand there once more.
    Twice,
    /// The part has another name.
    Name(String),
    /// The part is gone.
    Lose,
}

fn damages() -> impl Strategy<Value = Damage> {
    let column = any::<Index>;
    let number = prop_oneof![any::<i64>(), Just(i64::MIN), Just(i64::MAX), Just(i64::MAX / 2), Just(-1), -100i64..100];
    let name = prop_oneof!["pane-[0-9-]{1,20}", "(groups|panes|sessions|windows|window)-[0-9]{1,3}", "[a-z-]{0,9}"];
    prop_oneof![
        1 => column().prop_map(Damage::Drop),
        1 => Just(Damage::Rotate),
        1 => column().prop_map(Damage::Rename),
        1 => column().prop_map(Damage::Retype),
        1 => column().prop_map(Damage::Null),
        6 => (column(), any::<Index>(), number).prop_map(|(column, row, number)| Damage::Number(column, row, number)),
        1 => Just(Damage::Twice),
        1 => name.prop_map(Damage::Name),
        1 => Just(Damage::Lose),
    ]
}

/// Whether a part of that shape cannot be taken, whatever it holds.
fn is_shape(damage: &Damage) -> bool {
    matches!(damage, Damage::Drop(_) | Damage::Rotate | Damage::Rename(_) | Damage::Retype(_))
}

fn with(column: &ArrayRef, row: usize, number: i64) -> ArrayRef {
    let at = |(index, value): (usize, i64)| if index == row { number } else { value };
    match column.data_type() {
        DataType::Int64 => {
            let values = column.as_primitive::<Int64Type>().values().iter().copied().enumerate();
            Arc::new(Int64Array::from_iter_values(values.map(at)))
        }
        DataType::UInt8 => {
            let values = column.as_primitive::<UInt8Type>().values().iter().map(|value| i64::from(*value)).enumerate();
            Arc::new(UInt8Array::from_iter_values(values.map(at).map(|value| value.to_le_bytes()[0])))
        }
        DataType::Decimal128(..) => {
            let values = column.as_primitive::<Decimal128Type>().values().iter().copied().enumerate();
            let values = values.map(|(index, value)| if index == row { i128::from(number) << 64 } else { value });
            Arc::new(Decimal128Array::from_iter_values(values).with_data_type(column.data_type().clone()))
        }
        _ => column.clone(),
    }
}

fn damaged((name, batch): &Restored, damage: &Damage) -> Option<Restored> {
    let (mut fields, mut columns) = (batch.schema().fields().to_vec(), batch.columns().to_vec());
    let (len, rows) = (columns.len(), batch.num_rows());
    let renamed = |field: &Field| Arc::new(Field::new("other", field.data_type().clone(), field.is_nullable()));
    match damage {
        Damage::Drop(column) => {
            fields.remove(column.index(len));
            columns.remove(column.index(len));
        }
        Damage::Rotate => {
            fields.rotate_left(1);
            columns.rotate_left(1);
        }
        Damage::Rename(column) => fields[column.index(len)] = renamed(&fields[column.index(len)]),
        Damage::Retype(column) => {
            let column = column.index(len);
            columns[column] = Arc::new(BinaryArray::from_iter((0..rows).map(|_| None::<&[u8]>)));
            fields[column] = Arc::new(Field::new(fields[column].name(), DataType::Binary, true));
        }
        Damage::Null(column) => {
            let column = column.index(len);
            columns[column] = arrow::array::new_null_array(columns[column].data_type(), rows);
            fields[column] = Arc::new(Field::new(fields[column].name(), fields[column].data_type().clone(), true));
        }
        Damage::Number(column, row, number) if rows > 0 => {
            let column = column.index(len);
            columns[column] = with(&columns[column], row.index(rows), *number);
        }
        Damage::Number(..) => {}
        Damage::Twice => {
            let twice = |column: &ArrayRef| arrow::compute::concat(&[column, column]).unwrap();
            columns = columns.iter().map(twice).collect();
        }
        Damage::Name(name) => return Some((name.clone(), batch.clone())),
        Damage::Lose => return None,
    }
    let options = RecordBatchOptions::new().with_row_count(Some(columns.first().map_or(rows, |column| column.len())));
    let schema = Arc::new(Schema::new(fields));
    Some((name.clone(), RecordBatch::try_new_with_options(schema, columns, &options).unwrap()))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn damaged_state_is_no_panic(
        case in cases(),
        rows in streams(3),
        part in any::<Index>(),
        damage in damages(),
        watermark in -80i64..20,
    ) {
        let mut windows = Windows::new(setup(case)).unwrap();
        windows.process(batch(case, &rows).into(), &mut Vec::new()).unwrap();
        windows.advance(Timestamp::from_micros(watermark), &mut Vec::new()).unwrap();
        let mut store = Store::default();
        store.take(windows.snapshot().unwrap());
        let part = part.index(store.0.len());
        let whole = store.0.remove(part);
        store.0.splice(part..part, damaged(&whole, &damage));
        let mut next = Windows::new(setup(case)).unwrap();
        match next.restore(&store.0) {
            Err(error) => prop_assert!(matches!(error, OperatorError::Stateless), "{:?}", error),
            Ok(()) => {
                prop_assert!(!is_shape(&damage), "{:?} was taken", store.0);
                // What is computed with numbers that no rows made may be an error, but no panic.
                let mut out = Vec::new();
                let _ = next.process(batch(case, &rows).into(), &mut out);
                let _ = next.advance(Timestamp::from_micros(watermark + 5), &mut out);
                let _ = next.snapshot();
                let _ = next.advance(Timestamp::END, &mut out);
            }
        }
    }

    /// The state of one operator, given to another.
    #[test]
    fn the_state_of_another_operator_is_refused(
        case in cases(),
        other in cases(),
        rows in streams(3),
    ) {
        let mut windows = Windows::new(setup(case)).unwrap();
        windows.process(batch(case, &rows).into(), &mut Vec::new()).unwrap();
        let mut store = Store::default();
        store.take(windows.snapshot().unwrap());
        let restored = Windows::new(setup(other)).unwrap().restore(&store.0);
        let same = |one: Case, two: Case| (one.kind, one.clock, one.late == Late::Update, one.wide_keys)
            == (two.kind, two.clock, two.late == Late::Update, two.wide_keys);
        prop_assert!(restored.is_ok() || !same(case, other));
        if case.wide_keys != other.wide_keys && store.0.len() > 1 {
            prop_assert!(matches!(restored, Err(OperatorError::Stateless)));
        }
        let text: ArrayRef = Arc::new(StringArray::from(vec!["x"]));
        let strange = RecordBatch::try_from_iter([("x", text)]).unwrap();
        for name in ["clock", "all", "pane-0", ""] {
            let parts = [(name.to_owned(), strange.clone())];
            let refused = Windows::new(setup(other)).unwrap().restore(&parts);
            prop_assert!(matches!(refused, Err(OperatorError::Stateless)));
        }
        prop_assert!(matches!(Windows::new(setup(other)).unwrap().restore(&[]), Err(OperatorError::Stateless)));
    }
}
