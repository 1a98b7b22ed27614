//! One check of one endpoint: a connection of its own, a question, and what the answer says.
//!
//! It measures what the gateway would meet: a connection, a response as strict as any endpoint's ([`ResponseHead`], [`Body`]), in time.
//! The connection is closed after the head, unless the body matters: of that the first [`limits::PROBE_BODY_BYTES_MAX`] bytes are read,
//! all of them before they are looked at, since a regex may speak of the end.
//!
//! A check that could not be made for want of something of our own (descriptors, memory, ports) is [`Miss::Exhausted`]: it says nothing
//! of the endpoint, and a gateway that runs out of descriptors must not find every endpoint down.

use super::{grpc, http2};
use crate::config::{Address, HealthCheck, HttpProbe, Probe, Protocol, ProxyVersion};
use crate::http::body::Body;
use crate::http::fields::HeadScratch;
use crate::http::response::ResponseHead;
use crate::http::scan::HeadScanner;
use crate::http::trailers::Trailers;
use crate::http::{Parsed, proxy_header};
use crate::limits;
use crate::net::connecting::meets_another;
use crate::net::fault::{self, Fault};
use crate::net::tls::handshake::Failed;
use crate::observe::labels::{FailureReason, HandshakeFailure};
use crate::observe::stats::Failure;
use crate::tls::{HTTP2, demand};
use crate::worker::handshake_failure;
use http::{Method, StatusCode};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use socket2::SockRef;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

/// Bytes of a response that are read at once.
const READ_BYTES: u64 = 4 << 10;

/// Why a check did not pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Miss {
    /// The endpoint failed it.
    Failed(Failure),
    /// The endpoint failed it before anything was asked: there was no session.
    Handshake(HandshakeFailure),
    /// It could not be made, for want of something of our own ([`fault`]): the error number.
    Exhausted(i32),
}

impl From<FailureReason> for Miss {
    fn from(reason: FailureReason) -> Self {
        Self::Failed(reason.into())
    }
}

/// How an endpoint is spoken to.
#[derive(Clone, Debug)]
pub(super) struct Way {
    pub(super) proxy: ProxyVersion,
    pub(super) protocol: Protocol,
    pub(super) tls: Option<Tls>,
}

#[cfg(test)]
impl Way {
    pub(super) const PLAIN: Self = Self { proxy: ProxyVersion::Off, protocol: Protocol::Http1, tls: None };
}

/// Does the endpoint pass within the check's timeout?
pub(super) async fn check(address: &Address, check: &HealthCheck, way: Way) -> Result<(), Miss> {
    let asked = timeout(check.timeout, connect_and_ask(address, &check.probe, way));
    asked.await.unwrap_or(Err(FailureReason::Timeout.into()))
}

async fn connect_and_ask(address: &Address, probe: &Probe, way: Way) -> Result<(), Miss> {
    let no_connection = |error| not_connected(address, &error);
    match address {
        Address::Tcp(tcp) => {
            let stream = TcpStream::connect(tcp).await.map_err(no_connection)?;
            meets_another(&SockRef::from(&stream)).map_err(no_connection)?;
            introduce(stream, address, probe, way).await
        }
        Address::Unix(path) => {
            introduce(UnixStream::connect(path).await.map_err(no_connection)?, address, probe, way).await
        }
    }
}

