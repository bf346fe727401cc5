//! Eight bytes at a time in one register (SWAR, "SIMD within a register"), without `unsafe`.
//!
//! The first byte of a text is the lowest of a word, so that "the first byte that" is a count of trailing zeros. All
//! tests for bytes leave the top bit of each byte that passes. A borrow or a carry out of such a byte may give false
//! ones above it, never below it: the first one is always right, and it is all that is asked for.

/// The top bit of every byte.
const TOPS: u64 = 0x8080_8080_8080_8080;
/// One in every byte.
const ONES: u64 = 0x0101_0101_0101_0101;

/// Powers of ten in 64 bits.
pub const POWERS: [u64; 20] = {
    let mut powers = [1; 20];
    let mut at = 1;
    while at < powers.len() {
        powers[at] = powers[at - 1] * 10;
        at += 1;
    }
    powers
};

/// The eight bytes from `at`, with zeros for what is beyond the end.
#[inline(always)]
pub fn window(text: &[u8], at: usize) -> u64 {
    match text.get(at..).and_then(<[u8]>::first_chunk) {
        Some(bytes) => u64::from_le_bytes(*bytes),
        None => tail(text, at),
    }
}

/// The same of the last bytes.
#[inline(never)]
fn tail(text: &[u8], at: usize) -> u64 {
    match text.last_chunk() {
        // At most eight bytes are beyond the end: what is left of the last eight moves down.
        Some(last) if at < text.len() => u64::from_le_bytes(*last) >> (8 * (at + 8 - text.len())),
        Some(_) => 0,
        None => text.get(at..).map_or(0, |rest| rest.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte))),
    }
}

/// How many bytes are before the first one that passed; eight where none did.
#[inline(always)]
fn before(passed: u64) -> usize {
    (passed.trailing_zeros() / 8) as usize
}

/// Decimal digits from `at`: their value and how many they are, at most 19. `None` where they are more, which may not fit.
#[inline(always)]
pub fn digits(text: &[u8], at: usize) -> Option<(u64, usize)> {
    let (value, count) = eight(text, at);
    if count < 8 { Some((value, count)) } else { more_digits(text, at, value) }
}

/// The same after eight of them.
#[inline(never)]
fn more_digits(text: &[u8], at: usize, high: u64) -> Option<(u64, usize)> {
    let (low, count) = eight(text, at + 8);
    let value = high * POWERS[count] + low;
    if count < 8 {
        return Some((value, 8 + count));
    }
    let (last, count) = eight(text, at + 16);
    (count <= 3).then(|| (value * POWERS[count] + last, 16 + count))
}

/// At most eight digits from `at`: their value and how many they are.
#[inline(always)]
fn eight(text: &[u8], at: usize) -> (u64, usize) {
    let word = Word::at(text, at);
    (word.value(word.digits()), word.digits())
}

/// The values of the digits in a word, and which of its bytes are none.
#[inline(always)]
fn digit_values(word: u64) -> (u64, u64) {
    // A digit becomes its value, from 0 to 9; any other byte is above: 10 to 127 reach the top bit by adding 118, what
    // is above 127 has it.
    let values = word ^ (ONES * b'0' as u64);
    (values, (values.wrapping_add(ONES * (128 - 10)) | values) & TOPS)
}

/// Eight bytes of a number, and which of them are digits.
#[derive(Clone, Copy, Debug)]
pub struct Word {
    bytes: u64,
    values: u64,
    others: u64,
}

impl Word {
    /// The eight bytes from `at`.
    #[inline(always)]
    pub fn at(text: &[u8], at: usize) -> Self {
        Self::of(window(text, at))
    }

    /// Eight bytes.
    #[inline(always)]
    pub fn of(bytes: u64) -> Self {
        let (values, others) = digit_values(bytes);
        Self { bytes, values, others }
    }

    /// The byte of an index below eight; nought from there on.
    #[inline(always)]
    pub fn byte(self, index: usize) -> u8 {
        (self.bytes.unbounded_shr(8 * index as u32) & 0xff) as u8
    }

    /// How many digits it begins with: eight where all are.
    #[inline(always)]
    pub fn digits(self) -> usize {
        before(self.others)
    }

    /// Where the second byte is that is no digit, if the first one is a point: a point carries nothing into the next byte
    /// (0x1e + 118 < 256), so this one is right as well. Eight where there is none.
    #[inline(always)]
    pub fn second(self) -> usize {
        before(self.others & self.others.wrapping_sub(1))
    }

    /// The value of its first digits.
    #[inline(always)]
    pub fn value(self, digits: usize) -> u64 {
        // What is no digit falls out at the top, and zeros come in as leading digits.
        value_of_eight(self.values.unbounded_shl(64 - 8 * digits as u32))
    }

