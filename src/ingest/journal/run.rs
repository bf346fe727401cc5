//! Many payloads in one record: one head and one checksum for all of them, and of each only what is not as before.
//!
//! ```text
//! rest of the record: u32 how many | so many of: u8 tag | what the tag says | length of the body | body
//! tag 1: length of the topic | topic
//!     2: µs since the arrival of the one before
//!     4: u8 flags | connection
//!     8: u16 packet id
//!    16: length of the properties | as they go into it: length of the name | name | length of the value | value
//! ```
//!
//! Lengths, connections and times are LEB128. What stands in the record's head is that of the first payload, whose topic is
//! empty where its tag does not say otherwise.
//!
//! In segments of version 1, a payload is a record of its own: `u32 length of the topic | topic | u32 length of the
//! properties | properties | body`, where a property has lengths of 32 bits, too.

use crate::flow::payload::{Delivery, Payload, Payloads};
use crate::flow::time::Timestamp;
use crate::ingest::journal::record::{FIXED, Fixed, HEAD, delivery, flags, frame, take};

/// A record of more than one payload has at most so many bytes and payloads: what one damage may take.
const BYTES_MAX: usize = 16 << 10;
const PAYLOADS_MAX: usize = 1_024;
/// A payload takes at most so much beside its topic, properties and body.
const ENTRY: usize = 1 + 5 + 10 + 1 + 5 + 2 + 5 + 5;
/// What a property takes beside its texts.
const PROPERTY: usize = 5 + 5;
/// What a record takes beside its payloads.
const RECORD: usize = HEAD + FIXED + 4;

const TOPIC: u8 = 1;
const ARRIVAL: u8 = 2;
const DELIVERY: u8 = 4;
const PACKET_ID: u8 = 8;
const PROPERTIES: u8 = 16;
const TAGS: u8 = TOPIC | ARRIVAL | DELIVERY | PACKET_ID | PROPERTIES;

/// How payloads stand in a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    /// One, as in version 1.
    Single,
    Run,
}

impl Layout {
    const SINGLE: u8 = 0;
    const RUN: u8 = 7;

    /// That of a kind of record.
    pub(super) const fn of(kind: u8) -> Option<Self> {
        match kind {
            Self::SINGLE => Some(Self::Single),
            Self::RUN => Some(Self::Run),
            _ => None,
        }
    }

    /// Whether this may be the rest of such a record, by its lengths alone.
    pub(super) fn may_be(self, mut rest: &[u8]) -> bool {
        match self {
            Self::Single => take_slice(&mut rest).and_then(|_| take_slice(&mut rest)).is_some(),
            Self::Run => take_len(&mut rest).is_some_and(|count| (1..=rest.len() / 2).contains(&count)),
        }
    }
}

/// At most how many bytes a record of this one alone takes.
pub(super) fn len_max(payload: &Payload<'_>) -> usize {
    RECORD + entry_max(payload)
}

fn entry_max(payload: &Payload<'_>) -> usize {
    let property = |(name, value): &(String, String)| PROPERTY + name.len() + value.len();
    let properties: usize = payload.properties.iter().map(property).sum();
    ENTRY + payload.topic.len() + properties + payload.body.len()
}

/// Appends a record of payloads from `from` on, as many as go into it and into `room` bytes, and gives the index after the
/// last of them. The first must have room.
pub(super) fn encode(into: &mut Vec<u8>, number: u64, payloads: &Payloads, from: usize, room: usize) -> usize {
    let Payload { arrival, delivery, .. } = payloads.get(from);
    let (packet_id, connection) = (delivery.packet_id, delivery.connection);
    let fixed = Fixed { number, arrival, kind: Layout::RUN, flags: flags(delivery), packet_id, connection };
    let (start, room) = (into.len(), room.min(BYTES_MAX));
    frame(into, fixed, |into| {
        let count_at = into.len();
        into.extend_from_slice(&[0; 4]);
        let mut before = Payload { topic: &[], body: &[], arrival, delivery, properties: &[] };
        let mut index = from;
        while index < payloads.len().min(from + PAYLOADS_MAX) {
            let payload = payloads.get(index);
            if index > from && into.len() - start + entry_max(&payload) > room {
                break;
            }
            encode_entry(into, &before, &payload);
            before = payload;
            index += 1;
        }
        let count = u32::try_from(index - from).expect("they were counted");
        into[count_at..count_at + 4].copy_from_slice(&count.to_le_bytes());
        index
    })
}

