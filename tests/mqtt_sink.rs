//! The `mqtt` sink against a real mosquitto, read back by the `mqtt` source.
#![allow(missing_docs)]

mod support;

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use arrow::array::{Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema};
use streamgauge::component::Settings;
use streamgauge::flow::message::Epoch;
use streamgauge::flow::schema::{StreamSchema, timestamp_type};
use streamgauge::flow::time::Span;
use streamgauge::sink::{SinkContext, mqtt};
use support::connect::{next, open};
use support::mosquitto::Mosquitto;

#[test]
fn rows_arrive_under_their_topics() {
    let Some(broker) = Mosquitto::start("allow_anonymous true") else { return };
    let url = format!("url = \"mqtt://127.0.0.1:{}\"", broker.port);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (mut source, _) = runtime.block_on(open(&format!("{url}\ntopics = [\"s/#\"]"))).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(500));
    let text = format!("{url}\ntopic = \"s/{{d}}\"");
    let entries = streamgauge::pipeline::file::parse(&text).0;
    let mut settings = Settings::new(0..text.len(), entries, Rc::new(RefCell::new(Vec::new())));
    let spec = (mqtt::KIND.parse)(&mut settings).unwrap();
    let columns = Arc::new(Schema::new(vec![
        Field::new("at", timestamp_type(), false),
        Field::new("d", DataType::Utf8, false),
        Field::new("n", DataType::Int64, false),
    ]));
    let schema = StreamSchema { columns: columns.clone(), time: 0, out_of_orderness: Span::ZERO };
    assert_eq!(spec.check(&schema), []);
    let context = SinkContext { pipeline: "p".into(), name: "out".into(), run: "r".into(), boards: Arc::default() };
    let mut sink = spec.open(&context, &schema).unwrap();
    let at = TimestampMicrosecondArray::from(vec![0, 1]).with_timezone("UTC");
    let (d, n) = (StringArray::from(vec!["a", "b/#"]), Int64Array::from(vec![1, 2]));
    sink.write(&RecordBatch::try_new(columns, vec![Arc::new(at), Arc::new(d), Arc::new(n)]).unwrap()).unwrap();
    sink.commit(Epoch(0)).unwrap();
    let mut seen = Vec::new();
    while seen.len() < 2 {
        for payload in runtime.block_on(next(&mut *source)).unwrap().iter() {
            let row: serde_json::Value = serde_json::from_slice(payload.body).unwrap();
            seen.push((String::from_utf8_lossy(payload.topic).into_owned(), row["n"].as_i64()));
        }
    }
    assert_eq!(seen, [("s/a".to_owned(), Some(1)), ("s/b%2F%23".to_owned(), Some(2))]);
}
