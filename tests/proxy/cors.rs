//! CORS: what browsers are told of which pages may read an answer, and preflights that no service sees.

use crate::support::client::Response;
use crate::support::{Driver, Gateway, Upstream, behind, on_both_drivers};

const PAGE: &str = "https://app.example";

/// A service that has an opinion of its own, which is not asked for.
fn opinionated() -> Upstream {
    Upstream::answering(|request, conn| {
        let status = request.header("x-status").unwrap_or("200");
        conn.send(format!(
            "HTTP/1.1 {status} X\r\nAccess-Control-Allow-Origin: https://evil.example\r\nAccess-Control-Allow-Credentials: true\r\n\
             Access-Control-Max-Age: 9\r\nVary: Accept-Encoding\r\nContent-Length: 2\r\n\r\nok"
        ));
    })
}

fn cors(rest: &str) -> String {
    format!("cors = {{ origins = [\"{PAGE}\", \"https://*.b.example\", \"~http://localhost:[0-9]+\"]{rest} }}")
}

/// The value of every field of this name.
fn all(response: &Response, name: &str) -> Vec<String> {
    response.headers.iter().filter(|(other, _)| other == name).map(|(_, value)| value.clone()).collect()
}

fn preflight(gateway: &Gateway, path: &str, origin: &str, method: &str, headers: Option<&str>) -> Response {
    let mut fields = vec![("Origin", origin), ("Access-Control-Request-Method", method)];
    fields.extend(headers.map(|names| ("Access-Control-Request-Headers", names)));
    gateway.request("OPTIONS", path, &fields, b"")
}

