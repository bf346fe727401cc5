//! rumqttc, MQTT 5.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rumqttc::v5;

use crate::flow::payload::Delivery;
use crate::ingest::BoxFuture;
use crate::ingest::mqtt::client::{Arrived, Client, Event, Granted, Reason, Requests, lost, refused};
use crate::ingest::mqtt::pump::{Events, pumped};

pub(super) struct Five {
    pub(super) requests: v5::AsyncClient,
    pub(super) events: v5::EventLoop,
    /// Publishes of our own in flight, of a connection that does not say less.
    pub(super) outgoing_maximum: u16,
    pub(super) keep_alive: Duration,
    /// Topics by alias, of this connection. We allow none, but some brokers do not ask.
    pub(super) aliases: HashMap<u16, Bytes>,
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
        self.events.state = v5::MqttState::new(self.outgoing_maximum, true);
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
