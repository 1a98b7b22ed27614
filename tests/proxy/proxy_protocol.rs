//! PROXY headers: who may send them, what they change, and what endpoints are told.

use crate::support::{Client, Driver, Gateway, Setup, Upstream, behind, eventually, on_both_drivers};

/// Answers with `X-Forwarded-For`.
fn echo_client() -> Upstream {
    Upstream::answering(|request, conn| conn.reply(200, request.header("x-forwarded-for").unwrap_or("-")))
}

/// A listener that takes headers from this host.
const TRUSTING: &str = "proxy_protocol = true\ntrusted_proxies = [\"127.0.0.1\"]";

const LINE: &[u8] = b"PROXY TCP4 203.0.113.7 198.51.100.1 4711 443\r\n";

/// The same as [`LINE`], with a TLV (ALPN) behind it.
const BINARY: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x11\xcb\0\x71\x07\xc6\x33\x64\x01\x12\x67\x01\xbb\x01\0\x02h2";

fn start(driver: Driver, listener: &str, config: &str) -> Gateway {
    Gateway::start_with(driver, &Setup { listener, config, ..Setup::default() })
}

fn refused(gateway: &Gateway) -> f64 {
    let labels = [("listener", "edge"), ("reason", "proxy_protocol")];
    gateway.metric("ringgate_connections_refused_total", &labels)
}

