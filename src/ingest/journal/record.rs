//! Records of the journal as bytes.
//!
//! ```text
//! u32 length of the body | u32 CRC-32C of the length and the body | body
//! body: u64 number | i64 arrival (µs) | u8 kind | u8 flags | u16 packet id | u32 connection | rest
//! rest of a payload: u32 length of the topic | topic | u32 length of the properties | properties | payload
//! ```
//!
//! Little endian throughout. A length of nought is no record: segments are zeros where nothing was written.

use crate::flow::message::Epoch;
use crate::flow::payload::{Delivery, Payload};
use crate::flow::time::Timestamp;
use crate::ingest::journal::Position;

/// Length and checksum.
pub(super) const HEAD: usize = 8;
/// The part of the body that every record has.
const FIXED: usize = 24;
/// Where in it the kind is.
const KIND: usize = 16;

const RETAINED: u8 = 4;
const DUP: u8 = 8;
const LISTENING: u8 = 16;

/// What a record says.
#[derive(Debug)]
pub(super) enum Record<'a> {
    /// A payload as it arrived.
    Payload(Payload<'a>),
    /// The arrival clock; whether the source could be heard then.
    Tick { now: Timestamp, listening: bool },
    /// The source can be heard from here on.
    Heard(Timestamp),
    /// The end of an epoch.
    Barrier(Epoch),
    /// The end of an epoch and of a run.
    Stop(Epoch),
    /// The end of the feed.
    Exhausted(Epoch),
    /// Everything before this position was made durable.
    Synced(Position),
}

/// What stands at a place of a segment.
#[derive(Debug)]
pub(super) enum Decoded<'a> {
    /// A whole record, its number, and how many bytes it takes.
    Record(u64, Record<'a>, usize),
    /// Zeros, or the end of the segment.
    Nothing,
    /// Something else.
    Bad(&'static str),
}

/// Bytes that a record takes.
pub(super) fn len(record: &Record<'_>) -> usize {
    HEAD + FIXED
        + match record {
            Record::Payload(payload) => {
                let text = |text: &String| 4 + text.len();
                let properties: usize = payload.properties.iter().map(|(name, value)| text(name) + text(value)).sum();
                4 + payload.topic.len() + 4 + properties + payload.body.len()
            }
            Record::Tick { .. } | Record::Heard(_) => 0,
            Record::Barrier(_) | Record::Stop(_) | Record::Exhausted(_) => 8,
            Record::Synced(_) => 16,
        }
}

/// Appends a record.
pub(super) fn encode(into: &mut Vec<u8>, number: u64, record: &Record<'_>) {
    let start = into.len();
    let (kind, arrival) = match record {
        Record::Payload(payload) => (0, payload.arrival),
        Record::Tick { now, .. } => (1, *now),
        Record::Heard(now) => (2, *now),
        Record::Barrier(_) => (3, Timestamp::START),
        Record::Stop(_) => (4, Timestamp::START),
        Record::Exhausted(_) => (5, Timestamp::START),
        Record::Synced(_) => (6, Timestamp::START),
    };
    let delivery = if let Record::Payload(payload) = record { payload.delivery } else { Delivery::default() };
    let listening = matches!(record, Record::Tick { listening: true, .. });
    let flags = delivery.qos & 3
        | if delivery.retained { RETAINED } else { 0 }
        | if delivery.dup { DUP } else { 0 }
        | if listening { LISTENING } else { 0 };
    let body_len = len_of(len(record) - HEAD);
    // Put together aside, and appended at once: the buffer's room is looked at once for all of it.
    let mut head = [0; HEAD + FIXED];
    head[..4].copy_from_slice(&body_len);
    head[HEAD..HEAD + 8].copy_from_slice(&number.to_le_bytes());
    head[HEAD + 8..HEAD + KIND].copy_from_slice(&arrival.micros().to_le_bytes());
    head[HEAD + KIND] = kind;
    head[HEAD + KIND + 1] = flags;
    head[HEAD + KIND + 2..HEAD + KIND + 4].copy_from_slice(&delivery.packet_id.to_le_bytes());
    head[HEAD + KIND + 4..].copy_from_slice(&delivery.connection.to_le_bytes());
    into.extend_from_slice(&head);
    match record {
        Record::Payload(payload) => encode_payload(into, payload),
        Record::Barrier(epoch) | Record::Stop(epoch) | Record::Exhausted(epoch) => {
            into.extend_from_slice(&epoch.0.to_le_bytes());
        }
        Record::Synced(at) => {
            into.extend_from_slice(&at.segment.to_le_bytes());
            into.extend_from_slice(&at.offset.to_le_bytes());
        }
        Record::Tick { .. } | Record::Heard(_) => {}
    }
    let checksum = checksum(body_len, &into[start + HEAD..]);
    into[start + 4..start + HEAD].copy_from_slice(&checksum.to_le_bytes());
}

fn encode_payload(into: &mut Vec<u8>, payload: &Payload<'_>) {
    into.extend_from_slice(&len_of(payload.topic.len()));
    into.extend_from_slice(payload.topic);
    let start = into.len();
    into.extend_from_slice(&[0; 4]);
    if !payload.properties.is_empty() {
        for text in payload.properties.iter().flat_map(|(name, value)| [name, value]) {
            into.extend_from_slice(&len_of(text.len()));
            into.extend_from_slice(text.as_bytes());
        }
        let len = len_of(into.len() - start - 4);
        into[start..start + 4].copy_from_slice(&len);
    }
    into.extend_from_slice(payload.body);
}

/// MQTT packets have at most 256 MiB.
fn len_of(len: usize) -> [u8; 4] {
    u32::try_from(len).expect("no payload has 4 GiB").to_le_bytes()
}

fn checksum(len: [u8; 4], body: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&len), body)
}

