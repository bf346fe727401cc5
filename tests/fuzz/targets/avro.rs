//! Payloads of the case `avro`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| streamgauge_fuzz::decode("avro", data));
