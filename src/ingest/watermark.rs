//! How far event time has come: bounded lateness, silent sources, clocks in the future. Pure: it is fed with
//! times and reads no clock.
//!
//! The watermark is the greatest accepted event time less `out_of_orderness`: no row strictly before it is expected. A
//! source that is silent for longer than `idle_after` stops holding it back: it then follows the arrival clock.

use serde::{Deserialize, Serialize};

use crate::flow::time::{Span, Timestamp};

/// Rows that are judged together: a block that has no row behind the watermark costs two reductions.
const BLOCK_ROWS: usize = 256;

/// The greatest time that a row can bring the watermark to: [`Timestamp::END`] is said by the source alone.
const LAST: i64 = i64::MAX - 1;

/// The watermark of one source.
#[derive(Clone, Debug)]
pub struct Watermarks {
    out_of_orderness: i64,
    idle_after: Option<Span>,
    max_future: Span,
    /// The greatest event time so far; `i64::MIN` before the first.
    greatest: i64,
    /// What the arrival clock alone has brought the watermark to.
    floor: i64,
    /// The greatest watermark that was given out, to be sent on.
    sent: i64,
    /// Since when the source has been silent: its last arrival, or when it was first looked at.
    silent_since: Option<Timestamp>,
}

/// What of it must survive a restart; the settings are the pipeline file's, which may have changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatermarkState {
    greatest: i64,
    floor: i64,
    sent: i64,
    silent_since: Option<i64>,
}

impl Default for WatermarkState {
    /// Of a source that has shown nothing.
    fn default() -> Self {
        Self { greatest: i64::MIN, floor: i64::MIN, sent: i64::MIN, silent_since: None }
    }
}

/// Where a batch must be cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Rows before this position go first; may be 0.
    pub at: usize,
    /// Then this watermark, and then the other rows.
    pub watermark: Timestamp,
}

impl Watermarks {
    /// Of a source that has shown nothing yet. Without `idle_after` a silent source holds event time back for good.
    pub fn new(out_of_orderness: Span, idle_after: Option<Span>, max_future: Span) -> Self {
        Self {
            out_of_orderness: out_of_orderness.micros(),
            idle_after,
            max_future,
            greatest: i64::MIN,
            floor: i64::MIN,
            sent: i64::MIN,
            silent_since: None,
        }
    }

    /// What must survive a restart.
    pub fn state(&self) -> WatermarkState {
        let Self { greatest, floor, sent, silent_since, .. } = *self;
        WatermarkState { greatest, floor, sent, silent_since: silent_since.map(Timestamp::micros) }
    }

    /// Goes on where another one was; gives the watermark that it had sent on.
    pub fn restore(&mut self, state: WatermarkState) -> Option<Timestamp> {
        (self.greatest, self.floor, self.sent) = (state.greatest, state.floor, state.sent);
        self.silent_since = state.silent_since.map(Timestamp::from_micros);
        (self.sent > i64::MIN).then(|| Timestamp::from_micros(self.sent))
    }

    /// The source can be polled from here on. Said at the start and whenever it was lost and found: time in which
    /// nobody could have heard it is no silence.
    pub fn started(&mut self, at: Timestamp) {
        if at != Timestamp::START {
            self.silent_since = Some(self.silent_since.map_or(at, |since| since.max(at)));
        }
    }

    /// A payload arrived; said before its rows. If it ends a silence, the watermark to be sent ahead of them.
    ///
    /// A payload of which nobody knows when it arrived says nothing about silence.
    pub fn arrived(&mut self, arrival: Timestamp) -> Option<Timestamp> {
        let watermark = self.tick(arrival);
        self.started(arrival);
        watermark
    }

    /// The source could be polled at `now`, and was empty. If it is silent, the watermark to be sent.
    pub fn tick(&mut self, now: Timestamp) -> Option<Timestamp> {
        if now == Timestamp::START {
            return None;
        }
        self.silent_since.get_or_insert(now);
        if !self.silent_at(now) {
            return None;
        }
        self.floor = self.floor.max(self.behind(now.micros()));
        self.emit()
    }

    /// Whether the source will have been silent for too long if nothing arrives before `now`.
    pub fn silent_at(&self, now: Timestamp) -> bool {
        let Some((since, idle_after)) = self.silent_since.zip(self.idle_after) else { return false };
        now != Timestamp::START && now.since(since) > idle_after
    }

    /// Whether a row may count: its time is not too far ahead of its arrival. Where nobody knows when it arrived,
    /// every row may.
    pub fn accepts(&self, time: Timestamp, arrival: Timestamp) -> bool {
        arrival == Timestamp::START || time <= arrival.plus(self.max_future)
    }

    /// An accepted row's time, in microseconds.
    pub fn observe(&mut self, time: i64) {
        self.greatest = self.greatest.max(time);
    }

    /// The watermark: never goes back, and is below [`Timestamp::END`].
    pub fn current(&self) -> Timestamp {
        Timestamp::from_micros(self.watermark(self.greatest))
    }

