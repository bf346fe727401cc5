//! Tumbling and hopping windows of groups with clocks of their own.
//!
//! Every group has its panes, and closes its windows when its own watermark has reached their end: row by row, so that
//! it makes no difference how rows are cut into batches. A group that falls behind the floor that the stream's
//! watermark makes follows the floor, and is forgotten once it has no windows: its clock would say nothing any more.

use std::ops::RangeInclusive;

use arrow::array::RecordBatch;

use super::core::{Core, Engine, Late};
use super::measure::Inputs;
use super::pending::{Due, Pending};
use super::shape::Grid;
use super::slots::{Slot, Slots, partials};
use super::state::{Kind, Row, State};
use crate::flow::outbox::Emit;
use crate::flow::time::Timestamp;
use crate::operator::OperatorError;
use crate::operator::aggregate::GroupId;

struct Group {
    /// The greatest event time.
    seen: Option<i64>,
    /// Windows that end at or before this have been emitted.
    fired: i64,
    /// Starts of panes and their slots, by time; a pane may have several slots.
    panes: Vec<(i64, Slot)>,
    /// The newest revision of windows that have been emitted and are not closed, by end.
    revisions: Vec<(i64, i64)>,
    /// The watermark at which something is to be done.
    deadline: i64,
    /// How early it appeared among all groups.
    order: u64,
}

impl Default for Group {
    fn default() -> Self {
        Self { seen: None, fired: i64::MIN, panes: Vec::new(), revisions: Vec::new(), deadline: i64::MAX, order: 0 }
    }
}

impl Group {
    fn watermark(&self, core: &Core) -> i64 {
        self.own_watermark(core).max(core.group_floor)
    }

    fn own_watermark(&self, core: &Core) -> i64 {
        self.seen.map_or(Timestamp::START.micros(), |seen| core.setup.group_watermark(seen))
    }

    /// The slots of the window `[start, end)`.
    fn slots(&self, start: i64, end: i64) -> Vec<Slot> {
        let from = self.panes.partition_point(|(pane, _)| *pane < start);
        self.panes[from..].iter().take_while(|(pane, _)| *pane < end).map(|(_, slot)| *slot).collect()
    }

    fn next_end(&self, grid: &Grid) -> Option<i64> {
        let (start, _) = self.panes.iter().find(|(start, _)| grid.last_end(*start) > self.fired)?;
        Some(grid.first_end((*start).max(self.fired)))
    }
}

/// The open windows of all groups.
pub(super) struct Clocks {
    grid: Grid,
    representable: RangeInclusive<i64>,
    /// By id.
    groups: Vec<Group>,
    slots: Slots,
    pending: Pending,
    /// How many groups have appeared.
    appeared: u64,
    /// The floor that all groups have been brought to.
    floor: i64,
}

impl Clocks {
    pub(super) fn new(grid: Grid, representable: RangeInclusive<i64>) -> Self {
        Self {
            grid,
            representable,
            groups: Vec::new(),
            slots: Slots::default(),
            pending: Pending::default(),
            appeared: 0,
            floor: Timestamp::START.micros(),
        }
    }

    /// The slot for a row; none where it is late.
    fn place(&mut self, core: &Core, id: GroupId, at: i64) -> Result<Option<Slot>, OperatorError> {
        let group = &mut self.groups[id as usize];
        let watermark = group.watermark(core);
        let closed = core.setup.closed(watermark);
        // Of a group that is new, the windows that ended before the floor count as emitted.
        group.fired = group.fired.max(core.setup.fired(watermark));
        if !self.representable.contains(&at) || self.grid.last_end(at) <= closed {
            return Ok(None);
        }
        let (start, _) = self.grid.pane(at);
        let behind = self.grid.first_end(start) <= group.fired;
        let after = group.panes.partition_point(|(pane, _)| *pane <= start);
        let known = after.checked_sub(1).map(|index| group.panes[index]).filter(|(pane, _)| *pane == start);
        let slot = match known {
            // Windows that are due have taken this slot as it is.
            Some((_, slot)) if !behind || self.pending.is_empty() => slot,
            _ => {
                let slot = self.slots.take(&core.setup.measures)?;
                group.panes.insert(after, (start, slot));
                group.deadline = group.deadline.min(Self::deadline(core, &self.grid, group));
                slot
            }
        };
        if behind && core.setup.late == Late::Update {
            for end in self.grid.ends(start, closed, group.fired) {
                Self::fire(&self.grid, &mut self.pending, group, id, end, true);
            }
        }
        Ok(Some(slot))
    }

