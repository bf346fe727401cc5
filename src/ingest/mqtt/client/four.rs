//! rumqttc, MQTT 3.1.1.

use std::sync::Arc;

use bytes::Bytes;

use crate::flow::payload::Delivery;
use crate::ingest::BoxFuture;
use crate::ingest::mqtt::client::{Arrived, Client, Event, Granted, Requests, lost, refused};
use crate::ingest::mqtt::pump::{Events, pumped};

pub(super) struct Four {
    pub(super) requests: rumqttc::AsyncClient,
    pub(super) events: rumqttc::EventLoop,
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
