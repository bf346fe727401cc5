//! rumqttc, versions 5 and 3.1.1, behind traits of our own, so that it can be swapped.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rumqttc::{NetworkOptions, TlsConfiguration, Transport, v5};

use crate::flow::payload::Delivery;
use crate::flow::time::Span;
use crate::ingest::BoxFuture;
pub use crate::ingest::mqtt::pump::Events;
use crate::ingest::mqtt::pump::pumped;
use crate::ingest::mqtt::settings::Connection;
use crate::ingest::mqtt::tls;

/// TCP, TLS and CONNACK together.
const CONNECT_SECS: u64 = 15;
/// Room in the request channel beyond one acknowledgement for each payload in flight. Some brokers go far beyond the window
/// that they were given once acknowledgements flow (mosquitto 2.0.11: 28,000 in place of 20).
const REQUESTS_SPARE: usize = 16_384;

/// What the broker is told, beyond who we are.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The broker forgets the session at every connection.
    pub clean_start: bool,
    /// How long the broker keeps the session without a connection (MQTT 5).
    pub session_expiry: Span,
    /// Payloads in flight without acknowledgement (MQTT 5).
    pub receive_maximum: u16,
    /// Bytes of the largest packet.
    pub max_packet: u32,
    /// Publishes of our own in flight; the client allocates a table of this size.
    pub outgoing_maximum: u16,
}

/// What happened on a connection.
#[derive(Debug)]
pub enum Event {
    /// The broker accepted the connection.
    Connected {
        /// It remembers the session.
        session_present: bool,
    },
    /// A payload arrived.
    Publish(Arrived),
    /// The answer to a subscription, filter by filter.
    Subscribed(Vec<Granted>),
    /// The connection is gone.
    Disconnected(Reason),
    /// An acknowledgement of ours was written.
    Acknowledged,
    /// The next publish of ours was written, under this packet id (0 at QoS 0).
    Sent(u16),
    /// The broker took a publish of ours; `false` if it refused it.
    Taken(u16, bool),
    /// We said goodbye; the client may also say so of itself, without doing it.
    Closed,
    /// Anything else.
    Other,
}

/// A payload as it arrived.
#[derive(Debug)]
pub struct Arrived {
    /// The topic.
    pub topic: Bytes,
    /// The body.
    pub body: Bytes,
    /// What the broker said of it.
    pub delivery: Delivery,
    /// MQTT 5 user properties.
    pub properties: Vec<(String, String)>,
}

/// What the broker made of one filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Granted {
    /// Subscribed, at this quality of service.
    Qos(u8),
    /// Refused, with its reason.
    Refused(String),
}

/// Why a connection is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// It will not work until a person does something.
    Fatal(String),
    /// Another connection came with our client id.
    TakenOver,
    /// It may work again.
    Passing(String),
}

/// The polled half of a client. Dropping a future of `poll` or `pump` must be followed by `reset`.
pub trait Client: Send {
    /// Waits for what happens next; connects if there is no connection.
    fn poll(&mut self) -> BoxFuture<'_, Event>;
    /// Does the same over and over until the connection is gone, which is the last event. It is pending when nothing happens
    /// or there are many events, and is polled again once they were taken. One future for all of a connection: the one
    /// of [`Client::poll`] has room for a handshake, which is copied at each event.
    fn pump<'a>(&'a mut self, events: &'a Events) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            loop {
                let event = self.poll().await;
                if pumped(events, event).await {
                    return;
                }
            }
        })
    }
    /// Forgets the connection and everything that was read from it or is to be written to it.
    fn reset(&mut self);
    /// The half that asks.
    fn requests(&self) -> Arc<dyn Requests>;
}

/// The half of a client that asks. Nothing here waits; `false` says that there was no room.
pub trait Requests: Send + Sync {
    /// Subscribes.
    fn subscribe(&self, filters: &[String], qos: u8) -> bool;
    /// Gives subscriptions back.
    fn unsubscribe(&self, filters: &[String]) -> bool;
    /// Acknowledges a QoS 1 payload of the current connection.
    fn try_ack(&self, packet_id: u16) -> bool;
    /// Publishes.
    fn publish(&self, topic: &str, body: Bytes, qos: u8, retain: bool) -> bool;
    /// Says goodbye, after what was asked before.
    fn disconnect(&self) -> bool;
}

