//! Who a client is by its certificate: what services are told of it, once it has been believed ([`super::judge`]).
//!
//! The subject is written as RFC 4514 has it, most specific first; whatever is not printable ASCII in it is escaped, since it goes into
//! fields of requests and into logs. Alternative names are RFC 5280 §4.2.1.6. Both are read from DER that a verifier has accepted; what
//! cannot be read is left out.
//!
//! Hashes are SHA-256, in hexadecimal: of the certificate, which changes when it is renewed, and of its public key (SPKI), which may stay.

use super::certificate::fingerprint;
use super::der::{SEQUENCE, fields_of, value};
use rustls::pki_types::CertificateDer;
use std::fmt::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr};

/// Alternative names of one kind that are told, and bytes of all: certificates with more are for machines that nobody addresses by them.
const NAMES_MAX: usize = 64;
const TEXT_BYTES_MAX: usize = 4 << 10;

/// Object identifiers in DER of what a subject consists of (RFC 4514 §3), and what they are called.
const ATTRIBUTES: [(&[u8], &str); 9] = [
    (&[0x55, 4, 3], "CN"),
    (&[0x55, 4, 7], "L"),
    (&[0x55, 4, 8], "ST"),
    (&[0x55, 4, 10], "O"),
    (&[0x55, 4, 11], "OU"),
    (&[0x55, 4, 6], "C"),
    (&[0x55, 4, 9], "STREET"),
    (&[0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 25], "DC"),
    (&[0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 1], "UID"),
];
/// `subjectAltName`
const ALTERNATIVE_NAMES: &[u8] = &[0x55, 0x1d, 0x11];
/// `authorityKeyIdentifier`, and the first of what may stand in it.
const AUTHORITY_KEY: &[u8] = &[0x55, 0x1d, 0x23];
const KEY_IDENTIFIER: u8 = 0x80;

const OBJECT_IDENTIFIER: u8 = 0x06;
const BOOLEAN: u8 = 0x01;
const OCTET_STRING: u8 = 0x04;
const EXTENSIONS: u8 = 0xa3;
/// Strings whose bytes are ASCII or UTF-8: UTF8String, NumericString, PrintableString, T61String, IA5String, VisibleString.
const STRINGS: [u8; 6] = [0x0c, 0x12, 0x13, 0x14, 0x16, 0x1a];
/// Kinds of alternative names: rfc822Name, dNSName, uniformResourceIdentifier, iPAddress.
const EMAIL: u8 = 0x81;
const DNS: u8 = 0x82;
const URI: u8 = 0x86;
const IP: u8 = 0x87;

/// See the module. Every text is printable ASCII.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// Its subject.
    pub subject: String,
    /// Its alternative names: `DNS:a.example,URI:spiffe://a/b,IP:192.0.2.1,email:a@example.com`.
    pub names: String,
    /// Of its public key.
    pub key_hash: String,
    /// Of all of it.
    pub hash: String,
    /// `X-Forwarded-Client-Cert`, as Envoy writes it: `Hash=…;Subject="…";URI=…;DNS=…`.
    pub forwarded: String,
}

impl Identity {
    /// Who shows this certificate.
    #[must_use]
    pub fn of(certificate: &CertificateDer<'_>) -> Self {
        let fields = fields_of(certificate).unwrap_or_default();
        let hash = fingerprint(certificate);
        let subject = subject(fields.subject);
        let mut names = String::new();
        let mut forwarded = format!("Hash={hash};Subject=\"");
        // the backslash of RFC 4514 and the quote are the syntax of this field, too
        subject.chars().for_each(|char| match char {
            '"' | '\\' => forwarded.extend(['\\', char]),
            _ => forwarded.push(char),
        });
        forwarded.push('"');
        for (kind, name) in alternative_names(fields.behind_key).take(NAMES_MAX) {
            if names.len() + name.len() > TEXT_BYTES_MAX {
                break;
            }
            let separator = if names.is_empty() { "" } else { "," };
            let _infallible = write!(names, "{separator}{kind}:{name}");
            if matches!(kind, "URI" | "DNS") {
                let _infallible = write!(forwarded, ";{kind}={}", quoted(&name));
            }
        }
        let key_hash = fingerprint(fields.key);
        Self { subject, names, key_hash, hash, forwarded }
    }
}

