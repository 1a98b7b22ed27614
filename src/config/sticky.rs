//! `upstream.sticky`: sessions that stay with one endpoint, by a cookie of the gateway's own.
//!
//! What is wrong with a cookie's attributes nobody is told: browsers drop such a cookie in silence, and every request meets another endpoint. So what
//! they would drop is an error here (RFC 6265bis §4.1.3, §5.7: prefixes, SameSite=None).

use super::check::value;
use super::identity::fingerprint;
use super::identity_keys::Token;
use super::problem::{Refusal, Sink};
use super::read::Scalar;
use super::secret::SecretText;
use super::tables::{scalar_schema, table};
use super::values::{DAY, Time, text, words};
use super::{Cluster, Route, Target};
use crate::limits::PATH_BYTES_MAX;
use aws_lc_rs::digest;
use serde_json::json;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use toml::de::DeValue;

/// Bytes that a key has at least: what it protects is worth no more than a place at one endpoint, but it must not be guessed from one cookie.
const KEY_BYTES_MIN: usize = 16;

table! {
    /// Sessions that stay with one endpoint, by a cookie that the gateway sets.
    StickyTable {
        /// The cookie's name.
        default cookie: Token = "ringgate";
        /// A secret of at least 16 bytes that cookies are made with; gateways that share it know each other's. Without it one is made at the start, and
        /// sessions find another endpoint after a restart or an upgrade.
        optional key: SecretText;
        /// Below which path of the site browsers send it.
        default path: CookiePath = "/";
        /// How long a browser keeps it, 0s to 400d; 0s: until it is closed.
        default max_age: Time<0, { 400 * DAY }> = "0s";
        /// Whether it is sent over https alone; where it is not given, if the request that it is set for came that way.
        optional secure: bool;
        /// Whether scripts of the page cannot see it.
        default http_only: bool = true;
        /// Whether it comes along from pages of other sites: strict, lax or none; none only with secure = true.
        default same_site: SameSite = "lax";
    }
}

words! {
    /// `sticky.same_site`
    SameSite {
        /// Never.
        Strict = "strict",
        /// When a link is followed.
        Lax = "lax",
        /// Always.
        None = "none",
    }
}

/// `sticky.path`: what stands in an attribute of a cookie without ending it (RFC 6265 §4.1.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CookiePath(pub String);

impl Scalar for CookiePath {
    fn allowed() -> String {
        "a path such as \"/\" or \"/shop\", without ;".to_owned()
    }

    fn parse(value: &DeValue<'_>) -> Result<Self, Refusal> {
        let path = text(value)?;
        let is_clean = path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b';');
        let fits = path.starts_with('/') && path.len() <= PATH_BYTES_MAX && is_clean;
        if fits { Ok(Self(path.to_owned())) } else { Err(Refusal::plain()) }
    }

    fn schema() -> serde_json::Value {
        json!({ "type": "string", "pattern": "^/[!-:<-~]*$", "maxLength": PATH_BYTES_MAX })
    }
}

scalar_schema!(CookiePath);

/// `[upstream.NAME.sticky]`
#[derive(Clone, Debug)]
pub struct Sticky {
    /// The cookie's name.
    pub cookie: String,
    /// What cookies are made with; `None`: what the process has made for itself.
    pub key: Option<StickyKey>,
    /// `Path`
    pub path: String,
    /// `Max-Age`; zero: none is said.
    pub max_age: Duration,
    /// `Secure`; `None`: where the client came by https.
    pub secure: Option<bool>,
    /// `HttpOnly`
    pub http_only: bool,
    /// `SameSite`
    pub same_site: SameSite,
}

/// A key of 256 bits. `Debug` shows by what it can be told from another one.
#[derive(Clone)]
pub struct StickyKey(pub Arc<[u8; 32]>);

impl StickyKey {
    /// Made of these bytes, whatever their number.
    #[must_use]
    pub fn new(secret: &[u8]) -> Self {
        let mut key = [0; 32];
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(b"ringgate sticky sessions\0");
        context.update(secret);
        key.copy_from_slice(context.finish().as_ref());
        Self(Arc::new(key))
    }
}

impl fmt::Debug for StickyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StickyKey({})", fingerprint(&*self.0))
    }
}

impl SameSite {
    /// As the attribute says it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Strict => "Strict",
            Self::Lax => "Lax",
            Self::None => "None",
        }
    }
}

