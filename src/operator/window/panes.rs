//! Tumbling and hopping windows on the stream's clock.
//!
//! A row is folded once, into its pane; a window is the merge of its panes, a tumbling window is one pane. A pane keeps
//! its groups densely, in order of first appearance, and windows are emitted in that order.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use arrow::array::{RecordBatch, UInt32Array};

use super::core::{Core, Engine, Fired, Late};
use super::groups::Groups;
use super::measure::{Arena, Inputs, no_partial};
use super::shape::Grid;
use super::sliding::{Merged, PANES_MIN, Sliding};
use super::state::{Kind, Row, State};
use crate::flow::outbox::Emit;
use crate::operator::OperatorError;
use crate::operator::aggregate::GroupId;

/// No slot.
pub(super) const NONE: u32 = u32::MAX;

pub(super) struct Pane {
    /// The slot of a group, by id; [`NONE`] where it has none.
    slots: Vec<u32>,
    /// The group of a slot.
    pub(super) groups: Vec<GroupId>,
    pub(super) arena: Arena,
}

impl Pane {
    fn slots(&mut self, ids: &[GroupId], groups: &mut Groups) -> Vec<u32> {
        if self.slots.len() < groups.ids_len() {
            self.slots.resize(groups.ids_len(), NONE);
        }
        let slots = ids.iter().map(|id| {
            let slot = &mut self.slots[*id as usize];
            if *slot == NONE {
                *slot = u32::try_from(self.groups.len()).expect("as many as groups");
                self.groups.push(*id);
                groups.hold(*id);
            }
            *slot
        });
        let slots = slots.collect();
        self.arena.len = self.groups.len();
        slots
    }
}

/// The panes that some open window still needs.
pub(super) struct Panes {
    grid: Grid,
    /// Where a window has so many panes that it is worth it.
    sliding: Option<Sliding>,
    representable: RangeInclusive<i64>,
    /// By start.
    panes: BTreeMap<i64, Pane>,
    /// Windows that end at or before this have been emitted.
    fired: i64,
    /// The newest revision of windows that have been emitted and are not closed: by end and group.
    revisions: BTreeMap<i64, BTreeMap<GroupId, i64>>,
}

impl Panes {
    pub(super) fn new(grid: Grid, representable: RangeInclusive<i64>) -> Self {
        let sliding = match grid {
            Grid::Fixed { size, offset, .. } if grid.panes_len() >= PANES_MIN => Some(Sliding::new(size, offset)),
            _ => None,
        };
        Self { grid, sliding, representable, panes: BTreeMap::new(), fired: i64::MIN, revisions: BTreeMap::new() }
    }

    fn is_late(&self, at: i64, closed: i64) -> bool {
        !self.representable.contains(&at) || self.grid.last_end(at) <= closed
    }

    /// Sends late rows aside. In most batches there are none, which the least and greatest time show.
    fn accepted(&self, core: &Core, batch: RecordBatch, out: &mut dyn Emit) -> Result<RecordBatch, OperatorError> {
        let times = core.times(&batch);
        let closed = core.setup.closed(core.watermark);
        let (least, greatest) = bounds(times.values());
        if !self.is_late(least, closed) && !self.is_late(greatest, closed) {
            return Ok(batch);
        }
        core.set_aside(batch, |row| self.is_late(times.value(row), closed), out)
    }

    /// The rows of every pane, by its start.
    fn split(&self, times: &[i64]) -> BTreeMap<i64, Vec<u32>> {
        let mut split = BTreeMap::<i64, Vec<u32>>::new();
        let (mut start, mut end) = self.grid.pane(times[0]);
        let mut run = Vec::new();
        for (row, at) in (0u32..).zip(times) {
            if *at < start || *at >= end {
                split.entry(start).or_default().append(&mut run);
                (start, end) = self.grid.pane(*at);
            }
            run.push(row);
        }
        split.entry(start).or_default().append(&mut run);
        split
    }

    fn fold(&mut self, core: &mut Core, start: i64, ids: &[GroupId], inputs: &Inputs) -> Result<(), OperatorError> {
        let pane = match self.panes.entry(start) {
            std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::btree_map::Entry::Vacant(entry) => {
                entry.insert(Pane { slots: Vec::new(), groups: Vec::new(), arena: Arena::new(&core.setup.measures)? })
            }
        };
        let slots = pane.slots(ids, &mut core.groups);
        pane.arena.update(&slots, inputs)?;
        if let Some(sliding) = &mut self.sliding {
            sliding.touch(start);
        }
        Ok(())
    }

