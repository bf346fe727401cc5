//! What a client did since somebody looked: many events at a time between the future that polls it and the poller.

use std::future::poll_fn;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Poll;

use crate::ingest::mqtt::client::Event;

/// So many events, or so many bytes of payloads, are looked at before the client is polled again.
const EVENTS_MAX: usize = 256;
const EVENTS_BYTES_MAX: usize = 1 << 20;

/// What happened and was not looked at yet.
#[derive(Debug, Default)]
pub struct Events(Mutex<(Vec<Event>, usize)>);

impl Events {
    fn lock(&self) -> MutexGuard<'_, (Vec<Event>, usize)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds one; says whether it is time to look at them.
    fn push(&self, event: Event) -> bool {
        let mut events = self.lock();
        if let Event::Publish(payload) = &event {
            events.1 += payload.topic.len() + payload.body.len();
        }
        events.0.push(event);
        events.0.len() >= EVENTS_MAX || events.1 >= EVENTS_BYTES_MAX
    }

    /// Whether nothing has happened.
    pub fn is_empty(&self) -> bool {
        self.lock().0.is_empty()
    }

    /// Takes them all; `into` is empty, and its room is used again.
    pub fn take(&self, into: &mut Vec<Event>) {
        let mut events = self.lock();
        std::mem::swap(&mut events.0, into);
        events.1 = 0;
    }
}

/// Pending, once; nobody is woken.
async fn pause() {
    let mut paused = false;
    poll_fn(|_| if std::mem::replace(&mut paused, true) { Poll::Ready(()) } else { Poll::Pending }).await;
}

/// Adds an event; says whether it was the last.
pub(super) async fn pumped(events: &Events, event: Event) -> bool {
    let last = matches!(event, Event::Disconnected(_));
    if events.push(event) && !last {
        pause().await;
    }
    last
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Waker};

    use bytes::Bytes;

    use super::*;
    use crate::flow::payload::Delivery;
    use crate::ingest::mqtt::client::{Arrived, Reason};

    fn payload(len: usize) -> Event {
        let (delivery, properties) = (Delivery::default(), Vec::new());
        Event::Publish(Arrived { topic: Bytes::new(), body: Bytes::from(vec![0; len]), delivery, properties })
    }

    /// Pumps events until it is pending or over; says how many there are then, and whether it is over.
    fn pump(given: impl IntoIterator<Item = Event>) -> (usize, bool) {
        let events = Events::default();
        let mut given = given.into_iter();
        let mut pump = pin!(async { while !pumped(&events, given.next().unwrap()).await {} });
        let over = pump.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready();
        let mut taken = Vec::new();
        events.take(&mut taken);
        assert!(events.is_empty());
        (taken.len(), over)
    }

    #[test]
    fn it_pauses_where_there_are_many_events_and_ends_with_the_connection() {
        let lost = || Event::Disconnected(Reason::Passing(String::new()));
        assert_eq!(pump((0..).map(|_| Event::Other)), (EVENTS_MAX, false));
        assert_eq!(pump((0..).map(|_| payload(EVENTS_BYTES_MAX / 4))), (4, false));
        assert_eq!(pump([payload(3), Event::Acknowledged, lost()]), (3, true));
        assert_eq!(pump((1..EVENTS_MAX).map(|_| Event::Other).chain([lost()])), (EVENTS_MAX, true), "at the limit");
    }
}
