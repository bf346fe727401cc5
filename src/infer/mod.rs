//! From a recording to a pipeline file that reads it: topics and their captures, formats, columns with types and ranges,
//! the time and its unit, how late rows come, and what somebody should look at.
//!
//! The recording is read three times, so that memory does not grow with it: for its [`topics`], for what is in the
//! payloads of each kind ([`document`]), and by the file that was made of that, as a pipeline would read it ([`trial`]):
//! what is said of late rows, repeats and dead letters is what a run with this file sees.

pub mod column;
pub mod document;
pub mod layout;
pub mod names;
pub mod seen;
pub mod times;
pub mod topics;
pub mod trial;
mod write;

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use serde_json::Value;

use crate::flow::payload::{Payload, Payloads};
use crate::flow::topic::Topics;
use crate::format::number;
use crate::infer::document::Document;
use crate::infer::layout::Layout;
use crate::infer::seen::Leaf;
use crate::infer::topics::{Group, Look, Topic};
use crate::infer::trial::{Findings, Trial};
use crate::ingest::recording::{Progress, Recording, RecordingError, Shape};
use crate::pipeline;

/// How many topics are told apart.
const TOPICS_MAX: usize = 100_000;
/// How many documents of a topic are looked into to tell its kind.
const DOCUMENTS_A_TOPIC: u64 = 16;
/// How many fields of a document tell its kind.
const FIELDS_A_DOCUMENT: usize = 256;
/// How much of a recording is in memory.
const PAYLOADS_AT_ONCE: usize = 4_096;
/// The same in bytes.
const BYTES_AT_ONCE: usize = 8 << 20;

/// What is to be inferred, and from what.
#[derive(Clone, Debug)]
pub struct Request {
    /// The pipeline's name.
    pub name: String,
    /// How the recording is read.
    pub shape: Shape,
    /// The broker's address in the pipeline file.
    pub url: String,
    /// How many payloads are looked at, at most.
    pub payloads_max: u64,
}

