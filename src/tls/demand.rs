//! By which rules sessions with servers are made.

use super::certificate::Certificate;
use super::offer::{MinVersion, PROTOCOLS};
use super::provider;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::{verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use std::sync::Arc;

/// Sessions that a worker remembers of a cluster, to go on with them: more than it has endpoints.
const SESSIONS_KEPT: usize = 256;

/// Whom a server is believed by.
#[derive(Clone, Debug)]
pub enum Belief {
    /// These, and those whom they vouch for.
    Roots(Arc<RootCertStore>),
    /// Anybody, whatever its certificate says; only that it has the key of it is checked.
    Anybody,
}

/// The rules towards the servers of a cluster; `own` is the certificate that they may ask for.
///
/// # Errors
/// There is no root, or rustls does not take the certificate.
pub fn demand(
    belief: Belief,
    oldest: MinVersion,
    own: Option<&Certificate>,
) -> Result<Arc<ClientConfig>, rustls::Error> {
    let config = ClientConfig::builder_with_provider(provider()).with_protocol_versions(oldest.versions())?;
    let verifier: Arc<dyn ServerCertVerifier> = match belief {
        Belief::Roots(roots) => WebPkiServerVerifier::builder_with_provider(roots, provider())
            .build()
            .map_err(|error| rustls::Error::General(error.to_string()))?,
        Belief::Anybody => Arc::new(Credulous),
    };
    let config = config.dangerous().with_custom_certificate_verifier(verifier);
    let mut config = match own {
        Some(own) => {
            config.with_client_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(Arc::clone(&own.key))))
        }
        None => config.with_no_client_auth(),
    };
    config.alpn_protocols = PROTOCOLS[..1].iter().map(|name| name.to_vec()).collect();
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

/// The same with a memory of sessions of its own, for one worker, so that nobody else's hand is on its lock.
#[must_use]
pub fn with_memory(config: &ClientConfig) -> Arc<ClientConfig> {
    let mut config = config.clone();
    config.resumption = Resumption::in_memory_sessions(SESSIONS_KEPT);
    Arc::new(config)
}

/// Believes every certificate.
#[derive(Debug)]
struct Credulous;

impl ServerCertVerifier for Credulous {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &provider().signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &provider().signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}
