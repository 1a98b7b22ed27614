//! How long connections live and how many a client may have: by number, by age, by what the other side says, by pace.

use crate::support::{Client, Driver, Gateway, Setup, Upstream, behind, eventually, noise, on_both_drivers};
use std::io::Write;
use std::time::{Duration, Instant};

/// Responses in each framing, as far as they come.
const BEGINNINGS: [&str; 3] = [
    "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n",
    "HTTP/1.1 200 OK\r\n\r\nhell",
];

fn start(driver: Driver, listener: &str, upstream: &Upstream) -> Gateway {
    let config = behind(&[upstream], "", "");
    Gateway::start_with(driver, &Setup { listener, config: &config, workers: 2, ..Setup::default() })
}

on_both_drivers! {
    fn a_client_has_at_most_so_many_connections(driver: Driver) {
        let upstream = Upstream::always("ok");
        let gateway = start(driver, "max_connections_per_client = 3", &upstream);
        let mut clients: Vec<Client> = (0..3).map(|_| gateway.client()).collect();
        for client in &mut clients {
            assert_eq!(client.get("/").status, 200);
        }
        for _ in 0..4 {
            gateway.client().assert_closed();
        }
        let mut other = Client::connect_from("127.0.0.2", gateway.address("edge"));
        assert_eq!(other.get("/").status, 200, "another client has its own");
        assert_eq!(clients[0].get("/").status, 200, "those that were there stay");
        let labels = [("listener", "edge"), ("reason", "max_connections_per_client")];
        eventually("refusals are counted", || {
            (gateway.metric("ringgate_connections_refused_total", &labels) == 4.0).then_some(())
        });
        let accepted = gateway.metric("ringgate_connections_accepted_total", &[("listener", "edge")]);
        assert_eq!(accepted, 3.0 + 4.0 + 1.0, "those included that were refused");
        clients.pop();
        eventually("there is room again", || {
            let again = Client::try_connect(gateway.address("edge")).and_then(|mut client| client.try_get("/"));
            again.is_ok_and(|response| response.status == 200).then_some(())
        });
    }

    fn the_last_request_of_a_connection_says_so(driver: Driver) {
        let upstream = Upstream::always("ok");
        let gateway = start(driver, "max_requests_per_connection = 3", &upstream);
        let mut client = gateway.client();
        let said: Vec<_> = (0..3).map(|_| client.get("/").header("connection").map(str::to_owned)).collect();
        assert_eq!(said, [None, None, Some("close".to_owned())]);
        client.assert_closed();
        let mut pipelined = gateway.client();
        pipelined.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n".repeat(5));
        for close in [None, None, Some("close")] {
            assert_eq!(pipelined.read("GET").header("connection"), close);
        }
        pipelined.assert_closed();
        assert_eq!(upstream.requests().len(), 6, "what came behind the last one is not served");
    }

    fn the_gateway_s_own_answers_count_too(driver: Driver) {
        let route = "[[route]]\nname = \"one\"\nmatch = { path = \"/*\" }\nrespond = { status = 200, body = \"1\" }\n";
        let setup = Setup { listener: "max_requests_per_connection = 2", config: route, ..Setup::default() };
        let gateway = Gateway::start_with(driver, &setup);
        let mut client = gateway.client();
        assert_eq!(client.get("/").header("connection"), None);
        assert_eq!(client.get("/").header("connection"), Some("close"));
        client.assert_closed();
    }

    fn an_old_connection_ends_with_its_next_response(driver: Driver) {
        let upstream = Upstream::always("ok");
        let gateway = start(driver, "max_connection_age = \"300ms\"", &upstream);
        let mut client = gateway.client();
        let began = Instant::now();
        let requests = std::cell::Cell::new(0);
        eventually("a response says that it is the last", || {
            requests.set(requests.get() + 1);
            (client.get("/").header("connection") == Some("close")).then_some(())
        });
        assert!(began.elapsed() >= Duration::from_millis(250), "too soon: {:?}", began.elapsed());
        assert!(requests.get() > 1, "a young connection is kept");
        client.assert_closed();
    }

    fn a_body_that_trickles_is_refused(driver: Driver) {
        let upstream = Upstream::always("ok");
        let gateway = start(driver, "body_timeout = \"300ms\"\nmin_body_rate = \"1MiB/s\"", &upstream);
        let mut client = gateway.client();
        client.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n");
        // a byte now and then keeps body_timeout away
        client.limit(Duration::from_millis(20));
        let response = eventually("the upload is refused", || {
            let _ = client.try_send("x");
            match client.try_read("POST") {
                Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => None,
                read => Some(read.unwrap()),
            }
        });
        response.assert_rejected(408, "request_timeout");
    }

    fn a_body_that_comes_fast_enough_is_not_refused_for_a_slow_service(driver: Driver) {
        let upstream = Upstream::scripted(|conn| {
            while let Some(mut head) = conn.head() {
                // the service takes its time while the gateway holds the client back
                let until = Instant::now() + Duration::from_millis(600);
                while let Some(left) = until.checked_duration_since(Instant::now()) {
                    std::thread::park_timeout(left);
                }
                let Some(body) = conn.body(&head) else { return };
                head.body = body;
                conn.reply(200, &head.body.len().to_string());
            }
        });
        let gateway = start(driver, "body_timeout = \"300ms\"\nmin_body_rate = \"1MiB/s\"", &upstream);
        let body = noise(9, 12 << 20);
        assert_eq!(gateway.request("POST", "/", &[], &body).text(), body.len().to_string());
    }

    fn a_client_that_stops_reading_is_cut(driver: Driver) {
        let size = 32 << 20;
        let upstream = Upstream::answering(move |_, conn| {
            conn.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n"));
            let piece = noise(1, 1 << 20);
            for _ in 0..size >> 20 {
                if !conn.send(&piece) {
                    return;
                }
            }
        });
        let gateway = start(driver, "body_timeout = \"300ms\"", &upstream);
        let client = gateway.client();
        client.stream().set_small_buffers();
        client.stream().write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        eventually("the gateway gives up", || {
            (gateway.metric("ringgate_rejected_total", &[("route", "all"), ("reason", "client_write_timeout")]) == 1.0).then_some(())
        });
        let mut client = client;
        assert!(client.try_read("GET").is_err(), "never a fake end");
    }

    fn the_time_that_an_endpoint_keeps_its_connection_is_learned(driver: Driver) {
        for (keep_alive, connections) in [("timeout=1", 3), ("max=5, Timeout=60", 1), ("timeout=x", 1)] {
            let upstream = Upstream::answering(move |_, conn| {
                conn.send(format!("HTTP/1.1 200 OK\r\nKeep-Alive: {keep_alive}\r\nContent-Length: 2\r\n\r\nok"));
            });
            let gateway = Gateway::start(driver, &behind(&[&upstream], "", ""));
            let mut client = gateway.client();
            for _ in 0..3 {
                let response = client.get("/");
                assert_eq!((response.text().as_str(), response.header("keep-alive")), ("ok", None));
            }
            assert_eq!(upstream.connections(), connections, "{keep_alive}");
        }
    }

    fn a_client_that_leaves_within_a_response_frees_its_place(driver: Driver) {
        let upstream = Upstream::scripted(|conn| {
            let Some(request) = conn.request() else { return };
            conn.send(BEGINNINGS[request.target[1..].parse::<usize>().expect("a number")]);
            conn.wait_for_close();
        });
        let config = behind(&[&upstream], "", "");
        let setup = Setup { listener: "body_timeout = \"600s\"", config: &config, ..Setup::default() };
        let gateway = Gateway::start_with(driver, &setup);
        for reset in [false, true] {
            for (response, bytes) in BEGINNINGS.iter().enumerate() {
                let mut client = gateway.client();
                client.send(format!("GET /{response} HTTP/1.1\r\nHost: x\r\n\r\n"));
                assert_eq!(client.read_head().unwrap().0, 200, "{bytes}");
                if reset {
                    client.stream().reset_on_close();
                }
            }
        }
        gateway.assert_nothing_left();
    }

    fn heads_that_come_in_pieces_from_thousands_are_all_understood(driver: Driver) {
        // more than may wait with a buffer
        const CLIENTS: usize = 1_300;
        let config = "[[route]]\nname = \"all\"\nmatch = { path = \"/*\" }\nrespond = { status = 200, body = \"ok\" }\n";
        let setup = Setup { workers: 1, listener: "header_timeout = \"60s\"", config, ..Setup::default() };
        let gateway = Gateway::start_with(driver, &setup);
        let mut clients: Vec<Client> = (0..CLIENTS).map(|_| gateway.client()).collect();
        for piece in ["GET / HT", "TP/1.1\r\nHost: x\r\nX-A", "nything: value\r\n\r", "\n"] {
            clients.iter_mut().for_each(|client| client.send(piece));
        }
        for client in &mut clients {
            assert_eq!(client.read("GET").text(), "ok");
            client.send("GET / HTTP/1.1\r\nHo");
        }
        clients.iter_mut().for_each(|client| client.send("st: x\r\n\r\n"));
        clients.iter_mut().for_each(|client| assert_eq!(client.read("GET").text(), "ok"));
    }

    fn a_head_that_is_late_in_a_crowd_is_told_so(driver: Driver) {
        const CLIENTS: usize = 1_300;
        let config = "[[route]]\nname = \"all\"\nmatch = { path = \"/*\" }\nrespond = { status = 200, body = \"ok\" }\n";
        let setup = Setup { workers: 1, listener: "header_timeout = \"3s\"", config, ..Setup::default() };
        let gateway = Gateway::start_with(driver, &setup);
        let mut clients: Vec<Client> = (0..CLIENTS).map(|_| gateway.client()).collect();
        clients.iter_mut().for_each(|client| client.send("GET / HTTP/1.1\r\nHost: x\r\n"));
        for client in &mut clients {
            client.read("GET").assert_rejected(408, "request_timeout");
        }
        gateway.assert_nothing_left();
    }
}