/// A client that connects when it is first polled. Reads certificates.
pub fn connect(connection: &Connection, default_id: &str, limits: Limits) -> Result<Box<dyn Client>, String> {
    let transport = transport(connection)?;
    let id = connection.client_id.as_deref().unwrap_or(default_id);
    let address = &connection.address;
    let host = if address.scheme.websocket { &address.url } else { &address.host };
    let capacity = usize::from(limits.receive_maximum) + usize::from(limits.outgoing_maximum) + REQUESTS_SPARE;
    let mut network = NetworkOptions::new();
    network.set_tcp_nodelay(true);
    network.set_connection_timeout(CONNECT_SECS);
    let keep_alive = Duration::from_secs(connection.keep_alive.duration().as_secs());
    if connection.v5 {
        let mut options = v5::MqttOptions::new(id, host, address.port);
        options.set_transport(transport).set_keep_alive(keep_alive).set_clean_start(limits.clean_start);
        options.set_session_expiry_interval(Some(
            u32::try_from(limits.session_expiry.duration().as_secs()).unwrap_or(u32::MAX),
        ));
        options.set_receive_maximum(Some(limits.receive_maximum)).set_max_packet_size(Some(limits.max_packet));
        options.set_outgoing_inflight_upper_limit(limits.outgoing_maximum).set_manual_acks(true);
        options.set_connection_timeout(CONNECT_SECS).set_network_options(network);
        if let Some((user, password)) = &connection.login {
            options.set_credentials(user, password.reveal());
        }
        let (requests, events) = v5::AsyncClient::new(options, capacity);
        return Ok(Box::new(Five { requests, events, limits, keep_alive, aliases: HashMap::new() }));
    }
    let mut options = rumqttc::MqttOptions::new(id, host, address.port);
    options.set_transport(transport).set_keep_alive(keep_alive).set_clean_session(limits.clean_start);
    let packet = usize::try_from(limits.max_packet).unwrap_or(usize::MAX);
    options.set_max_packet_size(packet, packet).set_inflight(limits.outgoing_maximum).set_manual_acks(true);
    if let Some((user, password)) = &connection.login {
        options.set_credentials(user, password.reveal());
    }
    let (requests, mut events) = rumqttc::AsyncClient::new(options, capacity);
    events.set_network_options(network);
    Ok(Box::new(Four { requests, events }))
}

fn transport(connection: &Connection) -> Result<Transport, String> {
    let scheme = connection.address.scheme;
    if !scheme.tls {
        return Ok(if scheme.websocket { Transport::Ws } else { Transport::Tcp });
    }
    let config = TlsConfiguration::Rustls(tls::config(connection)?);
    Ok(if scheme.websocket { Transport::Wss(config) } else { Transport::Tls(config) })
}

/// What a person has to do about a refusal, if anything helps but time.
fn refused(code: &str, (host, port): (String, u16), user: Option<&str>) -> Reason {
    let user = user.map_or(String::new(), |user| format!(" of user `{user}`"));
    let what = format!("the broker at {host}:{port} refused the connection{user}: {code}");
    let fix = match code {
        "NotAuthorized" | "BadUserNamePassword" | "BadAuthenticationMethod" => "check `username` and `password`",
        "ClientIdentifierNotValid" | "BadClientId" => "set another `client_id`",
        "RefusedProtocolVersion" | "UnsupportedProtocolVersion" => "set another `protocol`",
        "Banned" => "the broker has banned this client",
        _ => return Reason::Passing(what),
    };
    Reason::Fatal(format!("{what}; {fix}"))
}

