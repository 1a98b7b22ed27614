//! An access log of ringgate (JSON, one object a line) as a load: its methods, hosts and paths, at the times at which they came.
//!
//! A line tells when a request was over and how long it took, so it is known when it came. Lines that are no requests (other text, or a
//! request that could not be read) are counted and left out.
//!
//! A load has at most [`TARGETS_MAX`] targets, and a log has as many paths as there are customers. The most frequent are kept as they
//! are; another request becomes the nearest of those: the same method and host, and the longest common beginning of the path, then the most
//! frequent. So times and methods stay, and which of the rare paths was asked is lost; how many that concerns is told. A request of
//! a method that none of the kept ones has is left out, and told.
//!
//! Memory is bounded whatever the log is: it is read twice, line by line. First candidates are found with [`CANDIDATES_MAX`] counters (Misra
//! and Gries, "Finding repeated elements", 1982: no request that is more than one in so many is missed), then every arrival is given to one
//! of the kept: 16 bytes each, [`ARRIVALS_MAX`] at most.

use super::Request;
use super::targets::regular;
use super::values::PATH_BYTES_MAX;
use crate::load::TARGETS_MAX;
use serde::Deserialize;
use std::borrow::Cow;
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Seek};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Requests of one replay: 160 MB of them.
pub(super) const ARRIVALS_MAX: usize = 10_000_000;
/// Counters of requests that may be frequent.
const CANDIDATES_MAX: usize = 4_096;
/// Longest line that is read, bytes: six texts of 2 KiB, escaped. A longer one is no request.
const LINE_BYTES_MAX: u64 = 128 << 10;
/// Bytes of a request that are not its body, about: what is subtracted from the logged size.
const HEAD_BYTES: u64 = 256;
/// Longest body that is made up, bytes.
const BODY_BYTES_MAX: u64 = 1 << 20;

/// A log as a load.
#[derive(Clone, Debug)]
pub struct Replay {
    /// Time from the first request, and row of [`Replay::requests`]; ascending, at least one.
    pub times: Arc<[(Duration, u32)]>,
    /// By frequency, the first most often; weights are how often.
    pub requests: Vec<Request>,
    /// Lines that are no requests.
    pub skipped: u64,
    /// Requests that became the nearest of those that are kept.
    pub folded: u64,
    /// Requests of methods that none of the kept ones has.
    pub left_out: u64,
}

/// Why a log is no load.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// It cannot be read.
    #[error("the log cannot be read: {0}")]
    Io(#[from] std::io::Error),
    /// Not one line is a request.
    #[error("no line of {0} is a request of an access log")]
    NoRequests(u64),
    /// More than [`ARRIVALS_MAX`].
    #[error("more than {ARRIVALS_MAX} requests")]
    TooMany,
}

impl ReplayError {
    /// What to do about it.
    #[must_use]
    pub fn help(&self) -> Option<String> {
        let help = match self {
            Self::Io(_) => "it is looked for in the folder of the plan",
            Self::NoRequests(_) => "it is JSON when access_log.format is \"json\"",
            Self::TooMany => "take a part of it: head -n 10000000",
        };
        Some(help.to_owned())
    }
}

impl Replay {
    /// From the first request to the last.
    #[must_use]
    pub fn span(&self) -> Duration {
        self.times.last().map_or(Duration::ZERO, |(at, _)| *at)
    }

    /// What a reader of the result should know.
    pub(super) fn remarks(&self) -> Vec<String> {
        let all = self.times.len() as u64 + self.left_out;
        let share = |part: u64| 100.0 * part as f64 / all.max(1) as f64;
        let told = [
            (self.skipped, format!("{} lines of the log are no requests and were left out", self.skipped)),
            (
                self.folded,
                format!(
                    "{} of {all} requests of the log ({:.1} %) are not among its {} most frequent, and were replaced by the nearest of those",
                    self.folded,
                    share(self.folded),
                    self.requests.len()
                ),
            ),
            (
                self.left_out,
                format!(
                    "{} of {all} requests of the log ({:.1} %) have a method or host that none of the most frequent has, and were left out",
                    self.left_out,
                    share(self.left_out)
                ),
            ),
        ];
        told.into_iter().filter(|(count, _)| *count > 0).map(|(_, remark)| remark).collect()
    }
}

/// What is read of a line.
#[derive(Deserialize)]
struct Line<'l> {
    #[serde(borrow)]
    time: Cow<'l, str>,
    #[serde(borrow)]
    method: Option<Cow<'l, str>>,
    #[serde(borrow)]
    target: Option<Cow<'l, str>>,
    #[serde(borrow)]
    host: Option<Cow<'l, str>>,
    #[serde(default)]
    duration_ms: f64,
    #[serde(default)]
    request_bytes: u64,
}

