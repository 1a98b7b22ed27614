//! What the gateway is made of besides its own code: where it comes from, under which licences, and nothing twice without a reason.
//!
//! Read from `cargo tree`, for this platform, without a network. Advisories are another matter, because they need a database of today:
//! `.ci/run` asks `cargo audit` where there is one, and says so where there is none.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

/// Licences under which a part of the gateway may stand: none of them asks anything of who runs or changes it but to be named.
const LICENCES: [&str; 10] =
    ["Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "BSL-1.0", "CC0-1.0", "ISC", "MIT", "MIT-0", "Unicode-3.0", "Zlib"];

/// What is there in more than one version, and why. The list may only shrink.
const TWICE: &[(&str, &str)] = &[
    ("base64", "instant-acme is a version behind"),
    ("bitflags", "io-uring, in the version that monoio links, is of another age"),
    ("socket2", "monoio is a version behind"),
    ("syn", "macros of others, at build time only"),
    ("untrusted", "of aws-lc-rs, for instant-acme, and of webpki"),
];

/// A package of the shipped gateway.
struct Package {
    name: String,
    version: String,
    licence: String,
    /// Where it comes from, if that is not the registry.
    elsewhere: Option<String>,
}

/// All of them, once each. `cargo tree` knows which features are on; `cargo metadata` names what nobody has asked for, too.
fn packages() -> Vec<Package> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let arguments = ["tree", "--locked", "--offline", "--edges", "normal,build", "--package", "ringgate"];
    let format = ["--prefix", "none", "--no-dedupe", "--format", "{p}|{l}"];
    let mut command = Command::new(cargo);
    let output = command.args(arguments).args(format).current_dir(env!("CARGO_MANIFEST_DIR")).output();
    let output = output.expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines: BTreeSet<_> = String::from_utf8(output.stdout).expect("text").lines().map(str::to_owned).collect();
    let package = |line: &String| {
        let (package, licence) = line.split_once('|').expect("two columns");
        let mut words = package.split(' ');
        let (name, version) = (words.next()?.to_owned(), words.next()?.to_owned());
        let elsewhere = words.find(|word| word.starts_with('(') && *word != "(proc-macro)").map(str::to_owned);
        Some(Package { name, version, licence: licence.to_owned(), elsewhere })
    };
    lines.iter().filter_map(package).collect()
}

/// Whether an SPDX expression (and the older way with a slash) is met by the licences that may be.
fn is_allowed(expression: &str) -> bool {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut rest = &words[..];
    either(&mut rest) && rest.is_empty()
}

fn either(rest: &mut &[&str]) -> bool {
    let mut is_met = both(rest);
    while let ["OR", behind @ ..] = *rest {
        *rest = behind;
        is_met |= both(rest);
    }
    is_met
}

fn both(rest: &mut &[&str]) -> bool {
    let mut is_met = one(rest);
    while let ["AND", behind @ ..] = *rest {
        *rest = behind;
        is_met &= one(rest);
    }
    is_met
}

fn one(rest: &mut &[&str]) -> bool {
    let Some((word, behind)) = rest.split_first() else { return false };
    *rest = behind;
    if *word == "(" {
        let is_met = either(rest);
        let [")", behind @ ..] = *rest else { return false };
        *rest = behind;
        return is_met;
    }
    if let ["WITH", _, behind @ ..] = *rest {
        // an exception allows more
        *rest = behind;
    }
    LICENCES.contains(word)
}

#[test]
fn every_part_has_a_licence_that_may_be_and_comes_from_the_registry() {
    let packages = packages();
    assert!(packages.len() > 50, "{} packages were found", packages.len());
    for Package { name, licence, elsewhere, .. } in &packages {
        assert!(is_allowed(licence), "{name}: {licence}");
        assert!(elsewhere.is_none() || name == "ringgate", "{name} comes from {elsewhere:?}");
    }
}

#[test]
fn licences_are_read_as_they_are_written() {
    for (expression, expected) in [
        ("MIT", true),
        ("MIT/Apache-2.0", true),
        ("GPL-3.0-only OR MIT", true),
        ("GPL-3.0-only AND MIT", false),
        ("Apache-2.0 WITH LLVM-exception OR GPL-2.0", true),
        ("(MIT OR GPL-2.0) AND Unicode-3.0", true),
        ("ISC AND (GPL-2.0 OR AGPL-3.0)", false),
        ("none", false),
        ("(MIT", false),
        ("MIT)", false),
        ("", false),
    ] {
        assert_eq!(is_allowed(expression), expected, "{expression}");
    }
}

#[test]
fn nothing_is_there_twice_without_a_reason() {
    let mut versions: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for Package { name, version, .. } in packages() {
        versions.entry(name).or_default().insert(version);
    }
    for (name, versions) in versions.iter().filter(|(_, versions)| versions.len() > 1) {
        assert!(
            TWICE.iter().any(|(known, _)| known == name),
            "{name} is there in {versions:?}: what needs the older one?"
        );
    }
    for (name, reason) in TWICE {
        let is_twice = versions.get(*name).is_some_and(|versions| versions.len() > 1);
        assert!(is_twice, "{name} is there once by now ({reason}): take it off the list");
    }
}
