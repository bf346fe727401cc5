//! State for windows that come and go one by one: sessions, and windows of groups with clocks of their own.

use arrow::array::{ArrayRef, UInt32Array};
use arrow::compute::{concat, take};
use arrow::error::ArrowError;

use super::arena::{Arena, Boxed, Partial};
use super::measure::{Inputs, Measure};
use crate::operator::aggregate::GroupId;

/// How many slots a chunk has. A chunk is freed when its last slot is.
const CHUNK_SLOTS: u32 = 1_024;

/// A place for the state of one pane or session of one group.
pub(super) type Slot = u32;

/// No list.
const NONE: u32 = u32::MAX;

/// Some of the slots of a list: those in one chunk.
#[derive(Default)]
struct OfChunk {
    index: u32,
    /// Their rows.
    rows: Vec<u32>,
    /// Their places in the chunk.
    slots: Vec<GroupId>,
}

/// Slots by the chunk that they are in.
#[derive(Default)]
struct ByChunk {
    /// The list of a chunk; in between all [`NONE`].
    places: Vec<u32>,
    /// The first so many are in use; the others are there for their space.
    lists: Vec<OfChunk>,
    lists_len: usize,
}

impl ByChunk {
    fn sort(&mut self, chunks_len: usize, pairs: impl Iterator<Item = (u32, Slot)>) -> &[OfChunk] {
        self.places.resize(chunks_len.max(self.places.len()), NONE);
        self.lists_len = 0;
        for (row, slot) in pairs {
            let index = slot / CHUNK_SLOTS;
            let mut place = self.places[index as usize];
            if place == NONE {
                place = self.begin(index);
            }
            let list = &mut self.lists[place as usize];
            list.rows.push(row);
            list.slots.push(slot % CHUNK_SLOTS);
        }
        let lists = &self.lists[..self.lists_len];
        lists.iter().for_each(|list| self.places[list.index as usize] = NONE);
        lists
    }

    fn begin(&mut self, index: u32) -> u32 {
        if self.lists_len == self.lists.len() {
            self.lists.push(OfChunk::default());
        }
        let list = &mut self.lists[self.lists_len];
        list.index = index;
        list.rows.clear();
        list.slots.clear();
        let place = u32::try_from(self.lists_len).expect("slots are counted in 32 bits");
        self.places[index as usize] = place;
        self.lists_len += 1;
        place
    }
}

/// Slots, in chunks.
#[derive(Default)]
pub(super) struct Slots {
    chunks: Vec<Option<Chunk>>,
    /// The chunk that new slots come from.
    current: Option<u32>,
    /// Places of chunks that are gone.
    free: Vec<u32>,
    sorter: ByChunk,
}

struct Chunk {
    arena: Arena,
    live: u32,
}

impl Slots {
    /// A new slot.
    pub(super) fn take(&mut self, measures: &[Measure]) -> Result<Slot, ArrowError> {
        let index = match self.current {
            Some(index) => index,
            None => self.grow(measures)?,
        };
        let chunk = self.chunks[index as usize].as_mut().expect("the current chunk is there");
        let slot = u32::try_from(chunk.arena.len).expect("at most CHUNK_SLOTS");
        chunk.arena.len += 1;
        chunk.live += 1;
        self.current = (slot + 1 < CHUNK_SLOTS).then_some(index);
        Ok(index * CHUNK_SLOTS + slot)
    }

    fn grow(&mut self, measures: &[Measure]) -> Result<u32, ArrowError> {
        let mut arena = Arena::new(measures)?;
        arena.fused.reserve(CHUNK_SLOTS as usize);
        let chunk = Some(Chunk { arena, live: 0 });
        let index = if let Some(index) = self.free.pop() {
            self.chunks[index as usize] = chunk;
            index
        } else {
            self.chunks.push(chunk);
            u32::try_from(self.chunks.len() - 1).expect("slots are counted in 32 bits")
        };
        self.current = Some(index);
        Ok(index)
    }

    /// Gives slots back.
    pub(super) fn free(&mut self, slots: impl IntoIterator<Item = Slot>) {
        for slot in slots {
            let index = slot / CHUNK_SLOTS;
            let place = &mut self.chunks[index as usize];
            let chunk = place.as_mut().expect("a slot that was taken");
            chunk.live -= 1;
            if chunk.live == 0 && self.current != Some(index) {
                *place = None;
                self.free.push(index);
            }
        }
    }

