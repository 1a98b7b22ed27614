//! Services that break the protocol: heads that are none, lengths that contradict each other, bodies that do not end as they should,
//! answers before their time. The client gets a 502 or a connection that visibly broke, and the next request a clean connection.

use crate::support::{Client, Driver, Gateway, Setup, Upstream, behind, noise, on_both_drivers};
use std::io::ErrorKind;

/// No retries, and nobody is ejected.
const ONE_TRY: &str = "[route.retry]\nattempts = 0";
const NO_EJECTION: &str = "outlier = { enabled = false }";

/// The head of a response that is followed by this body, or by none.
fn ok(fields: &str) -> String {
    format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\n")
}

/// What is no head of a response, or one that two readers could read differently.
fn bad_heads() -> Vec<(String, &'static str)> {
    let malformed = [
        "garbage\r\n\r\n".to_owned(),
        "\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_owned(),
        "HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n".to_owned(),
        "HTTP/1.1 99 Low\r\nContent-Length: 0\r\n\r\n".to_owned(),
        "HTTP/1.1 099 Low\r\nContent-Length: 0\r\n\r\n".to_owned(),
        "HTTP/1.1 600 High\r\nContent-Length: 0\r\n\r\n".to_owned(),
        "HTTP/1.1 2000 Long\r\nContent-Length: 0\r\n\r\n".to_owned(),
        "HTTP/1.1 OK\r\nContent-Length: 0\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(),
        "\u{16}\u{3}\u{1}\0\u{5}hello\r\n\r\n".to_owned(),
        ok("Content-Length: 5\r\nContent-Length: 6") + "hello",
        ok("Content-Length: 5, 6") + "hello",
        ok("Content-Length: 5,") + "hello",
        ok("Content-Length: +5") + "hello",
        ok("Content-Length: -5") + "hello",
        ok("Content-Length: 0x5") + "hello",
        ok("Content-Length: 5 5") + "hello",
        ok("Content-Length:") + "hello",
        ok("Content-Length: 99999999999999999999") + "hello",
        ok("Content-Length: 5\r\nTransfer-Encoding: chunked") + "5\r\nhello\r\n0\r\n\r\n",
        ok("Transfer-Encoding: chunked\r\nContent-Length: 5") + "5\r\nhello\r\n0\r\n\r\n",
        ok("Transfer-Encoding: gzip") + "hello",
        ok("Transfer-Encoding: gzip, chunked") + "5\r\nhello\r\n0\r\n\r\n",
        ok("Transfer-Encoding: chunked, chunked") + "5\r\nhello\r\n0\r\n\r\n",
        ok("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked") + "5\r\nhello\r\n0\r\n\r\n",
        ok("Transfer-Encoding: xchunked") + "5\r\nhello\r\n0\r\n\r\n",
        ok("Transfer-Encoding:\u{b}chunked") + "5\r\nhello\r\n0\r\n\r\n",
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n".to_owned(),
        ok("Content-Length: 0\r\nNo colon"),
        ok("Content-Length: 0\r\nA: b\r\n folded"),
        ok("Content-Length: 0\r\nSpace : b"),
        ok("Content-Length: 0\r\n: nameless"),
        ok("Content-Length: 0\r\nNul: a\0b"),
        ok("Content-Length: 0\r\nCr: a\rb"),
        "HTTP/1.1 103 Early Hints\r\n\r\ngarbage\r\n\r\n".to_owned(),
    ];
    let large = [
        ok(&format!("Content-Length: 0\r\nA: {}", "a".repeat(70_000))),
        ok(&format!("Content-Length: 0\r\n{}A: b", "A: b\r\n".repeat(200))),
        format!("HTTP/1.1 103 Early Hints\r\nA: {}\r\n\r\n", "a".repeat(70_000)),
        format!("HTTP/1.1 200 {}", "O".repeat(70_000)),
    ];
    let malformed = malformed.into_iter().map(|head| (head, "upstream_protocol_error"));
    malformed.chain(large.into_iter().map(|head| (head, "upstream_head_too_large"))).collect()
}

