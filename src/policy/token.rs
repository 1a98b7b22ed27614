//! A JSON Web Token (RFC 7519) in, what it says out, or why it is not believed (RFC 8725).
//!
//! The order is the one that costs a forger most and the gateway least: size and form, the header, a key that fits it, the signature, and only
//! then what it signs. The header only picks among what the configuration allows: `none` is no algorithm, and a key is used for what it is.
//! base64url has one spelling of everything (no padding, no stray bits), and JSON says nothing twice, so a token that was changed in any
//! way is another one. Keys that a token brings with it (`jwk`, `jku`, `x5u`) are never looked at.
//!
//! The form is read by hand, because the crates that read it take what is refused here: members that stand there twice, and critical extensions
//! that nobody understands. Signatures are aws-lc's business.

use crate::config::strict_json;
use crate::config::{Algorithm, TokenRules, VerifyKey};
use crate::limits::{NAME_BYTES_MAX, TOKEN_BYTES_MAX, TOKEN_KEYS_TRIED_MAX};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};
use std::time::Duration;

/// A token that is believed.
#[derive(Clone, Debug, PartialEq)]
pub struct Verified {
    /// Whom it is about: the claim that the configuration names.
    pub name: String,
    /// All that it says.
    pub claims: Map<String, Value>,
    /// Until when, since 1970; the leeway is in it.
    pub until: Duration,
}

/// Why a token is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disbelief {
    /// It is larger than any that is read.
    Size,
    /// It is not three parts of base64url, or one of them is no JSON.
    Form,
    /// Its header asks for what the configuration does not allow, or what is not understood.
    Header,
    /// No key is there that it could be signed with.
    Key,
    /// The signature is none of the key's.
    Signature,
    /// It is over, or not valid yet.
    Time,
    /// Another issuer's, or for somebody else.
    Party,
    /// It does not say who it is about.
    Subject,
}

/// What `token` says, at `now` since 1970. `keys` are those of the rules, or what was fetched for them.
///
/// # Errors
/// It is not believed.
pub fn verify(rules: &TokenRules, keys: &[VerifyKey], token: &[u8], now: Duration) -> Result<Verified, Disbelief> {
    if token.len() > TOKEN_BYTES_MAX {
        return Err(Disbelief::Size);
    }
    let text = str::from_utf8(token).map_err(|_| Disbelief::Form)?;
    let (signed, signature) = text.rsplit_once('.').ok_or(Disbelief::Form)?;
    let (header, payload) = signed.split_once('.').ok_or(Disbelief::Form)?;
    let decode = |part: &str| {
        // an empty part is base64url too, and nothing here may be empty
        URL_SAFE_NO_PAD.decode(part).ok().filter(|bytes| !bytes.is_empty()).ok_or(Disbelief::Form)
    };
    let header = strict_json::object(&decode(header)?).ok_or(Disbelief::Form)?;
    let algorithm = algorithm(rules, &header)?;
    signed_by(keys, algorithm, &header, (signed.as_bytes(), &decode(signature)?))?;
    let claims = strict_json::object(&decode(payload)?).ok_or(Disbelief::Form)?;
    let until = times(rules, &claims, now)?;
    parties(rules, &claims)?;
    let name = claims.get(&rules.consumer_claim).and_then(Value::as_str).filter(|name| is_name(name));
    let name = name.ok_or(Disbelief::Subject)?.to_owned();
    Ok(Verified { name, claims, until })
}

/// What can stand in logs and headers as it is.
fn is_name(name: &str) -> bool {
    let is_clean = |b: u8| (b' '..=b'~').contains(&b) && !matches!(b, b'"' | b'\'' | b'\\');
    (1..=NAME_BYTES_MAX).contains(&name.len()) && name.trim() == name && name != "-" && name.bytes().all(is_clean)
}

