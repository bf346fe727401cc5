//! What the fuzz targets have in common: each is one function of bytes, which may not panic.
//!
//! ```sh
//! cargo +nightly fuzz run --fuzz-dir tests/fuzz csv tests/fuzz/corpus/csv tests/fuzz/seeds/csv -- -max_total_time=1800
//! ```

use std::cell::RefCell;

use streamgauge::flow::payload::{Delivery, Payload, Payloads};
use streamgauge::flow::time::Timestamp;
use streamgauge::flow::topic::Topics;
use streamgauge::format::Decoder;
use streamgauge::ingest::recording::Recording;
use streamgauge::pipeline::load_text;

/// Rows of one payload by the pipeline file of `cases` of this name, all or none.
pub fn decode(case: &str, data: &[u8]) {
    thread_local!(static DECODER: RefCell<Option<(Box<dyn Decoder>, String)>> = const { RefCell::new(None) });
    DECODER.with_borrow_mut(|kept| {
        let (decoder, topic) = kept.get_or_insert_with(|| decoder(case));
        let arrival = Timestamp::from_micros(1_709_208_000_000_000);
        let (topic, delivery) = (topic.as_bytes(), Delivery::default());
        let count = decoder.push(&Payload { topic, body: data, arrival, delivery, properties: &[] }).unwrap_or(0);
        decoder.tolerated();
        assert_eq!(decoder.flush().num_rows(), count);
    });
}

fn decoder(case: &str) -> (Box<dyn Decoder>, String) {
    let folder = env!("CARGO_MANIFEST_DIR");
    let text = std::fs::read_to_string(format!("{folder}/cases/{case}.toml")).unwrap();
    let variable = |name: &str| (name == "SCHEMAS").then(|| format!("{folder}/schemas"));
    let plan = load_text(case, &text, &variable).unwrap_or_else(|faults| panic!("{faults}"));
    let source = &plan.sources[0];
    let topic = source.spec.topics().filters().next().unwrap().to_owned();
    (source.decoder.build(&source.columns), topic)
}

/// A pattern, and on the next line a topic.
pub fn topic_pattern(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (pattern, topic) = text.split_once('\n').unwrap_or((text, ""));
    if let Ok(topics) = Topics::parse([pattern]) {
        topics.matches(topic.as_bytes(), &mut Vec::new());
    }
}

/// A pipeline file: a plan, or faults with their places.
pub fn pipeline_file(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match load_text("fuzz.toml", text, &|_| None) {
        Ok(plan) => drop(plan.to_string()),
        Err(faults) => assert!(!faults.to_string().is_empty()),
    }
}

/// A recording.
pub fn recording(data: &[u8]) {
    let path = std::env::temp_dir().join(format!("streamgauge-fuzz-{}.jsonl", std::process::id()));
    std::fs::write(&path, data).unwrap();
    let Ok(mut reader) = Recording::open(&path) else { return };
    let mut payloads = Payloads::default();
    while let Ok(read) = reader.read(&mut payloads, 64, 1 << 20) {
        if read == 0 {
            return;
        }
        payloads.clear();
    }
}
