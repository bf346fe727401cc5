//! A source that is over before it begins: what a replay puts in the place of those that it has no recording of.

use crate::flow::payload::Payloads;
use crate::flow::topic::Topics;
use crate::ingest::{BoxFuture, Fed, Source, SourceContext, SourceError, SourceSpec};

/// No payloads.
#[derive(Debug)]
pub struct SilentSpec(Topics);

impl SilentSpec {
    /// In the place of a source that listens to `topics`.
    pub fn new(topics: Topics) -> Self {
        Self(topics)
    }
}

impl SourceSpec for SilentSpec {
    fn topics(&self) -> &Topics {
        &self.0
    }

    fn describe(&self) -> String {
        "silent".to_owned()
    }

    fn has_own_clock(&self) -> bool {
        true
    }

    fn open(&self, _: SourceContext) -> BoxFuture<'_, Result<Box<dyn Source>, SourceError>> {
        Box::pin(std::future::ready(Ok(Box::new(Silent) as Box<dyn Source>)))
    }
}

struct Silent;

impl Source for Silent {
    fn next<'a>(&'a mut self, _: &'a mut Payloads, _: usize) -> BoxFuture<'a, Result<Fed, SourceError>> {
        Box::pin(std::future::ready(Ok(Fed::Exhausted)))
    }
}
