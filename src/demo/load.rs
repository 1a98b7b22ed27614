//! The demo's clients: a few keep-alive connections that ask at a steady, small rate and count what they see.

use super::stop::Stop;
use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Connections; each waits for its answer before it asks again.
const CLIENTS: u32 = 8;
/// Between two requests of one client: 8 clients make 320 requests a second.
const PACE: Duration = Duration::from_millis(25);
/// A client that waits longer counts a failure: twice the route's `timeout`.
const PATIENCE: Duration = Duration::from_secs(4);
/// Latest response times kept for the percentiles: about ten seconds of them.
const RECENT_MAX: usize = 3_200;

/// The running clients.
pub(super) struct Load {
    counts: Arc<Mutex<Counts>>,
    threads: Vec<JoinHandle<()>>,
}

/// What clients have seen so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    /// Requests sent.
    pub(super) requests: u64,
    /// Of them, those that got a status of 500 or more, no answer in time, or a broken connection.
    pub(super) failures: u64,
    /// The latest failure, in words.
    pub(super) last_failure: Option<String>,
    /// Median response time of the last ten seconds or so.
    pub(super) p50: Duration,
    /// 99th percentile of the same.
    pub(super) p99: Duration,
}

#[derive(Default)]
struct Counts {
    requests: u64,
    failures: u64,
    last_failure: Option<String>,
    recent: VecDeque<Duration>,
}

impl Load {
    /// Asks `gateway` until `stop`.
    pub(super) fn start(gateway: SocketAddr, stop: &Arc<Stop>) -> Self {
        let counts = Arc::new(Mutex::new(Counts::default()));
        let threads = (0..CLIENTS)
            .map(|index| {
                let (counts, stop) = (Arc::clone(&counts), Arc::clone(stop));
                std::thread::spawn(move || ask_until(&stop, gateway, PACE * index / CLIENTS, &counts))
            })
            .collect();
        Self { counts, threads }
    }

    /// What clients have seen so far.
    pub(super) fn tally(&self) -> Tally {
        let counts = lock(&self.counts);
        let mut sorted: Vec<_> = counts.recent.iter().copied().collect();
        sorted.sort_unstable();
        Tally {
            requests: counts.requests,
            failures: counts.failures,
            last_failure: counts.last_failure.clone(),
            p50: quantile(&sorted, 0.50),
            p99: quantile(&sorted, 0.99),
        }
    }

    /// Waits for every client's last answer.
    pub(super) fn join(self) {
        for thread in self.threads {
            let _ = thread.join();
        }
    }
}

impl Counts {
    fn record(&mut self, took: Duration, outcome: Result<u16, io::Error>) {
        self.requests += 1;
        if self.recent.len() == RECENT_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back(took);
        let failure = match outcome {
            Ok(status) if status < 500 => return,
            Ok(status) => format!("status {status}"),
            Err(error) => error.to_string(),
        };
        self.failures += 1;
        self.last_failure = Some(format!("{failure} after {} ms", took.as_millis()));
    }
}

/// The value below which `share` of the sorted values lie (nearest rank); zero when there are none.
fn quantile(sorted: &[Duration], share: f64) -> Duration {
    let rank = (sorted.len() as f64 * share).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}

fn ask_until(stop: &Stop, gateway: SocketAddr, offset: Duration, counts: &Mutex<Counts>) {
    let mut connection = None;
    let mut next = Instant::now() + offset;
    while !stop.wait_until(next) {
        let sent = Instant::now();
        let outcome = ask(&mut connection, gateway);
        if outcome.is_err() {
            connection = None;
        }
        lock(counts).record(sent.elapsed(), outcome);
        // late requests are not made up for: the load stays bounded
        next = (next + PACE).max(Instant::now());
    }
}

/// One GET on the kept connection, or on a new one; its status.
fn ask(connection: &mut Option<BufReader<TcpStream>>, gateway: SocketAddr) -> io::Result<u16> {
    let reader = match connection {
        Some(reader) => reader,
        None => {
            let stream = TcpStream::connect_timeout(&gateway, PATIENCE)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_nodelay(true)?;
            connection.insert(BufReader::new(stream))
        }
    };
    reader.get_mut().write_all(b"GET /hello HTTP/1.1\r\nHost: demo\r\nUser-Agent: ringgate-demo\r\n\r\n")?;
    let (status, close) = read_response(reader)?;
    if close {
        *connection = None;
    }
    Ok(status)
}

/// Reads one response with Content-Length; its status, and whether the connection ends with it.
fn read_response(reader: &mut impl BufRead) -> io::Result<(u16, bool)> {
    let broken = || io::Error::from(io::ErrorKind::InvalidData);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    if line.is_empty() {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "connection closed"));
    }
    let status = line.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or_else(broken)?;
    let (mut length, mut close) = (None, false);
    loop {
        line.clear();
        reader.read_line(&mut line)?;
        if line == "\r\n" {
            break;
        }
        let (name, value) = line.split_once(':').ok_or_else(broken)?;
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse().ok();
        }
        close |= name.eq_ignore_ascii_case("connection") && value.trim().eq_ignore_ascii_case("close");
    }
    let length: u64 = length.ok_or_else(broken)?;
    let read = io::copy(&mut reader.take(length), &mut io::sink())?;
    if read == length { Ok((status, close)) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

fn lock(counts: &Mutex<Counts>) -> MutexGuard<'_, Counts> {
    counts.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_and_statuses_of_500_and_more_are_failures() {
        let mut counts = Counts::default();
        counts.record(Duration::from_millis(1), Ok(200));
        counts.record(Duration::from_millis(1), Ok(404));
        counts.record(Duration::from_millis(7), Ok(503));
        counts.record(Duration::from_millis(1), Err(io::ErrorKind::ConnectionReset.into()));
        assert_eq!((counts.requests, counts.failures), (4, 2));
        counts.record(Duration::from_millis(7), Ok(504));
        assert_eq!(counts.last_failure.as_deref(), Some("status 504 after 7 ms"));
    }

    #[test]
    fn response_times_kept_are_bounded() {
        let mut counts = Counts::default();
        for _ in 0..RECENT_MAX + 10 {
            counts.record(Duration::ZERO, Ok(200));
        }
        assert_eq!(counts.recent.len(), RECENT_MAX);
    }

    #[test]
    fn quantiles_are_by_nearest_rank() {
        let sorted: Vec<_> = (1..=100).map(Duration::from_millis).collect();
        assert_eq!(quantile(&sorted, 0.50), Duration::from_millis(50));
        assert_eq!(quantile(&sorted, 0.99), Duration::from_millis(99));
        assert_eq!(quantile(&[], 0.99), Duration::ZERO);
    }

    #[test]
    fn a_response_that_ends_early_is_an_error() {
        let whole = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi";
        assert_eq!(read_response(&mut &whole[..]).unwrap(), (200, true));
        assert!(read_response(&mut &whole[..whole.len() - 1]).is_err());
        assert!(read_response(&mut &b""[..]).is_err());
    }
}
