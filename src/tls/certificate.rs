//! A certificate with its key, as files have them: read, and seen to belong together.

use super::{der, provider};
use crate::limits::CERTIFICATES_MAX;
use aws_lc_rs::digest;
use rustls::SignatureAlgorithm;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, Weak};
use thiserror::Error;
use zeroize::Zeroizing;

/// A chain and the key of its first certificate.
pub struct Certificate {
    /// For handshakes.
    pub key: Arc<CertifiedKey>,
    /// Names that it is for, lower case; a wildcard begins with `*.`.
    pub names: Vec<String>,
    /// Seconds since 1970 from when on it is valid.
    pub not_before: i64,
    /// Seconds since 1970 until when it is valid.
    pub not_after: i64,
    /// Of the whole chain.
    pub fingerprint: String,
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate")
            .field("names", &self.names)
            .field("fingerprint", &self.fingerprint)
            .finish_non_exhaustive()
    }
}

/// SHA-256, in hexadecimal.
#[must_use]
pub fn fingerprint(bytes: &[u8]) -> String {
    let digest = digest::digest(&digest::SHA256, bytes);
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Why files are no certificate with its key.
#[derive(Debug, Error)]
pub enum Unusable {
    /// The chain is not PEM.
    #[error("is not PEM: {0}")]
    ChainText(&'static str),
    /// Nothing in it.
    #[error("holds no certificate (-----BEGIN CERTIFICATE-----)")]
    NoCertificate,
    /// The first certificate cannot be read.
    #[error("its first certificate cannot be read: {0}")]
    Certificate(String),
    /// The key is not PEM.
    #[error("is not PEM: {0}")]
    KeyText(&'static str),
    /// Nothing in it.
    #[error("holds no private key (PKCS#8, PKCS#1 or SEC1, not encrypted)")]
    NoKey,
    /// Of a kind that is not spoken.
    #[error("its private key is of no kind that TLS uses here: RSA, ECDSA (P-256, P-384, P-521) or Ed25519")]
    KeyKind,
    /// Of another certificate.
    #[error("its private key is not that of the first certificate of the chain")]
    Mismatch,
}

impl Unusable {
    /// Whether it is the key's file that is wrong.
    #[must_use]
    pub fn is_of_key(&self) -> bool {
        matches!(self, Self::KeyText(_) | Self::NoKey | Self::KeyKind | Self::Mismatch)
    }
}

/// Those that somebody uses, by what they were read from. A lock of the control plane's: nobody reads certificates on a request's path.
#[expect(clippy::disallowed_types, reason = "taken where files are read, and nowhere else")]
static IN_USE: std::sync::Mutex<BTreeMap<String, Weak<Certificate>>> = std::sync::Mutex::new(BTreeMap::new());

/// The same by the files of their chains, as they were last read.
#[expect(clippy::disallowed_types, reason = "taken where files are read, and nowhere else")]
static BY_FILE: std::sync::Mutex<BTreeMap<PathBuf, Weak<Certificate>>> = std::sync::Mutex::new(BTreeMap::new());

impl Certificate {
    /// It was read from this file, and is what [`Certificate::last_of`] it finds for as long as somebody uses it.
    pub fn note(self: &Arc<Self>, chain: &Path) {
        let mut table = BY_FILE.lock().unwrap_or_else(PoisonError::into_inner);
        if table.len() >= 2 * CERTIFICATES_MAX {
            table.retain(|_, certificate| certificate.strong_count() > 0);
        }
        table.insert(chain.to_owned(), Arc::downgrade(self));
    }

    /// What was last read from this file, if it is in use.
    #[must_use]
    pub fn last_of(chain: &Path) -> Option<Arc<Self>> {
        BY_FILE.lock().unwrap_or_else(PoisonError::into_inner).get(chain).and_then(Weak::upgrade)
    }

    /// The same as [`Certificate::read`], and the very same object where somebody uses one that was read from these bytes: of ten thousand
    /// certificates a reload reads those that have changed, and the generation before takes none of the others with it when it goes.
    ///
    /// # Errors
    /// They are none, or do not belong together.
    pub fn share(chain: &[u8], key: &[u8], ocsp: Option<Vec<u8>>) -> Result<Arc<Self>, Unusable> {
        let lengths = [chain.len(), key.len()].map(usize::to_le_bytes).concat();
        let bytes = [&lengths[..], chain, key, ocsp.as_deref().unwrap_or_default()].concat();
        let print = self::fingerprint(&Zeroizing::new(bytes));
        let known = |table: &BTreeMap<String, Weak<Self>>| table.get(&print).and_then(Weak::upgrade);
        if let Some(known) = known(&IN_USE.lock().unwrap_or_else(PoisonError::into_inner)) {
            return Ok(known);
        }
        let read = Arc::new(Self::read(chain, key, ocsp)?);
        let mut table = IN_USE.lock().unwrap_or_else(PoisonError::into_inner);
        if table.len() >= 2 * CERTIFICATES_MAX {
            table.retain(|_, certificate| certificate.strong_count() > 0);
        }
        table.insert(print, Arc::downgrade(&read));
        Ok(read)
    }

    /// Reads a chain and a key from PEM, and an OCSP response from DER.
    ///
    /// # Errors
    /// They are none, or do not belong together.
    pub fn read(chain: &[u8], key: &[u8], ocsp: Option<Vec<u8>>) -> Result<Self, Unusable> {
        let fingerprint = self::fingerprint(chain);
        let chain = chain_of(chain)?;
        let key = match PrivateKeyDer::from_pem_slice(key) {
            Ok(key) => key,
            Err(pem::Error::NoItemsFound) => return Err(Unusable::NoKey),
            Err(error) => return Err(Unusable::KeyText(fault_of(&error))),
        };
        let key = provider().key_provider.load_private_key(key).map_err(|_| Unusable::KeyKind)?;
        let first =
            webpki::EndEntityCert::try_from(&chain[0]).map_err(|error| Unusable::Certificate(error.to_string()))?;
        let names = first.valid_dns_names().map(str::to_ascii_lowercase).collect();
        let validity =
            der::validity(&chain[0]).ok_or_else(|| Unusable::Certificate("it has no validity".to_owned()))?;
        let mut certified = CertifiedKey::new(chain, key);
        match certified.keys_match() {
            Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => {}
            Err(_) => return Err(Unusable::Mismatch),
        }
        certified.ocsp = ocsp;
        let (not_before, not_after) = validity;
        Ok(Self { key: Arc::new(certified), names, not_before, not_after, fingerprint })
    }

    /// The kind of its key.
    #[must_use]
    pub fn algorithm(&self) -> SignatureAlgorithm {
        self.key.key.algorithm()
    }
}

/// The certificates of a PEM file, at least one.
///
/// # Errors
/// It is none.
pub fn chain_of(text: &[u8]) -> Result<Vec<CertificateDer<'static>>, Unusable> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text).collect();
    let chain = chain.map_err(|error| Unusable::ChainText(fault_of(&error)))?;
    if chain.is_empty() { Err(Unusable::NoCertificate) } else { Ok(chain) }
}

/// What is wrong with a PEM file, in words of our own: the library quotes the line, which is a key's where all of it is in one.
fn fault_of(error: &pem::Error) -> &'static str {
    match error {
        pem::Error::MissingSectionEnd { .. } => {
            "what -----BEGIN …----- begins has no -----END …----- in a line of its own"
        }
        pem::Error::IllegalSectionStart { .. } => "a line begins with -----BEGIN and does not end with -----",
        pem::Error::Base64Decode(_) => "what is between -----BEGIN …----- and -----END …----- is not base64",
        _ => "it cannot be read",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::testing::{Algorithm, pem};

    #[test]
    fn what_is_read_twice_is_there_once_for_as_long_as_somebody_uses_it() {
        let (chain, key) = pem(&["a.example"], Algorithm::Ecdsa);
        let (other_chain, other_key) = pem(&["a.example"], Algorithm::Ecdsa);
        let share = |chain: &str, key: &str, ocsp| Certificate::share(chain.as_bytes(), key.as_bytes(), ocsp);
        let first = share(&chain, &key, None).unwrap();
        assert!(Arc::ptr_eq(&first, &share(&chain, &key, None).unwrap()));
        let with_ocsp = share(&chain, &key, Some(vec![1])).unwrap();
        assert!(!Arc::ptr_eq(&first, &with_ocsp) && with_ocsp.key.ocsp.is_some());
        assert!(!Arc::ptr_eq(&first, &share(&other_chain, &other_key, None).unwrap()));
        assert!(matches!(share(&chain, &other_key, None), Err(Unusable::Mismatch)), "a key is looked at again");
        let weak = Arc::downgrade(&first);
        drop(first);
        assert!(weak.upgrade().is_none(), "nothing is kept of what nobody uses");
    }

    #[test]
    fn what_is_wrong_with_a_key_is_said_without_a_word_of_it() {
        let (chain, key) = pem(&["a.example"], Algorithm::Ecdsa);
        let secret: Vec<&str> = key.lines().filter(|line| !line.starts_with('-')).collect();
        for (broken, why) in [
            (key.replace('\n', ""), "has no -----END"),
            (key.replace("KEY-----\n", "KEY"), "does not end with -----"),
            (key.replace('\n', "!"), "does not end with -----"),
            (key.replace(secret[0], &format!("{}!", secret[0])), "is not base64"),
            (key.replace("-----END", ""), "has no -----END"),
        ] {
            let said = Certificate::read(chain.as_bytes(), broken.as_bytes(), None).expect_err("it is broken");
            let (text, debug) = (said.to_string(), format!("{said:?}"));
            assert!(said.is_of_key() && text.contains(why), "{text}");
            for line in &secret {
                let bytes: Vec<String> = line.bytes().take(12).map(|byte| byte.to_string()).collect();
                let is_told = |text: &str| text.contains(&line[..12]) || text.contains(&bytes.join(", "));
                assert!(!is_told(&text) && !is_told(&debug), "{text} {debug}");
            }
        }
    }
}
