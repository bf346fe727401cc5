//! How a payload is packed: compressed, written out as text, or both.
//!
//! ```toml
//! [sources.loggers.decode]
//! format = "csv"
//! encoding = "base64"              # or "hex"; "none"
//! compression = "gzip"             # or "zlib", "deflate", "zstd", "auto"; "none"
//! max_ratio = 200                  # what is packed may become so many times as large: 100
//! ```
//!
//! The encoding is undone first: what comes out of it may be compressed. `max_bytes` counts what the format reads in the
//! end, and nothing beyond it is inflated. Base64 may be of the usual or of the URL alphabet, padded or not; hex may begin
//! with `0x`; white space around the whole is passed over. `auto` goes by the first bytes, and takes what begins like none
//! of gzip, zlib and zstd as it is: a guess, where a bare payload may begin like that. The byte of an error is one of the
//! payload as it is read.

use std::io::Read;

use arrow::array::RecordBatch;
use base64::Engine;
use base64::alphabet::{STANDARD, URL_SAFE};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use flate2::bufread::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};
use zstd::zstd_safe::DCtx;

use crate::component::{Fault, Settings};
use crate::flow::payload::Payload;
use crate::format::columns::{ColumnType, Columns};
use crate::format::{Decoder, DecoderSpec, Malformed, Request, Tolerated};

/// Default of `max_ratio`.
const MAX_RATIO: usize = 100;

/// The greatest window of a zstd frame, as a power of two: 8 MiB, what RFC 8878 asks of every decoder. A frame may name
/// one of gigabytes, and has it allocated before a byte comes out.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;