fn lost(error: &(dyn std::error::Error + 'static)) -> Reason {
    match tls::certificate_trouble(error) {
        Some(why) => Reason::Fatal(format!("TLS: {why}; check `ca`, `cert`, `key` and the host's name in `url`")),
        None => Reason::Passing(error.to_string()),
    }
}

struct Five {
    requests: v5::AsyncClient,
    events: v5::EventLoop,
    limits: Limits,
    keep_alive: Duration,
    /// Topics by alias, of this connection. We allow none, but some brokers do not ask.
    aliases: HashMap<u16, Bytes>,
}

impl Five {
    /// A payload as it arrived. The client hands it out before it looks its alias up; the topic stays empty where
    /// the alias is unknown.
    fn arrived(&mut self, p: v5::mqttbytes::v5::Publish) -> Arrived {
        let delivery = Delivery { qos: p.qos as u8, retained: p.retain, dup: p.dup, packet_id: p.pkid, connection: 0 };
        let properties = p.properties.unwrap_or_default();
        let topic = match properties.topic_alias {
            None => p.topic,
            Some(alias) if p.topic.is_empty() => self.aliases.get(&alias).cloned().unwrap_or_default(),
            Some(alias) => {
                self.aliases.insert(alias, p.topic.clone());
                p.topic
            }
        };
        Arrived { topic, body: p.payload, delivery, properties: properties.user_properties }
    }

    async fn next(&mut self) -> Event {
        use v5::mqttbytes::v5::{Packet, SubscribeReasonCode as Code};
        // What was read already need not go through the client's own future, which is large and copied at each call.
        let polled = match self.events.state.events.pop_front() {
            Some(event) => Ok(event),
            None => self.events.poll().await,
        };
        match polled {
            Ok(v5::Event::Incoming(Packet::Publish(p))) => Event::Publish(self.arrived(p)),
            Ok(v5::Event::Incoming(Packet::ConnAck(ack))) => {
                let (receive_maximum, server_keep_alive) =
                    ack.properties.map_or((None, None), |known| (known.receive_max, known.server_keep_alive));
                // The client would wait for ever before its first acknowledgement.
                if receive_maximum == Some(0) {
                    let why = "the broker answered with a receive maximum of 0, which MQTT 5 forbids";
                    return Event::Disconnected(Reason::Passing(why.to_owned()));
                }
                // A server keep-alive of 0 makes the client ping without a pause: ours again.
                if server_keep_alive.is_some_and(|secs| secs < 5) {
                    self.events.options.set_keep_alive(self.keep_alive);
                }
                Event::Connected { session_present: ack.session_present }
            }
            Ok(v5::Event::Incoming(Packet::SubAck(ack))) => {
                let granted = |code: &Code| match code {
                    Code::Success(qos) => Granted::Qos(*qos as u8),
                    other => Granted::Refused(format!("{other:?}")),
                };
                Event::Subscribed(ack.return_codes.iter().map(granted).collect())
            }
            Ok(v5::Event::Incoming(Packet::PubAck(ack))) => {
                use v5::mqttbytes::v5::PubAckReason as Code;
                Event::Taken(ack.pkid, matches!(ack.reason, Code::Success | Code::NoMatchingSubscribers))
            }
            Ok(v5::Event::Outgoing(rumqttc::Outgoing::PubAck(_))) => Event::Acknowledged,
            Ok(v5::Event::Outgoing(rumqttc::Outgoing::Publish(id))) => Event::Sent(id),
            Ok(v5::Event::Outgoing(rumqttc::Outgoing::Disconnect)) => Event::Closed,
            Ok(_) => Event::Other,
            Err(error) => Event::Disconnected(five_reason(&error, &self.events.options)),
        }
    }
}

impl Client for Five {
    fn poll(&mut self) -> BoxFuture<'_, Event> {
        Box::pin(self.next())
    }

    fn pump<'a>(&'a mut self, events: &'a Events) -> BoxFuture<'a, ()> {
        Box::pin(async move { while !pumped(events, self.next().await).await {} })
    }

    fn reset(&mut self) {
        self.events.clean();
        self.events.pending.clear();
        // The client's own would keep what the last broker allowed.
        self.events.state = v5::MqttState::new(self.limits.outgoing_maximum, true);
        self.aliases.clear();
    }

    fn requests(&self) -> Arc<dyn Requests> {
        Arc::new(self.requests.clone())
    }
}

fn five_reason(error: &v5::ConnectionError, options: &v5::MqttOptions) -> Reason {
    use v5::mqttbytes::v5::DisconnectReasonCode as Code;
    use v5::{ConnectionError as Error, StateError};
    let user = options.credentials();
    let refused = |code: &str| refused(code, options.broker_address(), user.as_ref().map(|user| &*user.username));
    match error {
        Error::ConnectionRefused(reason) | Error::MqttState(StateError::ConnFail { reason }) => {
            refused(&format!("{reason:?}"))
        }
        Error::MqttState(StateError::ServerDisconnect { reason_code: Code::SessionTakenOver, .. }) => Reason::TakenOver,
        Error::MqttState(StateError::ServerDisconnect { reason_code: Code::NotAuthorized, .. }) => {
            refused("NotAuthorized")
        }
        // It does not name its cause: with TLS 1.3 the broker's view of our certificate comes this way.
        Error::MqttState(StateError::Deserialization(cause)) => lost(cause),
        other => lost(other),
    }
}

impl Requests for v5::AsyncClient {
    fn subscribe(&self, filters: &[String], qos: u8) -> bool {
        use v5::mqttbytes::{QoS, v5::Filter};
        let qos = if qos == 0 { QoS::AtMostOnce } else { QoS::AtLeastOnce };
        self.try_subscribe_many(filters.iter().map(|filter| Filter::new(filter.clone(), qos))).is_ok()
    }

    fn unsubscribe(&self, filters: &[String]) -> bool {
        filters.iter().all(|filter| self.try_unsubscribe(filter).is_ok())
    }