    /// Folds rows into their slots: of each pair the row's number and its slot.
    pub(super) fn update(&mut self, rows: &[(u32, Slot)], inputs: &Inputs) -> Result<(), ArrowError> {
        let Self { chunks, sorter, .. } = self;
        for list in sorter.sort(chunks.len(), rows.iter().copied()) {
            arena(chunks, list.index).update_some(&list.slots, &list.rows, inputs)?;
        }
        Ok(())
    }

    /// Folds partials into slots, row by row.
    pub(super) fn merge(&mut self, slots: &[Slot], partial: &Partial) -> Result<(), ArrowError> {
        let Self { chunks, sorter, .. } = self;
        for list in sorter.sort(chunks.len(), (0..).zip(slots.iter().copied())) {
            let rows = UInt32Array::from(list.rows.clone());
            let some = |columns: &Vec<ArrayRef>| {
                columns.iter().map(|column| take(column, &rows, None)).collect::<Result<Vec<_>, _>>()
            };
            let partial = partial.iter().map(some).collect::<Result<Vec<_>, _>>()?;
            arena(chunks, list.index).merge(&list.slots, &partial)?;
        }
        Ok(())
    }

    /// What has been folded into some of the slots, in their order.
    pub(super) fn partial_of(&mut self, measures: &[Measure], slots: &[Slot]) -> Result<Partial, ArrowError> {
        let whole = Arena::new(measures)?;
        let mut some = whole.fused.fresh();
        for run in slots.chunk_by(|slot, next| slot / CHUNK_SLOTS == next / CHUNK_SLOTS) {
            let places: Vec<GroupId> = run.iter().map(|slot| slot % CHUNK_SLOTS).collect();
            some.extend(&arena(&mut self.chunks, run[0] / CHUNK_SLOTS).fused, &places);
        }
        whole.whole(&some, self.boxed_of(measures, &whole.boxed, slots)?)
    }

    /// The same of the measures that are not simple.
    fn boxed_of(&mut self, measures: &[Measure], boxed: &Boxed, slots: &[Slot]) -> Result<Partial, ArrowError> {
        if boxed.is_empty() {
            return Ok(Vec::new());
        }
        let Self { chunks, sorter, .. } = self;
        let lists = sorter.sort(chunks.len(), (0..).zip(slots.iter().copied()));
        let mut partials = vec![boxed.no_partial(measures)];
        let mut places = vec![0; slots.len()];
        let positions = lists.iter().flat_map(|list| &list.rows);
        positions.zip(0u32..).for_each(|(position, place)| places[*position as usize] = place);
        for list in lists {
            let arena = arena(chunks, list.index);
            partials.push(arena.boxed.partial_of(arena.len, &list.slots)?);
        }
        let places = UInt32Array::from(places);
        let some = |columns: Vec<ArrayRef>| columns.iter().map(|column| take(column, &places, None)).collect();
        stacked(&partials)?.into_iter().map(some).collect()
    }

    /// The merge of each list of slots, a row a list. The slots of a list are merged in its order, wherever they are:
    /// it is the order in which floats are added, and in which rows of the same time came.
    pub(super) fn merged<'a>(
        &mut self,
        measures: &[Measure],
        lists: impl IntoIterator<Item = &'a [Slot]>,
    ) -> Result<Arena, ArrowError> {
        let mut merged = Arena::new(measures)?;
        let (mut owners, mut slots) = (Vec::new(), Vec::new());
        for (list, owner) in lists.into_iter().zip(0u32..) {
            merged.len += 1;
            slots.extend_from_slice(list);
            owners.resize(slots.len(), owner);
        }
        merged.fused.reserve(merged.len);
        for (slot, owner) in slots.iter().zip(&owners) {
            let from = &arena(&mut self.chunks, slot / CHUNK_SLOTS).fused;
            merged.fused.merge_one(*owner, from, slot % CHUNK_SLOTS);
        }
        let partial = self.boxed_of(measures, &merged.boxed, &slots)?;
        merged.boxed.merge(&owners, merged.len, &partial)?;
        Ok(merged)
    }
}

