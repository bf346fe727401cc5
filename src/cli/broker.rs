//! The demo's embedded MQTT broker: rumqttd on the loopback interface. Nothing else uses it.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use rumqttd::{Broker, Config, ConnectionSettings, RouterConfig, ServerSettings};

/// How many clients may be connected.
const CONNECTIONS_MAX: usize = 1_000;

/// How many packets the broker hands to a client before it hears of it again.
const PACKETS_IN_FLIGHT_MAX: usize = 2_000;

/// The largest message, in bytes.
const PAYLOAD_BYTES_MAX: usize = 1 << 20;

/// Bytes of a topic filter's log that are kept in one piece, and how many pieces: what a slow subscriber may be behind.
const SEGMENT_BYTES: usize = 16 << 20;
/// See [`SEGMENT_BYTES`].
const SEGMENTS_MAX: usize = 16;

/// How long a client may take to say hello.
const HELLO_MILLIS_MAX: u16 = 10_000;

/// How long the broker may take to answer after its start.
const START_MAX: Duration = Duration::from_secs(5);

/// How many ports are tried.
const ATTEMPTS_MAX: u32 = 4;

/// How long to wait before the broker is asked again.
const ASK_AGAIN: Duration = Duration::from_millis(10);

/// An MQTT 5 broker inside this process.
///
/// rumqttd cannot be stopped: its threads and its port live until the process ends.
#[derive(Debug)]
pub struct EmbeddedBroker {
    address: SocketAddr,
}

impl EmbeddedBroker {
    /// Starts it on a free port of 127.0.0.1, and waits until it answers. Between finding a port and taking it somebody
    /// else may take it, which rumqttd does not survive: then another port is tried.
    pub fn start() -> io::Result<Self> {
        let mut attempts = 1;
        loop {
            match Self::start_once() {
                Err(why) if attempts < ATTEMPTS_MAX => {
                    tracing::debug!(%why, attempts, "the embedded broker did not start")
                }
                started => return started,
            }
            attempts += 1;
        }
    }

    fn start_once() -> io::Result<Self> {
        let address = free_port()?.local_addr()?;
        // It builds its threads on its own one, and stays there for as long as they live.
        thread::Builder::new().name("broker".to_owned()).spawn(move || {
            if let Err(why) = Broker::new(config(address)).start() {
                tracing::debug!("the embedded broker failed: {why}");
            }
        })?;
        wait_for(address)?;
        Ok(Self { address })
    }

    /// Where it listens.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// `mqtt://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("mqtt://{}", self.address)
    }
}

fn free_port() -> io::Result<TcpListener> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
}

fn config(listen: SocketAddr) -> Config {
    let server = |name: &str| {
        let connections = ConnectionSettings {
            connection_timeout_ms: HELLO_MILLIS_MAX,
            max_payload_size: PAYLOAD_BYTES_MAX,
            max_inflight_count: PACKETS_IN_FLIGHT_MAX,
            auth: None,
            external_auth: None,
            dynamic_filters: true,
        };
        let name = name.to_owned();
        let settings =
            ServerSettings { name: name.clone(), listen, tls: None, next_connection_delay_ms: 1, connections };
        Some(HashMap::from([(name, settings)]))
    };
    let router = RouterConfig {
        max_connections: CONNECTIONS_MAX,
        max_outgoing_packet_count: PACKETS_IN_FLIGHT_MAX as u64,
        max_segment_size: SEGMENT_BYTES,
        max_segment_count: SEGMENTS_MAX,
        ..RouterConfig::default()
    };
    Config { router, v5: server("broker-v5"), ..Config::default() }
}

/// Waits until the broker lets somebody in.
fn wait_for(broker: SocketAddr) -> io::Result<()> {
    let until = Instant::now() + START_MAX;
    loop {
        match say_hello(broker) {
            Ok(()) => return Ok(()),
            Err(why) if Instant::now() >= until => return Err(why),
            Err(_) => thread::sleep(ASK_AGAIN),
        }
    }
}