/// Chunked bodies that are none.
fn bad_chunks() -> Vec<String> {
    let mut bodies: Vec<String> = [
        "zz\r\n",
        "-5\r\nhello\r\n0\r\n\r\n",
        "0x5\r\nhello\r\n0\r\n\r\n",
        " 5\r\nhello\r\n0\r\n\r\n",
        "5\nhello\r\n0\r\n\r\n",
        "5\rhello\r\n0\r\n\r\n",
        "\r\n5\r\nhello\r\n0\r\n\r\n",
        "5\r\nhello0\r\n\r\n",
        "5\r\nhello!!0\r\n\r\n",
        "5\r\nhello\n0\r\n\r\n",
        "5\r\nhello\r\n\r\n0\r\n\r\n",
        "ffffffffffffffff1\r\nhello\r\n0\r\n\r\n",
        "8000000000000000\r\nhello\r\n0\r\n\r\n",
        "5;\nhello\r\n0\r\n\r\n",
        "5\r\nhello\r\n0\r\nno colon\r\n\r\n",
        "5\r\nhello\r\n0\r\nA: b\n\r\n",
        "5\r\nhello\r\n0\r\nA: b\r\n folded: c\r\n\r\n",
    ]
    .map(str::to_owned)
    .into();
    bodies.push(format!("5;{}\r\nhello\r\n0\r\n\r\n", "e".repeat(300)));
    bodies.push(format!("{}0\r\n\r\n", "1;eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee\r\na\r\n".repeat(2_000)));
    bodies.push(format!("5\r\nhello\r\n0\r\nA: {}\r\n\r\n", "a".repeat(9_000)));
    bodies
}

#[track_caller]
fn assert_broken(read: std::io::Result<crate::support::client::Response>, case: &str) {
    match read {
        Ok(response) => assert_eq!(response.status, 502, "{case}: {response:?}"),
        Err(error) => {
            assert!(matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset), "{case}: {error}");
        }
    }
}

