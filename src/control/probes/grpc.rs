//! A check by gRPC's own protocol: `grpc.health.v1.Health/Check`, which a service passes that says SERVING.
//!
//! It is one call on a connection of its own. Its two messages have one field each, so they are written and read here by hand. HTTP/2 is the `h2`
//! crate's: of the gateway's own, which is made for many streams and no allocation, the probes would need a second owner, and they are to
//! measure by somebody else's eyes what the gateway would meet. The crate is in the binary already, with the client of ACME.
//!
//! Source: the gRPC project's "GRPC Health Checking Protocol"; Protocol Buffers, "Encoding".

use super::check::{Miss, host_of};
use super::http2::{begin, failed};
use crate::config::{Address, GrpcProbe};
use crate::http::grpc;
use crate::observe::labels::FailureReason;
use crate::observe::stats::Failure;
use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use std::pin::pin;
use tokio::io::{AsyncRead, AsyncWrite};

/// Bytes of a message's prefix: whether it is compressed, and its length.
const PREFIX_BYTES: usize = 5;
/// Bytes of an answer that are read; the message is two of them.
const ANSWER_BYTES_MAX: usize = 1 << 10;
/// `ServingStatus`
const SERVING: u64 = 1;

/// Asks over a connection that stands.
pub(super) async fn ask(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    (address, is_secure): (&Address, bool),
    probe: &GrpcProbe,
) -> Result<(), Miss> {
    let host = host_of(probe.host.as_ref(), address);
    let scheme = if is_secure { "https" } else { "http" };
    let request = Request::post(format!("{scheme}://{host}/grpc.health.v1.Health/Check"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("user-agent", concat!("ringgate-health/", env!("CARGO_PKG_VERSION")));
    let request = request.body(()).map_err(|_| FailureReason::Protocol)?;
    let (sender, connection) = begin(stream).await?;
    let (mut call, mut connection) = (pin!(call(sender, request, &probe.service)), pin!(connection));
    // the call moves only while its connection does, and knows more than that when both are over
    tokio::select! {
        biased;
        outcome = &mut call => outcome,
        _ = &mut connection => call.await,
    }
}

async fn call(sender: h2::client::SendRequest<Bytes>, request: Request<()>, service: &str) -> Result<(), Miss> {
    let mut sender = sender.ready().await.map_err(|error| failed(&error))?;
    let (answer, mut stream) = sender.send_request(request, false).map_err(|error| failed(&error))?;
    stream.send_data(message(service), true).map_err(|error| failed(&error))?;
    let (head, mut body) = answer.await.map_err(|error| failed(&error))?.into_parts();
    if head.status != StatusCode::OK {
        return Err(Miss::Failed(Failure::of_status(head.status)));
    }
    let mut bytes = Vec::new();
    while let Some(piece) = body.data().await {
        let piece = piece.map_err(|error| failed(&error))?;
        bytes.extend_from_slice(&piece);
        if bytes.len() > ANSWER_BYTES_MAX {
            return Err(FailureReason::Protocol.into());
        }
    }
    let trailers = body.trailers().await.map_err(|error| failed(&error))?;
    let code = |fields: &HeaderMap| fields.get("grpc-status").map(|code| grpc::status(code.as_bytes()));
    match trailers.as_ref().and_then(code).or_else(|| code(&head.headers)) {
        None => Err(FailureReason::Protocol.into()),
        Some(0) if serving_status(&bytes).ok_or(FailureReason::Protocol)? == SERVING => Ok(()),
        Some(_) => Err(FailureReason::NotServing.into()),
    }
}

/// `HealthCheckRequest { string service = 1; }` with its prefix. A service's name has less than 128 bytes, so its length is one byte; an empty one is
/// not written.
fn message(service: &str) -> Bytes {
    let mut payload = Vec::new();
    if !service.is_empty() {
        payload.extend_from_slice(&[1 << 3 | 2, service.len() as u8]);
        payload.extend_from_slice(service.as_bytes());
    }
    let prefix = [0, 0, 0, 0, payload.len() as u8];
    [&prefix[..], &payload].concat().into()
}

/// What a `HealthCheckResponse { ServingStatus status = 1; }` behind its prefix says; 0 where the field is not there. `None`: it is no such message.
fn serving_status(bytes: &[u8]) -> Option<u64> {
    let (prefix, mut rest) = bytes.split_at_checked(PREFIX_BYTES)?;
    let len = u32::from_be_bytes(prefix[1..].try_into().ok()?) as usize;
    if prefix[0] != 0 || len != rest.len() {
        return None;
    }
    let mut status = 0;
    while !rest.is_empty() {
        let tag = varint(&mut rest)?;
        let skipped = match tag & 7 {
            0 => {
                let value = varint(&mut rest)?;
                if tag >> 3 == 1 {
                    status = value;
                }
                0
            }
            1 => 8,
            2 => usize::try_from(varint(&mut rest)?).ok()?,
            5 => 4,
            _ => return None,
        };
        rest = rest.get(skipped..)?;
    }
    Some(status)
}

/// A number of at most ten bytes, of seven bits each.
fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for (shift, at) in (0..64).step_by(7).zip(0..) {
        let byte = *bytes.get(at)?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            *bytes = &bytes[at + 1..];
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::super::check::tests::{PATIENCE, block_on};
    use super::super::check::{Way, check};
    use super::*;
    use crate::config::{HealthCheck, Probe};
    use crate::observe::fixture;
    use http::Response;
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    fn asked(service: &str) -> HealthCheck {
        let probe = Probe::Grpc(GrpcProbe { service: service.to_owned(), host: None });
        HealthCheck { timeout: PATIENCE, ..fixture::health_check(probe) }
    }

    /// Answers one call with this message and code, in trailers or in the head alone; what it was asked.
    async fn answer(listener: &TcpListener, message: Option<&'static [u8]>, code: u16) -> (String, Vec<u8>) {
        let (socket, _) = listener.accept().await.unwrap();
        let mut connection = h2::server::handshake(socket).await.unwrap();
        let (request, mut respond) = connection.accept().await.unwrap().unwrap();
        let served = async {
            let (head, mut body) = request.into_parts();
            let asked = body.data().await.unwrap().unwrap().to_vec();
            let response = Response::builder().status(200).header("content-type", "application/grpc");
            match message {
                None => drop(respond.send_response(response.header("grpc-status", code).body(()).unwrap(), true)),
                Some(message) => {
                    let mut stream = respond.send_response(response.body(()).unwrap(), false).unwrap();
                    stream.send_data(Bytes::from_static(message), false).unwrap();
                    stream
                        .send_trailers(HeaderMap::from_iter([("grpc-status".parse().unwrap(), code.into())]))
                        .unwrap();
                }
            }
            (head.uri.path().to_owned(), asked)
        };
        let served = served.await;
        // until the one who asked has gone
        while let Some(Ok(_)) = connection.accept().await {}
        served
    }

    #[test]
    fn only_who_says_serving_passes() {
        type Case = (Option<&'static [u8]>, u16, Result<(), Miss>);
        let cases: [Case; 7] = [
            (Some(b"\0\0\0\0\x02\x08\x01"), 0, Ok(())),
            (Some(b"\0\0\0\0\x02\x08\x02"), 0, Err(FailureReason::NotServing.into())),
            (Some(b"\0\0\0\0\0"), 0, Err(FailureReason::NotServing.into())),
            (Some(b"\0\0\0\0\x02\x08\x01"), 13, Err(FailureReason::NotServing.into())),
            (Some(b"\0\0\0\0\x03\x08\x01"), 0, Err(FailureReason::Protocol.into())),
            (None, 5, Err(FailureReason::NotServing.into())),
            (None, 12, Err(FailureReason::NotServing.into())),
        ];
        block_on(async {
            for (message, code, expected) in cases {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                let address = Address::Tcp(listener.local_addr().unwrap());
                let check_for = asked("orders.Orders");
                let (result, (path, question)) =
                    tokio::join!(check(&address, &check_for, Way::PLAIN), answer(&listener, message, code));
                assert_eq!(result, expected, "{message:?} {code}");
                assert_eq!(path, "/grpc.health.v1.Health/Check");
                assert_eq!(question, b"\0\0\0\0\x0f\x0a\x0dorders.Orders");
            }
        });
    }

    #[test]
    fn what_speaks_no_http2_does_not_pass() {
        block_on(async {
            for (said, expected) in [
                (&b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"[..], FailureReason::Protocol),
                (b"", FailureReason::Closed),
            ] {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                let address = Address::Tcp(listener.local_addr().unwrap());
                let speaks = async {
                    let (mut socket, _) = listener.accept().await.unwrap();
                    socket.write_all(said).await.unwrap();
                    socket.shutdown().await.unwrap();
                    // what is asked is read, so that its end is no reset
                    let _ = tokio::io::copy(&mut socket, &mut tokio::io::sink()).await;
                };
                let check_for = asked("");
                let (result, ()) = tokio::join!(check(&address, &check_for, Way::PLAIN), speaks);
                assert_eq!(result, Err(expected.into()));
            }
        });
    }

    #[test]
    fn messages_are_read_as_they_may_be_written() {
        let of = |payload: &[u8]| serving_status(&[&[0, 0, 0, 0, payload.len() as u8], payload].concat());
        assert_eq!(of(b""), Some(0));
        assert_eq!(of(b"\x08\x01"), Some(1));
        assert_eq!(of(b"\x08\x02\x08\x81\x00"), Some(1), "the last one counts, in any length");
        assert_eq!(of(b"\x12\x02ab\x1d\0\0\0\0\x21\0\0\0\0\0\0\0\0\x08\x03"), Some(3), "other fields are passed over");
        for broken in [&b"\x08"[..], b"\x12\x05ab", b"\x0b", b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"] {
            assert_eq!(of(broken), None, "{broken:?}");
        }
        assert_eq!(serving_status(b"\x01\0\0\0\x02\x08\x01"), None, "compressed");
        assert_eq!(serving_status(b"\0\0\0"), None);
        assert_eq!(message(""), &b"\0\0\0\0\0"[..]);
    }
}
