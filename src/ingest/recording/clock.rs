//! RFC 3339 in UTC, to the microsecond: the form that recordings use by hand, every other by `jiff`.

use crate::flow::time::Timestamp;

const SECOND: i64 = 1_000_000;
const DAY_SECONDS: i64 = 86_400;

/// Reads RFC 3339. What is finer than a microsecond is cut off, towards the past.
pub fn read_time(text: &str) -> Result<Timestamp, String> {
    if let Some(micros) = plain(text.as_bytes()) {
        return Ok(Timestamp::from_micros(micros));
    }
    let at: jiff::Timestamp = text.parse().map_err(|why| format!("`{text}` is no RFC 3339 time: {why}"))?;
    i64::try_from(at.as_nanosecond().div_euclid(1_000))
        .map(Timestamp::from_micros)
        .map_err(|_| format!("`{text}` is beyond the calendar"))
}

/// Appends RFC 3339 in UTC with six decimals. False, and nothing appended, where the calendar does not reach.
pub fn write_time(at: Timestamp, into: &mut Vec<u8>) -> bool {
    let (seconds, micros) = (at.micros().div_euclid(SECOND), at.micros().rem_euclid(SECOND));
    let (days, second) = (seconds.div_euclid(DAY_SECONDS), seconds.rem_euclid(DAY_SECONDS));
    let Some((year, month, day)) = civil(days) else { return false };
    digits(into, year, 4);
    into.push(b'-');
    digits(into, month, 2);
    into.push(b'-');
    digits(into, day, 2);
    into.push(b'T');
    digits(into, second / 3600, 2);
    into.push(b':');
    digits(into, second / 60 % 60, 2);
    into.push(b':');
    digits(into, second % 60, 2);
    into.push(b'.');
    digits(into, micros, 6);
    into.push(b'Z');
    true
}

fn digits(into: &mut Vec<u8>, number: i64, count: usize) {
    let mut text = [b'0'; 6];
    let mut rest = number.unsigned_abs();
    for place in text[..count].iter_mut().rev() {
        *place = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    into.extend_from_slice(&text[..count]);
}

/// `YYYY-MM-DDThh:mm:ss[.f…]Z`; `None` for every other form, also a wrong one.
fn plain(text: &[u8]) -> Option<i64> {
    let (stamp, rest) = text.split_at_checked(19)?;
    let marks = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')];
    if marks.iter().any(|&(place, mark)| stamp[place] != mark) {
        return None;
    }
    let (year, month, day) = (number(&stamp[..4])?, number(&stamp[5..7])?, number(&stamp[8..10])?);
    let (hour, minute, second) = (number(&stamp[11..13])?, number(&stamp[14..16])?, number(&stamp[17..])?);
    let days = days_of(year, month, day);
    if civil(days) != Some((year, month, day)) || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let micros = match rest.strip_suffix(b"Z")? {
        b"" => 0,
        [b'.', fraction @ ..] if !fraction.is_empty() && fraction.len() <= 9 => {
            number(fraction)?;
            let kept = &fraction[..fraction.len().min(6)];
            (kept.len()..6).fold(number(kept)?, |micros, _| micros * 10)
        }
        _ => return None,
    };
    Some((days * DAY_SECONDS + hour * 3600 + minute * 60 + second) * SECOND + micros)
}

fn number(digits: &[u8]) -> Option<i64> {
    digits.iter().try_fold(0, |number, digit| digit.is_ascii_digit().then(|| number * 10 + i64::from(digit - b'0')))
}

/// Days since the Unix epoch of a date of the proleptic Gregorian calendar. (Howard Hinnant's `days_from_civil`.)
fn days_of(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

/// The reverse, for years of four digits.
fn civil(days: i64) -> Option<(i64, i64, i64)> {
    let days = days + 719_468;
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = (month_from_march + 2) % 12 + 1;
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    (0..=9999).contains(&year).then_some((year, month, day))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn times_read_to_the_microsecond() {
        for (text, micros) in [
            ("1970-01-01T00:00:00Z", 0),
            ("1970-01-01T00:00:00.000001Z", 1),
            ("1969-12-31T23:59:59.9Z", -100_000),
            ("2000-02-29T12:00:00.5Z", 951_825_600_500_000),
            ("2026-01-02T03:04:05.123456789Z", 1_767_323_045_123_456),
            ("2026-01-02T04:04:05.123456+01:00", 1_767_323_045_123_456),
            ("2026-01-02 03:04:05z", 1_767_323_045_000_000),
        ] {
            assert_eq!(read_time(text), Ok(Timestamp::from_micros(micros)), "{text}");
        }
        for wrong in ["", "yesterday", "2026-02-30T00:00:00Z", "2026-01-02T03:04:05", "2026-13-01T00:00:00Z"] {
            assert!(read_time(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_beyond_the_calendar_is_not_written() {
        let mut text = Vec::new();
        assert!(!write_time(Timestamp::START, &mut text) && !write_time(Timestamp::END, &mut text));
        assert!(text.is_empty());
    }

    proptest! {
        #[test]
        fn by_hand_and_by_jiff_are_the_same(micros in -62_167_219_200_000_000_i64..253_402_207_200_000_000) {
            let jiff = jiff::Timestamp::from_microsecond(micros).unwrap();
            let mut text = Vec::new();
            prop_assert!(write_time(Timestamp::from_micros(micros), &mut text));
            let text = String::from_utf8(text).unwrap();
            prop_assert_eq!(&text, &format!("{jiff:.6}"));
            prop_assert_eq!(plain(text.as_bytes()), Some(micros));
            prop_assert_eq!(read_time(&jiff.to_string()), Ok(Timestamp::from_micros(micros)));
        }
    }
}
