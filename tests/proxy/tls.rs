//! TLS on both sides, end to end: certificates by name, what is refused and how that is told, and what changes while it runs.

use crate::operation::said;
use crate::support::client::Client;
use crate::support::gateway::run_to_end;
use crate::support::stream::Stream;
use crate::support::tls::{Authority, Session, write_anew};
use crate::support::upstream::answer_each;
use crate::support::{Driver, Gateway, Setup, Upstream, behind, behind_endpoints, eventually, noise};
use rustls::{ClientConfig, HandshakeKind, ProtocolVersion};
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;

const DRIVERS: [Driver; 2] = [Driver::IoUring, Driver::Epoll];

fn possible() -> impl Iterator<Item = Driver> {
    DRIVERS.into_iter().filter(|driver| driver.is_possible())
}

/// A gateway whose listener has this certificate.
fn gateway(driver: Driver, authority: &Authority, config: &str) -> Gateway {
    Gateway::start_with(driver, &Setup { listener: &authority.listener("server"), config, ..Setup::default() })
}

fn authority() -> Authority {
    let authority = Authority::new();
    authority.sign("server", &["localhost", "test"]);
    authority
}

/// A session with the gateway that asks for this name.
fn session(gateway: &Gateway, rules: &Arc<ClientConfig>, name: &str) -> std::io::Result<Session> {
    let socket = TcpStream::connect(gateway.address("edge")).expect("it listens");
    Session::connect(socket, Arc::clone(rules), name)
}

fn client(gateway: &Gateway, rules: &Arc<ClientConfig>) -> Client {
    Client::over(Stream::Tls(Box::new(session(gateway, rules, "localhost").expect("a session"))))
}

#[test]
fn requests_and_large_bodies_go_both_ways_encrypted_on_both_sides() {
    for driver in possible() {
        let authority = authority();
        let service = Upstream::encrypted(
            authority.server("server"),
            answer_each(|request, conn| {
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", request.body.len());
                conn.send(head);
                conn.send(&request.body);
            }),
        );
        let tls = format!("tls = {{ ca = \"{}\", name = \"localhost\" }}", authority.ca());
        let gateway = gateway(driver, &authority, &behind(&[&service], "max_body = \"8MiB\"", &tls));
        let rules = authority.client();
        let mut client = client(&gateway, &rules);
        for size in [0, 1, 5_000, 70_000, 300_000, 4 << 20] {
            let body = noise(size as u64, size);
            let response = client.request("POST", "/echo", &[], &body);
            assert_eq!(response.status, 200, "{size} bytes: {}", response.text());
            assert!(response.body == body, "{size} bytes");
        }
        let request = service.requests().pop().expect("there were some");
        assert_eq!(request.header("x-forwarded-proto"), Some("https"));
        assert_eq!(service.connections(), 1, "it is used again and again");
        assert_eq!(gateway.metric("ringgate_tls_handshakes_total", &[("version", "1.3"), ("resumed", "false")]), 1.0);
        let mut resumed = self::client(&gateway, &rules);
        assert_eq!(resumed.get("/").status, 200);
        let kind = resumed.stream().session().unwrap().ask(|connection| connection.handshake_kind());
        assert_eq!(kind, Some(HandshakeKind::Resumed));
        assert_eq!(gateway.metric("ringgate_tls_handshakes_total", &[("resumed", "true")]), 1.0);
    }
}

