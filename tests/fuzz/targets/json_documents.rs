//! Payloads of the case `json_documents`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| streamgauge_fuzz::decode("json_documents", data));
