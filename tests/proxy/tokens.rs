//! Tokens (JWT) through the gateway: who they are about, what they may do, what the endpoint learns, and what is not believed.

use crate::support::gateway::run_to_end;
use crate::support::tls;
use crate::support::{Driver, Gateway, Upstream, behind, eventually, lock, on_both_drivers};
use aws_lc_rs::signature::Ed25519KeyPair;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};

/// The key pair of RFC 8037 §A.1, which everybody has.
pub(crate) const JWK: &str = r#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;
pub(crate) const PRIVATE: &str = "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A";

pub(crate) fn now() -> u64 {
    ringgate::net::clock::wall().as_secs()
}

pub(crate) fn signed_as(header: &Value, claims: &Value, seed: &[u8]) -> String {
    let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let signed = format!("{}.{}", encode(header.to_string().as_bytes()), encode(claims.to_string().as_bytes()));
    let pair = Ed25519KeyPair::from_seed_unchecked(seed).unwrap();
    let signature = encode(pair.sign(signed.as_bytes()).as_ref());
    format!("{signed}.{signature}")
}

fn signed(claims: &Value) -> String {
    signed_as(&json!({ "alg": "EdDSA", "typ": "JWT" }), claims, &URL_SAFE_NO_PAD.decode(PRIVATE).unwrap())
}

pub(crate) fn bearer(claims: &Value) -> String {
    format!("Bearer {}", signed(claims))
}

fn start(driver: Driver, upstream: &Upstream, route: &str, auth: &str) -> Gateway {
    let auth = format!(
        "[auth.jwt]\nkey = {{ inline = '{JWK}' }}\nalgorithms = [\"EdDSA\"]\n{auth}\n[consumer.acme]\ngroups = [\"partners\"]\n"
    );
    Gateway::start(driver, &(behind(&[upstream], route, "") + &auth))
}

pub(crate) fn ask(gateway: &Gateway, authorization: &str) -> u16 {
    gateway.request("GET", "/", &[("Authorization", authorization)], b"").status
}

