//! Payloads of the case `protobuf`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| streamgauge_fuzz::decode("protobuf", data));
