//! What must not be believed of a signed request, each beside something like it that must.

use super::*;
use Disbelief as D;

/// What it is, and what is to come of it: whose it is, or why it is nobody's.
type Row = (&'static str, Case, Result<&'static str, D>);

const ACME: Result<&str, D> = Ok("acme");

#[test]
fn what_must_not_be_believed_is_not_and_what_must_is() {
    let (config, rules) = loaded("max_age = \"5m\"\nleeway = \"30s\"");
    let identities = Identities::new(&config.consumers, RandomState::new);
    let rows = [covered(), changed(), times(), keys(), missing(), twice(), shapes(), fields()];
    for (what, case, expected) in rows.into_iter().flatten() {
        assert_eq!(case.judge(&identities, &rules).as_deref(), expected.as_ref().copied(), "{what}");
    }
}

fn signed(input: &str) -> Case {
    request().signed("sig1", input)
}

/// Signed, but for what is covered.
fn covering(covered: &str) -> Case {
    signed(&format!("({covered});created=1618884473;keyid=\"acme\";nonce=\"n\""))
}

/// The good one with another `Signature-Input`.
fn with_input(line: &str) -> Case {
    good().without("signature-input").with("signature-input", line.as_bytes())
}

fn with_signature(line: &[u8]) -> Case {
    good().without("signature").with("signature", line)
}

fn line() -> String {
    format!("sig1={}", good_input())
}

fn covered() -> Vec<Row> {
    vec![
        ("the good one", good(), ACME),
        ("its label changes nothing", request().signed("*a-b_c.9", &good_input()), ACME),
        ("the whole target", covering("\"@method\" \"@target-uri\" \"content-digest\""), ACME),
        ("the line's target", covering("\"@method\" \"@authority\" \"@request-target\" \"content-digest\""), ACME),
        ("another order", covering("\"content-digest\" \"@query\" \"@path\" \"@authority\" \"@method\""), ACME),
        ("no method", covering("\"@authority\" \"@path\" \"@query\" \"content-digest\""), Err(D::Coverage)),
        ("no path", covering("\"@method\" \"@authority\" \"@query\" \"content-digest\""), Err(D::Coverage)),
        ("no host", covering("\"@method\" \"@request-target\" \"content-digest\""), Err(D::Coverage)),
        ("no digest", covering("\"@method\" \"@target-uri\""), Err(D::Coverage)),
        ("nothing", covering(""), Err(D::Coverage)),
        ("another's path", with_input(&line().replace("\"@path\"", "\"@path\";req")), Err(D::Coverage)),
    ]
}

fn changed() -> Vec<Row> {
    const OTHER: &[u8] = b"sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:";
    let by = |change: fn(&mut Case)| {
        let mut case = good();
        change(&mut case);
        case
    };
    let target = |target: &'static str| Case { target, ..good() };
    vec![
        ("another method", by(|case| case.method = "PUT"), Err(D::Signature)),
        ("another host", by(|case| case.authority = "example.org"), Err(D::Signature)),
        ("another port", by(|case| case.authority = "example.com:8443"), Err(D::Signature)),
        ("the host in capitals is the host", by(|case| case.authority = "EXAMPLE.com"), ACME),
        ("the scheme's own port is none", by(|case| case.authority = "example.com:443"), ACME),
        ("another path", target("/fop?param=Value&Pet=dog"), Err(D::Signature)),
        ("another spelling of the path", target("/%66oo?param=Value&Pet=dog"), Err(D::Signature)),
        ("another query", target("/foo?param=Value&Pet=cat"), Err(D::Signature)),
        ("no query", target("/foo"), Err(D::Signature)),
        ("another digest", good().without("content-digest").with("content-digest", OTHER), Err(D::Signature)),
        ("a second digest", good().with("content-digest", b"sha-512=:AAAA:"), Err(D::Form)),
        ("a second digest beside it", good().with("content-digest", OTHER), Err(D::Signature)),
        ("no digest any more", good().without("content-digest"), Err(D::Digest)),
        ("a body that is gone", by(|case| case.has_body = false), Err(D::Digest)),
    ]
}

