//! TLS as a client speaks it: rustls over a non-blocking socket, whose bytes this module moves itself.
//!
//! Verification is that of the gateway's client side (`ringgate::tls::demand`), which has no event loop; sessions, sockets and buffers are this
//! tool's own. Sessions are remembered for all connections of a load together, as those of one client are.

use super::Failure;
use super::link::{Readiness, Taken, Tcp, failure_of};
use ringgate::tls::demand::{Belief, demand};
use ringgate::tls::offer::{HTTP2, MinVersion};
use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, HandshakeKind, RootCertStore};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where systems keep the authorities that everybody believes.
const BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];
/// Bytes of a file of authorities; those of systems have a quarter of a megabyte.
const CA_BYTES_MAX: u64 = 8 << 20;
/// Servers whose sessions are remembered: a load has one, and its upstream another.
const SERVERS_MAX: usize = 8;

/// How TLS is to be spoken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsSettings {
    /// Who is believed, in PEM; `None`: whom the system believes.
    pub ca: Option<PathBuf>,
    /// What the certificate must name, and what is asked for (SNI); `None`: the host of the URL.
    pub name: Option<String>,
    /// Any certificate will do.
    pub skips_verify: bool,
    /// Every handshake is a full one.
    pub never_resumes: bool,
}

impl TlsSettings {
    /// These, with what `other` says instead.
    #[must_use]
    pub fn overlaid(&self, other: Self) -> Self {
        Self {
            // who names authorities wants them asked
            skips_verify: other.skips_verify || (self.skips_verify && other.ca.is_none()),
            ca: other.ca.or_else(|| self.ca.clone()),
            name: other.name.or_else(|| self.name.clone()),
            never_resumes: other.never_resumes || self.never_resumes,
        }
    }
}

/// How TLS is spoken with one server, for all its connections.
#[derive(Clone, Debug)]
pub struct TlsClient {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

impl TlsClient {
    /// For a server that is called `host` in its URL, and which is offered HTTP/2 alone or HTTP/1.1 alone (RFC 7301).
    ///
    /// # Errors
    /// The name is none, or authorities cannot be read; says which and why.
    pub fn try_new(host: &str, settings: &TlsSettings, is_http2: bool) -> Result<Self, String> {
        let name = server_name(settings.name.as_deref().unwrap_or(host))?;
        let belief = if settings.skips_verify { Belief::Anybody } else { believed(settings.ca.as_deref())? };
        let config = demand(belief, MinVersion::Tls12, None).map_err(|error| format!("TLS: {error}"))?;
        let mut config = (*config).clone();
        config.alpn_protocols = vec![if is_http2 { HTTP2.to_vec() } else { b"http/1.1".to_vec() }];
        if !settings.never_resumes {
            config.resumption = Resumption::in_memory_sessions(SERVERS_MAX);
        }
        Ok(Self { config: Arc::new(config), name })
    }
}

/// A name that a certificate may have.
///
/// # Errors
/// It is none.
pub fn server_name(text: &str) -> Result<ServerName<'static>, String> {
    ServerName::try_from(text.to_owned()).map_err(|_| format!("{text:?} is no host name and no address"))
}

/// Who is believed: those in a file, or those whom the system believes.
///
/// # Errors
/// There is no such file, or no certificate in it; says which and why.
pub fn believed(ca: Option<&Path>) -> Result<Belief, String> {
    let bundle = || BUNDLES.iter().map(Path::new).find(|path| path.exists());
    let path = ca.or_else(bundle).ok_or("this system has no certificates of its own: install ca-certificates")?;
    let refuse = |why: String| format!("{}: {why}", path.display());
    let mut text = Vec::new();
    let file = std::fs::File::open(path).map_err(|error| refuse(error.to_string()))?;
    file.take(CA_BYTES_MAX + 1).read_to_end(&mut text).map_err(|error| refuse(error.to_string()))?;
    if text.len() as u64 > CA_BYTES_MAX {
        return Err(refuse(format!("has more than {CA_BYTES_MAX} bytes")));
    }
    let chain: Result<Vec<CertificateDer<'static>>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let chain = chain.map_err(|error| refuse(format!("no PEM: {error}")))?;
    let mut roots = RootCertStore::empty();
    if roots.add_parsable_certificates(chain.iter().cloned()).0 == 0 {
        return Err(refuse("has no certificate that can be read".to_owned()));
    }
    Ok(Belief::Listed(Arc::new(roots), if ca.is_some() { chain } else { Vec::new() }))
}

