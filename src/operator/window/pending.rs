//! Windows that are due, gathered until the rows of a batch have been folded.
//!
//! Clocks of groups move row by row, but rows are folded and windows merged by the batch. That is the same, because no
//! row is folded into a slot of a window that is due: what is due is emitted before a row that comes after it.

use super::arena::parts;
use super::core::{Core, Fired};
use super::parallel::in_turn::Turn;
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
    /// When one operator would emit each of `due`, where rows make them due; of a worker only.
    turns: Vec<Turn>,
    /// How many were due in this batch.
    count: i64,
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

    /// What has become due since the last call was made so by the row at hand.
    pub(super) fn by_row(&mut self, core: &Core) {
        while core.is_worker && self.turns.len() < self.due.len() {
            self.turns.push(core.turn_of_row(self.count));
            self.count += 1;
        }
    }

    /// Puts windows that are due at the same moment of the stream in order of time.
    pub(super) fn sort(&mut self) {
        self.due.sort_by_key(|due| (due.end, due.start, due.order));
    }

    /// Emits what is due. What is free stays as it is: rows of the batch may still name it.
    pub(super) fn emit(&mut self, core: &mut Core, slots: &mut Slots, out: &mut dyn Emit) -> Result<(), OperatorError> {
        if !self.due.is_empty() {
            let due = std::mem::take(&mut self.due);
            let mut turns = std::mem::take(&mut self.turns);
            if core.is_worker && turns.is_empty() {
                turns.extend(due.iter().map(|due| [due.end, due.start, due.order]));
            }
            for part in parts(due.len()) {
                let turns = turns.get(part.clone()).unwrap_or_default().to_vec();
                let due = &due[part];
                let lists = due.iter().map(|due| due.slots.as_slice());
                let mut merged = slots.merged(&core.setup.measures, lists)?;
                let fired = Fired {
                    starts: due.iter().map(|due| due.start).collect(),
                    ends: due.iter().map(|due| due.end).collect(),
                    groups: due.iter().map(|due| due.group).collect(),
                    revisions: due.iter().map(|due| due.revision).collect(),
                    turns,
                };
                let results = merged.results()?.of(0..due.len(), &fired.groups)?;
                core.emit(fired, results, out)?;
            }
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
