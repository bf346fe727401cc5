//! Payloads of the case `inner`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| streamgauge_fuzz::decode("inner", data));
