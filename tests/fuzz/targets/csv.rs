//! Payloads of the case `csv`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| streamgauge_fuzz::decode("csv", data));