/// The key identifier of who has issued a certificate, and its serial number, by which authorities know it (RFC 9773 §4.1).
#[must_use]
pub fn issued_as(certificate: &CertificateDer<'_>) -> Option<(Vec<u8>, Vec<u8>)> {
    let fields = fields_of(certificate)?;
    let mut parts = extension(fields.behind_key, AUTHORITY_KEY)?;
    while let Some((tag, part, rest)) = value(parts) {
        if tag == KEY_IDENTIFIER {
            return Some((part.to_vec(), fields.serial.to_vec()));
        }
        parts = rest;
    }
    None
}

/// As a value of `X-Forwarded-Client-Cert`: in quotes where it would end one.
fn quoted(name: &str) -> String {
    match name.contains([',', ';', '=', '"', '\\']) {
        true => format!("\"{}\"", name.replace('\\', "\\\\").replace('"', "\\\"")),
        false => name.to_owned(),
    }
}

/// RFC 4514 §2.
fn subject(mut name: &[u8]) -> String {
    let mut parts = Vec::new();
    while let Some((_, set, rest)) = value(name) {
        let (mut set, mut part) = (set, String::new());
        while let Some((SEQUENCE, attribute, others)) = value(set) {
            if !part.is_empty() {
                part.push('+');
            }
            push_attribute(&mut part, attribute);
            set = others;
        }
        parts.push(part);
        name = rest;
    }
    parts.reverse();
    let mut text = parts.join(",");
    text.truncate(TEXT_BYTES_MAX);
    text
}

fn push_attribute(out: &mut String, attribute: &[u8]) {
    let Some((OBJECT_IDENTIFIER, id, rest)) = value(attribute) else { return };
    let known = ATTRIBUTES.iter().find(|(known, _)| *known == id);
    match (known, value(rest)) {
        (Some((_, name)), Some((tag, text, _))) if STRINGS.contains(&tag) => {
            let _infallible = write!(out, "{name}=");
            push_escaped(out, text);
        }
        // RFC 4514 §2.4: what has no text is its DER in hexadecimal
        (_, found) => {
            push_numbers(out, id);
            out.push_str("=#");
            let der = found.map_or(&[][..], |(_, _, behind)| &rest[..rest.len() - behind.len()]);
            der.iter().for_each(|byte| push_hex(out, *byte));
        }
    }
}

fn push_escaped(out: &mut String, text: &[u8]) {
    let last = text.len().wrapping_sub(1);
    for (at, &byte) in text.iter().enumerate() {
        match byte {
            b' ' if at == 0 || at == last => out.push_str("\\ "),
            b'#' if at == 0 => out.push_str("\\#"),
            b'"' | b'+' | b',' | b';' | b'<' | b'>' | b'\\' | b'=' => out.extend(['\\', char::from(byte)]),
            b' '..=b'~' => out.push(char::from(byte)),
            _ => {
                out.push('\\');
                push_hex(out, byte);
            }
        }
    }
}

fn push_hex(out: &mut String, byte: u8) {
    let _infallible = write!(out, "{byte:02x}");
}

/// An object identifier with dots (X.690 §8.19).
fn push_numbers(out: &mut String, id: &[u8]) {
    let (mut number, mut is_first) = (0_u64, true);
    for byte in id {
        number = number << 7 | u64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            let _infallible = match std::mem::take(&mut is_first) {
                true => write!(out, "{}.{}", (number / 40).min(2), number - 40 * (number / 40).min(2)),
                false => write!(out, ".{number}"),
            };
            number = 0;
        }
    }
}

/// What stands in the extension, with what each is called.
fn alternative_names(behind_key: &[u8]) -> impl Iterator<Item = (&'static str, String)> {
    let mut names = extension(behind_key, ALTERNATIVE_NAMES).unwrap_or_default();
    std::iter::from_fn(move || {
        let (tag, name, rest) = value(names)?;
        names = rest;
        Some((tag, name))
    })
    .filter_map(|(tag, name)| {
        let is_text = name.iter().all(|byte| byte.is_ascii_graphic() && *byte != b',');
        let text = || is_text.then(|| name.iter().copied().map(char::from).collect());
        match tag {
            EMAIL => Some(("email", text()?)),
            DNS => Some(("DNS", text()?)),
            URI => Some(("URI", text()?)),
            IP => Some(("IP", address(name)?)),
            _ => None,
        }
    })
}

fn address(bytes: &[u8]) -> Option<String> {
    match bytes.len() {
        4 => Some(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?).to_string()),
        16 => Some(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).to_string()),
        _ => None,
    }
}