#[test]
fn the_last_response_of_a_connection_ends_with_the_session() {
    for driver in possible() {
        let authority = authority();
        let service = Upstream::always("ok");
        let gateway = gateway(driver, &authority, &behind(&[&service], "", ""));
        let mut client = client(&gateway, &authority.client());
        client.send("GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
        let all = client.read_to_end().expect("an end that is said, or this is an error");
        assert!(all.ends_with(b"ok"), "{all:?}");
    }
}

#[test]
fn a_body_that_ends_without_a_word_is_cut() {
    for driver in possible() {
        let authority = authority();
        let service = Upstream::encrypted(authority.server("server"), |conn| {
            let Some(request) = conn.request() else { return };
            conn.send("HTTP/1.1 200 OK\r\n\r\nall of it");
            if request.target == "/cut" {
                conn.cut();
            }
        });
        let tls = format!("tls = {{ ca = \"{}\", name = \"localhost\" }}", authority.ca());
        let gateway = gateway(driver, &authority, &behind(&[&service], "retry = { attempts = 0 }", &tls));
        let rules = authority.client();
        assert_eq!(client(&gateway, &rules).get("/said").text(), "all of it");
        let cut = client(&gateway, &rules).try_get("/cut");
        assert!(cut.as_ref().map_or(true, |response| response.status == 502), "{cut:?}");
    }
}

#[test]
fn each_name_has_its_certificate_and_tells_nobody_else_s() {
    for driver in possible() {
        let authority = authority();
        authority.sign("a", &["a.example"]);
        authority.sign("wild", &["*.b.example"]);
        std::fs::create_dir(authority.path("more")).unwrap();
        for file in ["wild.pem", "wild.key"] {
            std::fs::rename(authority.path(file), authority.path("more").join(file)).unwrap();
        }
        let listener = format!(
            "tls = {{ certificates = [{}, {}], certificate_dir = \"{}\" }}",
            authority.files("server"),
            authority.files("a"),
            authority.path("more").display()
        );
        let config = "[[route]]\nrespond = { body = \"ok\" }\n";
        let gateway = Gateway::start_with(driver, &Setup { listener: &listener, config, ..Setup::default() });
        let rules = authority.client();
        for name in ["localhost", "test", "a.example", "x.b.example"] {
            session(&gateway, &rules, name).unwrap_or_else(|error| panic!("{name}: {error}"));
        }
        for name in ["b.example", "x.y.b.example", "other.example"] {
            assert!(session(&gateway, &rules, name).is_err(), "{name} has no certificate");
        }
        // they have hung up, each with an alert
        eventually("alerts are counted", || {
            let failed = gateway.metric("ringgate_tls_handshake_failures_total", &[("reason", "alert")]);
            (failed == 3.0).then_some(())
        });
        let expiry = gateway.metric("ringgate_certificate_expiry_seconds", &[("name", "a.example")]);
        assert!(expiry > 1.7e9, "{expiry}");
    }
}

#[test]
fn who_does_not_speak_what_is_spoken_is_told_so() {
    for driver in possible() {
        let authority = authority();
        let listeners =
            "[[listener]]\nname = \"plain\"\nlisten = \"127.0.0.1:0\"\n[[route]]\nrespond = { body = \"ok\" }\n";
        let gateway = gateway(driver, &authority, listeners);
        let mut plain = Client::connect(gateway.address("edge"));
        plain.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n");
        let response = plain.read("GET");
        response.assert_rejected(400, "bad_request");
        assert!(response.text().contains("malformed: plain_http_on_a_tls_port"), "{response:?}");
        plain.assert_closed();
        let mut other = Client::connect(gateway.address("plain"));
        other.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03");
        let response = other.read("GET");
        response.assert_rejected(400, "bad_request");
        assert!(response.text().contains("malformed: tls_on_a_plain_http_port"), "{response:?}");
        let counted = || gateway.metric("ringgate_tls_handshake_failures_total", &[("reason", "plain_http")]);
        eventually("it is counted", || (counted() == 1.0).then_some(()));
    }
}

#[test]
fn a_handshake_that_does_not_end_has_no_more_time_than_a_head() {
    for driver in possible() {
        let authority = authority();
        let listener = format!("{}header_timeout = \"200ms\"\n", authority.listener("server"));
        let config = "[[route]]\nrespond = { body = \"ok\" }\n";
        let gateway = Gateway::start_with(driver, &Setup { listener: &listener, config, ..Setup::default() });
        for begin in [&b""[..], b"\x16\x03\x01\x02\x00"] {
            let mut slow = TcpStream::connect(gateway.address("edge")).unwrap();
            slow.write_all(begin).unwrap();
            let mut rest = Vec::new();
            let _ = slow.read_to_end(&mut rest);
        }
        eventually("both are counted", || {
            let failed = gateway.metric("ringgate_tls_handshake_failures_total", &[("reason", "timeout")]);
            (failed == 2.0).then_some(())
        });
        assert_eq!(client(&gateway, &authority.client()).get("/").status, 200);
    }
}

#[test]
fn old_versions_are_refused_where_the_listener_says_so() {
    for driver in possible() {
        let authority = authority();
        let config = "[[route]]\nrespond = { body = \"ok\" }\n";
        let listener =
            |oldest| format!("tls = {{ certificates = [{}], min_version = \"{oldest}\" }}", authority.files("server"));
        let old = ClientConfig::builder_with_protocol_versions(&[&rustls::version::TLS12]);
        let old = Arc::new(old.with_root_certificates(authority.roots()).with_no_client_auth());
        for (oldest, is_taken) in [("1.2", true), ("1.3", false)] {
            let setup = Setup { listener: &listener(oldest), config, ..Setup::default() };
            let gateway = Gateway::start_with(driver, &setup);
            let session = session(&gateway, &old, "localhost");
            assert_eq!(session.is_ok(), is_taken, "{oldest}");
            if let Ok(session) = session {
                assert_eq!(session.ask(|it| it.protocol_version()), Some(ProtocolVersion::TLSv1_2));
                assert_eq!(Client::over(Stream::Tls(Box::new(session))).get("/").status, 200);
            }
        }
    }
}

#[test]
fn an_endpoint_with_the_wrong_certificate_is_none_and_the_next_one_is_asked() {
    for driver in possible() {
        let (authority, other) = (authority(), Authority::new());
        other.sign("server", &["localhost"]);
        authority.sign("elsewhere", &["elsewhere.example"]);
        for (rules, reason) in
            [(other.server("server"), "unknown_issuer"), (authority.server("elsewhere"), "wrong_name")]
        {
            let wrong = Upstream::encrypted(rules, answer_each(|_, conn| conn.reply(200, "wrong")));
            let right =
                Upstream::encrypted(authority.server("server"), answer_each(|_, conn| conn.reply(200, "right")));
            let endpoints = crate::support::first_then(&wrong, &right);
            let tls = format!(
                "tls = {{ ca = \"{}\", name = \"localhost\" }}\noutlier = {{ enabled = false }}",
                authority.ca()
            );
            let mut gateway = gateway(driver, &authority, &behind_endpoints(&endpoints, "", &tls));
            let mut client = client(&gateway, &authority.client());
            for _ in 0..3 {
                // nothing was sent, so that a POST goes on too
                assert_eq!(client.request("POST", "/", &[], b"once").text(), "right");
            }
            assert!(wrong.requests().is_empty());
            let page = gateway.admin("/upstreams").text();
            assert!(page.contains("\"handshake_failure\":{\"age_seconds\":"), "{page}");
            assert!(page.contains(&format!("\"reason\":\"{reason}\"")), "{page}");
            let (endpoint, reason) = (format!("endpoint={}", wrong.address()), format!("reason={reason}"));
            said(&mut gateway, &["tls handshake failed upstream=svc", &endpoint, &reason]);
        }
    }
}

#[test]
fn verification_can_be_switched_off_by_a_key_that_says_so() {
    for driver in possible() {
        let (authority, other) = (authority(), Authority::new());
        other.sign("server", &["elsewhere.example"]);
        let service = Upstream::encrypted(other.server("server"), answer_each(|_, conn| conn.reply(200, "ok")));
        let mut gateway =
            gateway(driver, &authority, &behind(&[&service], "", "tls = { insecure_skip_verify = true }"));
        assert_eq!(client(&gateway, &authority.client()).get("/").text(), "ok");
        said(&mut gateway, &["WARN", "insecure_skip_verify"]);
    }
}

#[test]
fn health_checks_speak_tls_too() {
    for driver in possible() {
        let (authority, other) = (authority(), Authority::new());
        other.sign("server", &["localhost"]);
        let check = "health_check = { path = \"/healthz\", interval = \"100ms\", rise = 1, fall = 1 }";
        for (rules, verdict) in [(authority.server("server"), 1.0), (other.server("server"), 0.0)] {
            let service = Upstream::encrypted(rules, answer_each(|_, conn| conn.reply(200, "ok")));
            let tls = format!("tls = {{ ca = \"{}\", name = \"localhost\" }}\n{check}", authority.ca());
            let gateway = gateway(driver, &authority, &behind(&[&service], "", &tls));
            eventually("it is judged", || {
                let page = gateway.admin("/upstreams").text();
                match verdict {
                    1.0 => page.contains("\"healthy\"") && page.contains("\"handshake_failure\":null"),
                    _ => page.contains("\"tls\"") && page.contains("\"reason\":\"unknown_issuer\""),
                }
                .then_some(())
            });
        }
    }
}

#[test]
fn certificates_change_while_it_runs_and_a_broken_one_changes_nothing() {
    for driver in possible() {
        let authority = authority();
        let config = "[[route]]\nrespond = { body = \"ok\" }\n";
        let setup = Setup { listener: &authority.listener("server"), config, ..Setup::default() };
        let mut gateway = Gateway::start_with(driver, &setup);
        let text = setup.file(driver);
        let rules = authority.client();
        let mut before = client(&gateway, &rules);
        assert_eq!(before.get("/").status, 200);
        let serial = |gateway: &Gateway| {
            let session = session(gateway, &authority.client(), "localhost").expect("a session");
            session.ask(|it| it.peer_certificates().expect("one")[0].to_vec())
        };
        let first = serial(&gateway);
        authority.sign("server", &["localhost"]);
        assert_eq!(serial(&gateway), first, "not before the reload");
        gateway.reload_well(&text);
        let second = serial(&gateway);
        assert_ne!(second, first);
        assert_eq!(before.get("/").status, 200, "what is open stays as it is");
        write_anew(&authority.path("server.key"), "no key");
        let response = gateway.reload(&text);
        assert_eq!(response.status, 422, "{response:?}");
        assert!(response.text().contains("holds no private key"), "{response:?}");
        assert_eq!(serial(&gateway), second, "the one before stays");
        assert!(session(&gateway, &rules, "localhost").is_ok());
    }
}

#[test]
fn an_upgraded_connection_ends_by_halves() {
    for driver in possible() {
        let authority = authority();
        let service = Upstream::encrypted(authority.server("server"), |conn| {
            let Some(_) = conn.head() else { return };
            conn.send("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n");
            let mut all = Vec::new();
            while let Some(byte) = conn.take(1) {
                all.extend(byte);
            }
            // the client has ended its half, and is still there to hear
            conn.send(&all);
            conn.stream().end();
        });
        let tls = format!("tls = {{ ca = \"{}\", name = \"localhost\" }}", authority.ca());
        let gateway = gateway(driver, &authority, &behind(&[&service], "", &tls));
        let mut client = client(&gateway, &authority.client());
        client.send("GET / HTTP/1.1\r\nHost: test\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n");
        assert_eq!(client.read_head().unwrap().0, 101);
        let sent = noise(7, 100_000);
        client.send(&sent);
        client.stream().end();
        assert!(client.read_to_end().expect("an end that is said") == sent);
    }
}

#[test]
fn a_session_begins_behind_a_proxy_header() {
    for driver in possible() {
        let authority = authority();
        let service = Upstream::always("ok");
        let listener =
            format!("{}proxy_protocol = true\ntrusted_proxies = [\"127.0.0.1\"]\n", authority.listener("server"));
        let config = behind(&[&service], "", "");
        let gateway = Gateway::start_with(driver, &Setup { listener: &listener, config: &config, ..Setup::default() });
        let mut socket = TcpStream::connect(gateway.address("edge")).unwrap();
        socket.write_all(b"PROXY TCP4 192.0.2.7 127.0.0.1 5000 443\r\n").unwrap();
        let session = Session::connect(socket, authority.client(), "localhost").expect("a session");
        assert_eq!(Client::over(Stream::Tls(Box::new(session))).get("/").text(), "ok");
        let request = service.requests().pop().unwrap();
        assert_eq!(request.header("x-forwarded-for"), Some("192.0.2.7"));
        assert_eq!(request.header("x-forwarded-proto"), Some("https"));
    }
}

#[test]
fn a_client_that_leaves_within_the_handshake_costs_nothing() {
    for driver in possible() {
        let authority = authority();
        let gateway = gateway(driver, &authority, "[[route]]\nrespond = { body = \"ok\" }\n");
        for begin in
            [&b"\x16\x03\x01\x02\x00\x01"[..], b"\x16\x03\x01\x00\x02\x01\x00", b"\x15\x03\x01\x00\x02\x02\x28"]
        {
            let mut socket = TcpStream::connect(gateway.address("edge")).unwrap();
            socket.write_all(begin).unwrap();
            socket.shutdown(Shutdown::Write).unwrap();
            let mut rest = Vec::new();
            let _ = socket.read_to_end(&mut rest);
        }
        eventually("all are gone", || (gateway.metric("ringgate_connections", &[]) == 0.0).then_some(()));
        eventually("the failures are counted", || {
            (gateway.metric("ringgate_tls_handshake_failures_total", &[]) == 3.0).then_some(())
        });
    }
}

#[test]
fn a_renewed_certificate_is_noticed_where_files_are_watched() {
    let authority = authority();
    let config = "[[route]]\nrespond = { body = \"ok\" }\n";
    let setup = Setup { listener: &authority.listener("server"), config, ..Setup::default() };
    let mut gateway = Gateway::start_with(Driver::Epoll, &setup);
    gateway.reload_well(&setup.file(Driver::Epoll).replace("[gateway]\n", "[gateway]\nwatch = true\n"));
    let rules = authority.client();
    let shown = || {
        let session = session(&gateway, &rules, "localhost").expect("a session");
        session.ask(|it| it.peer_certificates().expect("one")[0].to_vec())
    };
    let first = shown();
    authority.sign("server", &["localhost"]);
    // no reload that somebody asks for
    eventually("the new one is shown", || (shown() != first).then_some(()));
}

#[test]
fn the_example_is_a_whole_configuration_and_explain_tells_which_certificate_a_name_gets() {
    let authority = authority();
    authority.sign("example", &["a.example"]);
    authority.sign("wild", &["*.b.example"]);
    std::fs::create_dir(authority.path("tls.d")).unwrap();
    for file in ["wild.pem", "wild.key"] {
        std::fs::rename(authority.path(file), authority.path("tls.d").join(file)).unwrap();
    }
    std::fs::copy(authority.ca(), authority.path("internal-ca.pem")).unwrap();
    let text = include_str!("../../config/examples/tls.toml");
    let folder = authority.path("");
    let folder = folder.to_str().unwrap().trim_end_matches('/');
    let text =
        text.replace("/etc/ringgate/tls/", &format!("{folder}/")).replace("/etc/ringgate/", &format!("{folder}/"));
    let file = authority.path("tls.toml");
    std::fs::write(&file, &text).unwrap();
    let file = file.to_str().unwrap();
    let said = run_to_end(&["check", "-c", file]);
    assert_eq!((said.code, said.stderr.contains("error")), (Some(0), false), "{}", said.stderr);
    for (name, certificate) in [("a.example", "example.pem"), ("x.b.example", "wild.pem"), ("other", "the default is")]
    {
        let said = run_to_end(&["explain", "-c", file, "GET", &format!("https://{name}/")]);
        let line = said.stdout.lines().find(|line| line.contains("TLS: ")).unwrap_or_else(|| panic!("{}", said.stdout));
        assert!(line.contains(certificate), "{line}");
    }
    // every error at once, each with its key and its file
    std::fs::write(authority.path("example.key"), "no key").unwrap();
    std::fs::remove_file(authority.path("internal-ca.pem")).unwrap();
    let said = run_to_end(&["check", "-c", file]);
    assert_eq!(said.code, Some(1));
    for part in ["listener[0].tls.certificates[0].key", "holds no private key", "upstream.app.tls.ca", "cannot be read"]
    {
        assert!(said.stderr.contains(part), "{part}: {}", said.stderr);
    }
}

#[test]
fn a_key_of_another_certificate_is_refused_and_one_that_has_ended_is_warned_of() {
    let authority = authority();
    authority.sign("other", &["localhost"]);
    authority.sign_with("ended", &["localhost"], |it| it.not_after = rcgen::date_time_ymd(2020, 1, 1));
    let check = |chain: &str, key: &str| {
        let (chain, key) = (authority.path(chain), authority.path(key));
        let text = format!(
            "[[listener]]\nlisten = \"127.0.0.1:0\"\ntls = {{ certificates = [{{ chain = \"{}\", key = \"{}\" }}] }}\n\
             [[route]]\nrespond = {{ body = \"ok\" }}\n",
            chain.display(),
            key.display()
        );
        let file = authority.path("check.toml");
        std::fs::write(&file, text).unwrap();
        run_to_end(&["check", "-c", file.to_str().unwrap()])
    };
    let said = check("server.pem", "other.key");
    assert_eq!(said.code, Some(1));
    assert!(said.stderr.contains("not that of the first certificate"), "{}", said.stderr);
    let said = check("ended.pem", "ended.key");
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    assert!(said.stderr.contains("the certificate has ended"), "{}", said.stderr);
    assert!(said.stderr.contains("can read the private key"), "{}", said.stderr);
}