/// A request of the log.
struct Entry {
    /// Microseconds since 1970.
    began: i64,
    asked: Asked,
    request_bytes: u64,
}

/// What is the same in requests that are the same.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Asked {
    method: String,
    host: Option<String>,
    path: String,
}

/// Reads the log at `path`, `speed` times as fast as it came.
pub(super) fn open(path: &Path, speed: f64) -> Result<Replay, ReplayError> {
    let mut file = regular(path)?;
    read(&mut file, speed)
}

fn read<F: Read + Seek>(log: &mut F, speed: f64) -> Result<Replay, ReplayError> {
    let kept = kept(log)?;
    log.rewind()?;
    let mut exact: HashMap<&Asked, usize> = kept.iter().enumerate().map(|(row, asked)| (asked, row)).collect();
    exact.shrink_to_fit();
    let mut came: Vec<(i64, u32)> = Vec::new();
    let mut bytes = vec![(0_u64, 0_u64); kept.len()];
    let (mut skipped, mut folded, mut left_out) = (0, 0, 0);
    each(log, |entry| {
        let Some(entry) = entry else {
            skipped += 1;
            return Ok(());
        };
        let row = match exact.get(&entry.asked) {
            Some(row) => *row,
            None => match nearest(&entry.asked, &kept) {
                Some(row) => {
                    folded += 1;
                    row
                }
                None => {
                    left_out += 1;
                    return Ok(());
                }
            },
        };
        if came.len() == ARRIVALS_MAX {
            return Err(ReplayError::TooMany);
        }
        bytes[row] = (bytes[row].0 + 1, bytes[row].1.saturating_add(entry.request_bytes));
        // there are few rows
        came.push((entry.began, u32::try_from(row).unwrap_or(u32::MAX)));
        Ok(())
    })?;
    came.sort_unstable();
    let first = came.first().ok_or(ReplayError::NoRequests(skipped))?.0;
    let after = |began: i64| Duration::from_secs_f64((began - first) as f64 / 1e6 / speed);
    let times = came.iter().map(|(began, row)| (after(*began), *row)).collect();
    let requests = kept.into_iter().zip(bytes).map(|(asked, (count, bytes))| asked.request(count, bytes)).collect();
    Ok(Replay { times, requests, skipped, folded, left_out })
}

/// The most frequent requests, the first most often.
fn kept<F: Read>(log: &mut F) -> Result<Vec<Asked>, ReplayError> {
    let mut counters: HashMap<Asked, u64> = HashMap::new();
    let mut skipped = 0;
    each(log, |entry| {
        match entry {
            None => skipped += 1,
            Some(entry) if counters.len() < CANDIDATES_MAX || counters.contains_key(&entry.asked) => {
                *counters.entry(entry.asked).or_default() += 1;
            }
            // nobody's counter is free: everybody gives up one, and so does the newcomer
            Some(_) => counters.retain(|_, count| {
                *count -= 1;
                *count > 0
            }),
        }
        Ok(())
    })?;
    let mut frequent: Vec<_> = counters.into_iter().collect();
    frequent.sort_by(|(a, a_count), (b, b_count)| b_count.cmp(a_count).then_with(|| a.order().cmp(&b.order())));
    frequent.truncate(TARGETS_MAX);
    if frequent.is_empty() {
        Err(ReplayError::NoRequests(skipped))
    } else {
        Ok(frequent.into_iter().map(|(asked, _)| asked).collect())
    }
}

/// Hands on each line: a request, or `None`.
fn each<F: Read>(
    log: &mut F,
    mut visit: impl FnMut(Option<Entry>) -> Result<(), ReplayError>,
) -> Result<(), ReplayError> {
    let mut log = BufReader::with_capacity(1 << 16, log);
    let mut line = Vec::new();
    loop {
        line.clear();
        if log.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        let is_whole = line.ends_with(b"\n") || (line.len() as u64) < LINE_BYTES_MAX;
        if !is_whole {
            log.skip_until(b'\n')?;
        }
        if !line.trim_ascii().is_empty() {
            visit(if is_whole { entry(&line) } else { None })?;
        }
    }
}

