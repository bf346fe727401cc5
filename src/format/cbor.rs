//! The `cbor` format: one CBOR item a payload ([RFC 8949](https://www.rfc-editor.org/rfc/rfc8949)).
//!
//! ```toml
//! [sources.meters.decode]
//! format = "cbor"
//! rows = "$.readings[*]"           # this, `extra`, `non_finite` and the limits are those of the `json` format
//! encoding = "base64"              # how it is packed, and `compression`: see the `packing` module
//!
//! [sources.meters.columns]
//! ts = { type = "timestamp", unit = "s", path = "$.t" }           # tag 1: seconds; `unit = "rfc3339"` for tag 0
//! temp = { type = "float64", path = "$['-2']" }                   # keys that are numbers are text
//! ```
//!
//! `undefined` is null, and of other simple values the number is told. Big numbers (tags 2 and 3) and decimal fractions (tag 4) are numbers, exactly; bytes are base64
//! text, or hex where tag 23 asks for it; of other tags the value counts alone.

use minicbor::data::Token;
use minicbor::decode::{Decoder, Tokenizer};

use crate::component::{Kind, Settings};
use crate::flow::payload::Payload;
use crate::format::document::{Language, Text, Transcoder, documents};
use crate::format::{DecoderSpec, Malformed};

/// `format = "cbor"`.
pub const KIND: Kind<dyn DecoderSpec> =
    Kind { name: "cbor", about: "declared columns of CBOR documents, one row or many a payload", parse };

/// Tags within each other, at most.
const TAGS_MAX: usize = 8;

#[derive(Debug)]
struct Cbor;

fn parse(settings: &mut Settings) -> Option<Box<dyn DecoderSpec>> {
    documents(settings, Cbor)
}

impl Language for Cbor {
    fn transcoder(&self) -> Box<dyn Transcoder> {
        Box::new(Self)
    }
}

impl Transcoder for Cbor {
    fn transcode(&mut self, payload: &Payload<'_>, text: &mut Text) -> Result<(), Malformed> {
        transcode(payload.body, text)
    }
}

/// One item as JSON.
pub(super) fn transcode(body: &[u8], text: &mut Text) -> Result<(), Malformed> {
    let mut decoder = Decoder::new(body);
    let mut input = Input { tokens: decoder.tokens() };
    let first = input.next()?;
    input.value(first, text)?;
    match input.tokens.next() {
        None => Ok(()),
        Some(_) => bad("expected the end after one CBOR item, got more"),
    }
}

struct Input<'t, 'b> {
    tokens: Tokenizer<'t, 'b>,
}

fn bad<T>(why: impl Into<String>) -> Result<T, Malformed> {
    Err(Malformed { at: None, why: why.into() })
}

