//! TLS of the file: which files its certificates are in, and what has been read from them.
//!
//! Files are read with the configuration, and with each reload: a certificate that cannot be used is an error of the key that names it, and
//! the configuration before stays. Each is one of those that `gateway.watch` looks after. Private keys are shown nowhere; what is compared
//! and shown is the certificate's fingerprint.

use super::acme::{self, Acme};
use super::check::value;
use super::file;
use super::followed::Pattern;
use super::names::FilePath;
use super::problem::Sink;
use super::read::Written;
use super::texts::read_file;
use super::tls_keys::{AuthMode, Ca, CertificateFiles, ClientAuthTable, ListenerTls, PeerName, UpstreamTls};
use super::{Address, Endpoint, Http2};
use crate::limits::{CERTIFICATE_BYTES_MAX, CERTIFICATES_MAX};
use crate::tls::certificate::{Certificate, chain_of, fingerprint};
use crate::tls::demand::{Belief, demand};
use crate::tls::judge::{ClientAuth, Judge};
use crate::tls::key_log::KeyLogFile;
use crate::tls::tickets::{KEY_BYTES, TicketKeys};
use crate::tls::{MinVersion, Names};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use std::fmt;
use std::ops::Range;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where distributions keep the certificates of those whom everybody believes; the first that is there.
const BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];
/// Those bundles are a quarter of a megabyte.
const ROOTS_BYTES_MAX: u64 = 8 << 20;

/// `[listener.tls]`, read and checked. Its `Debug` says everything that a reload may change, and nothing secret.
#[derive(Clone)]
pub struct ServerSide {
    /// The certificates, at least one.
    pub names: Arc<Names>,
    /// The oldest version that is spoken.
    pub oldest: MinVersion,
    /// Keys of a file; `None`: they are made.
    pub ticket_keys: Option<Arc<TicketKeys>>,
    /// What is asked of clients; `None`: nothing.
    pub clients: Option<Arc<Judge>>,
    /// Endpoints are told of clients' certificates (`X-Forwarded-Client-Cert`).
    pub tells_certificate: bool,
    /// The certificate that an authority issues, if one does.
    pub acme: Option<Arc<Acme>>,
    /// Where the secrets of its sessions are written to; `None`: nowhere.
    pub key_log: Option<Arc<KeyLogFile>>,
    /// Where certificates and keys were read from, and what is to be said of that.
    pub origins: Vec<Origin>,
    /// Under the file's keys, for `/config`.
    pub shown: Value,
    tickets: Option<String>,
}

/// Where a certificate was read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The file of the chain.
    pub chain: PathBuf,
    /// The file of the key.
    pub key: PathBuf,
    /// Others than its owner and group may read it.
    pub is_exposed: bool,
    /// Why the certificate is not the one in these files, but the one that was there before.
    pub kept: Option<String>,
}

impl Origin {
    fn of(chain: &Path, key: &Path) -> Self {
        Self { chain: chain.to_owned(), key: key.to_owned(), is_exposed: is_exposed(key), kept: None }
    }
}

impl fmt::Debug for ServerSide {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fingerprints: Vec<_> = self.names.all().iter().map(|certificate| &certificate.fingerprint).collect();
        f.debug_struct("ServerSide")
            .field("certificates", &fingerprints)
            .field("oldest", &self.oldest)
            .field("origins", &self.origins)
            .field("tickets", &self.tickets)
            .field("clients", &self.clients.as_ref().map(|clients| &clients.fingerprint))
            .field("tells_certificate", &self.tells_certificate)
            .field("acme", &self.acme)
            .field("key_log", &self.key_log)
            .finish_non_exhaustive()
    }
}

/// `[upstream.X.tls]`, read and checked. Its `Debug` says everything that a reload may change, and nothing secret.
#[derive(Clone)]
pub struct ClientSide {
    /// By which sessions are made; without memory.
    pub rules: Arc<ClientConfig>,
    /// What endpoints are asked for; `None`: each for what it is known by.
    pub name: Option<ServerName<'static>>,
    /// Any certificate is believed.
    pub is_credulous: bool,
    /// Where its own certificate was read from, if it has one.
    pub origin: Option<Origin>,
    /// Under the file's keys, for `/config`.
    pub shown: Value,
    words: String,
}

impl ClientSide {
    /// What an endpoint is asked for and has to be; `None`: nothing is known of it that could be in a certificate.
    #[must_use]
    pub fn name_of(&self, endpoint: &Endpoint) -> Option<ServerName<'static>> {
        if self.name.is_some() {
            return self.name.clone();
        }
        let host = endpoint.name.as_deref().and_then(|name| name.rsplit_once(':')).map(|(host, _)| host);
        let name = host.and_then(|host| ServerName::try_from(host.trim_end_matches('.').to_owned()).ok());
        name.or_else(|| match &endpoint.address {
            Address::Tcp(address) => Some(ServerName::IpAddress(address.ip().to_canonical().into())),
            Address::Unix(_) => None,
        })
    }
}

