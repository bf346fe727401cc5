//! One line of line protocol.

use std::borrow::Cow;
use std::ops::Range;

use crate::format::number;
use crate::format::when::shorten;

/// One line, cut into its parts. It may be used again and again.
#[derive(Default)]
pub(super) struct Line {
    /// Names and values of tags, without escapes, end to end.
    plain: Vec<u8>,
    measurement: Range<usize>,
    /// Keys and values of tags, in `plain`.
    tags: Vec<(Range<usize>, Range<usize>)>,
    /// Keys of fields in `plain`, and where their values stand in the line.
    fields: Vec<(Range<usize>, Range<usize>)>,
    time: Option<Range<usize>>,
}

/// What a field or tag holds.
pub(super) enum Value<'l> {
    /// As JSON has it.
    Number(Cow<'l, [u8]>),
    Truth(bool),
    String(Cow<'l, [u8]>),
    /// Of a tag: a value of whatever type.
    Text(&'l [u8]),
}

/// Bytes of escapes count: where the part ends is known by what is not escaped.
struct Cursor<'t> {
    text: &'t [u8],
    at: usize,
}

impl Cursor<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn is_end(&self) -> bool {
        matches!(self.peek(), None | Some(b'\n')) || self.text[self.at..].starts_with(b"\r\n")
    }

    /// Takes a name or a tag's value up to one of `ends` or the end of the line, and adds it without escapes; where it is
    /// then. A backslash stands for itself before what is not one of `ends`.
    fn name(&mut self, ends: &[u8], into: &mut Vec<u8>) -> Range<usize> {
        let start = into.len();
        while let (Some(byte), false) = (self.peek(), self.is_end()) {
            let next = self.text.get(self.at + 1).filter(|next| byte == b'\\' && ends.contains(next));
            if let Some(next) = next {
                into.push(*next);
                self.at += 2;
                continue;
            }
            if ends.contains(&byte) {
                break;
            }
            into.push(byte);
            self.at += 1;
        }
        start..into.len()
    }

    fn spaces(&mut self) {
        while self.peek() == Some(b' ') {
            self.at += 1;
        }
    }

    /// Takes a value of a field, as it stands there.
    fn value(&mut self) -> Result<Range<usize>, String> {
        let start = self.at;
        if self.peek() == Some(b'"') {
            self.at += 1;
            loop {
                match self.peek() {
                    None => return Err("a string is not closed".to_owned()),
                    Some(b'"') => break,
                    Some(b'\\') => self.at += 2,
                    Some(_) => self.at += 1,
                }
            }
            self.at += 1;
        } else {
            while !self.is_end() && !matches!(self.peek(), Some(b',' | b' ')) {
                self.at += 1;
            }
        }
        Ok(start..self.at)
    }
}

fn lossy(text: &[u8]) -> String {
    shorten(&String::from_utf8_lossy(text))
}

impl Line {
    /// Reads a line at the beginning of a text, and gives its length.
    pub(super) fn parse(&mut self, text: &[u8]) -> Result<usize, String> {
        let Self { plain, measurement, tags, fields, .. } = self;
        plain.clear();
        tags.clear();
        fields.clear();
        let mut cursor = Cursor { text, at: 0 };
        let name = cursor.name(b", ", plain);
        if name.is_empty() {
            return Err("expected a measurement".to_owned());
        }
        *measurement = name;
        while cursor.peek() == Some(b',') {
            cursor.at += 1;
            let key = cursor.name(b",= ", plain);
            if key.is_empty() || cursor.peek() != Some(b'=') {
                return Err(format!("expected `=` and a value after the tag `{}`", lossy(&plain[key])));
            }
            cursor.at += 1;
            let value = cursor.name(b",= ", plain);
            if value.is_empty() || cursor.peek() == Some(b'=') {
                return Err(format!("expected a value of the tag `{}`", lossy(&plain[key])));
            }
            tags.push((key, value));
        }
        if cursor.peek() != Some(b' ') {
            return Err("expected a blank, and fields".to_owned());
        }
        cursor.spaces();
        loop {
            let key = cursor.name(b",= ", plain);
            let named = |why| format!("field `{}`: {why}", lossy(&plain[key.clone()]));
            if key.is_empty() || cursor.peek() != Some(b'=') {
                return Err(format!("expected `=` and a value after the field `{}`", lossy(&plain[key])));
            }
            cursor.at += 1;
            let value = cursor.value().map_err(named)?;
            check(&text[value.clone()]).map_err(named)?;
            if fields.iter().any(|(known, _)| plain[known.clone()] == plain[key.clone()]) {
                return Err(format!("the field `{}` stands there twice", lossy(&plain[key])));
            }
            fields.push((key, value));
            if cursor.peek() != Some(b',') {
                break;
            }
            cursor.at += 1;
        }
        self.end(&mut cursor)?;
        Ok(cursor.at)
    }

