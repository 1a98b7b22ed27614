//! Signed requests (RFC 9421) through the gateway: whose they are, that they are taken once on whichever core, and that no endpoint sees a body that was
//! changed. What is signed is put together here by hand, and not by what the gateway verifies it with.

use crate::http2::{self, CLEAR};
use crate::support::client::Response;
use crate::support::gateway::run_to_end;
use crate::support::tls;
use crate::support::{Client, Driver, Gateway, Setup, Upstream, behind, eventually, lock, on_both_drivers};
use aws_lc_rs::{digest, hmac};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// To be found nowhere.
const SECRET: &str = "a planted-secret of acme's, and a long one";
/// Of the example.
const EXAMPLE: &[u8] = b"here is a secret of thirty-two b";

fn now() -> u64 {
    ringgate::net::clock::wall().as_secs()
}

fn fresh() -> String {
    static NONCES: AtomicU64 = AtomicU64::new(0);
    format!("nonce-{}", NONCES.fetch_add(1, Ordering::Relaxed))
}

fn digest_of(body: &[u8]) -> String {
    format!("sha-256=:{}:", STANDARD.encode(digest::digest(&digest::SHA256, body)))
}

/// A request as its client would sign it.
#[derive(Clone)]
struct Signing<'a> {
    method: &'a str,
    host: &'a str,
    path: &'a str,
    query: &'a str,
    body: &'a [u8],
    created: u64,
    nonce: String,
    key: (&'a str, &'a [u8]),
}

impl<'a> Signing<'a> {
    fn new(method: &'a str, path: &'a str, body: &'a [u8]) -> Self {
        let key = ("acme-1", SECRET.as_bytes());
        Self { method, host: "test", path, query: "", body, created: now(), nonce: fresh(), key }
    }

    /// The headers of it.
    fn headers(&self) -> Vec<(&'static str, String)> {
        let Self { method, host, path, query, created, nonce, key, .. } = self;
        let has_body = !self.body.is_empty();
        let digest = digest_of(self.body);
        let (line, covered) = match has_body {
            true => (format!("\"content-digest\": {digest}\n"), " \"content-digest\""),
            false => (String::new(), ""),
        };
        let params = format!(
            "(\"@method\" \"@authority\" \"@path\" \"@query\"{covered});created={created};keyid=\"{}\";nonce=\"{nonce}\"",
            key.0
        );
        let base = format!(
            "\"@method\": {method}\n\"@authority\": {host}\n\"@path\": {path}\n\"@query\": ?{query}\n{line}\"@signature-params\": {params}"
        );
        let tag = STANDARD.encode(hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key.1), base.as_bytes()));
        let mut headers = vec![("Signature-Input", format!("sig={params}")), ("Signature", format!("sig=:{tag}:"))];
        if has_body {
            headers.push(("Content-Digest", digest));
        }
        headers
    }

    fn target(&self) -> String {
        if self.query.is_empty() { self.path.to_owned() } else { format!("{}?{}", self.path, self.query) }
    }
}

