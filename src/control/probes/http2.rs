//! A check by a path over HTTP/2, where that is what the endpoint speaks: prior knowledge on a plain connection, ALPN over TLS.
//!
//! It is one request on a connection of its own. HTTP/2 is the `h2` crate's, as the gRPC checks' is: the gateway's own is made for many
//! streams and no allocation, and probes are to measure by somebody else's eyes what the gateway would meet.
//!
//! Source: RFC 9113 §3.3, §8.3.1.

use super::check::{Miss, broken, host_of, own_fields};
use crate::config::{Address, HttpProbe};
use crate::limits;
use crate::observe::labels::FailureReason;
use crate::observe::stats::Failure;
use bytes::Bytes;
use http::Request;
use std::pin::pin;
use tokio::io::{AsyncRead, AsyncWrite};

/// Of the fields of one head, or of the trailers.
const HEAD_BYTES_MAX: u32 = 16 << 10;

/// Asks over a connection that stands.
pub(super) async fn ask(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    (address, is_secure): (&Address, bool),
    probe: &HttpProbe,
) -> Result<(), Miss> {
    let request = request((address, is_secure), probe)?;
    let (sender, connection) = begin(stream).await?;
    let (mut answer, mut connection) = (pin!(answer(sender, request, probe)), pin!(connection));
    // the request moves only while its connection does, and knows more than that when both are over
    tokio::select! {
        biased;
        outcome = &mut answer => outcome,
        _ = &mut connection => answer.await,
    }
}

type Begun<S> = (h2::client::SendRequest<Bytes>, h2::client::Connection<S, Bytes>);

/// Begins to speak HTTP/2.
pub(super) async fn begin<S: AsyncRead + AsyncWrite + Unpin>(stream: S) -> Result<Begun<S>, Miss> {
    let mut builder = h2::client::Builder::new();
    builder.enable_push(false).max_header_list_size(HEAD_BYTES_MAX);
    builder.handshake(stream).await.map_err(|error| failed(&error))
}

fn request((address, is_secure): (&Address, bool), probe: &HttpProbe) -> Result<Request<()>, Miss> {
    let scheme = if is_secure { "https" } else { "http" };
    let host = host_of(probe.host.as_ref(), address);
    let mut request = Request::builder().method(&probe.method).uri(format!("{scheme}://{host}{}", probe.path));
    for (name, value) in &probe.headers {
        request = request.header(name, value);
    }
    for (name, value) in own_fields(probe) {
        request = request.header(name, value);
    }
    request.body(()).map_err(|_| FailureReason::Protocol.into())
}

async fn answer(sender: h2::client::SendRequest<Bytes>, request: Request<()>, probe: &HttpProbe) -> Result<(), Miss> {
    let mut sender = sender.ready().await.map_err(|error| failed(&error))?;
    let (answer, _) = sender.send_request(request, true).map_err(|error| failed(&error))?;
    let (head, mut body) = answer.await.map_err(|error| failed(&error))?.into_parts();
    let (lowest, highest) = probe.expect;
    if !(lowest..=highest).contains(&head.status.as_u16()) {
        return Err(Miss::Failed(Failure::of_status(head.status)));
    }
    let Some(wanted) = &probe.body else { return Ok(()) };
    let mut content = Vec::new();
    while content.len() < limits::PROBE_BODY_BYTES_MAX
        && let Some(piece) = body.data().await
    {
        let piece = piece.map_err(|error| failed(&error))?;
        content.extend_from_slice(&piece);
        let _ = body.flow_control().release_capacity(piece.len());
    }
    content.truncate(limits::PROBE_BODY_BYTES_MAX);
    if wanted.is_match(&content) { Ok(()) } else { Err(FailureReason::Body.into()) }
}

