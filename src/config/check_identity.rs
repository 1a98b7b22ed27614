//! Ways to be recognised and rules of the file: what their keys must agree on.

use super::check::value;
use super::check_consumers::{Gathered, text_of};
use super::check_limits::SharedLimits;
use super::check_tokens::tokens;
use super::file;
use super::identity::{Access, Auth, KeyPlace, NetworkFile, Networks, Proof, Rule, fingerprint};
use super::identity_keys::{self, Basic, IdentityText, Rules};
use super::names::{FilePath, Name};
use super::place::{KeyOf, Place};
use super::problem::{Sink, listed};
use super::read::{List, Map, Written};
use super::{Listener, Route};
use crate::limits::{NETWORKS_FILE_BYTES_MAX, NETWORKS_MAX};
use crate::units::AuthId;
use http::HeaderName;
use ipnet::IpNet;
use rustc_hash::{FxHashMap, FxHashSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

/// Ways to be recognised, in file order.
pub(super) fn auth(
    file: &file::File,
    (gathered, upstreams): (&mut Gathered, &[&str]),
    sink: &mut Sink<'_>,
) -> Option<Vec<Auth>> {
    let map = file.auth.as_ref()?;
    let mut of = |(name, written): &(Written<Name>, Written<identity_keys::Auth>)| match &written.value.forward {
        None if written.value.signature.is_some() => signature_way(&name.value.0, &written.value, sink),
        Some(forward) => forward_way(&name.value.0, (&written.value, forward), upstreams, sink),
        None if value(&written.value.mtls) == Some(true) => certificate_way(&name.value.0, &written.value, sink),
        None => way(&name.value.0, &written.value, gathered, sink),
    };
    let ways: Vec<_> = map.value.0.iter().filter_map(&mut of).collect();
    (ways.len() == map.value.0.len()).then_some(ways)
}

fn way(name: &str, table: &identity_keys::Auth, gathered: &mut Gathered, sink: &mut Sink<'_>) -> Option<Auth> {
    if let Some(basic) = &table.basic {
        return basic_way(name, (table, basic), gathered, sink);
    }
    let scheme = value(&table.scheme).map(|scheme| scheme.0);
    if let (Some(scheme), None) = (&table.scheme, &table.header) {
        let message = "has no effect: it stands before a key in a header, and there is no header".to_owned();
        sink.value(table.at.key("scheme"), scheme.span.clone(), message, None);
    }
    let header = value(&table.header).map(|header| KeyPlace::Header(header.0, scheme));
    let query = value(&table.query).map(|query| KeyPlace::Query(query.0));
    let cookie = value(&table.cookie).map(|cookie| KeyPlace::Cookie(cookie.0));
    let mut places: Vec<_> = header.into_iter().chain(query).chain(cookie).collect();
    let is_looked_up = value(&table.discovery) == Some(true);
    if let Some(discovery) =
        table.discovery.as_ref().filter(|it| it.value && (table.key.is_some() || table.jwks.is_some()))
    {
        let message = "must be the only one of key, jwks and discovery".to_owned();
        sink.place(table.at.key("discovery"), discovery.span.start, message, None);
        return None;
    }
    let proof = match (&table.key, &table.jwks) {
        (None, None) if is_looked_up => Proof::Token(Arc::new(tokens(table, None, sink)?)),
        (Some(key), None) => Proof::Token(Arc::new(tokens(table, Some(key), sink)?)),
        (None, Some(_)) => Proof::Token(Arc::new(tokens(table, None, sink)?)),
        (Some(key), Some(_)) => {
            let message = "jwks stands there too; must be one of the two".to_owned();
            sink.place(table.at.key("key"), key.span.start, message, None);
            return None;
        }
        (None, None) => {
            only_tokens(table, sink);
            Proof::Key
        }
    };
    let is_token = matches!(proof, Proof::Token(_));
    if let (true, Some(query)) = (is_token, &table.query) {
        let message = "tokens are not taken from URLs, which are kept in many places (RFC 6750 §5.3)".to_owned();
        sink.value(table.at.key("query"), query.span.clone(), message, None);
    }
    if is_token && places.is_empty() {
        places.push(KeyPlace::Header(http::header::AUTHORIZATION, Some("Bearer".to_owned())));
    }
    let reported = ["header", "query", "cookie"].iter().any(|key| sink.reported(table.at.key(key)));
    if places.is_empty() && !reported {
        let message =
            "missing: at least one of header, query, cookie, where an API key stands, or key, jwks or discovery, for tokens, or basic, or mtls, or signature, or forward"
                .to_owned();
        sink.place(table.at.key("header"), table.at.offset, message, None);
    }
    let headers: Vec<_> = headers(&table.at, table.headers.as_ref()?, is_token, sink);
    Some(Auth { name: name.to_owned(), places, proof, forwards: value(&table.forward_credentials)?, headers })
}

/// Passwords, which stand in one place only (RFC 7617 §2).
fn basic_way(
    name: &str,
    (table, basic): (&identity_keys::Auth, &Written<Basic>),
    gathered: &mut Gathered,
    sink: &mut Sink<'_>,
) -> Option<Auth> {
    only_one(table, "basic", "which is behind \"Authorization: Basic\"", sink);
    only_tokens(table, sink);
    let logins = gathered.logins(name, &basic.value, sink)?;
    let headers = headers(&table.at, table.headers.as_ref()?, false, sink);
    Some(Auth {
        name: name.to_owned(),
        places: vec![KeyPlace::Header(http::header::AUTHORIZATION, Some("Basic".to_owned()))],
        proof: Proof::Password(Arc::new(logins)),
        forwards: value(&table.forward_credentials)?,
        headers,
    })
}

/// Certificates, which stand in no place of a request.
fn certificate_way(name: &str, table: &identity_keys::Auth, sink: &mut Sink<'_>) -> Option<Auth> {
    only_one(table, "mtls", "and certificates stand in no request", sink);
    if let Some(basic) = &table.basic {
        let message = "mtls stands there too; must be one of the two".to_owned();
        sink.place(table.at.key("basic"), basic.span.start, message, None);
    }
    only_tokens(table, sink);
    let headers = headers(&table.at, table.headers.as_ref()?, false, sink);
    let forwards = value(&table.forward_credentials)?;
    if let Some(key) = table.forward_credentials.as_ref().filter(|key| key.given) {
        let message = "has no effect: client_auth.forward tells endpoints of the certificate".to_owned();
        sink.value(table.at.key("forward_credentials"), key.span.clone(), message, None);
    }
    Some(Auth { name: name.to_owned(), places: Vec::new(), proof: Proof::Certificate, forwards, headers })
}

/// Signatures, which stand in two headers of their own.
fn signature_way(name: &str, table: &identity_keys::Auth, sink: &mut Sink<'_>) -> Option<Auth> {
    only_one(table, "signature", "which is in Signature-Input and Signature", sink);
    beside(table, "signature", sink);
    only_tokens(table, sink);
    let rules = super::signatures::rules(&table.signature.as_ref()?.value, sink)?;
    let headers = headers(&table.at, table.headers.as_ref()?, false, sink);
    let place = |name| KeyPlace::Header(HeaderName::from_static(name), None);
    Some(Auth {
        name: name.to_owned(),
        places: vec![place("signature-input"), place("signature")],
        proof: Proof::Signature(Arc::new(rules)),
        forwards: value(&table.forward_credentials)?,
        headers,
    })
}

/// Whole other ways, beside one.
fn beside(table: &identity_keys::Auth, way: &str, sink: &mut Sink<'_>) {
    let others = [
        ("basic", table.basic.as_ref().map(|key| key.span.start)),
        ("mtls", table.mtls.as_ref().filter(|key| key.value).map(|key| key.span.start)),
        ("signature", table.signature.as_ref().map(|key| key.span.start)),
    ];
    for (key, start) in others.into_iter().filter(|(key, _)| *key != way).filter_map(|(key, at)| Some((key, at?))) {
        let message = format!("{way} stands there too; must be one of the two");
        sink.place(table.at.key(key), start, message, None);
    }
}

/// Keys of other ways, beside one that has its own.
fn only_one(table: &identity_keys::Auth, way: &str, why: &str, sink: &mut Sink<'_>) {
    let others = [
        ("header", table.header.as_ref().map(|key| key.span.clone())),
        ("scheme", table.scheme.as_ref().map(|key| key.span.clone())),
        ("query", table.query.as_ref().map(|key| key.span.clone())),
        ("cookie", table.cookie.as_ref().map(|key| key.span.clone())),
        ("key", table.key.as_ref().map(|key| key.span.clone())),
        ("jwks", table.jwks.as_ref().map(|key| key.span.clone())),
        ("discovery", table.discovery.as_ref().filter(|key| key.value).map(|key| key.span.clone())),
    ];
    for (key, span) in others.into_iter().filter_map(|(key, span)| Some((key, span?))) {
        let message = format!("has no effect: {way} stands there too, {why}");
        sink.place(table.at.key(key), span.start, message, None);
    }
}

/// Somebody else decides.
fn forward_way(
    name: &str,
    (table, forward): (&identity_keys::Auth, &Written<identity_keys::Forward>),
    upstreams: &[&str],
    sink: &mut Sink<'_>,
) -> Option<Auth> {
    only_one(table, "forward", "and whoever is asked looks for himself", sink);
    beside(table, "forward", sink);
    only_tokens(table, sink);
    let forward = super::forward::forward(&forward.value, upstreams, sink)?;
    let headers = headers(&table.at, table.headers.as_ref()?, false, sink);
    for (name, _) in &table.headers.as_ref()?.value.0 {
        if forward.identity().any(|told| *told == name.value.0) {
            let message = format!("{}: what the service says stands in it", name.value.0);
            sink.place(table.at.key("headers"), name.span.start, message, None);
        }
    }
    let forwards = value(&table.forward_credentials)?;
    if let Some(key) = table.forward_credentials.as_ref().filter(|key| key.given) {
        let message = "has no effect: what the service decides by goes on as it came".to_owned();
        sink.value(table.at.key("forward_credentials"), key.span.clone(), message, None);
    }
    Some(Auth {
        name: name.to_owned(),
        places: Vec::new(),
        proof: Proof::Forward(Arc::new(forward)),
        forwards,
        headers,
    })
}

/// Keys that say something of tokens, where there are none.
fn only_tokens(table: &identity_keys::Auth, sink: &mut Sink<'_>) {
    let given = [
        ("algorithms", table.algorithms.as_ref().filter(|key| key.given).map(|key| key.span.clone())),
        ("issuer", table.issuer.as_ref().map(|key| key.span.clone())),
        ("audience", table.audience.as_ref().filter(|key| key.given).map(|key| key.span.clone())),
        ("tls", table.tls.as_ref().filter(|key| key.given).map(|key| key.span.clone())),
        ("leeway", table.leeway.as_ref().filter(|key| key.given).map(|key| key.span.clone())),
        ("types", table.types.as_ref().filter(|key| key.given).map(|key| key.span.clone())),
        ("consumer_claim", table.consumer_claim.as_ref().filter(|key| key.given).map(|key| key.span.clone())),
    ];
    if sink.reported(table.at.key("key")) || sink.reported(table.at.key("jwks")) {
        return;
    }
    for (name, span) in given.into_iter().filter_map(|(name, span)| Some((name, span?))) {
        let message =
            "has no effect: it is about tokens, and there is no key, jwks or discovery to verify them with".to_owned();
        sink.value(table.at.key(name), span, message, None);
    }
}

/// Why the gateway cannot say in this header who was recognised.
pub(super) fn unfit(header: &HeaderName) -> Option<&'static str> {
    match header.as_str() {
        "host" | "cookie" | "authorization" | "via" | "date" => Some("the gateway cannot say in it who was recognised"),
        other if other.starts_with("x-forwarded-") => Some("the gateway says other things in it"),
        _ => None,
    }
}

