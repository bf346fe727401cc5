//! The thread half of ingest: where async ends.
