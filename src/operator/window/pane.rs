//! Panes: the groups of a stretch of time, each with a slot, in order of first appearance.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use arrow::error::ArrowError;

use super::arena::{Arena, Results};
use super::core::Core;
use super::groups::Groups;
use super::measure::Inputs;
use crate::operator::aggregate::GroupId;

/// No slot.
pub(super) const NONE: u32 = u32::MAX;

/// How many panes can tell at once which slot a group has. A row for another pane takes it from the one that took no
/// row for the longest time.
const INDEXES: usize = 4;

/// The space of a pane is used again by the next as long as the pane had needed one part in so many of it.
const SPARE_SHARE: usize = 4;

pub(super) struct Pane {
    /// The slot of a group, by id; [`NONE`] where it has none. Empty while other panes take rows.
    index: Vec<u32>,
    /// The group of a slot.
    pub(super) groups: Vec<GroupId>,
    /// The number of the first row of a slot; of a worker only.
    pub(super) order: Vec<i64>,
    pub(super) arena: Arena,
    /// Rows were folded into it since the snapshot before.
    pub(super) touched: bool,
}

impl Pane {
    /// The slot of a group.
    pub(super) fn slot(&self, id: GroupId) -> Option<u32> {
        if self.index.is_empty() {
            return self.groups.iter().position(|group| *group == id).and_then(|slot| u32::try_from(slot).ok());
        }
        self.index.get(id as usize).copied().filter(|slot| *slot != NONE)
    }

    /// When one operator would emit the group of a slot among those of the pane.
    pub(super) fn order_of(&self, slot: usize) -> i64 {
        self.order.get(slot).copied().unwrap_or_else(|| i64::try_from(slot).expect("slots are counted in 32 bits"))
    }

    /// The slots of rows. New groups get one.
    fn place(&mut self, ids: &[GroupId], numbers: Option<&[i64]>, groups: &mut Groups, slots: &mut Vec<u32>) {
        if self.index.len() < groups.ids_len() {
            self.index.resize(groups.ids_len(), NONE);
        }
        slots.clear();
        let known = self.groups.len();
        slots.extend(ids.iter().map(|id| {
            let slot = &mut self.index[*id as usize];
            if *slot == NONE {
                *slot = u32::try_from(self.groups.len()).expect("as many as groups");
                self.groups.push(*id);
                groups.hold(*id);
            }
            *slot
        }));
        if let Some(numbers) = numbers.filter(|_| known < self.groups.len()) {
            for (slot, number) in slots.iter().zip(numbers) {
                if *slot as usize == self.order.len() {
                    self.order.push(*number);
                }
            }
        }
        self.arena.len = self.groups.len();
    }

    /// Gives the index away, empty.
    fn take_index(&mut self) -> Vec<u32> {
        let mut index = std::mem::take(&mut self.index);
        if !index.is_empty() {
            self.groups.iter().for_each(|group| index[*group as usize] = NONE);
        }
        index
    }

    fn set_index(&mut self, mut index: Vec<u32>, ids_len: usize) {
        if index.len() < ids_len {
            index.resize(ids_len, NONE);
        }
        self.groups.iter().zip(0..).for_each(|(group, slot)| index[*group as usize] = slot);
        self.index = index;
    }
}

/// Panes by start, and the space of those that are gone.
#[derive(Default)]
pub(super) struct PaneMap {
    pub(super) panes: BTreeMap<i64, Pane>,
    /// The panes that have an index, those that took a row last at the end.
    indexed: Vec<i64>,
    /// Indexes that no pane has.
    indexes: Vec<Vec<u32>>,
    spare: Option<Pane>,
    /// The slots of the rows that are being folded.
    slots: Vec<u32>,
}

impl PaneMap {
    /// Folds rows into the pane that begins at `start`.
    pub(super) fn fold(
        &mut self,
        core: &mut Core,
        start: i64,
        (ids, numbers): (&[GroupId], Option<&[i64]>),
        inputs: &Inputs,
    ) -> Result<(), ArrowError> {
        let (pane, slots) = self.place(core, start, ids, numbers)?;
        pane.arena.update(slots, inputs)?;
        pane.touched = true;
        Ok(())
    }

    /// The pane that begins at `start`, which is new if there was none, and the slots of rows in it.
    pub(super) fn place(
        &mut self,
        core: &mut Core,
        start: i64,
        ids: &[GroupId],
        numbers: Option<&[i64]>,
    ) -> Result<(&mut Pane, &[u32]), ArrowError> {
        if self.indexed.last() != Some(&start) {
            self.open(core, start)?;
        }
        let pane = self.panes.get_mut(&start).expect("the pane is open");
        pane.place(ids, numbers, &mut core.groups, &mut self.slots);
        Ok((pane, &self.slots))
    }

