//! Bodies, fixed and chunked, both ways, small and large: every byte arrives, and a body that breaks off is never made to look whole.

use crate::support::{Driver, Gateway, Setup, Upstream, assert_same_bytes, behind, noise, on_every_step};
use std::io::ErrorKind;

/// Around the sizes of the gateway's blocks and of the replay buffer, and far above.
const SIZES: [usize; 8] = [0, 1, 8 << 10, (64 << 10) - 1, 64 << 10, (64 << 10) + 1, 200_000, 10 << 20];

/// The body in chunks of many sizes, with extensions now and then.
fn chunked(body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(body.len() + body.len() / 8 + 64);
    let (mut left, mut size) = (body, 1);
    while !left.is_empty() {
        let (chunk, rest) = left.split_at(size.min(left.len()));
        let extension = if size % 2 == 0 { ";name=value" } else { "" };
        bytes.extend_from_slice(format!("{:x}{extension}\r\n", chunk.len()).as_bytes());
        bytes.extend_from_slice(chunk);
        bytes.extend_from_slice(b"\r\n");
        left = rest;
        size = (size * 3 + 1) % 100_003;
    }
    bytes.extend_from_slice(b"0\r\n\r\n");
    bytes
}

/// Answers `/SIZE` with that many bytes: fixed, chunked or until close, as the path begins.
fn source() -> Upstream {
    Upstream::scripted(|conn| {
        while let Some(request) = conn.request() {
            let mut words = request.target[1..].split('/');
            let (kind, size) = (words.next().unwrap(), words.next().unwrap().parse().unwrap());
            let body = noise(size as u64, size);
            match kind {
                "fixed" => {
                    conn.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n"));
                    conn.send(body);
                }
                "chunked" => {
                    conn.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
                    conn.send(chunked(&body));
                }
                _ => {
                    conn.send("HTTP/1.1 200 OK\r\n\r\n");
                    conn.send(body);
                    return;
                }
            }
        }
    })
}