on_both_drivers! {
    fn a_token_says_who_sends_the_request(driver: Driver) {
        let upstream = Upstream::always("ok");
        let told = "headers = { x-user = \"{consumer}\", x-groups = \"{groups}\", x-tier = \"{claim.org.tier}\", x-odd = \"{claim.odd}\" }";
        let gateway = start(driver, &upstream, "auth = [\"jwt\"]", told);
        let mut client = gateway.client();
        let claims = json!({ "sub": "acme", "exp": now() + 600, "org": { "tier": 3 }, "odd": "a\r\nx-admin: 1" });
        let headers = [("Authorization", bearer(&claims)), ("X-User", "root".to_owned()), ("X-Tier", "9".to_owned())];
        let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        for _ in 0..3 {
            assert_eq!(client.request("GET", "/", &headers, b"").status, 200);
        }
        let stranger = bearer(&json!({ "sub": "dora@example.com", "exp": now() + 600 }));
        assert_eq!(client.request("GET", "/", &[("Authorization", &stranger), ("X-Odd", "1")], b"").status, 200);
        let requests = upstream.requests();
        for request in &requests[..3] {
            let said = ["x-user", "x-groups", "x-tier", "x-odd", "x-admin", "authorization"].map(|name| request.header(name));
            assert_eq!(said, [Some("acme"), Some("partners"), Some("3"), None, None, None]);
        }
        assert_eq!((requests[3].header("x-user"), requests[3].header("x-groups"), requests[3].header("x-odd")), (Some("dora@example.com"), Some(""), None));
        eventually("they are counted", || {
            let of = |name| gateway.metric("ringgate_consumer_requests_total", &[("consumer", name)]);
            (of("acme") == 3.0 && of("other") == 1.0).then_some(())
        });
    }

    fn what_is_not_believed_is_401_and_says_so(driver: Driver) {
        let upstream = Upstream::always("ok");
        let gateway = start(driver, &upstream, "auth = [\"jwt\"]", "leeway = \"0s\"");
        let good = json!({ "sub": "acme", "exp": now() + 600 });
        let bare = gateway.get("/");
        bare.assert_rejected(401, "unauthenticated");
        assert_eq!(bare.header("www-authenticate"), Some("Bearer realm=\"jwt\""));
        let token = signed(&good);
        let (body, signature) = token.rsplit_once('.').unwrap();
        let unsigned = format!("{}.{}.", URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#), body.split_once('.').unwrap().1);
        for wrong in [
            signed(&json!({ "sub": "acme", "exp": now() - 1 })),
            signed(&json!({ "sub": "acme" })),
            signed(&json!({ "sub": "acme", "exp": now() + 600, "aud": "elsewhere" })),
            signed_as(&json!({ "alg": "EdDSA" }), &good, &[7; 32]),
            signed_as(&json!({ "alg": "EdDSA", "crit": ["x"], "x": 1 }), &good, &URL_SAFE_NO_PAD.decode(PRIVATE).unwrap()),
            unsigned,
            format!("{body}.{}", signature.to_ascii_lowercase()),
            format!("{body}."),
            "a".repeat(10_000),
        ] {
            let refused = gateway.request("GET", "/", &[("Authorization", &format!("Bearer {wrong}"))], b"");
            refused.assert_rejected(401, "unauthenticated");
            assert_eq!(refused.header("www-authenticate"), Some("Bearer realm=\"jwt\", error=\"invalid_token\""), "{wrong}");
        }
        assert_eq!(ask(&gateway, &format!("Basic {token}")), 401);
        assert_eq!((ask(&gateway, &format!("Bearer {token}")), upstream.requests().len()), (200, 1));
    }

    fn a_remembered_token_is_believed_until_it_is_over(driver: Driver) {
        let upstream = Upstream::always("ok");
        let gateway = start(driver, &upstream, "auth = [\"jwt\"]", "leeway = \"0s\"");
        let until = now() + 3;
        let token = bearer(&json!({ "sub": "acme", "exp": until }));
        assert_eq!((ask(&gateway, &token), ask(&gateway, &token)), (200, 200));
        eventually("its time is over", || (ask(&gateway, &token) == 401).then_some(()));
        assert!(now() >= until, "not before");
    }

    fn keys_are_fetched_exchanged_and_kept(driver: Driver) {
        if tls::is_up() {
            return; // the issuer is asked without TLS
        }
        let upstream = Upstream::always("ok");
        let served = Arc::new(Mutex::new((200, format!("{{\"keys\":[{JWK}]}}"))));
        let told = Arc::clone(&served);
        let issuer = Upstream::answering(move |_, conn| {
            let (status, body) = lock(&told).clone();
            conn.reply(status, &body);
        });
        let auth = format!("[auth.jwt]\njwks = \"http://{}/jwks.json\"\nalgorithms = [\"EdDSA\"]\n", issuer.address());
        let config = behind(&[&upstream], "auth = [\"jwt\"]", "") + &auth;
        let mut gateway = Gateway::start(driver, &config);
        let good = bearer(&json!({ "sub": "acme", "exp": now() + 600 }));
        eventually("the keys have come", || (ask(&gateway, &good) == 200).then_some(()));
        assert_eq!(issuer.requests()[0].target, "/jwks.json");
        // the next key, named by a token that is met before it is known; and the last good set while there is none
        let seed = [7; 32];
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed).unwrap();
        let x = URL_SAFE_NO_PAD.encode(aws_lc_rs::signature::KeyPair::public_key(&pair));
        *lock(&served) = (503, "no".to_owned());
        let file = std::fs::read_to_string(gateway.file()).unwrap();
        gateway.reload_well(&file);
        assert_eq!(ask(&gateway, &good), 200, "a reload keeps what was fetched");
        *lock(&served) = (200, format!("{{\"keys\":[{{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"kid\":\"next\",\"x\":\"{x}\"}}]}}"));
        let next = signed_as(&json!({ "alg": "EdDSA", "kid": "next" }), &json!({ "sub": "acme", "exp": now() + 600 }), &seed);
        let next = format!("Bearer {next}");
        eventually("the next key has come", || (ask(&gateway, &next) == 200).then_some(()));
        assert_eq!(ask(&gateway, &good), 401, "what a key has vouched for that is gone is not believed any more");
    }

    fn a_large_set_of_keys_is_taken_whole_or_called_too_large(driver: Driver) {
        if tls::is_up() {
            return; // the issuer is asked without TLS
        }
        let upstream = Upstream::always("ok");
        let good = bearer(&json!({ "sub": "acme", "exp": now() + 600 }));
        for (padding, is_taken) in [(300_000, true), (2_000_000, false)] {
            // the key is behind what would be cut
            let set = format!("{{\"padding\":\"{}\",\"keys\":[{JWK}]}}", "x".repeat(padding));
            let issuer = Upstream::answering(move |_, conn| conn.reply(200, &set));
            let auth = format!("[auth.jwt]\njwks = \"http://{}/\"\nalgorithms = [\"EdDSA\"]\n", issuer.address());
            let mut gateway = Gateway::start(driver, &(behind(&[&upstream], "auth = [\"jwt\"]", "") + &auth));
            match is_taken {
                true => eventually("the keys have come", || (ask(&gateway, &good) == 200).then_some(())),
                false => eventually("why they are not taken is said", || {
                    let told = gateway.running().stderr().join("\n");
                    told.contains("it has more than 1048576 bytes").then_some(())
                }),
            }
        }
    }

    fn claims_and_keys_stand_beside_each_other(driver: Driver) {
        let upstream = Upstream::always("ok");
        let rules = "auth = [\"key\", \"jwt\"]\nallow = [{ claim = { scope = \"orders:write\" } }, { group = [\"partners\"] }]";
        let key = "[auth.key]\nheader = \"x-api-key\"\n[consumer.bolt]\nkeys = [{ sha256 = \"2c70e12b7a0646f92279f427c7b38e7334d8e5389cff167a1dc30e73f826b683\" }]";
        let gateway = start(driver, &upstream, rules, key);
        let with = |claims: Value| ask(&gateway, &bearer(&claims));
        let exp = now() + 600;
        assert_eq!(with(json!({ "sub": "x", "exp": exp, "scope": "a orders:write" })), 200);
        assert_eq!(with(json!({ "sub": "x", "exp": exp, "scope": "orders:writer" })), 403);
        assert_eq!(with(json!({ "sub": "acme", "exp": exp })), 200, "by the group of the consumer of that name");
        let by_key = |key: &str| gateway.request("GET", "/", &[("X-Api-Key", key)], b"");
        assert_eq!(by_key("key").status, 403, "bolt is in no group and has no claims");
        let none = by_key("other");
        assert_eq!((none.status, none.header("www-authenticate")), (401, Some("ApiKey realm=\"key\", Bearer realm=\"jwt\"")));
        let explained = run_to_end(&["explain", "-c", &gateway.file(), "GET", "/", "-H", &format!("authorization: {}", bearer(&json!({ "sub": "x", "exp": 1 })))]).stdout;
        assert!(explained.contains("it is over (exp)") && explained.contains("verdict    401"), "{explained}");
    }

    fn bad_tokens_in_numbers_are_refused_beside_good_traffic(driver: Driver) {
        let upstream = Upstream::always("ok");
        let gateway = start(driver, &upstream, "auth = [\"jwt\"]", "");
        let good = bearer(&json!({ "sub": "acme", "exp": now() + 600 }));
        let mut client = gateway.client();
        let mut bad = gateway.client();
        for n in 0..500 {
            let forged = signed_as(&json!({ "alg": "EdDSA" }), &json!({ "sub": "acme", "exp": now() + 600, "n": n }), &[9; 32]);
            assert_eq!(bad.request("GET", "/", &[("Authorization", &format!("Bearer {forged}"))], b"").status, 401);
            if n % 10 == 0 {
                assert_eq!(client.request("GET", "/", &[("Authorization", &good)], b"").status, 200);
            }
        }
        assert_eq!(upstream.requests().len(), 50);
    }
}

