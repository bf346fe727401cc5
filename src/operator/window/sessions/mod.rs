//! Session windows, on the stream's clock or on those of the groups.
//!
//! A session is `[first, last + gap)` of a group's rows: a row less than `gap` from a session belongs to it, and joins
//! it with the session on its other side. Joined sessions keep their slots, which are merged when they are emitted.
//!
//! With `late = "update"` a row that reaches a session which was emitted gives it its next revision, with its new
//! bounds; of sessions that are joined the newest revision counts on.
//!
//! `state` has what goes into checkpoints.

mod state;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ops::RangeInclusive;

use super::core::{Aside, Clock, Core, Engine, Late};
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

/// The revision of a session that was never emitted.
const UNSEEN: i64 = -1;

struct Session {
    first: i64,
    last: i64,
    slots: Vec<Slot>,
    revision: i64,
    /// It was emitted as it is.
    fired: bool,
    /// How early it began among all.
    order: i64,
}

impl Session {
    /// Whether a row belongs to it.
    fn is_near(&self, at: i64, gap: i64) -> bool {
        at.saturating_sub(self.last) < gap && self.first.saturating_sub(at) < gap
    }
}

#[derive(Default)]
struct Group {
    /// By time; each at least `gap` from the next.
    sessions: Vec<Session>,
    /// The greatest event time, on a clock of its own.
    seen: Option<i64>,
    /// Sessions that end at or before this took no more rows before the last restart; none where there was none.
    closed: Option<i64>,
    /// The watermark at which something is to be done.
    deadline: Option<i64>,
}