on_every_step! {
    fn request_bodies_arrive_whole(driver: Driver) {
        let upstream = Upstream::answering(|_, conn| conn.reply(200, "taken"));
        let gateway = Gateway::start(driver, &behind(&[&upstream], "", ""));
        let mut client = gateway.client();
        for size in SIZES {
            let body = noise(size as u64, size);
            assert_eq!(client.request("POST", "/fixed", &[], &body).text(), "taken");
            client.send("POST /chunked HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
            client.send(chunked(&body));
            assert_eq!(client.read("POST").text(), "taken");
        }
        let requests = upstream.requests();
        assert_eq!(requests.len(), SIZES.len() * 2);
        for (request, size) in requests.iter().zip(SIZES.iter().flat_map(|size| [size, size])) {
            assert_same_bytes(&request.body, &noise(*size as u64, *size));
        }
    }

    fn response_bodies_arrive_whole(driver: Driver) {
        let upstream = source();
        let gateway = Gateway::start(driver, &behind(&[&upstream], "", ""));
        let mut client = gateway.client();
        for size in SIZES {
            for kind in ["fixed", "chunked"] {
                let response = client.get(&format!("/{kind}/{size}"));
                assert_eq!(response.status, 200);
                assert_same_bytes(&response.body, &noise(size as u64, size));
            }
        }
    }

    fn a_small_response_arrives_whole_whatever_its_head_becomes(driver: Driver) {
        // the gateway writes its head before the body, over the endpoint's, if it fits there
        const HEADS: [usize; 5] = [0, 60, 400, 5_000, 12_000];
        let upstream = Upstream::answering(|request, conn| {
            let size: usize = request.target[1..].parse().unwrap();
            let head = format!("HTTP/1.1 200 OK\r\nX-One: 1\r\nContent-Length: {size}\r\nX-Two:2\r\n\r\n");
            conn.send([head.as_bytes(), &noise(size as u64, size)].concat());
        });
        for head in HEADS {
            let rules = format!("response_headers = {{ set = {{ x-long = \"{}\" }}, remove = [\"x-one\"] }}", "v".repeat(head));
            let gateway = Gateway::start(driver, &behind(&[&upstream], if head == 0 { "" } else { &rules }, ""));
            let mut client = gateway.client();
            for size in [0, 1, 1_000, 7_900, 8_000, 8_050, 8_100, 8_130, 8_192, 8_300, 8_400, 20_000] {
                for method in ["GET", "HEAD", "GET"] {
                    let response = client.request(method, &format!("/{size}"), &[], b"");
                    let given = (response.header("content-length"), response.header("x-two"), response.header("x-long"));
                    assert_eq!((given.0, given.1), (Some(size.to_string().as_str()), Some("2")));
                    assert_eq!(given.2.map_or(0, str::len), head);
                    if method == "GET" {
                        assert_same_bytes(&response.body, &noise(size as u64, size));
                    } else {
                        // what it has sent all the same is nobody's
                        assert_eq!(response.body, b"");
                    }
                }
            }
        }
    }

    fn a_body_that_ends_with_the_connection_arrives_whole(driver: Driver) {
        let upstream = source();
        let gateway = Gateway::start(driver, &behind(&[&upstream], "", ""));
        for size in [0, 1, 200_000] {
            let response = gateway.get(&format!("/close/{size}"));
            assert_eq!(response.status, 200);
            assert_same_bytes(&response.body, &noise(size as u64, size));
        }
    }

    fn a_response_that_breaks_off_is_cut_and_never_ended(driver: Driver) {
        let upstream = Upstream::answering(|request, conn| {
            match request.target.as_str() {
                "/fixed" => conn.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this"),
                "/chunked" => conn.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nonly this\r\n"),
                _ => conn.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n99\r\nonly this"),
            };
            conn.stream().cut();
        });
        let gateway = Gateway::start(driver, &behind(&[&upstream], "[route.retry]\nattempts = 0", ""));
        for path in ["/fixed", "/chunked", "/within-a-chunk"] {
            let error = gateway.client().try_get(path).expect_err("a broken body must not look whole");
            assert!(matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset), "{path}: {error}");
        }
    }

    fn a_request_that_breaks_off_is_not_ended_for_the_service(driver: Driver) {
        let upstream = Upstream::scripted(|conn| {
            // `request` remembers only what came whole
            while conn.request().is_some() {
                conn.reply(200, "whole");
            }
        });
        let gateway = Gateway::start(driver, &behind(&[&upstream], "", ""));
        for head in ["Content-Length: 100\r\n\r\npart", "Transfer-Encoding: chunked\r\n\r\n4\r\npart\r\n"] {
            let mut client = gateway.client();
            client.send(format!("POST / HTTP/1.1\r\nHost: x\r\n{head}"));
            client.stream().cut();
        }
        assert_eq!(gateway.get("/").text(), "whole");
        assert_eq!(upstream.requests().len(), 1, "only the GET came whole");
    }

    fn bodies_above_the_limit_are_refused(driver: Driver) {
        let upstream = Upstream::always("taken");
        let config = behind(&[&upstream], "", "");
        let setup = Setup { listener: "max_body = \"4KiB\"", config: &config, ..Setup::default() };
        let gateway = Gateway::start_with(driver, &setup);
        assert_eq!(gateway.request("POST", "/", &[], &[b'x'; 4096]).status, 200);
        let mut client = gateway.client();
        client.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4097\r\n\r\n");
        client.read("POST").assert_rejected(413, "payload_too_large");
        let mut client = gateway.client();
        client.send("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
        client.send(chunked(&noise(1, 8192)));
        client.read("POST").assert_rejected(413, "payload_too_large");
        assert_eq!(upstream.requests().len(), 1, "no refused body came whole");
    }

    fn an_answer_before_the_end_of_the_request_body_is_passed_on(driver: Driver) {
        let upstream = Upstream::scripted(|conn| {
            conn.head();
            conn.send("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno");
            conn.wait_for_close();
        });
        let gateway = Gateway::start(driver, &behind(&[&upstream], "", ""));
        let mut client = gateway.client();
        client.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\nthe beginning");
        let response = client.read("POST");
        assert_eq!((response.status, response.text().as_str()), (403, "no"));
    }
}
