//! A certificate with its key, as files have them: read, and seen to belong together.

use super::{der, provider};
use aws_lc_rs::digest;
use rustls::SignatureAlgorithm;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use std::fmt;
use std::sync::Arc;
use thiserror::Error;

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
    ChainText(pem::Error),
    /// Nothing in it.
    #[error("holds no certificate (-----BEGIN CERTIFICATE-----)")]
    NoCertificate,
    /// The first certificate cannot be read.
    #[error("its first certificate cannot be read: {0}")]
    Certificate(String),
    /// The key is not PEM.
    #[error("is not PEM: {0}")]
    KeyText(pem::Error),
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

impl Certificate {
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
            Err(error) => return Err(Unusable::KeyText(error)),
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
    let chain: Vec<_> = CertificateDer::pem_slice_iter(text).collect::<Result<_, _>>().map_err(Unusable::ChainText)?;
    if chain.is_empty() { Err(Unusable::NoCertificate) } else { Ok(chain) }
}