fn entry(line: &[u8]) -> Option<Entry> {
    let line: Line<'_> = serde_json::from_slice(line).ok()?;
    let is_token = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b));
    let method =
        line.method.filter(|method| (1..=32).contains(&method.len()) && is_token(method) && method != "CONNECT")?;
    // a parameter's value that was not written is sent as this word, since brackets are no part of a URL
    let path = line.target?.replace("[redacted]", "redacted");
    let is_clean = path.starts_with('/')
        && path.len() <= PATH_BYTES_MAX
        && path.bytes().all(|b| b.is_ascii_graphic() && b != b'#');
    let is_name = |host: &Cow<'_, str>| {
        (1..=260).contains(&host.len()) && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._:[]".contains(&b))
    };
    let host = line.host.filter(|host| is_name(host) && *host != "[redacted]").map(Cow::into_owned);
    let took = Some(line.duration_ms).filter(|took| (0.0..=1e9).contains(took))?;
    let began = micros(&line.time)? - (took * 1e3).round() as i64;
    is_clean.then(|| Entry {
        began,
        asked: Asked { method: method.into_owned(), host, path },
        request_bytes: line.request_bytes,
    })
}

/// Microseconds since 1970 of `2026-11-22T09:15:00.123Z`, with or without a fraction; the only form that the log has (RFC 3339, UTC).
fn micros(time: &str) -> Option<i64> {
    let bytes = time.as_bytes();
    let number = |from: usize, to: usize| {
        let digits = time.get(from..to).filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()))?;
        digits.parse::<i64>().ok()
    };
    let signs = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')];
    if !signs.iter().all(|(at, sign)| bytes.get(*at) == Some(sign)) || bytes.last() != Some(&b'Z') {
        return None;
    }
    let [year, month, day] = [number(0, 4)?, number(5, 7)?, number(8, 10)?];
    let [hour, minute, second] = [number(11, 13)?, number(14, 16)?, number(17, 19)?];
    let is_date = (1..=12).contains(&month) && (1..=31).contains(&day) && hour < 24 && minute < 60 && second <= 60;
    let fraction = match time.get(19..time.len() - 1)? {
        "" => 0,
        rest => {
            let digits = rest.strip_prefix('.').filter(|digits| (1..=9).contains(&digits.len()))?;
            let padded: String = digits.chars().chain(std::iter::repeat('0')).take(6).collect();
            padded.bytes().all(|b| b.is_ascii_digit()).then(|| padded.parse().ok())??
        }
    };
    is_date
        .then(|| ((days(year, month, day) * 24 + hour) * 60 + minute) * 60 + second)
        .map(|seconds| seconds * 1_000_000 + fraction)
}

/// Days from 1 January 1970, in the Gregorian calendar, whose year is counted from March here so that the leap day is its last.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    365 * year + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + (153 * month + 2) / 5 + day
        - 1
        - 719_468
}

/// The kept request that is most like this one: of its method and host, with the longest common beginning; the most frequent of those.
fn nearest(asked: &Asked, kept: &[Asked]) -> Option<usize> {
    let common = |other: &Asked| asked.path.bytes().zip(other.path.bytes()).take_while(|(a, b)| a == b).count();
    let same = kept.iter().enumerate().filter(|(_, other)| other.method == asked.method && other.host == asked.host);
    same.max_by_key(|(row, other)| (common(other), std::cmp::Reverse(*row))).map(|(row, _)| row)
}

impl Asked {
    fn order(&self) -> (&str, Option<&str>, &str) {
        (&self.method, self.host.as_deref(), &self.path)
    }