/// One whole session: CONNECT, CONNACK, DISCONNECT.
fn say_hello(broker: SocketAddr) -> io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&broker, START_MAX)?;
    stream.set_read_timeout(Some(START_MAX))?;
    // Clean start, 60 s keep-alive, no properties, the client id "hello".
    let mut connect = vec![0x10, 18, 0, 4, b'M', b'Q', b'T', b'T', 5, 0b10, 0, 60, 0];
    connect.extend_from_slice(b"\0\x05hello");
    stream.write_all(&connect)?;
    let mut answer = [0; 4];
    stream.read_exact(&mut answer)?;
    if answer[0] != 0x20 || answer[3] != 0 {
        return Err(io::Error::other(format!("the embedded broker refused a client: {answer:?}")));
    }
    stream.write_all(&[0xe0, 0])
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use rumqttc::Outgoing;
    use rumqttc::v5::mqttbytes::QoS;
    use rumqttc::v5::mqttbytes::v5::Packet;
    use rumqttc::v5::{AsyncClient, Event, MqttOptions};

    use super::*;
    use crate::flow::time::Timestamp;
    use crate::ingest::fleet::{Fleet, FleetSettings, PublishError, Publisher, publish};
    use crate::ingest::recording::Speed;

    /// More than any queue of the publisher, so that it must wait for acknowledgements.
    const MESSAGES: u64 = 5_000;

    fn fleet() -> Fleet {
        let settings = FleetSettings { messages: Some(MESSAGES), ..FleetSettings::default() };
        Fleet::new(settings, Timestamp::from_micros(0))
    }

    fn publisher(port: u16, qos: u8) -> Publisher {
        Publisher { host: "127.0.0.1".to_owned(), port, qos, connections: 2, speed: Speed::Max }
    }

    #[tokio::test]
    async fn a_fleet_is_published_and_every_message_arrives() {
        let broker = EmbeddedBroker::start().unwrap();
        let options = MqttOptions::new("reader", "127.0.0.1", broker.address().port());
        let (client, mut connection) = AsyncClient::new(options, 10);
        client.subscribe("fleet/+/telemetry", QoS::AtLeastOnce).await.unwrap();
        while !matches!(connection.poll().await.unwrap(), Event::Incoming(Packet::SubAck(_))) {}
        let publishing = tokio::spawn(async move { publish(fleet(), &publisher(broker.address().port(), 1)).await });
        let mut bodies = HashSet::new();
        while bodies.len() < MESSAGES as usize {
            if let Event::Incoming(Packet::Publish(message)) = connection.poll().await.unwrap() {
                bodies.insert((message.topic, message.payload));
            }
        }
        assert_eq!(publishing.await.unwrap().unwrap(), MESSAGES);
        assert_eq!(bodies, fleet().map(|message| (message.topic, message.body)).collect());
        client.disconnect().await.unwrap();
        while connection.poll().await.unwrap() != Event::Outgoing(Outgoing::Disconnect) {}
    }

    #[tokio::test]
    async fn both_qualities_of_service_end() {
        let broker = EmbeddedBroker::start().unwrap();
        let port = broker.address().port();
        assert_eq!(publish(fleet(), &publisher(port, 0)).await.unwrap(), MESSAGES);
        assert_eq!(publish(fleet(), &publisher(port, 1)).await.unwrap(), MESSAGES);
        assert!(matches!(publish(fleet(), &publisher(port, 2)).await, Err(PublishError::Qos(2))));
    }

    #[tokio::test]
    async fn without_a_broker_publishing_says_so() {
        let port = free_port().unwrap().local_addr().unwrap().port();
        let why = publish(fleet(), &publisher(port, 1)).await.unwrap_err().to_string();
        assert!(why.starts_with(&format!("cannot publish to 127.0.0.1:{port}: ")), "{why}");
    }
}
