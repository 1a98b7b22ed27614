//! What is tried again and what is not: never twice what may have been done already, unless it is safe to do twice.

use crate::support::{
    Driver, Gate, Gateway, Upstream, assert_same_bytes, behind, behind_endpoints, first_then, noise, on_both_drivers,
};
use std::sync::Arc;

/// Failures shall be met by retries alone, and enough of them.
const NO_EJECTION: &str = "outlier = { enabled = false }\nretry_budget = { ratio = 1.0, min_per_second = 1000 }";

/// Reads a whole request, then breaks the connection.
fn resetting() -> Upstream {
    Upstream::scripted(|conn| {
        conn.request();
        conn.reset();
    })
}

/// Answers every request with this status.
fn status(status: u16) -> Upstream {
    Upstream::answering(move |_, conn| conn.reply(status, "from the service"))
}

/// `first` gets every first attempt, `second` the retries.
fn two(driver: Driver, first: &Upstream, second: &Upstream, route: &str) -> Gateway {
    Gateway::start(driver, &behind_endpoints(&first_then(first, second), route, NO_EJECTION))
}

on_both_drivers! {
    fn any_method_goes_on_when_nothing_was_sent_and_that_is_no_retry(driver: Driver) {
        let (mut refusing, second) = (Upstream::always("never"), Upstream::always("second"));
        refusing.stop();
        let gateway = two(driver, &refusing, &second, "");
        let body = noise(3, 300_000);
        for method in ["GET", "POST", "PATCH", "PUT", "DELETE"] {
            assert_eq!(gateway.request(method, "/", &[], &body).text(), "second", "{method}");
        }
        for request in second.requests() {
            assert_same_bytes(&request.body, &body);
        }
        assert_eq!(gateway.metric("ringgate_failovers_total", &[("upstream", "svc")]), 5.0);
        assert_eq!(gateway.metric("ringgate_retries_total", &[("upstream", "svc")]), 0.0);
    }

    fn a_post_is_not_sent_twice(driver: Driver) {
        let (first, second) = (resetting(), Upstream::always("second"));
        let gateway = two(driver, &first, &second, "");
        for method in ["POST", "PATCH"] {
            gateway.request(method, "/", &[], b"pay once").assert_rejected(502, "upstream_reset");
        }
        assert_eq!((first.requests().len(), second.requests().len()), (2, 0));
    }

    fn idempotent_methods_are_sent_again_with_their_body(driver: Driver) {
        let (first, second) = (resetting(), Upstream::always("second"));
        let gateway = two(driver, &first, &second, "");
        let body = noise(4, 64 << 10);
        for method in ["GET", "PUT", "DELETE", "OPTIONS"] {
            assert_eq!(gateway.request(method, "/", &[], &body).text(), "second", "{method}");
        }
        assert_eq!((first.requests().len(), second.requests().len()), (4, 4));
        for request in second.requests() {
            assert_same_bytes(&request.body, &body);
        }
    }

    fn a_chunked_body_is_replayed_too(driver: Driver) {
        let (first, second) = (resetting(), Upstream::always("second"));
        let gateway = two(driver, &first, &second, "");
        let mut client = gateway.client();
        client.send("PUT / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n");
        assert_eq!(client.read("PUT").text(), "second");
        assert_eq!(second.requests()[0].body, b"hello world");
    }

    fn a_body_that_was_not_kept_is_not_sent_again(driver: Driver) {
        let (first, second) = (resetting(), Upstream::always("second"));
        let gateway = two(driver, &first, &second, "");
        gateway.request("PUT", "/", &[], &noise(5, 300_000)).assert_rejected(502, "upstream_reset");
        assert_eq!((first.requests().len(), second.requests().len()), (1, 0));
    }

    fn gateway_errors_are_retried_and_other_answers_are_not(driver: Driver) {
        for (answer, retried) in [(502, true), (503, true), (504, true), (500, false), (404, false), (429, false)] {
            let (first, second) = (status(answer), Upstream::always("second"));
            let gateway = two(driver, &first, &second, "");
            let response = gateway.get("/");
            let expected = if retried { (200, "second") } else { (answer, "from the service") };
            assert_eq!((response.status, response.text().as_str()), expected);
            let post = gateway.request("POST", "/", &[], b"x");
            assert_eq!((post.status, post.text().as_str()), (answer, "from the service"), "a POST is not sent twice");
        }
    }

    fn the_operator_may_allow_what_is_not_idempotent(driver: Driver) {
        let (first, second) = (status(503), Upstream::always("second"));
        let gateway = two(driver, &first, &second, "[route.retry]\nnon_idempotent = true");
        assert_eq!(gateway.request("POST", "/", &[], b"twice is fine").text(), "second");
        assert_eq!(second.requests()[0].body, b"twice is fine");
    }

    fn the_list_of_reasons_is_obeyed(driver: Driver) {
        let (first, second) = (status(503), Upstream::always("second"));
        let gateway = two(driver, &first, &second, "[route.retry]\non = [\"connect\", \"500\"]");
        assert_eq!(gateway.get("/").status, 503);
        assert!(second.requests().is_empty());
    }

    fn when_every_attempt_fails_the_last_answer_is_passed_on(driver: Driver) {
        let services = [status(503), status(503), status(503), status(503)];
        let gateway = Gateway::start(driver, &behind(&services.each_ref(), "[route.retry]\nattempts = 2", NO_EJECTION));
        let response = gateway.get("/");
        assert_eq!((response.status, response.text().as_str()), (503, "from the service"));
        let asked: Vec<_> = services.iter().map(|service| service.requests().len()).collect();
        assert_eq!((asked.iter().sum::<usize>(), asked.iter().max()), (3, Some(&1)), "three attempts at three services");
    }

    fn the_budget_bounds_retries(driver: Driver) {
        let (first, second) = (status(503), status(503));
        let frugal = "outlier = { enabled = false }\nretry_budget = { ratio = 0.1, min_per_second = 0 }";
        let gateway = Gateway::start(driver, &behind_endpoints(&first_then(&first, &second), "", frugal));
        let mut client = gateway.client();
        for _ in 0..100 {
            assert_eq!(client.get("/").status, 503);
        }
        let retries = first.requests().len() + second.requests().len() - 100;
        assert!(retries <= 10, "{retries} retries for 100 requests at a ratio of 0.1");
        assert!(gateway.metric("ringgate_retry_budget_exhausted_total", &[("upstream", "svc")]) >= 1.0);
    }

    fn a_pooled_connection_that_was_closed_costs_no_post(driver: Driver) {
        let closed = Arc::new(Gate::default());
        let signal = Arc::clone(&closed);
        let upstream = Upstream::scripted(move |conn| {
            conn.request();
            conn.reply(200, "ok");
            if conn.number == 0 {
                conn.stream().cut();
                signal.open();
            } else {
                while conn.request().is_some() {
                    conn.reply(200, "ok");
                }
            }
        });
        let gateway = Gateway::start(driver, &behind(&[&upstream], "", NO_EJECTION));
        let mut client = gateway.client();
        assert_eq!(client.request("POST", "/", &[], b"one").text(), "ok");
        closed.wait();
        assert_eq!(client.request("POST", "/", &[], b"two").text(), "ok");
        let bodies: Vec<_> = upstream.requests().into_iter().map(|request| request.body).collect();
        assert_eq!(bodies, [b"one", b"two"]);
    }
}