/// How it says that it is signed, if that is allowed and everything in the header is understood.
fn algorithm(rules: &TokenRules, header: &Map<String, Value>) -> Result<Algorithm, Disbelief> {
    // RFC 7515 §4.1.11: no extension is understood here; RFC 7516: nor is anything encrypted
    if ["crit", "enc", "zip", "b64"].iter().any(|name| header.contains_key(*name)) {
        return Err(Disbelief::Header);
    }
    let kind = |value: &Value| {
        let word = value.as_str()?;
        let word = word.strip_prefix("application/").unwrap_or(word);
        rules.types.iter().find(|kind| kind.eq_ignore_ascii_case(word))
    };
    // RFC 8725 §3.11: a token of another kind is another thing; what says no kind is taken for a JWT
    if header.get("typ").is_some_and(|typ| kind(typ).is_none()) || header.contains_key("cty") {
        return Err(Disbelief::Header);
    }
    let algorithm = header.get("alg").and_then(Value::as_str).and_then(Algorithm::from_word);
    algorithm.filter(|algorithm| rules.algorithms.contains(algorithm)).ok_or(Disbelief::Header)
}

fn signed_by(
    keys: &[VerifyKey],
    algorithm: Algorithm,
    header: &Map<String, Value>,
    (message, signature): (&[u8], &[u8]),
) -> Result<(), Disbelief> {
    let id = match header.get("kid") {
        None => None,
        Some(Value::String(id)) => Some(id.as_str()),
        Some(_) => return Err(Disbelief::Header),
    };
    // a key without a name may be any; one with another name is not it
    let fits =
        |key: &&VerifyKey| key.is_for(algorithm) && (id.is_none() || key.id.is_none() || key.id.as_deref() == id);
    let mut candidates = keys.iter().filter(fits).take(TOKEN_KEYS_TRIED_MAX).peekable();
    candidates.peek().ok_or(Disbelief::Key)?;
    match candidates.any(|key| key.verify(algorithm, message, signature)) {
        true => Ok(()),
        false => Err(Disbelief::Signature),
    }
}

/// A time as RFC 7519 §2 writes it (NumericDate), rounded down to a second.
fn seconds(value: &Value) -> Result<u64, Disbelief> {
    if let Some(seconds) = value.as_u64() {
        return Ok(seconds);
    }
    // beyond 2^53 they are no seconds any more
    let float = value.as_f64().filter(|float| (0.0..9e15).contains(float)).ok_or(Disbelief::Time)?;
    Ok(float as u64)
}

/// Until when it is valid.
fn times(rules: &TokenRules, claims: &Map<String, Value>, now: Duration) -> Result<Duration, Disbelief> {
    let time = |name: &str| claims.get(name).map(seconds).transpose().map(|at| at.map(Duration::from_secs));
    let until = time("exp")?.ok_or(Disbelief::Time)?.saturating_add(rules.leeway);
    let from = time("nbf")?.unwrap_or_default();
    time("iat")?;
    match until > now && from <= now.saturating_add(rules.leeway) {
        true => Ok(until),
        false => Err(Disbelief::Time),
    }
}

/// Whose it is, and for whom (RFC 7519 §4.1.1, §4.1.3).
fn parties(rules: &TokenRules, claims: &Map<String, Value>) -> Result<(), Disbelief> {
    if let Some(issuer) = &rules.issuer
        && claims.get("iss").and_then(Value::as_str) != Some(issuer)
    {
        return Err(Disbelief::Party);
    }
    let is_for_us = |value: &Value| value.as_str().is_some_and(|to| rules.audience.iter().any(|us| us == to));
    let fits = match claims.get("aud") {
        None => rules.audience.is_empty(),
        Some(Value::Array(list)) => list.iter().any(is_for_us),
        Some(one) => is_for_us(one),
    };
    if fits { Ok(()) } else { Err(Disbelief::Party) }
}

/// What a claim says, as rules and headers ask for it: its own name first, then a way of names with dots between them.
#[must_use]
pub fn claim<'c>(claims: &'c Map<String, Value>, name: &str) -> Option<&'c Value> {
    if let Some(value) = claims.get(name) {
        return Some(value);
    }
    let (first, rest) = name.split_once('.')?;
    claim(claims.get(first)?.as_object()?, rest)
}

