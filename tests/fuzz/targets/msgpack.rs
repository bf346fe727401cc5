//! Payloads of the case `msgpack`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| streamgauge_fuzz::decode("msgpack", data));