type HeadersMap<const MAX: usize> = Map<super::names::EditableHeader, IdentityText, MAX>;

fn headers<const MAX: usize>(
    at: &Place,
    map: &Written<HeadersMap<MAX>>,
    has_claims: bool,
    sink: &mut Sink<'_>,
) -> Vec<(HeaderName, IdentityText)> {
    let mut headers: Vec<(HeaderName, _)> = Vec::new();
    for (name, text) in &map.value.0 {
        let header = &name.value.0;
        let message = match unfit(header) {
            Some(why) => why,
            None if !has_claims && matches!(text.value, IdentityText::Claim(_)) => {
                "only tokens claim anything, and there is none"
            }
            None if headers.iter().any(|(other, _)| other == header) => "stands there twice",
            None => {
                headers.push((header.clone(), text.value.clone()));
                continue;
            }
        };
        sink.place(at.key("headers"), name.span.start, format!("{header}: {message}"), None);
    }
    headers
}

/// Reads `auth`, `limit`, `allow` and `deny`.
pub(super) struct AccessReader<'a> {
    ways: FxHashMap<&'a str, AuthId>,
    names: Vec<&'a str>,
    /// Files of networks that have been read: routes may share one.
    lists: FxHashMap<PathBuf, Option<NetworkFile>>,
    pub(super) limits: SharedLimits<'a>,
}

