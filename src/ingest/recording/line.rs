//! One line of a recording to a payload, in one pass and without an allocation.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use memchr::memchr2;
use serde::de::IgnoredAny;

use super::clock::read_time;
use crate::flow::payload::{Delivery, Payloads};
use crate::flow::time::Timestamp;

/// Reads envelopes; keeps the room that it needs for unescaping.
#[derive(Debug, Default)]
pub(super) struct Envelopes {
    topic: Vec<u8>,
    payload: Vec<u8>,
    decoded_topic: Vec<u8>,
    decoded_payload: Vec<u8>,
}

/// What stands in an envelope besides topic and payload.
#[derive(Debug)]
struct Envelope {
    arrival: Timestamp,
    delivery: Delivery,
    properties: Vec<(String, String)>,
    topic_base64: bool,
    payload_base64: bool,
    has_topic: bool,
    has_payload: bool,
    /// The payload is another JSON value than a string.
    raw: bool,
}

impl Envelopes {
    /// Adds the payload of one line; its arrival time goes through `arrival` first. The error says what is wrong.
    pub(super) fn push(
        &mut self,
        line: &[u8],
        into: &mut Payloads,
        arrival: impl FnOnce(Timestamp) -> Timestamp,
    ) -> Result<(), String> {
        let text = std::str::from_utf8(line).map_err(|why| format!("not UTF-8: {why}"))?;
        let envelope = self.envelope(text).map_err(|why| match serde_json::from_str::<IgnoredAny>(text) {
            // Where the line is no JSON at all, that says more.
            Err(syntax) => format!("no JSON: {syntax}"),
            Ok(_) => why,
        })?;
        let topic = decoded(&self.topic, envelope.topic_base64, "topic", &mut self.decoded_topic)?;
        let in_base64 = envelope.payload_base64 && !envelope.raw;
        let payload = decoded(&self.payload, in_base64, "payload", &mut self.decoded_payload)?;
        into.push(topic, payload, arrival(envelope.arrival), envelope.delivery);
        into.set_properties(envelope.properties);
        Ok(())
    }

    fn envelope(&mut self, text: &str) -> Result<Envelope, String> {
        let mut envelope = Envelope {
            arrival: Timestamp::START,
            delivery: Delivery::default(),
            properties: Vec::new(),
            topic_base64: false,
            payload_base64: false,
            has_topic: false,
            has_payload: false,
            raw: false,
        };
        let mut cursor = Cursor { text, at: 0 };
        cursor.object(|cursor, key| self.field(key, cursor, &mut envelope))?;
        if cursor.at < text.len() {
            return Err(format!("expected the end of the line at byte {}", cursor.at));
        }
        match (envelope.has_topic, envelope.has_payload) {
            (true, true) => Ok(envelope),
            (false, _) => Err("`topic` is missing".to_owned()),
            (_, false) => Err("`payload` is missing".to_owned()),
        }
    }

    fn field(&mut self, key: &str, cursor: &mut Cursor<'_>, envelope: &mut Envelope) -> Result<(), String> {
        match key {
            "payload" => {
                envelope.has_payload = true;
                self.payload.clear();
                envelope.raw = cursor.peek() != Some(b'"');
                if envelope.raw {
                    self.payload.extend_from_slice(cursor.value()?.as_bytes());
                } else {
                    cursor.string_into(&mut self.payload)?;
                }
            }
            "topic" => {
                envelope.has_topic = true;
                self.topic.clear();
                cursor.string_into(&mut self.topic).map_err(|why| format!("`topic`: {why}"))?;
            }
            "recv_time" => envelope.arrival = read_time(&cursor.string("recv_time")?)?,
            "qos" => envelope.delivery.qos = cursor.number("qos", 2)? as u8,
            "packet_id" => envelope.delivery.packet_id = cursor.number("packet_id", u16::MAX)?,
            "retain" => envelope.delivery.retained = cursor.boolean("retain")?,
            "dup" => envelope.delivery.dup = cursor.boolean("dup")?,
            "enc" => envelope.payload_base64 = cursor.is_base64("enc")?,
            "topic_enc" => envelope.topic_base64 = cursor.is_base64("topic_enc")?,
            "properties" => cursor.object(|cursor, key| {
                let value = cursor.string("properties")?.into_owned();
                envelope.properties.push((key.to_owned(), value));
                Ok(())
            })?,
            _ => drop(cursor.value()?),
        }
        Ok(())
    }
}

fn decoded<'a>(text: &'a [u8], base64: bool, what: &str, room: &'a mut Vec<u8>) -> Result<&'a [u8], String> {
    if !base64 {
        return Ok(text);
    }
    room.clear();
    STANDARD.decode_vec(text, room).map_err(|why| format!("`{what}` is no base64: {why}"))?;
    Ok(room)
}

/// A place in a line.
struct Cursor<'t> {
    text: &'t str,
    at: usize,
}

