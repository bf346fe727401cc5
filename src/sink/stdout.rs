//! The `stdout` sink: JSON lines.
//!
//! Every row is printed at least once: what was printed cannot be taken back, so after a crash the rows of the epoch that
//! was not durable are printed again, the same and in the same order.

use std::io::{self, BufWriter, Write};

use arrow::array::RecordBatch;

use crate::component::{Fault, Kind, Settings};
use crate::flow::message::Epoch;
use crate::flow::schema::StreamSchema;
use crate::sink::json_rows::JsonRows;
use crate::sink::{Sink, SinkContext, SinkError, SinkSpec, Unpublished};

/// `type = "stdout"`.
pub const KIND: Kind<dyn SinkSpec> =
    Kind { name: "stdout", about: "rows as JSON lines on standard output", parse: |settings| Some(parse(settings)) };

/// How much is gathered before it is written, between commits.
const BUFFER_BYTES: usize = 64 << 10;

fn parse(_: &mut Settings) -> Box<dyn SinkSpec> {
    Box::new(StdoutSpec)
}

/// It has no settings.
#[derive(Debug)]
struct StdoutSpec;

impl SinkSpec for StdoutSpec {
    fn check(&self, _: &StreamSchema) -> Vec<Fault> {
        Vec::new()
    }

    fn describe(&self) -> String {
        "JSON lines to standard output".to_owned()
    }

    fn open(&self, _: &SinkContext, _: &StreamSchema) -> Result<Box<dyn Sink>, SinkError> {
        Ok(Box::new(Lines::new(io::stdout())))
    }
}

/// Rows as lines. What was printed cannot be taken back, so lines may show before the commit.
struct Lines<W: Write> {
    out: BufWriter<W>,
    text: String,
}

impl<W: Write> Lines<W> {
    fn new(out: W) -> Self {
        Self { out: BufWriter::with_capacity(BUFFER_BYTES, out), text: String::new() }
    }
}

impl<W: Write + Send> Sink for Lines<W> {
    fn write(&mut self, batch: &RecordBatch) -> Result<(), SinkError> {
        self.text.clear();
        JsonRows::new(batch).write_lines(&mut self.text);
        self.out.write_all(self.text.as_bytes()).map_err(|error| failed(&error))
    }

    fn prepare(&mut self, _: Epoch, _: bool) -> Result<Unpublished, SinkError> {
        self.out.flush().map_err(|error| failed(&error))?;
        Ok(Unpublished::default())
    }
}

/// Nobody knows how much of a failed write was read, so none is tried again.
fn failed(error: &io::Error) -> SinkError {
    SinkError::Fatal(match error.kind() {
        io::ErrorKind::BrokenPipe => "cannot write to standard output: its reader has gone".to_owned(),
        _ => format!("cannot write to standard output: {error}"),
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::Int64Array;
    use arrow::datatypes::{DataType, Field, Schema};

    use super::*;

    struct Closed;

    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn rows() -> RecordBatch {
        let schema = Schema::new(vec![Field::new("n", DataType::Int64, true)]);
        RecordBatch::try_new(Arc::new(schema), vec![Arc::new(Int64Array::from(vec![Some(1), None]))]).unwrap()
    }

    #[test]
    fn a_commit_shows_every_line() {
        let mut out = Vec::new();
        let mut sink = Lines::new(&mut out);
        sink.write(&rows()).unwrap();
        sink.prepare(Epoch(0), false).unwrap();
        drop(sink);
        assert_eq!(String::from_utf8(out).unwrap(), "{\"n\":1}\n{\"n\":null}\n");
    }

    #[test]
    fn a_reader_that_has_gone_ends_the_run() {
        let mut sink = Lines::new(Closed);
        sink.write(&rows()).unwrap();
        let error = sink.prepare(Epoch(0), false).unwrap_err();
        assert!(matches!(&error, SinkError::Fatal(why) if why.contains("reader has gone")), "{error}");
    }
}
