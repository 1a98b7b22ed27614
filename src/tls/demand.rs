//! By which rules sessions with servers are made.

use super::certificate::Certificate;
use super::der;
use super::offer::{HTTP2, MinVersion, PROTOCOLS};
use super::provider;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use std::sync::Arc;

/// Sessions that a worker remembers of a cluster, to go on with them: more than it has endpoints.
const SESSIONS_KEPT: usize = 256;

/// Whom a server is believed by.
#[derive(Clone, Debug)]
pub enum Belief {
    /// These, and those whom they vouch for.
    Roots(Arc<RootCertStore>),
    /// The same; and these certificates themselves, where a server shows one of them.
    Listed(Arc<RootCertStore>, Vec<CertificateDer<'static>>),
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
        Belief::Roots(roots) => by_roots(roots)?,
        Belief::Listed(roots, listed) => Arc::new(Listed { roots: by_roots(roots)?, listed }),
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

/// The same for a connection on which nothing but HTTP/2 is to be spoken.
#[must_use]
pub fn for_http2(config: &ClientConfig) -> Arc<ClientConfig> {
    let mut config = config.clone();
    config.alpn_protocols = vec![HTTP2.to_vec()];
    Arc::new(config)
}

/// The same for one on which either is spoken, HTTP/2 rather.
#[must_use]
pub fn for_either(config: &ClientConfig) -> Arc<ClientConfig> {
    let mut config = config.clone();
    config.alpn_protocols = vec![HTTP2.to_vec(), PROTOCOLS[0].to_vec()];
    Arc::new(config)
}

/// The same for one with an endpoint that has asked for HTTP/1.1.
#[must_use]
pub fn for_http1(config: &ClientConfig) -> Arc<ClientConfig> {
    let mut config = config.clone();
    config.alpn_protocols = vec![PROTOCOLS[0].to_vec()];
    Arc::new(config)
}

/// The same with a memory of sessions of its own, for one worker, so that nobody else's hand is on its lock, and what is
/// spoken over them, by ALPN.
#[must_use]
pub fn with_memory(config: &ClientConfig, spoken: &[&[u8]]) -> Arc<ClientConfig> {
    let mut config = config.clone();
    config.alpn_protocols = spoken.iter().map(|name| name.to_vec()).collect();
    config.resumption = Resumption::in_memory_sessions(SESSIONS_KEPT);
    Arc::new(config)
}

fn by_roots(roots: Arc<RootCertStore>) -> Result<Arc<WebPkiServerVerifier>, rustls::Error> {
    WebPkiServerVerifier::builder_with_provider(roots, provider())
        .build()
        .map_err(|error| rustls::Error::General(error.to_string()))
}

/// Believes a server that shows a certificate which its operator has listed, whoever has signed that, himself and CA:TRUE included (what
/// `openssl req -x509` makes): nobody can vouch better for it than who has put it into the file. Its time and its names must be right all
/// the same. RFC 5280 would have a CA's certificate be nobody's own.
#[derive(Debug)]
struct Listed {
    roots: Arc<WebPkiServerVerifier>,
    listed: Vec<CertificateDer<'static>>,
}

impl ServerCertVerifier for Listed {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if !self.listed.iter().any(|listed| listed.as_ref() == end_entity.as_ref()) {
            return self.roots.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        }
        let (from, until) = der::validity(end_entity).ok_or(CertificateError::BadEncoding)?;
        let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        if now < from {
            return Err(CertificateError::NotValidYet.into());
        }
        if now > until {
            return Err(CertificateError::Expired.into());
        }
        verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.roots.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.roots.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.roots.supported_verify_schemes()
    }
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
