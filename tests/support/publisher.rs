//! A publisher of what the test says, at QoS 1: it knows what the broker has acknowledged.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// Messages that the broker has not acknowledged, at most.
const WINDOW: usize = 50;
/// How long the broker may take for an acknowledgement.
const BROKER_WAIT: Duration = Duration::from_secs(20);

/// A connection, MQTT 3.1.1 with a clean session.
pub struct Client {
    stream: TcpStream,
    packet_id: u16,
    in_flight: usize,
    packets: Vec<u8>,
}

impl Client {
    pub fn connect(port: u16, name: &str) -> Self {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(BROKER_WAIT)).unwrap();
        let len = u8::try_from(name.len()).unwrap();
        let mut packet = vec![0x10, 12 + len, 0, 4];
        packet.extend(b"MQTT\x04\x02\x00\x00\x00");
        packet.push(len);
        packet.extend(name.as_bytes());
        stream.write_all(&packet).unwrap();
        let mut answer = [0; 4];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(answer, [0x20, 2, 0, 0], "the broker takes the connection");
        Self { stream, packet_id: 0, in_flight: 0, packets: Vec::new() }
    }

    /// Sends a message; waits for the broker where too many are on their way.
    pub fn publish(&mut self, topic: &str, body: &str) {
        self.packet_id = self.packet_id % u16::MAX + 1;
        let mut len = 2 + topic.len() + 2 + body.len();
        self.packets.push(0x32);
        while len >= 128 {
            self.packets.push((len % 128) as u8 | 128);
            len /= 128;
        }
        self.packets.push(len as u8);
        self.packets.extend(u16::try_from(topic.len()).unwrap().to_be_bytes());
        self.packets.extend(topic.as_bytes());
        self.packets.extend(self.packet_id.to_be_bytes());
        self.packets.extend(body.as_bytes());
        self.in_flight += 1;
        if self.in_flight == WINDOW {
            self.flush();
        }
    }

    /// Waits until the broker has acknowledged everything.
    pub fn flush(&mut self) {
        self.stream.write_all(&self.packets).unwrap();
        self.packets.clear();
        let mut acknowledgements = vec![0; 4 * std::mem::take(&mut self.in_flight)];
        self.stream.read_exact(&mut acknowledgements).unwrap();
        assert!(
            acknowledgements.chunks(4).all(|packet| packet[..2] == [0x40, 2]),
            "acknowledgements, and nothing else"
        );
    }
}