/// With what an endpoint is to be spoken to in TLS, and the name that it has to have; without one there can be no session.
pub(super) type Tls = (Arc<ClientConfig>, Option<ServerName<'static>>);

async fn introduce(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    address: &Address,
    probe: &Probe,
    way: Way,
) -> Result<(), Miss> {
    // an endpoint that wants a PROXY header takes no connection without one; this one is for nobody
    let mut first = Vec::new();
    match way.proxy {
        ProxyVersion::Off => {}
        ProxyVersion::V1 => proxy_header::push_v1(&mut first, None),
        ProxyVersion::V2 => proxy_header::push_v2_local(&mut first),
    }
    let needs_http2 = matches!(probe, Probe::Grpc(_)) || way.protocol == Protocol::Http2;
    let Some((rules, name)) = way.tls else {
        return ask(stream, first, (address, false), probe, needs_http2).await;
    };
    let rules = match way.protocol {
        _ if needs_http2 => demand::for_http2(&rules),
        Protocol::Negotiated => demand::for_either(&rules),
        _ => rules,
    };
    stream.write_all(&first).await.map_err(|error| broken(&error))?;
    let name = name.ok_or(Miss::Handshake(HandshakeFailure::Name))?;
    match TlsConnector::from(rules).connect(name, stream).await {
        Ok(session) => {
            let is_http2 = session.get_ref().1.alpn_protocol() == Some(HTTP2);
            match needs_http2 && !is_http2 {
                true => Err(Miss::Handshake(HandshakeFailure::Protocol)),
                false => ask(session, Vec::new(), (address, true), probe, is_http2).await,
            }
        }
        Err(error) if fault::is_ours(&error) => Err(broken(&error)),
        Err(error) => {
            let refused = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()).cloned();
            let failed = refused.map_or(Failed::Broken(error), Failed::Refused);
            Err(Miss::Handshake(handshake_failure(failed.reason())))
        }
    }
}

async fn ask(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    mut question: Vec<u8>,
    (address, is_secure): (&Address, bool),
    probe: &Probe,
    is_http2: bool,
) -> Result<(), Miss> {
    match probe {
        // no PROXY header comes before HTTP/2
        Probe::Grpc(call) => return grpc::ask(stream, (address, is_secure), call).await,
        Probe::Http(http) if is_http2 => return http2::ask(stream, (address, is_secure), http).await,
        _ => {}
    }
    if let Probe::Http(http) = probe {
        push_head(&mut question, http, address);
    }
    stream.write_all(&question).await.map_err(|error| broken(&error))?;
    stream.flush().await.map_err(|error| broken(&error))?;
    let Probe::Http(http) = probe else { return Ok(()) };
    let answer = read_head(&mut stream, &http.method).await?;
    let (lowest, highest) = http.expect;
    if !(lowest..=highest).contains(&answer.status.as_u16()) {
        return Err(Miss::Failed(Failure::of_status(answer.status)));
    }
    match &http.body {
        Some(wanted) if !wanted.is_match(&read_body(&mut stream, answer, limits::PROBE_BODY_BYTES_MAX).await?) => {
            Err(FailureReason::Body.into())
        }
        _ => Ok(()),
    }
}

/// What stands at a path, if the status is expected: whole, or its first 64 KiB.
///
/// # Errors
/// Says in words why it cannot be had.
pub(in crate::control) async fn fetch(
    address: SocketAddr,
    http: &HttpProbe,
    tls: Option<Tls>,
) -> Result<Vec<u8>, String> {
    let words = |miss: Miss| match miss {
        Miss::Failed(failure) => failure.to_string(),
        Miss::Handshake(reason) => format!("no TLS: {}", reason.token()),
        Miss::Exhausted(errno) => io::Error::from_raw_os_error(errno).to_string(),
    };
    let of = Address::Tcp(address);
    let stream = TcpStream::connect(address).await.map_err(|error| words(not_connected(&of, &error)))?;
    let fetched = match tls {
        None => fetch_over(stream, &of, http).await,
        Some((rules, name)) => {
            let name = name.ok_or("no name to ask for a certificate of")?;
            let session = TlsConnector::from(rules).connect(name, stream).await.map_err(|error| error.to_string())?;
            fetch_over(session, &of, http).await
        }
    };
    let bytes = fetched.map_err(words)?;
    match bytes.len() > limits::FETCHED_BYTES_MAX {
        true => Err(format!("it has more than {} bytes", limits::FETCHED_BYTES_MAX)),
        false => Ok(bytes),
    }
}

async fn fetch_over(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    address: &Address,
    http: &HttpProbe,
) -> Result<Vec<u8>, Miss> {
    let mut question = Vec::new();
    push_head(&mut question, http, address);
    stream.write_all(&question).await.map_err(|error| broken(&error))?;
    stream.flush().await.map_err(|error| broken(&error))?;
    let answer = read_head(&mut stream, &http.method).await?;
    let (lowest, highest) = http.expect;
    match (lowest..=highest).contains(&answer.status.as_u16()) {
        // one more than is taken, so that what is too large is not taken for what is broken
        true => read_body(&mut stream, answer, limits::FETCHED_BYTES_MAX + 1).await,
        false => Err(Miss::Failed(Failure::of_status(answer.status))),
    }
}

