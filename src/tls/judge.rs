//! Whom a listener believes: the certificates of clients (mutual TLS), judged when a session is made, when one is gone on with, and again
//! when the rules have changed under one.
//!
//! A ticket carries the certificates that its session began with, and TLS does not have them checked again: who was let in once could go on
//! from ticket to ticket for ever, long after his certificate has ended. So a ticket is opened only for certificates that are good *now*
//! ([`Judge::believes`]); for others it is none, and the client makes a whole handshake.

use super::provider;
use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use std::sync::Arc;

/// Whether a client must have a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientAuth {
    /// It must.
    Required,
    /// It may have none; one that it shows must be good.
    Requested,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Judge {
    /// What rustls asks.
    pub(super) verifier: Arc<dyn ClientCertVerifier>,
    /// Of all that it judges by.
    pub fingerprint: String,
}

impl Judge {
    /// Certificates must be vouched for by one of `roots`, and stand in none of the revocation lists `crls`; where there are lists, one of
    /// them must be by who has issued the certificate. `fingerprint` tells judges apart that judge differently.
    ///
    /// # Errors
    /// There is no root, or a list cannot be read.
    pub fn try_new(
        roots: Arc<RootCertStore>,
        crls: Vec<CertificateRevocationListDer<'static>>,
        auth: ClientAuth,
        fingerprint: String,
    ) -> Result<Self, VerifierBuilderError> {
        let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider());
        let verifier = verifier.with_crls(crls).only_check_end_entity_revocation();
        let verifier = match auth {
            ClientAuth::Required => verifier.build()?,
            ClientAuth::Requested => verifier.allow_unauthenticated().build()?,
        };
        Ok(Self { verifier, fingerprint })
    }

    /// Whether a client with this chain, or with none, would be let in now.
    #[must_use]
    pub fn believes(&self, chain: &[CertificateDer<'_>]) -> bool {
        match chain.split_first() {
            None => !self.verifier.client_auth_mandatory(),
            Some((first, rest)) => self.verifier.verify_client_cert(first, rest, UnixTime::now()).is_ok(),
        }
    }
}

impl PartialEq for Judge {
    fn eq(&self, other: &Self) -> bool {
        self.fingerprint == other.fingerprint
    }
}
