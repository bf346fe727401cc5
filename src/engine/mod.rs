//! Threads, epochs, the end.
