//! The request path's `identify`: from what a request shows to who sends it.
//!
//! A key is looked for by its SHA-256, and the place in the table by that digest's keyed hash, whose secret is the process's own: how long a look takes
//! says nothing about how much of a digest, let alone of a key, is right. The digest that was found there, or another one where none was, is
//! compared as a whole in constant time.
//!
//! A certificate is looked for by what has been told of it once it was believed: its key, then its alternative names, then its subject. Nothing of
//! these is secret, so nothing here takes care of time.
//!
//! A fast hash is the right one here, because keys are long and random; for what people remember it would not be.

use crate::config::{Consumer, Consumers, Digest, Mark, Signer};
use crate::limits::API_KEY_BYTES_MAX;
use crate::units::ConsumerId;
use aws_lc_rs::{constant_time, digest};
use rustc_hash::{FxBuildHasher, FxHashMap};
use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::Arc;

/// Everybody who can be recognised, ready to be looked for. Shared by the workers (`Send + Sync`).
#[derive(Debug)]
pub struct Identities {
    consumers: Arc<Consumers>,
    /// By the keyed hash of a digest, its row.
    rows: FxHashMap<u64, u32>,
    keys: Vec<(Digest, ConsumerId)>,
    /// By the keyed hash of a name.
    names: FxHashMap<u64, ConsumerId>,
    marks: Marks,
    /// By the names of keys that requests are signed with: whose, and which of his.
    signers: HashMap<Box<str>, (ConsumerId, u32)>,
    secret: RandomState,
}

/// Whose a certificate is, by what it says.
#[derive(Debug, Default)]
struct Marks {
    keys: HashMap<Box<str>, ConsumerId>,
    names: HashMap<Box<str>, ConsumerId>,
    subjects: HashMap<Box<str>, ConsumerId>,
}

/// What is known of a certificate that was believed, as [`crate::tls::identity::Identity`] writes it.
#[derive(Clone, Copy, Debug)]
pub struct Certificate<'c> {
    /// SHA-256 of its public key, in hexadecimal.
    pub key: &'c str,
    /// Its alternative names with their kinds, commas between them.
    pub names: &'c str,
    /// Its subject.
    pub subject: &'c str,
}

/// A host's name in a certificate (RFC 1035 §2.3.4), with its kind.
const DNS_BYTES_MAX: usize = 4 + 255;

/// What is compared with where there is nothing to compare with.
const NOBODYS: Digest = Digest([0; 32]);

impl Identities {
    /// These consumers. `secret` draws secrets until one fits all keys, which is nearly always the first; none of them is known outside.
    #[must_use]
    pub fn new(consumers: &Arc<Consumers>, secret: impl Fn() -> RandomState) -> Self {
        let ids = (0..consumers.all.len()).map(ConsumerId::from_index);
        let of = |(id, consumer): (ConsumerId, &Consumer)| -> Vec<_> {
            consumer.keys.iter().map(|key| (*key, id)).collect()
        };
        let keys: Vec<(Digest, ConsumerId)> = ids.zip(&consumers.all).flat_map(of).collect();
        loop {
            let secret = secret();
            let mut rows = FxHashMap::with_capacity_and_hasher(keys.len(), FxBuildHasher);
            for (row, (key, _)) in (0..).zip(&keys) {
                rows.insert(secret.hash_one(key.0), row);
            }
            let named = |(id, consumer): (ConsumerId, &Consumer)| (secret.hash_one(&*consumer.name), id);
            let ids = (0..consumers.all.len()).map(ConsumerId::from_index);
            let names: FxHashMap<_, _> = ids.zip(&consumers.all).map(named).collect();
            // keys and names are told apart by the configuration, and hashes should be
            if rows.len() == keys.len() && names.len() == consumers.all.len() {
                let (marks, signers) = (Marks::new(consumers), signers(consumers));
                return Self { consumers: Arc::clone(consumers), rows, keys, names, marks, signers, secret };
            }
        }
    }

    /// Who has this key. Allocates nothing.
    #[must_use]
    pub fn by_key(&self, shown: &[u8]) -> Option<ConsumerId> {
        if shown.is_empty() || shown.len() > API_KEY_BYTES_MAX {
            return None;
        }
        let mut digest = [0; 32];
        digest.copy_from_slice(digest::digest(&digest::SHA256, shown).as_ref());
        let found = self.rows.get(&self.secret.hash_one(digest)).map(|row| &self.keys[*row as usize]);
        let (expected, owner) = found.map_or((&NOBODYS, None), |(key, owner)| (key, Some(*owner)));
        let is_equal = constant_time::verify_slices_are_equal(&expected.0, &digest).is_ok();
        owner.filter(|_| is_equal)
    }

    /// Whose this certificate is. Names that are of two consumers name nobody. Allocates nothing.
    #[must_use]
    pub fn by_certificate(&self, shown: &Certificate<'_>) -> Option<ConsumerId> {
        if let Some(id) = self.marks.keys.get(shown.key) {
            return Some(*id);
        }
        let mut named = shown.names.split(',').filter_map(|name| self.marks.by_name(name));
        match named.next() {
            Some(first) => named.all(|other| other == first).then_some(first),
            None => self.marks.subjects.get(shown.subject).copied(),
        }
    }