on_both_drivers! {
    fn a_page_that_is_named_may_read_and_others_may_not(driver: Driver) {
        let upstream = opinionated();
        let route = cors(", credentials = true, expose = [\"x-total\", \"etag\"]");
        let gateway = Gateway::start(driver, &behind(&[&upstream], &route, ""));
        for origin in [PAGE, "https://x.b.example", "https://x.y.b.example", "http://localhost:3000"] {
            let response = gateway.request("GET", "/", &[("Origin", origin)], b"");
            assert_eq!((response.status, response.text().as_str()), (200, "ok"));
            assert_eq!(all(&response, "access-control-allow-origin"), [origin]);
            assert_eq!(all(&response, "access-control-allow-credentials"), ["true"]);
            assert_eq!(all(&response, "access-control-expose-headers"), ["x-total, etag"]);
            assert_eq!(all(&response, "access-control-max-age"), [""; 0], "it is the gateway that says it");
            assert_eq!(all(&response, "vary"), ["Accept-Encoding", "Origin"]);
        }
        for origin in ["https://evil.example", "https://b.example", "http://app.example", "null", "http://localhost:3000.evil"] {
            let response = gateway.request("GET", "/", &[("Origin", origin)], b"");
            assert_eq!(response.status, 200, "no browser is asked to be kept out: it keeps itself");
            assert!(!response.headers.iter().any(|(name, _)| name.starts_with("access-control-")), "{origin}: {response:?}");
            assert_eq!(all(&response, "vary"), ["Accept-Encoding", "Origin"]);
        }
        let plain = gateway.get("/");
        assert!(!plain.headers.iter().any(|(name, _)| name.starts_with("access-control-")), "{plain:?}");
        assert_eq!(all(&plain, "vary"), ["Accept-Encoding", "Origin"], "a cache must not show it to a page");
    }

    fn everybody_is_told_the_same_where_all_may_read(driver: Driver) {
        let upstream = opinionated();
        let gateway = Gateway::start(driver, &behind(&[&upstream], "cors = { origins = [\"*\"] }", ""));
        for fields in [&[("Origin", "https://any.example")][..], &[]] {
            let response = gateway.request("GET", "/", fields, b"");
            assert_eq!(all(&response, "access-control-allow-origin"), ["*"]);
            assert_eq!(all(&response, "vary"), ["Accept-Encoding"]);
            assert_eq!(all(&response, "access-control-allow-credentials"), [""; 0]);
        }
    }

    fn a_preflight_is_answered_by_the_gateway(driver: Driver) {
        let upstream = opinionated();
        let route = cors(", methods = [\"GET\", \"PUT\"], headers = [\"content-type\", \"x-a\"], max_age = \"2h\", credentials = true");
        // a method that is not OPTIONS, a key that no preflight has, and a limit that it does not use up
        let route = format!(
            "auth = [\"key\"]\nlimit = [{{ rate = \"1/d\" }}]\n{route}"
        );
        let only = "match = { path = \"/api/*\", method = [\"GET\", \"PUT\"] }";
        let config = behind(&[&upstream], &route, "").replace("match = { path = \"/*\" }", only)
            + "\n[auth.key]\nheader = \"x-key\"\n[[route]]\nname = \"rest\"\nupstream = \"svc\"\n";
        let gateway = Gateway::start(driver, &config);
        for _ in 0..3 {
            let response = preflight(&gateway, "/api/x", PAGE, "PUT", Some("x-a"));
            assert_eq!((response.status, response.text().as_str()), (204, ""));
            for (name, value) in [
                ("access-control-allow-origin", PAGE),
                ("access-control-allow-methods", "GET, PUT"),
                ("access-control-allow-headers", "content-type, x-a"),
                ("access-control-allow-credentials", "true"),
                ("access-control-max-age", "7200"),
                ("vary", "Origin"),
            ] {
                assert_eq!(all(&response, name), [value], "{name}");
            }
        }
        let refused = preflight(&gateway, "/api/x", "https://evil.example", "PUT", None);
        refused.assert_rejected(403, "origin_not_allowed");
        assert_eq!(all(&refused, "vary"), ["Origin"]);
        assert!(!refused.headers.iter().any(|(name, _)| name.starts_with("access-control-")), "{refused:?}");
        assert!(upstream.requests().is_empty(), "{:?}", upstream.requests());
        // what is no preflight, or is about a route without CORS, goes its way
        assert_eq!(preflight(&gateway, "/other", PAGE, "PUT", None).status, 200);
        assert_eq!(gateway.request("OPTIONS", "/other", &[("Origin", PAGE)], b"").status, 200);
        assert_eq!(gateway.request("OPTIONS", "/api/x", &[("Origin", PAGE)], b"").status, 200, "the other route's");
        assert_eq!(preflight(&gateway, "/api/x", PAGE, "DELETE", None).status, 200, "it is about the other route");
        assert_eq!(upstream.requests().len(), 4);
        let reason = [("route", "all"), ("reason", "origin_not_allowed")];
        assert!((gateway.metric("ringgate_rejected_total", &reason) - 1.0).abs() < 0.1);
    }

    fn headers_that_are_asked_for_are_allowed_where_all_are(driver: Driver) {
        let config = "[[route]]\nname = \"all\"\nrespond = { body = \"hi\" }\ncors = { origins = [\"*\"], headers = [\"*\"] }\n";
        let gateway = Gateway::start(driver, config);
        let response = preflight(&gateway, "/", PAGE, "PATCH", Some("authorization,x-b"));
        assert_eq!(response.status, 204);
        assert_eq!(all(&response, "access-control-allow-headers"), ["authorization,x-b"]);
        assert_eq!(all(&response, "access-control-allow-methods"), ["GET, HEAD, POST, PUT, PATCH, DELETE"]);
        assert_eq!(all(&response, "vary"), ["Access-Control-Request-Headers"]);
        let odd = preflight(&gateway, "/", PAGE, "PATCH", Some("a: b<script>"));
        assert_eq!(all(&odd, "access-control-allow-headers"), [""; 0]);
        // and the route's own answer says it
        assert_eq!(all(&gateway.get("/"), "access-control-allow-origin"), ["*"]);
    }

    fn a_page_may_read_why_it_was_refused(driver: Driver) {
        let nobody = "[[route]]\nname = \"gone\"\nmatch = { path = \"/gone\" }\nupstream = \"gone\"\n";
        let gone = "\n[upstream.gone]\nendpoints = [{ address = \"127.0.0.1:1\" }]\n";
        let upstream = opinionated();
        let route = cors(", credentials = true") + "\nmax_body = \"1B\"\nlimit = [{ rate = \"2/d\", burst = 2 }]";
        let config = format!("{nobody}{}\n{}{gone}", cors(""), behind(&[&upstream], &route, ""));
        let gateway = Gateway::start(driver, &config);
        let page = [("Origin", PAGE)];
        let large = gateway.request("POST", "/", &page, b"too large");
        let small = gateway.request("GET", "/", &page, b"");
        let limited = gateway.request("GET", "/", &page, b"");
        let unreachable = gateway.request("GET", "/gone", &page, b"");
        for (response, status) in [(&large, 413), (&small, 200), (&limited, 429), (&unreachable, 503)] {
            assert_eq!(response.status, status);
            assert_eq!(all(response, "access-control-allow-origin"), [PAGE], "{response:?}");
            assert!(all(response, "vary").contains(&"Origin".to_owned()), "{response:?}");
        }
        assert_eq!(all(&limited, "access-control-allow-credentials"), ["true"]);
    }

    fn responses_say_what_their_request_was(driver: Driver) {
        let upstream = Upstream::answering(|_, conn| {
            conn.send("HTTP/1.1 200 OK\r\nX-Route: forged\r\nX-Who: forged\r\nContent-Length: 0\r\n\r\n");
        });
        let rules = "limit = [{ rate = \"1/d\", burst = 1 }]\nresponse_headers = { set = { x-route = \"{route}\", x-id = \"{request_id}\", x-who = \"{consumer}\", \
                     x-path = \"{path}?{query}\", x-frame = \"deny\" }, always = ALWAYS }";
        for always in [true, false] {
            let gateway = Gateway::start(driver, &behind(&[&upstream], &rules.replace("ALWAYS", &always.to_string()), ""));
            let response = gateway.request("GET", "/a?b=c", &[("X-Request-Id", "r-1")], b"");
            for (name, value) in [("x-route", "all"), ("x-id", "r-1"), ("x-path", "/a?b=c"), ("x-frame", "deny")] {
                assert_eq!(all(&response, name), [value], "{name}");
            }
            assert_eq!(all(&response, "x-who"), [""; 0]);
            let limited = gateway.request("GET", "/a?b=c", &[("X-Request-Id", "r-2")], b"");
            assert_eq!(limited.status, 429);
            let expected: &[&str] = if always { &["r-2"] } else { &[] };
            assert_eq!(all(&limited, "x-id"), expected);
            assert_eq!(all(&limited, "x-frame").len(), usize::from(always));
        }
    }
}
