//! A file that says endpoints (`endpoints_file`), for those who know them better than names do: `{ "endpoints": [{ "address": "10.0.0.1:80" }] }`.
//!
//! It is read once a second, and counts as a whole or not at all: one that is wrong, or gone, is said in the log and changes nothing. One that
//! has just been written is read once it stands still, since half of a list may be a list too. A list without endpoints is taken at its word.

use crate::config::{Resolver, Told};
use crate::limits::{ENDPOINTS_FILE_BYTES_MAX, ENDPOINTS_MAX, TIERS_MAX};
use crate::net::clock;
use crate::policy::names::Learned;
use serde::Deserialize;
use std::fs::OpenOptions;
use std::io::Read;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

/// How often it is read.
const EVERY: Duration = Duration::from_secs(1);
/// How long a file stands still that is written to no more. Who needs longer between two writes replaces the file (rename(2)).
const STILL: Duration = Duration::from_millis(100);
/// How often one is read that does not stand still, before it is given up until the next time.
const READS_MAX: usize = 5;

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
    let mut before = None;
    for _ in 0..READS_MAX {
        let (path_read, begun) = (path.clone(), clock::wall());
        // a disk may take its time, in which operators and health checks have this thread
        let read = tokio::task::spawn_blocking(move || read_now(&path_read)).await;
        let (text, written) = match read.unwrap_or_else(|_| Err("reading it has panicked".to_owned())) {
            Ok(read) => read,
            Err(why) => return (Learned::Unknown, Some(why)),
        };
        // one that was written long ago is not being written; where that cannot be told it is looked at twice
        let is_old = written.is_some_and(|at| at + STILL < begun);
        if is_old || before.as_ref() == Some(&text) {
            return match told(&path, &text) {
                Ok(told) => (Learned::Endpoints(told, EVERY), None),
                Err(why) => (Learned::Unknown, Some(why)),
            };
        }
        before = Some(text);
        tokio::time::sleep(STILL).await;
    }
    (Learned::Unknown, Some("it is being written".to_owned()))
}

/// What it says now, and when that was written, since 1970.
fn read_now(path: &Path) -> Result<(String, Option<Duration>), String> {
    let mut text = String::new();
    // without waiting for somebody at the other end, if it is a pipe
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path).map_err(|e| e.to_string())?;
    let found = file.metadata().map_err(|error| error.to_string())?;
    if !found.is_file() {
        return Err("it is no file".to_owned());
    }
    file.take(ENDPOINTS_FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(|error| error.to_string())?;
    if text.len() as u64 > ENDPOINTS_FILE_BYTES_MAX {
        return Err(format!("larger than {ENDPOINTS_FILE_BYTES_MAX} bytes"));
    }
    let written = found.modified().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
    Ok((text, written))
}

fn told(path: &Path, text: &str) -> Result<Vec<Told>, String> {
    let is_toml = path.extension().is_some_and(|extension| extension == "toml");
    // one line an event
    let one_line = |error: String| error.split_whitespace().collect::<Vec<_>>().join(" ");
    let Endpoints { endpoints } = match is_toml {
        true => toml::from_str(text).map_err(|error| one_line(error.to_string()))?,
        false => serde_json::from_str(text).map_err(|error| one_line(error.to_string()))?,
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
        told(Path::new(name), text)
    }

    #[test]
    fn half_of_a_list_that_is_a_list_itself_is_not_taken_for_the_whole() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("a.toml");
            let row = |last: usize| format!("[[endpoints]]\naddress = \"10.0.0.{last}:80\"\n");
            let rows = |count: usize| (1..=count).map(row).collect::<String>();
            // replaced in one step, and of a time that tells nothing: that nobody writes any more is seen by what it says alone
            let later = UNIX_EPOCH + clock::wall() + Duration::from_secs(3_600);
            let write = |count: usize| {
                let next = path.with_extension("next");
                std::fs::write(&next, rows(count)).unwrap();
                std::fs::File::options().write(true).open(&next).unwrap().set_modified(later).unwrap();
                std::fs::rename(&next, &path).unwrap();
            };
            write(1);
            let writing = async {
                for count in (1..=50).cycle() {
                    write(count);
                    tokio::task::yield_now().await;
                }
            };
            // where the writer was held up meanwhile it was not being written
            let mut tries = 0..1_000;
            let reading = async {
                let expected = (Learned::Unknown, Some("it is being written".to_owned()));
                while read(path.clone()).await != expected {
                    assert!(tries.next().is_some(), "it is taken for the whole");
                }
            };
            tokio::select! {
                () = reading => {}
                () = writing => unreachable!("it does not end"),
            }
            write(50);
            let (learned, why) = read(path.clone()).await;
            let Learned::Endpoints(told, EVERY) = learned else { panic!("{learned:?} {why:?}") };
            assert_eq!(told.len(), 50);
        });
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
        assert!(read_now(Path::new("/nonexistent/a.json")).is_err());
        assert_eq!(read_now(Path::new("/dev/null")), Err("it is no file".to_owned()));
    }
}
