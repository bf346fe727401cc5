//! Exact numbers from text.
