//! Tumbling and hopping windows on the stream's clock.
//!
//! A row is folded once, into its pane; a window is the merge of its panes, a tumbling window is one pane. A pane keeps
//! its groups densely, in order of first appearance, and windows are emitted in that order.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use arrow::array::{ArrayRef, RecordBatch, UInt32Array};
use arrow::compute::{concat_batches, take};
use arrow::error::ArrowError;

use super::arena::parts;
use super::core::{Aside, Core, Engine, Fired, Late};
use super::measure::{Inputs, Measure};
use super::pane::{Merged, PaneMap};
use super::shape::Grid;
use super::sliding::{PANES_MIN, Sliding};
use super::state::{COUNT_MAX, Layout, Table, is_pane};
use crate::flow::batch::Batch;
use crate::flow::outbox::Emit;
use crate::flow::state::{Part, Restored};
use crate::operator::OperatorError;
use crate::operator::aggregate::GroupId;

/// A part a pane.
const PANE: Layout<2> = Layout { name: "pane", numbers: ["start", "order"], partials: true };

/// A part a window that has been emitted and is not closed.
const WINDOW: Layout<2> = Layout { name: "window", numbers: ["end", "revision"], partials: false };

/// The newest revision of a window, by group.
#[derive(Default)]
struct Revisions {
    newest: BTreeMap<GroupId, i64>,
    /// It was emitted since the snapshot before.
    touched: bool,
}

impl Revisions {
    /// Those of groups whose windows are emitted now.
    fn next(&mut self, groups: &[GroupId]) -> Vec<i64> {
        self.touched = true;
        let next = |group: &GroupId| *self.newest.entry(*group).and_modify(|revision| *revision += 1).or_insert(0);
        groups.iter().map(next).collect()
    }
}

/// The panes that some open window still needs.
pub(super) struct Panes {
    grid: Grid,
    /// Where a window has so many panes that it is worth it.
    sliding: Option<Sliding>,
    representable: RangeInclusive<i64>,
    map: PaneMap,
    /// For windows of few panes, and of some groups only.
    merged: Option<Merged>,
    /// Of windows that have been emitted and are not closed, by end.
    revisions: BTreeMap<i64, Revisions>,
}

impl Panes {
    pub(super) fn new(
        grid: Grid,
        representable: RangeInclusive<i64>,
        measures: &[Measure],
    ) -> Result<Self, ArrowError> {
        let sliding = match grid {
            Grid::Fixed { size, offset, .. } if grid.panes_len() >= PANES_MIN => {
                Some(Sliding::new(size, offset, measures)?)
            }
            _ => None,
        };
        Ok(Self { grid, sliding, representable, map: PaneMap::default(), merged: None, revisions: BTreeMap::new() })
    }

    fn is_behind(&self, at: i64, closed: i64) -> bool {
        !self.representable.contains(&at) || self.grid.last_end(at) <= closed
    }

