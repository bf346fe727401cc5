//! What the numbers that sources give to keys stand for here.

use super::OVERFLOW;
use crate::flow::batch::Space;
use crate::operator::aggregate::GroupId;

/// What numbers of keys stand for.
pub(super) struct Numbered {
    pub(super) space: Space,
    /// By number: the group's id and its stamp while it counted.
    pub(super) groups: Vec<(GroupId, u32)>,
}

/// What a number that is not known stands for: no group has this stamp.
const STRANGER: (GroupId, u32) = (OVERFLOW, 1);

/// What becomes of a row whose number stands for no group that counts.
pub(super) enum Found {
    /// Its group is remembered.
    Silent(GroupId),
    /// It counts by now.
    Counts(GroupId),
    /// Its key must be looked at.
    Unknown,
}

impl Numbered {
    pub(super) fn get(&self, number: u32) -> (GroupId, u32) {
        self.groups.get(number as usize).copied().unwrap_or(STRANGER)
    }

    pub(super) fn find(&self, number: u32, stamps: &[u32]) -> Found {
        let (id, stamp) = self.get(number);
        match stamps.get(id as usize) {
            Some(now) if *now == stamp => Found::Counts(id),
            Some(now) if *now == stamp & !1 => Found::Silent(id),
            _ => Found::Unknown,
        }
    }

    pub(super) fn learn(&mut self, number: u32, group: (GroupId, u32)) {
        let number = number as usize;
        if self.groups.len() <= number {
            self.groups.resize(number + 1, STRANGER);
        }
        self.groups[number] = group;
    }
}