impl<'b> Input<'_, 'b> {
    fn next(&mut self) -> Result<Token<'b>, Malformed> {
        match self.tokens.next() {
            Some(Ok(token)) => Ok(token),
            Some(Err(error)) if error.is_end_of_input() => bad("expected more of a CBOR item, got the end"),
            Some(Err(error)) => Err(Malformed { at: error.position(), why: format!("expected CBOR: {error}") }),
            None => bad("expected a CBOR item, got the end"),
        }
    }

    fn value(&mut self, token: Token<'b>, text: &mut Text) -> Result<(), Malformed> {
        match token {
            Token::Null | Token::Undefined => text.null(),
            Token::Bool(value) => text.bool(value),
            Token::F16(value) | Token::F32(value) => text.float(f64::from(value)),
            Token::F64(value) => text.float(value),
            Token::Simple(value) => text.int(value),
            Token::Bytes(bytes) => text.base64(bytes),
            Token::BeginBytes => text.base64(&self.byte_chunks()?),
            Token::String(string) => text.string(string),
            Token::BeginString => text.string(&self.text_chunks()?),
            Token::Array(len) => self.items(Some(len), text)?,
            Token::BeginArray => self.items(None, text)?,
            Token::Map(len) => self.members(Some(len), text)?,
            Token::BeginMap => self.members(None, text)?,
            Token::Tag(tag) => self.tagged(tag.as_u64(), text)?,
            Token::Break => return bad("a CBOR break ends nothing"),
            number => match integer(&number) {
                Some(integer) => text.int(integer),
                None => return bad("expected a CBOR item"),
            },
        }
        Ok(())
    }

    fn byte_chunks(&mut self) -> Result<Vec<u8>, Malformed> {
        let mut bytes = Vec::new();
        loop {
            match self.next()? {
                Token::Bytes(chunk) => bytes.extend_from_slice(chunk),
                Token::Break => return Ok(bytes),
                _ => return bad("expected a chunk of bytes"),
            }
        }
    }

    fn text_chunks(&mut self) -> Result<String, Malformed> {
        let mut text = String::new();
        loop {
            match self.next()? {
                Token::String(chunk) => text.push_str(chunk),
                Token::Break => return Ok(text),
                _ => return bad("expected a chunk of text"),
            }
        }
    }

    /// The next item of `left`, or of all up to a break.
    fn next_of(&mut self, left: &mut Option<u64>) -> Result<Option<Token<'b>>, Malformed> {
        match left {
            Some(0) => Ok(None),
            Some(left) => {
                *left -= 1;
                self.next().map(Some)
            }
            None => Ok(Some(self.next()?).filter(|token| !matches!(token, Token::Break))),
        }
    }

    fn items(&mut self, mut left: Option<u64>, text: &mut Text) -> Result<(), Malformed> {
        text.array()?;
        while let Some(token) = self.next_of(&mut left)? {
            self.value(token, text)?;
        }
        text.end_array();
        Ok(())
    }

    fn members(&mut self, mut left: Option<u64>, text: &mut Text) -> Result<(), Malformed> {
        text.map()?;
        while let Some(key) = self.next_of(&mut left)? {
            match key {
                Token::String(key) => text.key(key),
                Token::BeginString => {
                    let key = self.text_chunks()?;
                    text.key(&key);
                }
                key => match integer(&key) {
                    Some(key) => text.number_key(key),
                    None => return bad("expected a key that is text or a whole number"),
                },
            }
            let value = self.next()?;
            self.value(value, text)?;
        }
        text.end_map();
        Ok(())
    }

    fn tagged(&mut self, mut tag: u64, text: &mut Text) -> Result<(), Malformed> {
        for _ in 0..TAGS_MAX {
            let token = self.next()?;
            match (tag, token) {
                (_, Token::Tag(inner)) => tag = inner.as_u64(),
                (2 | 3, token) => {
                    text.number(&self.big(tag, token)?);
                    return Ok(());
                }
                (4, Token::Array(2)) => return self.decimal(text),
                (23, Token::Bytes(bytes)) => {
                    text.hex(bytes);
                    return Ok(());
                }
                (_, token) => return self.value(token, text),
            }
        }
        bad(format!("expected at most {TAGS_MAX} tags of one value"))
    }

    /// A whole number of up to 126 bits: more than any column holds.
    fn big(&mut self, tag: u64, token: Token<'b>) -> Result<String, Malformed> {
        let bytes = match token {
            Token::Bytes(bytes) => bytes.to_vec(),
            Token::BeginBytes => self.byte_chunks()?,
            _ => return bad("expected the bytes of a big number"),
        };
        let digits = &bytes[bytes.iter().take_while(|byte| **byte == 0).count()..];
        if digits.len() > 15 {
            return bad(format!("a number of {} bytes fits no column", digits.len()));
        }
        let magnitude = digits.iter().fold(0i128, |value, byte| value << 8 | i128::from(*byte));
        Ok(if tag == 2 { magnitude } else { -1 - magnitude }.to_string())
    }

    /// An exponent of ten, and what it is to be multiplied with.
    fn decimal(&mut self, text: &mut Text) -> Result<(), Malformed> {
        let exponent = self.next()?;
        let mantissa = match self.next()? {
            Token::Tag(tag) => {
                let bytes = self.next()?;
                self.big(tag.as_u64(), bytes)?
            }
            token => match integer(&token) {
                Some(integer) => integer.to_string(),
                None => return bad("expected a whole number in a decimal fraction"),
            },
        };
        let Some(exponent) = integer(&exponent) else { return bad("expected the exponent of a decimal fraction") };
        text.number(&format!("{mantissa}e{exponent}"));
        Ok(())
    }
}

