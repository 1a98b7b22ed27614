//! libFuzzer's entry; the properties are in `ringgate_fuzz::forward`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| ringgate_fuzz::forward::check(input));