/// Why nothing can be inferred.
#[derive(Debug, thiserror::Error)]
pub enum InferError {
    /// The recording cannot be read.
    #[error(transparent)]
    Recording(#[from] RecordingError),
    /// It has no payload that could be a row.
    #[error("the recording has no payload that could be a row: {0}")]
    Nothing(String),
    /// The pipeline file that was made of it is at fault.
    #[error("the pipeline file that was made of the recording is at fault; please report it:\n{0}")]
    Faulty(String),
}

/// A pipeline file, and what was seen.
#[derive(Debug)]
pub struct Inferred {
    /// The pipeline file.
    pub text: String,
    /// Its sources.
    pub sources: Vec<Source>,
    /// What of the recording is in no source.
    pub notes: Vec<String>,
    /// Payloads that were looked at.
    pub payloads: u64,
}

/// A source, and how it reads the recording.
#[derive(Debug)]
pub struct Source {
    /// Its name.
    pub name: String,
    /// Its topics.
    pub group: Group,
    /// Its rows and columns.
    pub layout: Layout,
    /// Columns that tell devices apart.
    pub keys: Vec<String>,
    /// Payloads by its topics.
    pub payloads: u64,
    /// Rows of those.
    pub rows: u64,
    /// Those of them that do not decode.
    pub dead_letters: u64,
    /// Why: how often, and one reason of each kind.
    pub reasons: Vec<(u64, String)>,
    /// Payloads that came before, byte for byte.
    pub repeated: u64,
    /// What their times are like.
    pub findings: Findings,
}

/// Infers a pipeline file.
pub fn infer(recording: &Path, request: &Request, progress: &Progress) -> Result<Inferred, InferError> {
    let mut topics = Seen::default();
    let payloads = each(recording, request, progress, |payload| topics.add(payload))?;
    let mut notes = topics.notes();
    let groups = topics::group(&topics.topics);
    let mut sources = documents(recording, request, progress, groups, &mut notes)?;
    if sources.is_empty() {
        return Err(InferError::Nothing(notes.join("; ")));
    }
    let draft = write::Draft { request, recording, payloads, notes: &notes };
    let plan = checked(&draft.text(&sources))?;
    let mut trials: Vec<Trial> =
        plan.sources.into_iter().zip(&sources).map(|(planned, source)| Trial::new(planned, &source.keys)).collect();
    each(recording, request, progress, |payload| {
        if let Some(trial) = trials.iter_mut().find(|trial| trial.takes(payload.topic)) {
            trial.add(payload);
        }
    })?;
    for (source, trial) in sources.iter_mut().zip(&mut trials) {
        source.findings = trial.findings();
        (source.payloads, source.rows, source.dead_letters) = (trial.payloads, trial.rows, trial.dead_letters);
        source.reasons = trial.reasons.iter().map(|(_, count, why)| (*count, why.clone())).collect();
        source.repeated = trial.repeated;
    }
    let text = draft.text(&sources);
    checked(&text)?;
    Ok(Inferred { text, sources, notes, payloads })
}

/// The plan of a text that is no fault of its reader.
fn checked(text: &str) -> Result<pipeline::plan::Plan, InferError> {
    pipeline::load_text("inferred", text, &|_| None).map_err(|faults| InferError::Faulty(faults.render(false)))
}

/// Reads a recording; how many payloads it has, or as many as are looked at.
fn each(
    recording: &Path,
    request: &Request,
    progress: &Progress,
    mut see: impl FnMut(&Payload<'_>),
) -> Result<u64, RecordingError> {
    let mut reader = Recording::open_as(recording, request.shape.clone(), progress.clone())?;
    let mut payloads = Payloads::default();
    let mut count = 0;
    while count < request.payloads_max {
        payloads.clear();
        let most = usize::try_from(request.payloads_max - count).unwrap_or(usize::MAX).min(PAYLOADS_AT_ONCE);
        if reader.read(&mut payloads, most, BYTES_AT_ONCE)? == 0 {
            break;
        }
        count += payloads.len() as u64;
        payloads.iter().for_each(|payload| see(&payload));
    }
    Ok(count)
}

/// The topics of a recording.
#[derive(Default)]
struct Seen {
    topics: BTreeMap<String, Topic>,
    fields: HashMap<String, u32>,
    not_text: u64,
    too_many: u64,
}

impl Seen {
    fn add(&mut self, payload: &Payload<'_>) {
        let Ok(name) = std::str::from_utf8(payload.topic) else {
            self.not_text += 1;
            return;
        };
        if !self.topics.contains_key(name) {
            if self.topics.len() == TOPICS_MAX {
                self.too_many += 1;
                return;
            }
            self.topics.insert(name.to_owned(), Topic::default());
        }
        let Some(topic) = self.topics.get_mut(name) else { return };
        let look = look(payload.body);
        let count = topic.looks.entry(look).or_default();
        *count += 1;
        if look == Look::Document && *count <= DOCUMENTS_A_TOPIC {
            let document = serde_json::from_slice(payload.body).unwrap_or(Value::Null);
            let object = match &document {
                Value::Array(items) => items.first().unwrap_or(&Value::Null),
                other => other,
            };
            for name in object.as_object().into_iter().flat_map(|object| object.keys()).take(FIELDS_A_DOCUMENT) {
                let next = u32::try_from(self.fields.len()).unwrap_or(u32::MAX);
                topic.fields.insert(*self.fields.entry(name.clone()).or_insert(next));
            }
        }
    }

    /// What is in no source, and what kinds of payloads share a topic.
    fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if self.not_text > 0 {
            notes.push(format!("{} payloads have a topic that is not UTF-8: no pattern matches it", self.not_text));
        }
        if self.too_many > 0 {
            notes.push(format!("{} payloads of topics beyond the first {TOPICS_MAX} are not looked at", self.too_many));
        }
        let count = |look| self.topics.values().filter_map(|topic| topic.looks.get(&look)).sum::<u64>();
        let empty = count(Look::Empty);
        if empty > 0 {
            notes.push(format!(
                "{empty} payloads are empty, as those that clear a retained message are: they are dead letters"
            ));
        }
        notes
    }
}

/// What a payload looks like.
fn look(body: &[u8]) -> Look {
    let text = body.trim_ascii();
    match text {
        [] => Look::Empty,
        // Whether it is whole is told by reading it.
        [b'{' | b'[', ..] => Look::Document,
        _ if number::is_number(text) => Look::Number,
        _ => match std::str::from_utf8(text) {
            Ok(word) if is_truth(word) => Look::Truth,
            Ok(text) if !text.chars().any(|c| c.is_control() && !c.is_ascii_whitespace()) => Look::Text,
            _ => Look::Binary,
        },
    }
}

/// A word that the scalar format reads as true or false.
fn is_truth(word: &str) -> bool {
    ["on", "off", "true", "false"].iter().any(|truth| word.eq_ignore_ascii_case(truth))
}

/// The sources of groups of topics that have rows, each with what is in its payloads.
fn documents(
    recording: &Path,
    request: &Request,
    progress: &Progress,
    groups: Vec<Group>,
    notes: &mut Vec<String>,
) -> Result<Vec<Source>, RecordingError> {
    let mut found: Vec<(Group, Topics, Document)> = Vec::new();
    for group in groups {
        match (group.look, Topics::parse(group.patterns.iter().map(String::as_str))) {
            (Look::Binary, _) => notes.push(format!(
                "payloads of {} are binary: say how to read them (`format` of a source)",
                group.patterns.join(", ")
            )),
            (_, Ok(topics)) => found.push((group, topics, Document::default())),
            (_, Err(_)) => notes.push(format!("no pattern matches {}", group.patterns.join(", "))),
        }
    }
    each(recording, request, progress, |payload| {
        let matching = found.iter_mut().find(|(_, topics, _)| topics.matches(payload.topic, &mut Vec::new()));
        if let Some((group, _, document)) = matching {
            observe(group.look, document, payload);
        }
    })?;
    let mut names = Vec::new();
    let source = |(group, topics, document): (Group, Topics, Document)| {
        let captures = topics.captures().to_vec();
        let layout = match group.look {
            Look::Document => Layout::of(&document, &captures),
            _ => Layout::of_scalar(&document, &captures),
        };
        let keys = write::keys(&group, &captures, &layout);
        let name = write::source_name(&group, &mut names);
        Source {
            name,
            group,
            layout,
            keys,
            payloads: 0,
            rows: 0,
            dead_letters: 0,
            reasons: Vec::new(),
            repeated: 0,
            findings: Findings::default(),
        }
    };
    Ok(found.into_iter().filter(|(_, _, document)| document.payloads > 0).map(source).collect())
}

/// Adds a payload to what was seen, if it is what most of its kind are.
fn observe(kind: Look, document: &mut Document, payload: &Payload<'_>) {
    let text = payload.body.trim_ascii();
    match (kind, look(payload.body)) {
        (Look::Document, Look::Document) => {
            if let Ok(value) = serde_json::from_slice::<Value>(payload.body) {
                document.add(&value, payload.arrival);
            }
        }
        (Look::Document, _) | (_, Look::Empty | Look::Document | Look::Binary) => (),
        (Look::Truth, _) => {
            let word = std::str::from_utf8(text).unwrap_or_default();
            if is_truth(word) {
                document.add_leaf(
                    Leaf::Bool(word.eq_ignore_ascii_case("on") || word.eq_ignore_ascii_case("true")),
                    payload.arrival,
                );
            }
        }
        (Look::Number, _) => {
            if let Some(number) = number::float64(text).filter(|_| number::is_number(text)) {
                document.add_leaf(number::integer(text).map_or(Leaf::Fraction(number), Leaf::Whole), payload.arrival);
            }
        }
        _ => document.add_leaf(Leaf::Text(std::str::from_utf8(payload.body).unwrap_or_default()), payload.arrival),
    }
}
