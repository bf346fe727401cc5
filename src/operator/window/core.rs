//! The window operator, whatever its windows are: what is late, what is emitted, how it restarts.

use std::sync::Arc;

use arrow::array::cast::AsArray;
use arrow::array::{ArrayRef, BooleanArray, Int64Array, RecordBatch, TimestampMicrosecondArray};
use arrow::datatypes::{Field, Int64Type, Schema, SchemaRef, TimestampMicrosecondType};
use arrow::error::ArrowError;

use super::clocks::Clocks;
use super::groups::{Groups, OVERFLOW};
use super::measure::Measure;
use super::panes::Panes;
use super::parallel::in_turn::{self, Turn};
use super::parallel::own_name;
use super::sessions::Sessions;
use super::shape::Shape;
use super::state::{clock, restore_clock};
use crate::flow::batch::Batch;
use crate::flow::outbox::{Emit, Port};
use crate::flow::schema::{StreamSchema, timestamp_type};
use crate::flow::state::{Part, Restored};
use crate::flow::time::{Span, Timestamp};
use crate::operator::aggregate::GroupId;
use crate::operator::{Operator, OperatorError};

/// Whose event time closes windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// The stream's watermark, for all groups.
    Stream,
    /// Every group has a watermark of its own: its greatest event time less the stream's `out_of_orderness`, or the
    /// stream's watermark less `group_idle_after` where that is greater.
    Group,
}

/// What becomes of rows behind the watermark. Rows all of whose windows have closed are late, and go to the side output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Late {
    /// A window is emitted once, when it closes: when the watermark has reached its end and `allowed_lateness` more.
    Set,
    /// A window is emitted when the watermark reaches its end, and again, with the next revision, for every row that
    /// comes for it after that, until it closes.
    Update,
}

/// What becomes of rows of new groups beyond `groups_max`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overflow {
    /// The run fails.
    Stop,
    /// They go where late rows go.
    Side,
}

/// All that a window operator needs to know.
#[derive(Clone)]
pub struct Setup {
    /// The rows that it takes.
    pub input: StreamSchema,
    /// The columns that make a group; none for one group of all rows.
    pub group_by: Vec<usize>,
    /// What is computed.
    pub measures: Vec<Measure>,
    /// Where windows lie.
    pub shape: Shape,
    /// Whose event time closes them.
    pub clock: Clock,
    /// How far the watermark of a group may stay behind the stream's, with [`Clock::Group`].
    pub group_idle_after: Span,
    /// How long they stay open after their end.
    pub allowed_lateness: Span,
    /// What becomes of rows after their end.
    pub late: Late,
    /// How many groups there may be at once.
    pub groups_max: usize,
    /// What becomes of rows of more groups.
    pub overflow: Overflow,
    /// How long the key of a group that no window holds is remembered. Nothing that is emitted depends on it.
    pub forget_after: Span,
}

impl Setup {
    /// The rows at the main output: `window_start`, `window_end` (the event time), the group, the aggregates, and with
    /// [`Late::Update`] the `revision`.
    pub fn output(&self) -> StreamSchema {
        let mut fields = vec![
            Field::new("window_start", timestamp_type(), false),
            Field::new("window_end", timestamp_type(), false),
        ];
        fields.extend(self.group_by.iter().map(|index| self.input.columns.field(*index).clone()));
        fields.extend(self.measures.iter().map(Measure::field));
        if self.late == Late::Update {
            fields.push(Field::new("revision", arrow::datatypes::DataType::Int64, false));
        }
        StreamSchema { columns: Arc::new(Schema::new(fields)), time: 1, out_of_orderness: Span::ZERO }
    }

    /// Windows that end at or before this are emitted, when event time is `watermark` and those that end at or before
    /// `closed` take no more rows.
    pub(super) fn fires(&self, watermark: i64, closed: i64) -> i64 {
        match self.late {
            Late::Set => closed,
            Late::Update => watermark,
        }
    }

    /// Windows that end at or before this take no more rows, when event time is `watermark`.
    pub(super) fn closed(&self, watermark: i64) -> i64 {
        Timestamp::from_micros(watermark).minus(self.allowed_lateness).micros()
    }

    /// The least watermark of all groups, when that of the stream is `watermark`. It moves in the steps at which the
    /// watermark comes at a place of its own among the rows, so it is the same in every cut into batches.
    pub(super) fn group_floor(&self, watermark: i64) -> i64 {
        Timestamp::from_micros(watermark).whole_steps().minus(self.group_idle_after).micros()
    }

