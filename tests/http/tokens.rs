//! Signed tokens (JWS, JWT) as tables: everything that must not be believed, signed as well as can be so that nothing but what a row names is wrong
//! with it (after the kinds of cases of Wycheproof's JWS vectors, RFC 8725, RFC 7515 §10).

use crate::pairs::{Pair, signed};
use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ringgate::config::{TokenRules, parse};
use ringgate::limits::TOKEN_BYTES_MAX;
use ringgate::policy::token::{Disbelief, Verified, verify};
use std::time::Duration;

pub(crate) const NOW: u64 = 1_700_000_000;

pub(crate) fn rules(jwk: &str, algorithms: &str, more: &str) -> TokenRules {
    let text = format!(
        "[[listener]]\nlisten = \"127.0.0.1:0\"\n[[route]]\nauth = [\"jwt\"]\nrespond = {{}}\n\
         [auth.jwt]\nkey = {{ inline = '{jwk}' }}\nalgorithms = [{algorithms}]\nleeway = \"0s\"\n{more}\n"
    );
    let config = parse(&text, "f").unwrap_or_else(|errors| panic!("{errors}\n{text}"));
    (**config.auth[0].tokens().expect("it takes tokens")).clone()
}

pub(crate) fn look(rules: &TokenRules, token: impl AsRef<[u8]>, now: u64) -> Result<Verified, Disbelief> {
    verify(rules, &rules.keys, token.as_ref(), Duration::from_secs(now))
}

pub(crate) fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn good_claims() -> String {
    format!("{{\"sub\":\"acme\",\"exp\":{}}}", NOW + 60)
}

/// Refused whatever the key: name, token.
type Row = (String, Vec<u8>);

fn rows(list: impl IntoIterator<Item = (String, String)>) -> Vec<Row> {
    list.into_iter().map(|(name, token)| (name, token.into_bytes())).collect()
}

/// Headers that ask for what is not allowed, signed by the right key all the same.
fn headers(pair: &Pair) -> Vec<Row> {
    let (word, claims) = (pair.word(), good_claims());
    let own = format!("\"alg\":\"{word}\"");
    let words = [
        "none", "None", "NONE", "nOnE", "", " none", "HS256", "HS384", "HS512", "RS256", "PS256", "ES256", "ES384",
        "ES512", "EdDSA", "ES256K", "dir", "A128KW",
    ];
    let mut list: Vec<String> =
        words.iter().filter(|other| **other != word).map(|other| format!("{{\"alg\":\"{other}\"}}")).collect();
    list.extend([
        format!("{{\"alg\":\"{}\"}}", word.to_lowercase()),
        format!("{{\"alg\":\"{word} \"}}"),
        format!("{{\"alg\":\"{word}\\u0000\"}}"),
    ]);
    list.extend(["null", "1", "true", "[]", "{}", &format!("[\"{word}\"]")].map(|alg| format!("{{\"alg\":{alg}}}")));
    list.extend(["{}", "[]", "null", "\"alg\"", "1", "", " ", "{", "{\"alg\"}"].map(str::to_owned));
    for more in [
        "\"alg\":\"none\"",
        "\"\\u0061lg\":\"none\"",
        &own,
        "\"crit\":[]",
        "\"crit\":[\"exp\"],\"exp\":1",
        "\"crit\":[\"b64\"],\"b64\":true",
        "\"crit\":null",
        "\"b64\":false",
        "\"b64\":true",
        "\"zip\":\"DEF\"",
        "\"enc\":\"A128GCM\"",
        "\"cty\":\"JWT\"",
        "\"typ\":\"dpop+jwt\"",
        "\"typ\":\"\"",
        "\"typ\":null",
        "\"typ\":[\"JWT\"]",
        "\"kid\":null",
        "\"kid\":1",
        "\"kid\":[\"a\"]",
        "\"kid\":{\"a\":1}",
        "\"kid\":\"\"",
        "\"kid\":\"A\"",
        "\"kid\":\"a \"",
        "\"kid\":\"b\"",
        "\"kid\":\"a\\u0000\"",
        "\"kid\":\"../../../../../../dev/null\"",
        "\"kid\":\"/dev/null\"",
        "\"kid\":\"a' UNION SELECT 'x\"",
        "\"kid\":\"a;sleep 1\"",
        "\"kid\":\"http://evil.example/jwk\"",
        "\"x\":{\"a\":1,\"a\":2}",
    ] {
        list.push(format!("{{{own},{more}}}"));
    }
    list.push(format!("{{{own},\"kid\":\"{}\"}}", "a".repeat(4_000)));
    list.push(format!("{{{own},\"x\":{}1{}}}", "[".repeat(500), "]".repeat(500)));
    list.push(format!("\u{feff}{{{own}}}"));
    list.push(format!("{{{own}}} x"));
    list.push(format!("{{{own}}}{{{own}}}"));
    list.push(format!("{{{own},}}"));
    let mut all = rows(list.into_iter().map(|header| (format!("header {header:.90}"), pair.token(&header, &claims))));
    let invalid = [&b"{\"alg\":\""[..], word.as_bytes(), b"\",\"x\":\"\xff\"}"].concat();
    all.push(("header not UTF-8".to_owned(), pair.token(invalid, &claims).into_bytes()));
    all
}

