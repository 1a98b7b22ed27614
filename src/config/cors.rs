//! `cors`: which pages of other origins may call a route, as the file says it and as it is used.
//!
//! A browser lets a page read an answer of another origin only if that says so in `Access-Control-*` (Fetch standard, "CORS protocol"). An origin is
//! written as browsers send it, and everything else is an error: one that is nearly right lets nobody in, and nobody is told why. A regex has to match the
//! whole origin, because `~example\.com` that matches somewhere lets `example.com.evil.net` in.

use super::addresses::check_host;
use super::names::{Header, MethodText};
use super::pattern::Pattern;
use super::place::KeyOf;
use super::problem::{Refusal, Sink};
use super::read::{List, Scalar, Written};
use super::tables::{scalar_schema, table};
use super::values::{DAY, Time, text};
use super::{HeaderRules, Match};
use crate::limits::{ENTRIES_MAX, PATH_BYTES_MAX};
use http::HeaderName;
use serde_json::json;
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;
use toml::de::DeValue;

/// What only the gateway says about CORS: of an endpoint's response these are taken off (Fetch standard, "CORS protocol").
pub(super) const HEADERS: [&str; 7] = [
    "access-control-allow-origin",
    "access-control-allow-credentials",
    "access-control-allow-methods",
    "access-control-allow-headers",
    "access-control-expose-headers",
    "access-control-max-age",
    "access-control-allow-private-network",
];

/// Methods that a page may ask for where neither `cors` nor the route names any.
const METHODS_ANY: &str = "GET, HEAD, POST, PUT, PATCH, DELETE";

/// `route.cors`
#[derive(Clone, Debug)]
pub struct Cors {
    /// Whose pages; at least one.
    pub origins: Vec<CorsOrigin>,
    /// `Access-Control-Allow-Methods`.
    pub methods: String,
    /// `Access-Control-Allow-Headers`.
    pub headers: AllowedHeaders,
    /// `Access-Control-Expose-Headers`; empty: none.
    pub expose: String,
    /// Whether cookies and credentials may come along.
    pub credentials: bool,
    /// How long a browser keeps what it was told before it asks again.
    pub max_age: Duration,
}

/// `cors.headers`
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AllowedHeaders {
    /// Whichever are asked for.
    Asked,
    /// These: the field's value; empty: none but those that need no permission.
    These(String),
}

/// An entry of `cors.origins`
#[derive(Clone, Debug)]
pub enum CorsOrigin {
    /// Everybody's pages, without credentials.
    Any,
    /// `https://app.example.com`, in lower case.
    Exact(String),
    /// `https://*.example.com`: one or more labels. What stands before them, and behind.
    Wildcard(String, String),
    /// `~regex`, which matches the whole origin.
    Regex(Pattern),
}

impl fmt::Display for CorsOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::Exact(origin) => f.write_str(origin),
            Self::Wildcard(before, behind) => write!(f, "{before}*{behind}"),
            Self::Regex(regex) => write!(f, "~{}", regex.as_str()),
        }
    }
}

impl Cors {
    /// Whether everybody is told the same, so that no cache needs to know who asked.
    #[must_use]
    pub fn is_for_all(&self) -> bool {
        matches!(self.origins[..], [CorsOrigin::Any])
    }
}

table! {
    /// Pages of other origins that may call this route (CORS). The gateway answers preflights itself.
    CorsTable {
        /// Whose pages: `https://app.example.com`, `https://*.example.com` (one or more labels), "~regex" of the whole origin, or "*" alone for all.
        required origins: List<OriginText, 1, ENTRIES_MAX>;
        /// Methods that they may use; those of match.method where it is not given, and all that are usual where that is not either.
        default methods: List<MethodText, 0, ENTRIES_MAX> = [];
        /// Request headers that they may send besides those that need no permission; ["*"] are all that they ask for.
        default headers: List<Header, 0, ENTRIES_MAX> = [];
        /// Response headers that they may read besides those that need no permission; ["*"] are all, without credentials.
        default expose: List<Header, 0, ENTRIES_MAX> = [];
        /// Whether cookies, certificates and Authorization of the browser come along. Not with origins = ["*"].
        default credentials: bool = false;
        /// How long a browser keeps what a preflight was answered, 0s to 1d.
        default max_age: Time<0, DAY> = "10m";
    }
}

