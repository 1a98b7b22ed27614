//! Tickets: what a client brings to go on with the keys of a session before (RFC 8446 §4.6.1, RFC 5077).
//!
//! All of a session's state is in the ticket, sealed with AES-256-GCM, so that nothing is kept here, and any core (and any host that has the
//! same keys) takes it. The keys are made here and exchanged while the gateway runs ([`TicketKeys::rotate`]), or come from a file, of which
//! the first seals and all open.
//!
//! A ticket opens for those only who would have given it: what a listener asks of its clients ([`Judge`]) is sealed in, or a ticket from a listener that asks for nothing would let its bearer into one that asks for a certificate. And it opens only for as long as
//! the certificate of its bearer is good ([`super::judge`]), for which it is looked into.

use super::judge::Judge;
use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::rand;
use rustls::pki_types::CertificateDer;
use rustls::server::ProducesTickets;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;

/// How long a client may come back with a ticket, in seconds: 12 h. What it does within that time could be read by who gets hold of the key.
const LIFETIME: u32 = 12 * 3_600;
/// How often keys are to be exchanged: twice within [`LIFETIME`].
pub const ROTATION: Duration = Duration::from_secs(LIFETIME as u64 / 2);
/// Keys that are kept: with each rotation, the oldest goes.
const KEYS_KEPT: usize = 3;
const NAME_BYTES: usize = 16;
const SECRET_BYTES: usize = 32;
/// A key of a file: its name and its secret, as many random bytes.
pub const KEY_BYTES: usize = NAME_BYTES + SECRET_BYTES;
/// Keys of a file.
pub const FILE_KEYS_MAX: usize = 16;

/// A file is none of keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("is {0} bytes long; must be 48 random bytes for each key, of which there are 1 to 16")]
pub struct NotKeys(pub usize);

struct Key {
    name: [u8; NAME_BYTES],
    secret: RandomizedNonceKey,
}

impl Key {
    fn new(bytes: &[u8; KEY_BYTES]) -> Self {
        let (name, secret) = bytes.split_at(NAME_BYTES);
        Self {
            name: name.try_into().expect("so many"),
            secret: RandomizedNonceKey::new(&AES_256_GCM, secret).expect("so many bytes are a key"),
        }
    }

    fn random() -> Self {
        let mut bytes = [0; KEY_BYTES];
        rand::fill(&mut bytes).expect("the system has random bytes");
        Self::new(&bytes)
    }
}

/// The keys, which all cores share. A lock, because they are exchanged a few times a day; it is taken once a handshake, and no request sees it.
#[expect(clippy::disallowed_types, reason = "read once a handshake, written a few times a day")]
pub struct TicketKeys(std::sync::RwLock<Vec<Arc<Key>>>);

impl fmt::Debug for TicketKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TicketKeys")
    }
}

impl TicketKeys {
    /// A key of one's own, made now.
    #[must_use]
    pub fn random() -> Self {
        Self(vec![Arc::new(Key::random())].into())
    }

    /// The keys of a file.
    ///
    /// # Errors
    /// It holds none.
    pub fn from_file(bytes: &[u8]) -> Result<Self, NotKeys> {
        let (keys, rest) = bytes.as_chunks::<KEY_BYTES>();
        if !rest.is_empty() || !(1..=FILE_KEYS_MAX).contains(&keys.len()) {
            return Err(NotKeys(bytes.len()));
        }
        Ok(Self(keys.iter().map(|key| Arc::new(Key::new(key))).collect::<Vec<_>>().into()))
    }

    /// Seals with a new key from now on; tickets of the oldest are worth nothing any more.
    pub fn rotate(&self) {
        let mut keys = self.0.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        keys.insert(0, Arc::new(Key::random()));
        keys.truncate(KEYS_KEPT);
    }

    fn find(&self, is_meant: impl Fn(&Key) -> bool) -> Option<Arc<Key>> {
        let keys = self.0.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        keys.iter().find(|key| is_meant(key)).cloned()
    }
}

