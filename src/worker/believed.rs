//! Tokens that this worker has verified, remembered until they are over: a signature is looked at once, and then a hash.
//!
//! Only what was believed is remembered, so nobody fills the memory with inventions; it is bounded all the same. When the younger half is
//! full the older one is forgotten, but for what was asked for meanwhile.

use super::shared::Shared;
use crate::config::{Auth, Consumer, FetchedKeys, IdentityText, VerifyKey};
use crate::http::headers::push;
use crate::limits::TOKENS_KEPT_MAX;
use crate::policy::token::{Verified, claim};
use crate::units::{AuthId, ConsumerId};
use rustc_hash::FxHashMap;
use serde_json::{Map, Value};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// Who has shown a token.
#[derive(Debug)]
pub(super) struct Bearer {
    pub(super) name: String,
    /// Of the name.
    pub(super) number: u64,
    /// The consumer of that name, if the configuration has one.
    pub(super) consumer: Option<ConsumerId>,
    /// All that the token says.
    pub(super) claims: Map<String, Value>,
    /// What the endpoint is told, in lines.
    pub(super) lines: Vec<u8>,
    /// Since 1970.
    until: Duration,
}

impl Bearer {
    pub(super) fn new(shared: &Shared, way: &Auth, verified: Verified) -> Self {
        let Verified { name, claims, until } = verified;
        let consumer = shared.identities.by_name(&name);
        let mut lines = Vec::new();
        for (header, text) in &way.headers {
            let header = header.as_str().as_bytes();
            match text {
                IdentityText::Consumer => push(&mut lines, header, name.as_bytes()),
                IdentityText::Groups => {
                    let groups = consumer.map(|id| shared.identities.consumer(id));
                    let groups: Vec<_> =
                        groups.into_iter().flat_map(|it| shared.identities.consumers().groups_of(it)).collect();
                    push(&mut lines, header, groups.join(",").as_bytes());
                }
                IdentityText::Claim(name) => {
                    if let Some(text) = claim(&claims, name).and_then(header_text) {
                        push(&mut lines, header, text.as_bytes());
                    }
                }
            }
        }
        Self { number: Consumer::number_of(&name), name, consumer, claims, lines, until }
    }
}

impl Bearer {
    /// Whom somebody else has recognised, with lines of his for the endpoint; an empty name: nobody in particular.
    pub(super) fn decided(shared: &Shared, way: &Auth, name: String, mut lines: Vec<u8>, until: Duration) -> Self {
        let verified = Verified { name, claims: Map::new(), until };
        let mut bearer = Self::new(shared, way, verified);
        lines.append(&mut bearer.lines);
        Self { lines, ..bearer }
    }
}

/// A claim as a header can say it; what a header cannot say, it does not say in part.
pub(super) fn header_text(value: &Value) -> Option<String> {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        Value::Bool(value) => value.to_string(),
        Value::Null | Value::Array(_) | Value::Object(_) => return None,
    };
    Some(text).filter(|text| text.trim() == text && text.bytes().all(|byte| (b' '..=b'~').contains(&byte)))
}

/// By way and SHA-256.
type Key = (AuthId, [u8; 32]);

/// The memory.
#[derive(Debug, Default)]
pub(super) struct Believed {
    young: FxHashMap<Key, Rc<Bearer>>,
    old: FxHashMap<Key, Rc<Bearer>>,
    /// Keys that were fetched, and which ones they are.
    keys: FxHashMap<AuthId, (u64, Arc<[VerifyKey]>)>,
}

impl Believed {
    /// Who has shown it before, if it is not over at `now` since 1970. Allocates nothing for those that are asked for often.
    pub(super) fn get(&mut self, key: &Key, now: Duration) -> Option<Rc<Bearer>> {
        if let Some(bearer) = self.young.get(key) {
            return Some(Rc::clone(bearer)).filter(|bearer| bearer.until > now);
        }
        let bearer = self.old.remove(key).filter(|bearer| bearer.until > now)?;
        self.put(*key, Rc::clone(&bearer));
        Some(bearer)
    }

    /// The keys of a way that are there now. With others before, nothing is believed any more that was: one may be gone for good reason.
    pub(super) fn keys(&mut self, way: AuthId, fetched: &FetchedKeys) -> Arc<[VerifyKey]> {
        let version = fetched.version();
        if let Some((known, keys)) = self.keys.get(&way)
            && *known == version
        {
            return Arc::clone(keys);
        }
        self.young.retain(|(of, _), _| *of != way);
        self.old.retain(|(of, _), _| *of != way);
        let keys = fetched.keys();
        self.keys.insert(way, (version, Arc::clone(&keys)));
        keys
    }

    /// It was believed.
    pub(super) fn put(&mut self, key: Key, bearer: Rc<Bearer>) {
        if self.young.len() >= TOKENS_KEPT_MAX / 2 {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, bearer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bearer(until: u64) -> Rc<Bearer> {
        let (claims, lines, until) = (Map::new(), Vec::new(), Duration::from_secs(until));
        Rc::new(Bearer { name: "a".to_owned(), number: 1, consumer: None, claims, lines, until })
    }

    #[test]
    fn what_is_over_is_not_believed_and_no_more_is_kept_than_there_is_room_for() {
        let key = |n: usize| {
            let mut hash = [0; 32];
            hash[..8].copy_from_slice(&n.to_le_bytes());
            (AuthId(0), hash)
        };
        let mut believed = Believed::default();
        let at = Duration::from_secs;
        believed.put(key(0), bearer(10));
        assert!(believed.get(&key(0), at(9)).is_some() && believed.get(&key(0), at(10)).is_none());
        assert!(believed.get(&(AuthId(1), key(0).1), at(9)).is_none(), "another way has other keys");
        for n in 1..3 * TOKENS_KEPT_MAX {
            believed.put(key(n), bearer(10));
            assert!(believed.get(&key(0), at(1)).is_some(), "who comes often stays");
            assert!(believed.young.len() + believed.old.len() <= TOKENS_KEPT_MAX);
        }
        assert!(believed.get(&key(1), at(1)).is_none());
    }

    #[test]
    fn a_header_says_a_claim_whole_or_not_at_all() {
        for (value, text) in [
            ("\"a b\"", Some("a b")),
            ("7", Some("7")),
            ("true", Some("true")),
            ("\"a\\r\\nx: y\"", None),
            ("[1]", None),
            ("\"\u{e9}\"", None),
            ("\" a\"", None),
        ] {
            assert_eq!(header_text(&serde_json::from_str(value).unwrap()).as_deref(), text, "{value}");
        }
    }
}