impl<'a> AccessReader<'a> {
    pub(super) fn new(file: &'a file::File, sink: &mut Sink<'_>) -> Self {
        let names: Vec<_> =
            file.auth.iter().flat_map(|map| &map.value.0).map(|(name, _)| name.value.0.as_str()).collect();
        let ways = names.iter().enumerate().map(|(row, name)| (*name, AuthId::from_index(row))).collect();
        Self { ways, names, lists: FxHashMap::default(), limits: SharedLimits::new(file, sink) }
    }

    /// `auth` of a route or listener; names that are none are reported.
    pub(super) fn ways<const MIN: usize, const MAX: usize>(
        &self,
        path: KeyOf<'_>,
        list: &Written<List<Name, MIN, MAX>>,
        sink: &mut Sink<'_>,
    ) -> Vec<AuthId> {
        let mut ids: Vec<AuthId> = Vec::with_capacity(list.value.0.len());
        for (row, name) in list.value.0.iter().enumerate() {
            match self.ways.get(name.value.0.as_str()) {
                Some(id) if ids.contains(id) => {
                    sink.value(format!("{path}[{row}]"), name.span.clone(), "stands there twice".to_owned(), None);
                }
                Some(id) => ids.push(*id),
                None => {
                    let message = match self.names.as_slice() {
                        [] => "there is no such way to be recognised, nor any other".to_owned(),
                        names => format!("there is no such way to be recognised; there are: {}", listed(names)),
                    };
                    let near = sink.did_you_mean(&name.value.0, &self.names);
                    let help = near.or_else(|| Some(format!("add [auth.{}]", name.value.0)));
                    sink.value(format!("{path}[{row}]"), name.span.clone(), message, help);
                }
            }
        }
        ids
    }

