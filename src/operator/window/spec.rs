//! The `window` operator as a pipeline file describes it.

use arrow::error::ArrowError;

use super::core::{Clock, Late, Overflow, Setup, Windows};
use super::identity::identity;
use super::measure::{Arg, Measure};
use super::parallel::{Parallel, WORKERS_MAX};
use super::setting::{length, shape};
use super::shape::Shape;
use crate::component::{Fault, Kind, Name, Setting, Settings};
use crate::expr;
use crate::flow::schema::StreamSchema;
use crate::flow::time::Span;
use crate::operator::aggregate::{AGGREGATES, kernel};
use crate::operator::{Bound, Operator, OperatorSpec};

/// `type = "window"`.
pub const KIND: Kind<dyn OperatorSpec> =
    Kind { name: "window", about: "aggregates of groups over windows of event time", parse };

/// How many groups there may be at once, unless `max_groups` says otherwise.
pub const MAX_GROUPS: usize = 1_000_000;

/// How far a group's own watermark may stay behind the stream's, unless `group_idle_after` says otherwise.
pub const GROUP_IDLE_AFTER: Span = Span::from_secs(3_600);

/// How long a group that no window holds is remembered, unless `forget_after` says otherwise.
pub const FORGET_AFTER: Span = Span::from_secs(600);

/// How many workers an operator has at most that does not say.
const DEFAULT_WORKERS_MAX: usize = 8;

/// The columns that every window has.
const OWN_COLUMNS: [&str; 2] = ["window_start", "window_end"];

#[derive(Debug)]
struct Spec {
    shape: Shape,
    about: String,
    group_by: Vec<Name>,
    clock: Clock,
    group_idle_after: Span,
    allowed_lateness: Span,
    late: Late,
    /// Late rows are counted, and nobody can have them.
    drops: bool,
    max_groups: usize,
    overflow: Overflow,
    forget_after: Span,
    /// How many; by the number of cores where it is not set.
    workers: Option<usize>,
    /// Names and SQL texts.
    aggregates: Vec<(Name, Name)>,
}

fn parse(settings: &mut Settings) -> Option<Box<dyn OperatorSpec>> {
    let before = settings.faults_len();
    let window = shape(settings);
    let group_by = settings.or("group_by", Vec::<Name>::new());
    let clock = settings.choice("clock", &[("stream", Clock::Stream), ("group", Clock::Group)], Clock::Stream);
    let group_idle_after = group_idle_after(settings, clock);
    let allowed_lateness = length(settings, "allowed_lateness").map_or(Span::ZERO, |(span, _)| span);
    let late = [("side", (Late::Set, false)), ("drop", (Late::Set, true)), ("update", (Late::Update, false))];
    let (late, drops) = settings.choice("late", &late, (Late::Set, false));
    let max_groups = settings.or("max_groups", MAX_GROUPS);
    let overflow = [("stop", Overflow::Stop), ("side", Overflow::Side)];
    let overflow = settings.choice("on_max_groups", &overflow, Overflow::Stop);
    let forget_after = length(settings, "forget_after").map_or(FORGET_AFTER, |(span, _)| span);
    let workers = settings.up_to("workers", WORKERS_MAX);
    let aggregates = aggregates(settings);
    repeated(settings, &group_by);
    if settings.faults_len() > before {
        return None;
    }
    let (shape, about) = window?;
    Some(Box::new(Spec {
        shape,
        about,
        group_by,
        clock,
        group_idle_after,
        allowed_lateness,
        late,
        drops,
        max_groups,
        overflow,
        forget_after,
        workers,
        aggregates,
    }))
}

/// `group_idle_after`, which only clocks of groups have.
fn group_idle_after(settings: &mut Settings, clock: Clock) -> Span {
    let Some((span, at)) = length(settings, "group_idle_after") else { return GROUP_IDLE_AFTER };
    if clock == Clock::Stream {
        settings.fault(Fault::new(at, "`group_idle_after` is for clock = \"group\""));
    }
    span
}

/// How many workers an operator has that does not say: where cores are few, others have work enough for them.
fn default_workers() -> usize {
    std::thread::available_parallelism().map_or(1, |cores| (cores.get() / 4).clamp(1, DEFAULT_WORKERS_MAX))
}

fn repeated(settings: &Settings, group_by: &[Name]) {
    for (index, name) in group_by.iter().enumerate() {
        if group_by[..index].iter().any(|earlier| earlier.text == name.text) {
            settings.fault(name.fault(format!("`group_by`: `{}` stands there twice", name.text)));
        }
    }
}

/// `[operators.NAME.aggregates]`: names and SQL texts.
fn aggregates(settings: &mut Settings) -> Vec<(Name, Name)> {
    if !settings.has("aggregates") {
        settings.fault(Fault::new(
            settings.at.clone(),
            "`aggregates` is missing: expected a table like { samples = \"count(*)\" }",
        ));
    }
    let Some(mut table) = settings.table("aggregates") else { return Vec::new() };
    let entries = table.rest();
    if entries.is_empty() {
        settings
            .fault(Fault::new(table.at.clone(), "`aggregates`: expected at least one, like samples = \"count(*)\""));
    }
    let mut aggregates = Vec::new();
    for (name, node) in entries {
        match Name::read(&node) {
            Ok(text) => aggregates.push((name, text)),
            Err(_) => settings.fault(Fault::new(
                node.at,
                format!("`{}`: expected SQL like \"avg(temp)\", got {}", name.text, node.value.type_name()),
            )),
        }
    }
    aggregates
}

