//! Pipeline files of kinds that exist for these tests only: what is tested is the pipeline, not its parts.

use std::sync::Arc;

use arrow::datatypes::{Field, Schema};

use super::plan::{Edge, Plan};
use super::{Registry, load_from};
use crate::component::{Fault, Kind, Name, Settings};
use crate::flow::batch::Batch;
use crate::flow::outbox::{Emit, Port};
use crate::flow::schema::{StreamSchema, timestamp_type};
use crate::flow::time::Span;
use crate::flow::topic::Topics;
use crate::format::columns::Columns;
use crate::format::{Decoder, DecoderSpec};
use crate::ingest::{BoxFuture, Source, SourceContext, SourceError, SourceSpec};
use crate::operator::{Bound, Operator, OperatorError, OperatorSpec};
use crate::sink::{Sink, SinkContext, SinkError, SinkSpec};

const KINDS: Registry = Registry {
    sources: &[Kind { name: "feed", about: "", parse: feed }],
    formats: &[Kind {
        name: "lines",
        about: "",
        parse: |settings| Some(Box::new(Lines(settings.optional("refuses")))),
    }],
    operators: &[
        Kind { name: "pass", about: "", parse: |settings| Some(Box::new(Pass(settings.optional("needs")))) },
        Kind { name: "gather", about: "", parse: |settings| Some(Box::new(Gather(settings.or("size", 1)))) },
        Kind { name: "mute", about: "", parse: |_| None },
    ],
    sinks: &[Kind { name: "keep", about: "", parse: |settings| Some(Box::new(Keep(settings.optional("needs")))) }],
};

#[derive(Debug)]
struct Feed {
    topics: Topics,
    shared_group: Option<Name>,
}

fn feed(settings: &mut Settings) -> Option<Box<dyn SourceSpec>> {
    let topics = settings.required::<Vec<Name>>("topics");
    let shared_group = settings.optional("shared_group");
    match Topics::read(&topics?) {
        Ok(topics) => Some(Box::new(Feed { topics, shared_group })),
        Err(faults) => {
            faults.into_iter().for_each(|fault| settings.fault(fault));
            None
        }
    }
}

impl SourceSpec for Feed {
    fn topics(&self) -> &Topics {
        &self.topics
    }
    fn shared_group(&self) -> Option<&Name> {
        self.shared_group.as_ref()
    }
    fn describe(&self) -> String {
        "a feed".to_owned()
    }
    fn memory_bytes(&self) -> u64 {
        3 << 20
    }
    fn open(&self, _: SourceContext) -> BoxFuture<'_, Result<Box<dyn Source>, SourceError>> {
        unreachable!("a check opens nothing")
    }
}

/// Refuses columns of a name.
#[derive(Debug)]
struct Lines(Option<Name>);

impl DecoderSpec for Lines {
    fn check(&self, columns: &Columns) -> Vec<Fault> {
        let refused =
            columns.columns.iter().filter(|column| self.0.as_ref().is_some_and(|name| name.text == column.name.text));
        refused.map(|column| column.name.fault("lines cannot hold this column")).collect()
    }
    fn build(&self, _: &Columns) -> Box<dyn Decoder> {
        unreachable!("a check opens nothing")
    }
}

fn needed(needs: Option<&Name>, input: &StreamSchema) -> Vec<Fault> {
    let missing = needs.filter(|name| input.index_of(&name.text).is_none());
    missing
        .map(|name| name.fault(format!("no column `{}`", name.text)).nearest(&name.text, input.names()))
        .into_iter()
        .collect()
}

/// Passes rows on; needs a column.
#[derive(Debug)]
struct Pass(Option<Name>);

impl OperatorSpec for Pass {
    fn bind(&self, input: &StreamSchema) -> Result<Bound, Vec<Fault>> {
        let faults = needed(self.0.as_ref(), input);
        let (output, operator) = (input.clone(), Box::new(Running));
        if faults.is_empty() {
            Ok(Bound { output, side: None, operator, about: "passes".to_owned(), identity: Vec::new() })
        } else {
            Err(faults)
        }
    }
}

/// Gathers rows; has other columns and a side output.
#[derive(Debug)]
struct Gather(u64);

