//! Event time and lengths of time. No clock is read in here.

use std::fmt;
use std::str::FromStr;

/// A point in time: microseconds since the Unix epoch, UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// Before every event: the watermark of a stream that has shown nothing yet, and the arrival
    /// time of a payload of which nobody knows when it arrived.
    pub const START: Self = Self(i64::MIN);
    /// After every event. A stream whose watermark is here has been told everything.
    pub const END: Self = Self(i64::MAX);

    /// From microseconds since the Unix epoch.
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// Microseconds since the Unix epoch.
    pub const fn micros(self) -> i64 {
        self.0
    }

    /// Later by a span; stops at the ends of time. [`Self::START`] and [`Self::END`] stay what they are.
    pub const fn plus(self, span: Span) -> Self {
        if self.0 == i64::MIN || self.0 == i64::MAX { self } else { Self(self.0.saturating_add(span.0)) }
    }

    /// Earlier by a span; stops at the ends of time. [`Self::START`] and [`Self::END`] stay what they are.
    pub const fn minus(self, span: Span) -> Self {
        if self.0 == i64::MIN || self.0 == i64::MAX { self } else { Self(self.0.saturating_sub(span.0)) }
    }

    /// The greatest whole number of minutes since the epoch that is not later. Sources say a watermark that enters a
    /// new minute right after the row that made it, whatever the batches are: what depends on a watermark's minute
    /// alone happens at the same place among the rows in every cut. [`Self::START`] and [`Self::END`] stay what they are.
    pub const fn whole_steps(self) -> Self {
        const STEP_MICROS: i64 = 60_000_000;
        if self.0 == i64::MIN || self.0 == i64::MAX {
            return self;
        }
        Self(self.0.saturating_sub(self.0.rem_euclid(STEP_MICROS)))
    }

    /// How much later this is than `earlier`; zero if it is not later.
    pub const fn since(self, earlier: Self) -> Span {
        let micros = self.0.saturating_sub(earlier.0);
        Span(if micros < 0 { 0 } else { micros })
    }
}

impl fmt::Display for Timestamp {
    /// RFC 3339 in UTC where the calendar reaches, otherwise microseconds.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_microsecond(self.0) {
            Ok(at) => write!(f, "{at}"),
            Err(_) => write!(f, "{} µs", self.0),
        }
    }
}

/// A length of time: microseconds, never negative. In pipeline files `"10s"`, `"1h30m"`, `"250ms"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Span(i64);

/// The units of a [`Span`], the longest first, in microseconds.
const UNITS: [(&str, i64); 6] =
    [("d", 86_400_000_000), ("h", 3_600_000_000), ("m", 60_000_000), ("s", 1_000_000), ("ms", 1_000), ("us", 1)];

impl Span {
    /// No time at all.
    pub const ZERO: Self = Self(0);

    /// From microseconds; a negative length counts as none.
    pub const fn from_micros(micros: i64) -> Self {
        Self(if micros < 0 { 0 } else { micros })
    }

    /// From milliseconds.
    pub const fn from_millis(millis: i64) -> Self {
        Self::from_micros(millis.saturating_mul(1_000))
    }

    /// From seconds.
    pub const fn from_secs(secs: i64) -> Self {
        Self::from_micros(secs.saturating_mul(1_000_000))
    }

    /// Microseconds.
    pub const fn micros(self) -> i64 {
        self.0
    }

    /// As the standard library's type, for timers.
    pub const fn duration(self) -> std::time::Duration {
        std::time::Duration::from_micros(self.0.unsigned_abs())
    }

    /// Seconds, for people and metrics.
    #[expect(clippy::cast_precision_loss, reason = "for display")]
    pub fn seconds(self) -> f64 {
        self.0 as f64 / 1e6
    }
}

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "`{text}` is no length of time; write it like \"10s\", \"1h30m\" or \"250ms\" (units d h m s ms us)"
            )
        };
        let mut rest = text;
        let mut total: i64 = 0;
        if rest.is_empty() {
            return Err(wrong());
        }
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
            let count: i64 = rest[..digits].parse().map_err(|_| wrong())?;
            rest = &rest[digits..];
            let letters = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
            let unit = UNITS.iter().find(|(name, _)| *name == &rest[..letters]).ok_or_else(wrong)?.1;
            rest = &rest[letters..];
            total = count.checked_mul(unit).and_then(|part| total.checked_add(part)).ok_or_else(wrong)?;
        }
        Ok(Self(total))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0;
        if rest == 0 {
            return f.write_str("0s");
        }
        for (name, unit) in UNITS {
            if unit <= rest {
                write!(f, "{}{name}", rest / unit)?;
                rest %= unit;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_read_back_as_they_print() {
        for (text, micros) in [
            ("10s", 10_000_000),
            ("1h30m", 5_400_000_000),
            ("250ms", 250_000),
            ("0s", 0),
            ("1d2h3m4s5ms6us", 93_784_005_006),
        ] {
            let span: Span = text.parse().unwrap();
            assert_eq!((span.micros(), span.to_string()), (micros, text.to_owned()));
        }
        for wrong in ["", "10", "s", "-1s", "1.5s", "10 s", "1y", "99999999999999999999s", "9999999999d"] {
            assert!(wrong.parse::<Span>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_ends_of_time_stay() {
        let second = Span::from_secs(1);
        assert_eq!(Timestamp::START.plus(second), Timestamp::START);
        assert_eq!(Timestamp::END.minus(second), Timestamp::END);
        assert_eq!(Timestamp::from_micros(i64::MAX - 1).plus(second), Timestamp::END);
        assert_eq!(Timestamp::from_micros(5).since(Timestamp::from_micros(9)), Span::ZERO);
    }
}
