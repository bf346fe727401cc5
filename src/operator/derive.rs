//! The `derive` operator: columns computed from the columns of a row.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{Field, Schema, SchemaRef};

use crate::component::{Fault, Kind, Name, Setting, Settings};
use crate::expr::{self, Scalar};
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
        Ok(Bound { output, side: None, operator: Box::new(Derive { columns, from }), about })
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
    fn process(&mut self, batch: RecordBatch, out: &mut dyn Emit) -> Result<(), OperatorError> {
        let column = |from: &From| match from {
            From::Input(index) => Ok(batch.column(*index).clone()),
            From::Expression(scalar) => scalar.evaluate(&batch),
        };
        let columns: Vec<ArrayRef> = self.from.iter().map(column).collect::<Result<_, _>>()?;
        Ok(out.emit(RecordBatch::try_new(self.columns.clone(), columns)?)?)
    }
}
