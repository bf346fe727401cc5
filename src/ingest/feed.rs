//! The async half of ingest.
