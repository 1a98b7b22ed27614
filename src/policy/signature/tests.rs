//! The published examples of RFC 9421 and RFC 9530, what must not be believed beside what must, and mutations of a good signature.

mod refusals;

use super::digest::ContentDigest;
use super::*;
use crate::config::{self, Config};
use crate::policy::identity::Identities;
use aws_lc_rs::hmac;
use rand::{Rng as _, SeedableRng as _};
use std::hash::RandomState;

/// RFC 9421 §B.1: test-shared-secret, test-key-ed25519 and test-key-ecc-p256.
const KEYS: &str = r#"
[consumer.shared]
signature = [{ keyid = "test-shared-secret", base64 = true, secret = "uzvJfB4u3N0Jy4T7NZ75MDVcr8zSTInedJtkgcu46YW4XByzNJjxBdtjUkdJPBtbmHhIDi6pcl8jsasjlTMtDQ==" }]
[consumer.edward]
signature = [{ keyid = "test-key-ed25519", algorithm = "ed25519", inline = """
-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEAJrQLj5P/89iXES9+vFgrIy29clF9CC/oPPsw3c5D0bs=
-----END PUBLIC KEY-----
""" }]
[consumer.curve]
signature = [{ keyid = "test-key-ecc-p256", algorithm = "ecdsa-p256-sha256", inline = """
-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEqIVYZVLCrPZHGHjP17CTW0/+D9Lf
w0EkjqF7xB4FivAxzic30tMM4GF+hR6Dxh71Z50VGGdldkkDXZCnTNnoXQ==
-----END PUBLIC KEY-----
""" }]
[consumer.acme]
signature = [{ keyid = "acme", secret = "a secret of acme's that is long enough" }]
"#;
const SECRET: &[u8] = b"a secret of acme's that is long enough";
const NOW: u64 = 1_618_884_500;
/// Of RFC 9421 §B.2.
const SHA512: &str =
    "sha-512=:WZDPaVn/7XgHaAy8pmojAkGWoRx2UFChF41A2svX+TaPm+AbwAgBWnrIiYllu7BNNyealdVLvRwEmTHWXvJwew==:";

fn loaded(rules: &str) -> (Config, SignatureRules) {
    let text = format!(
        "[[listener]]\nlisten = \"127.0.0.1:0\"\n[[route]]\nrespond = {{}}\n[auth.signed.signature]\n{rules}\n{KEYS}"
    );
    let config = config::check::parse_for(&text, "f", &[0]).unwrap_or_else(|errors| panic!("{errors}"));
    let rules = SignatureRules::clone(config.auth[0].signature().unwrap());
    (config, rules)
}

/// A request, and what is asked of it.
#[derive(Clone)]
struct Case {
    method: &'static str,
    authority: &'static str,
    target: &'static str,
    has_body: bool,
    now: u64,
    headers: Vec<(&'static str, Vec<u8>)>,
}

impl Case {
    fn new(headers: &[(&'static str, &str)]) -> Self {
        let headers = headers.iter().map(|(name, value)| (*name, value.as_bytes().to_vec())).collect();
        Self {
            method: "POST",
            authority: "example.com",
            target: "/foo?param=Value&Pet=dog",
            has_body: true,
            now: NOW,
            headers,
        }
    }

    fn judge(&self, identities: &Identities, rules: &SignatureRules) -> Result<String, Disbelief> {
        let values_of = |name: &str| self.values(name);
        let message = self.message(&values_of);
        let keys = |keyid: &str| identities.signer(keyid);
        let verified = verify(rules, &message, &keys, Duration::from_secs(self.now), &mut Vec::new())?;
        Ok(identities.consumer(verified.consumer).name.to_string())
    }

    fn values(&self, name: &str) -> Vec<&[u8]> {
        self.headers.iter().filter(|(other, _)| *other == name).map(|(_, value)| &**value).collect()
    }

    fn message<'m>(&self, values_of: ValuesOf<'m>) -> Message<'m> {
        let Self { method, authority, target, has_body, .. } = *self;
        Message { method, scheme: "https", authority: Some(authority), target, has_body, values_of }
    }

    /// Signed by acme, by what this module itself takes for the base.
    fn signed(mut self, label: &str, input: &str) -> Self {
        let line = format!("{label}={input}");
        let base = {
            let inputs = inputs(&[line.as_bytes()]).unwrap();
            let (mut base, values_of) = (Vec::new(), |name: &str| self.values(name));
            self.message(&values_of).write_base(&inputs[0], &mut base).unwrap();
            base
        };
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, SECRET), &base);
        self.headers.push(("signature-input", line.into_bytes()));
        self.headers.push(("signature", format!("{label}=:{}:", STANDARD.encode(tag)).into_bytes()));
        self
    }

    fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(other, _)| *other != name);
        self
    }

    fn with(mut self, name: &'static str, value: &[u8]) -> Self {
        self.headers.push((name, value.to_vec()));
        self
    }
}

