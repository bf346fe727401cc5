//! Where windows lie in event time. All of it whole microseconds, without overflow for every time in
//! [`Shape::representable`].

use std::ops::RangeInclusive;

use jiff::civil::{Date, date};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, ToSpan};

/// The longest window, offset or lateness: a thousand years. Far enough from the ends of time.
pub const LONGEST_MICROS: i64 = 366_000 * DAY_MICROS;

/// A day of 24 hours.
pub const DAY_MICROS: i64 = 86_400_000_000;

/// The kinds of windows.
#[derive(Clone, Debug)]
pub enum Shape {
    /// Windows that lie in the same place for every group.
    Grid(Grid),
    /// From a group's first row until it was silent for `gap`: `[first, last + gap)`.
    Session {
        /// In microseconds.
        gap: i64,
    },
}

/// Windows that lie in the same place for every group, cut into panes: no window begins or ends within a pane.
#[derive(Clone, Debug)]
pub enum Grid {
    /// Windows of `size` that begin every `slide`, at `offset` from the epoch; in microseconds.
    Fixed {
        /// How long.
        size: i64,
        /// How far apart: at most `size`.
        slide: i64,
        /// From 0 to less than `slide`.
        offset: i64,
    },
    /// Calendar days of a time zone, some with 23 or 25 hours.
    Days {
        /// Whose days.
        zone: TimeZone,
        /// How many days a window has; counted from 1970-01-01.
        days: i64,
        /// How long after midnight they begin, on the clock.
        offset: i64,
    },
}

impl Shape {
    /// The times whose windows can be represented. Rows of other times are late.
    pub fn representable(&self) -> RangeInclusive<i64> {
        match self {
            Self::Grid(Grid::Days { .. }) => {
                let year = |year| micros_of(date(year, 1, 1), &TimeZone::UTC, 0).expect("within jiff's calendar");
                year(-8_000)..=year(8_000)
            }
            _ => i64::MIN + 4 * LONGEST_MICROS..=i64::MAX - 4 * LONGEST_MICROS,
        }
    }
}

impl Grid {
    /// Windows of a fixed size.
    pub fn fixed(size: i64, slide: i64, offset: i64) -> Self {
        Self::Fixed { size, slide, offset: offset.rem_euclid(slide) }
    }

    /// Every pane is a window.
    pub fn is_tumbling(&self) -> bool {
        match self {
            Self::Fixed { size, slide, .. } => size == slide,
            Self::Days { .. } => true,
        }
    }

    /// How many panes a window has.
    pub fn panes_len(&self) -> i64 {
        match self {
            Self::Fixed { size, slide, .. } => size / gcd(*size, *slide),
            Self::Days { .. } => 1,
        }
    }

    /// The pane that a time is in: its start and end.
    pub fn pane(&self, at: i64) -> (i64, i64) {
        match self {
            Self::Fixed { size, slide, offset } => {
                let pane = gcd(*size, *slide);
                let start = at - (at - offset).rem_euclid(pane);
                (start, start + pane)
            }
            Self::Days { zone, days, offset } => day(at, zone, *days, *offset),
        }
    }

    /// The first end of a window after a time.
    pub fn first_end(&self, at: i64) -> i64 {
        match self {
            Self::Fixed { size, slide, offset } => at + slide - (at - offset - size).rem_euclid(*slide),
            Self::Days { .. } => self.pane(at).1,
        }
    }

    /// The end of the last window that contains a time.
    pub fn last_end(&self, at: i64) -> i64 {
        match self {
            Self::Fixed { size, slide, offset } => at - (at - offset).rem_euclid(*slide) + size,
            Self::Days { .. } => self.pane(at).1,
        }
    }

    /// The start of the window that ends at a time.
    pub fn start(&self, end: i64) -> i64 {
        match self {
            Self::Fixed { size, .. } => end - size,
            Self::Days { .. } => self.pane(end - 1).0,
        }
    }

    /// No pane that begins before this is in a window that ends after `fired`.
    pub fn start_bound(&self, fired: i64) -> i64 {
        match self {
            Self::Fixed { size, .. } => fired.saturating_sub(*size),
            // The longest day has 25 hours, and zones that skipped or repeated a day are not longer than two.
            Self::Days { days, .. } => fired.saturating_sub((days + 2) * DAY_MICROS),
        }
    }