    fn fire(grid: &Grid, pending: &mut Pending, group: &mut Group, id: GroupId, end: i64, revise: bool) {
        let start = grid.start(end);
        let mut revision = 0;
        if revise {
            match group.revisions.iter_mut().find(|(known, _)| *known == end) {
                Some((_, newest)) => {
                    *newest += 1;
                    revision = *newest;
                }
                None => group.revisions.push((end, 0)),
            }
        }
        pending.push(Due { start, end, group: id, revision, order: group.order, slots: group.slots(start, end) });
    }

    fn deadline(core: &Core, grid: &Grid, group: &Group) -> i64 {
        let lateness = core.setup.allowed_lateness;
        let later = |end: i64| Timestamp::from_micros(end).plus(lateness).micros();
        let fires = group.next_end(grid).map(|end| if core.setup.late == Late::Update { end } else { later(end) });
        let closes = group.panes.first().map(|(start, _)| later(grid.last_end(*start)));
        fires.unwrap_or(i64::MAX).min(closes.unwrap_or(i64::MAX))
    }

    /// Makes due what is due for a group, and forgets what is closed.
    fn settle(&mut self, core: &Core, id: GroupId) {
        let group = &mut self.groups[id as usize];
        let watermark = group.watermark(core);
        let (until, closed) = (core.setup.fired(watermark), core.setup.closed(watermark));
        while let Some(end) = group.next_end(&self.grid).filter(|end| *end <= until) {
            Self::fire(&self.grid, &mut self.pending, group, id, end, core.setup.late == Late::Update);
            group.fired = end;
        }
        let kept = group.panes.iter().position(|(start, _)| self.grid.last_end(*start) > closed);
        let gone = kept.unwrap_or(group.panes.len());
        self.pending.freed.extend(group.panes.drain(..gone).map(|(_, slot)| slot));
        group.revisions.retain(|(end, _)| *end > closed);
        group.deadline = Self::deadline(core, &self.grid, group);
    }

    /// Moves the clock of a group.
    fn tick(&mut self, core: &mut Core, id: GroupId, at: i64) {
        let group = &mut self.groups[id as usize];
        if group.seen.is_none() {
            // A group's clock is kept until the floor has passed it: without it a late row would open windows again.
            core.groups.hold(id);
            group.order = self.appeared;
            self.appeared += 1;
        }
        group.seen = Some(group.seen.map_or(at, |seen| seen.max(at)));
        if group.watermark(core) >= group.deadline {
            self.settle(core, id);
        }
        let group = &mut self.groups[id as usize];
        group.fired = group.fired.max(core.setup.fired(group.watermark(core)));
    }

    /// Brings all groups to the floor: makes due what is due, and forgets clocks that say nothing any more.
    fn sweep(&mut self, core: &Core) {
        self.floor = core.group_floor;
        for id in 0..self.groups.len() {
            let group = &self.groups[id];
            if group.seen.is_none() || group.own_watermark(core) > core.group_floor {
                continue;
            }
            if core.group_floor >= group.deadline {
                self.settle(core, GroupId::try_from(id).expect("groups are counted in 32 bits"));
            }
            let group = &mut self.groups[id];
            group.fired = group.fired.max(core.setup.fired(core.group_floor));
            if group.panes.is_empty() {
                *group = Group::default();
                self.pending.released.push(GroupId::try_from(id).expect("groups are counted in 32 bits"));
            }
        }
        self.pending.sort();
    }