/// The open sessions of all groups.
pub(super) struct Sessions {
    gap: i64,
    representable: RangeInclusive<i64>,
    /// By id.
    groups: Vec<Group>,
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
                let seen = self.groups[id as usize].seen;
                let own = seen.map_or(Timestamp::START.micros(), |seen| core.setup.group_watermark(seen));
                own.max(core.group_floor)
            }
        }
    }

    /// Sessions of a group that end at or before this take no more rows.
    fn closed(&self, core: &Core, id: GroupId) -> i64 {
        let closed = core.setup.closed(self.watermark(core, id)).max(core.closed);
        self.groups[id as usize].closed.map_or(closed, |before| before.max(closed))
    }

    /// Whether a row goes to a session that may be due, and not folded yet.
    fn is_due(&self, id: GroupId, at: i64) -> bool {
        let due = |session: &Session| session.revision != UNSEEN && session.is_near(at, self.gap);
        !self.pending.is_empty() && self.groups[id as usize].sessions.iter().any(due)
    }

    /// The slot for a row, in the session that it belongs to or begins; none where it is late.
    fn place(&mut self, core: &mut Core, id: GroupId, at: i64) -> Result<Option<Slot>, OperatorError> {
        let closed = self.closed(core, id);
        if !self.representable.contains(&at) {
            return Ok(None);
        }
        let (gap, group) = (self.gap, &mut self.groups[id as usize]);
        let near = |session: &Session| session.is_near(at, gap);
        let from = group.sessions.iter().position(near);
        let Some(from) = from else {
            if at + gap <= closed {
                return Ok(None);
            }
            let slot = self.slots.take(&core.setup.measures)?;
            let place = group.sessions.partition_point(|session| session.first < at);
            let order = core.begin();
            let session = Session { first: at, last: at, slots: vec![slot], revision: UNSEEN, fired: false, order };
            group.sessions.insert(place, session);
            core.groups.hold(id);
            self.schedule(core, id);
            return Ok(Some(slot));
        };
        // Sessions are a gap apart, so a row is near two at most.
        if group.sessions.get(from + 1).is_some_and(near) {
            let next = group.sessions.remove(from + 1);
            let session = &mut group.sessions[from];
            session.last = next.last;
            session.slots.extend(next.slots);
            session.revision = session.revision.max(next.revision);
            session.order = session.order.min(next.order);
            self.pending.released.push(id);
        }
        let session = &mut group.sessions[from];
        session.first = session.first.min(at);
        session.last = session.last.max(at);
        session.fired = false;
        let slot = *session.slots.last().expect("a session has a slot");
        if session.revision != UNSEEN {
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
        let next = group.sessions.iter().map(deadline).min();
        if next.is_some_and(|next| group.deadline.is_none_or(|noted| next < noted)) {
            group.deadline = next;
            if core.setup.clock == Clock::Stream {
                self.deadlines.push(Reverse((next.expect("it is some"), id)));
            }
        }
    }

    /// Makes due what is due for a group, and closes what is to be closed.
    fn settle(&mut self, core: &Core, id: GroupId, watermark: i64) {
        self.ranges.touch(core, id);
        let closed = self.closed(core, id);
        let fire = core.setup.fires(watermark, closed);
        let (gap, pending, group) = (self.gap, &mut self.pending, &mut self.groups[id as usize]);
        for session in &mut group.sessions {
            let end = session.last + gap;
            if !session.fired && end <= fire {
                session.fired = true;
                session.revision += 1;
                pending.push(Due {
                    start: session.first,
                    end,
                    group: id,
                    revision: session.revision,
                    order: session.order,
                    slots: session.slots.clone(),
                });
            }
        }
        for session in group.sessions.extract_if(.., |session| session.last + gap <= closed) {
            pending.freed.extend(session.slots);
            pending.released.push(id);
        }
        group.deadline = None;
        self.schedule(core, id);
    }

    /// Settles every group whose deadline the stream's watermark has reached.
    fn settle_due(&mut self, core: &Core) {
        while let Some(Reverse((deadline, id))) = self.deadlines.peek().copied() {
            if deadline > core.watermark {
                break;
            }
            self.deadlines.pop();
            if self.groups[id as usize].deadline == Some(deadline) {
                self.settle(core, id, core.watermark);
            }
        }
        self.pending.sort();
    }

    /// Moves the clock of a group.
    fn tick(&mut self, core: &mut Core, id: GroupId, at: i64) {
        let group = &mut self.groups[id as usize];
        if group.seen.is_none() {
            // A group's clock is kept until the floor has passed it: without it a late row would open windows again.
            core.groups.hold(id);
        }
        group.seen = Some(group.seen.map_or(at, |seen| seen.max(at)));
        self.settle_if_due(core, id);
    }

    /// Settles a group whose deadline its watermark has reached.
    fn settle_if_due(&mut self, core: &Core, id: GroupId) {
        let watermark = self.watermark(core, id);
        if self.groups[id as usize].deadline.is_some_and(|deadline| deadline <= watermark) {
            self.settle(core, id, watermark);
        }
    }

    /// Brings all groups to the floor: makes due what is due, and forgets clocks that say nothing any more.
    fn sweep(&mut self, core: &mut Core) {
        for (id, index) in (0..).zip(0..self.groups.len()) {
            let Some(seen) = self.groups[index].seen else { continue };
            self.settle_if_due(core, id);
            let group = &mut self.groups[index];
            if group.sessions.is_empty() && core.setup.group_watermark(seen) <= core.group_floor {
                self.ranges.touch(core, id);
                *group = Group::default();
                self.pending.released.push(id);
            }
        }
        self.pending.sort();
        core.swept = core.group_floor;
    }

    fn reserve(&mut self, core: &Core) {
        if self.groups.len() < core.groups.ids_len() {
            self.groups.resize_with(core.groups.ids_len(), Group::default);
        }
    }
}

impl Engine for Sessions {
    fn process(&mut self, core: &mut Core, batch: Batch, out: &mut dyn Emit) -> Result<(), OperatorError> {
        let admitted = core.admit(batch, out)?;
        self.reserve(core);
        let times = core.times(&admitted.batch);
        let numbers = core.numbers(&admitted.batch);
        let own_clocks = core.setup.clock == Clock::Group;
        let mut rows = Vec::with_capacity(admitted.ids.len());
        let mut late = vec![false; admitted.ids.len()];
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
                    self.ranges.touch(core, *id);
                    if own_clocks {
                        self.tick(core, *id, *at);
                    } else {
                        self.settle_if_due(core, *id);
                    }
                }
                None => late[row as usize] = true,
            }
            self.pending.by_row(core);
        }
        self.slots.update(&rows, &inputs)?;
        self.pending.flush(core, &mut self.slots, out)?;
        admitted.ids.iter().zip(&late).filter(|(_, late)| **late).for_each(|(id, _)| core.groups.forget_unheld(*id));
        core.set_aside(admitted.batch, Aside::Late, |row| late[row], out)?;
        Ok(())
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
