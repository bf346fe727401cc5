//! What flows between stages, and the pipes that it flows through. This folder knows no other.

pub mod batch;
pub mod inbox;
pub mod message;
pub mod meter;
pub mod outbox;
pub mod payload;
pub mod schema;
pub mod state;
pub mod time;
pub mod topic;