/// Claims that are signed by the right key, and not believed.
fn claims(pair: &Pair) -> Vec<Row> {
    let header = format!("{{\"alg\":\"{}\",\"kid\":\"a\"}}", pair.word());
    let soon = NOW + 60;
    let mut list: Vec<String> = Vec::new();
    for exp in [
        format!("\"{soon}\""),
        "null".to_owned(),
        "true".to_owned(),
        format!("[{soon}]"),
        "{}".to_owned(),
        "-1".to_owned(),
        format!("-{soon}"),
        "0".to_owned(),
        NOW.to_string(),
        format!("{}.999", NOW - 1),
        "1e300".to_owned(),
        "1e999".to_owned(),
        "-0.5".to_owned(),
        "9007199254740993e3".to_owned(),
        "NaN".to_owned(),
        "0x7fffffff".to_owned(),
        format!("0{soon}"),
        format!("+{soon}"),
    ] {
        list.push(format!("{{\"sub\":\"acme\",\"exp\":{exp}}}"));
    }
    for more in [
        format!("\"exp\":{soon},\"exp\":{soon}"),
        format!("\"exp\":1,\"\\u0065xp\":{soon}"),
        format!("\"exp\":{soon},\"sub\":\"root\""),
        format!("\"exp\":{soon},\"nbf\":{soon}"),
        format!("\"exp\":{soon},\"nbf\":\"1\""),
        format!("\"exp\":{soon},\"nbf\":-1"),
        format!("\"exp\":{soon},\"iat\":\"now\""),
        format!("\"exp\":{soon},\"iat\":-5"),
        format!("\"exp\":{soon},\"aud\":\"elsewhere\""),
        format!("\"exp\":{soon},\"aud\":[]"),
        format!("\"exp\":{soon},\"aud\":null"),
        format!("\"exp\":{soon},\"x\":{{\"a\":1,\"\\u0061\":1}}"),
        format!("\"EXP\":{soon}"),
        "\"x\":1".to_owned(),
    ] {
        list.push(format!("{{\"sub\":\"acme\",{more}}}"));
    }
    for sub in [
        "1",
        "null",
        "[\"acme\"]",
        "{}",
        "\"\"",
        "\" acme\"",
        "\"-\"",
        "\"a\\nb\"",
        "\"a\\u0000\"",
        "\"\u{e9}\"",
        "\"a\\\"b\"",
    ] {
        list.push(format!("{{\"sub\":{sub},\"exp\":{soon}}}"));
    }
    list.push(format!("{{\"sub\":\"{}\",\"exp\":{soon}}}", "a".repeat(1_000)));
    list.extend(["", "{}", "[]", "null", "\"acme\"", "{\"sub\":\"acme\"", "\u{feff}{}"].map(str::to_owned));
    list.push(format!("{{\"exp\":{soon}}}"));
    list.push(format!("[{}]", good_claims()));
    list.push(format!("{} ,", good_claims()));
    list.push(format!("{{\"sub\":\"acme\",\"exp\":{soon},\"x\":\"{}\"}}", "a".repeat(TOKEN_BYTES_MAX)));
    rows(list.into_iter().map(|claims| (format!("claims {claims:.90}"), pair.token(&header, &claims))))
}

