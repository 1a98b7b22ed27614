//! `[listener.tls] acme`: certificates that an authority issues while the gateway runs (RFC 8555).
//!
//! What it has issued lies in `cache`, from where it is read like any other certificate. Before there is one, the listener shows one that it
//! has signed itself, so that it can be asked.

use super::encryption::Origin;
use super::names::FilePath;
use super::problem::{Refusal, Sink};
use super::read::{List, Scalar, Written};
use super::reading::words;
use super::tables::{scalar_schema, table};
use super::texts::read_file;
use super::values::text;
use crate::limits::CERTIFICATE_BYTES_MAX;
use crate::tls::Certificate;
use rcgen::{CertificateParams, KeyPair};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use toml::de::DeValue;

words! {
    /// `acme.challenge`: how the authority looks whether a name leads here.
    ChallengeWord {
        /// With a TLS session on port 443 (RFC 8737).
        TlsAlpn01 = "tls-alpn-01",
        /// With a request on port 80 (RFC 8555 §8.3).
        Http01 = "http-01",
    }
}

table! {
    /// Certificates that are issued and renewed by an authority (ACME).
    AcmeTable {
        /// The authority's directory, such as `https://acme-v02.api.letsencrypt.org/directory`. Who uses it agrees to its terms.
        required directory: HttpsUrl;
        /// A PEM file: who vouches for the directory's own certificate; whom the system trusts without it.
        optional directory_ca: FilePath;
        /// Whom it may write to: "mailto:ops@example.com", up to 8.
        default contact: List<Contact, 0, 8> = [];
        /// Names of the certificate, up to 100, no wildcards.
        required names: List<HostName, 1, 100>;
        /// "tls-alpn-01" (it comes to port 443) or "http-01" (port 80).
        default challenge: ChallengeWord = "tls-alpn-01";
        /// A folder for the account and certificates, which several gateways may share.
        required cache: FilePath;
    }
}

/// So often a pair is looked for: nobody writes three in the time that one takes to be read.
const LOOKS: usize = 3;

/// The same, as used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acme {
    /// The authority's directory.
    pub directory: String,
    /// Who vouches for it; `None`: whom the system trusts.
    pub directory_ca: Option<PathBuf>,
    /// Whom it may write to.
    pub contact: Vec<String>,
    /// Names of the certificate, at least one.
    pub names: Vec<String>,
    /// Whether it comes to port 80.
    pub is_http: bool,
    /// Where account and certificate lie.
    pub cache: PathBuf,
}

impl Acme {
    /// The file of the chain.
    #[must_use]
    pub fn chain(&self) -> PathBuf {
        self.cache.join(format!("{}.pem", self.names[0]))
    }

    /// The file of the key.
    #[must_use]
    pub fn key(&self) -> PathBuf {
        self.cache.join(format!("{}.key", self.names[0]))
    }

    /// The file of a key whose chain is about to be written.
    #[must_use]
    pub fn next_key(&self) -> PathBuf {
        self.cache.join(format!("{}.next.key", self.names[0]))
    }

    /// What stands in the files of chain and key, as `read` reads them: of the next key where the chain is for that one, since whoever
    /// renews them may be interrupted. Somebody may do so right now: then it is read once more.
    pub fn read_pair<T: AsRef<[u8]>>(&self, read: impl Fn(&Path) -> Option<T>) -> Option<(T, T)> {
        (0..LOOKS).find_map(|_| {
            let chain = read(&self.chain())?;
            let is_for = |key: &T| Certificate::read(chain.as_ref(), key.as_ref(), None).is_ok();
            // and the first again: the next one may have become it meanwhile
            let keys = [self.key(), self.next_key(), self.key()];
            let key = keys.iter().filter_map(|path| read(path)).find(is_for)?;
            Some((chain, key))
        })
    }
}

impl AcmeTable {
    /// Under the file's keys.
    pub(super) fn shown(&self) -> Value {
        used(self).map_or(Value::Null, |acme| {
            json!({
                "directory": acme.directory,
                "directory_ca": acme.directory_ca.map(|path| path.display().to_string()),
                "contact": acme.contact,
                "names": acme.names,
                "challenge": if acme.is_http { "http-01" } else { "tls-alpn-01" },
                "cache": acme.cache.display().to_string(),
            })
        })
    }
}

pub(super) fn used(table: &AcmeTable) -> Option<Acme> {
    let path = |path: &Option<Written<FilePath>>| path.as_ref().map(|path| path.value.0.clone());
    Some(Acme {
        directory: table.directory.as_ref()?.value.0.clone(),
        directory_ca: path(&table.directory_ca),
        contact: table.contact.as_ref()?.value.0.iter().map(|contact| contact.value.0.clone()).collect(),
        names: table.names.as_ref()?.value.0.iter().map(|name| name.value.0.clone()).collect(),
        is_http: table.challenge.as_ref()?.value == ChallengeWord::Http01,
        cache: path(&table.cache)?,
    })
}

