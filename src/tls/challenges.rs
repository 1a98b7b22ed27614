//! What this gateway answers to who asks whether it is who it says (ACME): tokens over HTTP (RFC 8555 §8.3), certificates over TLS (RFC 8737).
//!
//! Put here by the control thread while an order is under way, for the minute that it takes, and taken away again. All listeners share them,
//! because an authority comes to port 80 or 443, whichever listener that is.

use super::names::Names;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError};

/// The protocol that an authority offers, and nothing else, when it looks at a certificate (RFC 8737 §3).
pub const PROTOCOL: &[u8] = b"acme-tls/1";
/// Where it asks for a token.
const FOLDER: &str = "/.well-known/acme-challenge/";

/// See the module. Locks, because nothing is there but for a minute in weeks, which costs everybody else a look at a number.
#[derive(Default)]
pub struct Challenges {
    open: AtomicUsize,
    tokens: Table<String>,
    certificates: Table<Arc<CertifiedKey>>,
}

#[expect(clippy::disallowed_types, reason = "written a few times in weeks; nobody looks while it is empty")]
type Table<T> = std::sync::RwLock<HashMap<String, T>>;

impl fmt::Debug for Challenges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Challenges").field("open", &self.open).finish_non_exhaustive()
    }
}

impl Challenges {
    /// Whoever asks for `token` gets `answer` until this is dropped.
    #[must_use]
    pub fn answer_with(self: &Arc<Self>, token: String, answer: String) -> Open {
        Open::new(self, token.clone(), || drop(write(&self.tokens).insert(token, answer)))
    }

    /// Whoever looks at `name` gets this certificate until this is dropped.
    #[must_use]
    pub fn show(self: &Arc<Self>, name: &str, certificate: Arc<CertifiedKey>) -> Open {
        let name = name.to_ascii_lowercase();
        Open::new(self, name.clone(), || drop(write(&self.certificates).insert(name, certificate)))
    }

    /// The answer to a request for this path, if it is one for a token that is known.
    pub fn token(&self, path: &str) -> Option<String> {
        if self.open.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let token = path.strip_prefix(FOLDER)?;
        self.tokens.read().unwrap_or_else(PoisonError::into_inner).get(token).cloned()
    }

    fn certificate(&self, name: Option<&str>) -> Option<Arc<CertifiedKey>> {
        let certificates = self.certificates.read().unwrap_or_else(PoisonError::into_inner);
        certificates.get(&name?.to_ascii_lowercase()).cloned()
    }
}

fn write<T>(table: &Table<T>) -> std::sync::RwLockWriteGuard<'_, HashMap<String, T>> {
    table.write().unwrap_or_else(PoisonError::into_inner)
}

/// A challenge that is answered.
#[derive(Debug)]
pub struct Open {
    of: Arc<Challenges>,
    key: String,
}

impl Open {
    fn new(of: &Arc<Challenges>, key: String, put: impl FnOnce()) -> Self {
        put();
        of.open.fetch_add(1, Ordering::Relaxed);
        Self { of: Arc::clone(of), key }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        write(&self.of.tokens).remove(&self.key);
        write(&self.of.certificates).remove(&self.key);
        self.of.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The certificates of a listener, and what is shown to an authority.
#[derive(Debug)]
pub(super) struct Shown {
    pub(super) names: Arc<Names>,
    pub(super) challenges: Arc<Challenges>,
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        // it offers this protocol alone; others that offer it among others are clients
        let is_authority = hello.alpn().is_some_and(|offered| offered.eq([PROTOCOL]));
        match is_authority {
            true => self.challenges.certificate(hello.server_name()),
            false => self.names.resolve(hello),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::testing::{Algorithm, certificate};

    #[test]
    fn tokens_and_certificates_are_there_for_as_long_as_they_are_asked_for() {
        let challenges = Arc::new(Challenges::default());
        assert_eq!(challenges.token("/.well-known/acme-challenge/a"), None);
        let key = Arc::clone(&certificate(&["a.example"], Algorithm::Ecdsa).key);
        let token = challenges.answer_with("a".to_owned(), "a.b".to_owned());
        let shown = challenges.show("A.example", key);
        assert_eq!(challenges.token("/.well-known/acme-challenge/a").as_deref(), Some("a.b"));
        for path in
            ["/.well-known/acme-challenge/", "/.well-known/acme-challenge/b", "/a", "/x/.well-known/acme-challenge/a"]
        {
            assert_eq!(challenges.token(path), None, "{path}");
        }
        assert!(challenges.certificate(Some("a.Example")).is_some());
        assert!(challenges.certificate(Some("b.example")).is_none() && challenges.certificate(None).is_none());
        drop((token, shown));
        assert_eq!(challenges.token("/.well-known/acme-challenge/a"), None);
        assert!(challenges.certificate(Some("a.example")).is_none());
        assert_eq!(challenges.open.load(Ordering::Relaxed), 0);
    }
}
