//! The state of all measures for many groups: that of the simple ones side by side, and beside it that of the others.

use std::ops::Range;

use arrow::array::{ArrayRef, UInt32Array, new_empty_array};
use arrow::compute::take;
use arrow::error::ArrowError;

use super::measure::{Inputs, Measure};
use crate::operator::aggregate::fused::{Fused, Source};
use crate::operator::aggregate::{Aggregate, GroupId};

/// How many rows of a window are emitted at once. Their columns fit a core's own cache, and the allocator has the space of
/// those before them.
pub(super) const EMITTED_ROWS: usize = 1 << 13;

/// What measures have folded: a list of columns each.
pub(super) type Partial = Vec<Vec<ArrayRef>>;

/// The state of every measure for many groups; which group has which slot is the owner's to know.
pub(super) struct Arena {
    pub(super) fused: Fused,
    pub(super) boxed: Boxed,
    measures_len: usize,
    /// How many slots there are.
    pub(super) len: usize,
}

/// The state of the measures that are not simple.
pub(super) struct Boxed {
    /// With the numbers of their measures.
    aggregates: Vec<(usize, Box<dyn Aggregate>)>,
}

/// The simple measures, by what they fold.
pub(super) fn fused(measures: &[Measure]) -> Fused {
    let mut sources: Vec<Source> = Vec::new();
    for (index, measure) in measures.iter().enumerate() {
        let Some(simple) = measure.factory.simple() else { continue };
        let asked = (index, simple.clone());
        match sources.iter_mut().find(|source| measures[source.measure].has_source_of(measure)) {
            Some(source) => source.asked.push(asked),
            None => sources.push(Source { measure: index, filtered: measure.filter.is_some(), asked: vec![asked] }),
        }
    }
    Fused::new(sources)
}

impl Boxed {
    pub(super) fn new(measures: &[Measure]) -> Result<Self, ArrowError> {
        let others = measures.iter().enumerate().filter(|(_, measure)| measure.factory.simple().is_none());
        let create = |(index, measure): (usize, &Measure)| Ok::<_, ArrowError>((index, measure.factory.create()?));
        Ok(Self { aggregates: others.map(create).collect::<Result<_, _>>()? })
    }

    /// Whether all measures are simple.
    pub(super) fn is_empty(&self) -> bool {
        self.aggregates.is_empty()
    }

    fn update(&mut self, slots: &[GroupId], len: usize, inputs: &Inputs) -> Result<(), ArrowError> {
        for (index, aggregate) in &mut self.aggregates {
            let (args, keep) = &inputs.measures[*index];
            aggregate.update(slots, len, args, keep.as_ref(), inputs.times.values())?;
        }
        Ok(())
    }

    /// Folds row `r` of a partial of these measures into slot `slots[r]` of `len`.
    pub(super) fn merge(&mut self, slots: &[GroupId], len: usize, partial: &Partial) -> Result<(), ArrowError> {
        let mut pairs = self.aggregates.iter_mut().zip(partial);
        pairs.try_for_each(|((_, aggregate), columns)| aggregate.merge(slots, len, columns))
    }

    /// What these measures have folded, a row a slot.
    pub(super) fn partial(&mut self, len: usize) -> Result<Partial, ArrowError> {
        self.aggregates.iter_mut().map(|(_, aggregate)| aggregate.partial(len)).collect()
    }

    /// The same of some of the slots, in their order.
    pub(super) fn partial_of(&mut self, len: usize, slots: &[GroupId]) -> Result<Partial, ArrowError> {
        if self.is_empty() {
            return Ok(Vec::new());
        }
        let slots = UInt32Array::from(slots.to_vec());
        let some = |columns: Vec<ArrayRef>| columns.iter().map(|column| take(column, &slots, None)).collect();
        self.partial(len)?.into_iter().map(some).collect()
    }

    /// The columns of a partial of these measures, without a row.
    pub(super) fn no_partial(&self, measures: &[Measure]) -> Partial {
        let empty = |(index, _): &(usize, _)| {
            let fields = measures[*index].factory.partial();
            fields.iter().map(|field| new_empty_array(field.data_type())).collect()
        };
        self.aggregates.iter().map(empty).collect()
    }

    /// Gives `put` the result of every one of these measures, a row a slot.
    pub(super) fn finish(&mut self, len: usize, mut put: impl FnMut(usize, ArrayRef)) -> Result<(), ArrowError> {
        for (index, aggregate) in &mut self.aggregates {
            put(*index, aggregate.finish(len)?);
        }
        Ok(())
    }
}

impl Arena {
    pub(super) fn new(measures: &[Measure]) -> Result<Self, ArrowError> {
        Ok(Self { fused: fused(measures), boxed: Boxed::new(measures)?, measures_len: measures.len(), len: 0 })
    }

    /// Without a slot again, but with its space.
    pub(super) fn clear(&mut self, measures: &[Measure]) -> Result<(), ArrowError> {
        self.fused.clear();
        if !self.boxed.is_empty() {
            self.boxed = Boxed::new(measures)?;
        }
        self.len = 0;
        Ok(())
    }

    /// Folds row `r` into slot `slots[r]`.
    pub(super) fn update(&mut self, slots: &[GroupId], inputs: &Inputs) -> Result<(), ArrowError> {
        self.fused.reserve(self.len);
        self.fused.update(slots, None, &inputs.measures)?;
        self.boxed.update(slots, self.len, inputs)
    }

