//! Bytes as they came, many at a time.

use crate::flow::time::Timestamp;

/// Payloads in order of arrival, in one growing buffer: no allocation for each in the steady state.
#[derive(Debug, Default, Clone)]
pub struct Payloads {
    bytes: Vec<u8>,
    records: Vec<Record>,
    /// User properties of the few payloads that have any, by ascending index.
    properties: Vec<(usize, Vec<(String, String)>)>,
}

#[derive(Debug, Clone, Copy)]
struct Record {
    topic: Place,
    body: Place,
    arrival: Timestamp,
    delivery: Delivery,
}

/// A stretch of the buffer: its start and end.
type Place = (u32, u32);

/// Room in 32 bits keeps records small: a batch is bounded far below.
fn place(start: usize, end: usize) -> Place {
    let narrow = |at: usize| u32::try_from(at).expect("a batch of payloads is smaller than 4 GiB");
    (narrow(start), narrow(end))
}

/// What the transport said of a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Delivery {
    /// Quality of service: 0 at most once, 1 at least once, 2 exactly once.
    pub qos: u8,
    /// The broker had kept it from before the subscription.
    pub retained: bool,
    /// The broker says that it may have sent it before.
    pub dup: bool,
    /// The transport's own number of it; 0 where there is none.
    pub packet_id: u16,
    /// Which connection of the source brought it, counted from the first one of the journal.
    pub connection: u32,
}

/// One payload, borrowed.
#[derive(Clone, Copy, Debug)]
pub struct Payload<'a> {
    /// The topic, as bytes: a broker may pass on what is not UTF-8.
    pub topic: &'a [u8],
    /// The body.
    pub body: &'a [u8],
    /// When it arrived; [`Timestamp::START`] where nobody knows (bare recordings).
    pub arrival: Timestamp,
    /// What the transport said of it.
    pub delivery: Delivery,
    /// MQTT 5 user properties.
    pub properties: &'a [(String, String)],
}

impl Payloads {
    /// How many.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Bytes of topics and bodies.
    pub fn len_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// About what they take in memory.
    pub fn memory_bytes(&self) -> usize {
        self.bytes.capacity() + self.records.capacity() * size_of::<Record>()
    }

