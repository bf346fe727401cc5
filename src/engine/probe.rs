//! How long results take, measured a batch at a time.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
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

pub(crate) fn remember(arrivals: &Arrivals, at: Timestamp, arrival: Timestamp) {
    let mut arrivals = arrivals.lock().unwrap_or_else(PoisonError::into_inner);
    if arrivals.len() == ARRIVALS_MAX {
        arrivals.pop_front();
    }
    arrivals.push_back((at, arrival));
}

/// Measures, a batch at a time, how long results take: from their event time, and from the arrival of the payload whose
/// watermark let them go. Only where the arrival clock is this host's.
pub(crate) fn probe(
    latency: Arc<Latency>,
    arrivals: Arrivals,
    time: usize,
    live: bool,
) -> (impl FnMut(&RecordBatch) + Send, impl FnMut(Timestamp) + Send) {
    let now = || Timestamp::from_micros(jiff::Timestamp::now().as_microsecond());
    // Rows since the last watermark: both closures are called by the sink's thread.
    let pending = Arc::new(AtomicU64::new(0));
    let (rows, by_event) = (pending.clone(), latency.clone());
    let written = move |batch: &RecordBatch| {
        let times = batch.column(time).as_primitive::<TimestampMicrosecondType>();
        if live && let Some(newest) = times.values().iter().max() {
            let count = batch.num_rows() as u64;
            by_event.event_to_emit.record(now().since(Timestamp::from_micros(*newest)), count);
            rows.fetch_add(count, Relaxed);
        }
    };
    let reached = move |at: Timestamp| {
        let count = pending.swap(0, Relaxed);
        if count == 0 {
            return;
        }
        let arrivals = arrivals.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, arrival)) = arrivals.iter().rev().find(|(watermark, _)| *watermark == at) {
            latency.arrival_to_emit.record(now().since(*arrival), count);
        }
    };
    (written, reached)
}
