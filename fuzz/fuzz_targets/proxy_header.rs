//! libFuzzer's entry; the properties are in `ringgate_fuzz::proxy_header`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| ringgate_fuzz::proxy_header::check(input));
