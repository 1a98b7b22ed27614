//! libFuzzer's entry; the properties are in `ringgate_fuzz::session`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| ringgate_fuzz::session::check(input));