    /// The request, made `count` times with `bytes` in all. Any answer is good that is none of a failing server: what the log's requests got
    /// depends on who asked.
    fn request(self, count: u64, bytes: u64) -> Request {
        let has_body = matches!(self.method.as_str(), "POST" | "PUT" | "PATCH");
        let body_bytes =
            if has_body { (bytes / count.max(1)).saturating_sub(HEAD_BYTES).min(BODY_BYTES_MAX) } else { 0 };
        let host = self.host.as_deref().map(|host| format!("{host} ")).unwrap_or_default();
        Request {
            name: format!("{} {host}{}", self.method, self.path),
            method: self.method,
            host: self.host,
            body: vec![b'x'; usize::try_from(body_bytes).unwrap_or(0)],
            weight: count.max(1) as f64,
            status: (200, 499),
            ..Request::get(self.path)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    fn line(time: &str, method: &str, target: &str) -> String {
        format!(
            "{{\"time\":\"2026-11-22T09:15:{time}Z\",\"listener\":\"edge\",\"method\":\"{method}\",\"host\":\"a.example\",\"target\":\"{target}\",\
             \"status\":200,\"request_bytes\":1256,\"duration_ms\":12.500}}\n"
        )
    }

    fn replay(log: &str, speed: f64) -> Replay {
        read(&mut Cursor::new(log.as_bytes()), speed).unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn requests_come_when_they_came() {
        // the order of a log is that of the ends
        let log =
            [line("01.500", "GET", "/b"), line("00.500", "GET", "/a?token=[redacted]"), line("02.500", "POST", "/b")]
                .concat();
        let replay = replay(&log, 2.0);
        let times: Vec<_> = replay.times.iter().map(|(at, _)| at.as_millis()).collect();
        assert_eq!(times, [0, 500, 1_000]);
        let names: Vec<_> = replay.times.iter().map(|(_, row)| replay.requests[*row as usize].name.as_str()).collect();
        assert_eq!(names, ["GET a.example /a?token=redacted", "GET a.example /b", "POST a.example /b"]);
        let post = replay.requests.iter().find(|request| request.method == "POST").expect("there is one");
        assert_eq!((post.body.len(), post.host.as_deref(), post.status), (1_000, Some("a.example"), (200, 499)));
        assert!(replay.remarks().is_empty());
    }

    #[test]
    fn what_is_no_request_is_counted_and_not_fatal() {
        let long = "x".repeat(300_000);
        let log = [
            "garbage\n\n{}\n",
            &line("00.000", "GET", "/a"),
            "{\"time\":\"2026-11-22T09:15:00Z\",\"method\":null,\"target\":null,\"duration_ms\":1}\n",
            &line("00.000", "GET", "no-path"),
            &line("99.000", "GET", "/a"),
            &long,
            "\n",
            &line("00.250", "GET", "/a"),
            "{\"time\":\"2026-11-22T09",
        ]
        .concat();
        let replay = replay(&log, 1.0);
        assert_eq!((replay.times.len(), replay.skipped), (2, 7));
        assert!(replay.remarks()[0].starts_with("7 lines"), "{:?}", replay.remarks());
        assert!(matches!(read(&mut Cursor::new(b"x\ny\n"), 1.0), Err(ReplayError::NoRequests(2))));
        assert!(matches!(read(&mut Cursor::new(b""), 1.0), Err(ReplayError::NoRequests(0))));
        let mangled = log.as_bytes();
        for at in (0..mangled.len()).step_by(97) {
            let mut bytes = mangled.to_vec();
            bytes[at] ^= 0x55;
            let _ = read(&mut Cursor::new(bytes), 1.0);
        }
    }

    #[test]
    fn rare_requests_become_the_nearest_frequent_ones() {
        let mut log = String::new();
        for _ in 0..50 {
            (0..TARGETS_MAX).for_each(|n| log.push_str(&line("00.000", "GET", &format!("/orders/{n:02}"))));
        }
        (0..2 * CANDIDATES_MAX).for_each(|n| log.push_str(&line("01.000", "GET", &format!("/orders/07/items/{n}"))));
        log.push_str(&line("02.000", "DELETE", "/orders/07"));
        let replay = replay(&log, 1.0);
        assert_eq!((replay.requests.len(), replay.left_out), (TARGETS_MAX, 1));
        let kept = replay.requests.iter().filter(|request| !request.path.contains("items")).count();
        assert!(kept >= TARGETS_MAX - 1, "the frequent ones are kept, and {kept} were");
        let seven = replay.requests.iter().position(|request| request.path == "/orders/07").expect("it is kept");
        let folded = replay.times.iter().filter(|(at, row)| at.as_secs() == 1 && *row as usize == seven).count() as u64;
        assert!(
            folded + 1 >= replay.folded && replay.folded >= 2 * CANDIDATES_MAX as u64 - 64,
            "{folded} {}",
            replay.folded
        );
        assert_eq!(replay.remarks().len(), 2);
    }

    #[test]
    fn moments_are_read_to_the_microsecond() {
        assert_eq!(micros("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(micros("2023-11-14T22:13:20.123Z"), Some(1_700_000_000_123_000));
        assert_eq!(
            micros("2024-02-29T00:00:00Z").zip(micros("2024-03-01T00:00:00Z")).map(|(a, b)| b - a),
            Some(86_400_000_000)
        );
        for wrong in [
            "",
            "Z",
            "2023-11-14 22:13:20Z",
            "2023-13-14T22:13:20Z",
            "2023-11-14T22:13:20",
            "2023-11-14T22:13:20.Z",
            "é023-11-14T22:13:20Z",
            "2023-11-14T22:13:20+01:00",
        ] {
            assert_eq!(micros(wrong), None, "{wrong}");
        }
    }
}
