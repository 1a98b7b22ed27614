//! Keys that are fetched from an issuer over TLS, by their URL or by what the issuer says of itself, and what the metrics tell of that.

use crate::support::tls::Authority;
use crate::support::upstream::answer_each;
use crate::support::{Driver, Gateway, Upstream, behind, eventually, lock, on_both_drivers};
use crate::tokens::{JWK, PRIVATE, ask, bearer, now, signed_as};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;
use std::sync::{Arc, Mutex};
use std::time::Instant;

const PLACE: &str = "/.well-known/openid-configuration";

/// An issuer at 127.0.0.1 that speaks TLS; the text is what it says of itself, in which PORT is its own.
fn issuer(authority: &Authority) -> (Upstream, Arc<Mutex<String>>) {
    let said = Arc::new(Mutex::new(String::new()));
    let told = Arc::clone(&said);
    let script = answer_each(move |request, conn| match request.target.as_str() {
        PLACE => conn.reply(200, &lock(&told)),
        "/keys" => conn.reply(200, &format!("{{\"keys\":[{JWK}]}}")),
        _ => conn.reply(404, "no"),
    });
    (Upstream::encrypted(authority.server("issuer"), script), said)
}

fn config(upstream: &Upstream, auth: &str, ca: &str) -> String {
    let auth = format!("[auth.jwt]\nalgorithms = [\"EdDSA\"]\n{auth}\n[auth.jwt.tls]\nca = \"{ca}\"\n");
    behind(&[upstream], "auth = [\"jwt\"]", "") + &auth
}

fn fetches(gateway: &Gateway, result: &str) -> f64 {
    gateway.metric("ringgate_jwks_fetches_total", &[("auth", "jwt"), ("result", result)])
}

on_both_drivers! {
    fn an_issuer_is_believed_over_tls_and_says_where_its_keys_are(driver: Driver) {
        let (authority, other) = (Authority::new(), Authority::new());
        authority.sign("issuer", &["127.0.0.1", "localhost"]);
        let (issuer, said) = issuer(&authority);
        let name = format!("https://{}/", issuer.address());
        let document = |issuer: &str, keys: &str| json!({ "issuer": issuer, "jwks_uri": keys, "id_token_signing_alg_values_supported": ["none"] }).to_string();
        // the keys are at another name of the same machine
        *lock(&said) = document(&name, &format!("https://localhost:{}/keys", issuer.port()));
        let upstream = Upstream::always("ok");
        let discovery = format!("issuer = \"{name}\"\ndiscovery = true");
        let mut gateway = Gateway::start(driver, &config(&upstream, &discovery, &authority.ca()));
        let good = bearer(&json!({ "iss": name, "sub": "acme", "exp": now() + 600 }));
        eventually("the keys have come", || (ask(&gateway, &good) == 200).then_some(()));
        let targets: Vec<_> = issuer.requests().iter().map(|request| request.target.clone()).collect();
        assert_eq!(targets[targets.len() - 2..], [PLACE, "/keys"]);
        assert_eq!(ask(&gateway, &bearer(&json!({ "iss": name.trim_end_matches('/'), "sub": "acme", "exp": now() + 600 }))), 401);
        let at = gateway.metric("ringgate_jwks_last_success_timestamp_seconds", &[("auth", "jwt")]);
        assert!(at <= now() as f64 && at >= now() as f64 - 600.0, "{at}");
        assert_eq!(gateway.metric("ringgate_jwks_keys", &[("auth", "jwt")]), 1.0);
        let shown = gateway.admin("/config").json();
        assert_eq!((&shown["auth"]["jwt"]["discovery"], &shown["auth"]["jwt"]["jwks"]), (&json!(true), &json!(null)));
        // nobody else is taken for it: not who calls himself otherwise, not keys without TLS, not who cannot show a certificate
        let file = std::fs::read_to_string(gateway.file()).unwrap();
        let lies = [
            (document(&name[..name.len() - 1], &format!("{name}keys")), "of another issuer"),
            (document(&name, &format!("http://{}/keys", issuer.address())), "it is without TLS"),
            (document(&name, "https://u:p@127.0.0.1/keys"), "its jwks_uri is not taken"),
            ("[]".to_owned(), "no JSON object"),
        ];
        for (row, (lie, why)) in lies.into_iter().enumerate() {
            *lock(&said) = lie;
            // asks for another algorithm, so that nothing is kept of before
            let before = fetches(&gateway, "failed");
            let algorithms = if row % 2 == 0 { "[\"EdDSA\", \"ES256\"]" } else { "[\"EdDSA\", \"ES384\"]" };
            gateway.reload_well(&file.replace("[\"EdDSA\"]", algorithms));
            eventually(why, || gateway.running().stderr().join("\n").contains(why).then_some(()));
            eventually("it is counted", || (fetches(&gateway, "failed") >= 1.0).then_some(()));
            assert_eq!((ask(&gateway, &good), before >= 0.0), (401, true));
        }
        let untrusted = file.replace(&authority.ca(), &other.ca()).replace("[\"EdDSA\"]", "[\"EdDSA\", \"ES256\"]");
        gateway.reload_well(&untrusted);
        eventually("who it is is not believed", || gateway.running().stderr().join("\n").to_lowercase().contains("certificate").then_some(()));
        assert_eq!(ask(&gateway, &good), 401);
    }

    fn tokens_of_invented_keys_do_not_have_the_issuer_asked_all_the_time(driver: Driver) {
        let authority = Authority::new();
        authority.sign("issuer", &["127.0.0.1"]);
        let (issuer, _) = issuer(&authority);
        let upstream = Upstream::always("ok");
        let begun = Instant::now();
        let jwks = format!("jwks = \"https://{}/keys\"", issuer.address());
        let gateway = Gateway::start(driver, &config(&upstream, &jwks, &authority.ca()));
        let claims = json!({ "sub": "acme", "exp": now() + 600 });
        eventually("the keys have come", || (ask(&gateway, &bearer(&claims)) == 200).then_some(()));
        let seed = URL_SAFE_NO_PAD.decode(PRIVATE).unwrap();
        for n in 0..200 {
            let invented = signed_as(&json!({ "alg": "EdDSA", "kid": format!("invented-{n}") }), &claims, &seed);
            assert_eq!(ask(&gateway, &format!("Bearer {invented}")), 200, "a key without a name is any");
            let unfit = signed_as(&json!({ "alg": "ES256", "kid": format!("invented-{n}") }), &claims, &seed);
            assert_eq!(ask(&gateway, &format!("Bearer {unfit}")), 401);
        }
        let fetches = issuer.requests().len() as f64;
        let may = 1.0 + (begun.elapsed().as_secs_f64() / 10.0).floor();
        assert!((1.0..=may).contains(&fetches), "{fetches} fetches, {may} may be");
    }
}
