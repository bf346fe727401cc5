//! Syncs beside the keeper: a group is put together while the one before it is being made durable.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use crate::disk::{DiskFile, planted};
use crate::ingest::journal::is_full;

/// What is to be made durable.
pub(super) struct Job {
    pub(super) file: Arc<dyn DiskFile>,
    /// What is written over which place then. It need not be durable itself: it speaks of what is before it.
    pub(super) mark: Option<(Vec<u8>, u64)>,
}

/// Why it was not.
#[derive(Debug)]
pub(super) enum Failed {
    /// Nobody knows what is on the disk: that is never tried again.
    Sync(std::io::Error),
    Mark(std::io::Error),
}

/// How it ended, and how long it took.
pub(super) type Ended = (Result<(), Failed>, Duration);

/// A thread that syncs, one job after the other, of which there is one at most at any time.
pub(super) struct Syncing {
    /// `None` once nothing more will come.
    jobs: Option<mpsc::UnboundedSender<Job>>,
    ended: mpsc::UnboundedReceiver<Ended>,
    thread: Option<JoinHandle<()>>,
    is_busy: bool,
}

impl Syncing {
    pub(super) fn begin() -> std::io::Result<Self> {
        let (jobs, mut take) = mpsc::unbounded_channel::<Job>();
        let (tell, ended) = mpsc::unbounded_channel();
        let run = move || {
            while let Some(job) = take.blocking_recv() {
                let started = Instant::now();
                let result = job.run();
                if tell.send((result, started.elapsed())).is_err() {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name("journal sync".to_owned()).spawn(run)?;
        Ok(Self { jobs: Some(jobs), ended, thread: Some(thread), is_busy: false })
    }

    pub(super) const fn is_busy(&self) -> bool {
        self.is_busy
    }

    /// Begins a job; none is on its way.
    pub(super) fn give(&mut self, job: Job) {
        debug_assert!(!self.is_busy, "there is one job at most");
        // Where the thread is gone, who waits for the end hears of it.
        let _ = self.jobs.as_ref().map(|jobs| jobs.send(job));
        self.is_busy = true;
    }

    /// How the job ended, if it has.
    pub(super) fn poll(&mut self) -> Option<Ended> {
        let ended = self.ended.try_recv().ok();
        self.is_busy &= ended.is_none();
        ended
    }

    /// Waits for the end of the job, if there is one. May be dropped on the way.
    pub(super) async fn wait(&mut self) -> Option<Ended> {
        if !self.is_busy {
            return None;
        }
        let ended = self.ended.recv().await;
        self.is_busy = false;
        Some(ended.unwrap_or_else(gone))
    }

    /// The same, on this thread.
    pub(super) fn finish(&mut self) -> Option<Ended> {
        let ended = self.is_busy.then(|| self.ended.blocking_recv().unwrap_or_else(gone));
        self.is_busy = false;
        ended
    }
}

/// The thread has panicked.
fn gone() -> Ended {
    (Err(Failed::Sync(std::io::Error::other("the thread that syncs is gone"))), Duration::ZERO)
}

impl Job {
    fn run(self) -> Result<(), Failed> {
        if !planted("no-fsync") {
            self.file.sync().map_err(Failed::Sync)?;
        }
        let Some((mark, at)) = self.mark else { return Ok(()) };
        match self.file.write_at(&mark, at) {
            // It can be done without.
            Err(why) if !is_full(&why) => Err(Failed::Mark(why)),
            _ => Ok(()),
        }
    }
}

impl Drop for Syncing {
    /// Nothing is written any more once it is gone.
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    /// A sync of it is the end of its thread.
    #[derive(Debug)]
    struct Broken;

    impl DiskFile for Broken {
        fn read_at(&self, _: &mut [u8], _: u64) -> io::Result<usize> {
            Ok(0)
        }

        fn write_at(&self, _: &[u8], _: u64) -> io::Result<()> {
            Ok(())
        }

        fn set_len(&self, _: u64) -> io::Result<()> {
            Ok(())
        }

        fn sync(&self) -> io::Result<()> {
            panic!("as planned")
        }
    }

    #[test]
    fn without_a_thread_nothing_is_durable() {
        let mut syncing = Syncing::begin().unwrap();
        for _ in 0..2 {
            syncing.give(Job { file: Arc::new(Broken), mark: None });
            assert!(syncing.is_busy());
            let ended = syncing.finish();
            assert!(matches!(ended, Some((Err(Failed::Sync(_)), _))), "{ended:?}");
        }
    }
}