    /// The watermark, if it is greater than all that were given out before: to be sent after a batch.
    pub fn emit(&mut self) -> Option<Timestamp> {
        let current = self.current();
        let rises = current.micros() > self.sent;
        self.sent = self.sent.max(current.micros());
        rises.then_some(current)
    }

    /// Observes accepted rows in their order, and says where their batch must be cut so that every row that is
    /// behind the watermark comes after exactly the watermark that the rows before it make.
    ///
    /// It is also cut after a row that brings the watermark to another minute ([`Timestamp::whole_steps`]).
    ///
    /// With that, what an operator makes of a row does not depend on how payloads were put into batches: a
    /// row that is not behind cannot be late, and one that is meets the same watermark in every cut.
    pub fn cut(&mut self, times: &[i64]) -> Vec<Cut> {
        let sent = self.sent;
        let mut cuts = Vec::new();
        for (block, rows) in times.chunks(BLOCK_ROWS).enumerate() {
            let (least, greatest) = rows
                .iter()
                .fold((i64::MAX, self.greatest), |(least, greatest), time| (least.min(*time), greatest.max(*time)));
            if least < self.watermark(greatest) || self.steps(self.greatest, greatest) {
                self.cut_block(block * BLOCK_ROWS, rows, &mut cuts);
            }
            self.greatest = greatest;
        }
        // After the last row the batch ends anyway.
        if cuts.last().is_some_and(|cut| cut.at == times.len()) {
            cuts.pop();
            self.sent = cuts.last().map_or(sent, |cut| cut.watermark.micros());
        }
        cuts
    }

    /// The same for a block that may have a row behind.
    fn cut_block(&mut self, from: usize, rows: &[i64], cuts: &mut Vec<Cut>) {
        let mut greatest = self.greatest;
        for (row, time) in rows.iter().enumerate() {
            let watermark = self.watermark(greatest);
            if *time < watermark && self.sent < watermark {
                self.sent = watermark;
                cuts.push(Cut { at: from + row, watermark: Timestamp::from_micros(watermark) });
            }
            let before = greatest;
            greatest = greatest.max(*time);
            let watermark = self.watermark(greatest);
            if self.steps(before, greatest) && self.sent < watermark {
                self.sent = watermark;
                cuts.push(Cut { at: from + row + 1, watermark: Timestamp::from_micros(watermark) });
            }
        }
    }

    /// Whether the watermark comes to another minute when the greatest time becomes another. The first row of all has
    /// nothing before it.
    fn steps(&self, before: i64, after: i64) -> bool {
        let minute = |greatest: i64| Timestamp::from_micros(self.watermark(greatest)).whole_steps();
        after > before && before != i64::MIN && minute(before) != minute(after)
    }

    fn watermark(&self, greatest: i64) -> i64 {
        self.floor.max(self.behind(greatest))
    }

