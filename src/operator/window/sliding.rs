//! Hopping windows without merging every pane for every window.
//!
//! Time is cut into blocks as long as a window. A window that begins within a block is a suffix of that block and a
//! prefix of the next. Suffixes are made once a block, from its last pane backwards; the prefix grows with every window:
//! about three merges a window, however many panes it has (van Herk 1992, Gil and Werman 1993).
//!
//! There is one suffix at a time, by group id, and for every pane in it what it was before the pane: windows go forward,
//! so each takes back the panes that lie before it. That touches the groups of those panes only, and so does its memory.
//!
//! Blocks lie at fixed places in time, so floating point sums are added in the same order whenever they are made anew:
//! after a restart, or after a row came for a pane that was merged already.

use std::collections::BTreeMap;

use arrow::error::ArrowError;

use super::arena::{Boxed, Cells, Partial, Results, fused};
use super::core::Core;
use super::measure::Measure;
use super::pane::{First, NONE, Pane, Window};
use crate::operator::aggregate::GroupId;
use crate::operator::aggregate::fused::Fused;

/// From how many panes a window on this is worth it.
pub(super) const PANES_MIN: i64 = 4;

/// What has been merged of the panes.
pub(super) struct Sliding {
    size: i64,
    offset: i64,
    /// The end of the block that has the suffix, which begins the block that has the prefix.
    border: Option<i64>,
    /// Of all panes of the block that windows to come need.
    suffix: Suffix,
    /// Of the panes in `[border, until)`.
    prefix: Prefix,
    until: i64,
    /// Of some rows of the window that is being emitted.
    rows: Fused,
    /// The groups of the window.
    order: Vec<GroupId>,
}

impl Sliding {
    pub(super) fn new(size: i64, offset: i64, measures: &[Measure]) -> Result<Self, ArrowError> {
        Ok(Self {
            size,
            offset,
            border: None,
            suffix: Suffix {
                merged: fused(measures),
                holders: Vec::new(),
                firsts: Vec::new(),
                steps: Vec::new(),
                spent: Vec::new(),
                places: Vec::new(),
            },
            prefix: Prefix {
                merged: fused(measures),
                boxed: Boxed::new(measures)?,
                order: Vec::new(),
                firsts: Vec::new(),
                places: Vec::new(),
            },
            until: i64::MIN,
            rows: fused(measures),
            order: Vec::new(),
        })
    }

    /// A row came for the pane that begins at `start`.
    pub(super) fn touch(&mut self, start: i64) {
        if start < self.until {
            self.border = None;
        }
    }

    /// The window that begins at `start`, and is over.
    pub(super) fn window(
        &mut self,
        core: &Core,
        panes: &mut BTreeMap<i64, Pane>,
        start: i64,
    ) -> Result<Window<'_>, ArrowError> {
        let border = start + self.size - (start - self.offset).rem_euclid(self.size);
        self.suffix.reserve(core);
        if self.border != Some(border) {
            self.suffix.clear(core);
            self.prefix.clear(core)?;
            for (start, pane) in panes.range_mut(start..border).rev() {
                self.suffix.push(core, *start, pane)?;
            }
            self.border = Some(border);
            self.until = border;
        }
        self.suffix.pop_until(start);
        self.prefix.reserve(core);
        for (start, pane) in panes.range_mut(self.until..start + self.size) {
            self.prefix.push(core, *start, pane)?;
        }
        self.until = start + self.size;
        self.merge(core)
    }

    /// The suffix and the prefix as one.
    fn merge(&mut self, core: &Core) -> Result<Window<'_>, ArrowError> {
        let Self { suffix, prefix, rows, order, .. } = self;
        let measures = &core.setup.measures;
        order.clear();
        order.extend_from_slice(suffix.order());
        order.extend(prefix.order.iter().filter(|group| suffix.holders[**group as usize] == 0));
        let mut boxed = Boxed::new(measures)?;
        if !boxed.is_empty() {
            let (own, theirs) = suffix.places_beside(&prefix.order);
            if let Some(step) = suffix.steps.last() {
                boxed.merge(&own, order.len(), &step.boxed)?;
            }
            boxed.merge(&theirs, order.len(), &prefix.boxed.partial(prefix.order.len())?)?;
        }
        let first = |group: &GroupId| match suffix.holders[*group as usize] {
            0 => prefix.firsts[prefix.places[*group as usize] as usize],
            _ => suffix.firsts[*group as usize],
        };
        let firsts = if core.is_worker { order.iter().map(first).collect() } else { Vec::new() };
        let cells = Cells::Merged { rows, one: &suffix.merged, other: &prefix.merged };
        let results = Results::new(measures.len(), cells, &mut boxed, order.len())?;
        Ok(Window { groups: order, firsts, results })
    }
}