    /// There are too many groups, and that is a failure.
    pub(super) fn too_many_groups(&self) -> OperatorError {
        OperatorError::Limit(format!("more than {} groups at once (`max_groups`)", self.groups_max))
    }

    /// The watermark of a group that has seen a time.
    pub(super) fn group_watermark(&self, seen: i64) -> i64 {
        Timestamp::from_micros(seen).minus(self.input.out_of_orderness).micros()
    }
}

/// Windows to be emitted, a row each.
#[derive(Default)]
pub(super) struct Fired {
    pub(super) starts: Vec<i64>,
    pub(super) ends: Vec<i64>,
    pub(super) groups: Vec<GroupId>,
    pub(super) revisions: Vec<i64>,
    /// When one operator would emit each of them; of a worker only.
    pub(super) turns: Vec<Turn>,
}

/// What every kind of window has.
pub(super) struct Core {
    pub(super) setup: Setup,
    pub(super) groups: Groups,
    pub(super) watermark: i64,
    /// No group's own watermark counts below this.
    pub(super) group_floor: i64,
    /// The floor that all groups have been brought to, on clocks of their own.
    pub(super) swept: i64,
    /// Windows that end at or before this take no more rows, by the watermark of the stream, or by the floor where
    /// groups have clocks of their own. It never goes back, not even when a restart brings more `allowed_lateness`.
    pub(super) closed: i64,
    /// Windows that end at or before this have been emitted: all of them on the stream's clock, or those of groups that
    /// are at the floor or new.
    pub(super) fired: i64,
    /// How many groups or sessions have begun, to tell which of them is earlier; of a worker, the number of the row after
    /// the last that began one.
    pub(super) begun: i64,
    /// One of several workers, which get the numbers of rows behind their columns.
    pub(super) is_worker: bool,
    /// Groups that are new at the row of this number or later do not fit.
    bound: Option<i64>,
    /// The number of the row that is looked at.
    row: i64,
    output: SchemaRef,
}

/// Why a row is set aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Aside {
    Late,
    /// Its group did not fit.
    Overflown,
}

/// Rows with their groups, none of which has overflown.
pub(super) struct Admitted {
    pub(super) batch: Batch,
    pub(super) ids: Vec<GroupId>,
}

impl Core {
    /// The number of a group or session that begins.
    pub(super) fn begin(&mut self) -> i64 {
        if self.is_worker {
            self.begun = self.begun.max(self.row + 1);
            return self.row;
        }
        self.begun += 1;
        self.begun - 1
    }

