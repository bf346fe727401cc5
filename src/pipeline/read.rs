//! Values to specs: every table in its own terms, nothing looked up in another.

use std::cell::RefCell;
use std::rc::Rc;

use crate::component::{ByteSize, Fault, Kind, Name, Node, Settings};
use crate::flow::time::Span;
use crate::flow::topic::Topics;
use crate::format::DecoderSpec;
use crate::format::columns::{self, Columns};
use crate::ingest::SourceSpec;
use crate::operator::OperatorSpec;
use crate::pipeline::Registry;
use crate::pipeline::plan::{OnError, TimeSettings};
use crate::sink::SinkSpec;

/// A pipeline file, read. What was at fault is `None`, and the fault is noted.
pub(crate) struct Read {
    pub(crate) name: String,
    pub(crate) epoch: Span,
    pub(crate) channel_batches: usize,
    pub(crate) batch_rows: usize,
    pub(crate) batch_bytes: u64,
    pub(crate) sources: Vec<ReadSource>,
    pub(crate) operators: Vec<ReadStage<dyn OperatorSpec>>,
    pub(crate) sinks: Vec<ReadStage<dyn SinkSpec>>,
}

/// `[sources.NAME]`.
pub(crate) struct ReadSource {
    pub(crate) name: Name,
    pub(crate) kind: &'static str,
    pub(crate) spec: Option<Box<dyn SourceSpec>>,
    pub(crate) decoder: Option<Box<dyn DecoderSpec>>,
    pub(crate) columns: Option<Columns>,
    pub(crate) time: TimeSettings,
    pub(crate) on_error: OnError,
}

/// `[operators.NAME]` or `[sinks.NAME]`.
pub(crate) struct ReadStage<S: ?Sized> {
    pub(crate) name: Name,
    pub(crate) kind: &'static str,
    pub(crate) inputs: Vec<Name>,
    pub(crate) spec: Option<Box<S>>,
}

/// The default of `pipeline.epoch`.
const EPOCH: Span = Span::from_secs(10);
/// The default of `pipeline.channel_batches`.
const CHANNEL_BATCHES: usize = 8;
/// The default of `pipeline.batch_rows`.
const BATCH_ROWS: usize = 8_192;
/// The default of `pipeline.batch_bytes`.
const BATCH_BYTES: ByteSize = ByteSize(1 << 20);

type Shared = Rc<RefCell<Vec<Fault>>>;

/// Reads all tables.
pub(crate) fn read(registry: Registry, len: usize, entries: Vec<(Name, Node)>, faults: &mut Vec<Fault>) -> Read {
    let shared: Shared = Rc::default();
    let mut file = Settings::new(0..len.min(1), entries, shared.clone());
    let mut read = pipeline(&mut file);
    for (name, mut settings) in named(&mut file, "sources", &shared) {
        read.sources.push(source(registry, name, &mut settings));
    }
    for (name, mut settings) in named(&mut file, "operators", &shared) {
        read.operators.push(stage(registry.operators, "operator", name, &mut settings));
    }
    for (name, mut settings) in named(&mut file, "sinks", &shared) {
        read.sinks.push(stage(registry.sinks, "sink", name, &mut settings));
    }
    file.finish();
    faults.append(&mut shared.borrow_mut());
    read
}

fn pipeline(file: &mut Settings) -> Read {
    let mut read = Read {
        name: String::new(),
        epoch: EPOCH,
        channel_batches: CHANNEL_BATCHES,
        batch_rows: BATCH_ROWS,
        batch_bytes: BATCH_BYTES.0,
        sources: Vec::new(),
        operators: Vec::new(),
        sinks: Vec::new(),
    };
    if !file.has("pipeline") {
        file.fault(Fault::new(file.at.clone(), "`[pipeline]` is missing: expected at least `name = \"…\"` in it"));
    }
    let Some(mut settings) = file.table("pipeline") else { return read };
    if let Some(name) = settings.required::<Name>("name") {
        let wrong = |c: char| !(c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '-');
        if !name.text.starts_with(|c: char| c.is_ascii_lowercase()) || name.text.contains(wrong) {
            settings.fault(name.fault(format!(
                "`{}` is no name: expected lower-case letters, digits, `_` and `-`, a letter first",
                name.text
            )));
        }
        read.name = name.text;
    }
    let at = settings.at.clone();
    read.epoch = settings.or("epoch", EPOCH);
    if read.epoch == Span::ZERO {
        settings.fault(Fault::new(
            at,
            "`epoch`: results of an epoch of no length never become visible; expected a length of time like \"10s\"",
        ));
    }
    no_journal_yet(&mut settings);
    read.channel_batches = settings.or("channel_batches", CHANNEL_BATCHES);
    read.batch_rows = settings.or("batch_rows", BATCH_ROWS);
    read.batch_bytes = settings.or("batch_bytes", BATCH_BYTES).0.max(1);
    settings.finish();
    read
}

/// What needs the journal is refused in words that say so.
fn no_journal_yet(settings: &mut Settings) {
    const INSTEAD: &str = "this build keeps no journal: write `durability = \"none\"`, or leave the key out";
    if let Some(word) = settings.optional::<Name>("durability")
        && word.text != "none"
    {
        let what = format!("`durability`: expected \"none\", got \"{}\"", word.text);
        settings.fault(word.fault(what).help(INSTEAD));
    }
    for key in ["state", "journal", "memory"] {
        if let Some((name, _)) = settings.take(key) {
            settings
                .fault(name.fault(format!("`{key}` needs the journal, which this build does not have")).help(INSTEAD));
        }
    }
}

