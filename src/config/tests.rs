//! The configuration as a user meets it: files in, configurations or exact messages out.

use super::check::parse_for;
use super::*;
use std::fmt::Write as _;

/// A machine with four cores, so that no test depends on where it runs.
const CORES: &[usize] = &[0, 1, 2, 3];

const MINIMAL: &str = r#"
[[listener]]
listen = "0.0.0.0:8080"

[[route]]
upstream = "app"

[upstream.app]
endpoints = [{ address = "10.0.0.1:8080" }]
"#;

fn config(text: &str) -> Config {
    parse_for(text, "ringgate.toml", CORES).unwrap_or_else(|errors| panic!("{errors}\n{text}"))
}

fn errors(text: &str) -> Vec<Problem> {
    match parse_for(text, "ringgate.toml", CORES) {
        Ok(config) => panic!("accepted: {config:?}"),
        Err(errors) => errors.problems().to_vec(),
    }
}

/// The minimal file with `line` added to its upstream, and what is said about it.
fn said(extra: &str) -> String {
    let mut text = String::new();
    for problem in errors(&format!("{MINIMAL}{extra}")) {
        writeln!(text, "{problem}").unwrap();
    }
    text
}

#[test]
fn a_minimal_file_is_enough() {
    let config = config(MINIMAL);
    assert_eq!(config.routes[0].name, "/*");
    assert_eq!(config.listeners[0].name, "0.0.0.0:8080");
}