    /// The key of this name that requests are signed with, and whose it is. The name is no secret.
    #[must_use]
    pub fn signer(&self, keyid: &str) -> Option<(&Signer, ConsumerId)> {
        let (id, row) = *self.signers.get(keyid)?;
        Some((self.consumer(id).signers.get(row as usize)?, id))
    }

    /// Who is called so.
    #[must_use]
    pub fn by_name(&self, name: &str) -> Option<ConsumerId> {
        let row = self.names.get(&self.secret.hash_one(name))?;
        Some(*row).filter(|id| &*self.consumer(*id).name == name)
    }

    /// A consumer.
    #[must_use]
    pub fn consumer(&self, id: ConsumerId) -> &Consumer {
        &self.consumers.all[id.index()]
    }

    /// All of them.
    #[must_use]
    pub fn consumers(&self) -> &Consumers {
        &self.consumers
    }
}

fn signers(consumers: &Consumers) -> HashMap<Box<str>, (ConsumerId, u32)> {
    let of = |(row, consumer): (usize, &Consumer)| -> Vec<_> {
        let keys = (0..).zip(&*consumer.signers);
        keys.map(|(key, signer)| (signer.id.clone(), (ConsumerId::from_index(row), key))).collect()
    };
    consumers.all.iter().enumerate().flat_map(of).collect()
}

impl Marks {
    fn new(consumers: &Consumers) -> Self {
        let mut all = Self::default();
        for (row, consumer) in consumers.all.iter().enumerate() {
            for mark in &consumer.marks {
                let (of, text) = match mark {
                    Mark::Key(text) => (&mut all.keys, text),
                    Mark::Name(text) => (&mut all.names, text),
                    Mark::Subject(text) => (&mut all.subjects, text),
                };
                of.insert(text.clone(), ConsumerId::from_index(row));
            }
        }
        all
    }

    /// A name of a host in any case.
    fn by_name(&self, name: &str) -> Option<ConsumerId> {
        let mut room = [0; DNS_BYTES_MAX];
        let name = match name.strip_prefix("DNS:") {
            Some(host) if host.bytes().any(|byte| byte.is_ascii_uppercase()) => {
                let room = room.get_mut(..name.len())?;
                room.copy_from_slice(name.as_bytes());
                room[name.len() - host.len()..].make_ascii_lowercase();
                str::from_utf8(room).ok()?
            }
            _ => name,
        };
        self.names.get(name).copied()
    }
}

/// What stands in a header's value behind `scheme` and a space (RFC 9110 §11.4), the scheme in any case; the whole value without a scheme.
#[must_use]
pub fn behind_scheme<'v>(value: &'v [u8], scheme: Option<&str>) -> Option<&'v [u8]> {
    let Some(scheme) = scheme else { return Some(value) };
    let (word, rest) = value.split_at_checked(scheme.len())?;
    let rest = rest.strip_prefix(b" ").filter(|_| word.eq_ignore_ascii_case(scheme.as_bytes()))?;
    Some(rest.trim_ascii_start())
}

/// A query parameter's value after decoding, in `room`: `+` is a space, as forms write it. `None`: the query has none of this name, or it is
/// larger than a key, or there twice, which the endpoint might read in another way.
#[must_use]
pub fn of_query<'r>(query: &str, name: &str, room: &'r mut [u8; API_KEY_BYTES_MAX]) -> Option<&'r [u8]> {
    let mut values = query.split('&').filter_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        is_named(key, name).then_some(value)
    });
    let value = values.next()?;
    if values.next().is_some() {
        return None;
    }
    let mut len = 0;
    for byte in decoded(value.as_bytes()) {
        *room.get_mut(len)? = byte;
        len += 1;
    }
    Some(&room[..len])
}

/// Whether a parameter's name, as it stands in a query, means this one.
#[must_use]
pub fn is_named(written: &str, name: &str) -> bool {
    decoded(written.as_bytes()).eq(name.bytes())
}

