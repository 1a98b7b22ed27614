//! libFuzzer's entry; the properties are in `ringgate_fuzz::hpack`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| ringgate_fuzz::hpack::check(input));