    /// Sends late rows aside. In most batches there are none, which the least and greatest time show.
    fn accepted(&self, core: &Core, batch: Batch, out: &mut dyn Emit) -> Result<Batch, OperatorError> {
        let times = core.times(&batch);
        let closed = core.closed;
        let (least, greatest) = bounds(times.values());
        if !self.is_behind(least, closed) && !self.is_behind(greatest, closed) {
            return Ok(batch);
        }
        core.set_aside(batch, Aside::Late, |row| self.is_behind(times.value(row), closed), out)
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

    fn fold(
        &mut self,
        core: &mut Core,
        start: i64,
        rows: (&[GroupId], Option<&[i64]>),
        inputs: &Inputs,
    ) -> Result<(), OperatorError> {
        self.map.fold(core, start, rows, inputs)?;
        if let Some(sliding) = &mut self.sliding {
            sliding.touch(start);
        }
        Ok(())
    }

    /// Whether windows with this pane have been emitted, and will be again for every row that comes.
    fn is_revised(&self, core: &Core, start: i64) -> bool {
        core.setup.late == Late::Update && self.grid.first_end(start) <= core.fired
    }

    /// Folds a row into the pane of windows that have been emitted, and emits them anew. Row by row: how often a window
    /// is emitted must not depend on how rows are cut into batches.
    fn revise(
        &mut self,
        core: &mut Core,
        (at, id, number): (i64, GroupId, Option<i64>),
        inputs: &Inputs,
        out: &mut dyn Emit,
    ) -> Result<(), OperatorError> {
        let (start, _) = self.grid.pane(at);
        self.fold(core, start, (&[id], number.as_ref().map(std::slice::from_ref)), inputs)?;
        core.look_at(number);
        let ends: Vec<i64> = self.grid.ends(start, core.closed, core.fired).collect();
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
        let panes = &mut self.map.panes;
        let mut window = match (only, &mut self.sliding, &mut self.merged) {
            (None, _, _) if self.grid.is_tumbling() => match panes.get_mut(&start) {
                Some(pane) => pane.window(start)?,
                None => return Ok(()),
            },
            (None, Some(sliding), _) => sliding.window(core, panes, start)?,
            (_, _, Some(merged)) => merged.window(core, panes.range_mut(start..end), only)?,
            (_, _, none) => none.insert(Merged::new(core)?).window(core, panes.range_mut(start..end), only)?,
        };
        for part in parts(window.groups.len()) {
            let groups = &window.groups[part.clone()];
            let turns = match only {
                Some(_) if core.is_worker => groups.iter().map(|_| core.turn_of_row(end)).collect(),
                None if core.is_worker => {
                    window.firsts[part.clone()].iter().map(|(pane, order)| [end, *pane, *order]).collect()
                }
                _ => Vec::new(),
            };
            let revisions = match core.setup.late {
                Late::Set => Vec::new(),
                Late::Update => self.revisions.entry(end).or_default().next(groups),
            };
            let (starts, ends) = (vec![start; groups.len()], vec![end; groups.len()]);
            let fired = Fired { starts, ends, groups: groups.to_vec(), revisions, turns };
            core.emit(fired, window.results.of(part, groups)?, out)?;
        }
        Ok(())
    }

    /// The end of the next window that has rows, after those that have been emitted.
    fn next_end(&self, fired: i64) -> Option<i64> {
        // A pane that ended before the last window that was emitted began is in no window to come.
        let from = if fired == i64::MIN { i64::MIN } else { self.grid.start_bound(fired) };
        let start =
            self.map.panes.range(from..).map(|(start, _)| *start).find(|start| self.grid.last_end(*start) > fired)?;
        Some(self.grid.first_end(start.max(fired)))
    }

    fn evict(&mut self, core: &mut Core) -> Result<(), OperatorError> {
        let (grid, closed) = (&self.grid, core.closed);
        while self.map.close_first(core, |start| grid.last_end(start) <= closed)? {}
        while let Some(entry) = self.revisions.first_entry() {
            if *entry.key() > closed {
                break;
            }
            entry.remove();
        }
        Ok(())
    }
}

/// The rows of a pane in the order in which their groups appeared.
fn in_order(table: Table<2>) -> Result<Table<2>, OperatorError> {
    if table.rows.is_sorted_by_key(|([_, order], _)| *order) {
        return Ok(table);
    }
    let mut places: Vec<u32> = (0..).take(table.rows.len()).collect();
    places.sort_by_key(|place| table.rows[*place as usize].0[1]);
    let rows = places.iter().map(|place| table.rows[*place as usize]).collect();
    let places = UInt32Array::from(places);
    let some = |columns: &Vec<ArrayRef>| columns.iter().map(|column| take(column, &places, None)).collect();
    Ok(Table { rows, partial: table.partial.iter().map(some).collect::<Result<_, ArrowError>>()? })
}

fn bounds(times: &[i64]) -> (i64, i64) {
    times.iter().fold((i64::MAX, i64::MIN), |(least, greatest), at| (least.min(*at), greatest.max(*at)))
}

impl Engine for Panes {
    fn process(&mut self, core: &mut Core, batch: Batch, out: &mut dyn Emit) -> Result<(), OperatorError> {
        let batch = self.accepted(core, batch, out)?;
        let admitted = core.admit(batch, out)?;
        if admitted.ids.is_empty() {
            return Ok(());
        }
        let inputs = Inputs::of(&core.setup.measures, &admitted.batch, core.setup.input.time)?;
        let times = core.times(&admitted.batch);
        let numbers = core.numbers(&admitted.batch);
        let (least, greatest) = bounds(times.values());
        let (start, end) = self.grid.pane(least);
        let mut revising = Vec::new();
        if greatest < end && !self.is_revised(core, start) {
            self.fold(core, start, (&admitted.ids, numbers), &inputs)?;
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
                    let numbers = numbers.map(|numbers| &numbers[run.clone()]);
                    self.fold(core, start, (&admitted.ids[run.clone()], numbers), &inputs.slice(run))?;
                    continue;
                }
                let ids: Vec<GroupId> = rows.iter().map(|row| admitted.ids[*row as usize]).collect();
                let of_rows: Option<Vec<i64>> =
                    numbers.map(|numbers| rows.iter().map(|row| numbers[*row as usize]).collect());
                self.fold(core, start, (&ids, of_rows.as_deref()), &inputs.take(&UInt32Array::from(rows))?)?;
            }
        }
        revising.sort_unstable();
        for row in revising {
            let number = numbers.map(|numbers| numbers[row as usize]);
            let of = (times.value(row as usize), admitted.ids[row as usize], number);
            self.revise(core, of, &inputs.take(&UInt32Array::from(vec![row]))?, out)?;
        }
        Ok(())
    }

    fn advance(&mut self, core: &mut Core, out: &mut dyn Emit) -> Result<(), OperatorError> {
        let until = core.setup.fires(core.watermark, core.closed);
        while let Some(end) = self.next_end(core.fired).filter(|end| *end <= until) {
            self.fire(core, end, None, out)?;
            core.fired = end;
        }
        core.fired = core.fired.max(until);
        self.evict(core)
    }

    fn snapshot(&mut self, core: &Core) -> Result<Vec<Part>, OperatorError> {
        let mut parts = Vec::new();
        for (start, pane) in &mut self.map.panes {
            let name = PANE.part(*start);
            if !std::mem::take(&mut pane.touched) {
                parts.push(Part::same(name));
                continue;
            }
            let row = |(slot, group): (usize, &GroupId)| ([*start, pane.order_of(slot)], *group);
            let rows = pane.groups.iter().enumerate().map(row).collect();
            let table = Table { rows, partial: pane.arena.partial()? };
            parts.push(Part::changed(name, PANE.encode(core, table)?));
        }
        for (end, revisions) in &mut self.revisions {
            let name = WINDOW.part(*end);
            if !std::mem::take(&mut revisions.touched) {
                parts.push(Part::same(name));
                continue;
            }
            let rows = revisions.newest.iter().map(|(group, revision)| ([*end, *revision], *group)).collect();
            parts.push(Part::changed(name, WINDOW.encode(core, Table::of(rows))?));
        }
        Ok(parts)
    }

    fn touch(&mut self) {
        self.map.panes.values_mut().for_each(|pane| pane.touched = true);
        self.revisions.values_mut().for_each(|revisions| revisions.touched = true);
    }

    fn is_late(&self, core: &Core, at: i64) -> bool {
        self.is_behind(at, core.closed)
    }

    fn restore(&mut self, core: &mut Core, parts: &[&Restored]) -> Result<(), OperatorError> {
        let mut panes: BTreeMap<i64, Vec<&RecordBatch>> = BTreeMap::new();
        for (name, batch) in parts {
            if let Some(start) = PANE.number(name) {
                panes.entry(start).or_default().push(batch);
            } else if let Some(end) = WINDOW.number(name) {
                let table = WINDOW.decode(core, batch)?;
                self.restore_window(core, end, &table)?;
            } else {
                return Err(OperatorError::Stateless);
            }
        }
        for (start, batches) in panes {
            // Of several workers: what each of them wrote is not all that there is.
            let several = batches.len() > 1;
            let batch = concat_batches(&batches[0].schema(), batches).map_err(|_| OperatorError::Stateless)?;
            let table = PANE.decode(core, &batch)?;
            self.restore_pane(core, start, table, several)?;
        }
        // A group with a revision has rows in the window, and they in turn are held by panes.
        let mut revised = self.revisions.values().flat_map(|revisions| revisions.newest.keys());
        if revised.any(|group| !core.groups.is_held(*group)) {
            return Err(OperatorError::Stateless);
        }
        Ok(())
    }
}

