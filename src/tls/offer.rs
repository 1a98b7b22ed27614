//! By which rules sessions with clients are made.

use super::challenges::{self, Challenges, Shown};
use super::judge::Judge;
use super::key_log::KeyLogFile;
use super::names::Names;
use super::provider;
use super::tickets::Tickets;
use rustls::server::NoServerSessionStorage;
use rustls::{ServerConfig, SupportedProtocolVersion, version};
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
    clients: Option<&Judge>,
    key_log: Option<Arc<KeyLogFile>>,
    challenges: Option<Arc<Challenges>>,
    http2: bool,
) -> Arc<ServerConfig> {
    let config = ServerConfig::builder_with_provider(provider()).with_protocol_versions(oldest.versions());
    let config = config.expect("the provider has suites of both versions");
    let config = match clients {
        Some(judge) => config.with_client_cert_verifier(Arc::clone(&judge.verifier)),
        None => config.with_no_client_auth(),
    };
    let is_asked = challenges.is_some();
    let mut config = config.with_cert_resolver(match challenges {
        Some(challenges) => Arc::new(Shown { names, challenges }),
        None => names,
    });
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.ticketer = Arc::new(tickets);
    if let Some(key_log) = key_log {
        config.key_log = key_log;
    }
    let first: &[&[u8]] = if http2 { &[HTTP2] } else { &[] };
    let last: &[&[u8]] = if is_asked { &[challenges::PROTOCOL] } else { &[] };
    config.alpn_protocols = first.iter().chain(&PROTOCOLS).chain(last).map(|name| name.to_vec()).collect();
    Arc::new(config)
}
