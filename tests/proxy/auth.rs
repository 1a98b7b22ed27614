//! Who sends a request, and whether he may: API keys, rules about consumers, groups, methods and networks.

use crate::support::gateway::{run_to_end, write_config};
use crate::support::tls;
use crate::support::{Client, Driver, Gateway, Setup, Upstream, behind, eventually, on_both_drivers};
use aws_lc_rs::digest;
use std::fmt::Write as _;
use std::path::Path;

/// Keys that are planted, and have to be found nowhere.
const ACME: &str = "acme-planted-secret-7c1f";
const BOLT: &str = "bolt-planted-secret-93ab";

fn sha256(text: &str) -> String {
    digest::digest(&digest::SHA256, text.as_bytes()).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Two consumers, and a way to be recognised.
fn people(auth: &str) -> String {
    format!(
        "[auth.api_key]\n{auth}\n[consumer.acme]\ngroups = [\"partners\", \"eu\"]\nkeys = [{{ sha256 = \"{}\" }}]\n\
         [consumer.bolt]\ngroups = [\"eu\"]\nkeys = [{{ sha256 = \"{}\" }}]\n",
        sha256(ACME),
        sha256(BOLT)
    )
}

fn start(driver: Driver, upstream: &Upstream, route: &str, auth: &str) -> Gateway {
    Gateway::start(driver, &(behind(&[upstream], route, "") + &people(auth)))
}

fn log_of(file: &Path, count: usize) -> String {
    eventually("the log has its lines", || {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        (text.lines().count() >= count && text.ends_with('\n')).then_some(text)
    })
}

on_both_drivers! {
    fn a_key_that_goes_no_further_is_in_no_variable_either(driver: Driver) {
        let upstream = Upstream::always("ok");
        let rules = "auth = [\"api_key\"]\nquery = { set = { orig = \"{query}\" } }\n\
                     request_headers = { set = { x-url = \"{path_and_query}\", x-c = \"{header.cookie}\", x-k = \"{cookie.k}\", \
                     x-h = \"{header.x-api-key}\", x-a = \"{cookie.a}\" } }\n\
                     response_headers = { set = { x-back = \"{query}\" } }";
        let gateway = start(driver, &upstream, rules, "header = \"x-api-key\"\nquery = \"key\"\ncookie = \"k\"");
        let mut client = gateway.client();
        let by_query = client.request("GET", &format!("/p?key={ACME}&b=1"), &[], b"");
        assert_eq!((by_query.status, by_query.header("x-back")), (200, Some("b=1")));
        let alone = client.request("GET", &format!("/p?key={ACME}"), &[], b"");
        assert_eq!((alone.status, alone.header("x-back")), (200, None));
        let cookies = format!("a=2; k={BOLT}");
        assert_eq!(client.request("GET", "/p", &[("Cookie", &cookies)], b"").status, 200);
        assert_eq!(client.request("GET", "/p", &[("X-Api-Key", ACME)], b"").status, 200);
        let requests = upstream.requests();
        assert_eq!((requests[0].target.as_str(), requests[0].header("x-url")), ("/p?b=1&orig=b%3D1", Some("/p?b=1")));
        assert_eq!((requests[1].target.as_str(), requests[1].header("x-url")), ("/p", Some("/p")));
        let told = ["x-c", "x-k", "x-a", "x-h"].map(|name| requests[2].header(name));
        assert_eq!(told, [Some("a=2"), None, Some("2"), None]);
        assert_eq!(requests[3].header("x-h"), None);
        assert!(requests.iter().all(|it| !format!("{it:?}").contains("planted")), "{requests:?}");
    }

    fn a_key_opens_the_route_and_nothing_else_does(driver: Driver) {
        let upstream = Upstream::always("ok");
        let gateway = start(driver, &upstream, "auth = [\"api_key\"]", "header = \"x-api-key\"");
        let mut client = gateway.client();
        let bare = client.get("/");
        bare.assert_rejected(401, "unauthenticated");
        assert_eq!(bare.header("www-authenticate"), Some("ApiKey realm=\"api_key\""));
        for shown in ["", "wrong", &sha256(ACME), &ACME[1..], &ACME.to_uppercase(), &"a".repeat(4_000)] {
            client.request("GET", "/", &[("X-Api-Key", shown)], b"").assert_rejected(401, "unauthenticated");
        }
        let twice = [("X-Api-Key", ACME), ("X-Api-Key", ACME)];
        client.request("GET", "/", &twice, b"").assert_rejected(401, "unauthenticated");
        assert_eq!(upstream.requests().len(), 0);
        for key in [ACME, BOLT] {
            assert_eq!(client.request("GET", "/", &[("X-API-Key", key)], b"").status, 200);
        }
        assert_eq!(client.request("POST", "/", &[("X-API-Key", ACME)], b"body").status, 200, "the connection goes on");
        eventually("it is counted", || {
            let rejected = gateway.metric("ringgate_rejected_total", &[("route", "all"), ("reason", "unauthenticated")]);
            let acme = gateway.metric("ringgate_consumer_requests_total", &[("consumer", "acme")]);
            (rejected == 8.0 && acme == 2.0).then_some(())
        });
        let usage = gateway.admin("/usage").json();
        let consumers: Vec<_> = usage["top"].as_array().unwrap().iter().map(|row| row["consumer"].as_str()).collect();
        assert!(consumers.contains(&Some("acme")) && consumers.contains(&Some("bolt")) && consumers.contains(&None), "{usage}");
    }

    fn keys_stand_in_a_header_with_a_scheme_in_a_query_or_in_a_cookie(driver: Driver) {
        let upstream = Upstream::always("ok");
        let places = "header = \"authorization\"\nscheme = \"Bearer\"\nquery = \"key\"\ncookie = \"k\"\nheaders = { x-who = \"{consumer}\", x-groups = \"{groups}\" }";
        let gateway = start(driver, &upstream, "auth = [\"api_key\"]", places);
        let mut client = gateway.client();
        let bearer = format!("bearer {ACME}");
        assert_eq!(client.request("GET", "/?a=1", &[("Authorization", &bearer)], b"").status, 200);
        assert_eq!(client.get(&format!("/?a=1&key={ACME}&b=2")).status, 200);
        assert_eq!(client.get(&format!("/?k%65y={BOLT}")).status, 200);
        let cookie = format!("a=1; k={ACME}; b=2");
        assert_eq!(client.request("GET", "/", &[("Cookie", &cookie)], b"").status, 200);
        assert_eq!(client.request("GET", "/", &[("Cookie", &format!("k={ACME}"))], b"").status, 200);
        let refused = client.request("GET", "/", &[("Authorization", ACME)], b"");
        assert_eq!((refused.status, refused.header("www-authenticate")), (401, Some("Bearer realm=\"api_key\"")));
        assert_eq!(client.get(&format!("/?key={ACME}&key={ACME}")).status, 401, "what stands there twice is not taken");
        // none of the keys has gone on, and everything else has
        let requests = upstream.requests();
        let targets: Vec<_> = requests.iter().map(|request| request.target.as_str()).collect();
        assert_eq!(targets, ["/?a=1", "/?a=1&b=2", "/", "/", "/"]);
        assert_eq!(requests[0].header("authorization"), None);
        assert_eq!((requests[3].header("cookie"), requests[4].header("cookie")), (Some("a=1; b=2"), None));
        let who: Vec<_> = requests.iter().map(|request| request.header("x-who").unwrap()).collect();
        assert_eq!(who, ["acme", "acme", "bolt", "acme", "acme"]);
        assert_eq!((requests[0].header("x-groups"), requests[2].header("x-groups")), (Some("partners,eu"), Some("eu")));
    }

    fn no_client_says_who_he_is_in_a_header_of_the_gateways(driver: Driver) {
        let upstream = Upstream::always("ok");
        let more = "auth = [\"api_key\"]\nlimit = [{ rate = \"2/h\", burst = 2, per = \"header:X-Consumer\" }]\n\
            [[route]]\nname = \"open\"\nmatch = { path = \"/open\" }\nupstream = \"svc\"\n\
            [[route]]\nname = \"fooled\"\nmatch = { path = \"/*\", header = { x-consumer = \"root\" } }\nrespond = { body = \"fooled\" }\n";
        let setup = Setup { listener: "header_underscores = \"keep\"", ..Setup::default() };
        let config = behind(&[&upstream], more, "") + &people("header = \"x-api-key\"\nforward_credentials = true\nheaders = { x-consumer = \"{consumer}\" }");
        let gateway = Gateway::start_with(driver, &Setup { config: &config, ..setup });
        let mut client = gateway.client();
        let forged = [("X-Consumer", "root"), ("X_Consumer", "root"), ("X-Api-Key", ACME)];
        let statuses: Vec<_> = (0..3).map(|_| client.request("GET", "/", &forged, b"").status).collect();
        assert_eq!(statuses, [200, 200, 429], "the forged one is no key of a limit either, and no condition of a route");
        assert_eq!(client.request("GET", "/open", &[("X-Consumer", "root"), ("X_Consumer", "root")], b"").status, 200);
        let requests = upstream.requests();
        assert_eq!((requests[0].header("x-consumer"), requests[0].header("x_consumer")), (Some("acme"), None));
        assert_eq!(requests[0].header("x-api-key"), Some(ACME), "credentials go on where that is asked for");
        assert_eq!((requests[2].header("x-consumer"), requests[2].header("x_consumer")), (None, None));
    }

    fn rules_decide_by_group_method_and_network(driver: Driver) {
        let upstream = Upstream::always("ok");
        let rules = "auth = [\"api_key\"]\n\
            allow = [{ group = [\"partners\"], method = [\"POST\"] }, { group = [\"eu\"], method = [\"GET\"] }]\n\
            deny = [{ client_ip = [\"127.0.0.2\"] }, { consumer = [\"bolt\"], client_ip = [\"127.0.0.3\"] }]";
        let gateway = start(driver, &upstream, rules, "header = \"x-api-key\"");
        let ask = |source: &str, method: &str, key: Option<&str>| {
            let headers: Vec<_> = key.iter().map(|key| ("X-Api-Key", *key)).collect();
            Client::connect_from(source, gateway.address("edge")).request(method, "/", &headers, b"").status
        };
        // the same once more, written as sentences: who, from where, what
        let expected = |source: &str, method: &str, key: Option<&str>| match (source, key, method) {
            ("127.0.0.2", ..) => 403,
            (_, None, _) => 401,
            ("127.0.0.3", Some(BOLT), _) => 403,
            (_, Some(_), "GET" | "HEAD") | (_, Some(ACME), "POST") => 200,
            _ => 403,
        };
        for source in ["127.0.0.1", "127.0.0.2", "127.0.0.3"] {
            for method in ["GET", "HEAD", "POST", "DELETE"] {
                for key in [None, Some(ACME), Some(BOLT)] {
                    let said = ask(source, method, key);
                    assert_eq!(said, expected(source, method, key), "{method} from {source} with {key:?}");
                }
            }
        }
        let denied = Client::connect_from("127.0.0.2", gateway.address("edge")).get("/");
        denied.assert_rejected(403, "forbidden");
        assert_eq!(denied.header("www-authenticate"), None);
    }

    fn a_listener_asks_for_all_routes_and_keeps_networks_out(driver: Driver) {
        let upstream = Upstream::always("ok");
        let dir = tempfile::tempdir().unwrap();
        let list = dir.path().join("blocked");
        let mut text = "# many\n127.0.0.2 # this one\n".to_owned();
        for n in 0..100_000_u32 {
            let _ = writeln!(text, "{}/32", std::net::Ipv4Addr::from_bits(0x0a00_0000 + 2 * n));
        }
        std::fs::write(&list, &text).unwrap();
        let more = "[[route]]\nname = \"open\"\nmatch = { path = \"/open\" }\nauth = []\nrespond = { body = \"open\" }\n";
        let config = behind(&[&upstream], more, "") + &people("header = \"x-api-key\"");
        let listener = format!("auth = [\"api_key\"]\ndeny = {{ client_ip_file = \"{}\" }}", list.display());
        let mut gateway = Gateway::start_with(driver, &Setup { listener: &listener, config: &config, ..Setup::default() });
        let from = |gateway: &Gateway, source: &str, path: &str| Client::connect_from(source, gateway.address("edge")).get(path).status;
        assert_eq!((from(&gateway, "127.0.0.1", "/"), from(&gateway, "127.0.0.1", "/open")), (401, 200));
        assert_eq!((from(&gateway, "127.0.0.2", "/"), from(&gateway, "127.0.0.2", "/open")), (403, 403));
        std::fs::write(&list, text.replace("127.0.0.2", "127.0.0.3")).unwrap();
        let file = std::fs::read_to_string(gateway.file()).unwrap();
        gateway.reload_well(&file);
        assert_eq!((from(&gateway, "127.0.0.2", "/open"), from(&gateway, "127.0.0.3", "/open")), (200, 403));
    }

    fn whom_a_listener_keeps_out_is_told_nothing_else(driver: Driver) {
        let upstream = Upstream::always("ok");
        let more = "cors = { origins = [\"https://app.example\"] }\n\
            [[guard]]\nname = \"env\"\nmatch = { path = \"/.env\" }\nrespond = { status = 404, body = \"none\" }\n";
        let config = behind(&[&upstream], more, "").replace("path = \"/*\"", "path = \"/a/*\", method = [\"GET\"]");
        let listener = "deny = [{ client_ip = [\"127.0.0.2\"] }, { method = [\"DELETE\"] }]";
        let gateway = Gateway::start_with(driver, &Setup { listener, config: &config, ..Setup::default() });
        let preflight = [("Origin", "https://app.example"), ("Access-Control-Request-Method", "GET")];
        let cases = [("OPTIONS", "/a/b", &preflight[..], 204), ("OPTIONS", "*", &[], 200), ("GET", "/a/b", &[], 200), ("GET", "/b", &[], 404), ("PUT", "/a/b", &[], 405), ("GET", "/.env", &[], 404)];
        for (method, path, headers, expected) in cases {
            let from = |source: &str| Client::connect_from(source, gateway.address("edge")).request(method, path, headers, b"");
            assert_eq!(from("127.0.0.1").status, expected, "{method} {path}");
            from("127.0.0.2").assert_rejected(403, "forbidden");
        }
        gateway.request("DELETE", "/nowhere", &[], b"").assert_rejected(403, "forbidden");
        assert_eq!(upstream.requests().len(), 1);
        eventually("it is counted where it was going", || {
            (gateway.metric("ringgate_rejected_total", &[("route", "all"), ("reason", "forbidden")]) == 1.0).then_some(())
        });
    }

    fn a_dry_run_refuses_nobody_and_is_counted(driver: Driver) {
        let upstream = Upstream::always("ok");
        let rules = "deny = { client_ip = [\"127.0.0.0/8\"], dry_run = true }";
        let gateway = start(driver, &upstream, rules, "header = \"x-api-key\"");
        assert_eq!((gateway.get("/").status, gateway.get("/").status), (200, 200));
        eventually("it is counted", || {
            (gateway.metric("ringgate_rejected_total", &[("route", "all"), ("reason", "forbidden_dry_run")]) == 2.0).then_some(())
        });
    }

    fn a_limit_counts_by_consumer(driver: Driver) {
        let upstream = Upstream::always("ok");
        let keys = "auth = [\"api_key\"]\nlimit = [{ rate = \"2/h\", burst = 2, per = \"consumer\" }]";
        let gateway = start(driver, &upstream, keys, "header = \"x-api-key\"\nquery = \"key\"");
        for key in [ACME, BOLT] {
            // by whichever way somebody is recognised, he is the same
            let mut client = gateway.client();
            let first = client.request("GET", "/", &[("X-Api-Key", key)], b"").status;
            let statuses = [first, client.get(&format!("/?key={key}")).status, client.get(&format!("/?key={key}")).status];
            assert_eq!(statuses, [200, 200, 429], "{key}");
        }
    }

    fn consumers_of_a_file_come_and_go_with_a_reload(driver: Driver) {
        let upstream = Upstream::always("ok");
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("consumers.json");
        let write = |key: &str| {
            let mut rows: Vec<_> = (0..20_000).map(|n| format!("\"c{n}\": {{ \"keys\": [{{ \"sha256\": \"{n:064x}\" }}] }}")).collect();
            rows.push(format!("\"carl\": {{ \"groups\": [\"eu\"], \"mtls\": {{ \"san\": \"DNS:carl.example\" }}, \"keys\": [{{ \"sha256\": \"{}\" }}] }}", sha256(key)));
            std::fs::write(&file, format!("{{ \"consumer\": {{ {} }} }}", rows.join(","))).unwrap();
        };
        write("carl-1");
        let setup = Setup::default().file(driver);
        let config = format!("consumers_file = \"{}\"\n{setup}{}", file.display(),
            behind(&[&upstream], "auth = [\"api_key\"]", "") + &people("header = \"x-api-key\""));
        let mut gateway = Gateway::start_file(dir, &config);
        let ask = |gateway: &Gateway, key: &str| gateway.request("GET", "/", &[("X-Api-Key", key)], b"").status;
        assert_eq!((ask(&gateway, "carl-1"), ask(&gateway, ACME), ask(&gateway, "carl-2")), (200, 200, 401));
        write("carl-2");
        let text = std::fs::read_to_string(gateway.file()).unwrap();
        gateway.reload_well(&text);
        assert_eq!((ask(&gateway, "carl-1"), ask(&gateway, ACME), ask(&gateway, "carl-2")), (401, 200, 200));
        std::fs::write(&file, "{ \"consumer\": { \"carl\": { \"keys\": [{ \"sha256\": \"planted-plain-key\" }] } } }").unwrap();
        let refused = gateway.reload(&text);
        assert_ne!(refused.status, 200);
        assert!(refused.text().contains("consumers_file") && !refused.text().contains("planted-plain-key"), "{}", refused.text());
        for (row, why) in [
            ("\"mtls\": { \"san\": \"carl.example\" }", "\\\"carl\\\": mtls must be an alternative name with its kind"),
            ("\"mtls\": [{ \"subject\": \"CN=a\" }, {}]", "mtls must be exactly one of subject, san, spki"),
            ("\"mtls\": [{ \"spki\": \"KEY\" }, { \"spki\": \"KEY\" }]", "is \\\"carl\\\" already"),
            ("\"mtls\": { \"dns\": \"a.example\" }", "is not as it should be"),
        ] {
            std::fs::write(&file, format!("{{ \"consumer\": {{ \"carl\": {{ {} }} }} }}", row.replace("KEY", &sha256("x")))).unwrap();
            let refused = gateway.reload(&text);
            assert!(refused.status != 200 && refused.text().contains(why), "{row}: {}", refused.text());
        }
        assert_eq!(ask(&gateway, "carl-2"), 200, "the configuration before stays");
    }

    fn a_secret_is_found_nowhere(driver: Driver) {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("access.log");
        let upstream = Upstream::always("ok");
        let places = "header = \"x-api-key\"\nquery = \"key\"\ncookie = \"k\"";
        let config = format!("[access_log]\npath = \"{}\"\n\n", log.display())
            + &behind(&[&upstream], "auth = [\"api_key\"]", "") + &people(places);
        let mut gateway = Gateway::start(driver, &config);
        let mut client = gateway.client();
        let by_cookie = format!("k={ACME}");
        let referer = format!("http://a.example/?key={ACME}");
        assert_eq!(client.request("GET", "/", &[("X-Api-Key", ACME), ("Referer", &referer)], b"").status, 200);
        assert_eq!(client.get(&format!("/?key={ACME}&x=1")).status, 200);
        assert_eq!(client.request("GET", "/", &[("Cookie", &by_cookie)], b"").status, 200);
        let wrong = client.get(&format!("/?key={ACME}x"));
        assert_eq!(wrong.status, 401);
        let logged = log_of(&log, 4);
        assert!(logged.contains("\"consumer\":\"acme\"") && logged.contains("x=1"), "{logged}");
        let ask = |headers: &[&str]| {
            let file = gateway.file();
            let mut words = vec!["explain", "-c", &file, "GET", "/"];
            headers.iter().for_each(|header| words.extend(["-H", header]));
            run_to_end(&words).stdout
        };
        let header = format!("x-api-key: {ACME}");
        let explained = ask(&[&header]);
        assert!(explained.contains("api_key recognises acme, in partners, eu") && explained.contains("verdict    allowed"), "{explained}");
        assert!(ask(&[]).contains("verdict    401 unauthenticated"));
        let mut pages = vec![logged, explained, wrong.text()];
        for page in ["/config", "/metrics", "/usage", "/routes"] {
            pages.push(gateway.admin(page).text());
        }
        // a key itself, where its hash should stand
        let mistaken = std::fs::read_to_string(gateway.file()).unwrap().replace(&sha256(ACME), ACME);
        let refused = gateway.reload(&mistaken);
        assert_ne!(refused.status, 200);
        pages.push(refused.text());
        pages.push(run_to_end(&["check", "-c", &write_config(dir.path(), &mistaken)]).stderr);
        pages.push(gateway.running().stderr().join("\n"));
        for (row, page) in pages.iter().enumerate() {
            assert!(!page.contains("planted-secret"), "a key in {row}: {page}");
            assert!(!page.contains(&sha256(ACME)) && !page.contains(&sha256(BOLT)), "a digest in {row}: {page}");
        }
    }
}

#[test]
fn the_example_does_what_it_says() {
    if tls::is_up() || tls::is_down() {
        return; // it is plain HTTP on both sides
    }
    let upstream = Upstream::always("ok");
    let example = include_str!("../../config/examples/api-keys.toml");
    let text = example
        .replace("127.0.0.1:8080", "127.0.0.1:0")
        .replace("listen = ", "name = \"edge\"\nlisten = ")
        .replace("127.0.0.1:9001", upstream.address());
    let text = format!("[admin]\nlisten = \"127.0.0.1:0\"\nhosts = [\"test\"]\n{text}");
    let gateway = Gateway::start_file(tempfile::tempdir().unwrap(), &text);
    let ask = |method: &str, path: &str, key: &str| gateway.request(method, path, &[("X-Api-Key", key)], b"").status;
    let (acme, bolt) = ("acme-key-for-the-example", "bolt-key-for-the-example");
    assert_eq!([ask("GET", "/status", ""), ask("GET", "/orders", ""), ask("GET", "/orders/7", "no")], [200, 401, 401]);
    assert_eq!(
        [ask("GET", "/orders/7", bolt), ask("POST", "/orders", bolt), ask("POST", "/orders", acme)],
        [200, 403, 200]
    );
    assert_eq!(upstream.requests()[1].header("x-consumer"), Some("acme"));
}