    /// Whether windows with this pane have been emitted, and will be again for every row that comes.
    fn is_revised(&self, core: &Core, start: i64) -> bool {
        core.setup.late == Late::Update && self.grid.first_end(start) <= self.fired
    }

    /// Folds a row into the pane of windows that have been emitted, and emits them anew. Row by row: how often a window
    /// is emitted must not depend on how rows are cut into batches.
    fn revise(
        &mut self,
        core: &mut Core,
        (at, id): (i64, GroupId),
        inputs: &Inputs,
        out: &mut dyn Emit,
    ) -> Result<(), OperatorError> {
        let (start, _) = self.grid.pane(at);
        self.fold(core, start, &[id], inputs)?;
        let ends: Vec<i64> = self.grid.ends(start, core.setup.closed(core.watermark), self.fired).collect();
        ends.into_iter().try_for_each(|end| self.fire(core, end, Some(&[id]), out))
    }

    /// Emits the window that ends at `end`; of some groups only, where they are given.
    fn fire(
        &mut self,
        core: &Core,
        end: i64,
        only: Option<&[GroupId]>,
        out: &mut dyn Emit,
    ) -> Result<(), OperatorError> {
        let start = self.grid.start(end);
        let (groups, results) = match only {
            None if self.grid.is_tumbling() => {
                let Some(pane) = self.panes.get_mut(&start) else { return Ok(()) };
                (pane.groups.clone(), pane.arena.finish()?)
            }
            _ => {
                let mut merged = match &mut self.sliding {
                    Some(sliding) if only.is_none() => sliding.window(core, &mut self.panes, start)?,
                    _ => self.merged(core, start..end, only)?,
                };
                (merged.groups, merged.arena.finish()?)
            }
        };
        let mut fired = Fired { starts: vec![start; groups.len()], ends: vec![end; groups.len()], ..Fired::default() };
        if core.setup.late == Late::Update {
            let revisions = self.revisions.entry(end).or_default();
            let next = |group: &GroupId| *revisions.entry(*group).and_modify(|revision| *revision += 1).or_insert(0);
            fired.revisions = groups.iter().map(next).collect();
        }
        fired.groups = groups;
        core.emit(fired, results, out)
    }

    /// The merge of some panes, for some groups only where they are given.
    fn merged(
        &mut self,
        core: &Core,
        range: std::ops::Range<i64>,
        only: Option<&[GroupId]>,
    ) -> Result<Merged, OperatorError> {
        let mut merged = Merged::new(core)?;
        for pane in self.panes.range_mut(range).map(|(_, pane)| pane) {
            let Some(only) = only else {
                merged.add(core, &pane.groups, &pane.arena.partial()?)?;
                continue;
            };
            let slot = |id: &GroupId| pane.slots.get(*id as usize).copied().filter(|slot| *slot != NONE);
            let mut slots: Vec<u32> = only.iter().filter_map(slot).collect();
            // In order of first appearance, whatever the ids are.
            slots.sort_unstable();
            let groups: Vec<GroupId> = slots.iter().map(|slot| pane.groups[*slot as usize]).collect();
            merged.add(core, &groups, &pane.arena.partial_of(&slots)?)?;
        }
        Ok(merged)
    }

    /// The end of the next window that has rows, after those that have been emitted.
    fn next_end(&self) -> Option<i64> {
        // A pane that ended before the last window that was emitted began is in no window to come.
        let from = if self.fired == i64::MIN { i64::MIN } else { self.grid.start_bound(self.fired) };
        let start =
            self.panes.range(from..).map(|(start, _)| *start).find(|start| self.grid.last_end(*start) > self.fired)?;
        Some(self.grid.first_end(start.max(self.fired)))
    }

    fn evict(&mut self, core: &mut Core) {
        let closed = core.setup.closed(core.watermark);
        while let Some(entry) = self.panes.first_entry() {
            if self.grid.last_end(*entry.key()) > closed {
                break;
            }
            entry.remove().groups.iter().for_each(|group| core.groups.release(*group));
        }
        while let Some(entry) = self.revisions.first_entry() {
            if *entry.key() > closed {
                break;
            }
            entry.remove();
        }
    }
}