    /// The ends of the windows that contain a time and that lie in `(after, until]`.
    pub fn ends(&self, at: i64, after: i64, until: i64) -> impl Iterator<Item = i64> + use<'_> {
        let last = self.last_end(at).min(until);
        let first = self.first_end(at.max(after.min(last)));
        std::iter::successors((first <= last).then_some(first), move |end| {
            let next = self.first_end(*end);
            (next <= last).then_some(next)
        })
    }
}

fn gcd(mut a: i64, mut b: i64) -> i64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

/// The calendar days `[start, end)` around a time.
fn day(at: i64, zone: &TimeZone, days: i64, offset: i64) -> (i64, i64) {
    let instant = jiff::Timestamp::from_microsecond(at).expect("a representable time");
    let local = zone.to_datetime(instant).saturating_sub(SignedDuration::from_micros(offset));
    let epoch = date(1970, 1, 1);
    let number = i64::from((local.date() - epoch).get_days()).div_euclid(days);
    let border = |number: i64| {
        let date = epoch.saturating_add((number * days).days());
        micros_of(date, zone, offset).expect("a representable time")
    };
    let (mut start, mut number) = (border(number), number);
    // A clock that is set back or forth over a border puts the time on its other side.
    while start > at {
        number -= 1;
        start = border(number);
    }
    let mut end = border(number + 1);
    while end <= at {
        number += 1;
        (start, end) = (end, border(number + 1));
    }
    (start, end)
}

/// When a day begins, so many microseconds after midnight on the clock.
fn micros_of(date: Date, zone: &TimeZone, offset: i64) -> Option<i64> {
    let begins = date.to_datetime(jiff::civil::Time::midnight()).saturating_add(SignedDuration::from_micros(offset));
    Some(zone.to_timestamp(begins).ok()?.as_microsecond())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_of_a_fixed_size_lie_around_nought() {
        let tumbling = Grid::fixed(10, 10, 0);
        assert_eq!((tumbling.pane(-1), tumbling.pane(0), tumbling.pane(9)), ((-10, 0), (0, 10), (0, 10)));
        assert_eq!((tumbling.first_end(-10), tumbling.last_end(-10), tumbling.first_end(9)), (0, 0, 10));
        let hopping = Grid::fixed(10, 4, 1);
        // Windows [-7,3) [-3,7) [1,11) [5,15), panes of 2.
        assert_eq!((hopping.pane(0), hopping.first_end(2), hopping.last_end(2)), ((-1, 1), 3, 11));
        assert_eq!(hopping.ends(2, i64::MIN, i64::MAX).collect::<Vec<_>>(), [3, 7, 11]);
        assert_eq!(hopping.ends(2, 3, 10).collect::<Vec<_>>(), [7]);
        assert_eq!(hopping.ends(2, 11, 100).count(), 0);
        assert_eq!(hopping.start(11), 1);
    }

    #[test]
    fn days_have_23_or_25_hours() {
        let zone = TimeZone::get("Europe/Berlin").unwrap();
        let grid = Grid::Days { zone, days: 1, offset: 0 };
        let at = |text: &str| text.parse::<jiff::Timestamp>().unwrap().as_microsecond();
        let hours = |text| {
            let (start, end) = grid.pane(at(text));
            (end - start) / 3_600_000_000
        };
        assert_eq!(
            (hours("2024-03-31T12:00:00Z"), hours("2024-10-27T12:00:00Z"), hours("2024-06-01T12:00:00Z")),
            (23, 25, 24)
        );
        assert_eq!(grid.pane(at("2024-03-31T12:00:00Z")).0, at("2024-03-30T23:00:00Z"));
        assert_eq!(grid.pane(at("2024-03-30T23:00:00Z")).0, at("2024-03-30T23:00:00Z"));
        assert_eq!(grid.pane(at("2024-03-30T22:59:59.999999Z")).1, at("2024-03-30T23:00:00Z"));
    }

    #[test]
    fn the_ends_of_time_have_windows() {
        let zone = TimeZone::get("America/New_York").unwrap();
        let shapes = [
            Shape::Grid(Grid::fixed(LONGEST_MICROS, 7, 3)),
            Shape::Grid(Grid::Days { zone, days: 7, offset: DAY_MICROS / 4 }),
        ];
        for shape in shapes {
            let Shape::Grid(grid) = &shape else { unreachable!("only grids stand there") };
            for at in [*shape.representable().start(), -1, 0, *shape.representable().end()] {
                let (start, end) = grid.pane(at);
                assert!(start <= at && at < end && grid.first_end(at) > at && grid.last_end(at) > at, "{grid:?} {at}");
            }
        }
    }
}