    fn behind(&self, time: i64) -> i64 {
        time.saturating_sub(self.out_of_orderness).min(LAST)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const fn at(seconds: i64) -> Timestamp {
        Timestamp::from_micros(seconds * 1_000_000)
    }

    fn of(out_of_orderness: i64, idle_after: i64) -> Watermarks {
        Watermarks::new(Span::from_secs(out_of_orderness), Some(Span::from_secs(idle_after)), Span::from_secs(300))
    }

    #[test]
    fn the_watermark_is_the_greatest_time_less_the_bound() {
        let mut watermarks = of(5, 30);
        assert_eq!((watermarks.current(), watermarks.emit()), (Timestamp::START, None));
        watermarks.observe(at(100).micros());
        watermarks.observe(at(90).micros());
        assert_eq!((watermarks.current(), watermarks.emit(), watermarks.emit()), (at(95), Some(at(95)), None));
    }

    #[test]
    fn a_silent_source_follows_the_arrival_clock() {
        let mut watermarks = of(5, 30);
        assert_eq!(watermarks.arrived(at(1000)), None);
        watermarks.observe(at(990).micros());
        assert_eq!(watermarks.tick(at(1030)), None, "30 s are not more than 30 s");
        assert_eq!(watermarks.tick(at(1031)), Some(at(1026)));
        assert_eq!(watermarks.tick(at(1031)), None, "it has been said");
        assert_eq!(watermarks.arrived(at(1050)), Some(at(1045)), "the payload ends the silence");
        assert_eq!(watermarks.arrived(at(1080)), None);
        assert_eq!(watermarks.tick(at(1111)), Some(at(1106)));
    }

    #[test]
    fn a_source_that_never_showed_anything_is_silent_from_its_first_tick() {
        let mut watermarks = of(5, 30);
        assert_eq!(watermarks.tick(at(100)), None);
        assert_eq!(watermarks.tick(at(131)), Some(at(126)));
    }

    #[test]
    fn time_without_the_source_is_no_silence() {
        let mut watermarks = of(5, 30);
        watermarks.started(at(0));
        watermarks.arrived(at(1));
        watermarks.started(at(100));
        assert_eq!(watermarks.arrived(at(101)), None);
    }

    #[test]
    fn event_time_ahead_of_the_arrival_clock_is_kept_and_unknown_arrivals_are_no_silence() {
        let mut watermarks = of(5, 30);
        watermarks.arrived(at(0));
        watermarks.observe(at(200).micros());
        assert_eq!(watermarks.emit(), Some(at(195)));
        assert_eq!(watermarks.tick(at(60)), None);
        assert_eq!(watermarks.current(), at(195));
        assert_eq!(of(5, 30).arrived(Timestamp::START), None);
    }

    #[test]
    fn rows_too_far_ahead_are_refused() {
        let watermarks = of(5, 30);
        assert!(watermarks.accepts(at(300), at(0)));
        assert!(!watermarks.accepts(Timestamp::from_micros(300_000_001), at(0)));
        assert!(watermarks.accepts(Timestamp::END, Timestamp::START), "unknown arrival");
        assert!(watermarks.accepts(Timestamp::START, at(0)));
        assert!(watermarks.accepts(Timestamp::END, Timestamp::END));
    }

    #[test]
    fn batches_are_cut_before_rows_behind() {
        let mut watermarks = Watermarks::new(Span::from_micros(10), None, Span::ZERO);
        // Running watermarks before each row: START, 90, 90, 110, 110, 110, 190.
        let cuts = watermarks.cut(&[100, 90, 120, 109, 50, 200, 189]);
        let cut = |at, watermark| Cut { at, watermark: Timestamp::from_micros(watermark) };
        assert_eq!(cuts, [cut(3, 110), cut(6, 190)]);
        assert_eq!(watermarks.emit(), None, "190 was given out with the last cut");
        assert_eq!(watermarks.cut(&[190, 201, 191]), []);
        assert_eq!(watermarks.cut(&[190]), [cut(0, 191)]);
    }

    /// The watermark that each row behind it meets, row by row; `None` for the others.
    fn naive(out_of_orderness: i64, times: &[i64]) -> Vec<Option<i64>> {
        let watermark =
            |row: usize| times[..row].iter().max().map(|time| time.saturating_sub(out_of_orderness).min(i64::MAX - 1));
        times.iter().enumerate().map(|(row, time)| watermark(row).filter(|watermark| time < watermark)).collect()
    }

    /// What each row meets when batches of the given sizes are cut and sent.
    fn met(out_of_orderness: i64, times: &[i64], batches: &[usize], emits: bool) -> Vec<Option<i64>> {
        let mut watermarks = Watermarks::new(Span::from_micros(out_of_orderness), None, Span::ZERO);
        let (mut sent, mut met, mut rest) = (i64::MIN, Vec::new(), times);
        for size in batches.iter().cycle() {
            let (batch, after) = rest.split_at((*size).min(rest.len()));
            let mut cuts = watermarks.cut(batch).into_iter().peekable();
            for (row, time) in batch.iter().enumerate() {
                while let Some(cut) = cuts.next_if(|cut| cut.at == row) {
                    sent = sent.max(cut.watermark.micros());
                }
                met.push((*time < sent).then_some(sent));
            }
            assert_eq!(cuts.next(), None);
            if emits {
                sent = sent.max(watermarks.emit().map_or(sent, Timestamp::micros));
            }
            rest = after;
            if rest.is_empty() {
                break;
            }
        }
        met
    }

    fn any_time() -> impl Strategy<Value = i64> {
        prop_oneof![20 => -1000_i64..1000, 1 => any::<i64>(), 1 => Just(i64::MIN), 1 => Just(i64::MAX)]
    }

    proptest! {
        #[test]
        fn every_row_meets_the_watermark_of_the_rows_before_it(
            times in prop_oneof![
                prop::collection::vec(-1000_i64..1000, 0..700),
                prop::collection::vec(any_time(), 0..60),
            ],
            batches in prop::collection::vec(1_usize..600, 1..5),
            out_of_orderness in prop_oneof![Just(0), 0_i64..2500, Just(i64::MAX)],
            emits in any::<bool>(),
        ) {
            prop_assert_eq!(met(out_of_orderness, &times, &batches, emits), naive(out_of_orderness, &times));
        }

        #[test]
        fn the_watermark_never_goes_back_and_nothing_panics(
            calls in prop::collection::vec((0..4, any_time(), any_time()), 0..80),
            idle_after in prop::option::of(0_i64..500),
        ) {
            let mut watermarks = Watermarks::new(Span::from_micros(7), idle_after.map(Span::from_micros), Span::ZERO);
            let mut last = Timestamp::START;
            for (call, a, b) in calls {
                let said = match call {
                    0 => watermarks.arrived(Timestamp::from_micros(a)),
                    1 => watermarks.tick(Timestamp::from_micros(a)),
                    2 => { watermarks.observe(a); watermarks.emit() }
                    _ => watermarks.cut(&[a, b]).last().map(|cut| cut.watermark),
                };
                watermarks.accepts(Timestamp::from_micros(a), Timestamp::from_micros(b));
                if let Some(said) = said {
                    prop_assert!(last < said);
                    last = said;
                }
                prop_assert!(last <= watermarks.current() && watermarks.current() < Timestamp::END);
            }
        }
    }
}
