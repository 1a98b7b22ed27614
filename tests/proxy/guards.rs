//! Guards: what is kept away from every route, however specific.

use crate::http2::{CLEAR, ask, connect, gateway_with, run};
use crate::support::{Driver, Gateway, Setup, Upstream, behind, on_both_drivers};

const GUARDS: &str = r#"
[[guard]]
name = "dotfiles"
match = { path = '~/\.' }
respond = { status = 404, body = "nothing here" }
[[guard]]
name = "writes"
match = { path = "/admin/*", method = ["POST", "DELETE"] }
deny = true
[[guard]]
name = "old"
match = { host = "old.example", path = "/*" }
redirect = { to = "https://new.example{path}", status = 301 }
[[guard]]
match = { path = "/inside/*", header = { x-outside = "1" } }
deny = true
[[route]]
name = "one"
match = { host = "api.example", path = "/admin/*" }
upstream = "svc"
[[route]]
name = "exact"
match = { host = "api.example", path = "/api/.env", method = ["GET"] }
upstream = "svc"
"#;

on_both_drivers! {
    fn a_guard_by_the_host_header_holds_however_the_host_is_said(driver: Driver) {
        let upstream = Upstream::always("ok");
        let guard = "[[guard]]\nname = \"evil\"\nmatch = { path = \"/*\", header = { host = { regex = \"evil\" } } }\ndeny = true\n";
        let route = "request_headers = { set = { x-host = \"{header.host}\" } }";
        let gateway = gateway_with(driver, CLEAR, &(behind(&[&upstream], route, "") + guard));
        gateway.request("GET", "/", &[("Host", "evil.test")], b"").assert_rejected(403, "guarded");
        run(async {
            let sender = connect(&gateway).await;
            for (host, status) in [("evil.test", 403), ("good.test:81", 200)] {
                let request = http::Request::get(format!("http://{host}/")).body(()).unwrap();
                assert_eq!(ask(&sender, request).await.unwrap().status(), status, "{host}");
            }
        });
        let told: Vec<_> = upstream.requests().iter().map(|request| request.header("x-host").map(str::to_owned)).collect();
        assert_eq!(told, [Some("good.test:81".to_owned())]);
    }

    fn no_route_overtakes_a_guard(driver: Driver) {
        let upstream = Upstream::always("ok");
        let config = format!("{}\n{GUARDS}", behind(&[&upstream], "limit = [{ rate = \"1000/s\" }]", ""));
        let gateway = Gateway::start(driver, &config);
        let ask = |method: &str, host: &str, path: &str, more: &[(&str, &str)]| {
            let fields: Vec<_> = [("Host", host)].into_iter().chain(more.iter().copied()).collect();
            gateway.request(method, path, &fields, b"")
        };
        for path in ["/api/.env", "/.git/config", "//a/%2Egit", "/x/../.env"] {
            let response = ask("GET", "api.example", path, &[]);
            assert_eq!((response.status, response.text().as_str()), (404, "nothing here"), "{path}");
        }
        ask("POST", "api.example", "/admin", &[]).assert_rejected(403, "guarded");
        ask("DELETE", "api.example", "/admin/x", &[("X-A", "b")]).assert_rejected(403, "guarded");
        ask("GET", "any.example", "/inside/a", &[("X-Outside", "1")]).assert_rejected(403, "guarded");
        let moved = ask("GET", "OLD.example:80", "/admin/x?y", &[]);
        assert_eq!((moved.status, moved.header("location")), (301, Some("https://new.example/admin/x?y")));
        // the more specific of two guards
        assert_eq!(ask("GET", "old.example", "/.env", &[]).status, 301);
        assert!(upstream.requests().is_empty(), "{:?}", upstream.requests());
        for (method, path) in [("GET", "/admin/x"), ("PUT", "/admin"), ("GET", "/inside/a"), ("GET", "/a.b")] {
            assert_eq!(ask(method, "api.example", path, &[]).status, 200, "{method} {path}");
        }
        let count = |name: &str, labels: &[(&str, &str)]| gateway.metric(name, labels) as u64;
        assert_eq!(count("ringgate_rejected_total", &[("route", "writes"), ("reason", "guarded")]), 2);
        assert_eq!(count("ringgate_rejected_total", &[("route", "guard:/inside/*"), ("reason", "guarded")]), 1);
        assert_eq!(count("ringgate_requests_total", &[("route", "dotfiles"), ("method", "GET"), ("code", "404")]), 4);
    }

    fn a_guard_asks_nobody_who_he_is(driver: Driver) {
        let upstream = Upstream::always("ok");
        let config = format!("{}\n{GUARDS}\n[auth.key]\nheader = \"x-key\"\n", behind(&[&upstream], "", ""));
        let setup = Setup { listener: "auth = [\"key\"]", config: &config, ..Setup::default() };
        let gateway = Gateway::start_with(driver, &setup);
        gateway.get("/a").assert_rejected(401, "unauthenticated");
        assert_eq!(gateway.get("/.env").status, 404);
        // and what comes before its first request is kept open
        let mut client = gateway.client();
        for _ in 0..2 {
            assert_eq!(client.get("/.env").status, 404);
        }
    }

    fn no_byte_hides_what_a_guard_looks_for(driver: Driver) {
        let upstream = Upstream::always("ok");
        let guard = r#"
[[guard]]
match = { query = { f = { regex = "^.*passwd$" } } }
deny = true
[[guard]]
name = "header"
match = { header = { x-file = { regex = "^[^;]+passwd$" } } }
deny = true
[[guard]]
name = "cookie"
match = { cookie = { f = { regex = "^.passwd$" } } }
deny = true
[[guard]]
name = "path"
match = { path = "~^/files/.*passwd$" }
deny = true
"#;
        let gateway = Gateway::start(driver, &format!("{}\n{guard}", behind(&[&upstream], "", "")));
        for path in
            ["/?f=/etc/passwd", "/?f=%0aetc/passwd", "/?f=%ffetc/passwd", "/?f=a&f=%0d%0a%c3passwd", "/files/%0a%ffpasswd"]
        {
            gateway.get(path).assert_rejected(403, "guarded");
        }
        for field in [&b"X-File: \xff/passwd"[..], b"X-File: \xc3\x28\x80passwd", b"Cookie: a=b; f=\xfepasswd"] {
            let mut client = gateway.client();
            client.send([b"GET / HTTP/1.1\r\nHost: a\r\n", field, b"\r\n\r\n"].concat());
            client.read("GET").assert_rejected(403, "guarded");
        }
        assert_eq!(gateway.get("/?f=%0apasswd%0a").status, 200);
        assert_eq!(upstream.requests().len(), 1);
    }
}
