//! Exact numbers from text, by the grammar of JSON: `-? digits (. digits)? ([eE] [+-]? digits)?`.
//!
//! Nearly all numbers of devices are [`Short`]: found and read in one go. What is not is found by [`scan`], and read by
//! the functions below it, which know every number there can be.

use crate::format::swar::{self, Word};

/// Powers of ten that a double holds exactly.
const EXACT_POWERS: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20,
    1e21, 1e22,
];
/// Digits of which any number fits a `u64`.
const U64_DIGITS: usize = 19;
/// The greatest power of ten in an `i128`.
const I128_POWER: u32 = 38;
/// Powers of ten that a single holds exactly: 5^10 < 2^24.
const EXACT_POWERS_OF_SINGLES: [f32; 11] = [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10];

/// A number without exponent, of at most `U64_DIGITS` digits: `digits / 10^decimals`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Short {
    /// There is a minus.
    pub negative: bool,
    /// All digits, as one whole number.
    pub digits: u64,
    /// How many of them stand after the point; nought where there is none, as a point has digits after it.
    pub decimals: u32,
}

/// What eight bytes show of a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// All of it, and how long it is.
    Whole(Short, usize),
    /// It goes on behind them, as far as can be seen.
    Part,
    /// There is none, or it is not short.
    Nothing,
}

impl Short {
    /// The number at `at`, and where it ends. `None` where there is none, or one that is not short.
    #[inline(always)]
    pub fn read(text: &[u8], at: usize) -> Option<(Self, usize)> {
        let first = Word::at(text, at);
        let negative = first.byte(0) == b'-';
        let (start, word) = if negative { (at + 1, Word::at(text, at + 1)) } else { (at, first) };
        match Self::seen(word, negative) {
            Seen::Whole(number, len) => Some((number, start + len)),
            Seen::Nothing => None,
            Seen::Part => Self::read_long(text, at, negative),
        }
    }

    /// What eight bytes show of the number that begins with them, but for its sign.
    #[inline(always)]
    pub fn seen(word: Word, negative: bool) -> Seen {
        let count = word.digits();
        let (digits, decimals, end) = match word.byte(count) {
            b'.' => {
                let end = word.second();
                if end == 8 || end == count + 1 {
                    return Seen::Part;
                }
                (word.value_around(count, end), end - count - 1, end)
            }
            _ if count == 8 => return Seen::Part,
            _ => (word.value(count), 0, count),
        };
        let is_number = count > 0 && (count == 1 || word.byte(0) != b'0') && !matches!(word.byte(end), b'e' | b'E');
        if is_number { Seen::Whole(Self { negative, digits, decimals: decimals as u32 }, end) } else { Seen::Nothing }
    }

    /// The same of one that is not seen whole in its first eight bytes.
    #[inline(never)]
    fn read_long(text: &[u8], at: usize, negative: bool) -> Option<(Self, usize)> {
        let start = at + usize::from(negative);
        let (whole, count) = swar::digits(text, start)?;
        let mut number = Self { negative, digits: whole, decimals: 0 };
        let mut end = start + count;
        if text.get(end) == Some(&b'.') {
            let (fraction, decimals) = swar::digits(text, end + 1)?;
            if decimals == 0 || count + decimals > U64_DIGITS {
                return None;
            }
            (number.digits, number.decimals) = (whole * swar::POWERS[decimals] + fraction, decimals as u32);
            end += 1 + decimals;
        }
        let is_number = count > 0 && (count == 1 || text.get(start) != Some(&b'0'));
        (is_number && !matches!(text.get(end), Some(b'e' | b'E'))).then_some((number, end))
    }

    /// The number, where it is written as a whole one and fits.
    #[inline]
    pub fn int64(self) -> Option<i64> {
        let magnitude = i64::try_from(self.digits).ok().filter(|_| self.decimals == 0)?;
        Some(if self.negative { -magnitude } else { magnitude })
    }