    /// The numbers of the rows in the stream; of a worker only.
    pub(super) fn numbers<'b>(&self, batch: &'b RecordBatch) -> Option<&'b [i64]> {
        let numbers = batch.columns().last().filter(|_| self.is_worker)?;
        Some(&**numbers.as_primitive::<Int64Type>().values())
    }

    /// When one operator would emit what the row at hand makes it emit, the least `order` first; of a worker only.
    pub(super) fn turn_of_row(&self, order: i64) -> Turn {
        [self.row, order, 0]
    }

    /// Looks at a row.
    pub(super) fn look_at(&mut self, number: Option<i64>) {
        self.row = number.unwrap_or(0);
    }

    /// Finds the group of every row; true where one does not fit.
    fn intern(&mut self, batch: &Batch, ids: &mut Vec<GroupId>) -> Result<bool, ArrowError> {
        let bound = self.numbers(batch).zip(self.bound);
        let fits = bound.map_or(batch.num_rows(), |(numbers, bound)| numbers.partition_point(|row| *row < bound));
        let mut overflown = false;
        if fits > 0 {
            let fitting = batch.slice(0, fits);
            overflown = self.groups.intern_batch(&fitting, &self.keys(&fitting), ids)?;
        }
        if fits < batch.num_rows() {
            let rest = batch.slice(fits, batch.num_rows() - fits);
            let mut others = Vec::new();
            overflown |= self.groups.intern_known(&rest, &self.keys(&rest), &mut others)?;
            ids.append(&mut others);
        }
        Ok(overflown)
    }

    fn keys(&self, batch: &RecordBatch) -> Vec<ArrayRef> {
        self.setup.group_by.iter().map(|index| batch.column(*index).clone()).collect()
    }

    /// Event times of a batch.
    pub(super) fn times(&self, batch: &RecordBatch) -> TimestampMicrosecondArray {
        batch.column(self.setup.input.time).as_primitive::<TimestampMicrosecondType>().clone()
    }

    /// Finds the group of every row; rows of groups that do not fit are set aside.
    pub(super) fn admit(&mut self, batch: Batch, out: &mut dyn Emit) -> Result<Admitted, OperatorError> {
        let mut ids = Vec::with_capacity(batch.num_rows());
        if !self.intern(&batch, &mut ids)? {
            return Ok(Admitted { batch, ids });
        }
        if self.setup.overflow == Overflow::Stop {
            return Err(self.setup.too_many_groups());
        }
        let batch = self.set_aside(batch, Aside::Overflown, |row| ids[row] == OVERFLOW, out)?;
        ids.retain(|id| *id != OVERFLOW);
        Ok(Admitted { batch, ids })
    }

    /// Sends rows to the side output, and gives back the others.
    pub(super) fn set_aside(
        &self,
        batch: Batch,
        why: Aside,
        aside: impl Fn(usize) -> bool,
        out: &mut dyn Emit,
    ) -> Result<Batch, OperatorError> {
        let aside: BooleanArray = (0..batch.num_rows()).map(|row| Some(aside(row))).collect();
        if aside.true_count() == 0 {
            return Ok(batch);
        }
        let gone = batch.filter(&aside)?;
        let gone = match self.aside_turn(why) {
            Some(turn) => in_turn::aside(&gone, turn)?.into(),
            None => gone,
        };
        out.emit_to(Port::Side, gone)?;
        Ok(batch.filter(&arrow::compute::not(&aside)?)?)
    }

    /// Sends late rows to the side output, and lets go of groups that have no other row. In most batches there are none.
    pub(super) fn set_late_aside(
        &mut self,
        admitted: Admitted,
        late: &[u32],
        out: &mut dyn Emit,
    ) -> Result<(), OperatorError> {
        if late.is_empty() {
            return Ok(());
        }
        late.iter().for_each(|row| self.groups.forget_unheld(admitted.ids[*row as usize]));
        let mut is_late = vec![false; admitted.ids.len()];
        late.iter().for_each(|row| is_late[*row as usize] = true);
        self.set_aside(admitted.batch, Aside::Late, |row| is_late[row], out)?;
        Ok(())
    }

    /// Which of the two kinds of rows one operator would set aside first; of a worker only.
    fn aside_turn(&self, why: Aside) -> Option<i64> {
        // Panes look at times before they look at groups, sessions and clocks of groups after that.
        let late_first = matches!(self.setup.shape, Shape::Grid(_)) && self.setup.clock == Clock::Stream;
        self.is_worker.then_some(i64::from((why == Aside::Late) != late_first))
    }

    /// Emits windows with their results.
    pub(super) fn emit(&self, fired: Fired, results: Vec<ArrayRef>, out: &mut dyn Emit) -> Result<(), OperatorError> {
        if fired.groups.is_empty() {
            return Ok(());
        }
        let time = |micros: Vec<i64>| -> ArrayRef {
            Arc::new(TimestampMicrosecondArray::from(micros).with_data_type(timestamp_type()))
        };
        let mut columns = vec![time(fired.starts), time(fired.ends)];
        columns.extend(self.groups.columns(&fired.groups)?);
        columns.extend(results);
        if self.setup.late == Late::Update {
            columns.push(Arc::new(Int64Array::from(fired.revisions)));
        }
        if self.is_worker {
            debug_assert_eq!(fired.turns.len(), fired.groups.len(), "a turn a row");
            columns.extend(in_turn::columns(&fired.turns));
        }
        Ok(out.emit(RecordBatch::try_new(self.output.clone(), columns)?.into())?)
    }
}

/// How a kind of window keeps its state.
pub(super) trait Engine: Send {
    fn process(&mut self, core: &mut Core, batch: Batch, out: &mut dyn Emit) -> Result<(), OperatorError>;
    /// The core's watermark has moved.
    fn advance(&mut self, core: &mut Core, out: &mut dyn Emit) -> Result<(), OperatorError>;
    /// The parts of its state; the clock has one of its own.
    fn snapshot(&mut self, core: &Core) -> Result<Vec<Part>, OperatorError>;
    /// The core's clock is restored already.
    fn restore(&mut self, core: &mut Core, parts: &[&Restored]) -> Result<(), OperatorError>;
    /// Every part has to be given anew in the next snapshot.
    fn touch(&mut self);
    /// Whether a row is late before anybody looks at its group.
    fn is_late(&self, core: &Core, at: i64) -> bool;
}

