//! Where a source's stream is cut into slices, so that streams that meet have an order which no thread decides.
//!
//! A slice ends where the arrival clock enters another stretch of [`SLICE`], or after [`SLICE_PAYLOADS`] payloads: a function
//! of what arrived and when. An inbox of several inputs waits for a whole slice of each, so a slice is also what it holds at
//! most of an input, and how long it waits beyond the tick of an idle one.

use serde::{Deserialize, Serialize};

use crate::flow::message::Mark;
use crate::flow::time::{Span, Timestamp};

/// Stretches of the arrival clock.
pub const SLICE: Span = Span::from_millis(100);
/// Payloads of a slice at most.
pub const SLICE_PAYLOADS: u64 = 8_192;

/// Cuts a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slices {
    /// Marks so far.
    number: u64,
    /// The slice ends before what arrives then, in microseconds; `i64::MIN` before anything arrived.
    until: i64,
    payloads: u64,
}

impl Default for Slices {
    fn default() -> Self {
        Self { number: 0, until: i64::MIN, payloads: 0 }
    }
}

impl Slices {
    /// The arrival clock is at `now`: the mark to be sent ahead of what arrives then. Unknown arrivals say nothing.
    pub fn reach(&mut self, now: Timestamp) -> Option<Mark> {
        if now == Timestamp::START || now.micros() < self.until {
            return None;
        }
        let every = SLICE.micros();
        let ended = self.until;
        self.until = now.micros().div_euclid(every).saturating_add(1).saturating_mul(every);
        (ended != i64::MIN).then(|| self.mark(Timestamp::from_micros(ended)))
    }

    /// A payload was taken that arrived then: the mark to be sent after it.
    pub fn taken(&mut self, arrival: Timestamp) -> Option<Mark> {
        self.payloads += 1;
        (self.payloads == SLICE_PAYLOADS).then(|| self.mark(arrival))
    }

    /// An epoch was ended, and with it the slice.
    pub fn ended(&mut self) {
        self.payloads = 0;
    }

    fn mark(&mut self, at: Timestamp) -> Mark {
        self.number += 1;
        self.payloads = 0;
        Mark { at, number: self.number }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(millis: i64) -> Timestamp {
        Timestamp::from_micros(millis * 1_000)
    }

    #[test]
    fn slices_end_by_time_and_by_count() {
        let mut slices = Slices::default();
        assert_eq!(slices.reach(at(150)), None, "nothing was before it");
        assert_eq!(slices.reach(at(199)), None);
        assert_eq!(slices.reach(at(200)), Some(Mark { at: at(200), number: 1 }));
        assert_eq!(slices.reach(at(950)), Some(Mark { at: at(300), number: 2 }));
        for _ in 1..SLICE_PAYLOADS {
            assert_eq!(slices.taken(at(960)), None);
        }
        assert_eq!(slices.taken(at(961)), Some(Mark { at: at(961), number: 3 }));
        slices.taken(at(962));
        slices.ended();
        assert_eq!(slices.payloads, 0);
        assert_eq!(slices.reach(Timestamp::START), None);
    }
}
