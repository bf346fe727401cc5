//! What the state of a window depends on, in the words of the pipeline file.
//!
//! What only says for how long, or of how many groups, state is kept is not part of it (`allowed_lateness`,
//! `group_idle_after`, `forget_after`, `max_groups`, `on_max_groups`): state is taken up whatever they were.

use super::core::{Clock, Late, Setup};
use super::measure::{Arg, Measure};
use super::shape::{DAY_MICROS, Grid, Shape};
use crate::component::Name;
use crate::flow::time::Span;
use crate::operator::Identity;

/// The settings by name, and what they are; `aggregates` are names and SQL texts, one for each measure.
pub(super) fn identity(setup: &Setup, aggregates: &[(Name, Name)]) -> Identity {
    let key = |index: &usize| {
        let field = setup.input.columns.field(*index);
        format!("{} ({})", field.name(), field.data_type())
    };
    let clock = match setup.clock {
        Clock::Stream => "stream",
        Clock::Group => "group",
    };
    // Only `update` keeps revisions.
    let late = match setup.late {
        Late::Set => "side or drop",
        Late::Update => "update",
    };
    let mut identity = vec![
        ("window".to_owned(), window(&setup.shape)),
        ("group_by".to_owned(), setup.group_by.iter().map(key).collect::<Vec<_>>().join(", ")),
        ("clock".to_owned(), clock.to_owned()),
        ("late".to_owned(), late.to_owned()),
    ];
    let aggregate = |((name, sql), measure): (&(Name, Name), &Measure)| {
        (format!("aggregates.{}", name.text), format!("{}{}", sql.text.trim(), types(measure)))
    };
    identity.extend(aggregates.iter().zip(&setup.measures).map(aggregate));
    identity
}

/// The types of its arguments.
fn types(measure: &Measure) -> String {
    let types = measure.args.iter().filter_map(|arg| match arg {
        Arg::Scalar(scalar) => Some(scalar.data_type.to_string()),
        Arg::Column(_) => None,
    });
    let types: Vec<String> = types.collect();
    if types.is_empty() { String::new() } else { format!(" of {}", types.join(", ")) }
}

/// `{ tumbling = "1m" }`.
fn window(shape: &Shape) -> String {
    let span = Span::from_micros;
    let (window, offset) = match shape {
        Shape::Session { gap } => (format!("session = \"{}\"", span(*gap)), 0),
        Shape::Grid(Grid::Fixed { size, slide, offset }) if size == slide => {
            (format!("tumbling = \"{}\"", span(*size)), *offset)
        }
        Shape::Grid(Grid::Fixed { size, slide, offset }) => {
            (format!("hopping = \"{}\", every = \"{}\"", span(*size), span(*slide)), *offset)
        }
        Shape::Grid(Grid::Days { zone, days, offset }) => {
            let zone = zone.iana_name().unwrap_or("unknown");
            (format!("tumbling = \"{}\", timezone = \"{zone}\"", span(days * DAY_MICROS)), *offset)
        }
    };
    if offset == 0 { format!("{{ {window} }}") } else { format!("{{ {window}, offset = \"{}\" }}", span(offset)) }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::datatypes::{DataType, Field, Schema};

    use super::super::KIND;
    use super::*;
    use crate::component::Settings;
    use crate::flow::schema::{StreamSchema, timestamp_type};

    fn of(text: &str, number: DataType) -> Identity {
        let columns = Schema::new(vec![
            Field::new("ts", timestamp_type(), false),
            Field::new("device", DataType::Utf8, true),
            Field::new("temp", number, true),
        ]);
        let input = StreamSchema { columns: Arc::new(columns), time: 0, out_of_orderness: Span::ZERO };
        let (mut settings, faults) = Settings::of(text);
        let spec = (KIND.parse)(&mut settings);
        settings.finish();
        assert_eq!(*faults.borrow(), [], "{text}");
        spec.unwrap().bind(&input).unwrap_or_else(|faults| panic!("{faults:?}")).identity
    }

    const AGGREGATES: &str = "aggregates = { rows = \"count(*)\", warm = \"avg(temp) FILTER (WHERE temp > 3)\" }\n";

    #[test]
    fn it_is_what_the_pipeline_file_says() {
        let text = format!("window = {{ hopping = \"60s\", every = \"1s\" }}\ngroup_by = [\"device\"]\n{AGGREGATES}");
        let pairs = [
            ("window", "{ hopping = \"1m\", every = \"1s\" }"),
            ("group_by", "device (Utf8)"),
            ("clock", "stream"),
            ("late", "side or drop"),
            ("aggregates.rows", "count(*)"),
            ("aggregates.warm", "avg(temp) FILTER (WHERE temp > 3) of Float64"),
        ];
        assert_eq!(of(&text, DataType::Float64), pairs.map(|(key, value)| (key.to_owned(), value.to_owned())));
    }

    #[test]
    fn windows_are_written_as_in_the_file() {
        for window in [
            r#"{ tumbling = "10s" }"#,
            r#"{ tumbling = "10s", offset = "3s" }"#,
            r#"{ tumbling = "1d", timezone = "Europe/Berlin", offset = "6h" }"#,
            r#"{ tumbling = "7d", timezone = "Europe/Berlin" }"#,
            r#"{ hopping = "10s", every = "4s", offset = "1s" }"#,
            r#"{ session = "30s" }"#,
        ] {
            let identity = of(&format!("window = {window}\n{AGGREGATES}"), DataType::Float64);
            assert_eq!(identity[0], ("window".to_owned(), window.to_owned()));
        }
    }

    #[test]
    fn settings_that_state_does_not_depend_on_are_not_in_it() {
        let base = format!("window = {{ session = \"30s\" }}\nclock = \"group\"\n{AGGREGATES}");
        let known = of(&base, DataType::Int64);
        for more in [
            "allowed_lateness = \"1m\"",
            "late = \"drop\"",
            "max_groups = 7",
            "on_max_groups = \"side\"",
            "group_idle_after = \"1d\"",
            "forget_after = \"1d\"",
        ] {
            assert_eq!(of(&format!("{base}{more}\n"), DataType::Int64), known, "{more}");
        }
        for other in ["late = \"update\"", "group_by = [\"device\"]"] {
            assert_ne!(of(&format!("{base}{other}\n"), DataType::Int64), known, "{other}");
        }
        let greatest = base.replace("avg(temp)", "max(temp)");
        assert_ne!(of(&greatest, DataType::Int64), of(&greatest, DataType::Float64), "an argument's type");
        // `avg` adds floats in any case.
        assert_eq!(of(&base, DataType::Float64), known);
        assert_ne!(of(&base.replace("avg(temp)", "sum(temp)"), DataType::Int64), known, "an aggregate");
        assert_ne!(of(&base.replace("warm", "mean"), DataType::Int64), known, "an aggregate's name");
        assert_ne!(of(&base.replace("\"group\"", "\"stream\""), DataType::Int64), known, "a clock");
    }
}