/// A connection with TLS.
#[derive(Debug)]
pub struct Secure {
    pub(super) tcp: Tcp,
    session: ClientConnection,
    is_connected: bool,
    is_http2: bool,
}

impl Secure {
    /// Over `tcp`, which may not be connected yet.
    pub(super) fn new(tcp: Tcp, client: &TlsClient) -> Result<Self, Failure> {
        let session = ClientConnection::new(Arc::clone(&client.config), client.name.clone());
        let is_http2 = client.config.alpn_protocols.iter().any(|name| name == HTTP2);
        Ok(Self { tcp, session: session.map_err(|_| Failure::Tls)?, is_connected: false, is_http2 })
    }

    /// Goes on with the handshake, as far as bytes are there.
    pub(super) fn connected(&mut self) -> Result<Readiness, Failure> {
        if !self.is_connected {
            self.tcp.connected()?;
            self.is_connected = true;
        }
        loop {
            let has_gone = self.flush()?;
            if !self.session.is_handshaking() {
                // who was offered HTTP/2 and says nothing, or something else, does not speak it (RFC 9113 §3.2)
                if self.is_http2 && self.session.alpn_protocol() != Some(HTTP2) {
                    return Err(Failure::Tls);
                }
                return Ok(if has_gone { Readiness::Ready } else { Readiness::Later });
            }
            match self.fill()? {
                Taken::Later => return Ok(Readiness::Later),
                Taken::End => return Err(Failure::Closed),
                Taken::Bytes(_) => {}
            }
        }
    }

    pub(super) fn is_resumed(&self) -> Option<bool> {
        self.session.handshake_kind().map(|kind| kind == HandshakeKind::Resumed)
    }

    pub(super) fn send(&mut self, bytes: &[u8]) -> Result<usize, Failure> {
        // what is not sent is limited by rustls; it takes nothing more then
        let taken = self.session.writer().write(bytes).map_err(|error| failure_of(&error))?;
        self.flush()?;
        Ok(taken)
    }

    pub(super) fn flush(&mut self) -> Result<bool, Failure> {
        while self.session.wants_write() {
            match self.session.write_tls(&mut &self.tcp) {
                Ok(_) => {}
                Err(error) if is_later(&error) => return Ok(false),
                Err(error) => return Err(failure_of(&error)),
            }
        }
        Ok(true)
    }

    pub(super) fn receive(&mut self, into: &mut [u8]) -> Result<Taken, Failure> {
        loop {
            match self.session.reader().read(into) {
                Ok(0) => return Ok(Taken::End),
                Ok(count) => return Ok(Taken::Bytes(count)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // an end without close_notify may be anybody's: what ends with the connection is not whole (RFC 8446 §6.1)
                Err(_) => return Err(Failure::Closed),
            }
            if self.fill()? == Taken::Later {
                return Ok(Taken::Later);
            }
        }
    }

    /// Takes records from the socket.
    fn fill(&mut self) -> Result<Taken, Failure> {
        let taken = match self.session.read_tls(&mut &self.tcp) {
            Ok(0) => Taken::End,
            Ok(count) => Taken::Bytes(count),
            Err(error) if is_later(&error) => return Ok(Taken::Later),
            Err(error) => return Err(failure_of(&error)),
        };
        let judged = self.session.process_new_packets();
        // an answer to a change of keys, or the alert that says why there is no more to talk about
        let told = self.flush();
        judged.map_err(|_| Failure::Tls)?;
        told.map(|_| taken)
    }
}

fn is_later(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}
