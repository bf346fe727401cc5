//! Redeliveries: payloads that are safe, whose acknowledgement the broker did not get.
//!
//! After a connection broke the broker sends what was not acknowledged again: with DUP set, under the same packet id, the same
//! bytes. What was taken from an earlier connection under that packet id last, and has the same topic and body, is that
//! payload; it is acknowledged again, and not taken again. A packet id is only used anew once its acknowledgement has
//! arrived, so the newest payload of each packet id is all there is to remember. Only a device that says the same twice, in
//! the moment in which a connection breaks, could be mistaken.

use crate::ingest::fingerprint;
use crate::ingest::journal::Redelivery;
use crate::ingest::mqtt::client::Arrived;

/// The newest payload of each packet id.
pub(super) struct Recent(Vec<Option<(u64, u32)>>);

/// The connection of what an earlier run took.
const EARLIER: u32 = 0;

impl Recent {
    /// With what earlier runs took, the oldest first.
    pub(super) fn new(redeliveries: &[Redelivery]) -> Self {
        let mut recent = Self(vec![None; usize::from(u16::MAX) + 1]);
        for Redelivery { packet_id, fingerprint } in redeliveries {
            recent.0[usize::from(*packet_id)] = Some((*fingerprint, EARLIER));
        }
        recent
    }

    /// Whether the payload was taken before, from another connection. If not, it is remembered.
    pub(super) fn is_known(&mut self, payload: &Arrived, connection: u32) -> bool {
        let found = &mut self.0[usize::from(payload.delivery.packet_id)];
        let print = fingerprint(&payload.topic, &payload.body);
        if payload.delivery.dup && found.is_some_and(|(known, brought)| known == print && brought != connection) {
            *found = Some((print, connection));
            return true;
        }
        *found = Some((print, connection));
        false
    }

    /// The broker has forgotten the session: what it sends now is new to it.
    pub(super) fn clear(&mut self) {
        self.0.fill(None);
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::flow::payload::Delivery;

    fn arrived(packet_id: u16, dup: bool, body: &'static str) -> Arrived {
        let delivery = Delivery { qos: 1, dup, packet_id, ..Delivery::default() };
        Arrived {
            topic: Bytes::from_static(b"a/b"),
            body: Bytes::from_static(body.as_bytes()),
            delivery,
            properties: Vec::new(),
        }
    }

    #[test]
    fn only_a_redelivery_of_another_connection_is_known() {
        let earlier = Redelivery { packet_id: 9, fingerprint: fingerprint(b"a/b", b"old") };
        let mut recent = Recent::new(&[earlier]);
        assert!(recent.is_known(&arrived(9, true, "old"), 1), "from the journal");
        assert!(!recent.is_known(&arrived(1, false, "x"), 1));
        assert!(!recent.is_known(&arrived(1, false, "x"), 1), "without DUP it is a new one");
        assert!(!recent.is_known(&arrived(1, true, "x"), 1), "nothing comes again on one connection");
        assert!(!recent.is_known(&arrived(1, true, "y"), 2), "other bytes");
        assert!(recent.is_known(&arrived(1, true, "y"), 3));
        assert!(recent.is_known(&arrived(1, true, "y"), 4), "and again");
        recent.clear();
        assert!(!recent.is_known(&arrived(1, true, "y"), 5), "the broker forgot the session");
    }
}
