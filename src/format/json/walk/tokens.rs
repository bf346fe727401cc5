//! Words, numbers and strings, as the grammar of JSON has them.

use super::{Walk, bad};
use crate::format::{Malformed, number};

impl Walk<'_> {
    pub(super) fn word(&mut self, word: &str) -> Result<(), Malformed> {
        if !self.body[self.at..].starts_with(word.as_bytes()) {
            return bad(self.at, format!("expected {word}"));
        }
        self.at += word.len();
        Ok(())
    }

    pub(super) fn number(&mut self) -> Result<(usize, usize), Malformed> {
        let start = self.at;
        if let Some((_, end)) = self.quick_number(start) {
            self.at = end;
            return Ok((start, end));
        }
        let len = match number::scan(&self.body[start..]) {
            Ok(len) => len,
            Err(within) => return bad(start + within, "expected a digit"),
        };
        if len > self.limits.number_len {
            return bad(start, format!("number is longer than max_number_len = {}", self.limits.number_len));
        }
        self.at += len;
        Ok((start, self.at))
    }

    /// A string: where its text begins and ends, and whether it has escapes. If so, the text is in `scratch`.
    pub(super) fn string(&mut self) -> Result<(usize, usize, bool), Malformed> {
        let start = self.at + 1;
        if let Some(end) = self.quick_string(self.at) {
            self.at = end;
            return Ok((start, end - 1, false));
        }
        self.at = start;
        let mut escaped = false;
        loop {
            // A run without state.
            let from = self.at;
            let plain = self.body[from..].iter().position(|byte| matches!(byte, b'"' | b'\\' | 0..0x20));
            self.at = plain.map_or(self.body.len(), |plain| from + plain);
            if escaped {
                self.scratch.extend_from_slice(&self.body[from..self.at]);
            }
            match self.body.get(self.at) {
                Some(b'"') => break,
                Some(b'\\') => {
                    if !escaped {
                        self.scratch.clear();
                        self.scratch.extend_from_slice(&self.body[start..self.at]);
                        escaped = true;
                    }
                    self.escape()?;
                }
                Some(_) => return bad(self.at, "a control character in a string must be escaped"),
                None => return bad(self.at, "expected the closing quote, got the end"),
            }
        }
        self.at += 1;
        Ok((start, self.at - 1, escaped))
    }

    fn escape(&mut self) -> Result<(), Malformed> {
        let start = self.at;
        self.at += 2;
        let plain = match self.body.get(start + 1).copied() {
            Some(byte @ (b'"' | b'\\' | b'/')) => byte,
            Some(b'b') => 8,
            Some(b'f') => 12,
            Some(b'n') => b'\n',
            Some(b'r') => b'\r',
            Some(b't') => b'\t',
            Some(b'u') => {
                let sign = self.unicode(start)?;
                self.scratch.extend_from_slice(sign.encode_utf8(&mut [0; 4]).as_bytes());
                return Ok(());
            }
            _ => return bad(start, "unknown escape"),
        };
        self.scratch.push(plain);
        Ok(())
    }

    fn unicode(&mut self, start: usize) -> Result<char, Malformed> {
        let high = self.hex()?;
        let mut code = high;
        if (0xd800..0xdc00).contains(&high) && self.body[self.at..].starts_with(b"\\u") {
            self.at += 2;
            let low = self.hex()?;
            if (0xdc00..0xe000).contains(&low) {
                code = 0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00);
            }
        }
        char::from_u32(code).map_or_else(|| bad(start, "a surrogate without its other half"), Ok)
    }

    fn hex(&mut self) -> Result<u32, Malformed> {
        let mut code = 0;
        for _ in 0..4 {
            let digit = self.body.get(self.at).and_then(|byte| char::from(*byte).to_digit(16));
            let Some(digit) = digit else { return bad(self.at, "expected four hexadecimal digits") };
            code = code * 16 + digit;
            self.at += 1;
        }
        Ok(code)
    }
}
