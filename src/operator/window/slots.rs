//! State for windows that come and go one by one: sessions, and windows of groups with clocks of their own.

use arrow::array::{ArrayRef, UInt32Array};
use arrow::compute::{concat, take};
use arrow::error::ArrowError;

use super::measure::{Arena, Inputs, Measure, no_partial};

/// How many slots a chunk has. A chunk is freed when its last slot is.
const CHUNK_SLOTS: u32 = 1_024;

/// A place for the state of one pane or session of one group.
pub(super) type Slot = u32;

/// Some of the slots of a list: those in one chunk.
struct OfChunk {
    index: u32,
    /// Their positions in the list.
    positions: Vec<u32>,
    /// Their places in the chunk.
    slots: Vec<u32>,
}

/// Slots, in chunks.
#[derive(Default)]
pub(super) struct Slots {
    chunks: Vec<Option<Chunk>>,
    /// The chunk that new slots come from.
    current: Option<u32>,
    /// Places of chunks that are gone.
    free: Vec<u32>,
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
        let chunk = Some(Chunk { arena: Arena::new(measures)?, live: 0 });
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

    /// Slots by the chunk that they are in.
    fn by_chunk(&self, slots: impl Iterator<Item = Slot>) -> Vec<OfChunk> {
        let mut chunks: Vec<OfChunk> = Vec::new();
        let mut places = vec![None; self.chunks.len()];
        for (position, slot) in (0u32..).zip(slots) {
            let index = slot / CHUNK_SLOTS;
            let place = *places[index as usize].get_or_insert_with(|| {
                chunks.push(OfChunk { index, positions: Vec::new(), slots: Vec::new() });
                chunks.len() - 1
            });
            chunks[place].positions.push(position);
            chunks[place].slots.push(slot % CHUNK_SLOTS);
        }
        chunks
    }

    /// Folds rows into their slots: of each pair the row's number and its slot.
    pub(super) fn update(&mut self, rows: &[(u32, Slot)], inputs: &Inputs) -> Result<(), ArrowError> {
        for chunk in self.by_chunk(rows.iter().map(|(_, slot)| *slot)) {
            let arena = self.arena(chunk.index);
            if chunk.slots.len() == inputs.len() {
                // All rows of the batch, in order.
                arena.update(&chunk.slots, inputs)?;
                continue;
            }
            let rows = UInt32Array::from_iter_values(chunk.positions.iter().map(|position| rows[*position as usize].0));
            arena.update(&chunk.slots, &inputs.take(&rows)?)?;
        }
        Ok(())
    }

    /// Folds partials into slots, row by row.
    pub(super) fn merge(&mut self, slots: &[Slot], partial: &[Vec<ArrayRef>]) -> Result<(), ArrowError> {
        for chunk in self.by_chunk(slots.iter().copied()) {
            let rows = UInt32Array::from(chunk.positions);
            let some = |columns: &Vec<ArrayRef>| {
                columns.iter().map(|column| take(column, &rows, None)).collect::<Result<Vec<_>, _>>()
            };
            let partial = partial.iter().map(some).collect::<Result<Vec<_>, _>>()?;
            self.arena(chunk.index).merge(&chunk.slots, &partial)?;
        }
        Ok(())
    }

    /// What has been folded into some of the slots, in their order.
    pub(super) fn partial_of(
        &mut self,
        measures: &[Measure],
        slots: &[Slot],
    ) -> Result<Vec<Vec<ArrayRef>>, ArrowError> {
        let chunks = self.by_chunk(slots.iter().copied());
        let [one] = chunks.as_slice() else {
            let mut partials = vec![no_partial(measures)];
            let mut places = vec![0; slots.len()];
            let positions = chunks.iter().flat_map(|chunk| &chunk.positions);
            positions.zip(0u32..).for_each(|(position, place)| places[*position as usize] = place);
            for chunk in &chunks {
                partials.push(self.arena(chunk.index).partial_of(&chunk.slots)?);
            }
            let places = UInt32Array::from(places);
            let some = |columns: Vec<ArrayRef>| columns.iter().map(|column| take(column, &places, None)).collect();
            return stacked(&partials)?.into_iter().map(some).collect();
        };
        self.arena(one.index).partial_of(&one.slots)
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
        if !slots.is_empty() {
            merged.merge(&owners, &self.partial_of(measures, &slots)?)?;
        }
        Ok(merged)
    }

    fn arena(&mut self, index: u32) -> &mut Arena {
        &mut self.chunks[index as usize].as_mut().expect("a slot that was taken").arena
    }
}

/// Partials, one below the other.
fn stacked(partials: &[Vec<Vec<ArrayRef>>]) -> Result<Vec<Vec<ArrayRef>>, ArrowError> {
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

    #[test]
    fn slots_are_merged_in_the_order_of_their_list_whatever_chunk_they_are_in() {
        let measures = measures();
        let lists: [&[Slot]; 5] = [&[3], &[2_050, 4, 1_500, 5], &[1_023, 1_024], &[], &[1_024, 1_023]];
        let results = slots(&measures).merged(&measures, lists).unwrap().finish().unwrap();
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
        let results = others.merged(&measures, places.chunks(1)).unwrap().finish().unwrap();
        let values: Vec<i64> = results[2].as_primitive::<Int64Type>().values().to_vec();
        assert_eq!(values, [2_050, 0, 1_024, 1, 2_049, 1_023]);
        assert_eq!(others.partial_of(&measures, &[]).unwrap().concat().len(), 5, "columns without a row");
    }
}