impl Panes {
    fn restore_pane(
        &mut self,
        core: &mut Core,
        start: i64,
        table: Table<2>,
        several: bool,
    ) -> Result<(), OperatorError> {
        let fits = |([of, order], _): &([i64; 2], GroupId)| *of == start && (0..=COUNT_MAX).contains(order);
        if !is_pane(&core.setup.shape, start) || !table.rows.iter().all(fits) {
            return Err(OperatorError::Stateless);
        }
        let table = in_order(table)?;
        if table.rows.is_empty() {
            return Ok(());
        }
        let ids: Vec<GroupId> = table.rows.iter().map(|(_, group)| *group).collect();
        let orders: Vec<i64> = table.rows.iter().map(|([_, order], _)| *order).collect();
        let numbers = core.is_worker.then_some(&*orders);
        let (pane, slots) = self.map.place(core, start, &ids, numbers)?;
        pane.touched |= several;
        pane.arena.merge(slots, &table.partial).map_err(|_| OperatorError::Stateless)
    }

    fn restore_window(&mut self, core: &Core, end: i64, table: &Table<2>) -> Result<(), OperatorError> {
        let fits = |([of, revision], _): &([i64; 2], GroupId)| *of == end && (0..=COUNT_MAX).contains(revision);
        if core.setup.late != Late::Update || !table.rows.iter().all(fits) {
            return Err(OperatorError::Stateless);
        }
        let revisions = self.revisions.entry(end).or_default();
        revisions.touched |= !revisions.newest.is_empty();
        revisions.newest.extend(table.rows.iter().map(|([_, revision], group)| (*group, *revision)));
        Ok(())
    }
}
