//! Records of the journal as bytes.
//!
//! ```text
//! u32 length of the body | u32 CRC-32C of the length and the body | body
//! body: u64 number | i64 arrival (µs) | u8 kind | u8 flags | u16 packet id | u32 connection | rest
//! ```
//!
//! Little endian throughout. A length of nought is no record: segments are zeros where nothing was written. The rest of
//! payloads is in [`run`](super::run); they take as many numbers as they are, and all other records one.

use crate::flow::message::Epoch;
use crate::flow::payload::Delivery;
use crate::flow::time::Timestamp;
use crate::ingest::journal::Position;
use crate::ingest::journal::run::{Layout, Run};

/// Length and checksum.
pub(super) const HEAD: usize = 8;
/// The part of the body that every record has.
pub(super) const FIXED: usize = 24;
/// Where in it the kind is.
const KIND: usize = 16;

const RETAINED: u8 = 4;
const DUP: u8 = 8;
const LISTENING: u8 = 16;

/// What a record says.
#[derive(Debug)]
pub(super) enum Record<'a> {
    /// Payloads as they arrived.
    Payloads(Run<'a>),
    Mark(Mark),
}

/// What stands between payloads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mark {
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
    /// Everything before this position was made durable. It has the number of the record that follows.
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

impl Record<'_> {
    /// How many numbers it takes.
    pub(super) fn numbers(&self) -> u64 {
        match self {
            Self::Payloads(run) => u64::from(run.len()),
            Self::Mark(Mark::Synced(_)) => 0,
            Self::Mark(_) => 1,
        }
    }
}

impl Mark {
    /// Bytes that it takes.
    pub(super) const fn len(&self) -> usize {
        HEAD + FIXED
            + match self {
                Self::Tick { .. } | Self::Heard(_) => 0,
                Self::Barrier(_) | Self::Stop(_) | Self::Exhausted(_) => 8,
                Self::Synced(_) => 16,
            }
    }

    /// Appends it as a record.
    pub(super) fn encode(self, into: &mut Vec<u8>, number: u64) {
        let (kind, arrival) = match self {
            Self::Tick { now, .. } => (1, now),
            Self::Heard(now) => (2, now),
            Self::Barrier(_) => (3, Timestamp::START),
            Self::Stop(_) => (4, Timestamp::START),
            Self::Exhausted(_) => (5, Timestamp::START),
            Self::Synced(_) => (6, Timestamp::START),
        };
        let flags = if matches!(self, Self::Tick { listening: true, .. }) { LISTENING } else { 0 };
        let fixed = Fixed { number, arrival, kind, flags, packet_id: 0, connection: 0 };
        frame(into, fixed, |into| match self {
            Self::Barrier(epoch) | Self::Stop(epoch) | Self::Exhausted(epoch) => {
                into.extend_from_slice(&epoch.0.to_le_bytes());
            }
            Self::Synced(at) => {
                into.extend_from_slice(&at.segment.to_le_bytes());
                into.extend_from_slice(&at.offset.to_le_bytes());
            }
            Self::Tick { .. } | Self::Heard(_) => {}
        });
    }
}

/// What every record has.
#[derive(Clone, Copy)]
pub(super) struct Fixed {
    pub(super) number: u64,
    pub(super) arrival: Timestamp,
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) packet_id: u16,
    pub(super) connection: u32,
}

/// Appends a record: its head, and what `rest` appends.
pub(super) fn frame<T>(into: &mut Vec<u8>, fixed: Fixed, rest: impl FnOnce(&mut Vec<u8>) -> T) -> T {
    let start = into.len();
    // Put together aside, and appended at once: the buffer's room is looked at once for all of it.
    let mut head = [0; HEAD + FIXED];
    head[HEAD..HEAD + 8].copy_from_slice(&fixed.number.to_le_bytes());
    head[HEAD + 8..HEAD + KIND].copy_from_slice(&fixed.arrival.micros().to_le_bytes());
    head[HEAD + KIND] = fixed.kind;
    head[HEAD + KIND + 1] = fixed.flags;
    head[HEAD + KIND + 2..HEAD + KIND + 4].copy_from_slice(&fixed.packet_id.to_le_bytes());
    head[HEAD + KIND + 4..].copy_from_slice(&fixed.connection.to_le_bytes());
    into.extend_from_slice(&head);
    let given = rest(into);
    let len = u32::try_from(into.len() - start - HEAD).expect("no payload has 4 GiB").to_le_bytes();
    let checksum = checksum(len, &into[start + HEAD..]);
    into[start..start + 4].copy_from_slice(&len);
    into[start + 4..start + HEAD].copy_from_slice(&checksum.to_le_bytes());
    given
}