    /// The number times `10^scale`, where that is whole and fits.
    #[inline]
    pub fn scaled(self, scale: u32) -> Option<i64> {
        let power = swar::POWERS.get(scale.checked_sub(self.decimals)? as usize)?;
        let magnitude = i64::try_from(self.digits.checked_mul(*power)?).ok()?;
        Some(if self.negative { -magnitude } else { magnitude })
    }

    /// The nearest double, by the fast path of Clinger ("How to read floating point numbers accurately", 1990): whole
    /// numbers up to 2^53 and powers of ten up to 10^22 are doubles, so that the one rounding, of the division, is the
    /// right one. `None` where the digits are more.
    #[inline]
    pub fn float64(self) -> Option<f64> {
        if self.digits > 1 << f64::MANTISSA_DIGITS {
            return None;
        }
        // Signed, because processors convert only that.
        let value = (self.digits as i64) as f64 / EXACT_POWERS[self.decimals as usize];
        Some(if self.negative { -value } else { value })
    }

    /// The nearest single, in the same way: up to 2^24 and 10^10.
    #[inline]
    pub fn float32(self) -> Option<f32> {
        let power = EXACT_POWERS_OF_SINGLES.get(self.decimals as usize)?;
        if self.digits > 1 << f32::MANTISSA_DIGITS {
            return None;
        }
        let value = (self.digits as i64) as f32 / power;
        Some(if self.negative { -value } else { value })
    }
}

/// How long the number at the front of `text` is; the byte that is wrong where there is none.
pub fn scan(text: &[u8]) -> Result<usize, usize> {
    let digits = |mut at: usize| {
        let start = at;
        while text.get(at).is_some_and(u8::is_ascii_digit) {
            at += 1;
        }
        if at == start { Err(at) } else { Ok(at) }
    };
    let mut at = usize::from(text.first() == Some(&b'-'));
    at = if text.get(at) == Some(&b'0') { at + 1 } else { digits(at)? };
    if text.get(at) == Some(&b'.') {
        at = digits(at + 1)?;
    }
    if matches!(text.get(at), Some(b'e' | b'E')) {
        at += 1;
        at += usize::from(matches!(text.get(at), Some(b'+' | b'-')));
        at = digits(at)?;
    }
    Ok(at)
}

/// Whether all of `text` is one number.
pub fn is_number(text: &[u8]) -> bool {
    scan(text) == Ok(text.len())
}

/// A whole number written as one. `None` where it has a point or an exponent, or does not fit 128 bits.
pub fn integer(text: &[u8]) -> Option<i128> {
    let (negative, digits) = text.strip_prefix(b"-").map_or((false, text), |rest| (true, rest));
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let magnitude = if digits.len() <= U64_DIGITS {
        i128::from(digits.iter().fold(0u64, |sum, digit| sum * 10 + u64::from(digit - b'0')))
    } else {
        let add = |sum: i128, digit: &u8| sum.checked_mul(10)?.checked_add(i128::from(digit - b'0'));
        digits.iter().try_fold(0, add)?
    };
    Some(if negative { -magnitude } else { magnitude })
}

/// The parts of a number: `digits × 10^exponent`.
struct Parts {
    negative: bool,
    digits: u128,
    exponent: i64,
    /// More digits than fit.
    overflow: bool,
}

fn parts(text: &[u8]) -> Parts {
    let mut parts = Parts { negative: false, digits: 0, exponent: 0, overflow: false };
    let mut point = false;
    for (at, byte) in text.iter().enumerate() {
        match byte {
            b'-' => parts.negative = true,
            b'.' => point = true,
            b'0'..=b'9' => {
                let next = parts.digits.checked_mul(10).and_then(|sum| sum.checked_add(u128::from(byte - b'0')));
                match next {
                    Some(next) => parts.digits = next,
                    None => parts.overflow = true,
                }
                parts.exponent -= i64::from(point);
            }
            _ => {
                parts.exponent = parts.exponent.saturating_add(exponent(&text[at + 1..]));
                break;
            }
        }
    }
    parts
}

