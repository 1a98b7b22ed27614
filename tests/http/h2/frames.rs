//! Each case of the table, in every way its bytes may arrive.

use super::cases::{Case, all};
use super::support::{OWN, Observed, observe};
use std::collections::HashSet;

#[test]
fn every_case_is_what_its_section_says_however_its_bytes_arrive() {
    let cases = all();
    let mut complaints = String::new();
    for Case { section, name, bytes, wanted } in &cases {
        let got = observe(bytes);
        if got != *wanted {
            complaints += &format!("{section} {name}: {got:?} is not {wanted:?}\n");
            continue;
        }
        for split in 1..bytes.len() {
            let mut observed = Observed::new(OWN);
            observed.feed_in_pieces(bytes, [split, bytes.len()]);
            let got = observed.end();
            assert_eq!(got, *wanted, "{section} {name}, split at {split}");
        }
        let mut observed = Observed::new(OWN);
        observed.feed_in_pieces(bytes, 1..=bytes.len());
        assert_eq!(observed.end(), *wanted, "{section} {name}, one byte at a time");
    }
    assert!(complaints.is_empty(), "\n{complaints}");
}

#[test]
fn there_are_two_hundred_of_them_and_each_has_its_section_and_a_name_of_its_own() {
    let cases = all();
    let names: HashSet<_> = cases.iter().map(|case| (&case.section, &case.name)).collect();
    assert_eq!(names.len(), cases.len());
    assert!(cases.len() >= 200, "{}", cases.len());
    for case in &cases {
        let digits = case.section.strip_prefix('§').or(case.section.strip_prefix("RFC 7540 §"));
        assert!(digits.is_some_and(|text| text.starts_with(|c: char| c.is_ascii_digit())), "{}", case.section);
    }
}

/// Nothing that a client sends, and no cut of it, is a panic; what the table has makes good beginnings.
#[test]
fn a_byte_that_is_another_one_is_never_a_panic() {
    for Case { bytes, .. } in all() {
        // the preface is compared byte by byte, and long bodies are all the same
        for at in (24..bytes.len()).take(120) {
            for flip in [0x01, 0x04, 0x20, 0x80, 0xff] {
                let mut changed = bytes.clone();
                changed[at] ^= flip;
                observe(&changed);
            }
        }
    }
}
