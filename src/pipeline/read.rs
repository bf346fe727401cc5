//! Values to specs: every table in its own terms, nothing looked up in another.

use std::cell::RefCell;
use std::ops::{Range, RangeInclusive};
use std::path::PathBuf;
use std::rc::Rc;

use crate::component::{ByteSize, Fault, Kind, Name, Node, Setting, Settings, Value, nearest};
use crate::flow::time::Span;
use crate::flow::topic::Topics;
use crate::format::DecoderSpec;
use crate::format::columns::{self, Columns};
use crate::format::inner::Nested;
use crate::ingest::SourceSpec;
use crate::ingest::decoding::DECODERS_MAX;
use crate::ingest::journal::Sync;
use crate::operator::OperatorSpec;
use crate::pipeline::Registry;
use crate::pipeline::plan::{Durability, JOURNAL_QUOTA, OnError, TimeSettings};
use crate::sink::SinkSpec;

/// A pipeline file, read. What was at fault is `None`, and the fault is noted.
pub(crate) struct Read {
    /// The place of `[pipeline]`, for faults of the whole.
    pub(crate) at: Range<usize>,
    pub(crate) name: String,
    pub(crate) epoch: Span,
    pub(crate) channel_batches: usize,
    pub(crate) batch_rows: usize,
    pub(crate) batch_bytes: u64,
    pub(crate) durability: Option<Durability>,
    pub(crate) memory: u64,
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
    pub(crate) decoders: Option<usize>,
}

/// `[operators.NAME]` or `[sinks.NAME]`.
pub(crate) struct ReadStage<S: ?Sized> {
    pub(crate) name: Name,
    pub(crate) kind: &'static str,
    /// `None` where they could not be read.
    pub(crate) inputs: Option<Vec<Name>>,
    pub(crate) spec: Option<Box<S>>,
    /// A key is unknown, most likely a misspelt one: who knows what rows it would have made.
    pub(crate) misspelt: bool,
}

/// The default of `pipeline.epoch`.
const EPOCH: Span = Span::from_secs(10);
/// The default of `pipeline.channel_batches`.
const CHANNEL_BATCHES: usize = 8;
/// The default of `pipeline.batch_rows`.
const BATCH_ROWS: usize = 8_192;
/// The default of `pipeline.batch_bytes`.
const BATCH_BYTES: ByteSize = ByteSize(1 << 20);

/// The default of `pipeline.memory`: bytes of payloads that wait in memory, of all sources together.
const MEMORY: ByteSize = ByteSize(512 << 20);

/// What a quota may be: below it there is no room for one segment after the other.
const JOURNAL_QUOTA_MIN: ByteSize = ByteSize(1 << 20);
const JOURNAL_QUOTA_MAX: ByteSize = ByteSize(1 << 50);
/// Less memory than this holds no payload of the largest kind.
const MEMORY_MIN: ByteSize = ByteSize(1 << 20);
/// What a channel may be made to hold: its slots are allocated at once.
const CHANNEL_BATCHES_MAX: usize = 1 << 16;
/// What a batch may be made to hold.
const BATCH_ROWS_MAX: usize = 1 << 20;
/// What a batch may be made of.
const BATCH_BYTES_MAX: ByteSize = ByteSize(1 << 30);

/// A setting with its place, for what is wrong beyond its type.
struct At<T>(T, Range<usize>);

impl<T: Setting> Setting for At<T> {
    const EXPECTED: &'static str = T::EXPECTED;
    fn read(node: &Node) -> Result<Self, Option<String>> {
        Ok(Self(T::read(node)?, node.at.clone()))
    }
}

/// A setting that must lie in a range.
fn within<T>(settings: &mut Settings, key: &'static str, default: T, range: RangeInclusive<T>) -> T
where
    T: Setting + PartialOrd + std::fmt::Display,
{
    let Some(At(value, at)) = settings.optional::<At<T>>(key) else { return default };
    if range.contains(&value) {
        return value;
    }
    settings.fault(Fault::new(at, format!("`{key}`: expected {} to {}, got {value}", range.start(), range.end())));
    default
}

/// A length of time that is not nought; `why` says what nought would do.
fn positive(settings: &mut Settings, key: &'static str, default: Span, why: &str) -> Span {
    match settings.optional::<At<Span>>(key) {
        Some(At(span, at)) if span == Span::ZERO => {
            settings.fault(Fault::new(at, format!("`{key}`: {why}; expected a length of time like \"10s\"")));
            default
        }
        read => read.map_or(default, |At(span, _)| span),
    }
}

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
        at: file.at.clone(),
        name: String::new(),
        epoch: EPOCH,
        channel_batches: CHANNEL_BATCHES,
        batch_rows: BATCH_ROWS,
        batch_bytes: BATCH_BYTES.0,
        durability: None,
        memory: MEMORY.0,
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
    read.at = settings.at.clone();
    read.epoch = positive(&mut settings, "epoch", EPOCH, "an epoch of no length never ends");
    read.durability = durability(&mut settings, &read.name);
    read.memory = within(&mut settings, "memory", MEMORY, MEMORY_MIN..=ByteSize(u64::MAX)).0;
    read.channel_batches = within(&mut settings, "channel_batches", CHANNEL_BATCHES, 1..=CHANNEL_BATCHES_MAX);
    read.batch_rows = within(&mut settings, "batch_rows", BATCH_ROWS, 1..=BATCH_ROWS_MAX);
    read.batch_bytes = within(&mut settings, "batch_bytes", BATCH_BYTES, ByteSize(1)..=BATCH_BYTES_MAX).0;
    settings.finish();
    read
}

