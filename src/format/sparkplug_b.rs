//! The `sparkplug_b` format: payloads of Eclipse Sparkplug B, with the births that give them their meaning
//! ([specification 3.0](https://sparkplug.eclipse.org/specification/version/3.0/documents/sparkplug-specification-3.0.0.pdf)).
//!
//! ```toml
//! [sources.plant]
//! type = "mqtt"
//! topics = ["spBv1.0/#"]
//!
//! [sources.plant.decode]
//! format = "sparkplug_b"
//! rows = "metric"                  # a row for each metric, or "message": a row for each message, of metrics by their names
//! rebirth = true                   # ask edge nodes for a birth where one is missing or numbers are: false
//!                                  # limits, `non_finite` and packing are those of the `json` format
//!
//! [sources.plant.columns]
//! at = { type = "timestamp", unit = "ms", path = "$.timestamp" }  # of the metric, or else of the message
//! group = "utf8"                   # and so on: message ("NDATA"), edge_node, device, seq, bd_seq, stale
//! edge_node = "utf8"
//! name = { type = "utf8", required = false }                      # by its alias, too; and: alias, datatype, historical
//! number = "float64"               # the value, where it is a number; likewise: string, boolean, and value for any
//! ```
//!
//! With `rows = "message"` a metric is `$.metrics['Boiler/Temp']`. Whole numbers have the sign of their data type. A time
//! is in milliseconds, bytes are base64 text, arrays are arrays, a data set is `{"columns": […], "rows": [[…]]}`, a template
//! the map of its members. A death is a row, too: of its `bdSeq`, or without a name; `stale` is one of a session that was
//! over before.
//!
//! Births are kept for each edge node, in the checkpoint as well, so a source has one decoder. What an alias stands for that
//! no birth has told is not known, and its message a dead letter. Numbers of the sequence that did not come are counted in
//! `lost_messages`.

use prost::Message as _;

use crate::component::{Kind, Settings};
use crate::flow::payload::Payload;
use crate::format::document::{Language, RowsAt, Text, Transcoder, documents};
use crate::format::{DecoderSpec, Malformed, Request};

mod births;
mod proto;
mod topic;
mod value;

use births::{Nodes, Resolved};
use proto::{Metric, Payload as Message};
use topic::{Address, MessageType};
use value::DataType;

/// `format = "sparkplug_b"`.
pub const KIND: Kind<dyn DecoderSpec> = Kind {
    name: "sparkplug_b",
    about: "Sparkplug B: metrics of edge nodes and devices, with aliases from their births",
    parse,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RowsOf {
    Metric,
    Message,
}

#[derive(Debug)]
struct Sparkplug {
    rows: RowsOf,
    rebirth: bool,
}

fn parse(settings: &mut Settings) -> Option<Box<dyn DecoderSpec>> {
    let choices = [("metric", RowsOf::Metric), ("message", RowsOf::Message)];
    let rows = settings.choice("rows", &choices, RowsOf::Metric);
    let rebirth = settings.or("rebirth", false);
    documents(settings, Sparkplug { rows, rebirth })
}

impl Language for Sparkplug {
    fn rows(&self) -> RowsAt {
        match self.rows {
            RowsOf::Metric => RowsAt::Path("$[*]"),
            RowsOf::Message => RowsAt::Whole,
        }
    }

    fn is_stateful(&self) -> bool {
        true
    }

    fn transcoder(&self) -> Box<dyn Transcoder> {
        Box::new(Host {
            rows: self.rows,
            rebirth: self.rebirth,
            nodes: Nodes::default(),
            lost: 0,
            requests: Vec::new(),
        })
    }
}

struct Host {
    rows: RowsOf,
    rebirth: bool,
    nodes: Nodes,
    /// As told before.
    lost: u64,
    requests: Vec<Request>,
}

fn bad<T>(why: impl Into<String>) -> Result<T, Malformed> {
    Err(Malformed { at: None, why: why.into() })
}

impl Transcoder for Host {
    fn transcode(&mut self, payload: &Payload<'_>, text: &mut Text) -> Result<(), Malformed> {
        let address = Address::of(payload.topic).map_err(|why| Malformed { at: None, why })?;
        let Some(message_type) = address.message else { return self.state_text(payload, text) };
        let message =
            Message::decode(payload.body).or_else(|why| bad(format!("expected a Sparkplug B payload: {why}")))?;
        let is_birth = matches!(message_type, MessageType::NodeBirth | MessageType::DeviceBirth);
        let room = if is_birth { self.nodes.room(&address) } else { 0 };
        let node = self.nodes.of(&address);
        let lost = node.follow(message_type, message.seq);
        self.lost += lost;
        let stale = node.take_over(message_type, &address, &message, room)?;
        let unknown = node.unknown(&message.metrics);
        if self.rebirth && (lost > 0 || unknown.is_some()) && node.may_ask(payload.arrival.micros()) {
            self.requests.push(rebirth(&address, payload.arrival.micros()));
        }
        if let Some(alias) = unknown {
            return bad(format!("no birth of the edge node {} has told what alias {alias} is", address.node_key()));
        }
        let metrics: Vec<Resolved<'_>> = message.metrics.iter().map(|metric| node.resolve(&address, metric)).collect();
        let head = Head { address: &address, message_type, message: &message, bd_seq: node.bd_seq, stale };
        match self.rows {
            RowsOf::Message => head.message_text(&metrics, text),
            RowsOf::Metric => head.metrics_text(&metrics, text),
        }
    }

    fn lost_messages(&mut self) -> Option<u64> {
        Some(std::mem::take(&mut self.lost))
    }

    fn requests(&mut self) -> Vec<Request> {
        std::mem::take(&mut self.requests)
    }

    fn state(&self) -> Option<String> {
        serde_json::to_string(&self.nodes).ok()
    }

    fn restore(&mut self, state: &str) -> Result<(), String> {
        self.nodes = serde_json::from_str(state).map_err(|why| why.to_string())?;
        Ok(())
    }
}

impl Host {
    /// Whether a host application is there, which is told in JSON.
    fn state_text(&self, payload: &Payload<'_>, text: &mut Text) -> Result<(), Malformed> {
        let said: serde_json::Value = match serde_json::from_slice(payload.body) {
            Ok(said) => said,
            Err(why) => return bad(format!("expected the STATE of a host as JSON: {why}")),
        };
        if self.rows == RowsOf::Metric {
            text.array()?;
        }
        text.map()?;
        text.key("message");
        text.string("STATE");
        for (key, from) in [("boolean", "online"), ("timestamp", "timestamp")] {
            if let Some(value) = said.get(from) {
                text.key(key);
                text.number(&value.to_string());
            }
        }
        text.end_map();
        if self.rows == RowsOf::Metric {
            text.end_array();
        }
        Ok(())
    }
}

/// The command to an edge node to tell all births again (section 6.4.19 and 5.8).
fn rebirth(address: &Address<'_>, now: i64) -> Request {
    let metric = Metric {
        name: Some("Node Control/Rebirth".to_owned()),
        datatype: Some(DataType::BOOLEAN.0),
        value: Some(proto::Value::Boolean(true)),
        ..Metric::default()
    };
    let timestamp = u64::try_from(now / 1000).ok();
    let body = Message { timestamp, metrics: vec![metric], seq: None }.encode_to_vec();
    Request { topic: format!("{}spBv1.0/{}/NCMD/{}", address.prefix, address.group, address.edge_node), body }
}

/// What all rows of a message have in common.
struct Head<'m> {
    address: &'m Address<'m>,
    message_type: MessageType,
    message: &'m Message,
    bd_seq: Option<u64>,
    stale: bool,
}

