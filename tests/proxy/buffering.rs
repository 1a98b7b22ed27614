//! Bodies that are awaited before an endpoint is taken, and a timeout that begins with the end of the request.

use crate::support::gateway::behind_endpoints;
use crate::support::{
    Driver, Gateway, Upstream, assert_same_bytes, behind, eventually, first_then, noise, on_both_drivers,
};
use std::time::{Duration, Instant};

const PING: &str = "[[route]]\nname = \"ping\"\nmatch = { path = \"/ping\" }\nrespond = { body = \"pong\" }\n";

fn event(gateway: &Gateway, event: &str) -> f64 {
    gateway.metric("ringgate_traffic_events_total", &[("route", "all"), ("event", event)])
}

/// Time passes; nothing is to happen meanwhile.
fn pass(time: Duration) {
    let began = Instant::now();
    eventually("time passes", || (began.elapsed() >= time).then_some(()));
}

on_both_drivers! {
    fn no_endpoint_is_taken_before_the_body_is_there(driver: Driver) {
        let service = Upstream::always("ok");
        let gateway = Gateway::start(driver, &(PING.to_owned() + &behind(&[&service], "request_buffering = { max = \"1MiB\" }", "")));
        let body = noise(1, 300_000);
        for head in [
            format!("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", body.len()),
            "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned(),
        ] {
            let before = (service.connections(), service.requests().len());
            let is_chunked = head.contains("chunked");
            let framed = |piece: &[u8]| match is_chunked {
                true => [format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat(),
                false => piece.to_vec(),
            };
            let mut client = gateway.client();
            client.send(head);
            client.send(framed(&body[..200_000]));
            for _ in 0..5 {
                assert_eq!(gateway.get("/ping").text(), "pong");
            }
            assert_eq!((service.connections(), service.requests().len()), before);
            client.send(framed(&body[200_000..]));
            if is_chunked {
                client.send("0\r\n\r\n");
            }
            assert_eq!(client.read("POST").text(), "ok");
            assert_same_bytes(&service.requests().last().unwrap().body, &body);
            assert_eq!(client.get("/").text(), "ok", "the connection goes on");
        }
        assert_eq!(event(&gateway, "buffering_skipped"), 0.0);
        gateway.assert_nothing_left();
    }

    fn words_take_no_room_of_bodies(driver: Driver) {
        let service = Upstream::always("ok");
        let gateway = Gateway::start(driver, &behind(&[&service], "request_buffering = { max = \"16MiB\" }\nmax_body = \"16MiB\"", ""));
        // four of them have announced all that a worker may hold, and sent next to nothing
        let mut waiting: Vec<_> = (0..5).map(|_| gateway.client()).collect();
        for client in &mut waiting {
            client.send(format!("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\nbody", 16 << 20));
        }
        eventually("all are there", || (gateway.metric("ringgate_connections", &[("listener", "edge")]) >= 5.0).then_some(()));
        let body = noise(4, 1 << 20);
        assert_eq!(gateway.request("POST", "/", &[], &body).text(), "ok");
        assert_same_bytes(&service.requests()[0].body, &body);
        assert_eq!((event(&gateway, "buffering_skipped"), service.requests().len()), (0.0, 1), "and none of them has an endpoint");
        drop(waiting);
        gateway.assert_nothing_left();
    }

    fn what_was_awaited_can_be_sent_again(driver: Driver) {
        let cutting = Upstream::scripted(|conn| {
            if conn.request().is_some() {
                conn.reset();
            }
        });
        let service = Upstream::always("ok");
        let config = behind_endpoints(&first_then(&cutting, &service), "request_buffering = { max = \"1MiB\" }", "");
        let gateway = Gateway::start(driver, &config);
        let body = noise(2, 500_000);
        let response = gateway.request("PUT", "/", &[], &body);
        assert_eq!((response.status, response.text().as_str()), (200, "ok"));
        assert_same_bytes(&service.requests()[0].body, &body);
        // without it the same is lost
        let config = behind_endpoints(&first_then(&cutting, &service), "", "");
        let gateway = Gateway::start(driver, &config);
        assert_eq!(gateway.request("PUT", "/", &[], &body).status, 502);
    }

    fn a_larger_body_goes_on_as_it_comes(driver: Driver) {
        let service = Upstream::always("ok");
        let gateway = Gateway::start(driver, &behind(&[&service], "request_buffering = { max = \"10KiB\" }", ""));
        let body = noise(3, 400_000);
        let mut client = gateway.client();
        client.send(format!("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", body.len()));
        eventually("an endpoint is taken", || (service.connections() == 1).then_some(()));
        client.send(&body);
        assert_eq!(client.read("POST").text(), "ok");
        client.send("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
        for piece in body.chunks(20_000) {
            client.send([format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat());
        }
        eventually("it is on its way", || (event(&gateway, "buffering_skipped") == 2.0).then_some(()));
        client.send("0\r\n\r\n");
        assert_eq!(client.read("POST").text(), "ok");
        service.requests().iter().for_each(|request| assert_same_bytes(&request.body, &body));
        drop(client);
        gateway.assert_nothing_left();
    }

    fn a_client_that_waits_to_be_told_is_told(driver: Driver) {
        let service = Upstream::always("ok");
        let gateway = Gateway::start(driver, &behind(&[&service], "request_buffering = {}\nmax_body = \"1KiB\"", ""));
        let mut client = gateway.client();
        client.send("POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n");
        assert_eq!(client.take(25).unwrap(), b"HTTP/1.1 100 Continue\r\n\r\n");
        assert_eq!(service.connections(), 0);
        client.send("hello");
        assert_eq!(client.read("POST").text(), "ok");
        assert_eq!(service.requests()[0].header("expect"), None);
        assert_eq!(client.get("/").text(), "ok");
        // what is malformed or too large is refused, and nobody was asked
        let malformed = "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n";
        let large = "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n401\r\n";
        for (text, status) in [(malformed.to_owned(), 400), (format!("{large}{}", "x".repeat(0x401)), 413)] {
            let mut client = gateway.client();
            client.send(text);
            assert_eq!(client.read("POST").status, status);
        }
        assert_eq!(service.requests().len(), 2);
    }

    fn a_timeout_may_begin_with_the_end_of_the_request(driver: Driver) {
        let service = Upstream::answering(|request, conn| match request.target.as_str() {
            "/hang" => conn.wait_for_close(),
            _ => conn.reply(200, "ok"),
        });
        for (from, buffering, status) in [
            ("request_end", "", 200),
            ("request_end", "request_buffering = {}", 200),
            ("request_start", "request_buffering = {}", 408),
            ("request_start", "", 408),
        ] {
            let route = format!("timeout = \"300ms\"\ntimeout_from = \"{from}\"\n{buffering}");
            let gateway = Gateway::start(driver, &behind(&[&service], &route, ""));
            let mut client = gateway.client();
            client.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhello");
            pass(Duration::from_millis(500));
            // who was refused need not take it
            let _ = client.try_send("hello");
            assert_eq!(client.read("POST").status, status, "{from} {buffering}");
            let began = Instant::now();
            gateway.request("POST", "/hang", &[], b"hello").assert_rejected(504, "upstream_timeout");
            assert!(began.elapsed() < Duration::from_secs(30), "{from} {buffering}");
        }
    }

    fn an_upload_that_stops_is_still_a_client_s_fault(driver: Driver) {
        let service = Upstream::always("ok");
        for buffering in ["", "request_buffering = {}"] {
            let route = format!("timeout_from = \"request_end\"\nbody_timeout = \"200ms\"\n{buffering}");
            let gateway = Gateway::start(driver, &behind(&[&service], &route, ""));
            let mut client = gateway.client();
            client.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhello");
            client.read("POST").assert_rejected(408, "request_timeout");
            assert_eq!(gateway.metric("ringgate_endpoint_ejections_total", &[]), 0.0);
            drop(client);
            gateway.assert_nothing_left();
        }
    }
}
