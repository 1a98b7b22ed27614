//! How a gateway is spoken with by its clients: which HTTP, over TLS or not, with a certificate that is made for it.

use super::setup::Setup;
use crate::engine::{Watch, offer};
use crate::load::{Load, Pace, Protocol, Target};
use crate::wire::{TlsClient, TlsSettings};
use rcgen::{CertificateParams, KeyPair};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// In its folder: the certificate, its key, and both, as HAProxy wants them.
pub(super) const CHAIN: &str = "chain.pem";
pub(super) const KEY: &str = "key.pem";
pub(super) const BOTH: &str = "both.pem";

/// How clients speak with a gateway that is started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Front {
    /// HTTP/2 alone where there is no TLS, and by ALPN where there is; else HTTP/1.1 alone.
    pub is_http2: bool,
    /// TLS, with a certificate for 127.0.0.1 and `localhost` that nobody else believes.
    pub is_tls: bool,
}

impl Front {
    /// What the URL of such a gateway begins with.
    #[must_use]
    pub fn scheme(self) -> &'static str {
        if self.is_tls { "https" } else { "http" }
    }
}

/// Makes a certificate and writes it to a gateway's folder, which goes with it; says where.
pub(super) fn write_certificate(folder: &Path) -> io::Result<PathBuf> {
    let key = KeyPair::generate().map_err(io::Error::other)?;
    let names = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
    let made = CertificateParams::new(names).and_then(|names| names.self_signed(&key)).map_err(io::Error::other)?;
    let (chain, key) = (made.pem(), key.serialize_pem());
    let path = folder.join(CHAIN);
    std::fs::write(&path, &chain)?;
    std::fs::write(folder.join(KEY), &key)?;
    std::fs::write(folder.join(BOTH), chain + &key)?;
    Ok(path)
}

/// Whether a request for `path` is answered there as the setup says, whatever the status; takes a fifth of a second. Without TLS and HTTP/2 there
/// is a faster way to know.
pub(super) fn is_answering(setup: &Setup, address: SocketAddr, path: &str, ca: Option<&Path>) -> bool {
    let settings = TlsSettings { ca: ca.map(Path::to_owned), ..TlsSettings::default() };
    let is_http2 = setup.front.is_http2;
    let tls = ca.map(|_| TlsClient::try_new(&address.ip().to_string(), &settings, is_http2)).transpose();
    let Ok(tls) = tls else { return false };
    let load = Load {
        address,
        tls,
        protocol: if is_http2 { Protocol::Http2 { streams: 1 } } else { Protocol::Http1 },
        targets: [Target::new("GET", &address.to_string(), path, &[], b"", false)].into(),
        pace: Pace::Even(20.0),
        warm_up: Duration::ZERO,
        length: Duration::from_millis(100),
        phases: Vec::new(),
        factors: Vec::new(),
        harms: Vec::new(),
        slice: Duration::from_millis(100),
        connections: 1,
        connections_max: 1,
        reconnects: true,
        timeout: Duration::from_secs(5),
        cores: Vec::new(),
        is_alone: false,
        seed: 1,
    };
    let answers = |statuses: &[u64]| statuses.iter().any(|count| *count > 0);
    offer(&load, &Watch::default()).is_ok_and(|measured| answers(&measured.tallies.statuses))
}
