//! What the MQTT tests share.
#![allow(dead_code, missing_docs, unreachable_pub)]

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use streamgauge::component::{Fault, Settings};
use streamgauge::flow::meter::SourceMeter;
use streamgauge::flow::payload::Payloads;
use streamgauge::ingest::{ArrivalClock, Source, SourceContext, SourceError, SourceSpec, mqtt};

pub fn spec(text: &str) -> Result<Box<dyn SourceSpec>, Vec<Fault>> {
    let (entries, faults) = streamgauge::pipeline::file::parse(text);
    assert_eq!(faults, [], "the test's own TOML");
    let faults = Rc::new(RefCell::new(Vec::new()));
    let mut settings = Settings::new(0..text.len(), entries, faults.clone());
    let spec = (mqtt::KIND.parse)(&mut settings);
    settings.finish();
    drop(settings);
    let faults = faults.take();
    if faults.is_empty() { Ok(spec.unwrap()) } else { Err(faults) }
}

pub async fn open(text: &str) -> Result<(Box<dyn Source>, Arc<SourceMeter>), SourceError> {
    let meter = Arc::new(SourceMeter::default());
    let context = SourceContext {
        name: "s".into(),
        pipeline: "p".into(),
        clock: Arc::new(ArrivalClock::default()),
        meter: meter.clone(),
    };
    Ok((spec(text).unwrap().open(context).await?, meter))
}

pub async fn next(source: &mut dyn Source) -> Result<Payloads, SourceError> {
    let mut into = Payloads::default();
    tokio::time::timeout(Duration::from_secs(20), source.next(&mut into, 4096)).await.expect("a payload in time")?;
    Ok(into)
}
