//! Somebody else decides (`auth.forward`): what he is asked, what comes of his answers, and that nothing else moves when he has none.

use crate::support::gateway::run_to_end;
use crate::support::upstream::{Conn, Request, keep_a_port};
use crate::support::{Driver, Gate, Gateway, Upstream, behind, eventually, on_both_drivers, tls};
use std::sync::Arc;

/// Lets "good" in, sends "login" elsewhere, refuses everybody else.
fn decide(request: &Request, conn: &mut Conn) {
    match request.header("authorization") {
        Some("good") => conn.send("HTTP/1.1 204 No Content\r\nX-User: ann\r\nX-Other: o\r\nX-Role: a\r\nX-Role: b\r\n\r\n"),
        Some("login") => conn.send(
            "HTTP/1.1 302 Found\r\nLocation: https://login.example/\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nX-Inner: 1\r\nContent-Type: text/x\r\n\
             Transfer-Encoding: chunked\r\n\r\n3\r\nto \r\n5\r\nlogin\r\n0\r\n\r\n",
        ),
        Some("odd") => conn.send("HTTP/1.1 200 OK\r\nX-User: \r\nContent-Length: 0\r\n\r\n"),
        _ => conn.send("HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Gate\r\nContent-Length: 2\r\n\r\nno"),
    };
}

/// A gateway that asks there, and has a route that asks nobody.
fn config(upstream: &Upstream, endpoints: &str, more: &str) -> String {
    let routes = "auth = [\"gate\"]\n[[route]]\nname = \"open\"\nmatch = { path = \"/open\" }\nupstream = \"svc\"\n";
    behind(&[upstream], routes, "")
        + &format!(
            "[auth.gate.forward]\nupstream = \"auth\"\npath = \"/check?a=b\"\n{more}\n[upstream.auth]\nendpoints = [{endpoints}]\n"
        )
}

fn at(auth: &Upstream) -> String {
    format!("{{ address = \"{}\" }}", auth.address())
}