/// The content of an extension's sequence; what stands behind the key are the unique ids, and then the extensions.
fn extension<'c>(mut behind_key: &'c [u8], wanted: &[u8]) -> Option<&'c [u8]> {
    loop {
        let (tag, content, rest) = value(behind_key)?;
        if tag != EXTENSIONS {
            behind_key = rest;
            continue;
        }
        let (SEQUENCE, mut extensions, _) = value(content)? else { return None };
        loop {
            let (SEQUENCE, one, others) = value(extensions)? else { return None };
            extensions = others;
            let (OBJECT_IDENTIFIER, id, rest) = value(one)? else { return None };
            if id != wanted {
                continue;
            }
            let rest = match value(rest)? {
                (BOOLEAN, _is_critical, rest) => rest,
                _ => rest,
            };
            let (OCTET_STRING, content, _) = value(rest)? else { return None };
            let (SEQUENCE, content, _) = value(content)? else { return None };
            return Some(content);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, SanType};

    fn made(change: impl FnOnce(&mut CertificateParams)) -> Identity {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        change(&mut params);
        let made = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        Identity::of(made.der())
    }

    #[test]
    fn a_subject_is_written_as_directories_write_it() {
        let of = |parts: &[(DnType, &str)]| {
            made(|params| parts.iter().for_each(|(kind, text)| params.distinguished_name.push(kind.clone(), *text)))
                .subject
        };
        assert_eq!(of(&[]), "");
        assert_eq!(
            of(&[(DnType::CountryName, "DE"), (DnType::OrganizationName, "A, B & C"), (DnType::CommonName, "orders")]),
            "CN=orders,O=A\\, B & C,C=DE"
        );
        for (text, escaped) in [
            ("#1", "\\#1"),
            (" a ", "\\ a\\ "),
            ("a\r\nX-Admin: 1", "a\\0d\\0aX-Admin: 1"),
            ("x\"y\\z", "x\\\"y\\\\z"),
            ("ü", "\\c3\\bc"),
            ("a=b+c;d<e>", "a\\=b\\+c\\;d\\<e\\>"),
        ] {
            assert_eq!(of(&[(DnType::CommonName, text)]), format!("CN={escaped}"));
        }
        let odd = of(&[(DnType::CustomDnType(vec![1, 3, 6, 1, 4, 1, 311]), "x")]);
        assert_eq!(odd, "1.3.6.1.4.1.311=#0c0178");
    }

    #[test]
    fn alternative_names_are_told_with_their_kinds() {
        let text = |text: &str| text.try_into().unwrap();
        let identity = made(|params| {
            params.distinguished_name.push(DnType::CommonName, "a\"b");
            params.subject_alt_names = vec![
                SanType::URI(text("spiffe://prod/orders;v=1")),
                SanType::DnsName(text("orders.internal")),
                SanType::IpAddress("192.0.2.1".parse().unwrap()),
                SanType::IpAddress("2001:db8::1".parse().unwrap()),
                SanType::Rfc822Name(text("ops@example.com")),
                // would be two, or another field
                SanType::DnsName(text("x,DNS:admin")),
                SanType::URI(text("a\r\nb")),
            ];
        });
        assert_eq!(
            identity.names,
            "URI:spiffe://prod/orders;v=1,DNS:orders.internal,IP:192.0.2.1,IP:2001:db8::1,email:ops@example.com"
        );
        let hash = &identity.hash;
        assert_eq!(hash.len(), 64);
        assert_eq!(
            identity.forwarded,
            format!("Hash={hash};Subject=\"CN=a\\\\\\\"b\";URI=\"spiffe://prod/orders;v=1\";DNS=orders.internal")
        );
    }

    #[test]
    fn the_hash_of_the_key_stays_when_a_certificate_is_renewed() {
        let key = KeyPair::generate().unwrap();
        let identity = |name: &str| {
            let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
            Identity::of(params.self_signed(&key).unwrap().der())
        };
        let (first, second) = (identity("a"), identity("b"));
        assert_eq!(first.key_hash, second.key_hash);
        assert_ne!(first.hash, second.hash);
        assert_eq!(first.key_hash, fingerprint(&rcgen::PublicKeyData::subject_public_key_info(&key)));
    }

    #[test]
    fn nothing_that_could_be_a_certificate_is_more_than_left_out() {
        let params = CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
        let whole = params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec();
        for at in 0..whole.len() {
            let cut = Identity::of(&CertificateDer::from(&whole[..at]));
            assert!(cut.hash.len() == 64 && cut.subject.is_empty(), "{at}: {cut:?}");
            for flip in [0x01, 0x80, 0xff] {
                let mut changed = whole.clone();
                changed[at] ^= flip;
                let identity = Identity::of(&CertificateDer::from(changed));
                for text in [identity.subject, identity.names, identity.forwarded] {
                    assert!(text.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{text:?}");
                }
            }
        }
    }
}
