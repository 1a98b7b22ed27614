//! Responses that the gateway compresses: what a client can take, with a head that says so, and nothing that it must not touch.

use crate::http2;
use crate::support::client::Response;
use crate::support::{Driver, Gate, Gateway, Upstream, assert_same_bytes, behind, on_both_drivers};
use std::io::{Read as _, Write as _};
use std::sync::Arc;

/// Text that is worth it, the same each time.
fn text(bytes: usize) -> Vec<u8> {
    let mut text: Vec<u8> = (0..)
        .flat_map(|row: u32| {
            format!("{{\"row\":{row},\"square\":{}}},\n", u64::from(row) * u64::from(row)).into_bytes()
        })
        .take(bytes)
        .collect();
    text.shrink_to_fit();
    text
}

fn decoded(coding: &str, bytes: &[u8]) -> Vec<u8> {
    let mut text = Vec::new();
    match coding {
        "gzip" => flate2::read::GzDecoder::new(bytes).read_to_end(&mut text),
        "br" => brotli::Decompressor::new(bytes, 4_096).read_to_end(&mut text),
        "zstd" => zstd::stream::read::Decoder::new(bytes).and_then(|mut it| it.read_to_end(&mut text)),
        other => panic!("{other}"),
    }
    .unwrap_or_else(|error| panic!("{coding}: {error}"));
    text
}