impl OperatorSpec for Gather {
    fn bind(&self, input: &StreamSchema) -> Result<Bound, Vec<Fault>> {
        let columns = Schema::new(vec![Field::new("window_end", timestamp_type(), false)]);
        let output = StreamSchema { columns: Arc::new(columns), time: 0, out_of_orderness: input.out_of_orderness };
        let about = format!("gathers {}", self.0);
        Ok(Bound {
            output,
            side: Some(("late", input.clone())),
            operator: Box::new(Running),
            about,
            identity: Vec::new(),
        })
    }
    fn gathers(&self) -> bool {
        true
    }
}

struct Running;

impl Operator for Running {
    fn process(&mut self, _: Batch, _: &mut dyn Emit) -> Result<(), OperatorError> {
        unreachable!("a check runs nothing")
    }
}

#[derive(Debug)]
struct Keep(Option<Name>);

impl SinkSpec for Keep {
    fn check(&self, input: &StreamSchema) -> Vec<Fault> {
        needed(self.0.as_ref(), input)
    }
    fn describe(&self) -> String {
        "keeps rows".to_owned()
    }
    fn open(&self, _: &SinkContext, _: &StreamSchema) -> Result<Box<dyn Sink>, SinkError> {
        unreachable!("a check opens nothing")
    }
}

/// A file with a source `a` that has the columns `ts`, `temp` and `device`, and what follows.
fn file(rest: &str) -> String {
    format!("[pipeline]\nname = \"p\"\n{}{rest}", source("a", ""))
}

fn source(name: &str, more: &str) -> String {
    format!(
        "[sources.{name}]\ntype = \"feed\"\ntopics = [\"t/{{device}}\"]\n{more}\n\
         columns = {{ ts = {{ type = \"timestamp\", unit = \"ms\" }}, temp = \"float64\" }}\n\
         decode = {{ format = \"lines\" }}\ntime = {{ column = \"ts\" }}\n"
    )
}

fn operator(name: &str, kind: &str, inputs: &str) -> String {
    format!("[operators.{name}]\ntype = \"{kind}\"\ninputs = {inputs}\n")
}

fn sink(name: &str, inputs: &str) -> String {
    format!("[sinks.{name}]\ntype = \"keep\"\ninputs = {inputs}\n")
}

fn load(text: &str) -> Result<Plan, super::fault::Faults> {
    load_from(KINDS, "p.toml", text, &|name| (name == "SET").then(|| "a".to_owned()))
}

fn plan(text: &str) -> Plan {
    load(text).unwrap_or_else(|faults| panic!("{faults}"))
}

/// The faults of a file: what the file says there, and the beginning of what is wrong.
fn check(text: &str, expected: &[(&str, &str)]) {
    let faults = load(text).err().map(|faults| faults.iter().cloned().collect::<Vec<_>>()).unwrap_or_default();
    let found: Vec<_> = faults.iter().map(|fault| (&text[fault.at.clone()], fault.what.as_str())).collect();
    let same = found.len() == expected.len()
        && found.iter().zip(expected).all(|(found, expected)| found.0 == expected.0 && found.1.contains(expected.1));
    assert!(same, "{text}\nfound    {found:#?}\nexpected {expected:#?}");
}

#[test]
fn stages_are_numbered_along_the_flow() {
    let late = format!(
        "{}{}{}{}{}",
        operator("last", "pass", "[\"sum\"]"),
        operator("sum", "gather", "[\"first\"]"),
        operator("first", "pass", "[\"a\"]"),
        sink("out", "[\"last\"]"),
        sink("rest", "[\"sum.late\", \"first\"]"),
    );
    let plan = plan(&(file(&late) + &sink("dead", "[\"a.dead_letter\"]")));
    let operators: Vec<_> =
        plan.operators.iter().map(|operator| (operator.name.text.as_str(), operator.inputs.as_slice())).collect();
    let main = |from| Edge { from, port: Port::Main };
    assert_eq!(operators, [("first", &[main(0)][..]), ("sum", &[main(1)]), ("last", &[main(2)])]);
    let sinks: Vec<_> = plan.sinks.iter().map(|sink| sink.inputs.as_slice()).collect();
    let side = |from| Edge { from, port: Port::Side };
    assert_eq!(sinks, [&[main(3)][..], &[side(2), main(1)], &[side(0)]]);
    assert_eq!(plan.sinks[2].input.index_of("reason"), Some(3));
    assert_eq!(plan.sources[0].output.names().collect::<Vec<_>>(), ["ts", "temp", "device"]);
}