/// The request of RFC 9421 §B.2.
fn request() -> Case {
    Case::new(&[
        ("host", "example.com"),
        ("date", "Tue, 20 Apr 2021 02:07:55 GMT"),
        ("content-type", "application/json"),
        ("content-digest", SHA512),
        ("content-length", "18"),
    ])
}

const COVERED: &str = "(\"@method\" \"@authority\" \"@path\" \"@query\" \"content-digest\")";

fn good_input() -> String {
    format!("{COVERED};created=1618884473;keyid=\"acme\";nonce=\"b3k2pp5k7z-50gnwp.yemd\"")
}

fn good() -> Case {
    request().signed("sig1", &good_input())
}

#[test]
fn the_examples_of_the_rfc_are_believed() {
    let (config, _) = loaded("");
    let identities = Identities::new(&config.consumers, RandomState::new);
    let loose = "content_digest = false\nnonce = \"optional\"";
    // §B.2.5
    let (_, rules) = loaded(&format!("{loose}\ncomponents = [\"date\", \"@authority\", \"content-type\"]"));
    let shared = request()
        .with(
            "signature-input",
            b"sig-b25=(\"date\" \"@authority\" \"content-type\");created=1618884473;keyid=\"test-shared-secret\"",
        )
        .with("signature", b"sig-b25=:pxcQw6G3AjtMBQjwo8XzkZf/bws5LelbaMk5rGIGtE8=:");
    assert_eq!(shared.judge(&identities, &rules).as_deref(), Ok("shared"));
    // §B.2.6
    let (_, rules) = loaded(&format!("{loose}\ncomponents = [\"@method\", \"@path\", \"content-length\"]"));
    let input = "sig-b26=(\"date\" \"@method\" \"@path\" \"@authority\" \"content-type\" \"content-length\");created=1618884473;keyid=\"test-key-ed25519\"";
    let edward = request().with("signature-input", input.as_bytes()).with(
        "signature",
        b"sig-b26=:wqcAqbmYJ2ji2glfAMaRy4gruYYnx2nEFN2HN6jrnDnQCK1u02Gb04v9EDgwUPiu4A0w6vuQv5lIp5WPpBKRCw==:",
    );
    assert_eq!(edward.judge(&identities, &rules).as_deref(), Ok("edward"));
    let mut other = edward.clone();
    other.target = "/fop?param=Value&Pet=dog";
    assert_eq!(other.judge(&identities, &rules), Err(Disbelief::Signature));
    // §B.2.4 is of a response, so only its base and its key are ours
    let (signer, _) = identities.signer("test-key-ecc-p256").unwrap();
    let base = "\"@status\": 200\n\"content-type\": application/json\n\"content-digest\": sha-512=:mEWXIS7MaLRuGgxOBdODa3xqM1XdEvxoYhvlCFJ41QJgJc4GTsPp29l5oGX69wWdXymyU0rjJuahq4l5aGgfLQ==:\n\
        \"content-length\": 23\n\"@signature-params\": (\"@status\" \"content-type\" \"content-digest\" \"content-length\");created=1618884473;keyid=\"test-key-ecc-p256\"";
    let signature = STANDARD
        .decode("wNmSUAhwb5LxtOtOpNa6W5xj067m5hFrj0XQ4fvpaCLx0NKocgPquLgyahnzDnDAUy5eCdlYUEkLIj+32oiasw==")
        .unwrap();
    assert!(signer.verify(base.as_bytes(), &signature) && !signer.verify(&base.as_bytes()[1..], &signature));
}

