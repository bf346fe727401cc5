//! A window operator on several threads: `workers = N`.
//!
//! Every worker is a window operator of its own for a range of key groups; it gets the rows of its groups, and every
//! watermark. What comes out is what one operator would emit, to the order of rows: each row comes in with its number in
//! the stream, in a column behind all others, and what a worker emits has behind its columns the turn (`in_turn`) at which one
//! operator would have emitted it. What the workers made of one batch or watermark is put in the order of these turns.
//!
//! So `advance` waits for all workers, and `process` does not: while the workers have a batch the next one is dealt.
//!
//! `max_groups` is for all workers together, and who comes first gets in. As long as all groups of a batch would have
//! room nobody need be asked; else the workers first say which rows are of groups that they do not have, and the rows
//! from the first that has no room on go as those of one operator would.
//!
//! The parts of a snapshot are those of the workers, named after them (`parts`); any number of workers takes them back.

pub(super) mod in_turn;
mod merge;
mod owners;
mod parts;
mod worker;

use std::collections::VecDeque;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, UInt32Array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;

use super::core::{Overflow, Setup};
use crate::flow::batch::Batch;
use crate::flow::outbox::{Emit, Port};
use crate::flow::state::{Part, Restored};
use crate::flow::time::Timestamp;
use crate::operator::{Operator, OperatorError};
use merge::merged;
use owners::Owners;
pub(super) use parts::own_name;
use parts::{named, next_row, shares};
use worker::{Done, Task, Worker};

/// How many workers an operator may have: each has at least four key groups.
pub const WORKERS_MAX: usize = 64;

/// How many batches may be with the workers when another one is taken.
const BATCHES_AHEAD: usize = 1;

/// The column of the rows' numbers in the stream.
const ROW: &str = "row";

/// The columns of a stream with the numbers of its rows behind them.
pub(super) fn numbered(schema: &Schema) -> SchemaRef {
    let row = Field::new(ROW, DataType::Int64, false);
    Arc::new(Schema::new(schema.fields().iter().map(|field| (**field).clone()).chain([row]).collect::<Vec<_>>()))
}

/// A window operator on several threads.
pub struct Parallel {
    /// What each worker is made of.
    setup: Arc<Setup>,
    workers_len: usize,
    /// None before there is something to do: a pipeline that is only checked has no threads.
    workers: Vec<Worker>,
    owners: Owners,
    /// The columns with the rows' numbers, and those that are emitted.
    numbered: SchemaRef,
    output: SchemaRef,
    /// The number of the next row.
    next_row: i64,
    /// How many groups the workers held together when they were asked last, and how many rows they got since.
    held: usize,
    since: usize,
    /// Which workers have a batch each, the oldest batch first.
    ahead: VecDeque<Vec<usize>>,
}

impl Parallel {
    /// So many workers, each with some of the key groups.
    pub fn new(setup: Setup, workers_len: usize) -> Result<Self, ArrowError> {
        // What can be wrong with the setup is wrong without a thread.
        Worker::operator(&Arc::new(setup.clone()))?;
        Ok(Self {
            owners: Owners::new(setup.group_by.clone(), workers_len),
            numbered: numbered(&setup.input.columns),
            output: setup.output().columns,
            setup: Arc::new(setup),
            workers_len,
            workers: Vec::new(),
            next_row: 0,
            held: 0,
            since: 0,
            ahead: VecDeque::new(),
        })
    }

    fn start(&mut self) -> Result<(), OperatorError> {
        while self.workers.len() < self.workers_len {
            self.workers.push(Worker::start(&self.setup, self.workers.len())?);
        }
        Ok(())
    }

    /// Rows with their numbers.
    fn number(&mut self, batch: &Batch) -> Result<Batch, ArrowError> {
        let len = i64::try_from(batch.num_rows()).expect("a batch fits 63 bits");
        let numbers = Int64Array::from_iter_values(self.next_row..self.next_row + len);
        self.next_row += len;
        let columns = batch.columns().iter().cloned().chain([Arc::new(numbers) as ArrayRef]).collect();
        Ok(batch.with_columns(RecordBatch::try_new(self.numbered.clone(), columns)?))
    }

    /// The rows of every worker that has some.
    fn deal(&mut self, batch: &Batch) -> Result<Vec<(usize, Batch)>, ArrowError> {
        let mut rows: Vec<Vec<u32>> = vec![Vec::new(); self.workers_len];
        for (row, owner) in (0u32..).zip(self.owners.of(batch)?) {
            rows[usize::from(*owner)].push(row);
        }
        let mut shares = Vec::new();
        for (worker, rows) in rows.into_iter().enumerate().filter(|(_, rows)| !rows.is_empty()) {
            let all = rows.len() == batch.num_rows();
            shares.push((worker, if all { batch.clone() } else { batch.take(&UInt32Array::from(rows))? }));
        }
        Ok(shares)
    }

