//! The `window` operator: aggregates of groups over windows of event time.
//!
//! A window is half open, `[start, end)`, and closes when the watermark reaches its end and `allowed_lateness` more.
//! What is emitted does not depend on how rows are cut into batches, nor on hash seeds: windows in order of their end,
//! and in a window groups in order of first appearance. The event time of what is emitted is `window_end`; it is
//! emitted before the watermark is passed on, so it is not late downstream (with `clock = "group"` it may be: groups
//! lag behind the stream).
//!
//! [`core`] knows what is late and how to restart; `panes` (tumbling and hopping on the stream's clock, with `sliding`),
//! `clocks` (the same on clocks of groups) and `sessions` keep the state.

mod clocks;
pub mod core;
mod groups;
pub mod measure;
mod panes;
mod pending;
mod sessions;
pub mod shape;
mod sliding;
mod slots;
mod spec;
mod state;

pub use spec::{KIND, MAX_GROUPS};
