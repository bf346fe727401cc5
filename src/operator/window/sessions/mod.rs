//! Session windows, on the stream's clock or on those of the groups.
//!
//! A session is `[first, last + gap)` of a group's rows: a row less than `gap` from a session belongs to it, and joins
//! it with the session on its other side. Joined sessions keep their slots, which are merged when they are emitted.
//!
//! With `late = "update"` a row that reaches a session which was emitted gives it its next revision, with its new
//! bounds; of sessions that are joined the newest revision counts on.
//!
//! `group` has the sessions of a group, and `state` what goes into checkpoints.

mod group;
mod state;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ops::RangeInclusive;

use self::group::{Group, NEVER, Session, UNSEEN};
use super::core::{Clock, Core, Engine, Late};
use super::measure::Inputs;
use super::pending::{Due, Pending};
use super::ranges::Ranges;
use super::shape::Shape;
use super::slots::{Slot, Slots};
use crate::flow::batch::Batch;
use crate::flow::outbox::Emit;
use crate::flow::state::{Part, Restored};
use crate::flow::time::Timestamp;
use crate::operator::OperatorError;
use crate::operator::aggregate::GroupId;

/// The clock of a group that has one of its own.
#[derive(Clone, Default)]
struct Own {
    /// The greatest event time.
    seen: Option<i64>,
    /// Sessions that end at or before this took no more rows before the last restart; none where there was none.
    closed: Option<i64>,
}

/// The open sessions of all groups.
pub(super) struct Sessions {
    gap: i64,
    representable: RangeInclusive<i64>,
    /// By id.
    groups: Vec<Group>,
    /// By id, where groups have clocks of their own.
    clocks: Vec<Own>,
    slots: Slots,
    pending: Pending,
    /// Deadlines on the stream's clock; those that are not their group's any more are passed over.
    deadlines: BinaryHeap<Reverse<(i64, GroupId)>>,
    ranges: Ranges,
}

impl Sessions {
    pub(super) fn new(gap: i64) -> Self {
        Self {
            gap,
            representable: Shape::Session { gap }.representable(),
            groups: Vec::new(),
            clocks: Vec::new(),
            slots: Slots::default(),
            pending: Pending::default(),
            deadlines: BinaryHeap::new(),
            ranges: Ranges::default(),
        }
    }

    fn watermark(&self, core: &Core, id: GroupId) -> i64 {
        match core.setup.clock {
            Clock::Stream => core.watermark,
            Clock::Group => {
                let seen = self.clocks[id as usize].seen;
                let own = seen.map_or(Timestamp::START.micros(), |seen| core.setup.group_watermark(seen));
                own.max(core.group_floor)
            }
        }
    }

    /// Sessions of a group that end at or before this take no more rows.
    fn closed(&self, core: &Core, id: GroupId) -> i64 {
        let closed = core.setup.closed(self.watermark(core, id)).max(core.closed);
        let before = self.clocks.get(id as usize).and_then(|own| own.closed);
        before.map_or(closed, |before| before.max(closed))
    }

    /// Whether a row goes to a session that may be due, and not folded yet.
    fn is_due(&self, id: GroupId, at: i64) -> bool {
        let due = |session: &Session| session.revision != UNSEEN && session.is_near(at, self.gap);
        !self.pending.is_empty() && self.groups[id as usize].sessions().any(due)
    }

    /// The slot for a row that does no more than make a session longer; of others there is more to be said.
    fn extend(&mut self, core: &mut Core, id: GroupId, at: i64) -> Option<Slot> {
        if !self.representable.contains(&at) {
            return None;
        }
        let slot = self.groups[id as usize].extend(at, self.gap)?;
        if core.setup.clock == Clock::Group {
            self.tick(core, id, at);
        }
        // On the stream's clock the group's deadline has not come, else the session would have been emitted.
        Some(slot)
    }

    /// The slot for any row, in the session that it belongs to or begins; none where it is late.
    fn place(&mut self, core: &mut Core, id: GroupId, at: i64) -> Result<Option<Slot>, OperatorError> {
        if !self.representable.contains(&at) {
            return Ok(None);
        }
        let (gap, closed) = (self.gap, self.closed(core, id));
        let group = &mut self.groups[id as usize];
        let near = |session: &Session| session.is_near(at, gap);
        let Some(from) = group.sessions().position(near) else {
            if at + gap <= closed {
                return Ok(None);
            }
            let slot = self.slots.take(&core.setup.measures)?;
            group.insert(Session::begin(at, slot, core.begin()));
            core.groups.hold(id);
            self.schedule(core, id);
            return Ok(Some(slot));
        };
        // Sessions are a gap apart, so a row is near two at most.
        let next = if group.sessions().nth(from + 1).is_some_and(near) { group.remove(from + 1) } else { None };
        let session = group.sessions_mut().nth(from).expect("the row is near it");
        if let Some(next) = next {
            session.join(next);
            self.pending.released.push(id);
        }
        let (slot, seen) = (session.take(at), session.revision != UNSEEN);
        if seen {
            self.schedule(core, id);
        }
        Ok(Some(slot))
    }

