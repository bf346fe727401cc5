//! A TOML file to a checked [`Plan`]. Pure: it opens, connects and creates nothing (but reads the files that
//! `${file:…}` names).
//!
//! The steps, each a type that the next one takes: text → [`file`] (values with places) → [`expand`] (`${…}`) → [`read`]
//! (specs: legal values) → [`bind`] (names, graph, schemas) → [`Plan`]. Every step goes on after a fault as far as it can
//! without repeating itself, so that all faults of a file are seen at once.

mod bind;
mod expand;
pub mod fault;
pub mod file;
pub mod plan;
mod print;
mod read;

use std::path::Path;

use crate::component::{Fault, Kind};
use crate::format::{DecoderSpec, FORMATS};
use crate::ingest::{SOURCES, SourceSpec};
use crate::operator::{OPERATORS, OperatorSpec};
use crate::sink::{SINKS, SinkSpec};
use fault::Faults;
use plan::Plan;

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

/// Loads a pipeline file, with variables of the environment.
pub fn load(path: &Path) -> Result<Plan, Faults> {
    let name = path.display().to_string();
    match std::fs::read_to_string(path) {
        Ok(text) => load_text(&name, &text, &|variable| std::env::var(variable).ok()),
        Err(error) => {
            let fault = Fault::new(0..0, format!("cannot read the pipeline file: {error}"));
            Err(Faults::new(&name, "", vec![fault]))
        }
    }
}

/// Loads a pipeline file from its text.
pub fn load_text(name: &str, text: &str, variables: Variables<'_>) -> Result<Plan, Faults> {
    load_from(BUILD, name, text, variables)
}

pub(crate) fn load_from(registry: Registry, name: &str, text: &str, variables: Variables<'_>) -> Result<Plan, Faults> {
    let (mut entries, mut faults) = file::parse(text);
    if !faults.is_empty() {
        // What follows a syntax error may have been read as something that it is not.
        return Err(Faults::new(name, text, faults));
    }
    expand::expand(&mut entries, variables, &mut faults);
    let read = read::read(registry, text.len(), entries, &mut faults);
    match bind::bind(read, &mut faults) {
        Some(plan) if faults.is_empty() => Ok(plan),
        _ => Err(Faults::new(name, text, faults)),
    }
}
