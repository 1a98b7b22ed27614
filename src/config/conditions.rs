//! What a route or a guard asks of a request besides host, path and method: headers, query parameters, cookies, and where it comes from.

use super::addresses::Network;
use super::hosts::{OneOrMore, RouteHost};
use super::names::{Header, MethodText, Name};
use super::paths::{PathText, QueryText};
use super::pattern::Pattern;
use super::problem::{Refusal, did_you_mean};
use super::read::{List, Map, Scalar};
use super::tables::{scalar_schema, table};
use super::values::text;
use crate::limits::{ENTRIES_MAX, PATH_BYTES_MAX, ROUTE_CONDITIONS_MAX};
use http::HeaderName;
use ipnet::IpNet;
use serde_json::json;
use std::fmt;
use toml::de::DeValue;

/// One of `match.header`, `match.query` and others, unless it is a header or a parameter that is to have one value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// The first field of this name.
    Header(HeaderName, Test),
    /// The first query parameter of this name, after percent-decoding.
    Query(String, Test),
    /// The first cookie of this name.
    Cookie(String, Test),
    /// It came in at one of these listeners.
    Listener(Vec<String>),
    /// What the client speaks with this gateway: `http` or `https`.
    Scheme(Scheme),
    /// The client, after `trusted_proxies`, is in one of these networks.
    ClientIp(Vec<IpNet>),
}

/// What a value is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Test {
    /// This.
    Is(String),
    /// Anything else, or not there.
    Not(String),
    /// It begins so.
    Prefix(String),
    /// It matches.
    Regex(Pattern),
    /// It is there.
    Present,
    /// It is not there.
    Absent,
}

crate::words! {
    /// `match.scheme`
    Scheme {
        /// Without TLS.
        Http = "http",
        /// Over TLS.
        Https = "https",
    }
}

impl Scheme {
    /// As a URL has it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

impl fmt::Display for Test {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Is(text) => write!(f, "is {text:?}"),
            Self::Not(text) => write!(f, "is not {text:?}"),
            Self::Prefix(text) => write!(f, "begins with {text:?}"),
            Self::Regex(pattern) => write!(f, "matches ~{}", pattern.as_str()),
            Self::Present => f.write_str("is there"),
            Self::Absent => f.write_str("is not there"),
        }
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header(name, test) => write!(f, "header {name} {test}"),
            Self::Query(name, test) => write!(f, "query parameter {name} {test}"),
            Self::Cookie(name, test) => write!(f, "cookie {name} {test}"),
            Self::Listener(names) => write!(f, "listener {}", names.join(" or ")),
            Self::Scheme(scheme) => write!(f, "scheme {}", scheme.as_str()),
            Self::ClientIp(networks) => {
                let networks: Vec<_> = networks.iter().map(ToString::to_string).collect();
                write!(f, "client in {}", networks.join(" or "))
            }
        }
    }
}

table! {
    /// Which requests a route takes; all that is given must hold.
    Match {
        /// "a.example", "*.example" (one or more labels before it), "shop.*" (behind it) or "~regex" (of the whole host), or a list of them; any
        /// where it is not given.
        optional host: OneOrMore<RouteHost, ENTRIES_MAX>;
        /// "/exact", "/prefix/*" (whole segments), "/users/{id}" (one segment), "/users/{id}/*" or "~regex", or a list of them.
        default path: OneOrMore<PathText, ENTRIES_MAX> = "/*";
        /// Methods; any where it is not given.
        default method: List<MethodText, 0, ENTRIES_MAX> = [];
        /// Headers by name: "text" (exactly this), or { prefix = "…" }, { regex = "…" }, { not = "…" } (or absent), { present = true } or false.
        default header: Map<Header, ValueText, ROUTE_CONDITIONS_MAX> = {};
        /// Query parameters by name, after percent-decoding; values as in header.
        default query: Map<QueryText, ValueText, ROUTE_CONDITIONS_MAX> = {};
        /// Cookies by name; values as in header.
        default cookie: Map<QueryText, ValueText, ROUTE_CONDITIONS_MAX> = {};
        /// Names of the listeners that the request may come in at; any where it is not given.
        default listener: List<Name, 0, ENTRIES_MAX> = [];
        /// What the client speaks with this gateway: http or https; either where it is not given.
        optional scheme: Scheme;
        /// Networks and addresses of clients, after trusted_proxies; any where it is not given.
        default client_ip: List<Network, 0, ENTRIES_MAX> = [];
    }
}

/// A value of `match.header` and others, as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValueText(pub Test);

/// The forms that are tables.
const FORMS: [&str; 4] = ["prefix", "regex", "not", "present"];

impl Scalar for ValueText {
    fn allowed() -> String {
        "a text, or one of { prefix = \"…\" }, { regex = \"…\" }, { not = \"…\" }, { present = true } and { present = false }"
            .to_owned()
    }

    fn parse(value: &DeValue<'_>) -> Result<Self, Refusal> {
        let bounded = |text: &str| match text.len() <= PATH_BYTES_MAX {
            true => Ok(text.to_owned()),
            false => Err(Refusal::why(format!("at most {PATH_BYTES_MAX} bytes"))),
        };
        let DeValue::Table(table) = value else { return Ok(Self(Test::Is(bounded(text(value)?)?))) };
        let mut entries = table.iter();
        let (Some((key, value)), None) = (entries.next(), entries.next()) else { return Err(Refusal::plain()) };
        let value = value.get_ref();
        Ok(Self(match key.get_ref().as_ref() {
            "prefix" => Test::Prefix(bounded(text(value)?)?),
            "regex" => Test::Regex(Pattern::try_new(text(value)?)?),
            "not" => Test::Not(bounded(text(value)?)?),
            "present" => match value {
                DeValue::Boolean(true) => Test::Present,
                DeValue::Boolean(false) => Test::Absent,
                _ => return Err(Refusal::why("present is true or false")),
            },
            other => {
                return Err(Refusal { why: Some(format!("{other:?} is no test")), help: did_you_mean(other, FORMS) });
            }
        }))
    }

    fn schema() -> serde_json::Value {
        let form = |key: &str, kind: &str| json!({ "type": "object", "properties": { key: { "type": kind } }, "required": [key], "additionalProperties": false });
        json!({ "anyOf": [
            { "type": "string", "maxLength": PATH_BYTES_MAX },
            form("prefix", "string"),
            form("regex", "string"),
            form("not", "string"),
            form("present", "boolean"),
        ] })
    }
}

scalar_schema!(ValueText);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_a_text_or_one_test() {
        let parse = |text: &str| ValueText::parse(DeValue::parse(text).unwrap().get_ref());
        for (written, test) in [
            ("\"a\"", Test::Is("a".into())),
            ("{ prefix = \"a\" }", Test::Prefix("a".into())),
            ("{ not = \"a\" }", Test::Not("a".into())),
            ("{ present = true }", Test::Present),
            ("{ present = false }", Test::Absent),
            ("{ regex = \"^a$\" }", Test::Regex(Pattern::try_new("^a$").unwrap())),
        ] {
            assert_eq!(parse(written).unwrap(), ValueText(test), "{written}");
        }
        for wrong in
            ["1", "{}", "{ prefix = 1 }", "{ prefix = \"a\", not = \"b\" }", "{ regex = \"(\" }", "{ present = 1 }"]
        {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
        assert_eq!(parse("{ prefx = \"a\" }").unwrap_err().help.as_deref(), Some("did you mean \"prefix\"?"));
    }
}