/// An exponent; beyond what any type holds, some number that is.
fn exponent(text: &[u8]) -> i64 {
    let (negative, digits) = match text.split_first() {
        Some((b'-', rest)) => (true, rest),
        Some((b'+', rest)) => (false, rest),
        _ => (false, text),
    };
    let add = |sum: i64, digit: &u8| (sum * 10 + i64::from(digit - b'0')).min(1_000_000_000);
    let magnitude = digits.iter().fold(0, add);
    if negative { -magnitude } else { magnitude }
}

/// The nearest double of a number that [`scan`] accepts. `None` where it is too great for one.
pub fn float64(text: &[u8]) -> Option<f64> {
    let value: f64 = std::str::from_utf8(text).ok()?.parse().ok()?;
    value.is_finite().then_some(value)
}

/// The nearest single. `None` where it is too great for one.
pub fn float32(text: &[u8]) -> Option<f32> {
    let value: f32 = std::str::from_utf8(text).ok()?.parse().ok()?;
    value.is_finite().then_some(value)
}

/// What of a number is lost when it is cut to a scale.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    /// Nothing.
    None,
    /// Less than half of the last digit.
    Less,
    /// Half of it or more.
    Half,
}

/// A number times `10^scale`, cut towards zero, and what is lost by that. `None` where it does not fit.
pub fn scaled(text: &[u8], scale: i32) -> Option<(i128, bool, Rest)> {
    let Parts { negative, digits, exponent, overflow } = parts(text);
    let digits = i128::try_from(digits).ok().filter(|_| !overflow)?;
    let shift = exponent.saturating_add(i64::from(scale));
    let (whole, rest) = if digits == 0 {
        (0, Rest::None)
    } else if shift >= 0 {
        let power = 10i128.checked_pow(u32::try_from(shift).ok()?)?;
        (digits.checked_mul(power)?, Rest::None)
    } else if shift < -i64::from(I128_POWER) {
        // i128 holds less than 1.8 × 10^38: cut off by 10^39 and more, less than half is left.
        (0, Rest::Less)
    } else {
        let power = 10i128.pow(u32::try_from(-shift).expect("from 1 to 38"));
        let (whole, lost) = (digits / power, digits % power);
        let half = lost >= power / 2;
        (
            whole,
            if lost == 0 {
                Rest::None
            } else if half {
                Rest::Half
            } else {
                Rest::Less
            },
        )
    };
    Some((if negative { -whole } else { whole }, negative, rest))
}

/// A number as it is written: `digits × 10^exponent`, with no more noughts at its end than nought has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exact {
    digits: i128,
    exponent: i64,
}

impl Exact {
    /// 0.
    pub const ZERO: Self = Self { digits: 0, exponent: 0 };
    /// 1.
    pub const ONE: Self = Self { digits: 1, exponent: 0 };

    /// A number that [`scan`] accepts. `None` where it has more digits than 128 bits.
    pub fn read(text: &[u8]) -> Option<Self> {
        let Parts { negative, digits, exponent, overflow } = parts(text);
        let digits = i128::try_from(digits).ok().filter(|_| !overflow)?;
        Some(Self::of(if negative { -digits } else { digits }, exponent))
    }

    fn of(mut digits: i128, mut exponent: i64) -> Self {
        if digits == 0 {
            return Self::ZERO;
        }
        while digits % 10 == 0 {
            (digits, exponent) = (digits / 10, exponent + 1);
        }
        Self { digits, exponent }
    }

    /// The product. `None` where it has too many digits.
    pub fn times(self, other: Self) -> Option<Self> {
        Some(Self::of(self.digits.checked_mul(other.digits)?, self.exponent + other.exponent))
    }

    /// The sum. `None` where it has too many digits.
    pub fn plus(self, other: Self) -> Option<Self> {
        if self.digits == 0 || other.digits == 0 {
            return Some(if self.digits == 0 { other } else { self });
        }
        let exponent = self.exponent.min(other.exponent);
        let aligned = |number: Self| {
            let shift = u32::try_from(number.exponent - exponent).ok()?;
            number.digits.checked_mul(10i128.checked_pow(shift)?)
        };
        Some(Self::of(aligned(self)?.checked_add(aligned(other)?)?, exponent))
    }

