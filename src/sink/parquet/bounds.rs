//! How much of the files is in memory.

/// Rows that are handed to the encoder at once.
const ENCODE_ROWS: usize = 8_192;
/// Rows of an epoch after which memory and the size of files are looked at.
const CHECK_ROWS: usize = 8_192;
/// Bytes of rows after which they are looked at, where that is earlier.
const CHECK_BYTES: usize = 4 << 20;
/// Memory of rows that are not encoded to the end, of all files together; over it the largest ends its row group.
const BUFFERED_BYTES_MAX: usize = 256 << 20;
/// Memory of rows that are kept for the next barrier, of all files together: those that an epoch brought to files that
/// stay open. Over it the file with most of them is closed early.
const HELD_BYTES_MAX: usize = 256 << 20;
/// Parts that carry the rows of one open file, one for each epoch that brought some. A file that has so many is closed.
const PARTS_MAX: usize = 1_024;

/// The bounds of a sink: what is written above, but in tests.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) encode_rows: usize,
    pub(super) check_rows: usize,
    pub(super) check_bytes: usize,
    pub(super) buffered_bytes: usize,
    pub(super) held_bytes: usize,
    pub(super) parts: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            encode_rows: ENCODE_ROWS,
            check_rows: CHECK_ROWS,
            check_bytes: CHECK_BYTES,
            buffered_bytes: BUFFERED_BYTES_MAX,
            held_bytes: HELD_BYTES_MAX,
            parts: PARTS_MAX,
        }
    }
}