/// `[SECTION.NAME]` tables, their names checked.
fn named(file: &mut Settings, section: &'static str, shared: &Shared) -> Vec<(Name, Settings)> {
    let Some(mut table) = file.table(section) else { return Vec::new() };
    let mut found = Vec::new();
    for (name, node) in table.rest() {
        let wrong = |c: char| !(c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
        if !name.text.starts_with(|c: char| c.is_ascii_lowercase()) || name.text.contains(wrong) {
            let what =
                format!("`{}` is no name: expected lower-case letters, digits and `_`, a letter first", name.text);
            shared.borrow_mut().push(name.fault(what));
        }
        if let Some(mut settings) = table.as_table(&name.text, node) {
            // A fault about the whole table points at its name, not at all of its lines.
            settings.at = name.at.clone();
            found.push((name, settings));
        }
    }
    found
}

/// The kind that `key` says, if there is one.
fn kind<S: ?Sized>(
    kinds: &'static [Kind<S>],
    key: &'static str,
    what: &str,
    settings: &mut Settings,
) -> Option<&'static Kind<S>> {
    let word = settings.required::<Name>(key)?;
    let found = kinds.iter().find(|kind| kind.name == word.text);
    if found.is_none() {
        let known: Vec<_> = kinds.iter().map(|kind| kind.name).collect();
        let fault = word.fault(format!("there is no {what} \"{}\"; there are {}", word.text, known.join(", ")));
        settings.fault(fault.nearest(&word.text, known.iter().copied()));
    }
    found
}

/// Reads what is left of a table as its kind wants it; its unknown keys are faults only where the kind is known.
fn spec<S: ?Sized>(kind: Option<&'static Kind<S>>, settings: &mut Settings) -> Option<Box<S>> {
    let before = settings.faults_len();
    let spec = (kind?.parse)(settings);
    settings.finish();
    spec.filter(|_| settings.faults_len() == before)
}

fn stage<S: ?Sized>(kinds: &'static [Kind<S>], what: &str, name: Name, settings: &mut Settings) -> ReadStage<S> {
    let kind = kind(kinds, "type", what, settings);
    let inputs: Option<Vec<Name>> = settings.required("inputs");
    let nothing = inputs.as_ref().is_some_and(Vec::is_empty);
    let inputs = inputs.unwrap_or_default();
    if nothing {
        settings.fault(name.fault(format!("`{}` has no inputs: expected at least one name in `inputs`", name.text)));
    }
    ReadStage { kind: kind.map_or("", |kind| kind.name), spec: spec(kind, settings), name, inputs }
}

fn source(registry: Registry, name: Name, settings: &mut Settings) -> ReadSource {
    let kind = kind(registry.sources, "type", "source", settings);
    if !settings.has("decode") {
        settings.fault(
            name.fault("`decode` is missing: expected a table with `format`, such as `decode = { format = \"json\" }`"),
        );
    }
    let (decode, columns, time) = (settings.table("decode"), settings.table("columns"), settings.table("time"));
    let spec = spec(kind, settings);
    let (decoder, on_error) = decode.map_or((None, OnError::DeadLetter), |decode| read_decode(registry, decode));
    let (time, time_column) = time.map_or((TIME, None), read_time);
    // Without the source's spec its captures are not known; types and paths can be wrong all the same.
    let topics = spec.as_ref().map_or_else(Topics::default, |spec| spec.topics().clone());
    let implied = decoder.as_ref().and_then(|decoder| decoder.implied());
    let columns = match columns::read(columns, &topics, time_column.as_ref().filter(|_| spec.is_some()), implied) {
        Ok(columns) => spec.is_some().then_some(columns),
        Err(faults) => {
            faults.into_iter().for_each(|fault| settings.fault(fault));
            None
        }
    };
    ReadSource { name, kind: kind.map_or("", |kind| kind.name), spec, decoder, columns, time, on_error }
}

fn read_decode(registry: Registry, mut decode: Settings) -> (Option<Box<dyn DecoderSpec>>, OnError) {
    let kind = kind(registry.formats, "format", "format", &mut decode);
    let choices = [("dead_letter", OnError::DeadLetter), ("drop", OnError::Drop), ("stop", OnError::Stop)];
    let on_error = decode.choice("on_error", &choices, OnError::DeadLetter);
    (spec(kind, &mut decode), on_error)
}

/// The defaults of `[sources.NAME.time]`.
const TIME: TimeSettings = TimeSettings {
    out_of_orderness: Span::from_secs(5),
    idle_after: Some(Span::from_secs(30)),
    max_future: Span::from_secs(300),
};

fn read_time(mut settings: Settings) -> (TimeSettings, Option<Name>) {
    let column = settings.optional("column");
    let out_of_orderness = settings.or("out_of_orderness", TIME.out_of_orderness);
    let max_future = settings.or("max_future", TIME.max_future);
    let idle_after = match settings.take("idle_after") {
        None => TIME.idle_after,
        Some((_, node)) if node.value == crate::component::Value::String("never".to_owned()) => None,
        Some((name, node)) => {
            let read = <Span as crate::component::Setting>::read(&node);
            if let Err(why) = &read {
                let why =
                    why.clone().unwrap_or_else(|| format!("expected a length of time, got {}", node.value.type_name()));
                settings.fault(Fault::new(node.at, format!("`{}`: {why}; or \"never\"", name.text)));
            }
            read.ok()
        }
    };
    settings.finish();
    (TimeSettings { out_of_orderness, idle_after, max_future }, column)
}
