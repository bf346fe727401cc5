//! The same journal gives the same bytes: whatever the batches, the channels, the restarts and the threads, also where
//! streams meet.

#[path = "../support/mod.rs"]
mod support;

mod live;
mod merge;
