//! The client and the scripted service of these tests, without a gateway between them: a failure elsewhere is not theirs.

use crate::support::{Client, Gate, Upstream, assert_same_bytes, noise};
use std::io::ErrorKind;
use std::sync::Arc;

#[test]
fn requests_and_responses_arrive_byte_for_byte() {
    let upstream = Upstream::answering(|request, conn| {
        let body = String::from_utf8(request.body.clone()).unwrap();
        conn.reply(201, &body);
    });
    let mut client = Client::connect(upstream.address());
    for body in ["", "one", "another"] {
        let response = client.request("POST", "/x?y", &[("X-A", "b")], body.as_bytes());
        assert_eq!((response.status, response.text().as_str()), (201, body));
    }
    let requests = upstream.requests();
    assert_eq!((requests.len(), upstream.connections()), (3, 1));
    assert_eq!((requests[0].method.as_str(), requests[0].target.as_str()), ("POST", "/x?y"));
    assert_eq!(requests[0].header("x-a"), Some("b"));
}

#[test]
fn chunked_bodies_are_decoded_on_both_sides() {
    let upstream = Upstream::answering(|request, conn| {
        assert_eq!(request.body, b"hello world");
        conn.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nA;ext=1\r\n0123456789\r\n0\r\nX-T: 1\r\n\r\n");
    });
    let mut client = Client::connect(upstream.address());
    client
        .send("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n");
    assert_eq!(client.read("POST").text(), "abc0123456789");
}

#[test]
fn a_stopped_service_refuses_and_cuts_and_comes_back_at_its_address() {
    let mut upstream = Upstream::always("ok");
    let mut client = Client::connect(upstream.address());
    assert_eq!(client.get("/").status, 200);
    upstream.stop();
    assert!(client.try_get("/").is_err());
    let refused = Client::try_connect(upstream.address()).err().expect("nobody listens");
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    upstream.start();
    assert_eq!(Client::connect(upstream.address()).get("/").text(), "ok");
}

#[test]
fn a_reset_is_seen_as_a_reset() {
    let upstream = Upstream::scripted(|conn| {
        conn.head();
        conn.reset();
    });
    let error = Client::connect(upstream.address()).try_get("/").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

#[test]
fn a_script_waits_until_it_is_let_through() {
    let gate = Arc::new(Gate::default());
    let waiting = Arc::clone(&gate);
    let upstream = Upstream::answering(move |_, conn| {
        waiting.wait();
        conn.reply(200, "late");
    });
    let mut client = Client::connect(upstream.address());
    client.send("GET / HTTP/1.1\r\n\r\n");
    gate.open();
    assert_eq!(client.read("GET").text(), "late");
}

#[test]
fn noise_is_the_same_for_the_same_seed_and_does_not_repeat() {
    assert_same_bytes(&noise(7, 1000), &noise(7, 1000));
    assert_ne!(noise(7, 1000), noise(8, 1000));
    assert_ne!(noise(7, 1000)[..500], noise(7, 1000)[500..]);
}
