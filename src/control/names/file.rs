//! A file that says endpoints (`endpoints_file`), for those who know them better than names do: `{ "endpoints": [{ "address": "10.0.0.1:80" }] }`.
//!
//! It is read once a second, and counts as a whole or not at all: one that is wrong, or half written, or gone, is said in the log and changes
//! nothing. A list without endpoints is taken at its word.

use crate::config::{Resolver, Told};
use crate::limits::{ENDPOINTS_FILE_BYTES_MAX, ENDPOINTS_MAX, TIERS_MAX};
use crate::policy::names::Learned;
use serde::Deserialize;
use std::fs::OpenOptions;
use std::io::Read;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How often it is read.
const EVERY: Duration = Duration::from_secs(1);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Endpoints {
    endpoints: Vec<Row>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    address: SocketAddr,
    weight: Option<u16>,
    #[serde(default)]
    priority: u8,
}

/// A file has no TTL: it is read again after the same time, whatever came of it.
pub(super) fn rules(of_names: &Resolver) -> Resolver {
    Resolver { min_ttl: EVERY, max_ttl: EVERY, ..of_names.clone() }
}

/// Reads it; with the reason where that does not tell.
pub(super) async fn read(path: PathBuf) -> (Learned, Option<String>) {
    // a disk may take its time, in which operators and health checks have this thread
    let read = tokio::task::spawn_blocking(move || told(&path)).await;
    match read.unwrap_or_else(|_| Err("reading it has panicked".to_owned())) {
        Ok(told) => (Learned::Endpoints(told, EVERY), None),
        Err(why) => (Learned::Unknown, Some(why)),
    }
}

fn told(path: &Path) -> Result<Vec<Told>, String> {
    let mut text = String::new();
    // without waiting for somebody at the other end, if it is a pipe
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path).map_err(|e| e.to_string())?;
    if !file.metadata().is_ok_and(|found| found.is_file()) {
        return Err("it is no file".to_owned());
    }
    file.take(ENDPOINTS_FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(|error| error.to_string())?;
    if text.len() as u64 > ENDPOINTS_FILE_BYTES_MAX {
        return Err(format!("larger than {ENDPOINTS_FILE_BYTES_MAX} bytes"));
    }
    let is_toml = path.extension().is_some_and(|extension| extension == "toml");
    // one line an event
    let one_line = |error: String| error.split_whitespace().collect::<Vec<_>>().join(" ");
    let Endpoints { endpoints } = match is_toml {
        true => toml::from_str(&text).map_err(|error| one_line(error.to_string()))?,
        false => serde_json::from_str(&text).map_err(|error| one_line(error.to_string()))?,
    };
    if endpoints.len() > ENDPOINTS_MAX {
        return Err(format!("{} endpoints; at most {ENDPOINTS_MAX}", endpoints.len()));
    }
    endpoints.into_iter().map(check).collect()
}

fn check(Row { address, weight, priority }: Row) -> Result<Told, String> {
    if address.port() == 0 || address.ip().is_unspecified() {
        return Err(format!("{address} cannot be connected to"));
    }
    if usize::from(priority) >= TIERS_MAX {
        return Err(format!("priority {priority} of {address}: at most {}", TIERS_MAX - 1));
    }
    Ok(Told { rank: priority, address, weight })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(name: &str, text: &str) -> Result<Vec<Told>, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        told(&path)
    }

    #[test]
    fn json_and_toml_say_the_same() {
        let json =
            r#"{ "endpoints": [{ "address": "10.0.0.1:80", "weight": 0 }, { "address": "[::1]:81", "priority": 2 }] }"#;
        let toml = "[[endpoints]]\naddress = \"10.0.0.1:80\"\nweight = 0\n[[endpoints]]\naddress = \"[::1]:81\"\npriority = 2\n";
        let expected = [
            Told { rank: 0, address: "10.0.0.1:80".parse().unwrap(), weight: Some(0) },
            Told { rank: 2, address: "[::1]:81".parse().unwrap(), weight: None },
        ];
        assert_eq!(of("a.json", json).unwrap(), expected);
        assert_eq!(of("a.toml", toml).unwrap(), expected);
        assert_eq!(of("a", "{ \"endpoints\": [] }").unwrap(), []);
    }

    #[test]
    fn what_is_wrong_is_refused_whole_in_one_line() {
        for (text, why) in [
            ("", "EOF"),
            ("{ \"endpoints\": [{ \"address\": \"10.0.0.1:80\" }", "EOF"),
            ("[]", "invalid"),
            ("{ \"endpoints\": [{ \"address\": \"a.example:80\" }] }", "invalid socket address"),
            ("{ \"endpoints\": [{ \"address\": \"10.0.0.1:0\" }] }", "cannot be connected to"),
            ("{ \"endpoints\": [{ \"address\": \"10.0.0.1:1\", \"priority\": 16 }] }", "at most 15"),
            ("{ \"endpoints\": [{ \"address\": \"10.0.0.1:1\", \"wieght\": 1 }] }", "unknown field"),
        ] {
            let error = of("a.json", text).unwrap_err();
            assert!(error.contains(why) && !error.contains('\n'), "{text}: {error}");
        }
        assert!(of("a.toml", "endpoints = 1\n").is_err_and(|error| !error.contains('\n')));
        assert!(told(Path::new("/nonexistent/a.json")).is_err());
        assert_eq!(told(Path::new("/dev/null")), Err("it is no file".to_owned()));
    }
}