/// Whom an endpoint is asked as.
pub(super) fn host_of(host: Option<&String>, address: &Address) -> String {
    match (host, address) {
        (Some(host), _) => host.clone(),
        (None, Address::Tcp(tcp)) => tcp.to_string(),
        (None, Address::Unix(_)) => "localhost".to_owned(),
    }
}

fn push_head(out: &mut Vec<u8>, http: &HttpProbe, address: &Address) {
    let host = host_of(http.host.as_ref(), address);
    let line = |name: &str, value: &[u8]| [name.as_bytes(), b": ", value, b"\r\n"].concat();
    out.extend_from_slice(format!("{} {} HTTP/1.1\r\n", http.method, http.path).as_bytes());
    out.extend(line("Host", host.as_bytes()));
    for (name, value) in &http.headers {
        out.extend(line(name.as_str(), value.as_bytes()));
    }
    for (name, value) in own_fields(http) {
        out.extend(line(name, value.as_bytes()));
    }
    if matches!(http.method, Method::POST | Method::PUT | Method::PATCH) {
        // RFC 9110 §8.6: methods that come with content say that there is none
        out.extend(line("Content-Length", b"0"));
    }
    out.extend_from_slice(b"Connection: close\r\n\r\n");
}

/// What a check says of itself where its headers do not, whatever is spoken.
pub(super) fn own_fields(probe: &HttpProbe) -> impl Iterator<Item = (&'static str, &'static str)> {
    let own = [("User-Agent", concat!("ringgate-health/", env!("CARGO_PKG_VERSION"))), ("Accept", "*/*")];
    let is_given = |name: &str| probe.headers.iter().any(|(given, _)| given.as_str().eq_ignore_ascii_case(name));
    own.into_iter().filter(move |(name, _)| !is_given(name))
}

/// A response's head, and what came with it.
struct Answer {
    status: StatusCode,
    body: Body,
    trailers: Trailers,
    /// What follows the head.
    rest: Vec<u8>,
}

/// The first response that is not interim.
async fn read_head(stream: &mut (impl AsyncRead + Unpin), method: &Method) -> Result<Answer, Miss> {
    let (mut bytes, mut scratch) = (Vec::new(), HeadScratch::default());
    let (mut scanner, mut interim) = (HeadScanner::default(), 0);
    loop {
        if scanner.is_ready(&bytes) {
            match ResponseHead::parse(&bytes, method, &mut scratch).map_err(|_| FailureReason::Protocol)? {
                Parsed::Partial => {}
                Parsed::Complete(head) if !head.is_interim() => {
                    let body = Body::new(head.framing(), u64::MAX);
                    let (status, trailers) = (head.status(), head.trailers());
                    let rest = bytes.split_off(head.head_bytes());
                    return Ok(Answer { status, body, trailers, rest });
                }
                Parsed::Complete(_) if interim == limits::INTERIM_RESPONSES_MAX => {
                    return Err(FailureReason::Protocol.into());
                }
                Parsed::Complete(head) => {
                    let head_bytes = head.head_bytes();
                    bytes.drain(..head_bytes);
                    (scanner, interim) = (HeadScanner::default(), interim + 1);
                    continue;
                }
            }
        }
        if bytes.len() >= limits::PROBE_HEAD_BYTES_MAX {
            return Err(FailureReason::Protocol.into());
        }
        if read_more(stream, &mut bytes).await? == 0 {
            return Err(FailureReason::Closed.into());
        }
    }
}

/// The body without its framing; of one that is longer than `bytes_max` the beginning.
async fn read_body(stream: &mut (impl AsyncRead + Unpin), answer: Answer, bytes_max: usize) -> Result<Vec<u8>, Miss> {
    let Answer { mut body, mut trailers, rest: mut block, .. } = answer;
    let mut content = Vec::new();
    loop {
        let filled = 0..block.len();
        let decoded = body.decode(&mut block, filled, &mut trailers).map_err(|_| FailureReason::Protocol)?;
        content.extend_from_slice(&block[decoded.payload]);
        if body.is_done() || content.len() >= bytes_max {
            content.truncate(bytes_max);
            return Ok(content);
        }
        block.clear();
        if read_more(stream, &mut block).await? == 0 {
            return body.on_eof().map(|()| content).map_err(|_| FailureReason::Closed.into());
        }
    }
}

