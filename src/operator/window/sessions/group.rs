//! The sessions of one group. Most groups have one at a time, and most rows make it longer.

use super::super::slots::Slot;

/// The revision of a session that was never emitted.
pub(super) const UNSEEN: i64 = -1;

/// Nothing is to be done for the group, at any watermark.
pub(super) const NEVER: i64 = i64::MAX;

pub(super) struct Session {
    pub(super) first: i64,
    pub(super) last: i64,
    pub(super) revision: i64,
    /// How early it began among all.
    pub(super) order: i64,
    /// Where the rows of sessions are that it was joined with.
    joined: Option<Box<Joined>>,
    /// Where its next row goes.
    slot: Slot,
    /// It was emitted as it is.
    pub(super) fired: bool,
    /// It has changed since the snapshot before.
    touched: bool,
}

/// Slots, in the order in which they are merged. In a box, because few sessions have them.
struct Joined(Vec<Slot>);

impl Session {
    /// One that was never emitted, and has one row.
    pub(super) fn begin(at: i64, slot: Slot, order: i64) -> Self {
        Self { touched: true, ..Self::restored([at, at, UNSEEN, 0, order], slot) }
    }

    /// One as it was written.
    pub(super) fn restored([first, last, revision, fired, order]: [i64; 5], slot: Slot) -> Self {
        Self { first, last, revision, order, joined: None, slot, fired: fired == 1, touched: false }
    }

    /// What is written of it.
    pub(super) fn row(&self) -> [i64; 5] {
        [self.first, self.last, self.revision, i64::from(self.fired), self.order]
    }

    /// Whether a row belongs to it.
    pub(super) fn is_near(&self, at: i64, gap: i64) -> bool {
        at.saturating_sub(self.last) < gap && self.first.saturating_sub(at) < gap
    }

    /// Takes a row; gives the slot for it.
    pub(super) fn take(&mut self, at: i64) -> Slot {
        self.first = self.first.min(at);
        self.last = self.last.max(at);
        self.fired = false;
        self.touched = true;
        self.slot
    }

    /// Takes the next session of its group into itself.
    pub(super) fn join(&mut self, next: Self) {
        next.slots().for_each(|slot| self.add(slot));
        self.last = next.last;
        self.revision = self.revision.max(next.revision);
        self.order = self.order.min(next.order);
    }

    /// One slot more, where its rows go from now on.
    pub(super) fn add(&mut self, slot: Slot) {
        let joined = self.joined.get_or_insert_with(|| Box::new(Joined(Vec::new())));
        joined.0.push(std::mem::replace(&mut self.slot, slot));
    }

    /// Where its rows are, in order.
    pub(super) fn slots(&self) -> impl Iterator<Item = Slot> {
        self.joined.iter().flat_map(|joined| joined.0.iter().copied()).chain([self.slot])
    }
}

/// A group, in one line of the processor's cache.
#[repr(align(64))]
pub(super) struct Group {
    newest: Option<Session>,
    /// Those before it, by time; each at least `gap` from the next.
    older: Option<Box<Older>>,
    /// The watermark at which something is to be done; or [`NEVER`].
    pub(super) deadline: i64,
}

const _: () = assert!(size_of::<Group>() == 64, "a row of the common sort touches one line");

/// In a box, because few groups have more than one session.
struct Older(Vec<Session>);

impl Default for Group {
    fn default() -> Self {
        Self { newest: None, older: None, deadline: NEVER }
    }
}

impl Group {
    /// The slot for a row in the newest session or right behind it, where nothing else comes of it: no other session is
    /// near, for they are a gap apart, and the session was not emitted yet, so that it is not due again.
    #[inline]
    pub(super) fn extend(&mut self, at: i64, gap: i64) -> Option<Slot> {
        let session = self.newest.as_mut()?;
        let is_common = session.first <= at && at.saturating_sub(session.last) < gap && session.revision == UNSEEN;
        is_common.then(|| session.take(at))
    }

    fn older(&self) -> &[Session] {
        self.older.as_ref().map_or(&[], |older| &older.0)
    }

    /// All sessions, by time.
    pub(super) fn sessions(&self) -> impl Iterator<Item = &Session> {
        self.older().iter().chain(&self.newest)
    }

    /// The same, to be changed.
    pub(super) fn sessions_mut(&mut self) -> impl Iterator<Item = &mut Session> {
        self.older.iter_mut().flat_map(|older| older.0.iter_mut()).chain(&mut self.newest)
    }

    pub(super) fn newest_mut(&mut self) -> Option<&mut Session> {
        self.newest.as_mut()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.newest.is_none()
    }

    /// Puts a session in its place.
    pub(super) fn insert(&mut self, session: Session) {
        match &mut self.newest {
            None => self.newest = Some(session),
            Some(newest) => {
                let earlier = if newest.first < session.first { std::mem::replace(newest, session) } else { session };
                let older = &mut self.older.get_or_insert_with(|| Box::new(Older(Vec::new()))).0;
                let place = older.partition_point(|session| session.first < earlier.first);
                older.insert(place, earlier);
            }
        }
    }

    /// Takes out the session of a number.
    pub(super) fn remove(&mut self, index: usize) -> Option<Session> {
        let Some(older) = &mut self.older else {
            return self.newest.take();
        };
        let removed = if index < older.0.len() {
            Some(older.0.remove(index))
        } else {
            let newest = older.0.pop();
            std::mem::replace(&mut self.newest, newest)
        };
        if older.0.is_empty() {
            self.older = None;
        }
        removed
    }

    /// Takes out the first session, if it ends at or before `closed`.
    pub(super) fn close(&mut self, closed: i64, gap: i64) -> Option<Session> {
        let is_closed = self.sessions().next().is_some_and(|session| session.last + gap <= closed);
        if is_closed { self.remove(0) } else { None }
    }

    /// Whether a session has changed since this was asked before.
    pub(super) fn take_touched(&mut self) -> bool {
        self.sessions_mut().fold(false, |touched, session| std::mem::take(&mut session.touched) | touched)
    }
}