/// The merge of the last panes of a block.
struct Suffix {
    /// By id.
    merged: Fused,
    /// How many of the panes have a group, by id.
    holders: Vec<u32>,
    /// The first of the panes that has a group, by id; of a worker only.
    firsts: Vec<First>,
    /// A pane each, the last pane first.
    steps: Vec<Step>,
    /// Steps that are over, for their space.
    spent: Vec<Step>,
    /// For the places of groups in an order, by id; in between all [`NONE`].
    places: Vec<u32>,
}

/// A pane in the suffix that begins with it.
struct Step {
    start: i64,
    /// The groups of the suffix in order of first appearance: first those of the pane.
    order: Vec<GroupId>,
    /// How many groups the pane has.
    own_len: usize,
    /// What the suffix was without the pane, a slot for each of the pane's groups.
    before: Fused,
    /// What was first of these groups without the pane; of a worker only.
    firsts_before: Vec<First>,
    /// The measures that are not simple, a row for each of `order`.
    boxed: Partial,
}

impl Suffix {
    fn reserve(&mut self, core: &Core) {
        let len = core.groups.ids_len();
        self.merged.reserve(len);
        self.holders.resize(len.max(self.holders.len()), 0);
        if core.is_worker {
            self.firsts.resize(len.max(self.firsts.len()), First::default());
        }
        self.places.resize(len.max(self.places.len()), NONE);
    }

    fn clear(&mut self, core: &Core) {
        self.merged.clear();
        self.holders.fill(0);
        self.spent.append(&mut self.steps);
        self.reserve(core);
    }

    /// The groups in order of first appearance.
    fn order(&self) -> &[GroupId] {
        self.steps.last().map(|step| &*step.order).unwrap_or_default()
    }

    /// Puts a pane before the others.
    fn push(&mut self, core: &Core, start: i64, pane: &mut Pane) -> Result<(), ArrowError> {
        pane.arena.fused.reserve(pane.groups.len());
        let spent = self.spent.pop().map(|step| (step.order, step.before));
        let (mut order, mut before) = spent.unwrap_or_else(|| (Vec::new(), self.merged.fresh()));
        before.clear();
        before.extend(&self.merged, &pane.groups);
        self.merged.scatter(&pane.groups, &pane.arena.fused);
        for (group, place) in pane.groups.iter().zip(0..) {
            self.places[*group as usize] = place;
        }
        order.clear();
        order.extend_from_slice(&pane.groups);
        order.extend(self.order().iter().filter(|group| self.places[**group as usize] == NONE));
        let boxed = self.boxed(core, pane, order.len())?;
        for group in &pane.groups {
            self.places[*group as usize] = NONE;
            self.holders[*group as usize] += 1;
        }
        let mut firsts_before = Vec::new();
        if core.is_worker {
            for (slot, group) in pane.groups.iter().enumerate() {
                let first = (start, pane.order_of(slot));
                firsts_before.push(std::mem::replace(&mut self.firsts[*group as usize], first));
            }
        }
        self.steps.push(Step { start, order, own_len: pane.groups.len(), before, firsts_before, boxed });
        Ok(())
    }

