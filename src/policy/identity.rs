//! The request path's `identify`: from what a request shows to who sends it.
//!
//! A key is looked for by its SHA-256, and the place in the table by that digest's keyed hash, whose secret is the process's own: how long a look takes
//! says nothing about how much of a digest, let alone of a key, is right. The digest that was found there, or another one where none was, is
//! compared as a whole in constant time.
//!
//! A fast hash is the right one here, because keys are long and random; for what people remember it would not be.

use crate::config::{Consumer, Consumers, Digest};
use crate::limits::API_KEY_BYTES_MAX;
use crate::units::ConsumerId;
use aws_lc_rs::{constant_time, digest};
use rustc_hash::{FxBuildHasher, FxHashMap};
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
    secret: RandomState,
}

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
                return Self { consumers: Arc::clone(consumers), rows, keys, names, secret };
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
fn decoded(mut text: &[u8]) -> impl Iterator<Item = u8> {
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