fn checksum(len: [u8; 4], body: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&len), body)
}

/// What stands at the beginning of `bytes`, which go to the end of the segment.
pub(super) fn decode(bytes: &[u8]) -> Decoded<'_> {
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
    match parse(body) {
        Some((number, record)) => Decoded::Record(number, record, HEAD + len),
        None => Decoded::Bad("its parts do not fit, or it is of a newer version"),
    }
}

/// Whether a record may begin here, by its lengths alone: so that who looks for one in other bytes need not compute the
/// checksum of all that follows at every place.
pub(super) fn may_begin(bytes: &[u8]) -> bool {
    let lengths = || {
        let body = u32::from_le_bytes(*bytes.first_chunk()?) as usize;
        let kind = *bytes.get(HEAD + KIND)?;
        let rest = bytes.get(HEAD + FIXED..HEAD + body)?;
        Some(match kind {
            1 | 2 => rest.is_empty(),
            3..=5 => rest.len() == 8,
            6 => rest.len() == 16,
            _ => Layout::of(kind)?.may_be(rest),
        })
    };
    lengths().unwrap_or(false)
}

fn parse(body: &[u8]) -> Option<(u64, Record<'_>)> {
    let mut rest = body;
    let number = u64::from_le_bytes(take(&mut rest)?);
    let arrival = Timestamp::from_micros(i64::from_le_bytes(take(&mut rest)?));
    let [kind, flags] = take(&mut rest)?;
    let packet_id = u16::from_le_bytes(take(&mut rest)?);
    let connection = u32::from_le_bytes(take(&mut rest)?);
    let mut epoch = || Some(Epoch(u64::from_le_bytes(take(&mut rest)?)));
    let mark = match kind {
        1 => Mark::Tick { now: arrival, listening: flags & LISTENING != 0 },
        2 => Mark::Heard(arrival),
        3 => Mark::Barrier(epoch()?),
        4 => Mark::Stop(epoch()?),
        5 => Mark::Exhausted(epoch()?),
        6 => {
            let segment = u64::from_le_bytes(take(&mut rest)?);
            Mark::Synced(Position { segment, offset: u64::from_le_bytes(take(&mut rest)?) })
        }
        _ => {
            let first = (arrival, delivery(flags, packet_id, connection));
            return Some((number, Record::Payloads(Run::parse(Layout::of(kind)?, first, rest)?)));
        }
    };
    Some((number, Record::Mark(mark)))
}

/// How a payload was delivered, but for its numbers.
pub(super) fn flags(delivery: Delivery) -> u8 {
    delivery.qos & 3 | if delivery.retained { RETAINED } else { 0 } | if delivery.dup { DUP } else { 0 }
}

/// The other way.
pub(super) fn delivery(flags: u8, packet_id: u16, connection: u32) -> Delivery {
    Delivery { qos: flags & 3, retained: flags & RETAINED != 0, dup: flags & DUP != 0, packet_id, connection }
}

pub(super) fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (head, tail) = rest.split_first_chunk::<N>()?;
    *rest = tail;
    Some(*head)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_come_back_and_zeros_are_nothing() {
        let at = Position { segment: 3, offset: 99 };
        for mark in [
            Mark::Tick { now: Timestamp::from_micros(5), listening: true },
            Mark::Tick { now: Timestamp::from_micros(5), listening: false },
            Mark::Heard(Timestamp::from_micros(5)),
            Mark::Barrier(Epoch(9)),
            Mark::Stop(Epoch(9)),
            Mark::Exhausted(Epoch(9)),
            Mark::Synced(at),
        ] {
            let mut bytes = Vec::new();
            mark.encode(&mut bytes, 4);
            assert_eq!(mark.len(), bytes.len());
            assert!(may_begin(&bytes));
            let decoded = decode(&bytes);
            let Decoded::Record(4, Record::Mark(read), len) = decoded else { panic!("{decoded:?}") };
            assert_eq!((read, len), (mark, bytes.len()));
        }
        for len in [0, 3, 8, 100] {
            assert!(matches!(decode(&vec![0; len]), Decoded::Nothing));
        }
        assert!(matches!(decode(&[1, 0, 0]), Decoded::Bad(_)));
    }
}