    /// The measures that are not simple of a pane, whose groups have their places, and of the others after it.
    fn boxed(&mut self, core: &Core, pane: &mut Pane, len: usize) -> Result<Partial, ArrowError> {
        if pane.arena.boxed.is_empty() {
            return Ok(Vec::new());
        }
        let mut merged = Boxed::new(&core.setup.measures)?;
        let own: Vec<u32> = (0..).take(pane.groups.len()).collect();
        merged.merge(&own, len, &pane.arena.boxed.partial(pane.groups.len())?)?;
        if let Some(later) = self.steps.last() {
            let mut next = (0..).skip(pane.groups.len());
            let place = |group: &GroupId| match self.places[*group as usize] {
                NONE => next.next().unwrap_or(NONE),
                place => place,
            };
            let places: Vec<u32> = later.order.iter().map(place).collect();
            merged.merge(&places, len, &later.boxed)?;
        }
        merged.partial(len)
    }

    /// Takes back the panes before `start`.
    fn pop_until(&mut self, start: i64) {
        while let Some(step) = self.steps.pop_if(|step| step.start < start) {
            let groups = &step.order[..step.own_len];
            self.merged.put(groups, &step.before);
            groups.iter().for_each(|group| self.holders[*group as usize] -= 1);
            for (group, first) in groups.iter().zip(&step.firsts_before) {
                self.firsts[*group as usize] = *first;
            }
            self.spent.push(step);
        }
    }

    /// The places of the suffix's groups and of those of `others`, where new ones of the latter come after the former.
    fn places_beside(&mut self, others: &[GroupId]) -> (Vec<u32>, Vec<u32>) {
        let order = self.steps.last().map(|step| &*step.order).unwrap_or_default();
        let own: Vec<u32> = (0..).take(order.len()).collect();
        order.iter().zip(&own).for_each(|(group, place)| self.places[*group as usize] = *place);
        let mut next = (0..).skip(order.len());
        let place = |group: &GroupId| match self.places[*group as usize] {
            NONE => next.next().unwrap_or(NONE),
            place => place,
        };
        let theirs = others.iter().map(place).collect();
        order.iter().for_each(|group| self.places[*group as usize] = NONE);
        (own, theirs)
    }
}

/// The merge of the first panes of a block.
struct Prefix {
    /// By id.
    merged: Fused,
    /// The measures that are not simple, by place in `order`.
    boxed: Boxed,
    /// The groups in order of first appearance.
    order: Vec<GroupId>,
    /// The first pane of each of them; of a worker only.
    firsts: Vec<First>,
    /// The place of a group in `order`, by id; [`NONE`] where it has none.
    places: Vec<u32>,
}

impl Prefix {
    fn reserve(&mut self, core: &Core) {
        let len = core.groups.ids_len();
        self.merged.reserve(len);
        self.places.resize(len.max(self.places.len()), NONE);
    }

    fn clear(&mut self, core: &Core) -> Result<(), ArrowError> {
        self.merged.clear();
        if !self.boxed.is_empty() {
            self.boxed = Boxed::new(&core.setup.measures)?;
        }
        self.order.drain(..).for_each(|group| self.places[group as usize] = NONE);
        self.firsts.clear();
        Ok(())
    }

    /// Puts a pane after the others.
    fn push(&mut self, core: &Core, start: i64, pane: &mut Pane) -> Result<(), ArrowError> {
        pane.arena.fused.reserve(pane.groups.len());
        self.merged.scatter(&pane.groups, &pane.arena.fused);
        for (slot, group) in pane.groups.iter().enumerate() {
            let place = &mut self.places[*group as usize];
            if *place == NONE {
                if core.is_worker {
                    self.firsts.push((start, pane.order_of(slot)));
                }
                *place = u32::try_from(self.order.len()).expect("as many as groups");
                self.order.push(*group);
            }
        }
        if !self.boxed.is_empty() {
            let places: Vec<u32> = pane.groups.iter().map(|group| self.places[*group as usize]).collect();
            self.boxed.merge(&places, self.order.len(), &pane.arena.boxed.partial(pane.groups.len())?)?;
        }
        Ok(())
    }
}
