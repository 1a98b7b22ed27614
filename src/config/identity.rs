//! Who may call, how they are recognised, and what they may do: as used.
//!
//! Consumers stand in the file, and many more of them in a file of their own (`consumers_file`), which is read with the configuration and is one
//! of those that `gateway.watch` looks after; so are lists of networks. A key is kept as its digest only, and shown nowhere: the `Debug` of
//! these types says everything that a reload may change, and nothing secret.

use super::fetched::FetchedKeys;
use super::forward::Forward;
use super::identity_keys::{Digest, IdentityText};
use super::marks::Mark;
use super::passwords::{Logins, PasswordHash};
use super::signatures::{SignatureRules, Signer};
use super::token_keys::{Algorithm, VerifyKey};
use crate::units::{AuthId, GroupId};
use aws_lc_rs::digest;
use http::{HeaderName, Method};
use ipnet::IpNet;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Everybody who can be recognised. Ids of [`crate::units::ConsumerId`] are rows of `all`.
#[derive(Clone, Default)]
pub struct Consumers {
    /// Those of the configuration first, in file order, then those of `file`.
    pub all: Vec<Consumer>,
    /// How many of them stand in the configuration itself.
    pub written: usize,
    /// Names of groups; ids of [`GroupId`] are their rows.
    pub groups: Vec<Arc<str>>,
    /// `consumers_file`
    pub file: Option<PathBuf>,
    /// Of all that is known of them.
    fingerprint: String,
}

/// `[consumer.NAME]`
#[derive(Clone)]
pub struct Consumer {
    /// Its name in metrics, logs and limits; unique.
    pub name: Arc<str>,
    /// A number that stands for the name, whatever row it has: the first bytes of its SHA-256.
    pub number: u64,
    /// Groups that it is in, each once, rising.
    pub groups: Box<[GroupId]>,
    /// Digests of its keys.
    pub keys: Box<[Digest]>,
    /// By what certificates are its.
    pub marks: Box<[Mark]>,
    /// The name and the password that it logs in with.
    pub login: Option<(Arc<str>, Arc<PasswordHash>)>,
    /// Keys that it signs requests with.
    pub signers: Box<[Signer]>,
}

impl Consumer {
    pub(super) fn new(name: &str, groups: Box<[GroupId]>, keys: Box<[Digest]>) -> Self {
        let (marks, signers) = (Box::default(), Box::default());
        Self { name: name.into(), number: Self::number_of(name), groups, keys, marks, login: None, signers }
    }

    /// The number that stands for a name.
    #[must_use]
    pub fn number_of(name: &str) -> u64 {
        let digest = digest::digest(&digest::SHA256, name.as_bytes());
        digest.as_ref().iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
    }
}

impl Consumers {
    pub(super) fn new(all: Vec<Consumer>, written: usize, groups: Vec<Arc<str>>, file: Option<PathBuf>) -> Self {
        let mut told = digest::Context::new(&digest::SHA256);
        for consumer in &all {
            told.update(consumer.name.as_bytes());
            told.update(b"\n");
            consumer.groups.iter().for_each(|group| told.update(groups[group.index()].as_bytes()));
            told.update(b"\n");
            consumer.keys.iter().for_each(|key| told.update(&key.0));
            told.update(b"\n");
            for (kind, text) in consumer.marks.iter().map(Mark::parts) {
                [kind, "=", text, "\n"].iter().for_each(|part| told.update(part.as_bytes()));
            }
            if let Some((user, hash)) = &consumer.login {
                told.update(user.as_bytes());
                told.update(b":");
                told.update(hash.secret());
            }
            for signer in &consumer.signers {
                let parts = ["\n", &signer.id, "=", signer.algorithm.word(), ":", &signer.fingerprint];
                parts.iter().for_each(|part| told.update(part.as_bytes()));
            }
            told.update(b"\n");
        }
        let fingerprint = hex(&told.finish().as_ref()[..16]);
        Self { all, written, groups, file, fingerprint }
    }

    /// The names of somebody's groups.
    pub fn groups_of(&self, consumer: &Consumer) -> impl Iterator<Item = &str> {
        consumer.groups.iter().map(|group| &*self.groups[group.index()])
    }
}

impl fmt::Debug for Consumers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumers")
            .field("count", &self.all.len())
            .field("file", &self.file)
            .field("fingerprint", &self.fingerprint)
            .finish_non_exhaustive()
    }
}

/// `[auth.NAME]`: a way to be recognised.
#[derive(Clone, Debug)]
pub struct Auth {
    /// What routes and listeners call it.
    pub name: String,
    /// Where what is shown stands, in the order in which it is looked for; none for certificates, and where somebody else decides.
    pub places: Vec<KeyPlace>,
    /// What stands there.
    pub proof: Proof,
    /// What the client has shown goes on to the endpoint.
    pub forwards: bool,
    /// What the endpoint is told.
    pub headers: Vec<(HeaderName, IdentityText)>,
}

/// By what somebody is recognised.
#[derive(Clone, Debug)]
pub enum Proof {
    /// An API key.
    Key,
    /// A token, of which this is believed.
    Token(Arc<TokenRules>),
    /// The name and the password of one of these.
    Password(Arc<Logins>),
    /// A certificate that the listener has believed.
    Certificate,
    /// Whatever convinces somebody else.
    Forward(Arc<Forward>),
    /// A signature of the request.
    Signature(Arc<SignatureRules>),
}