    /// The time, if there is one, and the end of the line.
    fn end(&mut self, cursor: &mut Cursor<'_>) -> Result<(), String> {
        cursor.spaces();
        let start = cursor.at;
        while !cursor.is_end() && cursor.peek() != Some(b' ') {
            cursor.at += 1;
        }
        self.time = (cursor.at > start).then_some(start..cursor.at);
        if let Some(time) = &self.time
            && number::integer(&cursor.text[time.clone()]).is_none_or(|time| i64::try_from(time).is_err())
        {
            return Err(format!(
                "expected a whole number of 64 bits as the time, got `{}`",
                lossy(&cursor.text[time.clone()])
            ));
        }
        cursor.spaces();
        match cursor.is_end() {
            true => Ok(()),
            false => Err(format!("expected the end of the line, got `{}`", lossy(&cursor.text[cursor.at..]))),
        }
    }

    pub(super) fn measurement(&self) -> &[u8] {
        &self.plain[self.measurement.clone()]
    }

    pub(super) fn time<'t>(&self, text: &'t [u8]) -> Option<&'t [u8]> {
        self.time.clone().map(|time| &text[time])
    }

    pub(super) fn tag(&self, name: &str) -> Option<&[u8]> {
        let (_, value) = self.tags.iter().find(|(key, _)| self.plain[key.clone()] == *name.as_bytes())?;
        Some(&self.plain[value.clone()])
    }

    pub(super) fn field<'t>(&self, text: &'t [u8], name: &str) -> Option<Value<'t>> {
        let (_, at) = self.fields.iter().find(|(key, _)| self.plain[key.clone()] == *name.as_bytes())?;
        value(&text[at.clone()])
    }

    /// How many fields and tags.
    pub(super) fn len(&self) -> usize {
        self.fields.len() + self.tags.len()
    }
}

/// Whether a value is one.
fn check(text: &[u8]) -> Result<(), String> {
    match value(text) {
        Some(_) => Ok(()),
        None => Err(format!("expected a number, `4i`, `4u`, `t`, `f` or a string in quotes, got `{}`", lossy(text))),
    }
}

fn value(text: &[u8]) -> Option<Value<'_>> {
    Some(match text {
        [b'"', inner @ .., b'"'] => Value::String(unescaped(inner)),
        b"t" | b"T" | b"true" | b"True" | b"TRUE" => Value::Truth(true),
        b"f" | b"F" | b"false" | b"False" | b"FALSE" => Value::Truth(false),
        [whole @ .., b'i'] => Value::Number(Cow::Borrowed(whole).filter_integer(i128::from(i64::MIN))?),
        [whole @ .., b'u'] => Value::Number(Cow::Borrowed(whole).filter_integer(0)?),
        _ => Value::Number(float(text)?),
    })
}

trait Whole: Sized {
    fn filter_integer(self, least: i128) -> Option<Self>;
}

impl Whole for Cow<'_, [u8]> {
    /// Whether it is a whole number from `least` on, of at most 64 bits.
    fn filter_integer(self, least: i128) -> Option<Self> {
        let most = if least < 0 { i128::from(i64::MAX) } else { i128::from(u64::MAX) };
        number::integer(&self).filter(|value| (least..=most).contains(value)).map(|_| self)
    }
}

/// A float as JSON has it: the line may leave out digits before or after the point, and say `+`.
fn float(text: &[u8]) -> Option<Cow<'_, [u8]>> {
    if number::is_number(text) {
        return Some(Cow::Borrowed(text));
    }
    let plain = text.strip_prefix(b"+").unwrap_or(text);
    let (sign, digits) = match plain {
        [b'-', digits @ ..] => (&b"-"[..], digits),
        digits => (&b""[..], digits),
    };
    let end = digits.iter().position(|byte| matches!(byte, b'.' | b'e' | b'E')).unwrap_or(digits.len());
    let (whole, rest) = digits.split_at(end);
    let zeros = whole.iter().take_while(|byte| **byte == b'0').count();
    let whole = &whole[zeros.min(whole.len().saturating_sub(1))..];
    let mut number = [sign, if whole.is_empty() { b"0" } else { whole }].concat();
    match rest {
        [b'.'] => number.extend_from_slice(b".0"),
        [b'.', b'e' | b'E', ..] => number.extend([b".0", &rest[1..]].concat()),
        _ => number.extend_from_slice(rest),
    }
    let is_point_alone = end == 0 && digits.len() < 2;
    (number::is_number(&number) && !is_point_alone && !digits.is_empty()).then_some(Cow::Owned(number))
}

/// Of a string: only the quote and the backslash are escaped.
fn unescaped(text: &[u8]) -> Cow<'_, [u8]> {
    if !text.contains(&b'\\') {
        return Cow::Borrowed(text);
    }
    let (mut plain, mut at) = (Vec::with_capacity(text.len()), 0);
    while let Some(byte) = text.get(at) {
        let next = text.get(at + 1).filter(|next| *byte == b'\\' && matches!(next, b'"' | b'\\'));
        plain.push(*next.unwrap_or(byte));
        at += if next.is_some() { 2 } else { 1 };
    }
    Cow::Owned(plain)
}