impl Head<'_> {
    fn common(&self, text: &mut Text) -> Result<(), Malformed> {
        text.map()?;
        let address = self.address;
        let texts = [("group", address.group), ("message", self.message_type.name()), ("edge_node", address.edge_node)];
        for (key, value) in texts.into_iter().chain(address.device.map(|device| ("device", device))) {
            text.key(key);
            text.string(value);
        }
        for (key, value) in [("seq", self.message.seq), ("bd_seq", self.bd_seq)] {
            if let Some(value) = value {
                text.key(key);
                text.int(value);
            }
        }
        if matches!(self.message_type, MessageType::NodeDeath) {
            text.key("stale");
            text.bool(self.stale);
        }
        Ok(())
    }

    fn time(&self, metric: Option<&Metric>, text: &mut Text) {
        if let Some(time) = metric.and_then(|metric| metric.timestamp).or(self.message.timestamp) {
            text.key("timestamp");
            text.int(time);
        }
    }

    fn message_text(&self, metrics: &[Resolved<'_>], text: &mut Text) -> Result<(), Malformed> {
        self.common(text)?;
        self.time(None, text);
        text.key("metrics");
        text.map()?;
        for resolved in metrics {
            let Some(name) = resolved.name else { continue };
            text.key(name);
            resolved.value_text(text)?;
        }
        text.end_map();
        text.end_map();
        Ok(())
    }

    fn metrics_text(&self, metrics: &[Resolved<'_>], text: &mut Text) -> Result<(), Malformed> {
        text.array()?;
        if metrics.is_empty() {
            self.common(text)?;
            self.time(None, text);
            text.end_map();
        }
        for resolved in metrics {
            let metric = resolved.metric;
            self.common(text)?;
            self.time(Some(metric), text);
            if let Some(name) = resolved.name {
                text.key("name");
                text.string(name);
            }
            if let Some(alias) = metric.alias {
                text.key("alias");
                text.int(alias);
            }
            if let Some(name) = resolved.datatype.name() {
                text.key("datatype");
                text.string(name);
            }
            text.key("historical");
            text.bool(metric.is_historical.unwrap_or(false));
            if let Some(kind) = resolved.kind() {
                text.key(kind);
                resolved.value_text(text)?;
            }
            text.key("value");
            resolved.value_text(text)?;
            text.end_map();
        }
        text.end_array();
        Ok(())
    }
}

impl Resolved<'_> {
    /// The field for values of its type.
    fn kind(&self) -> Option<&'static str> {
        let value = self.metric.value.as_ref().filter(|_| self.metric.is_null != Some(true))?;
        Some(match value {
            proto::Value::Int(_) | proto::Value::Long(_) | proto::Value::Float(_) | proto::Value::Double(_) => "number",
            proto::Value::Boolean(_) => "boolean",
            proto::Value::String(_) => "string",
            _ => return None,
        })
    }

    fn value_text(&self, text: &mut Text) -> Result<(), Malformed> {
        let named = |why| {
            let name = self.name.unwrap_or("");
            Malformed { at: None, why: format!("metric `{name}`: {why}") }
        };
        match &self.metric.value {
            Some(value) if self.metric.is_null != Some(true) => value.text(self.datatype, text).map_err(named),
            _ => {
                text.null();
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests;