    /// `allow` and `deny`; `None` if something was reported.
    pub(super) fn access(
        &mut self,
        allow: Option<&Written<Rules>>,
        deny: Option<&Written<Rules>>,
        sink: &mut Sink<'_>,
    ) -> Option<Access> {
        let mut rules = |written: Option<&Written<Rules>>| -> Option<Vec<Rule>> {
            let tables = written.map_or(&[][..], |written| &written.value.0);
            let rules: Vec<_> = tables.iter().filter_map(|table| self.rule(&table.value, sink)).collect();
            (rules.len() == tables.len()).then_some(rules)
        };
        let (allow_rules, deny) = (rules(allow), rules(deny));
        if let (Some(rules), Some(written)) = (&allow_rules, allow)
            && rules.iter().any(|rule| rule.dry_run != rules[0].dry_run)
        {
            let message = "either all rules of allow have dry_run or none: they decide together".to_owned();
            sink.place(written.value.0[0].value.at.key("dry_run"), written.span.start, message, None);
        }
        Some(Access { allow: allow_rules?, deny: deny? })
    }

    fn rule(&mut self, table: &identity_keys::Rule, sink: &mut Sink<'_>) -> Option<Rule> {
        let names = |list: &Written<List<Name, 0, { crate::limits::ENTRIES_MAX }>>| -> Vec<String> {
            list.value.0.iter().map(|name| name.value.0.clone()).collect()
        };
        let listed: Vec<IpNet> = table.client_ip.as_ref()?.value.0.iter().map(|network| network.value.0).collect();
        let file = match &table.client_ip_file {
            None => None,
            Some(path) => Some(self.list(table.at.key("client_ip_file"), path, sink)?),
        };
        let has_networks = table.client_ip.as_ref().is_some_and(|list| list.given) || file.is_some();
        let rule = Rule {
            consumers: names(table.consumer.as_ref()?),
            groups: names(table.group.as_ref()?),
            claims: (table.claim.as_ref()?.value.0.iter())
                .map(|(name, test)| (name.value.0.clone(), test.value.0.clone()))
                .collect(),
            networks: has_networks.then_some(Networks { listed, file }),
            methods: table.method.as_ref()?.value.0.iter().map(|method| method.value.0.clone()).collect(),
            dry_run: value(&table.dry_run)?,
        };
        if !rule.is_about_identity() && rule.networks.is_none() && rule.methods.is_empty() {
            let message =
                "missing: at least one of consumer, group, claim, client_ip, client_ip_file, method".to_owned();
            sink.place(&table.at.path, table.at.offset, message, None);
        }
        Some(rule)
    }

