//! The simple functions of all arguments, for many groups at once: `count`, `sum`, `avg`, `min` and `max` of numbers and
//! times.
//!
//! All that is asked of one argument is folded in one pass over its rows, into one cell a slot, which lies in one or two
//! cache lines. Results and partials are those of the functions one by one.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::cast::AsArray;
use arrow::array::{Array, ArrayRef, BooleanArray};
use arrow::buffer::BooleanBuffer;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Decimal128Type, Float64Type, Int64Type, UInt64Type};
use arrow::error::ArrowError;

use super::extreme::Sense;
use super::sum::WIDE;
use super::{GroupId, mask};

mod cell;
mod lane;
#[cfg(test)]
mod tests;

use lane::{Asked, Columns, Lane, Of, lane, whole_column};

/// What is asked of an argument by one measure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Simple {
    /// `count(*)`.
    Rows,
    /// `count(x)`.
    Count,
    /// `sum(x)` over values of this type.
    Sum(DataType),
    /// `avg(x)` over values of this type.
    Mean(DataType),
    /// `min(x)` or `max(x)` over values of this type, which is that of the result.
    Extreme(DataType, Sense),
}

impl Simple {
    /// The type of the argument, where it matters.
    fn input(&self) -> Option<&DataType> {
        match self {
            Self::Rows | Self::Count => None,
            Self::Sum(input) | Self::Mean(input) | Self::Extreme(input, _) => Some(input),
        }
    }

    /// Whether a lane can do it.
    #[must_use]
    pub fn fits(&self) -> bool {
        self.input().is_none_or(|input| lane(input, Asked { sum: true, ..Asked::default() }).is_some())
    }
}

/// One argument of all the measures that take it under the same filter.
#[derive(Debug)]
pub struct Source {
    /// A measure that has the argument and the filter.
    pub measure: usize,
    /// Whether there is a filter.
    pub filtered: bool,
    /// The measures, and what they ask.
    pub asked: Vec<(usize, Simple)>,
}

struct Track {
    source: Source,
    /// The type in which the lane reads the argument.
    input: Option<DataType>,
    lane: Box<dyn Lane>,
}

/// The state of the simple measures.
pub struct Fused {
    tracks: Vec<Track>,
}

impl std::fmt::Debug for Fused {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_list().entries(self.tracks.iter().map(|track| &track.source)).finish()
    }
}

/// The arguments and the filter of a measure, for the rows of a batch.
pub type Argued = (Vec<ArrayRef>, Option<BooleanArray>);

impl Fused {
    /// For these sources; every [`Simple`] in them fits. Rows are counted beside the first argument that has no filter.
    #[must_use]
    pub fn new(mut sources: Vec<Source>) -> Self {
        let is_rows =
            |source: &Source| !source.filtered && source.asked.iter().all(|(_, simple)| *simple == Simple::Rows);
        let is_host =
            |source: &Source| !source.filtered && source.asked.iter().any(|(_, simple)| simple.input().is_some());
        if let (Some(rows), true) = (sources.iter().position(is_rows), sources.iter().any(is_host)) {
            let rows = sources.remove(rows);
            if let Some(host) = sources.iter_mut().find(|source| is_host(source)) {
                host.asked.extend(rows.asked);
            }
        }
        Self { tracks: sources.into_iter().map(Track::new).collect() }
    }

    /// An empty one for the same sources.
    #[must_use]
    pub fn fresh(&self) -> Self {
        let fresh = |track: &Track| Track {
            source: Source {
                measure: track.source.measure,
                filtered: track.source.filtered,
                asked: track.source.asked.clone(),
            },
            input: track.input.clone(),
            lane: track.lane.fresh(),
        };
        Self { tracks: self.tracks.iter().map(fresh).collect() }
    }

