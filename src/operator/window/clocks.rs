//! Tumbling and hopping windows of groups with clocks of their own.
//!
//! Every group has its panes, and closes its windows when its own watermark has reached their end: row by row, so that
//! it makes no difference how rows are cut into batches. A group that falls behind the floor that the stream's
//! watermark makes follows the floor, and is forgotten once it has no windows: its clock would say nothing any more.

use std::ops::RangeInclusive;

use super::core::{Core, Engine, Late};
use super::measure::Inputs;
use super::pending::{Due, Pending};
use super::ranges::{Ranges, part};
use super::shape::Grid;
use super::slots::{Slot, Slots};
use super::state::{COUNT_MAX, Layout, Row, Table, is_pane};
use crate::flow::batch::Batch;
use crate::flow::outbox::Emit;
use crate::flow::state::{Part, Restored};
use crate::flow::time::Timestamp;
use crate::operator::OperatorError;
use crate::operator::aggregate::GroupId;

/// The clocks of groups: the greatest event time, the ends up to which windows are closed and have been emitted, and how
/// early the group appeared.
const GROUPS: Layout<4> = Layout { name: "groups", numbers: ["seen", "closed", "fired", "order"], partials: false };

/// The panes of groups, by group and time; those of one pane that has several slots in their order.
const PANES: Layout<1> = Layout { name: "panes", numbers: ["start"], partials: true };

/// The newest revisions of windows that have been emitted and are not closed.
const WINDOWS: Layout<2> = Layout { name: "windows", numbers: ["end", "revision"], partials: false };

struct Group {
    /// The greatest event time.
    seen: Option<i64>,
    /// Windows that end at or before this took no more rows before the last restart.
    closed: i64,
    /// Windows that end at or before this have been emitted.
    fired: i64,
    /// Starts of panes and their slots, by time; a pane may have several slots.
    panes: Vec<(i64, Slot)>,
    /// The newest revision of windows that have been emitted and are not closed, by end.
    revisions: Vec<(i64, i64)>,
    /// The watermark at which something is to be done.
    deadline: i64,
    /// How early it appeared among all groups.
    order: i64,
    /// It has taken rows since the snapshot before.
    touched: bool,
}

impl Default for Group {
    fn default() -> Self {
        Self {
            seen: None,
            closed: i64::MIN,
            fired: i64::MIN,
            panes: Vec::new(),
            revisions: Vec::new(),
            deadline: i64::MAX,
            order: 0,
            touched: false,
        }
    }
}

impl Group {
    fn watermark(&self, core: &Core) -> i64 {
        self.own_watermark(core).max(core.group_floor)
    }

    fn own_watermark(&self, core: &Core) -> i64 {
        self.seen.map_or(Timestamp::START.micros(), |seen| core.setup.group_watermark(seen))
    }

    /// Windows that end at or before this take no more rows.
    fn closed(&self, core: &Core) -> i64 {
        core.setup.closed(self.watermark(core)).max(core.closed).max(self.closed)
    }