/// RFC 9421 §2.2.
#[test]
fn components_are_those_of_the_rfc() {
    for (target, component, expected) in [
        ("/path?param=value&foo=bar&baz=batman", "\"@query\"", Some("?param=value&foo=bar&baz=batman")),
        ("/path?queryString", "\"@query\"", Some("?queryString")),
        ("/path", "\"@query\"", Some("?")),
        ("/path?", "\"@query\"", Some("?")),
        ("/path?param=value", "\"@path\"", Some("/path")),
        ("http://www.example.com/path?param=value", "\"@path\"", Some("/path")),
        ("http://www.example.com?a", "\"@path\"", Some("/")),
        ("/path?param=value", "\"@target-uri\"", Some("https://www.example.com/path?param=value")),
        ("/path?param=value", "\"@request-target\"", Some("/path?param=value")),
        ("http://www.example.com/path", "\"@request-target\"", Some("http://www.example.com/path")),
        ("/a", "\"@authority\"", Some("www.example.com")),
        ("/a", "\"@scheme\"", Some("https")),
        ("/a", "\"@method\"", Some("POST")),
        (
            "/p?var=this%20is%20a%20big%0Amultiline%20value",
            "\"@query-param\";name=\"var\"",
            Some("this%20is%20a%20big%0Amultiline%20value"),
        ),
        ("/p?bar=with+plus+whitespace", "\"@query-param\";name=\"bar\"", Some("with%20plus%20whitespace")),
        ("/p?fa%C3%A7ade%22%3A%20=something", "\"@query-param\";name=\"fa%C3%A7ade%22%3A%20\"", Some("something")),
        ("/p?a=1&qux=", "\"@query-param\";name=\"qux\"", Some("")),
        ("/p?a=1&a=2", "\"@query-param\";name=\"a\"", None),
        ("/p?b=1", "\"@query-param\";name=\"a\"", None),
        ("/p?a=1", "\"@query-param\";name=\"%61\"", None),
        ("/p?a=1", "\"@query-param\"", None),
        ("/a", "\"x-two\"", Some("one, two, three")),
        ("/a", "\"x-empty\"", Some("")),
        ("/a", "\"x-none\"", None),
        ("/a", "\"x-wide\"", None),
        ("/a", "\"X-Two\"", None),
        ("/a", "\"@status\"", None),
        ("/a", "\"@method\";req", None),
        ("/a", "\"x-two\";sf", None),
        ("/a", "\"x-two\";bs", None),
        ("/a", "\"x-two\";key=\"a\"", None),
        ("/a", "\"\"", None),
    ] {
        let mut case =
            Case::new(&[("x-two", " one, two"), ("x-empty", ""), ("x-two", "three\t")]).with("x-wide", b"caf\xc3\xa9");
        (case.authority, case.target) = ("www.Example.com:443", target);
        let line = format!("a=({component})");
        let inputs = inputs(&[line.as_bytes()]).unwrap();
        let (mut base, values_of) = (Vec::new(), |name: &str| case.values(name));
        let written = case.message(&values_of).write_base(&inputs[0], &mut base).ok();
        let expected = expected.map(|value| format!("{component}: {value}\n\"@signature-params\": ({component})"));
        assert_eq!(written.map(|()| String::from_utf8(base).unwrap()), expected, "{target} {component}");
    }
}

/// RFC 9530 §B and §D.
#[test]
fn a_digest_is_of_one_body() {
    for (field, body, expected) in [
        ("sha-256=:RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=:", "{\"hello\": \"world\"}\n", Ok(true)),
        ("sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:", "", Ok(true)),
        (SHA512, "{\"hello\": \"world\"}", Ok(true)),
        (SHA512, "{\"hello\": \"World\"}", Ok(false)),
        ("sha-256=:RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=:, md5=:AAAA:", "{\"hello\": \"world\"}\n", Ok(true)),
        ("md5=:AAAA:", "", Err(Disbelief::Digest)),
        ("", "", Err(Disbelief::Digest)),
        ("sha-256=:AAAA:", "", Err(Disbelief::Form)),
        ("sha-256=RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=", "", Err(Disbelief::Form)),
    ] {
        let read = ContentDigest::read(&[field.as_bytes()]);
        assert_eq!(read.map(|digest| digest.is_of(body.as_bytes())), expected, "{field}");
    }
    // both have to be right
    let both = format!("sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:, {SHA512}");
    let both = ContentDigest::read(&[both.as_bytes()]).unwrap();
    assert!(!both.is_of(b"") && !both.is_of(b"{\"hello\": \"world\"}"));
}

#[test]
fn rules_ask_for_what_they_say() {
    let believed = |rules: &str, case: &Case| {
        let (config, rules) = loaded(rules);
        case.judge(&Identities::new(&config.consumers, RandomState::new), &rules)
    };
    let bare = request().signed("a", "(\"@method\");created=1618884473;keyid=\"acme\"");
    let loose = "components = [\"@method\"]\ncontent_digest = false\nnonce = \"optional\"";
    assert_eq!(believed(loose, &bare).as_deref(), Ok("acme"));
    assert_eq!(believed(&format!("{loose}\ntag = \"app\""), &bare), Err(Disbelief::Missing));
    let tagged = request().signed("a", "(\"@method\");created=1618884473;keyid=\"acme\";tag=\"app\"");
    assert_eq!(believed(&format!("{loose}\ntag = \"app\""), &tagged).as_deref(), Ok("acme"));
    assert_eq!(
        believed("components = [\"@method\", \"date\"]\ncontent_digest = false\nnonce = \"optional\"", &bare),
        Err(Disbelief::Coverage)
    );
    // what is asked for as a whole may be covered in its parts
    let parts =
        request().signed("a", "(\"@scheme\" \"@authority\" \"@path\" \"@query\");created=1618884473;keyid=\"acme\"");
    assert_eq!(
        believed("components = [\"@target-uri\"]\ncontent_digest = false\nnonce = \"optional\"", &parts).as_deref(),
        Ok("acme")
    );
}

