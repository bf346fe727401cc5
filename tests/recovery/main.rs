//! What a start takes up, and what it refuses: changed pipeline files, damaged and newer state, a stop in between.

#[path = "../support/mod.rs"]
mod support;

mod bench;
mod changes;
mod damage;
mod stop;
