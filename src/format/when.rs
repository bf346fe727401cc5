//! How times are written, and how they are read: always to whole microseconds, by whole arithmetic.

use jiff::fmt::strtime;
use jiff::tz::{Offset, TimeZone};

use crate::format::number::{self, Rest, Short};
use crate::format::swar;

/// How a time is written.
#[derive(Clone, Debug)]
pub enum When {
    /// A number, or text that is one, of this unit since 1970-01-01T00:00:00Z.
    Unit(Unit),
    /// `2026-01-31T12:00:00.25+01:00`, and what else ISO 8601 allows: `+0100`, a blank for the `T`.
    Rfc3339 {
        /// Where the clock hangs, of a time that does not say so.
        zone: Option<TimeZone>,
    },
    /// By a strftime pattern.
    Pattern {
        /// The pattern.
        pattern: String,
        /// Where the clock hangs, of a pattern that does not say so.
        zone: Option<TimeZone>,
    },
}

/// A unit of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Seconds.
    S,
    /// Milliseconds.
    Ms,
    /// Microseconds.
    Us,
    /// Nanoseconds; what is less than a microsecond is cut off, towards the past.
    Ns,
}

impl Unit {
    /// A short number of this unit as microseconds. `None` where [`When::read_number`] must say.
    #[inline(always)]
    pub fn micros(self, number: Short) -> Option<i64> {
        match self {
            Self::S => number.scaled(6),
            Self::Ms => number.scaled(3),
            Self::Us => number.scaled(0),
            Self::Ns => number.scaled(0).map(|nanos| nanos.div_euclid(1000)),
        }
    }
}

impl When {
    /// From the settings `unit` and `zone` of a column.
    pub fn parse(unit: &str, zone: Option<&str>) -> Result<Self, String> {
        let simple = match unit {
            "s" => Self::Unit(Unit::S),
            "ms" => Self::Unit(Unit::Ms),
            "us" => Self::Unit(Unit::Us),
            "ns" => Self::Unit(Unit::Ns),
            "rfc3339" => return Ok(Self::Rfc3339 { zone: zone.map(read_zone).transpose()? }),
            _ => return pattern(unit, zone),
        };
        match zone {
            Some(_) => Err(format!("`zone` goes with `rfc3339` or a strftime pattern, not with unit `{unit}`")),
            None => Ok(simple),
        }
    }

    /// A time as a short number: microseconds since 1970. `None` where [`Self::read_number`] must say.
    #[inline]
    pub fn read_short(&self, number: Short) -> Option<i64> {
        match self {
            Self::Unit(unit) => unit.micros(number),
            Self::Rfc3339 { .. } | Self::Pattern { .. } => None,
        }
    }

    /// A time as a number of a payload: microseconds since 1970.
    pub fn read_number(&self, text: &[u8]) -> Result<i64, String> {
        let Self::Unit(unit) = self else {
            return Err(format!("expected {}, got a number", self.expected()));
        };
        let scale: i32 = match unit {
            Unit::S => 6,
            Unit::Ms => 3,
            Unit::Us => 0,
            Unit::Ns => -3,
        };
        let out = || format!("time {} does not fit 64 bits of microseconds", String::from_utf8_lossy(text));
        let (whole, negative, rest) = number::scaled(text, scale).ok_or_else(out)?;
        let nudge = match (unit, rest) {
            (_, Rest::None) => 0,
            (Unit::Ns, _) => -i128::from(negative),
            (_, Rest::Less) => 0,
            (_, Rest::Half) => {
                if negative {
                    -1
                } else {
                    1
                }
            }
        };
        i64::try_from(whole + nudge).map_err(|_| out())
    }

    /// A time as text: microseconds since 1970.
    pub fn read_text(&self, text: &str) -> Result<i64, String> {
        let wrong = |why: jiff::Error| format!("expected {}, got \"{}\": {why}", self.expected(), shorten(text));
        let time = match self {
            Self::Unit(_) if number::is_number(text.as_bytes()) => return self.read_number(text.as_bytes()),
            Self::Unit(_) => return Err(format!("expected {}, got \"{}\"", self.expected(), shorten(text))),
            Self::Rfc3339 { zone } => match (rfc3339(text.as_bytes()), zone) {
                (Some(micros), _) => return Ok(micros),
                (None, None) => text.parse::<jiff::Timestamp>().map_err(wrong)?,
                (None, Some(zone)) => match text.parse::<jiff::Timestamp>() {
                    Ok(time) => time,
                    Err(_) => {
                        zone.to_timestamp(text.parse::<jiff::civil::DateTime>().map_err(wrong)?).map_err(wrong)?
                    }
                },
            },
            Self::Pattern { pattern, zone } => {
                let parsed = strtime::parse(pattern, text).map_err(wrong)?;
                match zone {
                    None => parsed.to_timestamp().map_err(wrong)?,
                    Some(zone) => zone.to_timestamp(parsed.to_datetime().map_err(wrong)?).map_err(wrong)?,
                }
            }
        };
        let micros = time.as_nanosecond().div_euclid(1000);
        Ok(i64::try_from(micros).expect("jiff's years -9999 to 9999 fit"))
    }

