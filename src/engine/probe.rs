//! How long results take, measured a batch at a time.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::RecordBatch;
use arrow::array::cast::AsArray;
use arrow::array::types::TimestampMicrosecondType;

use crate::flow::time::Timestamp;
use crate::telemetry::Latency;

/// Which arrival raised which watermark, so that a sink can tell how long a result took. Bounded: the oldest go first.
pub(crate) type Arrivals = Arc<Mutex<VecDeque<(Timestamp, Timestamp)>>>;

/// How many watermarks back an arrival can be told.
const ARRIVALS_MAX: usize = 4_096;

fn remember(arrivals: &Arrivals, at: Timestamp, arrival: Timestamp) {
    let mut arrivals = arrivals.lock().unwrap_or_else(PoisonError::into_inner);
    if arrivals.len() == ARRIVALS_MAX {
        arrivals.pop_front();
    }
    arrivals.push_back((at, arrival));
}

fn now() -> Timestamp {
    Timestamp::from_micros(jiff::Timestamp::now().as_microsecond())
}

/// What an intake is to call when it takes something from the feed, and at each watermark. Remembered is the arrival of
/// the payload that raised the watermark; where the arrival clock is not this `host`'s, when that payload was taken.
pub(crate) fn observe(
    arrivals: Arrivals,
    host: bool,
) -> (impl FnMut() + Send, impl FnMut(Timestamp, Timestamp) + Send) {
    // Both closures are called by the intake's thread.
    let taken = Arc::new(AtomicI64::new(i64::MIN));
    let last = taken.clone();
    let took = move || {
        if !host {
            taken.store(now().micros(), Relaxed);
        }
    };
    let raised = move |at: Timestamp, arrival: Timestamp| {
        let from = if host { arrival } else { Timestamp::from_micros(last.load(Relaxed)) };
        remember(&arrivals, at, from);
    };
    (took, raised)
}

/// Measures, a batch at a time, how long results take: from their event time, and from the arrival of the payload whose
/// watermark let them go; where the arrival clock is not this `host`'s, from the taking of that payload alone.
pub(crate) fn probe(
    latency: Arc<Latency>,
    arrivals: Arrivals,
    time: usize,
    host: bool,
) -> (impl FnMut(&RecordBatch) + Send, impl FnMut(Timestamp) + Send) {
    // Rows since the last watermark: both closures are called by the sink's thread.
    let pending = Arc::new(AtomicU64::new(0));
    let (rows, by_event) = (pending.clone(), latency.clone());
    let written = move |batch: &RecordBatch| {
        let count = batch.num_rows() as u64;
        rows.fetch_add(count, Relaxed);
        let times = batch.column(time).as_primitive::<TimestampMicrosecondType>();
        if host && let Some(newest) = times.values().iter().max() {
            by_event.event_to_emit.record(now().since(Timestamp::from_micros(*newest)), count);
        }
    };
    let reached = move |at: Timestamp| {
        let count = pending.swap(0, Relaxed);
        if count == 0 {
            return;
        }
        let arrivals = arrivals.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, from)) = arrivals.iter().rev().find(|(watermark, _)| *watermark == at) {
            let recorder = if host { &latency.arrival_to_emit } else { &latency.taken_to_written };
            recorder.record(now().since(*from), count);
        }
    };
    (written, reached)
}
