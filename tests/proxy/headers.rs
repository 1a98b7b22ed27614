//! Headers on their way through: hop-by-hop fields end here, forwarding fields are added, routes set and remove.

use crate::http2::{CLEAR, ask as ask_h2, connect, gateway_with, run};
use crate::support::{Driver, Gateway, Setup, Upstream, behind, on_both_drivers};

/// Places that an endpoint at this address may name, and what becomes of them below a prefix that is cut, and without one; empty: they stay.
fn places(inside: &str, address: &str) -> Vec<(String, &'static str, &'static str)> {
    let other = if inside == "http" { "https" } else { "http" };
    let own = |path: &str| format!("{inside}://{address}{path}");
    vec![
        (own("/7?a=b#c"), "/orders/7?a=b#c", "/7?a=b#c"),
        (own(""), "/orders/", "/"),
        (own("//evil.test"), "/orders/evil.test", "/evil.test"),
        (own("/\\evil.test"), "/orders/evil.test", "/evil.test"),
        (own("@evil.test/"), "", ""),
        (format!("{other}://{address}/7"), "", ""),
        (format!("{inside}://HOST/7"), "/orders/7", "/7"),
        ("//HOST/7".to_owned(), "/orders/7", "/7"),
        (format!("{inside}://evil.test/7"), "", ""),
        ("/7".to_owned(), "/orders/7", ""),
        ("/\\evil.test".to_owned(), "", ""),
        ("7?a".to_owned(), "", ""),
        ("../7".to_owned(), "", ""),
        ("mailto:a@b".to_owned(), "", ""),
    ]
}

