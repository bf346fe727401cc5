//! Payloads of the case `sparkplug_b`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| streamgauge_fuzz::decode("sparkplug_b", data));
