//! The `filter` operator: rows for which a condition is true go on.

use arrow::array::cast::AsArray;

use crate::component::{Fault, Kind, Name};
use crate::expr::{self, Scalar};
use crate::flow::batch::Batch;
use crate::flow::outbox::Emit;
use crate::flow::schema::StreamSchema;
use crate::operator::{Bound, Operator, OperatorError, OperatorSpec};

/// `type = "filter"`.
pub const KIND: Kind<dyn OperatorSpec> = Kind {
    name: "filter",
    about: "rows for which `where`, a condition in SQL, is true",
    parse: |settings| Some(Box::new(FilterSpec { condition: settings.required("where")? })),
};

#[derive(Debug)]
struct FilterSpec {
    condition: Name,
}

impl OperatorSpec for FilterSpec {
    fn bind(&self, input: &StreamSchema) -> Result<Bound, Vec<Fault>> {
        let condition = expr::predicate(&self.condition, &input.columns).map_err(|fault| vec![fault])?;
        Ok(Bound {
            output: input.clone(),
            side: None,
            operator: Box::new(Filter { condition }),
            identity: Vec::new(),
            about: format!("where {}", self.condition.text),
        })
    }
}

struct Filter {
    condition: Scalar,
}

impl Operator for Filter {
    fn process(&mut self, batch: Batch, out: &mut dyn Emit) -> Result<(), OperatorError> {
        let verdict = self.condition.evaluate(&batch)?;
        let verdict = verdict.as_boolean();
        // A condition that is null is not true.
        match verdict.true_count() {
            0 => Ok(()),
            all if all == batch.num_rows() => Ok(out.emit(batch)?),
            _ => Ok(out.emit(batch.filter(verdict)?)?),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::types::Int64Type;
    use arrow::array::{BooleanArray, Int64Array, RecordBatch, TimestampMicrosecondArray};
    use arrow::datatypes::{DataType, Field, Schema};

    use super::*;
    use crate::component::Settings;
    use crate::flow::outbox::Port;
    use crate::flow::schema::timestamp_type;
    use crate::flow::time::Span;

    fn schema() -> StreamSchema {
        let columns = vec![
            Field::new("ts", timestamp_type(), false),
            Field::new("n", DataType::Int64, true),
            Field::new("ok", DataType::Boolean, true),
        ];
        StreamSchema { columns: Arc::new(Schema::new(columns)), time: 0, out_of_orderness: Span::ZERO }
    }

    fn bind(condition: &str) -> Result<Bound, Vec<Fault>> {
        let (mut settings, _) = Settings::of(&format!("where = \"{condition}\""));
        (KIND.parse)(&mut settings).unwrap().bind(&schema())
    }

    /// The values of `n` of every batch that goes on.
    fn kept(condition: &str) -> Vec<Vec<i64>> {
        let columns: Vec<arrow::array::ArrayRef> = vec![
            Arc::new(TimestampMicrosecondArray::from(vec![0; 4]).with_timezone("UTC")),
            Arc::new(Int64Array::from(vec![1, 2, 3, 4])),
            Arc::new(BooleanArray::from(vec![Some(true), Some(false), None, Some(true)])),
        ];
        let mut out: Vec<(Port, RecordBatch)> = Vec::new();
        let mut operator = bind(condition).unwrap().operator;
        operator.process(RecordBatch::try_new(schema().columns, columns).unwrap().into(), &mut out).unwrap();
        out.iter().map(|(_, batch)| batch.column(1).as_primitive::<Int64Type>().values().to_vec()).collect()
    }

    #[test]
    fn rows_for_which_it_is_true_go_on() {
        assert_eq!(kept("n > 2"), [[3, 4]]);
        assert_eq!(kept("ok"), [[1, 4]]);
        // Null is not true, and so is its opposite.
        assert_eq!(kept("NOT ok"), [[2]]);
        assert_eq!(kept("ok OR n = 3"), [[1, 3, 4]]);
        assert_eq!(kept("ok IS NULL"), [[3]]);
    }

    #[test]
    fn all_rows_or_none_are_not_copied() {
        assert_eq!(kept("n < 9"), [[1, 2, 3, 4]]);
        assert_eq!(kept("true"), [[1, 2, 3, 4]]);
        assert_eq!(kept("n > 9"), Vec::<Vec<i64>>::new());
    }

    #[test]
    fn what_is_no_condition_is_a_fault() {
        let fault = |condition| bind(condition).err().unwrap().remove(0);
        assert_eq!(
            (fault("n > 2 AND okk").at, fault("n > 2 AND okk").help.unwrap()),
            (19..22, "did you mean `ok`?".to_owned())
        );
        assert!(fault("n + 1").what.contains("true or false, got"), "{}", fault("n + 1").what);
    }
}