#[test]
fn a_plan_shows_its_graph_its_schemas_and_its_memory() {
    let text =
        file(&operator("sum", "gather", "[\"a\"]")) + &sink("out", "[\"sum\"]") + &sink("late", "[\"sum.late\"]");
    let shown = plan(&text).to_string();
    for part in [
        "source a (feed): a feed\n",
        "    ts      timestamp, never null, event time\n    temp    float64\n    device  utf8\n",
        "operator sum (gather) ◄─ a: gathers 1\n    window_end  timestamp, never null, event time\n  sum.late\n    ts ",
        "sink out (keep) ◄─ sum: keeps rows\n",
        // 8 + 8 + 32 bytes a row, 8 batches of 8192 rows.
        "  a ─► sum: 65536 rows of 48 bytes, 3MiB\n",
        "  sum ─► out: 65536 rows of 8 bytes, 1MiB\n",
        "  sum.late ─► late: 65536 rows of 48 bytes, 3MiB\n",
    ] {
        assert!(shown.contains(part), "{part}\n{shown}");
    }
}

#[test]
fn five_faults_have_five_places() {
    let text = "[pipeline]\nname = \"Plant\"\nepock = \"1s\"\n".to_owned()
        + &source("a", "colour = 1")
        + &operator("p", "passs", "[\"a\"]")
        + &operator("q", "pass", "[\"b\"]")
        + &sink("out", "[\"p\", \"q\"]");
    check(
        &text,
        &[
            ("\"Plant\"", "`Plant` is no name"),
            ("epock", "unknown key `epock`"),
            ("colour", "unknown key `colour`"),
            ("\"passs\"", "there is no operator \"passs\""),
            ("\"b\"", "there is no source or operator `b`"),
        ],
    );
}

#[test]
fn a_fault_upstream_is_told_once() {
    // `p` cannot be bound, so nobody knows its rows; `q` reads the source itself, and has a fault of its own.
    let text = file(&operator("p", "pass", "[\"a\"]"))
        + "needs = \"tmep\"\n"
        + &operator("after", "pass", "[\"p\"]")
        + "needs = \"nothing\"\n"
        + &operator("q", "pass", "[\"a\"]")
        + "needs = \"humidity\"\n"
        + &sink("out", "[\"after\"]")
        + &sink("more", "[\"q\"]");
    check(&text, &[("\"tmep\"", "no column `tmep`"), ("\"humidity\"", "no column `humidity`")]);
    let help = load(&text).err().and_then(|faults| faults.iter().next().and_then(|fault| fault.help.clone()));
    assert_eq!(help.as_deref(), Some("did you mean `temp`?"));
}

#[test]
fn an_unknown_key_of_a_source_hides_nothing() {
    let text = file("").replace("topics", "colour = 1\ntopics") + &sink("out", "[\"a\"]") + "needs = \"hum\"\n";
    check(&text, &[("colour", "unknown key"), ("\"hum\"", "no column `hum`")]);
}

#[test]
fn what_a_misspelt_key_would_have_made_is_not_guessed() {
    let text =
        file(&operator("p", "pass", "[\"a\"]")) + "neds = \"temp\"\n" + &sink("out", "[\"p\"]") + "needs = \"hum\"\n";
    check(&text, &[("neds", "unknown key `neds`")]);
    let text = file("").replace("type = \"feed\"", "tpye = \"feed\"") + &sink("out", "[\"a\"]");
    check(&text, &[("a", "`type` is missing: expected one of feed"), ("tpye", "unknown key `tpye`")]);
}

#[test]
fn inputs_must_exist_and_give_rows() {
    let from =
        |inputs: &str| file(&operator("sum", "gather", "[\"a\"]")) + &sink("one", "[\"sum\"]") + &sink("out", inputs);
    check(&from("[\"smu\"]"), &[("\"smu\"", "there is no source or operator `smu`")]);
    check(&from("[\"one\"]"), &[("\"one\"", "`one` is a sink")]);
    check(&from("[\"sum.lately\"]"), &[("\"sum.lately\"", "`sum` has no output `lately`")]);
    check(&from("[\"a.late\"]"), &[("\"a.late\"", "`a` has no output `late`; it has `a` and `a.dead_letter`")]);
    check(&from("[\"sum\", \"sum\"]"), &[("\"sum\"", "`sum` stands in `inputs` twice")]);
    check(
        &from("\"sum\""),
        &[("\"sum\"", "`inputs`: expected at least one name, such as [\"telemetry\"], got a string")],
    );
    check(&from("[1, \"sum\", true]"), &[("1", "got a whole number"), ("true", "got true or false")]);
    check(&from("[]"), &[("inputs", "got none")]);
    check(&from("[\"${SET}\"]"), &[]);
    check(&from("[\"${UNSET}\"]"), &[("${UNSET}", "the variable `UNSET` is not set")]);
}

