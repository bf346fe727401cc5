//! How a value could be a time: a unit since 1970, RFC 3339, or one of the patterns that devices write.

use std::sync::LazyLock;

use crate::flow::time::Timestamp;
use crate::format::when::When;

/// A way to write times.
#[derive(Debug)]
pub struct Writing {
    /// The setting `unit`.
    pub unit: &'static str,
    /// The setting `zone`, where the text does not say it.
    pub zone: Option<&'static str>,
    when: When,
}

/// Times before 2000 are clocks that were never set, times after 2100 are no times.
const PLAUSIBLE: std::ops::Range<i64> = 946_684_800_000_000..4_102_444_800_000_000;

/// A value whose times are so near to their arrival is the time of its payload.
const NEAR_MICROS: i64 = 86_400_000_000;

/// The writings that are tried; of the numbers each plausible time has one only. Fractions of seconds may be there or not.
static WRITINGS: LazyLock<Vec<Writing>> = LazyLock::new(|| {
    let known = [
        ("s", None),
        ("ms", None),
        ("us", None),
        ("ns", None),
        ("rfc3339", None),
        ("%Y-%m-%dT%H:%M:%S%.f", Some("UTC")),
        ("%Y-%m-%d %H:%M:%S%.f", Some("UTC")),
        ("%Y/%m/%d %H:%M:%S%.f", Some("UTC")),
        ("%d/%m/%Y %H:%M:%S", Some("UTC")),
        ("%m/%d/%Y %H:%M:%S", Some("UTC")),
        ("%d.%m.%Y %H:%M:%S", Some("UTC")),
        ("%Y-%m-%dT%H:%M:%S%.f%z", None),
        ("%Y-%m-%d %H:%M:%S%.f%z", None),
        ("%Y-%m-%d %H:%M:%S%.f %z", None),
        ("%a, %d %b %Y %H:%M:%S %z", None),
        ("%Y-%m-%d %H:%M", Some("UTC")),
        ("%Y%m%dT%H%M%S", Some("UTC")),
    ];
    let writing = |(unit, zone)| When::parse(unit, zone).ok().map(|when| Writing { unit, zone, when });
    known.into_iter().filter_map(writing).collect()
});

/// What was tried with the values of one place.
#[derive(Debug, Default)]
pub struct Times {
    hits: Vec<Hits>,
    /// The writing of the last text.
    last: usize,
}

#[derive(Clone, Copy, Debug, Default)]
struct Hits {
    all: u64,
    near: u64,
}

/// The writing that fits best.
#[derive(Clone, Copy, Debug)]
pub struct Guess {
    /// How it is written.
    pub writing: &'static Writing,
    /// How many values are plausible times in it.
    pub hits: u64,
    /// How many of those are near to their arrival.
    pub near: u64,
}

impl Times {
    /// Tries a number.
    pub fn number(&mut self, number: f64, arrival: Timestamp) {
        for (index, scale) in [1e6, 1e3, 1.0, 1e-3].into_iter().enumerate() {
            #[expect(clippy::cast_possible_truncation, reason = "saturates, and is out of range then")]
            let micros = (number * scale) as i64;
            self.hit(index, micros, arrival);
        }
    }

    /// Tries a text that is no number.
    pub fn text(&mut self, text: &str, arrival: Timestamp) {
        let looks = text.len() >= 8 && text.len() <= 64 && text.bytes().any(|byte| byte.is_ascii_digit());
        if !looks {
            return;
        }
        let first = self.last.max(4);
        let order = std::iter::once(first).chain((4..WRITINGS.len()).filter(|index| *index != first));
        for index in order {
            let Ok(micros) = WRITINGS[index].when.read_text(text) else { continue };
            self.hit(index, micros, arrival);
            self.last = index;
            // The day may stand before the month, or behind: both are tried, always.
            if let Some(other) = twin(index)
                && let Ok(micros) = WRITINGS[other].when.read_text(text)
            {
                self.hit(other, micros, arrival);
            }
            return;
        }
    }

    fn hit(&mut self, index: usize, micros: i64, arrival: Timestamp) {
        if !PLAUSIBLE.contains(&micros) {
            return;
        }
        self.hits.resize(WRITINGS.len(), Hits::default());
        self.hits[index].all += 1;
        let apart = arrival.micros().saturating_sub(micros).saturating_abs();
        self.hits[index].near += u64::from(arrival != Timestamp::START && apart <= NEAR_MICROS);
    }

    /// The writing that fits most values; of those that fit as many, the first.
    pub fn best(&self) -> Option<Guess> {
        let found = self.hits.iter().enumerate().rev().max_by_key(|(_, hits)| (hits.all, hits.near));
        let (index, hits) = found.filter(|(_, hits)| hits.all > 0)?;
        Some(Guess { writing: &WRITINGS[index], hits: hits.all, near: hits.near })
    }
}

/// The writing that differs from another in the order of day and month alone.
fn twin(index: usize) -> Option<usize> {
    let other = match WRITINGS[index].unit {
        "%d/%m/%Y %H:%M:%S" => "%m/%d/%Y %H:%M:%S",
        "%m/%d/%Y %H:%M:%S" => "%d/%m/%Y %H:%M:%S",
        _ => return None,
    };
    WRITINGS.iter().position(|writing| writing.unit == other)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guess(values: &[&str]) -> Option<(&'static str, u64, u64)> {
        let mut times = Times::default();
        let arrival = Timestamp::from_micros(1_709_208_000_000_000);
        for value in values {
            match value.parse::<f64>() {
                Ok(number) => times.number(number, arrival),
                Err(_) => times.text(value, arrival),
            }
        }
        times.best().map(|guess| (guess.writing.unit, guess.hits, guess.near))
    }

    #[test]
    fn units_and_patterns_are_told_apart() {
        for (values, expected) in [
            (&["1709208000", "1709208000.5"][..], Some(("s", 2, 2))),
            (&["1709208000000"], Some(("ms", 1, 1))),
            (&["1709208000000000"], Some(("us", 1, 1))),
            (&["1709208000000000000"], Some(("ns", 1, 1))),
            (&["1609208000"], Some(("s", 1, 0))),
            (&["2024-02-29T12:00:00Z", "2024-02-29T13:00:00.25+01:00"], Some(("rfc3339", 2, 2))),
            (&["2024-02-29 12:00:00", "2024-02-29 12:00:00.125"], Some(("%Y-%m-%d %H:%M:%S%.f", 2, 2))),
            (&["02/03/2024 12:00:00", "29/02/2024 12:00:00"], Some(("%d/%m/%Y %H:%M:%S", 2, 1))),
            (&["02/03/2024 12:00:00", "02/29/2024 12:00:00"], Some(("%m/%d/%Y %H:%M:%S", 2, 1))),
            (&["29.02.2024 12:00:00"], Some(("%d.%m.%Y %H:%M:%S", 1, 1))),
            (&["21.5", "1", "-7", "2024", "65535"], None),
            (&["sensor-2024-a", "2024-02-30T12:00:00Z", "ON"], None),
        ] {
            assert_eq!(guess(values), expected, "{values:?}");
        }
    }
}