#[test]
fn the_example_does_what_it_says() {
    if tls::is_up() || tls::is_down() {
        return; // it is plain HTTP on both sides
    }
    let upstream = Upstream::always("ok");
    let example = include_str!("../../config/examples/jwt.toml");
    let text = example
        .replace("127.0.0.1:8080", "127.0.0.1:0")
        .replace("listen = ", "name = \"edge\"\nlisten = ")
        .replace("127.0.0.1:9001", upstream.address());
    let gateway = Gateway::start_file(
        tempfile::tempdir().unwrap(),
        &format!("[admin]\nlisten = \"127.0.0.1:0\"\nhosts = [\"test\"]\n{text}"),
    );
    let until = now() + 600;
    let ask = |method: &str, subject: &str, scope: &str| {
        let claims = json!({ "iss": "https://issuer.example/", "aud": ["orders"], "sub": subject, "exp": until, "scope": scope });
        gateway.request(method, "/orders/7", &[("Authorization", &bearer(&claims))], b"").status
    };
    assert_eq!(
        [ask("GET", "dora", "x"), ask("POST", "dora", "x"), ask("POST", "dora", "x orders:write")],
        [200, 403, 200]
    );
    assert_eq!([ask("GET", "mallory", "x"), gateway.get("/orders/7").status], [403, 401]);
    assert_eq!(
        (upstream.requests()[0].header("x-user"), upstream.requests()[1].header("x-scope")),
        (Some("dora"), Some("x orders:write"))
    );
}