/// An entry of `cors.origins`, as it is written.
#[derive(Clone, Debug)]
pub struct OriginText(pub CorsOrigin);

impl Scalar for OriginText {
    fn allowed() -> String {
        "an origin such as \"https://app.example.com\", \"https://*.example.com\" or \"~https://[a-z]+\\\\.example\\\\.com\", or \"*\" for all"
            .to_owned()
    }

    fn parse(value: &DeValue<'_>) -> Result<Self, Refusal> {
        let written = text(value)?;
        if written == "*" {
            return Ok(Self(CorsOrigin::Any));
        }
        if let Some(pattern) = written.strip_prefix('~') {
            return Pattern::whole(pattern).map(|pattern| Self(CorsOrigin::Regex(pattern)));
        }
        origin(written).map(Self)
    }

    fn schema() -> serde_json::Value {
        json!({ "type": "string", "minLength": 1, "maxLength": PATH_BYTES_MAX })
    }
}

/// `scheme://host` or `scheme://host:port` (RFC 6454 §6.2), the host with a wildcard or not.
fn origin(written: &str) -> Result<CorsOrigin, Refusal> {
    if written == "null" {
        return Err(Refusal::why("\"null\" is what any sandboxed page and any file sends: it lets everybody in"));
    }
    let Some((scheme, authority)) = written.split_once("://") else {
        let help =
            check_host(&written.to_ascii_lowercase()).is_ok().then(|| format!("did you mean \"https://{written}\"?"));
        return Err(Refusal { why: Some("an origin has a scheme".to_owned()), help });
    };
    let is_scheme = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'));
    if !is_scheme {
        return Err(Refusal::why(format!("{scheme:?} is no scheme")));
    }
    if let Some((bare, _)) = authority.split_once(['/', '?', '#']) {
        return Err(Refusal::why("an origin has no path").help(format!("did you mean \"{scheme}://{bare}\"?")));
    }
    let lower = written.to_ascii_lowercase();
    let (scheme, authority) = lower.split_once("://").unwrap_or_default();
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (authority, None),
    };
    if let Some(port) = port {
        let number = port.parse::<u16>().ok().filter(|number| number.to_string() == port);
        let number = number.ok_or_else(|| Refusal::why(format!("{port:?} is no port")))?;
        if matches!((scheme, number), ("http", 80) | ("https", 443)) {
            let why = format!("browsers leave the port {number} of {scheme} out");
            return Err(Refusal::why(why).help(format!("did you mean \"{scheme}://{host}\"?")));
        }
    }
    if host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).is_some_and(|ip| ip.parse::<IpAddr>().is_ok()) {
        return Ok(CorsOrigin::Exact(lower));
    }
    match host.strip_prefix("*.") {
        Some(name) => {
            check_host(name)?;
            let behind = lower[scheme.len() + "://*".len()..].to_owned();
            Ok(CorsOrigin::Wildcard(format!("{scheme}://"), behind))
        }
        None => check_host(host).map(|()| CorsOrigin::Exact(lower)),
    }
}

scalar_schema!(OriginText);

/// What the table says for a route of which this is known; the rules of the response learn what is the gateway's to say.
pub(super) fn cors(
    table: &CorsTable,
    matcher: Option<&Match>,
    rules: Option<&mut HeaderRules>,
    sink: &mut Sink<'_>,
) -> Option<Cors> {
    let list = table.origins.as_ref()?;
    let origins: Vec<CorsOrigin> = list.value.0.iter().map(|origin| origin.value.0.clone()).collect();
    let has_any = origins.iter().any(|origin| matches!(origin, CorsOrigin::Any));
    if has_any && origins.len() > 1 {
        let message = "\"*\" stands for all of them; let it stand alone, or leave it out".to_owned();
        sink.value(table.at.key("origins"), list.span.clone(), message, None);
    }
    let credentials = table.credentials.as_ref()?;
    if has_any && credentials.value {
        let message =
            "not with origins = [\"*\"]: browsers refuse that, since every page could act for whoever is logged in"
                .to_owned();
        let help = "name the origins".to_owned();
        sink.value(table.at.key("credentials"), credentials.span.clone(), message, Some(help));
    }
    if let Some(rules) = rules {
        stands_twice(table, rules, sink);
        rules.strip = HEADERS.map(HeaderName::from_static).into();
    }
    let (headers, expose) = (table.headers.as_ref()?, table.expose.as_ref()?);
    let asked = star(table.at.key("headers"), headers, sink);
    if star(table.at.key("expose"), expose, sink) && credentials.value {
        let message =
            "\"*\" is the name of a header where there are credentials (Fetch standard, CORS protocol): name them"
                .to_owned();
        sink.value(table.at.key("expose"), expose.span.clone(), message, None);
    }
    let methods: Vec<&str> = table.methods.as_ref()?.value.0.iter().map(|method| method.value.0.as_str()).collect();
    let methods = match (methods.is_empty(), matcher) {
        (false, _) => methods.join(", "),
        (true, Some(matcher)) if !matcher.methods.is_empty() => {
            matcher.methods.iter().map(http::Method::as_str).collect::<Vec<_>>().join(", ")
        }
        (true, _) => METHODS_ANY.to_owned(),
    };
    Some(Cors {
        origins,
        methods,
        headers: if asked { AllowedHeaders::Asked } else { AllowedHeaders::These(joined(headers)) },
        expose: joined(expose),
        credentials: credentials.value,
        max_age: table.max_age.as_ref()?.value.0,
    })
}

