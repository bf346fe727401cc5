//! Partition values as parts of a path.
