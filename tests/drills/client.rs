//! One client connection: a request goes out, its response comes back whole, or the connection is no good any more.

use std::io;
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::traffic::End;

const BODY: &str = "a small body of 26 letters";
/// Longest response read.
const RESPONSE_BYTES_MAX: usize = 256 << 10;
const HEADERS_MAX: usize = 64;

/// A keep-alive connection to a gateway.
pub(crate) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// Where a response's body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    /// After that many bytes, the head's included.
    Bytes(usize),
    /// With the last chunk.
    Chunks { head_bytes: usize },
    /// With the connection.
    Close,
}

/// A response's head, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Head {
    status: u16,
    has_retry_after: bool,
    keeps_alive: bool,
    framing: Framing,
}

impl Connection {
    /// Connects.
    pub(crate) async fn open(target: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(target).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: Vec::with_capacity(1024) })
    }

    /// Whether the gateway has not closed it. Bytes that nobody asked for make it unusable as well.
    pub(crate) fn is_usable(&self) -> bool {
        matches!(self.stream.try_read(&mut [0]), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Asks, and gives the connection back if it can be asked again.
    pub(crate) async fn ask(mut self, id: u64, is_post: bool) -> (End, Option<Self>) {
        match self.exchange(request(id, is_post).as_bytes()).await {
            Ok(head) => {
                let end = End::Answer { status: head.status, has_retry_after: head.has_retry_after };
                (end, head.keeps_alive.then_some(self))
            }
            Err(_) => (End::Lost, None),
        }
    }

    async fn exchange(&mut self, request: &[u8]) -> io::Result<Head> {
        self.stream.write_all(request).await?;
        self.buffer.clear();
        loop {
            let read = self.stream.read_buf(&mut self.buffer).await?;
            let head = parse(&self.buffer)?;
            if let Some(head) = head.filter(|head| is_whole(&self.buffer, head.framing, read == 0)) {
                return Ok(head);
            }
            if read == 0 || self.buffer.len() > RESPONSE_BYTES_MAX {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

fn request(id: u64, is_post: bool) -> String {
    let rest = format!("/drill HTTP/1.1\r\nHost: drill.test\r\nX-Drill-Id: {id}\r\n");
    if is_post {
        format!("POST {rest}Content-Type: text/plain\r\nContent-Length: {}\r\n\r\n{BODY}", BODY.len())
    } else {
        format!("GET {rest}\r\n")
    }
}

fn parse(buffer: &[u8]) -> io::Result<Option<Head>> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut headers);
    let parsed = response.parse(buffer).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    let httparse::Status::Complete(head_bytes) = parsed else { return Ok(None) };
    let field = |name: &str| {
        let found = response.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name))?;
        std::str::from_utf8(found.value).ok()
    };
    let framing = match (field("transfer-encoding"), field("content-length").map(str::parse::<usize>)) {
        (Some(_), _) => Framing::Chunks { head_bytes },
        (None, Some(Ok(bytes))) => Framing::Bytes(head_bytes + bytes),
        (None, _) => Framing::Close,
    };
    let says_close = field("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
    Ok(Some(Head {
        status: response.code.unwrap_or_default(),
        has_retry_after: field("retry-after").is_some(),
        keeps_alive: response.version == Some(1) && !says_close && framing != Framing::Close,
        framing,
    }))
}

fn is_whole(buffer: &[u8], framing: Framing, is_closed: bool) -> bool {
    match framing {
        Framing::Bytes(bytes) => buffer.len() >= bytes,
        // good enough for the short error pages of gateways: services here do not send chunks
        Framing::Chunks { head_bytes } => buffer[head_bytes..].ends_with(b"0\r\n\r\n"),
        Framing::Close => is_closed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_is_whole_when_its_framing_says_so() {
        let whole = |text: &str, is_closed| {
            let head = parse(text.as_bytes()).expect("valid");
            head.is_some_and(|head| is_whole(text.as_bytes(), head.framing, is_closed))
        };
        let fixed = "HTTP/1.1 200 Drill\r\nContent-Length: 2\r\n\r\n";
        assert!(!whole("HTTP/1.1 200 Drill\r\nContent-Le", false));
        assert!(!whole(&format!("{fixed}a"), true), "a body that was cut is no answer");
        assert!(whole(&format!("{fixed}ab"), false));
        let chunked = "HTTP/1.1 503 No\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n";
        assert!(!whole(chunked, false));
        assert!(whole(&format!("{chunked}0\r\n\r\n"), false));
        assert!(!whole("HTTP/1.0 503 No\r\n\r\nsorry", false));
        assert!(whole("HTTP/1.0 503 No\r\n\r\nsorry", true));
    }

    #[test]
    fn a_connection_that_ends_is_not_kept() {
        let kept = |text: &str| parse(text.as_bytes()).expect("valid").expect("whole").keeps_alive;
        assert!(kept("HTTP/1.1 200 Drill\r\nContent-Length: 0\r\n\r\n"));
        assert!(!kept("HTTP/1.1 200 Drill\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"));
        assert!(!kept("HTTP/1.0 200 Drill\r\nContent-Length: 0\r\n\r\n"));
        assert!(!kept("HTTP/1.1 200 Drill\r\n\r\n"));
    }
}
