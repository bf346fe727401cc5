//! Documents of other formats than JSON, by the JSON that says the same.
//!
//! A [`Transcoder`] writes a payload out as JSON, which the `json` decoder reads: so there is one mapping of documents to
//! rows. Paths, `rows`, `extra`, limits and messages are the same for all, and the decoder's templates know the shapes again.
//! Nothing is lost on the way: a number is written with all its digits, and its shortest text that reads as the same float.
//!
//! | in the payload | in JSON |
//! | --- | --- |
//! | bytes | text, in base64 |
//! | a time of the format's own | text, as RFC 3339 has it |
//! | a key that is a number | text |
//! | NaN and infinities | as such, see `non_finite` of the `json` format |

use arrow::array::RecordBatch;

use crate::component::{Fault, Settings};
use crate::flow::payload::Payload;
use crate::format::columns::Columns;
use crate::format::json::{Json, JsonDecoder};
use crate::format::packing::Packing;
use crate::format::{Decoder, DecoderSpec, Malformed, Request, Tolerated};

mod text;

pub use text::Text;

/// Writes payloads of a format as JSON.
pub trait Transcoder: Send {
    /// One payload as one JSON value. What it writes may be cut short where it fails.
    fn transcode(&mut self, payload: &Payload<'_>, text: &mut Text) -> Result<(), Malformed>;

    /// Messages that were sent and did not come, of those up to the last one, since this was asked the last time. `None`
    /// where nobody can tell.
    fn lost_messages(&mut self) -> Option<u64> {
        None
    }

    /// See [`Decoder::requests`].
    fn requests(&mut self) -> Vec<Request> {
        Vec::new()
    }

    /// See [`Decoder::state`].
    fn state(&self) -> Option<String> {
        None
    }

    /// See [`Decoder::restore`].
    fn restore(&mut self, state: &str) -> Result<(), String> {
        let _ = state;
        Ok(())
    }
}

/// Where the rows of a document are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowsAt {
    /// Where the setting `rows` says, if there is one.
    Declared,
    /// In a format that has them in the same place always.
    Path(&'static str),
    /// A document is one.
    Whole,
}

/// A format of documents as the pipeline file describes it.
pub trait Language: std::fmt::Debug + Send + Sync {
    /// Where the rows are.
    fn rows(&self) -> RowsAt {
        RowsAt::Declared
    }

    /// See [`DecoderSpec::is_stateful`].
    fn is_stateful(&self) -> bool {
        false
    }

    /// What is wrong with what the settings name: a schema that is not there.
    fn check(&self) -> Vec<Fault> {
        Vec::new()
    }

    /// A transcoder. Called only where `check` found nothing.
    fn transcoder(&self) -> Box<dyn Transcoder>;
}

/// Reads the settings that all documents have, besides those that `language` has read.
pub fn documents(settings: &mut Settings, language: impl Language + 'static) -> Option<Box<dyn DecoderSpec>> {
    let mut json = Json::read(settings, language.rows())?;
    let max_bytes = std::mem::replace(&mut json.limits.bytes, usize::MAX);
    let packing = Packing::read(settings, max_bytes);
    Some(packing.around(Box::new(Documents { language: Box::new(language), json, max_bytes })))
}

#[derive(Debug)]
struct Documents {
    language: Box<dyn Language>,
    json: Json,
    max_bytes: usize,
}

impl DecoderSpec for Documents {
    fn check(&self, columns: &Columns) -> Vec<Fault> {
        let mut faults = self.language.check();
        faults.extend(self.json.check(columns));
        faults
    }

    fn is_stateful(&self) -> bool {
        self.language.is_stateful()
    }

    fn build(&self, columns: &Columns) -> Box<dyn Decoder> {
        let text = Text::new(self.json.limits.depth);
        let (transcoder, json) = (self.language.transcoder(), self.json.decoder(columns));
        Box::new(Transcoding { transcoder, json, text, max_bytes: self.max_bytes })
    }
}

struct Transcoding {
    transcoder: Box<dyn Transcoder>,
    json: JsonDecoder,
    text: Text,
    max_bytes: usize,
}

impl Decoder for Transcoding {
    fn push(&mut self, payload: &Payload<'_>) -> Result<usize, Malformed> {
        let (len, max) = (payload.body.len(), self.max_bytes);
        if len > max {
            return Err(Malformed { at: None, why: format!("payload of {len} bytes is over max_bytes = {max}") });
        }
        self.text.clear();
        self.transcoder.transcode(payload, &mut self.text)?;
        let body = self.text.as_bytes();
        self.json.push(&Payload { body, ..*payload }).map_err(|malformed| translated(malformed, body))
    }

    fn tolerated(&mut self) -> Option<Tolerated> {
        match (self.transcoder.lost_messages(), self.json.tolerated()) {
            (None, tolerated) => tolerated,
            (Some(lost_messages), tolerated) => Some(Tolerated { lost_messages, ..tolerated.unwrap_or_default() }),
        }
    }

    fn requests(&mut self) -> Vec<Request> {
        self.transcoder.requests()
    }

    fn state(&self) -> Option<String> {
        self.transcoder.state()
    }

    fn restore(&mut self, state: &str) -> Result<(), String> {
        self.transcoder.restore(state)
    }

    fn flush(&mut self) -> RecordBatch {
        self.json.flush()
    }
}

/// How much of the JSON is shown, before and behind the byte to blame.
const SHOWN: (usize, usize) = (24, 24);

/// The byte is one of the JSON, which nobody has seen: what stands there is told instead.
fn translated(malformed: Malformed, json: &[u8]) -> Malformed {
    let Malformed { at: Some(at), why } = malformed else { return malformed };
    let at = at.min(json.len());
    let (from, to) = (at.saturating_sub(SHOWN.0), (at + SHOWN.1).min(json.len()));
    let [before, behind] = [from..at, at..to].map(|range| String::from_utf8_lossy(&json[range]).into_owned());
    let dots = |cut: bool| if cut { "…" } else { "" };
    let shown = format!("{}{before} → {behind}{}", dots(from > 0), dots(to < json.len()));
    Malformed { at: None, why: format!("{why}, in the document as JSON at the arrow: {shown}") }
}
