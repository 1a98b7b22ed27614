//! Which route a request meets, and what the route makes of it.

use crate::support::{Driver, Gateway, Setup, Upstream, behind, on_both_drivers};

/// A route that answers with its own name.
fn named(name: &str, matcher: &str) -> String {
    format!("[[route]]\nname = \"{name}\"\nmatch = {matcher}\nrespond = {{ status = 200, body = \"{name}\" }}\n\n")
}

/// A cluster of one endpoint.
fn cluster(name: &str, upstream: &Upstream) -> String {
    format!("[upstream.{name}]\nendpoints = [{{ address = \"{}\" }}]\n\n", upstream.address())
}

on_both_drivers! {
    fn the_most_specific_route_wins(driver: Driver) {
        let config = [
            named("any", "{ path = \"/*\" }"),
            named("regex", "{ path = \"~^/users/[0-9]+$\" }"),
            named("prefix", "{ path = \"/users/*\" }"),
            named("longer", "{ path = \"/users/admin/*\" }"),
            named("exact", "{ path = \"/users/admin\" }"),
            named("regex-alone", "{ host = \"re.example\", path = \"~^/r[0-9]+$\" }"),
            named("wildcard-host", "{ host = \"*.example.com\", path = \"/*\" }"),
            named("exact-host", "{ host = \"api.example.com\", path = \"/*\" }"),
            named("beta", "{ path = \"/users/*\", header = { x-beta = \"1\" } }"),
            named("v2", "{ path = \"/users/*\", query = { v = \"2\" } }"),
        ]
        .concat();
        let gateway = Gateway::start(driver, &config);
        let mut client = gateway.client();
        for (host, path, headers, expected) in [
            ("x", "/", &[][..], "any"),
            ("x", "/users", &[], "prefix"),
            ("x", "/users/7", &[], "prefix"),
            ("x", "/usersx", &[], "any"),
            ("x", "/users/admin", &[], "exact"),
            ("x", "/users/admin/x", &[], "longer"),
            ("re.example", "/r12", &[], "regex-alone"),
            ("re.example", "/r12x", &[], "any"),
            ("x", "/users/7", &[("X-Beta", "1")], "beta"),
            ("x", "/users/7", &[("X-Beta", "0")], "prefix"),
            ("x", "/users/7?a=b&v=2", &[], "v2"),
            ("api.example.com", "/users", &[], "exact-host"),
            ("API.Example.com:8080", "/users", &[], "exact-host"),
            ("www.example.com", "/users", &[], "wildcard-host"),
            ("a.b.example.com", "/users", &[], "wildcard-host"),
            ("example.com", "/users", &[], "prefix"),
        ] {
            let headers = [&[("Host", host)], headers].concat();
            assert_eq!(client.request("GET", path, &headers, b"").text(), expected, "{host} {path} {headers:?}");
        }
    }

    fn a_route_has_several_hosts_and_paths(driver: Driver) {
        let config = [
            named("any", "{ path = \"/*\" }"),
            named("shops", r#"{ host = ["shop.*", "*.shop.example", '~s[0-9]+\.example'], path = ["/cart", "/items/{id}", "/img/*"] }"#),
            named("hosts", r#"{ host = ["a.example", "b.example"] }"#),
        ]
        .concat();
        let gateway = Gateway::start(driver, &config);
        let mut client = gateway.client();
        for (host, path, expected) in [
            ("shop.example", "/cart", "shops"),
            ("SHOP.example.org:80", "/items/7", "shops"),
            ("de.shop.example", "//img//x", "shops"),
            ("s12.example", "/items/%C3%A9", "shops"),
            ("s12.example.org", "/cart", "any"),
            ("shop.example", "/items/7/8", "any"),
            ("shop", "/cart", "any"),
            ("a.example", "/cart", "hosts"),
            ("b.example", "/", "hosts"),
        ] {
            assert_eq!(client.request("GET", path, &[("Host", host)], b"").text(), expected, "{host} {path}");
        }
        assert_eq!(gateway.metric("ringgate_requests_total", &[("route", "shops"), ("code", "200")]), 4.0);
    }

    fn a_redirect_stays_where_it_is_whatever_its_captures_are(driver: Driver) {
        let routes = "[[route]]\nname = \"r\"\nmatch = { path = \"~^/r([a-z]*)/(.*)$\" }\nredirect = { to = \"/{1}/{2}\" }\n\
                      [[route]]\nname = \"q\"\nmatch = { path = \"/q/{id}\" }\nredirect = { to = \"/s?id={id}\" }\n";
        let gateway = Gateway::start(driver, routes);
        for (path, to) in [("/r/evil.com/x", "/evil.com/x"), ("/rab/c", "/ab/c"), ("/r//evil.com", "/evil.com"), ("/q/a%20b", "/s?id=a%20b")] {
            assert_eq!(gateway.get(path).header("location"), Some(to), "{path}");
        }
    }

    fn captures_and_variables_make_paths_and_queries_but_never_other_paths(driver: Driver) {
        let upstream = Upstream::answering(|request, conn| {
            let tenant = request.header("x-tenant").unwrap_or("-");
            conn.reply(200, &format!("{} {tenant}", request.target));
        });
        let config = format!(
            r#"
[[route]]
name = "tenants"
match = {{ path = ["/t/{{tenant}}/orders/{{id}}", '~^/old/(?P<tenant>[^/]+)-(?P<id>.*)$'] }}
upstream = "svc"
rewrite = "/v2/{{id}}/of/{{tenant}}"
query = {{ set = {{ tenant = "{{tenant}}", c = "{{header.x-c}}" }}, remove = ["debug"], rename = {{ q = "search" }} }}
request_headers = {{ set = {{ x-tenant = "{{tenant}}" }} }}
[[route]]
name = "header"
match = {{ path = "/h/*" }}
upstream = "svc"
rewrite = "/{{header.x-c}}{{rest}}"
[[route]]
name = "moved"
match = {{ path = '~^/m(/.*)$' }}
redirect = {{ to = "/n/{{1}}?from={{1}}&h={{host}}" }}
{}"#,
            cluster("svc", &upstream)
        );
        let gateway = Gateway::start(driver, &config);
        let ask = |path: &str, fields: &[(&str, &str)]| gateway.request("GET", path, fields, b"").text();
        assert_eq!(ask("/t/acme/orders/7", &[]), "/v2/7/of/acme?tenant=acme acme");
        assert_eq!(ask("//t//a%20b/orders/7?q=1&debug&x=%31", &[]), "/v2/7/of/a%20b?search=1&x=%31&tenant=a%20b a%20b");
        assert_eq!(ask("/old/acme-8?tenant=evil", &[("X-C", "a&b=c d")]), "/v2/8/of/acme?tenant=acme&c=a%26b%3Dc%20d acme");
        assert_eq!(ask("/h/x?y", &[("X-C", "a b?#")]), "/a%20b%3F%23/x?y -");
        // what would be another path
        for path in ["/old/a-..", "/old/a-", "/old/..-b", "/old/a-x/../y/..;z"] {
            let response = gateway.get(path);
            assert!(matches!(response.status, 400 | 404), "{path}: {}", response.text());
        }
        gateway.get("/old/a-..").assert_rejected(400, "bad_request");
        for value in ["..", ".", "../admin", "a/b", "a\\b", ""] {
            gateway.request("GET", "/h/x", &[("X-C", value)], b"").assert_rejected(400, "bad_request");
        }
        gateway.get("/h/x").assert_rejected(400, "bad_request");
        let moved = |path: &str| gateway.get(path).header("location").unwrap().to_owned();
        assert_eq!(moved("/m/a/b?c"), "/n/a/b?from=%2Fa%2Fb&h=test");
        assert_eq!(moved("/m//evil.example/{host}"), "/n/evil.example/%7Bhost%7D?from=%2Fevil.example%2F%7Bhost%7D&h=test");
    }

    fn what_is_refused_before_it_goes_on_has_an_id(driver: Driver) {
        let upstream = Upstream::always("ok");
        let config = format!(
            r#"
[auth.key]
header = "x-key"
[[guard]]
match = {{ path = "/guarded" }}
deny = true
[[route]]
name = "keyed"
match = {{ path = "/keyed" }}
upstream = "svc"
auth = ["key"]
response_headers = {{ set = {{ x-id = "{{request_id}}" }}, always = true }}
[[route]]
name = "small"
match = {{ path = "/small" }}
upstream = "svc"
max_body = "1B"
response_headers = {{ set = {{ x-id = "{{request_id}}" }}, always = true }}
{}"#,
            cluster("svc", &upstream)
        );
        let gateway = Gateway::start(driver, &config);
        let unknown = gateway.get("/keyed");
        assert_eq!((unknown.status, unknown.header("x-id").map(str::len)), (401, Some(32)));
        let large = gateway.request("POST", "/small", &[], b"abc");
        assert_eq!((large.status, large.header("x-id").map(str::len)), (413, Some(32)));
        let named = gateway.request("GET", "/keyed", &[("X-Request-Id", "mine")], b"");
        assert_eq!((named.status, named.header("x-id")), (401, Some("mine")));
    }

    fn no_route_is_404_and_another_method_is_405_with_allow(driver: Driver) {
        let config = [
            named("read", "{ path = \"/a\", method = [\"GET\"] }"),
            named("write", "{ path = \"/a\", method = [\"PUT\", \"DELETE\"] }"),
        ]
        .concat();
        let gateway = Gateway::start(driver, &config);
        gateway.get("/b").assert_rejected(404, "no_route");
        let refused = gateway.request("POST", "/a", &[], b"");
        refused.assert_rejected(405, "method_not_allowed");
        let allow = refused.header("allow").expect("405 needs Allow");
        for method in ["GET", "PUT", "DELETE"] {
            assert!(allow.split(", ").any(|allowed| allowed == method), "{method} in {allow}");
        }
        assert_eq!(gateway.request("PUT", "/a", &[], b"").text(), "write");
    }

    fn paths_are_stripped_and_rewritten_on_their_way_up(driver: Driver) {
        let upstream = Upstream::answering(|request, conn| conn.reply(200, &request.target));
        let config = format!(
            "[[route]]\nname = \"strip\"\nmatch = {{ path = \"/orders/*\" }}\nupstream = \"svc\"\nstrip_prefix = \"/orders\"\n\n\
             [[route]]\nname = \"rewrite\"\nmatch = {{ path = \"/old/*\" }}\nupstream = \"svc\"\nrewrite = \"/v2{{rest}}\"\n\n\
             [[route]]\nname = \"rest\"\nmatch = {{ path = \"/*\" }}\nupstream = \"svc\"\n\n{}",
            cluster("svc", &upstream)
        );
        let gateway = Gateway::start(driver, &config);
        let mut client = gateway.client();
        for (asked, sent) in [
            ("/orders/7?x=1", "/7?x=1"),
            ("/orders", "/"),
            ("/old/a/b?c", "/v2/a/b?c"),
            ("/other/a?b=c%20d", "/other/a?b=c%20d"),
        ] {
            assert_eq!(client.get(asked).text(), sent, "{asked}");
        }
    }

    fn a_route_may_answer_or_redirect_by_itself(driver: Driver) {
        let config = "[[route]]\nname = \"say\"\nmatch = { path = \"/say\" }\n\
             respond = { status = 418, body = \"teapot\", content_type = \"text/x-pot\" }\n\n\
             [[route]]\nname = \"go\"\nmatch = { path = \"/go/*\" }\n\
             redirect = { to = \"https://new.example{path}\", status = 308 }\n";
        let gateway = Gateway::start(driver, config);
        let mut client = gateway.client();
        let said = client.get("/say");
        assert_eq!((said.status, said.text().as_str(), said.header("content-type")), (418, "teapot", Some("text/x-pot")));
        let gone = client.get("/go/there?a=b");
        assert_eq!((gone.status, gone.header("location")), (308, Some("https://new.example/go/there?a=b")));
        let head = client.request("HEAD", "/say", &[], b"");
        assert_eq!((head.status, head.header("content-length"), head.body.len()), (418, Some("6"), 0));
        assert_eq!(client.request("POST", "/say", &[], b"a body nobody reads").status, 418);
        assert_eq!(client.get("/say").status, 418);
    }

    fn the_header_rules_of_a_route_apply_to_its_own_answers(driver: Driver) {
        let rules = "response_headers = { set = { cache-control = \"no-store\" }, remove = [\"date\"] }\n";
        let config = format!(
            "{}{rules}\n[[route]]\nmatch = {{ path = \"/go\" }}\nredirect = {{ to = \"https://new.example/\", status = 302 }}\n{rules}",
            named("say", "{ path = \"/say\" }").trim_end().to_owned() + "\n"
        );
        let gateway = Gateway::start(driver, &config);
        for (path, status) in [("/say", 200), ("/go", 302)] {
            let answer = gateway.get(path);
            assert_eq!((answer.status, answer.header("cache-control"), answer.header("date")), (status, Some("no-store"), None));
        }
        assert_eq!(gateway.get("/nowhere").header("cache-control"), None, "an error is the gateway's own");
    }

    fn a_split_shares_requests_by_weight(driver: Driver) {
        let (many, few, none) = (Upstream::always("many"), Upstream::always("few"), Upstream::always("none"));
        let config = format!(
            "[[route]]\nname = \"canary\"\nmatch = {{ path = \"/*\" }}\nsplit = [ {{ upstream = \"many\", weight = 3 }}, \
             {{ upstream = \"few\", weight = 1 }}, {{ upstream = \"none\", weight = 0 }} ]\n\n{}{}{}",
            cluster("many", &many),
            cluster("few", &few),
            cluster("none", &none)
        );
        let gateway = Gateway::start(driver, &config);
        let mut client = gateway.client();
        for _ in 0..400 {
            assert_eq!(client.get("/").status, 200);
        }
        let few = few.requests().len();
        // 100 expected of 400, standard deviation 8.7: seven of them are once in 10^11 runs
        assert!((40..=160).contains(&few), "{few} of 400 went to the quarter");
        assert_eq!((many.requests().len() + few, none.requests().len()), (400, 0));
    }

    fn empty_segments_go_on_but_pass_no_route(driver: Driver) {
        let upstream = Upstream::answering(|request, conn| conn.reply(200, &request.target));
        let routes = "[[route]]\nmatch = { path = \"/admin/*\" }\nrespond = { status = 403 }\n\
                      [[route]]\nmatch = { path = \"/cut/*\" }\nupstream = \"svc\"\nstrip_prefix = \"/cut\"\n\
                      [[route]]\nmatch = { path = \"/old/*\" }\nredirect = { to = \"{path}/\", status = 302 }\n\n";
        let config = routes.to_owned() + &behind(&[&upstream], "", "");
        for (listener, sent) in [("", "//objects//a///b/"), ("merge_slashes = true", "/objects/a/b/")] {
            let setup = Setup { listener, config: &config, ..Setup::default() };
            let gateway = Gateway::start_with(driver, &setup);
            assert_eq!(gateway.get("//objects//a///b/").text(), sent);
            for path in ["/admin", "//admin", "/admin//", "///admin//x", "//x/..//admin/y", "/%61dmin//x"] {
                assert_eq!(gateway.get(path).status, 403, "{path}");
            }
            assert_eq!(gateway.get("//cut///evil.example/x").text(), "/evil.example/x");
            let location = gateway.get("//old/x").header("location").map(str::to_owned);
            assert_eq!(location.as_deref(), Some("/old/x/"), "and not of another host");
        }
    }

    fn a_route_is_not_chosen_by_what_an_untrusted_peer_says_of_itself(driver: Driver) {
        let route = |name: &str, header: &str| {
            format!("[[route]]\nname = \"{name}\"\nmatch = {{ header = {{ {header} }} }}\nrespond = {{ body = \"{name}\" }}\n")
        };
        let config = route("secure", "x-forwarded-proto = \"https\"")
            + &route("inside", "x-real-ip = \"10.0.0.1\"")
            + &route("from", "x-forwarded-for = \"10.0.0.1\"")
            + &route("host", "x-forwarded-host = \"admin.example\"")
            + &route("plain", "x-forwarded-proto = \"http\"")
            + "[[route]]\nname = \"rest\"\nrespond = { body = \"rest\" }\n";
        for (listener, believed) in [("", false), ("trusted_proxies = [\"127.0.0.0/8\"]", true)] {
            let gateway = Gateway::start_with(driver, &Setup { listener, config: &config, ..Setup::default() });
            for (name, value, chosen) in [
                ("X-Forwarded-Proto", "https", "secure"),
                ("X-Real-IP", "10.0.0.1", "inside"),
                ("X-Forwarded-For", "10.0.0.1", "from"),
                ("X-Forwarded-Host", "admin.example", "host"),
            ] {
                let expected = if believed { chosen } else { "plain" };
                assert_eq!(gateway.request("GET", "/", &[(name, value)], b"").text(), expected, "{name} {listener}");
            }
        }
    }

    fn a_request_that_goes_round_is_ended(driver: Driver) {
        let dir = tempfile::tempdir().unwrap();
        let listen = format!("unix:{}", dir.path().join("edge.sock").display());
        let config = format!("[[route]]\nname = \"all\"\nupstream = \"self\"\n[upstream.self]\nendpoints = [{{ address = \"{listen}\" }}]\n");
        let mut gateway = Gateway::start_with(driver, &Setup { listen: &listen, config: &config, ..Setup::default() });
        gateway.get("/").assert_rejected(508, "loop_detected");
        let requests = gateway.metric("ringgate_requests_total", &[("route", "all")]);
        assert!((2.0..20.0).contains(&requests), "{requests}");
        let said = gateway.running().stderr().join("\n");
        assert!(said.contains("own listener \"edge\""), "{said}");
        let upstream = Upstream::always("ok");
        let gateway = Gateway::start(driver, &behind(&[&upstream], "", ""));
        let seven = "1.1 ringgate, ".repeat(7);
        for (more, status) in [("1.0 other (ringgate)", 200), ("1.0 ringgate", 508)] {
            assert_eq!(gateway.request("GET", "/", &[("Via", &seven), ("Via", more)], b"").status, status, "{more}");
        }
    }

    fn a_route_is_chosen_by_where_a_request_comes_from_and_by_values(driver: Driver) {
        let route = |name: &str, conditions: &str| {
            format!("[[route]]\nname = \"{name}\"\nmatch = {{ {conditions} }}\nrespond = {{ body = \"{name}\" }}\n")
        };
        let scheme = if crate::support::tls::is_down() { "https" } else { "http" };
        let other = if scheme == "http" { "https" } else { "http" };
        let config = route("far", "path = \"/c\", client_ip = [\"203.0.113.0/24\"]")
            + &route("here", "path = \"/c\", client_ip = [\"127.0.0.0/8\"]")
            + &route("scheme", &format!("path = \"/s\", scheme = \"{scheme}\""))
            + &route("other", &format!("path = \"/s\", scheme = \"{other}\", method = [\"GET\"]"))
            + &route("inside", "path = \"/l\", listener = [\"inside\"], method = [\"GET\"]")
            + &route("edge", "path = \"/l\", listener = [\"edge\"]")
            + &route("gold", "path = \"/v\", cookie = { tier = { prefix = \"gold\" } }")
            + &route("rest", "path = \"/*\"")
            + "[[listener]]\nname = \"inside\"\nlisten = \"127.0.0.1:0\"\n";
        let setup = Setup { listener: "trusted_proxies = [\"127.0.0.0/8\"]", config: &config, ..Setup::default() };
        let gateway = Gateway::start_with(driver, &setup);
        assert_eq!(gateway.get("/c").text(), "here");
        assert_eq!(gateway.request("GET", "/c", &[("X-Forwarded-For", "203.0.113.9")], b"").text(), "far");
        assert_eq!(gateway.request("GET", "/c", &[("X-Forwarded-For", "192.0.2.9")], b"").text(), "rest");
        assert_eq!((gateway.get("/s").text(), gateway.get("/l").text()), ("scheme".into(), "edge".into()));
        for (cookie, name) in [("a=b; tier=gold-1", "gold"), ("tier=silver", "rest"), ("xtier=gold", "rest")] {
            assert_eq!(gateway.request("GET", "/v", &[("Cookie", cookie)], b"").text(), name, "{cookie}");
        }
    }
}