impl Spec {
    fn keys(&self, input: &StreamSchema, faults: &mut Vec<Fault>) -> Vec<usize> {
        let mut keys = Vec::new();
        for name in &self.group_by {
            match input.index_of(&name.text) {
                Some(index) => keys.push(index),
                None => faults.push(
                    name.fault(format!("`group_by`: there is no column `{}`", name.text))
                        .nearest(&name.text, input.names()),
                ),
            }
        }
        keys
    }

    fn measures(&self, input: &StreamSchema, faults: &mut Vec<Fault>) -> Vec<Measure> {
        let mut measures: Vec<Measure> = Vec::new();
        for (name, text) in &self.aggregates {
            let taken = OWN_COLUMNS.contains(&name.text.as_str())
                || (self.late == Late::Update && name.text == "revision")
                || self.group_by.iter().any(|key| key.text == name.text);
            if taken {
                faults.push(name.fault(format!("`{}` is a column of the window already", name.text)));
            }
            match measure(name, text, input) {
                Ok(measure) => measures.push(measure),
                Err(fault) => faults.push(fault),
            }
        }
        measures
    }
}

/// Our own kernel where there is one, the adapter otherwise.
fn measure(name: &Name, text: &Name, input: &StreamSchema) -> Result<Measure, Fault> {
    let call = expr::aggregate(text, &input.columns)?;
    let own = if call.special {
        None
    } else {
        let types: Vec<_> = call.args.iter().map(|arg| arg.data_type.clone()).collect();
        let constant = call.args.get(1).and_then(|arg| arg.constant);
        kernel(&call.function, &types, constant).map_err(|why| text.fault(why))?
    };
    let mut args: Vec<_> = call.args.into_iter().map(Arg::Scalar).collect();
    if own.is_some() {
        // The second argument of a quantile is in its kernel.
        args.truncate(1);
    }
    let Some(factory) = own.or(call.adapter) else {
        let known = AGGREGATES.iter().map(|(name, _)| *name);
        let what = if call.special {
            format!("`{}` takes neither DISTINCT nor ORDER BY", call.function)
        } else {
            format!("there is no aggregate `{}` of these arguments", call.function)
        };
        return Err(text.fault(what).nearest(&call.function, known));
    };
    Ok(Measure { name: name.text.clone(), factory, args, filter: call.filter.map(Arg::Scalar) })
}

impl OperatorSpec for Spec {
    fn bind(&self, input: &StreamSchema) -> Result<Bound, Vec<Fault>> {
        let mut faults = Vec::new();
        let group_by = self.keys(input, &mut faults);
        for name in self.group_by.iter().filter(|name| OWN_COLUMNS.contains(&name.text.as_str())) {
            faults.push(name.fault(format!("`{}` is a column of the window already", name.text)));
        }
        let measures = self.measures(input, &mut faults);
        if !faults.is_empty() {
            return Err(faults);
        }
        let setup = Setup {
            input: input.clone(),
            group_by,
            measures,
            shape: self.shape.clone(),
            clock: self.clock,
            group_idle_after: self.group_idle_after,
            allowed_lateness: self.allowed_lateness,
            late: self.late,
            groups_max: self.max_groups,
            overflow: self.overflow,
            forget_after: self.forget_after,
        };
        let (output, identity) = (setup.output(), identity(&setup, &self.aggregates));
        // One group has one worker.
        let workers = if self.group_by.is_empty() { 1 } else { self.workers.unwrap_or_else(default_workers) };
        let operator: Result<Box<dyn Operator>, ArrowError> = match workers {
            1 => Windows::new(setup).map(|windows| Box::new(windows) as _),
            _ => Parallel::new(setup, workers).map(|windows| Box::new(windows) as _),
        };
        let operator = operator.map_err(|error| {
            let at = self.group_by.first().map_or(0..0, |name| name.at.clone());
            vec![Fault::new(at, format!("`group_by`: cannot group by these columns: {error}"))]
        })?;
        Ok(Bound {
            output,
            side: (!self.drops).then(|| ("late", input.clone())),
            operator,
            about: self.about(),
            identity,
        })
    }

    fn gathers(&self) -> bool {
        true
    }

    fn groups_by(&self) -> Vec<String> {
        self.group_by.iter().map(|name| name.text.clone()).collect()
    }
}

