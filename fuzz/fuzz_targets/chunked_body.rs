//! libFuzzer's entry; the properties are in `ringgate_fuzz::chunked_body`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| ringgate_fuzz::chunked_body::check(input));