on_both_drivers! {
    fn what_is_no_head_is_a_bad_gateway_and_its_connection_is_not_used_again(driver: Driver) {
        let heads = bad_heads();
        let sent = heads.clone();
        let upstream = Upstream::scripted(move |conn| {
            while let Some(request) = conn.request() {
                match request.target[1..].parse::<usize>() {
                    Ok(case) => drop(conn.send(&sent[case].0)),
                    Err(_) => conn.reply(200, "good"),
                }
            }
        });
        let gateway = Gateway::start(driver, &behind(&[&upstream], ONE_TRY, NO_EJECTION));
        let mut client = gateway.client();
        for (case, (head, token)) in heads.iter().enumerate() {
            let before = upstream.connections();
            let short = &head[..head.len().min(120)];
            let mut response = client.request("POST", &format!("/{case}"), &[], b"x");
            if response.status == 103 {
                response = client.read("POST");
            }
            assert_eq!((response.status, response.json()["error"].as_str()), (502, Some(*token)), "{short:?}");
            assert_eq!(client.get("/good").text(), "good", "the client's connection is kept: {short:?}");
            assert!(upstream.connections() > before, "{short:?}");
        }
    }

    fn a_length_that_is_said_twice_is_one_length(driver: Driver) {
        for fields in ["Content-Length: 5\r\nContent-Length: 5", "Content-Length: 5, 5"] {
            let upstream = Upstream::answering(move |_, conn| {
                conn.send(ok(fields) + "hello");
            });
            let gateway = Gateway::start(driver, &behind(&[&upstream], ONE_TRY, ""));
            let mut client = gateway.client();
            for _ in 0..2 {
                let response = client.get("/");
                let lengths = response.headers.iter().filter(|(name, _)| name == "content-length").count();
                assert_eq!((response.text().as_str(), lengths, response.header("content-length")), ("hello", 1, Some("5")));
            }
        }
    }

    fn a_head_may_be_as_large_as_the_limit_and_no_larger(driver: Driver) {
        const HEAD_BYTES_MAX: usize = 64 << 10;
        let upstream = Upstream::answering(|request, conn| {
            let size: usize = request.target[1..].parse().expect("a number");
            let (begin, end) = ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nA: ", "\r\n\r\nhello");
            let filler = "a".repeat(size - begin.len() - "\r\n\r\n".len());
            conn.send(format!("{begin}{filler}{end}"));
        });
        let gateway = Gateway::start(driver, &behind(&[&upstream], ONE_TRY, NO_EJECTION));
        let mut client = gateway.client();
        for size in [8 << 10, (8 << 10) + 1, 60_000, HEAD_BYTES_MAX - 5, HEAD_BYTES_MAX - 1, HEAD_BYTES_MAX] {
            let response = client.get(&format!("/{size}"));
            assert_eq!((response.status, response.text().as_str()), (200, "hello"), "{size}");
            assert!(response.header("a").is_some_and(|value| value.len() > size - 100));
        }
        client.get(&format!("/{}", HEAD_BYTES_MAX + 1)).assert_rejected(502, "upstream_head_too_large");
    }

    fn a_head_without_an_end_is_cut_off(driver: Driver) {
        let upstream = Upstream::scripted(|conn| {
            conn.request();
            conn.send("HTTP/1.1 200 OK\r\n");
            while conn.send("A: b\r\n".repeat(100)) {}
        });
        let gateway = Gateway::start(driver, &behind(&[&upstream], ONE_TRY, NO_EJECTION));
        gateway.get("/").assert_rejected(502, "upstream_head_too_large");
    }

    fn a_chunked_body_that_is_none_never_looks_whole(driver: Driver) {
        let bodies = bad_chunks();
        let sent = bodies.clone();
        let upstream = Upstream::scripted(move |conn| {
            let Some(request) = conn.request() else { return };
            conn.send(ok("Transfer-Encoding: chunked") + &sent[request.target[1..].parse::<usize>().expect("a number")]);
            // the gateway does not wait for the end to see what is wrong
            conn.wait_for_close();
        });
        let gateway = Gateway::start(driver, &behind(&[&upstream], ONE_TRY, NO_EJECTION));
        for (case, body) in bodies.iter().enumerate() {
            let short = &body[..body.len().min(60)];
            assert_broken(gateway.client().try_get(&format!("/{case}")), short);
            let mut old = gateway.client();
            old.send(format!("GET /{case} HTTP/1.0\r\n\r\n"));
            assert_broken(old.try_read("GET"), short);
        }
    }

    fn a_request_in_chunks_that_are_none_is_refused_and_nothing_behind_it_is_a_request(driver: Driver) {
        let upstream = Upstream::answering(|request, conn| conn.reply(200, &request.target));
        let gateway = Gateway::start(driver, &behind(&[&upstream], "", NO_EJECTION));
        for body in bad_chunks() {
            let mut client = gateway.client();
            client.send("POST /chunked HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
            // it may be refused, and the connection closed, before all of it is sent
            let _ = client.try_send(body.clone() + "GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n");
            client.stream().end();
            match client.try_read("POST") {
                Ok(response) => {
                    assert_eq!((response.status, response.header("connection")), (400, Some("close")), "{body:.60?}");
                }
                Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{body:.60?}"),
            }
            client.assert_closed();
        }
        assert_eq!(gateway.get("/next").text(), "/next");
        let whole: Vec<_> = upstream.requests().into_iter().map(|request| request.target).collect();
        assert_eq!(whole, ["/next"], "no malformed body came whole, and nothing was smuggled");
    }

    fn a_body_longer_than_its_length_is_cut_at_its_length(driver: Driver) {
        let upstream = Upstream::scripted(|conn| {
            while conn.request().is_some() {
                conn.send(ok("Content-Length: 1000"));
                conn.send(noise(1, 100_000));
            }
        });
        let gateway = Gateway::start(driver, &behind(&[&upstream], ONE_TRY, NO_EJECTION));
        let mut client = gateway.client();
        for _ in 0..5 {
            assert_eq!(client.get("/").body, noise(1, 1000));
        }
        assert_eq!(upstream.connections(), 5, "none was used twice");
    }

    fn a_service_that_refuses_a_body_and_resets_is_still_heard(driver: Driver) {
        let upstream = Upstream::scripted(|conn| {
            conn.head();
            conn.send("HTTP/1.1 413 Too Large\r\nContent-Length: 5\r\nConnection: close\r\n\r\nlarge");
            // a close with unread bytes is a reset, which overtakes nothing that was sent before
        });
        let gateway = Gateway::start(driver, &behind(&[&upstream], "", NO_EJECTION));
        for framing in ["Content-Length: 300000", "Transfer-Encoding: chunked"] {
            for _ in 0..10 {
                let mut client = gateway.client();
                client.send(format!("POST / HTTP/1.1\r\nHost: x\r\n{framing}\r\n\r\n"));
                let piece = [b"8000\r\n", &noise(1, 0x8000)[..], b"\r\n"].concat();
                for _ in 0..9 {
                    if client.try_send(&piece[if framing.starts_with('C') { 8 } else { 0 }..]).is_err() {
                        break;
                    }
                }
                let response = client.read("POST");
                assert_eq!((response.status, response.text().as_str()), (413, "large"), "{framing}");
            }
        }
    }

    fn trailers_go_both_ways_and_what_must_not_be_one_is_dropped(driver: Driver) {
        const SECTION: &str = "0\r\nX-Sum: 5\r\nContent-Length: 9\r\nAuthorization: a\r\nHost: evil\r\nTransfer-Encoding: x\r\n\r\n";
        const KEPT: &str = "5\r\nhello\r\n0\r\nX-Sum: 5\r\n\r\n";
        let upstream = Upstream::scripted(|conn| {
            while let Some(head) = conn.head() {
                if head.method == "POST" {
                    let section = conn.take(KEPT.len());
                    assert_eq!(String::from_utf8_lossy(&section.unwrap()), KEPT);
                }
                conn.send(format!("{}5\r\nhello\r\n{SECTION}", ok("Trailer: X-Sum\r\nTransfer-Encoding: chunked")));
            }
        });
        let gateway = Gateway::start(driver, &behind(&[&upstream], ONE_TRY, NO_EJECTION));
        let mut client = gateway.client();
        for _ in 0..3 {
            client.send(format!("POST / HTTP/1.1\r\nHost: x\r\nTE: trailers\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n{SECTION}"));
            assert_eq!(client.read_head().unwrap().0, 200);
            assert_eq!(String::from_utf8_lossy(&client.take(KEPT.len()).unwrap()), KEPT);
        }
        assert_eq!(client.get("/").text(), "hello", "nothing is left of them");
        let mut old = gateway.client();
        old.send("GET / HTTP/1.0\r\n\r\n");
        assert_eq!(old.read("GET").text(), "hello", "there is no place for them without chunks");
        assert_eq!(upstream.connections(), 1);
    }

    fn an_http_1_0_service_is_understood(driver: Driver) {
        let upstream = Upstream::scripted(|conn| {
            while let Some(request) = conn.request() {
                match request.target.as_str() {
                    "/kept" => conn.send("HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: 5\r\n\r\nhello"),
                    "/fixed" => conn.send("HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello"),
                    _ => {
                        conn.send("HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n\r\nhello");
                        return;
                    }
                };
            }
        });
        let gateway = Gateway::start(driver, &behind(&[&upstream], ONE_TRY, NO_EJECTION));
        let mut client = gateway.client();
        for (path, connections) in [("/kept", 1), ("/kept", 1), ("/fixed", 1), ("/fixed", 2), ("/close", 3), ("/close", 4)] {
            assert_eq!((client.get(path).text().as_str(), upstream.connections()), ("hello", connections), "{path}");
        }
        assert!(upstream.requests().iter().all(|request| request.header("connection").is_none()));
    }

    fn an_http_1_0_client_may_keep_its_connection_where_the_end_of_a_body_is_known(driver: Driver) {
        let upstream = Upstream::answering(|request, conn| {
            match request.target.as_str() {
                "/ok/chunked" => drop(conn.send(ok("Transfer-Encoding: chunked") + "5\r\nhello\r\n0\r\n\r\n")),
                _ => conn.reply(200, "hello"),
            }
        });
        let config = behind(&[&upstream], "", "").replace("\"/*\"", "\"/ok/*\"");
        let gateway = Gateway::start(driver, &config);
        let ask = |client: &mut Client, path: &str, fields: &str| {
            client.send(format!("GET {path} HTTP/1.0\r\n{fields}\r\n"));
            let response = client.read("GET");
            assert_eq!(response.header("transfer-encoding"), None);
            (response.status, response.header("connection").map(str::to_owned))
        };
        let (keep, close) = (Some("keep-alive".to_owned()), Some("close".to_owned()));
        let mut client = gateway.client();
        assert_eq!(ask(&mut client, "/ok/fixed", "Connection: Keep-Alive\r\n"), (200, keep.clone()));
        assert_eq!(ask(&mut client, "/no/route", "Connection: Keep-Alive\r\n"), (404, keep));
        assert_eq!(ask(&mut client, "/ok/chunked", "Connection: keep-alive\r\n"), (200, close.clone()));
        client.assert_closed();
        let mut client = gateway.client();
        assert_eq!(ask(&mut client, "/ok/fixed", ""), (200, close));
        client.assert_closed();
    }

    fn trace_and_connect_are_refused(driver: Driver) {
        let upstream = Upstream::always("never");
        let gateway = Gateway::start(driver, &behind(&[&upstream], "", ""));
        for (request, status, token) in [
            ("TRACE / HTTP/1.1\r\nHost: x\r\nAuthorization: secret\r\n\r\n", 405, "method_not_allowed"),
            ("CONNECT x:443 HTTP/1.1\r\nHost: x:443\r\n\r\n", 501, "not_implemented"),
            ("CONNECT / HTTP/1.1\r\nHost: x\r\n\r\n", 501, "not_implemented"),
        ] {
            let mut client = gateway.client();
            client.send(format!("{request}GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"));
            let response = client.read("GET");
            response.assert_rejected(status, token);
            assert!(!response.text().contains("secret"));
            client.stream().end();
            client.assert_closed();
        }
        assert!(upstream.requests().is_empty());
    }

    fn a_request_head_may_be_as_large_as_the_limit_and_no_larger(driver: Driver) {
        const HEAD_BYTES_MAX: usize = 16 << 10;
        let upstream = Upstream::answering(|request, conn| conn.reply(200, &request.header("a").map_or(0, str::len).to_string()));
        let config = behind(&[&upstream], "", "");
        let setup = Setup { listener: "max_head = \"16KiB\"", config: &config, ..Setup::default() };
        let gateway = Gateway::start_with(driver, &setup);
        let begin = "GET / HTTP/1.1\r\nHost: x\r\nA: ";
        let filler = |size: usize| "a".repeat(size - begin.len() - "\r\n\r\n".len());
        let mut client = gateway.client();
        for size in [8 << 10, (8 << 10) + 1, HEAD_BYTES_MAX - 1, HEAD_BYTES_MAX] {
            client.send(format!("{begin}{}\r\n\r\n", filler(size)));
            assert_eq!(client.read("GET").text(), filler(size).len().to_string(), "{size}");
            // in two parts, with the next request behind it
            let request = format!("{begin}{}\r\n\r\nGET /next HTTP/1.1\r\nHost: x\r\n\r\n", filler(size));
            client.send(&request[..size - 2]);
            client.send(&request[size - 2..]);
            assert_eq!(client.read("GET").text(), filler(size).len().to_string(), "{size}");
            assert_eq!(client.read("GET").text(), "0");
        }
        client.send(format!("{begin}{}\r\n\r\n", filler(HEAD_BYTES_MAX + 1)));
        client.read("GET").assert_rejected(431, "header_too_large");
        client.stream().end();
        client.assert_closed();
    }
}