fn borrowed<'h>(headers: &'h [(&'static str, String)]) -> Vec<(&'static str, &'h str)> {
    headers.iter().map(|(name, value)| (*name, value.as_str())).collect()
}

/// Sends it as it was signed.
fn ask(client: &mut Client, signing: &Signing<'_>) -> Response {
    let headers = signing.headers();
    client.request(signing.method, &signing.target(), &borrowed(&headers), signing.body)
}

fn config(upstream: &Upstream, route: &str, rules: &str) -> String {
    behind(&[upstream], &format!("auth = [\"signed\"]\n{route}"), "")
        + &format!(
            "[auth.signed]\nheaders = {{ x-who = \"{{consumer}}\" }}\nsignature = {{ {rules} }}\n\
             [consumer.acme]\ngroups = [\"partners\"]\nsignature = [{{ keyid = \"acme-1\", secret = \"{SECRET}\" }}]\n"
        )
}

fn start(driver: Driver, upstream: &Upstream, rules: &str) -> Gateway {
    Gateway::start_with(driver, &Setup { listener: CLEAR, config: &config(upstream, "", rules), ..Setup::default() })
}

on_both_drivers! {
    fn a_signature_says_who_sends_the_request(driver: Driver) {
        let upstream = Upstream::always("ok");
        let gateway = start(driver, &upstream, "");
        let mut client = gateway.client();
        assert_eq!(ask(&mut client, &Signing::new("GET", "/orders", b"")).status, 200);
        let with_query = Signing { query: "a=%20b&c", ..Signing::new("POST", "/orders/7", b"{\"n\": 1}") };
        let mut headers = with_query.headers();
        headers.push(("X-Who", "root".to_owned()));
        assert_eq!(client.request("POST", &with_query.target(), &borrowed(&headers), with_query.body).status, 200);
        let requests = upstream.requests();
        let said = ["x-who", "signature", "signature-input"].map(|name| requests[1].header(name).map(str::to_owned));
        assert_eq!(said, [Some("acme".to_owned()), None, None]);
        assert_eq!(requests[1].header("content-digest"), Some(&*digest_of(b"{\"n\": 1}")), "the endpoint may look, too");
        assert_eq!((requests[1].target.as_str(), &*requests[1].body), ("/orders/7?a=%20b&c", &b"{\"n\": 1}"[..]));
        eventually("they are counted", || {
            (gateway.metric("ringgate_consumer_requests_total", &[("consumer", "acme")]) == 2.0).then_some(())
        });
    }

    fn what_was_changed_is_401_and_says_what_is_wanted(driver: Driver) {
        let upstream = Upstream::always("ok");
        let gateway = start(driver, &upstream, "max_age = \"60s\", leeway = \"10s\"");
        let mut client = gateway.client();
        let good = || Signing { query: "a=1", ..Signing::new("PUT", "/orders/7", b"seven") };
        assert_eq!(ask(&mut client, &good()).status, 200);
        let bare = client.get("/");
        bare.assert_rejected(401, "unauthenticated");
        let wanted = "Signature realm=\"signed\", components=\"@method @authority @path @query\"";
        assert_eq!(bare.header("www-authenticate"), Some(wanted));
        let sent = |signing: &Signing<'_>, method: &str, target: &str, host: &str, body: &[u8]| {
            let mut headers = signing.headers();
            headers.push(("Host", host.to_owned()));
            gateway.request(method, target, &borrowed(&headers), body)
        };
        let path = "/orders/7?a=1";
        assert_eq!(sent(&good(), "PUT", path, "TEST", b"seven").status, 200, "the host in capitals is the host");
        let other_key = Signing { key: ("acme-1", &[7; 32]), ..good() };
        let nobodys = Signing { key: ("acme-2", SECRET.as_bytes()), ..good() };
        let old = Signing { created: now() - 75, ..good() };
        let early = Signing { created: now() + 30, ..good() };
        let without_digest = Signing { body: b"", ..good() };
        for (what, response) in [
            ("method", sent(&good(), "POST", path, "test", b"seven")),
            ("path", sent(&good(), "PUT", "/orders/8?a=1", "test", b"seven")),
            ("query", sent(&good(), "PUT", "/orders/7?a=2", "test", b"seven")),
            ("no query", sent(&good(), "PUT", "/orders/7", "test", b"seven")),
            ("host", sent(&good(), "PUT", path, "other", b"seven")),
            ("another key", sent(&other_key, "PUT", path, "test", b"seven")),
            ("nobody's key", sent(&nobodys, "PUT", path, "test", b"seven")),
            ("too old", sent(&old, "PUT", path, "test", b"seven")),
            ("of the future", sent(&early, "PUT", path, "test", b"seven")),
            ("a body without a digest", sent(&without_digest, "PUT", path, "test", b"seven")),
        ] {
            assert_eq!(response.status, 401, "{what}");
            response.assert_rejected(401, "unauthenticated");
            let wanted = format!("{} content-digest\", error=\"invalid_signature\"", wanted.trim_end_matches('"'));
            assert_eq!(response.header("www-authenticate"), Some(&*wanted), "{what}");
        }
        assert_eq!(upstream.requests().len(), 2);
        let refused = || gateway.metric("ringgate_rejected_total", &[("route", "all"), ("reason", "unauthenticated")]);
        eventually("all are counted", || (refused() >= 11.0).then_some(()));
    }

    fn a_body_is_the_one_that_was_signed_or_no_endpoint_sees_it(driver: Driver) {
        let upstream = Upstream::always("ok");
        let gateway = start(driver, &upstream, "max_body = \"100KiB\"");
        let body = vec![b'x'; 90_000];
        let chunked = |client: &mut Client, signing: &Signing<'_>, pieces: &[&[u8]]| {
            let lines: String = signing.headers().iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
            client.send(format!("{} {} HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n{lines}\r\n", signing.method, signing.target()));
            for piece in pieces {
                client.send([format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat());
            }
        };
        // right, by its length and in chunks; and the connection goes on
        let mut client = gateway.client();
        assert_eq!(ask(&mut client, &Signing::new("POST", "/", &body)).status, 200);
        chunked(&mut client, &Signing::new("POST", "/", &body), &[&body[..60_000]]);
        assert_eq!(upstream.requests().len(), 1, "half of it is nothing to be passed on");
        client.send([b"7530\r\n", &body[60_000..], b"\r\n0\r\n\r\n"].concat());
        assert_eq!(client.read("POST").status, 200);
        assert_eq!(upstream.requests()[1].body, body);
        // another one of the same length
        let signing = Signing::new("POST", "/", &body);
        let mut other = body.clone();
        other[89_999] = b'y';
        let headers = signing.headers();
        client.request("POST", "/", &borrowed(&headers), &other).assert_rejected(400, "digest_mismatch");
        chunked(&mut client, &Signing::new("POST", "/", &body), &[&other, b""]);
        client.read("POST").assert_rejected(400, "digest_mismatch");
        // none at all, where one was signed
        chunked(&mut client, &Signing::new("POST", "/", b"x"), &[b""]);
        client.read("POST").assert_rejected(400, "digest_mismatch");
        // too large, said and found out
        let large = vec![b'x'; 110_000];
        ask(&mut gateway.client(), &Signing::new("POST", "/", &large)).assert_rejected(413, "payload_too_large");
        drop(client);
        let mut client = gateway.client();
        chunked(&mut client, &Signing::new("POST", "/", &large), &[&large]);
        client.send("0\r\n\r\n");
        client.read("POST").assert_rejected(413, "payload_too_large");
        assert_eq!(upstream.requests().len(), 2);
        let wrong = || gateway.metric("ringgate_rejected_total", &[("route", "all"), ("reason", "digest_mismatch")]);
        eventually("all are counted", || (wrong() >= 3.0).then_some(()));
        assert_eq!(wrong(), 3.0);
        drop(client);
        gateway.assert_nothing_left();
    }

    fn bodies_are_left_alone_where_that_is_said(driver: Driver) {
        let upstream = Upstream::always("ok");
        let gateway = start(driver, &upstream, "content_digest = false, nonce = \"optional\"");
        let headers = Signing::new("POST", "/", b"").headers();
        assert_eq!(gateway.request("POST", "/", &borrowed(&headers), b"whatever").status, 200);
        assert_eq!(gateway.request("POST", "/", &borrowed(&headers), b"whatever").status, 401, "its nonce is taken once all the same");
    }

    fn a_request_is_taken_once_on_whichever_core(driver: Driver) {
        let upstream = Upstream::always("ok");
        let text = config(&upstream, "", "");
        let setup = Setup { workers: 2, config: &text, ..Setup::default() };
        let mut gateway = Gateway::start_with(driver, &setup);
        let signings: Vec<_> = (0..20).map(|_| Signing::new("GET", "/", b"")).collect();
        let taken = Mutex::new(0);
        // the same twenty over eight connections at once, which both workers have some of
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let mut client = gateway.client();
                    for signing in &signings {
                        let status = ask(&mut client, signing).status;
                        assert!(matches!(status, 200 | 401), "{status}");
                        *lock(&taken) += usize::from(status == 200);
                    }
                });
            }
        });
        // where two workers meet over one nonce in the same moment, both may refuse it, and none take it twice
        assert!(*lock(&taken) <= 20 && *lock(&taken) >= 10, "{}", lock(&taken));
        assert_eq!(upstream.requests().len(), *lock(&taken));
        // a reload forgets nothing
        let again = signings[0].clone();
        let file = std::fs::read_to_string(gateway.file()).unwrap();
        gateway.reload_well(&file);
        assert_eq!(ask(&mut gateway.client(), &again).status, 401);
        assert_eq!(ask(&mut gateway.client(), &Signing::new("GET", "/", b"")).status, 200);
        // nor does an upgrade
        gateway.upgrade();
        assert_eq!(ask(&mut gateway.client(), &again).status, 401);
        assert_eq!(ask(&mut gateway.client(), &Signing::new("GET", "/", b"")).status, 200);
    }

    fn a_signature_that_is_left_out_does_not_make_a_request_new(driver: Driver) {
        let upstream = Upstream::always("ok");
        let gateway = start(driver, &upstream, "");
        let (first, second) = (Signing::new("GET", "/", b""), Signing::new("GET", "/", b""));
        let renamed = second.headers().into_iter().map(|(name, value)| (name, value.replacen("sig=", "other=", 1)));
        let other: Vec<_> = renamed.collect();
        let both = [first.headers(), other.clone()].concat();
        assert_eq!(gateway.request("GET", "/", &borrowed(&both), b"").status, 200);
        for left in [&first.headers(), &other, &both] {
            assert_eq!(gateway.request("GET", "/", &borrowed(left), b"").status, 401);
        }
        assert_eq!(upstream.requests().len(), 1);
    }

    fn a_longer_age_does_not_make_an_old_request_good_again(driver: Driver) {
        let upstream = Upstream::always("ok");
        let mut gateway = Gateway::start(driver, &config(&upstream, "", "max_age = \"60s\", leeway = \"0s\""));
        let old = Signing { created: now() - 100, ..Signing::new("GET", "/", b"") };
        assert_eq!(ask(&mut gateway.client(), &old).status, 401);
        let file = std::fs::read_to_string(gateway.file()).unwrap();
        gateway.reload_well(&file.replace("max_age = \"60s\"", "max_age = \"1h\""));
        assert_eq!(ask(&mut gateway.client(), &old).status, 401, "it may have been taken when it was young");
        assert_eq!(ask(&mut gateway.client(), &Signing::new("GET", "/", b"")).status, 200);
        // where that was said from the beginning it is good
        let gateway = Gateway::start(driver, &config(&upstream, "", "max_age = \"1h\", leeway = \"0s\""));
        assert_eq!(ask(&mut gateway.client(), &old).status, 200);
    }

    fn streams_are_signed_as_requests_are(driver: Driver) {
        if tls::is_down() {
            return; // the client of this test speaks it without TLS
        }
        let upstream = Upstream::always("ok");
        let gateway = start(driver, &upstream, "max_body = \"1MiB\"");
        let body = vec![b'z'; 200_000];
        let request = |signing: &Signing<'_>| {
            let mut request = http::Request::builder().method(signing.method).uri(format!("http://test{}", signing.target()));
            for (name, value) in signing.headers() {
                request = request.header(name, value);
            }
            request.body(()).unwrap()
        };
        http2::run(async {
            let sender = http2::connect(&gateway).await;
            let get = Signing { query: "q=1", ..Signing::new("GET", "/s", b"") };
            assert_eq!(http2::ask(&sender, request(&get)).await.unwrap().status(), 200);
            assert_eq!(http2::ask(&sender, request(&get)).await.unwrap().status(), 401, "it was taken");
            let post = Signing::new("POST", "/s", &body);
            assert_eq!(http2::post(&sender, request(&post), &body).await.unwrap().0, 200);
            let (status, said) = http2::post(&sender, request(&Signing::new("POST", "/s", &body)), &body[1..]).await.unwrap();
            assert_eq!((status, String::from_utf8_lossy(&said).contains("digest_mismatch")), (400, true));
            let mut other = request(&Signing::new("GET", "/s", b""));
            *other.uri_mut() = "http://elsewhere/s".parse().unwrap();
            assert_eq!(http2::ask(&sender, other).await.unwrap().status(), 401);
        });
        assert_eq!(upstream.requests().iter().map(|it| it.body.len()).collect::<Vec<_>>(), [0, 200_000]);
    }

    fn no_secret_is_shown_and_explain_says_why(driver: Driver) {
        let upstream = Upstream::always("ok");
        let mut gateway = Gateway::start(driver, &config(&upstream, "allow = { group = [\"partners\"] }", ""));
        let explain = |signing: &Signing<'_>| {
            let of = |(name, value): &(&str, String)| vec!["-H".to_owned(), format!("{name}: {value}")];
            let headers: Vec<_> = signing.headers().iter().flat_map(of).collect();
            let scheme = if tls::is_down() { "https" } else { "http" };
            let url = format!("{scheme}://test{}", signing.target());
            let file = gateway.file();
            let mut arguments = vec!["explain", "-c", &file, signing.method, &url];
            arguments.extend(headers.iter().map(String::as_str));
            run_to_end(&arguments).stdout
        };
        let good = explain(&Signing::new("GET", "/a", b""));
        assert!(good.contains("signed recognises acme, in partners") && good.contains("verdict    allowed"), "{good}");
        assert!(good.contains("whether its nonce was taken before"), "{good}");
        let old = explain(&Signing { created: 1, ..Signing::new("GET", "/a", b"") });
        assert!(old.contains("the signature is not believed: created is missing, too old") && old.contains("401"), "{old}");
        assert_eq!(ask(&mut gateway.client(), &Signing::new("GET", "/a", b"")).status, 200);
        let mut pages = vec![good, old];
        for page in ["/config", "/metrics", "/usage", "/routes"] {
            pages.push(gateway.admin(page).text());
        }
        let shown = gateway.admin("/config").json();
        assert_eq!(shown["consumer"]["acme"]["signature"][0]["keyid"], "acme-1");
        assert_eq!(shown["auth"]["signed"]["signature"]["nonce"], "required");
        // a secret that is too short to be one, and where a public key should stand
        let file = std::fs::read_to_string(gateway.file()).unwrap();
        for mistaken in [file.replace(SECRET, "planted-secret"), file.replace("keyid = ", "algorithm = \"ed25519\", keyid = ")] {
            let refused = gateway.reload(&mistaken);
            assert_ne!(refused.status, 200);
            pages.push(refused.text());
        }
        pages.push(gateway.running().stderr().join("\n"));
        for (row, page) in pages.iter().enumerate() {
            assert!(!page.contains("planted-secret"), "a secret in {row}: {page}");
        }
    }
}

#[test]
fn the_example_does_what_it_says() {
    if tls::is_up() || tls::is_down() {
        return; // it is plain HTTP on both sides
    }
    let upstream = Upstream::always("ok");
    let example = include_str!("../../config/examples/signatures.toml");
    let text = example
        .replace("127.0.0.1:8080\"", "127.0.0.1:0\"")
        .replace("listen = ", "name = \"edge\"\nlisten = ")
        .replace("127.0.0.1:9001", upstream.address());
    let text = format!("[admin]\nlisten = \"127.0.0.1:0\"\nhosts = [\"test\"]\n{text}");
    let gateway = Gateway::start_file(tempfile::tempdir().unwrap(), &text);
    let signing = Signing { key: ("acme-2026", EXAMPLE), ..Signing::new("POST", "/orders", b"{}") };
    assert_eq!(ask(&mut gateway.client(), &signing).status, 200);
    assert_eq!(ask(&mut gateway.client(), &signing).status, 401, "nobody can send it again");
    assert_eq!(gateway.request("POST", "/orders", &[], b"{}").status, 401);
    assert_eq!(upstream.requests()[0].header("x-consumer"), Some("acme"));
}