on_both_drivers! {
    fn own_errors_look_as_the_listener_says(driver: Driver) {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("503.html");
        std::fs::write(&file, "<style>p { color: red }</style><p>{status} {reason}: {error} {request_id}</p>").unwrap();
        let listener = format!(
            r#"errors = [{{ status = [502, 503], file = {file:?} }}, {{ status = [404, 413], body = '{{"id":"{{request_id}}","say":"{{message}}"}}', content_type = "application/json" }}]"#
        );
        let config = r#"
[[route]]
name = "dead"
match = { path = "/dead" }
upstream = "dead"
[[route]]
name = "keyed"
match = { path = "/keyed" }
respond = {}
auth = ["key"]
[auth.key]
header = "x-key"
[upstream.dead]
endpoints = [{ address = "127.0.0.1:1" }]
"#;
        let gateway = Gateway::start_with(driver, &Setup { listener: &listener, config, ..Setup::default() });
        let named = [("X-Request-Id", "a<b>\"c.1")];
        let dead = gateway.request("GET", "/dead", &named, b"");
        let wanted = "<style>p { color: red }</style><p>503 Service Unavailable: no_healthy_endpoint a_b__c.1</p>";
        assert_eq!((dead.status, dead.text().as_str()), (503, wanted));
        assert_eq!(dead.header("content-type"), Some("text/html; charset=utf-8"));
        let length = wanted.len().to_string();
        let head = gateway.request("HEAD", "/dead", &named, b"");
        assert_eq!((head.status, head.header("content-length")), (503, Some(length.as_str())));
        let none = gateway.get("/none");
        assert_eq!((none.status, none.header("content-type")), (404, Some("application/json")));
        let told = none.json();
        assert_eq!((told["id"].as_str().map(str::len), told["say"].as_str()), (Some(32), Some("no route matches this request")));
        gateway.get("/keyed").assert_rejected(401, "unauthenticated");
        // drawn, when the client names none: the id of the log
        assert!(gateway.get("/dead").text().contains("no_healthy_endpoint "));
    }

    fn a_rule_replaces_what_is_forwarded_of_the_client(driver: Driver) {
        let upstream = Upstream::answering(|request, conn| conn.reply(200, request.header("x-forwarded-for").unwrap_or("-")));
        let rule = "request_headers = { set = { x-forwarded-for = \"{client_ip}\" } }";
        let config = behind(&[&upstream], rule, "");
        let setup = Setup { listener: "trusted_proxies = [\"127.0.0.0/8\"]", config: &config, ..Setup::default() };
        let gateway = Gateway::start_with(driver, &setup);
        let ask = |value: &str| gateway.request("GET", "/", &[("X-Forwarded-For", value)], b"").text();
        assert_eq!(ask("6.6.6.6, 203.0.113.9, 127.0.0.7"), "203.0.113.9");
        assert_eq!(gateway.get("/").text(), "127.0.0.1");
    }

    fn x_forwarded_for_may_be_replaced_by_the_client(driver: Driver) {
        let upstream = Upstream::answering(|request, conn| {
            let told = format!("{} {}", request.header("x-forwarded-for").unwrap_or("-"), request.header("x-seen").unwrap_or("-"));
            conn.reply(200, &told);
        });
        let route = "request_headers = { set = { x-seen = \"{header.x-forwarded-for}\" } }\n[[route]]\nname = \"one\"\n\
             match = { path = \"/*\", header = { x-forwarded-for = \"203.0.113.9\" } }\nrespond = { body = \"routed\" }\n[[route]]\nname = \"other\"\n\
             match = { path = \"/other\" }\nupstream = \"svc\"";
        for (listener, named, other, untold) in [
            ("trusted_proxies = [\"127.0.0.0/8\"]\nx_forwarded_for = \"replace\"", "routed", "203.0.113.8 203.0.113.8", "127.0.0.1 127.0.0.1"),
            ("trusted_proxies = [\"127.0.0.0/8\"]", "6.6.6.6, 203.0.113.9, 127.0.0.7, 127.0.0.1 6.6.6.6, 203.0.113.9, 127.0.0.7", "203.0.113.8, 127.0.0.1 203.0.113.8", "127.0.0.1 127.0.0.1"),
            ("x_forwarded_for = \"replace\"", "127.0.0.1 127.0.0.1", "127.0.0.1 127.0.0.1", "127.0.0.1 127.0.0.1"),
        ] {
            let config = behind(&[&upstream], route, "");
            let gateway = Gateway::start_with(driver, &Setup { listener, config: &config, ..Setup::default() });
            let ask = |value: &str| gateway.request("GET", "/", &[("X-Forwarded-For", value)], b"").text();
            assert_eq!(ask("6.6.6.6, 203.0.113.9, 127.0.0.7"), named, "{listener}");
            assert_eq!(ask("203.0.113.8"), other, "{listener}");
            assert_eq!(gateway.get("/").text(), untold, "{listener}");
        }
    }

    fn a_location_of_the_endpoint_s_own_is_made_ours(driver: Driver) {
        let upstream = Upstream::answering(|request, conn| {
            let place = request.header("x-place").unwrap_or("-").replace("HOST", request.header("host").unwrap_or_default());
            let names = format!("Location: {place}\r\nContent-Location: {place}\r\nRefresh: 1; url={place}\r\n");
            conn.send(format!("HTTP/1.1 302 Found\r\n{names}Content-Length: 0\r\n\r\n"));
        });
        let route = "strip_prefix = \"/orders\"\nrewrite_location = true\nresponse_headers = { set = { x-made = \"{host}\" } }";
        let more = r#"
[[route]]
name = "whole"
match = { path = "/whole/*" }
upstream = "svc"
rewrite_location = true
compression = {}
[[route]]
name = "plain"
match = { path = "/plain" }
upstream = "svc"
[[route]]
name = "ruled"
match = { path = "/ruled" }
upstream = "svc"
rewrite_location = true
response_headers = { set = { location = "/always" }, remove = ["content-location"] }
"#;
        let config = behind(&[&upstream], route, "").replace("path = \"/*\"", "path = \"/orders/*\"") + more;
        let gateway = gateway_with(driver, CLEAR, &config);
        let (inside, address) = (if crate::support::tls::is_up() { "https" } else { "http" }, upstream.address());
        let cases = places(inside, address);
        let ask = |path: &str, place: &str| {
            let response = gateway.request("GET", path, &[("Host", "api.example"), ("X-Place", place)], b"");
            assert_eq!(response.status, 302);
            let all = |name: &str| -> Vec<String> {
                let named = response.headers.iter().filter(|(it, _)| it.eq_ignore_ascii_case(name));
                named.map(|(_, value)| value.replace("api.example", "HOST")).collect()
            };
            [all("location"), all("content-location"), all("refresh")]
        };
        for (place, below, whole) in &cases {
            for (path, expected) in [("/orders/x", below), ("/whole/x", whole), ("/plain", &"")] {
                let expected = if expected.is_empty() { place.as_str() } else { expected };
                let refresh = format!("1; url={place}");
                assert_eq!(ask(path, place), [vec![expected], vec![expected], vec![&refresh]], "{path}: {place}");
            }
        }
        assert_eq!(ask("/ruled", &format!("{inside}://{address}/a"))[..2], [vec!["/always".to_owned()], vec![]]);
        run(async {
            let sender = connect(&gateway).await;
            for (place, below, _) in cases.iter().filter(|(place, ..)| place != "/\\evil.test") {
                let request = http::Request::get("http://api.example/orders/x").header("x-place", place).body(()).unwrap();
                let response = ask_h2(&sender, request).await.unwrap();
                let expected = if below.is_empty() { place.as_str() } else { below };
                let told = response.headers().get("location").unwrap().to_str().unwrap().replace("api.example", "HOST");
                assert_eq!((told.as_str(), response.headers().get_all("location").iter().count()), (expected, 1));
                assert_eq!(response.headers()["x-made"], "api.example");
            }
        });
    }

    fn hop_by_hop_headers_of_a_request_end_at_the_gateway(driver: Driver) {
        let upstream = Upstream::always("ok");
        let gateway = Gateway::start(driver, &behind(&[&upstream], "", ""));
        let headers = [
            ("Connection", "keep-alive, X-Nominated"),
            ("Keep-Alive", "timeout=5"),
            ("Proxy-Connection", "keep-alive"),
            ("TE", "gzip"),
            ("Upgrade", "websocket"),
            ("X-Nominated", "secret"),
            ("X-Kept", "1"),
            ("Accept", "a"),
            ("Accept", "b"),
        ];
        assert_eq!(gateway.request("GET", "/", &headers, b"").status, 200);
        let request = &upstream.requests()[0];
        for gone in ["keep-alive", "proxy-connection", "te", "upgrade", "x-nominated"] {
            assert_eq!(request.header(gone), None, "{gone} in {request:?}");
        }
        assert_eq!((request.header("x-kept"), request.count("accept")), (Some("1"), 2));
        assert!(!request.header("connection").unwrap_or_default().contains("X-Nominated"));
    }

    fn hop_by_hop_headers_of_a_response_end_at_the_gateway(driver: Driver) {
        let upstream = Upstream::answering(|_, conn| {
            conn.send(
                "HTTP/1.1 200 OK\r\nConnection: close, X-Nominated\r\nKeep-Alive: timeout=5\r\nX-Nominated: 1\r\n\
                 X-Kept: 1\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nContent-Length: 2\r\n\r\nok",
            );
            conn.stream().cut();
        });
        let gateway = Gateway::start(driver, &behind(&[&upstream], "", ""));
        let mut client = gateway.client();
        let response = client.get("/");
        for gone in ["keep-alive", "x-nominated"] {
            assert_eq!(response.header(gone), None, "{gone} in {response:?}");
        }
        assert_eq!(response.header("x-kept"), Some("1"));
        assert_eq!(response.headers.iter().filter(|(name, _)| name == "set-cookie").count(), 2);
        assert_eq!(client.get("/").status, 200, "the service's close is not the client's");
    }

    fn a_protocol_that_is_required_is_named(driver: Driver) {
        let upstream = Upstream::answering(|request, conn| {
            let status = request.target.trim_start_matches('/');
            let upgrade = request.header("x-upgrade").unwrap_or("Upgrade: websocket").replace('|', "\r\n");
            conn.send(format!("HTTP/1.1 {status} X\r\n{upgrade}\r\nConnection: Upgrade\r\nContent-Length: 0\r\n\r\n"));
        });
        let gateway = Gateway::start(driver, &behind(&[&upstream], "", ""));
        let mut client = gateway.client();
        let response = client.get("/426");
        assert_eq!(response.header("upgrade"), Some("websocket"), "RFC 9110 §15.5.22");
        assert_eq!(response.header("connection"), Some("upgrade"), "RFC 9110 §7.8");
        assert_eq!(client.get("/200").header("upgrade"), None, "an offer of the last hop");
        for strange in ["Upgrade: h2'\u{b7}", "Upgrade: a b", "Upgrade: a|Upgrade: b", "Upgrade:"] {
            let response = client.request("GET", "/426", &[("X-Upgrade", strange)], b"");
            assert_eq!((response.status, response.header("upgrade"), response.header("connection")), (426, None, None), "{strange}");
        }
        let last = client.request("GET", "/426", &[("Connection", "close")], b"");
        assert_eq!((last.header("upgrade"), last.header("connection")), (Some("websocket"), Some("close, upgrade")));
        assert_eq!(last.headers.iter().filter(|(name, _)| name == "connection").count(), 1);
    }

    fn a_stranger_does_not_choose_its_forwarded_address(driver: Driver) {
        let upstream = Upstream::always("ok");
        let gateway = Gateway::start(driver, &behind(&[&upstream], "", ""));
        let claims = [
            ("Host", "api.example.com"),
            ("X-Forwarded-For", "203.0.113.7"),
            ("X-Forwarded-Proto", "https"),
            ("X-Forwarded-Host", "other.example"),
        ];
        gateway.request("GET", "/", &claims, b"");
        let request = &upstream.requests()[0];
        assert_eq!(request.header("x-forwarded-for"), Some("127.0.0.1"));
        assert_eq!(request.header("x-forwarded-proto"), Some("http"));
        assert_eq!(request.header("x-forwarded-host"), Some("api.example.com"));
        for name in ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "host"] {
            assert_eq!(request.count(name), 1, "{name}");
        }
        assert!(request.header("via").is_some_and(|via| via.contains("1.1 ringgate")), "{request:?}");
    }

    fn a_trusted_proxy_is_believed_and_appended_to(driver: Driver) {
        let upstream = Upstream::always("ok");
        let config = behind(&[&upstream], "", "");
        let setup = Setup { listener: "trusted_proxies = [\"127.0.0.0/8\"]", config: &config, ..Setup::default() };
        let gateway = Gateway::start_with(driver, &setup);
        let claims = [("X-Forwarded-For", "203.0.113.7"), ("X-Forwarded-Proto", "https"), ("X-Forwarded-Host", "shop.example")];
        gateway.request("GET", "/", &claims, b"");
        let request = &upstream.requests()[0];
        assert_eq!(request.header("x-forwarded-for"), Some("203.0.113.7, 127.0.0.1"));
        assert_eq!(request.header("x-forwarded-proto"), Some("https"));
        assert_eq!(request.header("x-forwarded-host"), Some("shop.example"));
    }

    fn every_request_has_an_id_of_its_own_unless_it_brought_one(driver: Driver) {
        let upstream = Upstream::always("ok");
        let gateway = Gateway::start(driver, &behind(&[&upstream], "", ""));
        let mut client = gateway.client();
        client.get("/");
        client.get("/");
        client.request("GET", "/", &[("X-Request-Id", "given-by-client")], b"");
        let ids: Vec<_> = upstream.requests().iter().map(|r| r.header("x-request-id").unwrap_or_default().to_owned()).collect();
        assert!(ids[0].len() >= 8 && ids[0] != ids[1], "{ids:?}");
        assert_eq!(ids[2], "given-by-client");
    }

    fn a_route_sets_and_removes_headers_both_ways(driver: Driver) {
        let upstream = Upstream::answering(|_, conn| {
            conn.send("HTTP/1.1 200 OK\r\nServer: nginx\r\nX-Cache: miss\r\nContent-Length: 0\r\n\r\n");
        });
        let rules = "request_headers = { set = { x-env = \"prod\" }, remove = [\"x-debug\"] }\n\
                     response_headers = { set = { x-cache = \"none\" }, remove = [\"server\"] }";
        let gateway = Gateway::start(driver, &behind(&[&upstream], rules, ""));
        let response = gateway.request("GET", "/", &[("X-Debug", "1"), ("X-Env", "from client")], b"");
        let request = &upstream.requests()[0];
        assert_eq!((request.header("x-env"), request.count("x-env"), request.header("x-debug")), (Some("prod"), 1, None));
        assert_eq!((response.header("x-cache"), response.header("server")), (Some("none"), None));
    }

    fn variables_say_what_the_request_is_and_nothing_that_a_client_made_up(driver: Driver) {
        let upstream = Upstream::always("ok");
        let rules = r#"request_headers = { set = { x-ip = "{client_ip}", x-url = "{scheme}://{host}{path_and_query}", x-from = "{listener}/{route}/{method}",
            x-q = "q={query}", x-tenant = "<{header.x-tenant}>", x-theme = "{cookie.theme}", x-id = "{request_id}", x-who = "{consumer}",
            x-sub = "{claim.sub}", x-hops = "{header.x-forwarded-for}", x-json = "{\"a\":1}", x-literal = "{{host}", x-none = "" } }"#;
        let gateway = Gateway::start(driver, &behind(&[&upstream], &rules.replace('\n', " "), ""));
        let headers = [
            ("Host", "A.example:8080"),
            ("X-Tenant", "acme"),
            ("Cookie", "a=b; theme=dark"),
            ("X-Who", "admin"),
            ("X-Sub", "admin"),
            ("X-Forwarded-For", "203.0.113.9"),
            ("X-Request-Id", "r-1"),
            ("X-None", "client"),
        ];
        assert_eq!(gateway.request("GET", "/a/../b%20c?d=e&f", &headers, b"").status, 200);
        let request = &upstream.requests()[0];
        let scheme = if crate::support::tls::is_down() { "https" } else { "http" };
        let url = format!("{scheme}://a.example/b%20c?d=e&f");
        for (name, value) in [
            ("x-ip", Some("127.0.0.1")),
            ("x-url", Some(&*url)),
            ("x-from", Some("edge/all/GET")),
            ("x-q", Some("q=d=e&f")),
            ("x-tenant", Some("<acme>")),
            ("x-theme", Some("dark")),
            ("x-id", Some("r-1")),
            ("x-who", None),
            ("x-sub", None),
            ("x-hops", Some("127.0.0.1")),
            ("x-json", Some("{\"a\":1}")),
            ("x-literal", Some("{host}")),
            ("x-none", None),
        ] {
            assert_eq!((request.header(name), request.count(name)), (value, usize::from(value.is_some())), "{name}");
        }
        // and what is not there makes no header, whatever the client says
        assert_eq!(gateway.request("GET", "/", &[("X-Q", "forged"), ("X-Tenant", ""), ("X-Theme", "forged")], b"").status, 200);
        let request = &upstream.requests()[1];
        for name in ["x-q", "x-tenant", "x-theme", "x-who"] {
            assert_eq!(request.header(name), None, "{name}");
        }
        let drawn = request.header("x-id").unwrap();
        assert!(!drawn.is_empty() && request.header("x-request-id") == Some(drawn));
    }

    fn a_redirect_goes_where_the_request_said(driver: Driver) {
        let config = "[[route]]\nname = \"all\"\nredirect = { to = \"https://{host}:8443/new{path_and_query}\" }\n";
        let gateway = Gateway::start(driver, config);
        let response = gateway.request("GET", "//evil.example/a?b=c", &[("Host", "Shop.example:80")], b"");
        assert_eq!(response.status, 308);
        assert_eq!(response.header("location"), Some("https://shop.example:8443/new//evil.example/a?b=c"));
        let mut client = gateway.client();
        client.send("GET / HTTP/1.0\r\n\r\n");
        assert_eq!(client.read("GET").status, 400, "there is no host to redirect to");
    }

    fn trailers_end_where_headers_of_their_names_do(driver: Driver) {
        // RFC 9110 §7.6.1: what Connection names goes from the trailers too; and no rule is evaded through them
        const SECTION: &str = "0\r\nX-Hop: 1\r\nX-Sum: 2\r\nx-SECRET: 3\r\nX-Env: 4\r\n\r\n";
        const KEPT: &str = "5\r\nhello\r\n0\r\nX-Sum: 2\r\n\r\n";
        let upstream = Upstream::scripted(|conn| {
            while conn.head().is_some() {
                let body = conn.take(KEPT.len()).unwrap_or_default();
                assert_eq!(String::from_utf8_lossy(&body), KEPT);
                conn.send(format!("HTTP/1.1 200 OK\r\nConnection: X-Hop\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n{SECTION}"));
            }
        });
        let rules = "request_headers = { set = { x-env = \"prod\" }, remove = [\"x-secret\"] }\n\
                     response_headers = { set = { x-env = \"prod\" }, remove = [\"x-secret\"] }";
        let gateway = Gateway::start(driver, &behind(&[&upstream], rules, ""));
        let mut client = gateway.client();
        for _ in 0..2 {
            client.send(format!(
                "POST / HTTP/1.1\r\nHost: x\r\nConnection: x-other, x-hop\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n{SECTION}"
            ));
            assert_eq!(client.read_head().unwrap().0, 200);
            assert_eq!(String::from_utf8_lossy(&client.take(KEPT.len()).unwrap()), KEPT);
        }
    }

    fn a_response_has_a_date(driver: Driver) {
        let upstream = Upstream::answering(|request, conn| {
            let date = if request.target == "/given" { "Date: Tue, 15 Nov 1994 08:12:31 GMT\r\n" } else { "" };
            conn.send(format!("HTTP/1.1 200 OK\r\n{date}Content-Length: 0\r\n\r\n"));
        });
        let gateway = Gateway::start(driver, &behind(&[&upstream], "", ""));
        assert_eq!(gateway.get("/given").header("date"), Some("Tue, 15 Nov 1994 08:12:31 GMT"));
        assert!(gateway.get("/added").header("date").is_some_and(|date| date.ends_with(" GMT")));
    }
}