/// `%41` is `A` and `+` a space; a `%` without two digits is itself.
pub(super) fn decoded(mut text: &[u8]) -> impl Iterator<Item = u8> {
    std::iter::from_fn(move || {
        let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
        let (byte, rest) = match text {
            [] => return None,
            [b'%', high, low, rest @ ..] => match digit(*high).zip(digit(*low)) {
                Some((high, low)) => (high << 4 | low, rest),
                None => (b'%', &text[1..]),
            },
            [b'+', rest @ ..] => (b' ', rest),
            [byte, rest @ ..] => (*byte, rest),
        };
        text = rest;
        Some(byte)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    /// SHA-256 of "alpha-key-0001" and "beta-key-0001".
    fn identities() -> (Identities, [String; 2]) {
        let hex = |key: &str| -> String {
            digest::digest(&digest::SHA256, key.as_bytes()).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
        };
        let keys = [hex("alpha-key-0001"), hex("beta-key-0001")];
        let text = format!(
            "[[listener]]\nlisten = \"127.0.0.1:0\"\n[[route]]\nrespond = {{}}\n\
             [consumer.alpha]\nkeys = [{{ sha256 = \"{}\" }}]\n[consumer.beta]\nkeys = [{{ sha256 = \"{}\" }}]\n[consumer.none]\n",
            keys[0], keys[1]
        );
        let config = config::check::parse_for(&text, "f", &[0]).unwrap_or_else(|errors| panic!("{errors}"));
        (Identities::new(&config.consumers, RandomState::new), keys)
    }

    #[test]
    fn a_key_is_its_consumers_and_nothing_near_it_is() {
        let (identities, _) = identities();
        assert_eq!(identities.by_key(b"alpha-key-0001"), Some(ConsumerId(0)));
        assert_eq!(identities.by_key(b"beta-key-0001"), Some(ConsumerId(1)));
        for shown in
            [&b""[..], b"alpha-key-000", b"alpha-key-00011", b"Alpha-key-0001", b"alpha-key-0001 ", &[b'a'; 4096]]
        {
            assert_eq!(identities.by_key(shown), None);
        }
        assert_eq!(&*identities.consumer(ConsumerId(1)).name, "beta");
        assert_eq!((identities.by_name("none"), identities.by_name("nobody")), (Some(ConsumerId(2)), None));
    }

    #[test]
    fn the_digest_is_no_key_and_is_shown_nowhere() {
        let (identities, keys) = identities();
        assert_eq!(identities.by_key(keys[0].as_bytes()), None);
        let shown = format!("{:?} {:?}", identities.consumers, identities.keys);
        assert!(!shown.contains(&keys[0][..8]) && !shown.contains("alpha-key"), "{shown}");
    }

    #[test]
    fn a_certificate_is_whose_key_name_or_subject_it_has_in_this_order() {
        let key = "ab".repeat(32);
        let text = format!(
            "[[listener]]\nlisten = \"127.0.0.1:0\"\n[[route]]\nrespond = {{}}\n\
             [consumer.key]\nmtls = {{ spki = \"{}\" }}\n[consumer.subject]\nmtls = {{ subject = \"CN=a,O=b\" }}\n\
             [consumer.names]\nmtls = [{{ san = \"DNS:A.example\" }}, {{ san = \"URI:spiffe://a/b\" }}]\n\
             [consumer.other]\nmtls = {{ san = \"email:a@b.example\" }}\n",
            key.to_uppercase()
        );
        let config = config::check::parse_for(&text, "f", &[0]).unwrap_or_else(|errors| panic!("{errors}"));
        let identities = Identities::new(&config.consumers, RandomState::new);
        let of = |key: &str, names: &str, subject: &str| {
            let found = identities.by_certificate(&Certificate { key, names, subject });
            found.map(|id| identities.consumer(id).name.to_string())
        };
        let long = format!("DNS:{}", "A".repeat(4_000));
        for (certificate, expected) in [
            ((&*key, "DNS:a.example", "CN=a,O=b"), Some("key")),
            (("", "DNS:a.example", "CN=a,O=b"), Some("names")),
            (("", "DNS:x,DNS:a.EXAMPLE,URI:spiffe://a/b", ""), Some("names")),
            (("", "DNS:x", "CN=a,O=b"), Some("subject")),
            (("", "", "CN=a,O=b"), Some("subject")),
            (("", "DNS:a.example,email:a@b.example", "CN=a,O=b"), None),
            (("", "email:a.example", ""), None),
            (("", "URI:spiffe://A/b,DNS:b.a.example,DNS:*.example", "CN=A,O=b"), None),
            (("", &long, ""), None),
            (("", "", ""), None),
        ] {
            let (key, names, subject) = certificate;
            assert_eq!(of(key, names, subject).as_deref(), expected, "{certificate:?}");
        }
    }

    #[test]
    fn a_scheme_stands_before_a_key_in_any_case() {
        for (value, scheme, expected) in [
            ("abc", None, Some("abc")),
            ("Bearer abc", Some("Bearer"), Some("abc")),
            ("bEARER   abc", Some("Bearer"), Some("abc")),
            ("Bearerabc", Some("Bearer"), None),
            ("Basic abc", Some("Bearer"), None),
            ("Bearer", Some("Bearer"), None),
            ("", Some("Bearer"), None),
        ] {
            assert_eq!(behind_scheme(value.as_bytes(), scheme), expected.map(str::as_bytes), "{value}");
        }
    }

    #[test]
    fn a_key_in_a_query_is_decoded_bounded_and_there_once() {
        let mut room = [0; API_KEY_BYTES_MAX];
        for (query, expected) in [
            ("key=abc", Some("abc")),
            ("a=b&key=a%2Bb+c%", Some("a+b c%")),
            ("k%65y=abc", Some("abc")),
            ("key=", Some("")),
            ("key", Some("")),
            ("xkey=1&keyx=2", None),
            ("key=1&key=1", None),
        ] {
            assert_eq!(of_query(query, "key", &mut room), expected.map(str::as_bytes), "{query}");
        }
        assert_eq!(of_query(&format!("key={}", "a".repeat(API_KEY_BYTES_MAX + 1)), "key", &mut room), None);
    }
}
