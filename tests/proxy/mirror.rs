//! Mirroring: copies arrive, and nothing that becomes of them changes what a client gets.

use crate::support::{Driver, Gate, Gateway, Upstream, assert_same_bytes, behind, eventually, noise, on_both_drivers};
use std::sync::Arc;

fn mirrored(services: &[&Upstream], mirror: &str, keys: &str) -> String {
    let tls = if crate::support::tls::is_up() {
        format!("tls = {{ ca = \"{}\", name = \"localhost\" }}\n", crate::support::tls::Authority::shared().ca())
    } else {
        String::new()
    };
    behind(services, &format!("mirror = {{ upstream = \"copies\"{keys} }}"), "")
        + &format!("[upstream.copies]\nendpoints = [{{ address = \"{mirror}\" }}]\n{tls}")
}

fn event(gateway: &Gateway, event: &str) -> f64 {
    gateway.metric("ringgate_traffic_events_total", &[("route", "all"), ("event", event)])
}

fn attempts(gateway: &Gateway, upstream: &str, outcome: &str) -> f64 {
    gateway.metric("ringgate_upstream_attempts_total", &[("upstream", upstream), ("outcome", outcome)])
}

on_both_drivers! {
    fn a_copy_is_what_the_service_gets_and_a_mark(driver: Driver) {
        let (service, copies) = (Upstream::always("service"), Upstream::always("mirror"));
        let gateway = Gateway::start(driver, &mirrored(&[&service], copies.address(), ""));
        let mut client = gateway.client();
        let body = noise(3, 40_000);
        let chunked = "PUT /c HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
        // the next one comes when the last copy is answered, so that its connection is there to be used again
        let copied = |many: f64| {
            eventually("a copy is answered", || (attempts(&gateway, "copies", "success") == many).then_some(()));
        };
        assert_eq!(client.request("GET", "/a?b=c", &[("X-A", "1"), ("X-Mirrored", "forged")], b"").text(), "service");
        copied(1.0);
        assert_eq!(client.request("POST", "/b", &[], &body).text(), "service");
        copied(2.0);
        client.send(chunked);
        assert_eq!(client.read("PUT").text(), "service");
        copied(3.0);
        assert_eq!(client.request("HEAD", "/d", &[], b"").status, 200);
        copied(4.0);
        assert_eq!(client.get("/e").text(), "service");
        copied(5.0);
        let (mut sent, mut copied) = (service.requests(), copies.requests());
        assert_eq!((sent.len(), copied.len()), (5, 5));
        sent.sort_by(|a, b| a.target.cmp(&b.target));
        copied.sort_by(|a, b| a.target.cmp(&b.target));
        for (sent, copied) in sent.iter().zip(&copied) {
            assert_eq!((&sent.method, &sent.target), (&copied.method, &copied.target));
            assert_same_bytes(&sent.body, &copied.body);
            let marks: Vec<_> = copied.headers.iter().filter(|(name, _)| name == "x-mirrored").collect();
            assert_eq!(marks.iter().map(|(_, value)| value.as_str()).collect::<Vec<_>>(), ["all"], "and no client's");
            let others = |headers: &[(String, String)]| -> Vec<_> {
                headers.iter().filter(|(name, _)| name != "x-mirrored").cloned().collect()
            };
            assert_eq!(others(&sent.headers), others(&copied.headers));
        }
        assert!(sent.iter().all(|request| request.header("x-mirrored").is_none()));
        assert_eq!((event(&gateway, "mirrored"), event(&gateway, "mirror_failed")), (5.0, 0.0));
        assert!(copies.connections() < 5, "their connections are used again: {}", copies.connections());
        drop(client);
        gateway.assert_nothing_left();
    }

    fn a_mirror_that_fails_is_nobody_s_business(driver: Driver) {
        let service = Upstream::always("ok");
        let garbage = Upstream::answering(|_, conn| {
            conn.send("no response at all\r\n\r\n");
        });
        for mirror in ["127.0.0.1:1", garbage.address()] {
            let gateway = Gateway::start(driver, &mirrored(&[&service], mirror, ""));
            let mut client = gateway.client();
            for _ in 0..20 {
                assert_eq!(client.get("/").text(), "ok");
            }
            eventually("all have failed", || (event(&gateway, "mirror_failed") == 20.0).then_some(()));
            assert_eq!(attempts(&gateway, "svc", "success"), 20.0);
            assert_eq!(gateway.metric("ringgate_endpoint_ejections_total", &[("upstream", "svc")]), 0.0);
            assert_eq!(gateway.metric("ringgate_retries_total", &[("upstream", "svc")]), 0.0);
        }
    }

    fn a_mirror_that_hangs_is_sent_no_more_than_so_many(driver: Driver) {
        let service = Upstream::always("ok");
        let gate = Arc::new(Gate::default());
        let hanging = Upstream::holding("/", &gate);
        let gateway = Gateway::start(driver, &mirrored(&[&service], hanging.address(), ", timeout = \"1h\""));
        let mut client = gateway.client();
        for _ in 0..150 {
            assert_eq!(client.get("/").text(), "ok");
        }
        assert_eq!((event(&gateway, "mirrored"), event(&gateway, "mirror_dropped")), (128.0, 22.0));
        gate.open();
        eventually("they are answered", || (attempts(&gateway, "copies", "success") == 128.0).then_some(()));
        assert_eq!(client.get("/").text(), "ok");
        eventually("there is room again", || (event(&gateway, "mirrored") == 129.0).then_some(()));
        drop(client);
        gateway.assert_nothing_left();
    }

    fn what_is_too_large_or_not_drawn_is_not_mirrored(driver: Driver) {
        let (service, copies) = (Upstream::always("ok"), Upstream::always("mirror"));
        let gateway = Gateway::start(driver, &mirrored(&[&service], copies.address(), ", max_body = \"1KiB\""));
        let mut client = gateway.client();
        for length in [1_025, 200_000, 1_024] {
            assert_eq!(client.request("POST", "/", &[], &noise(1, length)).text(), "ok");
        }
        eventually("the small one arrives", || (copies.requests().len() == 1).then_some(()));
        assert_eq!((event(&gateway, "mirrored"), event(&gateway, "mirror_dropped")), (1.0, 2.0));
        let gateway = Gateway::start(driver, &mirrored(&[&service], copies.address(), ", percent = 0"));
        assert_eq!(gateway.get("/").text(), "ok");
        assert_eq!((event(&gateway, "mirrored"), event(&gateway, "mirror_dropped")), (0.0, 0.0));
    }
}
