//! The `window` operator: aggregates of groups over windows of event time.
//!
//! A window is half open, `[start, end)`, and closes when the watermark reaches its end and `allowed_lateness` more.
//! What is emitted does not depend on how rows are cut into batches, nor on hash seeds: windows in order of their end,
//! and in a window groups in order of first appearance. The event time of what is emitted is `window_end`; it is
//! emitted before the watermark is passed on, so it is not late downstream (with `clock = "group"` it may be: groups
//! lag behind the stream).
//!
//! A row is late when all windows that it is in have closed; in hopping windows it counts in those that are still open.
//! `late = "side"` and `"drop"` emit a window once, when it closes. `"update"` emits it as soon as the watermark reaches
//! its end, and again with the next `revision` after every batch with rows for it until it closes. With
//! `clock = "group"` all of this goes by the group's own watermark, row by row; what the stream's watermark closes then
//! is everything, when the stream is over. Rows whose time no window can represent are late.
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