    fn reserve(&mut self, core: &Core) {
        if self.groups.len() < core.groups.ids_len() {
            self.groups.resize_with(core.groups.ids_len(), Group::default);
        }
    }
}

impl Engine for Clocks {
    fn process(&mut self, core: &mut Core, batch: RecordBatch, out: &mut dyn Emit) -> Result<(), OperatorError> {
        let admitted = core.admit(batch, out)?;
        self.reserve(core);
        let times = core.times(&admitted.batch);
        let mut rows = Vec::with_capacity(admitted.ids.len());
        let mut late = vec![false; admitted.ids.len()];
        for ((row, at), id) in (0u32..).zip(times.values()).zip(&admitted.ids) {
            match self.place(core, *id, *at)? {
                Some(slot) => {
                    rows.push((row, slot));
                    self.tick(core, *id, *at);
                }
                None => late[row as usize] = true,
            }
        }
        let inputs = Inputs::of(&core.setup.measures, &admitted.batch, core.setup.input.time)?;
        self.slots.update(&rows, &inputs)?;
        self.pending.flush(core, &mut self.slots, out)?;
        admitted.ids.iter().zip(&late).filter(|(_, late)| **late).for_each(|(id, _)| core.groups.forget_unheld(*id));
        core.set_aside(admitted.batch, |row| late[row], out)?;
        Ok(())
    }

    fn advance(&mut self, core: &mut Core, out: &mut dyn Emit) -> Result<(), OperatorError> {
        if core.group_floor > self.floor {
            self.sweep(core);
        }
        self.pending.flush(core, &mut self.slots, out)
    }

    fn snapshot(&mut self, core: &Core) -> Result<State, OperatorError> {
        let mut rows = Vec::new();
        let mut lists: Vec<Vec<Slot>> = Vec::new();
        for (id, group) in (0..).zip(&self.groups) {
            for pane in group.panes.chunk_by(|one, next| one.0 == next.0) {
                rows.push(Row { kind: Kind::Partial, start: pane[0].0, end: pane[0].0, revision: 0, group: id });
                lists.push(pane.iter().map(|(_, slot)| *slot).collect());
            }
        }
        for (id, group) in (0..).zip(&self.groups) {
            rows.extend(group.seen.map(|seen| Row {
                kind: Kind::Clock,
                start: seen,
                end: seen,
                revision: group.order.cast_signed(),
                group: id,
            }));
            let row = |(end, revision): &(i64, i64)| Row {
                kind: Kind::Revision,
                start: 0,
                end: *end,
                revision: *revision,
                group: id,
            };
            rows.extend(group.revisions.iter().map(row));
        }
        let partial = partials(&mut self.slots, &core.setup.measures, lists.iter().map(Vec::as_slice))?;
        Ok(State { rows, partial })
    }

    fn restore(&mut self, core: &mut Core, state: &State, ids: &[GroupId]) -> Result<(), OperatorError> {
        self.reserve(core);
        self.floor = core.group_floor;
        let mut slots = Vec::new();
        for (row, id) in state.rows.iter().zip(ids) {
            let group = &mut self.groups[*id as usize];
            match row.kind {
                Kind::Partial => {
                    let slot = self.slots.take(&core.setup.measures)?;
                    group.panes.push((row.start, slot));
                    slots.push(slot);
                }
                Kind::Clock => {
                    group.seen = Some(row.start);
                    group.fired = core.setup.fired(group.watermark(core));
                    group.order = row.revision.cast_unsigned();
                    self.appeared = self.appeared.max(group.order.saturating_add(1));
                    core.groups.hold(*id);
                }
                Kind::Revision => group.revisions.push((row.end, row.revision)),
            }
        }
        for group in &mut self.groups {
            group.deadline = Self::deadline(core, &self.grid, group);
        }
        Ok(self.slots.merge(&slots, &state.partial)?)
    }
}