/// Whether and how a journal and checkpoints are kept.
fn durability(settings: &mut Settings, name: &str) -> Option<Durability> {
    let keeps = settings.choice("durability", &[("journal", true), ("none", false)], true);
    let mut read = Durability { state: PathBuf::from("state").join(name), ..Durability::default() };
    if !keeps {
        for key in ["state", "journal"] {
            if let Some((key, _)) = settings.take(key) {
                let what = format!("`{}` does nothing with `durability = \"none\"`", key.text);
                settings.fault(key.fault(what).help("leave one of the two out"));
            }
        }
        return None;
    }
    if let Some(state) = settings.optional::<Name>("state") {
        if state.text.is_empty() {
            settings.fault(state.fault("`state`: expected a folder, got an empty string"));
        }
        read.state = PathBuf::from(state.text);
    }
    if let Some(mut table) = settings.table("journal") {
        read.quota = within(&mut table, "quota", JOURNAL_QUOTA, JOURNAL_QUOTA_MIN..=JOURNAL_QUOTA_MAX).0;
        read.keep = within(&mut table, "keep", ByteSize(0), ByteSize(0)..=ByteSize(read.quota / 2)).0;
        if let Some(text) = table.optional::<Name>("sync") {
            match sync(&text.text) {
                Some(sync) => read.sync = sync,
                None => table.fault(text.fault(format!(
                    "`sync`: expected \"group\", \"interval:100ms\" or another length of time, or \"none\", got \"{}\"",
                    text.text
                ))),
            }
        }
        table.finish();
    }
    Some(read)
}