impl fmt::Debug for ClientSide {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words)
    }
}

impl PartialEq for ClientSide {
    fn eq(&self, other: &Self) -> bool {
        self.words == other.words
    }
}

impl Eq for ClientSide {}

/// What a listener speaks TLS with.
pub(super) fn server_side(table: &ListenerTls, sink: &mut Sink<'_>) -> Option<ServerSide> {
    let list = &table.certificates.as_ref()?.value.0;
    let mut read: Vec<_> = list.iter().filter_map(|written| certificate(&written.value, sink)).collect();
    let mut is_whole = read.len() == list.len();
    if let Some(folder) = &table.certificate_dir {
        match certificates_in(folder, &table.at.key("certificate_dir").to_string(), sink) {
            Some(found) => read.extend(found),
            None => is_whole = false,
        }
    }
    let acme = match &table.acme {
        Some(written) => {
            let used = acme::used(&written.value)?;
            read.push(acme::certificate(&used, written, sink)?);
            Some(Arc::new(used))
        }
        None => None,
    };
    if is_whole && read.is_empty() {
        let message = match &table.certificate_dir {
            Some(_) => "there is no certificate in certificate_dir, and none in certificates",
            None => "missing: TLS needs a certificate, in certificates or in certificate_dir",
        };
        let help =
            "certificates = [{ chain = \"/etc/ringgate/tls/example.pem\", key = \"/etc/ringgate/tls/example.key\" }]";
        sink.place(table.at.key("certificates"), table.at.offset, message.to_owned(), Some(help.to_owned()));
        return None;
    }
    let keys = ticket_keys(table, sink)?;
    let (keys, tickets) = keys.unzip();
    let clients = match &table.client_auth {
        Some(auth) => Some(clients(&auth.value, sink)?),
        None => None,
    };
    let oldest = value(&table.min_version)?.into();
    if !is_whole {
        return None;
    }
    let (certificates, origins) = read.into_iter().unzip();
    Some(ServerSide {
        shown: table.shown(),
        names: Arc::new(Names::new(certificates)),
        oldest,
        ticket_keys: keys,
        tells_certificate: table.client_auth.as_ref().and_then(|auth| value(&auth.value.forward)).unwrap_or_default(),
        clients,
        acme,
        key_log: value(&table.key_log).map(|path| Arc::new(KeyLogFile::new(path.0))),
        origins,
        tickets,
    })
}

/// The keys of a file, and what tells them apart; `Some(None)`: there is none.
fn ticket_keys(table: &ListenerTls, sink: &mut Sink<'_>) -> Option<Option<(Arc<TicketKeys>, String)>> {
    let Some(path) = &table.ticket_keys else { return Some(None) };
    let bytes = read_for(path, table.at.key("ticket_keys").to_string(), sink)?;
    match TicketKeys::from_file(&bytes) {
        Ok(keys) => Some(Some((Arc::new(keys), fingerprint(&bytes)))),
        Err(error) => {
            let help = format!("make one: head -c {KEY_BYTES} /dev/urandom > {}", path.value.0.display());
            sink.value(table.at.key("ticket_keys"), path.span.clone(), format!("the file {error}"), Some(help));
            None
        }
    }
}

/// What a listener asks of its clients.
fn clients(table: &ClientAuthTable, sink: &mut Sink<'_>) -> Option<Arc<Judge>> {
    let ca = table.ca.as_ref()?;
    let wanted = Written { value: Ca(Some(ca.value.0.clone())), span: ca.span.clone(), given: true };
    let roots = roots(&wanted, &table.at.key("ca").to_string(), sink);
    let lists = match &table.crl {
        Some(crl) => {
            let text = read_for(crl, table.at.key("crl").to_string(), sink)?;
            let lists = CertificateRevocationListDer::pem_slice_iter(&text).collect::<Result<Vec<_>, _>>();
            match lists {
                Ok(lists) if !lists.is_empty() => (lists, fingerprint(&text)),
                _ => {
                    let message = "the file holds no revocation list (-----BEGIN X509 CRL-----)".to_owned();
                    sink.value(table.at.key("crl"), crl.span.clone(), message, None);
                    return None;
                }
            }
        }
        None => (Vec::new(), String::new()),
    };
    let mode = value(&table.mode)?;
    let auth = match mode {
        AuthMode::Require => ClientAuth::Required,
        AuthMode::Request => ClientAuth::Requested,
    };
    let Believed { roots, fingerprint: of_roots, .. } = roots?;
    let (lists, of_lists) = lists;
    match Judge::try_new(roots, lists, auth, format!("{mode:?} {of_roots} {of_lists}")) {
        Ok(judge) => Some(Arc::new(judge)),
        Err(error) => {
            sink.value(table.at.key("ca"), ca.span.clone(), format!("cannot be used: {error}"), None);
            None
        }
    }
}