fn encode_entry(into: &mut Vec<u8>, before: &Payload<'_>, payload: &Payload<'_>) {
    let when = |differs: bool, tag: u8| if differs { tag } else { 0 };
    let (was, is) = (before.delivery, payload.delivery);
    // Most have the very topic of the one before, and need not be compared.
    let topic = !std::ptr::eq(before.topic, payload.topic) && before.topic != payload.topic;
    let tag = when(topic, TOPIC)
        | when(before.arrival != payload.arrival, ARRIVAL)
        | when(flags(was) != flags(is) || was.connection != is.connection, DELIVERY)
        | when(was.packet_id != is.packet_id, PACKET_ID)
        | when(!payload.properties.is_empty(), PROPERTIES);
    into.push(tag);
    if tag & TOPIC != 0 {
        put_slice(into, payload.topic);
    }
    if tag & ARRIVAL != 0 {
        put(into, payload.arrival.micros().wrapping_sub(before.arrival.micros()).cast_unsigned());
    }
    if tag & DELIVERY != 0 {
        into.push(flags(is));
        put(into, is.connection.into());
    }
    if tag & PACKET_ID != 0 {
        into.extend_from_slice(&is.packet_id.to_le_bytes());
    }
    if tag & PROPERTIES != 0 {
        let mut pairs = Vec::new();
        for text in payload.properties.iter().flat_map(|(name, value)| [name, value]) {
            put_slice(&mut pairs, text.as_bytes());
        }
        put_slice(into, &pairs);
    }
    put_slice(into, payload.body);
}

/// The payloads of a record.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run<'a> {
    layout: Layout,
    count: u32,
    /// Arrival and delivery of the first.
    first: (Timestamp, Delivery),
    bytes: &'a [u8],
}

impl<'a> Run<'a> {
    /// `None` where the parts of any of them do not fit.
    pub(super) fn parse(layout: Layout, first: (Timestamp, Delivery), mut rest: &'a [u8]) -> Option<Self> {
        let count = match layout {
            Layout::Single => 1,
            Layout::Run => u32::from_le_bytes(take(&mut rest)?),
        };
        let run = Self { layout, count, first, bytes: rest };
        let mut entries = run.entries();
        for _ in 0..count {
            entries.next()?;
        }
        (count > 0 && entries.rest.is_empty()).then_some(run)
    }

    pub(super) const fn len(&self) -> u32 {
        self.count
    }

    /// Goes through them, in order.
    pub(super) fn each(&self, mut each: impl FnMut(&Payload<'_>)) {
        let mut entries = self.entries();
        while let Some(payload) = entries.next() {
            each(&payload);
        }
    }

    const fn entries(&self) -> Entries<'a> {
        let (arrival, delivery) = self.first;
        Entries { layout: self.layout, rest: self.bytes, topic: &[], arrival, delivery, properties: Vec::new() }
    }
}

#[derive(Debug)]
struct Entries<'a> {
    layout: Layout,
    rest: &'a [u8],
    topic: &'a [u8],
    arrival: Timestamp,
    delivery: Delivery,
    properties: Vec<(String, String)>,
}

impl Entries<'_> {
    /// The next one; `None` after the last, and where its parts do not fit.
    fn next(&mut self) -> Option<Payload<'_>> {
        if self.rest.is_empty() {
            return None;
        }
        self.properties.clear();
        let body = match self.layout {
            Layout::Single => self.single()?,
            Layout::Run => self.entry()?,
        };
        let Self { topic, arrival, delivery, ref properties, .. } = *self;
        Some(Payload { topic, body, arrival, delivery, properties })
    }
}