fn sync(text: &str) -> Option<Sync> {
    match text {
        "group" => Some(Sync::Group),
        "none" => Some(Sync::None),
        _ => {
            let every: Span = text.strip_prefix("interval:")?.parse().ok()?;
            (every > Span::ZERO).then(|| Sync::Interval(every.duration()))
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

/// A table's kind, as far as it says.
enum Said<S: ?Sized + 'static> {
    Kind(&'static Kind<S>),
    /// There is no such kind.
    Unknown,
    /// The key is missing.
    Nothing,
}

impl<S: ?Sized> Said<S> {
    fn name(&self) -> &'static str {
        if let Self::Kind(kind) = self { kind.name } else { "" }
    }
}

/// The kind that `key` says.
fn kind<S: ?Sized>(kinds: &'static [Kind<S>], key: &'static str, what: &str, settings: &mut Settings) -> Said<S> {
    let known = || kinds.iter().map(|kind| kind.name);
    let list = known().collect::<Vec<_>>().join(", ");
    if !settings.has(key) {
        settings.fault(Fault::new(settings.at.clone(), format!("`{key}` is missing: expected one of {list}")));
        return Said::Nothing;
    }
    let Some(word) = settings.optional::<Name>(key) else { return Said::Unknown };
    let Some(kind) = kinds.iter().find(|kind| kind.name == word.text) else {
        let fault = word.fault(format!("there is no {what} \"{}\"; there are {list}", word.text));
        settings.fault(fault.nearest(&word.text, known()));
        return Said::Unknown;
    };
    Said::Kind(kind)
}

/// Reads what is left of a table as its kind wants it, and whether there were unknown keys. Where the kind is not known,
/// neither are its keys; only one that looks like the missing `key` is a fault then.
fn spec<S: ?Sized>(said: &Said<S>, key: &'static str, settings: &mut Settings) -> (Option<Box<S>>, bool) {
    let Said::Kind(kind) = said else {
        for (name, _) in settings.rest() {
            if matches!(said, Said::Nothing) && nearest(&name.text, [key]).is_some() {
                settings.fault(name.fault(format!("unknown key `{}`", name.text)).nearest(&name.text, [key]));
            }
        }
        return (None, false);
    };
    let before = settings.faults_len();
    let spec = (kind.parse)(settings);
    let read = settings.faults_len();
    settings.finish();
    (spec.filter(|_| read == before), settings.faults_len() > read)
}

fn stage<S: ?Sized>(kinds: &'static [Kind<S>], what: &str, name: Name, settings: &mut Settings) -> ReadStage<S> {
    let kind = kind(kinds, "type", what, settings);
    let inputs = inputs(settings);
    let (spec, misspelt) = spec(&kind, "type", settings);
    ReadStage { kind: kind.name(), spec, name, inputs, misspelt }
}

/// `inputs`, every one with its own place. `None`, and a fault, where there are none.
fn inputs(settings: &mut Settings) -> Option<Vec<Name>> {
    const EXPECTED: &str = "expected at least one name, such as [\"telemetry\"]";
    let Some((name, node)) = settings.take("inputs") else {
        settings.fault(Fault::new(settings.at.clone(), format!("`inputs` is missing: {EXPECTED}")));
        return None;
    };
    let wrong = |at: &Range<usize>, got: &str| {
        settings.fault(Fault::new(at.clone(), format!("`inputs`: {EXPECTED}, got {got}")))
    };
    let Value::Array(nodes) = &node.value else {
        wrong(&node.at, node.value.type_name());
        return None;
    };
    if nodes.is_empty() {
        wrong(&name.at, "none");
        return None;
    }
    let read = |node: &Node| Name::read(node).map_err(|_| wrong(&node.at, node.value.type_name())).ok();
    // All are read before the first that is wrong ends it, so that each has its fault.
    nodes.iter().map(read).collect::<Vec<_>>().into_iter().collect()
}

fn source(registry: Registry, name: Name, settings: &mut Settings) -> ReadSource {
    let kind = kind(registry.sources, "type", "source", settings);
    if !settings.has("decode") {
        settings.fault(
            name.fault("`decode` is missing: expected a table with `format`, such as `decode = { format = \"json\" }`"),
        );
    }
    let (decode, columns, time) = (settings.table("decode"), settings.table("columns"), settings.table("time"));
    let decoders = settings.up_to("decoders", DECODERS_MAX);
    let (spec, _) = spec(&kind, "type", settings);
    let (decoder, on_error) = decode.map_or((None, OnError::DeadLetter), |decode| read_decode(registry, decode));
    if decoders.is_some_and(|decoders| decoders > 1) && decoder.as_ref().is_some_and(|decoder| decoder.is_stateful()) {
        let what = "`decoders`: this format remembers what came before, so that one decoder has to see all payloads";
        settings.fault(Fault::new(settings.at.clone(), what).help("take `decoders` out"));
    }
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
    ReadSource { name, kind: kind.name(), spec, decoder, columns, time, on_error, decoders }
}

fn read_decode(registry: Registry, mut decode: Settings) -> (Option<Box<dyn DecoderSpec>>, OnError) {
    let kind = kind(registry.formats, "format", "format", &mut decode);
    let choices = [("dead_letter", OnError::DeadLetter), ("drop", OnError::Drop), ("stop", OnError::Stop)];
    let on_error = decode.choice("on_error", &choices, OnError::DeadLetter);
    let inner = decode.table("inner").map(|inner| read_inner(registry, inner));
    let outer = spec(&kind, "format", &mut decode).0;
    let decoder = match inner {
        None => outer,
        Some(inner) => outer.zip(inner).and_then(|(outer, (inner, path))| {
            let nested = Nested::new(outer, inner, path).map_err(|fault| decode.fault(fault)).ok()?;
            Some(Box::new(nested) as Box<dyn DecoderSpec>)
        }),
    };
    (decoder, on_error)
}

/// A payload within the payload, and where it is.
fn read_inner(registry: Registry, mut inner: Settings) -> Option<(Box<dyn DecoderSpec>, Name)> {
    let path = inner.required::<Name>("path");
    let kind = kind(registry.formats, "format", "format", &mut inner);
    spec(&kind, "format", &mut inner).0.zip(path)
}

/// The defaults of `[sources.NAME.time]`.
const TIME: TimeSettings = TimeSettings {
    out_of_orderness: Span::from_secs(5),
    idle_after: Some(Span::from_secs(30)),
    max_future: Span::from_secs(300),
};

/// `idle_after` of a source that holds event time back however long it is silent.
const NEVER: &str = "never";

fn read_time(mut settings: Settings) -> (TimeSettings, Option<Name>) {
    let column = settings.optional("column");
    let out_of_orderness = settings.or("out_of_orderness", TIME.out_of_orderness);
    let max_future = settings.or("max_future", TIME.max_future);
    let idle_after = match settings.take("idle_after") {
        None => TIME.idle_after,
        Some((_, node)) if node.value == Value::String(NEVER.to_owned()) => None,
        Some((_, node)) => {
            let read = match Span::read(&node) {
                Ok(Span::ZERO) => Err(format!("a source would be idle at once; expected {}", Span::EXPECTED)),
                Ok(span) => Ok(span),
                Err(why) => {
                    Err(why.unwrap_or_else(|| format!("expected {}, got {}", Span::EXPECTED, node.value.type_name())))
                }
            };
            if let Err(why) = &read {
                settings.fault(Fault::new(node.at, format!("`idle_after`: {why}, or \"{NEVER}\"")));
            }
            read.ok()
        }
    };
    settings.finish();
    (TimeSettings { out_of_orderness, idle_after, max_future }, column)
}