/// Appends what comes next; 0 when the endpoint has closed its side.
async fn read_more(stream: &mut (impl AsyncRead + Unpin), bytes: &mut Vec<u8>) -> Result<usize, Miss> {
    stream.take(READ_BYTES).read_buf(bytes).await.map_err(|error| broken(&error))
}

/// What it means that no connection was made.
fn not_connected(address: &Address, error: &io::Error) -> Miss {
    match fault::of_connecting(error, address) {
        Fault::Lacking => Miss::Exhausted(error.raw_os_error().unwrap_or_default()),
        Fault::Refused | Fault::Overrun => FailureReason::Refused.into(),
        Fault::TimedOut => FailureReason::Timeout.into(),
        // a request that is forbidden to reach it would fare no better
        Fault::Unreachable | Fault::Forbidden | Fault::Unknown => FailureReason::Unreachable.into(),
    }
}

/// What it means that a connection broke.
pub(super) fn broken(error: &io::Error) -> Miss {
    match error.raw_os_error() {
        Some(errno) if fault::is_ours(error) => Miss::Exhausted(errno),
        Some(libc::ETIMEDOUT) => FailureReason::Timeout.into(),
        _ => FailureReason::Closed.into(),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::config::BodyMatch;
    use crate::observe::fixture;
    use http::{HeaderName, HeaderValue};
    use std::time::Duration;
    use tokio::net::{TcpListener, UnixListener};

    /// Longer than anything here takes: a test that hangs fails instead.
    pub(in super::super) const PATIENCE: Duration = Duration::from_secs(60);

    pub(in super::super) fn block_on<T>(future: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async { timeout(PATIENCE, future).await.expect("the test ended in time") })
    }

    pub(in super::super) fn http() -> Probe {
        Probe::Http(HttpProbe::get("/healthz", (200, 399)))
    }

    fn patient(probe: Probe) -> HealthCheck {
        HealthCheck { timeout: PATIENCE, ..fixture::health_check(probe) }
    }

    fn failed(reason: FailureReason) -> Result<(), Miss> {
        Err(reason.into())
    }

    fn status(code: u16) -> Result<(), Miss> {
        Err(Miss::Failed(Failure::of_status(StatusCode::from_u16(code).unwrap())))
    }

    /// Answers one connection with `reply`, after it has seen a whole request head; returns what it read.
    pub(in super::super) async fn answer_once(listener: &TcpListener, reply: &[u8]) -> String {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            assert_ne!(stream.read_buf(&mut request).await.unwrap(), 0);
        }
        // The prober may have hung up before all of it was taken.
        let _ = stream.write_all(reply).await;
        String::from_utf8(request).unwrap()
    }

    /// What the check says of an endpoint that answers with `reply` and closes, and what it was asked.
    async fn check_against(reply: &[u8], probe: Probe) -> (Result<(), Miss>, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = Address::Tcp(listener.local_addr().unwrap());
        let asked = patient(probe);
        tokio::join!(check(&address, &asked, Way::PLAIN), answer_once(&listener, reply))
    }

    #[test]
    fn the_status_decides_and_only_a_valid_head_counts() {
        let cases: &[(&[u8], Result<(), Miss>)] = &[
            (b"HTTP/1.1 200 OK\r\n\r\n", Ok(())),
            (b"HTTP/1.1 399 Odd\r\nContent-Length: 5\r\n\r\nhello", Ok(())),
            (b"HTTP/1.0 204 No Content\r\n\r\n", Ok(())),
            (
                b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
                Ok(()),
            ),
            (b"HTTP/1.1 400 Bad Request\r\n\r\n", status(400)),
            (b"HTTP/1.1 503 Service Unavailable\r\n\r\n", status(503)),
            (
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
                failed(FailureReason::Protocol),
            ),
            (b"HTTP/1.1 200 OK\r\nContent-Le", failed(FailureReason::Closed)),
            (b"HTTP/1.1 100 Continue\r\n\r\n", failed(FailureReason::Closed)),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", failed(FailureReason::Protocol)),
            (b"SSH-2.0-OpenSSH_9.7\r\n", failed(FailureReason::Protocol)),
            (b"\x15\x03\x03\x00\x02\x02\x16", failed(FailureReason::Protocol)),
            (b"", failed(FailureReason::Closed)),
        ];
        block_on(async {
            for (reply, expected) in cases {
                let (result, request) = check_against(reply, http()).await;
                assert_eq!(result, *expected, "{}", String::from_utf8_lossy(reply));
                assert!(request.starts_with("GET /healthz HTTP/1.1\r\nHost: 127.0.0.1:"), "{request}");
            }
        });
    }

    /// A check of the body.
    fn looking_for(written: &str) -> Probe {
        Probe::Http(HttpProbe {
            body: Some(BodyMatch::try_new(written).unwrap()),
            ..HttpProbe::get("/healthz", (200, 399))
        })
    }

    #[test]
    fn the_body_is_read_by_its_framing_and_searched_whole() {
        let (ok, body) = (Ok(()), failed(FailureReason::Body));
        let cases: &[(&str, &str, Result<(), Miss>)] = &[
            ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nup ok", "ok", ok),
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nup ok", "ok", body),
            ("HTTP/1.1 200 OK\r\n\r\nup ok", "~ok$", ok),
            ("HTTP/1.1 200 OK\r\n\r\nup ok?", "~ok$", body),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;a=b\r\nup \r\n1\r\no\r\n1\r\nk\r\n0\r\nX: y\r\n\r\n",
                "~^up ok$",
                ok,
            ),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\nok", "ok", body),
            ("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "ok", ok),
            ("HTTP/1.1 204 No Content\r\n\r\n", "~^$", ok),
            ("HTTP/1.1 204 No Content\r\n\r\nok", "ok", body),
            ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "ok", body),
            ("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 2\r\n\r\nok", "ok", status(503)),
            ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok", "ok", failed(FailureReason::Closed)),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n", "ok", failed(FailureReason::Closed)),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nok\r\n", "ok", failed(FailureReason::Protocol)),
        ];
        block_on(async {
            for (reply, wanted, expected) in cases {
                assert_eq!(
                    check_against(reply.as_bytes(), looking_for(wanted)).await.0,
                    *expected,
                    "{wanted} in {reply}"
                );
            }
        });
    }

    #[test]
    fn the_beginning_of_a_long_body_is_looked_at() {
        let reply = |before: usize| {
            let mut reply = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n".to_vec();
            let content = reply.len();
            reply.resize(content + 1_000_000, b'.');
            reply[content + before..][..2].copy_from_slice(b"ok");
            reply
        };
        block_on(async {
            let last = limits::PROBE_BODY_BYTES_MAX - 2;
            assert_eq!(check_against(&reply(last), looking_for("ok")).await.0, Ok(()));
            assert_eq!(check_against(&reply(last + 1), looking_for("ok")).await.0, failed(FailureReason::Body));
        });
    }

    #[test]
    fn the_request_is_what_the_file_says() {
        let named = |name: &'static str, value| (HeaderName::from_static(name), HeaderValue::from_static(value));
        let probe = HttpProbe {
            method: Method::POST,
            host: Some("app.example.com".to_owned()),
            headers: vec![named("x-token", "s3cr3t"), named("accept", "text/plain")],
            ..HttpProbe::get("/deep?x=1", (200, 200))
        };
        let version = env!("CARGO_PKG_VERSION");
        let expected = format!(
            "POST /deep?x=1 HTTP/1.1\r\nHost: app.example.com\r\nx-token: s3cr3t\r\naccept: text/plain\r\n\
             User-Agent: ringgate-health/{version}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        );
        let head = HttpProbe { method: Method::HEAD, ..HttpProbe::get("/", (200, 200)) };
        block_on(async {
            let (result, request) = check_against(b"HTTP/1.1 200 OK\r\n\r\n", Probe::Http(probe)).await;
            assert_eq!((result, request), (Ok(()), expected));
            let (result, request) =
                check_against(b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n", Probe::Http(head)).await;
            assert_eq!(result, Ok(()));
            assert!(request.starts_with("HEAD / HTTP/1.1\r\n") && !request.contains("Content-Length"), "{request}");
        });
    }

    #[test]
    fn a_head_without_end_and_interim_responses_without_end_are_not_http() {
        let endless = [b"HTTP/1.1 200 OK\r\nX: ".as_slice(), &vec![b'a'; 2 * limits::PROBE_HEAD_BYTES_MAX]].concat();
        let interim =
            |count| [b"HTTP/1.1 103 Early Hints\r\n\r\n".repeat(count), b"HTTP/1.1 200 OK\r\n\r\n".to_vec()].concat();
        block_on(async {
            assert_eq!(check_against(&endless, http()).await.0, failed(FailureReason::Protocol));
            assert_eq!(check_against(&interim(limits::INTERIM_RESPONSES_MAX), http()).await.0, Ok(()));
            assert_eq!(
                check_against(&interim(limits::INTERIM_RESPONSES_MAX + 1), http()).await.0,
                failed(FailureReason::Protocol)
            );
        });
    }

    #[test]
    fn a_service_that_accepts_and_never_answers_fails_in_time() {
        block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = Address::Tcp(listener.local_addr().unwrap());
            let brief = HealthCheck { timeout: Duration::from_millis(20), ..fixture::health_check(http()) };
            assert_eq!(check(&address, &brief, Way::PLAIN).await, failed(FailureReason::Timeout));
            let tcp = patient(Probe::Tcp);
            assert_eq!(check(&address, &tcp, Way::PLAIN).await, Ok(()), "it does accept");
            drop(listener);
            assert_eq!(check(&address, &tcp, Way::PLAIN).await, failed(FailureReason::Refused));
        });
    }

    #[test]
    fn unix_sockets_are_checked_too() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("service.sock");
        let address = Address::Unix(path.clone());
        let http = patient(http());
        block_on(async {
            assert_eq!(check(&address, &http, Way::PLAIN).await, failed(FailureReason::Unreachable));
            let listener = UnixListener::bind(&path).unwrap();
            let answer = async {
                let (mut stream, _) = listener.accept().await.unwrap();
                stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
                let mut request = Vec::new();
                stream.read_to_end(&mut request).await
            };
            let (result, _) = tokio::join!(check(&address, &http, Way::PLAIN), answer);
            assert_eq!(result, Ok(()));
            drop(listener);
            assert_eq!(check(&address, &http, Way::PLAIN).await, failed(FailureReason::Refused), "it left its socket");
        });
    }

    #[test]
    fn what_we_lack_ourselves_is_not_held_against_the_endpoint() {
        let of = io::Error::from_raw_os_error;
        let (tcp, unix) = (fixture::tcp("10.0.0.1:80"), Address::Unix("/run/a.sock".into()));
        for errno in [libc::EMFILE, libc::ENFILE, libc::ENOMEM, libc::ENOBUFS, libc::EADDRNOTAVAIL] {
            assert_eq!(not_connected(&tcp, &of(errno)), Miss::Exhausted(errno));
            assert_eq!(not_connected(&unix, &of(errno)), Miss::Exhausted(errno));
            assert_eq!(broken(&of(errno)), Miss::Exhausted(errno));
        }
        assert_eq!(not_connected(&tcp, &of(libc::EAGAIN)), Miss::Exhausted(libc::EAGAIN));
        assert_eq!(not_connected(&unix, &of(libc::EAGAIN)), FailureReason::Refused.into());
    }

    #[test]
    fn errors_of_the_network_have_their_words() {
        let of = io::Error::from_raw_os_error;
        let tcp = fixture::tcp("10.0.0.1:80");
        let words = [
            (libc::ECONNREFUSED, FailureReason::Refused),
            (libc::ECONNRESET, FailureReason::Refused),
            (libc::ETIMEDOUT, FailureReason::Timeout),
            (libc::EHOSTUNREACH, FailureReason::Unreachable),
            (libc::ENETUNREACH, FailureReason::Unreachable),
            (libc::EPERM, FailureReason::Unreachable),
        ];
        for (errno, reason) in words {
            assert_eq!(not_connected(&tcp, &of(errno)), reason.into(), "{}", of(errno));
        }
        assert_eq!(broken(&of(libc::ECONNRESET)), FailureReason::Closed.into());
        assert_eq!(broken(&of(libc::EPIPE)), FailureReason::Closed.into());
        assert_eq!(broken(&of(libc::ETIMEDOUT)), FailureReason::Timeout.into());
    }
}