impl<'a> Entries<'a> {
    fn single(&mut self) -> Option<&'a [u8]> {
        self.topic = take_slice(&mut self.rest)?;
        let pairs = take_slice(&mut self.rest)?;
        self.pairs(pairs, take_slice)?;
        Some(std::mem::take(&mut self.rest))
    }

    fn entry(&mut self) -> Option<&'a [u8]> {
        let rest = &mut self.rest;
        let [tag] = take(rest)?;
        if tag & !TAGS != 0 {
            return None;
        }
        if tag & TOPIC != 0 {
            self.topic = take_short(rest)?;
        }
        if tag & ARRIVAL != 0 {
            let since = take_number(rest)?.cast_signed();
            self.arrival = Timestamp::from_micros(self.arrival.micros().wrapping_add(since));
        }
        if tag & DELIVERY != 0 {
            let [flags] = take(rest)?;
            self.delivery = delivery(flags, self.delivery.packet_id, u32::try_from(take_number(rest)?).ok()?);
        }
        if tag & PACKET_ID != 0 {
            self.delivery.packet_id = u16::from_le_bytes(take(rest)?);
        }
        if tag & PROPERTIES != 0 {
            let pairs = take_short(rest)?;
            self.pairs(pairs, take_short)?;
        }
        take_short(&mut self.rest)
    }

    fn pairs(&mut self, mut pairs: &'a [u8], slice: impl Fn(&mut &'a [u8]) -> Option<&'a [u8]>) -> Option<()> {
        let text = |pairs: &mut &'a [u8]| String::from_utf8(slice(pairs)?.to_vec()).ok();
        while !pairs.is_empty() {
            self.properties.push((text(&mut pairs)?, text(&mut pairs)?));
        }
        Some(())
    }
}

/// LEB128: seven bits a byte, the lowest first; the eighth says that more follow.
fn put(into: &mut Vec<u8>, mut number: u64) {
    while number > 0x7f {
        into.push(number as u8 | 0x80);
        number >>= 7;
    }
    into.push(number as u8);
}

fn put_slice(into: &mut Vec<u8>, bytes: &[u8]) {
    put(into, bytes.len() as u64);
    into.extend_from_slice(bytes);
}

fn take_number(rest: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let [byte] = take(rest)?;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

fn take_short<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let len = usize::try_from(take_number(rest)?).ok()?;
    let (head, tail) = rest.split_at_checked(len)?;
    *rest = tail;
    Some(head)
}

fn take_len(rest: &mut &[u8]) -> Option<usize> {
    Some(u32::from_le_bytes(take(rest)?) as usize)
}

