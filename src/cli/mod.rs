//! The command line.

pub mod broker;
