//! Endpoints with which there is no TLS session, though they listen: each says why in its own way, and no request is lost by it.

use crate::operation::said;
use crate::support::client::Client;
use crate::support::stream::Stream;
use crate::support::tls::{Authority, Session};
use crate::support::upstream::answer_each;
use crate::support::{Driver, Gateway, Setup, Upstream, behind_endpoints};
use rustls::ServerConfig;
use rustls::server::WebPkiClientVerifier;
use std::io::Read as _;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;

/// An endpoint whose clients need a certificate. With TLS 1.3 they hear so when the handshake is over for them.
fn asks_for_certificates(authority: &Authority) -> String {
    let verifier = WebPkiClientVerifier::builder(Arc::new(authority.roots())).build().expect("a root");
    let (chain, key) = authority.pair("server");
    let rules = ServerConfig::builder().with_client_cert_verifier(verifier).with_single_cert(chain, key);
    let rules = Arc::new(rules.expect("they belong together"));
    each(move |mut socket| {
        let mut session = rustls::ServerConnection::new(Arc::clone(&rules)).expect("a session");
        while session.is_handshaking() && session.complete_io(&mut socket).is_ok() {}
        let _ = socket.shutdown(Shutdown::Write);
        let _ = socket.read_to_end(&mut Vec::new());
    })
}

/// An endpoint that accepts, and then says nothing.
fn says_nothing() -> String {
    each(|mut socket| drop(socket.read_to_end(&mut Vec::new())))
}

/// Each connection is dealt with so, one after another.
fn each(deal: impl Fn(TcpStream) + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    std::thread::spawn(move || listener.incoming().map_while(Result::ok).for_each(deal));
    address
}

#[test]
fn an_endpoint_that_does_not_come_to_a_session_says_why_and_the_next_one_is_asked() {
    for driver in [Driver::IoUring, Driver::Epoll].into_iter().filter(|driver| driver.is_possible()) {
        let authority = Authority::new();
        authority.sign("server", &["localhost"]);
        for (wrong, reason) in [(asks_for_certificates(&authority), "alert"), (says_nothing(), "timeout")] {
            let right =
                Upstream::encrypted(authority.server("server"), answer_each(|_, conn| conn.reply(200, "right")));
            let endpoints = format!(
                "{{ address = \"{wrong}\", priority = 0 }}, {{ address = \"{}\", priority = 1 }}",
                right.address()
            );
            let tls = format!(
                "tls = {{ ca = \"{}\", name = \"localhost\" }}\nconnect_timeout = \"500ms\"\noutlier = {{ enabled = false }}",
                authority.ca()
            );
            let config = behind_endpoints(&endpoints, "", &tls);
            let listener = authority.listener("server");
            let mut gateway =
                Gateway::start_with(driver, &Setup { listener: &listener, config: &config, ..Setup::default() });
            let socket = TcpStream::connect(gateway.address("edge")).expect("it listens");
            let session = Session::connect(socket, authority.client(), "localhost").expect("a session");
            let mut client = Client::over(Stream::Tls(Box::new(session)));
            // nothing of it was read, so that a POST goes on too
            assert_eq!(client.request("POST", "/", &[], b"once").text(), "right", "{reason}");
            let page = gateway.admin("/upstreams").text();
            assert!(page.contains(&format!("\"reason\":\"{reason}\"")), "{page}");
            let (endpoint, reason) = (format!("endpoint={wrong}"), format!("reason={reason}"));
            said(&mut gateway, &["tls handshake failed upstream=svc", &endpoint, &reason]);
        }
    }
}