/// The operator: aggregates of groups over windows of event time.
pub struct Windows {
    core: Core,
    engine: Box<dyn Engine>,
}

impl Windows {
    /// Without any row yet.
    pub fn new(setup: Setup) -> Result<Self, ArrowError> {
        Self::of(setup, false)
    }

    /// One of several workers: it gets the numbers of rows behind their columns, and gives turns behind its own.
    pub(super) fn worker(setup: Setup) -> Result<Self, ArrowError> {
        Self::of(setup, true)
    }

    fn of(setup: Setup, is_worker: bool) -> Result<Self, ArrowError> {
        let groups = Groups::new(&setup.input.columns, &setup.group_by, setup.groups_max, setup.forget_after)?;
        let engine: Box<dyn Engine> = match (&setup.shape, setup.clock) {
            (Shape::Session { gap }, _) => Box::new(Sessions::new(*gap)),
            (Shape::Grid(grid), Clock::Stream) => {
                Box::new(Panes::new(grid.clone(), setup.shape.representable(), &setup.measures)?)
            }
            (Shape::Grid(grid), Clock::Group) => Box::new(Clocks::new(grid.clone(), setup.shape.representable())),
        };
        let output = setup.output().columns;
        let output = if is_worker { in_turn::schema(&output) } else { output };
        let start = Timestamp::START.micros();
        let closed = setup.closed(start);
        let core = Core {
            setup,
            groups,
            watermark: start,
            group_floor: start,
            swept: start,
            closed,
            fired: start,
            begun: 0,
            is_worker,
            bound: None,
            row: 0,
            output,
        };
        Ok(Self { core, engine })
    }

    /// Groups that are new at the row of this number or later do not fit, until the next call.
    pub(super) fn bound(&mut self, bound: Option<i64>) {
        self.core.bound = bound;
    }

    /// The numbers of the rows that would be the first of new groups.
    pub(super) fn new_groups(&self, batch: &RecordBatch) -> Result<Vec<i64>, OperatorError> {
        let (times, numbers) = (self.core.times(batch), self.core.numbers(batch).unwrap_or_default());
        let is_late = |row: usize| self.engine.is_late(&self.core, times.value(row));
        let new = self.core.groups.probe(batch.num_rows(), &self.core.keys(batch), is_late)?;
        Ok(new.into_iter().map(|row| numbers[row]).collect())
    }

    /// Every part has to be given anew in the next snapshot.
    pub(super) fn touch(&mut self) {
        self.engine.touch();
    }
}

impl Operator for Windows {
    fn process(&mut self, batch: Batch, out: &mut dyn Emit) -> Result<(), OperatorError> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        self.engine.process(&mut self.core, batch, out)?;
        self.core.groups.settle();
        Ok(())
    }

    fn advance(&mut self, watermark: Timestamp, out: &mut dyn Emit) -> Result<(), OperatorError> {
        if watermark.micros() <= self.core.watermark {
            return Ok(());
        }
        let core = &mut self.core;
        core.watermark = watermark.micros();
        core.groups.reach(core.watermark);
        core.group_floor = core.group_floor.max(core.setup.group_floor(core.watermark));
        let least = if core.setup.clock == Clock::Group { core.group_floor } else { core.watermark };
        core.closed = core.closed.max(core.setup.closed(least));
        self.engine.advance(core, out)?;
        core.groups.settle();
        Ok(())
    }

    fn held(&self) -> Option<usize> {
        Some(self.core.groups.counted())
    }

    fn snapshot(&mut self) -> Result<Vec<Part>, OperatorError> {
        let mut parts = vec![clock(&self.core)?];
        parts.extend(self.engine.snapshot(&self.core)?);
        Ok(parts)
    }

    fn restore(&mut self, parts_before: &[Restored]) -> Result<(), OperatorError> {
        let own: Vec<Restored> =
            parts_before.iter().map(|(name, rows)| (own_name(name).to_owned(), rows.clone())).collect();
        let parts = restore_clock(&mut self.core, &own)?;
        self.core.groups.reach(self.core.watermark);
        self.engine.restore(&mut self.core, &parts)?;
        if own.iter().zip(parts_before).any(|(own, before)| own.0 != before.0) {
            // Workers wrote them, by other names.
            self.engine.touch();
        }
        Ok(())
    }
}