    /// What is expected, for messages.
    pub fn expected(&self) -> String {
        match self {
            Self::Unit(unit) => {
                let unit = match unit {
                    Unit::S => "s",
                    Unit::Ms => "ms",
                    Unit::Us => "us",
                    Unit::Ns => "ns",
                };
                format!("a time as a number of {unit}")
            }
            Self::Rfc3339 { .. } => "a time as rfc3339 text".to_owned(),
            Self::Pattern { pattern, .. } => format!("a time as text like {pattern}"),
        }
    }
}

/// Microseconds since 1970 of the form that nearly all RFC 3339 times have: `2026-01-31T12:00:00`, a point and one to nine
/// digits or neither, and `Z` or an offset like `+01:00`. `None` where jiff must say: other forms, years that its range
/// may end in, leap seconds, `-00:00`, and what is no time.
fn rfc3339(text: &[u8]) -> Option<i64> {
    let date = two_digits(text, 0, *b"0000-00-")?;
    let clock = two_digits(text, 8, *b"00T00:00")?;
    let second = two_digits(text, 16, *b":00\0\0\0\0\0")?;
    let (year, month) = (i64::from(date[0]) * 100 + i64::from(date[2]), date[5]);
    let (day, hour, minute, second) = (clock[0], clock[3], clock[6], second[1]);
    let fits = (1..=9998).contains(&year) && (1..=12).contains(&month) && day >= 1 && day <= days_in(year, month);
    if !fits || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let (micros, zone) = match text.get(19) {
        Some(b'.') => fraction(text)?,
        _ => (0, 19),
    };
    let offset = offset_minutes(text.get(zone..)?)?;
    let minutes = (days_since_1970(year, month, day) * 24 + i64::from(hour)) * 60 + i64::from(minute) - offset;
    // Of years of four digits, far from the ends of 64 bits.
    Some((minutes * 60 + i64::from(second)) * 1_000_000 + micros)
}

/// Eight bytes that look like `form`: a digit where it has one, the same sign where it has a sign, anything where it has
/// a zero byte. Where two digits stand side by side, the byte of the first is their value.
#[inline]
fn two_digits(text: &[u8], at: usize, form: [u8; 8]) -> Option<[u8; 8]> {
    const SEVENS: u64 = 0x7f7f_7f7f_7f7f_7f7f;
    let mut most = [0; 8];
    for (most, sign) in most.iter_mut().zip(form) {
        *most = match sign {
            0 => 0x7f,
            b'0' => 9,
            _ => 0,
        };
    }
    let mut mask = [0xff; 8];
    for (mask, sign) in mask.iter_mut().zip(form) {
        *mask = if sign == 0 { 0 } else { 0xff };
    }
    // What is as in the form becomes 0, or the value of a digit. Adding 127 less the most that may be there sets the top
    // bit of a byte that is more, or that has it; nothing is carried out of a byte whose top bit is taken away before.
    let values = (swar::window(text, at) ^ u64::from_le_bytes(form)) & u64::from_le_bytes(mask);
    let over = (values & SEVENS).wrapping_add(SEVENS - u64::from_le_bytes(most)) | values;
    if over & !SEVENS != 0 {
        return None;
    }
    Some((values.wrapping_mul(10).wrapping_add(values >> 8)).to_le_bytes())
}

/// The microseconds of the digits after the point, which are cut after the sixth, and where they end.
#[inline]
fn fraction(text: &[u8]) -> Option<(i64, usize)> {
    let (digits, count) = swar::digits(text, 20)?;
    let micros = match count {
        1..=6 => digits * swar::POWERS[6 - count],
        7..=9 => digits / swar::POWERS[count - 6],
        _ => return None,
    };
    Some((i64::try_from(micros).ok()?, 20 + count))
}

/// `Z`, or `+01:00` in minutes.
#[inline]
fn offset_minutes(text: &[u8]) -> Option<i64> {
    let &[sign, h1, h0, b':', m1, m0] = text else { return (text == b"Z").then_some(0) };
    let number = |tens: u8, ones: u8| {
        let (tens, ones) = (tens.wrapping_sub(b'0'), ones.wrapping_sub(b'0'));
        (tens <= 9 && ones <= 9).then(|| i64::from(tens) * 10 + i64::from(ones))
    };
    let (hours, minutes) = (number(h1, h0)?, number(m1, m0)?);
    let offset = hours * 60 + minutes;
    match sign {
        _ if hours > 23 || minutes > 59 => None,
        b'+' => Some(offset),
        b'-' if offset > 0 => Some(-offset),
        _ => None,
    }
}

