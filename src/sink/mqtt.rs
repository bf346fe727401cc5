//! The `mqtt` sink: each row as a JSON object under a topic made of its columns.
//!
//! With QoS 1 every row reaches the broker at least once: an epoch ends when the broker has taken all its rows, and those
//! that it had not acknowledged when a connection or the process was lost are sent again. After a crash these are the rows
//! of the epoch that was not durable, so a subscriber may see rows twice; they are equal, byte for byte and in the same
//! order. With QoS 0 nobody says what has arrived: what was written to a connection that broke may be missing. Nothing is
//! held back over a barrier.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{Array, RecordBatch};
use arrow::datatypes::DataType;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use bytes::Bytes;
use tokio::runtime::Runtime;
use tokio::sync::Notify;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::component::{Fault, Kind, Name, Settings};
use crate::flow::message::Epoch;
use crate::flow::schema::StreamSchema;
use crate::flow::time::Span;
use crate::ingest::mqtt::client::{self, Client, Event, Limits, Reason, Requests};
use crate::ingest::mqtt::settings::{Connection, sensible};
use crate::ingest::mqtt::source::back_off;
use crate::sink::json_rows::JsonRows;
use crate::sink::{Sink, SinkContext, SinkError, SinkSpec, Unpublished};

/// `type = "mqtt"`.
pub const KIND: Kind<dyn SinkSpec> =
    Kind { name: "mqtt", about: "publishes each row as JSON to an MQTT broker", parse };

/// Rows that wait for the broker at most; beyond it `write` waits.
const ROWS_WAITING: usize = 1000;
/// Publishes in flight.
const IN_FLIGHT: u16 = 100;
/// The largest packet in either direction.
const MAX_PACKET: u32 = 1 << 20;
/// Without any progress for so long the call fails, and is tried again.
const PATIENCE: Duration = Duration::from_secs(30);
/// A connection that lasted so long was a good one: the pause begins at its shortest again.
const STEADY_AFTER: Duration = Duration::from_secs(5);
/// So many keep-alives without a sign of the client, which pings at each, say that it is stuck in a write.
const SILENT_KEEP_ALIVES: u32 = 3;
/// How long a goodbye may take.
const CLOSE_MAX: Duration = Duration::from_secs(1);

#[derive(Debug)]
struct MqttSpec {
    connection: Connection,
    topic: Name,
    qos: u8,
    retain: bool,
}

fn parse(settings: &mut Settings) -> Option<Box<dyn SinkSpec>> {
    let before = settings.faults_len();
    let connection = Connection::read(settings);
    let topic = settings.required::<Name>("topic");
    if let Some((topic, Err((within, why)))) = topic.as_ref().map(|topic| (topic, parts(&topic.text))) {
        settings.fault(topic.fault_within(within, format!("`topic`: {why}")));
    }
    let qos = sensible(settings, "qos", 1_u16, |qos| (*qos > 1).then(|| format!("expected 0 or 1, got {qos}")));
    let retain = settings.or("retain", false);
    (settings.faults_len() == before).then_some(())?;
    Some(Box::new(MqttSpec { connection: connection?, topic: topic?, qos: u8::from(qos == 1), retain }))
}

#[derive(Debug, PartialEq)]
enum Part<'a> {
    Text(&'a str),
    Column(&'a str),
}

/// The parts of a topic template, each with its place in it; or the place that is wrong, and why.
type Parts<'t> = Result<Vec<(Range<usize>, Part<'t>)>, (Range<usize>, String)>;

/// The parts of a topic template with their places in it, or what is wrong and where.
fn parts(template: &str) -> Parts<'_> {
    let mut parts = Vec::new();
    let mut from = 0;
    while from < template.len() {
        let rest = &template[from..];
        if rest.starts_with('{') {
            let close = rest.find('}').ok_or_else(|| (from..template.len(), "this `{` is not closed".to_owned()))?;
            parts.push((from..from + close + 1, Part::Column(&rest[1..close])));
            from += close + 1;
        } else {
            let text = &rest[..rest.find('{').unwrap_or(rest.len())];
            if let Some((at, letter)) = text.char_indices().find(|(_, letter)| matches!(letter, '+' | '#' | '\0' | '}'))
            {
                let what = format!("a topic to publish to has no {letter:?}; columns stand in braces");
                return Err((from + at..from + at + letter.len_utf8(), what));
            }
            parts.push((from..from + text.len(), Part::Text(text)));
            from += text.len();
        }
    }
    if parts.is_empty() { Err((0..0, "expected a topic, got an empty one".to_owned())) } else { Ok(parts) }
}

fn fits(column: &DataType) -> bool {
    matches!(column, DataType::Utf8 | DataType::Boolean) || column.is_integer()
}

impl SinkSpec for MqttSpec {
    fn check(&self, input: &StreamSchema) -> Vec<Fault> {
        let mut faults = Vec::new();
        for (within, part) in parts(&self.topic.text).unwrap_or_default() {
            let Part::Column(name) = part else { continue };
            let fault = |what| self.topic.fault_within(within, what);
            match input.index_of(name) {
                None => {
                    faults.push(fault(format!("`topic`: there is no column `{name}`")).nearest(name, input.names()))
                }
                Some(index) if !fits(input.columns.field(index).data_type()) => {
                    faults.push(fault(format!("`topic`: column `{name}` is no text, whole number or boolean")));
                }
                Some(_) => {}
            }
        }
        faults
    }

