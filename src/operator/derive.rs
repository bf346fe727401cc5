//! The `derive` operator: columns computed from the columns of a row.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{Field, Schema, SchemaRef};

use crate::component::{Fault, Kind, Name, Setting, Settings};
use crate::expr::{self, Scalar};
use crate::flow::batch::Batch;
use crate::flow::outbox::Emit;
use crate::flow::schema::StreamSchema;
use crate::operator::{Bound, Operator, OperatorError, OperatorSpec};

/// `type = "derive"`.
pub const KIND: Kind<dyn OperatorSpec> =
    Kind { name: "derive", about: "columns computed from those of the row, by SQL; `drop` takes columns out", parse };

#[derive(Debug)]
struct DeriveSpec {
    /// Name of the column, and its expression.
    columns: Vec<(Name, Name)>,
    drop: Vec<Name>,
}

fn parse(settings: &mut Settings) -> Option<Box<dyn OperatorSpec>> {
    let mut columns = Vec::new();
    let drop: Vec<Name> = settings.optional("drop").unwrap_or_default();
    if let Some(mut table) = settings.table("columns") {
        for (name, node) in table.rest() {
            match Name::read(&node) {
                Ok(text) => columns.push((name, text)),
                Err(_) => {
                    let what =
                        format!("`{}`: expected an expression in SQL, got {}", name.text, node.value.type_name());
                    settings.fault(Fault::new(node.at, what));
                }
            }
        }
    }
    if columns.is_empty() && drop.is_empty() && settings.faults_len() == 0 {
        settings.fault(Fault::new(settings.at.clone(), "it neither computes (`columns`) nor drops (`drop`) a column"));
    }
    Some(Box::new(DeriveSpec { columns, drop }))
}

