//! What stands between a request and its response: expectations, interim responses, bodies that nobody wants, questions to the
//! gateway itself.

use crate::support::{
    Client, Driver, Gate, Gateway, Setup, Upstream, behind, behind_endpoints, eventually, first_then, noise,
    on_both_drivers,
};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A POST of `length` bytes that waits to be told.
fn expecting(length: usize) -> String {
    format!("POST /big HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\nExpect: 100-continue\r\n\r\n")
}

/// No retries, and nobody is ejected.
const ONE_TRY: &str = "[route.retry]\nattempts = 0";

/// That nothing comes for a moment.
#[track_caller]
fn assert_silent(client: &mut Client) {
    client.limit(Duration::from_millis(150));
    let error = client.take(1).expect_err("nothing is to come yet");
    assert!(matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut), "{error}");
    client.limit(crate::support::PATIENCE);
}

on_both_drivers! {
    fn the_service_says_when_a_withheld_body_may_come(driver: Driver) {
        let (asked, gate) = (Arc::new(Gate::default()), Arc::new(Gate::default()));
        let (told, waiting) = (Arc::clone(&asked), Arc::clone(&gate));
        let upstream = Upstream::scripted(move |conn| {
            while let Some(head) = conn.head() {
                if head.header("expect").is_some() {
                    told.open();
                    waiting.wait();
                    conn.send("HTTP/1.1 100 Continue\r\n\r\n");
                }
                let Some(body) = conn.body(&head) else { return };
                conn.reply(200, &body.len().to_string());
            }
        });
        let gateway = Gateway::start(driver, &behind(&[&upstream], "", ""));
        let mut client = gateway.client();
        client.send(expecting(100_000));
        asked.wait();
        assert_eq!(upstream.requests()[0].header("expect"), Some("100-continue"));
        assert_silent(&mut client);
        gate.open();
        assert_eq!(client.read("POST").status, 100);
        client.send(noise(1, 100_000));
        assert_eq!(client.read("POST").text(), "100000");
        assert_eq!(client.get("/").text(), "0");
        assert_eq!(upstream.connections(), 1);
    }

    fn a_final_answer_to_an_expectation_is_passed_on_and_the_body_never_asked_for(driver: Driver) {
        let upstream = Upstream::scripted(|conn| {
            conn.head();
            conn.reply(403, "no");
            conn.wait_for_close();
        });
        let gateway = Gateway::start(driver, &behind(&[&upstream], "", ""));
        let mut client = gateway.client();
        client.send(expecting(10));
        let response = client.read("POST");
        assert_eq!((response.status, response.text().as_str(), response.header("connection")), (403, "no", Some("close")));
        client.stream().end();
        client.assert_closed();
    }

    fn a_service_that_ignores_the_expectation_is_not_waited_for(driver: Driver) {
        let upstream = Upstream::scripted(|conn| {
            while let Some(request) = conn.request() {
                conn.reply(200, &String::from_utf8_lossy(&request.body));
            }
        });
        let gateway = Gateway::start(driver, &behind(&[&upstream], "", ""));
        let mut client = gateway.client();
        for body in ["first", "other"] {
            let sent = Instant::now();
            client.send(expecting(5));
            assert_eq!(client.read("POST").status, 100);
            assert!(sent.elapsed() >= Duration::from_millis(900), "{:?}", sent.elapsed());
            client.send(body);
            assert_eq!(client.read("POST").text(), body);
        }
    }

    fn a_body_that_is_sent_without_waiting_is_taken(driver: Driver) {
        let upstream = Upstream::answering(|request, conn| conn.reply(200, &request.body.len().to_string()));
        let gateway = Gateway::start(driver, &behind(&[&upstream], "", ""));
        let mut client = gateway.client();
        client.send(expecting(5) + "abcde");
        let sent = Instant::now();
        assert_eq!(client.read("POST").text(), "5", "no 100 is owed to a client that did not wait (RFC 9110 10.1.1)");
        assert!(sent.elapsed() < Duration::from_millis(900));
        assert_eq!(upstream.requests()[0].header("expect"), None);
    }

    fn a_refused_expectation_is_retried_elsewhere_before_anybody_is_told(driver: Driver) {
        let refusing = Upstream::scripted(|conn| {
            conn.head();
            conn.reply(503, "not now");
            conn.wait_for_close();
        });
        let taking = Upstream::scripted(|conn| {
            let Some(head) = conn.head() else { return };
            conn.send("HTTP/1.1 100 Continue\r\n\r\n");
            let Some(body) = conn.body(&head) else { return };
            conn.reply(200, &String::from_utf8_lossy(&body));
        });
        let gateway = Gateway::start(driver, &behind_endpoints(&first_then(&refusing, &taking), "", ""));
        let mut client = gateway.client();
        client.send(expecting(4).replace("POST", "PUT"));
        assert_eq!(client.read("PUT").status, 100);
        client.send("body");
        assert_eq!(client.read("PUT").text(), "body");
        assert_eq!((refusing.connections(), taking.connections()), (1, 1));
    }

    fn a_retry_after_the_body_was_told_to_come_sends_it_again(driver: Driver) {
        let failing = Upstream::scripted(|conn| {
            let Some(head) = conn.head() else { return };
            conn.send("HTTP/1.1 100 Continue\r\n\r\n");
            conn.body(&head);
            conn.reset();
        });
        let taking = Upstream::answering(|request, conn| conn.reply(200, &String::from_utf8_lossy(&request.body)));
        let gateway = Gateway::start(driver, &behind_endpoints(&first_then(&failing, &taking), "", ""));
        let mut client = gateway.client();
        client.send(expecting(4).replace("POST", "PUT"));
        assert_eq!(client.read("PUT").status, 100);
        client.send("body");
        assert_eq!(client.read("PUT").text(), "body");
    }

    fn hints_are_passed_on_as_they_come(driver: Driver) {
        let gate = Arc::new(Gate::default());
        let waiting = Arc::clone(&gate);
        let upstream = Upstream::answering(move |_, conn| {
            conn.send("HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\nConnection: x\r\nX: hop\r\n\r\n");
            waiting.wait();
            conn.send("HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        });
        let gateway = Gateway::start(driver, &behind(&[&upstream], "timeout = \"600s\"", ""));
        let mut client = gateway.client();
        client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        let hints = client.read("GET");
        assert_eq!((hints.status, hints.header("link"), hints.header("x")), (103, Some("</a.css>; rel=preload"), None));
        gate.open();
        assert_eq!(client.read("GET").status, 102);
        assert_eq!(client.read("GET").text(), "ok");
        assert_eq!(client.request("HEAD", "/", &[], b"").status, 103);
        assert_eq!((client.read("HEAD").status, client.read("HEAD").status), (102, 200));
        assert_eq!(upstream.connections(), 1);
    }

    fn an_http_1_0_client_gets_no_interim_response(driver: Driver) {
        let upstream = Upstream::answering(|_, conn| {
            conn.send("HTTP/1.1 103 Early Hints\r\nLink: <a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        });
        let gateway = Gateway::start(driver, &behind(&[&upstream], "", ""));
        let mut client = gateway.client();
        client.send("GET / HTTP/1.0\r\n\r\n");
        assert_eq!(client.read("GET").text(), "ok");
    }

    fn hints_while_the_body_goes_up_do_not_stop_it(driver: Driver) {
        let hinted = Arc::new(Gate::default());
        let told = Arc::clone(&hinted);
        let upstream = Upstream::scripted(move |conn| {
            while let Some(head) = conn.head() {
                conn.send("HTTP/1.1 103 Early Hints\r\nLink: <a>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n");
                told.open();
                let Some(body) = conn.body(&head) else { return };
                conn.reply(200, &body.len().to_string());
            }
        });
        let gateway = Gateway::start(driver, &behind(&[&upstream], "", ""));
        for size in [1_000, 500_000] {
            let mut client = gateway.client();
            client.send(format!("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n"));
            hinted.wait();
            assert_eq!(client.read("POST").status, 103);
            client.send(noise(2, size));
            assert_eq!(client.read("POST").text(), size.to_string());
        }
    }

    fn a_flood_of_interim_responses_is_cut_off(driver: Driver) {
        let upstream = Upstream::scripted(|conn| {
            conn.request();
            while conn.send("HTTP/1.1 103 Early Hints\r\nLink: <a>\r\n\r\n") {}
        });
        let gateway = Gateway::start(driver, &behind(&[&upstream], ONE_TRY, ""));
        let mut client = gateway.client();
        client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        let (mut hints, mut response) = (0, client.read("GET"));
        while response.status == 103 {
            hints += 1;
            response = client.read("GET");
        }
        response.assert_rejected(502, "upstream_protocol_error");
        assert!(hints <= 8, "{hints}");
    }

    fn a_malformed_interim_response_is_a_bad_gateway(driver: Driver) {
        let upstream = Upstream::scripted(|conn| {
            conn.request();
            conn.send("HTTP/1.1 103 Early Hints\r\nNo colon\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
            conn.wait_for_close();
        });
        let gateway = Gateway::start(driver, &behind(&[&upstream], ONE_TRY, ""));
        gateway.get("/").assert_rejected(502, "upstream_protocol_error");
    }

    fn a_little_body_that_nobody_wants_is_skipped_and_the_connection_kept(driver: Driver) {
        let upstream = Upstream::answering(|request, conn| conn.reply(200, &request.target));
        let config = behind(&[&upstream], "", "").replace("\"/*\"", "\"/ok/*\"");
        let gateway = Gateway::start(driver, &config);
        let mut client = gateway.client();
        client.send("POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 60000\r\n\r\n");
        let refused = client.read("POST");
        refused.assert_rejected(404, "no_route");
        assert_eq!(refused.header("connection"), None);
        // the body comes only after the response, and the next request with it
        client.send([noise(3, 60_000), b"GET /ok/next HTTP/1.1\r\nHost: x\r\n\r\n".to_vec()].concat());
        assert_eq!(client.read("GET").text(), "/ok/next");
        client.send("POST /nowhere HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n");
        client.read("POST").assert_rejected(404, "no_route");
        assert_eq!(client.get("/ok/last").text(), "/ok/last");
    }

    fn a_large_or_malformed_body_that_nobody_wants_ends_the_connection(driver: Driver) {
        let upstream = Upstream::always("ok");
        let config = behind(&[&upstream], "", "").replace("\"/*\"", "\"/ok/*\"");
        let gateway = Gateway::start(driver, &config);
        let mut client = gateway.client();
        client.send("POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 70000\r\n\r\n");
        let refused = client.read("POST");
        assert_eq!((refused.status, refused.header("connection")), (404, Some("close")));
        client.stream().end();
        client.assert_closed();
        for body in ["zz\r\n".to_owned(), "1\r\na\r\n".repeat(20_000)] {
            let mut client = gateway.client();
            client.send("POST /nowhere HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
            let refused = client.read("POST");
            assert_eq!((refused.status, refused.header("connection")), (404, Some("close")), "nobody knows how large it is");
            let _ = client.try_send(body);
            // what looks like a request behind it is none
            let _ = client.try_send("GET /ok/smuggled HTTP/1.1\r\nHost: x\r\n\r\n");
            client.assert_closed();
        }
        assert!(upstream.requests().is_empty());
    }

    fn a_refusal_does_not_wait_for_a_body_that_is_withheld(driver: Driver) {
        let upstream = Upstream::always("ok");
        let config = behind(&[&upstream], "", "").replace("\"/*\"", "\"/ok/*\"");
        let gateway = Gateway::start(driver, &config);
        let mut client = gateway.client();
        client.send(expecting(5));
        let refused = client.read("POST");
        refused.assert_rejected(404, "no_route");
        assert_eq!(refused.header("connection"), Some("close"));
    }

    fn an_early_answer_keeps_the_client_s_connection_when_little_is_to_come(driver: Driver) {
        let upstream = Upstream::scripted(|conn| {
            while let Some(head) = conn.head() {
                if head.method != "GET" {
                    conn.reply(401, "who?");
                    return conn.wait_for_close();
                }
                conn.reply(200, "next");
            }
        });
        let gateway = Gateway::start(driver, &behind(&[&upstream], "", ""));
        for (framing, rest) in [
            ("Content-Length: 8\r\n\r\n1234", "5678"),
            ("Content-Length: 60000\r\n\r\n1234", &"x".repeat(59_996)),
        ] {
            let mut client = gateway.client();
            client.send(format!("POST / HTTP/1.1\r\nHost: x\r\n{framing}"));
            let early = client.read("POST");
            assert_eq!((early.status, early.text().as_str(), early.header("connection")), (401, "who?", None), "{framing}");
            client.send(rest);
            assert_eq!(client.get("/").text(), "next", "{framing}");
        }
    }

    fn an_early_answer_to_a_large_body_ends_the_connection(driver: Driver) {
        let upstream = Upstream::scripted(|conn| {
            conn.head();
            conn.reply(401, "who?");
            conn.wait_for_close();
        });
        let gateway = Gateway::start(driver, &behind(&[&upstream], "", ""));
        let mut client = gateway.client();
        client.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\nbegin");
        let early = client.read("POST");
        assert_eq!((early.status, early.header("connection")), (401, Some("close")));
        let mut client = gateway.client();
        client.send("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n1234\r\n");
        let early = client.read("POST");
        assert_eq!((early.status, early.header("connection")), (401, Some("close")), "or to one that may be large");
    }

    fn a_service_that_cannot_be_reached_costs_no_connection_of_a_client_that_sends_little(driver: Driver) {
        let mut gone = Upstream::always("never");
        gone.stop();
        let gateway = Gateway::start(driver, &behind(&[&gone], ONE_TRY, ""));
        let mut client = gateway.client();
        for _ in 0..2 {
            client.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n");
            assert!(client.read("POST").status >= 502);
            client.send("body");
        }
    }

    fn a_retry_while_the_client_still_sends_loses_no_byte(driver: Driver) {
        let upstream = Upstream::scripted(|conn| {
            if conn.number == 0 {
                conn.head();
                conn.take(4);
                return conn.reply(503, "not me");
            }
            let Some(request) = conn.request() else { return };
            conn.reply(200, &String::from_utf8_lossy(&request.body));
        });
        let gateway = Gateway::start(driver, &behind(&[&upstream], "", ""));
        let mut client = gateway.client();
        client.send("PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 8\r\n\r\n1234");
        eventually("the second attempt is made", || (upstream.connections() == 2).then_some(()));
        client.send("5678");
        assert_eq!(client.read("PUT").text(), "12345678");
    }

    fn a_client_that_does_not_finish_its_unwanted_body_is_closed(driver: Driver) {
        let upstream = Upstream::always("ok");
        let config = behind(&[&upstream], "", "").replace("\"/*\"", "\"/ok/*\"");
        let setup = Setup { listener: "body_timeout = \"200ms\"", config: &config, ..Setup::default() };
        let gateway = Gateway::start_with(driver, &setup);
        let mut client = gateway.client();
        client.send("POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nab");
        client.read("POST").assert_rejected(404, "no_route");
        client.assert_closed();
    }

    fn options_of_the_server_and_of_the_last_hop_are_the_gateway_s_to_answer(driver: Driver) {
        let upstream = Upstream::always("ok");
        let gateway = Gateway::start(driver, &behind(&[&upstream], "", ""));
        let mut client = gateway.client();
        for (target, headers) in [("*", &[][..]), ("/a", &[("Max-Forwards", "0")][..])] {
            let response = client.request("OPTIONS", target, headers, b"");
            assert_eq!((response.status, response.header("content-length")), (200, Some("0")), "{target}");
            assert!(response.header("allow").is_some_and(|allow| allow.contains("OPTIONS") && !allow.contains("TRACE")));
        }
        assert!(upstream.requests().is_empty());
        assert_eq!(client.request("OPTIONS", "/a", &[("Max-Forwards", "3")], b"").status, 200);
        assert_eq!(upstream.requests()[0].header("max-forwards"), Some("2"));
        // RFC 9110 7.6.2: for other methods it may be ignored
        assert_eq!(client.request("GET", "/a", &[("Max-Forwards", "0")], b"").text(), "ok");
    }

    fn a_service_that_breaks_off_while_a_body_is_withheld_is_not_told_to_have_it(driver: Driver) {
        let breaking = Upstream::scripted(|conn| {
            let Some(head) = conn.head() else { return };
            assert_eq!(head.header("expect"), Some("100-continue"));
            if conn.number % 2 == 1 {
                conn.reset();
            }
        });
        let taking = Upstream::scripted(|conn| {
            while let Some(head) = conn.head() {
                conn.send("HTTP/1.1 100 Continue\r\n\r\n");
                let Some(body) = conn.body(&head) else { return };
                conn.reply(200, &String::from_utf8_lossy(&body));
            }
        });
        let budget = "outlier = { enabled = false }\nretry_budget = { ratio = 1.0, min_per_second = 1000 }";
        let gateway = Gateway::start(driver, &behind_endpoints(&first_then(&breaking, &taking), "", budget));
        for _ in 0..4 {
            let mut client = gateway.client();
            client.send(expecting(4));
            let refused = client.read("POST");
            refused.assert_rejected(502, "upstream_reset");
            assert_eq!(refused.header("connection"), Some("close"), "what comes next could be the body or a request");
            let mut client = gateway.client();
            client.send(expecting(4).replace("POST", "PUT"));
            assert_eq!(client.read("PUT").status, 100);
            client.send("body");
            assert_eq!(client.read("PUT").text(), "body");
        }
        assert!(taking.requests().iter().all(|request| request.method == "PUT"), "a POST is not sent twice");
    }

    fn a_client_that_leaves_while_it_holds_its_body_back_leaves_nothing_behind(driver: Driver) {
        let upstream = Upstream::scripted(|conn| {
            while let Some(head) = conn.head() {
                if head.method == "GET" {
                    conn.reply(200, "next");
                } else {
                    return conn.wait_for_close();
                }
            }
        });
        let gateway = Gateway::start(driver, &behind(&[&upstream], "timeout = \"600s\"", ""));
        for reset in [false, true] {
            let asked = upstream.requests().len();
            let mut client = gateway.client();
            client.send(expecting(4));
            eventually("the service is asked", || (upstream.requests().len() > asked).then_some(()));
            if reset {
                client.stream().reset_on_close();
            }
        }
        gateway.assert_nothing_left();
        assert_eq!(gateway.get("/").text(), "next");
    }
}