/// Whether `*` stands there, which must be alone.
fn star<const MIN: usize, const MAX: usize>(
    path: KeyOf<'_>,
    list: &Written<List<Header, MIN, MAX>>,
    sink: &mut Sink<'_>,
) -> bool {
    let has = list.value.0.iter().any(|name| name.value.0 == "*");
    if has && list.value.0.len() > 1 {
        let message = "\"*\" stands for all of them; let it stand alone, or leave it out".to_owned();
        sink.value(path, list.span.clone(), message, None);
    }
    has
}

fn joined<const MIN: usize, const MAX: usize>(list: &Written<List<Header, MIN, MAX>>) -> String {
    list.value.0.iter().map(|name| name.value.0.as_str()).collect::<Vec<_>>().join(", ")
}

/// Two places that say the same header would disagree one day.
fn stands_twice(table: &CorsTable, rules: &HeaderRules, sink: &mut Sink<'_>) {
    let set = rules.set.iter().map(|(name, _)| name);
    let mut named = set.chain(rules.templates.iter().map(|(name, _)| name));
    if let Some(name) = named.find(|name| HEADERS.contains(&name.as_str())) {
        let message = format!("{name} is set in response_headers too; say it in one place");
        sink.place(table.at.path.clone(), table.at.offset, message, None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::values::tests::{accepts, refuses};

    #[test]
    fn origins_are_written_as_browsers_send_them() {
        accepts::<OriginText>(&[
            "*",
            "https://a.example",
            "http://localhost:3000",
            "https://*.a.example",
            "https://*.a.example:8443",
            "capacitor://localhost",
            "http://[::1]:8080",
            "https://10.0.0.1",
            "~https://[a-z]+\\.a\\.example",
        ]);
        refuses::<OriginText>(&[
            "",
            "a.example",
            "null",
            "https://",
            "https://a.example/",
            "https://a.example:443",
            "http://a.example:80",
            "https://*",
            "https://a.*.example",
            "https://*a.example",
            "https://a.example:0x1",
            "https://u@a.example",
            "~(",
            "~",
            "~a)|(b",
        ]);
    }

    #[test]
    fn refused_origins_come_with_what_was_meant() {
        let help = |text: &str| OriginText::parse(&DeValue::String(text.into())).unwrap_err().help.unwrap();
        assert_eq!(help("a.example"), "did you mean \"https://a.example\"?");
        assert_eq!(help("https://a.example:443"), "did you mean \"https://a.example\"?");
        assert_eq!(help("https://a.example/x"), "did you mean \"https://a.example\"?");
    }

    #[test]
    fn a_regex_matches_the_whole_origin() {
        let OriginText(CorsOrigin::Regex(regex)) =
            OriginText::parse(&DeValue::String("~https://(a|b)\\.example|https://c\\.example".into())).unwrap()
        else {
            panic!("a regex")
        };
        let mut cache = regex.cache();
        for (origin, is_match) in [
            ("https://a.example", true),
            ("https://c.example", true),
            ("https://a.example.evil", false),
            ("xhttps://a.example", false),
            ("https://a.example\n", false),
        ] {
            assert_eq!(regex.is_match(origin.as_bytes(), &mut cache), is_match, "{origin}");
        }
    }
}
