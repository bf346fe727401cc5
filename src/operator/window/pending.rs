//! Windows that are due, gathered until the rows of a batch have been folded.
//!
//! Clocks of groups move row by row, but rows are folded and windows merged by the batch. That is the same, because no
//! row is folded into a slot of a window that is due: what is due is emitted before a row that comes after it.

use super::core::{Core, Fired};
use super::slots::{Slot, Slots};
use crate::flow::outbox::Emit;
use crate::operator::OperatorError;
use crate::operator::aggregate::GroupId;

/// A window of one group to be emitted.
pub(super) struct Due {
    pub(super) start: i64,
    pub(super) end: i64,
    pub(super) group: GroupId,
    pub(super) revision: i64,
    /// Orders windows of the same place: how early the window began among all.
    pub(super) order: i64,
    /// Where its rows are.
    pub(super) slots: Vec<Slot>,
}

/// What is to be done when the batch has been folded.
#[derive(Default)]
pub(super) struct Pending {
    due: Vec<Due>,
    /// Slots that no window needs any more.
    pub(super) freed: Vec<Slot>,
    /// Groups that are held once less, an entry a time.
    pub(super) released: Vec<GroupId>,
}

impl Pending {
    pub(super) fn is_empty(&self) -> bool {
        self.due.is_empty()
    }

    pub(super) fn push(&mut self, due: Due) {
        self.due.push(due);
    }

    /// Puts windows that are due at the same moment of the stream in order of time.
    pub(super) fn sort(&mut self) {
        self.due.sort_by_key(|due| (due.end, due.start, due.order));
    }

    /// Emits what is due. What is free stays as it is: rows of the batch may still name it.
    pub(super) fn emit(&mut self, core: &mut Core, slots: &mut Slots, out: &mut dyn Emit) -> Result<(), OperatorError> {
        if !self.due.is_empty() {
            let due = std::mem::take(&mut self.due);
            let lists = due.iter().map(|due| due.slots.as_slice());
            let results = slots.merged(&core.setup.measures, lists)?.finish()?;
            let fired = Fired {
                starts: due.iter().map(|due| due.start).collect(),
                ends: due.iter().map(|due| due.end).collect(),
                groups: due.iter().map(|due| due.group).collect(),
                revisions: due.iter().map(|due| due.revision).collect(),
            };
            core.emit(fired, results, out)?;
        }
        Ok(())
    }

    /// Emits what is due, and frees what is free.
    pub(super) fn flush(
        &mut self,
        core: &mut Core,
        slots: &mut Slots,
        out: &mut dyn Emit,
    ) -> Result<(), OperatorError> {
        self.emit(core, slots, out)?;
        slots.free(self.freed.drain(..));
        self.released.drain(..).for_each(|group| core.groups.release(group));
        Ok(())
    }
}