/// How a payload is packed.
#[derive(Clone, Copy, Debug)]
pub struct Packing {
    encoding: Encoding,
    compression: Compression,
    max_bytes: usize,
    max_ratio: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Encoding {
    None,
    Base64,
    Hex,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Compression {
    None,
    Gzip,
    Zlib,
    Deflate,
    Zstd,
    Auto,
}

impl Packing {
    /// Reads `encoding`, `compression` and `max_ratio`. What comes out may have `max_bytes`.
    pub fn read(settings: &mut Settings, max_bytes: usize) -> Self {
        let encodings = [("none", Encoding::None), ("base64", Encoding::Base64), ("hex", Encoding::Hex)];
        let compressions = [
            ("none", Compression::None),
            ("gzip", Compression::Gzip),
            ("zlib", Compression::Zlib),
            ("deflate", Compression::Deflate),
            ("zstd", Compression::Zstd),
            ("auto", Compression::Auto),
        ];
        let encoding = settings.choice("encoding", &encodings, Encoding::None);
        // A word that is none is a fault already.
        let (named, before) = (settings.has("compression"), settings.faults_len());
        let compression = settings.choice("compression", &compressions, Compression::None);
        let ratio: Option<usize> = settings.optional("max_ratio");
        if ratio.is_some() && compression == Compression::None && settings.faults_len() == before {
            let what = "`max_ratio` bounds what is inflated, but payloads are not compressed here";
            let help = if named { "remove it" } else { "set `compression`" };
            settings.fault(Fault::new(settings.at.clone(), what).help(help));
        }
        Self { encoding, compression, max_bytes, max_ratio: ratio.unwrap_or(MAX_RATIO) }
    }

    /// A format of its own decoder, for payloads that are packed like this.
    pub fn around(self, spec: Box<dyn DecoderSpec>) -> Box<dyn DecoderSpec> {
        match (self.encoding, self.compression) {
            (Encoding::None, Compression::None) => spec,
            _ => Box::new(Packed { packing: self, spec }),
        }
    }
}

/// A format, and how its payloads are packed.
#[derive(Debug)]
struct Packed {
    packing: Packing,
    spec: Box<dyn DecoderSpec>,
}

impl DecoderSpec for Packed {
    fn implied(&self) -> Option<(&'static str, ColumnType)> {
        self.spec.implied()
    }

    fn is_stateful(&self) -> bool {
        self.spec.is_stateful()
    }

    fn check(&self, columns: &Columns) -> Vec<Fault> {
        self.spec.check(columns)
    }

    fn build(&self, columns: &Columns) -> Box<dyn Decoder> {
        Box::new(Unpacking { unpacker: Unpacker::new(self.packing), decoder: self.spec.build(columns) })
    }
}

/// A decoder that is given what was unpacked.
struct Unpacking {
    unpacker: Unpacker,
    decoder: Box<dyn Decoder>,
}

impl Decoder for Unpacking {
    fn push(&mut self, payload: &Payload<'_>) -> Result<usize, Malformed> {
        let body = self.unpacker.unpack(payload.body)?;
        self.decoder.push(&Payload { body, ..*payload })
    }

    fn tolerated(&mut self) -> Option<Tolerated> {
        self.decoder.tolerated()
    }

    fn requests(&mut self) -> Vec<Request> {
        self.decoder.requests()
    }

    fn state(&self) -> Option<String> {
        self.decoder.state()
    }

    fn restore(&mut self, state: &str) -> Result<(), String> {
        self.decoder.restore(state)
    }

    fn flush(&mut self) -> RecordBatch {
        self.decoder.flush()
    }
}

/// Unpacks payloads one after the other, into the same room.
pub struct Unpacker {
    packing: Packing,
    decoded: Vec<u8>,
    inflated: Vec<u8>,
    /// Of zstd: made where the first frame comes.
    frames: Option<DCtx<'static>>,
}

impl Unpacker {
    /// With no room yet.
    pub fn new(packing: Packing) -> Self {
        Self { packing, decoded: Vec::new(), inflated: Vec::new(), frames: None }
    }

    /// What a payload has in it. Where it is not packed, the payload as it is, of whatever size.
    pub fn unpack<'b>(&'b mut self, body: &'b [u8]) -> Result<&'b [u8], Malformed> {
        let Self { packing, decoded, inflated, frames } = self;
        let body = match packing.encoding {
            Encoding::None => body,
            Encoding::Base64 => base64(body, decoded)?,
            Encoding::Hex => hex(body, decoded)?,
        };
        let compression = match packing.compression {
            Compression::Auto => sniff(body),
            known => known,
        };
        if compression == Compression::None {
            return Ok(body);
        }
        packing.inflate(compression, body, inflated, frames).map_err(|why| Malformed { at: None, why })?;
        Ok(inflated)
    }
}

impl Packing {
    fn inflate(
        &self,
        compression: Compression,
        body: &[u8],
        out: &mut Vec<u8>,
        frames: &mut Option<DCtx<'static>>,
    ) -> Result<(), String> {
        if body.is_empty() {
            return Err("the payload is empty, but should be compressed".to_owned());
        }
        let by_ratio = body.len().saturating_mul(self.max_ratio);
        let most = self.max_bytes.min(by_ratio);
        out.clear();
        let (name, done) = match compression {
            Compression::Gzip => ("gzip", fill(MultiGzDecoder::new(body), out, most)),
            Compression::Zlib => {
                let mut inflating = ZlibDecoder::new(body);
                ("zlib", fill(&mut inflating, out, most).and_then(|()| ended(inflating.get_ref(), out, most)))
            }
            Compression::Zstd => ("zstd", unframe(body, out, most, frames)),
            _ => {
                let mut inflating = DeflateDecoder::new(body);
                ("deflate", fill(&mut inflating, out, most).and_then(|()| ended(inflating.get_ref(), out, most)))
            }
        };
        done.map_err(|why| format!("the payload cannot be inflated as {name}: {why}"))?;
        if out.len() <= most {
            return Ok(());
        }
        let bytes = body.len();
        Err(if most < self.max_bytes {
            format!("payload of {bytes} bytes inflates to more than max_ratio = {} times as many", self.max_ratio)
        } else {
            format!("payload of {bytes} bytes inflates to more than max_bytes = {}", self.max_bytes)
        })
    }
}

/// Inflates to one byte more than `most` at most, by which it can be told that there is more.
fn fill(inflating: impl Read, out: &mut Vec<u8>, most: usize) -> Result<(), String> {
    inflating.take((most as u64).saturating_add(1)).read_to_end(out).map_err(|why| why.to_string())?;
    Ok(())
}

/// Whether the stream took all of the payload; of one that was cut at the limit nobody knows.
fn ended(rest: &[u8], out: &[u8], most: usize) -> Result<(), String> {
    match rest.len() {
        bytes if bytes > 0 && out.len() <= most => Err(format!("{bytes} bytes follow its end")),
        _ => Ok(()),
    }
}

fn unframe(body: &[u8], out: &mut Vec<u8>, most: usize, frames: &mut Option<DCtx<'static>>) -> Result<(), String> {
    if frames.is_none() {
        *frames = Some(DCtx::try_create().ok_or("no memory for its state")?);
    }
    let Some(context) = frames else { return Ok(()) };
    let mut inflating = zstd::stream::read::Decoder::with_context(body, context);
    inflating.window_log_max(ZSTD_WINDOW_LOG_MAX).map_err(|why| why.to_string())?;
    fill(inflating, out, most)
}

/// What a payload begins like. A bare deflate stream begins like anything.
fn sniff(body: &[u8]) -> Compression {
    match body {
        [0x1f, 0x8b, ..] => Compression::Gzip,
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Compression::Zstd,
        // Windows of 32 KiB, and each of the four marks of the level: both bytes are a multiple of 31.
        [0x78, 0x01 | 0x5e | 0x9c | 0xda, ..] => Compression::Zlib,
        _ => Compression::None,
    }
}

/// Padded or not: many encoders leave it out.
const ANY_PADDING: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const USUAL: GeneralPurpose = GeneralPurpose::new(&STANDARD, ANY_PADDING);
const OF_URLS: GeneralPurpose = GeneralPurpose::new(&URL_SAFE, ANY_PADDING);

fn base64<'o>(body: &[u8], out: &'o mut Vec<u8>) -> Result<&'o [u8], Malformed> {
    let text = body.trim_ascii();
    let alphabet = if memchr::memchr2(b'-', b'_', text).is_some() { &OF_URLS } else { &USUAL };
    out.clear();
    let done = alphabet.decode_vec(text, out);
    done.map_err(|why| Malformed { at: None, why: format!("the payload is not base64: {why}") })?;
    Ok(out)
}

fn hex<'o>(body: &[u8], out: &'o mut Vec<u8>) -> Result<&'o [u8], Malformed> {
    let text = body.trim_ascii();
    let text = text.strip_prefix(b"0x").or_else(|| text.strip_prefix(b"0X")).unwrap_or(text);
    let before = body.trim_ascii_end().len() - text.len();
    let digit = |at: usize| {
        let value = char::from(text[at]).to_digit(16);
        value.map(|value| value as u8).ok_or_else(|| {
            let why = format!("the payload is not hex: expected 0-9 or a-f, got `{}`", text[at].escape_ascii());
            Malformed { at: Some(before + at), why }
        })
    };
    out.clear();
    for pair in (0..text.len() - text.len() % 2).step_by(2) {
        out.push(digit(pair)? << 4 | digit(pair + 1)?);
    }
    if text.len() % 2 == 1 {
        let why = format!("the payload is not hex: {} digits are no whole bytes", text.len());
        return Err(Malformed { at: None, why });
    }
    Ok(out)
}

#[cfg(test)]
mod tests;