impl<'t> Cursor<'t> {
    fn rest(&self) -> &'t [u8] {
        &self.text.as_bytes()[self.at..]
    }

    /// The next byte that is no white space, not taken.
    fn peek(&mut self) -> Option<u8> {
        let blank = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\r' | b'\n');
        while self.rest().first().is_some_and(blank) {
            self.at += 1;
        }
        self.rest().first().copied()
    }

    fn take(&mut self, byte: u8) -> Result<(), String> {
        if self.peek() != Some(byte) {
            return Err(format!("expected `{}` at byte {}", char::from(byte), self.at));
        }
        self.at += 1;
        Ok(())
    }

    /// An object; `field` takes each value.
    fn object(&mut self, mut field: impl FnMut(&mut Self, &str) -> Result<(), String>) -> Result<(), String> {
        self.take(b'{')?;
        if self.peek() == Some(b'}') {
            self.at += 1;
        } else {
            loop {
                let key = self.string("key")?;
                self.take(b':')?;
                self.peek();
                field(self, &key)?;
                match self.peek() {
                    Some(b',') => self.at += 1,
                    _ => break self.take(b'}')?,
                }
            }
        }
        self.peek();
        Ok(())
    }

    /// A string; borrowed where nothing in it is escaped.
    fn string(&mut self, what: &str) -> Result<Cow<'t, str>, String> {
        let mut unescaped = Vec::new();
        let plain = self.plain_run(what)?;
        if self.rest().first() == Some(&b'"') {
            self.at += 1;
            return Ok(Cow::Borrowed(plain));
        }
        unescaped.extend_from_slice(plain.as_bytes());
        self.escapes_into(&mut unescaped)?;
        String::from_utf8(unescaped).map(Cow::Owned).map_err(|why| why.to_string())
    }

    /// A string, appended.
    fn string_into(&mut self, into: &mut Vec<u8>) -> Result<(), String> {
        into.extend_from_slice(self.plain_run("value")?.as_bytes());
        self.escapes_into(into)
    }

    /// The opening quote, and what follows up to the next quote or backslash.
    fn plain_run(&mut self, what: &str) -> Result<&'t str, String> {
        if self.peek() != Some(b'"') {
            return Err(format!("`{what}`: expected a string at byte {}", self.at));
        }
        self.at += 1;
        self.run()
    }

    fn run(&mut self) -> Result<&'t str, String> {
        let from = self.at;
        let len = memchr2(b'"', b'\\', self.rest()).ok_or("a string without an end")?;
        self.at += len;
        let run = &self.text[from..self.at];
        // A fold without a branch: it vectorises.
        if run.bytes().fold(false, |control, byte| control | (byte < b' ')) {
            return Err(format!("a control character in the string at byte {from}"));
        }
        Ok(run)
    }

    /// The rest of a string: escapes and runs up to its end.
    fn escapes_into(&mut self, into: &mut Vec<u8>) -> Result<(), String> {
        while self.rest().first() == Some(&b'\\') {
            let plain = match self.rest().get(1) {
                Some(byte @ (b'"' | b'\\' | b'/')) => *byte,
                Some(b'n') => b'\n',
                Some(b'r') => b'\r',
                Some(b't') => b'\t',
                Some(b'b') => 0x08,
                Some(b'f') => 0x0c,
                Some(b'u') => {
                    self.unicode_into(into)?;
                    into.extend_from_slice(self.run()?.as_bytes());
                    continue;
                }
                _ => return Err(format!("an unknown escape at byte {}", self.at)),
            };
            into.push(plain);
            self.at += 2;
            into.extend_from_slice(self.run()?.as_bytes());
        }
        self.at += 1;
        Ok(())
    }

    /// `\uXXXX`, or two of them for a character beyond the first plane.
    fn unicode_into(&mut self, into: &mut Vec<u8>) -> Result<(), String> {
        let at = self.at;
        let wrong = || format!("no character is escaped like that, at byte {at}");
        let high = self.unicode().ok_or_else(wrong)?;
        let code = if (0xd800..0xdc00).contains(&high) {
            let low = self.unicode().filter(|low| (0xdc00..0xe000).contains(low)).ok_or_else(wrong)?;
            0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00)
        } else {
            high
        };
        let character = char::from_u32(code).ok_or_else(wrong)?;
        into.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
        Ok(())
    }

    fn unicode(&mut self) -> Option<u32> {
        let digits = self.rest().strip_prefix(b"\\u")?.get(..4)?;
        let digit = |code: u32, digit: &u8| Some(code * 16 + char::from(*digit).to_digit(16)?);
        let code = digits.iter().try_fold(0, digit)?;
        self.at += 6;
        Some(code)
    }

    /// Any value, as it stands there.
    fn value(&mut self) -> Result<&'t str, String> {
        self.peek();
        let mut values = serde_json::Deserializer::from_str(&self.text[self.at..]).into_iter::<IgnoredAny>();
        match values.next() {
            Some(Ok(_)) => {
                let value = &self.text[self.at..self.at + values.byte_offset()];
                self.at += value.len();
                Ok(value)
            }
            _ => Err(format!("expected a value at byte {}", self.at)),
        }
    }

    fn number(&mut self, what: &str, max: u16) -> Result<u16, String> {
        let text = self.value()?;
        let number = text.parse().ok().filter(|number| *number <= max);
        number.ok_or_else(|| format!("`{what}`: expected a whole number from 0 to {max}, got {text}"))
    }

    fn boolean(&mut self, what: &str) -> Result<bool, String> {
        for (word, value) in [("false", false), ("true", true)] {
            if self.rest().starts_with(word.as_bytes()) {
                self.at += word.len();
                return Ok(value);
            }
        }
        Err(format!("`{what}`: expected true or false at byte {}", self.at))
    }

    fn is_base64(&mut self, what: &str) -> Result<bool, String> {
        match self.string(what)?.as_ref() {
            "utf8" => Ok(false),
            "base64" => Ok(true),
            other => Err(format!("`{what}`: expected \"utf8\" or \"base64\", got \"{other}\"")),
        }
    }
}