impl OperatorSpec for DeriveSpec {
    fn bind(&self, input: &StreamSchema) -> Result<Bound, Vec<Fault>> {
        let mut faults = Vec::new();
        let time = input.columns.field(input.time).name();
        let mut kept: Vec<(Field, From)> = input
            .columns
            .fields()
            .iter()
            .enumerate()
            .map(|(index, field)| (Field::clone(field), From::Input(index)))
            .collect();
        for (name, text) in &self.columns {
            if name.text == *time {
                faults.push(name.fault(format!(
                    "`{time}` is the event time, which cannot be replaced; give the column another name"
                )));
                continue;
            }
            match expr::scalar(text, &input.columns) {
                Ok(scalar) => {
                    let field = Field::new(&name.text, scalar.data_type.clone(), scalar.nullable);
                    match kept.iter_mut().find(|(field, _)| *field.name() == name.text) {
                        Some(place) => *place = (field, From::Expression(scalar)),
                        None => kept.push((field, From::Expression(scalar))),
                    }
                }
                Err(fault) => faults.push(fault),
            }
        }
        for name in &self.drop {
            if name.text == *time {
                faults.push(name.fault(format!("`{time}` is the event time, which cannot be dropped")));
            } else if kept.iter().any(|(field, _)| *field.name() == name.text) {
                kept.retain(|(field, _)| *field.name() != name.text);
            } else {
                faults
                    .push(name.fault(format!("no column `{}` to drop", name.text)).nearest(&name.text, input.names()));
            }
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        let (fields, from): (Vec<Field>, Vec<From>) = kept.into_iter().unzip();
        let time = from.iter().position(|from| matches!(from, From::Input(index) if *index == input.time));
        let columns: SchemaRef = Arc::new(Schema::new(fields));
        let output =
            StreamSchema { columns: columns.clone(), time: time.expect("the event time is kept"), ..input.clone() };
        let names: Vec<&str> = self.columns.iter().map(|(name, _)| name.text.as_str()).collect();
        let dropped: Vec<&str> = self.drop.iter().map(|name| name.text.as_str()).collect();
        let about = match (names.is_empty(), dropped.is_empty()) {
            (false, true) => format!("computes {}", names.join(", ")),
            (true, _) => format!("drops {}", dropped.join(", ")),
            (false, false) => format!("computes {}, drops {}", names.join(", "), dropped.join(", ")),
        };
        Ok(Bound { output, side: None, operator: Box::new(Derive { columns, from }), about, identity: Vec::new() })
    }
}

#[derive(Debug)]
enum From {
    Input(usize),
    Expression(Scalar),
}

struct Derive {
    columns: SchemaRef,
    from: Vec<From>,
}

impl Operator for Derive {
    fn process(&mut self, batch: Batch, out: &mut dyn Emit) -> Result<(), OperatorError> {
        let column = |from: &From| match from {
            From::Input(index) => Ok(batch.column(*index).clone()),
            From::Expression(scalar) => scalar.evaluate(&batch),
        };
        let columns: Vec<ArrayRef> = self.from.iter().map(column).collect::<Result<_, _>>()?;
        Ok(out.emit(batch.with_columns(RecordBatch::try_new(self.columns.clone(), columns)?))?)
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::cast::AsArray;
    use arrow::array::types::{Float64Type, Int64Type};
    use arrow::array::{Int64Array, TimestampMicrosecondArray};
    use arrow::datatypes::DataType;

    use super::*;
    use crate::flow::outbox::Port;
    use crate::flow::schema::timestamp_type;
    use crate::flow::time::Span;

    fn schema() -> StreamSchema {
        let columns = vec![
            Field::new("n", DataType::Int64, false),
            Field::new("ts", timestamp_type(), false),
            Field::new("m", DataType::Int64, true),
        ];
        StreamSchema { columns: Arc::new(Schema::new(columns)), time: 1, out_of_orderness: Span::from_secs(5) }
    }

    fn bind(text: &str) -> Result<Bound, Vec<Fault>> {
        let (mut settings, faults) = Settings::of(text);
        let spec = (KIND.parse)(&mut settings).unwrap();
        settings.finish();
        assert_eq!(*faults.borrow(), []);
        spec.bind(&schema())
    }

    #[test]
    fn columns_are_added_replaced_and_dropped() {
        let text = "drop = [\"m\"]\n[columns]\nhalf = \"n / 2.0\"\nn = \"n + m\"";
        let Bound { output, mut operator, about, .. } = bind(text).unwrap();
        assert_eq!(output.names().collect::<Vec<_>>(), ["n", "ts", "half"]);
        assert_eq!((output.time, output.out_of_orderness), (1, Span::from_secs(5)));
        assert_eq!(about, "computes half, n, drops m");
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from(vec![3, 4])),
            Arc::new(TimestampMicrosecondArray::from(vec![7, 8]).with_timezone("UTC")),
            Arc::new(Int64Array::from(vec![None, Some(10)])),
        ];
        let mut out: Vec<(Port, RecordBatch)> = Vec::new();
        operator.process(RecordBatch::try_new(schema().columns, columns).unwrap().into(), &mut out).unwrap();
        let batch = &out[0].1;
        assert_eq!(batch.schema(), output.columns);
        // Every expression reads the row as it came: `half` is of the old `n`.
        assert_eq!(batch.column(2).as_primitive::<Float64Type>().values(), &[1.5, 2.0]);
        let replaced: Vec<_> = batch.column(0).as_primitive::<Int64Type>().iter().collect();
        assert_eq!(replaced, [None, Some(14)]);
    }

    #[test]
    fn all_faults_are_told_at_their_places() {
        let text = "drop = [\"ts\", \"tz\"]\n[columns]\nts = \"ts\"\nhalf = \"k / 2\"";
        let faults = bind(text).err().unwrap();
        let at: Vec<&str> = faults.iter().map(|fault| &text[fault.at.clone()]).collect();
        assert_eq!(at, ["ts", "k", "\"ts\"", "\"tz\""]);
        assert_eq!(faults[3].help.as_deref(), Some("did you mean `ts`?"));
    }

    #[test]
    fn an_operator_that_does_nothing_is_a_fault() {
        let (mut settings, faults) = Settings::of("");
        let _ = (KIND.parse)(&mut settings);
        assert_eq!(faults.borrow().len(), 1);
    }
}
