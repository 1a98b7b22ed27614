//! Keys of tokens and the rules about them, from the tables of the file.

use super::check::value;
use super::check_consumers::text_of;
use super::encryption::client_side;
use super::fetched::{FetchedKeys, JwksUrl};
use super::identity::{TokenRules, fingerprint};
use super::identity_keys::{self, TokenKey};
use super::paths::QueryText;
use super::problem::Sink;
use super::read::Written;
use super::token_keys::{self, Algorithm, VerifyKey};
use crate::limits::TOKEN_KEYS_FILE_BYTES_MAX;
use std::sync::Arc;

/// `key`: those that stand in the file, or in one that it names; `None`: they are fetched.
pub(super) fn tokens(
    table: &identity_keys::Auth,
    key: Option<&Written<TokenKey>>,
    sink: &mut Sink<'_>,
) -> Option<TokenRules> {
    let algorithms: Vec<_> = table.algorithms.as_ref()?.value.0.iter().map(|word| word.value.0).collect();
    let mut tell = |message: &str| sink.place(table.at.key("algorithms"), table.at.offset, message.to_owned(), None);
    if algorithms.is_empty() {
        tell("missing: how tokens are signed, such as [\"ES256\"]");
        return None;
    }
    let is_symmetric = algorithms[0].is_symmetric();
    if algorithms.iter().any(|algorithm| algorithm.is_symmetric() != is_symmetric) {
        tell("HS* and others do not go together: a public key must never be taken for a secret (RFC 8725 §3.1)");
        return None;
    }
    if key.is_none() && is_symmetric {
        tell("a secret is not fetched: HS* needs key = { secret = … }");
        return None;
    }
    let fetched = match (&table.jwks, value(&table.discovery)) {
        (Some(url), _) => Some(Arc::new(fetched(table, (url.value.clone(), None), sink)?)),
        (None, Some(true)) => Some(Arc::new(discovered(table, sink)?)),
        (None, _) => None,
    };
    let (keys, fingerprint) = match key {
        Some(key) => self::keys(key, &algorithms, sink)?,
        None => (Vec::new(), String::new()),
    };
    let texts = |list: &[Written<QueryText>]| list.iter().map(|text| text.value.0.clone()).collect();
    let file = key.and_then(|key| value(&key.value.file)).map(|path| path.0);
    Some(TokenRules {
        keys: keys.into(),
        fetched,
        algorithms,
        issuer: value(&table.issuer).map(|text| text.0),
        audience: texts(&table.audience.as_ref()?.value.0),
        leeway: value(&table.leeway)?.0,
        types: texts(&table.types.as_ref()?.value.0),
        consumer_claim: value(&table.consumer_claim)?.0,
        origin: (file, is_symmetric && key.is_some_and(|key| key.value.secret.is_some())),
        fingerprint,
    })
}

/// Keys that are fetched, and what TLS is spoken for that: as with endpoints, where the file does not say.
fn fetched(
    table: &identity_keys::Auth,
    (url, issuer): (JwksUrl, Option<String>),
    sink: &mut Sink<'_>,
) -> Option<FetchedKeys> {
    let tls = table.tls.as_ref()?;
    if tls.given && !url.is_tls {
        let asked = if issuer.is_some() { "the issuer" } else { "jwks" };
        sink.place(table.at.key("tls"), tls.span.start, format!("has no effect: {asked} is http://"), None);
    }
    let tls = match url.is_tls {
        true => Some(client_side(&tls.value, sink)?),
        false => None,
    };
    Some(FetchedKeys::new(url, issuer, tls))
}

/// The keys of the issuer.
fn discovered(table: &identity_keys::Auth, sink: &mut Sink<'_>) -> Option<FetchedKeys> {
    let Some(issuer) = &table.issuer else {
        let message = "missing: the issuer that is looked up, such as \"https://issuer.example\"".to_owned();
        sink.place(table.at.key("issuer"), table.at.offset, message, None);
        return None;
    };
    let url = JwksUrl::of_issuer(&issuer.value.0);
    let url = url.map_err(|why| sink.value(table.at.key("issuer"), issuer.span.clone(), why, None)).ok()?;
    fetched(table, (url, Some(issuer.value.0.clone())), sink)
}

/// The keys of `key`, and their fingerprint.
fn keys(key: &Written<TokenKey>, algorithms: &[Algorithm], sink: &mut Sink<'_>) -> Option<(Vec<VerifyKey>, String)> {
    let place = key.value.at.key("file");
    let (file, inline, secret) = (&key.value.file, &key.value.inline, &key.value.secret);
    let given = usize::from(file.is_some()) + usize::from(inline.is_some()) + usize::from(secret.is_some());
    if given != 1 {
        sink.place(place, key.span.start, "must be exactly one of file, inline, secret".to_owned(), None);
        return None;
    }
    let read = match (file, inline, secret) {
        (Some(path), ..) => text_of(&path.value.0, TOKEN_KEYS_FILE_BYTES_MAX, sink)
            .and_then(|text| Ok((token_keys::keys(&text, algorithms)?, fingerprint(text.as_bytes())))),
        (_, Some(text), _) => {
            token_keys::keys(&text.value.0, algorithms).map(|keys| (keys, fingerprint(text.value.0.as_bytes())))
        }
        (_, _, Some(_)) if !algorithms[0].is_symmetric() => {
            Err("a secret is for HS256, HS384 and HS512; the others need a public key".to_owned())
        }
        (_, _, Some(secret)) => VerifyKey::secret(secret.value.0.as_bytes(), algorithms)
            .map(|key| (vec![key], fingerprint(secret.value.0.as_bytes()))),
        _ => return None,
    };
    // never the text itself: it may be the key that should not be there
    read.map_err(|why| sink.place(place, key.span.start, why, None)).ok()
}
