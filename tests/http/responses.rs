//! Response heads.

use crate::support::{fed_every_way, see_response};
use http::Method;
use ringgate::error::ProxyError;
use ringgate::http::Parsed;
use ringgate::http::fields::HeadScratch;
use ringgate::http::head::{HeadPolicy, RequestHead};
use ringgate::http::response::ResponseHead;
use std::time::Duration;

/// (what it shows, method of the request, bytes, what is understood)
const TAKEN: &[(&str, Method, &[u8], &str)] = &[
    (
        "a length",
        Method::GET,
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        "200 \"OK\" Fixed(2) keep | Content-Length: 2",
    ),
    (
        "chunks",
        Method::GET,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        "200 \"OK\" Chunked keep | Transfer-Encoding: chunked",
    ),
    (
        "a minor version above 1 (9110 2.5)",
        Method::GET,
        b"HTTP/1.2 200 OK\r\nContent-Length: 2\r\n\r\nok",
        "200 \"OK\" Fixed(2) keep | Content-Length: 2",
    ),
    ("neither (9112 6.3 item 8)", Method::GET, b"HTTP/1.1 200 OK\r\n\r\n", "200 \"OK\" UntilClose close"),
    (
        "no reason (9112 4)",
        Method::GET,
        b"HTTP/1.1 200 \r\nContent-Length: 0\r\n\r\n",
        "200 \"\" Fixed(0) keep | Content-Length: 0",
    ),
    (
        "no reason and no blank",
        Method::GET,
        b"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n",
        "200 \"\" Fixed(0) keep | Content-Length: 0",
    ),
    (
        "a long reason",
        Method::GET,
        b"HTTP/1.1 404 Not Here, sorry\r\nContent-Length: 0\r\n\r\n",
        "404 \"Not Here, sorry\" Fixed(0) keep | Content-Length: 0",
    ),
    (
        "obs-text in the reason",
        Method::GET,
        b"HTTP/1.1 404 Nicht gef\xfcnden\r\nContent-Length: 0\r\n\r\n",
        "404 \"\" Fixed(0) keep | Content-Length: 0",
    ),
    (
        "an unknown status (9110 15)",
        Method::GET,
        b"HTTP/1.1 599 Odd\r\nContent-Length: 0\r\n\r\n",
        "599 \"Odd\" Fixed(0) keep | Content-Length: 0",
    ),
    (
        "HEAD has no body (9112 6.3 item 1)",
        Method::HEAD,
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
        "200 \"OK\" None keep | Content-Length: 5",
    ),
    (
        "HEAD with chunks",
        Method::HEAD,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        "200 \"OK\" None keep | Transfer-Encoding: chunked",
    ),
    ("HEAD with neither", Method::HEAD, b"HTTP/1.1 200 OK\r\n\r\n", "200 \"OK\" None keep"),
    (
        "304 has no body",
        Method::GET,
        b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
        "304 \"Not Modified\" None keep | Content-Length: 5",
    ),
    ("204 has no body", Method::GET, b"HTTP/1.1 204 No Content\r\n\r\n", "204 \"No Content\" None keep"),
    (
        "204 with a length of 0",
        Method::GET,
        b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n",
        "204 \"No Content\" None keep | Content-Length: 0",
    ),
    (
        "204 that announces a body is not trusted (9110 8.6)",
        Method::GET,
        b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n",
        "204 \"No Content\" None close | Content-Length: 5",
    ),
    (
        "204 with chunks is not trusted (9112 6.1)",
        Method::GET,
        b"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n",
        "204 \"No Content\" None close | Transfer-Encoding: chunked",
    ),
    (
        "205 is framed as others (9110 15.3.6)",
        Method::GET,
        b"HTTP/1.1 205 Reset Content\r\nContent-Length: 0\r\n\r\n",
        "205 \"Reset Content\" Fixed(0) keep | Content-Length: 0",
    ),
    (
        "100 (9110 15.2.1)",
        Method::POST,
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
        "100 \"Continue\" None keep",
    ),
    (
        "103 (8297)",
        Method::GET,
        b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n",
        "103 \"Early Hints\" None keep | Link: </a>",
    ),
    (
        "1.0 closes",
        Method::GET,
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n",
        "200 \"OK\" Fixed(2) close | Content-Length: 2",
    ),
    (
        "1.0 keep-alive",
        Method::GET,
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\nConnection: keep-alive\r\n\r\n",
        "200 \"OK\" Fixed(2) keep | Content-Length: 2 | Connection: keep-alive",
    ),
    (
        "1.0 keep-alive without a length",
        Method::GET,
        b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n\r\n",
        "200 \"OK\" UntilClose close | Connection: keep-alive",
    ),
    (
        "close",
        Method::GET,
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\n",
        "200 \"OK\" Fixed(2) close | Connection: close | Content-Length: 2",
    ),
    (
        "the same length twice (9110 8.6)",
        Method::GET,
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\n",
        "200 \"OK\" Fixed(2) keep | Content-Length: 2 | Content-Length: 2",
    ),
    (
        "underscores stay in responses",
        Method::GET,
        b"HTTP/1.1 200 OK\r\nX_Y: 1\r\nContent-Length: 0\r\n\r\n",
        "200 \"OK\" Fixed(0) keep | X_Y: 1 | Content-Length: 0",
    ),
    (
        "nominated names are cut (9110 7.6.1)",
        Method::GET,
        b"HTTP/1.1 200 OK\r\nX: 1\r\nConnection: x\r\nContent-Length: 0\r\n\r\n",
        "200 \"OK\" Fixed(0) keep | Connection: x | Content-Length: 0",
    ),
    (
        "Proxy-Status stays (9209)",
        Method::GET,
        b"HTTP/1.1 200 OK\r\nProxy-Status: a\r\nContent-Length: 0\r\n\r\n",
        "200 \"OK\" Fixed(0) keep | Proxy-Status: a | Content-Length: 0",
    ),
    ("not all of it", Method::GET, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n", "-"),
    ("not even a version", Method::GET, b"HTT", "-"),
];

#[test]
fn well_formed_responses_are_understood_however_they_arrive() {
    for (reason, method, bytes, understood) in TAKEN {
        let seen = fed_every_way(bytes, |buf| see_response(buf, method)).unwrap_or_else(|e| panic!("{reason}: {e:?}"));
        assert_eq!(seen.as_deref().unwrap_or("-"), *understood, "{reason}");
    }
}

#[test]
fn a_101_is_taken_only_for_what_was_offered() {
    let request = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
    let mut scratch = HeadScratch::default();
    let Ok(Parsed::Complete(head)) = RequestHead::parse(request, &HeadPolicy::default(), &mut scratch) else {
        panic!()
    };
    let offer = head.upgrade().expect("an offer");
    for (fields, taken) in [
        ("1 101 Go\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n", true),
        ("1 101 Go\r\nUpgrade: WebSocket\r\nConnection: keep-alive, upgrade\r\nContent-Length: 0\r\n", true),
        ("1 101 Go\r\nUpgrade: websocket\r\n", false),
        ("1 101 Go\r\nConnection: upgrade\r\n", false),
        ("1 101 Go\r\nUpgrade: h2c\r\nConnection: upgrade\r\n", false),
        ("1 101 Go\r\nUpgrade: websocket, h2c\r\nConnection: upgrade\r\n", false),
        ("1 101 Go\r\nUpgrade: websocket\r\nConnection: upgrade\r\nContent-Length: 5\r\n", false),
        ("1 101 Go\r\nUpgrade: websocket\r\nConnection: upgrade\r\nTransfer-Encoding: chunked\r\n", false),
        ("0 101 Go\r\nUpgrade: websocket\r\nConnection: upgrade\r\n", false),
    ] {
        let bytes = format!("HTTP/1.{fields}\r\n");
        let mut scratch = HeadScratch::default();
        match ResponseHead::parse_answer(bytes.as_bytes(), &Method::GET, Some(&offer), &mut scratch) {
            Ok(Parsed::Complete(head)) => assert!(taken && head.is_switching() && !head.is_interim(), "{fields:?}"),
            Err(error) => assert!(!taken && error == ProxyError::UpstreamProtocol, "{fields:?}"),
            Ok(Parsed::Partial) => panic!("{fields:?} is whole"),
        }
    }
}

#[test]
fn the_beginning_of_a_status_line_tells_an_interim_response() {
    let interim = b"HTTP/1.1 100 Continue\r\n\r\n";
    assert!((0..=interim.len()).all(|len| ResponseHead::may_be_informational(&interim[..len])));
    for (bytes, known_from) in [(&b"HTTP/1.1 200 OK"[..], 10), (b"HTTP/2 100", 6), (b"SSH-2.0", 1), (b"HTTP/1.11 1", 9)]
    {
        for len in 0..=bytes.len() {
            assert_eq!(ResponseHead::may_be_informational(&bytes[..len]), len < known_from, "{len} of {bytes:?}");
        }
    }
}

/// (what is wrong, bytes)
const REFUSED: &[(&str, &[u8])] = &[
    ("TE and CL (9112 6.3 item 3)", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n"),
    ("lengths that differ (9112 6.3 item 5)", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n"),
    ("a length that is no number", b"HTTP/1.1 200 OK\r\nContent-Length: two\r\n\r\n"),
    ("a coding that was not asked for", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n"),
    ("a coding that ends with the connection", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n"),
    ("chunked twice", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n"),
    ("chunked in 1.0 (9112 6.1)", b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
    (
        "101 without Upgrade (9110 15.2.2)",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    ),
    ("status 099", b"HTTP/1.1 099 Low\r\n\r\n"),
    ("status 600 (9110 15)", b"HTTP/1.1 600 High\r\n\r\n"),
    ("status 20", b"HTTP/1.1 20 OK\r\n\r\n"),
    ("status 2000", b"HTTP/1.1 2000 OK\r\n\r\n"),
    ("a signed status", b"HTTP/1.1 +20 OK\r\n\r\n"),
    ("no status", b"HTTP/1.1\r\n\r\n"),
    ("two blanks", b"HTTP/1.1  200 OK\r\n\r\n"),
    ("HTTP/2.0", b"HTTP/2.0 200 OK\r\n\r\n"),
    ("HTTP/0.9", b"<html>hello</html>\r\n\r\n"),
    ("another protocol", b"SSH-2.0-OpenSSH_9.6\r\n\r\n"),
    ("an empty line before it", b"\r\nHTTP/1.1 200 OK\r\n\r\n"),
    ("bare LFs (9112 2.2)", b"HTTP/1.1 200 OK\nContent-Length: 2\n\n"),
    ("a bare LF after the status line", b"HTTP/1.1 200 OK\nContent-Length: 2\r\n\r\n"),
    ("a bare LF after a field", b"HTTP/1.1 200 OK\r\nX: a\nContent-Length: 2\r\n\r\n"),
    ("a bare LF as the empty line", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\n"),
    ("a bare CR in the reason", b"HTTP/1.1 200 O\rK\r\n\r\n"),
    ("NUL in the reason", b"HTTP/1.1 200 O\x00K\r\n\r\n"),
    ("a blank before the colon (9112 5.1)", b"HTTP/1.1 200 OK\r\nContent-Length : 2\r\n\r\n"),
    ("a folded line (9112 5.2)", b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n"),
    ("NUL in a value", b"HTTP/1.1 200 OK\r\nX: \x00\r\n\r\n"),
    ("no colon", b"HTTP/1.1 200 OK\r\nX\r\n\r\n"),
];

#[test]
fn confused_responses_are_refused_however_they_arrive() {
    for (reason, bytes) in REFUSED {
        let seen = fed_every_way(bytes, |buf| see_response(buf, &Method::GET));
        assert_eq!(seen, Err(ProxyError::UpstreamProtocol), "{reason}");
    }
}

#[test]
fn conflicting_framing_is_refused_even_where_there_is_no_body() {
    for bytes in [
        &b"HTTP/1.1 304 X\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n"[..],
        b"HTTP/1.1 200 X\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
    ] {
        assert_eq!(see_response(bytes, &Method::HEAD), Err(ProxyError::UpstreamProtocol));
    }
}

#[test]
fn giant_response_heads_are_refused() {
    let mut long = b"HTTP/1.1 200 OK\r\nX: ".to_vec();
    long.resize(64 << 10, b'x');
    assert_eq!(see_response(&long, &Method::GET), Err(ProxyError::UpstreamHeadTooLarge));
    let many = [b"HTTP/1.1 200 OK\r\n".to_vec(), b"X: y\r\n".repeat(201), b"\r\n".to_vec()].concat();
    assert_eq!(see_response(&many, &Method::GET), Err(ProxyError::UpstreamHeadTooLarge));
}

#[test]
fn what_an_endpoint_says_about_time_is_learned() {
    let with = |fields: &str, test: &dyn Fn(&ResponseHead<'_>)| {
        let bytes = format!("HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n{fields}\r\n");
        let mut scratch = HeadScratch::default();
        match ResponseHead::parse(bytes.as_bytes(), &Method::GET, &mut scratch) {
            Ok(Parsed::Complete(head)) => test(&head),
            other => panic!("{other:?}"),
        }
    };
    let now = 784_111_777;
    let retry_after = |text: &str, expected: Option<u64>| {
        let check =
            |head: &ResponseHead<'_>| assert_eq!(head.retry_after(|| now), expected.map(Duration::from_secs), "{text}");
        with(&format!("Retry-After: {text}\r\n"), &check);
    };
    retry_after("120", Some(120));
    retry_after("0", Some(0));
    retry_after("Sun, 06 Nov 1994 08:49:47 GMT", Some(10));
    retry_after("Sun, 06 Nov 1994 08:49:07 GMT", Some(0));
    retry_after("999999999999", Some(86_400));
    retry_after("soon", None);
    retry_after("-1", None);
    with("", &|head| assert_eq!((head.retry_after(|| now), head.idle_timeout()), (None, None)));
    with("Keep-Alive: max=5, Timeout=7\r\n", &|head| assert_eq!(head.idle_timeout(), Some(Duration::from_secs(7))));
    with("Keep-Alive: timeout=x\r\n", &|head| assert_eq!(head.idle_timeout(), None));
}