    fn describe(&self) -> String {
        format!("mqtt {} {} qos {}", self.connection.describe(), self.topic.text, self.qos)
    }

    fn open(&self, context: &SinkContext, input: &StreamSchema) -> Result<Box<dyn Sink>, SinkError> {
        let limits = Limits {
            clean_start: true,
            session_expiry: Span::ZERO,
            receive_maximum: IN_FLIGHT,
            max_packet: MAX_PACKET,
            outgoing_maximum: IN_FLIGHT,
        };
        let id = format!("streamgauge-{}-{}", context.pipeline, context.name);
        let client = client::connect(&self.connection, &id, limits).map_err(SinkError::Fatal)?;
        let parts = parts(&self.topic.text).map_err(|(_, why)| SinkError::Fatal(format!("`topic`: {why}")))?;
        let topic = parts.into_iter().map(|(_, part)| match part {
            Part::Text(text) => Ok(Piece::Text(text.to_owned())),
            Part::Column(name) => {
                let gone = || SinkError::Fatal(format!("there is no column `{name}` for `topic`"));
                input.index_of(name).map(Piece::Column).ok_or_else(gone)
            }
        });
        // One worker, so that the connection is kept alive while no rows come.
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.map_err(|why| SinkError::Retry(format!("could not start the network: {why}")))?;
        let requests = client.requests();
        let (sender, events) = unbounded_channel();
        let resume = Arc::new(Notify::new());
        let silence_max = self.connection.keep_alive.duration() * SILENT_KEEP_ALIVES;
        runtime.spawn(poll(client, sender, resume.clone(), silence_max));
        Ok(Box::new(MqttSink {
            topic: topic.collect::<Result<_, _>>()?,
            qos: self.qos,
            retain: self.retain,
            runtime: Some(runtime),
            requests,
            events,
            resume,
            connected: false,
            waiting: VecDeque::new(),
            asked: VecDeque::new(),
            sent: BTreeMap::new(),
            next_number: 0,
            rows_taken: 0,
        }))
    }
}

/// Does nothing but poll. After a loss it waits until the sink knows of it: only then is it certain that nothing
/// meant for the old connection gets onto the new one.
async fn poll(mut client: Box<dyn Client>, events: UnboundedSender<Event>, resume: Arc<Notify>, silence_max: Duration) {
    let mut failures = 0;
    let mut connected_at: Option<Instant> = None;
    loop {
        // The future is dropped only when the connection is given up as well.
        let event = tokio::time::timeout(silence_max, client.poll()).await.unwrap_or_else(|_| {
            Event::Disconnected(Reason::Passing("the broker takes nothing and says nothing".to_owned()))
        });
        let lost = matches!(event, Event::Disconnected(_));
        let last = matches!(event, Event::Closed);
        match event {
            Event::Connected { .. } => connected_at = Some(Instant::now()),
            // A broker that hangs up at each row makes no progress, though it lets us in each time.
            Event::Taken(_, true) => failures = 0,
            _ => {}
        }
        if !matches!(event, Event::Other) && events.send(event).is_err() || last {
            return;
        }
        if lost {
            if connected_at.take().is_some_and(|since| since.elapsed() >= STEADY_AFTER) {
                failures = 0;
            }
            resume.notified().await;
            client.reset();
            tokio::time::sleep(back_off(failures)).await;
            failures = failures.saturating_add(1);
        }
    }
}

enum Piece {
    Text(String),
    Column(usize),
}

struct Row {
    number: u64,
    topic: String,
    body: Bytes,
}

struct MqttSink {
    topic: Vec<Piece>,
    qos: u8,
    retain: bool,
    /// Taken out only when dropped.
    runtime: Option<Runtime>,
    requests: Arc<dyn Requests>,
    events: UnboundedReceiver<Event>,
    resume: Arc<Notify>,
    connected: bool,
    /// Not yet asked of the client.
    waiting: VecDeque<Row>,
    /// Asked of the client, not yet written.
    asked: VecDeque<Row>,
    /// Written, not yet taken by the broker: by packet id.
    sent: BTreeMap<u16, Row>,
    next_number: u64,
    /// Rows taken of a batch whose `write` failed.
    rows_taken: usize,
}

impl MqttSink {
    fn outstanding(&self) -> usize {
        self.waiting.len() + self.asked.len() + self.sent.len()
    }