on_both_drivers! {
    fn the_source_of_a_header_is_the_client(driver: Driver) {
        let upstream = echo_client();
        let gateway = start(driver, TRUSTING, &behind(&[&upstream], "", ""));
        for header in [LINE, BINARY] {
            let mut client = gateway.client();
            client.send(header);
            for _ in 0..2 {
                let response = client.request("GET", "/", &[("X-Forwarded-For", "6.6.6.6")], b"");
                assert_eq!(response.text(), "203.0.113.7", "what a client says of itself is not believed");
            }
        }
    }

    fn a_header_may_come_byte_by_byte_or_with_the_request(driver: Driver) {
        let upstream = echo_client();
        let gateway = start(driver, TRUSTING, &behind(&[&upstream], "", ""));
        for header in [LINE, BINARY] {
            let mut slow = gateway.client();
            header.iter().for_each(|byte| slow.send([*byte]));
            assert_eq!(slow.get("/").text(), "203.0.113.7");
            let mut quick = gateway.client();
            quick.send([header, b"GET /a HTTP/1.1\r\nHost: x\r\n\r\nGET /b HTTP/1.1\r\nHost: x\r\n\r\n"].concat());
            assert_eq!(quick.read("GET").text(), "203.0.113.7");
            assert_eq!(quick.read("GET").text(), "203.0.113.7");
        }
    }

    fn a_sender_that_names_nobody_speaks_for_itself(driver: Driver) {
        let upstream = echo_client();
        let gateway = start(driver, TRUSTING, &behind(&[&upstream], "", ""));
        for (header, expected) in [
            (&b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"[..], "6.6.6.6, 127.0.0.1"),
            (b"\r\n\r\n\0\r\nQUIT\n\x21\0\0\0", "127.0.0.1"),
            (b"PROXY UNKNOWN\r\n", "127.0.0.1"),
        ] {
            let mut client = gateway.client();
            client.send(header);
            assert_eq!(client.request("GET", "/", &[("X-Forwarded-For", "6.6.6.6")], b"").text(), expected);
        }
    }

    fn limits_count_by_the_source(driver: Driver) {
        let upstream = echo_client();
        let limit = "limit = [ { rate = \"2/h\", burst = 2, per = \"client_ip\" } ]";
        let gateway = start(driver, TRUSTING, &behind(&[&upstream], limit, ""));
        for source in ["203.0.113.7", "203.0.113.8"] {
            let mut client = gateway.client();
            client.send(format!("PROXY TCP4 {source} 198.51.100.1 4711 443\r\n"));
            let statuses: Vec<_> = (0..3).map(|_| client.get("/").status).collect();
            assert_eq!(statuses, [200, 200, 429], "{source}");
        }
    }

    fn connections_of_one_source_are_counted_together(driver: Driver) {
        let upstream = echo_client();
        let listener = format!("{TRUSTING}\nmax_connections_per_client = 1");
        let gateway = start(driver, &listener, &behind(&[&upstream], "", ""));
        let connect = |source: &str| {
            let mut client = gateway.client();
            client.send(format!("PROXY TCP4 {source} 198.51.100.1 4711 443\r\n"));
            client
        };
        let mut first = connect("203.0.113.7");
        assert_eq!(first.get("/").status, 200);
        connect("203.0.113.7").assert_closed();
        assert_eq!(connect("203.0.113.8").get("/").status, 200);
    }

    fn what_is_no_header_is_closed_without_a_word(driver: Driver) {
        let upstream = echo_client();
        let gateway = start(driver, TRUSTING, &behind(&[&upstream], "", ""));
        for bytes in [
            &b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..],
            b"PROXY TCP4 203.0.113.7 198.51.100.1 4711 443\n",
            b"PROXY TCP4 203.0.113.007 198.51.100.1 4711 443\r\n",
            b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x01x",
            b"\x16\x03\x01\0\x05",
        ] {
            let mut client = gateway.client();
            client.send(bytes);
            client.assert_closed();
        }
        eventually("each is counted", || (refused(&gateway) == 5.0).then_some(()));
        assert!(upstream.requests().is_empty());
        drop(gateway.client());
        let mut after = gateway.client();
        after.send(LINE);
        assert_eq!(after.get("/").status, 200);
        assert_eq!(refused(&gateway), 5.0, "a look at the port is not held against anybody");
    }

    fn a_header_has_its_time(driver: Driver) {
        let upstream = echo_client();
        let listener = format!("{TRUSTING}\nheader_timeout = \"200ms\"");
        let gateway = start(driver, &listener, &behind(&[&upstream], "", ""));
        let mut partial = gateway.client();
        partial.send("PROXY TCP4 203.0.113.7");
        partial.assert_closed();
        gateway.client().assert_closed();
        eventually("both are counted", || (refused(&gateway) == 2.0).then_some(()));
    }

    fn only_trusted_proxies_may_connect(driver: Driver) {
        let upstream = echo_client();
        let listener = "proxy_protocol = true\ntrusted_proxies = [\"127.0.0.2\"]";
        let gateway = start(driver, listener, &behind(&[&upstream], "", ""));
        gateway.client().assert_closed();
        let mut trusted = Client::connect_from("127.0.0.2", gateway.address("edge"));
        trusted.send(LINE);
        assert_eq!(trusted.get("/").text(), "203.0.113.7");
        eventually("the other one is counted", || (refused(&gateway) == 1.0).then_some(()));
    }

    fn endpoints_are_told_who_the_client_is(driver: Driver) {
        for (version, expected) in [("v1", LINE.to_vec()), ("v2", [&BINARY[..15], &b"\x0c"[..], &BINARY[16..28]].concat())] {
            let length = expected.len();
            let upstream = Upstream::scripted(move |conn| {
                if conn.take(length).is_some_and(|header| header == expected) {
                    while let Some(request) = conn.request() {
                        conn.reply(200, &request.target);
                    }
                }
            });
            let cluster = format!("proxy_protocol = \"{version}\"");
            let gateway = start(driver, TRUSTING, &behind(&[&upstream], "", &cluster));
            let mut client = gateway.client();
            client.send(LINE);
            for path in ["/1", "/2", "/3"] {
                assert_eq!(client.request("POST", path, &[], b"body").text(), path, "{version}");
            }
            assert_eq!(upstream.connections(), 3, "a connection names one client and is not used again");
        }
    }

    fn without_a_header_the_connection_s_own_ends_are_told(driver: Driver) {
        let upstream = Upstream::scripted(|conn| {
            let mut line = Vec::new();
            while !line.ends_with(b"\r\n") {
                let Some(byte) = conn.take(1) else { return };
                line.extend(byte);
            }
            conn.request();
            conn.reply(200, String::from_utf8(line).unwrap().trim_end());
        });
        let config = behind(&[&upstream], "", "proxy_protocol = \"v1\"");
        let gateway = Gateway::start(driver, &config);
        let mut client = Client::connect_from("127.0.0.3", gateway.address("edge"));
        let said = client.get("/").text();
        let port = gateway.address("edge").rsplit(':').next().unwrap();
        assert!(said.starts_with("PROXY TCP4 127.0.0.3 127.0.0.1 ") && said.ends_with(&format!(" {port}")), "{said}");
        let dir = tempfile::tempdir().unwrap();
        let listen = format!("unix:{}", dir.path().join("gateway.sock").display());
        let gateway = Gateway::start_with(driver, &Setup { listen: &listen, config: &config, ..Setup::default() });
        assert_eq!(gateway.get("/").text(), "PROXY UNKNOWN");
    }

    fn health_checks_begin_with_a_header_too(driver: Driver) {
        for (version, header) in [("v1", &b"PROXY UNKNOWN\r\n"[..]), ("v2", b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0")] {
            let upstream = Upstream::scripted(move |conn| {
                if conn.take(header.len()).is_some_and(|bytes| bytes == header) && conn.request().is_some() {
                    conn.reply(200, "healthy");
                }
            });
            let cluster = format!("proxy_protocol = \"{version}\"\nhealth_check = {{ path = \"/health\", interval = \"100ms\" }}");
            let gateway = Gateway::start(driver, &behind(&[&upstream], "", &cluster));
            eventually("a probe is understood", || {
                (upstream.requests().iter().any(|request| request.target == "/health")).then_some(())
            });
            drop(gateway);
        }
    }
}