    /// Notes when something is to be done for a group, if that is earlier than what is noted.
    fn schedule(&mut self, core: &Core, id: GroupId) {
        let lateness = core.setup.allowed_lateness;
        let group = &mut self.groups[id as usize];
        let deadline = |session: &Session| {
            let end = Timestamp::from_micros(session.last + self.gap);
            if core.setup.late == Late::Update && !session.fired { end } else { end.plus(lateness) }.micros()
        };
        let Some(next) = group.sessions().map(deadline).min() else { return };
        // At the end of time it is too late to say never.
        let next = next.min(NEVER - 1);
        if next < group.deadline {
            group.deadline = next;
            if core.setup.clock == Clock::Stream {
                self.deadlines.push(Reverse((next, id)));
            }
        }
    }

    /// Makes due what is due for a group, and closes what is to be closed.
    fn settle(&mut self, core: &Core, id: GroupId, watermark: i64) {
        let closed = self.closed(core, id);
        let fire = core.setup.fires(watermark, closed);
        let (gap, pending, group) = (self.gap, &mut self.pending, &mut self.groups[id as usize]);
        let mut changed = false;
        for session in group.sessions_mut().filter(|session| !session.fired && session.last + gap <= fire) {
            changed = true;
            session.fired = true;
            session.revision += 1;
            pending.push(Due {
                start: session.first,
                end: session.last + gap,
                group: id,
                revision: session.revision,
                order: session.order,
                slots: session.slots().collect(),
            });
        }
        while let Some(session) = group.close(closed, gap) {
            changed = true;
            pending.freed.extend(session.slots());
            pending.released.push(id);
        }
        group.deadline = NEVER;
        if changed {
            self.ranges.touch(core, id);
        }
        self.schedule(core, id);
    }

    /// Settles every group whose deadline the stream's watermark has reached.
    fn settle_due(&mut self, core: &Core) {
        while let Some(Reverse((deadline, id))) = self.deadlines.peek().copied() {
            if deadline > core.watermark {
                break;
            }
            self.deadlines.pop();
            if self.groups[id as usize].deadline == deadline {
                self.settle(core, id, core.watermark);
            }
        }
        self.pending.sort();
    }

    /// Moves the clock of a group.
    fn tick(&mut self, core: &mut Core, id: GroupId, at: i64) {
        let own = &mut self.clocks[id as usize];
        if own.seen.is_none() {
            // A group's clock is kept until the floor has passed it: without it a late row would open windows again.
            core.groups.hold(id);
        }
        own.seen = Some(own.seen.map_or(at, |seen| seen.max(at)));
        self.settle_if_due(core, id);
    }

    /// Settles a group whose deadline its watermark has reached.
    fn settle_if_due(&mut self, core: &Core, id: GroupId) {
        let watermark = self.watermark(core, id);
        if self.groups[id as usize].deadline <= watermark {
            self.settle(core, id, watermark);
        }
    }

    /// Brings all groups to the floor: makes due what is due, and forgets clocks that say nothing any more.
    fn sweep(&mut self, core: &mut Core) {
        for (id, index) in (0..).zip(0..self.clocks.len()) {
            let Some(seen) = self.clocks[index].seen else { continue };
            self.settle_if_due(core, id);
            if self.groups[index].is_empty() && core.setup.group_watermark(seen) <= core.group_floor {
                self.ranges.touch(core, id);
                self.clocks[index] = Own::default();
                self.pending.released.push(id);
            }
        }
        self.pending.sort();
        core.swept = core.group_floor;
    }

    fn reserve(&mut self, core: &Core) {
        core.groups.place(&mut self.groups);
        if core.setup.clock == Clock::Group {
            core.groups.place(&mut self.clocks);
        }
    }
}

impl Engine for Sessions {
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
            if let Some(slot) = self.extend(core, *id, *at) {
                rows.push((row, slot));
                self.pending.by_row(core);
                continue;
            }
            if self.is_due(*id, *at) {
                // As if the batch ended here: floats are then added in the same order in every batch.
                self.slots.update(&rows, &inputs)?;
                rows.clear();
                self.pending.emit(core, &mut self.slots, out)?;
            }
            let Some(slot) = self.place(core, *id, *at)? else {
                late.push(row);
                continue;
            };
            rows.push((row, slot));
            match core.setup.clock {
                Clock::Group => self.tick(core, *id, *at),
                Clock::Stream => self.settle_if_due(core, *id),
            }
            self.pending.by_row(core);
        }
        self.slots.update(&rows, &inputs)?;
        self.pending.flush(core, &mut self.slots, out)?;
        core.set_late_aside(admitted, &late, out)
    }

    fn advance(&mut self, core: &mut Core, out: &mut dyn Emit) -> Result<(), OperatorError> {
        match core.setup.clock {
            Clock::Stream => self.settle_due(core),
            Clock::Group if core.group_floor > core.swept => self.sweep(core),
            Clock::Group => {}
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
        self.parts(core)
    }

    fn restore(&mut self, core: &mut Core, parts: &[&Restored]) -> Result<(), OperatorError> {
        self.take_back(core, parts)
    }
}
