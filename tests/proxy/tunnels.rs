//! Upgraded connections: only when both sides agree, every byte in its place, and an end that is passed on.

use crate::support::upstream::{Conn, Request};
use crate::support::{
    Client, Driver, Gate, Gateway, PATIENCE, Setup, Upstream, assert_same_bytes, behind, eventually, noise,
    on_every_step,
};
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};
use tungstenite::{Message, WebSocket};

const OFFER: &str = "GET /chat HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n";
const ACCEPT: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\n";

/// Takes up every offer and gives the connection to `then`; what is no offer gets its target back.
fn switching(then: impl Fn(&mut Conn) + Send + Sync + 'static) -> Upstream {
    Upstream::scripted(move |conn| {
        while let Some(request) = conn.request() {
            if request.header("upgrade").is_none() {
                conn.reply(200, &request.target);
                continue;
            }
            conn.send(ACCEPT);
            return then(conn);
        }
    })
}

/// Sends back what comes until the other side ends, then ends itself.
fn echo(conn: &mut Conn) {
    while let Some(byte) = conn.take(1) {
        let rest = conn.take_all();
        if !conn.send([byte, rest].concat()) {
            return;
        }
    }
}

/// A client whose connection is a tunnel.
fn open(gateway: &Gateway) -> Client {
    let mut client = gateway.client();
    client.send(OFFER);
    assert_switched(&mut client);
    client
}

#[track_caller]
fn assert_switched(client: &mut Client) {
    let head = client.read("GET");
    assert_eq!((head.status, head.header("upgrade"), head.header("connection")), (101, Some("echo"), Some("upgrade")));
    assert_eq!((head.header("content-length"), head.header("transfer-encoding")), (None, None));
}

fn tunnels(gateway: &Gateway) -> f64 {
    gateway.metric("ringgate_tunnels", &[("listener", "edge")])
}

/// What the upstream got of the hop-by-hop fields.
fn hop(request: &Request) -> (Option<&str>, Option<&str>) {
    (request.header("connection"), request.header("upgrade"))
}

