//! HTTP/1.1 messages one after another: keep-alive, pipelining, HEAD, 204, 304, and what is refused.

use crate::support::{Client, Driver, Gateway, Setup, Upstream, assert_same_bytes, behind, noise, on_both_drivers};
use std::io::ErrorKind;

/// Answers with the request's target.
fn echo_target() -> Upstream {
    Upstream::answering(|request, conn| conn.reply(200, &request.target))
}

on_both_drivers! {
    fn requests_of_one_connection_share_one_upstream_connection(driver: Driver) {
        let upstream = echo_target();
        let gateway = Gateway::start(driver, &behind(&[&upstream], "", ""));
        let mut client = gateway.client();
        for path in ["/a", "/b?c=d", "/e/f"] {
            assert_eq!(client.get(path).text(), path);
        }
        assert_eq!(upstream.connections(), 1);
    }

    fn a_pooled_connection_serves_the_next_client(driver: Driver) {
        let upstream = echo_target();
        let gateway = Gateway::start(driver, &behind(&[&upstream], "", ""));
        for _ in 0..5 {
            assert_eq!(gateway.get("/x").status, 200);
        }
        assert_eq!(upstream.connections(), 1);
    }

    fn connection_close_is_obeyed(driver: Driver) {
        let upstream = echo_target();
        let gateway = Gateway::start(driver, &behind(&[&upstream], "", ""));
        let mut client = gateway.client();
        let response = client.request("GET", "/", &[("Connection", "close")], b"");
        assert_eq!((response.status, response.header("connection")), (200, Some("close")));
        client.assert_closed();
    }

    fn what_comes_behind_a_last_request_does_not_cost_its_response(driver: Driver) {
        let body = noise(1, 4 << 20);
        let sent = body.clone();
        let upstream = Upstream::answering(move |_, conn| {
            conn.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", sent.len()));
            conn.send(&sent);
        });
        let gateway = Gateway::start(driver, &behind(&[&upstream], "", ""));
        let behind = "GET /late HTTP/1.1\r\nHost: x\r\n\r\n";
        for (version, connection) in [("1.1", "Connection: close\r\n"), ("1.0", "")] {
            let mut client = gateway.client();
            let last = format!("GET / HTTP/{version}\r\nHost: x\r\n{connection}\r\n");
            // RFC 9112 §9.6 forbids it; closing with bytes unread would be a reset all the same, which takes the response with it
            client.send(last + &behind.repeat(1_000));
            assert_same_bytes(&client.read("GET").body, &body);
            assert_eq!(client.read_more().unwrap_err().kind(), ErrorKind::UnexpectedEof, "{version}");
        }
        assert_eq!(upstream.requests().len(), 2, "nothing behind the last request is one");
    }

    fn an_http_1_0_request_is_answered_and_the_connection_closed(driver: Driver) {
        let upstream = echo_target();
        let gateway = Gateway::start(driver, &behind(&[&upstream], "", ""));
        let mut client = gateway.client();
        client.send("GET /old HTTP/1.0\r\n\r\n");
        assert_eq!(client.read("GET").text(), "/old");
        client.assert_closed();
    }

    fn a_response_until_close_to_an_http_1_0_client_is_not_chunked(driver: Driver) {
        let upstream = Upstream::answering(|_, conn| {
            conn.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n");
        });
        let gateway = Gateway::start(driver, &behind(&[&upstream], "", ""));
        let mut client = gateway.client();
        client.send("GET / HTTP/1.0\r\n\r\n");
        let response = client.read("GET");
        assert_eq!((response.text().as_str(), response.header("transfer-encoding")), ("abc", None));
    }

    fn pipelined_requests_are_answered_in_order(driver: Driver) {
        let upstream = echo_target();
        let gateway = Gateway::start(driver, &behind(&[&upstream], "", ""));
        let mut client = gateway.client();
        let all: String = (0..50).map(|i| format!("GET /{i} HTTP/1.1\r\nHost: x\r\n\r\n")).collect();
        client.send(all);
        for i in 0..50 {
            assert_eq!(client.read("GET").text(), format!("/{i}"));
        }
    }

    fn pipelined_bodies_and_rejections_keep_their_places(driver: Driver) {
        let upstream = Upstream::answering(|request, conn| {
            conn.reply(200, &format!("{} {}", request.target, String::from_utf8_lossy(&request.body)));
        });
        let config = behind(&[&upstream], "", "").replace("\"/*\"", "\"/ok/*\"");
        let gateway = Gateway::start(driver, &config);
        let mut client = gateway.client();
        client.send(
            "POST /ok/1 HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc\
             GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n\
             POST /ok/2 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nde\r\n0\r\n\r\n\
             GET /ok/3 HTTP/1.1\r\nHost: x\r\n\r\n",
        );
        assert_eq!(client.read("POST").text(), "/ok/1 abc");
        client.read("GET").assert_rejected(404, "no_route");
        assert_eq!(client.read("POST").text(), "/ok/2 de");
        assert_eq!(client.read("GET").text(), "/ok/3 ");
    }

    fn a_request_that_arrives_byte_by_byte_is_understood(driver: Driver) {
        let upstream = Upstream::answering(|request, conn| {
            conn.reply(200, &String::from_utf8_lossy(&request.body));
        });
        let gateway = Gateway::start(driver, &behind(&[&upstream], "", ""));
        let mut client = gateway.client();
        for byte in b"POST /slow HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n" {
            client.send([*byte]);
        }
        assert_eq!(client.read("POST").text(), "abc");
    }

    fn a_response_that_arrives_byte_by_byte_is_understood(driver: Driver) {
        let upstream = Upstream::answering(|_, conn| {
            for byte in b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nwxyz\r\n0\r\n\r\n" {
                conn.send([*byte]);
            }
        });
        let gateway = Gateway::start(driver, &behind(&[&upstream], "", ""));
        let mut client = gateway.client();
        assert_eq!(client.get("/").text(), "wxyz");
        assert_eq!(client.get("/").text(), "wxyz");
    }

    fn head_and_bodiless_statuses_have_no_body_and_keep_the_connection(driver: Driver) {
        let upstream = Upstream::answering(|request, conn| {
            match request.target.as_str() {
                "/204" => conn.send("HTTP/1.1 204 No Content\r\n\r\n"),
                "/304" => conn.send("HTTP/1.1 304 Not Modified\r\nContent-Length: 10\r\nETag: \"a\"\r\n\r\n"),
                _ if request.method == "HEAD" => conn.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"),
                _ => conn.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"),
            };
        });
        let gateway = Gateway::start(driver, &behind(&[&upstream], "", ""));
        let mut client = gateway.client();
        let head = client.request("HEAD", "/", &[], b"");
        assert_eq!((head.status, head.header("content-length")), (200, Some("5")));
        assert_eq!(client.get("/").text(), "hello");
        let none = client.get("/204");
        assert_eq!((none.status, none.header("content-length"), none.header("transfer-encoding")), (204, None, None));
        let unchanged = client.get("/304");
        assert_eq!((unchanged.status, unchanged.header("etag")), (304, Some("\"a\"")));
        assert_eq!(client.get("/").text(), "hello");
        assert_eq!(upstream.connections(), 1);
    }

    fn an_expectation_is_met_before_the_body_is_sent(driver: Driver) {
        let upstream = Upstream::scripted(|conn| {
            while let Some(mut head) = conn.head() {
                if head.header("expect").is_some() {
                    conn.send("HTTP/1.1 100 Continue\r\n\r\n");
                }
                let Some(body) = conn.body(&head) else { return };
                head.body = body;
                conn.reply(200, &String::from_utf8_lossy(&head.body));
            }
        });
        let gateway = Gateway::start(driver, &behind(&[&upstream], "", ""));
        let mut client = gateway.client();
        client.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n");
        assert_eq!(client.read("POST").status, 100);
        client.send("body");
        assert_eq!(client.read("POST").text(), "body");
        assert_eq!(client.get("/").status, 200);
    }

    fn interim_responses_are_not_the_final_one(driver: Driver) {
        let upstream = Upstream::answering(|_, conn| {
            conn.send("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        });
        let gateway = Gateway::start(driver, &behind(&[&upstream], "", ""));
        let mut client = gateway.client();
        for _ in 0..2 {
            let response = client.get("/");
            assert_eq!((response.status, response.text().as_str()), (200, "ok"));
        }
    }

    fn malformed_requests_are_refused_and_the_connection_closed(driver: Driver) {
        let upstream = echo_target();
        let gateway = Gateway::start(driver, &behind(&[&upstream], "", ""));
        for (bytes, status, token) in [
            ("GET / HTTP/1.1\r\nHost: x\r\nno colon\r\n\r\n", 400, "bad_request"),
            ("GET / HTTP/1.1\r\n\r\n", 400, "bad_request"),
            ("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", 400, "bad_request"),
            ("GET / HTTP/3.0\r\nHost: x\r\n\r\n", 505, "version_not_supported"),
        ] {
            let mut client = gateway.client();
            client.send(bytes);
            client.read("GET").assert_rejected(status, token);
            client.assert_closed();
        }
        assert!(upstream.requests().is_empty());
    }

    fn a_refused_head_request_is_answered_without_a_body(driver: Driver) {
        let upstream = echo_target();
        let config = behind(&[&upstream], "", "");
        let listener = "max_head = \"2KiB\"\nheader_timeout = \"300ms\"";
        let gateway = Gateway::start_with(driver, &Setup { listener, config: &config, ..Setup::default() });
        let long = format!("HEAD / HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "a".repeat(4000));
        for (bytes, status) in [
            ("HEAD / HTTP/1.1\r\n\r\n", 400),
            ("HEAD / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501),
            ("HEAD / HTTP/2.0\r\nHost: x\r\n\r\n", 505),
            ("\r\nHEAD / HTTP/1.1\r\nHost: x\r\nExpect: more\r\n\r\n", 417),
            ("HEAD / HTTP/1.1\r\nHost: x\r\nX-Slow:", 408),
            (long.as_str(), 431),
        ] {
            let mut client = gateway.client();
            client.send(bytes);
            let answer = String::from_utf8(client.read_to_end().expect("an answer")).expect("text");
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
            // RFC 9110 §9.3.2: the length is told, and no content follows
            assert!(answer.contains("\r\nContent-Length: ") && answer.ends_with("\r\n\r\n"), "{answer}");
        }
        assert!(upstream.requests().is_empty());
    }

    fn heads_that_are_too_large_are_refused(driver: Driver) {
        let upstream = echo_target();
        let config = behind(&[&upstream], "", "");
        let setup = Setup { listener: "max_head = \"2KiB\"\nmax_headers = 10", config: &config, ..Setup::default() };
        let gateway = Gateway::start_with(driver, &setup);
        let long = "a".repeat(4000);
        let many = "A: b\r\n".repeat(20);
        for (bytes, status, token) in [
            (format!("GET /{long} HTTP/1.1\r\nHost: x\r\n\r\n"), 414, "uri_too_long"),
            (format!("GET / HTTP/1.1\r\nHost: x\r\nA: {long}\r\n\r\n"), 431, "header_too_large"),
            (format!("GET / HTTP/1.1\r\nHost: x\r\n{many}\r\n"), 431, "header_too_large"),
        ] {
            let mut client = gateway.client();
            client.send(bytes);
            client.read("GET").assert_rejected(status, token);
        }
        assert_eq!(gateway.get("/fits").status, 200);
    }

    fn a_response_that_is_not_http_is_a_bad_gateway(driver: Driver) {
        let upstream = Upstream::answering(|_, conn| {
            conn.send("SSH-2.0-OpenSSH\r\n\r\n");
        });
        let gateway = Gateway::start(driver, &behind(&[&upstream], "", ""));
        gateway.get("/").assert_rejected(502, "upstream_protocol_error");
    }

    fn many_connections_at_once_are_served(driver: Driver) {
        let upstream = echo_target();
        let gateway = Gateway::start(driver, &behind(&[&upstream], "", ""));
        let mut clients: Vec<Client> = (0..100).map(|_| gateway.client()).collect();
        for _ in 0..3 {
            for (i, client) in clients.iter_mut().enumerate() {
                client.send(format!("GET /{i} HTTP/1.1\r\nHost: x\r\n\r\n"));
            }
            for (i, client) in clients.iter_mut().enumerate() {
                assert_eq!(client.read("GET").text(), format!("/{i}"));
            }
        }
    }

    fn minor_versions_above_one_are_read_as_one(driver: Driver) {
        let upstream = Upstream::answering(|_, conn| {
            conn.send("HTTP/1.3 200 OK\r\nContent-Length: 2\r\n\r\nok");
        });
        let gateway = Gateway::start(driver, &behind(&[&upstream], "", ""));
        let mut client = gateway.client();
        for _ in 0..2 {
            client.send("GET / HTTP/1.2\r\nHost: x\r\n\r\n");
            assert_eq!(client.read("GET").text(), "ok", "and the connection is kept");
        }
        assert_eq!(upstream.connections(), 1, "and so is the service's");
    }

    fn a_malformed_request_is_told_which_rule_it_breaks(driver: Driver) {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("access.log");
        let upstream = echo_target();
        let config = format!("[access_log]\npath = \"{}\"\n\n", log.display()) + &behind(&[&upstream], "", "");
        let gateway = Gateway::start(driver, &config);
        let cases = [
            ("GET / HTTP/1.1\r\n\r\n", "host"),
            ("GET /a%2fb HTTP/1.1\r\nHost: x\r\n\r\n", "path"),
            ("GET a HTTP/1.1\r\nHost: x\r\n\r\n", "target"),
            ("GET / HTTP/1.1\r\nHost: x\r\nX : y\r\n\r\n", "header_name"),
            ("GET / HTTP/1.1\r\nHost: x\r\nX: \u{1}\r\n\r\n", "header_value"),
            ("GET / HTTP/1.1\nHost: x\n\n", "line_end"),
            ("GET / HTTP/1.1\r\nHost: x\r\nConnection: a b\r\n\r\n", "connection"),
            ("G@T / HTTP/1.1\r\nHost: x\r\n\r\n", "request_line"),
            ("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", "length"),
            ("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "chunk"),
        ];
        for (bytes, rule) in cases {
            let mut client = gateway.client();
            client.send(bytes);
            let response = client.read("GET");
            response.assert_rejected(400, "bad_request");
            assert_eq!(response.json()["message"], format!("the request is malformed: {rule}"), "{bytes:?}");
        }
        let text = crate::support::eventually("all are logged", || {
            let text = std::fs::read_to_string(&log).unwrap_or_default();
            (text.lines().count() == cases.len()).then_some(text)
        });
        for ((bytes, rule), line) in cases.iter().zip(text.lines()) {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            assert_eq!((line["error"].as_str(), line["rule"].as_str()), (Some("bad_request"), Some(*rule)), "{bytes:?}");
        }
    }

    fn an_early_refusal_promises_a_connection_only_if_it_will_be_kept(driver: Driver) {
        let upstream = Upstream::scripted(|conn| {
            while conn.head().is_some() {
                conn.reply(413, "too large for me");
            }
        });
        let config = behind(&[&upstream], "", "").replace("\"/*\"", "\"/app/*\"");
        let gateway = Gateway::start(driver, &config);
        for (path, status) in [("/nowhere", 404), ("/app/", 413)] {
            let mut client = gateway.client();
            client.send(format!("POST {path} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"));
            let response = client.read("POST");
            assert_eq!((response.status, response.header("connection")), (status, Some("close")), "{path}");
        }
        let mut client = gateway.client();
        client.send("POST /nowhere HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n");
        let response = client.read("POST");
        assert_eq!((response.status, response.header("connection")), (404, None), "all of it has arrived");
        assert_eq!(client.get("/nowhere").status, 404, "so the connection is kept");
    }
}
