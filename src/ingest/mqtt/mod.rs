//! The `mqtt` source, and what the `mqtt` sink shares with it: connection settings, TLS, the client.
//!
//! ```text
//! broker ─► client (rumqttc v4 | v5) ─► polling task ─► queue, bounded in bytes ─► Source::next
//!                  ▲ try_ack, in order, of the current connection only ◄──────────── Source::ack
//! ```

use crate::component::{ByteSize, Kind, Name, Settings};
use crate::flow::time::Span;
use crate::flow::topic::Topics;
use crate::ingest::{BoxFuture, Source, SourceContext, SourceError, SourceSpec};

pub mod client;
mod filters;
mod poller;
mod pump;
mod recent;
pub mod settings;
pub mod source;
pub mod tls;

use client::Limits;
use filters::Filters;
use settings::{Connection, sensible};

/// `type = "mqtt"`.
pub const KIND: Kind<dyn SourceSpec> =
    Kind { name: "mqtt", about: "subscribes to topics of an MQTT broker (5 or 3.1.1; TCP, TLS, websocket)", parse };

/// How many payloads a broker may send ahead of their acknowledgements, if nothing else is set.
const RECEIVE_MAXIMUM: u16 = 1000;
/// A source publishes nothing; the client wants room for some all the same.
const OUTGOING_MAXIMUM: u16 = 16;
/// The largest packet, if nothing else is set.
const MAX_PACKET: ByteSize = ByteSize(1 << 20);
/// How many bytes of payloads wait for the feed at most; beyond it the connection is given up on purpose,
/// because the session keeps what was not acknowledged.
pub const QUEUE_BYTES: u64 = 64 << 20;

/// An `mqtt` source as the pipeline file describes it.
#[derive(Debug)]
struct MqttSpec {
    connection: Connection,
    topics: Topics,
    qos: u8,
    clean_start: bool,
    session_expiry: Span,
    shared_group: Option<Name>,
    receive_maximum: u16,
    max_packet: ByteSize,
    skip_retained: bool,
    allow_downgrade: bool,
}

fn parse(settings: &mut Settings) -> Option<Box<dyn SourceSpec>> {
    let before = settings.faults_len();
    let connection = Connection::read(settings);
    let topics = settings.required::<Vec<Name>>("topics").map(|names| {
        Topics::read(&names).unwrap_or_else(|faults| {
            faults.into_iter().for_each(|fault| settings.fault(fault));
            Topics::default()
        })
    });
    let qos = sensible(settings, "qos", 1_u16, |qos| (*qos > 2).then(|| format!("expected 0, 1 or 2, got {qos}")));
    let clean_start = settings.or("clean_start", false);
    let session_expiry = settings.or("session_expiry", Span::from_secs(7 * 86_400));
    let shared_group = settings.optional::<Name>("shared_group");
    if let Some(group) = shared_group.as_ref().filter(|g| g.text.is_empty() || g.text.contains(['/', '+', '#'])) {
        settings.fault(group.fault("`shared_group`: expected a name without `/`, `+` and `#`"));
    }
    let receive_maximum = sensible(settings, "receive_maximum", RECEIVE_MAXIMUM, |window| {
        (*window == 0).then(|| "expected 1 or more, got 0".to_owned())
    });
    let max_packet = sensible(settings, "max_packet", MAX_PACKET, |size| {
        let fits = (1024..=256 << 20).contains(&size.0);
        (!fits).then(|| format!("expected 1KiB to 256MiB, got {size}"))
    });
    let skip_retained = settings.choice("retained", &[("keep", false), ("skip", true)], false);
    let allow_downgrade = settings.or("allow_downgrade", false);
    (settings.faults_len() == before).then_some(())?;
    Some(Box::new(MqttSpec {
        connection: connection?,
        topics: topics?,
        qos: u8::try_from(qos).unwrap_or(1),
        clean_start,
        session_expiry,
        shared_group,
        receive_maximum,
        max_packet,
        skip_retained,
        allow_downgrade,
    }))
}

impl MqttSpec {
    /// What is sent to the broker: `$share/GROUP/` before each filter of a shared subscription.
    fn filters(&self) -> Vec<String> {
        let shared = |filter: &str| match &self.shared_group {
            Some(group) => format!("$share/{}/{filter}", group.text),
            None => filter.to_owned(),
        };
        self.topics.filters().map(shared).collect()
    }
}

impl SourceSpec for MqttSpec {
    fn topics(&self) -> &Topics {
        &self.topics
    }

    fn shared_group(&self) -> Option<&Name> {
        self.shared_group.as_ref()
    }

    fn describe(&self) -> String {
        let qos = if self.qos == 2 {
            "2 (subscribes at 1: redeliveries may repeat)".to_owned()
        } else {
            self.qos.to_string()
        };
        format!("mqtt {} {} qos {qos}", self.connection.describe(), self.filters().join(" "))
    }

    fn memory_bytes(&self) -> u64 {
        QUEUE_BYTES.min(u64::from(self.receive_maximum).saturating_mul(self.max_packet.0 + poller::PAYLOAD_OVERHEAD))
    }

    fn open(&self, context: SourceContext) -> BoxFuture<'_, Result<Box<dyn Source>, SourceError>> {
        Box::pin(async move {
            let limits = Limits {
                clean_start: self.clean_start,
                session_expiry: self.session_expiry,
                receive_maximum: self.receive_maximum,
                max_packet: u32::try_from(self.max_packet.0).unwrap_or(u32::MAX),
                outgoing_maximum: OUTGOING_MAXIMUM,
            };
            let client_id = format!("streamgauge-{}-{}", context.pipeline, context.name);
            let client = client::connect(&self.connection, &client_id, limits).map_err(SourceError::Fatal)?;
            let filters = self.filters();
            let known = context.kept.clone().map(|(disk, folder)| Filters::open(disk, folder, &filters)).transpose()?;
            let wanted = source::Wanted {
                filters,
                qos: self.qos.min(1),
                skip_retained: self.skip_retained,
                allow_downgrade: self.allow_downgrade,
                silence_max: self.connection.keep_alive.duration() * 3,
                queue_bytes: self.memory_bytes().min(context.memory_bytes),
            };
            Ok(Box::new(source::MqttSource::start_knowing(client, wanted, known, context)) as Box<dyn Source>)
        })
    }
}