on_every_step! {
    fn a_route_that_answers_itself_changes_no_protocol(driver: Driver) {
        let gateway = Gateway::start(driver, "[[route]]\nmatch = { path = \"/\" }\nrespond = { body = \"own\" }\n[[route]]\nmatch = { path = \"/gone\" }\n\
             respond = { status = 410, body = \"gone\" }\n[[route]]\nmatch = { path = \"/away\" }\nredirect = { to = \"/\", status = 307 }\n");
        let mut client = gateway.client();
        for (path, status, body) in [("/", 200, "own"), ("/gone", 410, "gone"), ("/away", 307, "")] {
            client.send(format!(
                "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                 Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
            ));
            let response = client.read("GET");
            assert_eq!((response.status, response.text().as_str()), (status, body));
            assert_eq!((response.header("upgrade"), response.header("sec-websocket-accept")), (None, None));
        }
        assert_eq!(client.get("/").text(), "own", "the connection goes on in HTTP");
        drop(client);
        gateway.assert_nothing_left();
    }

    fn an_upgrade_that_is_taken_up_becomes_a_tunnel(driver: Driver) {
        let upstream = switching(echo);
        let gateway = Gateway::start(driver, &behind(&[&upstream], "response_headers = { set = { x-route = \"r\" } }", ""));
        let mut client = gateway.client();
        client.send(OFFER);
        let head = client.read("GET");
        assert_eq!((head.status, head.header("x-route"), head.header("date")), (101, Some("r"), None));
        assert_eq!(hop(&upstream.requests()[0]), (Some("upgrade"), Some("echo")));
        for text in ["hello", "GET / HTTP/1.1\r\nHost: x\r\n\r\n", "\0\n\n"] {
            client.send(text);
            assert_eq!(client.take(text.len()).unwrap(), text.as_bytes());
        }
        eventually("it is counted", || (tunnels(&gateway) == 1.0).then_some(()));
        client.stream().end();
        client.assert_closed();
        eventually("the tunnel is over", || (tunnels(&gateway) == 0.0).then_some(()));
        assert_eq!(gateway.metric("ringgate_tunnels_opened_total", &[("listener", "edge")]), 1.0);
        assert_eq!(gateway.metric("ringgate_requests_total", &[("code", "101")]), 1.0);
        assert_eq!(upstream.requests().len(), 1, "what went through the tunnel was no request");
    }

    fn an_upgrade_that_is_not_taken_up_is_a_request_like_any_other(driver: Driver) {
        let upstream = Upstream::answering(|request, conn| conn.reply(200, &request.target));
        let gateway = Gateway::start(driver, &behind(&[&upstream], "", ""));
        let mut client = gateway.client();
        // what is pipelined behind it is the next request, and was nothing before the answer
        client.send(format!("{OFFER}GET /next HTTP/1.1\r\nHost: x\r\n\r\n"));
        let refused = client.read("GET");
        assert_eq!((refused.status, refused.text().as_str(), refused.header("upgrade")), (200, "/chat", None));
        assert_eq!(client.read("GET").text(), "/next");
        assert_eq!(client.get("/third").text(), "/third");
        assert_eq!(upstream.connections(), 1, "the connection was kept");
        assert_eq!(hop(&upstream.requests()[1]), (None, None));
    }

    fn bytes_behind_an_offer_are_the_tunnel_s_and_wait_for_the_101(driver: Driver) {
        let (asked, gate) = (Arc::new(Gate::default()), Arc::new(Gate::default()));
        let (told, waiting) = (Arc::clone(&asked), Arc::clone(&gate));
        let upstream = Upstream::scripted(move |conn| {
            conn.head();
            told.open();
            waiting.wait();
            conn.stream().limit(Duration::from_millis(100)).unwrap();
            assert_eq!(conn.take(1), None, "nothing comes before the 101");
            conn.stream().limit(PATIENCE).unwrap();
            conn.send(ACCEPT);
            echo(conn);
        });
        let gateway = Gateway::start(driver, &behind(&[&upstream], "timeout = \"600s\"", ""));
        let mut client = gateway.client();
        let smuggled = "GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n";
        client.send(format!("{OFFER}{smuggled}"));
        asked.wait();
        assert_eq!(tunnels(&gateway), 0.0);
        gate.open();
        assert_switched(&mut client);
        assert_eq!(client.take(smuggled.len()).unwrap(), smuggled.as_bytes());
        assert_eq!(upstream.requests().len(), 1);
    }

    fn bytes_behind_a_101_go_to_the_client(driver: Driver) {
        let first = noise(3, 50_000);
        let sent = first.clone();
        let upstream = Upstream::scripted(move |conn| {
            conn.head();
            conn.send([ACCEPT.as_bytes(), &sent].concat());
            echo(conn);
        });
        let gateway = Gateway::start(driver, &behind(&[&upstream], "", ""));
        let mut client = open(&gateway);
        assert_same_bytes(&client.take(first.len()).unwrap(), &first);
        client.send("x");
        assert_eq!(client.take(1).unwrap(), b"x");
    }

    fn offers_that_could_smuggle_are_not_passed_on(driver: Driver) {
        let upstream = Upstream::always("plain");
        let gateway = Gateway::start(driver, &behind(&[&upstream], "", ""));
        let offers = [
            "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMA\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket, h2c\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nUpgrade: h2c\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: web socket\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 1\r\n\r\nb",
            "POST / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "GET / HTTP/1.0\r\nHost: x\r\nConnection: Upgrade, keep-alive\r\nUpgrade: websocket\r\n\r\n",
        ];
        let mut client = gateway.client();
        for (i, offer) in offers.iter().enumerate() {
            client.send(offer);
            assert_eq!(client.read("GET").text(), "plain", "{offer}");
            let request = &upstream.requests()[i];
            assert_eq!((hop(request), request.header("http2-settings")), ((None, None), None), "{offer}");
        }
    }

    fn a_101_that_was_not_asked_for_or_does_not_fit_is_a_bad_gateway(driver: Driver) {
        let upstream = Upstream::scripted(|conn| {
            let Some(request) = conn.request() else { return };
            conn.send(match request.target.as_str() {
                "/other" => "HTTP/1.1 101 Go\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n",
                "/bare" => "HTTP/1.1 101 Go\r\n\r\n",
                "/body" => "HTTP/1.1 101 Go\r\nUpgrade: echo\r\nConnection: upgrade\r\nContent-Length: 5\r\n\r\nhello",
                _ => ACCEPT,
            });
            conn.wait_for_close();
        });
        let gateway = Gateway::start(driver, &behind(&[&upstream], "[route.retry]\nattempts = 0", "outlier = { enabled = false }"));
        for path in ["/other", "/bare", "/body"] {
            let mut client = gateway.client();
            client.send(OFFER.replace("/chat", path));
            client.read("GET").assert_rejected(502, "upstream_protocol_error");
            assert_eq!(tunnels(&gateway), 0.0);
        }
        gateway.get("/unasked").assert_rejected(502, "upstream_protocol_error");
    }

    fn the_end_of_one_direction_is_passed_on_and_the_other_goes_on(driver: Driver) {
        let upstream = switching(|conn| {
            if conn.take(2).expect("which way") == b"up" {
                // the client ends first; what it gets afterwards is whole
                conn.wait_for_close();
                conn.send(noise(5, 300_000));
            } else {
                conn.stream().end();
                let received = conn.take(300_000).expect("it goes on");
                assert_same_bytes(&received, &noise(6, 300_000));
            }
        });
        let gateway = Gateway::start(driver, &behind(&[&upstream], "", ""));
        let mut client = open(&gateway);
        client.send("up");
        client.stream().end();
        assert_same_bytes(&client.read_to_end().unwrap(), &noise(5, 300_000));

        let mut client = open(&gateway);
        client.send("dn");
        client.assert_closed();
        client.send(noise(6, 300_000));
        client.stream().end();
        eventually("both are over", || (tunnels(&gateway) == 0.0).then_some(()));
        let errors = gateway.metric("ringgate_rejected_total", &[]);
        assert_eq!(errors, 0.0, "both ended as they should");
    }

    fn a_large_echo_arrives_whole_and_a_client_that_does_not_read_is_waited_for(driver: Driver) {
        let upstream = switching(echo);
        let gateway = Gateway::start(driver, &behind(&[&upstream], "", ""));
        let mut client = open(&gateway);
        let all = noise(7, 32 << 20);
        let before = gateway.resident_bytes();
        std::thread::scope(|scope| {
            let (stream, all) = (client.stream_handle(), &all);
            scope.spawn(move || {
                (&*stream).write_all(all).expect("the gateway takes it");
                stream.end();
            });
            let mut got = client.take(1 << 20).unwrap();
            let grown = gateway.resident_bytes().saturating_sub(before);
            assert!(grown < 8 << 20, "{grown} bytes more while the client does not read");
            got.extend(client.read_to_end().unwrap());
            assert_same_bytes(&got, all);
        });
    }

    fn a_reset_is_passed_on_as_a_reset(driver: Driver) {
        let (ended, seen) = channel();
        let upstream = switching(move |conn| {
            if conn.take(1).expect("which way") == b"r" {
                conn.reset();
            } else {
                let end = conn.stream().read(&mut [0; 1]).map_err(|error| error.kind());
                ended.send(end).expect("somebody wants to know");
            }
        });
        let gateway = Gateway::start(driver, &behind(&[&upstream], "", ""));
        let mut client = open(&gateway);
        client.send("r");
        let error = client.read_to_end().expect_err("the stream broke");
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        let client = {
            let mut client = open(&gateway);
            client.send("w");
            client
        };
        client.stream().reset_on_close();
        drop(client);
        assert_eq!(seen.recv_timeout(PATIENCE).expect("an end"), Err(ErrorKind::ConnectionReset));
        eventually("both are over", || (tunnels(&gateway) == 0.0).then_some(()));
        assert_eq!(gateway.metric("ringgate_rejected_total", &[("reason", "upstream_truncated")]), 1.0);
        assert_eq!(gateway.metric("ringgate_rejected_total", &[("reason", "client_closed")]), 1.0);
    }

    fn an_idle_tunnel_is_closed_and_a_busy_one_outlives_t_max(driver: Driver) {
        let upstream = switching(echo);
        let config = behind(&[&upstream], "timeout = \"200ms\"", "");
        let listener = "tunnel_timeout = \"3s\"\nbody_timeout = \"100ms\"\nidle_timeout = \"100ms\"";
        let gateway = Gateway::start_with(driver, &Setup { listener, config: &config, ..Setup::default() });
        let mut client = open(&gateway);
        let began = Instant::now();
        while began.elapsed() < Duration::from_millis(1500) {
            client.send("x");
            assert_eq!(client.take(1).unwrap(), b"x");
            std::thread::park_timeout(Duration::from_millis(20));
        }
        let idle = Instant::now();
        client.assert_closed();
        assert!(idle.elapsed() >= Duration::from_millis(2500) && idle.elapsed() < PATIENCE / 2, "{:?}", idle.elapsed());
        eventually("it is over", || (tunnels(&gateway) == 0.0).then_some(()));
        assert_eq!(gateway.metric("ringgate_rejected_total", &[("reason", "tunnel_timeout")]), 1.0);
    }

    fn a_route_s_tunnel_timeout_takes_the_place_of_the_listener_s(driver: Driver) {
        let upstream = switching(echo);
        let gateway = Gateway::start(driver, &behind(&[&upstream], "tunnel_timeout = \"300ms\"", ""));
        let mut client = open(&gateway);
        client.send("x");
        assert_eq!(client.take(1).unwrap(), b"x");
        client.assert_closed();
        eventually("it is over", || (tunnels(&gateway) == 0.0).then_some(()));
        assert_eq!(gateway.metric("ringgate_rejected_total", &[("reason", "tunnel_timeout")]), 1.0);
    }

    fn a_tunnel_holds_its_places_and_gives_them_back(driver: Driver) {
        let upstream = switching(echo);
        let config = behind(&[&upstream], "max_concurrent = 1", "max_requests = 1");
        let gateway = Gateway::start(driver, &config);
        for _ in 0..3 {
            let mut client = open(&gateway);
            gateway.get("/other").assert_rejected(503, "concurrency_limited");
            client.stream().end();
            client.assert_closed();
            eventually("the place is free", || (gateway.get("/other").status == 200).then_some(()));
        }
        assert_eq!(gateway.metric("ringgate_endpoint_in_flight", &[]), 0.0);
    }

    fn a_drain_gives_tunnels_its_time_and_then_ends_them(driver: Driver) {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("access.log");
        let upstream = switching(echo);
        let config = format!("[access_log]\npath = \"{}\"\n\n{}", file.display(), behind(&[&upstream], "", ""));
        let mut gateway = Gateway::start_with(driver, &Setup { drain_timeout: "2s", config: &config, ..Setup::default() });
        let mut client = open(&gateway);
        gateway.running().signal("TERM");
        eventually("it drains", || Client::try_connect(gateway.address("edge")).is_err().then_some(()));
        client.send("still here");
        assert_eq!(client.take(10).unwrap(), b"still here");
        client.assert_closed();
        assert_eq!(gateway.running().wait().code(), Some(0));
        let log = std::fs::read_to_string(&file).unwrap();
        let line: serde_json::Value = serde_json::from_str(log.trim_end()).expect("one line");
        assert_eq!((line["status"].as_u64(), line["error"].as_str()), (Some(101), Some("draining")), "{line}");
    }

    fn a_drain_ends_with_the_last_tunnel(driver: Driver) {
        let upstream = switching(echo);
        let config = behind(&[&upstream], "", "");
        let mut gateway = Gateway::start_with(driver, &Setup { drain_timeout: "600s", config: &config, ..Setup::default() });
        let mut client = open(&gateway);
        gateway.running().signal("TERM");
        eventually("it drains", || Client::try_connect(gateway.address("edge")).is_err().then_some(()));
        assert!(gateway.running().ended().is_none(), "a tunnel is open");
        client.stream().end();
        client.assert_closed();
        assert_eq!(gateway.running().wait().code(), Some(0));
    }

    fn the_log_tells_of_a_tunnel_when_it_is_over(driver: Driver) {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("access.log");
        let upstream = switching(echo);
        let config = format!("[access_log]\npath = \"{}\"\n\n{}", file.display(), behind(&[&upstream], "", ""));
        let gateway = Gateway::start(driver, &config);
        let mut client = open(&gateway);
        client.send(noise(8, 10_000));
        client.take(10_000).unwrap();
        client.stream().end();
        client.assert_closed();
        let line = eventually("the line is there", || {
            let text = std::fs::read_to_string(&file).unwrap_or_default();
            text.ends_with('\n').then(|| serde_json::from_str::<serde_json::Value>(text.trim_end()).expect("one line"))
        });
        assert_eq!((line["status"].as_u64(), line["error"].is_null()), (Some(101), true), "{line}");
        for key in ["request_bytes", "response_bytes"] {
            let bytes = line[key].as_u64().unwrap();
            assert!((10_000..11_000).contains(&bytes), "{key} in {line}");
        }
    }

    fn an_offer_is_retried_like_any_request_and_a_tunnel_is_not(driver: Driver) {
        let upstream = Upstream::scripted(|conn| {
            conn.request();
            if conn.number == 0 {
                return conn.reply(503, "not me");
            }
            conn.send(ACCEPT);
            conn.take(1);
        });
        let gateway = Gateway::start(driver, &behind(&[&upstream], "", ""));
        let mut client = open(&gateway);
        assert_eq!(upstream.connections(), 2);
        client.send("x");
        client.assert_closed();
        drop(client);
        eventually("it is over", || (tunnels(&gateway) == 0.0).then_some(()));
        assert_eq!(upstream.connections(), 2);
    }

    fn a_real_websocket_client_and_server_talk_through_it(driver: Driver) {
        let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = server.local_addr().unwrap();
        let serving = std::thread::spawn(move || {
            let (stream, _) = server.accept().expect("the gateway connects");
            let mut socket = tungstenite::accept(stream).expect("a handshake");
            loop {
                match socket.read() {
                    Ok(message @ (Message::Text(_) | Message::Binary(_))) => socket.send(message).expect("the gateway takes it"),
                    Ok(_) => {}
                    Err(error) => return assert!(matches!(error, tungstenite::Error::ConnectionClosed), "{error}"),
                }
            }
        });
        let config = crate::support::behind_endpoints(&format!("{{ address = \"{address}\" }}"), "", "");
        let gateway = Gateway::start(driver, &config);
        let stream = TcpStream::connect(gateway.address("edge")).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let (mut socket, response) = tungstenite::client("ws://ringgate.test/chat", stream).expect("a handshake");
        assert_eq!(response.status(), 101);
        let sizes = [0, 1, 125, 126, 65_535, 65_536, 1 << 20];
        for size in sizes {
            let message = Message::binary(noise(size as u64, size));
            socket.send(message.clone()).unwrap();
            assert!(socket.read().unwrap() == message, "{size} bytes");
        }
        socket.send(Message::text("h\u{e4}")).unwrap();
        assert_eq!(socket.read().unwrap().into_text().unwrap().as_str(), "h\u{e4}");
        socket.close(None).unwrap();
        close(&mut socket);
        serving.join().expect("the server saw a clean end");
    }
}

/// Reads until the closing handshake is over.
fn close(socket: &mut WebSocket<TcpStream>) {
    loop {
        match socket.read() {
            Ok(_) => {}
            Err(tungstenite::Error::ConnectionClosed) => return,
            Err(error) => panic!("{error}"),
        }
    }
}