fn bounds(times: &[i64]) -> (i64, i64) {
    times.iter().fold((i64::MAX, i64::MIN), |(least, greatest), at| (least.min(*at), greatest.max(*at)))
}

impl Engine for Panes {
    fn process(&mut self, core: &mut Core, batch: RecordBatch, out: &mut dyn Emit) -> Result<(), OperatorError> {
        let batch = self.accepted(core, batch, out)?;
        let admitted = core.admit(batch, out)?;
        if admitted.ids.is_empty() {
            return Ok(());
        }
        let inputs = Inputs::of(&core.setup.measures, &admitted.batch, core.setup.input.time)?;
        let times = core.times(&admitted.batch);
        let (least, greatest) = bounds(times.values());
        let (start, end) = self.grid.pane(least);
        let mut revising = Vec::new();
        if greatest < end && !self.is_revised(core, start) {
            self.fold(core, start, &admitted.ids, &inputs)?;
        } else {
            for (start, mut rows) in self.split(times.values()) {
                if self.is_revised(core, start) {
                    revising.append(&mut rows);
                    continue;
                }
                let (Some(first), Some(last)) = (rows.first(), rows.last()) else { continue };
                let run = *first as usize..*last as usize + 1;
                if run.len() == rows.len() {
                    // Rows ascend, so these stand side by side: nothing need be copied.
                    self.fold(core, start, &admitted.ids[run.clone()], &inputs.slice(run))?;
                    continue;
                }
                let ids: Vec<GroupId> = rows.iter().map(|row| admitted.ids[*row as usize]).collect();
                self.fold(core, start, &ids, &inputs.take(&UInt32Array::from(rows))?)?;
            }
        }
        revising.sort_unstable();
        for row in revising {
            let of = (times.value(row as usize), admitted.ids[row as usize]);
            self.revise(core, of, &inputs.take(&UInt32Array::from(vec![row]))?, out)?;
        }
        Ok(())
    }

    fn advance(&mut self, core: &mut Core, out: &mut dyn Emit) -> Result<(), OperatorError> {
        let until = core.setup.fired(core.watermark);
        while let Some(end) = self.next_end().filter(|end| *end <= until) {
            self.fire(core, end, None, out)?;
            self.fired = end;
        }
        self.fired = self.fired.max(until);
        self.evict(core);
        Ok(())
    }

    fn snapshot(&mut self, core: &Core) -> Result<State, OperatorError> {
        let mut rows = Vec::new();
        let mut partials = vec![no_partial(&core.setup.measures)];
        for (start, pane) in &mut self.panes {
            let row =
                |group: &GroupId| Row { kind: Kind::Partial, start: *start, end: *start, revision: 0, group: *group };
            rows.extend(pane.groups.iter().map(row));
            partials.push(pane.arena.partial()?);
        }
        for (end, groups) in &self.revisions {
            let row = |(group, revision): (&GroupId, &i64)| Row {
                kind: Kind::Revision,
                start: 0,
                end: *end,
                revision: *revision,
                group: *group,
            };
            rows.extend(groups.iter().map(row));
        }
        Ok(State { rows, partial: super::slots::stacked(&partials)? })
    }

    fn restore(&mut self, core: &mut Core, state: &State, ids: &[GroupId]) -> Result<(), OperatorError> {
        self.fired = core.setup.fired(core.watermark);
        let mut from = 0;
        let partials = state.partial_len();
        while from < partials {
            let start = state.rows[from].start;
            let len = state.rows[from..partials].iter().take_while(|row| row.start == start).count();
            let mut pane = Pane { slots: Vec::new(), groups: Vec::new(), arena: Arena::new(&core.setup.measures)? };
            let slots = pane.slots(&ids[from..from + len], &mut core.groups);
            let slice = |columns: &Vec<_>| {
                columns.iter().map(|column: &arrow::array::ArrayRef| column.slice(from, len)).collect()
            };
            pane.arena.merge(&slots, &state.partial.iter().map(slice).collect::<Vec<_>>())?;
            self.panes.insert(start, pane);
            from += len;
        }
        for (row, group) in state.rows.iter().zip(ids).filter(|(row, _)| row.kind == Kind::Revision) {
            self.revisions.entry(row.end).or_default().insert(*group, row.revision);
        }
        Ok(())
    }
}