/// The certificate that lies in the cache, or one that stands in for it.
pub(super) fn certificate(
    acme: &Acme,
    at: &Written<AcmeTable>,
    sink: &mut Sink<'_>,
) -> Option<(Arc<Certificate>, Origin)> {
    let read = |path: &Path| {
        let read = read_file(path, CERTIFICATE_BYTES_MAX);
        sink.follow(path, read.as_ref().ok().map(|(_, stamp)| *stamp));
        read.ok().map(|(text, _)| text)
    };
    let pair = acme.read_pair(read);
    let origin = Origin { chain: acme.chain(), key: acme.key(), is_exposed: false, kept: None };
    // one that is of no use is ordered anew; a gateway with a strange certificate is better than none
    if let Some(Ok(certificate)) = pair.map(|(chain, key)| Certificate::share(&chain, &key, None)) {
        return Some((certificate, origin));
    }
    match stand_in(&acme.names) {
        Ok(certificate) => Some((Arc::new(certificate), origin)),
        Err(error) => {
            sink.value(at.value.at.key("names"), at.span.clone(), format!("cannot be in a certificate: {error}"), None);
            None
        }
    }
}

fn stand_in(names: &[String]) -> Result<Certificate, String> {
    let key = KeyPair::generate().map_err(|error| error.to_string())?;
    let params = CertificateParams::new(names.to_vec()).map_err(|error| error.to_string())?;
    let made = params.self_signed(&key).map_err(|error| error.to_string())?;
    Certificate::read(made.pem().as_bytes(), key.serialize_pem().as_bytes(), None).map_err(|error| error.to_string())
}

/// `acme.directory`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpsUrl(pub String);

impl Scalar for HttpsUrl {
    fn allowed() -> String {
        "a URL that begins with https://".to_owned()
    }

    fn parse(value: &DeValue<'_>) -> Result<Self, Refusal> {
        let url = text(value)?;
        let rest =
            url.strip_prefix("https://").filter(|rest| !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_graphic()));
        rest.filter(|_| url.parse::<http::Uri>().is_ok()).map(|_| Self(url.to_owned())).ok_or_else(Refusal::plain)
    }

    fn schema() -> Value {
        json!({ "type": "string", "pattern": "^https://" })
    }
}

/// `acme.contact`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contact(pub String);

impl Scalar for Contact {
    fn allowed() -> String {
        "\"mailto:\" and an address".to_owned()
    }

    fn parse(value: &DeValue<'_>) -> Result<Self, Refusal> {
        let contact = text(value)?;
        let address =
            contact.strip_prefix("mailto:").filter(|it| it.contains('@') && it.bytes().all(|b| b.is_ascii_graphic()));
        address.map(|_| Self(contact.to_owned())).ok_or_else(Refusal::plain)
    }

    fn schema() -> Value {
        json!({ "type": "string", "pattern": "^mailto:.+@" })
    }
}

/// `acme.names`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostName(pub String);

impl Scalar for HostName {
    fn allowed() -> String {
        "the name of a host, in lower case; wildcards need a challenge by DNS, which is not spoken here".to_owned()
    }

    fn parse(value: &DeValue<'_>) -> Result<Self, Refusal> {
        let name = text(value)?;
        let is_label = |label: &str| {
            let is_inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
            (1..=63).contains(&label.len())
                && label.bytes().all(is_inner)
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        let is_name = name.len() <= 253 && name.contains('.') && name.split('.').all(is_label);
        let is_address = name.parse::<std::net::Ipv4Addr>().is_ok();
        if is_name && !is_address { Ok(Self(name.to_owned())) } else { Err(Refusal::plain()) }
    }

    fn schema() -> Value {
        json!({ "type": "string", "pattern": "^[a-z0-9-]+(\\.[a-z0-9-]+)+$" })
    }
}

scalar_schema!(HttpsUrl, Contact, HostName);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::values::tests::{accepts, refuses};

    #[test]
    fn names_urls_and_contacts_are_what_they_should_be() {
        accepts::<HostName>(&["a.example", "x-1.a.example", "xn--bcher-kva.example"]);
        refuses::<HostName>(&[
            "",
            "localhost",
            "*.a.example",
            "A.example",
            "a..b",
            "-a.b",
            "192.0.2.1",
            "a.b/",
            "../x.y",
        ]);
        accepts::<HttpsUrl>(&["https://acme.example/directory", "https://127.0.0.1:14000/dir"]);
        refuses::<HttpsUrl>(&["", "http://acme.example/", "https://", "https://a b/"]);
        accepts::<Contact>(&["mailto:ops@example.com"]);
        refuses::<Contact>(&["", "ops@example.com", "mailto:ops", "tel:1"]);
    }
}
