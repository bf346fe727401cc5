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
//! its end, and again with the next `revision` for every row that comes for it after that, until it closes. Rows whose
//! time no window can represent are late.
//!
//! With `clock = "group"` all of this goes by the group's own watermark, row by row: its greatest event time less the
//! source's `out_of_orderness`. A device that is slow is then not late, as long as it stays less than
//! `group_idle_after` (`"1h"`) behind: a group's watermark is never below the stream's watermark less that. So a group
//! that falls silent gets its windows closed by the others, or by `idle_after` of the source when all are silent, and
//! a group that is behind by more than that and has no open window is forgotten. This floor moves in whole minutes of
//! the stream's watermark ([`Timestamp::whole_steps`](crate::flow::time::Timestamp::whole_steps)).
//!
//! At most `max_groups` groups are held at once, by open windows or by clocks; rows of more are refused
//! (`on_max_groups`). A group that nothing holds any more is remembered until the stream's watermark is `forget_after`
//! on, so that devices which report now and then are not made and dropped with every window. Those do not count, make
//! room when it is needed, the longest silent first, and are not part of checkpoints: nothing that comes out depends on
//! `forget_after`, only memory and speed do.
//!
//! ```toml
//! [operators.by_device]
//! type = "window"
//! inputs = ["telemetry"]
//! window = { tumbling = "1m" }     # { hopping = "5m", every = "1m" }, { session = "30s" }
//! group_by = ["device"]
//! clock = "group"                  # "stream"
//! group_idle_after = "6h"          # with clock = "group" only
//! allowed_lateness = "30s"         # "0s"
//! late = "update"                  # "side", "drop"
//! max_groups = 100_000             # 1_000_000
//! on_max_groups = "side"           # "stop"
//! workers = 4                      # threads that fold rows, each of its own groups; by the number of cores
//! forget_after = "1h"              # "10m"
//! aggregates = { samples = "count(*)", warmest = "max(temp)" }
//! ```
//!
//! [`core`] knows what is late and how to restart; `panes` (tumbling and hopping on the stream's clock, with `pane` and `sliding`),
//! `clocks` (the same on clocks of groups) and `sessions` keep the state, and write it in parts: by pane, or by key group
//! (`ranges`); `state` has the layout of the parts, and `identity` what they depend on.

mod arena;
mod clocks;
pub mod core;
mod groups;
mod identity;
pub mod measure;
mod pane;
mod panes;
pub mod parallel;
mod pending;
mod ranges;
mod sessions;
mod setting;
pub mod shape;
mod sliding;
mod slots;
mod spec;
mod state;

pub use spec::{FORGET_AFTER, GROUP_IDLE_AFTER, KIND, MAX_GROUPS};
