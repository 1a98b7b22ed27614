//! libFuzzer's entry; the properties are in `ringgate_fuzz::framing`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| ringgate_fuzz::framing::check(input));
