//! A client that sends exactly the bytes it is told and reads one response with the framing of RFC 9112 §6.3.

use super::stream::Stream;
use std::io::{self, Read, Write};
use std::sync::Arc;
use std::time::Duration;

/// One connection to the gateway.
pub(crate) struct Client {
    stream: Arc<Stream>,
    unread: Vec<u8>,
}

/// One response, whole.
#[derive(Clone, Debug)]
pub(crate) struct Response {
    /// Status code.
    pub(crate) status: u16,
    /// Names lower-cased, values trimmed, in the order they came.
    pub(crate) headers: Vec<(String, String)>,
    /// Without transfer coding.
    pub(crate) body: Vec<u8>,
}

impl Response {
    /// The first header of that name.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        find(&self.headers, name)
    }

    /// The body as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON; fails with the body.
    #[track_caller]
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }

    /// That this is the gateway's own reply with that status and token.
    #[track_caller]
    pub(crate) fn assert_rejected(&self, status: u16, token: &str) {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.json()["error"], token, "{self:?}");
        assert!(self.json()["message"].is_string(), "{self:?}");
        let content_type = self.header("content-type").unwrap_or_default();
        assert!(content_type.starts_with("application/json"), "{self:?}");
    }
}

impl Client {
    /// Connects to `ip:port` or `unix:/path`; fails when it cannot.
    #[track_caller]
    pub(crate) fn connect(address: &str) -> Self {
        Self::try_connect(address).unwrap_or_else(|error| panic!("cannot connect to {address}: {error}"))
    }

    /// Connects to `ip:port` or `unix:/path`.
    pub(crate) fn try_connect(address: &str) -> io::Result<Self> {
        Ok(Self { stream: Arc::new(Stream::connect(address)?), unread: Vec::new() })
    }

    /// Over a stream that stands.
    pub(crate) fn over(stream: Stream) -> Self {
        Self { stream: Arc::new(stream), unread: Vec::new() }
    }

    /// Connects to `ip:port` from another address of this host.
    #[track_caller]
    pub(crate) fn connect_from(source: &str, address: &str) -> Self {
        let stream =
            Stream::connect_from(source, address).unwrap_or_else(|error| panic!("{source} to {address}: {error}"));
        Self { stream: Arc::new(stream), unread: Vec::new() }
    }

    /// The socket itself.
    pub(crate) fn stream(&self) -> &Stream {
        &self.stream
    }

    /// The same for another thread, which may send while this one reads.
    pub(crate) fn stream_handle(&self) -> Arc<Stream> {
        Arc::clone(&self.stream)
    }

    /// No later read may take longer.
    pub(crate) fn limit(&self, timeout: Duration) {
        self.stream.limit(timeout).expect("a timeout can be set");
    }