    /// The value of the digits before `end`, but for the point that stands among them.
    #[inline(always)]
    pub fn value_around(self, point: usize, end: usize) -> u64 {
        let whole = u64::MAX.unbounded_shr(64 - 8 * point as u32);
        // The point goes out: what stands behind it moves down.
        let digits = (self.values & whole) | ((self.values >> 8) & !whole);
        value_of_eight(digits.unbounded_shl(72 - 8 * end as u32))
    }
}

/// The value of eight digits, the first in the lowest byte: pairs, fours and eights of digits by three multiplications
/// (Lemire, "Quickly parsing eight digits", 2018). No sum leaves its place: 99 < 2^8, 9,999 < 2^16, 99,999,999 < 2^32.
#[inline(always)]
fn value_of_eight(digits: u64) -> u64 {
    const FOURS: u64 = 0x0000_00ff_0000_00ff;
    // Byte 2k now holds the pair from there on; the bytes between hold what is masked away.
    let pairs = digits.wrapping_mul(10).wrapping_add(digits >> 8);
    let (even, odd) = (pairs & FOURS, (pairs >> 16) & FOURS);
    // Bits 32 and up: even × (100 + 1,000,000 × 2^32) holds first pair × 1,000,000 + third pair × 100, and odd the rest.
    let sum = even.wrapping_mul(100 + (1_000_000 << 32)).wrapping_add(odd.wrapping_mul(1 + (10_000 << 32)));
    sum >> 32
}

/// How many bytes of a word are before the first that is no plain text: a quote, a backslash, a control character or one that
/// is no ASCII. `None` where all are plain.
#[inline(always)]
pub fn before_special(word: u64) -> Option<usize> {
    let is = |byte: u8| (word ^ (ONES * u64::from(byte))).wrapping_sub(ONES);
    // A byte below 0x20 borrows when 0x20 is taken from it, a zero when 1 is; either then has its top bit set, as
    // only bytes above 127 had before.
    let passed = (is(b'"') | is(b'\\') | word.wrapping_sub(ONES * 0x20) | word) & TOPS;
    (passed != 0).then(|| before(passed))
}

/// Where the plain text from `at` ends: the place of the quote after bytes of ASCII that are no control characters and
/// no backslash. `None` where anything else comes before it.
#[inline]
pub fn plain_until_quote(text: &[u8], at: usize) -> Option<usize> {
    let mut from = at;
    loop {
        if let Some(plain) = before_special(window(text, from)) {
            let end = from + plain;
            return (text.get(end) == Some(&b'"')).then_some(end);
        }
        from += 8;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn windows_end_in_zeros() {
        let text = b"0123456789abcdef";
        for len in 0..=text.len() {
            for at in 0..=len + 9 {
                let mut expected = [0; 8];
                let rest = text[..len].get(at..).unwrap_or_default();
                let shown = rest.len().min(8);
                expected[..shown].copy_from_slice(&rest[..shown]);
                assert_eq!(window(&text[..len], at).to_le_bytes(), expected, "{at} of {len}");
            }
        }
    }

    #[test]
    fn every_byte_that_is_no_digit_ends_digits() {
        for byte in 0..=u8::MAX {
            let text = [b'4', b'2', byte, b'9', b'9', byte, byte, b'1', b'7'];
            let count = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
            let value = std::str::from_utf8(&text[..count]).unwrap().parse().unwrap();
            assert_eq!(digits(&text, 0), Some((value, count)), "{byte}");
        }
        assert_eq!(digits(b"9999999999999999999", 0), Some((9_999_999_999_999_999_999, 19)));
        assert_eq!(digits(b"10000000000000000000", 0), None);
        assert_eq!(digits(b"", 0), Some((0, 0)));
    }

    proptest! {
        #[test]
        fn digits_are_those_of_std(text in "[0-9]{1,19}", after in "[^0-9]{0,9}") {
            let whole = format!("-{text}{after}");
            prop_assert_eq!(digits(whole.as_bytes(), 1), Some((text.parse().unwrap(), text.len())));
        }

        #[test]
        fn plain_text_ends_where_a_loop_says(text in prop::collection::vec(
            prop_oneof![8 => b'a'..=b'z', 1 => any::<u8>(), 1 => Just(b'"')], 0..40), at in 0..40usize) {
            let rest = text.get(at..).unwrap_or_default();
            let first = rest.iter().position(|byte| !byte.is_ascii() || *byte < 0x20 || matches!(byte, b'"' | b'\\'));
            let expected = first.filter(|first| rest[*first] == b'"').map(|first| at + first);
            prop_assert_eq!(plain_until_quote(&text, at), expected);
        }
    }
}