fn arena(chunks: &mut [Option<Chunk>], index: u32) -> &mut Arena {
    &mut chunks[index as usize].as_mut().expect("a slot that was taken").arena
}

/// Partials, one below the other.
fn stacked(partials: &[Partial]) -> Result<Partial, ArrowError> {
    let first = partials.first().map(Vec::as_slice).unwrap_or_default();
    let column = |measure: usize, column: usize| {
        concat(&partials.iter().map(|partial| partial[measure][column].as_ref()).collect::<Vec<_>>())
    };
    let columns =
        |(measure, columns): (usize, &Vec<ArrayRef>)| (0..columns.len()).map(|at| column(measure, at)).collect();
    first.iter().enumerate().map(columns).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::cast::AsArray;
    use arrow::array::{Int64Array, RecordBatch, TimestampMicrosecondArray};
    use arrow::datatypes::{DataType, Int64Type};

    use super::super::measure::Arg;
    use super::*;
    use crate::operator::aggregate::kernel;

    fn measures() -> Vec<Measure> {
        let measure = |function: &str| Measure {
            name: function.to_owned(),
            factory: kernel(function, &[DataType::Int64], None).unwrap().unwrap(),
            args: vec![Arg::Column(1)],
            filter: None,
        };
        ["first", "last", "sum"].map(measure).into()
    }

    /// Slots in three chunks; in each a value that is the slot, at one and the same time.
    fn slots(measures: &[Measure]) -> Slots {
        let mut slots = Slots::default();
        let len = 2 * CHUNK_SLOTS + 10;
        let rows: Vec<(u32, Slot)> = (0..len).map(|row| (row, slots.take(measures).unwrap())).collect();
        let times: ArrayRef = Arc::new(TimestampMicrosecondArray::from_iter_values(rows.iter().map(|_| 7)));
        let values: ArrayRef = Arc::new(Int64Array::from_iter_values(rows.iter().map(|(_, slot)| i64::from(*slot))));
        let batch = RecordBatch::try_from_iter([("time", times), ("value", values)]).unwrap();
        slots.update(&rows, &Inputs::of(measures, &batch, 0).unwrap()).unwrap();
        slots
    }

    fn finished(mut merged: Arena) -> Vec<ArrayRef> {
        let len = merged.len;
        merged.results().unwrap().of(0..len, &vec![0; len]).unwrap()
    }

    #[test]
    fn slots_are_merged_in_the_order_of_their_list_whatever_chunk_they_are_in() {
        let measures = measures();
        let lists: [&[Slot]; 5] = [&[3], &[2_050, 4, 1_500, 5], &[1_023, 1_024], &[], &[1_024, 1_023]];
        let results = finished(slots(&measures).merged(&measures, lists).unwrap());
        let column = |index: usize| results[index].as_primitive::<Int64Type>().iter().collect::<Vec<_>>();
        // Of rows of one time the first is that of the first slot, and the last that of the last.
        assert_eq!(column(0), [Some(3), Some(2_050), Some(1_023), None, Some(1_024)]);
        assert_eq!(column(1), [Some(3), Some(5), Some(1_024), None, Some(1_023)]);
        assert_eq!(column(2), [Some(3), Some(3_559), Some(2_047), None, Some(2_047)]);
    }

    #[test]
    fn partials_of_slots_come_in_their_order_and_go_back_into_others() {
        let measures = measures();
        let order: Vec<Slot> = vec![2_050, 0, 1_024, 1, 2_049, 1_023];
        let partial = slots(&measures).partial_of(&measures, &order).unwrap();
        let mut others = Slots::default();
        let places: Vec<Slot> = order.iter().map(|_| others.take(&measures).unwrap()).collect();
        others.merge(&places, &partial).unwrap();
        let results = finished(others.merged(&measures, places.chunks(1)).unwrap());
        let values: Vec<i64> = results[2].as_primitive::<Int64Type>().values().to_vec();
        assert_eq!(values, [2_050, 0, 1_024, 1, 2_049, 1_023]);
        assert_eq!(others.partial_of(&measures, &[]).unwrap().concat().len(), 5, "columns without a row");
    }
}