/// What an upstream's endpoints are spoken to with.
pub(super) fn client_side(table: &UpstreamTls, sink: &mut Sink<'_>) -> Option<ClientSide> {
    let is_credulous = value(&table.insecure_skip_verify)?;
    let own = match &table.certificate {
        Some(written) => Some(certificate(&written.value, sink)?),
        None => None,
    };
    let ca = table.ca.as_ref()?;
    let (belief, roots) = match is_credulous {
        true => (Belief::Anybody, String::new()),
        false => {
            let Believed { roots, listed, fingerprint } = roots(ca, &table.at.key("ca").to_string(), sink)?;
            // of the system's, none is a server of one's own
            let is_own = ca.value.0.is_some();
            (if is_own { Belief::Listed(roots, listed) } else { Belief::Roots(roots) }, fingerprint)
        }
    };
    if is_credulous && ca.given {
        let message = "has no effect: with insecure_skip_verify any certificate is believed".to_owned();
        sink.value(table.at.key("ca"), ca.span.clone(), message, None);
    }
    let oldest = value(&table.min_version)?.into();
    let name = value(&table.name).map(|PeerName(name)| name);
    let (own, origin) = own.unzip();
    let words = format!(
        "ClientSide {{ roots: {roots:?}, oldest: {oldest:?}, name: {name:?}, own: {:?}, is_credulous: {is_credulous} }}",
        own.as_ref().map(|own: &Arc<Certificate>| &own.fingerprint)
    );
    match demand(belief, oldest, own.as_deref()) {
        Ok(rules) => Some(ClientSide { shown: table.shown(), rules, name, is_credulous, origin, words }),
        Err(error) => {
            sink.value(table.at.key("ca"), ca.span.clone(), format!("cannot be used: {error}"), None);
            None
        }
    }
}

fn certificate(table: &CertificateFiles, sink: &mut Sink<'_>) -> Option<(Arc<Certificate>, Origin)> {
    let (chain, key) = (table.chain.as_ref(), table.key.as_ref());
    let (chain, key) = (chain?, key?);
    let texts = (
        read_for(chain, table.at.key("chain").to_string(), sink),
        read_for(
            &Written { value: FilePath(key.value.0.clone()), span: key.span.clone(), given: key.given },
            table.at.key("key").to_string(),
            sink,
        ),
    );
    let ocsp = match &table.ocsp {
        Some(ocsp) => Some(read_for(ocsp, table.at.key("ocsp").to_string(), sink)?),
        None => None,
    };
    let (Some(chain_text), Some(key_text)) = texts else { return None };
    match Certificate::share(&chain_text, &key_text, ocsp) {
        Ok(certificate) => Some((certificate, Origin::of(&chain.value.0, &key.value.0))),
        Err(unusable) => {
            let (name, at) = if unusable.is_of_key() { ("key", &key.span) } else { ("chain", &chain.span) };
            sink.value(table.at.key(name), at.clone(), format!("the file {unusable}"), None);
            None
        }
    }
}

