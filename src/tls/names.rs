//! Which certificate a client gets: by the name that it asks for (RFC 6066 §3) and the signatures that it can check.
//!
//! The name itself first, then the wildcard one label above it, as browsers read them (RFC 9525 §6.3), then the default, which who asks for
//! nothing gets too. Of several for one name the first that the client can check, elliptic curves before RSA, because a server signs with
//! them in a third of the time.

use super::certificate::Certificate;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{SignatureAlgorithm, SignatureScheme};
use std::collections::HashMap;
use std::sync::Arc;

/// The certificates of a listener.
#[derive(Debug, Default)]
pub struct Names {
    all: Vec<Arc<Certificate>>,
    by_name: HashMap<String, Vec<usize>>,
    /// The first, and others for one of its names.
    default: Vec<usize>,
}

impl Names {
    /// Of these, of which the first is the default.
    #[must_use]
    pub fn new(all: Vec<Arc<Certificate>>) -> Self {
        let mut by_name: HashMap<String, Vec<usize>> = HashMap::new();
        for (row, certificate) in all.iter().enumerate() {
            for name in &certificate.names {
                let rows = by_name.entry(name.clone()).or_default();
                if !rows.contains(&row) {
                    rows.push(row);
                }
            }
        }
        let is_rsa = |row: &usize| all[*row].algorithm() == SignatureAlgorithm::RSA;
        let is_of_first = |rows: &&Vec<usize>| rows.contains(&0);
        let mut default = by_name.values().filter(is_of_first).flatten().copied().collect::<Vec<_>>();
        default.sort_unstable();
        default.dedup();
        if default.is_empty() && !all.is_empty() {
            default.push(0);
        }
        by_name.values_mut().chain([&mut default]).for_each(|rows| rows.sort_by_key(is_rsa));
        Self { all, by_name, default }
    }

    /// All of them.
    #[must_use]
    pub fn all(&self) -> &[Arc<Certificate>] {
        &self.all
    }

    /// Those for a name, best first, and whether they are for that very name or only what there is.
    #[must_use]
    pub fn of(&self, name: Option<&str>) -> (Vec<&Arc<Certificate>>, bool) {
        let rows = name.and_then(|name| self.rows(name));
        (rows.unwrap_or(&self.default).iter().map(|row| &self.all[*row]).collect(), rows.is_some())
    }

    fn rows(&self, name: &str) -> Option<&Vec<usize>> {
        let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        self.by_name.get(&name).or_else(|| self.by_name.get(&format!("*.{}", name.split_once('.')?.1)))
    }

    fn choose(&self, name: Option<&str>, schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let rows = name.and_then(|name| self.rows(name)).unwrap_or(&self.default);
        let can_check = |row: &&usize| self.all[**row].key.key.choose_scheme(schemes).is_some();
        let row = rows.iter().find(can_check).or_else(|| rows.first())?;
        Some(Arc::clone(&self.all[*row].key))
    }
}

impl ResolvesServerCert for Names {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.choose(hello.server_name(), hello.signature_schemes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::testing::{Algorithm, certificate};

    fn names() -> Names {
        let make = |names: &[&str], algorithm| Arc::new(certificate(names, algorithm));
        Names::new(vec![
            make(&["a.example", "www.a.example"], Algorithm::Rsa),
            make(&["a.example"], Algorithm::Ecdsa),
            make(&["*.b.example"], Algorithm::Ecdsa),
            make(&["x.b.example"], Algorithm::Ecdsa),
        ])
    }

    #[test]
    fn the_name_decides_then_the_wildcard_above_it_then_the_default() {
        let names = names();
        let row = |name: Option<&str>| {
            let (of, is_for_it) = names.of(name);
            let at = names.all().iter().position(|certificate| Arc::ptr_eq(certificate, of[0])).unwrap();
            (at, is_for_it)
        };
        for (name, expected) in [
            (Some("a.example"), (1, true)),
            (Some("A.Example."), (1, true)),
            (Some("www.a.example"), (0, true)),
            (Some("y.b.example"), (2, true)),
            (Some("x.b.example"), (3, true)),
            (Some("z.y.b.example"), (1, false)),
            (Some("b.example"), (1, false)),
            (Some("example"), (1, false)),
            (Some(""), (1, false)),
            (None, (1, false)),
        ] {
            assert_eq!(row(name), expected, "{name:?}");
        }
    }

    #[test]
    fn who_cannot_check_one_signature_gets_another() {
        let names = names();
        let chosen = |name, schemes: &[SignatureScheme]| names.choose(Some(name), schemes).unwrap().key.algorithm();
        let (rsa, ecdsa) = (SignatureScheme::RSA_PSS_SHA256, SignatureScheme::ECDSA_NISTP256_SHA256);
        assert_eq!(chosen("a.example", &[rsa, ecdsa]), SignatureAlgorithm::ECDSA);
        assert_eq!(chosen("a.example", &[rsa]), SignatureAlgorithm::RSA);
        assert_eq!(chosen("x.b.example", &[rsa]), SignatureAlgorithm::ECDSA, "there is no other");
    }
}
