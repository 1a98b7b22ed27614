//! A service behind the gateway: plain blocking threads that answer what the path asks for.

use crate::streams::push_frame;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

/// More than a worker's largest buffer holds.
const LARGE_BYTES: usize = 100_000;

/// Listening sockets whose threads live as long as the process.
pub(crate) struct Service {
    /// Answers 200.
    pub(crate) good: SocketAddr,
    /// Answers 503.
    pub(crate) failing: SocketAddr,
    /// Answers 200 over HTTP/2.
    pub(crate) streams: SocketAddr,
}

impl Service {
    pub(crate) fn start() -> Self {
        Self {
            good: listen(|stream| serve(stream, true)),
            failing: listen(|stream| serve(stream, false)),
            streams: listen(serve_streams),
        }
    }
}

fn listen(serve: fn(TcpStream)) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = stream.expect("a connection");
            std::thread::spawn(move || serve(stream));
        }
    });
    address
}

fn serve(mut stream: TcpStream, good: bool) {
    stream.set_nodelay(true).expect("a socket");
    let answers = Answers::new();
    let mut read = Vec::new();
    let mut piece = [0; 1 << 14];
    loop {
        let Some(end) = message_end(&read) else {
            match read_some(&mut stream, &mut piece) {
                Ok(received @ 1..) => read.extend_from_slice(&piece[..received]),
                _ => return,
            }
            continue;
        };
        let answer = match &read {
            _ if !good => &answers.failure,
            head if head.starts_with(b"GET /large ") => &answers.large,
            head if head.starts_with(b"GET /chunked ") => &answers.chunked,
            _ => &answers.small,
        };
        if stream.write_all(answer).is_err() {
            return;
        }
        read.drain(..end);
    }
}

/// Answers each stream that has come to its end, without a look at what it asks for.
fn serve_streams(mut stream: TcpStream) {
    stream.set_nodelay(true).expect("a socket");
    let (mut read, mut out, mut piece) = (Vec::new(), Vec::new(), [0; 1 << 14]);
    push_frame(&mut out, 4, 0, 0, b"");
    push_frame(&mut out, 8, 0, 0, &(1_u32 << 30).to_be_bytes());
    let mut at = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".len();
    loop {
        while let Some([a, b, c, kind, flags, i, j, k, l, behind @ ..]) = read.get(at..) {
            let (len, id) = (u32::from_be_bytes([0, *a, *b, *c]) as usize, u32::from_be_bytes([*i, *j, *k, *l]));
            if behind.len() < len {
                break;
            }
            match (kind, flags & 1) {
                (0 | 1, 1) => push_answer(&mut out, id),
                (4, 0) => push_frame(&mut out, 4, 1, 0, b""),
                (6, 0) => push_frame(&mut out, 6, 1, 0, &behind[..len]),
                _ => {}
            }
            at += 9 + len;
        }
        if read.len() >= at {
            read.drain(..at);
            at = 0;
        }
        if stream.write_all(&out).is_err() {
            return;
        }
        out.clear();
        match read_some(&mut stream, &mut piece) {
            Ok(received @ 1..) => read.extend_from_slice(&piece[..received]),
            _ => return,
        }
    }
}

/// A kilobyte.
fn push_answer(out: &mut Vec<u8>, id: u32) {
    // `:status: 200`, `content-length: 1024`
    push_frame(out, 1, 4, id, b"\x88\x0f\x0d\x041024");
    push_frame(out, 0, 1, id, &[b'z'; 1_024]);
}

/// `Read::read`, again when a signal interrupts it: with a time limit the kernel does not go on by itself.
pub(crate) fn read_some(stream: &mut TcpStream, into: &mut [u8]) -> io::Result<usize> {
    loop {
        match stream.read(into) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}

struct Answers {
    small: Vec<u8>,
    large: Vec<u8>,
    chunked: Vec<u8>,
    failure: Vec<u8>,
}

impl Answers {
    fn new() -> Self {
        let fixed = |status: &str, bytes: usize| {
            let head = format!(
                "HTTP/1.1 {status}\r\nServer: test\r\nContent-Type: text/plain\r\nContent-Length: {bytes}\r\n\r\n"
            );
            [head.into_bytes(), vec![b'x'; bytes]].concat()
        };
        let mut chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
        for _ in 0..10 {
            chunked.extend_from_slice(format!("{:x}\r\n", LARGE_BYTES / 10).as_bytes());
            chunked.resize(chunked.len() + LARGE_BYTES / 10, b'y');
            chunked.extend_from_slice(b"\r\n");
        }
        chunked.extend_from_slice(b"0\r\n\r\n");
        Self {
            small: fixed("200 OK", 1_024),
            large: fixed("200 OK", LARGE_BYTES),
            chunked,
            failure: fixed("503 Service Unavailable", 10),
        }
    }
}

/// Where the first message in `bytes` ends, if all of it is there. Knows only what both sides of this test send.
pub(crate) fn message_end(bytes: &[u8]) -> Option<usize> {
    let head_end = find(bytes, b"\r\n\r\n")? + 4;
    let head = std::str::from_utf8(&bytes[..head_end]).expect("heads are ASCII").to_ascii_lowercase();
    if head.contains("transfer-encoding: chunked") {
        return chunked_end(bytes, head_end);
    }
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let end = head_end + length.map_or(0, |length| length.parse().expect("a number"));
    (end <= bytes.len()).then_some(end)
}

fn chunked_end(bytes: &[u8], mut at: usize) -> Option<usize> {
    loop {
        let line = find(bytes.get(at..)?, b"\r\n")?;
        let size = std::str::from_utf8(&bytes[at..at + line]).expect("a size");
        let size = usize::from_str_radix(size, 16).expect("a size in hexadecimal");
        at += line + 2 + size + 2;
        if size == 0 {
            return (at <= bytes.len()).then_some(at);
        }
    }
}

fn find(bytes: &[u8], needle: &[u8]) -> Option<usize> {
    memchr::memmem::find(bytes, needle)
}