    /// Finds out from which row on groups that are new have no room, if that can be at all.
    fn bound(&mut self, shares: &[(usize, Batch)], out: &mut dyn Emit) -> Result<Option<i64>, OperatorError> {
        let rows: usize = shares.iter().map(|(_, batch)| batch.num_rows()).sum();
        if self.held + self.since + rows <= self.setup.groups_max {
            self.since += rows;
            return Ok(None);
        }
        // What they hold now is known when nothing is with them.
        self.collect(0, out)?;
        for (worker, batch) in shares {
            self.workers[*worker].give(Task::Probe(batch.clone()));
        }
        let mut new = Vec::new();
        for (worker, _) in shares {
            new.extend(self.workers[*worker].take()?.new);
        }
        self.held = self.ask_held()?;
        self.since = new.len();
        new.sort_unstable();
        Ok(new.get(self.setup.groups_max.saturating_sub(self.held)).copied())
    }

    fn ask_held(&mut self) -> Result<usize, OperatorError> {
        self.workers.iter().for_each(|worker| worker.give(Task::Held));
        let mut held = 0;
        for worker in &mut self.workers {
            held += worker.take()?.held;
        }
        Ok(held)
    }

    /// Emits what became of batches, until at most so many are left with the workers.
    fn collect(&mut self, left: usize, out: &mut dyn Emit) -> Result<(), OperatorError> {
        while self.ahead.len() > left {
            let workers = self.ahead.pop_front().expect("there are more than `left`");
            self.emit(&workers, out)?;
        }
        Ok(())
    }

    /// Emits what some workers made of the same batch or watermark.
    fn emit(&mut self, workers: &[usize], out: &mut dyn Emit) -> Result<(), OperatorError> {
        let mut done = Vec::with_capacity(workers.len());
        for worker in workers {
            done.push(self.workers[*worker].take()?);
        }
        let side = done.iter_mut().flat_map(|done: &mut Done| done.side.drain(..)).collect();
        if let Some(rows) = merged::<{ in_turn::ASIDE_LEN }>(side, &self.setup.input.columns)? {
            out.emit_to(Port::Side, rows.into())?;
        }
        let main = done.into_iter().flat_map(|done| done.main).collect();
        if let Some(rows) = merged::<{ in_turn::LEN }>(main, &self.output)? {
            out.emit(rows.into())?;
        }
        Ok(())
    }
}

impl Operator for Parallel {
    fn process(&mut self, batch: Batch, out: &mut dyn Emit) -> Result<(), OperatorError> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        self.start()?;
        let batch = self.number(&batch)?;
        let shares = self.deal(&batch)?;
        let bound = self.bound(&shares, out)?;
        if bound.is_some() && self.setup.overflow == Overflow::Stop {
            return Err(self.setup.too_many_groups());
        }
        self.ahead.push_back(shares.iter().map(|(worker, _)| *worker).collect());
        for (worker, batch) in shares {
            self.workers[worker].give(Task::Rows { batch, bound });
        }
        self.collect(BATCHES_AHEAD, out)
    }

    fn held(&self) -> Option<usize> {
        Some(self.workers.iter().map(|worker| worker.held).sum())
    }

    fn advance(&mut self, watermark: Timestamp, out: &mut dyn Emit) -> Result<(), OperatorError> {
        self.start()?;
        self.workers.iter().for_each(|worker| worker.give(Task::Advance(watermark)));
        self.collect(0, out)?;
        self.emit(&(0..self.workers_len).collect::<Vec<_>>(), out)
    }

    fn flush(&mut self, out: &mut dyn Emit) -> Result<(), OperatorError> {
        self.collect(0, out)
    }

    fn snapshot(&mut self) -> Result<Vec<Part>, OperatorError> {
        debug_assert!(self.ahead.is_empty(), "an operator is flushed before a snapshot");
        self.start()?;
        self.workers.iter().for_each(|worker| worker.give(Task::Snapshot));
        let mut parts = Vec::new();
        for worker in 0..self.workers_len {
            parts.extend(named(self.workers[worker].take()?.parts, worker, self.workers_len));
        }
        Ok(parts)
    }

    fn restore(&mut self, parts: &[Restored]) -> Result<(), OperatorError> {
        self.start()?;
        self.next_row = next_row(parts);
        let shares = shares(parts, self.workers_len)?;
        for (worker, (parts, same)) in self.workers.iter().zip(shares) {
            worker.give(Task::Restore { parts, same });
        }
        for worker in &mut self.workers {
            worker.take()?;
        }
        self.held = self.ask_held()?;
        Ok(())
    }
}