fn days_in(year: i64, month: u8) -> u8 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        _ => 31,
    }
}

/// Days of the Gregorian calendar since 1970-01-01, of years after Christ. Years that begin in March have the leap day at
/// their end (Hinnant, "chrono-compatible low-level date algorithms", 2013): the days before a month of such a year are
/// `(153 m + 2) / 5`, and before a year `365 y + y/4 - y/100 + y/400`; 719,468 of them are before 1970.
fn days_since_1970(year: i64, month: u8, day: u8) -> i64 {
    let (year, month) = if month > 2 { (year, i64::from(month) - 3) } else { (year - 1, i64::from(month) + 9) };
    365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + i64::from(day) - 1 - 719_468
}

/// The front of a text, for messages.
pub fn shorten(text: &str) -> String {
    const SHOWN: usize = 40;
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

fn pattern(pattern: &str, zone: Option<&str>) -> Result<When, String> {
    if !pattern.contains('%') {
        return Err(format!("unit `{pattern}`: expected s, ms, us, ns, rfc3339 or a strftime pattern like %Y-%m-%d"));
    }
    let tells = tells_the_zone(pattern);
    let zone = match zone {
        Some(_) if tells => return Err(format!("`{pattern}` tells the zone itself: remove `zone`")),
        Some(name) => Some(read_zone(name)?),
        None if !tells => {
            return Err(format!(
                "`{pattern}` does not tell the zone: set `zone`, like \"Europe/Berlin\" or \"+02:00\""
            ));
        }
        None => None,
    };
    let when = When::Pattern { pattern: pattern.to_owned(), zone };
    // A pattern that cannot read what it writes is none.
    let sample = jiff::ZonedDateTime::new(jiff::Timestamp::UNIX_EPOCH, TimeZone::UTC);
    let written = strtime::format(pattern, &sample).map_err(|why| format!("pattern `{pattern}`: {why}"))?;
    when.read_text(&written).map_err(|why| format!("pattern `{pattern}` cannot be read back: {why}"))?;
    Ok(when)
}

/// Whether a pattern has `%z`, `%Z`, `%Q` or `%s`.
fn tells_the_zone(pattern: &str) -> bool {
    let mut signs = pattern.chars();
    while signs.by_ref().any(|sign| sign == '%') {
        let directive = signs.by_ref().find(|sign| sign.is_ascii_alphabetic() || *sign == '%');
        if matches!(directive, Some('z' | 'Z' | 'Q' | 's')) {
            return true;
        }
    }
    false
}

/// An IANA name or a fixed offset.
fn read_zone(name: &str) -> Result<TimeZone, String> {
    let wrong = || format!("zone `{name}`: expected a name like \"Europe/Berlin\" or an offset like \"+02:00\"");
    let Some(sign) = name.bytes().next().filter(|sign| matches!(sign, b'+' | b'-')) else {
        return TimeZone::get(name).map_err(|_| wrong());
    };
    let (hours, minutes) = name[1..].split_once(':').ok_or_else(wrong)?;
    let number = |text: &str, max: i32| {
        let plain = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse::<i32>().ok().filter(|number| plain && *number <= max)
    };
    let seconds = number(hours, 23).zip(number(minutes, 59)).map(|(h, m)| h * 3600 + m * 60).ok_or_else(wrong)?;
    let offset = Offset::from_seconds(if sign == b'-' { -seconds } else { seconds }).map_err(|_| wrong())?;
    Ok(TimeZone::fixed(offset))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn number(unit: &str, text: &str) -> Result<i64, String> {
        When::parse(unit, None).unwrap().read_number(text.as_bytes())
    }

    fn text(unit: &str, zone: Option<&str>, text: &str) -> Result<i64, String> {
        When::parse(unit, zone).unwrap().read_text(text)
    }

    #[test]
    fn numbers_are_exact() {
        assert_eq!(number("s", "1594512094.3859746"), Ok(1_594_512_094_385_975));
        assert_eq!(number("s", "1.5945120943859746E9"), Ok(1_594_512_094_385_975));
        assert_eq!(number("s", "-1"), Ok(-1_000_000));
        assert_eq!(number("s", "-0.0000005"), Ok(-1));
        assert_eq!(number("ms", "1594512094385"), Ok(1_594_512_094_385_000));
        assert_eq!(number("us", "9007199254740993"), Ok(9_007_199_254_740_993));
        assert_eq!(number("ns", "1999"), Ok(1));
        assert_eq!(number("ns", "-1"), Ok(-1));
        assert_eq!(number("ns", "-1000"), Ok(-1));
        assert_eq!(number("ns", "-1001"), Ok(-2));
        assert!(number("s", "9223372036855").is_err());
        assert!(number("s", "1e300").is_err());
    }

    #[test]
    fn days_are_those_of_the_calendar() {
        let mut day = jiff::Timestamp::UNIX_EPOCH.to_zoned_datetime(TimeZone::UTC).date();
        for expected in 0..200_000 {
            let (year, month) = (i64::from(day.year()), day.month() as u8);
            assert_eq!(days_since_1970(year, month, day.day() as u8), expected, "{day}");
            assert_eq!(days_in(year, month), day.days_in_month() as u8, "{day}");
            day = day.tomorrow().unwrap();
        }
        // Day 1 of the calendar (Python: (date(1970, 1, 1) - date(1, 1, 1)).days).
        assert_eq!(days_since_1970(1, 1, 1), -719_162);
    }

    /// What jiff says of a text.
    fn of_jiff(text: &str) -> Option<i64> {
        let time = text.parse::<jiff::Timestamp>().ok()?;
        i64::try_from(time.as_nanosecond().div_euclid(1000)).ok()
    }

    #[test]
    fn times_of_the_usual_form_need_no_jiff() {
        for usual in ["2026-01-31T12:00:00Z", "0001-01-01T00:00:00.123456789+23:59", "9998-12-31T23:59:59.9-00:01"] {
            assert!(rfc3339(usual.as_bytes()).is_some(), "{usual}");
            assert_eq!(rfc3339(usual.as_bytes()), of_jiff(usual), "{usual}");
        }
        for other in
            ["2026-01-31 12:00:00Z", "2026-01-31T12:00:60Z", "2026-02-29T12:00:00Z", "2026-01-31T12:00:00-00:00"]
        {
            assert_eq!(rfc3339(other.as_bytes()), None, "{other}");
        }
    }

    proptest! {
        #[test]
        fn the_usual_form_is_read_as_by_jiff(
            text in "[0-9]{4}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-6][0-9]:[0-6][0-9](\\.[0-9]{1,10})?(Z|[+-][0-2][0-9]:[0-6][0-9])",
            at in any::<prop::sample::Index>(), byte in any::<u8>(), how in 0..4) {
            let mut bytes = text.into_bytes();
            let at = at.index(bytes.len());
            match how {
                0 => bytes[at] = byte,
                1 => bytes.truncate(at),
                _ => (),
            }
            let micros = rfc3339(&bytes);
            prop_assert!(micros.is_none() || std::str::from_utf8(&bytes).is_ok_and(|text| of_jiff(text) == micros));
        }
    }

    #[test]
    fn short_numbers_are_the_times_of_all_numbers() {
        for unit in ["s", "ms", "us", "ns"] {
            for text in
                ["0", "-1", "-0.000001", "1700000000.123", "1999", "-1999", "-2000", "9223372036854775807", "1.5"]
            {
                let (short, _) = Short::read(text.as_bytes(), 0).unwrap();
                let micros = When::parse(unit, None).unwrap().read_short(short);
                assert!(micros.is_none() || number(unit, text) == Ok(micros.unwrap()), "{text} {unit}");
            }
        }
    }

    #[test]
    fn text_is_read() {
        assert_eq!(text("s", None, "12.5"), Ok(12_500_000));
        assert!(text("s", None, "soon").is_err());
        assert_eq!(text("rfc3339", None, "1970-01-01T01:00:00.25+01:00"), Ok(250_000));
        assert_eq!(text("rfc3339", None, "1969-12-31T23:59:59.9999999Z"), Ok(-1));
        assert!(text("rfc3339", None, "1970-01-01T01:00:00").is_err());
        assert_eq!(text("%Y-%m-%d %H:%M:%S", Some("+02:00"), "1970-01-01 02:00:01"), Ok(1_000_000));
        assert_eq!(text("%Y-%m-%d", Some("UTC"), "1970-01-02"), Ok(86_400_000_000));
        assert_eq!(text("%Y-%m-%dT%H:%M%z", None, "1970-01-01T00:00-0100"), Ok(3_600_000_000));
        assert!(When::parse("rfc3339", None).unwrap().read_number(b"1").is_err());
    }

    #[test]
    fn wrong_units_say_why() {
        for (unit, zone) in [("sec", None), ("%Y-%m-%d", None), ("s", Some("UTC")), ("%Y-%m-%d", Some("Mars/Base"))] {
            assert!(When::parse(unit, zone).is_err(), "{unit}");
        }
        assert!(When::parse("%Y-%m-%d", Some("+25:00")).is_err());
        assert!(When::parse("%H:%M %z", None).is_err());
    }
}
