//! Loads over TLS against servers of a few lines, on real sockets.

use super::tests::{OK, failures, has_request, load, server};
use super::*;
use crate::load::Target;
use crate::wire::{Failure, TlsClient, TlsSettings};
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;

type Stream = StreamOwned<ServerConnection, TcpStream>;

/// A server with a certificate for 127.0.0.1, the file that vouches for it, and what keeps that.
fn secure_server(serve: impl Fn(Stream) + Clone + Send + 'static) -> (SocketAddr, PathBuf, tempfile::TempDir) {
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().self_signed(&key).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("ca.pem");
    std::fs::write(&ca, certificate.pem()).unwrap();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_no_client_auth().with_single_cert(vec![certificate.der().clone()], key).unwrap();
    let config = Arc::new(config);
    let address = server(move |stream| {
        let session = ServerConnection::new(Arc::clone(&config)).unwrap();
        serve(StreamOwned::new(session, stream));
    });
    (address, ca, folder)
}

fn answering(mut stream: Stream) {
    while has_request(&mut stream) && stream.write_all(OK.as_bytes()).is_ok() {}
}

fn tls(settings: &TlsSettings) -> Option<TlsClient> {
    Some(TlsClient::try_new("127.0.0.1", settings, false).unwrap())
}

#[test]
fn handshakes_are_counted_and_sessions_go_on_unless_they_must_not() {
    let (address, ca, _folder) = secure_server(answering);
    for (reconnects, never_resumes) in [(false, false), (true, false), (true, true)] {
        let target = Target::new("GET", "a.test", "/", &[], b"", reconnects);
        let settings = TlsSettings { ca: Some(ca.clone()), never_resumes, ..TlsSettings::default() };
        let timeout = Duration::from_secs(30);
        let load = Load { tls: tls(&settings), reconnects, targets: [target].into(), timeout, ..load(address) };
        let measured = offer(&load, &Watch::default()).unwrap();
        assert_eq!((measured.tallies.due(), failures(&measured)), (300, vec![]));
        let seen = &measured.tallies.handshakes;
        assert_eq!(seen.times.len(), measured.connections_opened, "every connection has one");
        assert!(seen.times.min() > 10_000, "no handshake takes less than 10 µs: {}", seen.times.min());
        assert_eq!(reconnects, measured.connections_opened >= 300, "{}", measured.connections_opened);
        let is_some_resumed = seen.resumed > 0;
        assert!(if never_resumes { !is_some_resumed } else { !reconnects || is_some_resumed }, "{}", seen.resumed);
        assert!(seen.resumed < seen.times.len(), "the first one cannot be");
    }
}

#[test]
fn who_is_not_believed_or_speaks_no_tls_is_a_failure_of_its_own_kind() {
    let (address, ca, _folder) = secure_server(answering);
    let (_, other, _folder) = secure_server(answering);
    let other_ca = TlsSettings { ca: Some(other), ..TlsSettings::default() };
    let other_name = TlsSettings { ca: Some(ca), name: Some("b.test".to_owned()), ..TlsSettings::default() };
    let unbelieving = TlsSettings { skips_verify: true, ..TlsSettings::default() };
    let plain = server(|mut stream| {
        // whatever comes is answered with what is no TLS
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        while std::io::Read::read(&mut stream, &mut [0; 4_096]).is_ok_and(|count| count > 0) {}
    });
    for (name, address, settings, wanted) in [
        ("another authority", address, &other_ca, vec![(Failure::Tls, 300)]),
        ("another name", address, &other_name, vec![(Failure::Tls, 300)]),
        ("anybody", address, &unbelieving, vec![]),
        ("no TLS", plain, &unbelieving, vec![(Failure::Tls, 300)]),
    ] {
        let load = Load { tls: tls(settings), timeout: Duration::from_secs(30), ..load(address) };
        let measured = offer(&load, &Watch::default()).unwrap();
        assert_eq!((measured.tallies.due(), failures(&measured)), (300, wanted), "{name}");
    }
}

#[test]
fn a_body_that_ends_with_the_connection_is_whole_only_with_a_close_notify() {
    for (tells, wanted) in [(true, vec![]), (false, vec![(Failure::Closed, 300)])] {
        let (address, ca, _folder) = secure_server(move |mut stream| {
            if has_request(&mut stream) {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nuntil the end");
                if tells {
                    stream.conn.send_close_notify();
                }
                let _ = stream.flush();
            }
        });
        let settings = TlsSettings { ca: Some(ca), ..TlsSettings::default() };
        let load = Load { tls: tls(&settings), reconnects: true, timeout: Duration::from_secs(30), ..load(address) };
        let measured = offer(&load, &Watch::default()).unwrap();
        assert_eq!((measured.tallies.due(), failures(&measured)), (300, wanted), "tells: {tells}");
    }
}
