//! What the pipes count. Written by [inbox](crate::flow::inbox) and [outbox](crate::flow::outbox) per
//! message, read by telemetry and the account at any time. Operators know nothing of it.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::time::Instant;

/// How many outputs a stage has: the main one and the side one.
pub const PORTS: usize = 2;

/// The counters of one stage.
#[derive(Debug)]
pub struct Meter {
    /// Rows received.
    pub rows_in: AtomicU64,
    /// Batches received.
    pub batches_in: AtomicU64,
    /// Rows sent, by port, whether or not anybody listens there.
    pub rows_out: [AtomicU64; PORTS],
    /// Batches sent, by port.
    pub batches_out: [AtomicU64; PORTS],
    /// The last watermark that passed on, in microseconds; `i64::MIN` before the first.
    pub watermark_micros: AtomicI64,
    /// Groups or keys that the state of an operator holds; `u64::MAX` where it keeps none.
    pub held: AtomicU64,
    /// Nanoseconds spent waiting for input.
    pub waiting_ns: AtomicU64,
    /// Nanoseconds spent waiting for room downstream.
    pub blocked_ns: AtomicU64,
    started: Instant,
}

impl Default for Meter {
    fn default() -> Self {
        Self {
            rows_in: AtomicU64::new(0),
            batches_in: AtomicU64::new(0),
            rows_out: Default::default(),
            batches_out: Default::default(),
            watermark_micros: AtomicI64::new(i64::MIN),
            held: AtomicU64::new(u64::MAX),
            waiting_ns: AtomicU64::new(0),
            blocked_ns: AtomicU64::new(0),
            started: Instant::now(),
        }
    }
}

impl Meter {
    /// Seconds spent `(busy, blocked, waiting)` since the stage was made.
    pub fn seconds(&self) -> (f64, f64, f64) {
        let blocked = std::time::Duration::from_nanos(self.blocked_ns.load(Relaxed)).as_secs_f64();
        let waiting = std::time::Duration::from_nanos(self.waiting_ns.load(Relaxed)).as_secs_f64();
        let busy = (self.started.elapsed().as_secs_f64() - blocked - waiting).max(0.0);
        (busy, blocked, waiting)
    }

    /// Runs `wait`, and adds the time it took to `counter`.
    pub(crate) fn timed<T>(counter: &AtomicU64, wait: impl FnOnce() -> T) -> T {
        let from = Instant::now();
        let result = wait();
        counter.fetch_add(u64::try_from(from.elapsed().as_nanos()).unwrap_or(u64::MAX), Relaxed);
        result
    }
}

/// The counters of a pipeline's checkpoints.
#[derive(Debug, Default)]
pub struct CheckpointMeter {
    /// Checkpoints written since the process began.
    pub written: AtomicU64,
    /// The epoch of the last one.
    pub epoch: AtomicU64,
    /// When it was durable, in microseconds.
    pub durable_micros: AtomicI64,
    /// Nanoseconds spent writing, publishing and clearing away.
    pub busy_ns: AtomicU64,
    /// Bytes of state written.
    pub bytes: AtomicU64,
}

/// The counters of one source, beyond those of its stage. Payloads, where nothing else is said.
///
/// `received + expanded = rows + dead_letter + future + dropped + duplicates`, whatever comes.
#[derive(Debug, Default)]
pub struct SourceMeter {
    /// Everything that arrived, also what was dropped.
    pub received: AtomicU64,
    /// Rows beyond the first of each payload that was decoded (one less for a payload without rows).
    pub expanded: AtomicI64,
    /// Rows that went on.
    pub rows: AtomicU64,
    /// Payloads that have no rows, with the reason in `NAME.dead_letter`.
    pub dead_letter: AtomicU64,
    /// Rows set aside because they lie too far in the future.
    pub future: AtomicU64,
    /// QoS 0 payloads for which there was no room.
    pub dropped: AtomicU64,
    /// Redeliveries that were recognised.
    pub duplicates: AtomicU64,
    /// Fields that no column is declared for, of payloads that have rows.
    pub extra_fields: AtomicU64,
    /// Values that are null because their column cannot hold them.
    pub mismatched_values: AtomicU64,
    /// Messages that by their numbers were sent and did not come.
    pub lost_messages: AtomicU64,
    /// Bytes of the payloads received.
    pub bytes: AtomicU64,
    /// 1 while connected.
    pub connected: AtomicU64,
    /// Connections made after the first.
    pub reconnects: AtomicU64,
    /// Reconnections at which the broker had forgotten the session: payloads may be missing.
    pub gaps: AtomicU64,
    /// Connections given up on purpose because too many bytes waited for the pipeline; the session keeps the rest.
    pub backpressure_disconnects: AtomicU64,
    /// Arrival time of the last payload, in microseconds.
    pub last_arrival_micros: AtomicI64,
    /// Bytes that the journal's segments take.
    pub journal_bytes: AtomicU64,
    /// Records that the journal has been given, counted from its first.
    pub journal_records: AtomicU64,
    /// Records of the journal that the stages have not read yet.
    pub journal_lag: AtomicU64,
    /// Groups that were made durable.
    pub journal_syncs: AtomicU64,
    /// Nanoseconds spent writing them and making them durable.
    pub journal_sync_ns: AtomicU64,
}
