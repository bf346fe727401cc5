//! How the files of a sink are written.

use ::parquet::arrow::ArrowWriter;
use ::parquet::arrow::arrow_writer::ArrowWriterOptions;
use ::parquet::basic::{Compression, Encoding};
use ::parquet::errors::Result;
use ::parquet::file::metadata::KeyValue;
use ::parquet::file::properties::WriterProperties;
use ::parquet::schema::types::ColumnPath;
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;

use crate::sink::parquet::encoding::{self, Prospect};

/// A row group ends at this many encoded bytes, however few its rows.
const ROW_GROUP_BYTES: usize = 64 << 20;
/// Rows of a page.
const PAGE_ROWS: usize = 20_000;
/// What the encoder of deltas says that it holds from its beginning on. It has never written to most of that: a page has
/// not so many bytes.
const DELTA_RESERVED_BYTES: usize = 1 << 20;
/// What of it is in use at most, in a page of 64-bit numbers.
const DELTA_USED_BYTES: usize = PAGE_ROWS * 8;

/// What all files of a sink have in common.
#[derive(Debug)]
pub(super) struct Recipe {
    pub(super) schema: SchemaRef,
    pub(super) compression: Compression,
    pub(super) row_group_rows: usize,
    /// Rows of a file, where that is bounded.
    pub(super) file_rows: Option<usize>,
}

/// Encodes the rows of one file.
pub(super) struct Encoder {
    writer: ArrowWriter<Vec<u8>>,
    /// Columns that have an encoder of deltas, if only to fall back on.
    deltas: usize,
}

impl Recipe {
    /// Begins a file whose first rows these are, and `all` that it will have for now, or the first of many.
    pub(super) fn begin(&self, first: &RecordBatch, all: bool) -> Result<Encoder> {
        let most = self.row_group_rows.min(self.file_rows.unwrap_or(usize::MAX));
        let rows = if all { first.num_rows() } else { most };
        let (properties, deltas) = self.properties(first, rows);
        let options = ArrowWriterOptions::new().with_properties(properties).with_skip_arrow_metadata(true);
        let writer = ArrowWriter::try_new_with_options(Vec::new(), self.schema.clone(), options)?;
        Ok(Encoder { writer, deltas })
    }

    fn properties(&self, first: &RecordBatch, rows: usize) -> (WriterProperties, usize) {
        let mut properties = WriterProperties::builder()
            .set_created_by(concat!("streamgauge ", env!("CARGO_PKG_VERSION")).to_owned())
            .set_compression(self.compression)
            .set_max_row_group_row_count(Some(self.row_group_rows))
            .set_max_row_group_bytes(Some(ROW_GROUP_BYTES))
            .set_data_page_row_count_limit(PAGE_ROWS);
        let prospect = Prospect { rows, compressed: self.compression != Compression::UNCOMPRESSED };
        let mut deltas = 0;
        for (field, column) in self.schema.fields().iter().zip(first.columns()) {
            let Some(choice) = encoding::choose(column, prospect) else { continue };
            let path = || ColumnPath::from(field.name().as_str());
            properties = properties
                .set_column_dictionary_enabled(path(), choice.dictionary.is_some())
                .set_column_encoding(path(), choice.otherwise);
            if let Some(bytes) = choice.dictionary {
                properties = properties.set_column_dictionary_page_size_limit(path(), bytes);
            }
            deltas += usize::from(choice.otherwise == Encoding::DELTA_BINARY_PACKED);
        }
        (properties.build(), deltas)
    }
}

impl Encoder {
    /// Encodes rows. What is ready then is moved to the end of `encoded`.
    pub(super) fn write(&mut self, rows: &RecordBatch, encoded: &mut Vec<u8>) -> Result<()> {
        let written = self.writer.write(rows);
        encoded.append(self.writer.inner_mut());
        written
    }

    /// Ends the row group.
    pub(super) fn end_row_group(&mut self, encoded: &mut Vec<u8>) -> Result<()> {
        let flushed = self.writer.flush();
        encoded.append(self.writer.inner_mut());
        flushed
    }

    /// Ends the file.
    pub(super) fn finish(mut self, metadata: Vec<KeyValue>, encoded: &mut Vec<u8>) -> Result<()> {
        metadata.into_iter().for_each(|entry| self.writer.append_key_value_metadata(entry));
        encoded.append(&mut self.writer.into_inner()?);
        Ok(())
    }

    /// Memory in use.
    pub(super) fn memory(&self) -> usize {
        let untouched = self.deltas * (DELTA_RESERVED_BYTES - DELTA_USED_BYTES);
        self.writer.memory_size().saturating_sub(untouched)
    }

    /// About how large the file is by now.
    pub(super) fn bytes(&self) -> usize {
        self.writer.bytes_written() + self.writer.in_progress_size()
    }
}