impl Auth {
    /// What is believed of tokens, if it takes any.
    #[must_use]
    pub fn tokens(&self) -> Option<&Arc<TokenRules>> {
        match &self.proof {
            Proof::Token(rules) => Some(rules),
            Proof::Key | Proof::Password(_) | Proof::Certificate | Proof::Forward(_) | Proof::Signature(_) => None,
        }
    }

    /// Who logs in, if passwords are taken.
    #[must_use]
    pub fn logins(&self) -> Option<&Arc<Logins>> {
        match &self.proof {
            Proof::Password(logins) => Some(logins),
            Proof::Key | Proof::Token(_) | Proof::Certificate | Proof::Forward(_) | Proof::Signature(_) => None,
        }
    }

    /// Who decides, if it is somebody else.
    #[must_use]
    pub fn forward(&self) -> Option<&Arc<Forward>> {
        match &self.proof {
            Proof::Forward(forward) => Some(forward),
            Proof::Key | Proof::Token(_) | Proof::Password(_) | Proof::Certificate | Proof::Signature(_) => None,
        }
    }

    /// What a signature has to be, if requests are signed.
    #[must_use]
    pub fn signature(&self) -> Option<&Arc<SignatureRules>> {
        match &self.proof {
            Proof::Signature(rules) => Some(rules),
            Proof::Key | Proof::Token(_) | Proof::Password(_) | Proof::Certificate | Proof::Forward(_) => None,
        }
    }

    /// Headers in which it is the gateway that says who sends a request.
    pub fn identity(&self) -> impl Iterator<Item = &HeaderName> {
        self.headers
            .iter()
            .map(|(name, _)| name)
            .chain(self.forward().into_iter().flat_map(|forward| forward.identity()))
    }
}

/// Which tokens (JWT) are believed.
#[derive(Clone)]
pub struct TokenRules {
    /// With what they are verified.
    pub keys: Arc<[VerifyKey]>,
    /// Keys that are fetched; then `keys` are none.
    pub fetched: Option<Arc<FetchedKeys>>,
    /// How they are signed.
    pub algorithms: Vec<Algorithm>,
    /// What `iss` is; `None`: anything.
    pub issuer: Option<String>,
    /// What `aud` has one of; empty: there is none.
    pub audience: Vec<String>,
    /// By how much clocks may differ.
    pub leeway: Duration,
    /// What `typ` may be.
    pub types: Vec<String>,
    /// The claim that is the consumer's name.
    pub consumer_claim: String,
    /// Where the keys were read from, if it is a file; whether they are a secret.
    pub origin: (Option<PathBuf>, bool),
    /// Of the keys.
    pub(super) fingerprint: String,
}

impl fmt::Debug for TokenRules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { keys, fetched, algorithms, issuer, audience, leeway, types, consumer_claim, origin, fingerprint } =
            self;
        let rest = (algorithms, issuer, audience, leeway, types, consumer_claim, origin);
        write!(f, "TokenRules {{ {keys:?} {fetched:?} {rest:?} {fingerprint} }}")
    }
}

/// What a rule asks of a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClaimTest {
    /// It has one of these.
    Any(Vec<String>),
    /// It has all of these.
    All(Vec<String>),
    /// It is this text.
    Exact(String),
}

/// Where a request has a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyPlace {
    /// In this header, behind the word if there is one.
    Header(HeaderName, Option<String>),
    /// In this query parameter.
    Query(String),
    /// In this cookie.
    Cookie(String),
}

/// `allow` and `deny` of a route or a listener.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// One of them must hold, if there are any.
    pub allow: Vec<Rule>,
    /// None of them may hold.
    pub deny: Vec<Rule>,
}

/// One of `allow` or `deny`: all that is given must hold.
#[derive(Clone, Debug, Default)]
pub struct Rule {
    /// Names of consumers; empty: anybody, and nobody in particular.
    pub consumers: Vec<String>,
    /// Names of groups; the same.
    pub groups: Vec<String>,
    /// What a token claims.
    pub claims: Vec<(String, ClaimTest)>,
    /// Networks of clients; `None`: from anywhere.
    pub networks: Option<Networks>,
    /// Methods; empty: any.
    pub methods: Vec<Method>,
    /// Count, and refuse nobody.
    pub dry_run: bool,
}

impl Rule {
    /// Whether it speaks of who was recognised.
    #[must_use]
    pub fn is_about_identity(&self) -> bool {
        !self.consumers.is_empty() || !self.groups.is_empty() || !self.claims.is_empty()
    }
}

/// `client_ip` and `client_ip_file`
#[derive(Clone, Debug)]
pub struct Networks {
    /// Of the configuration.
    pub listed: Vec<IpNet>,
    /// Of a file.
    pub file: Option<NetworkFile>,
}

impl Networks {
    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = IpNet> + '_ {
        self.listed.iter().chain(self.file.iter().flat_map(|file| &*file.networks)).copied()
    }
}

/// A file of networks, as it was read.
#[derive(Clone)]
pub struct NetworkFile {
    /// Where it is.
    pub path: PathBuf,
    /// What it says.
    pub networks: Arc<[IpNet]>,
    /// Of that.
    pub(super) fingerprint: String,
}

impl fmt::Debug for NetworkFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NetworkFile").field("path", &self.path).field("fingerprint", &self.fingerprint).finish()
    }
}

/// Of a file's bytes.
pub(super) fn fingerprint(bytes: &[u8]) -> String {
    hex(&digest::digest(&digest::SHA256, bytes).as_ref()[..16])
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The ways of a route: its own, or those of the listener that a request came in by.
pub(crate) fn ways<'c>(route: &'c super::Route, listener: &'c super::Listener) -> &'c [AuthId] {
    route.auth.as_deref().unwrap_or(&listener.auth)
}
