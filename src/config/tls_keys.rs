//! The keys of `[listener.tls]` and `[upstream.X.tls]`, as the file writes them.

use super::acme::AcmeTable;
use super::names::FilePath;
use super::problem::{Refusal, is_unprintable};
use super::read::{List, Scalar, Written};
use super::reading::words;
use super::secret::expand;
use super::tables::{scalar_schema, table};
use super::values::text;
use crate::tls::MinVersion;
use rustls::pki_types::ServerName;
use serde_json::{Value, json};
use std::path::PathBuf;
use toml::de::DeValue;

words! {
    /// `min_version` of both sides: the oldest version of TLS that is spoken.
    TlsVersion {
        /// TLS 1.2.
        Tls12 = "1.2",
        /// TLS 1.3.
        Tls13 = "1.3",
    }
}

impl From<TlsVersion> for MinVersion {
    fn from(version: TlsVersion) -> Self {
        match version {
            TlsVersion::Tls12 => Self::Tls12,
            TlsVersion::Tls13 => Self::Tls13,
        }
    }
}

table! {
    /// TLS with clients; without this table the listener speaks plain HTTP.
    ListenerTls {
        /// Certificates with their keys, up to 1000. A client gets the one for the name that it asks for; the first one where there is none.
        default certificates: List<CertificateFiles, 0, 1_000> = [];
        /// A folder of more: each NAME.pem is a chain, and NAME.key its key, which may also stand in NAME.pem itself.
        optional certificate_dir: FilePath;
        /// The oldest version that is spoken, "1.2" or "1.3".
        default min_version: TlsVersion = "1.2";
        /// A file of 48 random bytes for each key of tickets: the first seals, all open, so that hosts with the same file resume each other's
        /// sessions. Without it keys are random, and exchanged every 6 h.
        optional ticket_keys: FilePath;
        /// Certificates of clients; without this they are asked for none.
        optional client_auth: ClientAuthTable;
        /// A certificate that an authority issues while the gateway runs.
        optional acme: AcmeTable;
        /// A file for every secret of every session, with which all that is said can be read. For finding errors only.
        optional key_log: FilePath;
    }
}

words! {
    /// `client_auth.mode`
    AuthMode {
        /// A client without a certificate is refused.
        Require = "require",
        /// It may have none; one that it shows must be good.
        Request = "request",
    }
}

table! {
    /// Certificates of clients (mutual TLS).
    ClientAuthTable {
        /// A PEM file: who vouches for clients.
        required ca: FilePath;
        /// A PEM file of revocation lists; who stands in one is refused, and who is issued by somebody without one.
        optional crl: FilePath;
        /// "require" or "request".
        default mode: AuthMode = "require";
        /// true: endpoints are told of the certificate in X-Forwarded-Client-Cert (Hash, Subject, URI and DNS, as Envoy writes them), which
        /// nobody else can send them then.
        default forward: bool = false;
    }
}

table! {
    /// A certificate and its key.
    CertificateFiles {
        /// A PEM file with the certificate, and those between it and the root behind it.
        required chain: FilePath;
        /// A PEM file with its private key (PKCS#8, PKCS#1 or SEC1), not encrypted; ${NAME} in its path is a variable of the environment.
        required key: KeyPath;
        /// A DER file with its OCSP response, which clients get that ask for it.
        optional ocsp: FilePath;
    }
}

table! {
    /// TLS with the endpoints; without this table they are spoken to in plain HTTP.
    UpstreamTls {
        /// Who vouches for the endpoints: "system" is whom the distribution trusts, or a PEM file.
        default ca: Ca = "system";
        /// The name that they are asked for and must have: a host's or an IP address; that of the endpoint where it is not given.
        optional name: PeerName;
        /// The certificate shown to endpoints that ask for one.
        optional certificate: CertificateFiles;
        /// The oldest version that is spoken, "1.2" or "1.3".
        default min_version: TlsVersion = "1.2";
        /// true: any certificate is believed, so anybody on the way can read and change everything.
        default insecure_skip_verify: bool = false;
    }
}

/// The file of a private key: a path, in which there may be variables of the environment (systemd's credentials are in
/// `$CREDENTIALS_DIRECTORY`), or `{ file = "…" }`, as secrets are written elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyPath(pub PathBuf);

impl Scalar for KeyPath {
    fn allowed() -> String {
        "the absolute path of a file, in which ${NAME} is a variable of the environment, or { file = \"/run/secrets/x\" }".to_owned()
    }