/// Whether a claim has this among what it says: the text itself, a word of it (as `scope` lists them, RFC 8693 §4.2), or an entry of a list.
#[must_use]
pub fn contains(value: &Value, word: &str) -> bool {
    match value {
        Value::String(text) => text == word || text.split(' ').any(|part| part == word),
        Value::Array(list) => list.iter().any(|entry| entry == word),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;
    use aws_lc_rs::rand::SystemRandom;
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair};
    use aws_lc_rs::{digest, hmac};
    use serde_json::json;

    const NOW: Duration = Duration::from_secs(1_700_000_000);

    fn rules(keys: &str) -> TokenRules {
        let text = format!(
            "[[listener]]\nlisten = \"127.0.0.1:0\"\n[[route]]\nauth = [\"jwt\"]\nrespond = {{}}\n[auth.jwt]\n{keys}\n"
        );
        let config = config::check::parse_for(&text, "f", &[0]).unwrap_or_else(|errors| panic!("{errors}\n{text}"));
        (**config.auth[0].tokens().unwrap()).clone()
    }

    fn encode(bytes: impl AsRef<[u8]>) -> String {
        URL_SAFE_NO_PAD.encode(bytes)
    }

    type Sign<'s> = dyn Fn(&[u8]) -> Vec<u8> + 's;

    /// A token with these two parts as they stand.
    fn signed(header: &str, payload: &str, sign: &Sign<'_>) -> String {
        let signed = format!("{}.{}", encode(header), encode(payload));
        let signature = encode(sign(signed.as_bytes()));
        format!("{signed}.{signature}")
    }

    struct P256(EcdsaKeyPair);

    impl P256 {
        fn new() -> Self {
            Self(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap())
        }

        fn jwk(&self, id: &str) -> String {
            let point = self.0.public_key().as_ref();
            json!({ "kty": "EC", "crv": "P-256", "kid": id, "x": encode(&point[1..33]), "y": encode(&point[33..]) })
                .to_string()
        }

        fn sign(&self, message: &[u8]) -> Vec<u8> {
            self.0.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec()
        }
    }

    fn payload(more: &str) -> String {
        format!("{{\"sub\":\"acme\",\"exp\":{}{more}}}", NOW.as_secs() + 60)
    }

    /// RFC 8037 §A.1, §A.4: a published key, token and signature.
    #[test]
    fn the_signature_of_rfc_8037_is_the_keys() {
        let jwk = r#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;
        let keys = config::token_keys::keys(jwk, &[Algorithm::EdDsa]).unwrap();
        let message = b"eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc";
        let signature = "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg";
        let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
        assert!(keys[0].verify(Algorithm::EdDsa, message, &signature));
        assert!(!keys[0].verify(Algorithm::EdDsa, b"another", &signature));
        assert!(!keys[0].verify(Algorithm::Es256, message, &signature));
    }

    /// RFC 7515 §A.1 and §A.3: HS256 and ES256.
    #[test]
    fn the_signatures_of_rfc_7515_are_the_keys() {
        let message = b"eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
        let jwk = r#"{"kty":"oct","k":"AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow"}"#;
        let keys = config::token_keys::keys(jwk, &[Algorithm::Hs256]).unwrap();
        let signature = URL_SAFE_NO_PAD.decode("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk").unwrap();
        assert!(keys[0].verify(Algorithm::Hs256, message, &signature));
        let message = b"eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
        let jwk = r#"{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}"#;
        let keys = config::token_keys::keys(jwk, &[Algorithm::Es256]).unwrap();
        let signature = "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q";
        assert!(keys[0].verify(Algorithm::Es256, message, &URL_SAFE_NO_PAD.decode(signature).unwrap()));
    }

    #[test]
    fn a_good_token_says_who_it_is_about_and_until_when() {
        let key = P256::new();
        let rules =
            rules(&format!("key = {{ inline = '{}' }}\nalgorithms = [\"ES256\"]\nleeway = \"30s\"", key.jwk("a")));
        let sign = |message: &[u8]| key.sign(message);
        for header in [
            r#"{"alg":"ES256"}"#,
            r#"{"alg":"ES256","kid":"a","typ":"JWT"}"#,
            r#"{"typ":"application/at+jwt","alg":"ES256"}"#,
        ] {
            let token = signed(header, &payload(",\"scope\":\"a b\",\"n\":{\"m\":[\"x\"]}"), &sign);
            let verified = verify(&rules, &rules.keys, token.as_bytes(), NOW).unwrap();
            assert_eq!((verified.name.as_str(), verified.until), ("acme", NOW + Duration::from_secs(90)));
            assert!(
                contains(claim(&verified.claims, "scope").unwrap(), "b")
                    && contains(claim(&verified.claims, "n.m").unwrap(), "x")
            );
            assert!(
                !contains(claim(&verified.claims, "scope").unwrap(), "a b c")
                    && claim(&verified.claims, "n.x").is_none()
            );
        }
    }

    #[test]
    fn what_the_header_asks_for_is_refused_unless_it_is_allowed() {
        let key = P256::new();
        let rules = rules(&format!("key = {{ inline = '{}' }}\nalgorithms = [\"ES256\"]", key.jwk("a")));
        let sign = |message: &[u8]| key.sign(message);
        // algorithm confusion: the public key as a secret
        let public = key.0.public_key().as_ref().to_vec();
        let by_hmac =
            |message: &[u8]| hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &public), message).as_ref().to_vec();
        for (header, expected) in [
            (r#"{"alg":"none"}"#, Disbelief::Header),
            (r#"{"alg":"None"}"#, Disbelief::Header),
            (r#"{"alg":"es256"}"#, Disbelief::Header),
            (r#"{"alg":"HS256"}"#, Disbelief::Header),
            (r#"{"alg":"RS256"}"#, Disbelief::Header),
            (r#"{"alg":""}"#, Disbelief::Header),
            (r#"{"alg":["ES256"]}"#, Disbelief::Header),
            (r#"{"typ":"JWT"}"#, Disbelief::Header),
            (r#"{"alg":"ES256","crit":["exp"],"exp":1}"#, Disbelief::Header),
            (r#"{"alg":"ES256","crit":[]}"#, Disbelief::Header),
            (r#"{"alg":"ES256","b64":false}"#, Disbelief::Header),
            (r#"{"alg":"ES256","typ":"logout+jwt"}"#, Disbelief::Header),
            (r#"{"alg":"ES256","typ":1}"#, Disbelief::Header),
            (r#"{"alg":"ES256","cty":"JWT"}"#, Disbelief::Header),
            (r#"{"alg":"ES256","kid":1}"#, Disbelief::Header),
            (r#"{"alg":"ES256","kid":"b"}"#, Disbelief::Key),
            (r#"{"alg":"ES256","kid":"../../../../dev/null"}"#, Disbelief::Key),
            (r#"{"alg":"ES256","kid":"a' OR 1=1"}"#, Disbelief::Key),
            (r#"{"alg":"ES256","alg":"ES256"}"#, Disbelief::Form),
            (r#"{"alg":"ES256","x":{"a":1,"a":1}}"#, Disbelief::Form),
            (r#"["alg"]"#, Disbelief::Form),
            ("", Disbelief::Form),
        ] {
            let ways: [&Sign<'_>; 3] = [&sign, &by_hmac, &|_| vec![0; 64]];
            for sign in ways {
                let token = signed(header, &payload(""), sign);
                assert_eq!(verify(&rules, &rules.keys, token.as_bytes(), NOW), Err(expected), "{header}");
            }
        }
        for signature in [vec![0; 64], vec![1; 64], vec![0xff; 63]] {
            let token = signed(r#"{"alg":"ES256"}"#, &payload(""), &|_| signature.clone());
            assert_eq!(
                verify(&rules, &rules.keys, token.as_bytes(), NOW),
                Err(Disbelief::Signature),
                "as in CVE-2022-21449 too"
            );
        }
        let own = P256::new();
        let brought = format!(r#"{{"alg":"ES256","jwk":{}}}"#, own.jwk("a"));
        let token = signed(&brought, &payload(""), &|message| own.sign(message));
        assert_eq!(
            verify(&rules, &rules.keys, token.as_bytes(), NOW),
            Err(Disbelief::Signature),
            "a key that the token brings"
        );
    }

    #[test]
    fn every_change_of_a_token_makes_it_another_one() {
        let key = P256::new();
        let rules = rules(&format!("key = {{ inline = '{}' }}\nalgorithms = [\"ES256\"]", key.jwk("a")));
        let good = signed(r#"{"alg":"ES256"}"#, &payload(""), &|message| key.sign(message));
        assert!(verify(&rules, &rules.keys, good.as_bytes(), NOW).is_ok());
        for at in 0..good.len() {
            for other in [b'A', b'.', b'=', b'+', b'/', b'_', b' ', 0, 0xff] {
                let mut bytes = good.clone().into_bytes();
                if bytes[at] != other {
                    bytes[at] = other;
                    assert!(verify(&rules, &rules.keys, &bytes, NOW).is_err(), "byte {at} as {other}");
                }
            }
            assert!(verify(&rules, &rules.keys, &good.as_bytes()[..at], NOW).is_err(), "cut at {at}");
        }
        // 64 bytes leave four bits of the last character unused: another spelling of the same signature (RFC 4648 §3.5)
        let last = good.as_bytes()[good.len() - 1];
        let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let value = alphabet.iter().position(|other| *other == last).unwrap();
        let stray = format!("{}{}", &good[..good.len() - 1], char::from(alphabet[value | 1]));
        assert_ne!(stray, good);
        assert_eq!(verify(&rules, &rules.keys, stray.as_bytes(), NOW), Err(Disbelief::Form));
        for changed in [
            format!("{good}."),
            format!(".{good}"),
            format!("{good}=="),
            format!("{good}.x"),
            format!("{good}\n"),
            "..".to_owned(),
            String::new(),
        ] {
            assert!(verify(&rules, &rules.keys, changed.as_bytes(), NOW).is_err(), "{changed}");
        }
        let huge = signed(
            r#"{"alg":"ES256"}"#,
            &payload(&format!(",\"x\":\"{}\"", "a".repeat(TOKEN_BYTES_MAX))),
            &|message| key.sign(message),
        );
        assert_eq!(verify(&rules, &rules.keys, huge.as_bytes(), NOW), Err(Disbelief::Size));
    }

    #[test]
    fn what_a_token_claims_is_looked_at() {
        let secret = "a-secret-of-at-least-32-bytes-of-which-nobody-knows";
        let rules = rules(&format!(
            "key = {{ secret = \"{secret}\" }}\nalgorithms = [\"HS256\"]\nissuer = \"https://i.example/\"\naudience = [\"orders\", \"stock\"]\nleeway = \"10s\""
        ));
        let now = NOW.as_secs();
        let ask = |payload: &str| {
            let sign = |message: &[u8]| {
                hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()), message).as_ref().to_vec()
            };
            verify(&rules, &rules.keys, signed(r#"{"alg":"HS256"}"#, payload, &sign).as_bytes(), NOW)
                .map(|verified| verified.name)
        };
        let with = |claims: &str| ask(&format!("{{\"iss\":\"https://i.example/\",\"sub\":\"acme\",{claims}}}"));
        let (good, soon) = (Ok("acme".to_owned()), now + 60);
        assert_eq!(with(&format!("\"aud\":\"orders\",\"exp\":{soon}")), good);
        assert_eq!(
            with(&format!("\"aud\":[\"x\",\"stock\"],\"exp\":{soon}.5,\"nbf\":{},\"iat\":{now}", now + 10)),
            good
        );
        assert_eq!(with(&format!("\"aud\":\"orders\",\"exp\":{}", now - 9)), good, "the leeway");
        for (claims, expected) in [
            (format!("\"aud\":\"orders\",\"exp\":{}", now - 10), Disbelief::Time),
            ("\"aud\":\"orders\"".to_owned(), Disbelief::Time),
            (format!("\"aud\":\"orders\",\"exp\":\"{soon}\""), Disbelief::Time),
            ("\"aud\":\"orders\",\"exp\":-1".to_owned(), Disbelief::Time),
            ("\"aud\":\"orders\",\"exp\":1e300".to_owned(), Disbelief::Time),
            (format!("\"aud\":\"orders\",\"exp\":{soon},\"nbf\":{}", now + 11), Disbelief::Time),
            (format!("\"aud\":\"orders\",\"exp\":{soon},\"nbf\":null"), Disbelief::Time),
            (format!("\"aud\":\"orders\",\"exp\":{soon},\"exp\":{soon}"), Disbelief::Form),
            (format!("\"aud\":\"Orders\",\"exp\":{soon}"), Disbelief::Party),
            (format!("\"aud\":[],\"exp\":{soon}"), Disbelief::Party),
            (format!("\"aud\":{{\"orders\":1}},\"exp\":{soon}"), Disbelief::Party),
            (format!("\"exp\":{soon}"), Disbelief::Party),
        ] {
            assert_eq!(with(&claims), Err(expected), "{claims}");
        }
        let of = |subject: &str, issuer: &str| {
            ask(&format!("{{\"iss\":{issuer},{subject}\"aud\":\"orders\",\"exp\":{soon}}}"))
        };
        assert_eq!(of("\"sub\":\"acme\",", "\"https://i.example\""), Err(Disbelief::Party));
        for subject in [
            "",
            "\"sub\":1,",
            "\"sub\":\"\",",
            "\"sub\":\"a\\r\\nx-admin: 1\",",
            "\"sub\":\"a\\u0000\",",
            "\"sub\":\"-\",",
        ] {
            assert_eq!(of(subject, "\"https://i.example/\""), Err(Disbelief::Subject), "{subject}");
        }
    }

    #[test]
    fn a_token_for_somebody_is_nothing_where_nobody_is_named() {
        let pair = Ed25519KeyPair::generate().unwrap();
        let jwk = json!({ "kty": "OKP", "crv": "Ed25519", "x": encode(pair.public_key()) });
        let rules = rules(&format!("key = {{ inline = '{{\"keys\":[{jwk}]}}' }}\nalgorithms = [\"EdDSA\"]"));
        let sign = |message: &[u8]| pair.sign(message).as_ref().to_vec();
        let token = |more: &str| signed(r#"{"alg":"EdDSA"}"#, &payload(more), &sign);
        assert!(verify(&rules, &rules.keys, token("").as_bytes(), NOW).is_ok());
        assert_eq!(verify(&rules, &rules.keys, token(",\"aud\":\"x\"").as_bytes(), NOW), Err(Disbelief::Party));
    }

    #[test]
    fn keys_that_do_not_fit_are_refused_when_they_are_read() {
        let key = P256::new();
        let keys =
            |text: &str, algorithms: &[Algorithm]| config::token_keys::keys(text, algorithms).map(|keys| keys.len());
        assert_eq!(keys(&key.jwk("a"), &[Algorithm::Es256]), Ok(1));
        assert!(keys(&key.jwk("a"), &[Algorithm::Rs256]).unwrap_err().contains("no key in it for RS256"));
        assert!(keys(&key.jwk("a").replace("P-256", "P-384"), &[Algorithm::Es384]).is_err());
        let off = key.jwk("a").replace("\"x\":\"", "\"x\":\"AAAA");
        assert!(keys(&off, &[Algorithm::Es256]).is_err(), "a point that is not on the curve");
        let private = key.jwk("a").replace("\"kty\"", "\"d\":\"AA\",\"kty\"");
        assert!(keys(&private, &[Algorithm::Es256]).unwrap_err().contains("private key"));
        let other = key.jwk("a").replace("\"kty\"", "\"use\":\"enc\",\"kty\"");
        assert!(keys(&other, &[Algorithm::Es256]).is_err());
        assert!(keys("-----BEGIN PRIVATE KEY-----\n", &[Algorithm::Es256]).is_err());
        assert!(keys("", &[Algorithm::Es256]).is_err() && keys("{", &[Algorithm::Es256]).is_err());
        let short = json!({ "kty": "oct", "k": encode("short") }).to_string();
        assert!(keys(&short, &[Algorithm::Hs256]).is_err());
        let _ = digest::digest(&digest::SHA256, b"");
    }
}
