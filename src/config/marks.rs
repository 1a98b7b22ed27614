//! `[consumer.NAME] mtls`: by what a client's certificate is a consumer's (mutual TLS), once a listener has believed it.
//!
//! A mark is written as the gateway shows the same thing elsewhere (`{tls.client.subject}`, `{tls.client.san}`, `{tls.client.spki}`), so that what an
//! access log or an endpoint has seen can be put into the file as it stands. Names of hosts are compared without regard to case (RFC 5280 §7.2),
//! everything else as bytes.

use super::problem::{Refusal, Sink};
use super::read::{List, Node, Read, Scalar, Written};
use super::tables::{scalar_schema, table};
use super::values::text;
use crate::limits::CONSUMER_MARKS_MAX;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::json;
use std::borrow::Cow;
use toml::de::DeValue;

/// Bytes of a subject or a name: less than what is kept of a certificate's, so that nothing that was cut is equal.
const MARK_BYTES_MAX: usize = 1 << 10;

/// By what a certificate is somebody's.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Mark {
    /// Its public key (SPKI): SHA-256 in hexadecimal, small letters.
    Key(Box<str>),
    /// One of its alternative names, with its kind: `DNS:a.example` in small letters, `URI:…`, `email:…`, `IP:…`.
    Name(Box<str>),
    /// Its subject (RFC 4514).
    Subject(Box<str>),
}

impl Mark {
    /// From what a table or a row of a file gives, of which there must be exactly one.
    ///
    /// # Errors
    /// Why it is none.
    pub(super) fn try_new(subject: Option<&str>, san: Option<&str>, spki: Option<&str>) -> Result<Self, String> {
        match (subject, san, spki) {
            (Some(subject), None, None) => subject_of(subject).map(Self::Subject),
            (None, Some(san), None) => name_of(san).map(Self::Name),
            (None, None, Some(spki)) => key_of(spki).map(Self::Key),
            _ => Err("must be exactly one of subject, san, spki".to_owned()),
        }
    }

    /// The key of the file that it stands behind, and what stands there.
    #[must_use]
    pub fn parts(&self) -> (&'static str, &str) {
        match self {
            Self::Key(text) => ("spki", text),
            Self::Name(text) => ("san", text),
            Self::Subject(text) => ("subject", text),
        }
    }
}

fn is_short(written: &str) -> bool {
    (1..=MARK_BYTES_MAX).contains(&written.len()) && written.bytes().all(|byte| (b' '..=b'~').contains(&byte))
}

fn subject_of(written: &str) -> Result<Box<str>, String> {
    let is_one = is_short(written) && written.contains('=') && !written.starts_with('/');
    is_one.then(|| written.into()).ok_or_else(|| format!("must be {}", Subject::allowed()))
}

fn name_of(written: &str) -> Result<Box<str>, String> {
    let wrong = || format!("must be {}", San::allowed());
    let (kind, name) = written.split_once(':').filter(|_| is_short(written)).ok_or_else(wrong)?;
    let is_whole = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b',');
    let name = match kind.to_ascii_lowercase().as_str() {
        _ if !is_whole => return Err(wrong()),
        "dns" if name.contains('*') => {
            return Err("a wildcard names many; a consumer is one, so this is compared letter by letter".to_owned());
        }
        "dns" => format!("DNS:{}", name.to_ascii_lowercase()),
        "uri" => format!("URI:{name}"),
        "email" => format!("email:{name}"),
        "ip" => format!("IP:{}", name.parse::<std::net::IpAddr>().map_err(|_| wrong())?),
        _ => return Err(wrong()),
    };
    Ok(name.into())
}

fn key_of(written: &str) -> Result<Box<str>, String> {
    let is_one = written.len() == 64 && written.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_one.then(|| written.to_ascii_lowercase().into()).ok_or_else(|| format!("must be {}", Spki::allowed()))
}

table! {
    /// By what a client's certificate is the consumer's: exactly one of these.
    CertificateMark {
        /// Its subject as RFC 4514 writes it and {tls.client.subject} shows it: "CN=orders,O=Example".
        optional subject: Subject;
        /// One of its alternative names as {tls.client.san} shows it: "DNS:a.example", "URI:spiffe://prod/orders", "email:a@example.com", "IP:192.0.2.1".
        optional san: San;
        /// SHA-256 of its public key (SPKI) in hexadecimal, as {tls.client.spki} shows it. It stays when a certificate is renewed with the same key.
        optional spki: Spki;
    }
}

/// `mtls`: one mark, or a list of them.
#[derive(Clone, Debug)]
pub struct Marks(pub Vec<Written<CertificateMark>>);

impl Read for Marks {
    fn read(node: Node<'_>, sink: &mut Sink<'_>) -> Option<Self> {
        match node.value {
            DeValue::Table(_) => {
                let value = CertificateMark::read(node, sink)?;
                Some(Self(vec![Written { value, span: node.span(), given: true }]))
            }
            _ => List::<CertificateMark, 1, CONSUMER_MARKS_MAX>::read(node, sink).map(|list| Self(list.0)),
        }
    }
}

