//! How times are written, and how they are read: always to whole microseconds, by whole arithmetic.

use jiff::fmt::strtime;
use jiff::tz::{Offset, TimeZone};

use crate::format::number::{self, Rest};

/// How a time is written.
#[derive(Clone, Debug)]
pub enum When {
    /// A number, or text that is one, of this unit since 1970-01-01T00:00:00Z.
    Unit(Unit),
    /// `2026-01-31T12:00:00.25+01:00`.
    Rfc3339,
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

impl When {
    /// From the settings `unit` and `zone` of a column.
    pub fn parse(unit: &str, zone: Option<&str>) -> Result<Self, String> {
        let simple = match unit {
            "s" => Self::Unit(Unit::S),
            "ms" => Self::Unit(Unit::Ms),
            "us" => Self::Unit(Unit::Us),
            "ns" => Self::Unit(Unit::Ns),
            "rfc3339" => Self::Rfc3339,
            _ => return pattern(unit, zone),
        };
        match zone {
            Some(_) => Err(format!("`zone` goes with a strftime pattern, not with unit `{unit}`")),
            None => Ok(simple),
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
        // Nearly all times are whole numbers of few digits: no need of 128 bits.
        if let (Some(whole), Ok(scale)) = (number::short_integer(text), u32::try_from(scale))
            && let Some(micros) = whole.checked_mul(10i64.pow(scale))
        {
            return Ok(micros);
        }
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
            Self::Rfc3339 => text.parse::<jiff::Timestamp>().map_err(wrong)?,
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
            Self::Rfc3339 => "a time as rfc3339 text".to_owned(),
            Self::Pattern { pattern, .. } => format!("a time as text like {pattern}"),
        }
    }
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