/// What is no signature of this key.
fn signatures(pair: &Pair) -> Vec<Row> {
    let header = format!("{{\"alg\":\"{}\"}}", pair.word());
    let good = pair.token(&header, good_claims());
    let (message, signature) = good.rsplit_once('.').expect("it has parts");
    let right = URL_SAFE_NO_PAD.decode(signature).expect("base64url");
    let (len, half) = (right.len(), right.len() / 2);
    let mut list: Vec<(&str, Vec<u8>)> = vec![
        ("empty", Vec::new()),
        ("one byte", vec![0]),
        ("zeros", vec![0; len]),
        ("ones", vec![0xff; len]),
        ("truncated", right[..len - 1].to_vec()),
        ("truncated in front", right[1..].to_vec()),
        ("half", right[..half].to_vec()),
        ("a byte more", [&right[..], &[0]].concat()),
        ("a zero in front", [&[0], &right[..]].concat()),
        ("twice", right.repeat(2)),
        ("reversed", right.iter().rev().copied().collect()),
        ("of another text", pair.sign(b"another")),
        ("of the payload alone", pair.sign(good_claims().as_bytes())),
        ("of decoded parts", pair.sign(format!("{header}.{}", good_claims()).as_bytes())),
        ("its text", signature.as_bytes().to_vec()),
    ];
    for bit in [0, 7] {
        for at in [0, half - 1, half, len - 1] {
            let mut flipped = right.clone();
            flipped[at] ^= 1 << bit;
            list.push(("a bit flipped", flipped));
        }
    }
    if matches!(pair, Pair::P256(_) | Pair::P384(_)) {
        let (r, s) = right.split_at(half);
        let order: &[u8] = match pair {
            Pair::P256(_) => &P256_ORDER,
            _ => &P384_ORDER,
        };
        let (zero, mut one) = (vec![0; half], vec![0; half]);
        one[half - 1] = 1;
        list.extend([
            ("r = 0", [&zero, s].concat()),
            ("s = 0", [r, &zero].concat()),
            ("r = s = 1", [&one[..], &one].concat()),
            ("r = n", [order, s].concat()),
            ("s = n", [r, order].concat()),
            ("r = s = n", order.repeat(2)),
            ("r and s exchanged", [s, r].concat()),
            ("DER", der(r, s)),
            ("padded halves", [&[0], r, &[0], s].concat()),
        ]);
    }
    if matches!(pair, Pair::Ed25519(_)) {
        // S + L verifies where nobody looks whether S is in its range (RFC 8032 §5.1.7)
        list.push(("S + L", [&right[..32], &plus_order(&right[32..])].concat()));
        list.push(("the neutral element", [&[1][..], &[0; 63]].concat()));
    }
    if let Pair::Rsa(rsa) = pair {
        let mut pss = vec![0; len];
        rsa.sign(&signature::RSA_PSS_SHA256, &SystemRandom::new(), message.as_bytes(), &mut pss).expect("it signs");
        let mut longer = vec![0; len];
        rsa.sign(&signature::RSA_PKCS1_SHA512, &SystemRandom::new(), message.as_bytes(), &mut longer)
            .expect("it signs");
        list.extend([("PSS", pss), ("by another hash", longer)]);
    }
    rows(list.into_iter().map(|(name, bytes)| (format!("signature {name}"), format!("{message}.{}", encode(bytes)))))
}

