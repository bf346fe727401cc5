//! State as rows, in parts: what a stage leaves in a checkpoint, and gets back after a restart.

use arrow::array::RecordBatch;

/// One part of a stage's state. A stage splits its state so that what has not changed need not be written again: a
/// window operator by pane, a sink by what each epoch brought.
#[derive(Clone, Debug, PartialEq)]
pub struct Part {
    /// Tells it from the stage's other parts, and makes a file name: letters, digits, `_`, `-`.
    pub name: String,
    /// Its rows; `None` where they are the same as in the snapshot before.
    pub rows: Option<RecordBatch>,
}

impl Part {
    /// A part that is new, or has changed.
    pub fn changed(name: impl Into<String>, rows: RecordBatch) -> Self {
        Self { name: name.into(), rows: Some(rows) }
    }

    /// A part that is as it was in the snapshot before.
    pub fn same(name: impl Into<String>) -> Self {
        Self { name: name.into(), rows: None }
    }
}

/// A part as it is given back: its name and its rows, in the order of the snapshot.
pub type Restored = (String, RecordBatch);
