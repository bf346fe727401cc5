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
    topic: (usize, usize),
    body: (usize, usize),
    arrival: Timestamp,
    delivery: Delivery,
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
        let topic = match last.filter(|&(start, end)| &self.bytes[start..end] == topic) {
            Some(place) => place,
            None => self.keep(topic),
        };
        let body = self.keep(body);
        self.records.push(Record { topic, body, arrival, delivery });
    }

    /// Gives the last one its user properties.
    pub fn set_properties(&mut self, properties: Vec<(String, String)>) {
        if !properties.is_empty() {
            let index = self.records.len().checked_sub(1).expect("properties follow their payload");
            self.properties.push((index, properties));
        }
    }

    /// Adds all of another's.
    pub fn append(&mut self, other: &Self) {
        for payload in other.iter() {
            self.push(payload.topic, payload.body, payload.arrival, payload.delivery);
            self.set_properties(payload.properties.to_vec());
        }
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

    /// Changes arrival times, in order.
    pub fn raise_arrivals(&mut self, mut raise: impl FnMut(Timestamp) -> Timestamp) {
        self.records.iter_mut().for_each(|record| record.arrival = raise(record.arrival));
    }

    fn keep(&mut self, bytes: &[u8]) -> (usize, usize) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        (start, self.bytes.len())
    }

    /// The one at `index`.
    pub fn get(&self, index: usize) -> Payload<'_> {
        let record = &self.records[index];
        let properties = self.properties.binary_search_by_key(&index, |(at, _)| *at);
        Payload {
            topic: &self.bytes[record.topic.0..record.topic.1],
            body: &self.bytes[record.body.0..record.body.1],
            arrival: record.arrival,
            delivery: record.delivery,
            properties: properties.map_or(&[], |found| &self.properties[found].1),
        }
    }

    /// When the one at `index` arrived.
    pub fn arrival(&self, index: usize) -> Timestamp {
        self.records[index].arrival
    }

    /// All, in order.
    pub fn iter(&self) -> impl Iterator<Item = Payload<'_>> {
        (0..self.len()).map(|index| self.get(index))
    }
}
