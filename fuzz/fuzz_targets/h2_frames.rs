//! libFuzzer's entry; the properties are in `ringgate_fuzz::h2_frames`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| ringgate_fuzz::h2_frames::check(input));