pub(super) fn failed(error: &h2::Error) -> Miss {
    match error.get_io() {
        Some(error) => broken(error),
        None if error.is_remote() => FailureReason::Closed.into(),
        None => FailureReason::Protocol.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::tests::{PATIENCE, block_on};
    use super::super::check::{Way, check};
    use super::*;
    use crate::config::{BodyMatch, HealthCheck, Probe, Protocol, ProxyVersion};
    use crate::observe::fixture;
    use http::{HeaderName, HeaderValue, Method, Response};
    use tokio::net::TcpListener;

    const WAY: Way = Way { proxy: ProxyVersion::Off, protocol: Protocol::Http2, tls: None };

    fn asks(probe: HttpProbe) -> HealthCheck {
        HealthCheck { timeout: PATIENCE, ..fixture::health_check(Probe::Http(probe)) }
    }

    /// Answers one request with this status and pieces of a body; what was asked.
    async fn answered(listener: &TcpListener, status: u16, pieces: &[&'static [u8]]) -> Request<()> {
        let (socket, _) = listener.accept().await.unwrap();
        let mut connection = h2::server::handshake(socket).await.unwrap();
        let (request, mut respond) = connection.accept().await.unwrap().unwrap();
        let response = Response::builder().status(status).body(()).unwrap();
        let mut stream = respond.send_response(response, pieces.is_empty()).unwrap();
        for (nth, piece) in pieces.iter().enumerate() {
            let _ = stream.send_data(Bytes::from_static(piece), nth + 1 == pieces.len());
        }
        // until the one who asked has gone
        while let Some(Ok(_)) = connection.accept().await {}
        request.map(drop)
    }

    async fn checked(probe: HttpProbe, status: u16, pieces: &[&'static [u8]]) -> (Result<(), Miss>, Request<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = Address::Tcp(listener.local_addr().unwrap());
        let check_for = asks(probe);
        tokio::join!(check(&address, &check_for, WAY), answered(&listener, status, pieces))
    }

    #[test]
    fn the_status_and_the_body_decide() {
        static LONG: [u8; 100_000] = [b'x'; 100_000];
        let wants =
            |body| HttpProbe { body: Some(BodyMatch::try_new(body).unwrap()), ..HttpProbe::get("/", (200, 399)) };
        let plain = || HttpProbe::get("/", (200, 399));
        block_on(async {
            for (probe, status, pieces, expected) in [
                (plain(), 200, &[][..], Ok(())),
                (plain(), 399, &[&b"a"[..]], Ok(())),
                (plain(), 503, &[], Err(Miss::Failed(Failure::of_status(http::StatusCode::SERVICE_UNAVAILABLE)))),
                (wants("all is well"), 200, &[b"all is", b" well"], Ok(())),
                (wants("all is well"), 200, &[b"all is", b" lost"], Err(FailureReason::Body.into())),
                (wants("all is well"), 200, &[], Err(FailureReason::Body.into())),
                (wants("all is well"), 200, &[&LONG, b"all is well"], Err(FailureReason::Body.into())),
            ] {
                assert_eq!(checked(probe, status, pieces).await.0, expected, "{status} {pieces:.20?}");
            }
        });
    }

    #[test]
    fn what_is_asked_is_what_is_configured() {
        block_on(async {
            let probe = HttpProbe {
                method: Method::HEAD,
                host: Some("app.example.com".to_owned()),
                headers: vec![(HeaderName::from_static("accept"), HeaderValue::from_static("text/plain"))],
                ..HttpProbe::get("/healthz?deep", (200, 200))
            };
            let (result, request) = checked(probe, 200, &[]).await;
            assert_eq!((result, request.method()), (Ok(()), &Method::HEAD));
            assert_eq!(request.uri(), "http://app.example.com/healthz?deep");
            let fields = |name| request.headers().get_all(name).iter().collect::<Vec<_>>();
            assert_eq!(fields("accept"), ["text/plain"]);
            assert!(fields("user-agent")[0].to_str().unwrap().starts_with("ringgate-health/"));
        });
    }

    #[test]
    fn what_speaks_no_http2_does_not_pass() {
        block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = Address::Tcp(listener.local_addr().unwrap());
            let speaks = async {
                let (mut socket, _) = listener.accept().await.unwrap();
                let said = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
                tokio::io::AsyncWriteExt::write_all(&mut socket, said).await.unwrap();
                let _ = tokio::io::copy(&mut socket, &mut tokio::io::sink()).await;
            };
            let check_for = asks(HttpProbe::get("/", (200, 399)));
            let (result, ()) = tokio::join!(check(&address, &check_for, WAY), speaks);
            assert_eq!(result, Err(FailureReason::Protocol.into()));
        });
    }
}