#[test]
fn what_nobody_reads_is_a_fault() {
    let unread = file(&(source("b", "") + &operator("p", "pass", "[\"a\"]"))) + &sink("out", "[\"a\"]");
    check(&unread, &[("b", "nothing reads `b`"), ("p", "nothing reads `p`")]);
    // Whoever was meant by a misspelt input is not told to be unread as well.
    check(
        &(file(&operator("warm", "pass", "[\"a\"]")) + &sink("out", "[\"wram\"]")),
        &[("\"wram\"", "there is no source")],
    );
    check(&(file("") + &sink("out", "[\"a.dead_letter\"]")), &[]);
    check(&(file("") + "[sinks.out]\ntype = \"keep\"\n"), &[("out", "`inputs` is missing")]);
}

#[test]
fn operators_in_a_circle_are_told_by_name() {
    let text = file(&operator("x", "pass", "[\"y\", \"a\"]"))
        + &operator("y", "pass", "[\"z\"]")
        + &operator("z", "pass", "[\"x\"]")
        + &operator("self", "pass", "[\"self\"]")
        + &operator("after", "pass", "[\"z\", \"self\"]")
        + &operator("fine", "pass", "[\"a\"]")
        + "needs = \"hum\"\n"
        + &sink("out", "[\"after\", \"fine\"]");
    check(
        &text,
        &[
            ("x", "operators read each other in a circle: x → z → y → x"),
            ("self", "operators read each other in a circle: self → self"),
            ("\"hum\"", "no column `hum`"),
        ],
    );
}

#[test]
fn several_inputs_must_have_the_same_columns() {
    let other = |from: &str, to: &str| file(&source("b", "").replace(from, to)) + &sink("out", "[\"a\", \"b\"]");
    let differs = |why| [("\"b\"", why)];
    check(&other("float64", "int32"), &differs("`temp` (int32) stands where `temp` (float64) is expected"));
    check(&other("temp", "hum"), &differs("`hum` (float64) stands where `temp` (float64) is expected"));
    check(&other("\"t/{device}\"", "\"t\""), &differs("it lacks `device`"));
    check(&other("\"t/{device}\"", "\"t/{device}/{place}\""), &differs("it has `place` besides"));
    let nullable = "{ type = \"float64\", required = true }";
    check(&other("\"float64\"", nullable), &differs("`temp` may be null in one and not in the other"));
    let plan = plan(&other("column = \"ts\"", "column = \"ts\", out_of_orderness = \"7s\""));
    assert_eq!(plan.sinks[0].input.out_of_orderness, Span::from_secs(7));
}

#[test]
fn a_shared_feed_cannot_be_gathered() {
    let text = |first: &str| {
        format!("[pipeline]\nname = \"p\"\n{}", source("a", "shared_group = \"team\""))
            + &operator("p", "pass", "[\"a\"]")
            + &operator("sum", first, "[\"p\"]")
            + &sink("out", "[\"sum\"]")
    };
    check(&text("pass"), &[]);
    check(&text("gather"), &[("\"team\"", "`shared_group` of `a` feeds `sum`")]);
}