    /// Forgets them all, and keeps the room.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.records.clear();
        self.properties.clear();
    }

    /// Makes room for so many more payloads, and so many bytes of topics and bodies.
    pub fn reserve(&mut self, payloads: usize, bytes: usize) {
        self.records.reserve(payloads);
        self.bytes.reserve(bytes);
    }

    /// Adds one. A topic equal to the one before is kept once.
    pub fn push(&mut self, topic: &[u8], body: &[u8], arrival: Timestamp, delivery: Delivery) {
        let last = self.records.last().map(|record| record.topic);
        let topic = match last.filter(|place| self.at(*place) == topic) {
            Some(place) => place,
            None => self.keep(topic),
        };
        let body = self.keep(body);
        self.records.push(Record { topic, body, arrival, delivery });
    }

    /// Takes a buffer with bodies in it as it is, and gives its own, emptied: for the first payloads of a batch, which are
    /// then not copied. They are of one topic, and nobody knows when they arrived. `bodies` are stretches of `bytes`.
    pub fn adopt(&mut self, topic: &[u8], bytes: &mut Vec<u8>, bodies: &[(usize, usize)]) {
        assert!(self.is_empty(), "a buffer is adopted whole");
        std::mem::swap(&mut self.bytes, bytes);
        bytes.clear();
        let topic = self.keep(topic);
        let (arrival, delivery) = (Timestamp::START, Delivery::default());
        let record = |(start, end): &(usize, usize)| Record { topic, body: place(*start, *end), arrival, delivery };
        self.records.extend(bodies.iter().map(record));
    }

    /// Gives the last one its user properties.
    pub fn set_properties(&mut self, properties: Vec<(String, String)>) {
        if !properties.is_empty() {
            let index = self.records.len().checked_sub(1).expect("properties follow their payload");
            self.properties.push((index, properties));
        }
    }

    /// Adds all of another's: its buffer as a whole, and where they stand in it.
    pub fn append(&mut self, other: &Self) {
        let (shift, before) = (self.bytes.len(), self.records.len());
        let moved = |(start, end): Place| place(start as usize + shift, end as usize + shift);
        self.bytes.extend_from_slice(&other.bytes);
        let records = other.records.iter();
        self.records.extend(records.map(|of| Record { topic: moved(of.topic), body: moved(of.body), ..*of }));
        self.properties.extend(other.properties.iter().map(|(index, pairs)| (before + index, pairs.clone())));
    }

    /// Keeps those before `index`, and gives the others.
    #[must_use]
    pub fn split_off(&mut self, index: usize) -> Self {
        let mut rest = Self::default();
        for payload in (index..self.len()).map(|index| self.get(index)) {
            rest.push(payload.topic, payload.body, payload.arrival, payload.delivery);
            rest.set_properties(payload.properties.to_vec());
        }
        self.records.truncate(index);
        self.properties.retain(|(at, _)| *at < index);
        rest
    }

    /// Forgets those of which `keep` says no; their bytes stay until [`Self::clear`].
    pub fn retain(&mut self, mut keep: impl FnMut(&Payload<'_>) -> bool) {
        let kept: Vec<bool> = self.iter().map(|payload| keep(&payload)).collect();
        if kept.iter().all(|kept| *kept) {
            return;
        }
        let mut before = kept.iter();
        self.records.retain(|_| before.next().is_none_or(|kept| *kept));
        self.properties.retain(|(index, _)| kept[*index]);
        // They are by ascending index: those between two of them are counted once.
        let (mut at, mut place) = (0, 0);
        for (index, _) in &mut self.properties {
            place += kept[at..*index].iter().filter(|kept| **kept).count();
            (at, *index) = (*index, place);
        }
    }

    /// Changes arrival times, in order.
    pub fn raise_arrivals(&mut self, mut raise: impl FnMut(Timestamp) -> Timestamp) {
        self.records.iter_mut().for_each(|record| record.arrival = raise(record.arrival));
    }

    fn keep(&mut self, bytes: &[u8]) -> Place {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        place(start, self.bytes.len())
    }

    fn at(&self, (start, end): Place) -> &[u8] {
        &self.bytes[start as usize..end as usize]
    }

    /// The whole buffer, with what stands between the bodies.
    pub fn buffer(&self) -> &[u8] {
        &self.bytes
    }

    /// Bytes of the bodies from `index` on.
    pub fn body_bytes(&self, index: usize) -> u64 {
        self.records[index..].iter().map(|record| u64::from(record.body.1 - record.body.0)).sum()
    }

    /// The one at `index`.
    pub fn get(&self, index: usize) -> Payload<'_> {
        let record = &self.records[index];
        let properties = match self.properties.as_slice() {
            [] => Err(0),
            some => some.binary_search_by_key(&index, |(at, _)| *at),
        };
        Payload {
            topic: self.at(record.topic),
            body: self.at(record.body),
            arrival: record.arrival,
            delivery: record.delivery,
            properties: properties.map_or(&[], |found| &self.properties[found].1),
        }
    }

    /// How many from `index` on, at most `most`, are of one topic, as far as can be told without comparing bytes.
    pub fn same_topic(&self, index: usize, most: usize) -> usize {
        let topic = self.records[index].topic;
        self.records[index..].iter().take(most).take_while(|record| record.topic == topic).count()
    }

    /// Where in [`Self::buffer`] the bodies from `index` on begin and end.
    pub fn bodies(&self, index: usize) -> impl Iterator<Item = (usize, usize)> {
        self.records[index..].iter().map(|record| (record.body.0 as usize, record.body.1 as usize))
    }

    /// When the one at `index` arrived.
    pub fn arrival(&self, index: usize) -> Timestamp {
        self.records[index].arrival
    }

    /// What the transport said of each, in order.
    pub fn deliveries(&self) -> impl Iterator<Item = Delivery> {
        self.records.iter().map(|record| record.delivery)
    }

    /// All, in order.
    pub fn iter(&self) -> impl Iterator<Item = Payload<'_>> {
        (0..self.len()).map(|index| self.get(index))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Parts = (Vec<u8>, Vec<u8>, i64, u16, Vec<(String, String)>);

    fn parts(payloads: &Payloads) -> Vec<Parts> {
        let part = |payload: Payload<'_>| {
            let (topic, body) = (payload.topic.to_vec(), payload.body.to_vec());
            (topic, body, payload.arrival.micros(), payload.delivery.packet_id, payload.properties.to_vec())
        };
        payloads.iter().map(part).collect()
    }

    fn payloads(of: &[(&str, &str, Option<&str>)]) -> Payloads {
        let mut payloads = Payloads::default();
        for (index, (topic, body, property)) in of.iter().enumerate() {
            let delivery = Delivery { qos: 1, packet_id: index as u16 + 7, ..Delivery::default() };
            payloads.push(topic.as_bytes(), body.as_bytes(), Timestamp::from_micros(index as i64), delivery);
            payloads.set_properties(property.map(|text| ("p".to_owned(), text.to_owned())).into_iter().collect());
        }
        payloads
    }

    #[test]
    fn those_that_are_kept_keep_all_of_theirs() {
        let of = [
            ("a", "1", Some("x")),
            ("b", "2", None),
            ("a", "3", Some("y")),
            ("c", "4", Some("z")),
            ("a", "5", Some("w")),
        ];
        for kept in 0..1_u32 << of.len() {
            let all = payloads(&of);
            let (mut some, mut at) = (all.clone(), 0..);
            some.retain(|_| kept >> at.next().unwrap() & 1 == 1);
            let expected = parts(&all).into_iter().enumerate().filter(|(at, _)| kept >> at & 1 == 1);
            assert_eq!(parts(&some), expected.map(|(_, part)| part).collect::<Vec<_>>(), "{kept:b}");
        }
    }

    #[test]
    fn bodies_and_runs_of_topics_are_found() {
        let payloads = payloads(&[("a", "one", None), ("a", "", Some("x")), ("b/c", "three", None), ("a", "4", None)]);
        assert_eq!([0, 1, 2, 3].map(|index| payloads.same_topic(index, 9)), [2, 1, 1, 1]);
        assert_eq!(payloads.same_topic(0, 1), 1);
        let bodies: Vec<_> = payloads.bodies(1).map(|(start, end)| &payloads.buffer()[start..end]).collect();
        assert_eq!(bodies, [&b""[..], b"three", b"4"]);
    }

    #[test]
    fn what_is_appended_stands_behind_unchanged() {
        let first = [("a", "one", None), ("a", "", Some("x")), ("b/c", "three", None)];
        let second = [("b/c", "four", Some("y")), ("", "five", None), ("", "six", Some("z"))];
        let mut adopted = Payloads::default();
        adopted.adopt(b"t", &mut b"[12]34".to_vec(), &[(1, 3), (4, 6)]);
        for others in [payloads(&second), payloads(&[]), adopted] {
            for before in [payloads(&first), payloads(&[]), others.clone()] {
                let expected = [parts(&before), parts(&others)].concat();
                let mut all = before;
                all.append(&others);
                assert_eq!(parts(&all), expected);
                let ids: Vec<u16> = all.deliveries().map(|delivery| delivery.packet_id).collect();
                assert_eq!(ids, expected.iter().map(|(.., id, _)| *id).collect::<Vec<_>>());
            }
        }
    }
}
