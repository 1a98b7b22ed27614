//! Keys that are exchanged while the gateway runs: those that an issuer shows at its JWKS URL (RFC 7517 §5), which may be found by what the issuer says of
//! itself (OpenID Connect Discovery 1.0 §4).
//!
//! The control plane fetches them; workers look at a number, and take the keys when it has changed. What was fetched last stays while nothing
//! better comes. A worker that meets a token of a key that is not there says so, which has the keys fetched sooner.

use super::encryption::ClientSide;
use super::problem::Refusal;
use super::read::Scalar;
use super::strict_json;
use super::tables::scalar_schema;
use super::token_keys::VerifyKey;
use super::values::text;
use http::Uri;
use serde_json::{Value, json};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::Duration;
use toml::de::DeValue;

/// `auth.jwks`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JwksUrl {
    /// As it is written.
    pub written: String,
    /// Whether it is asked in TLS.
    pub is_tls: bool,
    /// Name or address, without brackets.
    pub host: String,
    /// Of `host`.
    pub port: u16,
    /// `Host` of the request.
    pub authority: String,
    /// Path and query.
    pub path: String,
}

impl JwksUrl {
    /// Where an issuer says of itself where its keys are (OpenID Connect Discovery 1.0 §4.1).
    ///
    /// # Errors
    /// Why the issuer has no such place.
    pub(super) fn of_issuer(issuer: &str) -> Result<Self, String> {
        if issuer.contains(['?', '#']) {
            return Err("an issuer that is looked up has no query and no fragment".to_owned());
        }
        let written = format!("{}/.well-known/openid-configuration", issuer.strip_suffix('/').unwrap_or(issuer));
        let wrong = || "must be an https:// URL to be looked up; http:// for a loopback address only".to_owned();
        Self::parse(&DeValue::String(written.into())).map_err(|refusal| refusal.why.unwrap_or_else(wrong))
    }

    /// The place of the keys, of what an issuer says of itself, which has to call it by its very name. It may be another host, as it is of large
    /// issuers, but never one that is asked without TLS by an issuer that is asked with it.
    ///
    /// # Errors
    /// Why that is not taken.
    pub fn of_discovery(&self, issuer: &str, document: &str) -> Result<Self, String> {
        let document = strict_json::object(document.as_bytes()).ok_or("the discovery document is no JSON object")?;
        if document.get("issuer").and_then(Value::as_str) != Some(issuer) {
            return Err("the discovery document is of another issuer".to_owned());
        }
        let written =
            document.get("jwks_uri").and_then(Value::as_str).ok_or("the discovery document has no jwks_uri")?;
        let url = Self::parse(&DeValue::String(written.into())).map_err(|refusal| {
            format!(
                "its jwks_uri is not taken: {}",
                refusal.why.unwrap_or_else(|| "it is no URL that is asked".to_owned())
            )
        })?;
        match self.is_tls && !url.is_tls {
            true => Err("its jwks_uri is not taken: it is without TLS".to_owned()),
            false => Ok(url),
        }
    }
}

impl Scalar for JwksUrl {
    fn allowed() -> String {
        "the URL of a JWK set, such as \"https://issuer.example/.well-known/jwks.json\"; http:// for a loopback address only".to_owned()
    }

    fn parse(value: &DeValue<'_>) -> Result<Self, Refusal> {
        let written = text(value)?;
        let uri: Uri = written.parse().map_err(|_| Refusal::plain())?;
        let (scheme, authority) = uri.scheme_str().zip(uri.authority()).ok_or_else(Refusal::plain)?;
        if authority.as_str().contains('@') {
            return Err(Refusal::why("a URL with a password in it would be shown"));
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let is_loopback = host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
        let is_tls = match scheme {
            "https" => true,
            "http" if is_loopback => false,
            "http" => return Err(Refusal::why("whoever is on the way could exchange the keys").help("write https://")),
            _ => return Err(Refusal::plain()),
        };
        let port = authority.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        let (written, authority) = (written.to_owned(), authority.to_string());
        Ok(Self { written, is_tls, host, port, authority, path })
    }

    fn schema() -> serde_json::Value {
        json!({ "type": "string", "pattern": "^https?://" })
    }
}

scalar_schema!(JwksUrl);

/// The keys of a URL.
pub struct FetchedKeys {
    /// Where they are, or where their issuer says that.
    pub url: JwksUrl,
    /// The issuer, if that is asked where its keys are.
    pub issuer: Option<String>,
    /// What TLS is spoken with there.
    pub tls: Option<ClientSide>,
    /// Which keys these are; 0: there were none yet.
    version: AtomicU64,
    #[expect(clippy::disallowed_types, reason = "taken when keys are exchanged, and then once by each worker")]
    keys: std::sync::Mutex<Arc<[VerifyKey]>>,
    is_wanted: AtomicBool,
    good: AtomicU64,
    failed: AtomicU64,
    /// When they came last, in seconds since 1970; 0: never.
    at: AtomicU64,
}

impl fmt::Debug for FetchedKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // what has been fetched is no change of the configuration
        f.debug_struct("FetchedKeys")
            .field("url", &self.url)
            .field("issuer", &self.issuer)
            .field("tls", &self.tls)
            .finish_non_exhaustive()
    }
}