#[test]
fn the_journal_has_settings() {
    let with =
        |line: &str| file("").replace("name = \"p\"", &format!("name = \"p\"\n{line}")) + &sink("out", "[\"a\"]");
    check(&with("durability = \"none\""), &[]);
    check(&with("durability = \"journal\""), &[]);
    check(&with("durability = \"disk\""), &[("\"disk\"", "expected \"journal\" or \"none\", got \"disk\"")]);
    check(&with("state = \"\""), &[("\"\"", "expected a folder")]);
    check(&with("journal = { sync = \"always\" }"), &[("\"always\"", "expected \"group\", \"interval:100ms\"")]);
    check(&with("journal = { sync = \"interval:0s\" }"), &[("\"interval:0s\"", "got \"interval:0s\"")]);
    check(&with("journal = { quota = \"1KiB\" }"), &[("\"1KiB\"", "expected 1MiB to")]);
    check(&with("journal = { quota = \"4MiB\", keep = \"3MiB\" }"), &[("\"3MiB\"", "expected 0B to 2MiB")]);
    check(&with("durability = \"none\"\nstate = \"s\""), &[("state", "does nothing with")]);
    let plan = load(&with("journal = { quota = \"4MiB\", sync = \"interval:50ms\" }")).unwrap();
    let durability = plan.durability.unwrap();
    assert_eq!(durability.state, std::path::Path::new("state/p"));
    assert_eq!((durability.quota, durability.keep), (4 << 20, 0));
    assert_eq!(durability.sync, crate::ingest::journal::Sync::Interval(std::time::Duration::from_millis(50)));
}

#[test]
fn settings_have_limits() {
    let with =
        |line: &str| file("").replace("name = \"p\"", &format!("name = \"p\"\n{line}")) + &sink("out", "[\"a\"]");
    check(&with("epoch = \"0s\""), &[("\"0s\"", "an epoch of no length never ends")]);
    check(&with("epoch = 10"), &[("10", "a bare number is no length of time")]);
    check(&with("channel_batches = 65537"), &[("65537", "expected 1 to 65536, got 65537")]);
    check(&with("batch_rows = 0"), &[("0", "expected a whole number from 1, got 0")]);
    check(&with("batch_bytes = \"2GiB\""), &[("\"2GiB\"", "expected 1B to 1GiB, got 2GiB")]);
    let idle = |value: &str| {
        file("").replace("column = \"ts\"", &format!("column = \"ts\", idle_after = {value}")) + &sink("out", "[\"a\"]")
    };
    assert_eq!(plan(&idle("\"never\"")).sources[0].time.idle_after, None);
    assert_eq!(plan(&idle("\"9s\"")).sources[0].time.idle_after, Some(Span::from_secs(9)));
    check(
        &idle("\"0s\""),
        &[("\"0s\"", "a source would be idle at once; expected a length of time like \"10s\", or \"never\"")],
    );
    check(&idle("9"), &[("9", "a bare number is no length of time")]);
}

#[test]
fn names_are_plain_and_unique() {
    check(&(file("") + &sink("a", "[\"a\"]")), &[("a", "the name `a` is taken: a source has it")]);
    check(&(file("") + &sink("\"a.b\"", "[\"a\"]")), &[("\"a.b\"", "`a.b` is no name")]);
    check(&(file("") + &sink("Out", "[\"a\"]")), &[("Out", "`Out` is no name")]);
    check(
        &(file("") + &sink("out", "[\"a\"]") + "[sinks.out]\ntype = \"keep\"\n"),
        &[("out", "`out` stands there twice")],
    );
}

#[test]
fn what_is_missing_is_told() {
    let alone = "[pipeline]\nname = \"p\"\n";
    check(alone, &[("[pipeline]", "no sink"), ("[pipeline]", "no source")]);
    check("", &[("", "`[pipeline]` is missing"), ("", "no sink"), ("", "no source")]);
    check(&(file("").replace("name = \"p\"\n", "") + &sink("out", "[\"a\"]")), &[("[pipeline]", "`name` is missing")]);
    check(
        &(file("").replace("decode = { format = \"lines\" }", "") + &sink("out", "[\"a\"]")),
        &[("a", "`decode` is missing")],
    );
    let refused =
        file("").replace("format = \"lines\"", "format = \"lines\", refuses = \"temp\"") + &sink("out", "[\"a\"]");
    check(&refused, &[("temp", "lines cannot hold this column")]);
    check(&(file("") + &sink("out", "[\"a\"]") + "[sink.b]\ntype = \"keep\"\n"), &[("sink", "unknown key `sink`")]);
}

#[test]
fn a_part_that_refuses_without_a_word_does_not_pass() {
    let text = file(&operator("m", "mute", "[\"a\"]")) + &sink("out", "[\"m\"]");
    check(&text, &[("[pipeline]", "the pipeline cannot be planned")]);
}