fn take_slice<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let len = take_len(rest)?;
    let (head, tail) = rest.split_at_checked(len)?;
    *rest = tail;
    Some(head)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ingest::journal::record::{Decoded, Record, decode, may_begin};

    type Parts = (Vec<u8>, Vec<u8>, i64, Delivery, Vec<(String, String)>);

    fn parts(payload: &Payload<'_>) -> Parts {
        let (topic, body) = (payload.topic.to_vec(), payload.body.to_vec());
        (topic, body, payload.arrival.micros(), payload.delivery, payload.properties.to_vec())
    }

    /// Few values of each part, so that many are as before, and the greatest.
    fn any_payload() -> impl Strategy<Value = Parts> {
        let connection = prop_oneof![Just(0_u32), Just(1), Just(u32::MAX)];
        let delivery = (0_u8..3, any::<bool>(), any::<bool>(), 0_u16..3, connection).prop_map(
            |(qos, retained, dup, packet_id, connection)| Delivery { qos, retained, dup, packet_id, connection },
        );
        let bytes = |len| prop::collection::vec(0_u8..3, 0..len);
        let arrival = prop_oneof![Just(i64::MIN), Just(i64::MAX), 0_i64..3, any::<i64>()];
        let body = prop_oneof![9 => bytes(9), 1 => bytes(9_000)];
        (bytes(2), body, arrival, delivery, prop::collection::vec((".{0,5}", ".{0,5}"), 0..3))
    }

    fn payloads(of: &[Parts]) -> Payloads {
        let mut payloads = Payloads::default();
        for (topic, body, arrival, delivery, pairs) in of {
            payloads.push(topic, body, Timestamp::from_micros(*arrival), *delivery);
            payloads.set_properties(pairs.clone());
        }
        payloads
    }

    proptest! {
        #[test]
        fn payloads_come_back(of in prop::collection::vec(any_payload(), 1..40), number: u32, room in 9_200_usize..40_000) {
            let given = payloads(&of);
            let mut next = 0;
            while next < of.len() {
                let mut bytes = vec![7; 3];
                let until = encode(&mut bytes, number.into(), &given, next, room);
                let len = bytes.len() - 3;
                prop_assert!(len <= room && (len <= BYTES_MAX || until == next + 1));
                prop_assert!(until < of.len() || len <= given.iter().skip(next).map(|payload| len_max(&payload)).sum());
                bytes.extend_from_slice(&[0; 40]);
                prop_assert!(may_begin(&bytes[3..]));
                let Decoded::Record(n, Record::Payloads(run), taken) = decode(&bytes[3..]) else { panic!("no payloads") };
                prop_assert_eq!((n, taken, run.len() as usize), (number.into(), len, until - next));
                let mut read = Vec::new();
                run.each(|payload| read.push(parts(payload)));
                prop_assert_eq!(&read, &of[next..until]);
                next = until;
            }
        }

        #[test]
        fn a_flipped_bit_is_noticed(of in prop::collection::vec(any_payload(), 1..5), at: prop::sample::Index, bit in 0..8) {
            let mut bytes = Vec::new();
            encode(&mut bytes, 1, &payloads(&of), 0, usize::MAX);
            let at = at.index(bytes.len());
            bytes[at] ^= 1_u8 << bit;
            bytes.extend_from_slice(&[0; 200]);
            prop_assert!(!matches!(decode(&bytes), Decoded::Record(..)));
        }

        /// What has a good checksum and other parts, as a newer version may write it, is refused, and nothing worse.
        #[test]
        fn other_parts_are_refused(rest in prop::collection::vec(any::<u8>(), 0..60), kind in prop_oneof![Just(0_u8), Just(7), Just(8)]) {
            let mut bytes = Vec::new();
            let fixed = Fixed { number: 1, arrival: Timestamp::START, kind, flags: 0, packet_id: 0, connection: 0 };
            frame(&mut bytes, fixed, |into| into.extend_from_slice(&rest));
            if let Decoded::Record(_, Record::Payloads(run), _) = decode(&bytes) {
                let mut count = 0;
                run.each(|_| count += 1);
                prop_assert_eq!(count, run.len());
                prop_assert!(may_begin(&bytes));
            }
        }
    }

    /// By hand: two payloads of one topic take one head, one topic, and two bytes each beside their bodies.
    #[test]
    fn what_is_as_before_is_not_written() {
        let delivery = Delivery::default();
        let at = Timestamp::from_micros(5);
        let mut given = Payloads::default();
        given.push(b"t", b"ab", at, delivery);
        given.push(b"t", b"c", at, delivery);
        given.push(b"u", b"", Timestamp::from_micros(305), Delivery { qos: 1, packet_id: 258, ..delivery });
        let mut bytes = Vec::new();
        assert_eq!(encode(&mut bytes, 1, &given, 0, usize::MAX), 3);
        let entries = b"\x01\x01t\x02ab\x00\x01c\x0f\x01u\xac\x02\x01\x00\x02\x01\x00";
        assert_eq!(bytes[HEAD + FIXED..], [&[3, 0, 0, 0], &entries[..]].concat());
    }
}