impl JsonSchema for Marks {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Marks".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let one = serde_json::Value::from(generator.subschema_for::<CertificateMark>());
        let list = serde_json::Value::from(generator.subschema_for::<List<CertificateMark, 1, CONSUMER_MARKS_MAX>>());
        schemars::json_schema!({ "anyOf": [one, list] })
    }
}

/// The marks of a table; what is none is reported.
pub(super) fn marks(written: Option<&Written<Marks>>, sink: &mut Sink<'_>) -> Vec<Mark> {
    let mut all = Vec::new();
    for table in written.iter().flat_map(|marks| &marks.value.0) {
        let at = &table.value.at;
        let subject = table.value.subject.as_ref().map(|text| &*text.value.0);
        let san = table.value.san.as_ref().map(|text| &*text.value.0);
        let spki = table.value.spki.as_ref().map(|text| &*text.value.0);
        match Mark::try_new(subject, san, spki) {
            Ok(mark) => all.push(mark),
            // a value that is none was told where it stands
            Err(_) if CertificateMark::KEYS.iter().any(|key| sink.reported(at.key(key))) => {}
            Err(why) => sink.place(&at.path, at.offset, why, None),
        }
    }
    all
}

macro_rules! scalars {
    ($($(#[doc = $doc:literal])* $name:ident($read:ident, $allowed:literal, $schema:expr);)*) => {$(
        $(#[doc = $doc])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct $name(pub Box<str>);

        impl Scalar for $name {
            fn allowed() -> String {
                $allowed.to_owned()
            }

            fn parse(value: &DeValue<'_>) -> Result<Self, Refusal> {
                $read(text(value)?).map(Self).map_err(|why| match why.starts_with("must be ") {
                    true => Refusal::plain(),
                    false => Refusal { why: Some(why), help: None },
                })
            }

            fn schema() -> serde_json::Value {
                $schema
            }
        }
    )*};
}

scalars! {
    /// `mtls.subject`
    Subject(subject_of, "a subject as RFC 4514 writes it, such as \"CN=orders,O=Example\", of at most 1024 bytes of printable ASCII",
        json!({ "type": "string", "pattern": "^[^/].*=", "maxLength": MARK_BYTES_MAX }));
    /// `mtls.san`
    San(name_of, "an alternative name with its kind: \"DNS:a.example\", \"URI:spiffe://prod/orders\", \"email:a@example.com\" or \"IP:192.0.2.1\"",
        json!({ "type": "string", "pattern": "^([dD][nN][sS]|[uU][rR][iI]|[eE][mM][aA][iI][lL]|[iI][pP]):", "maxLength": MARK_BYTES_MAX }));
    /// `mtls.spki`
    Spki(key_of, "64 hexadecimal digits, the SHA-256 of a public key",
        json!({ "type": "string", "pattern": "^[0-9a-fA-F]{64}$" }));
}

scalar_schema!(Subject, San, Spki);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::values::tests::{accepts, refuses};

    #[test]
    fn a_mark_is_what_the_gateway_shows_elsewhere() {
        accepts::<Subject>(&["CN=orders", "CN=a\\, b,O=c", "1.3.6.1.4.1.311=#0c0178"]);
        refuses::<Subject>(&["", "orders", "/CN=orders", "CN=\u{fc}", "CN=a\r\n"]);
        accepts::<San>(&["DNS:a.example", "uri:spiffe://a/b", "EMAIL:a@b", "ip:2001:DB8::1"]);
        refuses::<San>(&[
            "",
            "a.example",
            "DNS:",
            "DNS:*.example",
            "DNS:a,DNS:b",
            "IP:a",
            "IP:10.0.0.0/8",
            "CN:a",
            "URI:a b",
        ]);
        accepts::<Spki>(&[&"aB".repeat(32)]);
        refuses::<Spki>(&["", &"a".repeat(63), &"g".repeat(64)]);
    }

    #[test]
    fn a_mark_has_one_spelling() {
        let name = |written| Mark::try_new(None, Some(written), None);
        assert_eq!(name("dns:A.Example"), Ok(Mark::Name("DNS:a.example".into())));
        assert_eq!(name("IP:2001:DB8:0::1"), Ok(Mark::Name("IP:2001:db8::1".into())));
        assert_eq!(name("uri:spiffe://A/b"), Ok(Mark::Name("URI:spiffe://A/b".into())), "its case counts");
        assert_eq!(Mark::try_new(None, None, Some(&"AB".repeat(32))), Ok(Mark::Key("ab".repeat(32).into())));
        assert!(Mark::try_new(None, None, None).is_err() && Mark::try_new(Some("CN=a"), Some("DNS:a"), None).is_err());
    }
}