fn times() -> Vec<Row> {
    let at = |times: &str| signed(&format!("{COVERED};{times}keyid=\"acme\";nonce=\"n\""));
    vec![
        ("older than 5m and 30s", at("created=1618884170;"), Err(D::Time)),
        ("as old as it may be", at("created=1618884171;"), ACME),
        ("of the future", at("created=1618884531;"), Err(D::Time)),
        ("of a clock that is before ours", at("created=1618884530;"), ACME),
        ("over", at("created=1618884400;expires=1618884470;"), Err(D::Time)),
        ("over by our clock", at("created=1618884400;expires=1618884471;"), ACME),
        ("over before it was made", at("created=1618884473;expires=1618884472;"), Err(D::Time)),
        ("without a time", at(""), Err(D::Time)),
        ("before 1970", at("created=-1618884473;"), Err(D::Time)),
    ]
}

fn keys() -> Vec<Row> {
    let nonce = |nonce: &str| signed(&format!("{COVERED};created=1618884473;keyid=\"acme\"{nonce}"));
    let key = |id: &str| good_input().replace("\"acme\"", id);
    vec![
        ("a nonce", nonce(";nonce=\"a\\\"b\""), ACME),
        ("without a nonce", nonce(""), Err(D::Nonce)),
        ("an empty nonce", nonce(";nonce=\"\""), Err(D::Nonce)),
        ("a large nonce", nonce(&format!(";nonce=\"{}\"", "n".repeat(300))), Err(D::Nonce)),
        ("without a key", signed(&format!("{COVERED};created=1618884473;nonce=\"n\"")), Err(D::Key)),
        ("nobody's key", signed(&key("\"acm\"")), Err(D::Key)),
        ("another consumer's key", signed(&key("\"test-shared-secret\"")), Err(D::Signature)),
        ("a public key for a secret", signed(&key("\"test-key-ed25519\"")), Err(D::Signature)),
        ("the same, and says so", signed(&(key("\"test-key-ed25519\"") + ";alg=\"hmac-sha256\"")), Err(D::Key)),
        ("alg as the key has it", signed(&(good_input() + ";alg=\"hmac-sha256\"")), ACME),
        ("another alg", signed(&(good_input() + ";alg=\"ed25519\"")), Err(D::Key)),
        ("no alg", signed(&(good_input() + ";alg=\"none\"")), Err(D::Key)),
        ("what nobody knows", signed(&(good_input() + ";x-y=tok/en;z;n=?0;i=-5")), ACME),
    ]
}

fn missing() -> Vec<Row> {
    vec![
        ("no signature", good().without("signature"), Err(D::Missing)),
        ("no input", good().without("signature-input"), Err(D::Missing)),
        ("of another label", with_signature(b"sig2=:AAAA:"), Err(D::Missing)),
        ("an empty signature", with_signature(b"sig1=::"), Err(D::Signature)),
        ("half a signature", with_signature(b"sig1=:pxcQw6G3AjtMBQjwo8XzkQ==:"), Err(D::Signature)),
        ("no base64", with_signature(b"sig1=:===:"), Err(D::Form)),
        ("a large signature", with_signature(format!("sig1=:{}:", "A".repeat(1_404)).as_bytes()), Err(D::Form)),
    ]
}

fn twice() -> Vec<Row> {
    let signature = good().values("signature")[0].to_vec();
    let others = b"proxy=(\"@method\");keyid=\"p\";created=1";
    let beside = good().with("signature-input", others).with("signature", b"proxy=:AAAA:");
    let unknown = b"proxy=(\"x\";key=\"a\" \"x\";key=\"b\" \"x\";sf);keyid=\"p\";created=1";
    let beside_unknown = good().with("signature-input", unknown).with("signature", b"proxy=:AAAA:");
    vec![
        ("a signature twice", good().with("signature", &signature), Err(D::Form)),
        ("an input twice", good().with("signature-input", line().as_bytes()), Err(D::Form)),
        ("an input twice in a line", with_input(&format!("{0}, {0}", line())), Err(D::Form)),
        ("beside another's", beside, ACME),
        ("beside another's of fields that are not known here", beside_unknown, ACME),
        ("five signatures", good().with("signature-input", b"a=(), b=(), c=(), d=()"), Err(D::Form)),
        ("a component twice", with_input(&line().replace("\"@path\"", "\"@path\" \"@path\"")), Err(D::Form)),
        ("a parameter twice", with_input(&(line() + ";created=1618884473")), Err(D::Form)),
    ]
}

