//! A fleet that publishes to an MQTT broker.

use rumqttc::Outgoing;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Packet, PubAckReason};
use rumqttc::v5::{AsyncClient, Event, EventLoop, MqttOptions};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::generator::FleetMessage;
use crate::flow::time::Timestamp;
use crate::ingest::recording::Speed;

/// How many messages may wait for a connection to send them.
const QUEUE: usize = 1024;

/// How many messages of a connection may be unacknowledged.
const INFLIGHT_MAX: u16 = 1024;

/// The largest packet that is taken from the broker, in bytes: acknowledgements are small.
const PACKET_BYTES_MAX: u32 = 64 << 10;

/// Where a fleet publishes to, and how.
#[derive(Clone, Debug, PartialEq)]
pub struct Publisher {
    /// The broker's host.
    pub host: String,
    /// The broker's port.
    pub port: u16,
    /// 0 or 1.
    pub qos: u8,
    /// How many connections share the devices; at least 1. A device keeps to one, and so to its order.
    pub connections: usize,
    /// How fast messages are sent, by their arrival times.
    pub speed: Speed,
}

/// Why publishing failed.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The broker was lost, or refused.
    #[error("cannot publish to {host}:{port}: {why}")]
    Lost {
        /// The broker's host.
        host: String,
        /// The broker's port.
        port: u16,
        /// What happened.
        why: String,
    },
    /// Only 0 and 1 are possible.
    #[error("cannot publish at qos {0}: expected 0 or 1")]
    Qos(u8),
}

/// Publishes messages in order, and waits until the broker has acknowledged them all (at QoS 0: until they are sent).
/// How many there were.
///
/// Dropping the future ends the connections without a goodbye.
pub async fn publish(
    messages: impl IntoIterator<Item = FleetMessage, IntoIter: Send>,
    to: &Publisher,
) -> Result<u64, PublishError> {
    let qos = match to.qos {
        0 => QoS::AtMostOnce,
        1 => QoS::AtLeastOnce,
        other => return Err(PublishError::Qos(other)),
    };
    let lost = |why| PublishError::Lost { host: to.host.clone(), port: to.port, why };
    let mut lines: Vec<_> = (0..to.connections.max(1)).map(|index| Line::open(to, index)).collect();
    let (began, mut start, mut count) = (Instant::now(), None, 0);
    for message in messages {
        let start: Timestamp = *start.get_or_insert(message.arrival);
        let due = to.speed.wait(message.arrival.since(start)).and_then(|wait| began.checked_add(wait));
        if let Some(due) = due.filter(|due| *due > Instant::now()) {
            tokio::time::sleep_until(due).await;
        }
        let index = message.device % lines.len();
        if let Err(why) = lines[index].send(message, qos).await {
            return Err(lost(lines.swap_remove(index).cause(why).await));
        }
        count += 1;
    }
    for line in lines {
        line.finish().await.map_err(lost)?;
    }
    Ok(count)
}

/// One connection: its task does nothing but poll.
struct Line {
    client: AsyncClient,
    sent: u64,
    /// How many messages are safe with the broker.
    done: watch::Receiver<u64>,
    task: JoinHandle<Result<(), String>>,
}

impl Drop for Line {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Line {
    fn open(to: &Publisher, index: usize) -> Self {
        let id = format!("streamgauge-fleet-{}-{index}", std::process::id());
        let mut options = MqttOptions::new(id, &to.host, to.port);
        options.set_outgoing_inflight_upper_limit(INFLIGHT_MAX).set_max_packet_size(Some(PACKET_BYTES_MAX));
        let (client, connection) = AsyncClient::new(options, QUEUE);
        let (progress, done) = watch::channel(0);
        let task = tokio::spawn(poll(connection, progress, to.qos));
        Self { client, sent: 0, done, task }
    }

    async fn send(&mut self, message: FleetMessage, qos: QoS) -> Result<(), String> {
        let topic = String::from_utf8_lossy(&message.topic).into_owned();
        self.client.publish(topic, qos, false, message.body).await.map_err(|why| why.to_string())?;
        self.sent += 1;
        Ok(())
    }

    /// Waits until everything is safe, and says goodbye.
    async fn finish(mut self) -> Result<(), String> {
        let sent = self.sent;
        if self.done.wait_for(|done| *done >= sent).await.is_err() {
            return Err(self.cause("the connection ended".to_owned()).await);
        }
        self.client.disconnect().await.map_err(|why| why.to_string())?;
        match (&mut self.task).await {
            Ok(outcome) => outcome,
            Err(why) => Err(why.to_string()),
        }
    }

    /// What ended the polling task; `otherwise` where it did not say.
    async fn cause(mut self, otherwise: String) -> String {
        match (&mut self.task).await {
            Ok(Err(why)) => why,
            _ => otherwise,
        }
    }
}

/// Polls until the goodbye is sent or the connection is lost, and counts what is safe with the broker.
async fn poll(mut connection: EventLoop, progress: watch::Sender<u64>, qos: u8) -> Result<(), String> {
    loop {
        match connection.poll().await {
            Ok(Event::Incoming(Packet::PubAck(ack))) => match ack.reason {
                PubAckReason::Success | PubAckReason::NoMatchingSubscribers => progress.send_modify(|done| *done += 1),
                reason => return Err(format!("the broker refused a message: {reason:?}")),
            },
            Ok(Event::Incoming(Packet::Disconnect(goodbye))) => {
                return Err(format!("the broker said goodbye: {:?}", goodbye.reason_code));
            }
            Ok(Event::Outgoing(Outgoing::Publish(_))) if qos == 0 => progress.send_modify(|done| *done += 1),
            Ok(Event::Outgoing(Outgoing::Disconnect)) => return Ok(()),
            Ok(_) => (),
            Err(why) => return Err(why.to_string()),
        }
    }
}
