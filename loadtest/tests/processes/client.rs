//! A tiny client, and waiting for a condition.

#![expect(clippy::disallowed_methods, reason = "a test measures from outside, and looks again until a deadline")]

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::PATIENCE;

/// A connection.
pub(crate) struct Client {
    pub(crate) stream: BufReader<TcpStream>,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// In lower case, without the first line.
    pub(crate) fields: String,
    pub(crate) body: Vec<u8>,
    /// From before the request was sent until its head was here, and its last byte.
    pub(crate) head_after: Duration,
    pub(crate) after: Duration,
}

impl Client {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("somebody listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
        stream.set_nodelay(true).expect("a socket");
        Self { stream: BufReader::new(stream) }
    }

    pub(crate) fn get(&mut self, path: &str) -> io::Result<Answer> {
        self.ask(&format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n"))
    }

    pub(crate) fn ask(&mut self, request: &str) -> io::Result<Answer> {
        let start = Instant::now();
        self.send(request)?;
        self.answer(start, request.starts_with("HEAD"))
    }

    pub(crate) fn send(&mut self, text: &str) -> io::Result<()> {
        self.stream.get_mut().write_all(text.as_bytes())
    }

    /// The next answer, to a request that was sent before.
    pub(crate) fn next_answer(&mut self) -> io::Result<Answer> {
        self.answer(Instant::now(), false)
    }

    fn answer(&mut self, start: Instant, is_head: bool) -> io::Result<Answer> {
        let mut first = String::new();
        if self.stream.read_line(&mut first)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let status = first.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
        let mut fields = String::new();
        while !fields.ends_with("\r\n\r\n") && fields != "\r\n" {
            if self.stream.read_line(&mut fields)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        let head_after = start.elapsed();
        let fields = fields.to_ascii_lowercase();
        let length =
            fields.split_once("content-length: ").and_then(|(_, rest)| rest.split("\r\n").next()?.parse().ok());
        let mut body = vec![0; if is_head || status == 100 { 0 } else { length.expect("a length") }];
        self.stream.read_exact(&mut body)?;
        Ok(Answer { status, fields, body, head_after, after: start.elapsed() })
    }

    /// The other side has ended the connection; `Err`: with a reset, or it has not ended it.
    pub(crate) fn has_ended(&mut self) -> io::Result<bool> {
        Ok(self.stream.read(&mut [0])? == 0)
    }
}

/// Looks until `condition` has a value.
pub(crate) fn until<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Measures until a measurement is as it should be: on a busy machine the first may not be. Says what the last one was otherwise.
pub(crate) fn measured_once<T: std::fmt::Debug>(
    what: &str,
    mut measure: impl FnMut() -> T,
    is_right: impl Fn(&T) -> bool,
) -> T {
    let mut last = measure();
    for _ in 0..9 {
        if is_right(&last) {
            return last;
        }
        last = measure();
    }
    assert!(is_right(&last), "{what}: {last:?}, ten times not as it should be");
    last
}

/// How long `action` takes.
pub(crate) fn timed(action: impl FnOnce()) -> Duration {
    let start = Instant::now();
    action();
    start.elapsed()
}