    /// Makes a pane that there is not, and gives it an index.
    fn open(&mut self, core: &Core, start: i64) -> Result<(), ArrowError> {
        if let Entry::Vacant(entry) = self.panes.entry(start) {
            entry.insert(match self.spare.take() {
                Some(pane) => pane,
                None => Pane {
                    index: Vec::new(),
                    groups: Vec::new(),
                    order: Vec::new(),
                    arena: Arena::new(&core.setup.measures)?,
                    touched: false,
                },
            });
        }
        if let Some(place) = self.indexed.iter().position(|indexed| *indexed == start) {
            self.indexed[place..].rotate_left(1);
            return Ok(());
        }
        if self.indexed.len() == INDEXES {
            let oldest = self.indexed.remove(0);
            self.indexes.extend(self.panes.get_mut(&oldest).map(Pane::take_index));
        }
        self.indexed.push(start);
        let index = self.indexes.pop().unwrap_or_default();
        if let Some(pane) = self.panes.get_mut(&start) {
            pane.set_index(index, core.groups.ids_len());
        }
        Ok(())
    }

    /// Closes the first pane, if it is over.
    pub(super) fn close_first(
        &mut self,
        core: &mut Core,
        is_over: impl FnOnce(i64) -> bool,
    ) -> Result<bool, ArrowError> {
        let Some(entry) = self.panes.first_entry().filter(|entry| is_over(*entry.key())) else { return Ok(false) };
        let (start, mut pane) = entry.remove_entry();
        if let Some(place) = self.indexed.iter().position(|indexed| *indexed == start) {
            self.indexed.remove(place);
            self.indexes.push(pane.take_index());
        }
        pane.groups.iter().for_each(|group| core.groups.release(*group));
        self.spare = None;
        if pane.groups.len() >= pane.groups.capacity() / SPARE_SHARE {
            pane.groups.clear();
            pane.order.clear();
            pane.arena.clear(&core.setup.measures)?;
            pane.touched = false;
            self.spare = Some(pane);
        }
        Ok(true)
    }
}

/// The first pane of a group in a window, and which of the pane's groups it is.
pub(super) type First = (i64, i64);

/// A window that is over.
pub(super) struct Window<'w> {
    /// Its groups in order of first appearance.
    pub(super) groups: &'w [GroupId],
    /// Where that was; of a worker only.
    pub(super) firsts: Vec<First>,
    pub(super) results: Results<'w>,
}

impl Pane {
    /// The window that is this pane, which begins at `start`.
    pub(super) fn window(&mut self, start: i64) -> Result<Window<'_>, ArrowError> {
        let firsts = self.order.iter().map(|order| (start, *order)).collect();
        Ok(Window { groups: &self.groups, firsts, results: self.arena.results()? })
    }
}

/// Groups in order of first appearance, and their merged state.
pub(super) struct Merged {
    groups: Vec<GroupId>,
    /// Of each group the first pane and the order there; of a worker only.
    firsts: Vec<First>,
    arena: Arena,
    /// The place of a group, by id.
    places: Vec<u32>,
    /// The places of the groups that are being added.
    added: Vec<u32>,
}

impl Merged {
    pub(super) fn new(core: &Core) -> Result<Self, ArrowError> {
        let arena = Arena::new(&core.setup.measures)?;
        Ok(Self { groups: Vec::new(), firsts: Vec::new(), arena, places: Vec::new(), added: Vec::new() })
    }

    /// The window that is these panes, by start; of some groups only, where they are given.
    pub(super) fn window<'p>(
        &mut self,
        core: &Core,
        panes: impl Iterator<Item = (&'p i64, &'p mut Pane)>,
        only: Option<&[GroupId]>,
    ) -> Result<Window<'_>, ArrowError> {
        self.clear(core)?;
        for (start, pane) in panes {
            match only {
                None => self.add(core, *start, pane)?,
                Some(only) => self.add_some(core, pane, only)?,
            }
        }
        Ok(Window { groups: &self.groups, firsts: self.firsts.clone(), results: self.arena.results()? })
    }

    fn clear(&mut self, core: &Core) -> Result<(), ArrowError> {
        self.groups.drain(..).for_each(|group| self.places[group as usize] = NONE);
        self.firsts.clear();
        self.arena.clear(&core.setup.measures)
    }

    /// Merges all groups of a pane.
    fn add(&mut self, core: &Core, start: i64, pane: &mut Pane) -> Result<(), ArrowError> {
        self.place(core, &pane.groups);
        if core.is_worker {
            for (slot, place) in self.added.iter().enumerate() {
                if *place as usize == self.firsts.len() {
                    self.firsts.push((start, pane.order_of(slot)));
                }
            }
        }
        self.arena.merge_from(&self.added, &mut pane.arena)
    }

    /// Merges some groups of a pane, in order of first appearance.
    fn add_some(&mut self, core: &Core, pane: &mut Pane, only: &[GroupId]) -> Result<(), ArrowError> {
        let mut slots: Vec<u32> = only.iter().filter_map(|id| pane.slot(*id)).collect();
        slots.sort_unstable();
        let groups: Vec<GroupId> = slots.iter().map(|slot| pane.groups[*slot as usize]).collect();
        self.place(core, &groups);
        self.arena.merge_some(&self.added, &mut pane.arena, &slots)
    }

    fn place(&mut self, core: &Core, groups: &[GroupId]) {
        if self.places.len() < core.groups.ids_len() {
            self.places.resize(core.groups.ids_len(), NONE);
        }
        self.added.clear();
        self.added.extend(groups.iter().map(|group| {
            let place = &mut self.places[*group as usize];
            if *place == NONE {
                *place = u32::try_from(self.groups.len()).expect("as many as groups");
                self.groups.push(*group);
            }
            *place
        }));
        self.arena.len = self.groups.len();
    }
}
