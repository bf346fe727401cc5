//! Sessions in checkpoints: by ranges of key groups, a row a slot.

use super::super::core::{Clock, Core};
use super::super::ranges::part;
use super::super::slots::Slot;
use super::super::state::{COUNT_MAX, Layout, Row, Table};
use super::group::{Group, Session, UNSEEN};
use super::{Own, Sessions};
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
        let Self { groups, ranges, .. } = self;
        for (id, group) in (0..).zip(groups) {
            if group.take_touched() {
                ranges.touch(core, id);
            }
        }
        let own = |id: GroupId| self.clocks.get(id as usize).and_then(|own| own.seen);
        let is_alive = |(id, group): &(GroupId, &Group)| own(*id).is_some() || !group.is_empty();
        let alive = (0..).zip(&self.groups).filter(is_alive).map(|(id, _)| id);
        let mut changed: Vec<Written> = Vec::new();
        for ids in self.ranges.changed(core, alive) {
            let mut written = Written::default();
            for id in ids {
                written.groups.extend(own(id).map(|seen| ([seen, self.closed(core, id)], id)));
                written.add(id, &self.groups[id as usize]);
            }
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
            let own = self.clocks.get_mut(*id as usize).ok_or(OperatorError::Stateless)?;
            if !self.representable.contains(seen) || own.seen.is_some() {
                return Err(OperatorError::Stateless);
            }
            *own = Own { seen: Some(*seen), closed: Some(*closed) };
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
            if let Some(known) = group.newest_mut().filter(|known| known.order == row[4] && known.first == row[0]) {
                if *row != known.row() {
                    return Err(OperatorError::Stateless);
                }
                known.add(slot);
                continue;
            }
            let session = self.session(*row, slot).ok_or(OperatorError::Stateless)?;
            let group = &mut self.groups[*id as usize];
            let is_apart = |before: &mut Session| session.first.saturating_sub(before.last) >= self.gap;
            let has_clock = || self.clocks.get(*id as usize).is_some_and(|own| own.seen.is_some());
            if !group.newest_mut().is_none_or(is_apart) || (core.setup.clock == Clock::Group && !has_clock()) {
                return Err(OperatorError::Stateless);
            }
            core.begun = core.begun.max(session.order + 1);
            group.insert(session);
            core.groups.hold(*id);
            self.schedule(core, *id);
        }
        self.slots.merge(&slots, &table.partial).map_err(|_| OperatorError::Stateless)
    }

    /// A session of a row of state; none where no such session can be.
    fn session(&self, row: [i64; 5], slot: Slot) -> Option<Session> {
        let [first, last, revision, fired, order] = row;
        let fits = first <= last
            && self.representable.contains(&first)
            && self.representable.contains(&last)
            && (UNSEEN..=COUNT_MAX).contains(&revision)
            && (0..=1).contains(&fired)
            && (0..=COUNT_MAX).contains(&order);
        fits.then(|| Session::restored(row, slot))
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
    fn add(&mut self, id: GroupId, group: &Group) {
        for session in group.sessions() {
            self.slots.extend(session.slots());
            self.sessions.resize(self.slots.len(), (session.row(), id));
        }
    }
}
