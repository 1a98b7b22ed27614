//! What proves to an authority that names lead here, and lies in the cache for as long as an order needs it: whichever of the gateways
//! behind one address is asked, it answers.
//!
//! Who orders writes it before the authority is told to come, and waits until the others have looked ([`SEEN_BY_ALL`]). Nothing in it is
//! secret: a proof is worth something only with the account's key. What is left by who was killed is answered with no longer than an order may take.

use super::{ORDER, TICK, cache, proving};
use crate::config::Acme;
use crate::tls::challenges::{Challenges, Open};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// After this every gateway that shares the cache has looked, and answers.
pub(super) const SEEN_BY_ALL: Duration = TICK.saturating_mul(4);

/// What is answered to one challenge.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Proof {
    /// Over HTTP (RFC 8555 §8.3).
    Token { token: String, answer: String },
    /// In a certificate (RFC 8737 §3): SHA-256 of the answer.
    Name { name: String, digest: Vec<u8> },
}

impl Proof {
    /// Answers with it until what is returned is dropped.
    pub(super) fn open(&self, challenges: &Arc<Challenges>) -> anyhow::Result<Open> {
        Ok(match self {
            Self::Token { token, answer } => challenges.answer_with(token.clone(), answer.clone()),
            Self::Name { name, digest } => challenges.show(name, proving(name, digest)?),
        })
    }
}

/// Proofs that the others may read; until this is dropped.
#[derive(Debug)]
pub(super) struct Lent {
    path: PathBuf,
}

impl Lent {
    /// Those of who has ordered before, and may have been killed.
    pub(super) fn left(acme: &Acme) -> Self {
        Self { path: path(acme) }
    }

    pub(super) fn write(acme: &Acme, proofs: &[Proof]) -> anyhow::Result<Self> {
        cache::replace(&path(acme), &serde_json::to_vec(proofs)?)?;
        Ok(Self::left(acme))
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let _somebody_may_have_tidied_up = std::fs::remove_file(&self.path);
    }
}

fn path(acme: &Acme) -> PathBuf {
    acme.cache.join(format!("{}.proofs.json", acme.names[0]))
}

/// What this gateway answers for another one.
#[derive(Debug, Default)]
pub(super) struct Borrowed {
    seen: Option<SystemTime>,
    open: Vec<Open>,
}

impl Borrowed {
    /// Looks at what lies in the cache. What cannot be read is as good as none.
    pub(super) fn look(&mut self, acme: &Acme, challenges: &Arc<Challenges>) {
        // of the future: another one's clock is wrong
        let is_fresh = |written: &SystemTime| written.elapsed().map_or(true, |age| age < ORDER);
        let found = cache::modified(&path(acme)).filter(is_fresh);
        if found == self.seen {
            return;
        }
        self.seen = found;
        self.open.clear();
        let proofs: Vec<Proof> = match found.and_then(|_| std::fs::read(path(acme)).ok()) {
            Some(text) => serde_json::from_slice(&text).unwrap_or_default(),
            None => return,
        };
        // as many as a certificate has names
        let wanted = proofs.iter().take(acme.names.len());
        self.open.extend(wanted.filter_map(|proof| proof.open(challenges).ok()));
        tracing::info!("acme: another gateway orders for {}, and this one answers too", acme.names.join(", "));
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::acme;
    use super::*;
    use std::fs::File;

    #[test]
    fn what_one_gateway_is_asked_another_can_answer_for_as_long_as_an_order_takes() {
        let dir = tempfile::tempdir().unwrap();
        let acme = acme(dir.path());
        let challenges = Arc::new(Challenges::default());
        let mut borrowed = Borrowed::default();
        borrowed.look(&acme, &challenges);
        let answers = || challenges.token("/.well-known/acme-challenge/t");
        let token = |answer: &str| Proof::Token { token: "t".to_owned(), answer: answer.to_owned() };
        let lent = Lent::write(&acme, &[token("one")]).unwrap();
        assert_eq!(answers(), None);
        borrowed.look(&acme, &challenges);
        assert_eq!(answers().as_deref(), Some("one"));
        drop(lent);
        borrowed.look(&acme, &challenges);
        assert_eq!(answers(), None);
        // who was killed tidies up nothing
        std::mem::forget(Lent::write(&acme, &[token("two")]).unwrap());
        borrowed.look(&acme, &challenges);
        assert_eq!(answers().as_deref(), Some("two"));
        let long_ago = cache::modified(&path(&acme)).unwrap() - ORDER;
        File::options().write(true).open(path(&acme)).unwrap().set_modified(long_ago).unwrap();
        borrowed.look(&acme, &challenges);
        assert_eq!(answers(), None);
        // more than there are names, and what is none
        let many: Vec<_> = (0..5).map(|number| token(&number.to_string())).collect();
        std::mem::forget(Lent::write(&acme, &many).unwrap());
        borrowed.look(&acme, &challenges);
        assert_eq!(answers().as_deref(), Some("0"));
        std::fs::write(path(&acme), "[{").unwrap();
        borrowed.look(&acme, &challenges);
        assert_eq!(answers(), None);
    }

    #[test]
    fn a_certificate_that_proves_a_name_is_lent_too() {
        let dir = tempfile::tempdir().unwrap();
        let acme = acme(dir.path());
        let challenges = Arc::new(Challenges::default());
        let proof = Proof::Name { name: "a.example".to_owned(), digest: vec![7; 32] };
        let _lent = Lent::write(&acme, std::slice::from_ref(&proof)).unwrap();
        let mut borrowed = Borrowed::default();
        borrowed.look(&acme, &challenges);
        assert_eq!(borrowed.open.len(), 1);
        assert_eq!(serde_json::from_slice::<Vec<Proof>>(&std::fs::read(path(&acme)).unwrap()).unwrap(), [proof]);
    }
}