/// What the table says.
pub(super) fn sticky(table: &StickyTable, sink: &mut Sink<'_>) -> Option<Sticky> {
    let (secure, same_site) = (value(&table.secure), value(&table.same_site)?);
    let cookie = value(&table.cookie)?.0;
    if let (SameSite::None, false) = (same_site, secure == Some(true)) {
        let message = "\"none\" only with secure = true: browsers drop the cookie otherwise".to_owned();
        let span = table.same_site.as_ref()?.span.clone();
        sink.value(table.at.key("same_site"), span, message, None);
    }
    let path = value(&table.path)?.0;
    let prefix = ["__Host-", "__Secure-"].into_iter().find(|prefix| cookie.starts_with(prefix));
    let is_kept = secure == Some(true) && (prefix != Some("__Host-") || path == "/");
    if let (Some(prefix), false) = (prefix, is_kept) {
        let wants = if prefix == "__Host-" { "secure = true and path = \"/\"" } else { "secure = true" };
        let message = format!("browsers drop a cookie of this name unless it has {wants}");
        sink.value(table.at.key("cookie"), table.cookie.as_ref()?.span.clone(), message, None);
    }
    let key = table.key.as_ref();
    if let Some(short) = key.filter(|key| key.value.0.len() < KEY_BYTES_MIN) {
        // never the text itself
        sink.place(table.at.key("key"), short.span.start, format!("has fewer than {KEY_BYTES_MIN} bytes"), None);
    }
    Some(Sticky {
        cookie,
        key: key.map(|key| StickyKey::new(key.value.0.as_bytes())),
        path,
        max_age: value(&table.max_age)?.0,
        secure,
        http_only: value(&table.http_only)?,
        same_site,
    })
}

/// Where an upstream has such a cookie of its own, what clients send as `Cookie` is written anew without it.
pub(super) fn strip(routes: &mut [Route], clusters: &[Arc<Cluster>]) {
    for route in routes {
        let Target::Upstream(split) = &route.target else { continue };
        if split.iter().any(|(id, _)| clusters[id.index()].sticky.is_some()) {
            let known = &route.request_headers.strip;
            let others = known.iter().filter(|name| **name != http::header::COOKIE).cloned();
            route.request_headers.strip = others.chain([http::header::COOKIE]).collect();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::values::tests::{accepts, refuses};

    #[test]
    fn a_path_of_a_cookie_ends_nothing() {
        accepts::<CookiePath>(&["/", "/shop", "/a/b%20c"]);
        refuses::<CookiePath>(&["", "shop", "/a;b", "/a b", "/\u{e9}", "/\r\nx"]);
    }

    #[test]
    fn what_browsers_drop_in_silence_is_an_error() {
        let errors = |keys: &str| {
            let text = format!(
                "[[listener]]\nlisten = \"127.0.0.1:0\"\n[[route]]\nupstream = \"a\"\n\
                 [upstream.a]\nendpoints = [{{ address = \"127.0.0.1:1\" }}]\nsticky = {{ {keys} }}\n"
            );
            crate::config::parse(&text, "f").map_or_else(|errors| errors.to_string(), |_| String::new())
        };
        for fine in [
            "",
            "cookie = \"s\", path = \"/a\", max_age = \"30d\"",
            "same_site = \"none\", secure = true",
            "cookie = \"__Host-s\", secure = true",
            "key = \"0123456789abcdef\"",
        ] {
            assert_eq!(errors(fine), "", "{fine}");
        }
        for (wrong, said) in [
            ("same_site = \"none\"", "only with secure = true"),
            ("same_site = \"none\", secure = false", "only with secure = true"),
            ("cookie = \"__Host-s\", secure = true, path = \"/a\"", "path = \"/\""),
            ("cookie = \"__Secure-s\"", "unless it has secure = true"),
            ("cookie = \"a b\"", "a word of letters"),
            ("key = \"short-secret\"", "fewer than 16 bytes"),
        ] {
            let errors = errors(wrong);
            assert!(errors.contains(said) && !errors.contains("short-secret"), "{wrong}: {errors}");
        }
    }

    #[test]
    fn a_key_is_not_shown_and_another_one_is_seen() {
        let shown = |secret: &str| format!("{:?}", StickyKey::new(secret.as_bytes()));
        assert_ne!(shown("0123456789abcdef"), shown("0123456789abcdeF"));
        assert!(!shown("0123456789abcdef").contains("0123456789abcdef"));
    }
}