/// A public key as a secret (RFC 8725 §2.1).
fn confusions(pair: &Pair) -> Vec<Row> {
    let own = format!("{{\"alg\":\"{}\"}}", pair.word());
    let mut all = Vec::new();
    for (row, public) in pair.public().into_iter().enumerate() {
        for (word, algorithm) in
            [("HS256", hmac::HMAC_SHA256), ("HS384", hmac::HMAC_SHA384), ("HS512", hmac::HMAC_SHA512)]
        {
            let by_public = |message: &[u8]| hmac::sign(&hmac::Key::new(algorithm, &public), message).as_ref().to_vec();
            for header in [format!("{{\"alg\":\"{word}\"}}"), own.clone()] {
                let token = signed(&header, good_claims(), by_public);
                all.push((format!("public key {row} as a secret of {word}"), token.into_bytes()));
            }
        }
    }
    all
}

/// The orders of the curves' groups (SEC 2, §2.4.2 and §2.5.1).
const P256_ORDER: [u8; 32] = [
    0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc, 0xe6, 0xfa, 0xad, 0xa7,
    0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
];
const P384_ORDER: [u8; 48] = [
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
    0xff, 0xff, 0xff, 0xff, 0xff, 0xc7, 0x63, 0x4d, 0x81, 0xf4, 0x37, 0x2d, 0xdf, 0x58, 0x1a, 0x0d, 0xb2, 0x48, 0xb0,
    0xa7, 0x7a, 0xec, 0xec, 0x19, 0x6a, 0xcc, 0xc5, 0x29, 0x73,
];
/// That of Ed25519's (RFC 8032 §5.1), its first byte the least.
const ED25519_ORDER: [u8; 32] = [
    0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0, 0, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
];

fn plus_order(s: &[u8]) -> Vec<u8> {
    let mut carry = 0_u16;
    let sum = s.iter().zip(ED25519_ORDER).map(|(a, b)| {
        let sum = u16::from(*a) + u16::from(b) + carry;
        carry = sum >> 8;
        (sum & 0xff) as u8
    });
    sum.collect()
}

/// As X.509 writes a signature of ECDSA (RFC 3279 §2.2.3), and JWS does not.
fn der(r: &[u8], s: &[u8]) -> Vec<u8> {
    let integer = |number: &[u8]| {
        let digits: Vec<_> = number.iter().copied().skip_while(|byte| *byte == 0).collect();
        let sign: &[u8] = if digits.first().is_some_and(|first| first & 0x80 != 0) { &[0] } else { &[] };
        [&[2, (digits.len() + sign.len()) as u8], sign, &digits].concat()
    };
    let both = [integer(r), integer(s)].concat();
    [&[0x30, both.len() as u8], &both[..]].concat()
}

/// Other spellings of a good token.
fn forms(pair: &Pair) -> Vec<Row> {
    let good = pair.token(format!("{{\"alg\":\"{}\",\"kid\":\"a\"}}", pair.word()), good_claims());
    let parts: Vec<&str> = good.split('.').collect();
    let [header, payload, signature] = parts[..] else { panic!("three parts") };
    let mut list = vec![
        String::new(),
        ".".to_owned(),
        "..".to_owned(),
        "...".to_owned(),
        header.to_owned(),
        format!("{header}.{payload}"),
        format!("{header}.{payload}."),
        format!("{header}..{signature}"),
        format!(".{payload}.{signature}"),
        format!("{good}."),
        format!(".{good}"),
        format!("{good}.{signature}"),
        format!("{header}.{good}"),
        format!("{header}.{payload}.{signature}.{payload}.{signature}"),
        format!("{payload}.{header}.{signature}"),
        format!(" {good}"),
        format!("{good} "),
        format!("{good}\n"),
        format!("{good}\0"),
        format!("{header}. {payload}.{signature}"),
        format!("{header}\r\n.{payload}.{signature}"),
        format!("{good}="),
        format!("{good}=="),
        format!("{header}=.{payload}.{signature}"),
        format!("{header}.{payload}%3D.{signature}"),
        format!("{good}A"),
        format!("{header}A.{payload}.{signature}"),
        format!("Bearer {good}"),
        format!("{{\"protected\":\"{header}\",\"payload\":\"{payload}\",\"signature\":\"{signature}\"}}"),
        format!(
            "{{\"payload\":\"{payload}\",\"signatures\":[{{\"protected\":\"{header}\",\"signature\":\"{signature}\"}}]}}"
        ),
        format!("{good}{}", "A".repeat(TOKEN_BYTES_MAX)),
        "a".repeat(1 << 20),
        ".".repeat(TOKEN_BYTES_MAX),
        "a.".repeat(TOKEN_BYTES_MAX / 2),
        good.replace('.', ","),
        good.to_lowercase(),
        good.to_uppercase(),
    ];
    let other = |part: &str| part.replace('-', "+").replace('_', "/");
    list.extend((0..3).map(|row| spelt(&parts, row, other)));
    list.extend((0..3).map(|row| spelt(&parts, row, stray)));
    let mut all =
        rows(list.into_iter().filter(|token| *token != good).map(|token| (format!("form {token:.60}"), token)));
    all.push(("form not UTF-8".to_owned(), [good.as_bytes(), b"\xff"].concat()));
    all
}