    fn try_ack(&self, packet_id: u16) -> bool {
        let mut publish = v5::mqttbytes::v5::Publish::new("", v5::mqttbytes::QoS::AtLeastOnce, Bytes::new(), None);
        publish.pkid = packet_id;
        v5::AsyncClient::try_ack(self, &publish).is_ok()
    }

    fn publish(&self, topic: &str, body: Bytes, qos: u8, retain: bool) -> bool {
        use v5::mqttbytes::QoS;
        let qos = if qos == 0 { QoS::AtMostOnce } else { QoS::AtLeastOnce };
        self.try_publish(topic, qos, retain, body).is_ok()
    }

    fn disconnect(&self) -> bool {
        self.try_disconnect().is_ok()
    }
}

struct Four {
    requests: rumqttc::AsyncClient,
    events: rumqttc::EventLoop,
}

impl Four {
    async fn next(&mut self) -> Event {
        use rumqttc::{Packet, SubscribeReasonCode as Code};
        let polled = match self.events.state.events.pop_front() {
            Some(event) => Ok(event),
            None => self.events.poll().await,
        };
        match polled {
            Ok(rumqttc::Event::Incoming(Packet::Publish(p))) => Event::Publish(Arrived {
                topic: Bytes::from(p.topic),
                body: p.payload,
                delivery: Delivery {
                    qos: p.qos as u8,
                    retained: p.retain,
                    dup: p.dup,
                    packet_id: p.pkid,
                    connection: 0,
                },
                properties: Vec::new(),
            }),
            Ok(rumqttc::Event::Incoming(Packet::ConnAck(ack))) => {
                Event::Connected { session_present: ack.session_present }
            }
            Ok(rumqttc::Event::Incoming(Packet::SubAck(ack))) => {
                let granted = |code: &Code| match code {
                    Code::Success(qos) => Granted::Qos(*qos as u8),
                    Code::Failure => Granted::Refused("Failure (0x80)".to_owned()),
                };
                Event::Subscribed(ack.return_codes.iter().map(granted).collect())
            }
            Ok(rumqttc::Event::Incoming(Packet::PubAck(ack))) => Event::Taken(ack.pkid, true),
            Ok(rumqttc::Event::Outgoing(rumqttc::Outgoing::PubAck(_))) => Event::Acknowledged,
            Ok(rumqttc::Event::Outgoing(rumqttc::Outgoing::Publish(id))) => Event::Sent(id),
            Ok(rumqttc::Event::Outgoing(rumqttc::Outgoing::Disconnect)) => Event::Closed,
            Ok(_) => Event::Other,
            Err(rumqttc::ConnectionError::ConnectionRefused(code)) => {
                let options = &self.events.mqtt_options;
                let user = options.credentials();
                let user = user.as_ref().map(|user| &*user.username);
                Event::Disconnected(refused(&format!("{code:?}"), options.broker_address(), user))
            }
            Err(error) => Event::Disconnected(lost(&error)),
        }
    }
}

impl Client for Four {
    fn poll(&mut self) -> BoxFuture<'_, Event> {
        Box::pin(self.next())
    }

    fn pump<'a>(&'a mut self, events: &'a Events) -> BoxFuture<'a, ()> {
        Box::pin(async move { while !pumped(events, self.next().await).await {} })
    }

    fn reset(&mut self) {
        self.events.clean();
        self.events.state.events.clear();
        self.events.pending.clear();
    }

    fn requests(&self) -> Arc<dyn Requests> {
        Arc::new(self.requests.clone())
    }
}

impl Requests for rumqttc::AsyncClient {
    fn subscribe(&self, filters: &[String], qos: u8) -> bool {
        let qos = if qos == 0 { rumqttc::QoS::AtMostOnce } else { rumqttc::QoS::AtLeastOnce };
        let filters = filters.iter().map(|filter| rumqttc::SubscribeFilter::new(filter.clone(), qos));
        self.try_subscribe_many(filters).is_ok()
    }

    fn unsubscribe(&self, filters: &[String]) -> bool {
        filters.iter().all(|filter| self.try_unsubscribe(filter.as_str()).is_ok())
    }

    fn try_ack(&self, packet_id: u16) -> bool {
        let mut publish = rumqttc::Publish::new("", rumqttc::QoS::AtLeastOnce, Bytes::new());
        publish.pkid = packet_id;
        rumqttc::AsyncClient::try_ack(self, &publish).is_ok()
    }

    fn publish(&self, topic: &str, body: Bytes, qos: u8, retain: bool) -> bool {
        let qos = if qos == 0 { rumqttc::QoS::AtMostOnce } else { rumqttc::QoS::AtLeastOnce };
        self.try_publish(topic, qos, retain, body).is_ok()
    }

    fn disconnect(&self) -> bool {
        self.try_disconnect().is_ok()
    }
}
