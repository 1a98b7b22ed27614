//! `bandwidth` of what clients send, and of tunnels: no faster than its route says, and nobody is blamed for the wait. (Of responses: `traffic`.)

use crate::support::upstream::Conn;
use crate::support::{Driver, Gateway, Setup, Upstream, assert_same_bytes, behind, eventually, noise, on_both_drivers};
use std::io::Write as _;
use std::time::{Duration, Instant};

/// What goes at once before that, and as much on the way.
const AT_ONCE: usize = 2 * 81_920;

/// No sooner than that so many bytes are through, at so many a second.
fn least(bytes: usize, rate: usize) -> Duration {
    Duration::from_secs_f64(bytes.saturating_sub(AT_ONCE) as f64 / rate as f64)
}

fn waits(gateway: &Gateway) -> f64 {
    gateway.metric("ringgate_traffic_events_total", &[("route", "all"), ("event", "bandwidth_wait")])
}

/// Answers with how many bytes have come.
fn counting() -> Upstream {
    Upstream::answering(|request, conn| conn.reply(200, &request.body.len().to_string()))
}

/// Takes up an upgrade, and sends back what comes.
fn echoing() -> Upstream {
    Upstream::scripted(|conn: &mut Conn| {
        if conn.request().is_none() {
            return;
        }
        conn.send("HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\n");
        while let Some(byte) = conn.take(1) {
            let rest = conn.take_all();
            if !conn.send([byte, rest].concat()) {
                return;
            }
        }
    })
}

