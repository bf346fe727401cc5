//! The state of groups that live one by one, in parts by key group: only those parts are given again whose groups have
//! changed.

use std::collections::BTreeSet;

use arrow::array::RecordBatch;

use super::core::Core;
use super::state::{Layout, Table};
use crate::flow::state::{Part, Restored};
use crate::operator::OperatorError;
use crate::operator::aggregate::GroupId;
use crate::operator::key_group::KEY_GROUPS;

/// How many ranges of key groups have parts of their own.
pub(super) const RANGES: usize = 16;

/// Which range a key group is in.
pub(super) fn range_of(key_group: u8) -> usize {
    usize::from(key_group) / (KEY_GROUPS / RANGES)
}

/// One range.
#[derive(Default)]
struct Range {
    /// A group in it has changed since the snapshot before.
    touched: bool,
    /// The parts that it had there.
    parts: BTreeSet<String>,
}

/// All of them, by number.
#[derive(Default)]
pub(super) struct Ranges {
    ranges: [Range; RANGES],
}

impl Ranges {
    /// Something about a group has changed.
    pub(super) fn touch(&mut self, core: &Core, id: GroupId) {
        self.ranges[range_of(core.groups.key_group(id))].touched = true;
    }

    /// Everything has to be written anew.
    pub(super) fn touch_all(&mut self) {
        self.ranges.iter_mut().for_each(|range| range.touched = true);
    }

    /// The groups of every range that has changed, out of all that there are.
    pub(super) fn changed(&self, core: &Core, ids: impl Iterator<Item = GroupId>) -> Vec<Vec<GroupId>> {
        let mut changed = vec![Vec::new(); RANGES];
        for id in ids {
            let range = range_of(core.groups.key_group(id));
            if self.ranges[range].touched {
                changed[range].push(id);
            }
        }
        changed
    }

    /// The parts of all ranges; `write` gives those of a range that has changed, without empty ones.
    pub(super) fn parts(
        &mut self,
        mut write: impl FnMut(usize) -> Result<Vec<(String, RecordBatch)>, OperatorError>,
    ) -> Result<Vec<Part>, OperatorError> {
        let mut parts = Vec::new();
        for (number, range) in self.ranges.iter_mut().enumerate() {
            if !range.touched {
                parts.extend(range.parts.iter().map(Part::same));
                continue;
            }
            let written = write(number)?;
            range.parts = written.iter().map(|(name, _)| name.clone()).collect();
            range.touched = false;
            parts.extend(written.into_iter().map(|(name, rows)| Part::changed(name, rows)));
        }
        Ok(parts)
    }

    /// Takes back a part, if it is one of this layout.
    pub(super) fn restore<const N: usize>(
        &mut self,
        core: &mut Core,
        layout: &Layout<N>,
        (name, batch): &Restored,
    ) -> Result<Option<Table<N>>, OperatorError> {
        let Some(number) = layout.number(name) else { return Ok(None) };
        let number = usize::try_from(number).map_err(|_| OperatorError::Stateless)?;
        let range = self.ranges.get_mut(number).ok_or(OperatorError::Stateless)?;
        // Of several workers: what was written is not all that there is.
        range.touched |= !range.parts.insert(name.clone());
        let table = layout.decode(core, batch)?;
        if table.rows.iter().any(|(_, id)| range_of(core.groups.key_group(*id)) != number) {
            return Err(OperatorError::Stateless);
        }
        Ok(Some(table))
    }
}

/// A range's part of a layout; none where it has no row.
pub(super) fn part<const N: usize>(
    core: &Core,
    layout: &Layout<N>,
    range: usize,
    table: Table<N>,
) -> Result<Option<(String, RecordBatch)>, OperatorError> {
    if table.rows.is_empty() {
        return Ok(None);
    }
    let number = i64::try_from(range).expect("there are few ranges");
    Ok(Some((layout.part(number), layout.encode(core, table)?)))
}
