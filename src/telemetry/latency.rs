//! How long rows take, in quantiles and buckets.

use std::sync::{Mutex, PoisonError};

use hdrhistogram::Histogram;

use crate::flow::time::Span;

/// Upper bounds of the buckets, in seconds.
pub const BOUNDS: [f64; 16] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0];
/// Which quantiles are exported.
pub const QUANTILES: [f64; 4] = [0.5, 0.9, 0.99, 0.999];
/// Quantiles are exact to so many digits.
const DIGITS: u8 = 3;
/// Longer times count as this long in quantiles: a day, in microseconds.
const LONGEST_MICROS: u64 = 86_400_000_000;

/// The latencies of one pipeline, recorded once per batch.
#[derive(Debug, Default)]
pub struct Latency {
    /// From the event time of a row to its emission.
    pub event_to_emit: Recorder,
    /// From the arrival of a row to its emission.
    pub arrival_to_emit: Recorder,
    /// From the taking of payloads by the intake to the writing of what they gave. Only where arrival times are not this
    /// host's, in place of the other two: in a replay.
    pub taken_to_written: Recorder,
}

/// One distribution, since the start of the run.
#[derive(Debug)]
pub struct Recorder(Mutex<State>);

#[derive(Debug)]
struct State {
    quantiles: Histogram<u64>,
    buckets: [u64; BOUNDS.len()],
    count: u64,
    sum: f64,
}

/// What a [`Recorder`] has recorded.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    /// The values of [`QUANTILES`], in seconds; none before the first row.
    pub quantiles: Option<[f64; QUANTILES.len()]>,
    /// Rows not above each of [`BOUNDS`].
    pub buckets: [u64; BOUNDS.len()],
    /// Rows.
    pub count: u64,
    /// Seconds of all rows together.
    pub sum: f64,
}

impl Default for Recorder {
    fn default() -> Self {
        let quantiles =
            Histogram::new_with_bounds(1, LONGEST_MICROS, DIGITS).expect("the bounds are constants that it takes");
        Self(Mutex::new(State { quantiles, buckets: [0; BOUNDS.len()], count: 0, sum: 0.0 }))
    }
}

impl Recorder {
    /// Some rows took this long.
    #[expect(clippy::cast_precision_loss, reason = "a sum of seconds")]
    pub fn record(&self, took: Span, rows: u64) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.quantiles.saturating_record_n(took.micros().unsigned_abs(), rows);
        if let Some(bucket) = BOUNDS.iter().position(|bound| took.seconds() <= *bound) {
            state.buckets[bucket] += rows;
        }
        state.count += rows;
        state.sum += took.seconds() * rows as f64;
    }

    /// What was recorded so far.
    #[expect(clippy::cast_precision_loss, reason = "at most a day of microseconds")]
    pub fn snapshot(&self) -> Snapshot {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut below = 0;
        let buckets = state.buckets.map(|rows| {
            below += rows;
            below
        });
        let quantiles = (state.count > 0)
            .then(|| QUANTILES.map(|quantile| state.quantiles.value_at_quantile(quantile) as f64 / 1e6));
        Snapshot { quantiles, buckets, count: state.count, sum: state.sum }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_counted_in_their_buckets() {
        let recorder = Recorder::default();
        assert_eq!(recorder.snapshot().quantiles, None);
        recorder.record(Span::from_millis(1), 98);
        recorder.record(Span::from_secs(2), 1);
        recorder.record(Span::from_secs(3600), 1);
        let shot = recorder.snapshot();
        assert_eq!(
            (shot.count, shot.buckets[0], shot.buckets[9], shot.buckets[10], shot.buckets[15]),
            (100, 98, 98, 99, 99)
        );
        assert!((shot.sum - 3602.098).abs() < 1e-9, "{}", shot.sum);
        let [p50, _, p99, p999] = shot.quantiles.unwrap();
        assert!((p50 - 0.001).abs() < 1e-5 && (p99 - 2.0).abs() < 2e-3 && (p999 - 3600.0).abs() < 4.0, "{shot:?}");
    }
}