on_both_drivers! {
    fn what_is_answered_there_decides_here(driver: Driver) {
        let (upstream, auth) = (Upstream::always("ok"), Upstream::answering(decide));
        let more = "copy = [\"x-user\", \"x-role\"]\nconsumer = \"x-user\"\n[consumer.ann]\ngroups = [\"staff\"]\n";
        let gateway = Gateway::start(driver, &config(&upstream, &at(&auth), more));
        let mut client = gateway.client();
        let refused = client.request("POST", "/a%20b?x=1", &[("X-User", "root"), ("X-Secret", "s")], b"the body");
        assert_eq!((refused.status, refused.text().as_str(), refused.header("www-authenticate")), (401, "no", Some("Gate")));
        let sent_away = client.request("GET", "/", &[("Authorization", "login")], b"");
        assert_eq!((sent_away.status, sent_away.text().as_str()), (302, "to login"));
        assert_eq!((sent_away.header("location"), sent_away.header("content-type")), (Some("https://login.example/"), Some("text/x")));
        assert_eq!(sent_away.headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case("set-cookie")).count(), 2);
        assert_eq!(sent_away.header("x-inner"), None);
        client.request("GET", "/", &[("Authorization", "odd")], b"").assert_rejected(503, "authorization_unavailable");
        assert_eq!(upstream.requests().len(), 0);
        let body = vec![b'x'; 200_000];
        for _ in 0..3 {
            let forged = [("Authorization", "good"), ("X-User", "root"), ("X-Role", "root"), ("Cookie", "c=1")];
            assert_eq!(client.request("PUT", "/p?q=1", &forged, &body).status, 200);
        }
        assert_eq!(client.request("GET", "/open", &[("X-User", "root")], b"").status, 200);
        let requests = upstream.requests();
        assert_eq!((requests[0].header("x-user"), requests[0].count("x-user"), requests[0].count("x-role")), (Some("ann"), 1, 2));
        assert_eq!((requests[0].header("x-other"), requests[0].header("authorization"), requests[0].body.len()), (None, Some("good"), body.len()));
        assert_eq!(requests[3].header("x-user"), None, "on no route does a client say who he is");
        let asked = auth.requests();
        assert_eq!(asked.len(), 6);
        assert!(asked.iter().all(|request| request.method == "GET" && request.target == "/check?a=b" && request.body.is_empty()));
        let first = |name: &str| asked[0].header(name);
        assert_eq!((first("x-forwarded-method"), first("x-forwarded-uri")), (Some("POST"), Some("/a%20b?x=1")));
        assert_eq!((first("x-forwarded-for"), first("host"), first("x-secret"), first("x-user")), (Some("127.0.0.1"), Some("auth"), None, None));
        assert_eq!(asked[3].header("cookie"), Some("c=1"));
        assert_eq!(auth.connections(), 1, "connections are pooled");
        eventually("she is known by her name", || {
            (gateway.metric("ringgate_consumer_requests_total", &[("consumer", "ann")]) == 3.0).then_some(())
        });
        let explained = run_to_end(&["explain", "-c", &gateway.file(), "GET", "/"]).stdout;
        assert!(explained.contains("upstream auth is asked") && explained.contains("depends on what is answered there"), "{explained}");
    }

    fn what_is_told_of_somebody_is_there_for_header_rules(driver: Driver) {
        let (upstream, auth) = (Upstream::always("ok"), Upstream::answering(decide));
        let rules = "auth = [\"gate\"]\nrequest_headers = { set = { x-seen = \"{header.x-user}/{header.x-role}\", x-team = \"{header.x-groups}\" } }\n\
             response_headers = { set = { x-for = \"{header.x-user}\" } }\n[[route]]\nname = \"keyed\"\nmatch = { path = \"/keyed\" }\nauth = [\"keys\"]\n\
             upstream = \"svc\"\nrequest_headers = { set = { x-seen = \"{header.x-key-of}\", x-team = \"{header.x-groups}\" } }\n[[route]]\nname = \"open\"\n\
             match = { path = \"/open\" }\nupstream = \"svc\"\nrequest_headers = { set = { x-seen = \"{header.x-user}\" } }\n";
        let more = format!(
            "[auth.gate.forward]\nupstream = \"auth\"\npath = \"/check\"\ncopy = [\"x-user\", \"x-role\"]\n[upstream.auth]\nendpoints = [{}]\n\
             [auth.keys]\nheader = \"x-key\"\nheaders = {{ x-key-of = \"{{consumer}}\", x-groups = \"{{groups}}\" }}\n[consumer.ann]\ngroups = [\"a\", \"b\"]\n\
             keys = [{{ sha256 = \"9400f1b21cb527d7fa3d3eabba93557a18ebe7a2ca4e471cfe5e4c5b4ca7f767\" }}]\n",
            at(&auth)
        );
        let gateway = Gateway::start(driver, &(behind(&[&upstream], rules, "") + &more));
        let forged = [("X-User", "root"), ("X-Groups", "root"), ("X-Key-Of", "root")];
        let with = |field| [&forged[..], &[field]].concat();
        let response = gateway.request("GET", "/", &with(("Authorization", "good")), b"");
        assert_eq!((response.status, response.header("x-for")), (200, Some("ann")));
        assert_eq!(gateway.request("GET", "/keyed", &with(("X-Key", "19")), b"").status, 200);
        assert_eq!(gateway.request("GET", "/open", &forged, b"").status, 200);
        let seen: Vec<_> = upstream.requests().iter().map(|request| (request.header("x-seen").map(str::to_owned), request.header("x-team").map(str::to_owned))).collect();
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(seen, [(some("ann/a"), None), (some("ann"), some("a,b")), (None, None)]);
    }

    fn without_an_answer_it_is_as_the_file_says(driver: Driver) {
        let upstream = Upstream::always("ok");
        let garbage = Upstream::scripted(|conn| {
            conn.request();
            conn.send("nonsense\r\n\r\n");
        });
        let broken = Upstream::scripted(|conn| {
            conn.request();
            conn.send("HTTP/1.1 200 OK\r\nX-Us");
        });
        let failing = Upstream::answering(|_, conn| conn.reply(500, "no"));
        let (_port, nobody) = keep_a_port();
        for (policy, expected) in [("deny", 503), ("allow", 200)] {
            for endpoints in [at(&garbage), at(&broken), at(&failing), format!("{{ address = \"{nobody}\" }}")] {
                let more = format!("on_failure = \"{policy}\"\ntimeout = \"5s\"");
                let gateway = Gateway::start(driver, &config(&upstream, &endpoints, &more));
                let answer = gateway.get("/");
                assert_eq!(answer.status, expected, "{policy} {endpoints}");
                if expected == 503 {
                    answer.assert_rejected(503, "authorization_unavailable");
                }
                assert_eq!(gateway.get("/open").status, 200);
            }
        }
    }

    fn who_is_slow_holds_up_nobody_but_who_asks_him(driver: Driver) {
        let upstream = Upstream::always("ok");
        let gate = Arc::new(Gate::default());
        let waits = Arc::clone(&gate);
        let slow = Upstream::answering(move |request, conn| {
            if request.header("authorization") == Some("slow") {
                waits.wait();
            }
            decide(request, conn);
        });
        let gateway = Gateway::start(driver, &config(&upstream, &at(&slow), "timeout = \"300ms\""));
        let mut waiting = gateway.client();
        waiting.send("GET / HTTP/1.1\r\nHost: test\r\nAuthorization: slow\r\n\r\n");
        eventually("he is asked", || (!slow.requests().is_empty()).then_some(()));
        assert_eq!(gateway.get("/open").status, 200);
        assert_eq!(gateway.request("GET", "/", &[("Authorization", "good")], b"").status, 200);
        waiting.read("GET").assert_rejected(503, "authorization_unavailable");
        gate.open();
    }

    fn a_question_that_comes_back_is_known_for_one(driver: Driver) {
        let upstream = Upstream::always("ok");
        let auth = Upstream::answering(decide);
        let text = config(&upstream, &at(&auth), "timeout = \"20s\"");
        let mut gateway = Gateway::start(driver, &text);
        assert_eq!(gateway.request("GET", "/", &[("Authorization", "good")], b"").status, 200);
        // who decides is the gateway itself, which asks who decides
        let written = std::fs::read_to_string(gateway.file()).unwrap();
        gateway.reload_well(&written.replace(auth.address(), gateway.address("edge")));
        let looped = gateway.request("GET", "/", &[("Authorization", "good")], b"");
        looped.assert_rejected(503, "authorization_unavailable");
        eventually("the loop is counted", || {
            (gateway.metric("ringgate_rejected_total", &[("reason", "loop_detected")]) >= 1.0).then_some(())
        });
        assert_eq!((upstream.requests().len(), auth.requests().len()), (1, 1));
        assert_eq!(gateway.get("/open").status, 200, "others are served");
    }

    fn the_time_of_a_request_is_over_while_somebody_decides(driver: Driver) {
        let upstream = Upstream::always("ok");
        let gate = Arc::new(Gate::default());
        let waits = Arc::clone(&gate);
        let slow = Upstream::answering(move |request, conn| {
            waits.wait();
            decide(request, conn);
        });
        let more = format!("auth = [\"gate\"]\ntimeout = \"300ms\"\n[auth.gate.forward]\nupstream = \"auth\"\npath = \"/\"\ntimeout = \"60s\"\n[upstream.auth]\nendpoints = [{}]\n", at(&slow));
        let gateway = Gateway::start(driver, &behind(&[&upstream], &more, ""));
        // T_max is the request's, and its body has arrived: 504, and not 408
        for body in [&b""[..], b"body"] {
            let mut client = gateway.client();
            client.request("POST", "/", &[("Authorization", "good")], body).assert_rejected(504, "upstream_timeout");
        }
        assert_eq!((slow.requests().len(), upstream.requests().len()), (2, 0));
        gate.open();
    }

    fn a_large_answer_is_bounded_and_stays_what_it_is(driver: Driver) {
        let upstream = Upstream::always("ok");
        let large = Upstream::answering(|request, conn| {
            let status = if request.header("authorization") == Some("good") { "200 OK" } else { "403 Forbidden" };
            let framing = if request.header("cookie").is_some() { "Transfer-Encoding: chunked" } else { "Content-Length: 10000000" };
            conn.send(format!("HTTP/1.1 {status}\r\n{framing}\r\n\r\n"));
            for _ in 0..10 {
                let piece = "x".repeat(1_000_000);
                let sent = match request.header("cookie") {
                    None => conn.send(piece),
                    Some(_) => conn.send(format!("f4240\r\n{piece}\r\n")),
                };
                if !sent {
                    return;
                }
            }
        });
        let gateway = Gateway::start(driver, &config(&upstream, &at(&large), "on_failure = \"allow\"\ntimeout = \"20s\""));
        for cookie in [&[][..], &[("Cookie", "a=1")]] {
            let refused = gateway.request("GET", "/", cookie, b"");
            assert_eq!((refused.status, refused.text().as_str()), (403, ""), "a refusal is one whatever its body is");
            let passed = gateway.request("GET", "/", &[&[("Authorization", "good")], cookie].concat(), b"");
            assert_eq!((passed.status, passed.text().as_str()), (200, "ok"));
        }
    }

    fn an_answer_holds_for_the_same_question_only(driver: Driver) {
        let (upstream, auth) = (Upstream::always("ok"), Upstream::answering(decide));
        let more = "cache = \"1h\"\ncopy = [\"x-user\"]\nconsumer = \"x-user\"";
        let mut gateway = Gateway::start(driver, &config(&upstream, &at(&auth), more));
        let mut client = gateway.client();
        let mut ask = |path: &str, headers: &[(&str, &str)]| client.request("GET", path, headers, b"").status;
        let good = ("Authorization", "good");
        assert_eq!([ask("/a", &[good]), ask("/a", &[good]), ask("/a", &[good, ("X-Unsent", "1")])], [200; 3]);
        assert_eq!(auth.requests().len(), 1);
        assert!(upstream.requests().iter().all(|request| request.header("x-user") == Some("ann")), "what was said is kept too");
        assert_eq!([ask("/a?b", &[good]), ask("/b", &[good]), ask("/a", &[good, ("Cookie", "c=1")])], [200; 3]);
        assert_eq!([ask("/a", &[]), ask("/a", &[])], [401, 401], "refusals are asked for each time");
        assert_eq!(auth.requests().len(), 6);
        let text = std::fs::read_to_string(gateway.file()).unwrap();
        gateway.reload_well(&text.replace("/check", "/other"));
        assert_eq!(gateway.request("GET", "/a", &[good], b"").status, 200);
        assert_eq!(auth.requests().len(), 7, "another configuration knows of nothing");
    }

    fn the_question_fails_over_as_any_request_does(driver: Driver) {
        let (upstream, auth) = (Upstream::always("ok"), Upstream::answering(decide));
        let (_port, nobody) = keep_a_port();
        let endpoints = format!("{{ address = \"{nobody}\" }}, {}", at(&auth));
        let gateway = Gateway::start(driver, &config(&upstream, &endpoints, "timeout = \"20s\""));
        for _ in 0..6 {
            let asked = gateway.request("POST", "/", &[("Authorization", "good")], b"body");
            assert_eq!(asked.status, 200);
        }
        assert_eq!((auth.requests().len(), upstream.requests().len()), (6, 6));
    }
}

#[test]
fn the_example_does_what_it_says() {
    if tls::is_up() || tls::is_down() {
        return; // it is plain HTTP on both sides
    }
    let (upstream, auth) = (Upstream::always("ok"), Upstream::answering(decide));
    let text = include_str!("../../config/examples/forward-auth.toml")
        .replace("127.0.0.1:8080", "127.0.0.1:0")
        .replace("listen = ", "name = \"edge\"\nlisten = ")
        .replace("127.0.0.1:9001", upstream.address())
        .replace("127.0.0.1:9100", auth.address());
    let text = format!("[admin]\nlisten = \"127.0.0.1:0\"\nhosts = [\"test\"]\n{text}");
    let gateway = Gateway::start_file(tempfile::tempdir().unwrap(), &text);
    let ask = |key: &str| gateway.request("GET", "/orders/7", &[("Authorization", key)], b"").status;
    assert_eq!([ask("bad"), ask("login"), ask("good")], [401, 302, 200]);
    assert_eq!(upstream.requests()[0].header("x-user"), Some("ann"));
}