/// `/LENGTH/HOW`: so many bytes of text, framed so, with the lines of `x-lines` (`|` between them).
fn service() -> Upstream {
    Upstream::scripted(|conn| {
        while let Some(request) = conn.request() {
            let mut parts = request.target.split('/').skip(1);
            let body = text(parts.next().unwrap().parse().unwrap());
            let lines = request.header("x-lines").unwrap_or("Content-Type: application/json").replace('|', "\r\n");
            let status = request.header("x-status").unwrap_or("200 OK");
            let body = if request.method == "HEAD" || status.starts_with("304") { &b""[..] } else { &body };
            match parts.next().unwrap() {
                "fixed" => {
                    let length = if request.method == "HEAD" { 5_000 } else { body.len() };
                    conn.send(format!("HTTP/1.1 {status}\r\n{lines}\r\nContent-Length: {length}\r\n\r\n"));
                    conn.send(body);
                }
                "chunked" => {
                    conn.send(format!("HTTP/1.1 {status}\r\n{lines}\r\nTransfer-Encoding: chunked\r\n\r\n"));
                    for piece in body.chunks(30_000) {
                        conn.send([format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat());
                    }
                    conn.send("0\r\nX-End: yes\r\n\r\n");
                }
                "cut" => {
                    conn.send(format!("HTTP/1.1 {status}\r\n{lines}\r\nContent-Length: {}\r\n\r\n", body.len() + 1));
                    conn.send(body);
                    return;
                }
                _ => {
                    conn.send(format!("HTTP/1.1 {status}\r\n{lines}\r\nConnection: close\r\n\r\n"));
                    conn.send(body);
                    return;
                }
            }
        }
    })
}

fn all(response: &Response, name: &str) -> Vec<String> {
    response.headers.iter().filter(|(other, _)| other == name).map(|(_, value)| value.clone()).collect()
}

on_both_drivers! {
    fn a_body_is_compressed_however_it_comes(driver: Driver) {
        let service = service();
        let gateway = Gateway::start(driver, &behind(&[&service], "compression = {}", ""));
        let mut client = gateway.client();
        for coding in ["gzip", "br", "zstd"] {
            for (length, how) in
                [(2_000, "fixed"), (300_000, "fixed"), (1_500, "chunked"), (700_000, "chunked"), (400_000, "close"), (0, "chunked"), (3_000_000, "fixed")]
            {
                let fields = [("Accept-Encoding", coding), ("X-Lines", "Content-Type: application/json|ETag: \"a\"|Accept-Ranges: bytes")];
                let response = client.request("GET", &format!("/{length}/{how}"), &fields, b"");
                assert_eq!(response.status, 200, "{coding} {length} {how}");
                assert_eq!(all(&response, "content-encoding"), [coding], "{length} {how}");
                assert_eq!(all(&response, "vary"), ["Accept-Encoding"]);
                assert_eq!(all(&response, "etag"), ["W/\"a\""]);
                assert_eq!((response.header("content-length"), response.header("accept-ranges")), (None, None));
                assert_same_bytes(&decoded(coding, &response.body), &text(length));
                assert!(length < 2_000 || response.body.len() < length / 2, "{coding} {length}: {}", response.body.len());
            }
        }
        let counted = [("route", "all"), ("event", "compressed")];
        assert_eq!(gateway.metric("ringgate_traffic_events_total", &counted), 21.0);
        drop(client);
        gateway.assert_nothing_left();
    }

    fn what_is_not_to_be_touched_is_not(driver: Driver) {
        let service = service();
        let gateway = Gateway::start(driver, &behind(&[&service], "compression = { types = [\"text/*\", \"application/json\"] }", ""));
        let json = "Content-Type: application/json|ETag: \"a\"";
        let get = |accept: &str, lines: &str, status: &str, length: usize| {
            let fields = [("Accept-Encoding", accept), ("X-Lines", lines), ("X-Status", status)];
            gateway.request("GET", &format!("/{length}/fixed"), &fields, b"")
        };
        let digest = format!("{json}|Content-Digest: sha-256=:AAAA:");
        for (accept, lines, status, length) in [
            ("gzip", "Content-Type: image/png", "200 OK", 5_000),
            ("gzip", "X-None: 1", "200 OK", 5_000),
            ("gzip", json, "200 OK", 1_023),
            ("gzip", "Content-Type: text/event-stream", "200 OK", 5_000),
            ("gzip", &format!("{json}|Content-Encoding: br"), "200 OK", 5_000),
            ("gzip", &format!("{json}|Cache-Control: public, no-transform"), "200 OK", 5_000),
            ("gzip", &digest, "200 OK", 5_000),
            ("gzip", &format!("{json}|Content-Range: bytes 0-4999/9000"), "206 Partial Content", 5_000),
        ] {
            let response = get(accept, lines, status, length);
            let own = if lines.contains("Content-Encoding") { vec!["br".to_owned()] } else { Vec::new() };
            assert_eq!(all(&response, "content-encoding"), own, "{lines} {status}");
            assert_eq!(all(&response, "vary"), [""; 0], "{lines} {status}");
            assert_same_bytes(&response.body, &text(length));
            if lines.contains("ETag") {
                assert_eq!(all(&response, "etag"), ["\"a\""]);
            }
        }
        // those that others would get compressed say so
        for accept in ["", "identity", "gzip;q=0", "deflate", "identity, gzip;q=0.5"] {
            let response = get(accept, json, "200 OK", 5_000);
            assert_eq!((all(&response, "content-encoding"), all(&response, "vary")), (Vec::new(), vec!["Accept-Encoding".to_owned()]), "{accept}");
            assert_eq!((response.header("content-length"), response.header("etag")), (Some("5000"), Some("\"a\"")));
        }
        let varying = get("gzip", &format!("{json}|Vary: Origin, accept-encoding"), "200 OK", 5_000);
        assert_eq!(all(&varying, "vary"), ["Origin, accept-encoding"]);
        let error = get("br;q=0.5, gzip;q=0.6", json, "500 Internal Server Error", 5_000);
        assert_eq!(all(&error, "content-encoding"), ["gzip"], "errors may be long, too");
        let asked = gateway.request("GET", "/5000/fixed", &[("Accept-Encoding", "gzip"), ("Cache-Control", "no-transform")], b"");
        assert_eq!(all(&asked, "content-encoding"), [""; 0]);
        let mut old = gateway.client();
        old.send("GET /5000/fixed HTTP/1.0\r\nHost: x\r\nAccept-Encoding: gzip\r\n\r\n");
        assert_eq!(all(&old.read("GET"), "content-encoding"), [""; 0]);
    }

    fn a_head_alone_says_what_is_true_of_its_body(driver: Driver) {
        let service = service();
        let gateway = http2::gateway_with(driver, http2::CLEAR, &behind(&[&service], "compression = {}", ""));
        let json = "Content-Type: application/json|ETag: \"a\"|Accept-Ranges: bytes";
        let ask = |method: &str, accept: &str, lines: &str, status: &str| {
            let fields = [("Accept-Encoding", accept), ("X-Lines", lines), ("X-Status", status)];
            let response = gateway.request(method, "/5000/fixed", &fields, b"");
            assert!(method == "GET" && !status.starts_with("304") || response.body.is_empty());
            ["content-encoding", "vary", "etag", "content-length", "accept-ranges"]
                .map(|name| response.header(name).map_or_else(String::new, str::to_owned))
        };
        let (get, coded) = (ask("GET", "gzip", json, "200 OK"), ["gzip", "Accept-Encoding", "W/\"a\"", "", ""]);
        assert_eq!(get, coded);
        assert_eq!(ask("HEAD", "gzip", json, "200 OK"), coded, "as of GET");
        assert_eq!(ask("HEAD", "identity", json, "200 OK"), ["", "Accept-Encoding", "\"a\"", "5000", "bytes"]);
        let image = json.replace("application/json", "image/png");
        assert_eq!(ask("HEAD", "gzip", &image, "200 OK"), ["", "", "\"a\"", "5000", "bytes"]);
        // a cache finds what a 304 is about by its tag, be it said what type that has or not
        for lines in [json, "ETag: \"a\""] {
            let [coding, vary, etag, length, _] = ask("GET", "br", lines, "304 Not Modified");
            assert_eq!([coding, vary, etag, length].each_ref().map(String::as_str), ["", "Accept-Encoding", "W/\"a\"", ""], "{lines}");
            let [coding, vary, etag, ..] = ask("GET", "", lines, "304 Not Modified");
            assert_eq!([coding, vary, etag].each_ref().map(String::as_str), ["", "Accept-Encoding", "\"a\""], "{lines}");
        }
        for lines in [&*image, "ETag: \"a\"|Cache-Control: no-transform", "ETag: \"a\"|Content-Encoding: br"] {
            let [_, vary, etag, ..] = ask("GET", "gzip", lines, "304 Not Modified");
            assert_eq!([vary, etag].each_ref().map(String::as_str), ["", "\"a\""], "{lines}");
        }
        let again = ask("GET", "gzip", "ETag: W/\"a\"", "304 Not Modified");
        assert_eq!(again[2], "W/\"a\"");
        http2::run(async {
            let sender = http2::connect(&gateway).await;
            for (method, accept, expected) in [("HEAD", "gzip", (Some("gzip"), None)), ("HEAD", "identity", (None, Some("5000")))] {
                let mut request = http2::get("/5000/fixed");
                *request.method_mut() = method.parse().unwrap();
                request.headers_mut().append("accept-encoding", accept.parse().unwrap());
                let response = http2::ask(&sender, request).await.unwrap();
                let said = ["content-encoding", "content-length"].map(|name| response.headers().get(name).map(|it| it.to_str().unwrap()));
                assert_eq!((said[0], said[1]), expected, "{accept}");
            }
        });
    }

    fn what_has_arrived_does_not_wait_for_what_comes(driver: Driver) {
        let gate = Arc::new(Gate::default());
        let waiting = Arc::clone(&gate);
        let service = Upstream::answering(move |_, conn| {
            conn.send("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n");
            waiting.wait();
            conn.send("6\r\nsecond\r\n0\r\n\r\n");
        });
        let gateway = Gateway::start(driver, &behind(&[&service], "compression = {}", ""));
        let mut client = gateway.client();
        client.send("GET / HTTP/1.1\r\nHost: x\r\nAccept-Encoding: gzip\r\n\r\n");
        let (status, _) = client.read_head().unwrap();
        assert_eq!(status, 200);
        let mut decoder = flate2::write::GzDecoder::new(Vec::new());
        while decoder.get_ref().as_slice() != b"first" {
            let mut line = Vec::new();
            while !line.ends_with(b"\r\n") {
                line.extend(client.take(1).unwrap());
            }
            let length = usize::from_str_radix(std::str::from_utf8(&line).unwrap().trim_end(), 16).unwrap();
            assert!(length > 0, "the end came too early");
            decoder.write_all(&client.take(length).unwrap()).unwrap();
            decoder.flush().unwrap();
            client.take(2).unwrap();
        }
        gate.open();
    }

    fn a_body_that_breaks_off_gets_no_end(driver: Driver) {
        let service = service();
        let gateway = Gateway::start(driver, &behind(&[&service], "compression = {}\nretry = { attempts = 0 }", ""));
        let mut client = gateway.client();
        client.send("GET /500000/cut HTTP/1.1\r\nHost: x\r\nAccept-Encoding: zstd\r\n\r\n");
        let error = client.try_read("GET").expect_err("it is not whole");
        assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof, "{error}");
        drop(client);
        gateway.assert_nothing_left();
    }

    fn a_stream_is_compressed_too(driver: Driver) {
        let service = service();
        let gateway = http2::gateway_with(driver, http2::CLEAR, &behind(&[&service], "compression = {}", ""));
        http2::run(async {
            let sender = http2::connect(&gateway).await;
            for (coding, path, length) in [("br", "/2000/fixed", 2_000), ("gzip", "/900000/fixed", 900_000), ("zstd", "/500000/chunked", 500_000), ("zstd", "/300000/close", 300_000)] {
                let mut request = http2::get(path);
                request.headers_mut().append("accept-encoding", coding.parse().unwrap());
                let response = http2::ask(&sender, request).await.unwrap();
                assert_eq!(response.headers()["content-encoding"], coding);
                assert!(!response.headers().contains_key("content-length"));
                let (body, _) = http2::read(&mut response.into_body()).await.unwrap();
                assert_same_bytes(&decoded(coding, &body), &text(length));
            }
        });
    }
}