impl Spec {
    fn about(&self) -> String {
        let mut about = self.about.clone();
        if !self.group_by.is_empty() {
            let names: Vec<_> = self.group_by.iter().map(|name| name.text.as_str()).collect();
            about.push_str(&format!(" by {}", names.join(", ")));
        }
        if self.clock == Clock::Group {
            about.push_str(&format!(", each on its own clock, at most {} behind the stream", self.group_idle_after));
        }
        if self.allowed_lateness != Span::ZERO {
            about.push_str(&format!(", open {} longer", self.allowed_lateness));
        }
        about.push_str(&format!(", at most {} groups", self.max_groups));
        if let Some(workers) = self.workers.filter(|workers| *workers > 1) {
            about.push_str(&format!(", {workers} workers"));
        }
        about
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::datatypes::{DataType, Field, Schema};

    use super::*;
    use crate::flow::schema::timestamp_type;

    /// The faults of a table: the text that each points at, and what it says.
    fn faults(text: &str) -> Vec<(String, String)> {
        let (mut settings, faults) = Settings::of(text);
        let spec = parse(&mut settings);
        settings.finish();
        let faults = faults.borrow();
        assert_eq!(spec.is_none(), faults.iter().any(|fault| !fault.what.starts_with("unknown key")), "{faults:?}");
        faults.iter().map(|fault| (text[fault.at.clone()].to_owned(), fault.what.clone())).collect()
    }

    #[test]
    fn windows_that_make_sense_have_no_fault() {
        for window in [
            r#"{ tumbling = "10s" }"#,
            r#"{ tumbling = "10s", offset = "3s" }"#,
            r#"{ tumbling = "1d", timezone = "Europe/Berlin", offset = "6h" }"#,
            r#"{ hopping = "60s", every = "1s" }"#,
            r#"{ hopping = "10s", every = "4s", offset = "1s" }"#,
            r#"{ session = "30s" }"#,
        ] {
            for late in ["side", "drop", "update"] {
                let text = format!(
                    "window = {window}\nlate = \"{late}\"\nclock = \"group\"\nallowed_lateness = \"1m\"\naggregates = {{ n = \"count(*)\" }}\n"
                );
                assert_eq!(faults(&text), [], "{text}");
            }
        }
    }

    #[test]
    fn nonsense_is_a_fault_at_its_place() {
        let cases = [
            (r#"{ tumbling = "0s" }"#, r#""0s""#, "no length"),
            (r#"{ hopping = "1s", every = "2s" }"#, r#""2s""#, "longer than the window"),
            (r#"{ hopping = "1s", every = "0s" }"#, r#""0s""#, "no length"),
            (r#"{ hopping = "1s" }"#, r#"{ hopping = "1s" }"#, "`every` is missing"),
            (r#"{ session = "1s", every = "1s" }"#, "every", "is for hopping windows"),
            (r#"{ session = "1s", offset = "1s" }"#, "offset", "is for tumbling windows"),
            (r#"{ tumbling = "1s", session = "1s" }"#, r#"{ tumbling = "1s", session = "1s" }"#, "one kind"),
            (r#"{ tumbling = "1h", timezone = "Europe/Berlin" }"#, r#""Europe/Berlin""#, "whole days"),
            (r#"{ tumbling = "1d", timezone = "Europe/Berlim" }"#, r#""Europe/Berlim""#, "no time zone"),
            (r#"{ tumbling = "10s", offset = "10s" }"#, r#""10s""#, "not less than"),
            (r#"{ tumbling = "999999d" }"#, r#""999999d""#, "longer than"),
            (r#"{ tumbling = 10 }"#, "10", "bare number"),
            (r#"{ tumblin = "10s" }"#, r#"{ tumblin = "10s" }"#, "expected { tumbling"),
            (r#""10s""#, r#""10s""#, "got a string"),
        ];
        for (window, place, what) in cases {
            let text = format!("window = {window}\naggregates = {{ n = \"count(*)\" }}\n");
            let found = faults(&text);
            assert!(found.iter().any(|fault| fault.0 == place && fault.1.contains(what)), "{window}: {found:?}");
        }
        let found = faults("window = { session = \"1s\" }\ngroup_by = [\"a\", \"a\"]\n");
        assert!(found.iter().any(|fault| fault.1.contains("`aggregates` is missing")), "{found:?}");
        assert!(found.iter().any(|fault| fault.0 == "\"a\"" && fault.1.contains("twice")), "{found:?}");
    }

    #[test]
    fn columns_that_are_not_there_are_faults() {
        let text = "window = { session = \"1s\" }\ngroup_by = [\"devise\", \"window_end\"]\naggregates = { n = \"count(*)\" }\n";
        let (mut settings, _) = Settings::of(text);
        let spec = parse(&mut settings).unwrap();
        let columns = Schema::new(vec![
            Field::new("ts", timestamp_type(), false),
            Field::new("device", DataType::Utf8, true),
            Field::new("window_end", timestamp_type(), false),
        ]);
        let input = StreamSchema { columns: Arc::new(columns), time: 0, out_of_orderness: Span::ZERO };
        let faults = spec.bind(&input).err().unwrap();
        assert_eq!(text[faults[0].at.clone()], *"\"devise\"");
        assert_eq!(faults[0].help.as_deref(), Some("did you mean `device`?"));
        assert!(faults[1].what.contains("`window_end` is a column of the window already"));
    }
}
