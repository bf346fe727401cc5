//! A TOML file to a checked [`Plan`]. Pure: it opens, connects and creates nothing (but reads the files that
//! `${file:…}` names).
//!
//! The steps, each a type that the next one takes: text → [`mod@file`] (values with places) → `expand` (`${…}`) → `read`
//! (specs: legal values) → `bind` (names, graph, schemas) → [`Plan`]. Every step goes on after a fault as far as it can
//! without repeating itself, so that all faults of a file are seen at once.

mod bind;
mod expand;
pub mod fault;
pub mod file;
pub mod plan;
mod print;
mod read;
mod secret;
#[cfg(test)]
mod tests;

use std::io::Read as _;
use std::path::Path;

use crate::component::{Fault, Kind};
use crate::format::{DecoderSpec, FORMATS};
use crate::ingest::{SOURCES, SourceSpec};
use crate::operator::{OPERATORS, OperatorSpec};
use crate::sink::{SINKS, SinkSpec};
use fault::Faults;
use plan::Plan;
use secret::Secrets;

/// What `${NAME}` is, if anything.
pub type Variables<'a> = &'a dyn Fn(&str) -> Option<String>;

/// The kinds that a pipeline file can name.
#[derive(Clone, Copy)]
pub(crate) struct Registry {
    pub(crate) sources: &'static [Kind<dyn SourceSpec>],
    pub(crate) formats: &'static [Kind<dyn DecoderSpec>],
    pub(crate) operators: &'static [Kind<dyn OperatorSpec>],
    pub(crate) sinks: &'static [Kind<dyn SinkSpec>],
}

/// Those of this build.
const BUILD: Registry = Registry { sources: SOURCES, formats: FORMATS, operators: OPERATORS, sinks: SINKS };

/// The largest pipeline file that is read.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Loads a pipeline file, with variables of the environment.
pub fn load(path: &Path) -> Result<Plan, Faults> {
    let name = path.display().to_string();
    match text_of(path) {
        Ok(text) => load_text(&name, &text, &|variable| std::env::var(variable).ok()),
        Err(why) => {
            let fault = Fault::new(0..0, format!("cannot read the pipeline file: {why}"));
            Err(Faults::new(&name, "", Secrets::default(), vec![fault]))
        }
    }
}

/// Loads a pipeline file from its text.
pub fn load_text(name: &str, text: &str, variables: Variables<'_>) -> Result<Plan, Faults> {
    load_from(BUILD, name, text, variables)
}

pub(crate) fn load_from(registry: Registry, name: &str, text: &str, variables: Variables<'_>) -> Result<Plan, Faults> {
    let file::File { mut entries, mut faults, broken } = file::read(text);
    if broken {
        return Err(Faults::new(name, text, Secrets::guessed(text), faults));
    }
    let secrets = Secrets::of(text, &entries);
    let expand::Expanded { from_files, failed } = expand::expand(&mut entries, variables, &mut faults);
    let secrets = secrets.and(from_files);
    let mut later = Vec::new();
    let read = read::read(registry, text.len(), entries, &mut later);
    let plan = bind::bind(read, failed.is_empty(), &mut later);
    later.retain(|fault| !failed.iter().any(|at| at.start <= fault.at.start && fault.at.end <= at.end));
    faults.append(&mut later);
    match plan {
        Some(mut plan) if faults.is_empty() => {
            plan.file = format!("{:08x}", crc32c::crc32c(text.as_bytes()));
            Ok(plan)
        }
        _ => Err(Faults::new(name, text, secrets, faults)),
    }
}

/// The text of a file: of one that is no longer than it should be.
pub(crate) fn text_of(path: &Path) -> Result<String, String> {
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(|error| error.to_string())?;
    let bytes = file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(|error| error.to_string())?;
    let fits = u64::try_from(bytes).is_ok_and(|bytes| bytes <= FILE_BYTES_MAX);
    if fits { Ok(text) } else { Err(format!("it has more than {FILE_BYTES_MAX} bytes")) }
}
