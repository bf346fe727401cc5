//! Redeliveries: payloads that are safe, whose acknowledgement the broker did not get.
//!
//! After a connection broke the broker sends what was not acknowledged again: with DUP set, under the same packet id, the same
//! bytes. What was taken from an earlier connection under that packet id last, and has the same topic and body, is that
//! payload; it is acknowledged again, and not taken again. A packet id may only be used anew once its acknowledgement has
//! arrived, so the newest payload of each packet id would be all there is to remember. But mosquitto 2.0.11, with a backlog
//! of more than it has packet ids, has two payloads under way with one of them: the newest few are remembered. Only a device
//! that says the same twice, in the moment in which a connection breaks, could be mistaken.

use crate::ingest::fingerprint;
use crate::ingest::journal::Redelivery;
use crate::ingest::mqtt::client::Arrived;

/// So many payloads are remembered of each packet id.
const NEWEST: usize = 4;

/// The newest payloads of each packet id, the newest last: fingerprint and connection.
pub(super) struct Recent(Vec<[Option<(u64, u32)>; NEWEST]>);

/// The connection of what an earlier run took.
const EARLIER: u32 = 0;

impl Recent {
    /// With what earlier runs took, the oldest first.
    pub(super) fn new(redeliveries: &[Redelivery]) -> Self {
        let mut recent = Self(vec![[None; NEWEST]; usize::from(u16::MAX) + 1]);
        for Redelivery { packet_id, fingerprint } in redeliveries {
            recent.remember(*packet_id, *fingerprint, EARLIER);
        }
        recent
    }

    /// Whether the payload was taken before, from another connection. If not, it is remembered.
    pub(super) fn is_known(&mut self, payload: &Arrived, connection: u32) -> bool {
        let print = fingerprint(&payload.topic, &payload.body);
        let known = self.0[usize::from(payload.delivery.packet_id)].iter_mut().flatten();
        let known = known.filter(|(known, brought)| *known == print && *brought != connection).last();
        match known.filter(|_| payload.delivery.dup) {
            Some((_, brought)) => {
                *brought = connection;
                true
            }
            None => {
                self.remember(payload.delivery.packet_id, print, connection);
                false
            }
        }
    }

    fn remember(&mut self, packet_id: u16, fingerprint: u64, connection: u32) {
        let newest = &mut self.0[usize::from(packet_id)];
        newest.rotate_left(1);
        newest[NEWEST - 1] = Some((fingerprint, connection));
    }

    /// The broker has forgotten the session: what it sends now is new to it.
    pub(super) fn clear(&mut self) {
        self.0.fill([None; NEWEST]);
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
        assert!(!recent.is_known(&arrived(2, false, "first"), 5));
        assert!(!recent.is_known(&arrived(2, false, "second"), 5), "the first is still under way");
        assert!(recent.is_known(&arrived(2, true, "first"), 6) && recent.is_known(&arrived(2, true, "second"), 6));
        recent.clear();
        assert!(!recent.is_known(&arrived(1, true, "y"), 5), "the broker forgot the session");
    }
}