    /// Sends exactly these bytes.
    pub(crate) fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        (&*self.stream).write_all(bytes.as_ref())
    }

    /// Sends exactly these bytes; fails when it cannot.
    #[track_caller]
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes).expect("the gateway takes what is sent");
    }

    /// One GET without a body, on this connection.
    #[track_caller]
    pub(crate) fn get(&mut self, path: &str) -> Response {
        self.try_get(path).unwrap_or_else(|error| panic!("GET {path}: {error}"))
    }

    /// One GET without a body, on this connection.
    pub(crate) fn try_get(&mut self, path: &str) -> io::Result<Response> {
        self.try_request("GET", path, &[], b"")
    }

    /// One request, with Content-Length where there is a body.
    #[track_caller]
    pub(crate) fn request(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Response {
        self.try_request(method, path, headers, body).unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }

    /// One request, with Content-Length where there is a body.
    pub(crate) fn try_request(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> io::Result<Response> {
        self.try_send(request_bytes(method, path, headers, body))?;
        self.try_read(method)
    }

    /// The next response, to a request of that method.
    #[track_caller]
    pub(crate) fn read(&mut self, method: &str) -> Response {
        self.try_read(method).unwrap_or_else(|error| panic!("no response to {method}: {error}"))
    }

    /// The next response, to a request of that method. A connection that ends early is `UnexpectedEof`, malformed bytes `InvalidData`.
    pub(crate) fn try_read(&mut self, method: &str) -> io::Result<Response> {
        let (status, headers) = self.read_head()?;
        let body = if method == "HEAD" || status < 200 || status == 204 || status == 304 {
            Vec::new()
        } else if find(&headers, "transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked")) {
            self.read_chunked()?
        } else if let Some(length) = find(&headers, "content-length") {
            let length = length.parse().map_err(|_| malformed("Content-Length"))?;
            self.take(length)?
        } else {
            self.read_to_end()?
        };
        Ok(Response { status, headers, body })
    }

    /// Only the next response's head: status and headers.
    pub(crate) fn read_head(&mut self) -> io::Result<(u16, Vec<(String, String)>)> {
        let head = self.take_until(b"\r\n\r\n")?;
        let head = String::from_utf8(head).map_err(|_| malformed("head"))?;
        let mut lines = head.trim_end().split("\r\n");
        let status_line = lines.next().unwrap_or_default();
        let status = status_line
            .strip_prefix("HTTP/1.1 ")
            .and_then(|rest| rest.get(..3))
            .and_then(|code| code.parse().ok())
            .ok_or_else(|| malformed(status_line))?;
        let headers = lines
            .map(|line| line.split_once(':').map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned())))
            .collect::<Option<_>>()
            .ok_or_else(|| malformed("header"))?;
        Ok((status, headers))
    }

    /// Exactly `length` bytes.
    pub(crate) fn take(&mut self, length: usize) -> io::Result<Vec<u8>> {
        while self.unread.len() < length {
            self.read_more()?;
        }
        let rest = self.unread.split_off(length);
        Ok(std::mem::replace(&mut self.unread, rest))
    }

    /// All until the connection ends.
    pub(crate) fn read_to_end(&mut self) -> io::Result<Vec<u8>> {
        (&*self.stream).read_to_end(&mut self.unread)?;
        Ok(std::mem::take(&mut self.unread))
    }

    /// That the gateway closes the connection and sends nothing more.
    #[track_caller]
    pub(crate) fn assert_closed(&mut self) {
        match self.read_more() {
            Err(error) if matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset) => {}
            Err(error) => panic!("the gateway did not close the connection: {error}"),
            Ok(()) => panic!("unexpected bytes: {:?}", String::from_utf8_lossy(&self.unread)),
        }
    }

    fn read_chunked(&mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let line = self.take_until(b"\r\n")?;
            let line = std::str::from_utf8(&line).map_err(|_| malformed("chunk size"))?;
            let size = line.trim_end().split(';').next().unwrap_or_default();
            let size = usize::from_str_radix(size, 16).map_err(|_| malformed("chunk size"))?;
            if size == 0 {
                while self.take_until(b"\r\n")? != b"\r\n" {}
                return Ok(body);
            }
            body.append(&mut self.take(size)?);
            if self.take(2)? != b"\r\n" {
                return Err(malformed("end of chunk"));
            }
        }
    }

    fn take_until(&mut self, end: &[u8]) -> io::Result<Vec<u8>> {
        loop {
            if let Some(at) = self.unread.windows(end.len()).position(|window| window == end) {
                return self.take(at + end.len());
            }
            self.read_more()?;
        }
    }

    /// Receives something more, for a later read to take.
    pub(crate) fn read_more(&mut self) -> io::Result<()> {
        let mut block = [0; 64 << 10];
        let read = (&*self.stream).read(&mut block)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.unread.extend_from_slice(&block[..read]);
        Ok(())
    }
}

/// The bytes of a request with `Host: test` unless `headers` has one, and Content-Length where there is a body.
pub(crate) fn request_bytes(method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut bytes = format!("{method} {path} HTTP/1.1\r\n");
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
        bytes.push_str("Host: test\r\n");
    }
    for (name, value) in headers {
        bytes.push_str(&format!("{name}: {value}\r\n"));
    }
    if !body.is_empty() {
        bytes.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    bytes.push_str("\r\n");
    [bytes.as_bytes(), body].concat()
}

/// The first header of that name.
pub(crate) fn find<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
}

fn malformed(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("malformed: {what}"))
}