/// What stands at the beginning of `bytes`, which go to the end of the segment. Properties are put into `properties`.
pub(super) fn decode<'a>(bytes: &'a [u8], properties: &'a mut Vec<(String, String)>) -> Decoded<'a> {
    let Some((head, rest)) = bytes.split_first_chunk::<HEAD>() else {
        return if bytes.iter().all(|byte| *byte == 0) { Decoded::Nothing } else { Decoded::Bad("half a record") };
    };
    let [l0, l1, l2, l3, c0, c1, c2, c3] = *head;
    let len = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
    let expected = u32::from_le_bytes([c0, c1, c2, c3]);
    if len == 0 {
        return if expected == 0 { Decoded::Nothing } else { Decoded::Bad("a checksum without a record") };
    }
    let Some(body) = rest.get(..len).filter(|body| body.len() >= FIXED) else {
        return Decoded::Bad("the length leads out of the segment");
    };
    if checksum([l0, l1, l2, l3], body) != expected {
        return Decoded::Bad("the checksum is wrong");
    }
    match parse(body, properties) {
        Some((number, record)) => Decoded::Record(number, record, HEAD + len),
        None => Decoded::Bad("its parts do not fit, or it is of a newer version"),
    }
}

/// Whether a record may begin here, by its lengths alone: so that who looks for one in other bytes need not compute the
/// checksum of all that follows at every place.
pub(super) fn may_begin(bytes: &[u8]) -> bool {
    let len = |at: usize| Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?) as usize);
    let lengths = || {
        let (body, kind) = (len(0)?, *bytes.get(HEAD + KIND)?);
        let rest = body.checked_sub(FIXED).filter(|_| body <= bytes.len() - HEAD)?;
        Some(match kind {
            0 => {
                let topic = len(HEAD + FIXED)?;
                let properties = len((HEAD + FIXED + 4).checked_add(topic).filter(|_| topic <= rest)?)?;
                topic.checked_add(properties)?.checked_add(8)? <= rest
            }
            1 | 2 => rest == 0,
            3..=5 => rest == 8,
            6 => rest == 16,
            _ => false,
        })
    };
    lengths().unwrap_or(false)
}

fn parse<'a>(body: &'a [u8], properties: &'a mut Vec<(String, String)>) -> Option<(u64, Record<'a>)> {
    let mut rest = body;
    let number = u64::from_le_bytes(take(&mut rest)?);
    let arrival = Timestamp::from_micros(i64::from_le_bytes(take(&mut rest)?));
    let [kind, flags] = take(&mut rest)?;
    let packet_id = u16::from_le_bytes(take(&mut rest)?);
    let connection = u32::from_le_bytes(take(&mut rest)?);
    let record = match kind {
        0 => {
            let delivery = Delivery {
                qos: flags & 3,
                retained: flags & RETAINED != 0,
                dup: flags & DUP != 0,
                packet_id,
                connection,
            };
            let topic = take_slice(&mut rest)?;
            let mut pairs = take_slice(&mut rest)?;
            properties.clear();
            while !pairs.is_empty() {
                let [name, value] = [take_text(&mut pairs)?, take_text(&mut pairs)?];
                properties.push((name, value));
            }
            Record::Payload(Payload { topic, body: rest, arrival, delivery, properties })
        }
        1 => Record::Tick { now: arrival, listening: flags & LISTENING != 0 },
        2 => Record::Heard(arrival),
        3 => Record::Barrier(Epoch(u64::from_le_bytes(take(&mut rest)?))),
        4 => Record::Stop(Epoch(u64::from_le_bytes(take(&mut rest)?))),
        5 => Record::Exhausted(Epoch(u64::from_le_bytes(take(&mut rest)?))),
        6 => {
            let segment = u64::from_le_bytes(take(&mut rest)?);
            Record::Synced(Position { segment, offset: u64::from_le_bytes(take(&mut rest)?) })
        }
        _ => return None,
    };
    Some((number, record))
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (head, tail) = rest.split_first_chunk::<N>()?;
    *rest = tail;
    Some(*head)
}

