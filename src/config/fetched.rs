//! Keys that are exchanged while the gateway runs: those that an issuer shows at its JWKS URL (RFC 7517 §5).
//!
//! The control plane fetches them; workers look at a number, and take the keys when it has changed. What was fetched last stays while nothing
//! better comes. A worker that meets a token of a key that is not there says so, which has the keys fetched sooner.

use super::encryption::ClientSide;
use super::problem::Refusal;
use super::read::Scalar;
use super::tables::scalar_schema;
use super::token_keys::VerifyKey;
use super::values::text;
use http::Uri;
use serde_json::json;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU64};
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
    /// Where they are.
    pub url: JwksUrl,
    /// What TLS is spoken with there.
    pub tls: Option<ClientSide>,
    /// Which keys these are; 0: there were none yet.
    version: AtomicU64,
    #[expect(clippy::disallowed_types, reason = "taken when keys are exchanged, and then once by each worker")]
    keys: std::sync::Mutex<Arc<[VerifyKey]>>,
    is_wanted: AtomicBool,
}

impl fmt::Debug for FetchedKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // what has been fetched is no change of the configuration
        f.debug_struct("FetchedKeys").field("url", &self.url).field("tls", &self.tls).finish_non_exhaustive()
    }
}

impl FetchedKeys {
    pub(super) fn new(url: JwksUrl, tls: Option<ClientSide>) -> Self {
        let (version, is_wanted) = (AtomicU64::new(0), AtomicBool::new(false));
        Self { url, tls, version, keys: Default::default(), is_wanted }
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
    pub fn set(&self, keys: Arc<[VerifyKey]>) {
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
}
