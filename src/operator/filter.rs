//! The `filter` operator: rows for which a condition is true go on.

use arrow::array::cast::AsArray;
use arrow::array::{Array, RecordBatch};
use arrow::compute::filter_record_batch;

use crate::component::{Fault, Kind, Name};
use crate::expr::{self, Scalar};
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
            about: format!("where {}", self.condition.text),
        })
    }
}

struct Filter {
    condition: Scalar,
}

impl Operator for Filter {
    fn process(&mut self, batch: RecordBatch, out: &mut dyn Emit) -> Result<(), OperatorError> {
        let verdict = self.condition.evaluate(&batch)?;
        let verdict = verdict.as_boolean();
        // A condition that is null is not true.
        let kept = if verdict.null_count() == 0 {
            verdict.true_count()
        } else {
            verdict.iter().flatten().filter(|kept| *kept).count()
        };
        match kept {
            0 => Ok(()),
            all if all == batch.num_rows() => Ok(out.emit(batch)?),
            _ => Ok(out.emit(filter_record_batch(&batch, verdict)?)?),
        }
    }
}