    fn parse(value: &DeValue<'_>) -> Result<Self, Refusal> {
        if let Some(table) = value.as_table() {
            let file = table.get("file").filter(|_| table.len() == 1).ok_or_else(Refusal::plain)?;
            return FilePath::parse(file.get_ref()).map(|path| Self(path.0));
        }
        let (path, _) = expand(text(value)?, &|name| std::env::var(name).ok())?;
        FilePath::parse(&DeValue::String(path)).map(|path| Self(path.0))
    }

    fn schema() -> serde_json::Value {
        json!({ "anyOf": [
            { "type": "string" },
            {
                "type": "object",
                "properties": { "file": { "type": "string", "pattern": "^/" } },
                "required": ["file"],
                "additionalProperties": false,
            },
        ] })
    }
}

/// `upstream.tls.ca`; `None` for "system".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ca(pub Option<PathBuf>);

impl Scalar for Ca {
    fn allowed() -> String {
        "\"system\", or the absolute path of a PEM file".to_owned()
    }

    fn parse(value: &DeValue<'_>) -> Result<Self, Refusal> {
        match value.as_str() {
            Some("system") => Ok(Self(None)),
            _ => FilePath::parse(value).map(|path| Self(Some(path.0))),
        }
    }

    fn schema() -> serde_json::Value {
        json!({ "type": "string", "pattern": "^(/|system$)" })
    }
}

/// `upstream.tls.name`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerName(pub ServerName<'static>);

impl Scalar for PeerName {
    fn allowed() -> String {
        "the name of a host or an IP address, without port".to_owned()
    }

    fn parse(value: &DeValue<'_>) -> Result<Self, Refusal> {
        let name = text(value)?;
        if name.chars().any(is_unprintable) {
            return Err(Refusal::plain());
        }
        ServerName::try_from(name.to_owned()).map(Self).map_err(|_| Refusal::plain())
    }

    fn schema() -> serde_json::Value {
        json!({ "type": "string", "minLength": 1 })
    }
}

scalar_schema!(Ca, KeyPath, PeerName);

// ---- as /config shows them: paths, never what stands there ----

impl ListenerTls {
    /// Under the file's keys.
    pub(super) fn shown(&self) -> Value {
        let certificates = self.certificates.iter().flat_map(|list| &list.value.0).map(|written| written.value.shown());
        json!({
            "certificates": certificates.collect::<Vec<_>>(),
            "certificate_dir": path(&self.certificate_dir),
            "min_version": version(&self.min_version),
            "ticket_keys": path(&self.ticket_keys),
            "client_auth": self.client_auth.as_ref().map(|auth| auth.value.shown()),
            "key_log": path(&self.key_log),
            "acme": self.acme.as_ref().map(|acme| acme.value.shown()),
        })
    }
}

impl ClientAuthTable {
    fn shown(&self) -> Value {
        let mode = match self.mode.as_ref().map(|mode| mode.value) {
            Some(AuthMode::Request) => "request",
            _ => "require",
        };
        let forward = self.forward.as_ref().is_some_and(|forward| forward.value);
        json!({ "ca": path(&self.ca), "crl": path(&self.crl), "mode": mode, "forward": forward })
    }
}

impl CertificateFiles {
    fn shown(&self) -> Value {
        let key = self.key.as_ref().map(|key| key.value.0.display().to_string());
        json!({ "chain": path(&self.chain), "key": key, "ocsp": path(&self.ocsp) })
    }
}

impl UpstreamTls {
    /// Under the file's keys.
    pub(super) fn shown(&self) -> Value {
        let ca = self.ca.as_ref().and_then(|ca| ca.value.0.as_ref());
        let name = self.name.as_ref().map(|name| name.value.0.to_str().into_owned());
        json!({
            "ca": ca.map_or_else(|| "system".to_owned(), |path| path.display().to_string()),
            "name": name,
            "certificate": self.certificate.as_ref().map(|files| files.value.shown()),
            "min_version": version(&self.min_version),
            "insecure_skip_verify": self.insecure_skip_verify.as_ref().is_some_and(|skip| skip.value),
        })
    }
}

fn path(key: &Option<Written<FilePath>>) -> Option<String> {
    key.as_ref().map(|path| path.value.0.display().to_string())
}

fn version(key: &Option<Written<TlsVersion>>) -> &'static str {
    match key.as_ref().map(|version| version.value) {
        Some(TlsVersion::Tls13) => "1.3",
        _ => "1.2",
    }
}