/// The tickets of a listener.
#[derive(Debug)]
pub struct Tickets {
    keys: Arc<TicketKeys>,
    judge: Option<Arc<Judge>>,
}

impl Tickets {
    /// Sealed with these keys, for those who ask the same of their clients.
    #[must_use]
    pub fn new(keys: Arc<TicketKeys>, judge: Option<Arc<Judge>>) -> Self {
        Self { keys, judge }
    }

    fn bound(&self, key: &Key) -> Aad<Vec<u8>> {
        let asked = self.judge.as_ref().map_or(&[][..], |judge| judge.fingerprint.as_bytes());
        Aad::from([&key.name[..], asked].concat())
    }

    /// Whether who brings this state would be let in now. What it looks like is rustls' affair: one that cannot be read is worth nothing, and
    /// its client makes a whole handshake.
    fn is_good(&self, state: &[u8]) -> bool {
        let Some(judge) = &self.judge else { return true };
        chain_in(state).is_some_and(|chain| judge.believes(&chain))
    }
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        LIFETIME
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let key = self.keys.find(|_| true)?;
        let mut sealed = plain.to_vec();
        let nonce = key.secret.seal_in_place_append_tag(self.bound(&key), &mut sealed).ok()?;
        Some([&key.name[..], nonce.as_ref(), &sealed].concat())
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let (name, rest) = ticket.split_first_chunk::<NAME_BYTES>()?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_LEN>()?;
        let key = self.keys.find(|key| key.name == *name)?;
        let mut sealed = sealed.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let plain = key.secret.open_in_place(nonce, self.bound(&key), &mut sealed).ok()?.len();
        sealed.truncate(plain);
        self.is_good(&sealed).then_some(sealed)
    }
}

/// The certificates of the client in the state of a session as rustls 0.23 writes it (`ServerSessionValue`); `None`: it is none. Of TLS'
/// own making are the lengths (RFC 8446 §3.4), and the chain is that of RFC 5246 §7.4.2.
fn chain_in(state: &[u8]) -> Option<Vec<CertificateDer<'_>>> {
    let (&has_name, rest) = state.split_first()?;
    let rest = if has_name == 1 { vector::<1>(rest)?.1 } else { rest };
    let (_version_and_suite, rest) = rest.split_at_checked(4)?;
    let (_secret, rest) = vector::<1>(rest)?;
    let (&[_is_extended, has_chain], rest) = rest.split_first_chunk()?;
    let mut chain = Vec::new();
    if has_chain == 1 {
        let mut left = vector::<3>(rest)?.0;
        while !left.is_empty() {
            let certificate;
            (certificate, left) = vector::<3>(left)?;
            chain.push(CertificateDer::from(certificate));
        }
    }
    Some(chain)
}

