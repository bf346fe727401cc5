//! Sinks of a bench: each checksums what it is given. Those that speak to the world do nothing else.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arrow::array::RecordBatch;

use crate::bench::Checksum;
use crate::component::Fault;
use crate::flow::message::Epoch;
use crate::flow::schema::StreamSchema;
use crate::flow::state::Restored;
use crate::sink::{Sink, SinkContext, SinkError, SinkSpec, Unpublished};
use crate::telemetry::process::thread_cpu;

/// What a sink was given, once it has ended.
#[derive(Clone, Debug, Default)]
pub struct Told(Arc<Mutex<Option<Written>>>);

impl Told {
    /// What the sink was given; `None` while it runs.
    pub fn get(&self) -> Option<Written> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a sink was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// How many rows.
    pub rows: u64,
    /// Their checksum.
    pub checksum: u64,
    /// The processor time that the checksum took.
    pub checksum_cpu: Duration,
}

/// A sink that tells what it was given.
#[derive(Debug)]
pub struct Tapped {
    /// `None` counts and checksums only.
    spec: Option<Box<dyn SinkSpec>>,
    /// In place of the spec's, where there is none.
    about: String,
    told: Told,
}

impl Tapped {
    /// A sink that writes as it is told to.
    pub fn through(spec: Box<dyn SinkSpec>) -> Self {
        Self { about: spec.describe(), spec: Some(spec), told: Told::default() }
    }

    /// In place of a sink that would speak to the world.
    pub fn instead_of(spec: &dyn SinkSpec) -> Self {
        Self { about: format!("nothing, in place of {}", spec.describe()), spec: None, told: Told::default() }
    }

    /// Where it will tell.
    pub fn told(&self) -> Told {
        self.told.clone()
    }
}

impl SinkSpec for Tapped {
    fn check(&self, input: &StreamSchema) -> Vec<Fault> {
        self.spec.as_ref().map_or_else(Vec::new, |spec| spec.check(input))
    }

    fn describe(&self) -> String {
        self.about.clone()
    }

    fn open(&self, context: &SinkContext, input: &StreamSchema) -> Result<Box<dyn Sink>, SinkError> {
        let sink = self.spec.as_ref().map(|spec| spec.open(context, input)).transpose()?;
        let checksum = Checksum::new(&input.columns);
        Ok(Box::new(Tap { sink, checksum, checksum_cpu: Duration::ZERO, told: self.told.clone() }))
    }
}

struct Tap {
    sink: Option<Box<dyn Sink>>,
    checksum: Checksum,
    checksum_cpu: Duration,
    told: Told,
}

impl Sink for Tap {
    fn write(&mut self, batch: &RecordBatch) -> Result<(), SinkError> {
        if let Some(sink) = &mut self.sink {
            // One that fails is called again with the same rows.
            sink.write(batch)?;
        }
        let before = thread_cpu();
        self.checksum.add(batch).map_err(|error| SinkError::Fatal(format!("cannot checksum rows: {error}")))?;
        self.checksum_cpu += thread_cpu().saturating_sub(before);
        Ok(())
    }

    fn prepare(&mut self, epoch: Epoch, last: bool) -> Result<Unpublished, SinkError> {
        self.sink.as_mut().map_or_else(|| Ok(Unpublished::default()), |sink| sink.prepare(epoch, last))
    }

    fn restore(&mut self, parts: &[Restored]) -> Result<(), SinkError> {
        self.sink.as_mut().map_or(Ok(()), |sink| sink.restore(parts))
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        let Self { checksum, checksum_cpu, .. } = self;
        let written = Written { rows: checksum.rows(), checksum: checksum.value(), checksum_cpu: *checksum_cpu };
        *self.told.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(written);
    }
}
