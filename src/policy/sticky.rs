//! Cookies that name an endpoint: what a session brings so that it meets the one that it has met before.
//!
//! The value is 24 bytes in base64url. The first half names the endpoint: an HMAC of its cluster and its address (RFC 2104), from which nobody who has not
//! the key learns either. The second half is an HMAC of the first: it says that the gateway has made it, also when no endpoint has that name any more. So
//! there are three kinds of values: one that names an endpoint of now, one of ours that names none (it is *stale*), and one that is not ours.
//!
//! All sessions of an endpoint have the same value. It says where a request goes and nothing about who sends it, so it is worth nothing to who copies it.

use crate::config;
use crate::units::EndpointId;
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustc_hash::FxHashMap;

/// Bytes of a value.
pub const VALUE_BYTES: usize = 32;
const HALF_BYTES: usize = 12;

type Word = [u8; VALUE_BYTES];

/// The values of one cluster's endpoints.
#[derive(Debug)]
pub struct Sessions {
    key: hmac::Key,
    /// By endpoint.
    words: Box<[Word]>,
    rows: FxHashMap<Word, EndpointId>,
}

/// What a cookie's value means here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// This endpoint.
    Endpoint(EndpointId),
    /// The gateway has made it, for an endpoint that is not there (any more, or in another cluster).
    Stale,
    /// It is not the gateway's.
    Foreign,
}

impl Sessions {
    /// Those of `cluster` as it is now, made with this key.
    #[must_use]
    pub fn new(key: &[u8; 32], cluster: &config::Cluster) -> Self {
        let key = hmac::Key::new(hmac::HMAC_SHA256, key);
        let identities = cluster.endpoints.iter().map(config::Endpoint::identity);
        let words: Box<[Word]> = identities.map(|identity| word(&key, &cluster.name, &identity)).collect();
        let mut rows = FxHashMap::default();
        for (row, word) in words.iter().enumerate() {
            rows.entry(*word).or_insert(EndpointId::from_index(row));
        }
        Self { key, words, rows }
    }

    /// What a session is told that has met this endpoint; visible ASCII.
    #[must_use]
    pub fn value(&self, endpoint: EndpointId) -> &[u8] {
        &self.words[endpoint.index()]
    }

    /// What a value means. One that names an endpoint costs a look into a table, any other one of the right length an HMAC.
    #[must_use]
    pub fn meaning(&self, value: &[u8]) -> Meaning {
        let Ok(word) = Word::try_from(value) else { return Meaning::Foreign };
        if let Some(endpoint) = self.rows.get(&word) {
            return Meaning::Endpoint(*endpoint);
        }
        let mut room = [0; 2 * HALF_BYTES];
        let Ok(bytes) = URL_SAFE_NO_PAD.decode_slice(word, &mut room) else { return Meaning::Foreign };
        let (name, seal) = room[..bytes].split_at(HALF_BYTES.min(bytes));
        match verify_slices_are_equal(seal, &half(&self.key, &[b"seal\0", name])) {
            Ok(()) => Meaning::Stale,
            Err(_) => Meaning::Foreign,
        }
    }
}

fn word(key: &hmac::Key, cluster: &str, identity: &str) -> Word {
    let name = half(key, &[b"name\0", cluster.as_bytes(), b"\0", identity.as_bytes()]);
    let mut bytes = [0; 2 * HALF_BYTES];
    bytes[..HALF_BYTES].copy_from_slice(&name);
    bytes[HALF_BYTES..].copy_from_slice(&half(key, &[b"seal\0", &name]));
    let mut word = [0; VALUE_BYTES];
    URL_SAFE_NO_PAD.encode_slice(bytes, &mut word).expect("four characters for three bytes");
    word
}

fn half(key: &hmac::Key, parts: &[&[u8]]) -> [u8; HALF_BYTES] {
    let mut context = hmac::Context::with_key(key);
    parts.iter().for_each(|part| context.update(part));
    let mut half = [0; HALF_BYTES];
    half.copy_from_slice(&context.sign().as_ref()[..HALF_BYTES]);
    half
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Balance;
    use crate::policy::testing::cluster;

    fn text(value: &[u8]) -> String {
        String::from_utf8(value.to_vec()).unwrap()
    }

    #[test]
    fn a_value_names_its_endpoint_whatever_row_that_has() {
        let mut config = cluster(Balance::RoundRobin, &[0, 0, 0]);
        let before = Sessions::new(&[7; 32], &config);
        let values = [0, 1, 2].map(|row| before.value(EndpointId(row)).to_vec());
        assert!(values[0] != values[1] && values[1] != values[2]);
        for (row, value) in values.iter().enumerate() {
            assert_eq!(before.meaning(value), Meaning::Endpoint(EndpointId::from_index(row)));
            assert!(value.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(byte)), "{}", text(value));
            let address = config.endpoints[row].address.to_string();
            assert!(!text(value).contains(&address));
        }
        config.endpoints.remove(0);
        let after = Sessions::new(&[7; 32], &config);
        assert_eq!(after.meaning(&values[0]), Meaning::Stale);
        assert_eq!(after.meaning(&values[1]), Meaning::Endpoint(EndpointId(0)));
        assert_eq!(after.meaning(&values[2]), Meaning::Endpoint(EndpointId(1)));
        config.name = "other".to_owned();
        assert_eq!(Sessions::new(&[7; 32], &config).meaning(&values[1]), Meaning::Stale, "of another cluster");
    }

    #[test]
    fn what_was_not_made_with_the_key_is_foreign() {
        let config = cluster(Balance::RoundRobin, &[0, 0]);
        let (ours, theirs) = (Sessions::new(&[1; 32], &config), Sessions::new(&[2; 32], &config));
        assert_eq!(ours.meaning(theirs.value(EndpointId(0))), Meaning::Foreign);
        let value = ours.value(EndpointId(1)).to_vec();
        for at in 0..VALUE_BYTES {
            for other in [b'A', b'_', b'=', b' ', 0xFF] {
                let mut forged = value.clone();
                forged[at] = other;
                if forged != value {
                    assert_eq!(ours.meaning(&forged), Meaning::Foreign, "{at}");
                }
            }
        }
        for odd in [&b""[..], b"x", &value[1..], &[value.as_slice(), b"A"].concat(), &[b'='; 32], &[0; 32]] {
            assert_eq!(ours.meaning(odd), Meaning::Foreign);
        }
    }
}