/// What stands behind a length of so many bytes, and what follows.
fn vector<const LENGTH: usize>(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<LENGTH>()?;
    rest.split_at_checked(length.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::judge::ClientAuth;
    use crate::tls::testing::{Algorithm, certificate, judge};

    /// A state without a chain.
    const STATE: &[u8] = &[0, 3, 4, 0x13, 1, 2, 7, 7, 1, 0];

    fn tickets(keys: &Arc<TicketKeys>) -> Tickets {
        Tickets::new(Arc::clone(keys), None)
    }

    fn judged(keys: &Arc<TicketKeys>, auth: ClientAuth, of: &str) -> Tickets {
        Tickets::new(Arc::clone(keys), Some(Arc::new(judge(auth, of))))
    }

    #[test]
    fn a_ticket_opens_until_its_key_is_the_oldest() {
        let keys = Arc::new(TicketKeys::random());
        let tickets = tickets(&keys);
        let ticket = tickets.encrypt(b"state").unwrap();
        for _ in 1..KEYS_KEPT {
            assert_eq!(tickets.decrypt(&ticket).unwrap(), b"state");
            keys.rotate();
        }
        assert_eq!(tickets.decrypt(&ticket).unwrap(), b"state");
        assert_ne!(tickets.encrypt(b"state").unwrap()[..NAME_BYTES], ticket[..NAME_BYTES], "another seals");
        keys.rotate();
        assert_eq!(tickets.decrypt(&ticket), None);
    }

    #[test]
    fn only_who_asks_the_same_of_clients_takes_a_ticket() {
        let keys = Arc::new(TicketKeys::random());
        let ticket = tickets(&keys).encrypt(STATE).unwrap();
        assert_eq!(tickets(&Arc::new(TicketKeys::random())).decrypt(&ticket), None);
        let asks = judged(&keys, ClientAuth::Requested, "a");
        assert_eq!(asks.decrypt(&ticket), None);
        let ticket = asks.encrypt(STATE).unwrap();
        assert_eq!(asks.decrypt(&ticket).unwrap(), STATE);
        assert_eq!(
            judged(&keys, ClientAuth::Requested, "b").decrypt(&ticket),
            None,
            "another list of revocations, say"
        );
        assert_eq!(tickets(&keys).decrypt(&ticket), None);
        // whatever made it: one without a certificate opens nothing where one is required
        assert_eq!(judged(&keys, ClientAuth::Required, "a").decrypt(&ticket), None);
    }

    #[test]
    fn a_state_that_is_not_understood_is_worth_nothing_where_clients_are_judged() {
        let keys = Arc::new(TicketKeys::random());
        let asks = judged(&keys, ClientAuth::Requested, "a");
        let name = [&[1, 9][..], b"localhost", &STATE[1..]].concat();
        let ticket = asks.encrypt(&name).unwrap();
        assert_eq!(asks.decrypt(&ticket).unwrap(), name);
        for cut in 0..name.len() {
            let ticket = asks.encrypt(&name[..cut]).unwrap();
            assert_eq!(asks.decrypt(&ticket), None, "{cut}");
        }
        // a chain of somebody else's
        let stranger = certificate(&["localhost"], Algorithm::Ecdsa);
        let stranger = stranger.key.cert[0].to_vec();
        let length = |bytes: usize| u32::try_from(bytes).unwrap().to_be_bytes()[1..].to_vec();
        let chain = [length(stranger.len()), stranger].concat();
        let state = [&STATE[..STATE.len() - 1], &[1], &length(chain.len()), &chain].concat();
        assert_eq!(chain_in(&state).unwrap().len(), 1);
        assert_eq!(asks.decrypt(&asks.encrypt(&state).unwrap()), None);
    }

    #[test]
    fn no_byte_of_a_ticket_may_change() {
        let tickets = tickets(&Arc::new(TicketKeys::random()));
        let ticket = tickets.encrypt(b"state").unwrap();
        for at in 0..ticket.len() {
            let mut forged = ticket.clone();
            forged[at] ^= 1;
            assert_eq!(tickets.decrypt(&forged), None, "{at}");
            assert_eq!(tickets.decrypt(&ticket[..at]), None, "{at}");
        }
    }

    #[test]
    fn of_a_file_the_first_key_seals_and_all_open() {
        let (old, new) = ([1; KEY_BYTES], [2; KEY_BYTES]);
        let of = |bytes: &[u8]| tickets(&Arc::new(TicketKeys::from_file(bytes).unwrap()));
        let ticket = of(&old).encrypt(b"state").unwrap();
        let both = of(&[new, old].concat());
        assert_eq!(both.decrypt(&ticket).unwrap(), b"state");
        assert_eq!(of(&new).decrypt(&both.encrypt(b"more").unwrap()).unwrap(), b"more");
        for length in [0, 1, KEY_BYTES - 1, KEY_BYTES + 1, (FILE_KEYS_MAX + 1) * KEY_BYTES] {
            assert_eq!(TicketKeys::from_file(&vec![0; length]).unwrap_err(), NotKeys(length));
        }
    }
}
