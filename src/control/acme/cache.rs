//! What lies in the cache of a certificate, for this gateway after a restart and for others that share it.
//!
//! | file | what |
//! |---|---|
//! | `NAME.pem`, `NAME.key` | the certificate, as the configuration reads it |
//! | `account.json` | the account, of one directory |
//! | `NAME.order.json` | an order that is under way, and its key: whoever is interrupted goes on with it instead of ordering another one |
//! | `NAME.attempts.json` | what became of orders, and when the next one may be made |
//! | `NAME.proofs.json` | what the authority is to be answered, while somebody orders |
//! | `lock` | held by who orders |
//!
//! Each is written beside its place and moved there. What cannot be read is as good as none.

use super::schedule::{Attempts, Span};
use crate::config::Acme;
use crate::tls::Certificate;
use anyhow::Context as _;
use instant_acme::AccountCredentials;
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// More than a chain, keys, and the files beside them take.
const ROOM_BYTES: usize = 64 << 10;

/// An order that is under way.
#[derive(Deserialize, Serialize)]
pub(super) struct UnderWay {
    pub(super) directory: String,
    pub(super) names: Vec<String>,
    pub(super) url: String,
    /// In PEM.
    pub(super) key: String,
}

impl UnderWay {
    /// The one in the cache, if it is for what is wanted now.
    pub(super) fn read(acme: &Acme) -> Option<Self> {
        let kept: Self = serde_json::from_slice(&std::fs::read(Self::path(acme)).ok()?).ok()?;
        (kept.directory == acme.directory && kept.names == acme.names).then_some(kept)
    }

    pub(super) fn write(&self, acme: &Acme) -> anyhow::Result<()> {
        replace(&Self::path(acme), &serde_json::to_vec(self)?)
    }

    /// It is over.
    pub(super) fn remove(acme: &Acme) {
        let _there_may_be_none = std::fs::remove_file(Self::path(acme));
    }

    fn path(acme: &Acme) -> PathBuf {
        acme.cache.join(format!("{}.order.json", acme.names[0]))
    }
}

fn attempts_path(acme: &Acme) -> PathBuf {
    acme.cache.join(format!("{}.attempts.json", acme.names[0]))
}

/// What became of orders, and whether they were another directory's.
pub(super) fn attempts(acme: &Acme) -> (Attempts, bool) {
    let kept = std::fs::read(attempts_path(acme)).ok().and_then(|text| serde_json::from_slice(&text).ok());
    match kept {
        Some(Attempts { directory, .. }) if directory != acme.directory => (Attempts::of(&acme.directory), true),
        Some(kept) => (kept, false),
        None => (Attempts::of(&acme.directory), false),
    }
}

pub(super) fn keep_attempts(acme: &Acme, attempts: &Attempts) -> anyhow::Result<()> {
    replace(&attempts_path(acme), &serde_json::to_vec(attempts)?)
}

fn account_path(acme: &Acme) -> PathBuf {
    acme.cache.join("account.json")
}

/// The account with the directory; `None`: there is none, or one of another directory's. What is of no use is put aside.
pub(super) fn account(acme: &Acme) -> Option<AccountCredentials> {
    let text = std::fs::read(account_path(acme)).ok()?;
    let kept = serde_json::from_slice::<serde_json::Value>(&text).ok();
    let is_ours = |kept: &serde_json::Value| kept.get("directory").is_none_or(|it| *it == *acme.directory);
    let kept = kept.filter(is_ours).and_then(|kept| serde_json::from_value(kept).ok());
    if kept.is_none() {
        put_account_aside(acme, "is of no use, or another directory's");
    }
    kept
}

/// There will be a new one.
pub(super) fn put_account_aside(acme: &Acme, why: &str) {
    let (path, aside) = (account_path(acme), acme.cache.join("account.json.old"));
    tracing::warn!("acme: {} {why}: it is now {}", path.display(), aside.display());
    let _it_is_written_over = std::fs::rename(path, aside);
}

pub(super) fn keep_account(acme: &Acme, kept: &AccountCredentials) -> anyhow::Result<()> {
    replace(&account_path(acme), &serde_json::to_vec(kept)?)
}

/// The certificate, if there is one for the names that are wanted, and from when until when it is valid.
pub(super) fn certificate(acme: &Acme) -> Option<(Certificate, Span)> {
    let (chain, key) = acme.read_pair(|path| std::fs::read(path).ok())?;
    let certificate = Certificate::read(&chain, &key, None).ok()?;
    let life = (certificate.not_before, certificate.not_after);
    Some((certificate, life))
}

/// Writes both, so that whoever reads at any time, or after a crash at any time, finds a pair: the new key lies beside the old one until
/// the chain is there.
pub(super) fn keep_certificate(acme: &Acme, chain: &str, key: &str) -> anyhow::Result<()> {
    write(&acme.next_key(), key.as_bytes())?;
    replace(&acme.chain(), chain.as_bytes())?;
    let moved = std::fs::rename(acme.next_key(), acme.key());
    moved.with_context(|| format!("{} cannot be written", acme.key().display()))
}