    /// Folds row `rows[i]` into slot `slots[i]`.
    pub(super) fn update_some(&mut self, slots: &[GroupId], rows: &[u32], inputs: &Inputs) -> Result<(), ArrowError> {
        self.fused.reserve(self.len);
        self.fused.update(slots, Some(rows), &inputs.measures)?;
        if self.boxed.is_empty() {
            return Ok(());
        }
        self.boxed.update(slots, self.len, &inputs.take(&UInt32Array::from(rows.to_vec()))?)
    }

    /// Folds row `r` of a partial into slot `slots[r]`.
    pub(super) fn merge(&mut self, slots: &[GroupId], partial: &Partial) -> Result<(), ArrowError> {
        self.fused.reserve(self.len);
        self.fused.merge(slots, partial);
        let of_boxed: Partial = self.boxed.aggregates.iter().map(|(index, _)| partial[*index].clone()).collect();
        self.boxed.merge(slots, self.len, &of_boxed)
    }

    /// Folds slot `i` of another into slot `slots[i]`.
    pub(super) fn merge_from(&mut self, slots: &[GroupId], other: &mut Self) -> Result<(), ArrowError> {
        self.fused.reserve(self.len);
        other.fused.reserve(other.len);
        self.fused.scatter(slots, &other.fused);
        let partial = other.boxed.partial(other.len)?;
        self.boxed.merge(slots, self.len, &partial)
    }

    /// Folds slot `of[i]` of another into slot `slots[i]`.
    pub(super) fn merge_some(&mut self, slots: &[GroupId], other: &mut Self, of: &[GroupId]) -> Result<(), ArrowError> {
        self.fused.reserve(self.len);
        other.fused.reserve(other.len);
        slots.iter().zip(of).for_each(|(slot, of)| self.fused.merge_one(*slot, &other.fused, *of));
        let partial = other.boxed.partial_of(other.len, of)?;
        self.boxed.merge(slots, self.len, &partial)
    }

    /// What has been folded, a row a slot.
    pub(super) fn partial(&mut self) -> Result<Partial, ArrowError> {
        self.fused.reserve(self.len);
        let boxed = self.boxed.partial(self.len)?;
        self.whole(&self.fused, boxed)
    }

    /// The partials of all measures, those of `boxed` and those of simple ones.
    pub(super) fn whole(&self, fused: &Fused, boxed: Partial) -> Result<Partial, ArrowError> {
        let mut partial = vec![Vec::new(); self.measures_len];
        self.boxed.aggregates.iter().zip(boxed).for_each(|((index, _), columns)| partial[*index] = columns);
        fused.partial(|index, columns| partial[index] = columns)?;
        Ok(partial)
    }

    /// The results, a row a slot.
    pub(super) fn results(&mut self) -> Result<Results<'_>, ArrowError> {
        self.fused.reserve(self.len);
        Results::new(self.measures_len, Cells::InPlace(&self.fused), &mut self.boxed, self.len)
    }
}

/// Where the results of simple measures come from.
pub(super) enum Cells<'w> {
    /// A row a slot.
    InPlace(&'w Fused),
    /// A row a group: what it has in one, and after that in the other, both by id.
    Merged {
        /// For the merges of the rows at hand.
        rows: &'w mut Fused,
        one: &'w Fused,
        other: &'w Fused,
    },
}

/// The results of a window, to be had some rows at a time: what they take is used again by the next.
pub(super) struct Results<'w> {
    measures_len: usize,
    cells: Cells<'w>,
    /// Those of the measures that are not simple, of all rows.
    boxed: Vec<(usize, ArrayRef)>,
}

impl<'w> Results<'w> {
    /// Of `len` rows.
    pub(super) fn new(
        measures_len: usize,
        cells: Cells<'w>,
        boxed: &mut Boxed,
        len: usize,
    ) -> Result<Self, ArrowError> {
        let mut columns = Vec::new();
        boxed.finish(len, |index, column| columns.push((index, column)))?;
        Ok(Self { measures_len, cells, boxed: columns })
    }

    /// The results of all measures, in their order, for these of the rows, which are of these groups.
    pub(super) fn of(&mut self, rows: Range<usize>, groups: &[GroupId]) -> Result<Vec<ArrayRef>, ArrowError> {
        let mut results: Vec<Option<ArrayRef>> = vec![None; self.measures_len];
        let mut put = |index: usize, column| results[index] = Some(column);
        match &mut self.cells {
            Cells::InPlace(cells) => cells.finish(rows.clone(), &mut put)?,
            Cells::Merged { rows, one, other } => {
                rows.clear();
                rows.extend(one, groups);
                rows.gather(other, groups);
                rows.finish(0..groups.len(), &mut put)?;
            }
        }
        self.boxed.iter().for_each(|(index, column)| put(*index, column.slice(rows.start, rows.len())));
        // Every measure is in one of the two.
        Ok(results.into_iter().flatten().collect())
    }
}

/// So many rows, in the parts in which windows are emitted.
pub(super) fn parts(len: usize) -> impl Iterator<Item = Range<usize>> {
    (0..len).step_by(EMITTED_ROWS).map(move |start| start..len.min(start + EMITTED_ROWS))
}