    /// Whether there is no measure.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tracks.is_empty()
    }

    /// Grows to so many slots, if there are fewer.
    pub fn reserve(&mut self, len: usize) {
        self.tracks.iter_mut().for_each(|track| track.lane.reserve(len));
    }

    /// Forgets all slots, but not their space.
    pub fn clear(&mut self) {
        self.tracks.iter_mut().for_each(|track| track.lane.clear());
    }

    /// Folds every row into its slot; with `rows`, row `rows[i]` into slot `slots[i]`.
    pub fn update(&mut self, slots: &[GroupId], rows: Option<&[u32]>, measures: &[Argued]) -> Result<(), ArrowError> {
        let rows = rows.map_or(Of::All, Of::Some);
        self.tracks.iter_mut().try_for_each(|track| track.update(slots, rows, measures))
    }

    /// Merges slot `i` of another into slot `slots[i]`.
    pub fn scatter(&mut self, slots: &[GroupId], from: &Self) {
        self.beside(from, |lane, from| lane.scatter(slots, from));
    }

    /// Merges slot `slots[i]` of another into slot `i`.
    pub fn gather(&mut self, from: &Self, slots: &[GroupId]) {
        self.beside(from, |lane, from| lane.gather(from, slots));
    }

    /// Copies slot `i` of another over slot `slots[i]`.
    pub fn put(&mut self, slots: &[GroupId], from: &Self) {
        self.beside(from, |lane, from| lane.put(slots, from));
    }

    /// Adds slots: copies of `slots` of another.
    pub fn extend(&mut self, from: &Self, slots: &[GroupId]) {
        self.beside(from, |lane, from| lane.extend(from, slots));
    }

    /// Merges slot `of` of another into slot `into`.
    pub fn merge_one(&mut self, into: GroupId, from: &Self, of: GroupId) {
        self.beside(from, |lane, from| lane.merge_one(into, from, of));
    }

    fn beside(&mut self, from: &Self, mut each: impl FnMut(&mut dyn Lane, &dyn Lane)) {
        self.tracks.iter_mut().zip(&from.tracks).for_each(|(track, from)| each(&mut *track.lane, &*from.lane));
    }

    /// Merges row `i` of what the functions' partials are into slot `slots[i]`.
    pub fn merge(&mut self, slots: &[GroupId], partial: &[Vec<ArrayRef>]) {
        self.tracks.iter_mut().for_each(|track| track.merge(slots, partial));
    }

    /// Gives `put` what every measure has folded, a row a slot.
    pub fn partial(&self, mut put: impl FnMut(usize, Vec<ArrayRef>)) -> Result<(), ArrowError> {
        for track in &self.tracks {
            track.source.asked.iter().try_for_each(|(measure, simple)| {
                put(*measure, track.partial(simple)?);
                Ok::<_, ArrowError>(())
            })?;
        }
        Ok(())
    }

    /// Gives `put` the result of every measure, a row for each of the slots.
    pub fn finish(&self, slots: Range<usize>, mut put: impl FnMut(usize, ArrayRef)) -> Result<(), ArrowError> {
        for track in &self.tracks {
            track.source.asked.iter().try_for_each(|(measure, simple)| {
                put(*measure, track.finish(slots.clone(), simple)?);
                Ok::<_, ArrowError>(())
            })?;
        }
        Ok(())
    }
}

impl Track {
    fn new(source: Source) -> Self {
        let asks = |what: fn(&Simple) -> bool| source.asked.iter().any(|(_, simple)| what(simple));
        let input = source.asked.iter().find_map(|(_, simple)| simple.input()).cloned();
        let asked = Asked {
            // Rows that are counted by themselves are values of a column without nulls.
            rows: input.is_some() && asks(|simple| *simple == Simple::Rows),
            sum: asks(|simple| matches!(simple, Simple::Sum(_) | Simple::Mean(_))),
            extremes: asks(|simple| matches!(simple, Simple::Extreme(..))),
        };
        let lane = lane(input.as_ref().unwrap_or(&DataType::Null), asked).expect("every function in it fits");
        Self { source, input, lane }
    }

