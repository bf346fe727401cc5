//! The `parquet` sink: folders by partition, files that are complete when they are seen.
//!
//! Rows are encoded in memory and spilled to `PATH/_tmp/PIPELINE/SINK/`. A barrier closes the files and brings them to
//! disk (fsync of the files, then of the folders above them); once the epoch is durable they are renamed to their names.
//! Names and bytes are a function of pipeline, sink, run, rows and barriers, so an epoch that is written again after a
//! restart replaces its files with the same. Each file appears whole; the files of one epoch appear one after the other.
//!
//! With `roll` a file is kept open over barriers until it has `rows` rows, or `bytes` (looked at after every 8,192 rows or
//! 4 MiB of an epoch, and at barriers), or is of `age`, counted in epochs: a file that was opened in epoch e is closed at the barrier that ends
//! epoch e + n - 1, n being the age divided by the length of an epoch, rounded up. Its rows are carried in the checkpoint,
//! one part for each epoch that brought some, and after a restart the file is encoded again from its beginning. A stop
//! closes every file.
//!
//! How a column is encoded is decided by the first rows of its file, those of the first hand-over to the encoder: deltas or a
//! dictionary for whole numbers and times; a dictionary or bytes apart for floats; a dictionary, or lengths or shared
//! beginnings apart, for text. The rows wait for it no longer than for the hand-over itself.
//!
//! A file is closed early where more than `max_partitions` would take rows (the one whose last row is the oldest), and with
//! `roll` where one epoch brings open files more than 256 MiB together, or where 1,024 epochs have brought rows to it. A row
//! group is ended early where those of all files together take more than 256 MiB. All of it is decided by the rows alone.

mod bounds;
mod carry;
mod encoding;
mod file;
mod keys;
mod recipe;
mod spec;
#[cfg(test)]
mod tests;
mod tmp;
mod weight;
mod writer;

pub(crate) use file::{lost, passing};

use crate::component::Kind;
use crate::sink::SinkSpec;
use crate::sink::partition::PartitionValue;

/// `type = "parquet"`.
pub const KIND: Kind<dyn SinkSpec> =
    Kind { name: "parquet", about: "Parquet files in folders by partition, committed per epoch", parse: spec::parse };

/// Where files are that nobody should see: readers pass over names that begin with `_`.
pub(crate) const TMP: &str = "_tmp";

/// A name as a part of a path.
fn part(name: &str) -> String {
    PartitionValue::new(Some(name.as_bytes())).to_string()
}