/// Those of a folder, by name. Where one of them is of no use, the one that was read from there before goes on: of ten thousand, the others
/// are to be renewed all the same.
fn certificates_in(
    folder: &Written<FilePath>,
    at: &str,
    sink: &mut Sink<'_>,
) -> Option<Vec<(Arc<Certificate>, Origin)>> {
    let pattern = |ending: &str| Pattern::try_new(&folder.value.0.join(ending));
    let mut report = |message: String| {
        sink.value(at.to_owned(), folder.span.clone(), message, None);
    };
    let found = pattern("*.pem").map(|pattern| pattern.files());
    let chains = match found {
        Some(Ok(chains)) => chains,
        Some(Err(error)) => {
            report(format!("the folder cannot be read: {error}"));
            return None;
        }
        None => return None,
    };
    if chains.len() > CERTIFICATES_MAX {
        report(format!("{} certificates; must be {CERTIFICATES_MAX} at most", chains.len()));
        return None;
    }
    let mut read = Vec::with_capacity(chains.len());
    let mut problems = Vec::new();
    let mut stamps = Vec::new();
    for chain in &chains {
        let beside = chain.with_extension("key");
        let key = if beside.exists() { &beside } else { chain };
        let mut text_of = |path: &Path| {
            let text = read_file(path, CERTIFICATE_BYTES_MAX);
            stamps.push((path.to_owned(), text.as_ref().ok().map(|(_, stamp)| *stamp)));
            text.map(|(text, _)| text)
        };
        let texts = text_of(chain).and_then(|chain| text_of(key).map(|key| (chain, key)));
        let why = match texts.map(|(chain, key)| Certificate::share(&chain, &key, None)) {
            Ok(Ok(certificate)) => {
                certificate.note(chain);
                read.push((certificate, Origin::of(chain, key)));
                continue;
            }
            Ok(Err(unusable)) => format!("{} {unusable}", if unusable.is_of_key() { key } else { chain }.display()),
            Err(error) => format!("{} cannot be read: {error}", chain.display()),
        };
        match Certificate::last_of(chain) {
            Some(before) => read.push((before, Origin { kept: Some(why), ..Origin::of(chain, key) })),
            None => problems.push(why),
        }
    }
    problems.iter().for_each(|problem| report(problem.clone()));
    for ending in ["*.pem", "*.key"] {
        sink.follow_pattern(pattern(ending)?);
    }
    stamps.into_iter().for_each(|(path, stamp)| sink.follow_found(&path, stamp));
    problems.is_empty().then_some(read)
}

/// Who stands in a file of authorities.
struct Believed {
    roots: Arc<RootCertStore>,
    listed: Vec<CertificateDer<'static>>,
    fingerprint: String,
}

/// Whom endpoints are believed by.
fn roots(ca: &Written<Ca>, at: &str, sink: &mut Sink<'_>) -> Option<Believed> {
    let path = match &ca.value.0 {
        Some(path) => path.clone(),
        None => match BUNDLES.iter().map(PathBuf::from).find(|path| path.exists()) {
            Some(path) => path,
            None => {
                let message = format!("this system has no certificates of its own ({})", BUNDLES.join(", "));
                sink.value(at.to_owned(), ca.span.clone(), message, Some("install ca-certificates".to_owned()));
                return None;
            }
        },
    };
    let text = read_file(&path, ROOTS_BYTES_MAX);
    sink.follow(&path, text.as_ref().ok().map(|(_, stamp)| *stamp));
    let mut refuse = |message: String| {
        sink.value(at.to_owned(), ca.span.clone(), message, None);
        None
    };
    let text = match text {
        Ok((text, _)) => text,
        Err(error) => return refuse(format!("{} cannot be read: {error}", path.display())),
    };
    let chain = match chain_of(&text) {
        Ok(chain) => chain,
        Err(unusable) => return refuse(format!("{} {unusable}", path.display())),
    };
    let mut roots = RootCertStore::empty();
    let (added, ignored) = roots.add_parsable_certificates(chain.iter().cloned());
    // a distribution's bundle may have some that nobody can read any more
    if added == 0 || (ignored > 0 && ca.value.0.is_some()) {
        return refuse(format!("{}: {ignored} of its certificates cannot be read", path.display()));
    }
    Some(Believed { roots: Arc::new(roots), listed: chain, fingerprint: fingerprint(&text) })
}

/// Reads a file that a key names, and has it looked after.
fn read_for(path: &Written<FilePath>, at: String, sink: &mut Sink<'_>) -> Option<Vec<u8>> {
    let read = read_file(&path.value.0, CERTIFICATE_BYTES_MAX);
    sink.follow(&path.value.0, read.as_ref().ok().map(|(_, stamp)| *stamp));
    let message = match read {
        Ok((bytes, _)) if bytes.len() as u64 <= CERTIFICATE_BYTES_MAX => return Some(bytes),
        Ok(_) => format!("the file has more than {CERTIFICATE_BYTES_MAX} bytes"),
        Err(error) => format!("cannot be read: {error}"),
    };
    sink.value(at, Range::clone(&path.span), message, None);
    None
}

/// Whether everybody may read a file that holds a key.
fn is_exposed(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|found| found.permissions().mode() & 0o004 != 0)
}

/// What a listener speaks of HTTP/2; it is told in the handshake, so it belongs here.
pub(super) fn http2(table: &file::Listener) -> Option<Option<Http2>> {
    let Some(http2) = table.http2.as_ref().map(|written| &written.value) else { return Some(None) };
    Some(Some(Http2 {
        over_tls: value(&http2.enabled)?,
        in_clear: value(&http2.cleartext)?,
        streams_max: u32::try_from(value(&http2.max_streams)?.0).ok()?,
    }))
}