/// Looks for room for all that an order writes.
///
/// # Errors
/// There is none, or nothing can be written.
pub(super) fn find_room(acme: &Acme) -> anyhow::Result<()> {
    let path = acme.cache.join(format!("{}.room", acme.names[0]));
    let written = write(&path, &[0; ROOM_BYTES]).context("no certificate is ordered, since it could not be kept");
    let _it_may_not_be_there = std::fs::remove_file(&path);
    written
}

pub(super) fn modified(path: &Path) -> Option<SystemTime> {
    std::fs::metadata(path).and_then(|found| found.modified()).ok()
}

/// The cache's lock, as long as the file is open; `None`: another gateway has it.
pub(super) fn locked(cache: &Path) -> anyhow::Result<Option<File>> {
    std::fs::create_dir_all(cache).with_context(|| format!("{} cannot be made", cache.display()))?;
    let path = cache.join("lock");
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
    let file = file.with_context(|| path.display().to_string())?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(file)),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(error).with_context(|| path.display().to_string()),
    }
}

/// Writes a file that only its owner may read, all of it or nothing.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    write(Path::new(&beside), bytes)?;
    std::fs::rename(&beside, path).with_context(|| format!("{} cannot be written", path.display()))
}

fn write(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let write = || {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().with_context(|| format!("{} cannot be written", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::acme::testing::{acme, issue};

    #[test]
    fn whoever_is_interrupted_while_it_writes_a_certificate_leaves_a_pair() {
        let dir = tempfile::tempdir().unwrap();
        let acme = acme(dir.path());
        assert!(certificate(&acme).is_none());
        let (first, second) = (issue(1), issue(2));
        keep_certificate(&acme, &first.0, &first.1).unwrap();
        let life = |acme: &Acme| certificate(acme).map(|(_, life)| life);
        let (before, after) = (life(&acme).unwrap(), {
            keep_certificate(&acme, &second.0, &second.1).unwrap();
            life(&acme).unwrap()
        });
        assert!(before != after && !acme.next_key().exists());
        // before the chain is moved there, and behind that
        keep_certificate(&acme, &first.0, &first.1).unwrap();
        std::fs::write(acme.next_key(), &second.1).unwrap();
        assert_eq!(life(&acme), Some(before));
        std::fs::write(acme.chain(), &second.0).unwrap();
        assert_eq!(life(&acme), Some(after));
    }

    #[test]
    fn broken_files_are_as_good_as_none() {
        let dir = tempfile::tempdir().unwrap();
        let acme = acme(dir.path());
        for text in ["", "{", "[]", "{\"directory\":7}", "\0\0", "{\"directory\":\"https://other.invalid/\"}"] {
            for name in
                ["account.json", "a.example.order.json", "a.example.attempts.json", "a.example.pem", "a.example.key"]
            {
                std::fs::write(dir.path().join(name), text).unwrap();
            }
            assert!(
                account(&acme).is_none() && UnderWay::read(&acme).is_none() && certificate(&acme).is_none(),
                "{text}"
            );
            assert!(attempts(&acme).0.may_be_made(0), "{text}");
            assert!(!dir.path().join("account.json").exists(), "it is put aside");
        }
        assert!(attempts(&acme).1, "the last was another directory's");
    }

    #[test]
    fn an_order_is_gone_on_with_by_who_wants_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let mut acme = acme(dir.path());
        let order = UnderWay {
            directory: acme.directory.clone(),
            names: acme.names.clone(),
            url: "https://acme.invalid/order/1".to_owned(),
            key: "PEM".to_owned(),
        };
        order.write(&acme).unwrap();
        assert_eq!(UnderWay::read(&acme).unwrap().url, order.url);
        let only_its_owner =
            std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(UnderWay::path(&acme)).unwrap().permissions());
        assert_eq!(only_its_owner & 0o777, 0o600);
        acme.names.push("b.example".to_owned());
        assert!(UnderWay::read(&acme).is_none());
        acme.names.pop();
        UnderWay::remove(&acme);
        assert!(UnderWay::read(&acme).is_none());
    }

    #[test]
    fn who_could_not_keep_a_certificate_orders_none() {
        let dir = tempfile::tempdir().unwrap();
        let mut acme = acme(dir.path());
        find_room(&acme).unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "nothing is left");
        // a folder in its place, because a test may be root's, who may write everywhere
        std::fs::create_dir(dir.path().join("a.example.room")).unwrap();
        let said = format!("{:#}", find_room(&acme).unwrap_err());
        assert!(said.contains("no certificate is ordered") && said.contains("a.example.room"), "{said}");
        "b.example".clone_into(&mut acme.names[0]);
        find_room(&acme).unwrap();
    }

    #[test]
    fn one_gateway_has_the_lock_of_a_cache() {
        let dir = tempfile::tempdir().unwrap();
        let first = locked(dir.path()).unwrap();
        assert!(first.is_some());
        assert!(locked(dir.path()).unwrap().is_none());
        drop(first);
        assert!(locked(dir.path()).unwrap().is_some());
    }
}