    /// Writes it: a whole number without point and exponent, as far as that is not absurdly long.
    pub fn write(self, text: &mut String) {
        use std::fmt::Write;
        let Self { digits, exponent } = self;
        let whole = u32::try_from(exponent).ok().and_then(|shift| digits.checked_mul(10i128.checked_pow(shift)?));
        let written = match whole {
            Some(whole) => write!(text, "{whole}"),
            None => write!(text, "{digits}e{exponent}"),
        };
        debug_assert!(written.is_ok(), "a string takes all text");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn eight_bytes_show_a_number_or_that_it_goes_on() {
        let whole = |digits, decimals, len| Seen::Whole(Short { negative: false, digits, decimals }, len);
        for (text, expected) in [
            ("23.45,", whole(2345, 2, 5)),
            ("0.0}", whole(0, 1, 3)),
            ("1.23456,", whole(123_456, 5, 7)),
            ("12345.6 ", whole(123_456, 1, 7)),
            ("1.23456", whole(123_456, 5, 7)),
            ("1.5.5", whole(15, 1, 3)),
            ("23,", whole(23, 0, 2)),
            ("0}", whole(0, 0, 1)),
            ("23/45,", whole(23, 0, 2)),
            ("1.234567,", Seen::Part),
            ("5.,", Seen::Part),
            ("12345678", Seen::Part),
            (".5,", Seen::Nothing),
            ("01,", Seen::Nothing),
            ("00.5,", Seen::Nothing),
            ("1e5,", Seen::Nothing),
            ("1.5E2,", Seen::Nothing),
            ("", Seen::Nothing),
        ] {
            assert_eq!(Short::seen(Word::at(text.as_bytes(), 0), false), expected, "{text}");
        }
        // What goes on is not short, or is read as such: never as something else.
        assert_eq!(Short::read(b"5.,", 0), None);
        assert_eq!(Short::read(b"-1.234567,", 0), Some((Short { negative: true, digits: 1_234_567, decimals: 6 }, 9)));
    }

    #[test]
    fn the_grammar_is_that_of_json() {
        for good in ["0", "-0", "12", "1.5", "-0.25e10", "1E+3", "1e-3", "0e1"] {
            assert!(is_number(good.as_bytes()), "{good}");
        }
        for bad in ["", "-", "01", "+1", ".5", "1.", "1e", "1e+", "NaN", "Infinity", "0x1", "1 "] {
            assert!(!is_number(bad.as_bytes()), "{bad}");
        }
    }

    #[test]
    fn whole_numbers_are_exact() {
        assert_eq!(integer(b"9007199254740993"), Some(9_007_199_254_740_993));
        assert_eq!(integer(b"-9223372036854775808"), Some(i128::from(i64::MIN)));
        assert_eq!(integer(b"18446744073709551615"), Some(i128::from(u64::MAX)));
        assert_eq!(integer(b"1.0"), None);
        assert_eq!(integer(&[b'9'; 60]), None);
    }

    #[test]
    fn short_numbers_end_where_the_grammar_says() {
        for good in ["0", "-0", "12", "1.5,", "-0.25}", "1234567890123456789", "123456789.0123456789 "] {
            let (_, end) = Short::read(good.as_bytes(), 0).unwrap();
            assert_eq!(Ok(end), scan(good.as_bytes()), "{good}");
        }
        for other in ["", "-", "01", "-00", "+1", ".5", "1.", "1.x", "1e3", "1.5E2", "x", "12345678901234567890", "-.1"]
        {
            assert_eq!(Short::read(other.as_bytes(), 0), None, "{other}");
        }
        // 2^53 + 1 is no double, and 2^24 + 1 no single.
        assert_eq!(Short::read(b"9007199254740993", 0).unwrap().0.float64(), None);
        assert_eq!(Short::read(b"16777217", 0).unwrap().0.float32(), None);
        assert_eq!(Short::read(b"-0.0", 0).unwrap().0.float64().map(f64::to_bits), Some((-0.0f64).to_bits()));
        assert_eq!(Short::read(b"-1.25", 0).unwrap().0.scaled(6), Some(-1_250_000));
        assert_eq!(Short::read(b"9223372036854775807", 0).unwrap().0.scaled(0), Some(i64::MAX));
        assert_eq!(Short::read(b"9223372036854775808", 0).unwrap().0.scaled(0), None);
        assert_eq!(Short::read(b"1.25", 0).unwrap().0.scaled(1), None);
    }

    #[test]
    fn what_is_computed_is_exact() {
        let line = |value: &str, scale: &str, offset: &str| {
            let read = |text: &str| Exact::read(text.as_bytes());
            let mut text = String::new();
            read(value)?.times(read(scale)?)?.plus(read(offset)?)?.write(&mut text);
            Some(text)
        };
        for (value, scale, offset, expected) in [
            ("205", "0.1", "0", "205e-1"),
            ("200", "0.1", "0", "20"),
            ("3", "0.1", "0.1", "4e-1"),
            ("-0", "5", "0", "0"),
            ("1e3", "2", "-0.5", "19995e-1"),
            ("65535", "0.00390625", "-40", "21599609375e-8"),
            ("1e400", "10", "0", "1e401"),
        ] {
            assert_eq!(line(value, scale, offset).as_deref(), Some(expected), "{value} * {scale} + {offset}");
        }
        assert_eq!(line("1e40", "1", "0.1"), None, "41 digits");
        assert_eq!(line(&"9".repeat(38), "11", "0"), None);
        assert_eq!(line(&"9".repeat(60), "1", "0"), None);
    }

    #[test]
    fn scales_cut_and_say_what_is_lost() {
        assert_eq!(scaled(b"1.25", 2), Some((125, false, Rest::None)));
        assert_eq!(scaled(b"-1.25", 1), Some((-12, true, Rest::Half)));
        assert_eq!(scaled(b"1.24", 1), Some((12, false, Rest::Less)));
        assert_eq!(scaled(b"1e3", 0), Some((1000, false, Rest::None)));
        assert_eq!(scaled(b"1e-99", 0), Some((0, false, Rest::Less)));
        assert_eq!(scaled(b"1e99999999999", 0), None);
        assert_eq!(scaled(b"0e99999999999", 6), Some((0, false, Rest::None)));
    }

    proptest! {
        #[test]
        fn doubles_are_those_of_std(text in "-?(0|[1-9][0-9]{0,20})(\\.[0-9]{1,20})?(e-?[0-9]{1,2})?") {
            let expected: f64 = text.parse().unwrap();
            prop_assert_eq!(float64(text.as_bytes()).map(f64::to_bits), Some(expected.to_bits()));
        }

        #[test]
        fn short_numbers_are_those_of_std(text in "-?(0|[1-9][0-9]{0,9})(\\.[0-9]{1,9})?", after in "([^0-9.eE].{0,9})?") {
            let (number, end) = Short::read(format!("{text}{after}").as_bytes(), 0).unwrap();
            prop_assert_eq!(end, text.len());
            let (double, single): (f64, f32) = (text.parse().unwrap(), text.parse().unwrap());
            prop_assert!(number.float64().is_none_or(|value| value.to_bits() == double.to_bits()), "{}", number.digits);
            prop_assert!(number.float32().is_none_or(|value| value.to_bits() == single.to_bits()), "{}", number.digits);
            // By the slow way, in 128 bits.
            let digits: i128 = text.replace(['-', '.'], "").parse().unwrap();
            let sign = if text.starts_with('-') { -1 } else { 1 };
            let whole = (number.decimals <= 6).then(|| sign * digits * 10i128.pow(6 - number.decimals));
            prop_assert_eq!(number.scaled(6), whole.and_then(|whole| i64::try_from(whole).ok()));
        }
    }
}
