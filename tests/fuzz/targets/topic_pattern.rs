//! A topic pattern, and a topic.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| streamgauge_fuzz::topic_pattern(data));