impl FetchedKeys {
    pub(super) fn new(url: JwksUrl, issuer: Option<String>, tls: Option<ClientSide>) -> Self {
        let (version, is_wanted) = (AtomicU64::new(0), AtomicBool::new(false));
        let [good, failed, at] = [(); 3].map(|()| AtomicU64::new(0));
        Self { url, issuer, tls, version, keys: Default::default(), is_wanted, good, failed, at }
    }

    /// Takes over what was fetched, and counted, for the configuration before.
    pub fn succeed(&self, before: &Self) {
        self.set(before.keys());
        for (mine, its) in [(&self.good, &before.good), (&self.failed, &before.failed), (&self.at, &before.at)] {
            mine.store(its.load(Relaxed), Relaxed);
        }
    }

    /// They came, at this time since 1970.
    pub fn on_fetched(&self, keys: Arc<[VerifyKey]>, now: Duration) {
        self.set(keys);
        self.good.fetch_add(1, Relaxed);
        self.at.store(now.as_secs(), Relaxed);
    }

    /// They could not be had.
    pub fn on_failed(&self) {
        self.failed.fetch_add(1, Relaxed);
    }

    /// Fetches that went well, and others.
    #[must_use]
    pub fn counts(&self) -> (u64, u64) {
        (self.good.load(Relaxed), self.failed.load(Relaxed))
    }

    /// When they came last, in seconds since 1970.
    #[must_use]
    pub fn fetched_at(&self) -> Option<u64> {
        Some(self.at.load(Relaxed)).filter(|at| *at > 0)
    }

    /// Which keys there are now.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version.load(Acquire)
    }

    /// Those.
    #[must_use]
    pub fn keys(&self) -> Arc<[VerifyKey]> {
        // a panic while it is held leaves keys that are whole
        Arc::clone(&self.keys.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    /// These are the keys from now on.
    fn set(&self, keys: Arc<[VerifyKey]>) {
        *self.keys.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = keys;
        self.version.fetch_add(1, Release);
    }

    /// Somebody has shown a token of a key that is not there.
    pub fn want(&self) {
        self.is_wanted.store(true, Relaxed);
    }

    /// Whether somebody has, since this was asked last.
    pub fn take_wanted(&self) -> bool {
        self.is_wanted.swap(false, Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_asked_in_tls_but_on_this_machine() {
        let parse = |written: &str| JwksUrl::parse(&DeValue::String(written.into())).ok();
        let url = parse("https://Issuer.example/.well-known/jwks.json?v=1").unwrap();
        assert_eq!((url.is_tls, url.port, url.path.as_str()), (true, 443, "/.well-known/jwks.json?v=1"));
        let url = parse("http://[::1]:8080").unwrap();
        assert_eq!((url.is_tls, url.host.as_str(), url.port, url.path.as_str()), (false, "::1", 8080, "/"));
        assert!(parse("http://127.0.0.1/keys").is_some());
        for wrong in [
            "http://issuer.example/",
            "ftp://a/",
            "/jwks.json",
            "https://user:pass@a.example/",
            "https://",
            "",
            "http://127.0.0.1.example/",
        ] {
            assert!(parse(wrong).is_none(), "{wrong}");
        }
    }

    #[test]
    fn an_issuer_says_itself_where_its_keys_are() {
        let of = |issuer: &str| JwksUrl::of_issuer(issuer).map(|url| url.written);
        let place = "/.well-known/openid-configuration";
        assert_eq!(of("https://i.example"), Ok(format!("https://i.example{place}")));
        assert_eq!(of("https://i.example/"), Ok(format!("https://i.example{place}")));
        assert_eq!(of("https://i.example/realms/a"), Ok(format!("https://i.example/realms/a{place}")));
        for wrong in [
            "i.example",
            "http://i.example",
            "https://i.example/?a=b",
            "https://i.example#a",
            "https://u:p@i.example",
            "",
        ] {
            assert!(of(wrong).is_err(), "{wrong}");
        }
        let (issuer, local) = ("https://i.example/", "http://127.0.0.1:1");
        let keys = |of: &str, document: &str| {
            JwksUrl::of_issuer(of).unwrap().of_discovery(of, document).map(|url| url.written)
        };
        let said = |issuer: &str, uri: &str| format!("{{\"issuer\":{issuer:?},\"jwks_uri\":{uri:?},\"x\":[1]}}");
        for uri in ["https://i.example/keys", "https://keys.example/v3"] {
            assert_eq!(keys(issuer, &said(issuer, uri)), Ok(uri.to_owned()));
        }
        assert!(keys(local, &said(local, "http://127.0.0.1:2/keys")).is_ok());
        for other in ["https://i.example", "https://I.example/", "https://evil.example/", ""] {
            assert_eq!(
                keys(issuer, &said(other, "https://i.example/keys")).unwrap_err(),
                "the discovery document is of another issuer"
            );
        }
        for uri in [
            "http://127.0.0.1/keys",
            "http://i.example/keys",
            "file:///etc/passwd",
            "/keys",
            "",
            "https://u:p@i.example/",
        ] {
            assert!(keys(issuer, &said(issuer, uri)).unwrap_err().contains("jwks_uri"), "{uri}");
        }
        let twice = "{\"issuer\":\"https://evil.example/\",\"issuer\":\"https://i.example/\",\"jwks_uri\":\"https://i.example/\"}";
        for document in ["", "[]", "null", "{}", &format!("{{\"issuer\":{issuer:?}}}"), twice] {
            assert!(keys(issuer, document).is_err(), "{document}");
        }
    }
}