fn take_slice<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let len = u32::from_le_bytes(take(rest)?) as usize;
    let (head, tail) = rest.split_at_checked(len)?;
    *rest = tail;
    Some(head)
}

fn take_text(rest: &mut &[u8]) -> Option<String> {
    String::from_utf8(take_slice(rest)?.to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Parts = (Vec<u8>, Vec<u8>, i64, Delivery, Vec<(String, String)>);

    fn any_payload() -> impl Strategy<Value = Parts> {
        let delivery = (0_u8..3, any::<bool>(), any::<bool>(), any::<u16>(), any::<u32>()).prop_map(
            |(qos, retained, dup, packet_id, connection)| Delivery { qos, retained, dup, packet_id, connection },
        );
        let bytes = || prop::collection::vec(any::<u8>(), 0..60);
        (bytes(), bytes(), any::<i64>(), delivery, prop::collection::vec((".{0,5}", ".{0,5}"), 0..3))
    }

    proptest! {
        #[test]
        fn a_payload_comes_back((topic, body, arrival, delivery, pairs) in any_payload(), number: u64) {
            let arrival = Timestamp::from_micros(arrival);
            let payload = Payload { topic: &topic, body: &body, arrival, delivery, properties: &pairs };
            let mut bytes = vec![7; 3];
            encode(&mut bytes, number, &Record::Payload(payload));
            let len = bytes.len() - 3;
            prop_assert_eq!(super::len(&Record::Payload(payload)), len);
            bytes.extend_from_slice(&[0; 40]);
            prop_assert!(may_begin(&bytes[3..]));
            let mut read = Vec::new();
            let Decoded::Record(n, Record::Payload(got), taken) = decode(&bytes[3..], &mut read) else {
                panic!("no payload")
            };
            prop_assert_eq!((n, taken), (number, len));
            prop_assert_eq!((got.topic, got.body, got.arrival, got.delivery), (&*topic, &*body, arrival, delivery));
            prop_assert_eq!(got.properties, &pairs[..]);
        }

        #[test]
        fn a_flipped_bit_is_noticed((topic, body, arrival, delivery, pairs) in any_payload(), at: prop::sample::Index, bit in 0..8) {
            let arrival = Timestamp::from_micros(arrival);
            let payload = Payload { topic: &topic, body: &body, arrival, delivery, properties: &pairs };
            let mut bytes = Vec::new();
            encode(&mut bytes, 1, &Record::Payload(payload));
            let at = at.index(bytes.len());
            bytes[at] ^= 1_u8 << bit;
            bytes.extend_from_slice(&[0; 200]);
            let mut read = Vec::new();
            prop_assert!(!matches!(decode(&bytes, &mut read), Decoded::Record(..)));
        }
    }

    #[test]
    fn marks_come_back_and_zeros_are_nothing() {
        let mut read = Vec::new();
        let at = Position { segment: 3, offset: 99 };
        for (record, text) in [
            (Record::Tick { now: Timestamp::from_micros(5), listening: true }, "listening: true"),
            (Record::Heard(Timestamp::from_micros(5)), "Heard"),
            (Record::Barrier(Epoch(9)), "Barrier(Epoch(9))"),
            (Record::Stop(Epoch(9)), "Stop(Epoch(9))"),
            (Record::Exhausted(Epoch(9)), "Exhausted(Epoch(9))"),
            (Record::Synced(at), "offset: 99"),
        ] {
            let mut bytes = Vec::new();
            encode(&mut bytes, 4, &record);
            assert_eq!(len(&record), bytes.len());
            assert!(may_begin(&bytes));
            let decoded = format!("{:?}", decode(&bytes, &mut read));
            assert!(decoded.starts_with("Record(4, ") && decoded.contains(text), "{decoded}");
        }
        for len in [0, 3, 8, 100] {
            assert!(matches!(decode(&vec![0; len], &mut read), Decoded::Nothing));
        }
        assert!(matches!(decode(&[1, 0, 0], &mut read), Decoded::Bad(_)));
    }
}
