//! A scripted MQTT server on raw TCP: each test writes the packets itself.
#![allow(dead_code, missing_docs, unreachable_pub)]

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

pub struct FakeBroker {
    listener: TcpListener,
    pub port: u16,
}

impl FakeBroker {
    pub async fn bind() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        Self { listener, port }
    }

    /// Takes a connection, and its CONNECT.
    pub async fn accept(&self) -> Peer {
        self.accept_with_connect().await.0
    }

    /// As `accept`; gives the body of the CONNECT too.
    pub async fn accept_with_connect(&self) -> (Peer, Vec<u8>) {
        let (stream, _) = self.listener.accept().await.unwrap();
        let mut peer = Peer(stream);
        let (first, body) = peer.read().await.unwrap();
        assert_eq!(first >> 4, 1, "CONNECT");
        (peer, body)
    }
}

pub struct Peer(TcpStream);

impl Peer {
    /// The next packet: its first byte and its body; `None` at the end.
    pub async fn read(&mut self) -> Option<(u8, Vec<u8>)> {
        let first = self.0.read_u8().await.ok()?;
        let (mut len, mut shift) = (0_usize, 0);
        loop {
            let byte = self.0.read_u8().await.ok()?;
            len |= usize::from(byte & 127) << shift;
            shift += 7;
            if byte & 128 == 0 {
                break;
            }
        }
        let mut body = vec![0; len];
        self.0.read_exact(&mut body).await.ok()?;
        Some((first, body))
    }

    pub async fn send(&mut self, packet: &[u8]) {
        self.try_send(packet).await.unwrap();
    }

    pub async fn try_send(&mut self, packet: &[u8]) -> std::io::Result<()> {
        self.0.write_all(packet).await
    }

    /// Reads a SUBSCRIBE of one filter and answers it (MQTT 5).
    pub async fn subscribed(&mut self, code: u8) {
        let (first, body) = self.read().await.unwrap();
        assert_eq!(first, 0x82, "SUBSCRIBE");
        self.send(&packet(0x90, &[body[0], body[1], 0, code])).await;
    }

    /// Packet ids of the acknowledgements that come within a time; pings are answered.
    pub async fn acks(&mut self, within: Duration) -> Vec<u16> {
        let mut ids = Vec::new();
        let until = tokio::time::Instant::now() + within;
        while let Ok(Some((first, body))) = tokio::time::timeout_at(until, self.read()).await {
            match first {
                0x40 => ids.push(u16::from_be_bytes([body[0], body[1]])),
                0xc0 => self.send(&[0xd0, 0]).await,
                _ => {}
            }
        }
        ids
    }
}

pub fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    varint(&mut out, body.len());
    out.extend_from_slice(body);
    out
}

/// A number as MQTT writes lengths. It may have more bytes than the standard allows.
pub fn varint(out: &mut Vec<u8>, mut number: usize) {
    loop {
        let byte = (number & 127) as u8;
        number >>= 7;
        out.push(if number > 0 { byte | 128 } else { byte });
        if number == 0 {
            return;
        }
    }
}

pub fn connack(session_present: bool, code: u8, properties: &[u8]) -> Vec<u8> {
    let mut body = vec![u8::from(session_present), code, properties.len() as u8];
    body.extend(properties);
    packet(0x20, &body)
}

pub fn publish(topic: &[u8], id: u16, properties: &[u8], body: &[u8]) -> Vec<u8> {
    let mut out = (topic.len() as u16).to_be_bytes().to_vec();
    out.extend(topic);
    out.extend(id.to_be_bytes());
    out.push(properties.len() as u8);
    out.extend(properties);
    out.extend(body);
    packet(0x32, &out)
}
