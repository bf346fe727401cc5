//! Rows as JSON lines.