    fn list(&mut self, key: KeyOf<'_>, path: &Written<FilePath>, sink: &mut Sink<'_>) -> Option<NetworkFile> {
        if let Some(known) = self.lists.get(&path.value.0) {
            return known.clone();
        }
        let read = text_of(&path.value.0, NETWORKS_FILE_BYTES_MAX, sink).and_then(|text| {
            let networks = networks(&text)?;
            Ok(NetworkFile { path: path.value.0.clone(), networks, fingerprint: fingerprint(text.as_bytes()) })
        });
        let list = read.map_err(|why| sink.value(key, path.span.clone(), why, None)).ok();
        self.lists.insert(path.value.0.clone(), list.clone());
        list
    }
}

/// A network or an address a line, with remarks behind `#`.
fn networks(text: &str) -> Result<Arc<[IpNet]>, String> {
    let mut networks = Vec::new();
    for (row, line) in text.lines().enumerate() {
        let written = line.split('#').next().unwrap_or_default().trim();
        if written.is_empty() {
            continue;
        }
        let network = written.parse().or_else(|_| written.parse::<IpAddr>().map(IpNet::from)).ok();
        let network = network.filter(|network: &IpNet| network.trunc() == *network);
        let refused = || {
            let shown: String = written.chars().take(60).collect();
            format!("line {} of the file: {shown:?} is no network or address, such as 10.0.0.0/8 or 192.0.2.7", row + 1)
        };
        networks.push(network.ok_or_else(refused)?);
        if networks.len() > NETWORKS_MAX {
            return Err(format!("the file has more than {NETWORKS_MAX} networks"));
        }
    }
    Ok(networks.into())
}

/// Says which headers of clients go no further: those in which the gateway says who was recognised, and those that credentials stood in.
pub(super) fn strip(routes: &mut [Route], listeners: &[Listener], auth: &[Auth]) {
    if auth.is_empty() {
        return;
    }
    let identity: FxHashSet<_> = auth.iter().flat_map(Auth::identity).cloned().collect();
    let mut known: FxHashMap<Vec<AuthId>, Arc<[HeaderName]>> = FxHashMap::default();
    for route in routes {
        let ways = match &route.auth {
            Some(ways) => ways.clone(),
            None => listeners.iter().flat_map(|listener| &listener.auth).copied().collect(),
        };
        let of_ways = |ways: &[AuthId]| {
            let shown = ways.iter().map(|id| &auth[id.index()]).filter(|way| !way.forwards);
            let shown = shown.flat_map(|way| &way.places).filter_map(|place| match place {
                KeyPlace::Header(name, _) => Some(name.clone()),
                KeyPlace::Cookie(_) => Some(http::header::COOKIE),
                KeyPlace::Query(_) => None,
            });
            let names: FxHashSet<_> = shown.chain(identity.iter().cloned()).collect();
            names.into_iter().collect()
        };
        let strip = known.entry(ways).or_insert_with_key(|ways| of_ways(ways));
        route.request_headers.strip = Arc::clone(strip);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_has_a_network_a_line_and_says_where_it_has_none() {
        let list = networks("# blocked\n10.0.0.0/8\n\n192.0.2.7 # one\r\n2001:db8::/32\n").unwrap();
        assert_eq!(
            list.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["10.0.0.0/8", "192.0.2.7/32", "2001:db8::/32"]
        );
        assert!(networks("10.0.0.0/8\n10.0.0.1/8\n").unwrap_err().starts_with("line 2 of the file: \"10.0.0.1/8\""));
        assert!(networks("a.example\n").is_err());
    }
}
