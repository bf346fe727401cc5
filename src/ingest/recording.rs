//! Recordings: contract 5.3.
