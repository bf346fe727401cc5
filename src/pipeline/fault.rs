//! Faults as people read them.