fn integer(token: &Token<'_>) -> Option<i128> {
    Some(match token {
        Token::U8(value) => i128::from(*value),
        Token::U16(value) => i128::from(*value),
        Token::U32(value) => i128::from(*value),
        Token::U64(value) => i128::from(*value),
        Token::I8(value) => i128::from(*value),
        Token::I16(value) => i128::from(*value),
        Token::I32(value) => i128::from(*value),
        Token::I64(value) => i128::from(*value),
        Token::Int(value) => i128::from(*value),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::testing::{all_or_none, decoder, of_hex, rows};

    /// The examples of RFC 8949, appendix A, and a few more.
    #[test]
    fn every_type_is_read() {
        for (kind, hex, value) in [
            ("int64", "00", "0"),
            ("int64", "1903e8", "1000"),
            ("uint64", "1bffffffffffffffff", "18446744073709551615"),
            ("decimal(38,0)", "c249010000000000000000", "18446744073709551616"),
            ("decimal(38,0)", "3bffffffffffffffff", "-18446744073709551616"),
            ("decimal(38,0)", "c349010000000000000000", "-18446744073709551617"),
            ("int64", "3903e7", "-1000"),
            ("float64", "f90001", "5.960464477539063e-8"),
            ("float64", "f93e00", "1.5"),
            ("float64", "fa47c35000", "100000.0"),
            ("float64", "fb3ff199999999999a", "1.1"),
            ("float64", "fbc010666666666666", "-4.1"),
            ("decimal(9,2)", "c48221196ab3", "273.15"),
            ("boolean", "f5", "true"),
            ("float64", "f6", "-"),
            ("float64", "f7", "-"),
            ("int64", "f8ff", "255"),
            ("utf8", "c074323031332d30332d32315432303a30343a30305a", "2013-03-21T20:04:00Z"),
            ("float64", "c1fb41d452d9ec200000", "1363896240.5"),
            ("utf8", "4401020304", "AQIDBA=="),
            ("utf8", "d74401020304", "01020304"),
            ("utf8", "5f42010243030405ff", "AQIDBAU="),
            ("utf8", "7f657374726561646d696e67ff", "streaming"),
            ("utf8", "62c3bc", "ü"),
        ] {
            let column = format!("v = {{ type = '{kind}', path = '$' }}");
            assert_eq!(rows(parse, "", &column, &of_hex(hex)).as_deref(), Ok(value), "{kind} {hex}");
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (hex, why) in [
            ("", "got the end"),
            ("1a00", "got the end"),
            ("1c", "expected CBOR"),
            ("0001", "got more"),
            ("61ff", "expected CBOR"),
            ("a1f601", "expected a key"),
            ("ff", "a CBOR break ends nothing"),
            ("9bffffffffffffffff", "got the end"),
            ("bf01ff", "a CBOR break ends nothing"),
            ("c25010000000000000000000000000000000", "fits no column"),
            ("f97e00", "non_finite"),
            ("c1c1c1c1c1c1c1c1c1c100", "at most 8 tags"),
        ] {
            let said = rows(parse, "", "v = { type = 'float64', path = '$' }", &of_hex(hex)).unwrap_err();
            assert!(said.why.contains(why), "{hex}: {said}");
        }
        let deep = "81".repeat(33) + "f6";
        assert!(rows(parse, "", "v = { type = 'float64', path = '$' }", &of_hex(&deep)).is_err());
    }

    #[test]
    fn rows_are_those_of_json() {
        // [{-2: "a", 2: 1.5}, {_ -2: "b"}]
        let body = of_hex("82 a2 21 61 61 02 f93e00 bf 21 61 62 ff");
        let columns = "n = { type = 'utf8', path = \"$['-2']\" }\nv = { type = 'float64', path = '$.2' }";
        assert_eq!(rows(parse, "rows = '$[*]'", columns, &body).as_deref(), Ok("a,1.5;b,-"));
        let mut decoder = decoder(parse, "", "v = { type = 'float64', path = '$.v' }");
        all_or_none(&mut *decoder, &of_hex("a1 61 76 01"), &of_hex("a1 61 76 61 61"));
    }
}