fn spelt(parts: &[&str], row: usize, how: impl Fn(&str) -> String) -> String {
    let changed = parts.iter().enumerate().map(|(at, part)| if at == row { how(part) } else { (*part).to_owned() });
    let changed: Vec<_> = changed.collect();
    changed.join(".")
}

/// With a bit set in the last character that stands for nothing (RFC 4648 §3.5), if it has one.
fn stray(part: &str) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let last = part.as_bytes()[part.len() - 1];
    let value = ALPHABET.iter().position(|other| *other == last).expect("base64url");
    match part.len() % 4 {
        0 => part.to_owned(),
        _ => format!("{}{}", &part[..part.len() - 1], char::from(ALPHABET[value ^ 1])),
    }
}

/// Good ones by others: another key of the same kind, one that the token brings, and each of the other kinds.
fn strangers(pair: &Pair, others: &[Pair]) -> Vec<Row> {
    let word = pair.word();
    let mut all = Vec::new();
    for other in others {
        let jwk = other.jwk();
        for header in [
            format!("{{\"alg\":\"{word}\"}}"),
            format!("{{\"alg\":\"{word}\",\"kid\":\"a\"}}"),
            format!("{{\"alg\":\"{word}\",\"jwk\":{jwk}}}"),
            format!("{{\"alg\":\"{word}\",\"jku\":\"https://evil.example/jwks.json\"}}"),
            format!(
                "{{\"alg\":\"{word}\",\"x5u\":\"https://evil.example/x.pem\",\"x5c\":[\"{}\"]}}",
                STANDARD.encode(b"x")
            ),
            format!("{{\"alg\":\"{}\",\"jwk\":{jwk}}}", other.word()),
        ] {
            all.push((format!("stranger {header:.60}"), other.token(&header, good_claims()).into_bytes()));
        }
    }
    all
}

#[test]
fn nothing_that_is_wrong_is_believed() {
    let (pairs, others) = (Pair::all(), Pair::all());
    let strangers_of = |row: usize, pair: &Pair| match pair {
        // the two sets have the same secret
        Pair::Secret(_) => strangers(pair, &others[..row]),
        _ => strangers(pair, &others),
    };
    let mut count = 0;
    for (row, pair) in pairs.iter().enumerate() {
        let rules = rules(&pair.jwk(), &format!("\"{}\"", pair.word()), "");
        for header in
            ["", ",\"kid\":\"a\"", ",\"typ\":\"JWT\"", ",\"x\":[{\"a\":1},{\"a\":1}],\"jku\":\"https://evil.example/\""]
        {
            let header = format!("{{\"alg\":\"{}\"{header}}}", pair.word());
            let name = look(&rules, pair.token(&header, good_claims()), NOW).map(|verified| verified.name);
            assert_eq!(name.as_deref(), Ok("acme"), "what is right is believed: {header}");
        }
        let bad =
            [headers(pair), claims(pair), signatures(pair), confusions(pair), forms(pair), strangers_of(row, pair)]
                .concat();
        for (name, token) in &bad {
            let said = look(&rules, token, NOW);
            assert!(said.is_err(), "{}: {name}: {said:?} for {}", pair.word(), String::from_utf8_lossy(token));
        }
        count += bad.len();
    }
    assert!(count > 800, "{count} rows");
}
