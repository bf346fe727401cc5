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

mod five;
mod four;

use five::Five;
use four::Four;

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
        return Ok(Box::new(Five {
            requests,
            events,
            outgoing_maximum: limits.outgoing_maximum,
            keep_alive,
            aliases: HashMap::new(),
        }));
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