/// What is written in another way says the same, and is signed in the one way (RFC 8941 §4.1).
#[test]
fn blanks_and_spellings_do_no_harm() {
    let (config, rules) = loaded("");
    let identities = Identities::new(&config.consumers, RandomState::new);
    let written = format!(
        "  sig1=({});   created=0001618884473;keyid=\"acme\";  nonce=\"b3k2pp5k7z-50gnwp.yemd\" ",
        COVERED.trim_matches(['(', ')']).replace(' ', "   ")
    );
    let case = good().without("signature-input").with("signature-input", written.as_bytes());
    assert_eq!(case.judge(&identities, &rules).as_deref(), Ok("acme"));
}

/// Whatever is changed of what was signed, nobody believes it but where the change says the same; and nothing panics.
#[test]
fn no_mutation_of_a_good_signature_is_believed() {
    let (config, rules) = loaded("");
    let identities = Identities::new(&config.consumers, RandomState::new);
    let seed = 9421;
    println!("seed {seed}");
    let mut rng = rand::rngs::StdRng::seed_from_u64(seed);
    let good = good();
    let line = good.values("signature-input")[0].to_vec();
    let canonical = inputs(&[&line]).unwrap()[0].params.clone();
    let bits = b"();=\"\\ ,:*?-@019azAZ\t\x00\xff";
    let mut believed = 0;
    for _ in 0..20_000 {
        let mut mutant = line.clone();
        for _ in 0..=rng.next_u32() % 3 {
            let at = rng.next_u32() as usize % mutant.len().max(1);
            if at >= mutant.len() {
                break;
            }
            let byte = bits[rng.next_u32() as usize % bits.len()];
            match rng.next_u32() % 4 {
                0 => mutant[at] = byte,
                1 => mutant.insert(at, byte),
                2 => drop(mutant.remove(at)),
                _ => mutant.truncate(at.max(1)),
            }
        }
        let case = good.clone().without("signature-input").with("signature-input", &mutant);
        if case.judge(&identities, &rules).is_ok() {
            believed += 1;
            let read = inputs(&[&mutant]).unwrap();
            assert_eq!(read[0].params, canonical, "{:?}", String::from_utf8_lossy(&mutant));
        }
    }
    println!("{believed} of the mutants say the same");
    // and of the signature itself
    let signature = good.values("signature")[0].to_vec();
    for at in 6..signature.len() - 1 {
        let mut mutant = signature.clone();
        mutant[at] = if mutant[at] == b'A' { b'B' } else { b'A' };
        let case = good.clone().without("signature").with("signature", &mutant);
        assert!(case.judge(&identities, &rules).is_err(), "{}", String::from_utf8_lossy(&mutant));
    }
}

#[test]
fn consumers_of_a_file_of_their_own_sign_too() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("consumers.json");
    let parse = |signature: &str| {
        std::fs::write(&path, format!("{{\"consumer\": {{\"zed\": {{\"signature\": [{signature}]}}}}}}")).unwrap();
        let head = format!("consumers_file = \"{}\"\n[[listener]]\nlisten = \"127.0.0.1:0\"\n", path.display());
        let text = format!("{head}[[route]]\nrespond = {{}}\n[auth.signed]\nsignature = {{}}\n{KEYS}");
        config::check::parse_for(&text, "f", &[0]).map_err(|errors| errors.to_string())
    };
    let config = parse(r#"{"keyid": "z", "secret": "a secret of zed's that is long enough"}"#).unwrap();
    let identities = Identities::new(&config.consumers, RandomState::new);
    let (signer, id) = identities.signer("z").unwrap();
    assert_eq!((&*identities.consumer(id).name, signer.algorithm.word()), ("zed", "hmac-sha256"));
    assert!(!format!("{signer:?} {:?}", config.consumers).contains("long enough"));
    for (signature, why) in [
        (
            r#"{"keyid": "acme", "secret": "a secret of zed's that is long enough"}"#,
            "keyid \"acme\" is \"acme\" already",
        ),
        (r#"{"keyid": "z", "secret": "planted"}"#, "needs a secret of at least 32 bytes"),
        (
            r#"{"keyid": "z", "algorithm": "hs256", "secret": "planted, and long enough to be a secret"}"#,
            "algorithm must be one of",
        ),
        (r#"{"keyid": "z", "algorithm": "ed25519", "inline": "planted"}"#, "there is no key in it for ed25519"),
        (r#"{"keyid": "z"}"#, "must be exactly one of secret, inline"),
    ] {
        let refused = parse(signature).err().unwrap_or_default();
        assert!(refused.contains(why) && !refused.contains("planted"), "{signature}: {refused}");
    }
}
