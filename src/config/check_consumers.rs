//! Consumers of the file, of `consumers_file` and of files of passwords: what their names, keys and logins must agree on.

use super::check::value;
use super::file;
use super::identity::{Consumer, Consumers, fingerprint};
use super::identity_keys::{Basic, Digest};
use super::marks::{Mark, marks};
use super::names::Name;
use super::passwords::{Login, Logins, PasswordHash};
use super::problem::Sink;
use super::read::Scalar;
use super::signatures::{Material, SignatureAlgorithm, Signer, is_key_id, signers};
use super::texts::read_file;
use crate::limits::{
    CONSUMER_GROUPS_MAX, CONSUMER_KEYS_MAX, CONSUMER_MARKS_MAX, CONSUMERS_FILE_BYTES_MAX, CONSUMERS_MAX,
    HTPASSWD_BYTES_MAX,
};
use crate::units::{ConsumerId, GroupId};
use rustc_hash::FxHashMap;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::collections::hash_map::Entry;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use toml::de::DeValue;

/// `consumers_file`
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ConsumersFile {
    consumer: BTreeMap<String, ConsumerRow>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ConsumerRow {
    #[serde(default)]
    groups: Vec<String>,
    #[serde(default)]
    keys: Vec<KeyRow>,
    #[serde(default)]
    mtls: MarkRows,
    basic: Option<CredentialsRow>,
    #[serde(default)]
    signature: Vec<SignerRow>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyRow {
    sha256: String,
}

/// One, or a list of them.
#[derive(Deserialize)]
#[serde(untagged)]
enum MarkRows {
    One(MarkRow),
    Several(Vec<MarkRow>),
}

impl Default for MarkRows {
    fn default() -> Self {
        Self::Several(Vec::new())
    }
}

impl MarkRows {
    fn all(&self) -> &[MarkRow] {
        match self {
            Self::One(row) => std::slice::from_ref(row),
            Self::Several(rows) => rows,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MarkRow {
    subject: Option<String>,
    san: Option<String>,
    spki: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CredentialsRow {
    user: Option<String>,
    password: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SignerRow {
    keyid: String,
    algorithm: Option<String>,
    secret: Option<String>,
    #[serde(default)]
    base64: bool,
    inline: Option<String>,
}

impl SignerRow {
    fn signer(&self) -> Result<Signer, String> {
        let word = self.algorithm.as_deref().unwrap_or("hmac-sha256");
        let algorithm = SignatureAlgorithm::parse(&DeValue::String(word.into()))
            .map_err(|_| format!("algorithm must be {}", SignatureAlgorithm::allowed()))?;
        if !is_key_id(&self.keyid) {
            return Err("keyid must be printable ASCII".to_owned());
        }
        let key = match (&self.secret, &self.inline) {
            (Some(secret), None) => Material::Secret(secret.as_bytes(), self.base64),
            (None, Some(text)) => Material::Public(text),
            _ => return Err("must be exactly one of secret, inline".to_owned()),
        };
        Signer::try_new(&self.keyid, algorithm, key)
    }
}

/// Users and their passwords.
type Users = BTreeMap<Arc<str>, (ConsumerId, Arc<PasswordHash>)>;

/// Consumers while they are gathered.
#[derive(Default)]
pub(super) struct Gathered {
    all: Vec<Consumer>,
    names: FxHashMap<Arc<str>, ConsumerId>,
    groups: Vec<Arc<str>>,
    group_ids: FxHashMap<Arc<str>, GroupId>,
    /// Rows of who has a key.
    keys: FxHashMap<[u8; 32], usize>,
    /// Rows of whose a certificate is.
    marks: FxHashMap<Mark, usize>,
    /// Rows of who signs with a key.
    signers: FxHashMap<Box<str>, usize>,
    /// Consumers that log in.
    users: Users,
    written: usize,
    file: Option<PathBuf>,
}

/// What a consumer shows: digests of keys, marks of certificates, a login, and what it signs with.
struct Shows {
    keys: Vec<Digest>,
    marks: Vec<Mark>,
    login: Option<(Arc<str>, Arc<PasswordHash>)>,
    signers: Vec<Signer>,
}

/// A key, and why it is refused.
type Refused = (&'static str, String);

impl Gathered {
    fn group(&mut self, name: &str) -> GroupId {
        if let Some(id) = self.group_ids.get(name) {
            return *id;
        }
        let (id, name): (_, Arc<str>) = (GroupId::from_index(self.groups.len()), name.into());
        self.groups.push(Arc::clone(&name));
        self.group_ids.insert(name, id);
        id
    }

    /// Adds a consumer, or says which key keeps it from being one, and why.
    fn add<'g>(&mut self, name: &str, groups: impl Iterator<Item = &'g str>, shows: Shows) -> Result<(), Refused> {
        let mut groups: Vec<_> = groups.map(|group| self.group(group)).collect();
        groups.sort_unstable();
        groups.dedup();
        for key in &shows.keys {
            match self.keys.entry(key.0) {
                Entry::Occupied(other) => {
                    let other = self.all.get(*other.get()).map_or(name, |other| &*other.name);
                    let why = format!("{other:?} has a key of {name:?} too; a key belongs to one consumer, once");
                    return Err(("keys", why));
                }
                Entry::Vacant(free) => drop(free.insert(self.all.len())),
            }
        }
        for mark in &shows.marks {
            if let Some(other) = self.marks.insert(mark.clone(), self.all.len()) {
                let other = self.all.get(other).map_or(name, |other| &*other.name);
                let (kind, text) = mark.parts();
                let why = format!("{kind} {text:?} is {other:?} already; a certificate is one consumer's, once");
                return Err(("mtls", why));
            }
        }
        for signer in &shows.signers {
            if let Some(other) = self.signers.insert(signer.id.clone(), self.all.len()) {
                let other = self.all.get(other).map_or(name, |other| &*other.name);
                let why = format!("keyid {:?} is {other:?} already; a key is one consumer's, once", signer.id);
                return Err(("signature", why));
            }
        }
        let (id, mut consumer) =
            (ConsumerId::from_index(self.all.len()), Consumer::new(name, groups.into(), shows.keys.into()));
        consumer.marks = shows.marks.into();
        consumer.signers = shows.signers.into();
        if self.names.insert(Arc::clone(&consumer.name), id).is_some() {
            return Err(("keys", format!("there is a consumer {name:?} already")));
        }
        if let Some((user, hash)) = &shows.login {
            if user.contains(':') {
                let why =
                    format!("who logs in is called {user:?}, and in that nobody can tell the colon (RFC 7617 §2)");
                return Err(("basic", why));
            }
            if self.users.insert(Arc::clone(user), (id, Arc::clone(hash))).is_some() {
                return Err(("basic", format!("another consumer logs in as {user:?} already")));
            }
        }
        consumer.login = shows.login;
        self.all.push(consumer);
        Ok(())
    }

    /// The consumer of this name, who may be new.
    fn consumer(&mut self, name: &str) -> Result<ConsumerId, String> {
        if let Some(id) = self.names.get(name) {
            return Ok(*id);
        }
        if self.all.len() >= CONSUMERS_MAX {
            return Err(format!("more than {CONSUMERS_MAX} consumers"));
        }
        let (id, consumer) =
            (ConsumerId::from_index(self.all.len()), Consumer::new(name, Box::default(), Box::default()));
        self.names.insert(Arc::clone(&consumer.name), id);
        self.all.push(consumer);
        Ok(id)
    }

    /// Who logs in by this way.
    pub(super) fn logins(&mut self, way: &str, basic: &Basic, sink: &mut Sink<'_>) -> Option<Logins> {
        let mut users = self.users.clone();
        let mut told = String::new();
        let file = basic.htpasswd.as_ref();
        if let Some(path) = file {
            let read = text_of(&path.value.0, HTPASSWD_BYTES_MAX, sink).and_then(|text| {
                told = fingerprint(text.as_bytes());
                self.htpasswd(&text, &mut users)
            });
            read.map_err(|why| sink.value(basic.at.key("htpasswd"), path.span.clone(), why, None)).ok()?;
        }
        let all = users.into_iter().map(|(user, (consumer, hash))| Login { user, consumer, hash }).collect();
        let realm = value(&basic.realm).map_or_else(|| way.to_owned(), |realm| realm.0);
        Some(Logins { realm, all, file: file.map(|path| path.value.0.clone()), fingerprint: told })
    }

    /// A user and a hash in each line. What a line says is not repeated but for the user's name: it may be a password.
    fn htpasswd(&mut self, text: &str, users: &mut Users) -> Result<(), String> {
        for (row, line) in text.lines().enumerate() {
            let at = |why: String| format!("line {} of the file: {why}", row + 1);
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (user, hash) = line.split_once(':').ok_or_else(|| at("no USER:HASH".to_owned()))?;
            if !is_name(user) {
                return Err(at(format!("the user must be {}", Name::allowed())));
            }
            // some write more behind another colon
            let hash = hash.split(':').next().unwrap_or_default();
            let hash = PasswordHash::try_new(hash).map_err(|why| at(format!("the password of {user:?} {why}")))?;
            let id = self.consumer(user).map_err(at)?;
            if users.insert(user.into(), (id, Arc::new(hash))).is_some() {
                return Err(at(format!("{user:?} logs in with another password already")));
            }
        }
        Ok(())
    }

    /// All of them.
    pub(super) fn finish(self) -> Consumers {
        Consumers::new(self.all, self.written, self.groups, self.file)
    }
}

fn is_name(name: &str) -> bool {
    Name::parse(&DeValue::String(name.into())).is_ok()
}

/// Everybody who can be recognised, but for the users of files of passwords.
pub(super) fn gather(file: &file::File, sink: &mut Sink<'_>) -> Option<Gathered> {
    let mut gathered = Gathered::default();
    let map = file.consumer.as_ref()?;
    for (name, written) in &map.value.0 {
        let table = &written.value;
        let (Some(groups), Some(keys)) = (&table.groups, &table.keys) else { continue };
        let groups = groups.value.0.iter().map(|group| group.value.0.as_str());
        let keys = keys.value.0.iter().filter_map(|key| value(&key.value.sha256)).collect();
        let login = table.basic.as_ref().and_then(|basic| {
            let user = value(&basic.value.user).map_or_else(|| name.value.0.as_str().into(), |user| user.0.into());
            Some((user, value(&basic.value.password)?.0))
        });
        let (marks, signers) = (marks(table.mtls.as_ref(), sink), signers(table.signature.as_ref(), sink));
        if let Err((key, why)) = gathered.add(&name.value.0, groups, Shows { keys, marks, login, signers }) {
            sink.place(table.at.key(key), written.span.start, why, None);
        }
    }
    gathered.written = gathered.all.len();
    if let Some(path) = &file.consumers_file {
        if let Err(why) = read_consumers(&path.value.0, &mut gathered, sink) {
            sink.value("consumers_file", path.span.clone(), why, None);
        }
        gathered.file = Some(path.value.0.clone());
    }
    Some(gathered)
}

/// What stands in a file that is named, as text.
pub(super) fn text_of(path: &Path, bytes_max: u64, sink: &Sink<'_>) -> Result<String, String> {
    let read = read_file(path, bytes_max);
    sink.follow(path, read.as_ref().ok().map(|(_, stamp)| *stamp));
    let (bytes, _) = read.map_err(|error| format!("cannot be read: {error}"))?;
    if bytes.len() as u64 > bytes_max {
        return Err(format!("the file has more than {bytes_max} bytes"));
    }
    String::from_utf8(bytes).map_err(|_| "the file has a byte that is not UTF-8".to_owned())
}

fn read_consumers(path: &Path, gathered: &mut Gathered, sink: &Sink<'_>) -> Result<(), String> {
    let text = text_of(path, CONSUMERS_FILE_BYTES_MAX, sink)?;
    // what a parser says beyond the place could repeat what stands there
    let at = |line: usize, column: usize| format!("line {line}, column {column} of the file is not as it should be");
    let is_toml = path.extension().is_some_and(|extension| extension == "toml");
    let ConsumersFile { consumer } = match is_toml {
        true => toml::from_str(&text).map_err(|error| {
            let before = &text[..error.span().map_or(0, |span| span.start).min(text.len())];
            let line_start = before.rfind('\n').map_or(0, |end| end + 1);
            at(before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
        })?,
        false => serde_json::from_str(&text).map_err(|error| at(error.line(), error.column()))?,
    };
    if gathered.all.len() + consumer.len() > CONSUMERS_MAX {
        return Err(format!("more than {CONSUMERS_MAX} consumers"));
    }
    for (name, row) in consumer {
        if let Some(name) = std::iter::once(&name).chain(&row.groups).find(|name| !is_name(name)) {
            return Err(format!("{name:?} must be {}", Name::allowed()));
        }
        if row.groups.len() > CONSUMER_GROUPS_MAX || row.keys.len() > CONSUMER_KEYS_MAX {
            return Err(format!("{name:?}: at most {CONSUMER_GROUPS_MAX} groups and {CONSUMER_KEYS_MAX} keys"));
        }
        let marks = row.mtls.all();
        if marks.len() > CONSUMER_MARKS_MAX {
            return Err(format!("{name:?}: at most {CONSUMER_MARKS_MAX} of mtls"));
        }
        let marks = marks.iter().map(|it| Mark::try_new(it.subject.as_deref(), it.san.as_deref(), it.spki.as_deref()));
        let marks = marks.collect::<Result<_, _>>().map_err(|why| format!("{name:?}: mtls {why}"))?;
        let keys: Option<Vec<_>> = row.keys.iter().map(|key| Digest::try_new(&key.sha256)).collect();
        let keys = keys.ok_or_else(|| format!("{name:?}: sha256 must be 64 hexadecimal digits"))?;
        let login = match row.basic {
            None => None,
            Some(CredentialsRow { user, password }) => {
                let user = user.as_deref().unwrap_or(&name);
                if !is_name(user) {
                    return Err(format!("{name:?}: user must be {}", Name::allowed()));
                }
                let hash = PasswordHash::try_new(&password).map_err(|why| format!("{name:?}: password {why}"))?;
                Some((user.into(), Arc::new(hash)))
            }
        };
        if row.signature.len() > CONSUMER_KEYS_MAX {
            return Err(format!("{name:?}: at most {CONSUMER_KEYS_MAX} of signature"));
        }
        let signers = row.signature.iter().map(SignerRow::signer).collect::<Result<_, _>>();
        let signers = signers.map_err(|why| format!("{name:?}: signature {why}"))?;
        gathered
            .add(&name, row.groups.iter().map(String::as_str), Shows { keys, marks, login, signers })
            .map_err(|(_, why)| why)?;
    }
    Ok(())
}
