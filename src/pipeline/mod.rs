//! A TOML file to a checked [`Plan`](plan::Plan). Pure: it opens, connects and creates nothing.

pub mod fault;
pub mod file;
pub mod plan;
