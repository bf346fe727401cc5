//! Sessions in checkpoints: by ranges of key groups, a row a slot.

use super::super::core::{Clock, Core};
use super::super::ranges::part;
use super::super::slots::Slot;
use super::super::state::{COUNT_MAX, Layout, Row, Table};
use super::{Group, Session, Sessions, UNSEEN};
use crate::flow::state::{Part, Restored};
use crate::operator::OperatorError;
use crate::operator::aggregate::GroupId;

/// Clocks of groups that have their own: the greatest event time, and the end up to which sessions are closed.
const GROUPS: Layout<2> = Layout { name: "groups", numbers: ["seen", "closed"], partials: false };

/// Sessions, by group and time; one that has several slots has a row for each, in their order. `fired` is 0 or 1.
const SESSIONS: Layout<5> =
    Layout { name: "sessions", numbers: ["first", "last", "revision", "fired", "order"], partials: true };

impl Sessions {
    pub(super) fn parts(&mut self, core: &Core) -> Result<Vec<Part>, OperatorError> {
        let is_alive = |group: &Group| group.seen.is_some() || !group.sessions.is_empty();
        let alive = (0..).zip(&self.groups).filter(|(_, group)| is_alive(group)).map(|(id, _)| id);
        let mut changed: Vec<Written> = Vec::new();
        for ids in self.ranges.changed(core, alive) {
            let mut written = Written::default();
            ids.into_iter().for_each(|id| written.add(id, &self.groups[id as usize], self.closed(core, id)));
            changed.push(written);
        }
        let Self { slots, ranges, .. } = self;
        ranges.parts(|range| {
            let written = std::mem::take(&mut changed[range]);
            let partial = slots.partial_of(&core.setup.measures, &written.slots)?;
            let parts = [
                part(core, &GROUPS, range, Table::of(written.groups))?,
                part(core, &SESSIONS, range, Table { rows: written.sessions, partial })?,
            ];
            Ok(parts.into_iter().flatten().collect())
        })
    }

    pub(super) fn take_back(&mut self, core: &mut Core, parts: &[&Restored]) -> Result<(), OperatorError> {
        let mut sessions = Vec::new();
        for part in parts {
            if let Some(table) = self.ranges.restore(core, &GROUPS, part)? {
                self.restore_groups(core, &table)?;
            } else if let Some(table) = self.ranges.restore(core, &SESSIONS, part)? {
                sessions.push(table);
            } else {
                return Err(OperatorError::Stateless);
            }
        }
        self.reserve(core);
        sessions.iter().try_for_each(|table| self.restore_sessions(core, table))
    }

    fn restore_groups(&mut self, core: &mut Core, table: &Table<2>) -> Result<(), OperatorError> {
        self.reserve(core);
        for ([seen, closed], id) in &table.rows {
            let group = &mut self.groups[*id as usize];
            let own_clocks = core.setup.clock == Clock::Group;
            if !own_clocks || !self.representable.contains(seen) || group.seen.is_some() {
                return Err(OperatorError::Stateless);
            }
            (group.seen, group.closed) = (Some(*seen), Some(*closed));
            core.groups.hold(*id);
        }
        Ok(())
    }

    fn restore_sessions(&mut self, core: &mut Core, table: &Table<5>) -> Result<(), OperatorError> {
        let mut slots = Vec::with_capacity(table.rows.len());
        for (row, id) in &table.rows {
            let slot = self.slots.take(&core.setup.measures)?;
            slots.push(slot);
            let group = &mut self.groups[*id as usize];
            let known = group.sessions.last_mut();
            if let Some(known) = known.filter(|known| known.order == row[4] && known.first == row[0]) {
                if *row != [known.first, known.last, known.revision, i64::from(known.fired), known.order] {
                    return Err(OperatorError::Stateless);
                }
                known.slots.push(slot);
                continue;
            }
            let session = self.session(*row, slot).ok_or(OperatorError::Stateless)?;
            let group = &mut self.groups[*id as usize];
            let apart =
                group.sessions.last().is_none_or(|before| session.first.saturating_sub(before.last) >= self.gap);
            if !apart || (core.setup.clock == Clock::Group && group.seen.is_none()) {
                return Err(OperatorError::Stateless);
            }
            core.begun = core.begun.max(session.order + 1);
            group.sessions.push(session);
            core.groups.hold(*id);
            self.schedule(core, *id);
        }
        self.slots.merge(&slots, &table.partial).map_err(|_| OperatorError::Stateless)
    }

    /// A session of a row of state; none where no such session can be.
    fn session(&self, [first, last, revision, fired, order]: [i64; 5], slot: Slot) -> Option<Session> {
        let fits = first <= last
            && self.representable.contains(&first)
            && self.representable.contains(&last)
            && (UNSEEN..=COUNT_MAX).contains(&revision)
            && (0..=1).contains(&fired)
            && (0..=COUNT_MAX).contains(&order);
        fits.then(|| Session { first, last, slots: vec![slot], revision, fired: fired == 1, order })
    }
}

/// The rows of a range.
#[derive(Default)]
struct Written {
    groups: Vec<Row<2>>,
    sessions: Vec<Row<5>>,
    /// The slot of each of `sessions`.
    slots: Vec<Slot>,
}

impl Written {
    fn add(&mut self, id: GroupId, group: &Group, closed: i64) {
        self.groups.extend(group.seen.map(|seen| ([seen, closed], id)));
        for session in &group.sessions {
            let Session { first, last, revision, fired, order, .. } = *session;
            let row = ([first, last, revision, i64::from(fired), order], id);
            self.sessions.extend(session.slots.iter().map(|_| row));
            self.slots.extend(&session.slots);
        }
    }
}
