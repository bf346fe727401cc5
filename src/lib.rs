//! streamgauge measures rivers of device data without stopping them.
//!
//! ```text
//!  plant.toml ── pipeline::load ──► Plan ── engine::launch ──► threads              (once)
//!
//!  broker ─► Source ═► bridge ═► journal ═► intake ─► channel ─► operator ─► channel ─► sink ─► Parquet, metrics, broker
//!      ◄─ ack ─┘└─ tokio ─┘ bounded └ disk ┘ └───────── threads, bounded crossbeam channels ──────────┘
//!                                    at each barrier: state, place in the journal, files ═► checkpoint ═► visible
//! ```
//!
//! A **stage** is one thread with one inbox and one outbox, and between them a plain synchronous state machine. One
//! type of [message](flow::message::Message) flows, in one direction: rows, or a mark in time (watermark), or a mark of
//! durability (barrier), or the end. Joining and splitting streams, aligning marks, blocking and measuring are done in
//! the inbox and the outbox, once; an operator knows no channel, thread, clock, lock or counter. Backpressure is a
//! blocked `send`.
//!
//! **What survives.** Everything that crosses the bridge (payloads, ticks of the arrival clock, ends of epochs) is in the
//! [journal](ingest::journal) before it is acknowledged, and the stages read only the journal: what they do is a function of it.
//! At a barrier every stage hands over what it leaves; when all have, the [checkpoint](engine::checkpoint) is written, its
//! rename is the commit, and the epoch's files are shown. A restart takes the newest checkpoint up and reads on from its place.
//! Where streams meet, slices of them go in the order of marks of the arrival clock, so no thread decides anything.
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
//! 12. [`mod@bench`]: what a bench measures, and how it is told.
//! 13. [`mod@infer`]: from a recording to a pipeline file that reads it.
//! 14. [`cli`]: the command line.
//!
//! What is promised, and the test that fails where it is not kept:
//!
//! | promise | test |
//! | --- | --- |
//! | no acknowledged payload is lost, none counts twice, under `kill -9` | `tests/kill.rs`: `kills_at_random_moments_lose_nothing_and_double_nothing` |
//! | nor when the broker stops, restarts, or hands out again | `tests/kill.rs`: `what_the_broker_acknowledged_survives_its_stops_restarts_and_our_kills` |
//! | nor on a network that cuts, stalls and resets | `tests/proxy.rs`: `a_network_that_misbehaves_loses_nothing_and_doubles_nothing` |
//! | nor at any step of the commit that fails or is the last | `tests/fail_points.rs`: `whatever_goes_wrong_at_any_point_of_the_commit_everything_is_there_once` |
//! | nor in a power cut: journal | `tests/journal/crash.rs`: `what_is_safe_is_there_after_every_crash_point` |
//! | nor in a power cut: checkpoints | `tests/checkpoint.rs`: `the_newest_is_the_last_that_was_committed_at_every_crash_point` |
//! | nor in a power cut: published files | `tests/disk/writers.rs`: `files_are_published_once_at_every_crash_point` |
//! | what could not be synced is not acknowledged, and a failed sync is never tried again | `tests/fail_points.rs`: `what_could_not_be_synced_was_not_acknowledged` |
//! | damage is told, never read as something else | `tests/recovery/damage.rs`: `a_damaged_record_of_the_journal_is_refused_with_its_place` |
//! | a full disk holds back, is told, and passes by itself | `tests/disk_full.rs`: `a_full_disk_below_the_state_folder_holds_back_and_resumes` |
//! | a sink that is stuck costs no connection and no memory | `tests/disk_full.rs`: `a_sink_that_is_stuck_for_long_costs_no_connection_and_no_memory` |
//! | the journal gives the bytes of the live run | `tests/determinism/live.rs`: `a_replay_of_the_journal_gives_the_bytes_of_the_live_run` |
//! | a pipeline file may change where state can follow, and is refused exactly where not | `tests/recovery/changes.rs`: `what_state_depends_on_is_refused_with_the_exact_difference` |
//! | a stop keeps open windows, in a bound of time | `tests/recovery/stop.rs`: `a_stop_keeps_open_windows_and_the_next_start_completes_them` |
//! | who holds up a stop is named | `tests/recovery/stop.rs`: `a_stage_that_is_stuck_is_named_and_nothing_is_lost` |
//! | the same recording gives the same bytes | `tests/pipelines.rs`: `the_same_recording_gives_the_same_bytes_however_it_is_cut` |
//! | any number of workers emits the same rows in the same order, over restarts, too | `tests/windows/parallel.rs`: `workers_emit_what_one_operator_emits` |
//! | no payload costs an allocation | `tests/allocations.rs`: `no_payload_costs_an_allocation` |
//! | no stage becomes slower unnoticed | `tests/instructions.rs`: `no_stage_costs_more_than_is_written_down` |
//! | templates read what the full parser reads | `src/format/json/tests/differential.rs`: `templates_differ_from_the_walk_in_nothing` |
//! | aggregates are the same to the last bit after restarts | `tests/windows_sql.rs`: `every_aggregate_is_the_same_to_the_last_bit_after_restarts` |
//!
//! Borders, kept by a test: `flow` and `disk` use nothing of ours; components (`ingest format operator sink`) use only `flow`,
//! `component`, `expr` and each other's traits; `pipeline` uses components; only `cli` uses `engine`; `tokio` stands only in
//! `ingest`, the network sinks, `engine` and `telemetry`; no wall clock in `operator`, `format` and `expr`.

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::dbg_macro, clippy::todo))]

pub mod bench;
pub mod cli;
pub mod component;
pub mod disk;
pub mod engine;
pub mod expr;
pub mod flow;
pub mod format;
pub mod infer;
pub mod ingest;
pub mod operator;
pub mod pipeline;
pub mod sink;
pub mod telemetry;
