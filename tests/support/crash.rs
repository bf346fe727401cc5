//! Every crash point of what writes to a disk, and what is left after each.

use std::sync::Arc;
use std::thread;

use streamgauge::disk::SharedDisk;
use streamgauge::disk::faulty::{Effect, Fault, FaultyDisk, Operation};
use streamgauge::disk::memory::MemoryDisk;

/// How a run comes to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The process dies: all that it wrote is there.
    Kill,
    /// The power is cut: only what was made durable is there.
    CrashHard,
    /// The power is cut: of what was not made durable, this chance decides.
    Crash(u64),
}

/// What the next process finds.
#[derive(Debug)]
pub struct Left {
    /// The disk.
    pub disk: SharedDisk,
    /// The same, to be crashed again.
    pub memory: MemoryDisk,
    /// What came before.
    pub end: End,
}

/// What is tried at every operation.
#[derive(Clone, Debug)]
pub struct Crashes {
    /// How many power cuts by chance there are at each operation, beside a hard one and a kill.
    pub seeds: u64,
    /// What is wrong with the disk all the time, as [`Fault`]s are written; empty for nothing.
    pub planted: &'static str,
    /// What happens at the operation.
    pub fault: Effect,
    /// Whether it happens at all later operations too. An `Eio` that does is a process that was stopped there.
    pub forever: bool,
}

impl Default for Crashes {
    fn default() -> Self {
        Self { seeds: 20, planted: "", fault: Effect::Eio, forever: true }
    }
}

/// Stops `run` before each of its operations on the disk, and after the last; then comes a kill, or a power cut, a hard
/// one and some by chance, and `check` is given what is left and what `run` gave. `run` must come to its end when the
/// disk fails. What `setup` writes is durable.
pub fn every_crash_point<T>(setup: impl Fn(&SharedDisk), run: impl Fn(&SharedDisk) -> T, check: impl Fn(&Left, &T)) {
    Crashes::default().check(setup, run, check);
}

/// As [`every_crash_point`], but an operation fails once, and `run` may go on as it can before the crash.
pub fn every_fault<T>(
    fault: Effect,
    setup: impl Fn(&SharedDisk),
    run: impl Fn(&SharedDisk) -> T,
    check: impl Fn(&Left, &T),
) {
    Crashes { fault, forever: false, ..Crashes::default() }.check(setup, run, check);
}

impl Crashes {
    /// See [`every_crash_point`]. A check that fails says where.
    pub fn check<T>(&self, setup: impl Fn(&SharedDisk), run: impl Fn(&SharedDisk) -> T, check: impl Fn(&Left, &T)) {
        let ends = [End::Kill, End::CrashHard].into_iter().chain((0..self.seeds).map(End::Crash));
        let total = self.one(None, &setup, &run).1.count();
        assert!(total > 0, "nothing was written");
        for number in 1..=total + 1 {
            let (memory, faulty, result) = self.one(Some(number), &setup, &run);
            for end in ends.clone() {
                let memory = match end {
                    End::Kill => memory.kill(),
                    End::CrashHard => memory.crash_hard(),
                    // Other chances at each operation.
                    End::Crash(seed) => memory.crash(number.wrapping_mul(1_000_003) + seed),
                };
                let told = Told { number, total, end, operations: faulty.operations() };
                check(&Left { disk: Arc::new(memory.clone()), memory, end }, &result);
                drop(told);
            }
        }
    }

    /// One run, with the fault at an operation or nowhere.
    fn one<T>(
        &self,
        at: Option<u64>,
        setup: &impl Fn(&SharedDisk),
        run: &impl Fn(&SharedDisk) -> T,
    ) -> (MemoryDisk, FaultyDisk, T) {
        let memory = MemoryDisk::new();
        let disk: SharedDisk = Arc::new(memory.clone());
        setup(&disk);
        memory.settle();
        let planted = if self.planted.is_empty() { Ok(Vec::new()) } else { Fault::parse_all(self.planted) };
        let last = |at| if self.forever { u64::MAX } else { at };
        let fault = at.map(|at| Fault { effect: self.fault, first: at, last: last(at), scope: None });
        let faulty = FaultyDisk::new(disk, planted.unwrap().into_iter().chain(fault));
        let result = run(&(Arc::new(faulty.clone()) as SharedDisk));
        (memory, faulty, result)
    }
}

/// Tells where a check has failed.
struct Told {
    number: u64,
    total: u64,
    end: End,
    operations: Vec<Operation>,
}

impl Drop for Told {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("at operation {} of {}, then {:?}, of", self.number, self.total, self.end);
            for (number, operation) in (1..).zip(&self.operations) {
                eprintln!("{number:>5} {operation}");
            }
        }
    }
}