fn shapes() -> Vec<Row> {
    let many: Vec<_> = (0..100).map(|n| format!("\"x-{n}\"")).collect();
    let huge = format!("a=(\"{}\")", "x".repeat(5_000));
    let created = |as_what: &str| with_input(&line().replace("1618884473", as_what));
    vec![
        ("100 components", with_input(&format!("sig1=({})", many.join(" "))), Err(D::Form)),
        ("a huge field", good().with("signature-input", huge.as_bytes()), Err(D::Form)),
        ("what is no ASCII", good().with("signature-input", "b=(\"caf\u{e9}\")".as_bytes()), Err(D::Form)),
        ("what is no UTF-8", good().with("signature", b"b=:\xff:"), Err(D::Form)),
        ("created as a text", created("\"1618884473\""), Err(D::Form)),
        ("created as a decimal", created("1618884473.0"), Err(D::Form)),
        ("created too long a number", created("1618884473161888"), Err(D::Form)),
        ("created once more to the second", created("1618884474"), Err(D::Signature)),
        ("a comma behind all", with_input(&(line() + ",")), Err(D::Form)),
        ("an item in place of a list", with_input("sig1=\"@method\""), Err(D::Form)),
    ]
}

fn fields() -> Vec<Row> {
    let dated = || covering("\"@method\" \"@target-uri\" \"content-digest\" \"date\"");
    vec![
        ("a covered header", dated(), ACME),
        ("it is not there", dated().without("date"), Err(D::Component)),
        ("it is there once more", dated().with("date", b"x"), Err(D::Signature)),
        ("it is there once more, and no ASCII", dated().with("date", b"\xe9"), Err(D::Component)),
        ("it ends here", dated().with("connection", b"close, Date"), Err(D::Component)),
        ("another one ends here", dated().with("connection", b"close, x-date"), ACME),
        ("a header that is not covered", good().with("x-other", b"\xe9"), ACME),
    ]
}

/// Who leaves one signature out must not be able to send the request once more by another one.
#[test]
fn nonces_of_all_good_signatures_are_named() {
    let (config, rules) = loaded("");
    let identities = Identities::new(&config.consumers, RandomState::new);
    let other = |nonce: &str| format!("(\"@path\");created=5;keyid=\"acme\";nonce=\"{nonce}\"");
    let case = request()
        .signed("no", &other("bad").replace("acme", "nobody"))
        .signed("a", &other("one"))
        .signed("sig1", &good_input())
        .signed("b", "();created=1618884474;keyid=\"acme\";nonce=\"two\"");
    // the same nonce by the same key is one, and remembered for as long as the later signature may be good
    let shared = good().signed("b", "();created=1618884480;keyid=\"acme\";nonce=\"b3k2pp5k7z-50gnwp.yemd\"");
    let values_of = |name: &str| shared.values(name);
    let (message, keys) = (shared.message(&values_of), |keyid: &str| identities.signer(keyid));
    let both = verify(&rules, &message, &keys, Duration::from_secs(NOW), &mut Vec::new()).unwrap();
    assert_eq!((both.created, both.beside), (Duration::from_secs(1_618_884_480), Vec::new()));
    let named = |case: &Case| {
        let values_of = |name: &str| case.values(name);
        let (message, keys) = (case.message(&values_of), |keyid: &str| identities.signer(keyid));
        let verified = verify(&rules, &message, &keys, Duration::from_secs(NOW), &mut Vec::new()).unwrap();
        assert_eq!(
            (verified.nonce, verified.created),
            (Some("b3k2pp5k7z-50gnwp.yemd"), Duration::from_secs(1_618_884_473))
        );
        verified.beside.iter().map(|(_, nonce, created)| format!("{nonce} {}", created.as_secs())).collect::<Vec<_>>()
    };
    assert_eq!(named(&case), ["one 5", "two 1618884474"]);
    // one that is none of the key's names nothing
    let mut forged = case;
    let (_, signature) = forged.headers.last_mut().unwrap();
    signature[6] ^= 1;
    assert_eq!(named(&forged), ["one 5"]);
    assert!(named(&good()).is_empty());
}
