//! streamgauge measures rivers of device data without stopping them.
//!
//! ```text
//!  plant.toml ── pipeline::load ──► Plan ── engine::launch ──► threads              (once)
//!
//!  broker ─► Source ═► bridge ═► intake ─► channel ─► operator ─► channel ─► sink ─► Parquet, metrics, broker
//!           └─ tokio ─┘ bounded  └───────── threads, bounded crossbeam channels ──────────┘
//! ```
//!
//! A **stage** is one thread with one inbox and one outbox, and between them a plain synchronous state machine. One
//! type of [message](flow::message::Message) flows, in one direction: rows, or a mark in time (watermark), or a mark of
//! durability (barrier), or the end. Joining and splitting streams, aligning marks, blocking and measuring are done in
//! the inbox and the outbox, once; an operator knows no channel, thread, clock, lock or counter. Backpressure is a
//! blocked `send`.
//!
//! The parts, in the order in which to read them:
//!
//! 1. [`flow`]: what flows, and the pipes. Knows no other folder.
//! 2. [`component`]: how anything named in a pipeline file is found and read.
//! 3. [`disk`]: what must survive a crash needs of a file system.
//! 4. [`ingest`]: the world to the first batch; async code ends here.
//! 5. [`mod@format`]: payloads to rows.
//! 6. [`operator`]: rows to rows; [`operator::window`] is the heart.
//! 7. [`expr`]: SQL text to what can be evaluated, by DataFusion.
//! 8. [`sink`]: rows to the world.
//! 9. [`pipeline`]: a TOML file to a checked plan; opens nothing.
//! 10. [`engine`]: threads, epochs, the end.
//! 11. [`telemetry`]: meters as Prometheus text, the HTTP server.
//! 12. [`cli`]: the command line.
//!
//! Borders, kept by a test: `flow` and `disk` use nothing of ours; components (`ingest format operator sink`) use only `flow`,
//! `component`, `expr` and each other's traits; `pipeline` uses components; only `cli` uses `engine`; `tokio` stands only in
//! `ingest`, the network sinks, `engine` and `telemetry`; no wall clock in `operator`, `format` and `expr`.

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::dbg_macro, clippy::todo))]

pub mod cli;
pub mod component;
pub mod disk;
pub mod engine;
pub mod expr;
pub mod flow;
pub mod format;
pub mod ingest;
pub mod operator;
pub mod pipeline;
pub mod sink;
pub mod telemetry;