    /// Windows that end at or before this are to be emitted.
    fn fires(&self, core: &Core) -> i64 {
        core.setup.fires(self.watermark(core), self.closed(core))
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

/// A pane, and the ends of the first and the last window that it is part of.
#[derive(Clone, Copy)]
struct Around {
    start: i64,
    end: i64,
    first_end: i64,
    last_end: i64,
}

/// The open windows of all groups.
pub(super) struct Clocks {
    grid: Grid,
    /// The pane of the row before: mostly it is that of the next one, too.
    around: Around,
    representable: RangeInclusive<i64>,
    /// By id.
    groups: Vec<Group>,
    slots: Slots,
    pending: Pending,
    ranges: Ranges,
}

impl Clocks {
    pub(super) fn new(grid: Grid, representable: RangeInclusive<i64>) -> Self {
        Self {
            grid,
            around: Around { start: 0, end: 0, first_end: 0, last_end: 0 },
            representable,
            groups: Vec::new(),
            slots: Slots::default(),
            pending: Pending::default(),
            ranges: Ranges::default(),
        }
    }

    /// The pane of a representable time.
    fn around(&mut self, at: i64) -> Around {
        if at < self.around.start || at >= self.around.end {
            let (start, end) = self.grid.pane(at);
            self.around = Around { start, end, first_end: self.grid.first_end(at), last_end: self.grid.last_end(at) };
        }
        self.around
    }

    /// The slot for a row; none where it is late.
    fn place(&mut self, core: &Core, id: GroupId, at: i64) -> Result<Option<Slot>, OperatorError> {
        let around = self.representable.contains(&at).then(|| self.around(at));
        let group = &mut self.groups[id as usize];
        let closed = group.closed(core);
        if group.seen.is_none() {
            // Of a group that is new, the windows that ended before the floor count as emitted.
            group.fired = group.fired.max(core.fired).max(group.fires(core));
        }
        let Some(Around { start, first_end, .. }) = around.filter(|around| around.last_end > closed) else {
            return Ok(None);
        };
        let behind = first_end <= group.fired;
        let newest = group.panes.last().is_none_or(|(pane, _)| *pane <= start);
        let after = if newest { group.panes.len() } else { group.panes.partition_point(|(pane, _)| *pane <= start) };
        let known = after.checked_sub(1).map(|index| group.panes[index]).filter(|(pane, _)| *pane == start);
        let slot = match known {
            Some((_, slot)) => slot,
            None => {
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

    /// Whether a row goes to a pane that may be part of a window that is due, and not folded yet.
    fn is_due(&mut self, id: GroupId, at: i64) -> bool {
        if self.pending.is_empty() || !self.representable.contains(&at) {
            return false;
        }
        let Around { start, first_end, .. } = self.around(at);
        let group = &self.groups[id as usize];
        first_end <= group.fired && group.panes.binary_search_by_key(&start, |(pane, _)| *pane).is_ok()
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
        // Under other limits, before a restart, more may have been closed than the group's watermark says now: at once.
        let closed = core.closed.max(group.closed);
        let later =
            |end: i64| if end <= closed { i64::MIN } else { Timestamp::from_micros(end).plus(lateness).micros() };
        let fires = group.next_end(grid).map(|end| if core.setup.late == Late::Update { end } else { later(end) });
        let closes = group.panes.first().map(|(start, _)| later(grid.last_end(*start)));
        fires.unwrap_or(i64::MAX).min(closes.unwrap_or(i64::MAX))
    }

    /// Makes due what is due for a group, and forgets what is closed.
    fn settle(&mut self, core: &Core, id: GroupId) {
        self.ranges.touch(core, id);
        let group = &mut self.groups[id as usize];
        let (until, closed) = (group.fires(core), group.closed(core));
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
        group.touched = true;
        if group.seen.is_none() {
            // A group's clock is kept until the floor has passed it: without it a late row would open windows again.
            core.groups.hold(id);
            group.order = core.begin();
        }
        group.seen = Some(group.seen.map_or(at, |seen| seen.max(at)));
        self.settle_if_due(core, id);
    }

    /// Settles a group whose deadline its watermark has reached.
    fn settle_if_due(&mut self, core: &Core, id: GroupId) {
        let group = &self.groups[id as usize];
        if group.watermark(core) >= group.deadline {
            self.settle(core, id);
        }
        let group = &mut self.groups[id as usize];
        group.fired = group.fired.max(group.fires(core));
    }

    /// Brings all groups to the floor: makes due what is due, and forgets clocks that say nothing any more.
    fn sweep(&mut self, core: &mut Core) {
        for (id, index) in (0..).zip(0..self.groups.len()) {
            if self.groups[index].seen.is_none() {
                continue;
            }
            self.settle_if_due(core, id);
            let group = &mut self.groups[index];
            if group.panes.is_empty() && group.own_watermark(core) <= core.group_floor {
                self.ranges.touch(core, id);
                *group = Group::default();
                self.pending.released.push(id);
            }
        }
        self.pending.sort();
        core.swept = core.group_floor;
        core.fired = core.fired.max(core.setup.fires(core.group_floor, core.closed));
    }

    fn reserve(&mut self, core: &Core) {
        core.groups.place(&mut self.groups);
    }
}

impl Engine for Clocks {
    fn process(&mut self, core: &mut Core, batch: Batch, out: &mut dyn Emit) -> Result<(), OperatorError> {
        let admitted = core.admit(batch, out)?;
        self.reserve(core);
        let times = core.times(&admitted.batch);
        let numbers = core.numbers(&admitted.batch);
        let mut rows = Vec::with_capacity(admitted.ids.len());
        let mut late: Vec<u32> = Vec::new();
        let inputs = Inputs::of(&core.setup.measures, &admitted.batch, core.setup.input.time)?;
        for ((row, at), id) in (0u32..).zip(times.values()).zip(&admitted.ids) {
            core.look_at(numbers.map(|numbers| numbers[row as usize]));
            if self.is_due(*id, *at) {
                // As if the batch ended here: floats are then added in the same order in every batch.
                self.slots.update(&rows, &inputs)?;
                rows.clear();
                self.pending.emit(core, &mut self.slots, out)?;
            }
            match self.place(core, *id, *at)? {
                Some(slot) => {
                    rows.push((row, slot));
                    self.tick(core, *id, *at);
                }
                None => late.push(row),
            }
            self.pending.by_row(core);
        }
        self.slots.update(&rows, &inputs)?;
        self.pending.flush(core, &mut self.slots, out)?;
        core.set_late_aside(admitted, &late, out)
    }

    fn advance(&mut self, core: &mut Core, out: &mut dyn Emit) -> Result<(), OperatorError> {
        if core.group_floor > core.swept {
            self.sweep(core);
        }
        self.pending.flush(core, &mut self.slots, out)
    }

    fn touch(&mut self) {
        self.ranges.touch_all();
    }

    fn is_late(&self, _: &Core, _: i64) -> bool {
        // Whether a row is late depends on its group.
        false
    }

    fn snapshot(&mut self, core: &Core) -> Result<Vec<Part>, OperatorError> {
        let Self { groups, slots, ranges, .. } = self;
        for (id, group) in (0..).zip(&mut *groups) {
            if std::mem::take(&mut group.touched) {
                ranges.touch(core, id);
            }
        }
        let alive = (0..).zip(&*groups).filter(|(_, group)| group.seen.is_some()).map(|(id, _)| id);
        let changed = ranges.changed(core, alive);
        ranges.parts(|range| {
            let mut written = Written::default();
            changed[range].iter().for_each(|id| written.add(core, *id, &groups[*id as usize]));
            let partial = slots.partial_of(&core.setup.measures, &written.slots)?;
            let parts = [
                part(core, &GROUPS, range, Table::of(written.groups))?,
                part(core, &PANES, range, Table { rows: written.panes, partial })?,
                part(core, &WINDOWS, range, Table::of(written.windows))?,
            ];
            Ok(parts.into_iter().flatten().collect())
        })
    }

    fn restore(&mut self, core: &mut Core, parts: &[&Restored]) -> Result<(), OperatorError> {
        let (mut panes, mut windows) = (Vec::new(), Vec::new());
        for part in parts {
            if let Some(table) = self.ranges.restore(core, &GROUPS, part)? {
                self.restore_groups(core, &table)?;
            } else if let Some(table) = self.ranges.restore(core, &PANES, part)? {
                panes.push(table);
            } else if let Some(table) = self.ranges.restore(core, &WINDOWS, part)? {
                windows.push(table);
            } else {
                return Err(OperatorError::Stateless);
            }
        }
        self.reserve(core);
        panes.iter().try_for_each(|table| self.restore_panes(core, table))?;
        windows.iter().try_for_each(|table| self.restore_windows(core, table))?;
        for group in &mut self.groups {
            group.deadline = Self::deadline(core, &self.grid, group);
        }
        Ok(())
    }
}

/// The rows of a range.
#[derive(Default)]
struct Written {
    groups: Vec<Row<4>>,
    panes: Vec<Row<1>>,
    /// The slot of each of `panes`.
    slots: Vec<Slot>,
    windows: Vec<Row<2>>,
}

impl Written {
    fn add(&mut self, core: &Core, id: GroupId, group: &Group) {
        let Some(seen) = group.seen else { return };
        self.groups.push(([seen, group.closed(core), group.fired, group.order], id));
        self.panes.extend(group.panes.iter().map(|(start, _)| ([*start], id)));
        self.slots.extend(group.panes.iter().map(|(_, slot)| *slot));
        self.windows.extend(group.revisions.iter().map(|(end, revision)| ([*end, *revision], id)));
    }
}

impl Clocks {
    fn restore_groups(&mut self, core: &mut Core, table: &Table<4>) -> Result<(), OperatorError> {
        self.reserve(core);
        for ([seen, closed, fired, order], id) in &table.rows {
            let group = &mut self.groups[*id as usize];
            let fits = self.representable.contains(seen) && (0..=COUNT_MAX).contains(order) && group.seen.is_none();
            if !fits {
                return Err(OperatorError::Stateless);
            }
            // The floor may have passed the group since it was written, without a change but in these.
            (group.seen, group.closed, group.fired) = (Some(*seen), *closed, core.fired.max(*fired));
            group.order = *order;
            core.begun = core.begun.max(order + 1);
            core.groups.hold(*id);
        }
        Ok(())
    }

    fn restore_panes(&mut self, core: &Core, table: &Table<1>) -> Result<(), OperatorError> {
        let mut slots = Vec::with_capacity(table.rows.len());
        for ([start], id) in &table.rows {
            let group = &mut self.groups[*id as usize];
            let ascends = group.panes.last().is_none_or(|(before, _)| before <= start);
            if !ascends || group.seen.is_none() || !is_pane(&core.setup.shape, *start) {
                return Err(OperatorError::Stateless);
            }
            let slot = self.slots.take(&core.setup.measures)?;
            group.panes.push((*start, slot));
            slots.push(slot);
        }
        self.slots.merge(&slots, &table.partial).map_err(|_| OperatorError::Stateless)
    }

    fn restore_windows(&mut self, core: &Core, table: &Table<2>) -> Result<(), OperatorError> {
        for ([end, revision], id) in &table.rows {
            let group = &mut self.groups[*id as usize];
            let known = group.revisions.iter().any(|(known, _)| known == end);
            let fits = core.setup.late == Late::Update && group.seen.is_some() && (0..=COUNT_MAX).contains(revision);
            if known || !fits {
                return Err(OperatorError::Stateless);
            }
            group.revisions.push((*end, *revision));
        }
        Ok(())
    }
}