    fn update(&mut self, slots: &[GroupId], rows: Of<'_>, measures: &[Argued]) -> Result<(), ArrowError> {
        let (args, keep) = &measures[self.source.measure];
        let other = |values: &&ArrayRef| self.input.as_ref().is_some_and(|input| input != values.data_type());
        let converted = match (args.first().filter(other), &self.input) {
            (Some(values), Some(input)) => Some(cast(values, input)?),
            _ => None,
        };
        let values = converted.as_ref().or(args.first());
        let nulls = values.and_then(|values| values.logical_nulls());
        let mask: Option<BooleanBuffer> = mask(keep.as_ref(), nulls.as_ref());
        self.lane.fold(slots, rows, values, mask.as_ref());
        Ok(())
    }

    fn merge(&mut self, slots: &[GroupId], partial: &[Vec<ArrayRef>]) {
        let mut columns = Columns::default();
        for (measure, simple) in &self.source.asked {
            let partial = &partial[*measure];
            match simple {
                Simple::Rows if self.input.is_some() => columns.rows = Some(partial[0].as_primitive()),
                Simple::Rows | Simple::Count => columns.counts = Some(partial[0].as_primitive()),
                Simple::Sum(input) if !input.is_floating() => columns.wholes = Some(partial[0].as_primitive()),
                Simple::Sum(_) | Simple::Mean(_) => {
                    columns.floats = Some(partial[0].as_primitive());
                    columns.counts = Some(partial[1].as_primitive());
                }
                Simple::Extreme(_, Sense::Least) => columns.least = Some(&partial[0]),
                Simple::Extreme(_, Sense::Greatest) => columns.greatest = Some(&partial[0]),
            }
        }
        self.lane.merge_columns(slots, &columns);
    }

    fn partial(&self, simple: &Simple) -> Result<Vec<ArrayRef>, ArrowError> {
        let (lane, all) = (&self.lane, 0..self.lane.len());
        Ok(match simple {
            Simple::Sum(input) if !input.is_floating() => {
                let sums = whole_column::<Decimal128Type>(lane.wholes(all.clone()), lane.present(all));
                vec![Arc::new(sums.as_primitive::<Decimal128Type>().clone().with_data_type(WIDE))]
            }
            Simple::Sum(_) | Simple::Mean(_) => vec![
                whole_column::<Float64Type>(lane.floats(all.clone()), None),
                whole_column::<Int64Type>(lane.counts(all), None),
            ],
            Simple::Rows | Simple::Count | Simple::Extreme(..) => vec![self.finish(all, simple)?],
        })
    }

    fn finish(&self, slots: Range<usize>, simple: &Simple) -> Result<ArrayRef, ArrowError> {
        let lane = &self.lane;
        let present = || lane.present(slots.clone());
        Ok(match simple {
            Simple::Rows if self.input.is_some() => whole_column::<Int64Type>(lane.rows(slots), None),
            Simple::Rows | Simple::Count => whole_column::<Int64Type>(lane.counts(slots), None),
            Simple::Sum(input) if input.is_floating() => {
                whole_column::<Float64Type>(lane.floats(slots.clone()), present())
            }
            Simple::Sum(input) if input.is_signed_integer() => {
                whole_column::<Int64Type>(narrow(lane.wholes(slots.clone()))?, present())
            }
            Simple::Sum(_) => whole_column::<UInt64Type>(narrow(lane.wholes(slots.clone()))?, present()),
            Simple::Mean(_) => {
                let means = means(lane.floats(slots.clone()), &lane.counts(slots.clone()));
                whole_column::<Float64Type>(means, present())
            }
            Simple::Extreme(data_type, sense) => lane.extremes(slots, *sense, data_type),
        })
    }
}

fn narrow<T: TryFrom<i128>>(sums: Vec<i128>) -> Result<Vec<T>, ArrowError> {
    let overflow = |sum: i128| ArrowError::ArithmeticOverflow(format!("sum {sum} does not fit 64 bits"));
    sums.into_iter().map(|sum| T::try_from(sum).map_err(|_| overflow(sum))).collect()
}

#[expect(clippy::cast_precision_loss, reason = "a count beyond 2^53 rows is not to be feared")]
fn means(mut sums: Vec<f64>, counts: &[i64]) -> Vec<f64> {
    sums.iter_mut().zip(counts).for_each(|(sum, count)| *sum = if *count > 0 { *sum / *count as f64 } else { 0.0 });
    sums
}
