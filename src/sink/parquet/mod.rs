//! The `parquet` sink: folders by partition, files that are complete when they are seen.
//!
//! Rows are encoded in memory and spilled to `PATH/_tmp/PIPELINE/SINK/`. A commit closes the files, brings them to disk
//! (fsync), renames them to their names and makes the names durable (fsync of the folders). Names are a function of
//! pipeline, sink, run, epoch and folder, so an epoch that is committed again replaces its files. Each file appears
//! whole; the files of one epoch appear one after the other, within the commit.

mod file;
mod keys;
mod spec;
mod writer;

pub(crate) use file::{lost, passing};
pub(crate) use writer::TMP;

use crate::component::Kind;
use crate::sink::SinkSpec;

/// `type = "parquet"`.
pub const KIND: Kind<dyn SinkSpec> =
    Kind { name: "parquet", about: "Parquet files in folders by partition, committed per epoch", parse: spec::parse };
