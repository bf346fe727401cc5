//! The journal against a list: what was reported safe is there after any crash and any fault, in order, once, and byte for
//! byte; damage is told, never read.
#![allow(missing_docs)]

mod crash;
mod damage;
mod golden;
mod model;
mod quota;
#[path = "../support/mod.rs"]
mod support;
