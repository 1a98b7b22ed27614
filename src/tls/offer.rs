//! By which rules sessions with clients are made.

use super::names::Names;
use super::provider;
use super::tickets::Tickets;
use rustls::pki_types::CertificateRevocationListDer;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, VerifierBuilderError, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion, version};
use std::sync::Arc;

/// The oldest version that is spoken; there are no others than these.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MinVersion {
    /// TLS 1.2 (RFC 5246), with forward secrecy and authenticated encryption only.
    #[default]
    Tls12,
    /// TLS 1.3 (RFC 8446).
    Tls13,
}

impl MinVersion {
    pub(super) fn versions(self) -> &'static [&'static SupportedProtocolVersion] {
        static VERSIONS: [&SupportedProtocolVersion; 2] = [&version::TLS13, &version::TLS12];
        match self {
            Self::Tls12 => &VERSIONS,
            Self::Tls13 => &VERSIONS[..1],
        }
    }
}

/// Whether a client must have a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientAuth {
    /// It must.
    Required,
    /// It may have none; one that it shows must be good.
    Requested,
}

/// Who judges the certificates of clients: they must be vouched for by one of `roots`, and stand in none of the revocation lists `crls`; where
/// there are lists, one of them must be by who has issued the certificate.
///
/// # Errors
/// There is no root, or a list cannot be read.
pub fn judge_of_clients(
    roots: Arc<RootCertStore>,
    crls: Vec<CertificateRevocationListDer<'static>>,
    auth: ClientAuth,
) -> Result<Arc<dyn ClientCertVerifier>, VerifierBuilderError> {
    let judge = WebPkiClientVerifier::builder_with_provider(roots, provider());
    let judge = judge.with_crls(crls).only_check_end_entity_revocation();
    match auth {
        ClientAuth::Required => judge.build(),
        ClientAuth::Requested => judge.allow_unauthenticated().build(),
    }
}

/// What is spoken over it (RFC 7301). Who offers something and none of these is refused.
pub(super) const PROTOCOLS: [&[u8]; 2] = [b"http/1.1", b"http/1.0"];

/// What is spoken before those, where a listener speaks it (RFC 9113 §3.2).
pub const HTTP2: &[u8] = b"h2";

/// The rules of a listener, which speaks HTTP/2 too, or does not. Sessions go on by tickets alone, so nothing is kept of them; there is no early data, which could be repeated
/// (RFC 8446 §8), and no renegotiation, which rustls does not know.
#[must_use]
pub fn offer(
    names: Arc<Names>,
    oldest: MinVersion,
    tickets: Tickets,
    clients: Option<Arc<dyn ClientCertVerifier>>,
    http2: bool,
) -> Arc<ServerConfig> {
    let config = ServerConfig::builder_with_provider(provider()).with_protocol_versions(oldest.versions());
    let config = config.expect("the provider has suites of both versions");
    let config = match clients {
        Some(clients) => config.with_client_cert_verifier(clients),
        None => config.with_no_client_auth(),
    };
    let mut config = config.with_cert_resolver(names);
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.ticketer = Arc::new(tickets);
    let first: &[&[u8]] = if http2 { &[HTTP2] } else { &[] };
    config.alpn_protocols = first.iter().chain(&PROTOCOLS).map(|name| name.to_vec()).collect();
    Arc::new(config)
}
