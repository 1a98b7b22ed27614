//! Consumers, ways to be recognised and rules as `/config` shows them: names and counts, and nothing of a key, not even its digest.

use super::configuration::HIDDEN;
use crate::config::{
    Auth, ClaimTest, Config, Consumers, Forward, KeyPlace, Proof, Rule, SignatureRules, Signer, TokenRules,
};
use crate::units::AuthId;
use http::HeaderName;
use serde_json::{Map, Value, json};

/// `[consumer.NAME]` of the configuration itself; of those in `consumers_file` there may be very many.
pub(super) fn consumers(consumers: &Consumers) -> Map<String, Value> {
    let written = consumers.all.iter().take(consumers.written);
    let row = |consumer: &crate::config::Consumer| {
        let keys: Vec<_> = consumer.keys.iter().map(|_| json!({ "sha256": HIDDEN })).collect();
        let basic = consumer.login.as_ref().map(|(user, _)| json!({ "user": **user, "password": HIDDEN }));
        let marks: Vec<_> = (consumer.marks.iter().map(crate::config::Mark::parts))
            .map(|(kind, text)| Map::from_iter([(kind.to_owned(), text.into())]))
            .collect();
        let groups = consumers.groups_of(consumer).collect::<Vec<_>>();
        let signers: Vec<_> = consumer.signers.iter().map(signer).collect();
        json!({ "groups": groups, "keys": keys, "mtls": marks, "basic": basic, "signature": signers })
    };
    written.map(|consumer| (consumer.name.to_string(), row(consumer))).collect()
}

/// A key that requests are signed with; neither a secret nor a public key that stands in the file is shown again.
fn signer(signer: &Signer) -> Value {
    let is_secret = signer.algorithm.of_tokens().is_symmetric();
    let hidden = |is_there: bool| is_there.then_some(HIDDEN);
    json!({
        "keyid": signer.id,
        "algorithm": signer.algorithm.word(),
        "secret": hidden(is_secret),
        "base64": signer.is_base64,
        "file": signer.file.as_ref().map(|path| path.display().to_string()),
        "inline": hidden(!is_secret && signer.file.is_none()),
    })
}

/// `[auth.NAME]`
pub(super) fn all_ways(ways: &[Auth]) -> Map<String, Value> {
    ways.iter().map(|way| (way.name.clone(), self::way(way))).collect()
}

fn way(way: &Auth) -> Value {
    let (mut header, mut scheme, mut query, mut cookie) = (None, None, None, None);
    for place in &way.places {
        match place {
            KeyPlace::Header(..) if way.logins().is_some() || way.signature().is_some() => {} // it follows
            KeyPlace::Header(name, word) => (header, scheme) = (Some(name.as_str()), word.as_deref()),
            KeyPlace::Query(name) => query = Some(name),
            KeyPlace::Cookie(name) => cookie = Some(name),
        }
    }
    let tokens = way.tokens().map(|tokens| &**tokens);
    let basic = way.logins().map(|logins| {
        let file = logins.file.as_ref().map(|path| path.display().to_string());
        json!({ "realm": logins.realm, "htpasswd": file })
    });
    let forward = way.forward().map(|forward| forward_of(forward));
    let headers = way.headers.iter().map(|(name, text)| (name.to_string(), text.to_string().into()));
    json!({
        "header": header,
        "scheme": scheme,
        "query": query,
        "cookie": cookie,
        "key": tokens.filter(|it| it.fetched.is_none()).map(key),
        "jwks": tokens.and_then(|it| it.fetched.as_ref()).filter(|it| it.issuer.is_none()).map(|fetched| &fetched.url.written),
        "discovery": tokens.and_then(|it| it.fetched.as_ref()).is_some_and(|it| it.issuer.is_some()),
        "tls": tokens.and_then(|it| it.fetched.as_ref()?.tls.as_ref()).map(|tls| &tls.shown),
        "basic": basic,
        "mtls": matches!(way.proof, Proof::Certificate),
        "signature": way.signature().map(|rules| signature_of(rules)),
        "forward": forward,
        "algorithms": tokens.map_or_else(Vec::new, |it| it.algorithms.iter().map(|one| one.word()).collect()),
        "issuer": tokens.and_then(|it| it.issuer.as_ref()),
        "audience": tokens.map_or(&[][..], |it| &it.audience),
        "leeway": tokens.map(|it| super::configuration::duration(it.leeway)),
        "types": tokens.map_or(&[][..], |it| &it.types),
        "consumer_claim": tokens.map(|it| &it.consumer_claim),
        "forward_credentials": way.forwards,
        "headers": headers.collect::<Map<String, Value>>(),
    })
}

fn signature_of(rules: &SignatureRules) -> Value {
    json!({
        "components": rules.components,
        "content_digest": rules.content_digest,
        "max_body": crate::config::bytes(rules.body_bytes_max as u64),
        "max_age": super::configuration::duration(rules.age_max),
        "leeway": super::configuration::duration(rules.leeway),
        "nonce": rules.nonce.word(),
        "tag": rules.tag,
    })
}

fn forward_of(forward: &Forward) -> Value {
    let names = |names: &[HeaderName]| names.iter().map(|name| name.as_str().to_owned()).collect::<Vec<_>>();
    json!({
        "upstream": forward.upstream,
        "path": forward.path,
        "send": names(&forward.send),
        "copy": names(&forward.copy),
        "return_headers": names(&forward.return_headers),
        "consumer": forward.consumer.as_ref().map(|name| name.as_str()),
        "timeout": super::configuration::duration(forward.timeout),
        "on_failure": forward.on_failure.word(),
        "cache": super::configuration::duration(forward.cache),
    })
}

/// Where the keys are; public ones that stand in the file, and secrets, are not shown again.
fn key(tokens: &TokenRules) -> Value {
    let (file, is_secret) = &tokens.origin;
    let hidden = |is_there: bool| is_there.then_some(HIDDEN);
    json!({
        "file": file.as_ref().map(|path| path.display().to_string()),
        "inline": hidden(file.is_none() && !is_secret),
        "secret": hidden(*is_secret),
    })
}

fn claims(rule: &Rule) -> Map<String, Value> {
    let test = |test: &ClaimTest| match test {
        ClaimTest::Any(words) => json!(words),
        ClaimTest::All(words) => json!({ "all": words }),
        ClaimTest::Exact(text) => json!({ "exact": text }),
    };
    rule.claims.iter().map(|(name, one)| (name.clone(), test(one))).collect()
}

/// `auth` of a route or listener.
pub(super) fn ways(ways: &[AuthId], config: &Config) -> Vec<String> {
    ways.iter().map(|way| config.auth[way.index()].name.clone()).collect()
}

/// `allow` or `deny`.
pub(super) fn rules(rules: &[Rule]) -> Vec<Value> {
    let row = |rule: &Rule| {
        let listed = rule.networks.iter().flat_map(|networks| &networks.listed);
        let file = rule.networks.as_ref().and_then(|networks| networks.file.as_ref());
        json!({
            "consumer": rule.consumers,
            "group": rule.groups,
            "claim": claims(rule),
            "client_ip": listed.map(ToString::to_string).collect::<Vec<_>>(),
            "client_ip_file": file.map(|file| file.path.display().to_string()),
            "method": rule.methods.iter().map(|method| method.as_str()).collect::<Vec<_>>(),
            "dry_run": rule.dry_run,
        })
    };
    rules.iter().map(row).collect()
}