on_both_drivers! {
    fn uploads_come_no_faster_than_their_bandwidth(driver: Driver) {
        const SIZE: usize = 600_000;
        const RATE: usize = 1 << 20;
        let service = counting();
        let of = |per: &str, more: &str| behind(&[&service], &format!("bandwidth = {{ upload_rate = \"1MiB/s\", burst = \"80KiB\", per = \"{per}\" }}\n{more}"), "");
        let body = noise(1, SIZE);
        // as it comes, and where all of it is awaited; by its length, in chunks, and by a client that waits to be told to send
        for more in ["", "request_buffering = { max = \"1MiB\" }"] {
            let gateway = Gateway::start(driver, &of("connection", more));
            for head in [format!("Content-Length: {SIZE}\r\n"), "Transfer-Encoding: chunked\r\n".to_owned(), format!("Content-Length: {SIZE}\r\nExpect: 100-continue\r\n")] {
                let (mut client, began) = (gateway.client(), Instant::now());
                client.send(format!("POST / HTTP/1.1\r\nHost: x\r\n{head}\r\n"));
                if head.contains("Expect") {
                    assert_eq!(client.read("POST").status, 100, "{more}");
                }
                match head.contains("chunked") {
                    true => client.send([format!("{SIZE:x}\r\n").as_bytes(), &body, b"\r\n0\r\n\r\n"].concat()),
                    false => client.send(&body),
                }
                assert_eq!(client.read("POST").text(), SIZE.to_string());
                assert!(began.elapsed() >= least(SIZE, RATE), "{more} {head}: {:?}", began.elapsed());
            }
            assert!(waits(&gateway) >= 3.0);
            assert_same_bytes(&service.requests()[0].body, &body);
            gateway.assert_nothing_left();
        }
        // small ones count, and responses do not
        let gateway = Gateway::start(driver, &of("connection", ""));
        let (mut client, began) = (gateway.client(), Instant::now());
        (0..15).for_each(|_| assert_eq!(client.request("POST", "/", &[], &body[..40_000]).status, 200));
        assert!(began.elapsed() >= least(15 * 40_000, RATE), "{:?}", began.elapsed());
        drop(client);
        gateway.assert_nothing_left();
    }

    fn uploads_share_a_bandwidth_and_who_leaves_is_not_waited_for(driver: Driver) {
        let service = counting();
        let config = behind(&[&service], "bandwidth = { upload_rate = \"1MiB/s\", burst = \"80KiB\", per = \"route\" }", "");
        let gateway = Gateway::start_with(driver, &Setup { workers: 2, config: &config, ..Setup::default() });
        let (body, began) = (noise(2, 400_000), Instant::now());
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| assert_eq!(gateway.request("POST", "/", &[], &body).text(), "400000"));
            }
        });
        assert!(began.elapsed() >= least(1_200_000, 1 << 20), "{:?}", began.elapsed());
        let mut client = gateway.client();
        client.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5000000\r\n\r\n");
        client.send(&body);
        let before = waits(&gateway);
        eventually("it waits", || (waits(&gateway) >= before.max(1.0)).then_some(()));
        drop(client);
        gateway.assert_nothing_left();
    }

    fn nobody_is_blamed_for_a_slow_bandwidth(driver: Driver) {
        let service = counting();
        // the client is as fast as it may be, and shows more patience than its own
        let route = "bandwidth = { upload_rate = \"64KiB/s\", burst = \"80KiB\" }\nbody_timeout = \"400ms\"\nmin_body_rate = \"1MiB/s\"";
        for (from, size) in [("request_start", 150_000), ("request_end", 150_001)] {
            let route = format!("{route}\ntimeout_from = \"{from}\"");
            let gateway = Gateway::start(driver, &behind(&[&service], &route, ""));
            let began = Instant::now();
            assert_eq!(gateway.request("POST", "/", &[], &noise(3, size)).text(), size.to_string());
            assert!(began.elapsed() >= Duration::from_secs_f64((size - 81_920) as f64 / 65_536.0 - 0.1), "{:?}", began.elapsed());
            assert_eq!(gateway.metric("ringgate_rejected_total", &[]), 0.0);
        }
    }

    fn tunnels_have_a_bandwidth_in_either_direction(driver: Driver) {
        const SIZE: usize = 500_000;
        let service = echoing();
        for bandwidth in ["upload_rate = \"1MiB/s\"", "rate = \"1MiB/s\"", "rate = \"1MiB/s\", upload_rate = \"4MiB/s\""] {
            let gateway = Gateway::start(driver, &behind(&[&service], &format!("bandwidth = {{ {bandwidth}, burst = \"80KiB\" }}"), ""));
            let mut client = gateway.client();
            client.send("GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n");
            assert_eq!(client.read("GET").status, 101);
            let (text, began) = (noise(4, SIZE), Instant::now());
            let back = std::thread::scope(|scope| {
                let (sender, text) = (client.stream_handle(), &text);
                scope.spawn(move || (&*sender).write_all(text).expect("the gateway takes it"));
                client.take(SIZE).unwrap()
            });
            assert_same_bytes(&back, &text);
            assert!(began.elapsed() >= least(SIZE, 1 << 20), "{bandwidth}: {:?}", began.elapsed());
            assert!(waits(&gateway) >= 1.0);
            drop(client);
            gateway.assert_nothing_left();
        }
    }

    fn connections_of_a_unix_socket_share_what_a_client_has_where_one_is_named(driver: Driver) {
        let service = counting();
        let of = |per: &str, rate: &str, listener: &str| {
            let dir = tempfile::tempdir().expect("a folder");
            let listen = format!("unix:{}", dir.path().join("gateway.sock").display());
            let route = format!("bandwidth = {{ upload_rate = \"{rate}\", burst = \"80KiB\", per = \"{per}\" }}");
            let config = behind(&[&service], &route, "");
            (Gateway::start_with(driver, &Setup { listen: &listen, listener, config: &config, ..Setup::default() }), dir)
        };
        let body = noise(5, 300_000);
        // a proxy before it says who it is: three connections, one client
        let (gateway, _dir) = of("client_ip", "1MiB/s", "trusted_proxies = [\"unix\"]");
        let began = Instant::now();
        std::thread::scope(|scope| {
            for _ in 0..3 {
                let named = &[("X-Forwarded-For", "192.0.2.7")];
                scope.spawn(|| assert_eq!(gateway.request("POST", "/", named, &body).text(), "300000"));
            }
        });
        assert!(began.elapsed() >= least(900_000, 1 << 20), "{:?}", began.elapsed());
        gateway.assert_nothing_left();
        // nobody does, and a unix socket has no addresses: each connection is its own, and one that has used up what it has leaves others theirs
        for per in ["client_ip", "connection"] {
            let (gateway, _dir) = of(per, "1KiB/s", "");
            let mut greedy = gateway.client();
            greedy.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5000000\r\n\r\n");
            greedy.send(&body[..150_000]);
            eventually("it waits", || (waits(&gateway) >= 1.0).then_some(()));
            let began = Instant::now();
            assert_eq!(gateway.request("POST", "/", &[], &body[..40_000]).text(), "40000");
            assert!(began.elapsed() < Duration::from_secs(15), "{per}: {:?}, of one bucket it would be 40 s", began.elapsed());
        }
    }
}