    /// Publishes until at most `rows` wait for the broker.
    fn drain_to(&mut self, rows: usize) -> Result<(), SinkError> {
        loop {
            while self.connected && self.asked.len() + self.sent.len() < usize::from(IN_FLIGHT) {
                let Some(row) = self.waiting.pop_front() else { break };
                if !self.requests.publish(&row.topic, row.body.clone(), self.qos, self.retain) {
                    self.waiting.push_front(row);
                    break;
                }
                self.asked.push_back(row);
            }
            if self.outstanding() <= rows {
                return Ok(());
            }
            let runtime = self.runtime.as_ref().ok_or_else(|| SinkError::Fatal("the sink is closed".to_owned()))?;
            let events = &mut self.events;
            let event = runtime.block_on(async { tokio::time::timeout(PATIENCE, events.recv()).await });
            let event = event.map_err(|_| SinkError::Retry(format!("the broker took nothing for {PATIENCE:?}")))?;
            self.handle(event.ok_or_else(|| SinkError::Fatal("the connection's task ended".to_owned()))?)?;
        }
    }

    fn handle(&mut self, event: Event) -> Result<(), SinkError> {
        match event {
            Event::Connected { .. } => self.connected = true,
            Event::Sent(id) => {
                if let Some(row) = self.asked.pop_front().filter(|_| self.qos > 0) {
                    self.sent.insert(id, row);
                }
            }
            Event::Taken(id, true) => drop(self.sent.remove(&id)),
            Event::Taken(id, false) => {
                let topic = self.sent.get(&id).map_or("", |row| row.topic.as_str());
                return Err(SinkError::Fatal(format!(
                    "the broker refused to take `{topic}`; check what this user may publish"
                )));
            }
            Event::Disconnected(reason) => {
                self.connected = false;
                let mut again: Vec<Row> = std::mem::take(&mut self.sent).into_values().collect();
                again.extend(self.asked.drain(..));
                again.sort_by_key(|row| row.number);
                again.into_iter().rev().for_each(|row| self.waiting.push_front(row));
                self.resume.notify_one();
                return match reason {
                    Reason::Fatal(why) => Err(SinkError::Fatal(why)),
                    Reason::TakenOver => {
                        Err(SinkError::Retry("another client took the session over; is `client_id` unique?".to_owned()))
                    }
                    Reason::Passing(why) => Err(SinkError::Retry(format!("lost the broker: {why}"))),
                };
            }
            Event::Publish(_) | Event::Subscribed(_) | Event::Acknowledged | Event::Closed | Event::Other => {}
        }
        Ok(())
    }
}

impl Sink for MqttSink {
    fn write(&mut self, batch: &RecordBatch) -> Result<(), SinkError> {
        let rows = JsonRows::new(batch);
        let options = FormatOptions::default();
        let wrong = |why: arrow::error::ArrowError| SinkError::Fatal(format!("could not make a topic: {why}"));
        let columns = batch.columns().iter().map(|column| ArrayFormatter::try_new(column.as_ref(), &options));
        let columns = columns.collect::<Result<Vec<_>, _>>().map_err(wrong)?;
        let from = self.rows_taken;
        for row in from..rows.len() {
            self.drain_to(ROWS_WAITING - 1)?;
            let mut topic = String::new();
            for piece in &self.topic {
                match piece {
                    Piece::Text(text) => topic.push_str(text),
                    Piece::Column(index) if batch.column(*index).is_null(row) => topic.push_str("null"),
                    Piece::Column(index) => push_level(&mut topic, &columns[*index].value(row).to_string()),
                }
            }
            self.waiting.push_back(Row { number: self.next_number, topic, body: rows.row(row).into() });
            self.next_number += 1;
            self.rows_taken = row + 1;
        }
        self.rows_taken = 0;
        Ok(())
    }

    fn prepare(&mut self, _: Epoch, _: bool) -> Result<Unpublished, SinkError> {
        self.drain_to(0)?;
        Ok(Unpublished::default())
    }
}

impl Drop for MqttSink {
    fn drop(&mut self) {
        let goodbye = self.requests.disconnect();
        let Some(runtime) = self.runtime.take() else { return };
        if goodbye && self.connected {
            let events = &mut self.events;
            // The task ends after the goodbye, and with it its end of the channel.
            let ended = async { while events.recv().await.is_some() {} };
            let _ = runtime.block_on(async { tokio::time::timeout(CLOSE_MAX, ended).await });
        }
        runtime.shutdown_background();
    }
}

/// Appends a value so that it cannot change the structure of the topic: `%` and two digits for what could.
fn push_level(topic: &mut String, value: &str) {
    for letter in value.chars() {
        if matches!(letter, '+' | '#' | '/' | '%' | '$') || letter.is_ascii_control() {
            let _ = write!(topic, "%{:02X}", u32::from(letter));
        } else {
            topic.push(letter);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_stay_within_their_level() {
        let mut topic = String::new();
        push_level(&mut topic, "a/b+#%\0é");
        assert_eq!(topic, "a%2Fb%2B%23%25%00é");
    }

    #[test]
    fn templates_have_parts() {
        let expected = [(0..2, Part::Text("s/")), (2..8, Part::Column("site")), (8..10, Part::Text("/x"))];
        assert_eq!(parts("s/{site}/x").unwrap(), expected);
        for (wrong, within) in [("", 0..0), ("a/#", 2..3), ("a/{b", 2..4), ("+/a", 0..1), ("a}", 1..2)] {
            assert_eq!(parts(wrong).unwrap_err().0, within, "{wrong}");
        }
    }
}
