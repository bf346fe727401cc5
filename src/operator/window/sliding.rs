//! Hopping windows without merging every pane for every window.
//!
//! Time is cut into blocks as long as a window. A window that begins within a block is a suffix of that block and a
//! prefix of the next. Suffixes are made once a block, from its last pane backwards; the prefix grows with every window:
//! about three merges a window, however many panes it has (van Herk 1992, Gil and Werman 1993).
//!
//! Blocks lie at fixed places in time, so floating point sums are added in the same order whenever they are made anew:
//! after a restart, or after a row came for a pane that was merged already.

use std::collections::BTreeMap;

use arrow::array::ArrayRef;
use arrow::error::ArrowError;

use super::core::Core;
use super::measure::Arena;
use super::panes::{NONE, Pane};
use crate::operator::aggregate::GroupId;

/// From how many panes a window on this is worth it.
pub(super) const PANES_MIN: i64 = 4;

/// Groups in order of first appearance, and their merged state.
pub(super) struct Merged {
    pub(super) groups: Vec<GroupId>,
    pub(super) arena: Arena,
    /// The place of a group, by id.
    places: Vec<u32>,
}

impl Merged {
    pub(super) fn new(core: &Core) -> Result<Self, ArrowError> {
        Ok(Self { groups: Vec::new(), arena: Arena::new(&core.setup.measures)?, places: Vec::new() })
    }

    /// Merges the partials of some groups.
    pub(super) fn add(&mut self, core: &Core, groups: &[GroupId], partial: &[Vec<ArrayRef>]) -> Result<(), ArrowError> {
        if self.places.len() < core.groups.ids_len() {
            self.places.resize(core.groups.ids_len(), NONE);
        }
        let place = |group: &GroupId| {
            let place = &mut self.places[*group as usize];
            if *place == NONE {
                *place = u32::try_from(self.groups.len()).expect("as many as groups");
                self.groups.push(*group);
            }
            *place
        };
        let places: Vec<u32> = groups.iter().map(place).collect();
        self.arena.len = self.groups.len();
        self.arena.merge(&places, partial)
    }
}

/// The panes from `start` to the end of its block.
struct Suffix {
    start: i64,
    groups: Vec<GroupId>,
    partial: Vec<Vec<ArrayRef>>,
}

/// What has been merged of the panes.
pub(super) struct Sliding {
    size: i64,
    offset: i64,
    /// The end of the block that has the suffixes, which begins the block that has the prefix.
    border: Option<i64>,
    /// Of all panes of the block that windows to come need: the last pane first.
    suffixes: Vec<Suffix>,
    /// Of the panes in `[border, until)`.
    prefix: Option<Merged>,
    until: i64,
}

impl Sliding {
    pub(super) fn new(size: i64, offset: i64) -> Self {
        Self { size, offset, border: None, suffixes: Vec::new(), prefix: None, until: i64::MIN }
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
    ) -> Result<Merged, ArrowError> {
        let border = start + self.size - (start - self.offset).rem_euclid(self.size);
        if self.border != Some(border) {
            self.suffixes = Self::suffixes(core, panes, start, border)?;
            self.border = Some(border);
            self.prefix = None;
            self.until = border;
        }
        while self.suffixes.last().is_some_and(|suffix| suffix.start < start) {
            self.suffixes.pop();
        }
        let prefix = match &mut self.prefix {
            Some(prefix) => prefix,
            none => none.insert(Merged::new(core)?),
        };
        for (_, pane) in panes.range_mut(self.until..start + self.size) {
            prefix.add(core, &pane.groups, &pane.arena.partial()?)?;
        }
        self.until = start + self.size;
        let mut window = Merged::new(core)?;
        if let Some(suffix) = self.suffixes.last() {
            window.add(core, &suffix.groups, &suffix.partial)?;
        }
        window.add(core, &prefix.groups, &prefix.arena.partial()?)?;
        Ok(window)
    }

    fn suffixes(
        core: &Core,
        panes: &mut BTreeMap<i64, Pane>,
        start: i64,
        border: i64,
    ) -> Result<Vec<Suffix>, ArrowError> {
        let mut suffixes: Vec<Suffix> = Vec::new();
        for (start, pane) in panes.range_mut(start..border).rev() {
            let mut merged = Merged::new(core)?;
            merged.add(core, &pane.groups, &pane.arena.partial()?)?;
            if let Some(later) = suffixes.last() {
                merged.add(core, &later.groups, &later.partial)?;
            }
            suffixes.push(Suffix { start: *start, groups: merged.groups, partial: merged.arena.partial()? });
        }
        Ok(suffixes)
    }
}
